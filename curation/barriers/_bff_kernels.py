"""Compiled loops of `bff`: words and n-gram hashes out of UTF-8, and the sequential pass over them.

Import it only where used: it brings numba with it. A *span* is what can be removed: a piece of text from one
newline up to the next (each newline begins the span that follows it), or the whole text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from curation._hash_kernels import P1, P2, P3, P5, avalanche
from curation.barriers._text_kernels import decode
from curation.barriers._word_break import (
    ALETTER,
    CLASS,
    DOUBLE_QUOTE,
    EXTEND,
    EXTENDNUMLET,
    HEBREW,
    JOINER,
    KATAKANA,
    MIDLETTER,
    MIDNUM,
    MIDNUMLET,
    NUMERIC,
    PICTOGRAPH,
    REGIONAL,
    RUN,
    SINGLE_QUOTE,
    SPACE,
    tables,
)
from curation.hashing import byte_buffers

U = np.uint64
WORD_START = P5
ROLL = P1  # base of the polynomial over the hashes of an n-gram's words
AHEAD = 16  # n-grams between asking for their part of the filter and looking at it
BLANK = -1  # the number of n-grams of a span that holds nothing but white space

_LETTER = (1 << ALETTER) | (1 << HEBREW)
# bit k of JOINS[a]: a character of class k is not parted from one of class a before it (WB5, 8-10, 13-13b)
JOINS = np.zeros(16, np.int64)
JOINS[[ALETTER, HEBREW, NUMERIC]] = _LETTER | (1 << NUMERIC) | (1 << EXTENDNUMLET)
JOINS[KATAKANA] = (1 << KATAKANA) | (1 << EXTENDNUMLET)
JOINS[EXTENDNUMLET] = JOINS[ALETTER] | (1 << KATAKANA)


# --------------------------------------------------------------------------------------------- words, n-grams


@njit(cache=True, nogil=True)
def _class_after(data, i, end, pages, classes):
    """Word-break class of the first character from byte i that is no EXTEND; −1 at the end or at space."""
    while i < end:
        code, i = decode(data, i, end)
        c = np.int64(classes[(np.int64(pages[code >> 8]) << 8) | (code & 255)])
        if c & SPACE:
            return np.int64(-1)
        if c & CLASS != EXTEND:
            return c & CLASS
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _bridges(before, kind, data, i, end, pages, classes):
    """Does a mark of class `kind`, which ends at byte i, stand inside a word? (WB6, 7, 7b, 7c, 11, 12)"""
    after = _class_after(data, i, end, pages, classes)
    if before in (ALETTER, HEBREW):
        if kind in (MIDLETTER, MIDNUMLET, SINGLE_QUOTE):
            return after in (ALETTER, HEBREW)
        return before == HEBREW and kind == DOUBLE_QUOTE and after == HEBREW
    if before == NUMERIC and kind in (MIDNUM, MIDNUMLET, SINGLE_QUOTE):
        return after == NUMERIC
    return False


@njit(cache=True, nogil=True)
def _shingle(
    data, offsets, pages, classes, longest, shortest, cut, seed,
    hashes, span_bytes, span_ngrams, row_spans, row_ngrams,
):  # fmt: skip
    """Cut every row into spans, these into words, and hash all windows of `longest` words in a span. A span
    without a window but with `shortest` words or more is one n-gram. Returns (n-grams, spans)."""
    oldest = U(1)
    for _ in range(longest):
        oldest *= ROLL
    ring = np.empty(longest, np.uint64)
    n_ngrams, n_spans = 0, 0
    for row in range(len(row_spans)):
        i, end = offsets[row], offsets[row + 1]
        row_first, spans_first = n_ngrams, n_spans
        span_from, span_first = i, n_ngrams
        words, slot, rolling = 0, 0, U(0)
        while True:
            code, next_i, c = np.int64(10), i, np.int64(SPACE)
            if i < end:
                code, next_i = decode(data, i, end)
                c = np.int64(classes[(np.int64(pages[code >> 8]) << 8) | (code & 255)])
                if c & SPACE and not (cut and code == 10):
                    i = next_i
                    continue
            if c & SPACE:  # a newline or the end: the span ends before it
                if i > span_from:
                    if n_ngrams == span_first and words >= shortest:
                        hashes[n_ngrams] = avalanche(rolling ^ U(words) * P3 ^ seed)
                        n_ngrams += 1
                    span_bytes[n_spans] = i - span_from
                    span_ngrams[n_spans] = n_ngrams - span_first if words > 0 else BLANK
                    n_spans += 1
                if i >= end:
                    break
                span_from, span_first = i, n_ngrams
                words, slot, rolling = 0, 0, U(0)
                i = next_i
                continue
            # ---- one word; `before` is the class of its last character that is no EXTEND
            before = c & CLASS
            joiner = c & JOINER != 0
            paired = False  # two regional indicators are a flag, and a third begins the next (WB15, 16)
            word = WORD_START
            while True:
                while i < next_i:
                    word = (word ^ U(data[i])) * P2
                    i += 1
                if c & RUN:  # most bytes of most text
                    while i < end and classes[data[i]] & RUN:
                        c = np.int64(classes[data[i]])
                        word = (word ^ U(data[i])) * P2
                        i += 1
                    before = c & CLASS
                if i >= end:
                    break
                code, next_i = decode(data, i, end)
                c = np.int64(classes[(np.int64(pages[code >> 8]) << 8) | (code & 255)])
                kind = c & CLASS
                if kind == EXTEND:
                    joiner = c & JOINER != 0
                    continue
                if c & SPACE:
                    break
                if (joiner and c & PICTOGRAPH) or (JOINS[before] >> kind) & 1:
                    before = kind
                elif kind == REGIONAL and before == REGIONAL and not paired:
                    paired = True
                elif kind >= MIDLETTER and _bridges(before, kind, data, next_i, end, pages, classes):
                    pass  # `before` stays: a letter follows a letter, or a digit a digit
                elif kind == SINGLE_QUOTE and before == HEBREW:
                    before = kind
                else:
                    break
                joiner = False
            value = avalanche(word)
            leaving = ring[slot] if words >= longest else U(0)
            rolling = rolling * ROLL + value - leaving * oldest
            ring[slot] = value
            slot = slot + 1 if slot + 1 < longest else 0
            words += 1
            if words >= longest:
                hashes[n_ngrams] = avalanche(rolling ^ seed)
                n_ngrams += 1
        row_spans[row] = n_spans - spans_first
        row_ngrams[row] = n_ngrams - row_first
    return n_ngrams, n_spans


def shingle(
    column: pa.Array, longest: int, shortest: int, cut: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(hashes uint64[n-grams], bytes and n-grams of spans int32, spans and n-grams of rows int64)."""
    data, offsets = byte_buffers(column)
    if column.null_count:
        lengths = np.where(column.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets), 0)
        if lengths.sum() != offsets[-1] - offsets[0]:  # bytes below a null: allowed, and not text
            column = column.take(pa.array(np.arange(len(column))))
            data, offsets = byte_buffers(column)
    room = int(offsets[-1] - offsets[0])  # no text has more words, or spans, than bytes
    hashes = np.empty(room, np.uint64)  # pages that are never written cost nothing
    span_bytes, span_ngrams = np.empty(room, np.int32), np.empty(room, np.int32)
    row_spans, row_ngrams = np.empty(len(column), np.int64), np.empty(len(column), np.int64)
    pages, classes = tables()
    n, spans = _shingle(
        data, offsets, pages, classes, longest, shortest, cut, U(seed), hashes, span_bytes, span_ngrams,
        row_spans, row_ngrams,
    )  # fmt: skip
    return hashes[:n].copy(), span_bytes[:spans].copy(), span_ngrams[:spans].copy(), row_spans, row_ngrams


# ----------------------------------------------------------------------------------------------------- filter


def _product_high(typingctx, a, b):
    """The upper 64 bits of the product of two uint64: with b = n, a fair draw from 0 … n − 1."""

    def codegen(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


_times_high: Any = intrinsic(_product_high)


def _fetch(typingctx, table, at):
    """Ask for the cache line of table[at], which will be wanted soon."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        line = builder.bitcast(cgutils.gep_inbounds(builder, array.data, args[1]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(prefetch, [line, number(1), number(3), number(1)])  # to write, keep, data
        return context.get_dummy_value()

    return types.void(table, types.uint64), codegen


_prefetch: Any = intrinsic(_fetch)


@njit(cache=True, nogil=True, inline="always")
def _bloom_has(table, bits, hashers, h):
    """Are all bits of this hash set? Bit j is that of h + j·g, g an odd number made of h (Kirsch and
    Mitzenmacher 2008)."""
    g = avalanche(h) | U(1)
    for _ in range(hashers):
        at = _times_high(h, bits)
        if not (table[at >> U(6)] >> (at & U(63))) & U(1):
            return False
        h += g
    return True


@njit(cache=True, nogil=True, inline="always")
def _bloom_add(table, bits, hashers, h):
    """Set the bits of a hash; returns how many were not set."""
    g = avalanche(h) | U(1)
    new = 0
    for _ in range(hashers):
        at = _times_high(h, bits)
        word = table[at >> U(6)]
        mark = U(1) << (at & U(63))
        new += (word & mark) == U(0)
        table[at >> U(6)] = word | mark
        h += g
    return new


@njit(cache=True, nogil=True, inline="always")
def _bloom_fetch(table, bits, hashers, h):
    g = avalanche(h) | U(1)
    for _ in range(hashers):
        _prefetch(table, _times_high(h, bits) >> U(6))
        h += g


@njit(cache=True, nogil=True, inline="always")
def _slot(table, h):
    """Where a hash is or would be in an open-addressing table of 2^k places, of which one is always free."""
    mask = U(len(table) - 1)
    at = h & mask
    while table[at] != U(0) and table[at] != h:
        at = (at + U(1)) & mask
    return at


@njit(cache=True, nogil=True)
def deduplicate(
    hashes, row_ngrams, row_spans, span_bytes, span_ngrams, table, bits, hashers, threshold, whole, state,
    contained, removed, dropped, cuts, row_cuts,
):  # fmt: skip
    """The sequential pass over a piece of the pool, row after row and span after span; changes `table`.

    table: a Bloom filter of `bits` bits, or with hashers = 0 a set: open addressing, half empty or more.
    whole: also drop a row of whose n-grams more than `threshold` had been seen.
    Per row: `contained` n-grams, bytes `removed`, `dropped`; and the bytes to cut, as from, to, from, to … in
    `cuts` up to the row's mark in `row_cuts`. `state`: [bits or places taken, spans removed, expected false
    positives, spans, n-grams inserted], added to.
    """
    at_ngram, at_span, at_cut = 0, 0, 0
    last = len(hashes) - 1
    for row in range(len(row_ngrams)):
        total, seen, gone, here = row_ngrams[row], 0, 0, 0
        first_cut, spans_gone = at_cut, 0
        left = False  # whether a span with words stays
        fill = state[0] / bits if hashers else 0.0
        chance = fill**hashers if hashers else 0.0
        for span in range(at_span, at_span + row_spans[row]):
            n = np.int64(span_ngrams[span])
            if n <= 0:
                left = left or n != BLANK
                here += span_bytes[span]
                continue
            found = 0
            for j in range(at_ngram, at_ngram + n):
                if hashers:
                    _bloom_fetch(table, bits, hashers, hashes[min(j + AHEAD, last)])
                    found += _bloom_has(table, bits, hashers, hashes[j])
                else:
                    _prefetch(table, hashes[min(j + AHEAD, last)] & U(len(table) - 1))
                    h = max(hashes[j], U(1))  # 0 marks an empty place
                    found += table[_slot(table, h)] == h
            if found / n > threshold:
                if at_cut > first_cut and cuts[at_cut - 1] == here:
                    cuts[at_cut - 1] = here + span_bytes[span]
                else:
                    cuts[at_cut] = here
                    cuts[at_cut + 1] = here + span_bytes[span]
                    at_cut += 2
                gone += span_bytes[span]
                spans_gone += 1
            else:
                left = True
                for j in range(at_ngram, at_ngram + n):
                    if hashers:
                        state[0] += _bloom_add(table, bits, hashers, hashes[j])
                    else:
                        h = max(hashes[j], U(1))
                        at = _slot(table, h)
                        state[0] += table[at] != h
                        table[at] = h
                state[4] += n
            seen += found
            here += span_bytes[span]
            at_ngram += n
        at_span += row_spans[row]
        state[1] += spans_gone
        state[2] += (total - seen) * (chance / (1.0 - chance)) if chance < 1.0 else 0.0
        state[3] += row_spans[row]
        contained[row] = seen
        dropped[row] = (gone > 0 and not left) or (whole and total > 0 and seen / total > threshold)
        if dropped[row]:
            at_cut = first_cut  # it leaves with its text as it was
            gone = here
        removed[row] = gone
        row_cuts[row] = at_cut
    return at_cut


@njit(cache=True, nogil=True)
def cut_text(data, offsets, rows, cuts, cut_offsets, out, out_offsets):
    """Copy a text column without the bytes that `cuts` says: rows[j] loses cuts[cut_offsets[j]] … in pairs of
    from and to, relative to the row's start. Fills `out` and its offsets."""
    at, j = 0, 0
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        if j < len(rows) and rows[j] == row:
            for k in range(cut_offsets[j], cut_offsets[j + 1], 2):
                stop = offsets[row] + cuts[k]
                out[at : at + stop - start] = data[start:stop]
                at += stop - start
                start = offsets[row] + cuts[k + 1]
            j += 1
        out[at : at + end - start] = data[start:end]
        at += end - start
        out_offsets[row + 1] = at
