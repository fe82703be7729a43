"""What each Unicode code point is to the text filters, as one small committed table.

The table lives in ``codepoints.txt`` rather than in ``unicodedata`` because ``unicodedata`` changes with the
Python version, and the same plan must give the same bytes on every machine. Regenerate it (on purpose, with a
new Unicode version) by ``python -m filters.text.codepoints``.

Every code point has one *kind*, which drives the default word split:

=========  ==============================================================================================
kind       code points
=========  ==============================================================================================
OTHER      punctuation (P*), symbols (S*), private use, unassigned: a run of one is a token, but no word
SEPARATOR  white space (``str.isspace``), control and format characters: never part of a token
WORD       letters (L*), numbers (N*), connector punctuation (Pc): a run is one token
SINGLE     letters of scripts written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar …): each is a token
EXTEND     marks (M*), joiners, soft hyphen: belong to the token before them
=========  ==============================================================================================

and independent flags: SPACE (``str.isspace``), BREAK (``str.splitlines`` breaks here), ALPHA
(``str.isalpha``), SOLID (makes a token more than punctuation), DIGIT (category Nd), UPPER (``str.isupper``).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

OTHER, SEPARATOR, WORD, SINGLE, EXTEND = range(5)
KIND = 7  # mask of the kind inside a class
SPACE, BREAK, ALPHA, SOLID, DIGIT, UPPER = (8 << bit for bit in range(6))

TABLE = Path(__file__).with_name("codepoints.txt")
LAST = 0x10FFFF

# Scripts whose words are not separated by spaces: (first, last), from the Unicode block list.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # CJK and Kangxi radicals
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3038, 0x303C),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo extended, CJK strokes, Katakana extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x16FE0, 0x18D8F),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # kana extensions, Nushu
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
JOINERS = (0x00AD, 0x200C, 0x200D, 0x2060)  # soft hyphen, zero-width non-joiner and joiner, word joiner
BREAKS = (0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)


class Classes(NamedTuple):
    """Two-stage table: the class of code point ``cp`` is ``classes[(pages[cp >> 8] << 8) | (cp & 255)]``.

    Page 0 is first, so ``classes[byte]`` is the class of an ASCII byte.
    """

    pages: np.ndarray  # uint16[0x1100]
    classes: np.ndarray  # uint16[256 × distinct pages]

    def flat(self) -> np.ndarray:
        """The class of each code point, uint16[0x110000]."""
        return self.classes.reshape(-1, 256)[self.pages].reshape(-1)

    def __getitem__(self, char: str | int) -> int:
        cp = ord(char) if isinstance(char, str) else char
        return int(self.classes[(int(self.pages[cp >> 8]) << 8) | (cp & 255)])


def two_stage(*tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """(pages, table, …) of tables over all code points: the entry of ``cp`` is at ``(pages[cp >> 8] << 8) |
    (cp & 255)``. Rows of 256 that are equal in every table are kept once; the first stays first."""
    rows = [table.reshape(-1, 256) for table in tables]
    distinct: dict[bytes, int] = {}
    pages = [
        distinct.setdefault(b"".join(row.tobytes() for row in page), len(distinct))
        for page in zip(*rows, strict=True)
    ]
    first = np.unique(pages, return_index=True)[1]
    return np.array(pages, np.uint16), *(table[first].reshape(-1) for table in rows)


def classify(cp: int) -> int:
    """Class of one code point by this Python's ``unicodedata``; what the committed table was made from."""
    import unicodedata

    char = chr(cp)
    category = unicodedata.category(char)
    major = category[0]
    if char.isspace() or category == "Cc":
        kind = SEPARATOR
    elif cp in JOINERS or major == "M":
        kind = EXTEND
    elif category in ("Cf", "Cs"):
        kind = SEPARATOR
    elif (major == "L" and any(first <= cp <= last for first, last in UNSPACED)) or (
        category == "Nl" and cp > 0x3000
    ):
        kind = SINGLE
    elif major in "LN" or category == "Pc":
        kind = WORD
    else:
        kind = OTHER
    flags = 0
    flags |= SPACE if char.isspace() else 0
    flags |= BREAK if cp in BREAKS else 0
    flags |= ALPHA if char.isalpha() else 0
    flags |= SOLID if major in "LMN" else 0
    flags |= DIGIT if category == "Nd" else 0
    flags |= UPPER if char.isupper() else 0
    return kind | flags


@functools.cache
def load(symbols: str | None = None) -> Classes:
    """The table. ``symbols`` replaces the set of characters that do *not* make a word more than punctuation
    (default: everything but letters, marks and numbers), for parity with a tool that has its own list."""
    flat = np.zeros(LAST + 1, dtype=np.uint16)
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            first, last, value = line.split()
            flat[int(first, 16) : int(last, 16) + 1] = int(value)
    if symbols is not None:
        flat |= SOLID
        flat[[ord(char) for char in symbols]] &= np.uint16(0xFFFF ^ SOLID)
    return Classes(*two_stage(flat))


def ranges() -> list[tuple[int, int, int]]:
    """(first, last, class) runs over all code points, by this Python's ``unicodedata``."""
    out: list[tuple[int, int, int]] = []
    for cp in range(LAST + 1):
        value = classify(cp)
        if out and out[-1][2] == value:
            out[-1] = (out[-1][0], cp, value)
        else:
            out.append((cp, cp, value))
    return out


def main() -> None:
    import unicodedata

    lines = [
        f"# Unicode {unicodedata.unidata_version}; made by: python -m filters.text.codepoints",
        "# first last class (hexadecimal, hexadecimal, decimal bits of filters/text/codepoints.py);",
        "# class 0 (punctuation, symbols, unassigned) is left out",
    ]
    lines += [f"{first:X} {last:X} {value}" for first, last, value in ranges() if value]
    TABLE.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{TABLE.name}: {len(lines)} lines, Unicode {unicodedata.unidata_version}")


if __name__ == "__main__":
    main()
