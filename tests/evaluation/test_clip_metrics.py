"""Every metric against a naive loop or scikit-learn, on random and on adversarial cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clip import metrics
from evaluation.clip.metrics import MetricError


def naive_rank(row, target):
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return order.index(target)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 12),
    classes=st.integers(1, 9),
    levels=st.sampled_from([1, 2, 3, 1000]),  # few levels: many ties
    seed=st.integers(0, 99),
)
def test_ranks_equal_a_naive_sort(n, classes, levels, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, classes)).astype(np.float32)
    targets = rng.integers(0, classes, n)
    found = metrics.ranks(scores, targets)
    assert found.tolist() == [naive_rank(r.tolist(), t) for r, t in zip(scores, targets, strict=True)]
    for k in (1, 2, 5):
        hits = [naive_rank(r.tolist(), t) < k for r, t in zip(scores, targets, strict=True)]
        assert metrics.accuracy(found, k).value == pytest.approx(np.mean(hits))


def test_a_collapsed_model_lands_at_chance_and_not_at_one():
    targets = np.repeat(np.arange(10), 7)
    rank = metrics.ranks(np.ones((70, 10)), targets)
    assert metrics.accuracy(rank, 1).value == pytest.approx(0.1)
    assert metrics.accuracy(rank, 5).value == pytest.approx(0.5)


def test_accuracy_equals_scikit_learn_and_so_does_balanced_accuracy_with_absent_classes():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 12))
    targets = rng.choice(
        [0, 1, 2, 5, 9, 11], 300, p=[0.5, 0.2, 0.2, 0.05, 0.03, 0.02]
    )  # six classes are absent
    rank = metrics.ranks(scores, targets)
    answers = scores.argmax(1)
    assert metrics.accuracy(rank).value == pytest.approx(sk.accuracy_score(targets, answers))
    assert metrics.accuracy(rank, 3).value == pytest.approx(
        sk.top_k_accuracy_score(targets, scores, k=3, labels=np.arange(12))
    )
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = sk.balanced_accuracy_score(targets, answers)
    assert metrics.mean_per_class(rank, targets).value == pytest.approx(expected)


def test_errors_are_those_of_proportions():
    rank = np.array([0] * 30 + [3] * 70)
    measure = metrics.accuracy(rank)
    assert (measure.value, measure.n) == (0.3, 100)
    assert measure.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 100))
    targets = np.array([0] * 50 + [1] * 50)
    both = metrics.mean_per_class(rank, targets)  # class 0: 30 of 50, class 1: none
    assert both.value == pytest.approx(0.3)
    assert both.stderr == pytest.approx(math.sqrt(0.6 * 0.4 / 50) / 2)


def test_worst_group_with_a_group_of_four():
    rank = np.array([0] * 90 + [1] * 10 + [0, 1, 1, 1])
    groups = ["big"] * 100 + ["tiny"] * 4
    measures = metrics.by_group(rank, groups)
    assert {k: (m.value, m.n) for k, m in measures.items()} == {"big": (0.9, 100), "tiny": (0.25, 4)}
    worst = metrics.worst_group(measures)
    assert worst.value == 0.25
    assert worst.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 6), rel=0.1)  # of Beta(1.5, 3.5)
    assert metrics.worst_group(measures) == worst  # seeded
    none = metrics.worst_group({"tiny": metrics.accuracy(np.ones(4))})
    assert none.value == 0 and none.stderr > 0.05  # four images all wrong are no proof of 0
    assert metrics.worst_group(measures, exclude=("tiny",)).value == 0.9


@settings(max_examples=100, deadline=None)
@given(
    captions=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 99),
    k=st.sampled_from([1, 2, 5]),
)
def test_retrieval_equals_a_naive_loop_with_several_captions_per_image(captions, levels, seed, k):
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(len(captions)), captions))
    scores = rng.integers(0, levels, (len(captions), len(owner))).astype(np.float32)
    forward, backward = metrics.retrieval_ranks(scores, owner)
    found = metrics.recall(forward, backward, owner, k)
    hits = []
    for image in range(len(captions)):
        order = sorted(range(len(owner)), key=lambda j: (-scores[image, j], j))[:k]
        hits.append(any(owner[j] == image for j in order))
    assert found["image_to_text"].value == pytest.approx(np.mean(hits))
    back = []
    for caption in range(len(owner)):
        order = sorted(range(len(captions)), key=lambda i: (-scores[i, caption], i))[:k]
        back.append(owner[caption] in order)
    assert found["text_to_image"].value == pytest.approx(np.mean(back))
    assert found["mean"].value == pytest.approx((np.mean(hits) + np.mean(back)) / 2)


def test_an_image_without_caption_is_refused():
    with pytest.raises(MetricError, match="image 1 has no caption"):
        metrics.retrieval_ranks(np.zeros((3, 2)), np.array([0, 2]))


def test_mean_of_the_same_examples_counts_their_correlation():
    ids = [str(i) for i in range(400)]
    hits = (np.random.default_rng(0).random(400) < 0.4).astype(float)
    one = metrics.proportion(hits)
    value, stderr = metrics.mean_of([(one, ids), (one, ids)])
    assert (value, stderr) == pytest.approx((one.value, one.stderr))
    other = [f"other {i}" for i in ids]
    _, independent = metrics.mean_of([(one, ids), (one, other)])
    assert independent == pytest.approx(one.stderr / math.sqrt(2))
    opposite = metrics.proportion(1 - hits)
    value, nothing = metrics.mean_of([(one, ids), (opposite, ids)])
    assert value == pytest.approx(0.5) and nothing == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_mean_matches_repeated_draws():
    """Two metrics on one sample of images, drawn 600 times: the spread is what mean_of says."""
    rng = np.random.default_rng(3)

    def draw():
        targets = rng.integers(0, 4, 200)
        scores = rng.normal(size=(200, 4)) + 1.2 * np.eye(4)[targets]
        rank = metrics.ranks(scores, targets)
        parts = [metrics.accuracy(rank, 1), metrics.accuracy(rank, 2), metrics.mean_per_class(rank, targets)]
        return metrics.mean_of([(p, [str(i) for i in range(200)]) for p in parts])

    draws = [draw() for _ in range(600)]
    assert np.mean([e for _, e in draws]) == pytest.approx(np.std([v for v, _ in draws]), rel=0.12)


def test_bad_input_is_named():
    with pytest.raises(MetricError, match="row 2: label 5 is outside the 3 classes"):
        metrics.ranks(np.zeros((3, 3)), np.array([0, 1, 5]))
    scores = np.zeros((3, 3))
    scores[1, 0] = np.nan
    with pytest.raises(MetricError, match="row 1 has a score that is not finite"):
        metrics.ranks(scores, np.zeros(3, int))
    with pytest.raises(MetricError, match="no examples"):
        metrics.proportion(np.array([]))
