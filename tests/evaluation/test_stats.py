import math

import numpy as np
import pytest

from evaluation import stats

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle of these tests")


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 5, 7, 10, 29, 30, 199])
@pytest.mark.parametrize("p", [0.025, 0.5, 0.9, 0.975, 0.995])
def test_t_quantile_equals_scipy(p: float, dof: int) -> None:
    assert stats.t_quantile(p, dof) == pytest.approx(scipy_stats.t.ppf(p, dof), rel=1e-9, abs=1e-9)


def test_t_interval_of_three_seeds() -> None:
    interval = stats.t_interval([2.242, 2.319, 2.258])
    low, high = scipy_stats.t.interval(
        0.95, 2, loc=np.mean([2.242, 2.319, 2.258]), scale=scipy_stats.sem([2.242, 2.319, 2.258])
    )
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.n == 3


def test_one_value_has_no_interval_and_never_wins() -> None:
    one = stats.t_interval([1.0])
    assert math.isnan(one.low) and math.isnan(one.stderr)
    assert one.overlaps(stats.t_interval([5.0, 5.1, 5.2]))
    assert not one.excludes(0.0)


def test_welch_equals_scipy_up_to_rounded_dof() -> None:
    a, b = [1.0, 2.0, 4.0, 3.0], [5.0, 9.0, 7.5]
    got = stats.difference(a, b)
    exact = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert got.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert got.low <= exact.low and got.high >= exact.high  # rounding the dof down may only widen
    assert got.high - got.low < 1.6 * (exact.high - exact.low)


def test_paired_difference_removes_the_seed_effect() -> None:
    interval = stats.paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert (interval.low, interval.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="equal lengths"):
        stats.paired_difference([1.0], [1.0, 2.0])


def test_ratio_stderr_is_the_scatter_of_documents() -> None:
    generator = np.random.default_rng(0)
    size = generator.integers(100, 2000, 400).astype(float)
    bits = size * generator.normal(2.1, 0.3, 400)
    ratio, stderr = stats.ratio_and_stderr(bits, size)
    assert ratio == bits.sum() / size.sum()
    pairs = np.stack([bits, size], axis=1)
    boot = stats.bootstrap(pairs, lambda x: x[:, 0].sum() / x[:, 1].sum(), resamples=1000)
    assert stderr == pytest.approx(boot.stderr, rel=0.1)
    with pytest.raises(ValueError, match="sum to 0"):
        stats.ratio_and_stderr([1.0], [0.0])


def test_proportion_and_mean_of_independent() -> None:
    assert stats.proportion_stderr(0.25, 300) == pytest.approx(0.025)
    assert stats.mean_of_independent([0.3, 0.4]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="proportion"):
        stats.proportion_stderr(1.2, 10)


def test_bootstrap_is_seeded_and_close_to_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(10, 2, 200)
    first, second = stats.bootstrap(values, seed=3), stats.bootstrap(values, seed=3)
    assert first == second
    assert first != stats.bootstrap(values, seed=4)
    exact = stats.t_interval(values)
    assert first.low == pytest.approx(exact.low, abs=0.05) and first.high == pytest.approx(
        exact.high, abs=0.05
    )


def test_empty_input_is_refused() -> None:
    for function in (stats.mean_and_stderr, stats.t_interval, stats.bootstrap):
        with pytest.raises(ValueError):
            function([])
