"""The metrics against scikit-learn on adversarial cases: ties, absent classes, a group of four."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.clip import metric_families as families
from evaluation.clip import metrics

sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")


def case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(scores float32 [n, classes], targets int [n]) without ties among the best."""
    rng = np.random.default_rng(sum(map(ord, name)))
    n, classes = {"one row": (1, 5), "two classes": (40, 2), "many classes": (300, 1000)}.get(name, (120, 9))
    scores = rng.normal(size=(n, classes)).astype(np.float32)
    targets = rng.integers(0, classes, n)
    if name == "half right":
        scores[np.arange(0, n, 2), targets[::2]] += 10
    elif name == "one class in the targets":
        targets[:] = 3
    elif name == "one class in the answers":
        scores[:, 7] += 100
    elif name == "long tail":
        targets = np.minimum(rng.geometric(0.6, n) - 1, classes - 1)
    elif name == "answers that are never right":
        targets = scores.argmin(1)
    elif name == "huge and tiny scores":
        scores *= np.float32(10.0) ** rng.integers(-30, 30, (n, 1)).astype(np.float32)
    elif name == "all right":
        scores[np.arange(n), targets] += 100
    return scores, targets


CASES = [
    "random", "one row", "two classes", "many classes", "half right", "all right", "long tail",
    "one class in the targets", "one class in the answers", "answers that are never right",
    "huge and tiny scores",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_classification(name):
    scores, targets = case(name)
    found = families.classification(scores, targets)
    answers, classes = scores.argmax(1), np.arange(scores.shape[1])
    assert found["acc1"].value == pytest.approx(sk.accuracy_score(targets, answers), abs=1e-12)
    expected = sk.balanced_accuracy_score(targets, answers)
    assert found["mean_per_class_recall"].value == pytest.approx(expected, abs=1e-12)
    if len(classes) > 5:
        expected = sk.top_k_accuracy_score(targets, scores, k=5, labels=classes)
        assert found["acc5"].value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_macro_f1_over_the_labels_present(name):
    scores, targets = case(name)
    answers = scores.argmax(1)
    expected = sk.f1_score(targets, answers, labels=np.unique(targets), average="macro", zero_division=0)
    assert families.macro_f1(answers, targets).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_worst_group_with_a_group_of_four(name):
    scores, targets = case(name)
    groups = np.arange(len(targets)) % 3
    groups[: min(4, len(groups))] = 9
    answers = scores.argmax(1)
    found = families.grouped(metrics.ranks(scores, targets), groups, "region")
    each = [sk.accuracy_score(targets[groups == g], answers[groups == g]) for g in np.unique(groups)]
    assert found["acc_wg"].value == pytest.approx(min(each), abs=1e-12)
    assert found["acc_avg"].value == pytest.approx(sk.accuracy_score(targets, answers), abs=1e-12)


@pytest.mark.parametrize("ties", ["first", "last"])
@pytest.mark.parametrize("levels", [1, 2, 3, 10**6])
def test_jaccard_with_ties(ties, levels):
    rng = np.random.default_rng(levels)
    sizes = rng.choice([5, 6, 10, 12], 60)
    similarity = [rng.integers(0, levels, n).astype(np.float32) for n in sizes]
    marks = [
        rng.permutation(np.arange(n) < rng.integers(1, n)) for n in sizes
    ]  # one to all but one are right
    expected = []
    for row, true in zip(similarity, marks, strict=True):
        order = np.argsort(row, kind="stable") if ties == "last" else np.argsort(-row, kind="stable")[::-1]
        said = np.isin(np.arange(len(row)), order[-true.sum() :])
        expected.append(sk.jaccard_score(true, said))
    found = families.jaccard(np.concatenate(similarity), np.concatenate(marks), sizes, ties)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_ties_of_classes_go_to_the_first_as_argmax_and_against_scikit_learns_top_k(levels):
    # scikit-learn gives a tie at rank k to the last of the classes, ours to the first, as argmax does: they
    # agree when the classes are read backwards
    rng = np.random.default_rng(levels)
    scores, targets = rng.integers(0, levels, (200, 8)).astype(np.float32), rng.integers(0, 8, 200)
    rank = metrics.ranks(scores, targets)
    assert metrics.accuracy(rank).value == sk.accuracy_score(targets, scores.argmax(1))
    mirrored = sk.top_k_accuracy_score(7 - targets, scores[:, ::-1], k=5, labels=np.arange(8))
    assert metrics.accuracy(rank, 5).value == pytest.approx(mirrored)
    if levels == 1:
        assert metrics.accuracy(rank, 5).value == np.mean(targets < 5)
