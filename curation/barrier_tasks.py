"""Barriers as file stages: what runs between two stages, as tasks with done records of their own.

stage rows + summaries → reduce (one task a partition) → resolve (one task) → apply (in the next stage)
stage rows → arrange (one task a shard) → gather (in the next stage)
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.manifest import Manifest, Record
from curation.outputs import committed
from curation.plan import decides
from curation.stage import ShardTask, peak_memory
from curation.work_files import work_batches, write_partitioned


@dataclass(frozen=True)
class ShardRows:
    """One shard of the stage before a barrier: its rows' work file and its summary's partitions."""

    key: str
    number: int
    rows: int
    text_bytes: int
    data: str
    summary: str | None
    index: tuple[tuple[int, int, int], ...]  # (partition, batch, rows)


@dataclass(frozen=True)
class BarrierWork:
    """Everything a barrier's tasks need to know; travels to workers."""

    barrier: Any
    root: str
    stage: str
    stage_hash: str
    shards: tuple[ShardRows, ...]
    totals: Any
    n_out: int = 0

    @property
    def rearrange(self) -> bool:
        return not decides(self.barrier)

    @property
    def partitions(self) -> list[int]:
        return sorted({p for s in self.shards for p, _, _ in s.index})

    def partition_rows(self, partition: int) -> int:
        return sum(rows for s in self.shards for p, _, rows in s.index if p == partition)

    def apply(self, resolved: Record) -> list[ShardTask]:
        """The next stage's tasks after a deciding barrier."""
        manifest = Manifest(self.root)
        batches = {shard: batch for shard, batch, _ in resolved["summary_index"] or []}
        decisions = resolved["outputs"][0]["url"] if resolved["outputs"] else None
        return [
            ShardTask(
                s.key,
                s.number,
                s.rows,
                [(manifest.path(*s.data.split("/")), None)],
                decisions=decisions,
                decision_batch=batches.get(s.number),
            )
            for s in self.shards
        ]

    def gather(self, arranged: list[Record]) -> list[ShardTask]:
        """The next stage's tasks after a rearrangement: one for each new shard."""
        manifest = Manifest(self.root)
        tasks = []
        for number in range(self.n_out):
            pieces, rows = [], 0
            for record in arranged:
                chosen = [
                    (batch, count) for shard, batch, count in record["summary_index"] if shard == number
                ]
                if chosen:
                    url = manifest.path(*record["outputs"][0]["url"].split("/"))
                    pieces.append((url, [b for b, _ in chosen]))
                    rows += sum(c for _, c in chosen)
            tasks.append(ShardTask(f"{number:08d}", number, rows, pieces, merge=True))
        return tasks


def plan_barrier(
    barrier: Any, records: list[Record], root: str, stage: str, stage_hash: str, pool: tuple[int, int]
) -> BarrierWork:
    """Collect what the finished stage left for its barrier. `pool`: rows and text bytes of the whole pool."""
    from curation.barriers import Totals

    shards = []
    for number, record in enumerate(records):
        summary = next((o["url"] for o in record["outputs"] if o["url"].endswith(".summary.arrow")), None)
        index = tuple((p, b, n) for p, b, n in record["summary_index"] or [])
        shards.append(
            ShardRows(
                record["key"],
                number,
                record["rows_out"],
                record["text_bytes_out"],
                record["outputs"][0]["url"],
                summary,
                index,
            )
        )
    totals = Totals(
        rows=tuple(s.rows for s in shards),
        bytes=sum(s.text_bytes for s in shards),
        pool_rows=pool[0],
        pool_bytes=pool[1],
    )
    n_out = 0 if decides(barrier) else barrier.layout(totals)
    return BarrierWork(barrier, root, stage, stage_hash, tuple(shards), totals, n_out)


def reduce_partition(work: BarrierWork, partition: int, attempt: int = 1) -> Record:
    """All summary rows of one partition → what the barrier makes of them."""
    start = time.perf_counter()
    manifest = Manifest(work.root)

    def pieces() -> Iterator[pa.Table]:
        for shard in work.shards:
            batches = [b for p, b, _ in shard.index if p == partition]
            if not batches or shard.summary is None:
                continue
            for batch in work_batches(manifest.path(*shard.summary.split("/")), batches):
                number = pa.array(np.full(batch.num_rows, shard.number, dtype=np.int32))
                yield pa.Table.from_batches([batch]).append_column("shard", number)

    result = work.barrier.reduce_stream(pieces)
    outputs: list[dict[str, Any]] = []
    key = f"part-{partition:05d}"
    name = f"_winnow/work/{work.stage}/{key}.arrow"
    with committed(manifest, name, outputs) as out, pa.ipc.new_file(out, result.schema) as writer:
        writer.write_table(result)
    return _record(work, f"{work.stage}-reduce", key, outputs, start, attempt, rows=result.num_rows)


def resolve_barrier(work: BarrierWork, parts: list[Record], attempt: int = 1) -> Record:
    """Every partition's result → one decision: a table by shard and row, or a few numbers."""
    start = time.perf_counter()
    manifest = Manifest(work.root)
    tables = []
    for part in parts:
        with storage.open_read(manifest.path(*part["outputs"][0]["url"].split("/"))) as file:
            tables.append(pa.ipc.open_file(file).read_all())
    decision = work.barrier.resolve(tables, work.totals)
    outputs: list[dict[str, Any]] = []
    index = None
    if decision.table is not None:
        order = pc.sort_indices(decision.table, sort_keys=[("shard", "ascending"), ("row", "ascending")])
        name = f"_winnow/work/{work.stage}/decision.arrow"
        index = write_partitioned(
            manifest, name, decision.table.take(order).combine_chunks(), "shard", outputs
        )
    record = _record(work, work.stage, "decision", outputs, start, attempt, save=False)
    record |= {"summary": decision.summary, "summary_index": index}
    manifest.record_done(record)
    return record


def arrange_shard(work: BarrierWork, source: Record, attempt: int = 1) -> Record:
    """One shard's rows → a work file with one batch for each new shard, rows sorted by key in it."""
    start = time.perf_counter()
    manifest = Manifest(work.root)
    shard = next(s for s in work.shards if s.key == source["key"])
    first = sum(work.totals.rows[: shard.number])
    pieces: list[pa.Table] = []
    for batch in work_batches(manifest.path(*shard.data.split("/"))):
        target, key = work.barrier.assign(batch.column("id"), first, work.totals, work.n_out)
        first += batch.num_rows
        table = pa.Table.from_batches([batch])
        table = table.append_column("__sort", pa.array(np.asarray(key, dtype=np.uint64)))
        pieces.append(table.append_column("__shard", pa.array(np.asarray(target, dtype=np.int32))))
    outputs: list[dict[str, Any]] = []
    index: list[list[int]] = []
    if pieces:
        table = pa.concat_tables(pieces).combine_chunks()
        keys = [("__shard", "ascending"), ("__sort", "ascending"), ("id", "ascending")]
        name = f"_winnow/work/{work.stage}/{shard.key}.arrow"
        index = write_partitioned(
            manifest, name, table.take(pc.sort_indices(table, sort_keys=keys)), "__shard", outputs
        )
    record = _record(work, work.stage, shard.key, outputs, start, attempt, save=False)
    record["summary_index"] = index
    manifest.record_done(record)
    return record


def _record(
    work: BarrierWork,
    stage: str,
    key: str,
    outputs: list[dict[str, Any]],
    start: float,
    attempt: int,
    rows: int = 0,
    save: bool = True,
) -> Record:
    record = {
        "key": key,
        "stage": stage,
        "stage_hash": work.stage_hash,
        "outputs": outputs,
        "rows_out": rows,
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory(),
        "attempt": attempt,
        "pid": os.getpid(),
    }
    if save:
        Manifest(work.root).record_done(record)
    return record
