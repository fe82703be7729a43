"""Gopher (MassiveText) quality and repetition: every score kept, and the published rules as ready-made keeps.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
(arXiv 2112.11446), appendix A1.1 and table A1. Where the paper leaves a choice open, the choice is
datatrove's (the code behind FineWeb), so that its decisions are reproduced when its words are given:

* ratios over words divide by ``n_tokens``, all words as cut; ``n_words`` and ``mean_word_length`` look only
  at those that hold a letter, mark or number (different where punctuation marks are words of their own);
* ``n_stop_words`` counts *distinct* stop words, compared as written ("The" is not "the");
* the first copy of a line, paragraph or n-gram is not a duplicate; fractions divide by the code points of the
  whole text, white space included; when two n-grams are equally frequent the earlier one is "the top";
* duplicate n-grams (5 … 10) are walked left to right: one met before adds its characters and is stepped over.

One deviation: two n-grams are equal when their words are equal one by one; datatrove compares the words
joined without a space, so that "a bc" would equal "ab c".
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

import curation as c
from filters.text.scan import QUALITY_TYPE, REPETITION_TYPE, check_words, scan_scores, source_of_rules
from filters.text.sources import identity_with

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def gopher_scores(
    text: pa.Array | pa.ChunkedArray,
    *,
    words: str | pa.ListArray = "unicode",
    stop_words: tuple[str, ...] = STOP_WORDS,
    quality: bool = True,
    repetition: bool = True,
    symbols: str | None = None,
) -> dict[str, pa.StructArray]:
    """Score a string column: ``{"gopher": …, "repetition": …}``, one struct a row; null text gives null.

    ``words`` says what a word is:

    * ``"unicode"`` (default): runs of letters, marks and digits, with an apostrophe inside (don't) or a point
      or comma between digits (3.14); each character of scripts written without spaces; see ``codepoints``;
    * ``"tokens"``: the same, and each run of one punctuation mark or symbol is a word too. That is close to
      what datatrove's default tokeniser (spaCy) gives; it makes the rule on words with a letter strict;
    * ``"whitespace"``: as ``str.split``;
    * a list<string> column: the words of each row, whoever cut them.

    ``symbols``: characters that alone do not make a word (default: all but letters, marks and numbers).

    Raises TypeError for a column that is not text, ValueError for an unknown ``words``.
    """
    families = ("quality",) * quality + ("repetition",) * repetition
    return scan_scores(text, families, words=words, stop_words=stop_words, symbols=symbols)


@dataclass(frozen=True)
class Gopher(c.Model):
    """Score both families in one pass over the text: struct columns ``gopher`` and ``repetition``."""

    words: str = "unicode"
    stop_words: tuple[str, ...] = STOP_WORDS
    inputs = ("text",)
    outputs = {"gopher": QUALITY_TYPE, "repetition": REPETITION_TYPE}
    identity = identity_with(source_of_rules)

    def __post_init__(self) -> None:
        check_words(self.words)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return dict(gopher_scores(batch.column("text"), words=self.words, stop_words=tuple(self.stop_words)))


@dataclass(frozen=True)
class GopherQuality(c.Model):
    """Score the quality family: struct column ``gopher``."""

    words: str = "unicode"
    stop_words: tuple[str, ...] = STOP_WORDS
    inputs = ("text",)
    outputs = {"gopher": QUALITY_TYPE}
    identity = identity_with(source_of_rules)

    def __post_init__(self) -> None:
        check_words(self.words)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        text, stop_words = batch.column("text"), tuple(self.stop_words)
        return dict(gopher_scores(text, words=self.words, stop_words=stop_words, repetition=False))


@dataclass(frozen=True)
class GopherRepetition(c.Model):
    """Score the repetition family: struct column ``repetition``."""

    words: str = "unicode"
    inputs = ("text",)
    outputs = {"repetition": REPETITION_TYPE}
    identity = identity_with(source_of_rules)

    def __post_init__(self) -> None:
        check_words(self.words)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return dict(gopher_scores(batch.column("text"), words=self.words, quality=False))


gopher = Gopher
gopher_quality = GopherQuality
gopher_repetition = GopherRepetition


def gopher_quality_rules(
    min_words: int = 50,
    max_words: int = 100_000,
    min_mean_word_length: float = 3,
    max_mean_word_length: float = 10,
    max_symbol_ratio: float = 0.1,
    max_bullet_lines: float = 0.9,
    max_ellipsis_lines: float = 0.3,
    min_alpha_words: float = 0.8,
    min_stop_words: int = 2,
) -> list[c.Keep]:
    """The published quality rules over column ``gopher``; every bound is inclusive."""
    return [
        c.keep(f"gopher.n_words >= {min_words!r}", reason="gopher: too few words"),
        c.keep(f"gopher.n_words <= {max_words!r}", reason="gopher: too many words"),
        c.keep(f"gopher.mean_word_length >= {min_mean_word_length!r}", reason="gopher: words too short"),
        c.keep(f"gopher.mean_word_length <= {max_mean_word_length!r}", reason="gopher: words too long"),
        c.keep(f"gopher.hash_ratio <= {max_symbol_ratio!r}", reason="gopher: too many hashes"),
        c.keep(f"gopher.ellipsis_ratio <= {max_symbol_ratio!r}", reason="gopher: too many ellipses"),
        c.keep(f"gopher.bullet_line_ratio <= {max_bullet_lines!r}", reason="gopher: too many bullet lines"),
        c.keep(f"gopher.ellipsis_line_ratio <= {max_ellipsis_lines!r}", reason="gopher: too many cut lines"),
        c.keep(
            f"gopher.alpha_word_ratio >= {min_alpha_words!r}", reason="gopher: too few words with a letter"
        ),
        c.keep(f"gopher.n_stop_words >= {min_stop_words!r}", reason="gopher: too few stop words"),
    ]


def gopher_repetition_rules(
    dup_para_frac: float = 0.30,
    dup_para_char_frac: float = 0.20,
    dup_line_frac: float = 0.30,
    dup_line_char_frac: float = 0.20,
    top_n_grams: tuple[float, ...] = (0.20, 0.18, 0.16),
    dup_n_grams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
) -> list[c.Keep]:
    """The published repetition rules over column ``repetition``; every bound is inclusive.

    ``top_n_grams``: bounds for n = 2, 3, 4; ``dup_n_grams``: for n = 5 … 10 (a shorter tuple checks fewer n).
    """
    fixed = {
        "dup_para_frac": (dup_para_frac, "repeated paragraphs"),
        "dup_para_char_frac": (dup_para_char_frac, "text in repeated paragraphs"),
        "dup_line_frac": (dup_line_frac, "repeated lines"),
        "dup_line_char_frac": (dup_line_char_frac, "text in repeated lines"),
    }
    top = {
        f"top_{n}_gram": (bound, f"top {n}-gram") for n, bound in zip((2, 3, 4), top_n_grams, strict=False)
    }
    dup = {
        f"dup_{n}_gram": (bound, f"repeated {n}-grams")
        for n, bound in zip((5, 6, 7, 8, 9, 10), dup_n_grams, strict=False)
    }
    return [
        c.keep("repetition.n_chars > 0", reason="empty text"),
        *(
            c.keep(f"repetition.{name} <= {bound!r}", reason=f"repetition: {reason}")
            for name, (bound, reason) in (fixed | top | dup).items()
        ),
    ]
