"""Word-break class of every code point (UAX #29, table 3), as one small committed table.

The table is a file, `word_break.txt`, since Python's `unicodedata` has no word-break property and changes
with its version. Regenerate it, on purpose, with `python -m curation.barriers._word_break` (package `regex`).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

# EXTEND holds Extend, Format and ZWJ, which belong to the character before them. Newlines are white space.
(
    OTHER, ALETTER, HEBREW, NUMERIC, KATAKANA, EXTENDNUMLET, REGIONAL, EXTEND, MIDLETTER, MIDNUM, MIDNUMLET,
    SINGLE_QUOTE, DOUBLE_QUOTE,
) = range(13)  # fmt: skip
CLASS = 15  # mask of the class
SPACE, PICTOGRAPH, JOINER, RUN = 16, 32, 64, 128  # RUN: ASCII letters, digits, '_': never parted in a run

TABLE = Path(__file__).with_name("word_break.txt")
NAMES = {
    "ALetter": ALETTER, "Hebrew_Letter": HEBREW, "Numeric": NUMERIC, "Katakana": KATAKANA,
    "ExtendNumLet": EXTENDNUMLET, "MidLetter": MIDLETTER, "MidNum": MIDNUM, "MidNumLet": MIDNUMLET,
    "Single_Quote": SINGLE_QUOTE, "Double_Quote": DOUBLE_QUOTE, "Extend": EXTEND, "Format": EXTEND,
    "ZWJ": EXTEND, "CR": OTHER, "LF": OTHER, "Newline": OTHER, "Extended_Pictographic": OTHER,
}  # fmt: skip
WHITE_SPACE = (
    (0x09, 0x0D), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_PAGES = 0x1400  # of 256 code points: also what ill-formed UTF-8 of four bytes can say


@functools.cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(pages uint16[0x1400], classes uint8[…]): a code point's class and flags are
    classes[pages[cp >> 8] << 8 | (cp & 255)]; page 0 comes first, so classes[byte] serves ASCII."""
    flat = np.zeros(_PAGES << 8, np.uint8)
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, first, last = line.split()
            where = slice(int(first, 16), int(last, 16) + 1)
            if name == "Extended_Pictographic":  # on top of a class: some are letters too
                flat[where] |= PICTOGRAPH
            else:
                flat[where] |= NAMES[name]
    for low, high in WHITE_SPACE:
        flat[low : high + 1] |= SPACE
    flat[0x1F1E6:0x1F200] |= REGIONAL
    flat[0x200D] |= JOINER
    flat[[cp for cp in range(128) if chr(cp).isalnum() or chr(cp) == "_"]] |= RUN
    distinct: dict[bytes, int] = {}
    rows = flat.reshape(-1, 256)
    pages = np.array([distinct.setdefault(row.tobytes(), len(distinct)) for row in rows], np.uint16)
    return pages, np.frombuffer(b"".join(distinct), np.uint8)


def main() -> None:
    import regex

    everything = "".join(map(chr, range(0x110000)))
    lines = [
        "# Unicode word-break property (UAX #29) and Extended_Pictographic; what is not listed is Other.",
        f"# made by: python -m curation.barriers._word_break (regex {regex.__version__})",
        "# class first last (hexadecimal)",
    ]
    for name in NAMES:
        prefix = "" if name == "Extended_Pictographic" else "WB="
        for run in regex.finditer(rf"\p{{{prefix}{name}}}+", everything):
            lines.append(f"{name} {run.start():X} {run.end() - 1:X}")
    TABLE.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{TABLE.name}: {len(lines)} lines")


if __name__ == "__main__":
    main()
