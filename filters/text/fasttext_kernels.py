"""fastText's inference, compiled: text → rows of the input matrix → their mean → probabilities of labels.

Words are cut at ASCII white space and NUL, 32 bytes at a time. What a word adds (its row and those of its
character n-grams) is a pure function of its bytes; it is kept in a *memo* of bounded size, 4-way associative,
keyed by the bytes themselves, so that most words of a text cost one look-up and one addition. A document is
the sum over its words in their order, then over its word n-grams: the same floating-point operations
whatever the memo holds and whatever was read before.

Oracle: the fasttext module (``tests/filters/test_text_fasttext.py``). Import only where used: numba.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from filters.text.fasttext_file import HS, SOFTMAX
from filters.text.fasttext_vectors import (
    BLOCK,
    add_row,
    borrow,
    first_bytes,
    ones,
    prefetch,
    separators,
    starts,
    times_high,
    trailing_zeros,
)
from filters.text.kernels import decode

_U = np.uint64
_F = np.float32
_FNV, _FNV_PRIME, _32_BITS = _U(2166136261), _U(16777619), _U(0xFFFFFFFF)
_NGRAM_PRIME = _U(116049371)
_EOS = _U(int.from_bytes(b"</s>", "little"))
_LABEL, _LABEL_END = _U(int.from_bytes(b"__label_", "little")), ord("_")
_LESS, _GREATER = ord("<"), ord(">")
_P1, _P2, _P3 = _U(0x9E3779B185EBCA87), _U(0xC2B2AE3D27D4EB4F), _U(0x165667B19E3779F9)
_P4, _P5 = _U(0x85EBCA77C2B2AE63), _U(0x27D4EB2F165667C5)
_TINY = 1e-5  # fastText's logarithm is log(x + 1e-5)
_FLOOR = _F(np.log(_TINY))  # paths of the Huffman tree below it are given up

PIECE = 32  # words read before they are looked up, so that the memo's lines are asked for ahead
AHEAD = 8  # rows asked for before they are added
WAYS = 4
HEADER = 8  # uint64 of a memo slot before its floats: 4 of key, 1 of counts, 1 of row, 2 unused
_NO_WORD = -1  # count of a token that is a label: it adds nothing, not even to word n-grams


class Input(NamedTuple):
    """What turns text into rows: dictionary, buckets, input matrix (plain or, where ``coded``, quantised)."""

    file: np.ndarray  # uint8: the whole model file
    starts: np.ndarray  # uint32 or int64: first byte of each entry's word in it
    table: np.ndarray  # uint64[2^k]: word hash << 32 | entry + 1, open addressing
    n_words: int
    eos: int  # entry of </s>, or -1
    minn: int
    maxn: int
    bucket: int
    inverse: np.uint64  # 2^64 / bucket, rounded up
    ngrams: int
    pruned: int  # 1: only buckets in `kept` have a row, in their order; 0: all have
    kept: np.ndarray  # uint64[bucket / 32]: how many were kept before << 32 | a bit for each of the 32
    dim: int
    rows: np.ndarray  # uint8: float32 rows at any alignment
    coded: int
    codes: np.ndarray  # uint8, flat
    part: int
    centroids: np.ndarray  # float32, flat
    norms: np.ndarray  # float32


class Memo(NamedTuple):
    """Words met, and what they add. A slot is ``HEADER`` uint64 and the sum of the word's rows."""

    tags: np.ndarray  # uint32[slots]: 0 where empty
    used: np.ndarray  # uint8[slots / WAYS]: bit of each way that was hit since all were
    slots: np.ndarray  # uint64, flat
    slot_bytes: np.ndarray  # uint8 view of it
    floats: np.ndarray  # float32 view of it
    stride: int  # uint64 a slot
    shift: np.uint64


class Scratch(NamedTuple):
    """Working space of ``sum_rows``."""

    words: np.ndarray  # uint64[PIECE, 8]: words read and not yet added
    spelled: np.ndarray  # uint8: "<word>"
    word_sum: np.ndarray  # float32[dim]
    ids: np.ndarray  # int64: rows to be added
    hashes: np.ndarray  # int32: of the words, for their n-grams


class Output(NamedTuple):
    """What turns the mean row into probabilities. Row k of the output matrix is ``norms[k] * rows[k]``."""

    loss: int
    rows: np.ndarray  # float32[labels, dim]
    columns: np.ndarray  # float32[dim, labels]: the same, transposed
    norms: np.ndarray  # float32[labels]
    sigmoid: np.ndarray  # float32[513]: fastText's table over -8 … 8
    left: np.ndarray  # int32[labels - 1]: Huffman tree; node labels + k is inner node k
    right: np.ndarray


@njit(cache=True, nogil=True, inline="always")
def _borrowed_input(net):
    return Input(
        borrow(net.file), borrow(net.starts), borrow(net.table), net.n_words, net.eos, net.minn, net.maxn,
        net.bucket, net.inverse, net.ngrams, net.pruned, borrow(net.kept), net.dim, borrow(net.rows),
        net.coded, borrow(net.codes), net.part, borrow(net.centroids), borrow(net.norms),
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _borrowed_memo(memo):
    return Memo(
        borrow(memo.tags), borrow(memo.used), borrow(memo.slots), borrow(memo.slot_bytes),
        borrow(memo.floats), memo.stride, memo.shift,
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _borrowed_scratch(scratch):
    return Scratch(
        borrow(scratch.words), borrow(scratch.spelled), borrow(scratch.word_sum), borrow(scratch.ids),
        borrow(scratch.hashes),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _scratch(net, longest):
    """For texts of so many bytes at most."""
    return Scratch(
        np.empty((PIECE, 8), np.uint64), np.empty(longest + 2, np.uint8), np.empty(net.dim, _F),
        np.empty(64, np.int64), np.empty(longest // 2 + 2 if net.ngrams > 1 else 0, np.int32),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ dictionary


@njit(cache=True, nogil=True)
def find_words(file, at, n_words, starts):
    """Fill ``starts`` from the entries at byte ``at``: (byte after them, -1), or (-1, the entry cut short),
    or (its place, the entry that is no word among words or no label among labels)."""
    size = len(file)
    for entry in range(len(starts)):
        starts[entry] = at
        while at < size and file[at] != 0:
            at += 1
        if at + 10 > size:
            return -1, entry
        if file[at + 9] != (entry >= n_words):
            return at, entry
        at += 10
    return at, -1


@njit(cache=True, nogil=True, inline="always")
def _hashed(h, byte):
    """FNV-1a with signed bytes; only the low 32 bits count."""
    return (h ^ _U(np.int64(np.int8(byte)))) * _FNV_PRIME


@njit(cache=True, nogil=True)
def index_words(file, starts, table):
    """Fill the open-addressing table of the dictionary."""
    mask = _U(len(table) - 1)
    for entry in range(len(starts)):
        at = np.int64(starts[entry])
        h = _FNV
        while file[at] != 0:
            h = _hashed(h, file[at])
            at += 1
        h &= _32_BITS
        slot = h & mask
        while table[slot] != 0:
            slot = (slot + _U(1)) & mask
        table[slot] = (h << _U(32)) | _U(entry + 1)


@njit(cache=True, nogil=True, inline="always")
def find_word(net, text, at, size, h):
    """Dictionary entry of text[at:at + size], whose hash is h, or -1."""
    mask = _U(len(net.table) - 1)
    slot = h & mask
    found = np.int64(-1)
    while found < 0 and net.table[slot] != 0:
        if net.table[slot] >> _U(32) == h:
            entry = np.int64(net.table[slot] & _32_BITS) - 1
            there = np.int64(net.starts[entry])
            k = 0
            if there + size < len(net.file) and net.file[there + size] == 0:
                while k < size and net.file[there + k] == text[at + k]:
                    k += 1
                if k == size:
                    found = entry
        slot = (slot + _U(1)) & mask
    return found


@njit(cache=True, nogil=True)
def find_entry(net, word):
    """Dictionary entry of the bytes `word`, or -1."""
    h = _FNV
    for byte in word:
        h = _hashed(h, byte)
    return find_word(net, word, 0, len(word), h & _32_BITS)


# ------------------------------------------------------------------------------------------------------ rows


@njit(cache=True, nogil=True, inline="always")
def _place(net, bucket):
    """(row of an n-gram's bucket, counted after those of the words; 1, or 0 where it was pruned)."""
    place, has = np.int64(bucket), np.int64(1)
    if net.pruned:
        entry, bit = net.kept[np.int64(bucket >> _U(5))], bucket & _U(31)
        has = np.int64((entry >> bit) & _U(1))
        place = np.int64(entry >> _U(32)) + ones(entry & ((_U(1) << bit) - _U(1)))
    return place, has


@njit(cache=True, nogil=True, inline="always")
def _ask_for(net, row):
    if not net.coded:
        at = row * net.dim * 4
        for line in range(0, net.dim * 4, 64):
            prefetch(net.rows, at + line)


@njit(cache=True, nogil=True, inline="always")
def _add_rows(net, ids, n, into):
    """into += the rows of ids[:n], one after the other."""
    for k in range(min(n, AHEAD)):
        _ask_for(net, ids[k])
    for k in range(n):
        if k + AHEAD < n:
            _ask_for(net, ids[k + AHEAD])
        if net.coded:
            parts = (net.dim + net.part - 1) // net.part
            norm = net.norms[ids[k]]
            for p in range(parts):
                first = p * net.part
                width = min(net.part, net.dim - first)
                at = 256 * first + width * np.int64(net.codes[ids[k] * parts + p])
                for j in range(width):
                    into[first + j] += norm * net.centroids[at + j]
        else:
            add_row(into, net.rows, ids[k] * net.dim * 4, net.dim)


@njit(cache=True, nogil=True)
def _add_all_rows(net, ids, n, into):
    """The same, compiled once: a few nanoseconds slower, for calls that are rare or add many."""
    _add_rows(_borrowed_input(net), borrow(ids), n, borrow(into))


@njit(cache=True, nogil=True, inline="always")
def _read_words(memo, text, at, end, words):
    """Read up to PIECE words of text[at:end], ask for their tags; returns how many, and where to go on: `end`
    after the token </s>, which ends the line for fastText, too."""
    n = 0
    while at < end and n < PIECE:
        gaps = separators(text, at)
        if gaps & _U(1):
            at += trailing_zeros(~gaps)
            continue
        size = trailing_zeros(gaps | (_U(1) << _U(BLOCK)))
        step = size
        while step == BLOCK and at + size < end:
            step = trailing_zeros(separators(text, at + size) | (_U(1) << _U(BLOCK)))
            size += step
        size = min(size, end - at)
        k0, k1, k2, k3 = first_bytes(text, at, min(size, BLOCK))
        if size == 4 and k0 == _EOS:
            at = end
            break
        h = k0 * _P1 + k1 * _P2 + k2 * _P3 + k3 * _P4
        h = (h ^ (h >> _U(32))) * _P5
        prefetch(memo.tags, np.int64(h >> memo.shift) * WAYS)
        words[n, 0], words[n, 1], words[n, 2], words[n, 3] = k0, k1, k2, k3
        words[n, 4], words[n, 5], words[n, 6] = h, _U(at), _U(size)
        n += 1
        at += size
    return n, at


@njit(cache=True, nogil=True, inline="always")
def _way(memo, h):
    """The way whose tag is that of a hash; WAYS if there is none."""
    group = np.int64(h >> memo.shift) * WAYS
    tag = np.uint32(h & _32_BITS) | np.uint32(1)
    found = WAYS
    for way in range(WAYS):
        if memo.tags[group + way] == tag:
            found = way
    return found


@njit(cache=True, nogil=True)
def sum_rows(net, memo, scratch, text, start, end, into):
    """into[:dim] = sum of the rows of the line text[start:end]; returns how many. `text` goes on for BLOCK
    bytes at least."""
    net, memo, scratch = _borrowed_input(net), _borrowed_memo(memo), _borrowed_scratch(scratch)
    text, into = borrow(text), borrow(into)
    words, spelled, ids, word_sum = scratch.words, scratch.spelled, scratch.ids, scratch.word_sum
    into[:] = 0
    n_rows = np.int64(0)
    n_ids = np.int64(0)  # rows to be added
    n_hashes = np.int64(0)
    room = len(ids)
    plain = net.maxn == 0  # without character n-grams a word adds one row at most
    at_next = start
    while at_next < end:
        n_words, at_next = _read_words(memo, text, at_next, end, words)
        for w in range(n_words):
            h = words[w, 4]
            slot = (np.int64(h >> memo.shift) * WAYS + _way(memo, h) % WAYS) * memo.stride * 8
            prefetch(memo.slot_bytes, slot)
            if not plain:
                prefetch(memo.slot_bytes, slot + 64)
        for w in range(n_words):
            k0, k1, k2, k3 = words[w, 0], words[w, 1], words[w, 2], words[w, 3]
            h, at, size = words[w, 4], np.int64(words[w, 5]), np.int64(words[w, 6])

            # ---- is it in the memo?
            group = np.int64(h >> memo.shift)
            way = _way(memo, h)
            slot = (group * WAYS + way) * memo.stride
            hit = (
                way < WAYS
                and size <= BLOCK
                and memo.slots[slot] == k0
                and memo.slots[slot + 1] == k1
                and memo.slots[slot + 2] == k2
                and memo.slots[slot + 3] == k3
            )
            if hit:
                memo.used[group] |= np.uint8(1 << way)
                count = np.int64(memo.slots[slot + 4] >> _U(32)) - 1
                word_hash = np.int32(memo.slots[slot + 4] & _32_BITS)
                row = np.int64(memo.slots[slot + 5])
                if not plain and count > 0:
                    add_row(into, memo.slot_bytes, (slot + HEADER) * 8, net.dim)
            else:
                # ---- no: what it adds
                h32 = _FNV
                for k in range(at, at + size):
                    h32 = _hashed(h32, text[k])
                h32 &= _32_BITS
                word_hash = np.int32(h32)
                entry = find_word(net, text, at, size, h32)
                count, row = np.int64(0), np.int64(0)
                label = size > 8 and k0 == _LABEL and text[at + 8] == _LABEL_END
                if entry >= net.n_words or (entry < 0 and label):
                    count = np.int64(_NO_WORD)
                elif plain:
                    if entry >= 0:
                        count, row = np.int64(1), entry
                else:
                    word_sum[:] = 0
                    asked = np.int64(0)
                    if entry >= 0:
                        ids[0] = entry
                        asked = np.int64(1)
                    spelled[0] = _LESS
                    for k in range(size):
                        spelled[1 + k] = text[at + k]
                    spelled[1 + size] = _GREATER
                    i = np.int64(0)
                    while i < size + 2:
                        h32 = _FNV
                        j = i
                        n = np.int64(1)
                        while j < size + 2 and n <= net.maxn:
                            h32 = _hashed(h32, spelled[j])
                            j += 1
                            while j < size + 2 and (spelled[j] & 0xC0) == 0x80:
                                h32 = _hashed(h32, spelled[j])
                                j += 1
                            if n >= net.minn and not (n == 1 and (i == 0 or j == size + 2)):
                                bucket = times_high((h32 & _32_BITS) * net.inverse, _U(net.bucket))
                                place, has = _place(net, bucket)
                                if asked == room:
                                    _add_all_rows(net, ids, asked, word_sum)
                                    count += asked
                                    asked = np.int64(0)
                                ids[asked] = net.n_words + place
                                asked += has
                            n += 1
                        i += 1
                        while i < size + 2 and (spelled[i] & 0xC0) == 0x80:
                            i += 1
                    _add_rows(net, ids, asked, word_sum)
                    count += asked
                    for j in range(net.dim):
                        into[j] += word_sum[j]
                if size <= BLOCK:
                    # ---- remember it, in place of one not used lately
                    used = memo.used[group]
                    way = 0
                    while way < WAYS and (used >> way) & 1:
                        way += 1
                    if way == WAYS:
                        way = np.int64(h & _U(WAYS - 1))
                        used = np.uint8(0)
                    memo.used[group] = used | np.uint8(1 << way)
                    memo.tags[group * WAYS + way] = np.uint32(h & _32_BITS) | np.uint32(1)
                    slot = (group * WAYS + way) * memo.stride
                    for k in range(4):
                        memo.slots[slot + k] = words[w, k]
                    memo.slots[slot + 4] = (_U(count + 1) << _U(32)) | _U(np.uint32(word_hash))
                    memo.slots[slot + 5] = _U(row)
                    if not plain:
                        for j in range(net.dim):
                            memo.floats[(slot + HEADER) * 2 + j] = word_sum[j]
            if count != _NO_WORD:
                n_rows += count
                if plain and count > 0:
                    if n_ids == room:
                        _add_all_rows(net, ids, n_ids, into)
                        n_ids = np.int64(0)
                    ids[n_ids] = row
                    n_ids += 1
                if net.ngrams > 1:
                    scratch.hashes[n_hashes] = word_hash
                    n_hashes += 1

    # ---- the newline that ends the line
    _add_all_rows(net, ids, n_ids, into)
    n_ids = np.int64(0)
    if net.eos >= 0:
        ids[0] = net.eos
        _add_all_rows(net, ids, 1, into)
        n_rows += 1

    # ---- word n-grams
    if net.ngrams > 1:
        h32 = _FNV
        for k in range(4):
            h32 = _hashed(h32, _EOS >> _U(8 * k))
        scratch.hashes[n_hashes] = np.int32(h32 & _32_BITS)
        n_hashes += 1
        for i in range(n_hashes):
            chain = _U(np.int64(scratch.hashes[i]))
            for j in range(i + 1, min(n_hashes, i + net.ngrams)):
                chain = chain * _NGRAM_PRIME + _U(np.int64(scratch.hashes[j]))
                place, has = _place(net, chain % _U(net.bucket))
                if n_ids == room:
                    _add_all_rows(net, ids, n_ids, into)
                    n_ids = np.int64(0)
                ids[n_ids] = net.n_words + place
                n_ids += has
                n_rows += has
        _add_all_rows(net, ids, n_ids, into)
    return n_rows


# --------------------------------------------------------------------------------------------- probabilities


@njit(cache=True, nogil=True, inline="always")
def _log(x):
    return _F(np.log(np.float64(x) + _TINY))


@njit(cache=True, nogil=True, inline="always")
def _right(out, hidden, node):
    """Probability of the right child of an inner node."""
    f = _F(0)
    for j in range(len(hidden)):
        f += out.rows[node, j] * hidden[j]
    return _F(1.0 / np.float64(_F(1) + np.exp(-(f * out.norms[node]))))


@njit(cache=True, nogil=True)
def _best_leaf(out, hidden, stack, scores):
    """(label, log probability) of the best leaf of the Huffman tree, or -1. The likelier child is visited
    first, a branch that is already worse than the best leaf not at all."""
    n = len(out.left) + 1
    best, best_score = np.int64(-1), _F(0)
    stack[0] = 2 * n - 2
    scores[0] = 0
    height = 1
    while height:
        height -= 1
        node, score = np.int64(stack[height]), scores[height]
        if score < _FLOOR or (best >= 0 and score < best_score):
            continue
        if node < n:
            best, best_score = node, score
            continue
        f = _right(out, hidden, node - n)
        left, right = score + _log(1.0 - np.float64(f)), score + _log(f)
        swap = left > right
        stack[height + swap] = out.left[node - n]
        scores[height + swap] = left
        stack[height + (not swap)] = out.right[node - n]
        scores[height + (not swap)] = right
        height += 2
    return best, best_score


@njit(cache=True, nogil=True)
def _flat(out, hidden, scores):
    """scores[:] = probability of each label, for losses without a tree."""
    n = len(out.norms)
    for k in range(n):
        scores[k] = 0
    for j in range(len(hidden)):
        h = hidden[j]
        for k in range(n):
            scores[k] += out.columns[j, k] * h
    if out.loss == SOFTMAX:
        most = scores[0] * out.norms[0]
        for k in range(n):
            scores[k] *= out.norms[k]
            most = max(most, scores[k])
        total = _F(0)
        for k in range(n):
            scores[k] = np.exp(scores[k] - most)
            total += scores[k]
        for k in range(n):
            scores[k] /= total
    else:
        for k in range(n):
            x = scores[k] * out.norms[k]
            if x < _F(-8):
                scores[k] = 0
            elif x > _F(8):
                scores[k] = 1
            else:
                scores[k] = out.sigmoid[np.int64((x + _F(8)) * _F(512) / _F(8) / _F(2))]


@njit(cache=True, nogil=True)
def _mean(hidden, n):
    scale = _F(1.0 / n)
    for j in range(len(hidden)):
        hidden[j] *= scale


# ------------------------------------------------------------------------------------------------- documents


@njit(cache=True, nogil=True, inline="always")
def _is_space(cp):
    """As str.isspace."""
    return (
        cp == 0x20
        or (0x09 <= cp <= 0x0D)
        or (0x1C <= cp <= 0x1F)
        or cp == 0x85
        or cp == 0xA0
        or cp == 0x1680
        or (0x2000 <= cp <= 0x200A)
        or cp == 0x2028
        or cp == 0x2029
        or cp == 0x202F
        or cp == 0x205F
        or cp == 0x3000
    )


@njit(cache=True, nogil=True, inline="always")
def _character(data, at, end):
    b1 = data[at + 1] if at + 1 < end else np.uint8(0)
    b2 = data[at + 2] if at + 2 < end else np.uint8(0)
    b3 = data[at + 3] if at + 3 < end else np.uint8(0)
    return decode(data[at], b1, b2, b3)


@njit(cache=True, nogil=True)
def _blank(data, at, end):
    """Nothing but white space?"""
    while at < end:
        cp, size = _character(data, at, end)
        if not _is_space(cp):
            return False
        at += size
    return True


@njit(cache=True, nogil=True)
def _cut(data, at, end, max_chars):
    """End of the first max_chars characters of data[at:end]; `data` has BLOCK bytes more."""
    left = max_chars
    while at < end:
        found = starts(data, at)
        n = ones(found)
        if n > left:
            for _ in range(left):
                found &= found - _U(1)
            return min(end, at + trailing_zeros(found))
        left -= n
        at += BLOCK
    return end


@njit(cache=True, nogil=True)
def _without_newlines(data, at, end, pad):
    """Copy data[at:end] to pad, newlines left out; `data` may end at `end`. Returns the length."""
    n = 0
    for k in range(at, end):
        pad[n] = data[k]
        n += data[k] != 10
    return n


@njit(cache=True, nogil=True)
def top(net, out, memo, data, offsets, max_chars, glue, longest, labels, chances, cut):
    """Per text: most likely label (-1: none, as for blank text), its probability, whether it was cut.

    max_chars: characters read (0: all). glue: newlines are left out; else they part words. longest: bytes.
    """
    hidden, scratch = np.empty(net.dim, _F), _scratch(net, longest)
    pad = np.zeros(longest + BLOCK, np.uint8)
    n_labels = len(out.norms)
    scores, stack = np.empty(n_labels + 1, _F), np.empty(n_labels + 1, np.int32)
    for row in range(len(labels)):
        labels[row] = -1
        chances[row] = 0
        start, end = offsets[row], offsets[row + 1]
        stop = min(end, start + longest)
        text = data
        if stop + BLOCK > len(data):  # the kernel reads whole blocks: give it room
            for k in range(stop - start):
                pad[k] = data[start + k]
            text = pad
            end -= start
            stop -= start
            start = start * 0
        if max_chars > 0:
            stop = _cut(text, start, stop, max_chars)
        cut[row] = stop < end
        if _blank(text, start, stop):
            continue
        if glue:
            stop = _without_newlines(text, start, stop, pad)
            text = pad
            start = start * 0
        n = sum_rows(net, memo, scratch, text, start, stop, hidden)
        if n == 0:
            continue
        _mean(hidden, n)
        if out.loss == HS:
            best, score = _best_leaf(out, hidden, stack, scores)
        else:
            _flat(out, hidden, scores)
            best = np.int64(0)
            for k in range(1, n_labels):
                if scores[k] >= scores[best]:  # of equals fastText gives the last
                    best = np.int64(k)
            score = _log(scores[best])
        if best >= 0:
            labels[row] = best
            chances[row] = np.exp(score)


@njit(cache=True, nogil=True)
def probability(net, out, memo, data, offsets, label, path, turns, chunk_words, longest, chances):
    """Per text: probability of a label, at most 1; 0 for blank text. Newlines part words.

    chunk_words > 0: the mean over chunks of so many white-space words. path, turns: inner nodes of the
    Huffman tree from the root to the label, and whether it is to the right.
    """
    hidden, scratch = np.empty(net.dim, _F), _scratch(net, longest)
    pad = np.zeros(longest + BLOCK, np.uint8)
    scores = np.empty(len(out.norms), _F)
    for row in range(len(chances)):
        chances[row] = 0
        start, end = offsets[row], offsets[row + 1]
        if _blank(data, start, end):
            continue
        text = data
        if chunk_words > 0 or end + BLOCK > len(data):
            text = pad
        total = 0.0
        n_chunks = 0
        at = start
        while at < end:
            # ---- the next chunk: text[first:last]
            if chunk_words == 0:
                first, last = start, end
                if end + BLOCK > len(data):
                    for k in range(end - start):
                        pad[k] = data[start + k]
                    first, last = start * 0, end - start
                at = end
            else:
                first, last = start * 0, start * 0
                words = 0
                inside = False
                while at < end:
                    cp, size = _character(data, at, end)
                    if _is_space(cp):
                        pad[last] = 32
                        last += 1
                        inside = False
                    else:
                        if not inside:
                            if words == chunk_words:
                                break
                            words += 1
                            inside = True
                        for k in range(size):
                            pad[last] = data[at + k]
                            last += 1
                    at += size
                if words == 0:
                    break
            n = sum_rows(net, memo, scratch, text, first, last, hidden)
            n_chunks += 1
            if n == 0:
                continue
            _mean(hidden, n)
            if out.loss == HS:
                score = _F(0)
                for k in range(len(path)):
                    if score < _FLOOR:
                        break
                    f = _right(out, hidden, path[k])
                    score += _log(f) if turns[k] else _log(1.0 - np.float64(f))
                chance = _F(0) if score < _FLOOR else np.exp(score)
            else:
                _flat(out, hidden, scores)
                chance = np.exp(_log(scores[label]))
            total += min(1.0, np.float64(chance))
        if n_chunks:
            chances[row] = total / n_chunks
