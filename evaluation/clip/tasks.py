"""Tasks as data: what is asked of which set, with which words, and what enters the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "clip"
KINDS = ("classification", "retrieval", "winogavil", "attributes")
CLASSIFICATION_METRICS = (
    "acc1",
    "acc5",
    "mean_per_class1",
    "mean_per_class5",
    "worst_group1",
    "worst_group5",
    "macro_f1",
)
RETRIEVAL_METRICS = tuple(
    f"{way}_recall{k}" for way in ("mean", "image_to_text", "text_to_image") for k in (1, 5, 10)
)
# The names of `metric_families.winogavil`
WINOGAVIL_METRICS = (
    "avg_jaccard_score",
    *(f"jaccard_score_{size}" for size in ("5", "6", "10", "12", "5-6", "10-12")),
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
    Metric `macro_f1` is over the labels present.

    kind "retrieval": `caption` is a column with one caption, or a list of captions, per image.

    kind "winogavil": which of 5, 6, 10 or 12 pictures belong to a cue. `cue` is the column whose values are
    the cues, `near` one whose equals make hard candidates; `instances` of each size are drawn from the rows
    by `evaluation.clip.associations.draw`. The text is the one template with "a" or "an" before the cue.

    kind "attributes": several classifications of the same pictures, reported and never averaged, as
    DataComp's face tasks are. `attributes` maps a name to {label, classes, templates, group}; its metrics are
    those of classification with the name behind (`acc1_tone`). `parts()` gives the plain tasks.

    where: column → value, the rows of the set that this task uses. chance overrides the computed chance.
    why: what the task is there to show, for readers.
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
    cue: str = "cue"
    near: str | None = None
    instances: int = 100
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    chance: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        for name in ("metrics", "classes", "templates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in KINDS:
            raise TaskError(f'task {self.key}: kind is "{self.kind}"; use one of {", ".join(KINDS)}')
        if not self.metrics:
            raise TaskError(f"task {self.key} has no metrics")
        if self.kind == "attributes":
            self._check_attributes()
            return
        known = {
            "classification": CLASSIFICATION_METRICS,
            "retrieval": RETRIEVAL_METRICS,
            "winogavil": WINOGAVIL_METRICS,
        }[self.kind]
        for metric in self.metrics:
            if metric not in known:
                raise TaskError(
                    f'task {self.key}: no metric "{metric}" for {self.kind}; use {", ".join(known)}'
                )
            if metric.startswith("worst_group") and self.group is None:
                raise TaskError(f"task {self.key}: {metric} needs `group`, a column of the set")
        for template in self.templates:
            if "{c}" not in template:
                raise TaskError(f'task {self.key}: template {template!r} lacks "{{c}}"')

    def _check_attributes(self) -> None:
        if not self.attributes:
            raise TaskError(f"task {self.key}: kind attributes needs `attributes`, name → label and classes")
        taken = {f"{metric}_{name}" for name, part in self.parts().items() for metric in part.metrics}
        left = [metric for metric in self.metrics if metric not in taken]
        if left:
            raise TaskError(
                f'task {self.key}: no metric "{left[0]}"; use a metric of classification with _ and one of '
                f"{', '.join(self.attributes)} behind it"
            )

    def parts(self) -> dict[str, Task]:
        """The classification that each attribute is, by its name, with the metrics that name it. An attribute
        that no metric names is not there."""
        parts = {}
        for name, fields in self.attributes.items():
            metrics = [m[: -len(name) - 1] for m in self.metrics if m.endswith(f"_{name}")]
            if metrics:
                try:
                    parts[name] = Task(
                        key=f"{self.key}.{name}",
                        title=f"{self.title}: {name}",
                        kind="classification",
                        set=self.set,
                        metrics=tuple(metrics),
                        where=self.where,
                        **fields,
                    )
                except TypeError as error:
                    raise TaskError(f"task {self.key}, attribute {name}: {error}") from None
        return parts


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
        reported = {f"{t.key}_{m}" for t in self.tasks if t.kind == "attributes" for m in t.metrics}
        for key in self.score:
            if key not in results:
                raise TaskError(f"{self.name}: score names {key}, results are {', '.join(results)}")
            if "worst_group" in key:
                raise TaskError(
                    f"{self.name}: {key} cannot enter the score: a minimum is biased by group size"
                )
            if key in reported:
                raise TaskError(f"{self.name}: {key} cannot enter the score: attributes are only reported")


def load_tasks(name_or_path: str | Path) -> TaskList:
    """A task list by the name of a file under evaluation/data/clip, or by path (YAML)."""
    import yaml

    path = DATA / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise TaskError(f"no task list {str(name_or_path)!r}; give demo, or the path of a YAML file")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "score" not in values:
        raise TaskError(f"{path} is no list of tasks over tables: it has no score")
    tasks = []
    for entry in values["tasks"]:
        try:
            tasks.append(Task(**entry))
        except TypeError as error:
            raise TaskError(f"{path}, task {entry.get('key')}: {error}") from None
    score = values["score"]
    return TaskList(path.stem, tuple(tasks), tuple(score["tasks"]), score["name"])
