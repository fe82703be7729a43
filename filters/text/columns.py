"""Between Arrow columns and compiled passes: struct columns from numbers, text from edited bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa

_MOST = np.iinfo(np.int32).max


def struct_type(
    names: Iterable[str], whole: Collection[str] | None = None, flags: Collection[str] = ()
) -> pa.StructType:
    """A struct of numbers: int64 are the fields in ``whole`` (None: those whose names begin with ``n_``),
    bool those in ``flags``, float64 the others."""

    def kind(name: str) -> pa.DataType:
        if name in flags:
            return pa.bool_()
        return pa.int64() if (name.startswith("n_") if whole is None else name in whole) else pa.float64()

    return pa.struct([(name, kind(name)) for name in names])


def struct_array(columns: Iterable[np.ndarray], kind: pa.StructType, text: pa.Array) -> pa.StructArray:
    """One array a field (a matrix [fields, n] will do) as a struct column that is null where ``text`` is."""
    arrays = [
        pa.array(np.ascontiguousarray(values).astype(field.type.to_pandas_dtype(), copy=False), field.type)
        for values, field in zip(columns, kind, strict=True)
    ]
    mask = text.is_null() if text.null_count else None
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)


def one_array(text: pa.Array | pa.ChunkedArray) -> pa.Array:
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def strings(
    data: np.ndarray, offsets: np.ndarray, like: pa.Array, kind: pa.DataType | None = None
) -> pa.Array:
    """A column over ``data[offsets[i]:offsets[i + 1]]``, null where ``like`` is; of type ``kind`` (string).

    Raises OverflowError past 2 GiB, which Arrow's ``string`` cannot hold: read in smaller batches.
    """
    kind = kind or pa.string()
    total = int(offsets[-1])
    if total > _MOST and kind == pa.string():
        raise OverflowError(
            f"{total} bytes of text in one batch; a string column holds 2 GiB: smaller batches"
        )
    wide = total > _MOST
    validity = pa.array(np.asarray(like.is_valid())).buffers()[1] if like.null_count else None
    places = pa.py_buffer(offsets if wide else offsets.astype(np.int32))
    made = pa.Array.from_buffers(
        pa.large_string() if wide else pa.string(),
        len(like),
        [validity, places, pa.py_buffer(data[:total])],
        like.null_count,
    )
    return made if made.type == kind else made.cast(kind)
