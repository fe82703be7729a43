"""Compiled loops behind `curation.hashing`. Import it only where used: it brings numba with it.

XXH64 follows the public specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
All arithmetic is on uint64 and wraps; numba turns uint64 mixed with a plain int into float64, hence the
constants.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

P1 = np.uint64(0x9E3779B185EBCA87)
P2 = np.uint64(0xC2B2AE3D27D4EB4F)
P3 = np.uint64(0x165667B19E3779F9)
P4 = np.uint64(0x85EBCA77C2B2AE63)
P5 = np.uint64(0x27D4EB2F165667C5)
ZERO = np.uint64(0)
ONE = np.uint64(1)
U = np.uint64


def _loader(bits: int, result: types.Type):
    """An unaligned little-endian load from a uint8 array, without bounds check: `load(data, i)`."""

    @intrinsic
    def load(typingctx, data, i):
        def codegen(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            at = cgutils.gep_inbounds(builder, array.data, args[1])
            word = ir.IntType(bits)
            value = builder.load(builder.bitcast(at, word.as_pointer()))
            value.align = 1
            return builder.zext(value, ir.IntType(64)) if bits < 64 else value

        return result(data, types.int64), codegen

    return load


load32 = _loader(32, types.uint64)
load64 = _loader(64, types.uint64)


@njit(cache=True, nogil=True, inline="always")
def rotl(x, r):
    return (x << U(r)) | (x >> U(64 - r))


@njit(cache=True, nogil=True, inline="always")
def xxh_round(acc, word):
    return rotl(acc + word * P2, 31) * P1


@njit(cache=True, nogil=True, inline="always")
def xxh_merge(h, acc):
    return (h ^ xxh_round(ZERO, acc)) * P1 + P4


@njit(cache=True, nogil=True)
def avalanche(h):
    """XXH64's finaliser: a bijection in which every input bit reaches every output bit."""
    h = (h ^ (h >> U(33))) * P2
    h = (h ^ (h >> U(29))) * P3
    return h ^ (h >> U(32))


@njit(cache=True, nogil=True)
def xxh64(data, start, end, seed):
    """XXH64 of data[start:end] (uint8, C order); the caller vouches for the bounds."""
    i = start
    if end - start >= 32:
        v1 = seed + P1 + P2
        v2 = seed + P2
        v3 = seed
        v4 = seed - P1
        while i + 32 <= end:
            v1 = xxh_round(v1, load64(data, i))
            v2 = xxh_round(v2, load64(data, i + 8))
            v3 = xxh_round(v3, load64(data, i + 16))
            v4 = xxh_round(v4, load64(data, i + 24))
            i += 32
        h = rotl(v1, 1) + rotl(v2, 7) + rotl(v3, 12) + rotl(v4, 18)
        h = xxh_merge(xxh_merge(xxh_merge(xxh_merge(h, v1), v2), v3), v4)
    else:
        h = seed + P5
    h = h + U(end - start)
    while i + 8 <= end:
        h = rotl(h ^ xxh_round(ZERO, load64(data, i)), 27) * P1 + P4
        i += 8
    if i + 4 <= end:
        h = rotl(h ^ (load32(data, i) * P1), 23) * P2 + P3
        i += 4
    while i < end:
        h = rotl(h ^ (U(data[i]) * P5), 11) * P1
        i += 1
    return avalanche(h)


@njit(cache=True, nogil=True)
def xxh64_rows(data, offsets, seed, out):
    for i in range(len(out)):
        out[i] = xxh64(data, offsets[i], offsets[i + 1], seed)


@njit(cache=True, nogil=True, inline="always")
def _place(slots, a, b):
    """Insert the key (a, b) by linear probing; true if it was there. (0, 0) marks an empty slot."""
    if a == ZERO and b == ZERO:
        b = ONE
    mask = U(slots.shape[0] - 1)
    i = a & mask
    while True:
        x, y = slots[i, 0], slots[i, 1]
        if x == a and y == b:
            return True
        if x == ZERO and y == ZERO:
            slots[i, 0] = a
            slots[i, 1] = b
            return False
        i = (i + ONE) & mask


@njit(cache=True, nogil=True)
def insert(slots, first, second, seen):
    """Add keys to a table with room for them; fills `seen` and returns how many were new."""
    new = 0
    for i in range(len(first)):
        seen[i] = _place(slots, first[i], second[i])
        new += not seen[i]
    return new


@njit(cache=True, nogil=True)
def rehash(old, grown):
    for i in range(old.shape[0]):
        if old[i, 0] != ZERO or old[i, 1] != ZERO:
            _place(grown, old[i, 0], old[i, 1])


@njit(cache=True, nogil=True)
def parse_hex(data, offsets, out):
    """32 hex digits a row → two words each (uint64[n, 2]); the first row that is something else, or −1."""
    for row in range(len(out)):
        start = offsets[row]
        if offsets[row + 1] - start != 32:
            return row
        for half in range(2):
            word = ZERO
            for i in range(start + 16 * half, start + 16 * half + 16):
                digit = data[i]
                if 48 <= digit <= 57:
                    value = digit - 48
                elif 97 <= digit <= 102:
                    value = digit - 87
                elif 65 <= digit <= 70:
                    value = digit - 55
                else:
                    return row
                word = word << U(4) | U(value)
            out[row, half] = word
    return -1


@njit(cache=True, nogil=True)
def first_unsorted(words):
    """The first row of uint64[n, 2] that is smaller than the one before, or −1."""
    for i in range(1, len(words)):
        a, b = words[i - 1], words[i]
        if a[0] > b[0] or (a[0] == b[0] and a[1] > b[1]):
            return i
    return -1


@njit(cache=True, nogil=True, inline="always")
def _lower_bound(words, high, low):
    """How many rows of sorted uint64[n, 2] are smaller than (high, low)."""
    start, stop = 0, len(words)
    while start < stop:
        middle = (start + stop) // 2
        if words[middle, 0] < high or (words[middle, 0] == high and words[middle, 1] < low):
            start = middle + 1
        else:
            stop = middle
    return start


@njit(cache=True, nogil=True)
def count_in_sorted(words, queries, out):
    """How often each query stands among sorted rows."""
    for row in range(len(queries)):
        high, low = queries[row, 0], queries[row, 1]
        i = _lower_bound(words, high, low)
        count = 0
        while i < len(words) and words[i, 0] == high and words[i, 1] == low:
            count += 1
            i += 1
        out[row] = count
