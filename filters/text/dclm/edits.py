"""Edits of the whole text: URLs out (step 6 of dclm_baseline_refinedweb.yaml), newlines squeezed (step 7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import curation as c
from curation.apply import replace_columns
from filters.text.buffers import Utf8, utf8
from filters.text.columns import one_array, strings
from filters.text.dclm import classes
from filters.text.dclm.scores import USES

COMPAT = (None, "dclm")
TLDS = Path(__file__).parents[1] / "lists" / "tlds.txt"
WORDLIKE = "# ---- also words or file endings"  # what the second part of the list begins with
EDIT_USES = (*USES, "filters.text.dclm.edit_kernels")


def check_compat(compat: Any) -> None:
    if compat not in COMPAT:
        raise ValueError(
            f"compat={compat!r}: expected None (mended rules) or 'dclm' (its rules to the letter)"
        )


def kept_rows(batch: pa.RecordBatch, text: pa.Array, **others: pa.Array) -> tuple[pa.RecordBatch, np.ndarray]:
    """The batch with its new text, without the rows whose text is now empty; and where each came from."""
    out = replace_columns(batch, text=text, **others)
    column = utf8(text)
    rows = np.flatnonzero((np.diff(column.offsets) > 0) | np.asarray(text.is_null()))
    return (out if len(rows) == len(text) else out.take(pa.array(rows))), rows.astype(np.int64)


def read_tlds(path: str | Path | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(plain, wordlike) top-level domains of a list file, one a line, lower case; see ``lists/tlds.txt``."""
    lines = Path(path or TLDS).read_text(encoding="utf-8").splitlines()
    at = lines.index(WORDLIKE) if WORDLIKE in lines else len(lines)
    parts = (lines[:at], lines[at:])
    plain, wordlike = (
        tuple(sorted({line.strip().lower() for line in part if line.strip() and line[0] != "#"}))
        for part in parts
    )
    return plain, wordlike


def remove_urls_from(
    text: pa.Array | pa.ChunkedArray, compat: str | None = None, tlds: Any = None
) -> pa.Array:
    """The column without URLs, by the rule of ``RemoveUrls``; null stays null. ``tlds``: a table made by
    ``tld_table`` (default: of the built-in list)."""
    from filters.text.dclm import edit_kernels as kernels

    check_compat(compat)
    text = one_array(text)
    column, table = utf8(text), classes.load()
    names, kinds, longest = tlds or tld_table()
    out = np.empty(len(column.data), np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    if compat is None:
        kernels.remove_urls(column.data, column.offsets, kernels.URL_BYTES, names, kinds, out, ends)
        return strings(out, ends, text)
    kernels.remove_urls_dclm(
        column.data, column.offsets, longest, kernels.URL_BYTES, table.pages, table.classes, names, kinds,
        out, ends,
    )  # fmt: skip
    out.flags.writeable = False  # as the first pass had it: the helpers of both are compiled once
    once = Utf8(out, ends)
    out, ends = np.empty(int(once.offsets[-1]), np.uint8), np.zeros(len(text) + 1, np.int64)
    kernels.remove_addresses_dclm(
        once.data, once.offsets, kernels.URL_BYTES, table.pages, table.classes, out, ends
    )
    return strings(out, ends, text)


def tld_table(path: str | Path | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """Open-addressing table of name hashes, the kind of each name, bytes of the longest name."""
    from filters.text.dclm import edit_kernels as kernels
    from filters.text.hash_kernels import fnv1a

    plain, wordlike = read_tlds(path)
    if not plain and not wordlike:
        raise ValueError(f"{path}: no top-level domain in this list; one a line is needed, such as com")
    size = 1 << (4 * (len(plain) + len(wordlike))).bit_length()
    names, kinds = np.zeros(size, np.uint64), np.zeros(size, np.uint8)
    for kind, entries in ((kernels.PLAIN, plain), (kernels.WORDLIKE, wordlike)):
        for name in entries:
            value = fnv1a(name.encode())
            slot = value % size
            while kinds[slot]:
                slot = (slot + 1) % size
            names[slot], kinds[slot] = value, kind
    return names, kinds, max(len(name.encode()) for name in plain + wordlike)


@dataclass(frozen=True)
class RemoveUrls(c.Transform):
    """Remove URLs, bare host names, e-mail addresses and IPv4 addresses from the text, with the spaces before
    them. A page left with no text leaves with reason ``remove_urls``.

    Default rule. Removed are:

    * ``http://``, ``https://``, ``ftp://`` (any case) and the URL characters after it (letters, digits and
      ``-@:%._+~#=()?&/``);
    * a run of letters, digits and ``-_.@%+~`` whose last label is a listed top-level domain, in one case
      (``.com``, ``.COM``, not ``end.So``), and what begins after it with ``/``, ``:``, ``?`` or ``#``. Where
      that domain is also a word or a file ending (``come to me.so``, ``README.md``), only with ``www.``, an
      ``@`` or a path. Not after a slash (``src/main.rs``);
    * four numbers up to 255 with points between, standing alone, with port and path.

    Closing ``.``, ``:``, ``?`` and an unopened ``)`` stay, and so do line breaks.

    ``compat="dclm"``: DCLM's url_removal_modifier to the letter (Li et al. 2024, arXiv 2406.11794), a known
    oddity: names are looked for only in a page whose very first characters happen to spell a top-level domain
    (upper and lower case alike: "The …" spells .th); in the others only IPv4 addresses go. Up to ten
    characters of white space go too, line breaks among them. The list is ours (IANA's of March 2026), not its
    older 1,591 lines: ``tlds`` names another file, one a line.
    """

    compat: str | None = None
    tlds: str | None = None
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = EDIT_USES

    def __post_init__(self) -> None:
        check_compat(self.compat)

    @property
    def identity(self) -> Any:
        return [super().identity, None if self.tlds else [list(part) for part in read_tlds()]]

    def setup(self) -> None:
        object.__setattr__(self, "_tlds", tld_table(self.tlds))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        text = remove_urls_from(batch.column("text"), self.compat, getattr(self, "_tlds", None))
        return kept_rows(batch, text)


remove_urls = RemoveUrls


def squeeze_newlines_in(text: pa.Array | pa.ChunkedArray, max_consecutive: int = 2) -> pa.Array:
    """The column with runs of more than ``max_consecutive`` newlines cut to that many; null stays null."""
    from filters.text.dclm import edit_kernels as kernels

    text = one_array(text)
    column = utf8(text)
    out, ends = np.empty(len(column.data), np.uint8), np.zeros(len(text) + 1, np.int64)
    kernels.squeeze_newlines(column.data, column.offsets, max_consecutive, out, ends)
    return strings(out, ends, text)


@dataclass(frozen=True)
class SqueezeNewlines(c.Transform):
    """Runs of more than ``max_consecutive`` newlines become that many (DCLM's newline_removal_modifier). It
    removes no row."""

    max_consecutive: int = 2
    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = EDIT_USES

    def __post_init__(self) -> None:
        if self.max_consecutive < 0:
            raise ValueError(f"max_consecutive={self.max_consecutive}: expected 0 or more")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return replace_columns(batch, text=squeeze_newlines_in(batch.column("text"), self.max_consecutive))


squeeze_newlines = SqueezeNewlines


# DCLM's names


def url_removal_modifier(compat: str | None = None, tlds: str | None = None) -> RemoveUrls:
    """DCLM's name for ``remove_urls``."""
    return RemoveUrls(compat, tlds)


def newline_removal_modifier(max_consecutive: int = 2) -> SqueezeNewlines:
    """DCLM's name for ``squeeze_newlines``."""
    return SqueezeNewlines(max_consecutive)
