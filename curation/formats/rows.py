"""Parsed JSON objects → one Arrow record batch of a given schema, quarantining rows that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from curation.formats.common import Bad, FormatError, OnBad, is_json, row_id, sample


def to_batch(
    rows: list[dict[str, Any]],
    positions: np.ndarray,
    target: pa.Schema,
    name: str,
    unit: str,
    bad: OnBad,
    unread: Counter[str],
    loose: Callable[[], frozenset[str]] = frozenset,
) -> pa.RecordBatch:
    """Convert ``rows`` (found at ``positions``, in ``unit``) to ``target``.

    Missing keys are null; keys outside the schema are counted in ``unread``. ``id`` is the row's ``id``, else
    its ``uid``, else made from ``name`` and position; other scalars than strings are written as JSON. A value
    of the wrong type quarantines its row, never its neighbours. String columns marked as JSON, or named by
    ``loose()`` (asked only when a value does not fit), take strings as they are and all else as JSON text.
    """
    known = set(target.names)
    extra = set().union(*rows) - known - ({"uid"} if "uid" not in known else set())
    for key in extra:
        unread[key] += sum(key in row for row in rows)
    columns: list[pa.Array | None] = []
    wrong: dict[int, str] = {}
    for field in target:
        if field.name == "id":
            columns.append(None)
            continue
        values = [row.get(field.name) for row in rows]
        if is_json(field):
            values = _as_text(values)
        array = _array(values, field.type)
        if array is None and pa.types.is_string(field.type) and field.name in loose():
            array = _array(_as_text(values), field.type)
        if array is None:
            for i, value in enumerate(values):
                if i not in wrong and _array([value], field.type) is None:
                    wrong[i] = f"column {field.name!r} is {field.type}, found {_shown(value)}"
            if not wrong:
                raise FormatError(
                    f"{name}: the values of column {field.name!r} do not fit {field.type} together"
                )
        columns.append(array)
    if wrong:
        for i in sorted(wrong):
            at = int(positions[i])
            bad(Bad(name, at, f"row at {unit} {at}: {wrong[i]}", sample=sample(_dump(rows[i]))))
        keep = [i for i in range(len(rows)) if i not in wrong]
        # Unread keys were counted already, and every kept value fits: this cannot recurse again.
        return to_batch([rows[i] for i in keep], positions[keep], target, name, unit, bad, Counter(), loose)
    ids = _ids(rows, positions, name) if "id" in known else None
    return pa.RecordBatch.from_arrays([ids if c is None else c for c in columns], schema=target)


def _as_text(values: list[Any]) -> list[str | None]:
    return [v if v is None or type(v) is str else orjson.dumps(v).decode() for v in values]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """The values as a column, or None where one does not fit.

    Arrow alone would cut 1.5 to 1 in an integer column, read true as 1.0 and refuse large integers among
    floats, so numbers are judged here.
    """
    found = set(map(type, values)) - {type(None)}
    try:
        if pa.types.is_integer(kind):
            if found == {int, float} or found == {float}:
                if not all(v.is_integer() for v in values if type(v) is float):
                    return None
                values = [v if v is None else int(v) for v in values]
            elif not found <= {int}:
                return None
        elif pa.types.is_floating(kind):
            if not found <= {int, float}:
                return None
            if int in found:
                values = [v if v is None else float(v) for v in values]
        elif pa.types.is_string(kind) and not found <= {str}:
            return None
        if kind == pa.binary() and found <= {bytes}:
            return binary_array(values)
        array = pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def binary_array(values: list[bytes | None]) -> pa.Array:
    """Byte strings as a binary column with one copy (pa.array grows its buffer and copies several times)."""
    lengths = np.fromiter((0 if v is None else len(v) for v in values), np.int64, len(values))
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] >= 2**31:
        raise FormatError(f"a batch of {offsets[-1]} bytes: lower batch_bytes or max_record_bytes")
    data = pa.py_buffer(b"".join(v for v in values if v is not None))
    valid, nulls = None, values.count(None)
    if nulls:
        bits = np.packbits(np.array([v is not None for v in values]), bitorder="little")
        valid = pa.py_buffer(bits.tobytes())
    buffers = [valid, pa.py_buffer(offsets.astype(np.int32)), data]
    return pa.Array.from_buffers(pa.binary(), len(values), buffers, nulls)


def _ids(rows: list[dict[str, Any]], positions: np.ndarray, name: str) -> pa.Array:
    ids = [row.get("id") for row in rows]
    try:
        array = pa.array(ids, pa.string())
        if not array.null_count:
            return array
    except (pa.ArrowException, TypeError):
        pass
    out = []
    for row, found, at in zip(rows, ids, positions.tolist(), strict=True):
        if found is None:
            found = row.get("uid")
        if found is None:
            found = row_id(name, at)
        out.append(found if isinstance(found, str) else orjson.dumps(found).decode())
    return pa.array(out, pa.string())


def _dump(row: dict[str, Any]) -> bytes:
    return orjson.dumps(
        row, default=lambda value: f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
