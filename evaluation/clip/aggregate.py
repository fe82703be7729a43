"""From the scores of DataComp's tasks to its five numbers, each with an error and an interval.

``averages`` gives ImageNet, shifts (mean of 6), VTAB (13), retrieval (3), the average of 38, and the average
of the 33 tasks that do not stay near chance. The table of tasks is data: evaluation/data/clip/datacomp.yaml.
Source: DataComp's aggregate_scores.py and the paper's Table 3 and its "clean subset".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Real

import numpy as np

from evaluation.clip.metrics import Measure
from evaluation.clip.tasks import DATA

GROUPS = ("imagenet", "shifts", "vtab", "retrieval", "other")
KINDS = ("classification", "retrieval", "winogavil", "wilds", "fairness")

Score = Measure | tuple[float, float | None] | float | None


class AggregateError(ValueError):
    """Scores that cannot be averaged, or a task that is not in the table; the message says which."""


@dataclass(frozen=True)
class Correction:
    """A second value beside a main metric that has a fault: its name, and the groups that it leaves out."""

    metric: str
    exclude: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))


@dataclass(frozen=True)
class BenchmarkTask:
    """One of the 40 tasks; the head of datacomp.yaml says what each field means."""

    key: str
    name: str
    kind: str
    metric: str | None
    group: str
    size: int
    classes: int | None
    chance: float | None
    templates: int | None
    source: str
    images: str | None = None
    metadata: tuple[str, ...] = ()
    group_by: str | None = None
    group_names: tuple[str, ...] = ()
    corrected: Correction | None = None
    in_average: bool = True
    clean: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", tuple(self.metadata))
        object.__setattr__(self, "group_names", tuple(self.group_names))


@dataclass(frozen=True)
class Average:
    """The mean of a set of tasks: no ``value`` where a member is ``missing`` (keys).

    ``stderr`` is over the test examples drawn; errors of tasks on the same images (the two of CLEVR) are
    added up, as if they were wholly dependent, the others are independent. ``low`` and ``high`` bound the
    bootstrap interval. All three are None where one member's error is not known.
    """

    value: float | None
    stderr: float | None
    low: float | None
    high: float | None
    tasks: int
    missing: tuple[str, ...] = ()


@cache
def tasks() -> tuple[BenchmarkTask, ...]:
    """The 40 tasks in DataComp's order."""
    import yaml

    entries = yaml.safe_load((DATA / "datacomp.yaml").read_text(encoding="utf-8"))["tasks"]
    return tuple(
        BenchmarkTask(**{**e, "corrected": Correction(**e["corrected"]) if "corrected" in e else None})
        for e in entries
    )


@cache
def _index() -> dict[str, BenchmarkTask]:
    return {label: task for task in tasks() for label in (task.key, task.name)}


def task(label: str) -> BenchmarkTask:
    """A task by its key ("vtab/pets") or its display name ("Oxford-IIIT Pet")."""
    if label not in _index():
        known = ", ".join(f"{t.key} ({t.name})" for t in tasks())
        raise AggregateError(f"no task {label!r} among DataComp's 40; there are {known}")
    return _index()[label]


def sets() -> dict[str, tuple[str, ...]]:
    """Every set that is averaged, as task keys in DataComp's order."""
    counted = [t for t in tasks() if t.in_average]
    members = {name: tuple(t.key for t in counted if t.group == name) for name in GROUPS[:-1]}
    members["average"] = tuple(t.key for t in counted)
    members["clean"] = tuple(t.key for t in counted if t.clean)
    return members


def averages(
    results: Mapping[str, Score], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Average]:
    """Every set of ``sets()`` from task (key or display name) → main metric, 0..1.

    A result is a ``Measure``, a pair (value, standard error or None), or a value alone. Other names and tasks
    that do not count are ignored; None counts as missing. The interval is the percentile bootstrap over test
    examples: a Measure with influences is drawn anew example by example (to first order, where it is no plain
    mean of them), another score, and tasks on the same images, from a normal of the standard error. Seeded
    task by task: which other tasks are there changes nothing.
    Raises AggregateError on a score that is no number in 0..1, and on a task given by key and by name.
    """
    scores = _scores(results)
    keys = list(scores)
    at = {key: column for column, key in enumerate(keys)}
    values = np.array([scores[key].value for key in keys])
    covariance = np.zeros((len(keys), len(keys)))
    draws = np.empty((resamples, len(keys)))
    for number, block in enumerate(_blocks()):
        there = [key for key in block if key in at]
        if there:
            columns = [at[key] for key in there]
            rng = np.random.default_rng([seed, number])
            parts = [scores[key] for key in there]
            covariance[np.ix_(columns, columns)], draws[:, columns] = _drawn(parts, rng, resamples)
    out = {}
    for name, members in sets().items():
        missing = tuple(key for key in members if key not in at)
        if missing:
            out[name] = Average(None, None, None, None, len(members), missing)
            continue
        columns = [at[key] for key in members]
        value = math.fsum(values[columns]) / len(columns)
        variance = float(covariance[np.ix_(columns, columns)].sum()) / len(columns) ** 2
        if math.isnan(variance):
            out[name] = Average(value, None, None, None, len(members))
            continue
        low, high = np.quantile(draws[:, columns].mean(1), [(1 - level) / 2, (1 + level) / 2])
        out[name] = Average(value, math.sqrt(variance), float(low), float(high), len(members))
    return out


def _scores(results: Mapping[str, Score]) -> dict[str, Measure]:
    """The results that count, by key, in DataComp's order."""
    found: dict[str, Measure] = {}
    for label, result in results.items():
        known = _index().get(label)
        if known is None or not known.in_average or result is None:
            continue
        if known.key in found:
            raise AggregateError(f"task {known.key} is given twice, by key and as {known.name!r}")
        found[known.key] = _measure(known, result)
    return {t.key: found[t.key] for t in tasks() if t.key in found}


def _measure(of: BenchmarkTask, result: Score) -> Measure:
    if not isinstance(result, Measure):
        value, stderr = result if isinstance(result, tuple) else (result, None)
        result = Measure(value, math.nan if stderr is None else stderr, of.size)
    where = f"task {of.key} ({of.name})"
    if not (isinstance(result.value, Real) and 0 <= result.value <= 1):
        raise AggregateError(f"{where}: its {of.metric} is {result.value!r}, not a number from 0 to 1")
    if not (isinstance(result.stderr, Real) and not result.stderr < 0 and result.stderr != math.inf):
        raise AggregateError(f"{where}: its standard error is {result.stderr!r}, not a number >= 0")
    return result


def _blocks() -> list[list[str]]:
    """Task keys, those on the same images together."""
    blocks: dict[str, list[str]] = {}
    for t in tasks():
        blocks.setdefault(t.images or t.key, []).append(t.key)
    return list(blocks.values())


def _drawn(parts: list[Measure], rng: np.random.Generator, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance [k, k] and bootstrap draws [resamples, k] of k scores on the same images."""
    values = np.array([part.value for part in parts], np.float64)
    errors = np.array([part.stderr for part in parts], np.float64)
    influence = parts[0].influence
    if len(parts) == 1 and influence is not None:
        # To draw n examples with replacement is to draw how often each distinct influence occurs
        distinct, counts = np.unique(influence, return_counts=True)
        if len(distinct) <= 4096:  # the sum of more is normal for every purpose, and drawing them is slow
            times = rng.multinomial(len(influence), counts / len(influence), size=resamples)
            return np.outer(errors, errors), values + (times @ distinct)[:, None]
    return np.outer(errors, errors), values + rng.standard_normal((resamples, 1)) * errors
