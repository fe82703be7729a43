"""What the engine knows of a barrier: two shapes of step, and the few values that pass between.

A `Decide` step keeps or drops rows after seeing the whole pool. It works on small summary rows:

    scatter(batch) → summary rows, each with a partition     on every batch of every shard
    reduce(part)   → what matters of one partition           once for each partition
    resolve(parts) → one decision                            once
    apply(batch)   → keep mask, added and changed columns    on every batch again

A `Rearrange` step keeps every row and says which shard it goes to. All of it is pure functions over Arrow
and numpy: nothing here touches a file or an executor, and no result depends on how rows are cut into batches
or in which order shards arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.errors import PlanError

__all__ = ["Decide", "Decision", "Rearrange", "Totals", "column_of", "require"]


@dataclass(frozen=True)
class Totals:
    """What reaches the barrier. `rows`: of every shard, in shard order; `bytes`: text bytes of them all;
    `pool_*`: the same for the pool as it was read, for budgets that are a share of the pool."""

    rows: tuple[int, ...]
    bytes: int = 0
    pool_rows: int | None = None
    pool_bytes: int | None = None

    @property
    def n_rows(self) -> int:
        return sum(self.rows)

    @property
    def first_rows(self) -> np.ndarray:
        """The global number of every shard's first row: int64[shards]."""
        ends = np.cumsum(np.asarray(self.rows, np.int64))
        return ends - np.asarray(self.rows, np.int64)


@dataclass(frozen=True)
class Decision:
    """`table`: the rows that need saying something about, by `shard` (int32) and `row` (int64), or None when
    `summary` (JSON-able; goes to the report too) says it all."""

    table: pa.Table | None
    summary: dict[str, Any] = field(default_factory=dict)


class Decide:
    """Base of barriers that drop rows, add columns and change them. Subclasses are frozen dataclasses."""

    kind: ClassVar[str] = "barrier"
    name: ClassVar[str]
    reason: str
    partitions: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that scatter reads, besides `id`, which is always there."""
        raise NotImplementedError

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        """Columns that apply adds."""
        return {}

    @property
    def changes(self) -> tuple[str, ...]:
        """Columns there already that apply gives anew, with the type they have."""
        return ()

    def describe(self) -> str:
        """One line for people."""
        raise NotImplementedError

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        """Summary rows: `partition` (int32), `index` (int64, the row within this batch), and own columns."""
        raise NotImplementedError

    def partition_of(self, shard: int) -> int | None:
        """The partition of all of a shard's summary rows, or None where each row says its own."""
        return None

    def reduce(self, part: pa.Table) -> pa.Table:
        """All summary rows of one partition, in any order, with `shard` and `row` in place of `index`."""
        raise NotImplementedError

    def reduce_stream(self, pieces: Callable[[], Iterator[pa.Table]]) -> pa.Table:
        """`reduce`, as the engine calls it: `pieces()` reads the partition's summary rows, some megabytes at
        a time, in the order of shard and row; it can be called again. For steps that need not hold all."""
        return self.reduce(pa.concat_tables(list(pieces())).combine_chunks())

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        """The reduced partitions, in any order; partitions without rows may be absent."""
        raise NotImplementedError

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        """Keep mask, added and changed columns, for rows row_start … of one shard; `table`: that shard's
        part of the decision, sorted by `row`."""
        raise NotImplementedError


class Rearrange:
    """Base of barriers that only move rows. Subclasses are frozen dataclasses."""

    kind: ClassVar[str] = "barrier"
    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ()

    def describe(self) -> str:
        """One line for people."""
        raise NotImplementedError

    def layout(self, totals: Totals) -> int:
        """How many shards come out."""
        raise NotImplementedError

    def assign(
        self, ids: pa.Array, first_row: int, totals: Totals, n_out: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Output shard (int32[n]) and sort key within it (uint64[n]) of rows first_row … of the pool."""
        raise NotImplementedError


def require(condition: bool, message: str) -> None:
    """PlanError(message) unless the condition holds: for constructors, before any worker starts."""
    if not condition:
        raise PlanError(message)


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column, or a field of a struct column by its dotted name."""
    if name in batch.schema.names or "." not in name:
        return batch.column(name)
    head, *rest = name.split(".")
    array = batch.column(head)
    for part in rest:
        array = pa.compute.struct_field(array, part)
    return array
