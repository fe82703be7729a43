"""Compiled passes that edit text: URLs, runs of newlines, lines. From UTF-8 buffers to UTF-8 buffers.

Each takes a column (``data`` uint8, ``offsets`` int64[n + 1]), writes the edited documents one after another
into ``out`` (as long as ``data``; no edit makes text longer) and their ends into ``out_offsets``. Readable
oracles: ``tests/filters/oracle_dclm.py``.
"""

# ruff: noqa: SIM102, SIM109 (written as the compiler reads them: few tests a byte)
from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.dclm.classes import ALNUM, DECIMAL, DIGIT, GAP, SPACE, UPPER
from filters.text.hash_kernels import PRIME, SEED, U
from filters.text.utf8_kernels import char_at, copy, longest_of

_DOT, _COLON, _SLASH, _AT, _NEWLINE = 0x2E, 0x3A, 0x2F, 0x40, 0x0A

# What a byte may be part of, in a URL. NAME and REST are the character classes of DCLM's URL rule.
NAME, REST, LETTER_OR_DIGIT, HOST = 1, 2, 4, 8
URL_BYTES = np.zeros(256, np.uint8)
for _char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789":
    URL_BYTES[ord(_char)] = NAME | REST | LETTER_OR_DIGIT | HOST
for _char in "-@:%._+~#=":
    URL_BYTES[ord(_char)] |= NAME | REST
for _char in "()?&/":
    URL_BYTES[ord(_char)] |= REST
for _char in "-_.@%+~":
    URL_BYTES[ord(_char)] |= HOST

# Kinds of top-level domain in the table of hashes.
PLAIN, WORDLIKE = 1, 2


@njit(cache=True, nogil=True)
def _lookup(table, kinds, key):
    mask = table.shape[0] - 1
    slot = np.int64(key) & mask
    while kinds[slot] != 0:
        if table[slot] == key:
            return np.int64(kinds[slot])
        slot = (slot + 1) & mask
    return np.int64(0)


@njit(cache=True, nogil=True)
def _class_at(data, i, end, pages, classes):
    cp, _ = char_at(data, i, end)
    if cp < 0:
        return np.int64(0)
    return np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])


@njit(cache=True, nogil=True)
def _before(data, i, start):
    """First byte of the character that ends at byte ``i`` (``i`` > ``start``)."""
    i -= 1
    while i > start and (data[i] & 0xC0) == 0x80:
        i -= 1
    return i


@njit(cache=True, nogil=True)
def _is_word(data, i, end, pages, classes):
    """Is the character at byte ``i`` what a regular expression calls a word character?"""
    return i < end and (data[i] == 0x5F or (_class_at(data, i, end, pages, classes) & ALNUM) != 0)


@njit(cache=True, nogil=True)
def _scheme_start(data, start, at):
    """First byte of 'http://', 'https://' or 'ftp://' (any case) that ends at byte ``at``; -1 for none."""
    if at - start < 6 or data[at - 1] != _SLASH or data[at - 2] != _SLASH or data[at - 3] != _COLON:
        return np.int64(-1)
    i = at - 3
    if (data[i - 3] | 0x20) == 0x66 and (data[i - 2] | 0x20) == 0x74 and (data[i - 1] | 0x20) == 0x70:
        return np.int64(i - 3)
    if i - start >= 5 and (data[i - 1] | 0x20) == 0x73:
        i -= 1
    if i - start < 4:
        return np.int64(-1)
    if (data[i - 4] | 0x20) == 0x68 and (data[i - 3] | 0x20) == 0x74:
        if (data[i - 2] | 0x20) == 0x74 and (data[i - 1] | 0x20) == 0x70:
            return np.int64(i - 4)
    return np.int64(-1)


# -------------------------------------------------------------------------------------- URLs, Winnow's rule


@njit(cache=True, nogil=True)
def _url_end(data, i, end, url):
    """End of the run of URL characters from byte ``i``, closing punctuation of the sentence left out."""
    first = i
    opened = np.int64(0)
    while i < end and (url[data[i]] & REST) != 0:
        opened += (data[i] == 0x28) - (data[i] == 0x29)
        i += 1
    while i > first:
        b = data[i - 1]
        if b == 0x29 and opened < 0:
            opened += 1
        elif not (b == _DOT or b == _COLON or b == 0x3F):
            break
        i -= 1
    return i


@njit(cache=True, nogil=True)
def _is_address(data, start, end):
    """Four numbers of at most 255 with points between."""
    groups = np.int64(0)
    i = start
    while i < end:
        value = np.int64(0)
        first = i
        while i < end and data[i] >= 0x30 and data[i] <= 0x39 and i - first < 4:
            value = value * 10 + (data[i] - 0x30)
            i += 1
        if i == first or i - first > 3 or value > 255:
            return False
        groups += 1
        if i < end:
            if data[i] != _DOT or i + 1 == end:
                return False
            i += 1
    return groups == 4


@njit(cache=True, nogil=True)
def _host_end(data, at, start, end, url, tlds, kinds):
    """End of a bare host name, e-mail address or IPv4 address around the point at byte ``at``, and its first
    byte; (-1, -1) when it is none. The next byte to look at, where it is none, is the end of the run."""
    first = at
    while first > start and (url[data[first - 1]] & HOST) != 0 and at - first < 256:
        first -= 1
    last = at
    while last < end and (url[data[last]] & HOST) != 0:
        last += 1
    run_end = last
    if first > start and data[first - 1] == _SLASH:  # the name of a file, not of a host
        return np.int64(-1), np.int64(-1), run_end
    while first < at and (url[data[first]] & LETTER_OR_DIGIT) == 0:
        first += 1
    while last > at and (url[data[last - 1]] & LETTER_OR_DIGIT) == 0:
        last -= 1
    if first == at or last <= at + 1:
        return np.int64(-1), np.int64(-1), run_end
    if _is_address(data, first, last):
        return first, last, run_end
    point = last - 1
    while data[point] != _DOT:
        point -= 1
    if point == first or (url[data[point - 1]] & LETTER_OR_DIGIT) == 0:
        return np.int64(-1), np.int64(-1), run_end
    # the name after the last point: all in one case
    key = SEED
    upper = np.int64(0)
    lower = np.int64(0)
    for i in range(point + 1, last):
        b = data[i]
        if b >= 0x41 and b <= 0x5A:
            upper += 1
            b |= 0x20
        elif b >= 0x61 and b <= 0x7A:
            lower += 1
        key = (key ^ U(b)) * PRIME
    if upper > 0 and lower > 0:
        return np.int64(-1), np.int64(-1), run_end
    kind = _lookup(tlds, kinds, key)
    if kind == WORDLIKE:
        mail = False
        for i in range(first, point):
            mail = mail or data[i] == _AT
        www = last - first > 4 and data[first + 3] == _DOT
        for k in range(3):
            www = www and (data[first + k] | 0x20) == 0x77
        path = last + 1 < end and data[last] == _SLASH and (url[data[last + 1]] & LETTER_OR_DIGIT) != 0
        if not (mail or www or path):
            kind = np.int64(0)
    if kind == 0:
        return np.int64(-1), np.int64(-1), run_end
    return first, last, run_end


@njit(cache=True, nogil=True)
def remove_urls(data, offsets, url, tlds, kinds, out, out_offsets):
    """Winnow's rule (``filters.text.dclm.edits.RemoveUrls``)."""
    o = np.int64(0)
    out_offsets[0] = 0
    for d in range(offsets.shape[0] - 1):
        start, end = offsets[d], offsets[d + 1]
        done = start  # text before it is written, or removed
        i = start
        while i < end:
            b = data[i]
            if b != _DOT and b != _COLON:
                i += 1
                continue
            first = np.int64(-1)
            last = np.int64(-1)
            skip = i + 1
            if b == _COLON:
                if i + 3 < end and data[i + 1] == _SLASH and data[i + 2] == _SLASH:
                    first = _scheme_start(data, done, i + 3)
                    if first >= 0:
                        last = _url_end(data, i + 3, end, url)
                        if last == i + 3:
                            first = np.int64(-1)
            elif (
                i > done
                and i + 1 < end
                and (url[data[i - 1]] & LETTER_OR_DIGIT) != 0
                and (url[data[i + 1]] & LETTER_OR_DIGIT) != 0
            ):
                first, last, skip = _host_end(data, i, done, end, url, tlds, kinds)
                if first >= 0 and last < end and (data[last] == _SLASH or data[last] == _COLON):
                    last = _url_end(data, last, end, url)
                elif first >= 0 and last + 1 < end and (data[last] == 0x3F or data[last] == 0x23):
                    if (url[data[last + 1]] & REST) != 0:
                        last = _url_end(data, last, end, url)
            if first < 0:
                i = skip
                continue
            while first > done and (data[first - 1] == 0x20 or data[first - 1] == 0x09):
                first -= 1
            o = copy(data, done, first, out, o)
            done = last
            i = last
        o = copy(data, done, end, out, o)
        out_offsets[d + 1] = o


# ----------------------------------------------------------------------------------------- URLs, DCLM's rule


@njit(cache=True, nogil=True)
def _fold(cp):
    """Lower case of ASCII letters, and of the four other characters that match one ignoring case."""
    if cp >= 0x41 and cp <= 0x5A:
        return cp + 32
    if cp == 0x130 or cp == 0x131:
        return np.int64(0x69)
    if cp == 0x17F:
        return np.int64(0x73)
    if cp == 0x212A:
        return np.int64(0x6B)
    return cp


@njit(cache=True, nogil=True)
def _starts_with_name(data, start, end, longest, tlds, kinds):
    """Do the first characters, case ignored, happen to spell a top-level domain?"""
    key = SEED
    i = start
    while i < end and i - start < 3 * longest:
        cp, size = char_at(data, i, end)
        folded = _fold(cp)
        if folded < 0x80:
            key = (key ^ U(folded)) * PRIME
        else:
            for k in range(size):
                key = (key ^ U(data[i + k])) * PRIME
        i += size
        if _lookup(tlds, kinds, key) != 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _name_end(data, at, end, longest, pages, classes, tlds, kinds):
    """End of the longest listed name, as written, from byte ``at`` to a word boundary; -1 for none."""
    key = SEED
    found = np.int64(-1)
    i = at
    word = False
    while i < end and i - at <= longest:
        _, size = char_at(data, i, end)
        next_word = _is_word(data, i, end, pages, classes)
        if i > at and word != next_word and _lookup(tlds, kinds, key) != 0:
            found = i
        word = next_word
        for k in range(size):
            key = (key ^ U(data[i + k])) * PRIME
        i += size
    if i == end and word and i - at <= longest and _lookup(tlds, kinds, key) != 0:
        found = i
    return found


@njit(cache=True, nogil=True)
def _lead(data, first, start, pages, classes):
    """``first`` moved left over at most ten characters of white space."""
    for _ in range(10):
        if first == start:
            break
        k = _before(data, first, start)
        if (_class_at(data, k, first, pages, classes) & SPACE) == 0:
            break
        first = k
    return first


@njit(cache=True, nogil=True)
def remove_urls_dclm(data, offsets, longest, url, pages, classes, tlds, kinds, out, out_offsets):
    """DCLM's pass over names: only in documents whose first characters spell a top-level domain."""
    o = np.int64(0)
    out_offsets[0] = 0
    for d in range(offsets.shape[0] - 1):
        start, end = offsets[d], offsets[d + 1]
        done = start
        i = start if _starts_with_name(data, start, end, longest, tlds, kinds) else end
        while i < end:
            if data[i] != _DOT or i == done or (url[data[i - 1]] & NAME) == 0:
                i += 1
                continue
            found = _name_end(data, i + 1, end, longest, pages, classes, tlds, kinds)
            if found < 0:
                i += 1
                continue
            # the run of at most 256 characters before this point, the first in the run with a listed name
            first = i
            while first > done and (url[data[first - 1]] & NAME) != 0 and i - first < 256:
                first -= 1
            # a later point of the run is taken instead, if the run may reach it
            run = i
            while run < end and (url[data[run]] & NAME) != 0:
                if data[run] == _DOT and run > i and run - first <= 256:
                    later = _name_end(data, run + 1, end, longest, pages, classes, tlds, kinds)
                    if later >= 0:
                        found = later
                run += 1
            last = found
            while last < end and (url[data[last]] & REST) != 0:
                last += 1
            if first == done or (url[data[first - 1]] & NAME) == 0:
                scheme = _scheme_as_written(data, done, first)
                if scheme >= 0:
                    first = scheme
                first = _lead(data, first, done, pages, classes)
            o = copy(data, done, first, out, o)
            done = last
            i = last
        o = copy(data, done, end, out, o)
        out_offsets[d + 1] = o


@njit(cache=True, nogil=True)
def _scheme_as_written(data, start, at):
    """As ``_scheme_start``, lower case only."""
    first = _scheme_start(data, start, at)
    if first >= 0:
        for i in range(first, at):
            if data[i] >= 0x41 and data[i] <= 0x5A:
                return np.int64(-1)
    return first


@njit(cache=True, nogil=True)
def _octet_end(data, i, end):
    """End of one to three digits from byte ``i`` (three only if the first is 0, 1 or 2) that a point follows;
    -1 for anything else."""
    k = i
    while k < end and data[k] >= 0x30 and data[k] <= 0x39 and k - i < 4:
        k += 1
    if k == i or k - i > 3 or (k - i == 3 and data[i] > 0x32) or k == end or data[k] != _DOT:
        return np.int64(-1)
    return k


@njit(cache=True, nogil=True)
def remove_addresses_dclm(data, offsets, url, pages, classes, out, out_offsets):
    """DCLM's pass over IPv4 addresses, in every document."""
    o = np.int64(0)
    out_offsets[0] = 0
    for d in range(offsets.shape[0] - 1):
        start, end = offsets[d], offsets[d + 1]
        done = start
        i = start
        while i < end:
            # the first number of an address is one to three digits before a point
            if data[i] != _DOT or i + 1 == end or i == done:
                i += 1
                continue
            first = i
            while first > done and data[first - 1] >= 0x30 and data[first - 1] <= 0x39 and i - first < 4:
                first -= 1
            k = first
            groups = 0
            while groups < 3 and k >= 0:
                k = _octet_end(data, k, end)
                if k >= 0:
                    k += 1
                    groups += 1
            if k < 0 or k >= end or data[k] < 0x30 or data[k] > 0x39:
                i += 1
                continue
            scheme = _scheme_as_written(data, done, first)
            if scheme >= 0 and scheme > start:
                p = _before(data, scheme, start)
                if _is_word(data, p, end, pages, classes):
                    scheme = np.int64(-1)
            if scheme >= 0:
                first = scheme
            elif first > start and _is_word(data, _before(data, first, start), end, pages, classes):
                i += 1
                continue
            while k < end and (url[data[k]] & REST) != 0:
                k += 1
            first = _lead(data, first, done, pages, classes)
            o = copy(data, done, first, out, o)
            done = k
            i = k
        o = copy(data, done, end, out, o)
        out_offsets[d + 1] = o


# ------------------------------------------------------------------------------------------ runs of newlines


@njit(cache=True, nogil=True)
def squeeze_newlines(data, offsets, most, out, out_offsets):
    """Runs of more than ``most`` newlines become ``most``."""
    o = np.int64(0)
    out_offsets[0] = 0
    for d in range(offsets.shape[0] - 1):
        start, end = offsets[d], offsets[d + 1]
        done = start
        i = start
        while i < end:
            if data[i] != _NEWLINE:
                i += 1
                continue
            run = i
            while i < end and data[i] == _NEWLINE:
                i += 1
            if i - run > most:
                o = copy(data, done, run + most, out, o)
                done = i
        o = copy(data, done, end, out, o)
        out_offsets[d + 1] = o


# ----------------------------------------------------------------------------------------------------- lines

# What one instruction of a line program does.
UPPERCASE, NUMERIC, COUNTER, LENGTH, SUBSTRING = range(5)
ANY, PREFIX, SUFFIX = range(3)
# fields of ``stats``: lines at first, lines each kind of instruction removed, lines a SUBSTRING shortened,
# words before and after
STATS = ("n_lines", "uppercase", "numeric", "counter", "short", "emptied", "edited", "words_before",
         "words_after")  # fmt: skip
_EDITED, _WORDS_BEFORE, _WORDS_AFTER = 6, 7, 8
_UPPER_BIT, _DIGIT_BIT, _ALNUM_BIT, _GAP_BIT, _SPACE_BIT = (
    U(flag.bit_length() - 1) for flag in (UPPER, DIGIT, ALNUM, GAP, SPACE)
)
_ONE, _S32, _LOW = U(1), U(32), U(0xFFFFFFFF)
_LINE_START = U(1) | U(1 << 32)  # before a line: both a gap and white space
WILD = -1  # a pattern's character that any character matches


@njit(cache=True, nogil=True)
def _measure(data, start, end, pages, classes, out):
    """out: code points, upper-case ones, digits, words of fastText's reader that begin alphanumeric, words of
    ``str.split``."""
    out[:] = 0
    before = np.int64(GAP | SPACE)
    i = start
    while i < end:
        cp, size = char_at(data, i, end)
        c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
        i += size
        out[0] += 1
        out[1] += (c & UPPER) != 0
        out[2] += (c & DIGIT) != 0
        out[3] += (before & GAP) != 0 and (c & ALNUM) != 0
        out[4] += (before & SPACE) != 0 and (c & SPACE) == 0
        before = c


@njit(cache=True, nogil=True)
def _skip_space(data, start, end, pages, classes):
    while start < end and (_class_at(data, start, end, pages, classes) & SPACE) != 0:
        _, size = char_at(data, start, end)
        start += size
    return start


@njit(cache=True, nogil=True)
def _skip_space_back(data, start, end, pages, classes):
    while end > start:
        k = _before(data, end, start)
        if (_class_at(data, k, end, pages, classes) & SPACE) == 0:
            break
        end = k
    return end


@njit(cache=True, nogil=True)
def _is_counter(data, start, end, pages, classes, names, names_at):
    """Only '<number> likes' and the like: marks, a number (with points, commas, one of k, m, b), white space,
    one of ``names``, marks."""
    i = start
    c = np.int64(0)
    size = np.int64(0)
    while i < end:
        cp, size = char_at(data, i, end)
        c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
        if (c & ALNUM) != 0 or cp == 0x5F:
            break
        i += size
    if i >= end or (c & DECIMAL) == 0:
        return False
    i += size
    while i < end:
        cp, size = char_at(data, i, end)
        c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
        if cp != 0x2C and cp != _DOT and (c & DECIMAL) == 0:
            break
        i += size
    cp, size = char_at(data, i, end)
    cp = _fold(cp)
    if cp == 0x6B or cp == 0x6D or cp == 0x62:
        i += size
    k = _skip_space(data, i, end, pages, classes)
    if k == i:
        return False
    for name in range(names_at.shape[0] - 1):
        i = k
        same = True
        for j in range(names_at[name], names_at[name + 1]):
            cp, size = char_at(data, i, end)
            # str.lower, not "ignoring case": of the four odd characters only the Kelvin sign becomes ASCII
            if cp == 0x130 or cp == 0x131 or cp == 0x17F or size == 0 or _fold(cp) != names[j]:
                same = False
                break
            i += size
        if same:
            while i < end and not _is_word(data, i, end, pages, classes):
                _, size = char_at(data, i, end)
                i += size
            return i >= end
    return False


@njit(cache=True, nogil=True)
def _match(data, i, end, pattern, first, last, fold):
    """End of the text from byte ``i`` that ``pattern[first:last]`` matches; -1 for none."""
    for k in range(first, last):
        cp, size = char_at(data, i, end)
        if size == 0:
            return np.int64(-1)
        if pattern[k] != WILD and (_fold(cp) if fold else cp) != pattern[k]:
            return np.int64(-1)
        i += size
    return i


@njit(cache=True, nogil=True)
def _match_any(data, i, end, pattern, pattern_at, first, last, fold):
    """End of the first alternative of ``first … last`` that matches at byte ``i``; -1 for none."""
    for k in range(first, last):
        e = _match(data, i, end, pattern, pattern_at[k], pattern_at[k + 1], fold)
        if e >= 0:
            return e
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _suffix_start(data, start, end, pattern, pattern_at, first, last, fold):
    """First byte of the longest alternative that the line ends with; -1 for none."""
    found = np.int64(-1)
    for k in range(first, last):
        i = end
        room = True
        for _ in range(pattern_at[k], pattern_at[k + 1]):
            room = room and i > start
            if room:
                i = _before(data, i, start)
        if room and _match(data, i, end, pattern, pattern_at[k], pattern_at[k + 1], fold) == end:
            if found < 0 or i < found:
                found = i
    return found


@njit(cache=True, nogil=True)
def _contains(data, start, end, place, pattern, pattern_at, first, last, fold, may):
    """Is an alternative in the line? ``may``: bytes that one can begin with (for a suffix: end with)."""
    if place == PREFIX:
        if may[data[start]] == 0:
            return False
        return _match_any(data, start, end, pattern, pattern_at, first, last, fold) >= 0
    if place == SUFFIX:
        if may[data[end - 1]] == 0:
            return False
        return _suffix_start(data, start, end, pattern, pattern_at, first, last, fold) >= 0
    for i in range(start, end):
        if may[data[i]] and _match_any(data, i, end, pattern, pattern_at, first, last, fold) >= 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _cut(data, start, end, place, pattern, pattern_at, first, last, fold, pages, classes):
    """Cut the alternatives out of a line, in place, with one white space before (after, for a prefix).
    Returns the line's new (start, end)."""
    if place == PREFIX:
        e = _match_any(data, start, end, pattern, pattern_at, first, last, fold)
        if e < 0:
            return start, end
        if e < end and (_class_at(data, e, end, pages, classes) & SPACE) != 0:
            _, size = char_at(data, e, end)
            e += size
        return e, end
    if place == SUFFIX:
        i = _suffix_start(data, start, end, pattern, pattern_at, first, last, fold)
        if i < 0:
            return start, end
        if i > start:
            k = _before(data, i, start)
            if (_class_at(data, k, i, pages, classes) & SPACE) != 0:
                i = k
        return start, i
    i = start
    to = start
    while i < end:
        e = np.int64(-1)
        _, size = char_at(data, i, end)
        if (_class_at(data, i, end, pages, classes) & SPACE) != 0:
            e = _match_any(data, i + size, end, pattern, pattern_at, first, last, fold)
        if e < 0:
            e = _match_any(data, i, end, pattern, pattern_at, first, last, fold)
        if e >= 0:
            i = e
            continue
        for k in range(size):
            data[to + k] = data[i + k]
        to += size
        i += size
    return start, to


@njit(cache=True, nogil=True)
def edit_lines(
    data, offsets, pages, classes, codes, numbers, names, names_at, pattern, pattern_at, may, out,
    out_offsets, stats,
):  # fmt: skip
    """Run a line program over each document.

    ``codes`` int64[m, 6], ``numbers`` float64[m, 2], an instruction a row, done one after another:

    * UPPERCASE, NUMERIC: drop lines whose share of such characters is above numbers[0];
    * COUNTER: drop lines that ``_is_counter``;
    * LENGTH: drop lines, empty ones aside, of fewer than numbers[0] or more than numbers[1] tokens
      (``str.split``);
    * SUBSTRING: in lines of at most numbers[0] words (below 0: in all), codes[1] says where, codes[2] whether
      only the substring goes (and the line with it if nothing but white space is left), codes[3:5] the
      alternatives, codes[5] whether case is ignored; ``may`` uint8[m, 256] as ``_contains`` has it.

    After each but LENGTH the document is stripped of outer white space. A document left empty is an empty
    string. ``stats`` int64[n, 9].
    """
    n_docs = offsets.shape[0] - 1
    most_lines = np.int64(0)
    for d in range(n_docs):
        lines = np.int64(1)
        for i in range(offsets[d], offsets[d + 1]):
            lines += data[i] == _NEWLINE
        most_lines = max(most_lines, lines)
    work = np.empty(longest_of(offsets), np.uint8)
    starts = np.empty(most_lines, np.int32)  # within the document: Arrow strings end below 2 GiB
    ends = np.empty(most_lines, np.int32)
    sizes = np.empty((most_lines, 5), np.int32)  # of _measure; sizes[:, 0] < 0: to be measured again
    # per ASCII byte: 1 for upper case, 2 ** 32 for a digit; 1 for what begins a word of fastText's reader
    # after a gap, 2 ** 32 for what begins one of str.split after white space; 1 for a gap, 2 ** 32 for
    # white space
    ascii_kinds = np.empty(128, np.uint64)
    ascii_begins = np.empty(128, np.uint64)
    ascii_parts = np.empty(128, np.uint64)
    for k in range(128):
        c = U(classes[k])
        space = (c >> _SPACE_BIT) & _ONE
        ascii_kinds[k] = ((c >> _UPPER_BIT) & _ONE) | (((c >> _DIGIT_BIT) & _ONE) << _S32)
        ascii_begins[k] = ((c >> _ALNUM_BIT) & _ONE) | ((space ^ _ONE) << _S32)
        ascii_parts[k] = ((c >> _GAP_BIT) & _ONE) | (space << _S32)
    o = np.int64(0)
    out_offsets[0] = 0
    for d in range(n_docs):
        begin = offsets[d]
        n_bytes = offsets[d + 1] - begin
        work[:n_bytes] = data[begin : begin + n_bytes]
        row = stats[d]
        row[:] = 0
        n = np.int64(0)
        s = np.int64(0)
        # ---- cut into lines, and measure them on the way (as ``_measure``: two counters in one number)
        continuation = np.int64(0)
        kinds = U(0)
        starts_of = U(0)
        before = _LINE_START
        i = np.int64(0)
        while True:
            if i < n_bytes and work[i] != _NEWLINE:
                b = work[i]
                if b < 0x80:
                    kinds += ascii_kinds[b]
                    starts_of += before & ascii_begins[b]
                    before = ascii_parts[b]
                    i += 1
                else:
                    cp, size = char_at(work, i, n_bytes)
                    c = U(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
                    kinds += ((c >> _UPPER_BIT) & _ONE) | (((c >> _DIGIT_BIT) & _ONE) << _S32)
                    space = (c >> _SPACE_BIT) & _ONE
                    starts_of += before & (((c >> _ALNUM_BIT) & _ONE) | ((space ^ _ONE) << _S32))
                    before = ((c >> _GAP_BIT) & _ONE) | (space << _S32)
                    continuation += size - 1
                    i += size
                continue
            starts[n] = s
            ends[n] = i
            sizes[n, 0] = i - s - continuation
            sizes[n, 1] = np.int64(kinds & _LOW)
            sizes[n, 2] = np.int64(kinds >> _S32)
            sizes[n, 3] = np.int64(starts_of & _LOW)
            sizes[n, 4] = np.int64(starts_of >> _S32)
            row[_WORDS_BEFORE] += sizes[n, 3]
            n += 1
            if i >= n_bytes:
                break
            i += 1
            s = i
            continuation = np.int64(0)
            kinds = U(0)
            starts_of = U(0)
            before = _LINE_START
        row[0] = n
        lo = np.int64(0)
        for step in range(codes.shape[0]):
            code = codes[step, 0]
            limit = numbers[step, 0]
            upto = numbers[step, 1]
            kept = lo
            for k in range(lo, n):
                s = np.int64(starts[k])
                e = np.int64(ends[k])
                drop = False
                if e > s:
                    if sizes[k, 0] < 0:
                        _measure(work, s, e, pages, classes, sizes[k])
                    if code == UPPERCASE or code == NUMERIC:
                        drop = sizes[k, 1 + code] / sizes[k, 0] > limit
                    elif code == COUNTER:
                        # it has a digit
                        drop = sizes[k, 2] > 0 and _is_counter(work, s, e, pages, classes, names, names_at)
                    elif code == LENGTH:
                        drop = sizes[k, 4] < limit or sizes[k, 4] > upto
                    elif limit < 0 or sizes[k, 4] <= limit:
                        place = codes[step, 1]
                        only = codes[step, 2] != 0
                        p0, p1, fold = codes[step, 3], codes[step, 4], codes[step, 5] != 0
                        drop = only and sizes[k, 4] == 0
                        if not drop and _contains(
                            work, s, e, place, pattern, pattern_at, p0, p1, fold, may[step]
                        ):
                            drop = True
                            if only:
                                s, e = _cut(
                                    work, s, e, place, pattern, pattern_at, p0, p1, fold, pages, classes
                                )
                                if _skip_space(work, s, e, pages, classes) < e:
                                    drop = False
                                    sizes[k, 0] = -1
                                    row[_EDITED] += 1
                if drop:
                    row[1 + code] += 1
                    continue
                starts[kept] = s
                ends[kept] = e
                if kept != k:
                    sizes[kept, 0] = sizes[k, 0]
                    sizes[kept, 1] = sizes[k, 1]
                    sizes[kept, 2] = sizes[k, 2]
                    sizes[kept, 3] = sizes[k, 3]
                    sizes[kept, 4] = sizes[k, 4]
                kept += 1
            n = kept
            if code == LENGTH:
                continue
            # ---- strip the document
            while lo < n:
                e = np.int64(ends[lo])
                s = _skip_space(work, np.int64(starts[lo]), e, pages, classes)
                if s < e:
                    if s != starts[lo]:
                        starts[lo] = s
                        sizes[lo, 0] = -1
                    break
                lo += 1
            while lo < n:
                s = np.int64(starts[n - 1])
                e = _skip_space_back(work, s, np.int64(ends[n - 1]), pages, classes)
                if e > s:
                    if e != ends[n - 1]:
                        ends[n - 1] = e
                        sizes[n - 1, 0] = -1
                    break
                n -= 1
        # ---- write what is left
        s = np.int64(starts[lo]) if lo < n else np.int64(0)
        for k in range(lo, n):
            if sizes[k, 0] < 0:
                _measure(work, np.int64(starts[k]), np.int64(ends[k]), pages, classes, sizes[k])
            row[_WORDS_AFTER] += sizes[k, 3]
            if k + 1 < n and starts[k + 1] == ends[k] + 1:
                continue  # nothing was cut between this line and the next: they are copied together
            o = copy(work, s, np.int64(ends[k]), out, o)
            if k + 1 < n:
                out[o] = _NEWLINE
                o += 1
                s = np.int64(starts[k + 1])
        out_offsets[d + 1] = o
