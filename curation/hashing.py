"""64-bit hashes of Arrow columns, and what is derived from them: uniform draws and duplicate ids.

The hash is XXH64 (Yann Collet's specification), bit for bit: `hash64(column)[i] == xxhash.xxh64(row_i)`.
It is part of the file contract (who survives a sample, which shard a row is shuffled to), so it must never
change between versions, machines or processes. Columns are hashed by compiled loops over the Arrow
buffers; numba is imported on first use so that importing this module stays cheap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

__all__ = [
    "DuplicateIds",
    "byte_buffers",
    "hash64",
    "hash128",
    "salt_seed",
    "uniform",
    "uniform_of",
]

SECOND_SEED = 0x9E3779B97F4A7C15  # hash128's second word; any constant other than 0 would do
_MASK = 0xFFFFFFFFFFFFFFFF


def byte_buffers(array: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes behind a column: `(data uint8[], offsets int64[n + 1])`, row i being
    data[offsets[i] : offsets[i + 1]].

    Takes strings and binaries of every layout, fixed-size binaries, dictionaries of these, and integers,
    booleans and dates (as 8 little-endian bytes). What a null row holds is unspecified. No copy is made of
    the bytes of plain string and binary columns, sliced or not.

    Raises TypeError for columns without one obvious byte form (floats, lists, structs).
    """
    if isinstance(array, pa.ChunkedArray):
        array = _one_chunk(array)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return byte_buffers(array.dictionary_decode())
    if _is_view(kind) or pa.types.is_null(kind):
        array = array.cast(pa.large_binary() if kind == pa.binary_view() else pa.large_string())
        kind = array.type
    n, start = len(array), array.offset
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _data(array.buffers()[2]), _offsets(array.buffers()[1], np.int32, start, n)
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return _data(array.buffers()[2]), _offsets(array.buffers()[1], np.int64, start, n)
    if pa.types.is_fixed_size_binary(kind):
        return _data(array.buffers()[1]), (np.arange(n + 1, dtype=np.int64) + start) * kind.byte_width
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        if kind != pa.uint64():
            if kind.bit_width == 32 and pa.types.is_temporal(kind):
                array = array.cast(pa.int32())
            array = array.cast(pa.int64())
        return _data(array.buffers()[1]), (np.arange(n + 1, dtype=np.int64) + array.offset) * 8
    raise TypeError(
        f"cannot hash a column of type {kind}: use a string, binary or integer one, or cast it to string"
    )


def hash64(array: pa.Array | pa.ChunkedArray, seed: int = 0) -> np.ndarray:
    """XXH64 of every row: uint64[n]. Strings are hashed as their UTF-8 bytes; a null row gets 0."""
    from curation import _hash_kernels as kernels

    data, offsets = byte_buffers(array)
    out = np.empty(len(array), np.uint64)
    kernels.xxh64_rows(data, offsets, np.uint64(seed & _MASK), out)
    if array.null_count:
        out[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return out


def hash128(array: pa.Array | pa.ChunkedArray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two XXH64 under unrelated seeds, for where 64 bits could collide: two uint64[n]; null rows get 0, 0."""
    return hash64(array, seed), hash64(array, seed ^ SECOND_SEED)


def salt_seed(salt: str) -> int:
    """The seed that a salt (a step's name, "shuffle/7") stands for: the XXH64 of its UTF-8 bytes."""
    return xxhash.xxh64_intdigest(salt.encode())


def uniform(ids: pa.Array | pa.ChunkedArray, salt: str) -> np.ndarray:
    """A draw from [0, 1) for every id: float64[n], derived from the id and the salt and nothing else."""
    bits = hash64(ids, salt_seed(salt))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_of(row_id: str, salt: str) -> float:
    """`uniform` for one id; equal to it bit for bit, and needs no compiled code."""
    return (xxhash.xxh64_intdigest(row_id.encode(), seed=salt_seed(salt)) >> 11) * 2.0**-53


class DuplicateIds:
    """The set of ids seen so far, by 128-bit hash: 32 to 64 bytes an id, whatever the ids' length.

    Two different ids are taken for one with a probability of about n² / 2^129 (below 1e-20 for 10^9 ids).
    """

    def __init__(self, expected: int = 1 << 12) -> None:
        capacity = 1 << 12
        while capacity < 2 * expected:
            capacity *= 2
        self._slots = np.zeros((capacity, 2), np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Add ids in order: bool[n], true where the id was there already (from before or earlier in `ids`).

        Raises ValueError for a null id, naming its position.
        """
        if ids.null_count:
            row = int(np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))[0])
            raise ValueError(f"row {row} has no id: every row needs one; give the reader id=… or fill it in")
        return self.add_hashes(*hash128(ids))

    def add_hashes(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """`add` for ids hashed already by `hash128` (so that they need not travel)."""
        from curation import _hash_kernels as kernels

        while 2 * (self._count + len(first)) > len(self._slots):
            grown = np.zeros((2 * len(self._slots), 2), np.uint64)
            kernels.rehash(self._slots, grown)
            self._slots = grown
        seen = np.empty(len(first), np.bool_)
        self._count += int(kernels.insert(self._slots, first, second, seen))
        return seen


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):  # chunks may exceed 2 GB together
        wide = pa.large_string() if pa.types.is_string(column.type) else pa.large_binary()
        column = column.cast(wide)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _is_view(kind: Any) -> bool:
    return kind in (pa.string_view(), pa.binary_view())


def _data(buffer: pa.Buffer | None) -> np.ndarray:
    # never empty and always read-only: kernels then compile once, for one type
    return np.frombuffer(buffer if buffer is not None and buffer.size else b"\0", np.uint8)


def _offsets(buffer: pa.Buffer | None, dtype: type, start: int, n: int) -> np.ndarray:
    if buffer is None or buffer.size == 0:  # allowed for zero rows
        return np.zeros(n + 1, np.int64)
    return np.frombuffer(buffer, dtype)[start : start + n + 1].astype(np.int64)
