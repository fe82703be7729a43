"""Compiled Aho–Corasick (Aho and Corasick 1975): trie, failure links, and one pass over UTF-8 buffers.

States are numbered breadth first, so the shallow states, where a scan spends its time, come first: the
first ``n_dense`` of them have a full row of next states (failures resolved), the deeper ones keep their few
children in a hash table and fall back along failure links. A small list is dense altogether.

Bytes are read through ``columns``: bytes that no pattern holds share column 0, upper-case ASCII has the
column of its lower case, and SKIP marks bytes that are taken out.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.codepoints import KIND, SOLID, WORD
from filters.text.hash_kernels import STEP, U
from filters.text.utf8_kernels import char_at, copy, encode

SKIP = 255


@njit(cache=True, nogil=True)
def lower_case(data, start, end, unicode_too, pages, shifts, out, at):
    """Write ``data[start:end]`` in lower case to ``out[at:]``; where it ends. Malformed bytes stay."""
    i = start
    while i < end:
        b = data[i]
        if b < 0x80 or not unicode_too:
            out[at] = b + 32 if b >= 65 and b <= 90 else b
            at += 1
            i += 1
            continue
        cp, size = char_at(data, i, end)
        if size == 1:  # malformed
            out[at] = b
            at += 1
        else:
            packed, n = encode(cp + shifts[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
            for k in range(n):
                out[at + k] = (packed >> (8 * k)) & 255
            at += n
        i += size
    return at


@njit(cache=True, nogil=True)
def normalise(data, offsets, delete, lower, unicode_too, pages, shifts, out, out_offsets):
    """Every string without the bytes marked in ``delete`` (bool[256]), in lower case if ``lower``."""
    at = np.int64(0)
    out_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        begin = at
        if lower:
            at = lower_case(data, offsets[row], offsets[row + 1], unicode_too, pages, shifts, out, at)
        else:
            at = copy(data, offsets[row], offsets[row + 1], out, at)
        kept = begin
        for i in range(begin, at):
            if not delete[out[i]]:
                out[kept] = out[i]
                kept += 1
        at = kept
        out_offsets[row + 1] = at


@njit(cache=True, nogil=True)
def trie(data, offsets, columns, keys, values, shift, parent, column, depth, out):
    """Insert the patterns; the state each ends in. ``out[state]``: the first pattern that ends there, or -1.

    ``keys``/``values``: open-addressing table (0: empty) from state and column to the next state.
    """
    n = offsets.shape[0] - 1
    mask = np.int64(keys.shape[0] - 1)
    states = np.int64(1)
    out[0] = -1
    ends = np.empty(n, np.int32)
    for p in range(n):
        s = np.int64(0)
        for i in range(offsets[p], offsets[p + 1]):
            c = np.int64(columns[data[i]])
            key = U((s << 8) | c)
            slot = np.int64((key * STEP) >> shift)
            while keys[slot] != 0 and keys[slot] != key:
                slot = (slot + 1) & mask
            if keys[slot] == 0:
                keys[slot] = key
                values[slot] = states
                parent[states] = s
                column[states] = c
                depth[states] = depth[s] + 1
                out[states] = -1
                states += 1
            s = np.int64(values[slot])
        if out[s] < 0:
            out[s] = p
        ends[p] = s
    return states, ends


@njit(cache=True, nogil=True)
def link_up(order, parent, column, out, keys, values, shift, fail, link):
    """Failure and output links of every state, breadth first. States here are insertion numbers; ``order``
    lists them by depth. ``link[s]``: the nearest state along failures, s first, where a pattern ends."""
    mask = np.int64(keys.shape[0] - 1)
    fail[0] = 0
    link[0] = 0
    for at in range(1, order.shape[0]):
        s = np.int64(order[at])
        c = np.int64(column[s])
        p = np.int64(parent[s])
        found = np.int64(0)
        while p != 0 and found == 0:
            p = np.int64(fail[p])
            key = U((p << 8) | c)
            slot = np.int64((key * STEP) >> shift)
            while keys[slot] != 0 and keys[slot] != key:
                slot = (slot + 1) & mask
            if keys[slot] != 0:
                found = np.int64(values[slot])
        fail[s] = found
        link[s] = s if out[s] >= 0 else link[found]


@njit(cache=True, nogil=True)
def fill_dense(parent, column, depth, fail, n_dense, width_shift, dense):
    """Full rows of the first ``n_dense`` states (breadth-first numbers), one level after the other: a failure
    is always of a lower level, whose rows are complete."""
    states = parent.shape[0]
    width = np.int64(1) << width_shift
    copied = np.int64(0)
    child = np.int64(1)
    while copied < n_dense:
        level = depth[copied]
        while copied < n_dense and depth[copied] == level:
            if copied > 0:
                here, there = copied << width_shift, np.int64(fail[copied]) << width_shift
                for k in range(width):
                    dense[here + k] = dense[there + k]
            copied += 1
        while child < states and depth[child] == level + 1:
            if parent[child] < n_dense:
                dense[(np.int64(parent[child]) << width_shift) | np.int64(column[child])] = child
            child += 1


@njit(cache=True, nogil=True)
def fill_sparse(parent, column, n_dense, keys, values, shift):
    """Children of the states that have no row."""
    mask = np.int64(keys.shape[0] - 1)
    for t in range(1, parent.shape[0]):
        if parent[t] >= n_dense:
            key = U((np.int64(parent[t]) << 8) | np.int64(column[t]))
            slot = np.int64((key * STEP) >> shift)
            while keys[slot] != 0:
                slot = (slot + 1) & mask
            keys[slot] = key
            values[slot] = t


@njit(cache=True, nogil=True)
def count(
    data,
    offsets,
    columns,
    wordly,
    decoded,
    lowered,
    alone,
    pages,
    shifts,
    class_pages,
    classes,
    dense,
    n_dense,
    width_shift,
    keys,
    values,
    shift,
    fail,
    link,
    out,
    length,
    groups,
    counts,
    first,
):
    """Distinct patterns per row and group, and the one that ended first.

    ``wordly`` (bool[256]): ASCII bytes that are word characters (all False unless ``alone``). ``decoded``:
    characters past ASCII are decoded (to lower-case them, or to tell whether they belong to words).
    ``alone``: a pattern counts only where no word character touches it. ``groups[pattern]``: bits of the
    groups it is in. ``counts``, ``first``: int32[groups, rows], given as 0 and -1.

    A match is looked at when the character after it is read, which is when it is known to stand alone.
    """
    n_groups = counts.shape[0]
    mask = np.int64(keys.shape[0] - 1)
    longest = np.int64(1)
    for k in range(length.shape[0]):
        longest = max(longest, np.int64(length[k]))
    room = np.int64(8)
    while room < longest + 8:
        room *= 2
    ring = room - 1
    before = np.zeros(room, np.bool_)  # whether the character that ends at this emitted byte is of a word
    stamps = np.full(length.shape[0], -1, np.int64)
    for row in range(offsets.shape[0] - 1):
        i = offsets[row]
        end = offsets[row + 1]
        s = np.int64(0)
        p = np.int64(0)  # bytes read by the automaton
        before[0] = False
        while True:
            packed = np.int64(-1)
            size = np.int64(1)
            n_bytes = np.int64(1)
            word = False
            c = np.int64(0)
            if i < end:
                b = data[i]
                if b < 0x80 or not decoded:
                    c = np.int64(columns[b])
                    if c == SKIP:
                        i += 1
                        continue
                    word = wordly[b]
                else:
                    cp, size = char_at(data, i, end)
                    if size == 1:  # malformed
                        packed = np.int64(b)
                    else:
                        if alone:
                            kind = np.int64(classes[(np.int64(class_pages[cp >> 8]) << 8) | (cp & 255)])
                            word = (kind & SOLID) != 0 or (kind & KIND) == WORD
                        if lowered:
                            cp += shifts[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]
                        packed, n_bytes = encode(cp)
            if not word:
                t = np.int64(link[s])
                while t > 0:
                    k = np.int64(out[t])
                    if stamps[k] != row and not (alone and before[(p - np.int64(length[k])) & ring]):
                        stamps[k] = row
                        for g in range(n_groups):
                            if (groups[k] >> g) & 1:
                                counts[g, row] += 1
                                if first[g, row] < 0:
                                    first[g, row] = k
                    t = np.int64(link[fail[t]])
            if i >= end:
                break
            i += size
            for k in range(n_bytes):
                if packed >= 0:
                    c = np.int64(columns[(packed >> (8 * k)) & 255])
                    if c == SKIP:
                        continue
                # the next state: a helper here would cost a reference count of each array per byte
                if s >= n_dense:
                    while s >= n_dense:
                        key = U((s << 8) | c)
                        slot = np.int64((key * STEP) >> shift)
                        while keys[slot] != 0 and keys[slot] != key:
                            slot = (slot + 1) & mask
                        if keys[slot] != 0:
                            s = np.int64(values[slot])
                            break
                        s = np.int64(fail[s])
                        if s < n_dense:
                            s = np.int64(dense[(s << width_shift) | c])
                            break
                else:
                    s = np.int64(dense[(s << width_shift) | c])
                p += 1
                if alone:
                    before[p & ring] = word
