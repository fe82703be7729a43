"""DCLM's line and text modifiers outside its baseline: C4's line rules, citations, repeats within a page,
lines as lists. Everything is Arrow compute over all lines of a batch at once.

As in DCLM a page of which nothing is left is dropped, with the modifier's name as the reason; so is a null
text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.apply import replace_columns
from curation.errors import PlanError
from curation.hashing import hash128
from filters.text.buffers import SHARED
from filters.text.dclm.mappers import SPACE, WORD_MODELS, lower, measures, one_of

_MEASURES = (
    "filters.text.dclm.mappers", "filters.text.dclm.mappers_kernels", "filters.text.dclm.classes", *SHARED,
)  # fmt: skip


def kept_lines(lists: pa.Array, keep: np.ndarray, separator: str = "\n") -> pa.Array:
    """Texts of the lines chosen by ``keep`` (bool, one for each line of the whole column)."""
    return pc.binary_join(filtered_lists(lists, keep), separator)


def filtered_lists(lists: pa.Array, keep: np.ndarray) -> pa.ListArray:
    """Each list without the items that ``keep`` (bool, over all items of the column) leaves out."""
    rows = np.asarray(pc.list_parent_indices(lists))
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(np.bincount(rows[keep], minlength=len(lists)), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pc.list_flatten(lists).filter(pa.array(keep)))


def with_text(batch: pa.RecordBatch, text: pa.Array) -> tuple[pa.RecordBatch, np.ndarray]:
    """The batch with its new text, without rows that have none left; and where each row came from."""
    rows = np.flatnonzero(np.asarray(pc.fill_null(pc.not_equal(text, ""), False)))
    out = replace_columns(batch, text=text)
    return (out if len(rows) == len(text) else out.take(pa.array(rows))), rows.astype(np.int64)


@dataclass(frozen=True)
class PunctuationLineModifier(c.Transform):
    """Keep lines that end, white space aside, in ``. ! ? " …``, and empty lines. ``remove_ellipses``: not
    those that end in ``...`` or ``…`` (C4 asks for that)."""

    remove_ellipses: bool = False
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = ("filters.text.dclm.mappers",)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        lists = pc.split_pattern(batch.column("text"), "\n")
        lines = pc.list_flatten(lists)
        ends = pc.utf8_rtrim(lines, characters=SPACE)
        good = pc.or_(pc.match_substring_regex(ends, '[.!?"…]$'), pc.equal(lines, ""))
        if self.remove_ellipses:
            good = pc.and_not(good, pc.or_(pc.ends_with(ends, "..."), pc.ends_with(ends, "…")))
        return with_text(batch, kept_lines(lists, np.asarray(good)))


@dataclass(frozen=True)
class WordLengthModifier(c.Transform):
    """Drop lines that hold a word of more than ``max_length`` characters. ``model`` cuts words:
    ``fasttext`` (at ASCII white space) or ``split`` (as ``str.split``)."""

    max_length: int = 1000
    model: str = "fasttext"
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = _MEASURES

    def __post_init__(self) -> None:
        one_of("model", self.model, WORD_MODELS)
        if self.model == "uniseg":
            raise PlanError(
                "word_length_modifier: words of model 'uniseg' are not measured; take 'split' or 'fasttext'"
            )

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        lists = pc.split_pattern(batch.column("text"), "\n")
        found = measures(pc.list_flatten(lists))
        longest = found["longest_word" if self.model == "split" else "longest_token"]
        return with_text(batch, kept_lines(lists, longest <= self.max_length))


@dataclass(frozen=True)
class CitationRemovalModifier(c.Transform):
    """Remove Wikipedia's marks: [1] (any number or none), [edit], [citation needed]."""

    inputs = ("text",)
    outputs = {"text": pa.string()}

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        marks = r"\[\p{Nd}*\]|\[edit\]|\[citation needed\]"
        return with_text(batch, pc.replace_substring_regex(batch.column("text"), marks, ""))


@dataclass(frozen=True)
class WithinPageDedup(c.Transform):
    """Of equal lines (or paragraphs, between two newlines) of a page the first stays. ``normalize``: upper
    and lower case and outer white space do not count. Blank ones all stay; no page is dropped."""

    granularity: str = "line"
    normalize: bool = True
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = ("filters.text.dclm.mappers", "curation.hashing", "curation._hash_kernels")

    def __post_init__(self) -> None:
        one_of("granularity", self.granularity, ("line", "paragraph"))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column("text")
        separator = "\n" if self.granularity == "line" else "\n\n"
        lists = pc.split_pattern(text, separator)
        units = pc.list_flatten(lists)
        if self.normalize:
            units = lower(pc.utf8_trim(units, characters=SPACE))
        first, second = hash128(units)
        rows = np.asarray(pc.list_parent_indices(lists))
        order = np.lexsort((second, first, rows))  # stable: the first of equal ones comes first
        again = np.zeros(len(units), bool)
        ranked = [key[order] for key in (rows, first, second)]
        again[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in ranked])
        keep = np.empty(len(units), bool)
        keep[order] = ~again
        keep |= np.asarray(pc.equal(units, ""))
        joined = kept_lines(lists, keep, separator)
        return replace_columns(batch, text=pc.if_else(text.is_valid(), joined, pa.scalar(None, pa.string())))


@dataclass(frozen=True)
class SplitLinesModifier(c.Transform):
    """``text`` becomes a list of strings, cut at ``delimiter``: what ``exact_dedup(units=True)`` reads. A
    page whose text is empty is dropped; one that is a list already stays."""

    delimiter: str = "\n"
    inputs = ("text",)

    def __post_init__(self) -> None:
        if not self.delimiter:
            raise PlanError("split_lines_modifier: the delimiter is empty; it is a string such as '\\n'")

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        return {"text": pa.list_(pa.string())}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | tuple[pa.RecordBatch, np.ndarray]:
        text = batch.column("text")
        if pa.types.is_list(text.type):
            return batch
        rows = np.flatnonzero(np.asarray(pc.fill_null(pc.not_equal(text, ""), False)))
        out = replace_columns(batch, text=pc.split_pattern(text, self.delimiter))
        return out.take(pa.array(rows)), rows.astype(np.int64)


@dataclass(frozen=True)
class JoinLinesModifier(c.Transform):
    """``text`` as a list of strings becomes one string, with ``delimiter`` between them. An empty list
    drops the page; a text that is a string already stays."""

    delimiter: str = "\n"
    inputs = ("text",)

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        return {"text": pa.string()}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | tuple[pa.RecordBatch, np.ndarray]:
        text = batch.column("text")
        if not pa.types.is_list(text.type):
            return batch
        rows = np.flatnonzero(np.asarray(pc.fill_null(pc.greater(pc.list_value_length(text), 0), False)))
        out = replace_columns(batch, text=pc.binary_join(text, self.delimiter))
        return out.take(pa.array(rows)), rows.astype(np.int64)


punctuation_line_modifier = PunctuationLineModifier
word_length_modifier = WordLengthModifier
citation_removal_modifier = CitationRemovalModifier
within_page_dedup = WithinPageDedup
split_lines_modifier = SplitLinesModifier
join_lines_modifier = JoinLinesModifier
