"""Repeated units and n-grams of one document, from the hashes of its words: what every repetition rule needs.

Only one pass over all words goes through a hash table. Position i can hold a repeated (n + 1)-gram only if
repeated n-grams start at i and i + 1, and then the pair of their identities *is* the identity of the
(n + 1)-gram: each further n costs only as much as the text repeats itself.

    m = repeated_pairs(word_hash, n_words, scratch)      # or repeated_words, to begin with n = 1
    m = longer(m, scratch)                               # n = 3, and so on

Of the m places found, in order, ``where[k]`` is the first word, ``owner[k]`` a number that all occurrences
of the n-gram share, ``seen[owner[k]]`` how many there are. ``owner`` grows from first occurrence to first
occurrence, so a place with a higher one than all places before it is a first occurrence.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.hash_kernels import STEP, U, chain, table_bits

_ONE, _S32 = U(1), U(32)


@njit(cache=True, nogil=True)
def make_scratch(room):
    """(table, keys, where, owner, seen) for at most ``room`` units."""
    return (
        np.empty(1 << table_bits(room), np.int32),
        np.empty(room, np.uint64),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
        np.empty(room, np.int32),
    )


@njit(cache=True, nogil=True)
def group(keys, n, scratch):
    """``owner[k]``: the first place with the key of place k; ``seen[first]``: how many there are."""
    table, _, _, owner, seen = scratch
    bits = table_bits(n)
    shift = U(64 - bits)
    mask = (np.int64(1) << bits) - 1
    table[: mask + 1] = -1
    for k in range(n):
        key = keys[k]
        slot = np.int64((key * STEP) >> shift)
        while True:
            first = table[slot]
            if first < 0:
                table[slot] = k
                seen[k] = 1
                owner[k] = k
                break
            if keys[first] == key:
                seen[first] += 1
                owner[k] = first
                break
            slot = (slot + 1) & mask


@njit(cache=True, nogil=True)
def repeated_units(hashes, chars, n, scratch):
    """(units that repeat an earlier one, their code points, first copies of those, their code points)."""
    group(hashes, n, scratch)
    _, _, _, owner, seen = scratch
    later = np.int64(0)
    later_chars = np.int64(0)
    firsts = np.int64(0)
    first_chars = np.int64(0)
    for k in range(n):
        if owner[k] != k:
            later += 1
            later_chars += chars[k]
        elif seen[k] > 1:
            firsts += 1
            first_chars += chars[k]
    return later, later_chars, firsts, first_chars


@njit(cache=True, nogil=True)
def repeated_words(word_hash, n, scratch):
    """How many of the first ``n`` words are found more than once; see the module for what is left."""
    group(word_hash, n, scratch)
    _, _, where, owner, seen = scratch
    m = np.int64(0)
    for k in range(n):
        if seen[owner[k]] > 1:
            where[m] = k
            owner[m] = owner[k]
            m += 1
    return m


@njit(cache=True, nogil=True)
def repeated_pairs(word_hash, n, scratch):
    """As ``repeated_words``, of two words."""
    keys = scratch[1]
    for k in range(n - 1):
        keys[k] = chain(word_hash[k], word_hash[k + 1] >> _ONE)  # shifted: "a b" is not "b a"
    return repeated_words(keys, max(n - 1, 0), scratch)


@njit(cache=True, nogil=True)
def longer(m, scratch):
    """From the ``m`` places of repeated n-grams to those of repeated (n + 1)-grams: how many."""
    _, keys, where, owner, seen = scratch
    n = np.int64(0)
    for k in range(m - 1):
        if where[k + 1] == where[k] + 1:
            keys[n] = (U(owner[k]) << _S32) | U(owner[k + 1])
            where[n] = where[k]
            n += 1
    group(keys, n, scratch)
    kept = np.int64(0)
    for k in range(n):
        if seen[owner[k]] > 1:
            where[kept] = where[k]
            owner[kept] = owner[k]
            kept += 1
    return kept
