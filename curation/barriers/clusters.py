"""From groups of equal rows to a decision: who survives, and the columns that say so.

Shared by exact and MinHash deduplication. The survivor of a cluster is min(priority, id): the same row on
any machine, in any order of arrival.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.barriers.base import Decision, column_of, require

DECISION = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("keep", pa.bool_()),
        ("cluster", pa.string()),
        ("size", pa.int64()),
    ]
)


def split_priority(priority: str | None) -> tuple[str | None, str]:
    """`"column"` → smallest value survives, `"-column"` → largest value survives: (column, sort order)."""
    if priority is None:
        return None, "ascending"
    require(isinstance(priority, str) and priority.strip("-") != "", "priority is a column or '-column'")
    if priority.startswith("-"):
        return priority[1:], "descending"
    return priority, "ascending"


def priorities(batch: pa.RecordBatch, priority: str) -> pa.Array:
    """The priority column, with NaN as null: both mean that a row has none."""
    values = column_of(batch, split_priority(priority)[0] or "")
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values


def group_numbers(*keys: np.ndarray) -> np.ndarray:
    """Number rows by equal keys: int64[n], −1 for a row that is alone with its key."""
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, np.int64)
    order = np.lexsort(keys[::-1])
    new = np.zeros(n, bool)
    new[0] = True
    for key in keys:
        ranked = key[order]
        new[1:] |= ranked[1:] != ranked[:-1]
    group = np.cumsum(new) - 1
    group[np.bincount(group)[group] == 1] = -1
    out = np.empty(n, np.int64)
    out[order] = group
    return out


def decide(rows: pa.Table, group: np.ndarray, order: str = "ascending") -> pa.Table:
    """One decision row for each of `rows` (shard, row, id and maybe priority), by group number (int64[n]).

    The survivor is first by priority, then id; rows without a priority (null or NaN) come last. Equal ids,
    which only different shards can hold, fall back on the place.
    """
    if rows.num_rows == 0:
        return DECISION.empty_table()
    table = rows.append_column("group", pa.array(group))
    keys = [("group", "ascending"), ("id", "ascending"), ("shard", "ascending"), ("row", "ascending")]
    if "priority" in rows.column_names:
        keys.insert(1, ("priority", order))
    table = table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()
    ranked = table.column("group").to_numpy()
    first = np.r_[True, ranked[1:] != ranked[:-1]]
    starts = np.flatnonzero(first)
    sizes = np.diff(np.r_[starts, len(ranked)])
    leader = np.repeat(starts, sizes)
    return pa.table(
        [
            table.column("shard"),
            table.column("row"),
            pa.array(first),
            table.column("id").take(pa.array(leader)).cast(pa.string()),
            pa.array(np.repeat(sizes, sizes)),
        ],
        schema=DECISION,
    )


def summarise(table: pa.Table, **more: Any) -> Decision:
    """The decision with its figures: clusters of two rows and more, rows removed, histogram of sizes."""
    kept = table.column("keep").to_numpy()
    sizes = table.column("size").to_numpy()[kept]
    values, counts = np.unique(sizes, return_counts=True)
    summary = {
        "clusters": len(sizes),
        "removed": int(len(kept) - len(sizes)),
        "largest": int(sizes.max()) if len(sizes) else 1,
        "sizes": {str(v): int(c) for v, c in zip(values, counts, strict=True)},
    }
    return Decision(table, summary | more)


def apply(
    batch: pa.RecordBatch, row_start: int, table: pa.Table | None, prefix: str
) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
    """Keep mask, `<prefix>_cluster` (the survivor's id; a lone row is its own) and `<prefix>_size`."""
    n = batch.num_rows
    keep, size = np.ones(n, bool), np.ones(n, np.int64)
    cluster = batch.column("id").cast(pa.string())
    if table is not None and table.num_rows:
        rows = table.column("row").to_numpy()
        start, stop = np.searchsorted(rows, [row_start, row_start + n])
        if stop > start:
            here = rows[start:stop] - row_start
            part = table.slice(start, stop - start)
            keep[here] = part.column("keep").to_numpy()
            size[here] = part.column("size").to_numpy()
            mask = np.zeros(n, bool)
            mask[here] = True
            cluster = pc.replace_with_mask(cluster, pa.array(mask), part.column("cluster").combine_chunks())
    return pa.array(keep), {f"{prefix}_cluster": cluster, f"{prefix}_size": pa.array(size)}
