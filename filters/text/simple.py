"""Sizes of a text: batch scores by Arrow compute, one line each."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

import curation as c


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Int32Array:
    """Code points."""
    return pc.utf8_length(text)


@c.score(batch=True)
def n_bytes(text: pa.StringArray) -> pa.Int32Array:
    """UTF-8 bytes."""
    return pc.binary_length(text)


@c.score(batch=True)
def n_lines(text: pa.StringArray) -> pa.Int32Array:
    """Newlines plus one."""
    return pc.add(pc.count_substring(text, "\n"), pa.scalar(1, pa.int32()))
