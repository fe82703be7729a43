"""Evaluate a model on a task list: one model load, every image encoded once, a JSON result with errors."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.clip import metrics
from evaluation.clip.metrics import Measure
from evaluation.clip.sets import Examples, TableSet, WdsSet
from evaluation.clip.tasks import Task, TaskError, TaskList, load_tasks

METRIC_TITLES = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class1": "mean per-class recall",
    "mean_per_class5": "mean per-class recall@5",
    "worst_group1": "worst group, top-1",
    "worst_group5": "worst group, top-5",
    **{f"mean_recall{k}": f"mean recall@{k}" for k in (1, 5, 10)},
    **{f"image_to_text_recall{k}": f"image to text, recall@{k}" for k in (1, 5, 10)},
    **{f"text_to_image_recall{k}": f"text to image, recall@{k}" for k in (1, 5, 10)},
}


@dataclass(frozen=True)
class Encoded:
    """A set after the image tower: features float32 [n, d] of length 1, and the set's other columns."""

    ids: list[str]
    features: np.ndarray
    columns: dict[str, list[Any]]

    def where(self, conditions: Mapping[str, Any], task: str) -> Encoded:
        """The rows for which every column has the value wanted."""
        keep = np.ones(len(self.ids), bool)
        for column, value in conditions.items():
            keep &= np.array([v == value for v in self.column(column, task)])
        if not keep.any():
            raise TaskError(f"task {task}: no row with {dict(conditions)}")
        rows = np.flatnonzero(keep)
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Encoded([self.ids[i] for i in rows], self.features[rows], columns)

    def column(self, name: str, task: str) -> list[Any]:
        if name not in self.columns:
            raise TaskError(
                f"task {task}: the set has no column {name}; it has {', '.join(sorted(self.columns))}"
            )
        return self.columns[name]


@dataclass
class Answers:
    """What one task gave: a measure per metric, the example ids behind each, and per-example rows."""

    measures: dict[str, Measure] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    examples: dict[str, list[Any]] = field(default_factory=dict)
    groups: dict[str, dict[str, Measure]] = field(default_factory=dict)


def encode_set(model: Any, examples: Iterable[Examples]) -> Encoded:
    """Run the image tower over a set, batch by batch; only features and columns stay in memory."""
    ids: list[str] = []
    parts: list[np.ndarray] = []
    columns: dict[str, list[Any]] = {}
    for batch in examples:
        try:
            parts.append(model.encode_images(batch.images))
        except ValueError as error:
            raise ValueError(f"in the batch that starts at {batch.ids[0]}: {error}") from error
        ids.extend(batch.ids)
        for name, values in batch.columns.items():
            columns.setdefault(name, []).extend(values)
    return Encoded(ids, np.concatenate(parts), columns)


def class_vectors(model: Any, task: Task, names: list[list[str]]) -> np.ndarray:
    """One text vector per class: every template with every name, each of length 1, mean, length 1 again."""
    prompts = [[t.replace("{c}", name) for name in own for t in task.templates] for own in names]
    unique = sorted({p for own in prompts for p in own})
    at = {prompt: row for row, prompt in enumerate(unique)}
    vectors = model.encode_texts(unique)
    means = np.stack([vectors[[at[p] for p in own]].mean(0) for own in prompts])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def classify(model: Any, task: Task, encoded: Encoded) -> Answers:
    """Zero-shot classification."""
    labels = encoded.column(task.label, task.key)
    if labels and isinstance(labels[0], int):
        targets = np.array(labels)
        classes = list(task.classes)
    else:
        classes = list(task.classes) or sorted(set(labels))
        index = {name: i for i, name in enumerate(classes)}
        unknown = sorted(set(labels) - set(classes))
        if unknown:
            raise TaskError(f"task {task.key}: label {unknown[0]!r} is not among its {len(classes)} classes")
        targets = np.array([index[label] for label in labels])
    if not classes:
        raise TaskError(f"task {task.key}: numeric labels need `classes`")
    names = [[name] for name in classes]
    if task.members is not None:
        pairs = zip(targets.tolist(), encoded.column(task.members, task.key), strict=True)
        found: dict[int, set[str]] = {}
        for target, member in pairs:
            found.setdefault(target, set()).add(member)
        names = [sorted(found.get(i, {name})) for i, name in enumerate(classes)]
    scores = encoded.features @ class_vectors(model, task, names).T
    rank = metrics.ranks(scores, targets)
    answers = Answers(ids=encoded.ids)
    groups = None if task.group is None else [str(g) for g in encoded.column(task.group, task.key)]
    for metric in task.metrics:
        k = int(metric[-1])
        if metric.startswith("acc"):
            answers.measures[metric] = metrics.accuracy(rank, k)
        elif metric.startswith("mean_per_class"):
            answers.measures[metric] = metrics.mean_per_class(rank, targets, k)
        else:
            assert groups is not None
            answers.groups[metric] = metrics.by_group(rank, groups, k)
            answers.measures[metric] = metrics.worst_group(answers.groups[metric])
        answers.chance[metric] = min(1.0, k / len(classes))
    answers.examples = {
        "id": encoded.ids,
        "way": ["image_to_class"] * len(rank),
        "target": [classes[t] for t in targets],
        "answer": [classes[i] for i in scores.argmax(1)],
        "rank": rank.tolist(),
        "group": groups or [None] * len(rank),
    }
    return answers


def retrieve(model: Any, task: Task, encoded: Encoded) -> Answers:
    """Retrieval in both directions among the images and captions of the set."""
    captions: list[str] = []
    owner: list[int] = []
    for row, value in enumerate(encoded.column(task.caption, task.key)):
        own = [value] if isinstance(value, str) else list(value)
        captions += [t.replace("{c}", caption) for caption in own for t in task.templates[:1]]
        owner += [row] * len(own)
    owners = np.array(owner)
    scores = encoded.features @ model.encode_texts(captions).T
    forward, backward = metrics.retrieval_ranks(scores, owners)
    answers = Answers(ids=encoded.ids)
    for metric in task.metrics:
        way, k_text = metric.rsplit("_recall", 1)
        k = int(k_text)
        answers.measures[metric] = metrics.recall(forward, backward, owners, k)[way]
        backward_chance = min(1.0, k / len(encoded.ids))
        # a random order has a hit when any of the m own captions falls among the first k of all
        own = np.bincount(owners)
        miss = np.ones(len(own))
        for i in range(min(k, len(captions))):
            miss *= np.clip((len(captions) - own - i) / (len(captions) - i), 0, 1)
        forward_chance = float(1 - miss.mean())
        answers.chance[metric] = {
            "image_to_text": forward_chance,
            "text_to_image": backward_chance,
            "mean": (forward_chance + backward_chance) / 2,
        }[way]
    answers.examples = {
        "id": encoded.ids + [encoded.ids[i] for i in owner],
        "way": ["image_to_text"] * len(forward) + ["text_to_image"] * len(backward),
        "target": [None] * len(forward) + captions,
        "answer": [captions[i] for i in scores.argmax(1)] + [encoded.ids[i] for i in scores.argmax(0)],
        "rank": forward.tolist() + backward.tolist(),
        "group": [None] * (len(forward) + len(backward)),
    }
    return answers


def evaluate(
    model: Any,
    tasks: TaskList | str | Path,
    sets: Mapping[str, TableSet | WdsSet],
    out: str | Path | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a model directory (or a loaded TwoTower) on a task list and return the result as a dict.

    sets: name → set, for every set the tasks name. out: path of the result (JSON); beside it goes
    `<stem>.examples.parquet` with one row per example and task, from which every number can be made again.
    run: what else the result must say (track, scale, recipe, seed, dataset, train, …); merged in as it is.
    """
    from filters.image_text import network

    began = time.perf_counter()
    task_list = tasks if isinstance(tasks, TaskList) else load_tasks(tasks)
    missing = sorted({t.set for t in task_list.tasks} - set(sets))
    if missing:
        raise TaskError(f"{task_list.name}: the set {', '.join(missing)} was not given")
    tower = network.load(model) if isinstance(model, str | Path) else model
    encoded = {
        name: encode_set(tower, sets[name].batches()) for name in sorted({t.set for t in task_list.tasks})
    }
    report: dict[str, Any] = {}
    measured: dict[str, tuple[Measure, list[str]]] = {}
    tables = []
    for task in task_list.tasks:
        chosen = encoded[task.set].where(task.where, task.key)
        answers = (classify if task.kind == "classification" else retrieve)(tower, task, chosen)
        for metric, measure in answers.measures.items():
            key = f"{task.key}_{metric}"
            measured[key] = (measure, [f"{task.set}/{i}" for i in answers.ids])
            report[key] = {
                "title": f"{task.title}: {METRIC_TITLES[metric]}",
                "metric": metric,
                "value": measure.value,
                "stderr": measure.stderr,
                "n": measure.n,
                "chance": task.chance if task.chance is not None else answers.chance[metric],
                "higher_is_better": True,
                "in_score": key in task_list.score,
            }
            if metric in answers.groups:
                report[key]["groups"] = {
                    name: {"value": m.value, "stderr": m.stderr, "n": m.n}
                    for name, m in answers.groups[metric].items()
                }
        tables.append(_example_table(task.key, answers.examples))
    result: dict[str, Any] = {
        "track": "image_text",
        **(run or {}),
        "task_list": task_list.name,
        "tasks": report,
    }
    if task_list.score:
        value, stderr = metrics.mean_of([measured[key] for key in task_list.score])
        result["score"] = {
            "name": task_list.score_name,
            "value": 100 * value,
            "stderr": 100 * stderr,
            "higher_is_better": True,
        }
    result["eval_seconds"] = round(time.perf_counter() - began, 3)
    result["versions"] = {**versions(), **(run or {}).get("versions", {})}
    if out is not None:
        _write(Path(out), result, pa.concat_tables(tables))
    return result


def versions() -> dict[str, str]:
    """Versions that a result can depend on."""
    import PIL
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


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


def _example_table(task: str, columns: dict[str, list[Any]]) -> pa.Table:
    n = len(columns["rank"])
    types = {"rank": pa.int32()}
    arrays = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    return pa.table({"task": pa.array([task] * n, pa.string()), **arrays})


def _write(path: Path, result: dict[str, Any], examples: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(path.stem + ".examples.parquet")
    result["examples"] = side.name
    pq.write_table(examples, side, compression="zstd")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
