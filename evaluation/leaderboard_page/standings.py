"""Standings: the runs of one track and scale as ranked rows, with intervals over seeds.

Every interval is a 95 % Student t interval over seeds; a difference is Welch's (unpaired, unequal variance).
With fewer than three seeds there is no interval, and with none nothing is claimed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.leaderboard_page.results import Result, Task
from evaluation.stats import Interval, difference, t_interval

SEEDS = 3  # fewer seeds than this give a mean and no interval


@dataclass(frozen=True)
class TaskCell:
    """A task over the seeds of a recipe."""

    task: Task
    value: Interval


@dataclass(frozen=True)
class Row:
    """A recipe over its seeds. `rank` counts recipes with a better mean, plus one. `gain` and `gain_random`
    are differences to the controls with the sign that makes positive better; `beats` is None when there is no
    interval or no control to say it by."""

    rank: int
    recipe: str
    title: str
    control: str | None  # "no-filter", "random", "other", or None for a candidate
    kept_fraction: float | None
    fraction_of: str
    rows: float
    rows_pool: int | None
    epochs: float | None
    score: Interval
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    gain: Interval | None
    gain_random: Interval | None
    against_random: str | None
    beats: bool | None
    tied: bool  # not separable from the first row
    tasks: Mapping[str, TaskCell]
    seconds: float | None
    files: tuple[str, ...]
    plan_hashes: tuple[str, ...]
    funnel: Result | None = None
    recipe_file: Result | None = None


@dataclass(frozen=True)
class Standings:
    """One table: a track at one scale."""

    track: str
    scale: str
    scale_hash: str
    score_name: str
    higher_is_better: bool
    rows: Sequence[Row]
    versions: Mapping[str, str] = field(default_factory=dict)
    official: bool = True

    @property
    def scale_title(self) -> str:
        """The scale's name; one that was changed, or is not ours, says so."""
        return self.scale if self.official else f"{self.scale} (unofficial)"

    @property
    def key(self) -> str:
        """A name for anchors and files."""
        return slug(f"{self.track}-{self.scale}-{self.scale_hash[:8]}")

    @property
    def tasks(self) -> list[Task]:
        """Tasks of any row, those in the score first, in the order of the files."""
        found: dict[str, Task] = {}
        for row in self.rows:
            for key, cell in row.tasks.items():
                found.setdefault(key, cell.task)
        return sorted(found.values(), key=lambda t: not t.in_score)


def slug(text: str) -> str:
    """Text as part of a file name or an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def standings(results: Sequence[Result]) -> list[Standings]:
    """Tables in the order text, image_text, others; runs of different scale hashes never share one."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.track, r.scale, r.scale_hash), []).append(r)
    order = {"text": 0, "image_text": 1}
    keys = sorted(groups, key=lambda k: (order.get(k[0], 2), k))
    return [_table(groups[key]) for key in keys]


def seeds_interval(values: Sequence[float]) -> Interval:
    """The t interval over seeds; bounds are NaN for fewer than SEEDS of them."""
    found = t_interval(values)
    if len(values) >= SEEDS:
        return found
    return Interval(found.mean, math.nan, math.nan, math.nan, len(values))


def known(interval: Interval | None) -> bool:
    """Whether an interval has bounds."""
    return interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high)


def control_kind(recipe: str, control: bool) -> str | None:
    """Which control a recipe is, by its name."""
    if not control:
        return None
    name = slug(recipe)
    if re.search(r"\b(no-?filter\w*|unfiltered|none|all)\b", name):
        return "no-filter"
    return "random" if "random" in name else "other"


def _table(results: Sequence[Result]) -> Standings:
    runs: dict[str, list[Result]] = {}
    for r in results:
        runs.setdefault(r.recipe, []).append(r)
    for recipe in runs:
        runs[recipe].sort(key=lambda r: r.seed)
    head = results[0]
    sign = 1 if head.higher_is_better else -1
    kinds = {recipe: control_kind(recipe, rs[0].control) for recipe, rs in runs.items()}
    means = {recipe: sum(r.score for r in rs) / len(rs) for recipe, rs in runs.items()}
    fractions = {recipe: _mean([r.kept_fraction for r in rs]) for recipe, rs in runs.items()}
    order = sorted(runs, key=lambda recipe: (-sign * means[recipe], recipe))
    unfiltered = next((recipe for recipe in order if kinds[recipe] == "no-filter"), None)
    randoms = [recipe for recipe in order if kinds[recipe] == "random"]
    rows = []
    for recipe in order:
        rs, kind = runs[recipe], kinds[recipe]
        rank = 1 + sum(sign * (means[other] - means[recipe]) > 0 for other in order)
        near = _nearest(fractions, recipe, randoms)
        gain = _gain(rs, runs[unfiltered], sign) if unfiltered and kind != "no-filter" else None
        gain_random = _gain(rs, runs[near], sign) if near and kind is None else None
        best = _gain(runs[order[0]], rs, sign) if recipe != order[0] else None
        rows.append(
            Row(
                rank=rank,
                recipe=recipe,
                title=rs[0].title,
                control=kind,
                kept_fraction=fractions[recipe],
                fraction_of=rs[0].fraction_of,
                rows=sum(r.rows for r in rs) / len(rs),
                rows_pool=rs[0].rows_pool,
                epochs=_mean([r.epochs for r in rs]),
                score=seeds_interval([r.score for r in rs]),
                seeds=tuple(r.seed for r in rs),
                scores=tuple(r.score for r in rs),
                gain=gain,
                gain_random=gain_random,
                against_random=near if gain_random is not None else None,
                beats=_beats(gain, gain_random) if kind is None else None,
                tied=best is not None and known(best) and best.low <= 0,
                tasks=_cells(rs),
                seconds=_mean(
                    [(r.train_seconds or 0) + (r.eval_seconds or 0) for r in rs if r.train_seconds]
                ),
                files=tuple(str(r.file) for r in rs),
                plan_hashes=tuple(dict.fromkeys(r.plan_hash for r in rs if r.plan_hash)),
                funnel=next((r for r in rs if r.funnel), None),
                recipe_file=next((r for r in rs if r.recipe_file), None),
            )
        )
    return Standings(
        head.track,
        head.scale,
        head.scale_hash,
        head.score_name,
        head.higher_is_better,
        rows,
        head.versions,
        all(r.official for r in results),
    )


def _nearest(fractions: Mapping[str, float | None], recipe: str, randoms: Sequence[str]) -> str | None:
    """The random control nearest in kept fraction; the best one where a fraction is not known."""
    here = fractions[recipe]

    def far(other: str) -> tuple[float, int]:
        there = fractions[other]
        return (0.0 if here is None or there is None else abs(there - here), randoms.index(other))

    return min(randoms, key=far, default=None)


def _gain(these: Sequence[Result], those: Sequence[Result], sign: int) -> Interval:
    """Welch's difference of scores, positive where `these` are better; no bounds below SEEDS seeds a side, or
    when neither side varies over its seeds, which says nothing about chance."""
    found = difference([sign * r.score for r in these], [sign * r.score for r in those])
    if min(len(these), len(those)) < SEEDS or found.stderr == 0:
        return Interval(found.mean, math.nan, math.nan, math.nan, found.n)
    return found


def _beats(*gains: Interval | None) -> bool | None:
    if not all(known(g) for g in gains):
        return None
    return all(g.low > 0 for g in gains if g is not None)


def _cells(rs: Sequence[Result]) -> dict[str, TaskCell]:
    keys = dict.fromkeys(key for r in rs for key in r.tasks)
    cells = {}
    for key in keys:
        of_seeds = [r.tasks[key] for r in rs if key in r.tasks]
        cells[key] = TaskCell(of_seeds[0], seeds_interval([t.value for t in of_seeds]))
    return cells


def _mean(values: Sequence[Any]) -> float | None:
    known_values = [v for v in values if v is not None]
    return sum(known_values) / len(known_values) if known_values else None
