"""Line edits of RefinedWeb as DCLM does them: steps 18 to 23 of dclm_baseline_refinedweb.yaml.

Source: Penedo et al. 2023 (arXiv 2306.01116, appendix G.2); rules and bounds as in DCLM (Li et al. 2024,
arXiv 2406.11794). A line is what ``str.split("\\n")`` gives. All edits are one compiled *line program*
(``edit_kernels.edit_lines``): ``refinedweb_lines`` runs seven instructions over the lines of a page, each
DCLM modifier below runs one. As in DCLM every edit but ``line_length_modifier`` also strips the page of outer
white space, and a page left empty leaves, with the step's name as the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import curation as c
from filters.text.buffers import utf8
from filters.text.columns import one_array, strings, struct_array
from filters.text.dclm import classes
from filters.text.dclm.edits import EDIT_USES, check_compat, kept_rows
from filters.text.dclm.named import word_removal_ratio_filter

COUNTED = (
    "likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes",
    "downloads", "views", "followers",
)  # fmt: skip
LOCATIONS = ("any", "prefix", "suffix")
ALSO = {"i": "İı", "k": "\u212a", "s": "ſ"}  # equal to these when case is ignored
LINE_EDITS = (
    "n_lines", "uppercase", "numeric", "counter", "short", "emptied", "edited", "words_before", "words_after",
)  # fmt: skip
LINE_EDITS_TYPE = pa.struct([(name, pa.int64()) for name in LINE_EDITS])


class Program(NamedTuple):
    """Instructions for ``edit_kernels.edit_lines``."""

    codes: np.ndarray  # int64[m, 6]
    numbers: np.ndarray  # float64[m, 2]
    pattern: np.ndarray  # int64: characters of all substrings
    pattern_at: np.ndarray  # int64[substrings + 1]
    may: np.ndarray  # uint8[m, 256]: bytes that a substring can begin with (a suffix: end with)


# One instruction: (kind, numbers, substrings, location, remove_substring_only, case_sensitive, compat)
_Instruction = tuple[str, tuple[float, float], Sequence[str], str, bool, bool, "str | None"]


def uppercase(max_ratio: float) -> _Instruction:
    return "UPPERCASE", (max_ratio, 0), (), "any", False, False, None


def numeric(max_ratio: float) -> _Instruction:
    return "NUMERIC", (max_ratio, 0), (), "any", False, False, None


def counter() -> _Instruction:
    return "COUNTER", (0, 0), (), "any", False, False, None


def length(min_length: float, max_length: float) -> _Instruction:
    return "LENGTH", (min_length, max_length), (), "any", False, False, None


def substring(
    banlist: str | Sequence[str],
    case_sensitive: bool = False,
    location: str = "any",
    max_length: int | None = None,
    remove_substring_only: bool = False,
    compat: str | None = None,
) -> _Instruction:
    check_compat(compat)
    if location not in LOCATIONS:
        raise ValueError(f"location={location!r}: expected one of {', '.join(map(repr, LOCATIONS))}")
    entries = (banlist,) if isinstance(banlist, str) else tuple(banlist)
    for entry in entries:
        if not entry or "\n" in entry:
            raise ValueError(f"banlist: {entry!r} is no part of a line")
        if not case_sensitive and not entry.isascii():
            raise ValueError(f"banlist: {entry!r} is not ASCII; give case_sensitive=True for such substrings")
        if compat and re.search(r"[\\^$*+?{}\[\]|()]", entry):
            raise ValueError(
                f"banlist: DCLM reads {entry!r} as a regular expression; only the point is reproduced"
            )
    bound = -1 if max_length is None else max_length
    return "SUBSTRING", (bound, 0), entries, location, remove_substring_only, case_sensitive, compat


def compile_program(instructions: Sequence[_Instruction]) -> Program:
    """Instructions as the arrays that the kernel reads."""
    from filters.text.dclm import edit_kernels as kernels

    codes, numbers, pattern, pattern_at = [], [], [], [0]
    may = np.zeros((len(instructions), 256), np.uint8)
    for row, (kind, bounds, entries, location, only, case_sensitive, compat) in enumerate(instructions):
        first = len(pattern_at) - 1
        for entry in entries:
            shown = entry if case_sensitive else entry.lower()
            pattern += [kernels.WILD if compat and char == "." else ord(char) for char in shown]
            pattern_at.append(len(pattern))
            edge = shown[-1 if location == "suffix" else 0]
            if compat and edge == ".":
                may[row] = 1
            for char in edge if case_sensitive else edge + edge.upper() + ALSO.get(edge, ""):
                may[row, char.encode()[-1 if location == "suffix" else 0]] = 1
        place = {"any": kernels.ANY, "prefix": kernels.PREFIX, "suffix": kernels.SUFFIX}[location]
        last = len(pattern_at) - 1
        codes.append([getattr(kernels, kind), place, int(only), first, last, int(not case_sensitive)])
        numbers.append(bounds)
    return Program(
        np.array(codes, np.int64).reshape(-1, 6),
        np.array(numbers, np.float64).reshape(-1, 2),
        np.array(pattern, np.int64),
        np.array(pattern_at, np.int64),
        may,
    )


def edit_lines(
    text: pa.Array | pa.ChunkedArray, instructions: Sequence[_Instruction]
) -> tuple[pa.Array, np.ndarray]:
    """The edited column (null stays null, an emptied page is an empty string) and int64[n, 9] LINE_EDITS."""
    from filters.text.dclm import edit_kernels as kernels

    text = one_array(text)
    column, table, program = utf8(text), classes.load(), compile_program(instructions)
    counted = utf8(pa.array(COUNTED))
    out, ends = np.empty(len(column.data), np.uint8), np.zeros(len(text) + 1, np.int64)
    stats = np.empty((len(text), len(LINE_EDITS)), np.int64)
    kernels.edit_lines(
        column.data, column.offsets, table.pages, table.classes, program.codes, program.numbers, counted.data,
        counted.offsets, program.pattern, program.pattern_at, program.may, out, ends, stats,
    )  # fmt: skip
    return strings(out, ends, text), stats


@dataclass(frozen=True)
class RefinedWebLines(c.Transform):
    """RefinedWeb's line edits, in DCLM's order, and what they did: struct column ``line_edits``.

    1. drop lines with more than ``max_uppercase`` upper-case characters (share of all);
    2. drop lines of digits alone (share above ``max_numeric``);
    3. drop counters: "3 likes", "1.2k views" and nothing else but marks;
    4. drop lines of fewer than ``min_words`` white-space words (empty lines stay);
    5. in lines of at most ``max_edited_words`` words take out "items in cart" anywhere, "Read more..." at the
       end, "Sign-in" at the beginning, case ignored; a line with nothing left goes.

    ``line_edits``: ``n_lines`` at first, lines dropped by each rule (``uppercase``, ``numeric``, ``counter``,
    ``short``, ``emptied`` by a substring), lines ``edited``, and ``words_before``, ``words_after``: words as
    ``dclm.n_words`` counts them, for ``words_removed_rule``.

    ``compat="dclm"``: the points of "Read more..." stand for any character, as DCLM reads them.
    """

    max_uppercase: float = 0.5
    max_numeric: float = 0.999999
    min_words: int = 2
    max_edited_words: int = 10
    compat: str | None = None
    inputs = ("text",)
    outputs = {"text": pa.string(), "line_edits": LINE_EDITS_TYPE}
    uses = (*EDIT_USES, "filters.text.dclm.edits")

    def __post_init__(self) -> None:
        check_compat(self.compat)

    @property
    def name(self) -> str:
        return "refinedweb_lines"

    def instructions(self) -> list[_Instruction]:
        short: dict[str, Any] = {
            "max_length": self.max_edited_words,
            "remove_substring_only": True,
            "compat": self.compat,
        }
        return [
            uppercase(self.max_uppercase),
            numeric(self.max_numeric),
            counter(),
            length(self.min_words, math.inf),
            substring("items in cart", **short),
            substring("Read more...", location="suffix", **short),
            substring("Sign-in", location="prefix", **short),
        ]

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        before = one_array(batch.column("text"))
        text, stats = edit_lines(before, self.instructions())
        return kept_rows(batch, text, line_edits=struct_array(stats.T, LINE_EDITS_TYPE, before))


refinedweb_lines = RefinedWebLines


def words_removed_rule(max_removed_ratio: float = 0.05) -> list[c.Keep]:
    """Step 23: keep pages that lost at most this share of their words to ``refinedweb_lines``."""
    return word_removal_ratio_filter(max_removed_ratio=max_removed_ratio)


# --------------------------------------------------------------------------- one rule, under DCLM's own name


@dataclass(frozen=True)
class LineModifier(c.Transform):
    """One instruction of a line program as a step; ``label`` is its name and the reason emptied pages get."""

    label: str
    instruction: _Instruction
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = (*EDIT_USES, "filters.text.dclm.edits")

    @property
    def name(self) -> str:
        return self.label

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        return kept_rows(batch, edit_lines(batch.column("text"), [self.instruction])[0])


def uppercase_ratio_line_modifier(max_ratio: float = 0.5) -> LineModifier:
    """Drop lines whose share of upper-case characters is above ``max_ratio``."""
    return LineModifier("uppercase_ratio_line_modifier", uppercase(max_ratio))


def numeric_ratio_line_modifier(max_ratio: float = 1.0) -> LineModifier:
    """Drop lines whose share of digits (``str.isdigit``) is above ``max_ratio``: a little below 1 drops lines
    of digits alone."""
    return LineModifier("numeric_ratio_line_modifier", numeric(max_ratio))


def counter_line_modifier() -> LineModifier:
    """Drop lines that are a counter: marks, a number, white space, one of ``COUNTED``, marks."""
    return LineModifier("counter_line_modifier", counter())


def line_length_modifier(min_length: float = 0, max_length: float = math.inf) -> LineModifier:
    """Drop lines, empty ones aside, with fewer or more white-space words; both bounds are inclusive."""
    return LineModifier("line_length_modifier", length(min_length, max_length))


def substring_line_modifier(
    banlist: str | Sequence[str],
    case_sensitive: bool = False,
    location: str = "any",
    max_length: int | None = None,
    remove_substring_only: bool = False,
    compat: str | None = None,
) -> LineModifier:
    """Drop lines that hold an entry of ``banlist``, or cut only that entry out (and one white space beside
    it; a line with nothing left goes).

    ``location``: "any", "prefix" or "suffix" of the line. ``max_length``: only lines of at most so many
    words. Entries are plain text; ``compat="dclm"`` reads a point as any character, as DCLM does by accident.
    Case is ignored, for ASCII entries, unless ``case_sensitive``. ValueError for entries it cannot honour.
    """
    rule = substring(banlist, case_sensitive, location, max_length, remove_substring_only, compat)
    return LineModifier("substring_line_modifier", rule)
