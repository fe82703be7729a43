"""Lower case, code point by code point, as one small committed table (``lowercase.txt``).

The *simple* mapping of Unicode: one code point becomes one code point whatever surrounds it (so 'Σ' is
always 'σ', and 'İ' is 'i'). In a file, not from ``str.lower``, for the reason that ``codepoints`` gives: the
same plan must give the same bytes under every Python. Regenerate it, on purpose, by
``python -m filters.text.lowercase``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from filters.text import codepoints

TABLE = Path(__file__).with_name("lowercase.txt")


class LowerCase(NamedTuple):
    """Two-stage table: ``cp`` becomes ``cp + shifts[(pages[cp >> 8] << 8) | (cp & 255)]``."""

    pages: np.ndarray  # uint16[0x1100]
    shifts: np.ndarray  # int32[256 × distinct pages]


def flat() -> np.ndarray:
    """What to add to each code point, int32[0x110000]."""
    out = np.zeros(codepoints.LAST + 1, np.int32)
    for line in TABLE.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            first, last, stride, shift = line.split()
            out[int(first, 16) : int(last, 16) + 1 : int(stride)] = int(shift)
    return out


@functools.cache
def load() -> LowerCase:
    """The table, as kernels read it."""
    return LowerCase(*codepoints.two_stage(flat()))


def lower(text: str) -> str:
    """``text`` in lower case by this table: the readable form of what the kernels do."""
    table = load()
    return "".join(
        chr(cp + int(table.shifts[(int(table.pages[cp >> 8]) << 8) | (cp & 255)])) for cp in map(ord, text)
    )


def runs() -> list[tuple[int, int, int, int]]:
    """(first, last, stride, shift) by this Python's ``str.lower``, where that is one code point."""
    out: list[tuple[int, int, int, int]] = []
    for cp in range(codepoints.LAST + 1):
        low = "i" if cp == 0x130 else chr(cp).lower()
        if len(low) != 1 or ord(low) == cp:
            continue
        first, last, stride, shift = out[-1] if out else (0, -9, 0, 0)
        step = cp - last
        if shift == ord(low) - cp and (step == stride or (stride == 0 and step <= 2)):
            out[-1] = (first, cp, step, shift)
        else:
            out.append((cp, cp, 0, ord(low) - cp))
    return [(first, last, stride or 1, shift) for first, last, stride, shift in out]


def main() -> None:
    import unicodedata

    lines = [
        f"# Unicode {unicodedata.unidata_version}; made by: python -m filters.text.lowercase",
        "# first last stride shift (hexadecimal, hexadecimal, decimal, decimal): simple lower case",
    ]
    lines += [f"{first:X} {last:X} {stride} {shift}" for first, last, stride, shift in runs()]
    TABLE.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{TABLE.name}: {len(lines)} lines, Unicode {unicodedata.unidata_version}")


if __name__ == "__main__":
    main()
