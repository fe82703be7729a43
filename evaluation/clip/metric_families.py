"""The metrics of DataComp's 40 tasks, one function a family, under the names of its result files.

Each function takes plain arrays and returns metric name → ``Measure``. What metrics share is in ``metrics``
(ranks with ties by position, balanced accuracy, recall, groups); here is what only these tasks need.
Sources: DataComp's eval_utils, CLIP_benchmark 1.4.0 and WILDS 2.0.0 for the definitions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from evaluation.clip import metrics
from evaluation.clip.metrics import Measure, MetricError

RECALLS = (1, 5, 10)


def classification(scores: np.ndarray, targets: np.ndarray) -> dict[str, Measure]:
    """``acc1``, ``acc5`` (of five classes and more) and ``mean_per_class_recall``: the mean over the classes
    present in the targets (scikit-learn's balanced accuracy). scores [n, classes], targets int [n]."""
    rank = metrics.ranks(scores, targets)
    found = {"acc1": metrics.accuracy(rank, 1)}
    if np.shape(scores)[1] >= 5:
        found["acc5"] = metrics.accuracy(rank, 5)
    return {**found, "mean_per_class_recall": metrics.mean_per_class(rank, targets)}


def retrieval(scores: np.ndarray, owner: np.ndarray, ks: Sequence[int] = RECALLS) -> dict[str, Measure]:
    """Recall@k both ways. scores [images, captions], owner int [captions]: the caption's image.

    ``text_retrieval_recall@k``: an image is a hit when any of its captions is among the k best;
    ``image_retrieval_recall@k``: a caption is a hit when its image is; ``mean_recall@k``: the mean of both.
    """
    return retrieval_of_ranks(*metrics.retrieval_ranks(scores, owner), owner, ks)


def retrieval_of_ranks(
    image_to_text: np.ndarray, text_to_image: np.ndarray, owner: np.ndarray, ks: Sequence[int] = RECALLS
) -> dict[str, Measure]:
    """``retrieval`` from the ranks that ``metrics.retrieval_ranks`` gives."""
    found = {}
    for k in ks:
        ways = metrics.recall(image_to_text, text_to_image, owner, k)
        found[f"text_retrieval_recall@{k}"] = ways["image_to_text"]
        found[f"image_retrieval_recall@{k}"] = ways["text_to_image"]
        found[f"mean_recall@{k}"] = ways["mean"]
    return found


def jaccard(
    similarity: np.ndarray, associated: np.ndarray, candidates: np.ndarray, ties: str = "first"
) -> np.ndarray:
    """Jaccard index of each WinoGAViL instance, float64 [instances].

    As many of the most similar candidates are chosen as there are answers, a; with h of them right the index
    is h / (2a − h). Arguments: ``chosen``.
    """
    picked = chosen(similarity, associated, candidates, ties)
    associated, candidates = np.asarray(associated, bool), np.asarray(candidates, np.int64)
    instance = np.repeat(np.arange(len(candidates)), candidates)
    answers = np.bincount(instance[associated], minlength=len(candidates))
    hits = np.bincount(instance[picked & associated], minlength=len(candidates))
    return hits / (2 * answers - hits)


def chosen(
    similarity: np.ndarray, associated: np.ndarray, candidates: np.ndarray, ties: str = "first"
) -> np.ndarray:
    """Which candidates a model chooses in each instance: the most similar, as many as there are answers.

    The candidates of all instances stand one after another: similarity float [m] to the cue, associated bool
    [m]: is it an answer; candidates int [instances]: how many each instance has, Σ = m. Result: bool [m].
    ties: of equal candidates the "first" or the "last" is taken. DataComp takes the last, from a sort in
    rising order that is stable for so few.
    """
    similarity, associated = np.asarray(similarity), np.asarray(associated, bool)
    candidates = np.asarray(candidates, np.int64)
    if ties not in ("first", "last"):
        raise MetricError(f'ties is {ties!r}; use "first" or "last"')
    if not len(candidates):
        raise MetricError("no instances")
    if similarity.ndim != 1 or not len(similarity) == len(associated) == candidates.sum():
        raise MetricError(
            f"{candidates.sum()} candidates are announced, but there are {similarity.shape} similarities and "
            f"{associated.shape} marks of an association"
        )
    instance = np.repeat(np.arange(len(candidates)), candidates)
    answers = np.bincount(instance[associated], minlength=len(candidates))
    if not answers.all():
        raise MetricError(f"instance {int(np.argmin(answers))} has no associated candidate")
    if not np.isfinite(similarity).all():
        row = int(np.flatnonzero(~np.isfinite(similarity))[0])
        raise MetricError(f"instance {int(instance[row])} has a similarity that is not finite")
    position = np.arange(len(similarity))
    order = np.lexsort((position if ties == "first" else -position, -similarity, instance))
    first = np.cumsum(candidates) - candidates
    # an instance keeps its stretch of the array; a candidate's place within it is its rank
    picked = np.zeros(len(similarity), bool)
    picked[order[position - first[instance] < answers[instance]]] = True
    return picked


def winogavil(
    similarity: np.ndarray, associated: np.ndarray, candidates: np.ndarray, ties: str = "first"
) -> dict[str, Measure]:
    """Mean Jaccard index of all instances (``avg_jaccard_score``) and by number of candidates; the main
    metric is ``jaccard_score_10-12``: instances with 10 and more. A slice without an instance is not there.
    Influences are per instance, 0 for those outside the slice. Arguments: ``chosen``."""
    scores, n = jaccard(similarity, associated, candidates, ties), np.asarray(candidates)
    slices = {f"jaccard_score_{size}": n == size for size in (5, 6, 10, 12)}
    slices |= {"jaccard_score_5-6": n <= 6, "jaccard_score_10-12": n >= 10}
    found = {"avg_jaccard_score": metrics.proportion(scores)}
    for name, rows in slices.items():
        if rows.any():
            part = metrics.proportion(scores[rows])
            influence = np.zeros(len(scores))
            influence[rows] = part.influence
            found[name] = Measure(part.value, part.stderr, part.n, influence)
    return found


def macro_f1(predictions: np.ndarray, targets: np.ndarray) -> Measure:
    """F1 averaged over the labels present in the targets (WILDS' rule for iWildCam). int [n], int [n].

    A prediction of an absent label is an error of the true class and counts for no other. The influences are
    those of the delta method: F1 of a label is a ratio of two sums over examples.
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape or targets.ndim != 1:
        raise MetricError(f"predictions have shape {predictions.shape}, targets {targets.shape}")
    if not len(targets):
        raise MetricError("no examples")
    labels, true = np.unique(targets, return_inverse=True)
    said = np.minimum(np.searchsorted(labels, predictions), len(labels) - 1)
    present = labels[said] == predictions
    hit = present & (said == true)
    size = np.bincount(true, minlength=len(labels)) + np.bincount(said[present], minlength=len(labels))
    f1 = 2 * np.bincount(true[hit], minlength=len(labels)) / size
    influence = (2 * hit - f1[true]) / size[true] - np.where(present, f1[said] / size[said], 0.0)
    influence /= len(labels)
    return Measure(float(f1.mean()), float(np.sqrt((influence**2).sum())), len(targets), influence)


def iwildcam(scores: np.ndarray, targets: np.ndarray) -> dict[str, Measure]:
    """``acc_avg``, ``recall-macro_all`` and the main metric ``F1-macro_all``, both over the labels present.
    scores [n, classes], targets int [n]."""
    rank = metrics.ranks(scores, targets)
    return {
        "acc_avg": metrics.accuracy(rank),
        "recall-macro_all": metrics.mean_per_class(rank, targets),
        "F1-macro_all": macro_f1(np.argmax(scores, 1), targets),
    }


def grouped(
    rank: np.ndarray, groups: np.ndarray, field: str, k: int = 1, names: Sequence[str] = ()
) -> dict[str, Measure]:
    """Top-k accuracy: of all (``acc_avg``), of each group (``acc_<field>:<group>``) and of the worst
    (``acc_wg``); for k > 1 the names begin with ``acc_top<k>``.

    rank int [n] (0 = best), groups whole numbers >= 0 [n]: column ``field`` of the metadata; names: what the
    groups are called, by number (none: the numbers). A group without an example is not there and is not the
    worst. GeoDE: field "region", k 1; Dollar Street: field "income_ds", k 5.
    """
    prefix = "acc" if k == 1 else f"acc_top{k}"
    accuracy = metrics.by_group(rank, _labels(groups, field, names), k)
    each = {f"{prefix}_{field}:{name}": measure for name, measure in accuracy.items()}
    return {f"{prefix}_avg": metrics.accuracy(rank, k), **each, f"{prefix}_wg": metrics.worst_group(accuracy)}


def fmow(
    rank: np.ndarray,
    regions: np.ndarray,
    names: Sequence[str],
    exclude: Collection[str] = ("Other",),
    years: np.ndarray | None = None,
) -> dict[str, Measure]:
    """Accuracy of all, of each region and of the worst, which has two values; with ``years`` also of each
    year and of the worst.

    ``acc_worst_region`` counts every region, as DataComp does by an oversight and as published scores have
    it; ``acc_worst_region_corrected`` leaves ``exclude`` out, which is WILDS' definition. rank int [n],
    regions whole numbers [n] that stand for ``names``, years whole numbers [n].
    """
    found = grouped(rank, regions, "region", names=names)
    compat = found.pop("acc_wg")
    accuracy = {name.removeprefix("acc_region:"): m for name, m in found.items() if name != "acc_avg"}
    corrected = metrics.worst_group(accuracy, exclude)
    if years is not None:
        by_year = grouped(rank, years, "year")
        found |= {name: measure for name, measure in by_year.items() if name.startswith("acc_year:")}
        found["acc_worst_year"] = by_year["acc_wg"]
    return {**found, "acc_worst_region": compat, "acc_worst_region_corrected": corrected}


def _labels(groups: np.ndarray, field: str, names: Sequence[str]) -> list[str]:
    """Group numbers as texts: their names, or the numbers."""
    numbers = np.asarray(groups)
    if numbers.ndim != 1:
        raise MetricError(f"{field}: groups have shape {numbers.shape}, one column is needed")
    whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    if names:
        whole &= numbers < len(names)
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        known = f"a number below {len(names)} ({', '.join(names)})" if names else "a whole number >= 0"
        raise MetricError(f"row {row}: {field} is {numbers[row]}, not {known}")
    called = [str(name) for name in names] or [str(i) for i in range(int(numbers.max(initial=-1)) + 1)]
    return [called[i] for i in numbers.astype(np.int64).tolist()]
