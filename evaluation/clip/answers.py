"""What one task gave, whatever its kind: measures, and the rows that they can be made from again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from evaluation.clip.metrics import Measure


@dataclass
class Answers:
    """measures: by metric. ids: the examples behind a measure's influences, in their order. groups: metric →
    group → measure, of worst-group metrics. chance: by metric, where it is computed. corrected: the main
    metric under the mended rule, where a published rule has a fault. examples: columns of equal length, from
    which every number can be made again."""

    measures: dict[str, Measure] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    examples: dict[str, list[Any]] = field(default_factory=dict)
    groups: dict[str, dict[str, Measure]] = field(default_factory=dict)
    corrected: Measure | None = None


COLUMNS = ("id", "way", "target", "answer", "rank", "group")
"""Of an examples table, after ``task``. way: which direction or objective; target, answer: right and given;
rank: of the right one, 0 = best (null where several are right); group: of worst-group metrics."""


def examples_table(task: str, columns: dict[str, list[Any]]) -> pa.Table:
    n = len(columns["rank"])
    types = {"rank": pa.int32()}
    arrays = {name: pa.array(columns[name], types.get(name, pa.string())) for name in COLUMNS}
    return pa.table({"task": pa.array([task] * n, pa.string()), **arrays})


def figure(measure: Measure) -> dict[str, Any]:
    """A measure as JSON."""
    return {"value": measure.value, "stderr": measure.stderr, "n": measure.n}
