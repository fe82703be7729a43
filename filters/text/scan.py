"""One scan of a string column, and every score family that can be computed from it.

The families that look at words and lines (Gopher quality, Gopher repetition, FineWeb) share one compiled
pass over the bytes. ``filters.text.gopher``, ``filters.text.fineweb`` and ``filters.text.heuristics`` are
what users call.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.text import codepoints
from filters.text.buffers import SHARED, utf8
from filters.text.columns import one_array, struct_array, struct_type
from filters.text.sources import digest

WORDS = ("unicode", "tokens", "whitespace")

QUALITY_TYPE = struct_type(
    (
        "n_words", "n_tokens", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_line_ratio",
        "ellipsis_line_ratio", "alpha_word_ratio", "n_stop_words",
    )
)  # fmt: skip
REPETITION_TYPE = struct_type(
    (
        "n_chars", "dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac",
        *(f"top_{n}_gram" for n in (2, 3, 4)),
        *(f"dup_{n}_gram" for n in (5, 6, 7, 8, 9, 10)),
    )
)  # fmt: skip
FINEWEB_TYPE = struct_type(
    ("n_lines", "line_punct_ratio", "short_line_ratio", "char_dup_ratio", "newline_ratio")
)
# family → (its column, its type), in the order of the arguments of kernels.scores
FAMILIES = {
    "quality": ("gopher", QUALITY_TYPE),
    "repetition": ("repetition", REPETITION_TYPE),
    "fineweb": ("fineweb", FINEWEB_TYPE),
}


def scan_scores(
    text: pa.Array | pa.ChunkedArray,
    families: tuple[str, ...],
    *,
    words: str | pa.ListArray = "unicode",
    stop_words: tuple[str, ...] = (),
    symbols: str | None = None,
    stop_chars: str = "",
    short_line_chars: int = 30,
) -> dict[str, pa.StructArray]:
    """Column → struct array of each of ``families`` (keys of ``FAMILIES``); null text gives null.

    The other arguments are those of ``gopher_scores`` and ``fineweb_scores``. Raises TypeError for a column
    that is not text, ValueError for unknown ``words`` or lists that are not one per text.
    """
    from filters.text import kernels

    text = one_array(text)
    column = utf8(text)
    table = classes(symbols, stop_chars)
    given = utf8(pa.array([], pa.string()))
    given_docs = np.zeros(1, np.int64)
    if isinstance(words, pa.ListArray | pa.LargeListArray):
        if len(words) != len(text):
            raise ValueError(
                f"words: {len(words)} lists for {len(text)} texts; one list of words per text is needed"
            )
        given, given_docs = utf8(words.values), np.asarray(words.offsets).astype(np.int64)
        mode = kernels.NOTHING
    else:
        check_words(words)
        mode = {"unicode": kernels.UNICODE, "tokens": kernels.TOKENS, "whitespace": kernels.WHITESPACE}[words]
    stops, shift = _stop_table(stop_words if "quality" in families else (), table)
    wanted = [family in families for family in FAMILIES]
    rows = [
        np.empty((len(text) if want else 0, len(kind)))
        for want, (_, kind) in zip(wanted, FAMILIES.values(), strict=True)
    ]
    kernels.scores(
        column.data, column.offsets, mode, given.data, given.offsets, given_docs, table.pages, table.classes,
        stops, shift, *wanted, int(short_line_chars), *rows,
    )  # fmt: skip
    return {
        name: struct_array(values.T, kind, text)
        for want, values, (name, kind) in zip(wanted, rows, FAMILIES.values(), strict=True)
        if want
    }


def check_words(words: Any) -> None:
    """Raise ValueError unless ``words`` is the name of a way to cut words."""
    if words not in WORDS:
        raise ValueError(
            f"words={words!r}: expected one of {', '.join(map(repr, WORDS))}, or a list<string> column"
        )


@functools.lru_cache(16)
def classes(symbols: str | None = None, stop_chars: str = "") -> codepoints.Classes:
    """The code point table with the TERMINAL flag on ``stop_chars``."""
    table = codepoints.load(symbols)
    if not stop_chars:
        return table
    from filters.text.kernels import TERMINAL

    flat = table.flat()
    flat[[ord(char) for char in stop_chars]] |= TERMINAL
    return codepoints.Classes(*codepoints.two_stage(flat))


def source_of_rules() -> str:
    """Hash of the files that the scores come from, whether or not they have been loaded."""
    names = ["scan.py", "kernels.py", "line_kernels.py", "codepoints.py", "codepoints.txt"]
    names += [module.rpartition(".")[2] + ".py" for module in SHARED]
    return digest(*(Path(__file__).with_name(name) for name in names))


def _stop_table(stop_words: tuple[str, ...], table: codepoints.Classes) -> tuple[np.ndarray, np.uint64]:
    """Table of token hashes, and the shift from hash to slot."""
    from filters.text import kernels
    from filters.text.hash_kernels import word_table

    column = utf8(pa.array(stop_words, pa.string()))
    return word_table(kernels.token_hashes(column.data, column.offsets, table.pages, table.classes))
