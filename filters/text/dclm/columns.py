"""Between Arrow columns and compiled passes: struct columns from rows of numbers, text from edited bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

INT = pa.int64()
FLOAT = pa.float64()


def struct_type(names: tuple[str, ...]) -> pa.StructType:
    """A struct of numbers: names that begin with ``n_`` are whole."""
    return pa.struct([(name, INT if name.startswith("n_") else FLOAT) for name in names])


def struct_array(rows: np.ndarray, kind: pa.StructType, text: pa.Array) -> pa.StructArray:
    """``rows`` [n, fields] as a struct column that is null where ``text`` is."""
    columns = [
        pa.array(np.ascontiguousarray(rows[:, i]).astype(np.int64 if field.type == INT else np.float64))
        for i, field in enumerate(kind)
    ]
    mask = text.is_null() if text.null_count else None
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)


def one_array(text: pa.Array | pa.ChunkedArray) -> pa.Array:
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def strings(data: np.ndarray, offsets: np.ndarray, like: pa.Array) -> pa.Array:
    """A string column over ``data[offsets[i]:offsets[i + 1]]``, null where ``like`` is.

    Raises OverflowError past 2 GiB, which Arrow's ``string`` cannot hold: read in smaller batches.
    """
    total = int(offsets[-1])
    if total > np.iinfo(np.int32).max:
        raise OverflowError(
            f"{total} bytes of text in one batch; a string column holds 2 GiB: smaller batches"
        )
    validity = None
    if like.null_count:
        validity = pa.array(np.asarray(like.is_valid())).buffers()[1]
    return pa.StringArray.from_buffers(
        len(like),
        pa.py_buffer(offsets.astype(np.int32)),
        pa.py_buffer(data[:total]),
        validity,
        like.null_count,
    )
