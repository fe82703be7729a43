"""What an evaluation set gives: batches of encoded images with their columns, a size, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa


class SetError(ValueError):
    """An evaluation set that cannot be trusted; the message names file and row, and what mends it."""


class SetMissing(SetError):
    """The files of a set are not there; the message says where they were looked for."""


@dataclass(frozen=True)
class Examples:
    """One batch: encoded image files, and the other columns row by row."""

    ids: list[str]
    images: list[bytes]
    columns: dict[str, list[Any]]


class EvalSet(Protocol):
    """A set, whatever its files are. ``size``: examples it must have, None where nothing says so;
    ``fingerprint``: hex, changes when what is read from the set changes."""

    name: str

    @property
    def size(self) -> int | None: ...

    @property
    def fingerprint(self) -> str: ...

    def batches(self, size: int = 512) -> Iterator[Examples]: ...


@dataclass(frozen=True)
class TableSet:
    """A set held as an Arrow table with the columns id, image and whatever its tasks use."""

    name: str
    table: pa.Table

    def __post_init__(self) -> None:
        missing = [c for c in ("id", "image") if c not in self.table.column_names]
        if missing:
            raise SetError(f"set {self.name} lacks the column {', '.join(missing)}")
        if self.table.num_rows == 0:
            raise SetError(f"set {self.name} has no rows")

    @property
    def size(self) -> int:
        return self.table.num_rows

    @property
    def fingerprint(self) -> str:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table.combine_chunks())
        return hashlib.sha256(sink.getvalue()).hexdigest()[:32]

    def batches(self, size: int = 512) -> Iterator[Examples]:
        for batch in self.table.to_batches(max_chunksize=size):
            columns = {n: batch.column(n).to_pylist() for n in batch.schema.names}
            yield Examples(columns.pop("id"), columns.pop("image"), columns)


class Batcher:
    """Collects rows into ``Examples`` of ``size``."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"batches of {size} examples: at least 1 is needed")
        self.size = size
        self._ids: list[str] = []
        self._images: list[bytes] = []
        self._columns: dict[str, list[Any]] = {}

    def add(self, id: str, image: bytes, columns: dict[str, Any]) -> Iterator[Examples]:
        """Take a row; gives a batch when it is full."""
        self._ids.append(id)
        self._images.append(image)
        for name, value in columns.items():
            self._columns.setdefault(name, []).append(value)
        if len(self._ids) == self.size:
            yield from self.rest()

    def rest(self) -> Iterator[Examples]:
        """What is left, if anything."""
        if self._ids:
            yield Examples(self._ids, self._images, self._columns)
            self._ids, self._images, self._columns = [], [], {}
