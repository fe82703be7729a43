"""Compiled search for personal data in UTF-8 buffers: e-mail and IPv4 addresses are found here; of IPv6
addresses and phone numbers only the places worth a look, which ``pii`` judges one by one.

Every byte is looked at once; a byte that is neither '@', ':' nor a digit costs one table look-up.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.codepoints import EXTEND, KIND, SOLID
from filters.text.utf8_kernels import char_at, copy

EMAIL, IPV6, IPV4, PHONE = range(4)  # of places that overlap, the first goes

_DOT, _DASH, _AT, _COLON, _PLUS, _OPEN, _CLOSE = 0x2E, 0x2D, 0x40, 0x3A, 0x2B, 0x28, 0x29


def byte_classes() -> np.ndarray:
    """uint8[256]: bits of what an ASCII byte can be part of."""
    out = np.zeros(256, np.uint8)
    out[[*range(48, 58)]] |= DIGIT
    out[[*range(48, 58), *range(65, 91), *range(97, 123)]] |= ALNUM | ATEXT
    out[[ord(char) for char in "!#$%&'*+/=?^_`{|}~-"]] |= ATEXT
    out[[*range(48, 58), *range(65, 71), *range(97, 103)]] |= HEX
    out[[*range(48, 58), ord("@"), ord(":")]] |= TRIGGER
    out[[ord(char) for char in " ./-()"]] |= JOINT
    return out


DIGIT, ALNUM, ATEXT, HEX, TRIGGER, JOINT = (1 << bit for bit in range(6))


@njit(cache=True, nogil=True)
def _latin(b, c):
    """Whether these two bytes are a Latin letter past ASCII (U+00C0 … U+024F)."""
    if b < 0xC3 or b > 0xC9 or (c & 0xC0) != 0x80:
        return False
    return not (b == 0xC3 and (c == 0x97 or c == 0xB7))  # × ÷


@njit(cache=True, nogil=True)
def _quad(data, i, end):
    """(end, value) of the dotted IPv4 address that starts at i, or (-1, 0). No leading zeros."""
    value = np.int64(0)
    for part in range(4):
        if part:
            if i >= end or data[i] != _DOT:
                return np.int64(-1), np.int64(0)
            i += 1
        number = np.int64(0)
        first = i
        while i < end and data[i] >= 48 and data[i] <= 57 and i - first < 4:
            number = number * 10 + data[i] - 48
            i += 1
        size = i - first
        if size == 0 or size > 3 or number > 255 or (size > 1 and data[first] == 48):
            return np.int64(-1), np.int64(0)
        value = value * 256 + number
    return np.int64(i), value


@njit(cache=True, nogil=True)
def public(value, networks):
    """Whether an IPv4 address is in none of ``networks`` (first, last)."""
    for k in range(networks.shape[0]):  # noqa: SIM110 (no generators in compiled code)
        if value >= networks[k, 0] and value <= networks[k, 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def find(
    data,
    offsets,
    from_row,
    emails,
    ips,
    phones,
    kinds_of,
    networks,
    pages,
    classes,
    rows,
    starts,
    ends,
    kinds,
):
    """Places found, appended from 0: (how many, the first row that had no room for its places)."""
    room = rows.shape[0]
    n = np.int64(0)
    n_rows = offsets.shape[0] - 1
    for row in range(from_row, n_rows):
        row_first = n
        begin = np.int64(offsets[row])
        end = np.int64(offsets[row + 1])
        email_until = begin
        i = begin
        while i < end:
            b = data[i]
            kind = kinds_of[b]
            if not kind & TRIGGER:
                i += 1
                continue
            if n + 3 > room:
                return row_first, np.int64(row)

            if b == _AT:
                if emails and i > email_until and data[i - 1] != _DOT:
                    # the local part: atoms parted by single dots, back from the '@'
                    q = i
                    while q > email_until:
                        before = data[q - 1]
                        if kinds_of[before] & ATEXT or (before == _DOT and data[q] != _DOT):
                            q -= 1
                        elif before >= 0x80 and q - 1 > email_until and _latin(data[q - 2], before):
                            q -= 2
                        else:
                            break
                    if data[q] == _DOT:
                        q += 1
                    # it starts where a word starts or ends; next to a letter of another script, too
                    word_before = False
                    letter_before = False
                    if q > begin and data[q - 1] < 0x80:
                        word_before = (kinds_of[data[q - 1]] & ALNUM) != 0 or data[q - 1] == 0x5F
                    elif q > begin:
                        k = q - 1
                        while k > begin and q - k < 4 and (data[k] & 0xC0) == 0x80:
                            k -= 1
                        cp, _ = char_at(data, k, q)
                        c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
                        letter_before = (c & SOLID) != 0
                        word_before = letter_before and (c & KIND) != EXTEND
                    s = q
                    while s < i:
                        here = data[s]
                        word = (kinds_of[here] & ALNUM) != 0 or here == 0x5F or here >= 0x80
                        if here != _DOT and (word != word_before or (word and letter_before)):
                            break
                        word_before = word
                        letter_before = False
                        s += 2 if here >= 0x80 else 1
                    # the domain: two labels or more, the last of ASCII; or an address in brackets
                    stop = np.int64(-1)
                    if s < i:
                        k = i + 1
                        if k < end and data[k] == 0x5B:
                            k, _ = _quad(data, k + 1, end)
                            if k > 0 and k < end and data[k] == 0x5D:
                                stop = k + 1
                        else:
                            labels = 0
                            while k < end:
                                first = k
                                plain = np.int64(-1)  # where the ASCII part ends
                                while k < end:
                                    if kinds_of[data[k]] & ALNUM or (data[k] == _DASH and k > first):
                                        k += 1
                                    elif data[k] >= 0x80 and k + 1 < end and _latin(data[k], data[k + 1]):
                                        if plain < 0:
                                            plain = k
                                        k += 2
                                    else:
                                        break
                                if plain < 0:
                                    plain = k
                                if labels >= 1:
                                    last = plain
                                    while last > first and data[last - 1] == _DASH:
                                        last -= 1
                                    if last > first:
                                        stop = last
                                if k == first or k >= end or data[k] != _DOT or data[k - 1] == _DASH:
                                    break
                                labels += 1
                                k += 1
                    if stop > 0:
                        rows[n], starts[n], ends[n], kinds[n] = row, s, stop, EMAIL
                        n += 1
                        email_until = stop
                i += 1
                continue

            if b == _COLON:
                # IPv6 of the global range: a first group of four digits that starts with 2 or 3
                if ips and i - begin >= 4 and (data[i - 4] == 0x32 or data[i - 4] == 0x33):
                    fit = (kinds_of[data[i - 3]] & kinds_of[data[i - 2]] & kinds_of[data[i - 1]] & HEX) != 0
                    if fit and i - 4 > begin:
                        before = data[i - 5]
                        fit = not (kinds_of[before] & ALNUM or before in (_COLON, _DOT, 0x5F))
                    if fit:
                        k = i
                        colons = 0
                        while k < end and k - i < 64:
                            if data[k] == _COLON:
                                colons += 1
                            elif not (kinds_of[data[k]] & HEX or data[k] == _DOT):
                                break
                            k += 1
                        alone = k >= end or not (kinds_of[data[k]] & ALNUM or data[k] == 0x5F)
                        if colons >= 2 and alone:
                            rows[n], starts[n], ends[n], kinds[n] = row, i - 4, k, IPV6
                            n += 1
                i += 1
                continue

            # a digit
            before = data[i - 1] if i > begin else np.uint8(0x20)
            if kinds_of[before] & DIGIT:
                i += 1
                continue
            if ips and not (kinds_of[before] & ALNUM or before == 0x5F):
                below = data[i - 2] if i - 1 > begin else np.uint8(0x20)
                if not (before == _DOT and kinds_of[below] & DIGIT):
                    stop, value = _quad(data, i, end)
                    if stop > 0:
                        after = data[stop] if stop < end else np.uint8(0x20)
                        later = data[stop + 1] if stop + 1 < end else np.uint8(0x20)
                        alone = not (kinds_of[after] & ALNUM or after == 0x5F)
                        alone = alone and not (after == _DOT and kinds_of[later] & DIGIT)
                        if alone and public(value, networks):
                            rows[n], starts[n], ends[n], kinds[n] = row, i, stop, IPV4
                            n += 1
            if phones:
                # what a number may start with: '+', a bracket, or the right first group
                bracket = before == _OPEN
                start = i - 1 if bracket else i
                sign = data[start - 1] if start > begin else np.uint8(0x20)
                plus = sign == _PLUS
                if plus:
                    start -= 1
                    sign = data[start - 1] if start > begin else np.uint8(0x20)
                    fit = not (kinds_of[sign] & ALNUM or sign == 0x5F or sign == _PLUS)
                else:
                    size = np.int64(1)
                    while i + size < end and kinds_of[data[i + size]] & DIGIT and size < 6:
                        size += 1
                    if b == 0x30:
                        fit = size >= 2 and size <= 5 and data[i + 1] != 0x30
                    elif b == 0x31:
                        fit = size == 1 or size == 3
                    else:
                        fit = size == 3
                    # part of a longer number: not asked of what stands in brackets
                    if fit and not bracket:
                        fit = not (kinds_of[sign] & ALNUM or sign in (0x5F, 0x23, 0x24, _DASH))
                        if fit and sign in (_DOT, 0x2C, _COLON, 0x2F) and start - 2 >= begin:
                            fit = not kinds_of[data[start - 2]] & DIGIT
                if fit:  # eight digits or more, near enough to each other
                    digits = np.int64(0)
                    gap = 0
                    k = i
                    while k < end and digits < 8:
                        here = data[k]
                        if kinds_of[here] & DIGIT:
                            digits += 1
                            gap = 0
                            k += 1
                        elif kinds_of[here] & JOINT and gap < 3:
                            gap += 1
                            k += 1
                        elif here == 0xC2 and k + 1 < end and data[k + 1] == 0xA0 and gap < 3:
                            gap += 1
                            k += 2
                        else:
                            break
                    if digits == 8:
                        rows[n], starts[n], ends[n], kinds[n] = row, start, k, PHONE
                        n += 1
                        if bracket and not plus:  # (020) 7946 0958, but also (020 7946 0958)
                            rows[n], starts[n], ends[n], kinds[n] = row, i, k, PHONE
                            n += 1
            i += 1
    return n, np.int64(n_rows)


@njit(cache=True, nogil=True)
def settle(rows, starts, ends, kinds, keep):
    """Of overlapping places (sorted by row and start) keep the one whose kind comes first."""
    last = np.int64(-1)
    for k in range(rows.shape[0]):
        keep[k] = True
        if last >= 0 and rows[k] == rows[last] and starts[k] < ends[last]:
            if kinds[k] < kinds[last]:
                keep[last] = False
                last = k
            else:
                keep[k] = False
        else:
            last = k


@njit(cache=True, nogil=True)
def replace(
    data, offsets, rows, starts, ends, kinds, texts, text_offsets, first_of, many_of, out, out_offsets
):
    """Every string with its places replaced. The replacements of a kind (``many_of`` texts from ``first_of``)
    take turns within a row."""
    at = np.int64(0)
    k = np.int64(0)
    turn = np.zeros(first_of.shape[0], np.int64)
    out_offsets[0] = 0
    for row in range(offsets.shape[0] - 1):
        i = np.int64(offsets[row])
        if k < rows.shape[0] and rows[k] == row:
            turn[:] = 0
        while k < rows.shape[0] and rows[k] == row:
            at = copy(data, i, np.int64(starts[k]), out, at)
            kind = kinds[k]
            text = first_of[kind] + turn[kind] % many_of[kind]
            turn[kind] += 1
            at = copy(texts, text_offsets[text], text_offsets[text + 1], out, at)
            i = np.int64(ends[k])
            k += 1
        at = copy(data, i, offsets[row + 1], out, at)
        out_offsets[row + 1] = at
