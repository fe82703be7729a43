"""Tasks as data: what is asked of which set, with which words, and what enters the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "clip"
KINDS = ("classification", "retrieval")
CLASSIFICATION_METRICS = (
    "acc1",
    "acc5",
    "mean_per_class1",
    "mean_per_class5",
    "worst_group1",
    "worst_group5",
)
RETRIEVAL_METRICS = tuple(
    f"{way}_recall{k}" for way in ("mean", "image_to_text", "text_to_image") for k in (1, 5, 10)
)


class TaskError(ValueError):
    """A task file that cannot be used; the message names the task and the key."""


@dataclass(frozen=True)
class Task:
    """One question to a model.

    kind "classification": `label` is the column that holds the right class; `classes` lists them in order
    (empty: the sorted labels of the set); each class is asked with every template ("{c}" stands for its name)
    and the text vectors are averaged. `members` names a column whose distinct values stand in for the class
    name: a class is then the mean over its members' names. `group` names the column of worst-group metrics.

    kind "retrieval": `caption` is a column with one caption, or a list of captions, per image.

    where: column → value, the rows of the set that this task uses. chance overrides the computed chance.
    """

    key: str
    title: str
    kind: str
    set: str
    metrics: tuple[str, ...]
    label: str = "label"
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{c}",)
    members: str | None = None
    group: str | None = None
    caption: str = "caption"
    where: Mapping[str, Any] = field(default_factory=dict)
    chance: float | None = None

    def __post_init__(self) -> None:
        for name in ("metrics", "classes", "templates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in KINDS:
            raise TaskError(f'task {self.key}: kind is "{self.kind}"; use one of {", ".join(KINDS)}')
        known = CLASSIFICATION_METRICS if self.kind == "classification" else RETRIEVAL_METRICS
        for metric in self.metrics:
            if metric not in known:
                raise TaskError(
                    f'task {self.key}: no metric "{metric}" for {self.kind}; use {", ".join(known)}'
                )
            if metric.startswith("worst_group") and self.group is None:
                raise TaskError(f"task {self.key}: {metric} needs `group`, a column of the set")
        if not self.metrics:
            raise TaskError(f"task {self.key} has no metrics")
        for template in self.templates:
            if "{c}" not in template:
                raise TaskError(f'task {self.key}: template {template!r} lacks "{{c}}"')


@dataclass(frozen=True)
class TaskList:
    """Tasks and the score: the plain mean of the results named in `score` ("<task>_<metric>"), × 100."""

    name: str
    tasks: tuple[Task, ...]
    score: tuple[str, ...]
    score_name: str

    def __post_init__(self) -> None:
        results = [f"{t.key}_{m}" for t in self.tasks for m in t.metrics]
        repeated = sorted({r for r in results if results.count(r) > 1})
        if repeated:
            raise TaskError(f"{self.name}: {repeated[0]} stands twice")
        for key in self.score:
            if key not in results:
                raise TaskError(f"{self.name}: score names {key}, results are {', '.join(results)}")
            if "worst_group" in key:
                raise TaskError(
                    f"{self.name}: {key} cannot enter the score: a minimum is biased by group size"
                )


def load_tasks(name_or_path: str | Path) -> TaskList:
    """A task list by the name of a file under evaluation/data/clip, or by path (YAML)."""
    import yaml

    path = DATA / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in DATA.glob("*.yaml")))
        raise TaskError(f"no task list {str(name_or_path)!r}; known: {known}, or the path of a YAML file")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    tasks = []
    for entry in values["tasks"]:
        try:
            tasks.append(Task(**entry))
        except TypeError as error:
            raise TaskError(f"{path}, task {entry.get('key')}: {error}") from None
    score = values["score"]
    return TaskList(path.stem, tuple(tasks), tuple(score["tasks"]), score["name"])
