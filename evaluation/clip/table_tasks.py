"""The tasks of a task list (``tasks.Task``) over table sets: what is asked, and what came of it.

``answer`` is the one entry; a kind is a function (task, encoded, texts) → Answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.clip import associations, metric_families, metrics
from evaluation.clip.answers import COLUMNS, Answers
from evaluation.clip.encode import Encoded, Texts, class_vectors
from evaluation.clip.tasks import Task, TaskError

METRIC_TITLES = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class1": "mean per-class recall",
    "mean_per_class5": "mean per-class recall@5",
    "worst_group1": "worst group, top-1",
    "worst_group5": "worst group, top-5",
    "macro_f1": "macro F1",
    **{f"mean_recall{k}": f"mean recall@{k}" for k in (1, 5, 10)},
    **{f"image_to_text_recall{k}": f"image to text, recall@{k}" for k in (1, 5, 10)},
    **{f"text_to_image_recall{k}": f"text to image, recall@{k}" for k in (1, 5, 10)},
    "avg_jaccard_score": "Jaccard index",
    **{
        f"jaccard_score_{n}": f"Jaccard index, {n.replace('-', ' to ')} candidates"
        for n in ("5", "6", "10", "12", "5-6", "10-12")
    },
}


def title(task: Task, metric: str) -> str:
    """ "Kind of picture: top-1"; an attribute's name stands before the metric's."""
    if task.kind == "attributes":
        for name in task.parts():
            if metric.endswith(f"_{name}") and metric[: -len(name) - 1] in METRIC_TITLES:
                return f"{task.title}: {name}, {METRIC_TITLES[metric[: -len(name) - 1]]}"
    return f"{task.title}: {METRIC_TITLES[metric]}"


def answer(task: Task, encoded: Encoded, texts: Texts) -> Answers:
    """Ask one task of an encoded set. Raises TaskError, MetricError, EncodeError."""
    chosen = encoded.where(task.where, task.key)
    return KINDS[task.kind](task, chosen, texts)


def classify(task: Task, encoded: Encoded, texts: Texts) -> Answers:
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
    scores = encoded.features @ class_vectors(texts, names, task.templates).T
    rank = metrics.ranks(scores, targets)
    said = scores.argmax(1)
    answers = Answers(ids=encoded.ids)
    groups = None if task.group is None else [str(g) for g in encoded.column(task.group, task.key)]
    for metric in task.metrics:
        if metric == "macro_f1":
            answers.measures[metric] = metric_families.macro_f1(said, targets)
            answers.chance[metric] = chance_of_f1(targets, len(classes))
            continue
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
        "answer": [classes[i] for i in said],
        "rank": rank.tolist(),
        "group": groups or [None] * len(rank),
    }
    return answers


def chance_of_f1(targets: np.ndarray, classes: int) -> float:
    """Macro F1 of answers drawn evenly from the classes, to first order: a label of share p of the examples
    has precision p and recall 1 / classes."""
    _, counts = np.unique(targets, return_counts=True)
    share = counts / len(targets)
    return float(np.mean(2 * share / classes / (share + 1 / classes)))


def retrieve(task: Task, encoded: Encoded, texts: Texts) -> Answers:
    """Retrieval in both directions among the images and captions of the set."""
    captions: list[str] = []
    owner: list[int] = []
    for row, value in enumerate(encoded.column(task.caption, task.key)):
        own = [value] if isinstance(value, str) else list(value)
        captions += [t.replace("{c}", caption) for caption in own for t in task.templates[:1]]
        owner += [row] * len(own)
    owners = np.array(owner)
    scores = encoded.features @ texts(captions).T
    forward, backward = metrics.retrieval_ranks(scores, owners)
    answers = Answers(ids=encoded.ids)
    for metric in task.metrics:
        way, k_text = metric.rsplit("_recall", 1)
        k = int(k_text)
        answers.measures[metric] = metrics.recall(forward, backward, owners, k)[way]
        backward_chance = min(1.0, k / len(encoded.ids))
        # a random order has a hit when any of the m own captions falls among the first k of all
        own_captions = np.bincount(owners)
        miss = np.ones(len(own_captions))
        for i in range(min(k, len(captions))):
            miss *= np.clip((len(captions) - own_captions - i) / (len(captions) - i), 0, 1)
        forward_chance = float(1 - miss.mean())
        answers.chance[metric] = {
            "image_to_text": forward_chance,
            "text_to_image": backward_chance,
            "mean": (forward_chance + backward_chance) / 2,
        }[way]
    answers.examples = retrieval_examples(encoded.ids, captions, owner, scores, forward, backward)
    return answers


def retrieval_examples(
    ids: list[str],
    captions: list[str],
    owner: list[int],
    scores: np.ndarray,
    image_to_text: np.ndarray,
    text_to_image: np.ndarray,
) -> dict[str, list[Any]]:
    """A row an image, then a row a caption."""
    n, m = len(image_to_text), len(text_to_image)
    return {
        "id": ids + [ids[i] for i in owner],
        "way": ["image_to_text"] * n + ["text_to_image"] * m,
        "target": [None] * n + captions,
        "answer": [captions[i] for i in scores.argmax(1)] + [ids[i] for i in scores.argmax(0)],
        "rank": image_to_text.tolist() + text_to_image.tolist(),
        "group": [None] * (n + m),
    }


def associate(task: Task, encoded: Encoded, texts: Texts) -> Answers:
    """Which candidates belong to a cue, of instances drawn from the rows; see ``associations``."""
    cues = encoded.column(task.cue, task.key)
    encoded = encoded.rows(np.array([row for row, cue in enumerate(cues) if cue is not None], np.int64))
    for column in (task.cue, *([task.near] if task.near else [])):
        encoded.column(column, task.key)
    instances = associations.draw(task, encoded.ids, encoded.columns)
    template = task.templates[0]
    prompts = [template.replace("{c}", associations.prompt(instance.cue)) for instance in instances]
    sizes = np.array([len(instance.candidates) for instance in instances])
    rows = np.concatenate([np.array(instance.candidates) for instance in instances])
    marks = np.concatenate([np.isin(i.candidates, i.answers) for i in instances])
    similarity = np.einsum("md,md->m", encoded.features[rows], np.repeat(texts(prompts), sizes, axis=0))
    found = metric_families.winogavil(similarity, marks, sizes)
    chances = associations.chances(instances)
    missing = [metric for metric in task.metrics if metric not in found]
    if missing:
        raise TaskError(f"task {task.key}: no instance counts for {missing[0]}")
    answers = Answers(
        measures={m: found[m] for m in task.metrics},
        chance={m: chances[m] for m in task.metrics},
        ids=[f"{task.key}/{number}" for number in range(len(instances))],
    )
    answers.examples = association_examples(
        answers.ids, [i.cue for i in instances], [encoded.ids[r] for r in rows], similarity, marks, sizes
    )
    return answers


def association_examples(
    ids: list[str],
    cues: list[str],
    candidates: list[str],
    similarity: np.ndarray,
    marks: np.ndarray,
    sizes: np.ndarray,
    ties: str = "first",
) -> dict[str, list[Any]]:
    """A row an instance: ``way`` is the cue, ``group`` the number of candidates, ``target`` and ``answer``
    are the right and the chosen candidates, by id."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    chosen = metric_families.chosen(similarity, marks, sizes, ties)
    start = 0
    for number, size in enumerate(sizes.tolist()):
        stop = start + size
        for name, mask in (("target", marks), ("answer", chosen)):
            columns[name].append(" ".join(candidates[i] for i in range(start, stop) if mask[i]))
        columns["id"].append(ids[number])
        columns["way"].append(cues[number])
        columns["rank"].append(None)
        columns["group"].append(str(size))
        start = stop
    return columns


def attributes(task: Task, encoded: Encoded, texts: Texts) -> Answers:
    """Several classifications of the same pictures; rows without the attribute are left out. Reported only,
    so its measures have no influences."""
    answers = Answers()
    examples: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for name, part in task.parts().items():
        there = [row for row, label in enumerate(encoded.column(part.label, part.key)) if label is not None]
        if not there:
            raise TaskError(f"task {task.key}: no row has the attribute {name} (column {part.label})")
        own = classify(part, encoded.rows(np.array(there)), texts)
        for metric, measure in own.measures.items():
            answers.measures[f"{metric}_{name}"] = metrics.Measure(measure.value, measure.stderr, measure.n)
            answers.chance[f"{metric}_{name}"] = own.chance[metric]
            if metric in own.groups:
                answers.groups[f"{metric}_{name}"] = own.groups[metric]
        own.examples["way"] = [f"image_to_{name}"] * len(own.examples["way"])
        for column, values in own.examples.items():
            examples[column] += values
    answers.measures = {metric: answers.measures[metric] for metric in task.metrics}
    answers.examples = examples
    return answers


KINDS = {
    "classification": classify,
    "retrieval": retrieve,
    "winogavil": associate,
    "attributes": attributes,
}
