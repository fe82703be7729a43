"""Standard errors and intervals: the few formulas behind every ``±`` that Winnow prints.

numpy only; the tests hold every function against scipy or a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. ``stderr`` and the bounds are NaN where n is too small for them."""

    mean: float
    low: float
    high: float
    stderr: float
    n: int
    level: float = 0.95

    def overlaps(self, other: Interval) -> bool:
        """True unless the two intervals are known to be apart (unknown bounds count as overlapping)."""
        return not (self.low > other.high or other.low > self.high)

    def excludes(self, value: float) -> bool:
        return self.low > value or self.high < value


def mean_and_stderr(values: Values) -> tuple[float, float]:
    """Mean and its standard error (sample standard deviation / √n); the error is NaN for n < 2."""
    x = _vector(values)
    if len(x) < 2:
        return float(x.mean()), math.nan
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))


def proportion_stderr(p: float, n: int) -> float:
    """Standard error of a proportion ``p`` seen on ``n`` independent items (binomial, 1/n)."""
    if n < 1 or not 0 <= p <= 1:
        raise ValueError(f"a proportion needs 0 <= p <= 1 and n >= 1, got p={p}, n={n}")
    return math.sqrt(p * (1 - p) / n)


def ratio_and_stderr(numerators: Values, denominators: Values) -> tuple[float, float]:
    """Σ numerators / Σ denominators over independent units (documents), with its delta-method error.

    For bits per byte: numerator = bits, denominator = bytes of one document, so that tokens of the same
    document are not taken for independent.
    """
    x, y = _vector(numerators), _vector(denominators)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} numerators but {len(y)} denominators")
    if y.sum() == 0:
        raise ValueError("the denominators sum to 0")
    ratio = float(x.sum() / y.sum())
    if len(x) < 2:
        return ratio, math.nan
    residual = x - ratio * y
    n = len(x)
    return ratio, float(math.sqrt(n / (n - 1) * (residual**2).sum()) / abs(y.sum()))


def mean_of_independent(stderrs: Values) -> float:
    """Standard error of the plain mean of independent estimates (e.g. tasks) with these errors."""
    x = _vector(stderrs)
    return float(math.sqrt((x**2).sum()) / len(x))


def t_quantile(p: float, dof: int) -> float:
    """Quantile of Student's t with ``dof`` whole degrees of freedom (``t_quantile(.975, 2)`` = 4.3027)."""
    if not 0 < p < 1:
        raise ValueError(f"a quantile needs 0 < p < 1, got {p}")
    if dof < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {dof}")
    if p < 0.5:
        return -t_quantile(1 - p, dof)
    low, high = 0.0, 1.0
    while _t_cdf(high, dof) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_cdf(middle, dof) < p else (low, middle)
    return (low + high) / 2


def t_interval(values: Values, level: float = 0.95) -> Interval:
    """Student's t interval of the mean, e.g. over seeds. Bounds are NaN for a single value."""
    x = _vector(values)
    mean, stderr = mean_and_stderr(x)
    if len(x) < 2:
        return Interval(mean, math.nan, math.nan, math.nan, len(x), level)
    half = t_quantile((1 + level) / 2, len(x) - 1) * stderr
    return Interval(mean, mean - half, mean + half, stderr, len(x), level)


def paired_difference(a: Values, b: Values, level: float = 0.95) -> Interval:
    """t interval of mean(a − b) for values paired by seed."""
    x, y = _vector(a), _vector(b)
    if len(x) != len(y):
        raise ValueError(f"pairs need equal lengths, got {len(x)} and {len(y)}")
    return t_interval(x - y, level)


def difference(a: Values, b: Values, level: float = 0.95) -> Interval:
    """Welch's interval of mean(a) − mean(b) for unpaired values of unequal variance.

    The degrees of freedom (Welch–Satterthwaite) are rounded down, which can only widen the interval.
    """
    x, y = _vector(a), _vector(b)
    mean = float(x.mean() - y.mean())
    n = min(len(x), len(y))
    if n < 2:
        return Interval(mean, math.nan, math.nan, math.nan, n, level)
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    stderr = math.sqrt(u + v)
    if stderr == 0:
        return Interval(mean, mean, mean, 0.0, n, level)
    dof = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    half = t_quantile((1 + level) / 2, max(1, math.floor(dof + 1e-9))) * stderr
    return Interval(mean, mean - half, mean + half, stderr, n, level)


def bootstrap(
    values: Values | np.ndarray,
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over the rows of ``values`` ((n,) or (n, k)), seeded; default: the mean.

    ``statistic`` gets a resampled array of the same shape. For clustered data pass one row a cluster.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("no values")
    f = statistic or (lambda sample: float(sample.mean()))
    estimate = float(f(x))
    if len(x) < 2:
        return Interval(estimate, math.nan, math.nan, math.nan, len(x), level)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = np.array([f(x[generator.integers(0, len(x), len(x))]) for _ in range(resamples)])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), float(draws.std(ddof=1)), len(x), level)


def _vector(values: Values) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"expected a non-empty list of numbers, got shape {x.shape}")
    return x


def _t_cdf(t: float, dof: int) -> float:
    """P(T <= t) for t >= 0: the finite trigonometric series for whole dof (Abramowitz & Stegun 26.7.3-4)."""
    theta = math.atan(t / math.sqrt(dof))
    sin, cos = math.sin(theta), math.cos(theta)
    if dof % 2:
        total, term = 0.0, cos
        for k in range(1, (dof - 1) // 2 + 1):
            total += term
            term *= cos * cos * (2 * k) / (2 * k + 1)
        central = (theta + sin * total) * 2 / math.pi
    else:
        total, term = 0.0, 1.0
        for k in range(1, dof // 2 + 1):
            total += term
            term *= cos * cos * (2 * k - 1) / (2 * k)
        central = sin * total
    return (1 + central) / 2
