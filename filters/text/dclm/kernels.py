"""Compiled passes for the DCLM scores and repetition, over the UTF-8 buffers of an Arrow string column.

``scores`` and ``repetition`` read each byte once and make no Python object. Equality of words, lines and
paragraphs is equality of 64-bit hashes. Readable oracles: ``tests/filters/oracle_dclm.py``.
"""

# ruff: noqa: SIM102, SIM109 (written as the compiler reads them: few tests a byte)
from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.dclm.classes import (
    ALETTER,
    ALNUM,
    ALPHA,
    BREAK_CLASS,
    DOUBLE_QUOTE,
    EXTEND,
    EXTENDNUMLET,
    GAP,
    HEBREW,
    JOINER,
    KATAKANA,
    MARK,
    MIDLETTER,
    MIDNUM,
    MIDNUMLET,
    NUMERIC,
    PICTOGRAPH,
    RUN,
    SINGLE_QUOTE,
    SPACE,
)
from filters.text.hash_kernels import SEED, STEP, U, chain_raw, mix
from filters.text.ngram_kernels import longer, make_scratch, repeated_pairs, repeated_units
from filters.text.utf8_kernels import char_at, longest_of

SCORES = (
    "n_chars",
    "n_words",
    "n_tokens",
    "n_lines",
    "n_symbols",
    "n_stop_words",
    "n_unique_stop_words",
    "mean_word_length",
    "symbol_ratio",
    "bullet_line_ratio",
    "ellipsis_line_ratio",
    "non_alpha_word_ratio",
)
REPETITION = (
    "n_lines",
    "n_paragraphs",
    "n_words",
    "dup_line_frac",
    "dup_para_frac",
    "dup_line_char_frac",
    "dup_para_char_frac",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "dup_5_gram",
    "dup_6_gram",
    "dup_7_gram",
    "dup_8_gram",
    "dup_9_gram",
    "dup_10_gram",
)

_S8 = U(8)
_NEWLINE = U(0x2545F4914F6CDD1D)

_HASH, _DOT, _STAR, _DASH = 0x23, 0x2E, 0x2A, 0x2D
_BULLET, _DISC, _ELLIPSIS = 0x2022, 0x25CF, 0x2026
STOP_BITS = 6  # slots of the stop-word table, in bits: one bit of a mask each


# --------------------------------------------------------------------------------------------------- scores


@njit(cache=True, nogil=True)
def pack(data, start, end):
    """Up to eight bytes as one number, ASCII letters lower-cased; never 0 for a word."""
    key = U(0)
    for i in range(start, end):
        b = data[i]
        if b >= 0x41 and b <= 0x5A:
            b |= 0x20
        key = (key << _S8) | U(b)
    return key


@njit(cache=True, nogil=True)
def _ends_in_ellipsis(data, start, end):
    n = end - start
    if n >= 3 and data[end - 3] == _DOT and data[end - 2] == _DOT and data[end - 1] == _DOT:
        return True
    if n >= 3 and data[end - 3] == 0xE2 and data[end - 2] == 0x80 and data[end - 1] == 0xA6:
        return True
    return (
        n >= 5
        and data[end - 5] == _DOT
        and data[end - 4] == 0x20
        and data[end - 3] == _DOT
        and data[end - 2] == 0x20
        and data[end - 1] == _DOT
    )


@njit(cache=True, nogil=True)
def scores(data, offsets, pages, classes, stops, longest_stop, out):
    """All of ``SCORES`` for each document: ``out`` float64[n, 12].

    ``stops`` uint64[2 ** STOP_BITS]: open-addressing table of packed stop words (0: empty),
    ``longest_stop``: bytes of the longest.
    """
    stop_mask = stops.shape[0] - 1
    stop_shift = U(64 - STOP_BITS)
    for d in range(offsets.shape[0] - 1):
        start, end = offsets[d], offsets[d + 1]
        continuation = np.int64(0)  # bytes that are not the first of their character
        space_chars = np.int64(0)
        n_words = np.int64(0)
        n_tokens = np.int64(0)
        n_alpha = np.int64(0)
        n_lines = np.int64(0)
        n_bullets = np.int64(0)
        n_cut = np.int64(0)
        n_symbols = np.int64(0)
        n_stops = np.int64(0)
        stop_seen = U(0)
        free_dots = start  # where the next '...' may begin, and the next '. . .'
        free_spaced = start
        line_from = np.int64(-1)  # first byte of the line that is not white space; -1: none yet
        line_to = np.int64(0)
        gap = True
        i = start
        while i < end:
            # ---- white space
            b = data[i]
            if b < 0x80:
                c = np.int64(classes[b])
                if c & SPACE:
                    if b == 10 and line_from >= 0:
                        n_cut += _ends_in_ellipsis(data, line_from, line_to)
                        line_from = np.int64(-1)
                    gap = (c & GAP) != 0
                    space_chars += 1
                    i += 1
                    continue
                cp = np.int64(b)
                size = np.int64(1)
            else:
                cp, size = char_at(data, i, end)
                c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
                if c & SPACE:
                    gap = False
                    space_chars += 1
                    continuation += size - 1
                    i += size
                    continue
            # ---- a word, up to the next white space
            if gap and (c & ALNUM) != 0:
                n_words += 1
            if line_from < 0:
                line_from = i
                n_lines += 1
                if cp == _STAR or cp == _DASH or cp == _BULLET or cp == _DISC:
                    n_bullets += 1
            first = i
            flags = np.int64(0)
            while True:
                flags |= c
                if c & MARK:
                    if cp == _DOT:
                        if i >= free_dots and i + 2 < end and data[i + 1] == _DOT and data[i + 2] == _DOT:
                            n_symbols += 1
                            free_dots = i + 3
                        if i >= free_spaced and i + 4 < end and data[i + 1] == 0x20:
                            if data[i + 2] == _DOT and data[i + 3] == 0x20 and data[i + 4] == _DOT:
                                n_symbols += 1
                                free_spaced = i + 5
                    elif cp == 0:  # a NUL parts words for fastText's reader, and only for it
                        after, _ = char_at(data, i + 1, end)
                        if after >= 0:
                            n_words += (
                                classes[(np.int64(pages[after >> 8]) << 8) | (after & 255)] & ALNUM
                            ) != 0
                    else:
                        n_symbols += 1
                i += size
                continuation += size - 1
                if i >= end:
                    break
                b = data[i]
                if b < 0x80:
                    cp = np.int64(b)
                    size = np.int64(1)
                    c = np.int64(classes[b])
                else:
                    cp, size = char_at(data, i, end)
                    c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
                if c & SPACE:
                    break
            line_to = i
            n_tokens += 1
            if flags & ALPHA:
                n_alpha += 1
                if i - first <= longest_stop:
                    key = pack(data, first, i)
                    slot = np.int64((key * STEP) >> stop_shift)
                    while stops[slot] != 0:
                        if stops[slot] == key:
                            n_stops += 1
                            stop_seen |= U(1) << U(slot)
                            break
                        slot = (slot + 1) & stop_mask
        if line_from >= 0:
            n_cut += _ends_in_ellipsis(data, line_from, line_to)
        n_unique = np.int64(0)
        while stop_seen:
            stop_seen &= stop_seen - U(1)
            n_unique += 1
        n_chars = end - start - continuation
        row = out[d]
        row[0] = n_chars
        row[1] = n_words
        row[2] = n_tokens
        row[3] = n_lines
        row[4] = n_symbols
        row[5] = n_stops
        row[6] = n_unique
        row[7] = (n_chars - space_chars) / max(n_tokens, 1)
        row[8] = n_symbols / max(n_tokens, 1)
        row[9] = n_bullets / max(n_lines, 1)
        row[10] = n_cut / max(n_lines, 1)
        row[11] = (n_tokens - n_alpha) / max(n_tokens, 1)


# ----------------------------------------------------------------------------------------------- repetition

_LETTERS = (1 << ALETTER) | (1 << HEBREW)
_AFTER_LETTER = _LETTERS | (1 << NUMERIC) | (1 << EXTENDNUMLET)
_AFTER_KATAKANA = (1 << KATAKANA) | (1 << EXTENDNUMLET)
_AFTER_CONNECTOR = _AFTER_LETTER | (1 << KATAKANA)
# bit k of JOINS[a]: a character of class k is not parted from one of class a before it (WB5, 8-10, 13-13b)
JOINS = np.zeros(16, np.int64)
JOINS[[ALETTER, HEBREW, NUMERIC]] = _AFTER_LETTER
JOINS[KATAKANA] = _AFTER_KATAKANA
JOINS[EXTENDNUMLET] = _AFTER_CONNECTOR


@njit(cache=True, nogil=True)
def _class_after(data, i, end, pages, classes):
    """Word-break class of the first character from byte ``i`` that is not an EXTEND; -1 at the end."""
    while True:
        cp, size = char_at(data, i, end)
        if size == 0:
            return np.int64(-1)
        kind = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]) & BREAK_CLASS
        if kind != EXTEND:
            return kind
        i += size


@njit(cache=True, nogil=True)
def _bridges(before, kind, data, i, end, pages, classes):
    """Does a mark of class ``kind``, ending at byte ``i``, stand inside a word? (WB6, 7, 7b, 7c, 11, 12)"""
    letter = before == ALETTER or before == HEBREW
    if letter and (kind == MIDLETTER or kind == MIDNUMLET or kind == SINGLE_QUOTE):
        after = _class_after(data, i, end, pages, classes)
        return after == ALETTER or after == HEBREW
    if before == HEBREW and kind == DOUBLE_QUOTE:
        return _class_after(data, i, end, pages, classes) == HEBREW
    if before == NUMERIC and (kind == MIDNUM or kind == MIDNUMLET or kind == SINGLE_QUOTE):
        return _class_after(data, i, end, pages, classes) == NUMERIC
    return False


@njit(cache=True, nogil=True)
def _scan(
    data, start, end, pages, classes, word_hash, word_chars, line_hash, line_chars, para_hash, para_chars,
    counts,
):  # fmt: skip
    """Cut one document into words (UAX #29), lines and paragraphs; fill the arrays and counts[0:3]."""
    n_words = np.int64(0)
    n_lines = np.int64(0)
    n_paras = np.int64(0)
    n_chars = np.int64(0)
    # the open line: its hash from its first character that is not white space, and up to its last such one
    line = SEED
    line_solid = SEED
    line_from = np.int64(-1)
    # the open paragraph: its hash before the open line, and up to its last character that is not white space
    para = SEED
    para_solid = SEED
    para_from = np.int64(-1)
    solid_to = np.int64(0)
    i = start
    while i < end:
        b = data[i]
        if b < 0x80:
            cp = np.int64(b)
            size = np.int64(1)
            c = np.int64(classes[b])
        else:
            cp, size = char_at(data, i, end)
            c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
        if c & SPACE:
            i += size
            n_chars += 1
            if cp != 10:
                if line_from >= 0:
                    line = chain_raw(line, U(cp))
                else:
                    para = chain_raw(para, U(cp))
                continue
            if line_from >= 0:
                line_hash[n_lines] = line_solid
                line_chars[n_lines] = solid_to - line_from
                n_lines += 1
                line_from = np.int64(-1)
                para_solid = chain_raw(para, line_solid)
                para = chain_raw(para, line)
            if i < end and data[i] == 10:
                i += 1
                n_chars += 1
                if para_from >= 0:
                    para_hash[n_paras] = para_solid
                    para_chars[n_paras] = solid_to - para_from
                    n_paras += 1
                    para_from = np.int64(-1)
            else:
                para = chain_raw(para, _NEWLINE)
            continue
        # ---- one segment; ``before`` is the class of its last character that is not an EXTEND
        is_word = (c & ALNUM) != 0
        before = c & BREAK_CLASS
        joiner = (c & JOINER) != 0
        h = SEED
        block = U(0)
        bits = np.int64(0)
        from_byte = i
        from_char = n_chars
        while True:
            # take the character at hand
            for k in range(size):
                block = (block << _S8) | U(data[i + k])
                bits += 1
                if bits == 8:
                    h = chain_raw(h, block)
                    block = U(0)
                    bits = np.int64(0)
            i += size
            n_chars += 1
            if c & RUN:  # and the ASCII letters, digits and underscores after it
                while i < end and data[i] < 0x80:
                    c = np.int64(classes[data[i]])
                    if (c & RUN) == 0:
                        break
                    before = c & BREAK_CLASS
                    block = (block << _S8) | U(data[i])
                    bits += 1
                    if bits == 8:
                        h = chain_raw(h, block)
                        block = U(0)
                        bits = np.int64(0)
                    i += 1
                    n_chars += 1
            # does the next one join?
            if i >= end:
                break
            b = data[i]
            if b < 0x80:
                cp = np.int64(b)
                size = np.int64(1)
                c = np.int64(classes[b])
                if c & SPACE:
                    break
            else:
                cp, size = char_at(data, i, end)
                c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
            kind = c & BREAK_CLASS
            if kind == EXTEND:
                joiner = (c & JOINER) != 0
                continue
            if (joiner and (c & PICTOGRAPH) != 0) or (JOINS[before] >> kind) & 1:
                before = kind
            elif kind >= MIDLETTER and _bridges(before, kind, data, i + size, end, pages, classes):
                joiner = False  # ``before`` stays: what comes next is a letter (digit) after a letter (digit)
                continue
            elif before == HEBREW and kind == SINGLE_QUOTE:
                before = kind
            else:
                break
            joiner = False
        atom = chain_raw(h, block) ^ U(i - from_byte)
        if is_word:
            word_hash[n_words] = mix(atom)
            word_chars[n_words] = n_chars - from_char
            n_words += 1
        if para_from < 0:
            para_from = from_char
            para = SEED
        if line_from < 0:
            line_from = from_char
            line = SEED
        line = chain_raw(line, atom)
        line_solid = line
        solid_to = n_chars
    if line_from >= 0:
        line_hash[n_lines] = line_solid
        line_chars[n_lines] = solid_to - line_from
        n_lines += 1
        para_solid = chain_raw(para, line_solid)
    if para_from >= 0:
        para_hash[n_paras] = para_solid
        para_chars[n_paras] = solid_to - para_from
        n_paras += 1
    counts[0] = n_lines
    counts[1] = n_paras
    counts[2] = n_words


@njit(cache=True, nogil=True)
def _repeated(hashes, chars, n, scratch):
    """Fractions of units, and of their characters, in units that occur more than once, all copies counted."""
    if n < 2:
        return 0.0, 0.0
    later, later_chars, firsts, first_chars = repeated_units(hashes, chars, n, scratch)
    return (later + firsts) / n, (later_chars + first_chars) / chars[:n].sum()


@njit(cache=True, nogil=True)
def _repeated_grams(word_hash, word_chars, n, scratch, out):
    """out[0:3]: share of the top n-gram for n = 2, 3, 4; out[3:9]: of all repeated n-grams for n = 5 … 10."""
    out[:] = 0.0
    total = word_chars[:n].sum()
    _, _, where, owner, seen = scratch
    m = repeated_pairs(word_hash, n, scratch)
    for size in range(2, 11):
        if size > 2:
            m = longer(m, scratch)
        if m == 0:
            return
        found = np.int64(0)
        if size < 5:
            most = np.int64(1)
            length = np.int64(0)
            newest = np.int64(-1)
            for k in range(m):
                if owner[k] <= newest:
                    continue
                newest = np.int64(owner[k])
                if seen[newest] >= most:
                    chars = np.int64(0)
                    for j in range(where[k], where[k] + size):
                        chars += word_chars[j]
                    if seen[newest] > most or chars > length:
                        most = np.int64(seen[newest])
                        length = chars
            found = most * length
        else:
            covered_to = np.int64(0)
            for k in range(m):
                at = np.int64(where[k])
                for j in range(max(at, covered_to), at + size):
                    found += word_chars[j]
                covered_to = at + size
        out[size - 2] = found / total


@njit(cache=True, nogil=True)
def repetition(data, offsets, pages, classes, out):
    """All of ``REPETITION`` for each document: ``out`` float64[n, 16]."""
    n_docs = offsets.shape[0] - 1
    room = 2 * longest_of(offsets) // 3 + 2  # densest is "a²a²…": of two words that touch, one has two bytes
    word_hash = np.empty(room, np.uint64)
    word_chars = np.empty(room, np.int32)
    line_hash = np.empty(room, np.uint64)
    line_chars = np.empty(room, np.int32)
    para_hash = np.empty(room, np.uint64)
    para_chars = np.empty(room, np.int32)
    scratch = make_scratch(room)
    counts = np.zeros(3, np.int64)
    for d in range(n_docs):
        _scan(
            data, offsets[d], offsets[d + 1], pages, classes, word_hash, word_chars, line_hash, line_chars,
            para_hash, para_chars, counts,
        )  # fmt: skip
        row = out[d]
        n_lines, n_paras, n_words = counts[0], counts[1], counts[2]
        row[0] = n_lines
        row[1] = n_paras
        row[2] = n_words
        row[3], row[5] = _repeated(line_hash, line_chars, n_lines, scratch)
        row[4], row[6] = _repeated(para_hash, para_chars, n_paras, scratch)
        _repeated_grams(word_hash, word_chars, n_words, scratch, row[7:])
