"""Arrow string columns as the plain numpy buffers that compiled kernels read. No text is copied."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

SHARED = (
    "filters.text.buffers", "filters.text.columns", "filters.text.utf8_kernels", "filters.text.hash_kernels",
    "filters.text.ngram_kernels",
)  # fmt: skip
"""Modules under every compiled text score: part of ``uses``, the identity of a step."""


class Utf8(NamedTuple):
    """String i is ``data[offsets[i]:offsets[i + 1]]``; a null is an empty string here."""

    data: np.ndarray  # uint8
    offsets: np.ndarray  # int64[n + 1]


def utf8(strings: pa.Array | pa.ChunkedArray) -> Utf8:
    """Buffers of a ``string``, ``large_string``, ``binary``, ``string_view`` or dictionary column.

    Raises TypeError for a column of any other type.
    """
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    kind = strings.type
    if pa.types.is_dictionary(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        strings = strings.cast(pa.large_string())
        kind = strings.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        width: type = np.int32
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        width = np.int64
    else:
        raise TypeError(f"text filters read a string column; this one is {kind}")
    if strings.null_count:  # Arrow lets a null span bytes; give it none
        strings = strings.fill_null("")
    _, starts, data = strings.buffers()
    n = len(strings)
    if n == 0 or starts is None or data is None:
        return Utf8(np.frombuffer(b"", np.uint8), np.zeros(n + 1, np.int64))
    offsets = np.frombuffer(starts, width)[strings.offset : strings.offset + n + 1].astype(np.int64)
    text = np.frombuffer(data, np.uint8)
    text.flags.writeable = False  # wherever Arrow's buffer comes from: kernels compile once, for one type
    return Utf8(text, offsets)
