"""Lists of hosts and of URLs, by the million: where they come from, and the tables they become.

A list is a file (a path or any fsspec URL; ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are unpacked while read),
one entry a line and ``#`` for comments, or a tuple of entries.

**The host of a URL** stands between ``//`` and the next ``/``, ``?``, ``#`` or ``\\``: without user name and
password (up to the last ``@``), port, the brackets of an IPv6 address and dots at its end, in lower case. Of
a URL without ``//`` it is what comes before the first of these characters or ``:``. Punycode and
percent-encoding are left as they are: a list that means ``bücher.example`` and ``xn--bcher-kva.example``
names both.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from curation import storage
from filters.text import lowercase
from filters.text.buffers import utf8

List = str | tuple[str, ...]
BLOCK = 4 << 20  # bytes of a list read at a time
MOST_UNFIT = 0.01  # share of lines that may be no entries before a list is refused


def read_list(place: Any) -> tuple[str, ...]:
    """Entries of a list file, lower-cased, sorted, without comments, blank lines and repeats."""
    text = b"".join(_blocks(str(place))).decode("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(sorted({line.lower() for line in lines if line and not line.startswith("#")}))


def entries(given: List) -> tuple[str, ...]:
    """Entries of a list, wherever it is, lower-cased and sorted."""
    if isinstance(given, str):
        return read_list(given)
    return tuple(sorted({entry.strip().lower() for entry in given if entry.strip()}))


def fingerprint(given: List) -> str:
    """Content hash of a list: what goes into the identity of a step, wherever the list lies."""
    if isinstance(given, str):
        found = _info(given)
        return _file_fingerprint(given, found.size, found.etag)
    return hashlib.blake2b("\n".join(sorted(set(given))).encode(), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=256)
def _file_fingerprint(url: str, size: int, etag: str) -> str:
    total = hashlib.blake2b(digest_size=16)
    with storage.open_read(url) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _info(url: str) -> storage.FileInfo:
    try:
        return storage.info(url)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"list {url!r} is not there: give a file (path or fsspec URL) with one entry a line, or a tuple"
        ) from error


def unpacked(file: IO[bytes], name: str) -> Any:
    """The file, decompressed as its name says."""
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if name.endswith(".bz2"):
        return bz2.BZ2File(file)
    if name.endswith(".xz"):
        return lzma.LZMAFile(file)
    if name.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file


def _blocks(given: List | IO[bytes]) -> Iterator[bytes]:
    if isinstance(given, str):
        _info(given)
        with storage.open_read(given) as file:
            yield from file_blocks(unpacked(file, given))
    elif isinstance(given, tuple | list):
        yield "\n".join(given).encode()
    else:
        yield from file_blocks(given)


def file_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a list in blocks that end where lines end."""
    rest = b""
    while block := file.read(BLOCK):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
    if rest:
        yield rest


def hashes(
    given: List | IO[bytes], urls: bool, fold_path: bool = False, name: str | None = None
) -> np.ndarray:
    """uint64 hashes of the entries, in any order.

    A line that cannot be a host (or URL) is left out with a warning; ValueError when more than 1 % are.
    """
    from filters.text import url_kernels as kernels

    table = lowercase.load()
    parts = [np.zeros(0, np.uint64)]
    total = unfit = 0
    example = ""
    for block in _blocks(given):
        data = np.frombuffer(block, np.uint8)
        out = np.empty(block.count(b"\n") + 1, np.uint64)
        scratch = np.empty(2 * len(data) + 8, np.uint8)
        if urls:
            n, bad, at = kernels.url_entries(data, fold_path, table.pages, table.shifts, scratch, out)
        else:
            n, bad, at = kernels.host_entries(data, table.pages, table.shifts, scratch, out)
        if bad and not unfit:
            example = block[at : at + 200].split(b"\n")[0].decode("utf-8", "replace").strip()
        total, unfit = total + n + bad, unfit + bad
        parts.append(out[:n].copy())
    if unfit:
        label = name or (given if isinstance(given, str) else "given")
        kind = "URLs" if urls else "host names"
        found = f"list {label!r}: {unfit:,} of {total:,} lines are no {kind}, the first of them {example!r}"
        if unfit > max(1 if isinstance(given, str) else 0, MOST_UNFIT * total):
            raise ValueError(f"{found}; one entry a line is expected, '#' for comments")
        warnings.warn(f"{found}; they are left out", stacklevel=2)
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Table:
    """Compiled lists. ``find`` says which of them hold each URL."""

    keys: np.ndarray  # uint64[power of two], 0: empty
    sets: np.ndarray  # uint8 or uint16 per slot: index into members
    members: np.ndarray  # uint64: bits of the lists
    n_entries: int
    urls: bool
    wide: bool  # an entry covers what is below it
    fold_path: bool

    def find(self, url: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
        """(uint64 bits of the lists that hold each URL, the entry found or null). A null is on no list."""
        from filters.text import url_kernels as kernels

        column = utf8(url)
        n = len(column.offsets) - 1
        lists = np.zeros(n, np.uint64)
        if not self.n_entries or not n:
            return lists, pa.nulls(n, pa.string())
        table = lowercase.load()
        scratch = np.empty(2 * int(np.diff(column.offsets).max()) + 8, np.uint8)
        # room for every host; what is not written is never backed by memory
        hit = np.empty(2 * int(column.offsets[-1] - column.offsets[0]) + 8, np.uint8)
        offsets = np.empty(n + 1, np.int64)
        fixed = (
            table.pages,
            table.shifts,
            self.keys,
            self.sets,
            self.members,
            _shift(len(self.keys)),
            scratch,
        )
        if self.urls:
            kernels.match_urls(
                column.data, column.offsets, self.wide, self.fold_path, *fixed, lists, hit, offsets
            )
        else:
            kernels.match_hosts(column.data, column.offsets, self.wide, *fixed, lists, hit, offsets)
        return lists, _strings(hit, offsets, lists == 0)


def build(parts: Sequence[tuple[int, np.ndarray]], urls: bool, wide: bool, fold_path: bool = False) -> Table:
    """Table of (number of the list, hashes of its entries) pairs, as ``hashes`` gives them; lists 0…63.

    ``urls``: entries are URLs (else hosts). ``wide``: an entry covers the hosts below it, or the URLs that go
    on after it. ``fold_path``: upper and lower case are the same in paths, as when the entries were hashed.
    """
    from filters.text import url_kernels as kernels

    entries = sum(len(part) for _, part in parts)
    size = 8
    while 10 * entries > 7 * size:
        size *= 2
    several = len({number for number, _ in parts}) > 8
    keys, sets = np.zeros(size, np.uint64), np.zeros(size, np.uint16 if several else np.uint8)
    members = np.zeros(1 << 16 if several else 1 << 8, np.uint64)
    n = n_sets = 0
    for number, part in parts:
        bit = np.uint64(1) << np.uint64(number)
        new, n_sets = kernels.insert(part, bit, keys, sets, members, n_sets, _shift(size))
        n += new
        if n_sets < 0:
            raise ValueError(
                "entries are on more than 65,536 different sets of lists: use fewer lists at once"
            )
    return Table(keys, sets, members[: max(n_sets, 1)].copy(), n, urls, wide, fold_path)


def domain_table(given: List, match: str) -> Table:
    """Table of one list of host names; ``match`` is ``"exact"`` or ``"subdomains"``."""
    return build([(0, hashes(given, urls=False))], urls=False, wide=match == "subdomains")


def check_match(match: str) -> None:
    """Raise ValueError unless ``match`` is a known rule."""
    if match not in ("exact", "subdomains"):
        raise ValueError(f"match={match!r}: expected 'exact' or 'subdomains'")


def url_hosts(url: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Host of every URL, null where there is none; the rule is the module's."""
    from filters.text import url_kernels as kernels

    column, table = utf8(url), lowercase.load()
    out = np.empty(2 * int(column.offsets[-1] - column.offsets[0]) + 8, np.uint8)
    offsets = np.empty(len(column.offsets), np.int64)
    kernels.hosts(column.data, column.offsets, table.pages, table.shifts, out, offsets)
    return _strings(out, offsets, np.diff(offsets) == 0)


def _strings(data: np.ndarray, offsets: np.ndarray, null: np.ndarray) -> pa.Array:
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError("more than 2 GiB of hosts in one batch: read smaller batches")
    valid = pa.array(~null).buffers()[1] if null.any() else None
    text = pa.py_buffer(data[: offsets[-1]].tobytes())
    return pa.StringArray.from_buffers(len(null), pa.py_buffer(offsets.astype(np.int32)), text, valid)


def _shift(size: int) -> np.uint64:
    return np.uint64(64 - (size.bit_length() - 1))
