"""The counts behind DCLM's page filters, from one compiled pass: struct column ``dclm``.

Source: DCLM (Li et al. 2024, arXiv 2406.11794), the mappers of dclm_baseline_refinedweb.yaml. Two kinds of
words are counted, because its filters do:

* ``n_words``: as fastText's reader cuts them (at ASCII white space and NUL), if their first character is
  alphanumeric. For page length and for the share of words removed.
* ``n_tokens``: as ``str.split`` cuts them. For every ratio over words, mean length and stop words.

Lines are runs without ``\\n``, white space stripped, blank ones left out. ``n_symbols`` adds up
non-overlapping '#', '...', '. . .' and '…'. A bullet line begins with ●, •, * or -; an ellipsis line ends in
'...', '. . .' or '…'. Stop words are compared with whole tokens, ASCII letters lower-cased: "the," is none.
Ratios over nothing are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import curation as c
from filters.text.buffers import SHARED, utf8
from filters.text.columns import one_array, struct_array, struct_type
from filters.text.dclm import classes

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
SCORES = (
    "n_chars", "n_words", "n_tokens", "n_lines", "n_symbols", "n_stop_words", "n_unique_stop_words",
    "mean_word_length", "symbol_ratio", "bullet_line_ratio", "ellipsis_line_ratio", "non_alpha_word_ratio",
)  # fmt: skip
SCORES_TYPE = struct_type(SCORES)
USES = (
    "filters.text.dclm.kernels", "filters.text.dclm.classes",
    "filters.text.codepoints", *SHARED,
)  # fmt: skip


def score_dclm(text: pa.Array | pa.ChunkedArray, stop_words: tuple[str, ...] = STOP_WORDS) -> pa.StructArray:
    """Score a string column; null text gives null. TypeError for a column that is not text."""
    from filters.text.dclm import kernels

    text = one_array(text)
    column, table = utf8(text), classes.load()
    rows = np.empty((len(text), len(kernels.SCORES)))
    stops, longest = _stop_table(stop_words)
    kernels.scores(column.data, column.offsets, table.pages, table.classes, stops, longest, rows)
    return struct_array(rows.T, SCORES_TYPE, text)


def _stop_table(stop_words: tuple[str, ...]) -> tuple[np.ndarray, int]:
    from filters.text.dclm import kernels
    from filters.text.hash_kernels import STEP

    size = 1 << kernels.STOP_BITS
    words = sorted({word.lower() for word in stop_words})
    for word in words:
        if not word.isascii() or not word.isalpha() or len(word) > 8:
            raise ValueError(f"stop word {word!r}: one to eight ASCII letters, as DCLM's are")
    if len(words) > size // 2:
        raise ValueError(f"{len(words)} stop words; at most {size // 2}")
    slots = np.zeros(size, np.uint64)
    for word in words:
        key = int.from_bytes(word.encode(), "big")
        slot = (key * int(STEP) % (1 << 64)) >> (64 - kernels.STOP_BITS)
        while slots[slot]:
            slot = (slot + 1) % size
        slots[slot] = key
    return slots, max(map(len, words), default=0)


@dataclass(frozen=True)
class DclmScores(c.Model):
    """DCLM's page counts and ratios, one struct column named ``output``; see the module for each field."""

    stop_words: tuple[str, ...] = STOP_WORDS
    output: str = "dclm"
    inputs = ("text",)
    uses = USES

    def __post_init__(self) -> None:
        _stop_table(tuple(self.stop_words))

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.output: SCORES_TYPE}

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return {self.output: score_dclm(batch.column("text"), tuple(self.stop_words))}


dclm_scores = DclmScores


def dclm_rules(
    min_words: int = 50,
    max_words: int = 100_000,
    min_mean_word_length: float = 3,
    max_mean_word_length: float = 10,
    max_symbol_ratio: float = 0.1,
    max_bullet_lines: float = 0.9,
    max_ellipsis_lines: float = 0.3,
    max_non_alpha_words: float = 0.2,
    min_stop_words: int = 2,
    unique_stop_words: bool = False,
    column: str = "dclm",
) -> list[c.Keep]:
    """Steps 9 to 15 of dclm_baseline_refinedweb.yaml, in its order; every bound is inclusive."""
    from filters.text.dclm import named

    return [
        *named.page_length_filter("word", min_words, max_words, ignore_punctuation=True, column=column),
        *named.word_length_filter(min_mean_word_length, max_mean_word_length, column=column),
        *named.symbol_ratio_filter(max_symbol_ratio, column=column),
        *named.bullet_count_filter(max_bullet_lines, column=column),
        *named.ellipsis_count_filter(max_ellipsis_lines, column=column),
        *named.alphabetic_word_ratio_filter(max_non_alpha_words, column=column),
        *named.stop_word_filter(unique_stop_words, min_stop_words, column=column),
    ]
