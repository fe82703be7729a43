"""What text rules need to know of each language: stop words, and limits that fit its words.

Gopher's limits were set on English. A Finnish word is longer and a Chinese one (a character, to us) shorter,
so the same page would pass in one language and fail in another. `language_limits` turns the language of each
row into columns, rules compare columns with columns, and languages beside English need no plan of their own:

    filters.text:language → filters.text:language_limits → filters.text:gopher_multilingual → …_rules

Limits of a language = Gopher's × how its words differ from English in a text that exists in both (see
`fit_languages`). FineWeb2 (Penedo et al. 2025, arXiv 2506.20920) fits such a table from crawled text; yours
can be given as a file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

import curation as c
from curation.errors import suggest
from filters.text.gopher import gopher_scores
from filters.text.scan import QUALITY_TYPE, check_words, source_of_rules

TABLE = Path(__file__).with_name("languages.yaml")
STOP_WORDS = Path(__file__).with_name("stop_words.yaml")

LIMITS = pa.struct(
    [
        ("known", pa.bool_()),
        ("language_score", pa.float64()),
        ("min_words", pa.float64()),
        ("max_words", pa.float64()),
        ("min_word_length", pa.float64()),
        ("max_word_length", pa.float64()),
        ("min_alpha_words", pa.float64()),
        ("min_stop_words", pa.int64()),
    ]
)
_KEYS = frozenset({"words", "word_length", "stop_words", *(field.name for field in LIMITS)} - {"known"})


@dataclass(frozen=True)
class Parameters:
    """One language. Limits are inclusive; ``known`` is false for the entry that stands for all others."""

    known: bool = True
    language_score: float = 0.65
    min_words: float = 50
    max_words: float = 100_000
    min_word_length: float = 3
    max_word_length: float = 10
    min_alpha_words: float = 0.8
    min_stop_words: int = 2
    stop_words: tuple[str, ...] = ()


OTHERS = Parameters(known=False, min_word_length=0, max_word_length=1e9, min_stop_words=0)
"""Languages without an entry: only what holds in any script is asked of them."""


@functools.cache
def load(path: str | None = None) -> Mapping[str, Parameters]:
    """The table by ISO 639 code, as lid.176 names languages.

    An entry may give ``words`` and ``word_length`` (relative to English, from which limits follow),
    ``stop_words``, and any limit outright. Raises ValueError that names the entry and the key.
    """
    source = Path(path) if path else TABLE
    entries = yaml.safe_load(source.read_text(encoding="utf-8"))
    if not isinstance(entries, dict):
        raise ValueError(f"{source}: a language table is a mapping: `fr: {{stop_words: [...]}}`")
    return {str(name): _parameters(f"{source}: {name}", entry or {}) for name, entry in entries.items()}


def _parameters(where: str, entry: Any) -> Parameters:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a mapping of limits, got {entry!r}")
    for key in entry:
        if key not in _KEYS:
            raise ValueError(f"{where}: unknown key {key!r}; {suggest(str(key), sorted(_KEYS))}")
    words, length = float(entry.get("words", 1)), float(entry.get("word_length", 1))
    base = Parameters()
    made: dict[str, Any] = {
        "min_words": round(base.min_words * words),
        "max_words": round(base.max_words * words),
        "min_word_length": round(base.min_word_length * length, 2),
        "max_word_length": round(base.max_word_length * length, 2),
    }
    made |= {key: value for key, value in entry.items() if key not in ("words", "word_length", "stop_words")}
    stop_words = tuple(str(word) for word in entry.get("stop_words", ()))
    if not stop_words:
        made.setdefault("min_stop_words", 0)
    return Parameters(**made, stop_words=stop_words)


@dataclass(frozen=True)
class LanguageLimits(c.Model):
    """Struct column ``limits`` for the row's ``language``: see `Parameters`.

    ``table``: a YAML file like `languages.yaml` (None: ours). A language that the table does not know, and a
    null one, get `OTHERS`.
    """

    table: str | None = None
    inputs = ("language",)
    outputs = {"limits": LIMITS}

    @property
    def identity(self) -> Any:
        return [super().identity, _content(self.table)]

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        table = load(self.table)
        codes = batch.column("language").dictionary_encode()
        rows = [table.get(name, OTHERS) for name in codes.dictionary.to_pylist()] + [OTHERS]
        at = np.asarray(codes.indices.fill_null(len(rows) - 1)).astype(np.int64)
        columns = [
            pa.array(np.array([getattr(row, field.name) for row in rows])[at], field.type) for field in LIMITS
        ]
        return pa.StructArray.from_arrays(columns, fields=list(LIMITS))


@dataclass(frozen=True)
class GopherMultilingual(c.Model):
    """Gopher quality scores (struct ``gopher``) with the stop words of each row's ``language``.

    Everything else is as in `gopher_quality`; ``words="unicode"`` counts each character of scripts without
    spaces as a word, which the limits of those languages take into account.
    """

    words: str = "unicode"
    table: str | None = None
    inputs = ("text", "language")
    outputs = {"gopher": QUALITY_TYPE}
    uses = ("filters.text.gopher",)

    def __post_init__(self) -> None:
        check_words(self.words)

    @property
    def identity(self) -> Any:
        return [super().identity, _content(self.table), source_of_rules()]

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        table = load(self.table)
        codes = batch.column("language").dictionary_encode()
        stop_words = [table.get(name, OTHERS).stop_words for name in codes.dictionary.to_pylist()] + [()]
        at = np.asarray(codes.indices.fill_null(len(stop_words) - 1)).astype(np.int64)
        order = np.argsort(at, kind="stable")
        bounds = np.searchsorted(at[order], np.arange(len(stop_words) + 1))
        text = batch.column("text").take(pa.array(order))
        parts = [
            gopher_scores(
                text.slice(start, stop - start), words=self.words, stop_words=listed, repetition=False
            )["gopher"]
            for listed, start, stop in zip(stop_words, bounds[:-1], bounds[1:], strict=True)
            if stop > start
        ]
        if not parts:
            return pa.array([], QUALITY_TYPE)
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order, kind="stable")))


def _content(path: str | None) -> str:
    import xxhash

    return xxhash.xxh3_128((Path(path) if path else TABLE).read_bytes()).hexdigest()


language_limits = LanguageLimits
gopher_multilingual = GopherMultilingual


def multilingual_rules(max_symbol_ratio: float = 0.1, max_bullet_lines: float = 0.9,
                       max_ellipsis_lines: float = 0.3) -> list[c.Keep]:  # fmt: skip
    """Language certainty and Gopher quality, each row against the ``limits`` of its own language."""
    return [
        c.keep("language is not null", reason="language: none"),
        c.keep("language_score >= limits.language_score", reason="language: uncertain"),
        c.keep("gopher.n_words >= limits.min_words", reason="gopher: too few words"),
        c.keep("gopher.n_words <= limits.max_words", reason="gopher: too many words"),
        c.keep("gopher.mean_word_length >= limits.min_word_length", reason="gopher: words too short"),
        c.keep("gopher.mean_word_length <= limits.max_word_length", reason="gopher: words too long"),
        c.keep(f"gopher.hash_ratio <= {max_symbol_ratio!r}", reason="gopher: too many hashes"),
        c.keep(f"gopher.ellipsis_ratio <= {max_symbol_ratio!r}", reason="gopher: too many ellipses"),
        c.keep(f"gopher.bullet_line_ratio <= {max_bullet_lines!r}", reason="gopher: too many bullet lines"),
        c.keep(f"gopher.ellipsis_line_ratio <= {max_ellipsis_lines!r}", reason="gopher: too many cut lines"),
        c.keep("gopher.alpha_word_ratio >= limits.min_alpha_words",
               reason="gopher: too few words with a letter"),
        c.keep("gopher.n_stop_words >= limits.min_stop_words", reason="gopher: too few stop words"),
    ]  # fmt: skip
