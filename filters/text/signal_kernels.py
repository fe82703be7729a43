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

from filters.text.hash_kernels import PRIME, SEED, STEP, U, chain, hash_of, mix
from filters.text.ngram_kernels import longer, make_scratch, repeated_units, repeated_words
from filters.text.normal_forms import (
    ALPHA,
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
from filters.text.utf8_kernels import char_at, copy, longest_of

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

_ONE, _S8 = U(1), U(8)
_JAVASCRIPT = hash_of("javascript")
_FIVE = U(0xFFFFFFFFFF)
_LOREM = U(int.from_bytes(b"lorem", "big"))
_IPSUM = U(int.from_bytes(b"ipsum", "big"))
_NOT_ASCII = U(0xFF)
_DOT, _ELLIPSIS, _HASH, _DASH, _STAR = 0x2E, 0x2026, 0x23, 0x2D, 0x2A
_OPEN, _CLOSE, _QUOTE, _SIGMA, _CLOSING_QUOTE = 0x7B, 0x7D, 0x22, 0x3A3, 0x201D


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
    raw = SEED
    raw_flags = np.int64(0)
    # the open normalised word
    word = SEED
    chars = np.int64(0)
    n_marked = np.int64(0)
    last = U(0)  # its last eight code points, one byte each
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
                        slot = np.int64(mix(raw) >> stop_shift)
                        while stops[slot] != 0:
                            if stops[slot] == mix(raw):
                                counts[N_STOP] += 1
                                break
                            slot = (slot + 1) & stop_mask
                    raw_kind = np.int64(1)
                    raw = SEED
                    raw_flags = np.int64(0)
                begin = i
                while True:
                    b = U(data[i])
                    raw = (raw ^ b) * PRIME
                    raw_flags |= c
                    up = (c & UPPER) != 0
                    upper += up
                    digits += (c & NUMERIC) != 0
                    low = b | (U(up) << U(5))
                    word = (word ^ low) * PRIME
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
                cp, size = char_at(data, i, end)
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
                slot = np.int64(mix(raw) >> stop_shift)
                while stops[slot] != 0:
                    if stops[slot] == mix(raw):
                        counts[N_STOP] += 1
                        break
                    slot = (slot + 1) & stop_mask
            raw_kind = kind
            raw = SEED
            raw_flags = np.int64(0)

        if (c & SPACE) == 0:
            for k in range(size):
                raw = (raw ^ U(data[i + k])) * PRIME
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
                        next_cp, next_size = char_at(data, j, end)
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
                            total = U(0)
                            for m in range(n_marked):
                                total += mix(marks[marked[m]] + U(marked[m]) * STEP)
                                marks[marked[m]] = U(0)
                            word = (word ^ total) * PRIME
                            n_marked = np.int64(0)
                        word = (word ^ U(unit)) * PRIME
                    else:
                        if marks[group] == 0:
                            marked[n_marked] = group
                            n_marked += 1
                            marks[group] = SEED
                        marks[group] = (marks[group] ^ U(unit)) * PRIME
                    chars += 1
                    last = (last << _S8) | (U(unit) if unit < 0x80 else _NOT_ASCII)
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
                    marks[marked[m]] = U(0)
                return False
            if n_marked > 0:
                total = U(0)
                for m in range(n_marked):
                    total += mix(marks[marked[m]] + U(marked[m]) * STEP)
                    marks[marked[m]] = U(0)
                word = (word ^ total) * PRIME
                n_marked = np.int64(0)
            word = mix(word)
            word_hash[n_words] = word
            word_chars[n_words] = chars
            n_words += 1
            line_words += 1
            line_word_chars += chars
            javascript += word == _JAVASCRIPT
            after_lorem = (last & _FIVE) == _LOREM
            word = SEED
            chars = np.int64(0)
            last = U(0)
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
def _repetition_signals(n, total_chars, word_hash, word_chars, scratch, out):
    """Scores in the order of REPETITION from the ``n`` normalised words of a document.

    ``scratch``: of ``ngram_kernels``, with room for the words.
    """
    out[:] = 0.0
    if n == 0:
        return
    _, _, where, owner, seen = scratch
    m = repeated_words(word_hash, n, scratch)
    distinct = n - m
    repeated = 0.0  # Σ x log x over the counts; a word that occurs once adds nothing
    newest = np.int64(-1)
    for k in range(m):
        if owner[k] > newest:
            newest = np.int64(owner[k])
            distinct += 1
            repeated += seen[newest] * np.log(seen[newest])
    out[0] = distinct / n
    out[1] = max(0.0, np.log(n) - repeated / n)
    for size in range(2, 11):
        m = longer(m, scratch)
        if m == 0:
            break
        chars = np.int64(0)
        if size > 4:
            covered = np.int64(0)
            for k in range(m):
                at = np.int64(where[k])
                for j in range(max(at, covered), at + size):
                    chars += word_chars[j]
                covered = at + size
        else:
            best = np.int64(1)
            best_at = np.int64(0)
            for k in range(m):
                if seen[owner[k]] > best:
                    best = np.int64(seen[owner[k]])
                    best_at = np.int64(where[k])
            for j in range(best_at, best_at + size):
                chars += best * word_chars[j]
        out[size] = chars / total_chars


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

    ``first_words`` uint64[k, 2] and ``phrases`` uint64 are tables as ``word_table`` makes them: the first
    words of listed phrases, and beside each a number whose bit j - 1 is set if one of its phrases has j
    words; and the ``chain`` of each phrase's words.
    """
    n_docs = offsets.shape[0] - 1
    room = longest_of(offsets) // 4 + 64
    grow = True
    word_hash = np.empty(0, np.uint64)
    word_chars = np.empty(0, np.int32)
    scratch = make_scratch(np.int64(0))
    marks = np.zeros(256, np.uint64)
    marked = np.empty(256, np.int64)
    d = np.int64(0)
    while d < n_docs:
        if grow:
            word_hash = np.empty(room, np.uint64)
            word_chars = np.empty(room, np.int32)
            scratch = make_scratch(room)
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
        _repetition_signals(n, counts[d, WORD_CHARS], word_hash, word_chars, scratch, repetition[d])
        bad[d] = 0
        if phrases.shape[0] > 1:
            bad[d] = _listed(word_hash, n, first_words, phrases)
        d += 1


@njit(cache=True, nogil=True)
def _listed(word_hash, n, first_words, phrases):
    """How many n-grams of the words are on the list."""
    shift = U(64) - U(np.log2(first_words.shape[0]))
    mask = first_words.shape[0] - 1
    phrase_shift = U(64) - U(np.log2(phrases.shape[0]))
    phrase_mask = phrases.shape[0] - 1
    found = np.int64(0)
    for i in range(n):
        slot = np.int64(word_hash[i] >> shift)
        while first_words[slot, 0] != 0 and first_words[slot, 0] != word_hash[i]:
            slot = (slot + 1) & mask
        lengths = first_words[slot, 1]
        if first_words[slot, 0] == 0:
            continue
        phrase = SEED
        j = i
        while lengths != 0 and j < n:
            phrase = chain(phrase, word_hash[j])
            if lengths & _ONE:
                place = np.int64(phrase >> phrase_shift)
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
            U(61), marks, marked, out[at[d] :], out_chars[at[d] :], lines, np.int64(0), sums, counts,
        )  # fmt: skip
        at[d + 1] = at[d] + counts[N_WORDS]
    return out[: at[n]], at


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


# ------------------------------------------------------------------------------------------------- dolma

# Counts of one document as dolma's taggers see it.
(
    D_CHARS,  # code points
    D_STRIPPED,  # code points without outer white space
    D_WORDS,  # words as str.split cuts them
    D_WORD_CHARS,  # code points in those
    D_SYMBOL,  # of those: holding '#' or '…'
    D_ALPHA,  # of those: holding a letter
    D_REQUIRED,  # of those: required words, each occurrence
    D_TOKENS,  # runs of \w and of other marks
    D_LINES,  # as str.split('\n') cuts them
    D_UNITS,  # of those: looked at for duplicates (blank ones only if asked for)
    D_BULLET,  # of those: starting with '*' or '-'
    D_ELLIPSIS,  # of those: ending with '…'
    D_NO_PUNCTUATION,  # of those: not ending (before white space) with . ? ! "
    D_FEW_WORDS,  # of those: of fewer than three words
    D_PARAGRAPHS,  # of those: not blank
    D_SYMBOL_PARAGRAPHS,  # of those: without a letter or number
    D_JAVASCRIPT,  # "javascript" anywhere, in any case
    D_JAVASCRIPT_WORDS,  # words equal to it
    D_LOREM,  # "lorem ipsum" anywhere, in any case
    D_CURLY,  # '{'
) = range(20)
DOLMA_COUNTS = 20
DOLMA_REPETITION = (
    "median_word_length",
    "fraction_of_duplicate_lines",
    "fraction_of_characters_in_duplicate_lines",
    *(f"fraction_of_characters_in_most_common_{n}grams" for n in (2, 3, 4)),
    *(f"fraction_of_characters_in_duplicate_{n}grams" for n in (5, 6, 7, 8, 9, 10)),
)
_JAVASCRIPT_BYTES = np.frombuffer(b"javascript", np.uint8)
_LOREM_BYTES = np.frombuffer(b"lorem ipsum", np.uint8)


@njit(cache=True, nogil=True)
def _scan_dolma(
    data,
    start,
    end,
    pages,
    flags,
    stops,
    stop_shift,
    blank_lines,
    word_hash,
    word_chars,
    line_hash,
    line_chars,
    counts,
):
    """Read ``data[start:end]``: add to ``counts``, fill the arrays. False when those are too small."""
    word_room = word_hash.shape[0]
    line_room = line_hash.shape[0]
    stop_mask = stops.shape[0] - 1
    n_chars = np.int64(0)
    n_words = np.int64(0)
    n_lines = np.int64(0)
    n_units = np.int64(0)
    word = SEED
    chars = np.int64(0)
    seen = np.int64(0)  # flags of its characters
    symbol = False
    raw_kind = np.int64(0)
    first_solid = np.int64(-1)
    last_solid = np.int64(-1)
    javascript = np.int64(0)  # how much of it the text just read ends with
    lorem = np.int64(0)
    line = SEED
    line_from = np.int64(0)
    line_words = np.int64(0)
    line_flags = np.int64(0)
    tail = np.int64(0)  # the line's last character that is not white space
    last = np.int64(0)  # its last character
    i = start
    while True:
        if i < end:
            b = data[i]
            if b < 0x80:
                cp = np.int64(b)
                size = np.int64(1)
                at = cp
            else:
                cp, size = char_at(data, i, end)
                at = (np.int64(pages[cp >> 8]) << 8) | (cp & 255)
            c = np.int64(flags[at])
        else:
            cp = np.int64(-1)
            size = np.int64(0)
            c = np.int64(SPACE)

        if (c & SPACE) != 0 and chars > 0:
            if n_words == word_room:
                return False
            word = mix(word)
            word_hash[n_words] = word
            word_chars[n_words] = chars
            n_words += 1
            line_words += 1
            counts[D_WORD_CHARS] += chars
            counts[D_SYMBOL] += symbol
            counts[D_ALPHA] += (seen & ALPHA) != 0
            counts[D_JAVASCRIPT_WORDS] += chars == 10 and javascript == 10
            slot = np.int64(word >> stop_shift)
            while stops[slot] != 0:
                if stops[slot] == word:
                    counts[D_REQUIRED] += 1
                    break
                slot = (slot + 1) & stop_mask
            word = SEED
            chars = np.int64(0)
            seen = np.int64(0)
            symbol = False
        kind = np.int64(0) if (c & SPACE) != 0 else (np.int64(1) if (c & WORD) != 0 else np.int64(2))
        counts[D_TOKENS] += kind != raw_kind and kind != 0
        raw_kind = kind

        if cp < 0 or cp == 10:
            if n_units == line_room:
                return False
            if blank_lines or line_words > 0:
                line_hash[n_units] = mix(line)
                line_chars[n_units] = n_chars - line_from
                n_units += 1
            n_lines += 1
            counts[D_ELLIPSIS] += last == _ELLIPSIS
            counts[D_NO_PUNCTUATION] += not (tail == _DOT or tail == 0x3F or tail == 0x21 or tail == _QUOTE)
            counts[D_FEW_WORDS] += line_words < 3
            counts[D_PARAGRAPHS] += line_words > 0
            counts[D_SYMBOL_PARAGRAPHS] += line_words > 0 and (line_flags & (ALPHA | NUMERIC)) == 0
            if cp < 0:
                break
            line = SEED
            line_words = np.int64(0)
            line_flags = np.int64(0)
            tail = np.int64(0)
            last = np.int64(0)
            line_from = n_chars + 1
        else:
            if n_chars == line_from:
                counts[D_BULLET] += cp == _STAR or cp == _DASH
            last = cp
            for k in range(size):
                line = (line ^ U(data[i + k])) * PRIME
        low = cp | 0x20 if cp >= 65 and cp <= 90 else cp
        javascript = np.int64(0) if javascript == 10 else javascript
        lorem = np.int64(0) if lorem == 11 else lorem
        javascript = javascript + 1 if low == _JAVASCRIPT_BYTES[javascript] else np.int64(low == 0x6A)
        lorem = lorem + 1 if low == _LOREM_BYTES[lorem] else np.int64(low == 0x6C)
        counts[D_JAVASCRIPT] += javascript == 10
        counts[D_LOREM] += lorem == 11
        if (c & SPACE) == 0:
            for k in range(size):
                word = (word ^ U(data[i + k])) * PRIME
            chars += 1
            seen |= c
            line_flags |= c
            symbol = symbol or cp == _HASH or cp == _ELLIPSIS
            counts[D_CURLY] += cp == _OPEN
            tail = cp
            if first_solid < 0:
                first_solid = n_chars
            last_solid = n_chars
        i += size
        n_chars += 1
    counts[D_CHARS] = n_chars
    counts[D_STRIPPED] = last_solid - first_solid + 1 if first_solid >= 0 else 0
    counts[D_WORDS] = n_words
    counts[D_LINES] = n_lines
    counts[D_UNITS] = n_units
    return True


@njit(cache=True, nogil=True)
def _repetition_dolma(counts, word_hash, word_chars, line_hash, line_chars, scratch, out):
    """Scores in the order of DOLMA_REPETITION. A repeated n-gram adds all its characters, at every place
    where it stands, to what repeats; the whole is the characters of all n-grams."""
    out[:] = 0.0
    n = counts[D_WORDS]
    size_words = max(counts[D_WORD_CHARS], 1)
    if counts[D_CHARS] == 0 or counts[D_UNITS] == 0:
        return
    later, later_chars, firsts, first_chars = repeated_units(line_hash, line_chars, counts[D_UNITS], scratch)
    out[1] = (later + firsts) / counts[D_UNITS]
    out[2] = (later_chars + first_chars) / size_words
    if n == 0:
        return
    out[0] = np.median(word_chars[:n])
    _, _, where, owner, seen = scratch
    m = repeated_words(word_hash, n, scratch)
    for size in range(2, min(n, 10) + 1):
        m = longer(m, scratch)
        if size < 5:
            best = np.int64(1)
            best_at = np.int64(0)
            for k in range(m):
                if seen[owner[k]] > best:
                    best = np.int64(seen[owner[k]])
                    best_at = np.int64(where[k])
            length = np.int64(0)
            for j in range(best_at, best_at + size):
                length += word_chars[j]
            out[1 + size] = best * length / size_words
            continue
        repeated = np.int64(0)
        for k in range(m):
            for j in range(where[k], where[k] + size):
                repeated += word_chars[j]
        # a word is in as many n-grams as its distance to the ends allows
        most = min(size, n - size + 1)
        total = most * counts[D_WORD_CHARS]
        for j in range(most - 1):
            total -= (most - 1 - j) * (word_chars[j] + word_chars[n - 1 - j])
        out[1 + size] = repeated / max(total, 1)


@njit(cache=True, nogil=True)
def dolma(data, offsets, pages, flags, stops, stop_shift, blank_lines, want_repetition, counts, repetition):
    """All dolma scores of a column: ``counts`` int64[n, DOLMA_COUNTS] and, if wanted, ``repetition``
    float64[n, 12]. ``blank_lines``: are blank lines duplicates of each other?"""
    n_docs = offsets.shape[0] - 1
    most = longest_of(offsets)
    word_room = most // 4 + 64
    line_room = most // 8 + 64
    grow = True
    word_hash = np.empty(0, np.uint64)
    word_chars = np.empty(0, np.int32)
    line_hash = np.empty(0, np.uint64)
    line_chars = np.empty(0, np.int32)
    scratch = make_scratch(np.int64(0))
    d = np.int64(0)
    while d < n_docs:
        if grow:
            word_hash = np.empty(word_room, np.uint64)
            word_chars = np.empty(word_room, np.int32)
            line_hash = np.empty(line_room, np.uint64)
            line_chars = np.empty(line_room, np.int32)
            scratch = make_scratch(word_room)
            grow = False
        counts[d, :] = 0
        fits = _scan_dolma(
            data, offsets[d], offsets[d + 1], pages, flags, stops, stop_shift, blank_lines, word_hash,
            word_chars, line_hash, line_chars, counts[d],
        )  # fmt: skip
        if not fits:
            word_room *= 2
            line_room *= 2
            grow = True
            continue
        if want_repetition:
            _repetition_dolma(
                counts[d], word_hash, word_chars, line_hash, line_chars, scratch, repetition[d]
            )  # fmt: skip
        d += 1


@njit(cache=True, nogil=True)
def punctuated_lines(data, offsets, pages, flags, out, out_offsets):
    """Copy the lines that end (before white space) with . ? ! or " into ``out``, newline and all."""
    filled = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        end = offsets[d + 1]
        line = offsets[d]
        tail = np.int64(0)
        i = offsets[d]
        while i <= end:
            if i == end or data[i] == 10:
                stop = i if i == end else i + 1
                if tail == _DOT or tail == 0x3F or tail == 0x21 or tail == _QUOTE:
                    filled = copy(data, line, stop, out, filled)
                line = stop
                tail = np.int64(0)
                i += 1
                continue
            b = data[i]
            if b < 0x80:
                if (flags[b] & SPACE) == 0:
                    tail = np.int64(b)
                i += 1
            else:
                cp, size = char_at(data, i, end)
                if (flags[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)] & SPACE) == 0:
                    tail = cp
                i += size
        out_offsets[d + 1] = filled


@njit(cache=True, nogil=True)
def _same(data, a, b, size, end):
    """Do ``size`` bytes at ``a`` stand at ``b`` too, before ``end``?"""
    if b + size > end:
        return False
    k = 0
    while k < size and data[a + k] == data[b + k]:
        k += 1
    return k == size


@njit(cache=True, nogil=True)
def repetitions(data, offsets, pages, flags, max_unit, whole, counts):
    """Spans of a unit that stands four times or more in a row, one white space between copies allowed.

    The shortest unit at the leftmost place wins, then the search goes on after the span: the regular
    expression ``(.+?)(\\s?\\1){3,}``, units of at most ``max_unit`` bytes. Without ``whole`` a span ends with
    its line. ``counts`` int64[n, 4]: spans, most copies, longest span and sum of spans, in code points.
    """
    for d in range(offsets.shape[0] - 1):
        begin = offsets[d]
        end = offsets[d + 1]
        counts[d, :] = 0
        line_end = begin - 1
        i = begin
        while i < end:
            if data[i] == 10 or (data[i] & 0xC0) == 0x80:
                i += 1
                continue
            if line_end < i:
                line_end = i
                while line_end < end and data[line_end] != 10:
                    line_end += 1
            limit = end if whole else line_end
            span_end = np.int64(-1)
            copies = np.int64(0)
            cp, first_width = char_at(data, i, limit)
            first = flags[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]
            size = np.int64(1)
            while size <= max_unit and i + size <= line_end and i + 4 * size <= limit:
                nxt = i + size
                # the byte after the unit starts the unit again, or is white space (all of it, one character)
                if data[nxt] != data[i] and data[nxt] > 0x20 and data[nxt] < 0x80:
                    size += 1
                    continue
                if nxt < end and (data[nxt] & 0xC0) == 0x80:
                    size += 1
                    continue
                # white space before a copy is taken if it can be; where the unit itself begins with white
                # space that may be too greedy, and the first three choices are tried the other way round, the
                # last first, as a backtracking matcher does
                tries = 8 if (first & SPACE) != 0 else 1
                for attempt in range(tries):
                    at = nxt
                    copies = np.int64(1)
                    while at < limit:
                        cp, width = char_at(data, at, limit)
                        spaced = (flags[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)] & SPACE) != 0
                        if copies <= 3 and (attempt >> (3 - copies)) & 1:
                            spaced = False
                        if spaced and _same(data, i, at + width, size, limit):
                            at += width + size
                        elif _same(data, i, at, size, limit):
                            at += size
                        else:
                            break
                        copies += 1
                    if copies >= 4:
                        break
                if copies >= 4:
                    span_end = at
                    break
                size += 1
            if span_end < 0:
                i += 1
                continue
            length = np.int64(0)
            blanks = np.int64(0)
            for k in range(i, span_end):
                length += (data[k] & 0xC0) != 0x80
                blanks += _same(data, i, k, first_width, end)
            if size == first_width and (first & SPACE) != 0:
                copies = blanks  # white space between copies of white space is a copy too
            counts[d, 0] += 1
            counts[d, 1] = max(counts[d, 1], copies)
            counts[d, 2] = max(counts[d, 2], length)
            counts[d, 3] += length
            i = span_end
