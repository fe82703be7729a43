"""Which of many strings occur in each row of a text column: a compiled Aho–Corasick automaton.

    banned = compile_patterns(["casino", "poker"], boundary="unicode")
    hits = banned.find(batch.column("text"))
    hits.counts[0]   # int32 per row: how many different patterns
    hits.word()      # string per row: the one found first, null where there is none

One pass over Arrow's UTF-8 buffers whatever the number of patterns; lists of 100,000 are built in well under
a second. Several lists share one pass, and counts are per list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from filters.text import codepoints, lowercase
from filters.text.buffers import utf8

CASES = ("keep", "ascii", "unicode")
BOUNDARIES = ("none", "unicode")
DENSE_CELLS = 1 << 22  # next-state cells of the dense rows, 16 MB
SKIP = 255  # column of a byte that is taken out; as in automaton_kernels


@dataclass(frozen=True)
class Hits:
    """What was found. ``counts``: int32[lists, rows], different patterns of that list. ``first``:
    int32[lists, rows], index into ``patterns`` of the one that ends first (the longest, if several end
    there), -1 where there is none."""

    counts: np.ndarray
    first: np.ndarray
    patterns: pa.Array

    def word(self, group: int = 0) -> pa.Array:
        """The first pattern of that list found in each row, as it was given; null where there is none."""
        found = self.first[group]
        return self.patterns.take(pa.array(found, mask=found < 0))


@dataclass(frozen=True, eq=False)
class Automaton:
    """Compiled patterns; see ``compile_patterns``."""

    patterns: pa.Array  # the distinct patterns, as given
    n_lists: int
    case: str
    boundary: str
    columns: np.ndarray  # uint8[256]: column of a byte in the rows
    dense: np.ndarray  # int32[n_dense << width_shift]
    n_dense: int
    width_shift: int
    keys: np.ndarray  # uint64: children of the other states
    values: np.ndarray  # int32
    fail: np.ndarray  # int32 per state
    link: np.ndarray  # int32 per state
    out: np.ndarray  # int32 per state: index into patterns, or -1
    length: np.ndarray  # int32 per pattern: bytes as matched
    groups: np.ndarray  # uint32 per pattern: bit of each list it is on

    @property
    def n_states(self) -> int:
        return len(self.fail)

    def find(self, text: pa.Array | pa.ChunkedArray) -> Hits:
        """Look through a string column; a null has no pattern. Raises TypeError for another column."""
        from filters.text import automaton_kernels as kernels

        column = utf8(text)
        n = len(column.offsets) - 1
        counts = np.zeros((self.n_lists, n), np.int32)
        first = np.full((self.n_lists, n), -1, np.int32)
        alone = self.boundary != "none"
        lowered = self.case == "unicode"
        table, classes = lowercase.load(), codepoints.load()
        kernels.count(
            column.data, column.offsets, self.columns, _word_bytes() if alone else np.zeros(256, bool),
            alone or lowered, lowered, alone, table.pages, table.shifts, classes.pages, classes.classes,
            self.dense, self.n_dense, self.width_shift, self.keys, self.values, _shift(len(self.keys)),
            self.fail, self.link, self.out, self.length, self.groups, counts, first,
        )  # fmt: skip
        return Hits(counts, first, self.patterns)


def compile_patterns(
    *lists: Sequence[str], delete: str = "", case: str = "unicode", boundary: str = "none"
) -> Automaton:
    """Automaton over one or more lists of strings (at most 32 lists).

    ``delete``: ASCII characters, not letters, taken out of text and patterns before they are compared.
    ``case``: ``"unicode"`` (upper and lower case are the same, see ``lowercase``), ``"ascii"`` (for A–Z only)
    or ``"keep"``. ``boundary``: ``"none"``, a pattern is found anywhere; ``"unicode"``, only where it stands
    alone: no letter, mark, number or connector ('_') right before or after it, whatever its own ends are.
    Boundaries are looked for in the text after ``delete``.

    A pattern given twice, or equal to another once normalised, is one pattern. Raises ValueError for an
    unknown option, a character of ``delete`` that cannot be taken out, a pattern of which nothing is left.
    """
    from filters.text import automaton_kernels as kernels

    if case not in CASES:
        raise ValueError(f"case={case!r}: expected one of {', '.join(map(repr, CASES))}")
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary={boundary!r}: expected one of {', '.join(map(repr, BOUNDARIES))}")
    if not delete.isascii() or any(char.isalpha() for char in delete):
        raise ValueError(f"delete={delete!r}: only ASCII characters that are not letters can be taken out")
    if not 1 <= len(lists) <= 32:
        raise ValueError(f"{len(lists)} lists of patterns: from 1 to 32 fit into one automaton")
    given = pa.array([pattern for patterns in lists for pattern in patterns], pa.string())
    group = np.repeat(np.arange(len(lists), dtype=np.uint32), [len(patterns) for patterns in lists])
    raw = utf8(given)
    deleted = np.zeros(256, bool)
    deleted[[ord(char) for char in delete]] = True
    table = lowercase.load()
    data = np.empty(2 * int(raw.offsets[-1] - raw.offsets[0]) + 8, np.uint8)
    offsets = np.empty(len(given) + 1, np.int64)
    kernels.normalise(
        raw.data, raw.offsets, deleted, case != "keep", case == "unicode", table.pages, table.shifts,
        data, offsets,
    )  # fmt: skip
    lengths = np.diff(offsets)
    if len(lengths) and not lengths.all():
        empty = given[int(np.argmin(lengths))].as_py()
        raise ValueError(
            f"pattern {empty!r} is empty once {delete!r} is taken out: it would be found in every text"
            if empty
            else "a pattern is the empty string, which is in every text: take it off the list"
        )
    data = data[: offsets[-1]]

    # a column for each byte in use; width a power of two so that a row is found by a shift
    used = np.flatnonzero(np.bincount(data, minlength=256))
    if len(used) >= SKIP:
        raise ValueError(
            f"patterns hold {len(used)} different bytes; at most {SKIP - 1} are possible in UTF-8"
        )
    columns = np.zeros(256, np.uint8)
    columns[used] = np.arange(1, len(used) + 1)
    if case != "keep":
        columns[65:91] = columns[97:123]
    columns[deleted] = SKIP
    width_shift = max(1, len(used).bit_length())

    most = len(data) + 1
    keys, values = _slots(most)
    parent, column, depth, out = (np.zeros(most, np.int32) for _ in range(4))
    states, ends = kernels.trie(
        data, offsets, columns, keys, values, _shift(len(keys)), parent, column, depth, out
    )
    parent, column, depth, out = (array[:states] for array in (parent, column, depth, out))
    order = np.argsort(depth, kind="stable").astype(np.int32)
    rank = np.empty(states, np.int32)
    rank[order] = np.arange(states, dtype=np.int32)
    fail, link = np.zeros(states, np.int32), np.zeros(states, np.int32)
    kernels.link_up(order, parent, column, out, keys, values, _shift(len(keys)), fail, link)

    # distinct patterns, and everything renumbered breadth first
    which = out[ends] if len(ends) else np.zeros(0, np.int32)
    distinct, index = np.unique(which, return_inverse=True)
    groups = np.zeros(len(distinct), np.uint32)
    np.bitwise_or.at(groups, index, np.uint32(1) << group)
    pattern_of = np.full(len(given) + 1, -1, np.int32)  # the last cell is for out == -1
    pattern_of[distinct] = np.arange(len(distinct), dtype=np.int32)
    parent, column, depth = rank[parent[order]], column[order], depth[order]
    fail, link, out = rank[fail[order]], rank[link[order]], pattern_of[out[order]]
    n_dense = max(1, min(int(states), DENSE_CELLS >> width_shift))
    dense = np.zeros(n_dense << width_shift, np.int32)
    kernels.fill_dense(parent, column, depth, fail, n_dense, width_shift, dense)
    keys, values = _slots(int((parent[1:] >= n_dense).sum()))
    kernels.fill_sparse(parent, column, n_dense, keys, values, _shift(len(keys)))
    return Automaton(
        given.take(pa.array(distinct)), len(lists), case, boundary, columns, dense, n_dense, width_shift,
        keys, values, fail, link, out, lengths[distinct].astype(np.int32), groups,
    )  # fmt: skip


def _slots(entries: int) -> tuple[np.ndarray, np.ndarray]:
    """An empty open-addressing table that these entries fill by half at most."""
    size = 1 << max(3, int(2 * entries).bit_length())
    return np.zeros(size, np.uint64), np.zeros(size, np.int32)


def _shift(size: int) -> np.uint64:
    return np.uint64(64 - (size.bit_length() - 1))


def _word_bytes() -> np.ndarray:
    classes = codepoints.load().classes[:128]
    out = np.zeros(256, bool)
    out[:128] = ((classes & codepoints.SOLID) != 0) | ((classes & codepoints.KIND) == codepoints.WORD)
    return out
