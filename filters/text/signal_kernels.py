"""Compiled passes for the RedPajama-V2 signals and the dolma taggers. No Python object per document.

``_scan_signals`` reads each byte of a document once and follows, side by side, the words as written
(``\\w+|[^\\w\\s]+``), the normalised words (lower-cased, ASCII punctuation removed, NFD, cut at white space)
and the lines. It leaves a 64-bit hash and a length per normalised word; ``_repetition_signals`` turns those
into the unigram and n-gram signals without looking at the text again. Normal form D orders combining marks by
class: a run of marks enters a word's hash as one value that is the same for every order of equal meaning.

``_scan_dolma`` and what follows it do the same for dolma's taggers, which cut words at white space only.

Equality of words, n-grams and lines is equality of 64-bit hashes. Readable oracles of every number here:
``tests/filters/oracle_signals.py``.
"""

# ruff: noqa: SIM109 (as in kernels.py: comparisons are faster here than membership in a tuple)
from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.kernels import _ONE, _PRIME, _S32, _SEED, _STEP, _U, _chain, _mix, _table_bits, decode
from filters.text.normal_forms import (
    BULLET,
    CASED,
    DROPPED,
    END,
    HANGUL,
    HANGUL_FIRST,
    IGNORABLE,
    LETTER,
    LOWER,
    MAPPED,
    NUMERIC,
    SPACE,
    UPPER,
    WORD,
)

# Counts of one document.
(
    N_CHARS,  # code points
    N_RAW,  # words as written
    N_NO_LETTER,  # of those: without a-z and A-Z
    N_CAPITALS,  # of those: all upper case
    N_STOP,  # of those: stop words
    N_WORDS,  # normalised words
    WORD_CHARS,  # code points in those
    N_LOREM,  # "lorem ipsum" in the normalised text
    N_SYMBOLS,  # '#', '…' and non-overlapping '...'
    N_CURLY,  # '{' and '}'
    N_SENTENCES,  # runs between .!? that hold a word character
    N_LINES,  # lines; a last one without '\n' counts if it is not empty
    N_NEWLINES,  # '\n'
    N_ELLIPSIS,  # lines ending (before white space) with '…' or '...'
    N_TERMINAL,  # lines ending (before white space) with . ! ? ”
    N_BULLET,  # lines starting (after white space) with a bullet point
    N_JAVASCRIPT,  # normalised words equal to "javascript"
) = range(17)
COUNTS = 17

LINE_SIGNALS = (
    "rps_lines_ending_with_terminal_punctution_mark",
    "rps_lines_javascript_counts",
    "rps_lines_num_words",
    "rps_lines_numerical_chars_fraction",
    "rps_lines_start_with_bulletpoint",
    "rps_lines_uppercase_letter_fraction",
)
REPETITION = (
    "frac_unique_words",
    "unigram_entropy",
    *(f"frac_chars_top_{n}gram" for n in (2, 3, 4)),
    *(f"frac_chars_dupe_{n}grams" for n in (5, 6, 7, 8, 9, 10)),
)

_S8 = _U(8)
_FIVE = _U(0xFFFFFFFFFF)
_LOREM = _U(int.from_bytes(b"lorem", "big"))
_IPSUM = _U(int.from_bytes(b"ipsum", "big"))
_NOT_ASCII = _U(0xFF)
_DOT, _ELLIPSIS, _HASH, _DASH, _STAR = 0x2E, 0x2026, 0x23, 0x2D, 0x2A
_OPEN, _CLOSE, _QUOTE, _SIGMA, _CLOSING_QUOTE = 0x7B, 0x7D, 0x22, 0x3A3, 0x201D


def _word_hash(text):
    """Hash of a word of plain starters (used for constants)."""
    mask = (1 << 64) - 1
    value = int(_SEED)
    for char in text:
        value = ((value ^ ord(char)) * int(_PRIME)) & mask
    value ^= value >> 32
    value = (value * 0xFF51AFD7ED558CCD) & mask
    value ^= value >> 29
    value = (value * 0xC4CEB9FE1A85EC53) & mask
    return value ^ (value >> 32)


_JAVASCRIPT = _U(_word_hash("javascript"))


@njit(cache=True, nogil=True)
def _scan_signals(
    data,
    start,
    end,
    pages,
    flags,
    entry,
    starts,
    sequence,
    combining,
    numeric,
    stops,
    stop_shift,
    marks,
    marked,
    word_hash,
    word_chars,
    lines,
    first_line,
    line_sums,
    counts,
):
    """Read ``data[start:end]``: add to ``counts``, fill the word arrays, ``lines[first_line:]`` (one row of
    LINE_SIGNALS each; an array of no rows is left alone) and ``line_sums`` (their sums).

    ``marks`` uint64[256] and ``marked`` int64[256] are scratch: hash of the combining marks of each class
    since the last starter (0 everywhere on entry and return). Returns False if the word arrays are too small.
    """
    room = word_hash.shape[0]
    stop_mask = stops.shape[0] - 1
    want_lines = lines.shape[0] > 0
    n_words = np.int64(0)
    n_chars = np.int64(0)
    # the open word as written: 1 of \w, 2 of other marks
    raw_kind = np.int64(0)
    raw = _SEED
    raw_flags = np.int64(0)
    # the open normalised word
    word = _SEED
    chars = np.int64(0)
    n_marked = np.int64(0)
    last = _U(0)  # its last eight code points, one byte each
    after_lorem = False
    cased = False  # is the last character that is not case-ignorable cased?
    # the line
    n_lines = np.int64(0)
    line_from = np.int64(0)
    line_words = np.int64(0)
    line_word_chars = np.int64(0)
    javascript = np.int64(0)
    upper = np.int64(0)
    digits = np.int64(0)
    fresh = True
    bullet = False
    tail = np.int64(0)  # its last character that is not white space
    dots = np.int64(0)  # how many '.' the line ends with, white space aside
    gap = False  # white space after them
    in_sentence = False

    i = start
    while True:
        # ---- a run of ASCII letters and digits
        if not after_lorem and i < end and data[i] < 0x80:
            c = np.int64(flags[data[i]])
            if (c & (WORD | DROPPED)) == WORD and n_marked == 0:
                if raw_kind != 1:
                    if raw_kind != 0:
                        counts[N_RAW] += 1
                        counts[N_NO_LETTER] += (raw_flags & LETTER) == 0
                        counts[N_CAPITALS] += (raw_flags & (UPPER | LOWER)) == UPPER
                        slot = np.int64(_mix(raw) >> stop_shift)
                        while stops[slot] != 0:
                            if stops[slot] == _mix(raw):
                                counts[N_STOP] += 1
                                break
                            slot = (slot + 1) & stop_mask
                    raw_kind = np.int64(1)
                    raw = _SEED
                    raw_flags = np.int64(0)
                begin = i
                while True:
                    b = _U(data[i])
                    raw = (raw ^ b) * _PRIME
                    raw_flags |= c
                    up = (c & UPPER) != 0
                    upper += up
                    digits += (c & NUMERIC) != 0
                    low = b | (_U(up) << _U(5))
                    word = (word ^ low) * _PRIME
                    last = (last << _S8) | low
                    i += 1
                    if i == end or data[i] >= 0x80:
                        break
                    following = np.int64(flags[data[i]])
                    if (following & (WORD | DROPPED)) != WORD:
                        break
                    c = following
                cased = (c & CASED) != 0
                chars += i - begin
                n_chars += i - begin
                fresh = False
                tail = np.int64(data[i - 1])
                dots = np.int64(0)
                if not in_sentence:
                    in_sentence = True
                    counts[N_SENTENCES] += 1
                continue

        # ---- the next character; the end of the text acts as a line break
        if i < end:
            b = data[i]
            if b < 0x80:
                cp = np.int64(b)
                size = np.int64(1)
                at = cp
            else:
                b1 = data[i + 1] if i + 1 < end else np.uint8(0)
                b2 = data[i + 2] if i + 2 < end else np.uint8(0)
                b3 = data[i + 3] if i + 3 < end else np.uint8(0)
                cp, size = decode(b, b1, b2, b3)
                at = (np.int64(pages[cp >> 8]) << 8) | (cp & 255)
            c = np.int64(flags[at])
        else:
            cp = np.int64(-1)
            size = np.int64(0)
            at = np.int64(0)
            c = np.int64(SPACE)

        # ---- close the open word as written
        kind = np.int64(0) if (c & SPACE) != 0 else (np.int64(1) if (c & WORD) != 0 else np.int64(2))
        if kind != raw_kind:
            if raw_kind != 0:
                counts[N_RAW] += 1
                counts[N_NO_LETTER] += (raw_flags & LETTER) == 0
                counts[N_CAPITALS] += (raw_flags & (UPPER | LOWER)) == UPPER
                slot = np.int64(_mix(raw) >> stop_shift)
                while stops[slot] != 0:
                    if stops[slot] == _mix(raw):
                        counts[N_STOP] += 1
                        break
                    slot = (slot + 1) & stop_mask
            raw_kind = kind
            raw = _SEED
            raw_flags = np.int64(0)

        if (c & SPACE) == 0:
            for k in range(size):
                raw = (raw ^ _U(data[i + k])) * _PRIME
            raw_flags |= c
            upper += (c & UPPER) != 0
            if fresh:
                bullet = (c & BULLET) != 0
                fresh = False
            if cp == _DOT:
                dots = np.int64(1) if gap or tail != _DOT else dots + 1
                counts[N_SYMBOLS] += dots % 3 == 0
            elif cp == _HASH or cp == _ELLIPSIS:
                counts[N_SYMBOLS] += 1
                dots = np.int64(0)
            else:
                counts[N_CURLY] += cp == _OPEN or cp == _CLOSE
                dots = np.int64(0)
            gap = False
            tail = cp
            if (c & END) != 0:
                in_sentence = False
            elif not in_sentence and kind == 1:
                in_sentence = True
                counts[N_SENTENCES] += 1
            if (c & DROPPED) == 0:
                # ---- the normal form of this character
                if (c & MAPPED) == 0:
                    one, two, three = cp, np.int64(-1), np.int64(-1)
                    first, stop = np.int64(0), np.int64(0)
                    digits += (c & NUMERIC) != 0
                elif (c & HANGUL) != 0:
                    syllable = cp - HANGUL_FIRST
                    one = 0x1100 + syllable // 588
                    two = 0x1161 + (syllable % 588) // 28
                    three = 0x11A7 + syllable % 28 if syllable % 28 else np.int64(-1)
                    first, stop = np.int64(0), np.int64(0)
                elif cp == _SIGMA:
                    # ς at the end of a word: a cased letter before and none after, case-ignorable ones aside
                    final = cased
                    j = i + size
                    while final and j < end:
                        b1 = data[j + 1] if j + 1 < end else np.uint8(0)
                        b2 = data[j + 2] if j + 2 < end else np.uint8(0)
                        b3 = data[j + 3] if j + 3 < end else np.uint8(0)
                        next_cp, next_size = decode(data[j], b1, b2, b3)
                        next_c = np.int64(flags[(np.int64(pages[next_cp >> 8]) << 8) | (next_cp & 255)])
                        if (next_c & (IGNORABLE | DROPPED)) == 0:
                            final = (next_c & CASED) == 0
                            break
                        j += next_size
                    one = np.int64(0x3C2) if final else np.int64(0x3C3)
                    two, three = np.int64(-1), np.int64(-1)
                    first, stop = np.int64(0), np.int64(0)
                else:
                    one, two, three = np.int64(-1), np.int64(-1), np.int64(-1)
                    first, stop = np.int64(starts[entry[at]]), np.int64(starts[entry[at] + 1])
                if (c & IGNORABLE) == 0:
                    cased = (c & CASED) != 0
                # either up to three starters, or a slice of the table
                n_units = stop - first if stop > first else 1 + (two >= 0) + (three >= 0)
                for k in range(n_units):
                    group = np.int64(0)
                    if stop > first:
                        unit = np.int64(sequence[first + k])
                        group = np.int64(combining[first + k])
                        digits += numeric[first + k]
                    else:
                        unit = one if k == 0 else (two if k == 1 else three)
                    if group == 0:
                        if n_marked > 0:
                            total = _U(0)
                            for m in range(n_marked):
                                total += _mix(marks[marked[m]] + _U(marked[m]) * _STEP)
                                marks[marked[m]] = _U(0)
                            word = (word ^ total) * _PRIME
                            n_marked = np.int64(0)
                        word = (word ^ _U(unit)) * _PRIME
                    else:
                        if marks[group] == 0:
                            marked[n_marked] = group
                            n_marked += 1
                            marks[group] = _SEED
                        marks[group] = (marks[group] ^ _U(unit)) * _PRIME
                    chars += 1
                    last = (last << _S8) | (_U(unit) if unit < 0x80 else _NOT_ASCII)
                    if after_lorem and chars == 5:
                        counts[N_LOREM] += (last & _FIVE) == _IPSUM
                        after_lorem = False
            i += size
            n_chars += 1
            continue

        # ---- white space closes the normalised word
        if chars > 0:
            if n_words == room:
                for m in range(n_marked):
                    marks[marked[m]] = _U(0)
                return False
            if n_marked > 0:
                total = _U(0)
                for m in range(n_marked):
                    total += _mix(marks[marked[m]] + _U(marked[m]) * _STEP)
                    marks[marked[m]] = _U(0)
                word = (word ^ total) * _PRIME
                n_marked = np.int64(0)
            word = _mix(word)
            word_hash[n_words] = word
            word_chars[n_words] = chars
            n_words += 1
            line_words += 1
            line_word_chars += chars
            javascript += word == _JAVASCRIPT
            after_lorem = (last & _FIVE) == _LOREM
            word = _SEED
            chars = np.int64(0)
            last = _U(0)
        cased = False
        gap = True
        if cp != 10 and cp >= 0:
            i += size
            n_chars += 1
            continue

        # ---- the end of a line
        if cp == 10:
            i += 1
            n_chars += 1
            counts[N_NEWLINES] += 1
        if n_chars > line_from:
            terminal = tail == _DOT or tail == 0x21 or tail == 0x3F or tail == _CLOSING_QUOTE
            numerical = digits / (line_word_chars + line_words - 1) if line_words > 0 else 0.0
            capitals = upper / (n_chars - line_from)
            if want_lines:
                lines[first_line + n_lines, 0] = terminal
                lines[first_line + n_lines, 1] = javascript
                lines[first_line + n_lines, 2] = line_words
                lines[first_line + n_lines, 3] = numerical
                lines[first_line + n_lines, 4] = bullet
                lines[first_line + n_lines, 5] = capitals
            line_sums[0] += terminal
            line_sums[1] += javascript
            line_sums[2] += line_words
            line_sums[3] += numerical
            line_sums[4] += bullet
            line_sums[5] += capitals
            counts[N_TERMINAL] += terminal
            counts[N_BULLET] += bullet
            counts[N_JAVASCRIPT] += javascript
            counts[N_ELLIPSIS] += dots >= 3 or tail == _ELLIPSIS
            counts[WORD_CHARS] += line_word_chars
            n_lines += 1
        if cp < 0:
            break
        line_from = n_chars
        line_words = np.int64(0)
        line_word_chars = np.int64(0)
        javascript = np.int64(0)
        upper = np.int64(0)
        digits = np.int64(0)
        fresh = True
        bullet = False
        tail = np.int64(0)
        dots = np.int64(0)
        gap = False

    counts[N_CHARS] = n_chars
    counts[N_WORDS] = n_words
    counts[N_LINES] = n_lines
    return True


@njit(cache=True, nogil=True)
def _repetition_signals(n, total_chars, word_hash, word_chars, table, keys, where, owner, seen, out):
    """Scores in the order of REPETITION from the ``n`` normalised words of a document.

    As in kernels.py, repeated n-grams are found among neighbours in the list of repeated (n - 1)-grams, here
    from n = 1 on. Scratch: ``table`` int32 (a power of two ≥ twice the words), ``keys`` uint64, ``where``,
    ``owner`` and ``seen`` int32, one entry per word.
    """
    out[:] = 0.0
    if n == 0:
        return
    m = n
    for size in range(1, 11):
        if n < size:
            break
        if size > 1:
            kept = np.int64(0)
            for k in range(m - 1):
                if where[k + 1] == where[k] + 1:
                    keys[kept] = (_U(owner[k]) << _S32) | _U(owner[k + 1])
                    where[kept] = where[k]
                    kept += 1
            m = kept
        else:
            for k in range(n):
                keys[k] = word_hash[k]
        if m > 0:
            bits = _table_bits(m)
            shift = _U(64 - bits)
            mask = (np.int64(1) << bits) - 1
            table[: mask + 1] = -1
            for k in range(m):
                key = keys[k]
                slot = np.int64((key * _STEP) >> shift)
                while True:
                    head = table[slot]
                    if head < 0:
                        table[slot] = k
                        seen[k] = 1
                        owner[k] = k
                        break
                    if keys[head] == key:
                        seen[head] += 1
                        owner[k] = head
                        break
                    slot = (slot + 1) & mask
        if size == 1:
            distinct = np.int64(0)
            repeated = 0.0  # Σ x log x over the counts; a word that occurs once adds nothing
            for k in range(n):
                if owner[k] == k:
                    distinct += 1
                    if seen[k] > 1:
                        repeated += seen[k] * np.log(seen[k])
            out[0] = distinct / n
            out[1] = max(0.0, np.log(n) - repeated / n)
        best = np.int64(1)
        best_at = np.int64(0)
        covered = np.int64(0)
        duplicated = np.int64(0)
        kept = np.int64(0)
        for k in range(m):
            head = np.int64(owner[k])
            count = np.int64(seen[head])
            if count == 1:
                continue
            at = np.int64(where[k]) if size > 1 else k
            if size > 4:
                for j in range(max(at, covered), at + size):
                    duplicated += word_chars[j]
                covered = at + size
            elif count > best:
                best = count
                best_at = at
            where[kept] = at
            owner[kept] = head
            kept += 1
        m = kept
        if m == 0:
            break
        if size > 4:
            out[size] = duplicated / total_chars
        elif size > 1:
            length = np.int64(0)
            for j in range(size):
                length += word_chars[best_at + j]
            out[size] = best * length / total_chars


@njit(cache=True, nogil=True)
def signals(
    data,
    offsets,
    pages,
    flags,
    entry,
    starts,
    sequence,
    combining,
    numeric,
    stops,
    stop_shift,
    first_words,
    phrases,
    lines,
    line_offsets,
    line_sums,
    counts,
    repetition,
    bad,
):
    """All signals of all documents of a column: ``counts`` int64[n, COUNTS], ``repetition`` float64[n, 11],
    ``line_sums`` float64[n, 6], ``bad`` int64[n] and, if it has rows, ``lines`` float32[lines, 6].

    ``first_words`` uint64[k, 2] is an open-addressing table: hash of the first word of some listed phrases
    (0: empty), and bit j - 1 set if one of them has j words; ``phrases`` uint64 is the table of their hashes.
    """
    n_docs = offsets.shape[0] - 1
    longest = np.int64(0)
    for d in range(n_docs):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest // 4 + 64
    grow = True
    word_hash = np.empty(0, np.uint64)
    word_chars = np.empty(0, np.int32)
    keys = np.empty(0, np.uint64)
    where = np.empty(0, np.int32)
    owner = np.empty(0, np.int32)
    seen = np.empty(0, np.int32)
    table = np.empty(0, np.int32)
    marks = np.zeros(256, np.uint64)
    marked = np.empty(256, np.int64)
    d = 0
    while d < n_docs:
        if grow:
            word_hash = np.empty(room, np.uint64)
            word_chars = np.empty(room, np.int32)
            keys = np.empty(room, np.uint64)
            where = np.empty(room, np.int32)
            owner = np.empty(room, np.int32)
            seen = np.empty(room, np.int32)
            table = np.empty(1 << _table_bits(room), np.int32)
            grow = False
        counts[d, :] = 0
        line_sums[d, :] = 0.0
        fits = _scan_signals(
            data, offsets[d], offsets[d + 1], pages, flags, entry, starts, sequence, combining, numeric,
            stops, stop_shift, marks, marked, word_hash, word_chars, lines, line_offsets[d], line_sums[d],
            counts[d],
        )  # fmt: skip
        if not fits:
            room *= 2
            grow = True
            continue
        n = counts[d, N_WORDS]
        _repetition_signals(
            n, counts[d, WORD_CHARS], word_hash, word_chars, table, keys, where, owner, seen, repetition[d]
        )
        bad[d] = 0
        if phrases.shape[0] > 1:
            bad[d] = _listed(word_hash, n, first_words, phrases)
        d += 1


@njit(cache=True, nogil=True)
def _listed(word_hash, n, first_words, phrases):
    """How many n-grams of the words are on the list."""
    shift = _U(64) - _U(np.log2(first_words.shape[0]))
    mask = first_words.shape[0] - 1
    phrase_shift = _U(64) - _U(np.log2(phrases.shape[0]))
    phrase_mask = phrases.shape[0] - 1
    found = np.int64(0)
    for i in range(n):
        slot = np.int64((word_hash[i] * _STEP) >> shift)
        while first_words[slot, 0] != 0 and first_words[slot, 0] != word_hash[i]:
            slot = (slot + 1) & mask
        lengths = first_words[slot, 1]
        if first_words[slot, 0] == 0:
            continue
        phrase = _SEED
        j = i
        while lengths != 0 and j < n:
            phrase = _chain(phrase, word_hash[j])
            if lengths & _ONE:
                place = np.int64((phrase * _STEP) >> phrase_shift)
                while phrases[place] != 0:
                    if phrases[place] == phrase:
                        found += 1
                        break
                    place = (place + 1) & phrase_mask
            lengths >>= _ONE
            j += 1
    return found


@njit(cache=True, nogil=True)
def phrase_words(data, offsets, pages, flags, entry, starts, sequence, combining, numeric):
    """Normalised words of each string: (hashes, offsets int64[n + 1]). How listed phrases enter."""
    n = offsets.shape[0] - 1
    none = np.zeros(8, np.uint64)
    marks = np.zeros(256, np.uint64)
    marked = np.empty(256, np.int64)
    lines = np.empty((0, 6), np.float32)
    sums = np.zeros(6)
    counts = np.zeros(COUNTS, np.int64)
    bytes_ = offsets[n] - offsets[0]
    out = np.empty(bytes_ + 1, np.uint64)
    out_chars = np.empty(bytes_ + 1, np.int32)
    at = np.zeros(n + 1, np.int64)
    for d in range(n):
        counts[:] = 0
        _scan_signals(
            data, offsets[d], offsets[d + 1], pages, flags, entry, starts, sequence, combining, numeric, none,
            _U(61), marks, marked, out[at[d] :], out_chars[at[d] :], lines, 0, sums, counts,
        )  # fmt: skip
        at[d + 1] = at[d] + counts[N_WORDS]
    return out[: at[n]], at


@njit(cache=True, nogil=True)
def raw_hashes(data, offsets):
    """Hash of each string as one word as written (how stop words enter the kernels)."""
    n = offsets.shape[0] - 1
    out = np.empty(n, np.uint64)
    for d in range(n):
        h = _SEED
        for i in range(offsets[d], offsets[d + 1]):
            h = (h ^ _U(data[i])) * _PRIME
        out[d] = _mix(h)
    return out


@njit(cache=True, nogil=True)
def count_lines(data, offsets):
    """Lines of each document, as running totals int64[n + 1]."""
    n = offsets.shape[0] - 1
    out = np.zeros(n + 1, np.int64)
    for d in range(n):
        breaks = np.int64(0)
        for i in range(offsets[d], offsets[d + 1]):
            breaks += data[i] == 10
        size = offsets[d + 1] - offsets[d]
        out[d + 1] = out[d] + breaks + (size > 0 and data[offsets[d + 1] - 1] != 10)
    return out
