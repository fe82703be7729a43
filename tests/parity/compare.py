"""Decisions of Winnow's rules beside those of datatrove's filters, on the same pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.expressions import evaluate
from filters.text.c4 import c4_edit, c4_rules
from filters.text.fineweb import fineweb_rules
from filters.text.gopher import gopher_quality_rules, gopher_repetition_rules
from filters.text.heuristics import text_scores

FAMILIES = ("gopher quality", "gopher repetition", "c4", "fineweb")
RULES = {
    "gopher quality": gopher_quality_rules(),
    "gopher repetition": gopher_repetition_rules(),
    "c4": c4_rules(),
    "fineweb": fineweb_rules(),
}

# our reason → datatrove's
REASONS = {
    "gopher: too few words": "gopher_short_doc",
    "gopher: too many words": "gopher_long_doc",
    "gopher: words too short": "gopher_below_avg_threshold",
    "gopher: words too long": "gopher_above_avg_threshold",
    "gopher: too many hashes": "gopher_too_many_hashes",
    "gopher: too many ellipses": "gopher_too_many_ellipsis",
    "gopher: too many bullet lines": "gopher_too_many_bullets",
    "gopher: too many cut lines": "gopher_too_many_end_ellipsis",
    "gopher: too few words with a letter": "gopher_below_alpha_threshold",
    "gopher: too few stop words": "gopher_enough_stop_words",
    "empty text": "empty",
    "repetition: repeated paragraphs": "dup_para_frac",
    "repetition: text in repeated paragraphs": "dup_para_char_frac",
    "repetition: repeated lines": "dup_line_frac",
    "repetition: text in repeated lines": "dup_line_char_frac",
    **{f"repetition: top {n}-gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"repetition: repeated {n}-grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "c4: lorem ipsum": "lorem_ipsum",
    "c4: curly bracket": "curly_bracket",
    "c4: too few sentences": "too_few_sentences",
    "fineweb: empty text": "empty",
    "fineweb: too few lines end in punctuation": "line_punct_ratio",
    "fineweb: too many short lines": "short_line_ratio",
    "fineweb: text in repeated lines": "char_dup_ratio",
    "fineweb: too many lines for its words": "list_ratio",
}


class Peer:
    """datatrove's four filters with their defaults, its words and its sentences. Raises ImportError."""

    def __init__(self) -> None:
        import spacy  # noqa: F401 (datatrove cuts English words and sentences by it)
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
            c4_filters,
        )
        from datatrove.utils.text import PUNCTUATION_SET, split_into_sentences, split_into_words

        self.filters = {
            "gopher quality": GopherQualityFilter(),
            "gopher repetition": GopherRepetitionFilter(),
            "c4": C4QualityFilter(),
            "fineweb": FineWebQualityFilter(),
        }
        self.words = split_into_words
        self.sentences = split_into_sentences
        self.symbols = "".join(sorted(PUNCTUATION_SET))
        self._c4_module = c4_filters

    def decide(self, text: str) -> tuple[dict[str, str | None], str, dict[str, int]]:
        """(reason of each family or None, the text as its C4 leaves it, sentences of each line counted)."""
        from datatrove.data import Document

        counted: dict[str, int] = {}

        def remembered(line: str, language: str) -> list[str]:
            parts = self.sentences(line, language)
            counted[line] = len(parts)
            return parts

        self._c4_module.split_into_sentences = remembered
        try:
            verdicts, left = {}, text
            for family, rule in self.filters.items():
                document = Document(text=text, id="")
                verdict = rule.filter(document)
                verdicts[family] = None if verdict is True else verdict[1]
                if family == "c4":
                    left = document.text
        finally:
            self._c4_module.split_into_sentences = self.sentences
        return verdicts, left, counted


@dataclass(frozen=True)
class Comparison:
    """Per page: the first reason of each family (None: kept), theirs and ours."""

    theirs: list[dict[str, str | None]]
    ours: dict[str, list[dict[str, str | None]]]  # by what cut the words and sentences
    scores: dict[str, list[dict[str, Any]]]  # column → our scores, given its words
    edited: list[tuple[str, str]]  # (theirs, ours) of pages that its C4 keeps

    def agreement(self, family: str, cut: str = "its words") -> float:
        same = [
            (t[family] is None) == (o[family] is None)
            for t, o in zip(self.theirs, self.ours[cut], strict=True)
        ]
        return sum(same) / len(same)

    def disagreements(self, family: str, cut: str = "its words") -> list[int]:
        rows = zip(self.theirs, self.ours[cut], strict=True)
        return [i for i, (t, o) in enumerate(rows) if (t[family] is None) != (o[family] is None)]

    def same_reasons(self, family: str, cut: str = "its words") -> float:
        same = [t[family] == o[family] for t, o in zip(self.theirs, self.ours[cut], strict=True)]
        return sum(same) / len(same)


def compare(texts: list[str], peer: Peer) -> Comparison:
    """Decide every text by all four families, by datatrove and by Winnow: given its words and sentences, and
    with Winnow's own words ("tokens", then "unicode") and sentences."""
    theirs, words, left, sentences = [], [], [], []
    column = pa.array(texts, pa.string())
    lines_left = c4_edit(column).to_pylist()
    for text, kept in zip(texts, lines_left, strict=True):
        verdicts, after, counted = peer.decide(text)
        theirs.append(verdicts)
        left.append(after)
        words.append(peer.words(text))  # cached by datatrove for the last few texts
        lines = kept.split("\n") if kept else []
        sentences.append(sum(counted.get(line) or len(peer.sentences(line)) for line in lines))
    given = text_scores(
        column,
        words=pa.array(words, pa.list_(pa.string())),
        symbols=peer.symbols,
        sentences=pa.array(sentences, pa.int64()),
    )
    ours = {"its words": _reasons(given)}
    for mode in ("tokens", "unicode"):
        ours[mode] = _reasons(text_scores(column, words=mode))
    edited = [
        (a, b) for a, b, verdicts in zip(left, lines_left, theirs, strict=True) if verdicts["c4"] is None
    ]
    return Comparison(theirs, ours, {k: v.to_pylist() for k, v in given.items()}, edited)


def _reasons(scores: dict[str, pa.StructArray]) -> list[dict[str, str | None]]:
    batch = pa.record_batch(scores)
    rows: list[dict[str, str | None]] = [dict.fromkeys(FAMILIES) for _ in range(len(batch))]
    for family, rules in RULES.items():
        for rule in rules:
            for row in (~evaluate(rule.where, batch)).nonzero()[0]:
                rows[row][family] = rows[row][family] or REASONS[rule.reason]
    return rows
