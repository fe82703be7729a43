"""Read and write one shard in a test."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.formats import Bad, open_writer, read_batches
from curation.shards import Shard, list_shards


def read(shard: Shard | str | Path, **options: Any) -> tuple[list[dict], list[Bad], dict[str, int]]:
    """Rows, quarantined records and unread counts of a shard, or of the one shard at a path."""
    if not isinstance(shard, Shard):
        (shard,) = list_shards(str(shard))
    bads: list[Bad] = []
    batches = read_batches(shard, bad=bads.append, **options)
    rows: list[dict] = []
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(batches.schema, check_metadata=True)
        assert batch.num_rows > 0
        rows += batch.to_pylist()
    assert all(bad.source == shard.name and bad.step == "read" and bad.error for bad in bads)
    return rows, bads, dict(batches.unread)


def written(table: pa.Table, format: str, splits: list[int] | None = None, index: int = 0) -> bytes:
    """The file that a writer makes of ``table``, given in batches that end at the row numbers ``splits``."""
    out = io.BytesIO()
    writer = open_writer(out, format, table.schema, index=index)
    borders = [0, *sorted(splits or []), table.num_rows]
    for start, stop in pairwise(borders):
        for batch in table.slice(start, stop - start).combine_chunks().to_batches():
            writer.write(batch)
    writer.close()
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
