"""Each family of DataComp's metrics against scikit-learn or a naive loop, on random and adversarial cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.clip import metric_families as families
from evaluation.clip import metrics
from evaluation.clip.aggregate import task, tasks
from evaluation.clip.metrics import MetricError

REGIONS = task("FMoW").group_names


def classified(rng, n: int, classes: int, levels: int, present: int):
    """Scores with ties (few levels) and targets among `present` of the classes."""
    scores = rng.integers(0, levels, (n, classes)).astype(np.float32)
    return scores, rng.choice(rng.permutation(classes)[:present], n)


# ---- classification ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    classes=st.integers(2, 8),
    levels=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 999),
)
def test_classification_equals_a_naive_loop(n, classes, levels, seed) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = classified(rng, n, classes, levels, present=max(1, classes - 3))
    found = families.classification(scores, targets)
    best = [sorted(range(classes), key=lambda c: (-row[c], c)) for row in scores]
    hits = [order[0] == t for order, t in zip(best, targets, strict=True)]
    assert found["acc1"].value == pytest.approx(np.mean(hits))
    assert ("acc5" in found) == (classes >= 5)
    if classes >= 5:
        five = np.mean([t in order[:5] for order, t in zip(best, targets, strict=True)])
        assert found["acc5"].value == pytest.approx(five)
    recalls = [
        np.mean([h for h, t in zip(hits, targets, strict=True) if t == label])
        for label in sorted(set(targets))
    ]
    assert found["mean_per_class_recall"].value == pytest.approx(np.mean(recalls))


def test_mean_per_class_recall_is_scikit_learns_balanced_accuracy() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(400, 20)), rng.choice(20, 400, p=np.arange(20) / 190)  # class 0 absent
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = sk.balanced_accuracy_score(targets, scores.argmax(1))
    assert families.classification(scores, targets)["mean_per_class_recall"].value == pytest.approx(expected)


# ---- retrieval -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    captions=st.lists(st.integers(1, 6), min_size=1, max_size=7),
    levels=st.sampled_from([1, 2, 4, 1000]),
    seed=st.integers(0, 999),
)
def test_recall_both_ways_with_several_captions_per_image(captions, levels, seed) -> None:
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(len(captions)), captions))
    scores = rng.integers(0, levels, (len(captions), len(owner))).astype(np.float32)
    found = families.retrieval(scores, owner)
    assert len(found) == 9
    for k in (1, 5, 10):
        text, image = [], []
        for i in range(len(captions)):
            best = sorted(range(len(owner)), key=lambda j: (-scores[i, j], j))[:k]
            text.append(any(owner[j] == i for j in best))
        for j in range(len(owner)):
            best = sorted(range(len(captions)), key=lambda i: (-scores[i, j], i))[:k]
            image.append(owner[j] in best)
        assert found[f"text_retrieval_recall@{k}"].value == pytest.approx(np.mean(text))
        assert found[f"image_retrieval_recall@{k}"].value == pytest.approx(np.mean(image))
        assert found[f"mean_recall@{k}"].value == pytest.approx((np.mean(text) + np.mean(image)) / 2)


# ---- WinoGAViL -----------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([5, 6, 10, 12]), min_size=1, max_size=9),
    levels=st.sampled_from([1, 2, 3, 1000]),
    ties=st.sampled_from(["first", "last"]),
    seed=st.integers(0, 999),
)
def test_winogavil_equals_sets_in_a_loop(sizes, levels, ties, seed) -> None:
    rng = np.random.default_rng(seed)
    instances = []
    for size in sizes:
        marks = np.zeros(size, bool)
        marks[rng.permutation(size)[: rng.integers(1, size + 1)]] = True  # up to all of them
        instances.append((rng.integers(0, levels, size).astype(np.float32), marks))
    indices = []
    for similarity, marks in instances:
        answers = int(marks.sum())
        if ties == "first":
            said = set(sorted(range(len(marks)), key=lambda i: (-similarity[i], i))[:answers])
        else:  # as DataComp: the end of a stable sort in rising order
            said = set(np.argsort(similarity, kind="stable")[-answers:].tolist())
        true = set(np.flatnonzero(marks).tolist())
        indices.append(len(said & true) / len(said | true))
    similarity, marks = (np.concatenate([i[part] for i in instances]) for part in (0, 1))
    assert families.jaccard(similarity, marks, np.array(sizes), ties).tolist() == pytest.approx(indices)
    found = families.winogavil(similarity, marks, np.array(sizes), ties)
    wanted = {"avg_jaccard_score": lambda s: True, "jaccard_score_10-12": lambda s: s >= 10}
    wanted |= {"jaccard_score_5-6": lambda s: s <= 6}
    wanted |= {f"jaccard_score_{n}": lambda s, n=n: s == n for n in (5, 6, 10, 12)}
    for name, chosen in wanted.items():
        part = [index for index, size in zip(indices, sizes, strict=True) if chosen(size)]
        assert (name in found) == bool(part)
        if part:
            assert found[name].value == pytest.approx(np.mean(part)) and found[name].n == len(part)


def test_winogavil_equals_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    sizes = rng.choice([5, 6, 10, 12], 50)
    similarity = [rng.normal(size=n) for n in sizes]
    marks = [rng.permutation(np.arange(n) < rng.integers(1, 5)) for n in sizes]
    expected = []
    for row, true in zip(similarity, marks, strict=True):
        said = np.isin(np.arange(len(row)), np.argsort(row)[-true.sum() :])
        expected.append(sk.jaccard_score(true, said))
    found = families.winogavil(np.concatenate(similarity), np.concatenate(marks), sizes)
    assert found["avg_jaccard_score"].value == pytest.approx(np.mean(expected))
    assert found["jaccard_score_10-12"].value == pytest.approx(np.mean(np.array(expected)[sizes >= 10]))


def test_winogavil_refuses_what_does_not_fit() -> None:
    similarity, sizes = np.arange(11.0), np.array([5, 6])
    marks = np.arange(11) < 2
    with pytest.raises(MetricError, match="instance 1 has no associated candidate"):
        families.winogavil(similarity, marks, sizes)
    with pytest.raises(MetricError, match="11 candidates are announced"):
        families.winogavil(similarity[:10], marks[:10], sizes)
    with pytest.raises(MetricError, match="instance 1 has a similarity that is not finite"):
        families.winogavil(np.where(similarity == 7, np.nan, similarity), np.arange(11) % 5 == 0, sizes)
    with pytest.raises(MetricError, match="no instances"):
        families.winogavil(np.array([]), np.array([]), np.array([]))
    with pytest.raises(MetricError, match="ties is 'any'"):
        families.winogavil(similarity, ~marks, sizes, ties="any")


# ---- WILDS: macro F1 -----------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(n=st.integers(1, 40), classes=st.integers(1, 9), seed=st.integers(0, 999))
def test_macro_f1_equals_a_naive_loop_over_the_labels_present(n, classes, seed) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.choice(rng.permutation(12)[:classes], n)  # labels with gaps
    answers = np.where(rng.random(n) < 0.5, targets, rng.integers(0, 12, n))
    scores = []
    for label in set(targets.tolist()):
        right = sum(1 for t, a in zip(targets, answers, strict=True) if t == a == label)
        precision = right / max(1, sum(1 for a in answers if a == label))
        recall = right / sum(1 for t in targets if t == label)
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    found = families.macro_f1(answers, targets)
    assert found.value == pytest.approx(np.mean(scores))
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_macro_f1_equals_scikit_learn_over_labels_in_the_targets() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    targets, answers = rng.choice([0, 2, 3, 7], 90), rng.integers(0, 10, 90)
    expected = sk.f1_score(targets, answers, labels=np.unique(targets), average="macro")
    assert families.macro_f1(answers, targets).value == pytest.approx(expected)


def test_iwildcam_equals_scikit_learn_on_a_long_tail() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    weight = 1 / np.arange(1, 183) ** 1.5
    targets = rng.choice(182, 3000, p=weight / weight.sum())
    scores = rng.normal(size=(3000, 182)) + 2 * np.eye(182)[targets]
    labels, said = np.unique(targets), scores.argmax(1)
    assert len(labels) < 182  # some of the classifier's classes are absent, and predicted
    found = families.iwildcam(scores, targets)
    expected = sk.f1_score(targets, said, labels=labels, average="macro")
    assert found["F1-macro_all"].value == pytest.approx(expected)
    recall = sk.recall_score(targets, said, labels=labels, average="macro")
    assert found["recall-macro_all"].value == pytest.approx(recall)
    assert found["acc_avg"].value == pytest.approx(sk.accuracy_score(targets, said))


def test_the_error_of_macro_f1_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(3)

    def draw():
        targets = rng.choice(4, 400, p=[0.4, 0.3, 0.2, 0.1])
        return families.macro_f1(np.where(rng.random(400) < 0.6, targets, rng.integers(0, 4, 400)), targets)

    draws = [draw() for _ in range(500)]
    assert np.mean([m.stderr for m in draws]) == pytest.approx(np.std([m.value for m in draws]), rel=0.12)


def test_predictions_of_absent_labels_only() -> None:
    assert families.macro_f1(np.array([9, 9, 0]), np.array([1, 2, 5])).value == 0
    with pytest.raises(MetricError, match="no examples"):
        families.macro_f1(np.array([], int), np.array([], int))
    with pytest.raises(MetricError, match="shape"):
        families.macro_f1(np.zeros(3, int), np.zeros(2, int))


# ---- worst group ---------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 40),
    k=st.sampled_from([1, 5]),
    levels=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 999),
)
def test_worst_group_equals_a_naive_loop(n, k, levels, seed) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = classified(rng, n, 9, levels, present=7)
    groups = rng.choice([0, 2, 3, 11], n)  # 1 and 4 to 10 have no example
    found = families.grouped(metrics.ranks(scores, targets), groups, "region", k)
    each = {}
    for row, target, group in zip(scores, targets, groups, strict=True):
        best = sorted(range(9), key=lambda c: (-row[c], c))[:k]
        each.setdefault(int(group), []).append(target in best)
    prefix = {1: "acc", 5: "acc_top5"}[k]
    assert found[f"{prefix}_wg"].value == pytest.approx(min(np.mean(hits) for hits in each.values()))
    assert found[f"{prefix}_avg"].value == pytest.approx(
        np.mean([hit for hits in each.values() for hit in hits])
    )
    assert set(found) == {f"{prefix}_wg", f"{prefix}_avg"} | {f"{prefix}_region:{group}" for group in each}
    for group, hits in each.items():
        assert found[f"{prefix}_region:{group}"].value == pytest.approx(np.mean(hits))


def test_dollar_street_and_geode_have_their_main_metrics() -> None:
    rank, groups = np.array([0, 4, 5, 0, 1, 0]), np.array([0, 0, 1, 1, 2, 2])
    incomes = families.grouped(rank, groups, task("Dollar Street").group_by, k=5)
    assert incomes[task("Dollar Street").metric].value == 0.5  # group 1: ranks 5 and 0
    regions = families.grouped(rank, groups, task("GeoDE").group_by)
    assert regions[task("GeoDE").metric].value == 0.5 and regions["acc_region:2"].n == 2


def test_fmows_four_images_decide_the_compat_value_and_not_the_corrected_one() -> None:
    rng = np.random.default_rng(4)
    regions = np.concatenate([np.repeat(np.arange(5), 1000), np.full(4, 5)])
    hits = rng.random(5004) < 0.2
    hits[regions == 3] = rng.random(1000) < 0.1
    outcomes = {}
    for right in range(5):
        hits[regions == 5] = np.arange(4) < right
        found = families.fmow(np.where(hits, 0, 7), regions, REGIONS)
        outcomes[right] = found["acc_worst_region"].value
        lowest = hits[regions == 3].mean()
        assert found["acc_worst_region_corrected"].value == pytest.approx(lowest)
        assert found["acc_region:Other"].n == 4 and found["acc_region:Other"].value == right / 4
        assert "acc_wg" not in found
    assert outcomes == pytest.approx({0: 0.0, 1: lowest, 2: lowest, 3: lowest, 4: lowest})
    hits[regions == 5] = False
    found = families.fmow(np.where(hits, 0, 7), regions, REGIONS)
    # four images all wrong are no proof of 0: the error says so, unlike one from the accuracy seen
    assert found["acc_worst_region"].stderr > 0.02
    corrected = found["acc_worst_region_corrected"]
    assert corrected.stderr == pytest.approx(math.sqrt(lowest * (1 - lowest) / 1000), rel=0.15)
    again = families.fmow(np.where(hits, 0, 7), regions, REGIONS)  # seeded
    assert again["acc_worst_region"] == found["acc_worst_region"]


def test_without_the_small_region_both_values_agree() -> None:
    rank, regions = np.array([0, 1, 0, 0]), np.array([0, 0, 4, 4])
    found = families.fmow(rank, regions, REGIONS)
    assert found["acc_worst_region"] == found["acc_worst_region_corrected"]
    assert found["acc_worst_region"].value == 0.5
    assert set(found) == {
        "acc_avg", "acc_region:Asia", "acc_region:Oceania", "acc_worst_region", "acc_worst_region_corrected",
    }  # fmt: skip


def test_groups_that_are_none_are_refused() -> None:
    with pytest.raises(MetricError, match=r"row 1: region is 6, not a number below 6 \(Asia"):
        families.fmow(np.array([0, 0]), np.array([0, 6]), REGIONS)
    for bad in (-1, 0.5, np.nan):
        with pytest.raises(MetricError, match=r"row 1: income_ds is .*not a whole number >= 0"):
            families.grouped(np.array([0, 0]), np.array([0, bad]), "income_ds", 5)
    with pytest.raises(MetricError, match="no groups but those left out"):
        families.fmow(np.array([0]), np.array([5]), REGIONS)
    with pytest.raises(MetricError, match="3 ranks but 2 groups"):
        families.grouped(np.zeros(3), np.zeros(2), "region")
    with pytest.raises(MetricError, match="one column is needed"):
        families.grouped(np.zeros(2), np.zeros((2, 3)), "region")


# ---- the table -----------------------------------------------------------------------------------


def test_every_main_metric_of_the_table_is_given_by_its_family() -> None:
    rng = np.random.default_rng(5)
    scores, targets = rng.normal(size=(60, 6)), rng.integers(0, 6, 60)
    rank, groups = metrics.ranks(scores, targets), rng.integers(0, 6, 60)
    classified = families.classification(scores, targets)
    given = {
        "classification": classified,
        "retrieval": families.retrieval(rng.normal(size=(3, 6)), np.repeat(np.arange(3), 2)),
        "winogavil": families.winogavil(rng.normal(size=24), np.arange(24) % 12 < 3, np.array([12, 12])),
        "wilds": {**classified, **families.iwildcam(scores, targets), **families.fmow(rank, groups, REGIONS)},
        "fairness": {
            **families.grouped(rank, groups, "income_ds", 5),
            **families.grouped(rank, groups, "region"),
        },
    }
    for t in tasks():
        assert t.metric is None or t.metric in given[t.kind], t.key
        assert t.corrected is None or t.corrected.metric in given[t.kind]
