"""Repetition as DCLM measures it: struct column ``dclm_repetition``.

Source: DCLM (Li et al. 2024, arXiv 2406.11794), massive_web_repetition_filters: the table of Gopher (Rae et
al. 2021), with counting of its own. It differs from ``filters.text.gopher_repetition`` in this:

* a unit that occurs twice counts with **all** its copies, the first one too;
* lines (``\\n``) and paragraphs (two ``\\n``) are stripped and blank ones left out; fractions of characters
  divide by the characters of those units; a page of one unit scores 0;
* words are the segments of UAX #29 that begin with an alphanumeric character, and fractions over n-grams
  divide by the characters of words: neither white space nor punctuation counts;
* ``top_n_gram``: n-gram length times count for the most frequent one; of several the longest. 0 when no
  n-gram repeats;
* ``dup_n_gram``: each word that any repeated n-gram covers counts once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import curation as c
from filters.text.buffers import utf8
from filters.text.columns import one_array, struct_array, struct_type
from filters.text.dclm import classes
from filters.text.dclm.scores import USES

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
REPETITION_TYPE = struct_type(
    (
        "n_lines", "n_paragraphs", "n_words",
        "dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac",
        *(f"top_{n}_gram" for n in TOP_SIZES),
        *(f"dup_{n}_gram" for n in DUPLICATE_SIZES),
    )
)  # fmt: skip


def score_dclm_repetition(text: pa.Array | pa.ChunkedArray) -> pa.StructArray:
    """Score a string column; null text gives null. TypeError for a column that is not text."""
    from filters.text.dclm import kernels

    text = one_array(text)
    column, table = utf8(text), classes.load()
    rows = np.empty((len(text), len(kernels.REPETITION)))
    kernels.repetition(column.data, column.offsets, table.pages, table.classes, rows)
    return struct_array(rows.T, REPETITION_TYPE, text)


@dataclass(frozen=True)
class DclmRepetition(c.Model):
    """DCLM's repetition fractions, one struct column named ``output``; see the module for each field."""

    output: str = "dclm_repetition"
    inputs = ("text",)
    uses = USES

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.output: REPETITION_TYPE}

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return {self.output: score_dclm_repetition(batch.column("text"))}


dclm_repetition = DclmRepetition


def dclm_repetition_rules(
    dup_line_frac: float = 0.30,
    dup_para_frac: float = 0.30,
    dup_line_char_frac: float = 0.20,
    dup_para_char_frac: float = 0.20,
    top_n_grams: tuple[float, ...] = (0.20, 0.18, 0.16),
    dup_n_grams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
    skip_paragraph: bool = False,
    column: str = "dclm_repetition",
) -> list[c.Keep]:
    """Step 16 of dclm_baseline_refinedweb.yaml, in its order; every bound is inclusive. Blank pages leave.

    ``top_n_grams``: bounds for n = 2, 3, 4; ``dup_n_grams``: for n = 5 … 10 (a shorter tuple checks fewer n).
    ``skip_paragraph``: no rule on paragraphs, for text whose blank lines mean nothing.
    """
    bounds = [
        ("dup_line_frac", dup_line_frac, "repeated lines"),
        ("dup_para_frac", dup_para_frac, "repeated paragraphs"),
        ("dup_line_char_frac", dup_line_char_frac, "text in repeated lines"),
        ("dup_para_char_frac", dup_para_char_frac, "text in repeated paragraphs"),
        *((f"top_{n}_gram", b, f"top {n}-gram") for n, b in zip(TOP_SIZES, top_n_grams, strict=False)),
        *(
            (f"dup_{n}_gram", b, f"repeated {n}-grams")
            for n, b in zip(DUPLICATE_SIZES, dup_n_grams, strict=False)
        ),
    ]
    return [
        c.keep(f"{column}.n_lines > 0", reason="dclm repetition: empty page"),
        *(
            c.keep(f"{column}.{name} <= {bound!r}", reason=f"dclm repetition: {reason}")
            for name, bound, reason in bounds
            if not (skip_paragraph and "para" in name)
        ),
    ]
