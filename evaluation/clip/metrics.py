"""Metrics of zero-shot evaluation. numpy only; each is checked in the tests against a naive loop.

Ties are decided by position: of two equal scores the lower index ranks first. So a result never depends on
the sort of a library, and a collapsed model (all scores equal) lands at chance and not at 100 %.

Every metric is a `Measure`: its value, and per example the part it has in the value's error (`influence`:
Σ influence² = squared standard error), which lets errors of tasks on the same images be added correctly.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
"""Draws behind the error of a minimum."""
CELLS = 1 << 22
"""Scores looked at together: more would only cost memory (MSCOCO has 125 million)."""


class MetricError(ValueError):
    """Scores and targets that do not fit each other; the message says which."""


@dataclass(frozen=True)
class Measure:
    """value: the metric; n: examples; influence: float64 [n], None where the error is not a sum of parts."""

    value: float
    stderr: float
    n: int
    influence: np.ndarray | None = None


def ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank (0 = best) of the target column in each row. scores [n, classes], targets int [n] → int64 [n]."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or len(scores) != len(targets):
        raise MetricError(f"scores have shape {scores.shape}, targets {targets.shape}")
    if len(targets) and not (targets.min() >= 0 and targets.max() < scores.shape[1]):
        row = int(np.flatnonzero((targets < 0) | (targets >= scores.shape[1]))[0])
        raise MetricError(f"row {row}: label {int(targets[row])} is outside the {scores.shape[1]} classes")
    rank = np.empty(len(targets), np.int64)
    step = max(1, CELLS // max(1, scores.shape[1]))
    for start in range(0, len(targets), step):
        part, wanted = scores[start : start + step], targets[start : start + step, None]
        if not np.isfinite(part).all():
            row = start + int(np.flatnonzero(~np.isfinite(part).all(1))[0])
            raise MetricError(f"row {row} has a score that is not finite; the model gives NaN or infinity")
        own = np.take_along_axis(part, wanted, 1)
        before = np.arange(scores.shape[1])[None, :] < wanted
        rank[start : start + step] = ((part > own) | ((part == own) & before)).sum(1)
    return rank


def proportion(hits: np.ndarray) -> Measure:
    """Mean of 0/1 (or fractional) hits with its standard error."""
    hits = np.asarray(hits, np.float64)
    if len(hits) == 0:
        raise MetricError("no examples")
    value = float(hits.mean())
    influence = (hits - value) / len(hits)
    return Measure(value, float(np.sqrt((influence**2).sum())), len(hits), influence)


def accuracy(rank: np.ndarray, k: int = 1) -> Measure:
    """Share of rows whose target is among the k best."""
    return proportion(np.asarray(rank) < k)


def mean_per_class(rank: np.ndarray, targets: np.ndarray, k: int = 1) -> Measure:
    """Mean over the classes present in `targets` of the class's own accuracy: balanced accuracy for k = 1.

    The error takes the classes as fixed and the examples of each class as drawn.
    """
    hits = np.asarray(rank) < k
    if len(hits) == 0:
        raise MetricError("no examples")
    _, index, counts = np.unique(targets, return_inverse=True, return_counts=True)
    recall = np.bincount(index, hits) / counts
    influence = (hits - recall[index]) / (counts[index] * len(counts))
    return Measure(float(recall.mean()), float(np.sqrt((influence**2).sum())), len(hits), influence)


def by_group(rank: np.ndarray, groups: Sequence, k: int = 1) -> dict[str, Measure]:
    """Accuracy of each group, groups in sorted order."""
    hits, names = np.asarray(rank) < k, np.asarray([str(g) for g in groups])
    if len(hits) != len(names):
        raise MetricError(f"{len(hits)} ranks but {len(names)} groups")
    return {str(name): proportion(hits[names == name]) for name in np.unique(names)}


def worst_group(groups: dict[str, Measure], exclude: Collection[str] = (), seed: int = 0) -> Measure:
    """Lowest accuracy among the groups, those in ``exclude`` left out; a minimum is biased low, the more so
    the smaller the groups.

    The error is the spread of that minimum with each group's accuracy drawn from Beta(hits + ½, misses + ½)
    (Jeffreys): draws from the accuracies seen would give a group of four images, all wrong, no error at all,
    and such a group decides FMoW.
    """
    left = [measure for name, measure in groups.items() if name not in exclude]
    if not left:
        raise MetricError(f"no groups{' but those left out' if groups else ''}")
    n = np.array([measure.n for measure in left])
    value = np.array([measure.value for measure in left])
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = rng.beta(value * n + 0.5, (1 - value) * n + 0.5, (DRAWS, len(n))).min(1)
    return Measure(float(value.min()), float(draws.std(ddof=1)), int(n.sum()))


def retrieval_ranks(scores: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of retrieval both ways. scores [images, captions]; owner int [captions]: the caption's image.

    Returns (image→text: best rank of any own caption, int [images]; text→image: rank of the owner, int
    [captions]). Raises MetricError for an image without a caption.
    """
    scores, owner = np.asarray(scores), np.asarray(owner)
    n_images, n_captions = scores.shape
    if len(owner) != n_captions:
        raise MetricError(f"{n_captions} caption columns but {len(owner)} owners")
    lonely = np.setdiff1d(np.arange(n_images), owner)
    if len(lonely):
        raise MetricError(f"image {int(lonely[0])} has no caption ({len(lonely)} such images)")
    text_to_image = ranks(scores.T, owner)
    # an image's best own caption: the highest score, the lowest index among equals
    own = scores[owner, np.arange(n_captions)]
    order = np.lexsort((np.arange(n_captions), -own, owner))
    first = np.searchsorted(owner[order], np.arange(n_images))
    return ranks(scores, order[first]), text_to_image


def recall(
    image_to_text: np.ndarray, text_to_image: np.ndarray, owner: np.ndarray, k: int
) -> dict[str, Measure]:
    """recall@k image→text, text→image, and the mean of the two. All influences are per image, since several
    captions of one image are not independent."""
    n = len(image_to_text)
    forward = proportion(image_to_text < k)
    hits = (np.asarray(text_to_image) < k).astype(np.float64)
    value = float(hits.mean())
    influence = np.bincount(owner, hits - value, n) / len(hits)
    backward = Measure(value, float(np.sqrt((influence**2).sum())), len(hits), influence)
    assert forward.influence is not None
    both = (forward.influence + influence) / 2
    mean = Measure((forward.value + value) / 2, float(np.sqrt((both**2).sum())), n, both)
    return {"image_to_text": forward, "text_to_image": backward, "mean": mean}


def mean_of(parts: Sequence[tuple[Measure, Sequence[str]]]) -> tuple[float, float]:
    """Mean of several measures and its standard error, when some were made on the same examples.

    parts: (measure, ids of its examples). An example's influences are added over the measures before
    squaring, so that what is correlated is not counted as independent.
    """
    if not parts:
        raise MetricError("no measures to average")
    total: dict[str, float] = {}
    for measure, ids in parts:
        if measure.influence is None or len(measure.influence) != len(ids):
            raise MetricError("a measure in a mean needs one influence per example id")
        for key, part in zip(ids, measure.influence.tolist(), strict=True):
            total[key] = total.get(key, 0.0) + part / len(parts)
    value = float(np.mean([measure.value for measure, _ in parts]))
    return value, math.sqrt(math.fsum(part * part for part in total.values()))
