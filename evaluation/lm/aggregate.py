"""From task scores to Core, Extended and the other averages, under each of the three chance conventions.

``aggregates`` gives the keys of DCLM's published evaluation files with their meaning, traps included;
``averages`` gives ours: standard errors, and no number where a member is missing.

A centred score is (accuracy − chance) / (1 − chance). What chance is changed over time, and with it every
centred average: "v0", "v1" (the paper's tables) and "v2" (current). The convention is stored with every score
(``eval_version``), and Core and Extended are given under all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from evaluation.lm.tasks import DATA, Task, load_suite

CURRENT = "v2"
MISSING = "N/A due to missing tasks: "
CLEAN = {
    "low_variance_datasets": "core",
    "rw_small": "small",
    "95%_CI_above": "ci_95",
    "99%_CI_above": "ci_99",
    "mmlu_and_lowvar": "core_and_mmlu",
}
"""Our names of published sets; categories, light and medium keep theirs."""


class AggregateError(ValueError):
    """Scores or a convention that cannot be averaged; the message says which."""


@cache
def _table() -> tuple[tuple[Task, ...], dict[str, dict[str, float]], dict[str, list[str]]]:
    import yaml

    values = yaml.safe_load((DATA / "dclm.yaml").read_text(encoding="utf-8"))
    return load_suite("dclm").tasks, values["baselines"], values["sets"]


def conventions() -> list[str]:
    return sorted(_table()[1])


def baselines(convention: str = CURRENT) -> dict[str, float]:
    """Chance level of each of the 53 tasks, 0..1, in DCLM's order."""
    tasks, changed, _ = _table()
    if convention not in changed:
        raise AggregateError(f"no convention {convention!r} of chance levels; there are {', '.join(changed)}")
    return {task.name: changed[convention].get(task.name, task.chance or 0.0) for task in tasks}


def sets() -> dict[str, tuple[str, ...]]:
    """Every named set as tasks among the 53, in DCLM's order, under our names."""
    tasks, _, named = _table()
    members = {"core": set(named["low_variance_datasets"]), "extended": {t.name for t in tasks}}
    for task in tasks:
        members.setdefault(task.category, set()).add(task.name)
    members |= {CLEAN.get(name, name): set(names) for name, names in named.items()}
    return {name: tuple(t.name for t in tasks if t.name in names) for name, names in members.items()}


def aggregates(icl: Mapping[str, float], convention: str = CURRENT) -> dict[str, Any]:
    """The aggregate keys of a published evaluation file, from ``icl`` = task → accuracy (0..1).

    ``Core``, ``Extended`` and every ``…_centered`` average follow ``convention``, which is ``eval_version``;
    ``Core_v0`` … ``Extended_v2`` are always there. As in DCLM: tasks that are not among the 53 are ignored;
    Core and Extended with a member missing are the text "N/A due to missing tasks: [...]"; all other averages
    are over the members that are there, so they are not comparable when ``missing tasks`` is not "[]" (a list
    written as a text); NaN where none is there. Raises AggregateError on a score that is no number in 0..1.
    """
    tasks, _, named = _table()
    _checked(icl)
    chance = baselines(convention)
    missing = str([t.name for t in tasks if t.name not in icl])
    raw = {t.name: float(icl[t.name]) for t in tasks if t.name in icl}
    centered = {name: _centered(value, chance[name]) for name, value in raw.items()}
    groups: dict[str, list[float]] = {category: [] for category in sorted({t.category for t in tasks})}
    for task in tasks:
        groups[task.category] += [centered[task.name]] if task.name in centered else []
    out: dict[str, Any] = {
        "missing tasks": missing,
        "aggregated_task_categories_centered": {name: _mean(scores) for name, scores in groups.items()},
        "aggregated_centered_results": _mean(centered.values()),
        "aggregated_results": _mean(raw.values()),
    }
    no_core = [name for name in named["low_variance_datasets"] if name not in raw]
    for key in ("rw_small", "95%_CI_above", "99%_CI_above", "low_variance_datasets"):
        out[key] = _mean(value for name, value in raw.items() if name in named[key])
        out[f"{key}_centered"] = _mean(value for name, value in centered.items() if name in named[key])
    for version in conventions():
        levels = baselines(version)
        of = {name: _centered(value, levels[name]) for name, value in raw.items()}
        core_scores = [of[name] for name in sets()["core"] if name in of]
        out[f"Core_{version}"] = MISSING + str(no_core) if no_core else _mean(core_scores)
        out[f"Extended_{version}"] = MISSING + missing if missing != "[]" else _mean(of.values())
    out["Core"], out["Extended"] = out[f"Core_{convention}"], out[f"Extended_{convention}"]
    out["eval_version"] = convention
    return out


@dataclass(frozen=True)
class Average:
    """The mean of centred scores over a set of tasks, ``value`` None where a member is ``missing``.

    ``stderr``: from the tasks' own; those of tasks on the same file (HellaSwag and MMLU are there twice) are
    added up, as if they were wholly dependent, the others are independent. None where one is not known.
    """

    value: float | None
    stderr: float | None
    tasks: int
    missing: tuple[str, ...]
    eval_version: str


def averages(
    results: Mapping[str, tuple[float, float | None]], convention: str = CURRENT
) -> dict[str, Average]:
    """Every named set (``sets()``) from task → (accuracy, standard error); unknown tasks are ignored."""
    tasks, _, _ = _table()
    _checked({name: value for name, (value, _) in results.items()})
    chance = baselines(convention)
    file = {task.name: task.file for task in tasks}
    out = {}
    for name, members in sets().items():
        missing = tuple(m for m in members if m not in results)
        if missing:
            out[name] = Average(None, None, len(members), missing, convention)
            continue
        errors: dict[str, float] = {}
        for m in members:
            error = results[m][1]
            error = math.nan if error is None else error / (1 - chance[m])
            errors[file[m]] = errors.get(file[m], 0.0) + error
        stderr = math.sqrt(math.fsum(e * e for e in errors.values())) / len(members)
        value = _mean(_centered(results[m][0], chance[m]) for m in members)
        out[name] = Average(value, None if math.isnan(stderr) else stderr, len(members), (), convention)
    return out


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def _centered(value: float, chance: float) -> float:
    return (value - chance) / (1 - chance)


def _checked(icl: Mapping[str, Any]) -> None:
    known = {task.name for task in _table()[0]}
    for name, value in icl.items():
        if name in known and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise AggregateError(f"task {name!r}: its accuracy is {value!r}, not a number from 0 to 1")
