"""Compiled C4 over the UTF-8 buffers of an Arrow string column: what each line is, and the text that is left.

``measure`` reads one line: words, the longest of them, listed phrases (an automaton over lower-cased ASCII
that runs along), curly brackets, how the line ends and how many sentences it holds. ``c4`` walks the lines of
every document, applies the line rules to those numbers and, when asked, writes the lines that stay. No Python
object per document or line.

Readable oracle of every number here: ``tests/filters/oracle_lines.py``.
"""

# ruff: noqa: SIM109 (comparisons compile to better code than membership in a tuple)
from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.codepoints import ALPHA, BREAK, DIGIT, EXTEND, KIND, SINGLE, SPACE, UPPER, WORD
from filters.text.hash_kernels import U
from filters.text.kernels import TERMINAL
from filters.text.utf8_kernels import char_at, copy, longest_of

C4 = (
    "n_lines",  # as str.splitlines cuts them
    "n_kept_lines",
    "n_long_word_lines",  # left out, and why: each line is counted once, at the first rule that fails
    "n_unended_lines",
    "n_few_words_lines",
    "n_javascript_lines",
    "n_policy_lines",
    "n_lorem_ipsum_lines",  # among the lines that got past the rules before it
    "n_curly_bracket_lines",
    "n_sentences",  # in the kept lines
    "n_words",  # in the kept lines, as str.split cuts them, citations included
    "n_citations",
    "longest_word",  # code points, in the whole text
)
(
    LINES, KEPT, LONG_WORD, UNENDED, FEW_WORDS, JAVASCRIPT, POLICY, LOREM, CURLY, SENTENCES, WORDS, CITATIONS,
    LONGEST,
) = range(13)  # fmt: skip

# Bits of what a line's automaton can find.
FOUND_LOREM, FOUND_JAVASCRIPT, FOUND_POLICY = 1, 2, 4
# Bits of how a line ends, and of what it holds.
ENDED, ELLIPSIS, LOOSE, HAS_CURLY, HAS_SQUARE = 1, 2, 4, 8, 16

_EIGHT = U(8)
_KELVIN = 0x212A  # the one character outside ASCII whose lower case is in it


@njit(cache=True, nogil=True)
def measure(data, i, end, pages, classes, moves, accepting, accepted, abbreviations):
    """Read ``data[i:end]`` up to its first line break.

    ``moves`` uint8[128 × states] is the phrase automaton: ``moves[state << 7 | byte]``; states from
    ``accepting`` on have found ``accepted[state]``. ``abbreviations`` uint64: words (up to eight ASCII bytes,
    first byte highest) whose point ends no sentence.

    Returns (where it stopped, first and last byte but white space, words, code points of the longest, bits
    found, bits of shape, sentences). The sentence rule is the one of ``filters.text.c4``.
    """
    first = np.int64(-1)
    last = i
    words = np.int64(0)
    chars = np.int64(0)  # of the open word
    longest = np.int64(0)
    found = np.int64(0)
    state = np.int64(0)
    shape = np.int64(0)
    # sentences
    starts = np.int64(0)
    ended = False  # the next word starts a sentence
    pending = False  # a mark stands; white space after it would end the sentence
    glued = False  # that mark is a point right after a lower-case letter
    run = np.int64(0)  # code points of the letters and digits just read
    run_from = i
    run_class = np.int64(0)  # class of the last of them
    dots = np.int64(0)  # points just read
    cp = np.int64(-1)
    while i < end:
        b = data[i]
        if b < 0x80:
            cp = np.int64(b)
            size = np.int64(1)
            c = np.int64(classes[cp])
            state = np.int64(moves[(state << 7) | cp])
            if state >= accepting:
                found |= accepted[state]
        else:
            cp, size = char_at(data, i, end)
            c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
            state = np.int64(moves[(state << 7) | 0x6B]) if cp == _KELVIN else np.int64(0)
            if state >= accepting:
                found |= accepted[state]
        kind = c & KIND
        if c & SPACE:
            if c & BREAK:
                break
            if chars > 0:
                words += 1
                longest = max(longest, chars)
                chars = np.int64(0)
            ended = ended or pending
            pending = False
            run = np.int64(0)
            dots = np.int64(0)
            i += size
            continue
        if first < 0:
            first = i
        chars += 1
        if kind == WORD or kind == SINGLE:
            if run == 0 or kind == SINGLE:
                if ended or (pending and glued and (c & UPPER) != 0):
                    starts += 1
                ended = False
                pending = False
                run_from = i
                run = np.int64(0)
            run += 1
            run_class = c
            dots = np.int64(0)
            i += size
            if kind == WORD and size == 1:
                while i < end and data[i] < 0x80 and (classes[data[i]] & KIND) == WORD:
                    b = data[i]
                    state = np.int64(moves[(state << 7) | np.int64(b)])
                    if state >= accepting:
                        found |= accepted[state]
                    run_class = np.int64(classes[b])
                    run += 1
                    chars += 1
                    i += 1
                cp = np.int64(data[i - 1])
            last = i
            continue
        if kind == EXTEND and run > 0:
            # a mark on a letter is part of it
            i += size
            last = i
            continue
        if cp == 0x2E:
            if dots > 0:
                pending = False
            else:
                stands = True
                glued = False
                if run > 0:
                    glued = (run_class & ALPHA) != 0 and (run_class & UPPER) == 0
                    if run == 1 and (run_class & ALPHA) != 0:
                        stands = False
                    elif i - run_from <= 8:
                        packed = U(0)
                        for k in range(run_from, i):
                            packed = (packed << _EIGHT) | U(data[k])
                        for k in range(abbreviations.shape[0]):
                            if abbreviations[k] == packed:
                                stands = False
                pending = pending or stands
            dots += 1
        else:
            dots = np.int64(0)
            glued = False
            if cp == 0x21 or cp == 0x3F:
                pending = True
            elif c & TERMINAL:
                ended = True
            elif cp == 0x7B:
                shape |= HAS_CURLY
            elif cp == 0x5B:
                shape |= HAS_SQUARE
        run = np.int64(0)
        i += size
        last = i
    if chars > 0:
        words += 1
        longest = max(longest, chars)
    if first < 0:
        first = i
        last = i
    else:
        tail = data[last - 1]
        if tail == 0x2E or tail == 0x3F or tail == 0x21 or tail == 0x22 or tail == 0x27:
            shape |= ENDED
        if last - first >= 3 and tail == 0x2E and data[last - 2] == 0x2E and data[last - 3] == 0x2E:
            shape |= ELLIPSIS
    if last < i:
        shape |= LOOSE
    sentences = np.int64(1) + starts if last > first else np.int64(0)
    return i, first, last, words, longest, found, shape, sentences


@njit(cache=True, nogil=True)
def _starts_with(data, i, end, text):
    if i + text.shape[0] > end:
        return False
    for k in range(text.shape[0]):  # noqa: SIM110
        if data[i + k] != text[k]:
            return False
    return True


@njit(cache=True, nogil=True)
def without_citations(data, start, end, out, pages, classes, edit, needed):
    """Copy ``data[start:end]`` into ``out`` without ``[12]``, ``[]``, ``[edit]`` and ``[citation needed]``.

    Returns (bytes copied, citations left out). ``edit`` and ``needed`` are the last two as bytes.
    """
    n = np.int64(0)
    citations = np.int64(0)
    i = start
    while i < end:
        if data[i] == 0x5B:
            # past the digits, of any script
            j = i + 1
            while j < end and data[j] != 0x5D:
                cp, size = char_at(data, j, end)
                if np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)]) & DIGIT == 0:
                    break
                j += size
            size = np.int64(0)
            if j < end and data[j] == 0x5D:
                size = j + 1 - i
            elif _starts_with(data, i, end, edit):
                size = np.int64(edit.shape[0])
            elif _starts_with(data, i, end, needed):
                size = np.int64(needed.shape[0])
            if size > 0:
                citations += 1
                i += size
                continue
        out[n] = data[i]
        n += 1
        i += 1
    return n, citations


@njit(cache=True, nogil=True)
def c4(
    data,
    offsets,
    pages,
    classes,
    moves,
    accepting,
    accepted,
    abbreviations,
    edit,
    needed,
    remove_citations,
    need_ending,
    min_words,
    max_word_chars,
    drop_javascript,
    drop_policy,
    counts,
    out,
    out_offsets,
):
    """Walk every line of every document.

    ``counts`` int64[n, 13] gets the numbers of ``C4``. ``out`` uint8 is as long as the text and gets the kept
    lines, joined by ``\\n`` and stripped; ``out_offsets`` int64[n + 1] says where each document's are. When
    ``out`` is empty nothing is written.
    """
    n_docs = offsets.shape[0] - 1
    write = out.shape[0] > 0
    scratch = np.empty(longest_of(offsets) if remove_citations else 0, np.uint8)
    at = np.int64(0)
    out_offsets[0] = 0
    for d in range(n_docs):
        i = offsets[d]
        end = offsets[d + 1]
        doc_at = at
        text_from = np.int64(-1)  # where the first character but white space was written, and the last
        text_to = at
        n_lines = np.int64(0)
        n_kept = np.int64(0)
        n_long = np.int64(0)
        n_unended = np.int64(0)
        n_few = np.int64(0)
        n_javascript = np.int64(0)
        n_policy = np.int64(0)
        n_lorem = np.int64(0)
        n_curly = np.int64(0)
        n_sentences = np.int64(0)
        n_words = np.int64(0)
        n_citations = np.int64(0)
        longest_word = np.int64(0)
        while i < end:
            i, first, last, words, longest, found, shape, sentences = measure(
                data, i, end, pages, classes, moves, accepting, accepted, abbreviations
            )
            # over the break; "\r\n" is one
            if i < end:
                b = data[i]
                if b == 0x0D and i + 1 < end and data[i + 1] == 0x0A:
                    i += 2
                elif b < 0x80:
                    i += 1
                else:
                    i += 2 if b == 0xC2 else 3
            n_lines += 1
            longest_word = max(longest_word, longest)
            if max_word_chars > 0 and longest > max_word_chars:
                n_long += 1
                continue
            shape &= ~LOOSE  # the line is taken stripped
            cited = np.int64(0)
            length = np.int64(0)
            if remove_citations and shape & HAS_SQUARE:
                length, cited = without_citations(data, first, last, scratch, pages, classes, edit, needed)
                if cited > 0:
                    n_citations += cited
                    _, new_first, new_last, _, _, found, shape, sentences = measure(
                        scratch, np.int64(0), length, pages, classes, moves, accepting, accepted,
                        abbreviations,
                    )  # fmt: skip
            if need_ending and (shape & ENDED == 0 or shape & (ELLIPSIS | LOOSE)):
                n_unended += 1
                continue
            if words < min_words:
                n_few += 1
                continue
            n_lorem += (found & FOUND_LOREM) != 0
            if drop_javascript and found & FOUND_JAVASCRIPT:
                n_javascript += 1
                continue
            n_curly += (shape & HAS_CURLY) != 0
            if drop_policy and found & FOUND_POLICY:
                n_policy += 1
                continue
            n_kept += 1
            n_sentences += sentences
            n_words += words
            if write:
                if n_kept > 1:
                    out[at] = 0x0A
                    at += 1
                if cited > 0:
                    copy(scratch, np.int64(0), length, out, at)
                    first = new_first
                    last = new_last
                else:
                    length = last - first
                    copy(data, first, last, out, at)
                    last -= first
                    first = np.int64(0)
                if last > first:
                    if text_from < 0:
                        text_from = at + first
                    text_to = at + last
                at += length
        row = counts[d]
        row[LINES] = n_lines
        row[KEPT] = n_kept
        row[LONG_WORD] = n_long
        row[UNENDED] = n_unended
        row[FEW_WORDS] = n_few
        row[JAVASCRIPT] = n_javascript
        row[POLICY] = n_policy
        row[LOREM] = n_lorem
        row[CURLY] = n_curly
        row[SENTENCES] = n_sentences
        row[WORDS] = n_words
        row[CITATIONS] = n_citations
        row[LONGEST] = longest_word
        if write:
            # strip what citations left at the ends
            at = doc_at
            if text_from >= 0:
                for k in range(text_to - text_from):
                    out[at + k] = out[text_from + k]
                at += text_to - text_from
        out_offsets[d + 1] = at
