"""Gopher quality, Gopher repetition, FineWeb and C4 in one call, every score kept.

The first three share one scan of the text; C4, which looks at characters and not at words, is a second. The
numbers are those of the separate steps, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

import curation as c
from filters.text.c4 import C4_TYPE, c4_scores
from filters.text.fineweb import STOP_CHARS
from filters.text.gopher import STOP_WORDS
from filters.text.scan import FAMILIES, check_words, scan_scores, source_of_rules
from filters.text.sources import identity_with


def text_scores(
    text: pa.Array | pa.ChunkedArray,
    *,
    words: str | pa.ListArray = "unicode",
    stop_words: tuple[str, ...] = STOP_WORDS,
    symbols: str | None = None,
    stop_chars: str = STOP_CHARS,
    short_line_chars: int = 30,
    sentences: pa.Array | None = None,
    remove_citations: bool = True,
    filter_no_terminal_punct: bool = True,
    min_words_per_line: int = 3,
    max_word_length: int = 1000,
    filter_javascript: bool = True,
    filter_policy: bool = True,
) -> dict[str, pa.StructArray]:
    """Columns ``gopher``, ``repetition``, ``fineweb`` and ``c4`` of a string column; null text gives null.

    Parameters and errors are those of ``gopher_scores``, ``fineweb_scores`` and ``c4_scores``.
    """
    return scan_scores(
        text,
        tuple(FAMILIES),
        words=words,
        stop_words=tuple(stop_words),
        symbols=symbols,
        stop_chars=stop_chars,
        short_line_chars=short_line_chars,
    ) | c4_scores(
        text,
        sentences=sentences,
        remove_citations=remove_citations,
        filter_no_terminal_punct=filter_no_terminal_punct,
        min_words_per_line=min_words_per_line,
        max_word_length=max_word_length,
        filter_javascript=filter_javascript,
        filter_policy=filter_policy,
    )


@dataclass(frozen=True)
class Heuristics(c.Model):
    """All four families at once: struct columns ``gopher``, ``repetition``, ``fineweb`` and ``c4``.

    For annotating a pool, or for choosing thresholds afterwards. All four look at the text as it comes: a
    recipe that edits lines between two families (FineWeb does) uses the separate steps.
    """

    words: str = "unicode"
    stop_words: tuple[str, ...] = STOP_WORDS
    stop_chars: str = STOP_CHARS
    short_line_chars: int = 30
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_javascript: bool = True
    filter_policy: bool = True
    inputs = ("text",)
    outputs = {**dict(FAMILIES.values()), "c4": C4_TYPE}
    uses = ("filters.text.c4", "filters.text.gopher", "filters.text.fineweb")
    identity = identity_with(source_of_rules)

    def __post_init__(self) -> None:
        check_words(self.words)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return dict(text_scores(batch.column("text"), **self.parameters()))


heuristics = Heuristics
