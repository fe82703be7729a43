"""Arrow files between stages: a shard's rows, its summary for a barrier, and the pieces a barrier makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.formats.rebuffer import joined
from curation.manifest import Manifest
from curation.outputs import committed

_SUMMARY_BYTES = 16 << 20
_ROW_BYTES = 8 << 20


def _work_writer(file: Any, schema: pa.Schema) -> Any:
    return pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


class RowsFile:
    """A shard's rows for the next stage. Small batches are joined: few rows may be left of what was read."""

    def __init__(self, file: Any, schema: pa.Schema):
        self._writer = _work_writer(file, schema)
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _ROW_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_batch(joined(self._waiting))
            self._waiting, self._bytes = [], 0


class Summary:
    """A shard's summary rows for a barrier, in a work file: sorted by partition, some megabytes at a time."""

    def __init__(self, file: Any):
        self._file, self._number = file, 0
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._index: list[list[int]] = []

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes >= _SUMMARY_BYTES:
            self._flush()

    def close(self) -> list[list[int]]:
        """[[partition, batch, rows], …]; a partition may have several batches."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        return self._index

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._bytes = [], 0
        order = pc.sort_indices(table, sort_keys=[("partition", "ascending"), ("row", "ascending")])
        table = table.take(order)
        if self._writer is None:
            self._writer = _work_writer(self._file, table.drop_columns(["partition"]).schema)
        for value, part in _parts(table, "partition"):
            self._writer.write_batch(part)
            self._index.append([value, self._number, part.num_rows])
            self._number += 1


def _parts(table: pa.Table, column: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(value, its rows without the column) of a table that is sorted by an integer column."""
    values = table.column(column).to_numpy()
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, dtype=int)
    stops = np.r_[starts[1:], len(values)] if len(values) else starts
    body = table.drop_columns([column])
    for start, stop in zip(starts, stops, strict=True):
        yield int(values[start]), body.slice(start, stop - start).combine_chunks().to_batches()[0]


def write_partitioned(
    manifest: Manifest, relative: str, table: pa.Table, column: str, outputs: list[dict[str, Any]]
) -> list[list[int]]:
    """A table sorted by an integer column as a work file, one batch per value: [[value, batch, rows], …]."""
    index = []
    schema = table.drop_columns([column]).schema
    with committed(manifest, relative, outputs) as file, _work_writer(file, schema) as writer:
        for number, (value, part) in enumerate(_parts(table, column)):
            writer.write_batch(part)
            index.append([value, number, part.num_rows])
    return index


def work_batches(url: str, chosen: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a work file: all of them, or those with these numbers."""
    with storage.open_read(url) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches) if chosen is None else chosen:
            yield reader.get_batch(number)


def in_order(source: list[tuple[str, list[int] | None]]) -> Iterator[pa.RecordBatch]:
    for url, chosen in source:
        yield from work_batches(url, chosen)


def merged(source: list[tuple[str, list[int] | None]]) -> Iterator[pa.RecordBatch]:
    """One output shard of a rearrangement: its pieces from every file, sorted by key, in batches."""
    pieces = list(in_order(source))
    if not pieces:
        return
    table = pa.Table.from_batches(pieces)
    order = pc.sort_indices(table, sort_keys=[("__sort", "ascending"), ("id", "ascending")])
    table = table.drop_columns(["__sort"])
    step = max(1, int(len(order) * (16 << 20) / max(1, table.nbytes)))
    for start in range(0, len(order), step):
        part = table.take(order.slice(start, step)).combine_chunks()
        yield from part.to_batches()
