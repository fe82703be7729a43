"""The engine's part around a barrier, in memory: scatter by batches, reduce, resolve, apply."""

import itertools
import random

import numpy as np
import pyarrow as pa

from curation.barriers import Decide, Decision, Totals


def run(
    barrier: Decide, shards: list[pa.Table], seed: int | None = None, batch: int = 1000, **pool
) -> tuple[dict[str, dict], Decision]:
    """{id: {"keep": …, added columns}} and the decision. With a seed, rows are cut into random batches, and
    summary rows and partitions arrive in random order."""
    order = random.Random(seed)
    pieces: list[pa.Table] = []
    for number, shard in enumerate(shards):
        for start, part in _batches(shard, None if seed is None else order, batch):
            made = barrier.scatter(part)
            at = made.column_names.index("index")
            row = pa.array(made.column("index").to_numpy() + start, pa.int64())
            made = made.set_column(at, "row", row)
            if barrier.partition_of(number) is not None:
                group = pa.array(np.full(len(row), barrier.partition_of(number), np.int32))
                made = made.set_column(made.column_names.index("partition"), "partition", group)
            pieces.append(made.append_column("shard", pa.array(np.full(len(row), number, np.int32))))
    if seed is not None:
        order.shuffle(pieces)
    parts = []
    if pieces:
        table = pa.concat_tables(pieces)
        partition = table.column("partition").to_numpy()
        assert partition.min(initial=0) >= 0 and partition.max(initial=0) < barrier.partitions
        for value in np.unique(partition):
            part = table.filter(pa.array(partition == value)).drop_columns(["partition"])
            if seed is not None:
                part = part.take(order.sample(range(part.num_rows), part.num_rows))
            parts.append(barrier.reduce(part.combine_chunks()))
    if seed is not None:
        order.shuffle(parts)
    totals = Totals(tuple(s.num_rows for s in shards), 0, **pool)
    decision = barrier.resolve(parts, totals)
    out: dict[str, dict] = {}
    for number, shard in enumerate(shards):
        mine = None
        if decision.table is not None:
            mine = decision.table.filter(pa.compute.equal(decision.table.column("shard"), number))
            mine = mine.sort_by("row").drop_columns(["shard"]).combine_chunks()
        for start, part in _batches(shard, None if seed is None else order, batch):
            keep, columns = barrier.apply(part, start, mine, decision.summary)
            types = barrier.outputs | {name: part.schema.field(name).type for name in barrier.changes}
            assert {name: array.type for name, array in columns.items()} == types
            values = {name: array.to_pylist() for name, array in columns.items()}
            for i, row_id in enumerate(part.column("id").to_pylist()):
                out[row_id] = {"keep": keep[i].as_py()} | {name: v[i] for name, v in values.items()}
    return out, decision


def kept(barrier: Decide, shards: list[pa.Table], seed: int | None = None, **pool) -> set[str]:
    return {row_id for row_id, row in run(barrier, shards, seed, **pool)[0].items() if row["keep"]}


def split(table: pa.Table, n: int) -> list[pa.Table]:
    """n shards, the first ones a row longer where it does not come out even."""
    ends = np.linspace(0, table.num_rows, n + 1).astype(int)
    return [table.slice(a, b - a) for a, b in itertools.pairwise(ends)]


def _batches(shard: pa.Table, order: random.Random | None, batch: int):
    start = 0
    while start < shard.num_rows:
        n = batch if order is None else order.randint(1, 40)
        part = shard.slice(start, n).combine_chunks().to_batches()[0]
        yield start, part
        start += part.num_rows
