"""What each code point is to the DCLM rules: Unicode word-break class, and the flags Python's ``str`` has.

Flags come from ``filters.text.codepoints``; word-break classes (UAX #29, table 3) from the committed table of
``curation.barriers``, so that the same plan gives the same bytes under every Python.
"""

from __future__ import annotations

import functools

import numpy as np

from curation.barriers._word_break import TABLE
from filters.text import codepoints

# Word-break classes. EXTEND holds Extend, Format and ZWJ; NEWLINE holds CR, LF and Newline. White space and
# regional indicators are OTHER: neither can be part of a word that starts with a letter or a digit.
(
    OTHER, ALETTER, HEBREW, NUMERIC, KATAKANA, EXTENDNUMLET, MIDLETTER, MIDNUM, MIDNUMLET, SINGLE_QUOTE,
    DOUBLE_QUOTE, EXTEND, NEWLINE,
) = range(13)  # fmt: skip
BREAK_CLASS = 15  # mask of the word-break class inside a class

SPACE = 1 << 4  # str.isspace
ALNUM = 1 << 5  # str.isalnum
ALPHA = 1 << 6  # str.isalpha
UPPER = 1 << 7  # str.isupper
DIGIT = 1 << 8  # str.isdigit (more than category Nd: superscripts, circled digits)
DECIMAL = 1 << 9  # str.isdecimal, what \d matches
PICTOGRAPH = 1 << 10  # Extended_Pictographic: does not part from a joiner before it
JOINER = 1 << 11  # zero-width joiner
GAP = 1 << 12  # what fastText's reader cuts words at: ASCII white space and NUL
MARK = 1 << 13  # '.', '#', '…', NUL: worth a closer look while words are counted
RUN = 1 << 14  # ASCII letter, digit or '_': a run of these is never parted

_NAMES = {
    "ALetter": ALETTER, "Hebrew_Letter": HEBREW, "Numeric": NUMERIC, "Katakana": KATAKANA,
    "ExtendNumLet": EXTENDNUMLET, "MidLetter": MIDLETTER, "MidNum": MIDNUM, "MidNumLet": MIDNUMLET,
    "Single_Quote": SINGLE_QUOTE, "Double_Quote": DOUBLE_QUOTE, "Extend": EXTEND, "Format": EXTEND,
    "ZWJ": EXTEND, "CR": NEWLINE, "LF": NEWLINE, "Newline": NEWLINE,
}  # fmt: skip

# Numeric_Type = Digit: str.isdigit is true though the category is No
DIGITS_NOT_DECIMAL = (
    (0xB2, 0xB3), (0xB9, 0xB9), (0x1369, 0x1371), (0x19DA, 0x19DA), (0x2070, 0x2070), (0x2074, 0x2079),
    (0x2080, 0x2089), (0x2460, 0x2468), (0x2474, 0x247C), (0x2488, 0x2490), (0x24EA, 0x24EA),
    (0x24F5, 0x24FD), (0x24FF, 0x24FF), (0x2776, 0x277E), (0x2780, 0x2788), (0x278A, 0x2792),
    (0x10A40, 0x10A43), (0x10E60, 0x10E68), (0x11052, 0x1105A), (0x1F100, 0x1F10A),
)  # fmt: skip


@functools.cache
def load() -> codepoints.Classes:
    """The two-stage table, read as ``classes[(pages[cp >> 8] << 8) | (cp & 255)]``."""
    base = codepoints.load().flat()
    flat = np.zeros(codepoints.LAST + 1, np.uint16)
    solid = (base & codepoints.SOLID) != 0
    mark = (base & codepoints.KIND) == codepoints.EXTEND
    for flag, where in (
        (SPACE, (base & codepoints.SPACE) != 0),
        (ALNUM, solid & ~mark),
        (ALPHA, (base & codepoints.ALPHA) != 0),
        (UPPER, (base & codepoints.UPPER) != 0),
        (DIGIT | DECIMAL, (base & codepoints.DIGIT) != 0),
    ):
        flat[where] |= flag
    for first, last in DIGITS_NOT_DECIMAL:
        flat[first : last + 1] |= DIGIT
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, first, last = line.split()
            flat[int(first, 16) : int(last, 16) + 1] |= _NAMES.get(name, 0) or PICTOGRAPH
    flat[0x200D] |= JOINER
    flat[[ord(char) for char in " \n\r\t\v\f\0"]] |= GAP
    flat[[ord(char) for char in ".#…\0"]] |= MARK
    ascii_run = [cp for cp in range(128) if chr(cp).isalnum() or chr(cp) == "_"]
    flat[ascii_run] |= RUN
    return codepoints.Classes(*codepoints.two_stage(flat))
