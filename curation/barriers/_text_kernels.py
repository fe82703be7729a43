"""Compiled loops over UTF-8: normalised hashes, word shingles, MinHash signatures, union-find.

Import it only where used: it brings numba with it. Text arrives as Arrow's own buffers (bytes and offsets);
code points are decoded on the fly and looked up in the tables of `_unicode`. Ill-formed bytes cannot leave
the row: a sequence that is cut short counts as U+FFFD.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit

from curation._hash_kernels import P1, P2, P3, P5, avalanche, xxh64
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


# ------------------------------------------------------------------------------------------------- minhash

BLOCK = 2048  # shingles held back before they meet the permutations: 16 kB, within the first cache
WORD_START = P5
ROLL = P1  # base of the polynomial over the hashes of a shingle's words


@njit(cache=True, nogil=True)
def _lower_signature(high, low, n, a, b, signature):
    """signature[j] = min(signature[j], min over shingles of a[j]·high + b[j]·low mod 2^32)."""
    for j in range(len(signature)):
        aj, bj, least = a[j], b[j], signature[j]
        for s in range(n):
            value = np.uint32(aj * high[s] + bj * low[s])
            least = min(least, value)
        signature[j] = least


@njit(cache=True, nogil=True)
def sign(data, start, end, fold, lower, kind, ngram, a, b, signature, ring, high, low):
    """MinHash one document; returns its number of words (0: it has no signature).

    A word is a run of letters, marks and numbers, lower-cased; in scripts written without spaces it is one
    character. A shingle is `ngram` words in a row, or all words of a shorter document.
    """
    oldest = U(1)
    for _ in range(ngram):
        oldest *= ROLL
    signature[:] = np.uint32(0xFFFFFFFF)
    words, slot, held = 0, 0, 0
    rolling, word = U(0), WORD_START
    open_word = False
    code = np.int64(0)
    i = start
    while True:
        while i < end:  # most bytes of most text: ASCII letters and digits
            byte = fold[data[i]]
            if byte == 0:
                break
            word = (word ^ U(byte)) * P2
            open_word = True
            i += 1
        single = False
        ended = i >= end
        if not ended:
            code, i = decode(data, i, end)
            flags = kind[code] if code < LIMIT else np.uint8(IDEOGRAPH)
            if flags & WORD:
                single = flags & UNSPACED != 0
                if not single:
                    word = (word ^ U(lower[code])) * P2
                    open_word = True
                    continue
        # the open word ends here; then comes this character, if it is a word of its own
        while open_word or single:
            if open_word:
                value = avalanche(word)
                word = WORD_START
                open_word = False
            else:
                value = avalanche((WORD_START ^ U(code)) * P2)
                single = False
            leaving = ring[slot] if words >= ngram else U(0)
            rolling = rolling * ROLL + value - leaving * oldest
            ring[slot] = value
            slot = slot + 1 if slot + 1 < ngram else 0
            words += 1
            if words >= ngram:
                shingle = avalanche(rolling)
                high[held] = np.uint32(shingle >> U(32))
                low[held] = np.uint32(shingle & U(0xFFFFFFFF))
                held += 1
                if held == len(high):
                    _lower_signature(high, low, held, a, b, signature)
                    held = 0
        if ended:
            break
    if 0 < words < ngram:
        shingle = avalanche(rolling ^ U(words) * P3)
        high[0], low[0] = np.uint32(shingle >> U(32)), np.uint32(shingle & U(0xFFFFFFFF))
        held = 1
    _lower_signature(high, low, held, a, b, signature)
    return words


@njit(cache=True, nogil=True)
def _sign_rows(data, offsets, fold, lower, kind, ngram, a, b, signatures, words):
    ring = np.empty(ngram, np.uint64)
    high, low = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    for row in range(len(words)):
        words[row] = sign(
            data,
            offsets[row],
            offsets[row + 1],
            fold,
            lower,
            kind,
            ngram,
            a,
            b,
            signatures[row],
            ring,
            high,
            low,
        )


def signatures(column: pa.Array, ngram: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MinHash of every row under len(a) permutations: uint32[n, len(a)], and words int64[n]: 0 for null."""
    data, offsets = byte_buffers(column)
    out = np.empty((len(column), len(a)), np.uint32)
    words = np.empty(len(column), np.int64)
    lower, kind = tables()
    fold = np.zeros(256, np.uint8)  # ASCII letters and digits in lower case; 0 for all other bytes
    fold[:128] = np.where(kind[:128] & WORD, lower[:128], 0)
    _sign_rows(data, offsets, fold, lower, kind, ngram, a, b, out, words)
    if column.null_count:
        words[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return out, words


@njit(cache=True, nogil=True)
def bucket_hashes(signatures, bands, rows, out):
    """One 64-bit hash for each band of each signature, the band's number in it: uint64[n, bands]."""
    for i in range(len(signatures)):
        for band in range(bands):
            h = U(band + 1) * P3
            for r in range(band * rows, band * rows + rows):
                h = (h ^ U(signatures[i, r])) * P1
                h = h ^ (h >> U(29))
            out[i, band] = avalanche(h)


@njit(cache=True, nogil=True)
def similar_pairs(sketches, starts, needed, member, leader):
    """Within each group of rows (group g: starts[g] … starts[g+1]), pair every row with each of the group's
    leaders that it agrees with in at least `needed` places; a row that agrees with none becomes a leader.
    Fills (member, leader) from 0 on and returns how many there are, or how many there would have to be room
    for when there is too little."""
    n = 0
    for g in range(len(starts) - 1):
        first, last = starts[g], starts[g + 1]
        leaders = np.empty(last - first, np.int64)
        n_leaders = 0
        for i in range(first, last):
            joined = False
            for k in range(n_leaders):
                j = leaders[k]
                same = 0
                for c in range(sketches.shape[1]):
                    same += sketches[i, c] == sketches[j, c]
                if same >= needed:
                    if n < len(member):
                        member[n] = i
                        leader[n] = j
                    n += 1
                    joined = True
            if not joined:
                leaders[n_leaders] = i
                n_leaders += 1
    return n


@njit(cache=True, nogil=True)
def components(n, first, second):
    """Connected components of n nodes under edges (first[i], second[i]): the least node of each's component.
    Union-find with path halving; the answer does not depend on the order of edges."""
    parent = np.arange(n)
    for e in range(len(first)):
        x, y = first[e], second[e]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        else:
            parent[x] = y
    for x in range(n):  # parents are smaller than their children: one pass upwards is enough
        parent[x] = parent[parent[x]]
    return parent
