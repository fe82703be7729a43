"""What lower case and NFD together make of each code point, from small committed tables.

RedPajama-V2 computes most of its signals on text that is lower-cased, stripped of ASCII punctuation and
decomposed (Unicode normal form D). A compiled pass cannot call Python's own tables, and those change with the
Python version; so what is needed of them lies in ``normal_forms.txt``. Regenerate it (on purpose, with a new
Unicode version) by ``python -m filters.text.normal_forms``.

Lower case is that of ``lowercase``: character by character after decomposition, which gives the same as
before it. Lines of the file: ``D cp sequence`` (decomposed, where that is not the code point itself; Hangul
syllables follow a formula), ``C first last class`` (canonical combining class, where not 0), and runs
``N`` (``str.isnumeric``), ``L`` (lower or title case), ``K`` (cased), ``I`` (case-ignorable); the last two
decide when a capital sigma at the end of a word becomes the final one.
"""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import NamedTuple

import numpy as np

from filters.text import codepoints, lowercase
from filters.text.sources import digest

TABLE = Path(__file__).with_name("normal_forms.txt")
USES = ("filters.text.normal_forms", "filters.text.lowercase", "filters.text.codepoints")

SPACE, WORD, LETTER, UPPER, LOWER, NUMERIC, DROPPED, CASED, IGNORABLE, MAPPED, HANGUL, END, BULLET, ALPHA = (
    1 << bit for bit in range(14)
)
"""Flags of a code point: white space; ``\\w`` (letter, number or _); a-z or A-Z; upper case; lower or title
case; numeric; ASCII punctuation, which normalisation removes; cased; case-ignorable; changed by
normalisation, or a combining mark; a Hangul syllable; one of ``.!?``; RedPajama-V2's bullet points;
``str.isalpha``."""

HANGUL_FIRST, HANGUL_LAST = 0xAC00, 0xD7A3
BULLETS = "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013"
_FLAGS = {"N": NUMERIC, "L": LOWER, "K": CASED, "I": IGNORABLE}


class NormalForms(NamedTuple):
    """The flags of ``cp`` are ``flags[at]`` with ``at = (pages[cp >> 8] << 8) | (cp & 255)``; if they have
    MAPPED, its normal form is ``sequence[starts[k]:starts[k + 1]]`` with ``k = entry[at]``."""

    pages: np.ndarray  # uint16[0x1100]
    flags: np.ndarray  # uint16[256 × distinct pages]
    entry: np.ndarray  # uint16, same length
    starts: np.ndarray  # int32[entries + 1]
    sequence: np.ndarray  # int32, code points
    combining: np.ndarray  # uint8, canonical combining class of each
    numeric: np.ndarray  # uint8, is it numeric?


@functools.cache
def load() -> NormalForms:
    """The table, joined with that of ``codepoints``."""
    size = codepoints.LAST + 1
    flags = np.zeros(size, np.uint16)
    classes = np.zeros(size, np.uint8)
    shifts = lowercase.flat()
    lower = np.arange(size) + shifts
    mapped = {int(cp): [int(lower[cp])] for cp in np.flatnonzero(shifts)}
    for line in TABLE.read_text(encoding="ascii").splitlines():
        tag, *rest = line.split()
        if tag == "D":
            mapped[int(rest[0], 16)] = [int(lower[int(value, 16)]) for value in rest[1:]]
        elif tag == "C":
            classes[int(rest[0], 16) : int(rest[1], 16) + 1] = int(rest[2])
        elif tag in _FLAGS:
            flags[int(rest[0], 16) : int(rest[1], 16) + 1] |= _FLAGS[tag]
    known = codepoints.load().flat()
    for theirs, ours in ((codepoints.SPACE, SPACE), (codepoints.ALPHA, ALPHA), (codepoints.UPPER, UPPER)):
        flags[(known & theirs) != 0] |= ours
    flags[(flags & (ALPHA | NUMERIC)) != 0] |= WORD
    for chars, flag in (
        ("_", WORD),
        (string.ascii_letters, LETTER),
        (string.punctuation, DROPPED),
        (".!?", END),
        (BULLETS, BULLET),
    ):
        flags[[ord(char) for char in chars]] |= flag
    flags[HANGUL_FIRST : HANGUL_LAST + 1] |= HANGUL | MAPPED
    for cp in np.flatnonzero(classes):
        mapped.setdefault(int(cp), [int(cp)])
    entry = np.zeros(size, np.uint16)
    starts, sequence = [0], []
    for number, cp in enumerate(sorted(mapped)):
        flags[cp] |= MAPPED
        entry[cp] = number
        sequence += mapped[cp]
        starts.append(len(sequence))
    order = np.array(sequence, np.int32)
    return NormalForms(
        *codepoints.two_stage(flags, entry),
        np.array(starts, np.int32),
        order,
        classes[order],
        ((flags[order] & NUMERIC) != 0).astype(np.uint8),
    )


def content() -> str:
    """Hash of the tables that ``load`` reads, for the identity of the steps that use it."""
    return digest(TABLE, lowercase.TABLE, codepoints.TABLE)


def describe() -> list[str]:
    """The lines of the table, by this Python's ``unicodedata``."""
    import unicodedata

    lines = []
    marks: list[list[int]] = []
    runs: dict[str, list[list[int]]] = {tag: [] for tag in _FLAGS}
    for cp in range(codepoints.LAST + 1):
        char = chr(cp)
        if 0xD800 <= cp <= 0xDFFF:
            continue
        normal = unicodedata.normalize("NFD", char)
        if normal != char and not HANGUL_FIRST <= cp <= HANGUL_LAST:
            lines.append(f"D {cp:X} " + " ".join(f"{ord(c):X}" for c in normal))
        combining = unicodedata.combining(char)
        if combining:
            if marks and marks[-1][1] == cp - 1 and marks[-1][2] == combining:
                marks[-1][1] = cp
            else:
                marks.append([cp, cp, combining])
        # a final sigma follows a cased character, case-ignorable ones between do not matter
        after = (char + "Σ").lower().endswith("ς")
        facts = {
            "N": char.isnumeric(),
            "L": char.islower() or (char.istitle() and not char.isupper()),
            "K": after,
            "I": not after and ("A" + char + "Σ").lower().endswith("ς"),
        }
        for tag in (tag for tag, fact in facts.items() if fact):
            if runs[tag] and runs[tag][-1][1] == cp - 1:
                runs[tag][-1][1] = cp
            else:
                runs[tag].append([cp, cp])
    lines += [f"C {first:X} {last:X} {combining}" for first, last, combining in marks]
    lines += [f"{tag} {first:X} {last:X}" for tag in _FLAGS for first, last in runs[tag]]
    return lines


def main() -> None:
    import unicodedata

    head = f"# Unicode {unicodedata.unidata_version}; made by: python -m filters.text.normal_forms"
    TABLE.write_text("\n".join([head, *describe()]) + "\n", encoding="ascii")
    print(f"{TABLE.name}: Unicode {unicodedata.unidata_version}")


if __name__ == "__main__":
    main()
