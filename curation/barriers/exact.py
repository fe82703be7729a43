"""Exact deduplication: rows whose column is equal, as it is or after normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.barriers import clusters
from curation.barriers.base import Decide, Decision, Totals, column_of, require
from curation.hashing import SECOND_SEED, hash128

NORMALIZE = (None, "whitespace", "ccnet")


@dataclass(frozen=True)
class DedupExact(Decide):
    """See `dedup_exact`."""

    on: str
    normalize: str | None = None
    priority: str | None = None
    reason: str = "exact duplicate"
    prefix: str = "exact"
    partitions: int = 16
    name: ClassVar[str] = "dedup_exact"
    uses: ClassVar[tuple[str, ...]] = (
        "curation.hashing",
        "curation._hash_kernels",
        "curation.barriers.clusters",
        "curation.barriers._text_kernels",
        "curation.barriers._unicode",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        priority = clusters.split_priority(self.priority)[0]
        return tuple(dict.fromkeys(n.split(".")[0] for n in (self.on, priority) if n))

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        return {f"{self.prefix}_cluster": pa.string(), f"{self.prefix}_size": pa.int64()}

    def describe(self) -> str:
        how = f" after {self.normalize} normalisation" if self.normalize else ""
        return f"keep one row of those with equal {self.on}{how}"

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        column = column_of(batch, self.on)
        if self.normalize is None:
            first, second = hash128(column)
        else:
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise TypeError(
                    f"dedup_exact(normalize={self.normalize!r}): column {self.on!r} is {column.type}, "
                    "and only text can be normalised; use normalize=None"
                )
            from curation.barriers import _text_kernels as kernels

            first, second = kernels.normalized_hashes(column, self.normalize, 0, SECOND_SEED)
        index = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        first, second = first[index], second[index]
        at = pa.array(index)
        table = {
            "partition": pa.array((first % np.uint64(self.partitions)).astype(np.int32)),
            "index": at,
            "hash": pa.array(first),
            "hash2": pa.array(second),
            "id": batch.column("id").take(at),
        }
        if self.priority:
            table["priority"] = clusters.priorities(batch, self.priority).take(at)
        return pa.table(table)

    def reduce(self, part: pa.Table) -> pa.Table:
        group = clusters.group_numbers(part.column("hash").to_numpy(), part.column("hash2").to_numpy())
        chosen = np.flatnonzero(group >= 0)
        rows = part.drop_columns(["hash", "hash2"]).take(pa.array(chosen))
        return clusters.decide(rows, group[chosen], clusters.split_priority(self.priority)[1])

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        table = pa.concat_tables([clusters.DECISION.empty_table(), *parts]).combine_chunks()
        order = [("shard", "ascending"), ("row", "ascending")]
        return clusters.summarise(table.sort_by(order))

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        return clusters.apply(batch, row_start, table, self.prefix)


def dedup_exact(
    on: str = "text",
    normalize: str | None = None,
    priority: str | None = None,
    reason: str = "exact duplicate",
    *,
    prefix: str = "exact",
    partitions: int = 16,
) -> DedupExact:
    """Keep one row of every set of rows with equal `on` (by 128-bit hash).

    on: a string, binary or integer column (text, image, url, sha256, …), or a struct field by dotted name.
        A null equals nothing, not even another null; empty strings are equal.
    normalize: compare text (None) as it is, byte for byte; ("whitespace") lower-cased, ends stripped, every
        run of white space as one blank; ("ccnet") the same, with every digit as 0 and without punctuation
        (after CCNet, Wenzek et al. 2020; accents are left alone).
    priority: the survivor is min(priority, id). A column name: its smallest value survives; "-column": its
        largest. None: the smallest id survives. Rows whose priority is null or NaN come last.
    Adds `exact_cluster` (id of the survivor) and `exact_size` (rows in the cluster, 1 for a lone row);
    `prefix` renames both. Memory of a reduce task is about 100 bytes × rows / partitions.
    """
    require(isinstance(on, str) and on != "", "dedup_exact needs a column: dedup_exact(on='text')")
    require(
        normalize in NORMALIZE,
        f"dedup_exact: normalize is {normalize!r}; it is None, 'whitespace' or 'ccnet'",
    )
    require(partitions >= 1, f"dedup_exact: partitions is {partitions}; it must be 1 or more")
    clusters.split_priority(priority)
    return DedupExact(on, normalize, priority, reason, prefix, partitions)
