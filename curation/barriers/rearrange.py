"""Barriers that move rows and drop none: a global shuffle, and shards of an exact size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curation.barriers.base import Rearrange, Totals, require
from curation.hashing import hash64, salt_seed

SHARD_BYTES = 128 << 20


@dataclass(frozen=True)
class Shuffle(Rearrange):
    """See `shuffle`."""

    seed: int = 0
    shards: int | None = None
    name: ClassVar[str] = "shuffle"
    uses: ClassVar[tuple[str, ...]] = ("curation.hashing", "curation._hash_kernels")

    def describe(self) -> str:
        return f"shuffle all rows into {self.shards or 'even'} shards (seed {self.seed})"

    def layout(self, totals: Totals) -> int:
        if self.shards is not None:
            return self.shards
        return max(1, -(-totals.bytes // SHARD_BYTES))

    def assign(
        self, ids: pa.Array, first_row: int, totals: Totals, n_out: int
    ) -> tuple[np.ndarray, np.ndarray]:
        shard = hash64(ids, salt_seed(f"shuffle/{self.seed}/shard")) % np.uint64(n_out)
        return shard.astype(np.int32), hash64(ids, salt_seed(f"shuffle/{self.seed}/order"))


@dataclass(frozen=True)
class Reshard(Rearrange):
    """See `reshard`."""

    rows: int = 10_000
    name: ClassVar[str] = "reshard"

    def describe(self) -> str:
        return f"cut into shards of {self.rows} rows, in order"

    def layout(self, totals: Totals) -> int:
        return max(1, -(-totals.n_rows // self.rows))

    def assign(
        self, ids: pa.Array, first_row: int, totals: Totals, n_out: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(first_row, first_row + len(ids), dtype=np.int64)
        return (rows // self.rows).astype(np.int32), rows.astype(np.uint64)


def shuffle(seed: int = 0, shards: int | None = None) -> Shuffle:
    """Put all rows in a random order that depends on their ids and the seed alone.

    shards: how many come out; by default as many as make about 128 MB of text each. Rows fall into shards at
    random, so shard sizes vary a little; put `reshard` behind for exact ones.
    """
    require(shards is None or shards >= 1, f"shuffle: shards is {shards}; it must be 1 or more")
    return Shuffle(seed, shards)


def reshard(rows: int = 10_000) -> Reshard:
    """Cut the pool, in its order, into shards of exactly `rows` rows (the last holds the rest)."""
    require(rows >= 1, f"reshard: rows is {rows}; it must be 1 or more")
    return Reshard(rows)
