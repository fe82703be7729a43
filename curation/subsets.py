"""Subsets: sets of row ids with multiplicity, in DataComp's file format, and their algebra.

A subset file is a one-dimensional NumPy array of two little-endian uint64 a row, the two halves of a 128-bit
uid (32 hex digits), sorted. An id that stands in it k times is meant k times. Files come as `.npy` or without
a header; both are memory-mapped, so a 22 GB subset costs no memory to open.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.hashing import byte_buffers

__all__ = [
    "DTYPE",
    "add",
    "contains",
    "difference",
    "format_ids",
    "intersection",
    "multiplicity",
    "parse_ids",
    "read_subset",
    "union",
    "write_subset",
]

DTYPE = np.dtype("<u8,<u8")  # fields f0, f1: first and last 16 hex digits


def parse_ids(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Uids as DTYPE[n], in the order given. Raises ValueError naming the first row that is no uid."""
    from curation import _hash_kernels as kernels

    if not _is_text(ids.type):
        raise TypeError(f"ids are {ids.type}; a subset needs strings of 32 hex digits")
    data, offsets = byte_buffers(ids)
    if ids.null_count:
        row = int(np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(f"row {row} has no id; a subset needs 32 hex digits in every row")
    out = np.empty((len(ids), 2), "<u8")
    bad = int(kernels.parse_hex(data, offsets, out))
    if bad >= 0:
        raise ValueError(
            f"row {bad}: id {ids[bad].as_py()[:80]!r} is not a DataComp uid (32 hex digits); subset files "
            "hold nothing else, so keep other ids in a parquet column"
        )
    return out.view(DTYPE).reshape(-1)


def format_ids(subset: np.ndarray) -> pa.StringArray:
    """Uids as 32 lower-case hex digits, in the order given."""
    words = np.ascontiguousarray(_words(subset)).astype(">u8")
    octets = words.view(np.uint8)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.empty((*octets.shape, 2), np.uint8)
    text[..., 0], text[..., 1] = digits[octets >> 4], digits[octets & 15]
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(words), [None, pa.py_buffer(text.tobytes())]
    )
    return fixed.cast(pa.binary()).cast(pa.string())


def write_subset(url: Any, ids: Any) -> int:
    """Write a subset file, sorted; returns the number of entries.

    ids: uids as an Arrow column, a list of strings, or DTYPE[n]; repeat an id to mean it k times. The file is
    the same, byte for byte, as that of `np.save(path, np.sort(array))`, and appears whole or not at all. A
    name that does not end in .npy gets no header.
    """
    subset = _sorted(_as_subset(ids))
    with storage.atomic_write(str(url)) as file:
        if str(url).endswith(".npy"):
            np.lib.format.write_array(file, subset, allow_pickle=False)
        else:
            file.write(subset.tobytes())
    return len(subset)


def read_subset(url: Any) -> np.ndarray:
    """Read a subset file, `.npy` or headerless: DTYPE[n], sorted; memory-mapped when local.

    Raises ValueError for another layout, and for entries out of order (which a search would miss silently).
    """
    url = str(url)
    with storage.open_read(url) as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        if storage.is_local(url):
            subset = np.load(storage.local_path(url), mmap_mode="r", allow_pickle=False)
        else:
            subset = np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False)
        if subset.ndim != 1 or subset.dtype.fields is None or subset.dtype.itemsize != 16:
            raise ValueError(
                f"{url}: an array of {subset.dtype} with shape {subset.shape}; a subset is one-dimensional "
                "with two little-endian uint64 a row (np.dtype('u8,u8'))"
            )
        if [subset.dtype[i].str for i in range(len(subset.dtype))] != ["<u8", "<u8"]:
            raise ValueError(f"{url}: an array of {subset.dtype}; a subset is np.dtype('u8,u8')")
        subset = subset.view(DTYPE)
    else:
        size = storage.info(url).size
        if size % 16:
            raise ValueError(
                f"{url}: {size} bytes are no whole number of 16-byte entries; is the file complete?"
            )
        if size and storage.is_local(url):
            subset = np.memmap(storage.local_path(url), DTYPE, "r")
        else:
            subset = np.frombuffer(storage.read_bytes(url), DTYPE)
    from curation import _hash_kernels as kernels

    bad = int(kernels.first_unsorted(_words(subset)))
    if bad >= 0:
        raise ValueError(
            f"{url}: entry {bad} is smaller than the one before; a subset is sorted (use write_subset)"
        )
    return subset


def multiplicity(subset: np.ndarray, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """How often each id stands in a sorted subset: int64[n]."""
    return multiplicity_of_words(subset, _words(parse_ids(ids)))


def multiplicity_of_words(subset: np.ndarray, words: np.ndarray) -> np.ndarray:
    """`multiplicity` of ids that are parsed already: uint64[n, 2], high half first."""
    from curation import _hash_kernels as kernels

    out = np.empty(len(words), np.int64)
    kernels.count_in_sorted(_words(subset), np.ascontiguousarray(words), out)
    return out


def contains(subset: np.ndarray, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Which ids stand in a sorted subset: bool[n]."""
    return multiplicity(subset, ids) > 0


def union(first: Any, second: Any) -> np.ndarray:
    """Every id as often as the subset that has it more often says."""
    return _combine(first, second, np.maximum)


def intersection(first: Any, second: Any) -> np.ndarray:
    """Every id as often as the subset that has it less often says."""
    return _combine(first, second, np.minimum)


def difference(first: Any, second: Any) -> np.ndarray:
    """Every id of the first, less its occurrences in the second."""
    return _combine(first, second, lambda a, b: np.maximum(a - b, 0))


def add(first: Any, second: Any) -> np.ndarray:
    """Every id as often as both together say: mixing with weights is adding a subset k times."""
    return _combine(first, second, np.add)


def _combine(first: Any, second: Any, rule: Any) -> np.ndarray:
    a, b = _as_subset(first), _as_subset(second)
    both = np.concatenate([a, b])
    words = _words(both)
    order = np.lexsort((words[:, 1], words[:, 0]))
    ranked = words[order]
    new = np.ones(len(ranked), bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    if len(starts) == 0:
        return both
    in_first = np.add.reduceat((order < len(a)).astype(np.int64), starts)
    in_both = np.diff(np.r_[starts, len(ranked)])
    counts = rule(in_first, in_both - in_first)
    return np.repeat(both[order[starts]], counts)


def _as_subset(ids: Any) -> np.ndarray:
    if isinstance(ids, np.ndarray):
        if ids.dtype.fields is None or ids.dtype.itemsize != 16:
            raise TypeError(
                f"an array of {ids.dtype} is no subset: use np.dtype('u8,u8') or strings of 32 hex"
            )
        return ids.astype(DTYPE, copy=False)
    if not isinstance(ids, pa.Array | pa.ChunkedArray):
        ids = pa.array(list(ids), pa.string())
    return parse_ids(ids)


def _sorted(subset: np.ndarray) -> np.ndarray:
    words = _words(subset)
    return subset[np.lexsort((words[:, 1], words[:, 0]))]  # many times faster than sorting the structs


def _words(subset: np.ndarray) -> np.ndarray:
    """The same memory as uint64[n, 2]."""
    return np.asarray(subset).view("<u8").reshape(-1, 2)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
