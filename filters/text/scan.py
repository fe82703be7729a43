"""One scan of a string column, and every score family that can be computed from it.

The families that look at words and lines (Gopher quality, Gopher repetition, FineWeb) share one compiled
pass over the bytes. ``filters.text.gopher``, ``filters.text.fineweb`` and ``filters.text.heuristics`` are
what users call.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.text import codepoints
from filters.text.buffers import SHARED, utf8

WORDS = ("unicode", "tokens", "whitespace")

QUALITY_TYPE = pa.struct(
    [
        ("n_words", pa.int64()),
        ("n_tokens", pa.int64()),
        ("mean_word_length", pa.float64()),
        ("hash_ratio", pa.float64()),
        ("ellipsis_ratio", pa.float64()),
        ("bullet_line_ratio", pa.float64()),
        ("ellipsis_line_ratio", pa.float64()),
        ("alpha_word_ratio", pa.float64()),
        ("n_stop_words", pa.int64()),
    ]
)
REPETITION_TYPE = pa.struct(
    [
        ("n_chars", pa.int64()),
        ("dup_para_frac", pa.float64()),
        ("dup_para_char_frac", pa.float64()),
        ("dup_line_frac", pa.float64()),
        ("dup_line_char_frac", pa.float64()),
        *((f"top_{n}_gram", pa.float64()) for n in (2, 3, 4)),
        *((f"dup_{n}_gram", pa.float64()) for n in (5, 6, 7, 8, 9, 10)),
    ]
)
FINEWEB_TYPE = pa.struct(
    [
        ("n_lines", pa.int64()),
        ("line_punct_ratio", pa.float64()),
        ("short_line_ratio", pa.float64()),
        ("char_dup_ratio", pa.float64()),
        ("newline_ratio", pa.float64()),
    ]
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

    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
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
        name: struct_of(values, kind, text)
        for want, values, (name, kind) in zip(wanted, rows, FAMILIES.values(), strict=True)
        if want
    }


def check_words(words: Any) -> None:
    """Raise ValueError unless ``words`` is the name of a way to cut words."""
    if words not in WORDS:
        raise ValueError(
            f"words={words!r}: expected one of {', '.join(map(repr, WORDS))}, or a list<string> column"
        )


def struct_of(rows: np.ndarray, kind: pa.StructType, text: pa.Array) -> pa.StructArray:
    """The columns of a matrix as the fields of ``kind``, null where ``text`` is."""
    columns = [
        pa.array(
            np.ascontiguousarray(rows[:, i]).astype(field.type.to_pandas_dtype(), copy=False), field.type
        )
        for i, field in enumerate(kind)
    ]
    mask = text.is_null() if text.null_count else None
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)


@functools.lru_cache(16)
def classes(symbols: str | None = None, stop_chars: str = "") -> codepoints.Classes:
    """The code point table with the TERMINAL flag on ``stop_chars``."""
    table = codepoints.load(symbols)
    if not stop_chars:
        return table
    from filters.text.kernels import TERMINAL

    flat = table.classes.reshape(-1, 256)[table.pages].ravel()
    flat[[ord(char) for char in stop_chars]] |= TERMINAL
    distinct: dict[bytes, int] = {}
    pages = [distinct.setdefault(row.tobytes(), len(distinct)) for row in flat.reshape(-1, 256)]
    return codepoints.Classes(np.array(pages, np.uint16), np.frombuffer(b"".join(distinct), np.uint16).copy())


@functools.cache
def source_of_rules() -> str:
    """Hash of the files that the scores come from, whether or not they have been loaded."""
    here = Path(__file__)
    names = ["scan.py", "kernels.py", "line_kernels.py", "codepoints.py", "codepoints.txt"]
    names += [module.rpartition(".")[2] + ".py" for module in SHARED]
    return hashlib.blake2b(
        b"".join(here.with_name(name).read_bytes() for name in names), digest_size=16
    ).hexdigest()


def _stop_table(stop_words: tuple[str, ...], table: codepoints.Classes) -> tuple[np.ndarray, np.uint64]:
    """Table of token hashes, and the shift from hash to slot."""
    from filters.text import kernels
    from filters.text.hash_kernels import word_table

    column = utf8(pa.array(stop_words, pa.string()))
    return word_table(kernels.token_hashes(column.data, column.offsets, table.pages, table.classes))
