"""How much of one text is found in another: shared word 8-grams (shingles)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

WIDTH = 8  # words a shingle
LIMIT = 0.20  # more than this share of common shingles: the texts are not disjoint
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str) -> np.ndarray:
    """The sorted distinct 64-bit hashes of a text's word 8-grams (lower case, no punctuation)."""
    import xxhash

    words = [xxhash.xxh3_64_intdigest(word.encode()) for word in _WORD.findall(text.lower())]
    if len(words) < WIDTH:
        return np.empty(0, np.uint64)
    hashes = np.array(words, np.uint64)
    n = len(hashes) - WIDTH + 1
    combined = np.zeros(n, np.uint64)
    for i in range(WIDTH):  # a polynomial in an odd constant: word order counts, overflow wraps
        combined = combined * _FACTOR + hashes[i : i + n]
    return np.unique(combined)


def union(texts: Iterable[str]) -> np.ndarray:
    """The sorted distinct shingles of many texts."""
    parts = [shingles(text) for text in texts]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def share_in(part: np.ndarray, whole: np.ndarray) -> float:
    """The share of the shingles in `part` that are also in `whole` (both sorted); 0.0 for an empty part."""
    if not len(part) or not len(whole):
        return 0.0
    at = np.searchsorted(whole, part)
    at[at == len(whole)] = len(whole) - 1
    return float((whole[at] == part).mean())
