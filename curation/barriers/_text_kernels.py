"""Compiled loops over UTF-8: normalised hashes, word shingles, MinHash signatures, union-find.

Import it only where used: it brings numba with it. Text arrives as Arrow's own buffers (bytes and offsets);
code points are decoded on the fly and looked up in the tables of `_unicode`. Ill-formed bytes cannot leave
the row: a sequence that is cut short counts as U+FFFD.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit

from curation._hash_kernels import xxh64
from curation.barriers._unicode import DIGIT, LIMIT, PUNCTUATION, SPACE, UNSPACED, WORD, tables
from curation.hashing import byte_buffers

U = np.uint64
IDEOGRAPH = WORD | UNSPACED


@njit(cache=True, nogil=True, inline="always")
def decode(data, i, end):
    """The code point at byte i and the place of the next: (int64, int64)."""
    byte = np.int64(data[i])
    if byte < 0x80:
        return byte, i + 1
    if byte >= 0xC2 and byte < 0xE0 and i + 1 < end:
        return (byte & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), i + 2
    if byte >= 0xE0 and byte < 0xF0 and i + 2 < end:
        code = (byte & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)
        return code, i + 3
    if byte >= 0xF0 and byte < 0xF5 and i + 3 < end:
        code = (byte & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
        return code | (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F), i + 4
    return np.int64(0xFFFD), i + 1


@njit(cache=True, nogil=True, inline="always")
def encode(out, at, code):
    """Write a code point as UTF-8 at out[at]; returns the place after it."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
        out[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | code >> 12
        out[at + 1] = 0x80 | (code >> 6 & 0x3F)
        out[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    out[at] = 0xF0 | code >> 18
    out[at + 1] = 0x80 | (code >> 12 & 0x3F)
    out[at + 2] = 0x80 | (code >> 6 & 0x3F)
    out[at + 3] = 0x80 | (code & 0x3F)
    return at + 4


@njit(cache=True, nogil=True)
def normalize(data, start, end, lower, kind, strict, out):
    """Lower-case, strip and squeeze white space; if strict, digits become 0 and punctuation goes. Writes
    UTF-8 to `out` (room: 3 bytes for each byte of text) and returns its length."""
    at = 0
    gap = False
    i = start
    while i < end:
        code, i = decode(data, i, end)
        flags = kind[code] if code < LIMIT else np.uint8(WORD)
        if flags & SPACE:
            gap = at > 0
            continue
        if strict and flags & PUNCTUATION:
            continue
        if gap:
            out[at] = 0x20
            at += 1
            gap = False
        if strict and flags & DIGIT:
            out[at] = 0x30
            at += 1
        else:
            at = encode(out, at, np.int64(lower[code]) if code < LIMIT else code)
    return at


@njit(cache=True, nogil=True)
def _normalized_rows(data, offsets, lower, kind, strict, seed1, seed2, first, second):
    scratch = np.empty(1 << 16, np.uint8)
    for row in range(len(first)):
        start, end = offsets[row], offsets[row + 1]
        if 3 * (end - start) > len(scratch):
            scratch = np.empty(6 * (end - start), np.uint8)
        n = normalize(data, start, end, lower, kind, strict, scratch)
        first[row] = xxh64(scratch, 0, n, seed1)
        second[row] = xxh64(scratch, 0, n, seed2)


def normalized_hashes(column: pa.Array, how: str, seed1: int, seed2: int) -> tuple[np.ndarray, np.ndarray]:
    """XXH64 of every row's normalised text under two seeds: uint64[n], uint64[n]."""
    data, offsets = byte_buffers(column)
    first, second = np.empty(len(column), np.uint64), np.empty(len(column), np.uint64)
    lower, kind = tables()
    _normalized_rows(data, offsets, lower, kind, how == "ccnet", U(seed1), U(seed2), first, second)
    return first, second
