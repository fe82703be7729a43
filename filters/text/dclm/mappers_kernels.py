"""Compiled measures for the DCLM mappers outside its baseline: characters, words, lines, segments, sentences.

Each reads the bytes of a string column once, counts in code points, and makes no Python object per row.
Readable oracles: ``tests/filters/test_text_dclm_mappers.py``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.dclm.classes import ALNUM, ALPHA, GAP, SPACE, UPPER
from filters.text.utf8_kernels import char_at

MEASURES = (
    "n_chars",
    "n_alnum",  # str.isalnum
    "n_alpha",  # str.isalpha
    "n_newlines",
    "n_lines",  # as str.splitlines cuts them
    "longest_line",
    "line_chars",  # in all of them, breaks left out
    "n_words",  # as str.split cuts them
    "n_alnum_words",  # of those: starting with a letter or a digit
    "longest_word",
    "n_tokens",  # as fastText's reader cuts them, its line-end tokens left out
    "n_alnum_tokens",
    "n_space_tokens",  # of those: starting with white space (fastText cuts at ASCII white space alone)
    "n_solid_tokens",  # of those: not all white space
    "longest_token",
)
_DOT = 0x2E


@njit(cache=True, nogil=True)
def measure(data, offsets, pages, classes, out):
    """All of ``MEASURES`` for each string: ``out`` int64[n, 15]."""
    for d in range(offsets.shape[0] - 1):
        end = offsets[d + 1]
        i = offsets[d]
        n_chars = n_alnum = n_alpha = n_newlines = np.int64(0)
        n_lines = longest_line = line_chars = line = np.int64(0)
        n_words = n_alnum_words = longest_word = word = np.int64(0)
        n_tokens = n_alnum_tokens = n_space_tokens = n_solid_tokens = longest_token = token = np.int64(0)
        solid = False
        open_line = False  # something since the last break
        after_cr = False
        while i < end:
            b = data[i]
            if b < 0x80:
                cp = np.int64(b)
                size = np.int64(1)
                c = np.int64(classes[b])
            else:
                cp, size = char_at(data, i, end)
                c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
            i += size
            n_chars += 1
            alnum = (c & ALNUM) != 0
            space = (c & SPACE) != 0
            n_alnum += alnum
            n_alpha += (c & ALPHA) != 0
            if c & GAP:
                if token > 0:
                    longest_token = max(longest_token, token)
                    n_solid_tokens += solid
                    token = np.int64(0)
            else:
                if token == 0:
                    n_tokens += 1
                    n_alnum_tokens += alnum
                    n_space_tokens += space
                    solid = False
                solid = solid or not space
                token += 1
            if not space:
                if word == 0:
                    n_words += 1
                    n_alnum_words += alnum
                word += 1
                line += 1
                open_line = True
                after_cr = False
                continue
            if word > 0:
                longest_word = max(longest_word, word)
                word = np.int64(0)
            breaks = (
                (cp >= 0x0A and cp <= 0x0D)
                or (cp >= 0x1C and cp <= 0x1E)
                or cp == 0x85
                or cp == 0x2028
                or cp == 0x2029
            )
            if not breaks:
                line += 1
                open_line = True
                after_cr = False
                continue
            n_newlines += cp == 10
            if cp == 10 and after_cr:  # '\r\n' is one break
                after_cr = False
                continue
            n_lines += 1
            longest_line = max(longest_line, line)
            line_chars += line
            line = np.int64(0)
            open_line = False
            after_cr = cp == 13
        if open_line:
            n_lines += 1
            longest_line = max(longest_line, line)
            line_chars += line
        if token > 0:
            longest_token = max(longest_token, token)
            n_solid_tokens += solid
        longest_word = max(longest_word, word)
        row = out[d]
        row[0] = n_chars
        row[1] = n_alnum
        row[2] = n_alpha
        row[3] = n_newlines
        row[4] = n_lines
        row[5] = longest_line
        row[6] = line_chars
        row[7] = n_words
        row[8] = n_alnum_words
        row[9] = longest_word
        row[10] = n_tokens
        row[11] = n_alnum_tokens
        row[12] = n_space_tokens
        row[13] = n_solid_tokens
        row[14] = longest_token


@njit(cache=True, nogil=True)
def segments(data, offsets, pages, classes, separator, remove_empty, out):
    """How many pieces ``str.split(separator)`` gives; with ``remove_empty`` those not all white space.

    ``separator``: uint8, one byte or more. ``out``: int64[n].
    """
    m = separator.shape[0]
    for d in range(offsets.shape[0] - 1):
        end = offsets[d + 1]
        i = offsets[d]
        n = np.int64(0)
        solid = False
        while i < end:
            b = data[i]
            if b == separator[0] and i + m <= end:
                same = True
                for k in range(1, m):
                    same = same and data[i + k] == separator[k]
                if same:
                    n += solid or not remove_empty
                    solid = False
                    i += m
                    continue
            if b < 0x80:
                solid = solid or (classes[b] & SPACE) == 0
                i += 1
                continue
            cp, size = char_at(data, i, end)
            solid = solid or (classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)] & SPACE) == 0
            i += size
        out[d] = n + (solid or not remove_empty)


@njit(cache=True, nogil=True)
def sentences(data, offsets, pages, classes, out):
    """Sentences by rule: int64[n] in ``out``. The rule is in ``mappers.Sentences``."""
    for d in range(offsets.shape[0] - 1):
        end = offsets[d + 1]
        i = offsets[d]
        n = np.int64(0)
        solid = False  # something but white space in the sentence
        mark = False  # a mark that can end it was met, and after it only closing quotes and brackets
        dot = False  # that mark was one '.'
        spaced = False  # white space after the mark
        letters = np.int64(0)  # characters of the word before the mark
        before = np.int64(0)  # the same when the mark was met
        capital = False  # is the word one capital letter?
        while i < end:
            cp, size = char_at(data, i, end)
            c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
            i += size
            if c & SPACE:
                spaced = mark
                letters = np.int64(0)
                continue
            closes = (
                cp == 0x22
                or cp == 0x27
                or cp == 0x29
                or cp == 0x5D
                or cp == 0xBB
                or cp == 0x2019
                or cp == 0x201D
            )
            wide = cp == 0x3002 or cp == 0xFF01 or cp == 0xFF1F  # 。！？ need no space after them
            marks = cp == _DOT or cp == 0x21 or cp == 0x3F or cp == 0x2026
            if mark and spaced:
                lower = (c & ALPHA) != 0 and (c & UPPER) == 0 and cp < 0x2000
                if not (dot and (lower or (before == 1 and capital))):
                    n += 1
                    solid = False
                mark = spaced = False
            if wide:
                n += solid or mark
                mark = spaced = solid = False
                letters = np.int64(0)
                continue
            if marks:
                dot = cp == _DOT and not mark
                if not mark:
                    before = letters
                mark = solid
                letters = np.int64(0)
            elif mark and not closes:
                mark = False
            if not marks and not closes:
                solid = True
                letters += 1
                capital = (c & UPPER) != 0
        out[d] = n + solid
