"""Compiled passes over the UTF-8 buffers of an Arrow string column. No Python object per document.

``scan`` reads each byte of a document once and leaves, in scratch arrays re-used for the next document:

* per token: a 64-bit hash and its length in code points (``word_hash``, ``word_chars``);
* per line (maximal run without ``\\n``) and per paragraph (runs parted by two or more ``\\n``, outer white
  space stripped): the same two numbers; per line also ``line_flags``: does it hold more than white space, and
  is its last character one of the stop characters (class flag TERMINAL);
* counts that any rule family can read (``COUNTS``).

Rule families (``gopher_quality``, ``gopher_repetition``, ``fineweb_quality``) turn those into scores and
never look at the bytes again. Equality of words, lines and paragraphs is equality of 64-bit hashes.

Duplicate n-grams are found by ``ngram_kernels``.

Readable oracles of every number here: ``tests/filters/oracle.py``.
"""

# ruff: noqa: SIM109 (comparisons were measured 6 % faster here than membership in a tuple)
from __future__ import annotations

import numpy as np
from numba import njit

from filters.text.codepoints import (
    ALPHA,
    BREAK,
    DIGIT,
    EXTEND,
    KIND,
    OTHER,
    SEPARATOR,
    SINGLE,
    SOLID,
    SPACE,
    WORD,
)
from filters.text.hash_kernels import PRIME, SEED, U, chain, mix
from filters.text.ngram_kernels import group, longer, make_scratch, repeated_pairs, repeated_units
from filters.text.utf8_kernels import char_at, decode, longest_of  # noqa: F401 (decode: others ask here)

# A class flag beside those of ``codepoints``: the character ends a line as a sentence would.
TERMINAL = 512
# Flags of a line.
NOT_BLANK, ENDS_WELL = 1, 2

# How tokens are cut.
UNICODE, TOKENS, WHITESPACE, WHOLE, NOTHING = range(5)

# Rows of the counts of one document.
(
    N_CHARS,  # code points
    N_TOKENS,  # tokens
    N_WORDS,  # tokens with a SOLID character
    WORD_CHARS,  # code points in those
    N_ALPHA,  # tokens with an ALPHA character
    N_STOP,  # distinct stop words present
    N_HASH,  # '#'
    N_ELLIPSIS,  # '…' and non-overlapping '...'
    N_SPLIT_LINES,  # lines as str.splitlines cuts them
    N_BULLET,  # of those: starting (after white space) with '•' or '-'
    N_ELLIPSIS_LINES,  # of those: ending (before white space) with '…' or '...'
    N_LINES,  # runs without '\n', as re.split('\n+') cuts them
    N_PARAGRAPHS,  # as re.split('\n{2,}', text.strip()) cuts them
    N_NEWLINES,  # '\n'
) = range(14)
COUNTS = 14

QUALITY = (
    "n_words",
    "n_tokens",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_line_ratio",
    "ellipsis_line_ratio",
    "alpha_word_ratio",
    "n_stop_words",
)
REPETITION = (
    "n_chars",
    "dup_para_frac",
    "dup_para_char_frac",
    "dup_line_frac",
    "dup_line_char_frac",
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
FINEWEB = ("n_lines", "line_punct_ratio", "short_line_ratio", "char_dup_ratio", "newline_ratio")

_NEWLINE = U(0x2545F4914F6CDD1D)

_DOT, _ELLIPSIS, _HASH, _BULLET, _DASH = 0x2E, 0x2026, 0x23, 0x2022, 0x2D
_COMMA, _APOSTROPHE, _QUOTE = 0x2C, 0x27, 0x2019


@njit(cache=True, nogil=True)
def scan(
    data,
    start,
    end,
    mode,
    pages,
    classes,
    stops,
    stop_shift,
    stop_seen,
    stamp,
    word_hash,
    word_chars,
    line_hash,
    line_chars,
    line_flags,
    para_hash,
    para_chars,
    counts,
):
    """Read one document ``data[start:end]``; fill the arrays and add to ``counts``.

    The text is cut into *atoms*: a word, a single-character word, a run of one symbol, a control character,
    a white-space character. ``mode`` says how atoms make tokens: UNICODE (each that holds a letter, mark or
    number is one), TOKENS (runs of a symbol too), WHITESPACE (those between white space are merged, as
    ``str.split``), WHOLE (the text is one token, and only token counts change), NOTHING (no tokens, they come
    from elsewhere). Tokens are appended at ``counts[N_TOKENS]``.

    ``stops`` is an open-addressing table of token hashes (0: empty slot), ``stop_seen[slot]`` the last
    ``stamp`` under which that stop word was met. Returns False when an array is too small: grow it and start
    the document again.
    """
    word_room = word_hash.shape[0]
    line_room = line_hash.shape[0]
    stop_mask = stops.shape[0] - 1
    n_chars = np.int64(0)
    # the open atom: its kind (-1: none), first character, hash, length, classes of its characters
    atom_kind = np.int64(-1)
    atom_cp = np.int64(0)
    atom = SEED
    atom_from = np.int64(0)
    atom_flags = np.int64(0)
    run = np.int64(0)  # how often its first character is repeated
    extended = False
    before = np.int64(0)  # class of its last character
    # the open token
    token = SEED
    token_chars = np.int64(0)
    token_flags = np.int64(0)
    # the line of str.splitlines
    split_start = start
    fresh = True  # only white space so far in it
    bullet = False  # its first other character is a bullet
    tail = np.int64(0)  # dots at its end, white space aside; '…' counts three
    after_cr = False
    # the run without '\n'
    n_lines = np.int64(0)
    line = SEED
    line_from = np.int64(0)
    solid = np.int64(0)  # NOT_BLANK once it holds more than white space
    last = np.int64(0)  # class of its last character; 0 for white space
    # the paragraph; solid_* is its state at the last character that is not white space
    n_paras = np.int64(0)
    para = SEED
    para_from = np.int64(-1)  # -1: still in the white space before the text
    solid_para = SEED
    solid_chars = np.int64(0)
    solid_index = np.int64(0)
    solid_from = np.int64(0)

    i = start
    while True:
        # ---- the next character; the end of the text acts as one more white space
        if i < end:
            b = data[i]
            if b < 0x80:
                cp = np.int64(b)
                size = np.int64(1)
                c = np.int64(classes[cp])
            else:
                cp, size = char_at(data, i, end)
                c = np.int64(classes[(np.int64(pages[cp >> 8]) << 8) | (cp & 255)])
        else:
            cp = np.int64(-1)
            size = np.int64(0)
            c = np.int64(SEPARATOR | SPACE)
        kind = c & KIND

        # ---- does it continue the open atom?
        if atom_kind == WORD:
            goes_on = kind == WORD or kind == EXTEND
            if (
                not goes_on
                and i + size < end
                and (cp == _APOSTROPHE or cp == _QUOTE or cp == _DOT or cp == _COMMA)
            ):
                # a mark inside a word: don't, 3.14, 1,000
                acp, _ = char_at(data, i + size, end)
                after = np.int64(classes[(np.int64(pages[acp >> 8]) << 8) | (acp & 255)])
                if cp == _APOSTROPHE or cp == _QUOTE:
                    goes_on = (before & ALPHA) != 0 and (after & ALPHA) != 0 and (after & KIND) == WORD
                else:
                    goes_on = (before & DIGIT) != 0 and (after & DIGIT) != 0
        elif atom_kind == OTHER and kind == OTHER:
            goes_on = cp == atom_cp and not extended
            run += goes_on
        else:
            goes_on = kind == EXTEND and (atom_kind == OTHER or atom_kind == SINGLE)
            extended = extended or goes_on
        if goes_on:
            for k in range(size):
                atom = (atom ^ U(data[i + k])) * PRIME
            i += size
            n_chars += 1
            atom_flags |= c
            before = c
            if kind == WORD:
                while i < end and data[i] < 0x80 and (classes[data[i]] & KIND) == WORD:
                    before = np.int64(classes[data[i]])
                    atom_flags |= before
                    atom = (atom ^ U(data[i])) * PRIME
                    i += 1
                    n_chars += 1
            continue

        # ---- close the open atom
        if atom_kind >= 0:
            tail = np.int64(0)
            if atom_kind == OTHER and mode != WHOLE:
                if fresh:
                    bullet = atom_cp == _BULLET or atom_cp == _DASH
                if atom_cp == _DOT:
                    counts[N_ELLIPSIS] += run // 3
                    tail = np.int64(0) if extended else run
                elif atom_cp == _ELLIPSIS:
                    counts[N_ELLIPSIS] += run
                    tail = np.int64(0) if extended else np.int64(3)
                elif atom_cp == _HASH:
                    counts[N_HASH] += run
            fresh = False
            solid = np.int64(NOT_BLANK)
            last = before
            atom = mix(atom)
            line = chain(line, atom)
            if para_from < 0:
                para_from = atom_from
                para = SEED
            para = chain(para, atom)
            solid_para = para
            solid_chars = n_chars
            solid_index = n_paras
            solid_from = para_from
            if (
                mode == WHITESPACE
                or mode == WHOLE
                or (mode == UNICODE and (atom_flags & SOLID) != 0)
                or (mode == TOKENS and atom_kind != SEPARATOR)
            ):
                token = chain(token, atom)
                token_chars += n_chars - atom_from
                token_flags |= atom_flags
            atom_kind = np.int64(-1)

        # ---- close the open token
        if token_chars > 0 and (mode <= TOKENS or cp < 0 or (mode == WHITESPACE and (c & SPACE) != 0)):
            n = counts[N_TOKENS]
            if n == word_room:
                return False
            word_hash[n] = token
            word_chars[n] = token_chars
            counts[N_TOKENS] = n + 1
            if token_flags & SOLID:
                counts[N_WORDS] += 1
                counts[WORD_CHARS] += token_chars
            if token_flags & ALPHA:
                counts[N_ALPHA] += 1
            slot = np.int64(token >> stop_shift)
            while stops[slot] != 0:
                if stops[slot] == token:
                    if stop_seen[slot] != stamp:
                        stop_seen[slot] = stamp
                        counts[N_STOP] += 1
                    break
                slot = (slot + 1) & stop_mask
            token = SEED
            token_chars = np.int64(0)
            token_flags = np.int64(0)
        if cp < 0:
            break

        if (c & SPACE) == 0:
            # ---- open an atom
            atom_kind = np.int64(WORD) if kind == EXTEND else kind
            atom_cp = cp
            atom = SEED
            for k in range(size):
                atom = (atom ^ U(data[i + k])) * PRIME
            atom_from = n_chars
            atom_flags = c
            before = c
            run = np.int64(1)
            extended = False
            after_cr = False
            i += size
            n_chars += 1
            if kind == WORD:
                while i < end and data[i] < 0x80 and (classes[data[i]] & KIND) == WORD:
                    before = np.int64(classes[data[i]])
                    atom_flags |= before
                    atom = (atom ^ U(data[i])) * PRIME
                    i += 1
                    n_chars += 1
            continue

        # ---- white space
        if mode == WHOLE:
            token = chain(token, mix(U(cp)))
            token_chars += 1
            i += size
            n_chars += 1
            continue
        breaks = np.int64((c & BREAK) != 0)
        if cp == 10:
            run = np.int64(1)
            while i + run < end and data[i + run] == 10:
                run += 1
            # '\r\n' is one break, and the '\r' has closed the line already
            breaks = run - after_cr
            if n_lines + 2 > line_room:
                return False
            line_hash[n_lines] = line
            line_chars[n_lines] = n_chars - line_from
            line_flags[n_lines] = solid | (ENDS_WELL if last & TERMINAL else 0)
            solid = np.int64(0)
            last = np.int64(0)
            n_lines += 1
            i += run
            n_chars += run
            counts[N_NEWLINES] += run
            line = SEED
            line_from = n_chars
            if para_from >= 0:
                if run == 1:
                    para = chain(para, _NEWLINE)
                else:
                    para_hash[n_paras] = para
                    para_chars[n_paras] = n_chars - run - para_from
                    n_paras += 1
                    para = SEED
                    para_from = n_chars
            split_start = i
        else:
            atom = mix(U(cp))
            line = chain(line, atom)
            para = chain(para, atom)
            last = np.int64(0)
            i += size
            n_chars += 1
        after_cr = cp == 13
        if breaks > 0:
            counts[N_SPLIT_LINES] += breaks
            counts[N_BULLET] += bullet
            counts[N_ELLIPSIS_LINES] += tail >= 3
            fresh = True
            bullet = False
            tail = np.int64(0)
            split_start = i

    if mode == WHOLE:
        return True
    if split_start < end:
        counts[N_SPLIT_LINES] += 1
        counts[N_BULLET] += bullet
        counts[N_ELLIPSIS_LINES] += tail >= 3
    line_hash[n_lines] = line
    line_chars[n_lines] = n_chars - line_from
    line_flags[n_lines] = solid | (ENDS_WELL if last & TERMINAL else 0)
    counts[N_LINES] = n_lines + 1
    # the last paragraph ends with the last character that is not white space
    para_hash[solid_index] = solid_para
    para_chars[solid_index] = solid_chars - solid_from
    counts[N_PARAGRAPHS] = solid_index + 1
    counts[N_CHARS] = n_chars
    return True


@njit(cache=True, nogil=True)
def gopher_quality(counts, out):
    """Scores in the order of ``QUALITY``. A ratio over nothing is 0."""
    tokens = counts[N_TOKENS]
    lines = counts[N_SPLIT_LINES]
    out[0] = counts[N_WORDS]
    out[1] = tokens
    out[2] = counts[WORD_CHARS] / counts[N_WORDS] if counts[N_WORDS] else 0.0
    out[3] = counts[N_HASH] / tokens if tokens else 0.0
    out[4] = counts[N_ELLIPSIS] / tokens if tokens else 0.0
    out[5] = counts[N_BULLET] / lines if lines else 0.0
    out[6] = counts[N_ELLIPSIS_LINES] / lines if lines else 0.0
    out[7] = counts[N_ALPHA] / tokens if tokens else 0.0
    out[8] = counts[N_STOP]


@njit(cache=True, nogil=True)
def gopher_repetition(
    counts, word_hash, word_chars, line_hash, line_chars, para_hash, para_chars, scratch, out
):
    """Scores in the order of ``REPETITION``, as fractions of the document's code points.

    ``scratch``: of ``ngram_kernels``, with room for the tokens, lines and paragraphs.
    """
    out[:] = 0.0
    n_chars = counts[N_CHARS]
    out[0] = n_chars
    if n_chars == 0:
        return
    units, chars, _, _ = repeated_units(para_hash, para_chars, counts[N_PARAGRAPHS], scratch)
    out[1] = units / counts[N_PARAGRAPHS]
    out[2] = chars / n_chars
    units, chars, _, _ = repeated_units(line_hash, line_chars, counts[N_LINES], scratch)
    out[3] = units / counts[N_LINES]
    out[4] = chars / n_chars

    n = counts[N_TOKENS]
    _, _, where, owner, seen = scratch
    m = repeated_pairs(word_hash, n, scratch)
    for size in range(2, 11):
        if n < size:
            break
        if size > 2:
            m = longer(m, scratch)
        if size < 5:
            best = np.int64(1)
            best_at = np.int64(0)
            for k in range(m):
                if seen[owner[k]] > best:
                    best = np.int64(seen[owner[k]])
                    best_at = np.int64(where[k])
            length = np.int64(size - 1)
            for j in range(size):
                length += word_chars[best_at + j]
            out[5 + size - 2] = best * length / n_chars
            continue
        # the walk: an n-gram met before (its count is made negative) counts in full and is stepped over, a
        # new one is remembered
        duplicated = np.int64(0)
        free_from = np.int64(0)
        for k in range(m):
            at = np.int64(where[k])
            if at < free_from:
                continue
            if seen[owner[k]] < 0:
                for j in range(size):
                    duplicated += word_chars[at + j]
                free_from = at + size
            else:
                seen[owner[k]] = -seen[owner[k]]
        out[8 + size - 5] = duplicated / n_chars
        if m == 0:
            break


@njit(cache=True, nogil=True)
def fineweb_quality(counts, line_hash, line_chars, line_flags, short_line_chars, scratch, out):
    """Scores in the order of ``FINEWEB``, over the lines that hold more than white space.

    ``scratch``: of ``ngram_kernels``, with room for the lines. A ratio over nothing is 0.
    """
    out[:] = 0.0
    n = counts[N_LINES]
    group(line_hash, n, scratch)
    owner = scratch[3]
    lines = np.int64(0)
    ended = np.int64(0)
    short = np.int64(0)
    repeated_chars = np.int64(0)
    for i in range(n):
        if line_flags[i] & NOT_BLANK == 0:
            continue
        lines += 1
        ended += (line_flags[i] & ENDS_WELL) != 0
        short += line_chars[i] <= short_line_chars
        if owner[i] != i:
            repeated_chars += line_chars[i]
    out[0] = lines
    if lines:
        out[1] = ended / lines
        out[2] = short / lines
        out[3] = repeated_chars / (counts[N_CHARS] - counts[N_NEWLINES])
    out[4] = counts[N_NEWLINES] / max(np.int64(1), counts[N_TOKENS])


@njit(cache=True, nogil=True)
def scores(
    data,
    offsets,
    mode,
    given_data,
    given_offsets,
    given_docs,
    pages,
    classes,
    stops,
    stop_shift,
    want_quality,
    want_repetition,
    want_fineweb,
    short_line_chars,
    quality,
    repetition,
    fineweb,
):
    """The wanted families of scores of all documents of a column, from one scan of each.

    ``data`` uint8 and ``offsets`` int64[n + 1] are the column's UTF-8 buffers. With ``mode`` NOTHING the
    words of document d are the strings ``given_docs[d] … given_docs[d + 1]`` of the second pair of buffers.
    ``quality`` float64[n, 9], ``repetition`` float64[n, 14] and ``fineweb`` float64[n, 5] are filled (or
    empty when not wanted).
    """
    n_docs = offsets.shape[0] - 1
    most = longest_of(offsets)
    if mode == NOTHING:
        most = max(most, longest_of(given_docs))
    # rarely too small; a document that overflows is read again with twice the room
    word_room = most // 3 + 64
    line_room = most // 8 + 64
    grow = True
    word_hash = np.empty(0, np.uint64)
    word_chars = np.empty(0, np.int32)
    line_hash = np.empty(0, np.uint64)
    line_chars = np.empty(0, np.int32)
    line_flags = np.empty(0, np.uint8)
    para_hash = np.empty(0, np.uint64)
    para_chars = np.empty(0, np.int32)
    scratch = make_scratch(np.int64(0))
    stop_seen = np.full(stops.shape[0], -1, np.int64)
    counts = np.empty(COUNTS, np.int64)
    d = np.int64(0)
    while d < n_docs:
        if grow:
            word_hash = np.empty(word_room, np.uint64)
            word_chars = np.empty(word_room, np.int32)
            line_hash = np.empty(line_room, np.uint64)
            line_chars = np.empty(line_room, np.int32)
            line_flags = np.empty(line_room, np.uint8)
            para_hash = np.empty(line_room, np.uint64)
            para_chars = np.empty(line_room, np.int32)
            if want_repetition or want_fineweb:
                scratch = make_scratch(word_room)
            grow = False
        counts[:] = 0
        fits = True
        if mode == NOTHING:
            for w in range(given_docs[d], given_docs[d + 1]):
                fits = fits and scan(
                    given_data, given_offsets[w], given_offsets[w + 1], np.int64(WHOLE), pages, classes,
                    stops, stop_shift, stop_seen, d, word_hash, word_chars, line_hash, line_chars, line_flags,
                    para_hash, para_chars, counts,
                )  # fmt: skip
        fits = fits and scan(
            data, offsets[d], offsets[d + 1], mode, pages, classes, stops, stop_shift,
            stop_seen, d, word_hash, word_chars, line_hash, line_chars, line_flags, para_hash, para_chars,
            counts,
        )  # fmt: skip
        if not fits:
            word_room *= 2
            line_room *= 2
            grow = True
            stop_seen[:] = -1
            continue
        if want_quality:
            gopher_quality(counts, quality[d])
        if want_repetition:
            gopher_repetition(
                counts, word_hash, word_chars, line_hash, line_chars, para_hash, para_chars, scratch,
                repetition[d],
            )  # fmt: skip
        if want_fineweb:
            fineweb_quality(counts, line_hash, line_chars, line_flags, short_line_chars, scratch, fineweb[d])
        d += 1


@njit(cache=True, nogil=True)
def token_hashes(data, offsets, pages, classes):
    """Hash of each string of a column taken as one token (how stop words enter the kernels)."""
    n = offsets.shape[0] - 1
    none = np.zeros(8, np.uint64)
    none_seen = np.zeros(8, np.int64)
    word_hash = np.empty(n, np.uint64)
    word_chars = np.empty(n, np.int32)
    spare_hash = np.empty(1, np.uint64)
    spare_chars = np.empty(1, np.int32)
    spare_flags = np.empty(1, np.uint8)
    counts = np.zeros(COUNTS, np.int64)
    for d in range(n):
        counts[N_TOKENS] = d
        scan(
            data, offsets[d], offsets[d + 1], np.int64(WHOLE), pages, classes, none, U(61),
            none_seen, d, word_hash, word_chars, spare_hash, spare_chars, spare_flags, spare_hash,
            spare_chars, counts,
        )  # fmt: skip
    return word_hash
