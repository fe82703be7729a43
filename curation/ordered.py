"""Rows that leave a shard at different steps, written in the shard's order while it streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


class OrderedParquet:
    """A parquet file of rows in the order of their place in the shard.

    Rows of one input batch arrive piece by piece, as steps let go of them; `flush` says that the batch is
    through, and nothing that comes later belongs before it. Memory is one batch and one row group, however
    long the shard. The bytes depend on the rows alone.
    """

    def __init__(self, file: Any, schema: pa.Schema):
        from curation.formats.parquet import Writer

        self.schema, self.rows = schema, 0
        self.waiting_bytes = 0
        self._writer = Writer(file, schema)
        self._pieces: list[pa.Table] = []
        self._places: list[np.ndarray] = []

    def add(self, columns: dict[str, pa.Array], places: np.ndarray) -> None:
        """Rows by column; a column that is absent is null. `places`: int64, one a row."""
        arrays = [
            columns[f.name] if f.name in columns else pa.nulls(len(places), f.type) for f in self.schema
        ]
        cast = [_as(a, f.type) for a, f in zip(arrays, self.schema, strict=True)]
        piece = pa.table(cast, schema=self.schema)
        self._pieces.append(piece)
        self.waiting_bytes += piece.nbytes
        self._places.append(places)
        self.rows += len(places)

    def flush(self) -> None:
        """The current batch is through: write its rows."""
        if not self._pieces:
            return
        order = np.argsort(np.concatenate(self._places), kind="stable")
        # `take` copies: what waits for its row group must not hold a whole batch's buffers
        table = pa.concat_tables(self._pieces).take(pa.array(order)).combine_chunks()
        self._pieces, self._places, self.waiting_bytes = [], [], 0
        for batch in table.to_batches():
            self._writer.write(batch)

    def close(self) -> None:
        """Finish the file."""
        self.flush()
        self._writer.close()


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)
