"""What every format shares: the record of a bad row, row ids, projection, and the reader's iterator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import xxhash

SAMPLE_BYTES = 1_000  # how much of a bad record is kept for the eye


class FormatError(ValueError):
    """A shard cannot be read or written as asked: says what was found, where, and the mend."""


class ColumnNotFound(FormatError, KeyError):
    """A column was asked for that is not there."""

    def __str__(self) -> str:  # KeyError would show the text in quotes
        return str(self.args[0])


@dataclass(frozen=True)
class Bad:
    """One quarantined record (or one damaged stretch, where records cannot be told apart).

    ``source`` is the shard's name in its pool, ``position`` a row number or byte offset (``error`` says
    which), ``sample`` the first bytes of what was found, ``rows`` how many rows the stretch is known to hold
    (1 where that cannot be known).
    """

    source: str
    position: int
    error: str
    step: str = "read"
    sample: bytes | None = None
    rows: int = 1


OnBad = Callable[[Bad], None]


def sample(data: bytes | memoryview | None) -> bytes | None:
    """The head of a bad record."""
    return None if data is None else bytes(data[:SAMPLE_BYTES])


def row_id(name: str, position: int | str) -> str:
    """32 hex digits from a shard's name and the row's place in it; the id of rows that carry none."""
    return xxhash.xxh3_128_hexdigest(f"{name}\0{position}".encode())


class Batches(Iterator[pa.RecordBatch]):
    """Record batches of one shard, in order.

    ``unread`` counts what the file holds and the schema does not: key, column or member suffix → rows that
    carry it. It is complete once the iterator is exhausted.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch], unread: Counter[str]) -> None:
        self.schema = schema
        self.unread = unread
        self._batches = batches

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Let go of the file before the end."""
        self._batches.close()  # type: ignore[attr-defined]


JSON_FIELD = {b"json": b"1"}  # field metadata: this string column holds JSON text where it is no plain string


def is_json(field: pa.Field) -> bool:
    """Whether a string column holds values that a reader kept as JSON text."""
    return bool(field.metadata) and field.metadata.get(b"json") == b"1"


def with_id(schema: pa.Schema) -> pa.Schema:
    """``schema`` with a string ``id`` first: its own ``id``, else ``uid`` renamed, else a new one."""
    names = schema.names
    source = "id" if "id" in names else "uid" if "uid" in names else None
    rest = [f for f in schema if f.name != source]
    return pa.schema([pa.field("id", pa.string()), *rest])


def project(schema: pa.Schema, columns: Sequence[str] | None, where: str) -> pa.Schema:
    """The columns asked for, in schema order, always with ``id``; raises ColumnNotFound for others."""
    if columns is None:
        return schema
    wanted = {"id" if c == "uid" and "uid" not in schema.names else c for c in columns} | {"id"}
    missing = wanted - set(schema.names)
    if missing:
        absent = ", ".join(map(repr, sorted(missing)))
        raise ColumnNotFound(f"{where}: no column {absent}; there are: {', '.join(schema.names)}")
    return pa.schema([f for f in schema if f.name in wanted], schema.metadata)
