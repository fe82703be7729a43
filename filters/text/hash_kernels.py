"""64-bit hashes for the compiled text passes: FNV-1a over bytes or code points, a finishing mix, chains.

They live in memory for one document (or one list); nothing of them is ever written.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numba import njit

U = np.uint64
SEED = U(0xCBF29CE484222325)  # h = SEED; for each byte: h = (h ^ U(byte)) * PRIME; then mix(h)
PRIME = U(0x100000001B3)
STEP = U(0x9E3779B97F4A7C15)  # the slot of a key in a table of 2 ** bits is (key * STEP) >> (64 - bits)
_MIX1 = U(0xFF51AFD7ED558CCD)
_MIX2 = U(0xC4CEB9FE1A85EC53)
_S32, _S29 = U(32), U(29)


@njit(cache=True, nogil=True)
def mix(h):
    """Every bit of the result depends on every bit of ``h``; 0 stays 0."""
    h ^= h >> _S32
    h *= _MIX1
    h ^= h >> _S29
    h *= _MIX2
    return h ^ (h >> _S32)


@njit(cache=True, nogil=True)
def chain(h, atom):
    """Order-dependent combination of well-mixed hashes."""
    return (h ^ atom) * STEP


@njit(cache=True, nogil=True)
def chain_raw(h, block):
    """The same of numbers that are no hashes: bytes, code points."""
    h = (h ^ block) * STEP
    return h ^ (h >> _S32)


@njit(cache=True, nogil=True)
def table_bits(n):
    """A table of 2 ** bits slots is half full with ``n`` keys at most."""
    bits = np.int64(3)
    while (np.int64(1) << bits) < 2 * n:
        bits += 1
    return bits


def fnv1a(data: bytes) -> int:
    """FNV-1a of these bytes, not mixed."""
    h = int(SEED)
    for byte in data:
        h = ((h ^ byte) * int(PRIME)) & 0xFFFFFFFFFFFFFFFF
    return h


def hash_of(text: str) -> np.uint64:
    """Hash of a word as the passes hash its bytes (code points, where those are ASCII)."""
    with np.errstate(over="ignore"):
        return mix.py_func(U(fnv1a(text.encode())))


def chain_of(hashes: np.ndarray) -> np.uint64:
    """``chain`` over well-mixed hashes, from SEED on."""
    with np.errstate(over="ignore"):
        return functools.reduce(chain.py_func, hashes, SEED)


def word_table(hashes: Sequence[np.uint64] | np.ndarray) -> tuple[np.ndarray, np.uint64]:
    """Open-addressing table of mixed hashes (0: empty slot), a quarter full at most, and the shift from hash
    to slot."""
    bits = max(3, (4 * len(hashes) - 1).bit_length())
    slots = np.zeros(1 << bits, U)
    for value in hashes:
        slot = int(value) >> (64 - bits)
        while slots[slot] not in (0, value):
            slot = (slot + 1) % len(slots)
        slots[slot] = value
    return slots, U(64 - bits)
