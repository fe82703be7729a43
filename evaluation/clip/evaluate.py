"""The first form of the runner, for callers that bring sets and result head themselves: see ``run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.clip import run as runner
from evaluation.clip.examples import EvalSet
from evaluation.clip.tasks import Task, TaskList
from evaluation.clip.wds_set import WdsSet


def evaluate(
    model: Any,
    tasks: TaskList | str | Path,
    sets: Mapping[str, EvalSet],
    out: str | Path | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``run.evaluate`` with these sets, that raises at the first task that fails. run: what else the result
    must say (track, scale, recipe, seed, dataset, train, …); merged in as it is."""
    return runner.evaluate(model, tasks, out, sets=sets, about=run, strict=True)


def wds_tasks(data: WdsSet, metric: str = "acc1", title: str | None = None) -> TaskList:
    """The task that a published evaluation set is: its own classes and templates."""
    names = tuple(dict.fromkeys([metric, "acc1", "acc5", "mean_per_class1"]))
    task = Task(
        key=data.name,
        title=title or data.name,
        kind="classification",
        set=data.name,
        metrics=names if len(data.classes) > 5 else tuple(n for n in names if n != "acc5"),
        classes=tuple(data.classes),
        templates=tuple(data.templates),
    )
    return TaskList(data.name, (task,), (), "")
