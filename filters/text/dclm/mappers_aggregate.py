"""DCLM's aggregators: what its ``_aggregate`` writes into a shard's statistics.

They are no steps here, for they decide nothing: the engine keeps every score of every row in the side-car,
its report draws their histograms, and ``baselines.dclm_yaml.aggregates`` asks these functions about a
finished run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """min, p25, median, p75, p90, p95, p99, max (each the nearest value there is) and mean. ValueError for
    none."""
    if not len(values):
        raise ValueError("percentiles of no values")
    at = {"min": 0, "p25": 25, "median": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    found = np.percentile(np.asarray(values, float), list(at.values()), method="nearest")
    return dict(zip(at, map(float, found), strict=True)) | {"mean": float(np.mean(values))}


def histogram(values: Sequence[Any]) -> dict[Any, int]:
    """How often each string, or for numbers: left edge → count of ten bins of equal width."""
    if not len(values):
        return {}
    if isinstance(values[0], str):
        return dict(Counter(values))
    counts, edges = np.histogram(np.asarray(values, float), bins=10)
    return {float(edge): int(count) for edge, count in zip(edges, counts, strict=False)}


def threshold_transform(
    weighted_values: Mapping[str, float], threshold: float, default: str = "unknown"
) -> str:
    """The key of the largest value, if that is at least ``threshold``; else ``default``."""
    best = max(weighted_values.items(), key=lambda item: item[1], default=(default, -np.inf))
    return best[0] if best[1] >= threshold else default


AGGREGATORS = {"percentiles": percentiles, "histogram": histogram}
TRANSFORMS = {"threshold_transform": threshold_transform}
