"""What a report shows of rows: a few of each kind, and of long values the beginning."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES = 6  # rows shown per reason and shard
_SNIPPET = 300
_ITEMS = 20  # of a list that is a score
_IMAGE_LIMIT = 24_000


def examples(batch: pa.RecordBatch, rows: np.ndarray, scores: Iterable[str]) -> list[dict[str, Any]]:
    """Those rows of a batch, for a done record: id, the start of URL and text, scores, a small image."""
    named = dict(zip(batch.schema.names, batch.columns, strict=True))
    places = [int(row) for row in rows]
    shown: list[dict[str, Any]] = [{"id": named["id"][row].as_py()} for row in places]
    for name in ("url", "text"):
        if name in named:
            for item, row in zip(shown, places, strict=True):
                if named[name][row].is_valid:
                    item[name] = start_of(named[name], row, _SNIPPET)
    columns = {name: _values(named[name], places) for name in scores if name in named}
    for at, item in enumerate(shown):
        item["scores"] = {name: values[at] for name, values in columns.items()}
    if "image" in named:
        for item, row in zip(shown, places, strict=True):
            if named["image"][row].is_valid and len(data := named["image"][row].as_py()) <= _IMAGE_LIMIT:
                item["image"] = base64.b64encode(data).decode()
                item["image_type"] = _image_type(data)
    return shown


def _values(column: pa.Array, rows: list[int]) -> list[Any]:
    if _small(column.type):  # all at once: a scalar object for each number takes long
        return [jsonable(value) for value in column.take(pa.array(rows, pa.int64())).to_pylist()]
    return [_seen(column[row]) for row in rows]


def _small(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_small(field.type) for field in kind)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def text_bytes(batch: pa.RecordBatch, rows: np.ndarray | None = None) -> int:
    """UTF-8 bytes of the `text` column, if there is one; of these rows only."""
    if "text" not in batch.schema.names or not is_text(batch.schema.field("text").type):
        return 0
    lengths = pc.binary_length(batch.column("text"))
    return pc.sum(lengths if rows is None else lengths.take(pa.array(rows))).as_py() or 0


def start_of(column: pa.Array, row: int, chars: int) -> str:
    """The first so many characters of a value; a long text is not copied for them."""
    if is_text(column.type):
        return bytes(memoryview(column[row].as_buffer())[: 4 * chars]).decode("utf-8", "ignore")[:chars]
    return str(column[row].as_py())[:chars]


def _seen(value: pa.Scalar) -> Any:
    """A score as an example shows it: of long lists and strings the beginning."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar):
        return {field.name: _seen(value[n]) for n, field in enumerate(value.type)}
    if isinstance(value, pa.ListScalar | pa.LargeListScalar):
        items = value.values
        more = [f"… {len(items):,} in all"] if len(items) > _ITEMS else []
        return [_seen(item) for item in items[:_ITEMS]] + more
    found = jsonable(value.as_py())
    return found[:_SNIPPET] if isinstance(found, str) else found


def _image_type(data: bytes) -> str:
    for magic, name in ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp")):
        if data.startswith(magic):
            return name
    return "octet-stream"


def jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bytes):
        return value[:64].hex()
    return value if isinstance(value, int | float | bool) or value is None else str(value)
