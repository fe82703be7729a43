"""The best rows by a score in one streaming pass: a threshold from a histogram instead of a sort.

`top_fraction` ranks every row, which takes 16 bytes a row on disk and in the task that decides. Here each
batch adds to a histogram whose bins are 1/4096 of a power of two wide: whatever the pool's size, a few
hundred kilobytes decide. The price is that rows are kept by whole bins, and the report says what that meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.barriers.base import Decision, Totals, column_of
from curation.barriers.select import LAST, Select, rank_keys, row_sizes, score_of

_SHIFT = np.uint64(40)  # of a 64-bit key the sign, the exponent and twelve bits of the fraction remain
_NO_SCORE = LAST >> 40


@dataclass(frozen=True)
class StreamingSelect(Select):
    """See `top_fraction(quantile="streaming")`."""

    partitions: int = 1
    name: ClassVar[str] = "top_fraction"  # type: ignore[assignment]
    uses: ClassVar[tuple[str, ...]] = ("curation.barriers.select", "curation.hashing")

    def describe(self) -> str:
        return super().describe() + " (streaming quantile)"

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        bins, at, count = np.unique(self._bins(batch), return_inverse=True, return_counts=True)
        sizes = count
        if self.by == "bytes":
            sizes = np.zeros(len(bins), np.int64)
            np.add.at(sizes, at, row_sizes(batch, self.bytes_column).to_numpy())
        return pa.table(
            {
                "partition": pa.array(np.zeros(len(bins), np.int32)),
                # a summary row speaks for a bin, not for a row; the place only has to be one of the batch
                "index": pa.array(np.zeros(len(bins), np.int64)),
                "bin": pa.array(bins),
                "rows": pa.array(count.astype(np.int64)),
                "amount": pa.array(sizes.astype(np.int64)),
            }
        )

    def reduce(self, part: pa.Table) -> pa.Table:
        return part.group_by("bin").aggregate([("rows", "sum"), ("amount", "sum")]).sort_by("bin")

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        table = pa.concat_tables(parts) if parts else None
        bins = table.column("bin").to_numpy() if table else np.zeros(0, np.uint64)
        rows = table.column("rows_sum").to_numpy() if table else np.zeros(0, np.int64)
        amounts = table.column("amount_sum").to_numpy() if table else np.zeros(0, np.int64)
        budget = self._budget(int(rows.sum()), int(amounts.sum()), totals)
        # bins come best first; the one that would pass the budget is out, with all its rows
        n = int(np.searchsorted(np.cumsum(amounts), budget, side="right"))
        kept = int(rows[:n].sum())
        summary: dict[str, Any] = {
            "cut": int(bins[n - 1]) if n else None,
            "threshold": _lower_edge(int(bins[:n][bins[:n] < _NO_SCORE][-1]))
            if (bins[:n] < _NO_SCORE).any()
            else None,
            "kept": kept,
            "of": int(rows.sum()),
            "fraction": kept / int(rows.sum()) if len(rows) else 0.0,
            "rows_in_the_next_bin": int(rows[n]) if n < len(rows) else 0,
        }
        if self.by == "bytes":
            summary |= {
                "bytes": int(amounts[:n].sum()),
                "of_bytes": int(amounts.sum()),
                "budget_bytes": budget,
            }
        return Decision(None, summary)

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        if summary["cut"] is None:
            return pa.array(np.zeros(batch.num_rows, bool)), {}
        return pa.array(self._bins(batch) <= np.uint64(summary["cut"])), {}

    def _bins(self, batch: pa.RecordBatch) -> np.ndarray:
        """The bin of every row, best scores first; rows without a score in the last."""
        assert self.column is not None
        return rank_keys(column_of(batch, self.column), self.column) >> _SHIFT


def _lower_edge(number: int) -> float:
    """The lowest score in a bin."""
    return score_of((number << 40) | ((1 << 40) - 1))
