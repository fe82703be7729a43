"""Cut a stream of record batches into groups whose borders depend on the rows alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Rebuffer:
    """Groups of at most ``max_rows`` rows, closed by the row that brings them to ``max_bytes`` of values."""

    def __init__(self, schema: pa.Schema, max_rows: int, max_bytes: int) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._parts: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """Take rows; gives the groups that they complete."""
        ends = np.cumsum(row_bytes(batch))
        start, before = 0, 0
        while start < batch.num_rows:
            full = int(np.searchsorted(ends, self._max_bytes - self._bytes + before)) + 1
            stop = min(batch.num_rows, full, start + self._max_rows - self._rows)
            self._parts.append(batch.slice(start, stop - start))
            self._rows += stop - start
            self._bytes += int(ends[stop - 1]) - before
            start, before = stop, int(ends[stop - 1])
            if self._rows >= self._max_rows or self._bytes >= self._max_bytes:
                yield from self.rest()

    def rest(self) -> Iterator[pa.Table]:
        """The last group, if any rows wait."""
        if self._rows:
            table = pa.Table.from_batches(self._parts, self._schema).combine_chunks()
            self._parts, self._rows, self._bytes = [], 0, 0
            yield table


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of them all; they have one schema."""
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays([b.column(i) for b in batches]) for i in range(batches[0].num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes of values per row, int64[n]: of the logical values, whatever buffers lie under them."""
    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _value_bytes(column)
    return total


def _value_bytes(array: pa.Array) -> np.ndarray:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _value_bytes(array.dictionary_decode())
    if isinstance(array, pa.ExtensionArray):
        return _value_bytes(array.storage)
    if pa.types.is_struct(kind):
        total = np.zeros(len(array), np.int64)
        for child in array.flatten():  # flatten() applies the struct's own nulls to its fields
            total += _value_bytes(child)
        return total
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = _numpy(pc.list_value_length(array))
        children = np.concatenate(([0], np.cumsum(_value_bytes(array.flatten()))))
        stops = np.cumsum(lengths)
        return children[stops] - children[stops - lengths] + 4
    if pa.types.is_map(kind):
        return _value_bytes(array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    if kind == pa.string_view() or kind == pa.binary_view():
        array = array.cast(pa.large_binary() if kind == pa.binary_view() else pa.large_string())
        kind = array.type
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        return _numpy(pc.binary_length(array)) + 4
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64)
    return np.full(len(array), max(1, kind.bit_width // 8), np.int64)


def _numpy(lengths: pa.Array) -> np.ndarray:
    return lengths.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
