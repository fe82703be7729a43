"""Keep the rows that a subset file names, as often as it names them.

It needs no look at the pool, so it is a transform and no barrier; it stands beside the other selections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.barriers.base import require
from curation.steps import Transform


@dataclass(frozen=True)
class Subset(Transform):
    """See `subset`."""

    path: str
    reason: str = "subset"
    inputs = ("id",)
    outputs = {}
    uses = ("curation.subsets", "curation._hash_kernels")

    @property
    def name(self) -> str:
        return self.reason  # a transform's rows leave with its name as the reason

    def describe(self) -> str:
        return f"keep the rows of subset {self.path}"

    def setup(self) -> None:
        from curation.subsets import read_subset

        object.__setattr__(self, "_subset", read_subset(self.path))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        from curation.subsets import multiplicity

        times = multiplicity(self._subset, batch.column("id"))  # type: ignore[attr-defined]
        rows = np.repeat(np.arange(batch.num_rows, dtype=np.int64), times)
        return batch.take(pa.array(rows)), rows


def subset(path: Any, reason: str = "subset") -> Subset:
    """Keep the rows whose id (a DataComp uid: 32 hex digits) stands in the subset file, and repeat a row that
    stands there k > 1 times; the engine gives the copies ids of their own, "<id>/0" to "<id>/<k-1>".

    path: a `(u8,u8)` `.npy` or headerless file, local or any fsspec URL, that every worker can read.
    """
    path = str(path)
    require(path != "", "subset needs a file: subset('ids.npy')")
    return Subset(path, reason)
