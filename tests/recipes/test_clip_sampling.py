"""The order of training pairs: exact counts, no pair twice in a batch, the same after a resume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.clip.sampling import ExactCounts, ExactEpochs, SamplingError, deal, exact_counts, steps_of


def draw(repeats, batch, steps, seed=0, start=0):
    return list(ExactEpochs(np.array(repeats, np.int64), batch, seed).batches(steps, start))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 60),
    batch=st.integers(1, 20),
    steps=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_every_row_is_seen_floor_or_ceil_times_and_never_twice_in_a_batch(rows, batch, steps, seed):
    if rows < batch:
        with pytest.raises(SamplingError, match="cannot fill a batch"):
            draw([1] * rows, batch, steps)
        return
    batches = draw([1] * rows, batch, steps, seed)
    assert len(batches) == steps
    for rows_of_batch in batches:
        assert len(rows_of_batch) == batch == len(set(rows_of_batch.tolist()))
    seen = np.bincount(np.concatenate(batches), minlength=rows)
    whole = steps * batch // rows
    assert set(seen.tolist()) <= {whole, whole + 1}
    assert seen.sum() == steps * batch


@settings(max_examples=100, deadline=None)
@given(repeats=st.lists(st.integers(1, 4), min_size=25, max_size=50), seed=st.integers(0, 3))
def test_multiplicity_is_exact_over_whole_epochs(repeats, seed):
    total, batch = sum(repeats), 5
    batches = draw(repeats, batch, 3 * total // batch + 1, seed)
    for rows_of_batch in batches:
        assert len(set(rows_of_batch.tolist())) == batch
    order = np.concatenate(batches)
    for epoch in range(3):
        seen = np.bincount(order[epoch * total : (epoch + 1) * total], minlength=len(repeats))
        assert seen.tolist() == repeats


def test_resume_gives_the_rest_of_the_same_order():
    whole = draw([2] * 30, 7, 40, seed=4)
    for start in (0, 1, 8, 9, 39, 40):
        rest = draw([2] * 30, 7, 40, seed=4, start=start)
        assert [b.tolist() for b in rest] == [b.tolist() for b in whole[start:]]


def test_seed_and_epoch_change_the_order():
    a, b = draw([1] * 50, 50, 2, seed=0)
    assert a.tolist() != b.tolist()
    assert a.tolist() != draw([1] * 50, 50, 1, seed=1)[0].tolist()
    assert sorted(a.tolist()) == sorted(b.tolist()) == list(range(50))


def test_a_longer_budget_begins_like_the_shorter_one():
    short, long = draw([1] * 33, 8, 5), draw([1] * 33, 8, 50)
    assert [b.tolist() for b in short] == [b.tolist() for b in long[:5]]


def test_too_much_repetition_is_refused():
    with pytest.raises(SamplingError, match="row 0 repeats 9 times in an epoch of 4 batches"):
        draw([9] + [1] * 11, 5, 1)


def test_budget_must_divide():
    assert steps_of(38400, 128) == 300
    with pytest.raises(SamplingError, match="nearest exact budgets are 38400 and 38528"):
        steps_of(38500, 128)
    with pytest.raises(SamplingError, match="samples >= batch"):
        steps_of(64, 128)


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=40).filter(
        lambda w: max(w) > 0.01
    ),
    samples=st.integers(1, 2000),
    seed=st.integers(0, 9),
)
def test_weighted_counts_are_the_floor_or_the_ceil_of_what_is_expected(weights, samples, seed):
    weights = np.array(weights)
    counts = exact_counts(weights, samples, seed)
    expected = weights * (samples / weights.sum())
    assert counts.sum() == samples
    assert (counts >= np.floor(expected - 1e-6)).all() and (counts <= np.ceil(expected + 1e-6)).all()


def test_over_seeds_the_mean_of_weighted_counts_is_the_expectation():
    weights = np.array([0.1, 0.25, 1.0, 2.0, 0.65])
    mean = np.mean([exact_counts(weights, 6, seed) for seed in range(4000)], axis=0)
    assert np.allclose(mean, weights * 1.5, atol=0.03)


def test_a_weight_too_great_for_the_number_of_batches_is_refused():
    with pytest.raises(
        SamplingError, match=r"row 1 has 0\.9 of the weight: it would be seen 72 times.*10 batches"
    ):
        exact_counts(np.array([1.0, 18.0, 1.0]), 80, 0, steps=10)
    with pytest.raises(SamplingError, match="the weights sum to 0"):
        exact_counts(np.zeros(3), 80, 0)


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=30),
    batch=st.integers(1, 6),
    seed=st.integers(0, 3),
)
def test_counts_are_dealt_evenly_whenever_that_can_be(counts, batch, seed):
    counts = np.array(counts)
    counts[0] += -counts.sum() % batch
    steps = counts.sum() // batch
    if steps == 0:
        return
    if counts.max() > steps:
        with pytest.raises(SamplingError, match="a pair stands in one only once"):
            ExactCounts(counts, batch, seed)
        return
    batches = list(ExactCounts(counts, batch, seed).batches(steps))
    assert len(batches) == steps and all(len(set(b.tolist())) == batch for b in batches)
    assert np.bincount(np.concatenate(batches), minlength=len(counts)).tolist() == counts.tolist()
    rest = list(ExactCounts(counts, batch, seed).batches(steps, steps // 2))
    assert [b.tolist() for b in rest] == [b.tolist() for b in batches[steps // 2 :]]


def test_counts_are_spread_over_the_run():
    order = np.concatenate(list(ExactCounts(np.full(400, 10), 20, 0).batches(200)))
    for row in (0, 7, 399):
        gaps = np.diff(np.flatnonzero(order == row))
        assert gaps.min() > 300 and gaps.max() < 500


def test_dealing_mends_what_swaps_cannot():
    grid = np.repeat(np.arange(6), 4).reshape(4, 6)  # every group four times among four steps
    mended = deal(grid, np.random.default_rng(0))
    assert all(sorted(row) == list(range(6)) for row in mended.tolist())
    with pytest.raises(SamplingError, match="one pair stands 3 times among 2 batches"):
        deal(np.array([[1, 1, 2], [1, 3, 4]]), np.random.default_rng(0))
