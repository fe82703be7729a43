"""What a finished run knows about one id: why it left, its stored scores, and where they rank.

Everything is read from the run's report and side-cars, file by file, so memory is that of one shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.select import side_cars


@dataclass(frozen=True)
class Stored:
    """`found`: whether the run has a side-car row of this id. `ranks`: score (struct fields as a.b) →
    (share of stored values that are lower, how many values there are)."""

    run: str
    same_plan: bool
    found: bool
    dropped_by: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    ranks: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    thresholds: Mapping[int, float] = field(default_factory=dict)  # of barriers, by the number of their step

    @property
    def told(self) -> str:
        """In one line."""
        if not self.found:
            return f"{self.run} has no scores of this id (it was quarantined, or is of another pool)"
        fate = "was kept" if self.dropped_by is None else f"was dropped by {self.dropped_by!r}"
        other = "" if self.same_plan else " (by another plan)"
        return f"in {self.run} this row {fate}{other}"

    def threshold(self, index: int) -> float | None:
        """The score at which a selection cut, if the same plan made it."""
        return self.thresholds.get(index) if self.same_plan else None

    def barrier(self, reason: str, later: set[str]) -> tuple[str, str]:
        """(status, note) of a barrier for this row; `later`: reasons of the steps behind it."""
        if not self.same_plan:
            return "undecided", f"{self.run} ran another plan"
        if not self.found:
            return "undecided", f"{self.run} has no row of this id"
        if self.dropped_by == reason:
            return "FAIL", f"so it was in {self.run}"
        if self.dropped_by is None or self.dropped_by in later:
            return "pass", f"so it was in {self.run}"
        return "undecided", f"in {self.run} the row had left before, by {self.dropped_by!r}"

    def ranked(self, values: Mapping[str, Any]) -> Stored:
        """With the rank of each number among the run's stored values of that score."""
        numbers = dict(_leaves(values))
        if not numbers:
            return self
        below, total = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
        for table in _tables(self.run, {name.split(".")[0] for name in numbers}):
            for name, value in numbers.items():
                column = _leaf(table, name)
                if column is not None:
                    total[name] += len(column) - column.null_count
                    below[name] += pc.sum(pc.less(column, value)).as_py() or 0
        ranks = {name: (below[name] / total[name], total[name]) for name in numbers if total[name]}
        return replace(self, ranks=ranks)


def stored_row(run: str, row_id: str, plan_hash: str) -> Stored:
    """What `run` stored about `row_id`. FileNotFoundError if it is not a finished run."""
    from curation.funnel import read_report

    report = read_report(run)
    thresholds = {
        barrier["step"]: float(found)
        for barrier in report.get("barriers") or ()
        if isinstance(found := (barrier.get("summary") or {}).get("threshold"), int | float)
    }
    scores: dict[str, Any] = {}
    dropped_by, seen = None, False
    for table in _tables(run, None):
        found = table.filter(pc.equal(table.column("id"), row_id))
        if found.num_rows:
            row = found.slice(0, 1).to_pylist()[0]
            dropped_by = row.pop("dropped_by", None) or dropped_by
            row.pop("id")
            seen, scores = True, scores | {k: v for k, v in row.items() if v is not None}
    same = report.get("plan_hash") == plan_hash
    return Stored(run, same, seen, dropped_by, scores, thresholds=thresholds)


def shard_of(run: str, row_id: str) -> str | None:
    """Key of the input shard that `row_id` came from, as the first stage's side-cars tell."""
    import pyarrow.parquet as pq

    for url in side_cars(run):
        if url.rsplit("/", 2)[-2] == "0":
            with storage.open_read(url) as file:
                ids = pq.read_table(file, columns=["id"]).column("id")
            if pc.any(pc.equal(ids, row_id)).as_py():
                return storage.basename(url).removesuffix(".parquet")
    return None


def _tables(run: str, columns: set[str] | None) -> Iterator[pa.Table]:
    """Side-car tables one by one: those columns of them that there are."""
    import pyarrow.parquet as pq

    for url in side_cars(run):
        with storage.open_read(url) as file:
            reader = pq.ParquetFile(file)
            names = None
            if columns is not None:
                names = [n for n in reader.schema_arrow.names if n in columns]
                if not names:
                    continue
            yield reader.read(columns=names)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool) and value == value:
            yield f"{prefix}{name}", float(value)


def _leaf(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    head, *rest = name.split(".")
    if head not in table.column_names:
        return None
    column = table.column(head)
    for part in rest:
        kind = column.type
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        column = pc.struct_field(column, part)
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), None, column)
    return column if pa.types.is_integer(kind) else None
