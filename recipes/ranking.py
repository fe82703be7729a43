"""How well a score separates two classes: the check that every trained filter must pass."""

from __future__ import annotations

import math

import numpy as np


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a value of `positive` exceeds one of `negative`, ties counted half (Mann–Whitney)."""
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("AUC needs values of both kinds")
    both = np.concatenate([positive, negative])
    _, index, counts = np.unique(both, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[index]
    n, m = len(positive), len(negative)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_stderr(value: float, n: int, m: int) -> float:
    """Standard error of an AUC from n positives and m negatives (Hanley and McNeil 1982)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n - 1) * (q1 - value**2) + (m - 1) * (q2 - value**2)
    return math.sqrt(max(0.0, variance) / (n * m))
