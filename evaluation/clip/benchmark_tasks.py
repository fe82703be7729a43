"""DataComp's 40 tasks: what is asked of an encoded set, by the kind that the task table gives it.

``answer`` is the one entry; a kind is a function (task, data, encoded, texts) → Answers. Logits are 100 times
the cosine, as DataComp has them; the temperature that a model has learned is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.clip import associations, faces, metrics
from evaluation.clip import metric_families as families
from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.answers import COLUMNS, Answers
from evaluation.clip.encode import Encoded, Texts, class_vectors
from evaluation.clip.table_tasks import association_examples, retrieval_examples
from evaluation.clip.tasks import TaskError

SCALE = np.float32(100.0)


def answer(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Ask one task of its encoded set (``sets.open_set``). Raises TaskError, MetricError, EncodeError."""
    return KINDS[task.kind](task, data, encoded, texts)


def logits(encoded: Encoded, vectors: np.ndarray) -> np.ndarray:
    """float32 [n, classes]: 100 × image · class."""
    return SCALE * (encoded.features @ vectors.T)


def classify(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Zero-shot classification; the set has ``classes`` and ``templates``."""
    scores, targets = _scores(task, data, encoded, texts)
    return _classified(task, data, encoded, scores, targets, families.classification(scores, targets))


def wilds(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Classification with what WILDS adds: macro F1 (iWildCam), accuracy by a column of the metadata."""
    scores, targets = _scores(task, data, encoded, texts)
    rank = metrics.ranks(scores, targets)
    found = families.classification(scores, targets)
    if task.metric == "F1-macro_all":
        found |= families.iwildcam(scores, targets)
    elif task.corrected is not None and task.group_by is not None:
        regions, years = (_metadata(task, encoded, column) for column in (task.group_by, "year"))
        found |= families.fmow(rank, regions, task.group_names, task.corrected.exclude, years)
    else:
        found |= families.grouped(rank, _metadata(task, encoded, "slide"), "slide")
    return _classified(task, data, encoded, scores, targets, found)


def fairness(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Classification with the accuracy of the worst group; faces are reported."""
    if task.group_by is None:
        return _faces(task, data, encoded, texts)
    scores, targets = _scores(task, data, encoded, texts)
    k = 5 if (task.metric or "").startswith("acc_top5") else 1
    rank, groups = metrics.ranks(scores, targets), _metadata(task, encoded, task.group_by)
    found = families.classification(scores, targets)
    found |= families.grouped(rank, groups, task.group_by, k, task.group_names)
    return _classified(task, data, encoded, scores, targets, found)


def retrieve(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Retrieval in both directions; column ``caption``: the texts of each image. No prompt around them."""
    captions: list[str] = []
    owner: list[int] = []
    for row, own in enumerate(encoded.column("caption", task.key)):
        captions += own
        owner += [row] * len(own)
    owners = np.array(owner, np.int64)
    scores = encoded.features @ texts(captions).T
    forward, backward = metrics.retrieval_ranks(scores, owners)
    examples = retrieval_examples(encoded.ids, captions, owner, scores, forward, backward)
    return Answers(families.retrieval_of_ranks(forward, backward, owners), ids=encoded.ids, examples=examples)


def winogavil(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    """Which candidates belong to a cue; the set's ``instances`` have cue, candidates and associations (rows).

    The main value takes the last of equal candidates, as DataComp does; ``corrected`` the first. Equal ones
    are no rarity under autocast, where a similarity has eleven bits.
    """
    instances = list(data.instances)
    sizes = np.array([len(instance.candidates) for instance in instances], np.int64)
    rows = np.concatenate([np.array(instance.candidates, np.int64) for instance in instances])
    marks = np.concatenate([np.isin(i.candidates, i.associations) for i in instances])
    prompts = texts([associations.prompt(instance.cue) for instance in instances])
    pictures, cues = encoded.features[rows], np.repeat(prompts, sizes, axis=0)
    if encoded.half:  # the product of an autocast: halves in, single-precision sums, halves out
        pictures, cues = (a.astype(np.float16).astype(np.float32) for a in (pictures, cues))
    similarity = np.einsum("md,md->m", pictures, cues)
    if encoded.half:
        similarity = similarity.astype(np.float16).astype(np.float32)
    found = families.winogavil(similarity, marks, sizes, ties="last")
    ids = [f"{task.key}/{instance.id}" for instance in instances]
    examples = association_examples(
        ids, [i.cue for i in instances], [encoded.ids[r] for r in rows], similarity, marks, sizes, "last"
    )
    mended = families.winogavil(similarity, marks, sizes, ties="first").get(task.metric or "")
    return Answers(found, ids=ids, examples=examples, corrected=mended)


def _scores(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    vectors = class_vectors(texts, [[name] for name in data.classes], data.templates)
    return logits(encoded, vectors), np.array(encoded.column("label", task.key), np.int64)


def _classified(
    task: BenchmarkTask,
    data: Any,
    encoded: Encoded,
    scores: np.ndarray,
    targets: np.ndarray,
    found: dict[str, metrics.Measure],
) -> Answers:
    answers = Answers(found, ids=encoded.ids)
    groups: list[Any] = [None] * len(targets)
    if task.group_by is not None:
        names = task.group_names
        groups = [names[g] if names else str(g) for g in _metadata(task, encoded, task.group_by).tolist()]
        marker = f"_{task.group_by}:"
        answers.groups[task.metric or ""] = {
            name.partition(marker)[2]: measure for name, measure in found.items() if marker in name
        }
    if task.corrected is not None:
        answers.corrected = found[task.corrected.metric]
    classes = list(data.classes)
    answers.examples = {
        "id": encoded.ids,
        "way": ["image_to_class"] * len(targets),
        "target": [classes[t] for t in targets],
        "answer": [classes[i] for i in scores.argmax(1)],
        "rank": metrics.ranks(scores, targets).tolist(),
        "group": groups,
    }
    return answers


def _metadata(task: BenchmarkTask, encoded: Encoded, column: str) -> np.ndarray:
    values = np.array(encoded.column(column, task.key))
    if values.dtype.kind not in "if":
        raise TaskError(f"task {task.key}: metadata {column} is not a number in every row")
    return values.astype(np.int64) if values.dtype.kind == "i" else values


def _faces(task: BenchmarkTask, data: Any, encoded: Encoded, texts: Texts) -> Answers:
    said, annotated, examples = {}, {}, {name: [] for name in COLUMNS}  # type: ignore[var-annotated]
    for name in ("age", "gender", "race", "race_binary"):
        annotated[name] = _metadata(task, encoded, name)
    pairs = [f"race:{r} gender:{g}" for r, g in zip(annotated["race"], annotated["gender"], strict=True)]
    for objective in faces.OBJECTIVES:
        classes, templates = data.objectives[objective], data.objective_templates[objective]
        scores = logits(encoded, class_vectors(texts, [[name] for name in classes], templates))
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores).all(1))[0])
            raise metrics.MetricError(f"task {task.key}, {encoded.ids[row]}: {objective} scores not finite")
        said[objective] = scores.argmax(1)
        right = annotated.get(objective)
        examples["id"] += encoded.ids
        examples["way"] += [objective] * len(encoded.ids)
        examples["target"] += [None] * len(pairs) if right is None else [classes[i] for i in right]
        examples["answer"] += [classes[i] for i in said[objective]]
        examples["rank"] += [None] * len(pairs)
        examples["group"] += pairs
    found = faces.report(said, annotated)
    measures = {name: metrics.Measure(m.value, m.stderr, m.n) for name, m in found.items()}
    return Answers(measures, examples=examples)


KINDS = {
    "classification": classify,
    "wilds": wilds,
    "fairness": fairness,
    "retrieval": retrieve,
    "winogavil": winogavil,
}
