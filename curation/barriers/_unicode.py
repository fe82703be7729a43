"""Per-code-point tables for the compiled text loops: lower case, and what kind of character it is.

Made from Python's `unicodedata` once per process (about 30 ms), for the planes that hold scripts; beyond
them lie only ideographs and the unassigned.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

LIMIT = 0x20000  # tables cover code points below; planes 2 and 3 are ideographs
SPACE, PUNCTUATION, DIGIT, WORD, UNSPACED = 1, 2, 4, 8, 16

# Scripts written without spaces between words: every character is a word of its own.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, ideographic zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK
    (0xA000, 0xA4CF),  # Yi
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # Kana supplements, Nushu
)


def lower_of(char: str) -> str:
    """Lower case where it is one character; İ and its like stay as they are, so lengths in code points do not
    change."""
    lower = char.lower()
    return lower if len(lower) == 1 else char


def kind_of(char: str) -> int:
    """The flags of one character: SPACE, PUNCTUATION, DIGIT, WORD (letter, mark or number), UNSPACED."""
    code, category = ord(char), unicodedata.category(char)
    flags = 0
    if char.isspace():
        flags |= SPACE
    if category[0] == "P":
        flags |= PUNCTUATION
    if category == "Nd":
        flags |= DIGIT
    if category[0] in "LMN":
        flags |= WORD
        if code >= LIMIT or any(low <= code <= high for low, high in _UNSPACED):
            flags |= UNSPACED
    return flags


@functools.lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(lower int32[LIMIT], kind uint8[LIMIT]) by code point."""
    lower = np.arange(LIMIT, dtype=np.int32)
    kind = np.zeros(LIMIT, np.uint8)
    for code in range(LIMIT):
        if not 0xD800 <= code <= 0xDFFF:
            char = chr(code)
            if code < 0x3000 or code >= 0xA000:  # no case between: saves half the work
                lower[code] = ord(lower_of(char))
            category = unicodedata.category(char)
            kind[code] = (
                SPACE * char.isspace()
                | PUNCTUATION * (category[0] == "P")
                | DIGIT * (category == "Nd")
                | WORD * (category[0] in "LMN")
            )
    for low, high in _UNSPACED:
        kind[low : high + 1] |= np.where(kind[low : high + 1] & WORD, UNSPACED, 0).astype(np.uint8)
    return lower, kind
