"""A global shuffle in bounded memory, the same whoever does it.

Every context of every stream has a 64-bit key made of (seed, source, shard name, its number there, copy).
The final order is the order of the keys, ties by place: so it depends on nothing else, neither on workers
nor on the sizes below. It is made in two passes over the data:

    scatter    a stream is read in runs of 64 MB; each run is written in the order of its keys
    gather     output shard s takes ranks [s*K, (s+1)*K): one slice of every run, sorted in memory

The ranks' keys come from the key files alone (8 bytes a context), by a histogram and a second look at the
few buckets where a shard begins (:func:`boundaries`). Peak memory is one run or one output shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from curation.manifest import Manifest, Record
from curation.outputs import committed
from recipes.lm.jobs import finish
from recipes.lm.tokens import TokensError, mix64

RUN_BYTES = 64 << 20
PIECE_BYTES = 4 << 20  # rows put in order at a time
SCATTER, GATHER = "2-scatter", "3-gather"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Stream:
    """The contexts of one input shard, in the order of its documents: rows of a file of token ids."""

    file: str
    source: str
    name: str
    contexts: int


@dataclass(frozen=True)
class Copies:
    """How often the contexts of a stream are wanted: ``whole`` times each, and once more those that
    :func:`picks` puts before ``limit``, and before number ``ties`` when equal to it."""

    whole: int = 1
    limit: int = 0
    ties: int = 0


@dataclass(frozen=True)
class Scatter:
    """One task of the first pass."""

    root: str
    stage_hash: str
    key: str
    stream: Stream
    copies: Copies
    seed: int
    length: int
    dtype: str
    run_bytes: int = RUN_BYTES


@dataclass(frozen=True)
class Runs:
    """What a scatter task left: files of rows and keys, and how many of them each run has."""

    rows: str
    keys: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """One task of the second pass: ``count`` contexts from key ``first`` (less its ``skip`` first ones) on,
    up to and with key ``last``."""

    root: str
    stage_hash: str
    key: str
    file: str
    runs: str  # JSON of the runs of all streams, in order: too long to travel with each task
    first: int
    last: int
    skip: int
    count: int
    length: int
    dtype: str
    vocab: int


# ---------------------------------------------------------------- keys


def keys_of(stream: Stream, seed: int, numbers: np.ndarray, copy: int = 0) -> np.ndarray:
    """The place of contexts in the final order, uint64."""
    return _hash(f"order:{seed}", stream, numbers, copy)


def picks(stream: Stream, seed: int, numbers: np.ndarray) -> np.ndarray:
    """The order in which contexts are chosen when not all of a source are wanted, uint64."""
    return _hash(f"pick:{seed}", stream, numbers, 0)


def _hash(salt: str, stream: Stream, numbers: np.ndarray, copy: int) -> np.ndarray:
    base = np.uint64(xxhash.xxh3_64_intdigest(f"{salt}\0{stream.source}\0{stream.name}".encode()))
    with np.errstate(over="ignore"):
        own = mix64(numbers.astype(np.uint64) * _GOLDEN + base)
        return mix64(own + np.uint64(copy) * _GOLDEN)


def choose(streams: Sequence[Stream], seed: int, count: int) -> list[Copies]:
    """Exactly ``count`` contexts of one source, repeats included: whole copies of all, and the rest by
    their hash. Raises TokensError when there is nothing to copy."""
    total = sum(stream.contexts for stream in streams)
    if not total:
        if count:
            raise TokensError(f"{count:,} contexts wanted of {streams[0].source!r}, which has none")
        return [Copies() for _ in streams]
    whole, rest = divmod(count, total)
    if not rest:
        return [Copies(whole) for _ in streams]
    hashes = lambda: (picks(s, seed, n) for s in streams for n in _numbers(s))  # noqa: E731
    ((limit, below),) = ranks(hashes, [rest - 1], total)
    # Of the contexts whose hash is the limit itself, the first ones in order are taken.
    wanted, out = rest - below, []
    for stream in streams:
        ties = [n[picks(stream, seed, n) == np.uint64(limit)] for n in _numbers(stream)]
        taken = np.concatenate([*ties, np.zeros(0, np.int64)])[:wanted]
        wanted -= len(taken)
        out.append(Copies(whole, limit, int(taken[-1]) + 1 if len(taken) else 0))
    return out


def _numbers(stream: Stream, step: int = 1 << 20) -> Iterator[np.ndarray]:
    for low in range(0, stream.contexts, step):
        yield np.arange(low, min(low + step, stream.contexts), dtype=np.int64)


def ranks(
    parts: Callable[[], Iterable[np.ndarray]], wanted: Sequence[int], total: int
) -> list[tuple[int, int]]:
    """(value, how many are smaller) at some ranks of ``total`` uint64 values that come in parts.

    The parts are gone through twice: for a histogram, and for the values of the buckets that matter.
    """
    bits = 20 if total > 1 << 22 else 12
    shift = np.uint64(64 - bits)
    counts = np.zeros(1 << bits, dtype=np.int64)
    for part in parts():
        counts += np.bincount((part >> shift).astype(np.int64), minlength=1 << bits)
    before = np.cumsum(counts) - counts
    buckets = np.searchsorted(before, np.asarray(wanted), side="right") - 1
    needed = np.zeros(1 << bits, dtype=bool)
    needed[buckets] = True
    values = np.sort(np.concatenate([part[needed[(part >> shift).astype(np.int64)]] for part in parts()]))
    out = []
    for rank, bucket in zip(wanted, buckets.tolist(), strict=True):
        start = int(np.searchsorted(values, np.uint64(bucket) << shift))
        value = values[start + rank - int(before[bucket])]
        below = int(np.searchsorted(values, value)) - start + int(before[bucket])
        out.append((int(value), below))
    return out


# ---------------------------------------------------------------- first pass


def scatter(task: Scatter, attempt: int = 1) -> Record:
    """Write the wanted copies of a stream's contexts in runs, each in the order of its keys."""
    started = time.perf_counter()
    manifest, outputs, sizes = Manifest(task.root), [], []
    dtype = np.dtype(task.dtype).newbyteorder("<")
    row = task.length * dtype.itemsize
    step, piece = max(1, task.run_bytes // row), max(1, PIECE_BYTES // row)
    rows_file, keys_file = (f"_winnow/work/scatter/{task.key}.{kind}" for kind in ("rows", "keys"))
    with (
        committed(manifest, rows_file, outputs) as rows,
        committed(manifest, keys_file, outputs) as keys,
        open(manifest.path(task.stream.file), "rb") as source,
    ):
        for low in range(0, task.stream.contexts, step):
            count = min(step, task.stream.contexts - low)
            contexts = np.fromfile(source, dtype, count * task.length).reshape(count, task.length)
            numbers, places = _copies(task, np.arange(low, low + count, dtype=np.int64))
            keys.write(places.astype("<u8"))
            for at in range(0, len(numbers), piece):
                rows.write(contexts[numbers[at : at + piece] - low])
            sizes.append(len(numbers))
    return finish(
        task.root, SCATTER, task.stage_hash, task.key, outputs, started, attempt,
        rows_in=task.stream.contexts, rows_out=sum(sizes),
        runs={"rows": rows_file, "keys": keys_file, "sizes": sizes},
    )  # fmt: skip


def _copies(task: Scatter, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, keys) of the copies wanted of some contexts, by key; ties by number, then by copy."""
    copies, seed, stream = task.copies, task.seed, task.stream
    all_numbers = [numbers] * copies.whole
    all_keys = [keys_of(stream, seed, numbers, copy) for copy in range(copies.whole)]
    if copies.limit or copies.ties:
        order = picks(stream, seed, numbers)
        limit = np.uint64(copies.limit)
        extra = numbers[(order < limit) | ((order == limit) & (numbers < copies.ties))]
        all_numbers.append(extra)
        all_keys.append(keys_of(stream, seed, extra, copies.whole))
    if not all_numbers:
        return numbers[:0], np.zeros(0, np.uint64)
    flat, keys = np.concatenate(all_numbers), np.concatenate(all_keys)
    order = np.lexsort((flat, keys))  # stable: copies of one number stay in their order
    return flat[order], keys[order]


# ---------------------------------------------------------------- second pass


def boundaries(root: str, runs: Sequence[Runs], shard_contexts: int) -> list[tuple[int, int, int, int]]:
    """(first key, last key, skip, count) of every output shard of ``shard_contexts`` contexts."""
    total = sum(sum(r.sizes) for r in runs)
    if not total:
        return []
    starts = list(range(0, total, shard_contexts))
    ends = [min(start + shard_contexts, total) - 1 for start in starts]
    first = ranks(lambda: _keys(root, runs), starts, total)
    last = ranks(lambda: _keys(root, runs), ends, total)
    return [
        (key, stop, start - below, end - start + 1)
        for (key, below), (stop, _), start, end in zip(first, last, starts, ends, strict=True)
    ]


def _keys(root: str, runs: Sequence[Runs], step: int = 1 << 20) -> Iterator[np.ndarray]:
    for run in runs:
        with open(Path(root) / run.keys, "rb") as file:
            while len(keys := np.fromfile(file, "<u8", step)):
                yield keys


def gather(task: Gather, attempt: int = 1) -> Record:
    """Write one output shard: a slice of every run, in the order of the keys."""
    started = time.perf_counter()
    manifest, outputs = Manifest(task.root), []
    dtype = np.dtype(task.dtype).newbyteorder("<")
    row = task.length * dtype.itemsize
    slices = []  # (rows file, first row, rows, their keys)
    for run in read_runs(manifest.path(task.runs)):
        begin = 0
        keys = _map(manifest.path(run.keys))
        for size in run.sizes:
            own = keys[begin : begin + size]
            low = int(np.searchsorted(own, np.uint64(task.first), side="left"))
            high = int(np.searchsorted(own, np.uint64(task.last), side="right"))
            if high > low:
                slices.append((run.rows, begin + low, high - low, np.array(own[low:high])))
            begin += size
    contexts = np.empty((sum(s[2] for s in slices), task.length), dtype)
    at, file, name = 0, None, None
    try:
        for rows, first, count, _ in slices:
            if rows != name:
                if file is not None:
                    file.close()
                file, name = open(manifest.path(rows), "rb", buffering=0), rows  # noqa: SIM115
            file.seek(first * row)
            part = contexts[at : at + count]
            if file.readinto(memoryview(part).cast("B")) != part.nbytes:
                raise TokensError(f"{manifest.path(rows)}: shorter than its keys; remove it and run again")
            at += count
    finally:
        if file is not None:
            file.close()
    order = np.argsort(np.concatenate([s[3] for s in slices]), kind="stable")
    order = order[task.skip : task.skip + task.count]
    if len(order) != task.count:
        raise TokensError(f"{task.file}: {len(order):,} contexts found, {task.count:,} planned")
    piece, highest = max(1, PIECE_BYTES // row), 0
    with committed(manifest, task.file, outputs) as out:
        for low in range(0, len(order), piece):
            part = contexts[order[low : low + piece]]
            highest = max(highest, int(part.max()))
            out.write(part)
    if highest >= task.vocab:
        raise TokensError(f"{task.file}: token id {highest} with a vocabulary of {task.vocab:,}")
    return finish(
        task.root, GATHER, task.stage_hash, task.key, outputs, started, attempt,
        rows_in=task.count, rows_out=task.count,
    )  # fmt: skip


def _map(path: str) -> np.ndarray:
    size = Path(path).stat().st_size // 8
    return np.memmap(path, "<u8", "r", shape=(size,)) if size else np.zeros(0, "<u8")


def read_runs(path: str) -> list[Runs]:
    """The runs that scatter tasks left, as the driver noted them."""
    import orjson

    return [
        Runs(r["rows"], r["keys"], tuple(r["sizes"])) for r in orjson.loads(Path(path).read_bytes())["runs"]
    ]
