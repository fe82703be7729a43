"""What each code point is to the patterns and the normaliser of byte-level tokenizers, as a committed table.

The patterns of GPT-2 and its heirs ask of a character whether it is a letter (``\\p{L}``), a number
(``\\p{N}``) or white space (``\\s``); the answers are those of the regular expressions inside the
`tokenizers` library, which differ from this Python's in their Unicode version. NFC asks what the text would
turn into; the compiled check needs to know only where it might turn into something else:

* CHANGES: NFC of the character alone is not the character;
* SECOND: it may be joined with the starter before it (``pairs`` say with which; Hangul vowels and finals);
* FIRST: it has a canonical decomposition, so that what follows may regroup it;
* the canonical combining class, which marks must not descend in.

``bpe_unicode.txt`` holds runs ``L``, ``N``, ``S`` (white space) and ``X`` (CHANGES); decompositions and
combining classes are those of ``filters.text.normal_forms``. Regenerate it (on purpose, with a new version of
the library) by ``python -m recipes.lm.bpe_unicode``; a test compares every code point with the library.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from filters.text.codepoints import LAST, two_stage
from filters.text.normal_forms import HANGUL_FIRST, HANGUL_LAST
from filters.text.normal_forms import TABLE as DECOMPOSITIONS

TABLE = Path(__file__).with_name("bpe_unicode.txt")

OTHER, LETTER, NUMBER, SPACE = range(4)
KIND = 3
CHANGES, SECOND, FIRST = 4, 8, 16

JAMO_FIRST, JAMO_LAST = 0x1100, 0x1112  # leading consonants
_VOWELS, _FINALS = (0x1161, 0x1175), (0x11A8, 0x11C2)
_KINDS = {"L": LETTER, "N": NUMBER, "S": SPACE}
_PATTERNS = {"L": r"\p{L}+", "N": r"\p{N}+", "S": r"\s+"}


class Characters(NamedTuple):
    """Of ``cp``: ``classes[at]`` (kind and flags) and ``combining[at]``, with ``at = (pages[cp >> 8] << 8) |
    (cp & 255)``.

    Page 0 is first, so ``classes[byte]`` is the class of an ASCII byte. ``pairs``: sorted ``first << 32 |
    second`` of all pairs that NFC joins (Hangul aside).
    """

    pages: np.ndarray  # uint16[0x1100]
    classes: np.ndarray  # uint8[256 × distinct pages]
    combining: np.ndarray  # uint8, same length
    pairs: np.ndarray  # int64


@functools.cache
def load() -> Characters:
    """The table, joined with that of ``filters.text.normal_forms``."""
    classes = np.zeros(LAST + 1, np.uint8)
    combining = np.zeros(LAST + 1, np.uint8)
    for line in _lines(TABLE):
        tag, first, last = line.split()
        classes[int(first, 16) : int(last, 16) + 1] |= np.uint8(_KINDS.get(tag, CHANGES))
    whole: dict[tuple[int, ...], list[int]] = {}  # decomposed -> what decomposes so
    for line in _lines(DECOMPOSITIONS):
        tag, *rest = line.split()
        if tag == "D":
            cp, *sequence = (int(value, 16) for value in rest)
            whole.setdefault(tuple(sequence), []).append(cp)
            classes[cp] |= FIRST
        elif tag == "C":
            combining[int(rest[0], 16) : int(rest[1], 16) + 1] = int(rest[2])
    classes[HANGUL_FIRST : HANGUL_LAST + 1] |= FIRST
    pairs = [
        (first << 32) | sequence[-1]
        for sequence in whole
        if len(sequence) > 1
        for first in [*whole.get(sequence[:-1], []), *(sequence[:1] if len(sequence) == 2 else ())]
    ]
    classes[[pair & LAST for pair in pairs]] |= SECOND
    for first, last in (_VOWELS, _FINALS):
        classes[first : last + 1] |= SECOND
    pages, classes, combining = two_stage(classes, combining)
    return Characters(pages, classes, combining, np.array(sorted(set(pairs)), np.int64))


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("#")]


def describe() -> dict[str, list[tuple[int, int]]]:
    """Runs (first, last) of each tag, as the installed `tokenizers` library has them."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    points = [cp for cp in range(LAST + 1) if not 0xD800 <= cp <= 0xDFFF]
    text = "".join(map(chr, points))
    runs = {}
    for tag, pattern in _PATTERNS.items():
        split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
        runs[tag] = [(points[first], points[last - 1]) for _, (first, last) in split.pre_tokenize_str(text)]
    # between line feeds nothing is joined or re-ordered
    normal = normalizers.NFC().normalize_str("\n".join(map(chr, points)))
    changes = [cp for cp, one in zip(points, _between(normal, len(points)), strict=True) if one != chr(cp)]
    runs["X"] = []
    for cp in changes:
        if runs["X"] and runs["X"][-1][1] == cp - 1:
            runs["X"][-1] = (runs["X"][-1][0], cp)
        else:
            runs["X"].append((cp, cp))
    return runs


def _between(text: str, n: int) -> list[str]:
    """The parts of a text between line feeds; part 10 is a line feed itself."""
    parts = text.split("\n")
    parts[10:12] = ["\n"]
    if len(parts) != n:
        raise ValueError(f"{len(parts)} normal forms of {n} characters")
    return parts


def main() -> None:
    import tokenizers

    lines = [f"# tokenizers {tokenizers.__version__}; made by: python -m recipes.lm.bpe_unicode"]
    lines += [f"{tag} {first:X} {last:X}" for tag, runs in describe().items() for first, last in runs]
    TABLE.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{TABLE.name}: {len(lines)} lines, tokenizers {tokenizers.__version__}")


if __name__ == "__main__":
    main()
