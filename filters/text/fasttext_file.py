"""What a fastText model file (.bin, .ftz) holds: settings, words, labels, matrices. It is mapped, not read.

The format is that of fastText 0.9 (version 12; version 11 differs in one setting): int32 magic and version,
settings, dictionary, input matrix (a row for each word, then for each n-gram bucket), output matrix (a row
for each label, or for each inner node of the Huffman tree). Little-endian, nothing aligned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

MAGIC = 793712314
HS, NS, SOFTMAX, OVA = 1, 2, 3, 4
"""Losses: hierarchical softmax, negative sampling, softmax, one against all."""
_SUPERVISED = 3
_CENTROIDS = 256


@dataclass(frozen=True)
class Dense:
    """A float32 matrix as the bytes of its rows, one after the other."""

    n: int
    dim: int
    data: np.ndarray  # uint8[4 * n * dim]

    def dense(self) -> np.ndarray:
        return np.frombuffer(self.data.tobytes(), np.float32).reshape(self.n, self.dim)


@dataclass(frozen=True)
class Coded:
    """Product-quantised rows: ``part`` values at a time are one of 256 centroids, times the row's norm."""

    n: int
    dim: int
    part: int
    codes: np.ndarray  # uint8[n, parts]; the last part may be narrower
    centroids: np.ndarray  # float32[256 * dim]: for each part the 256 centroids
    norms: np.ndarray  # float32[n]; 1 where norms are not coded

    def take(self, rows: np.ndarray) -> Coded:
        """The same in another order of rows."""
        return replace(self, n=len(rows), codes=self.codes[rows], norms=self.norms[rows])

    def directions(self) -> np.ndarray:
        """float32[n, dim]: the rows before they are multiplied by their norms."""
        rows = np.empty((self.n, self.dim), np.float32)
        for k, first in enumerate(range(0, self.dim, self.part)):
            width = min(self.part, self.dim - first)
            table = self.centroids[_CENTROIDS * first :][: _CENTROIDS * width].reshape(_CENTROIDS, width)
            rows[:, first : first + width] = table[self.codes[:, k]]
        return rows

    def dense(self) -> np.ndarray:
        return self.directions() * self.norms[:, None]


@dataclass(frozen=True)
class ModelFile:
    """A supervised model. ``data`` is the whole file; entry i is a NUL-terminated word at ``starts[i]``."""

    path: str
    dim: int
    loss: int
    word_ngrams: int
    bucket: int
    minn: int
    maxn: int
    n_words: int
    labels: tuple[str, ...]
    label_counts: tuple[int, ...]
    data: np.ndarray  # uint8
    starts: np.ndarray  # uint32 or int64 [n_words + labels]
    kept: np.ndarray | None  # int32[k, 2]: bucket and its row (after the words) where others were pruned
    input: Dense | Coded
    output: Dense | Coded


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.at = 0
        self.data = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else np.zeros(0, np.uint8)

    def fail(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path}: {what}")

    def array(self, kind: Any, n: int, what: str) -> np.ndarray:
        """The next n values, not copied."""
        size = np.dtype(kind).itemsize * n
        if n < 0 or size > len(self.data) - self.at:
            self.fail(
                f"cut short in {what}: {size} bytes should come at {self.at}, the file has {len(self.data)}"
            )
        self.at += size
        return np.asarray(self.data[self.at - size : self.at]).view(kind)

    def value(self, kind: Any, what: str) -> int:
        return int(self.array(kind, 1, what)[0])

    def flag(self, what: str) -> bool:
        value = self.value(np.uint8, what)
        if value > 1:
            self.fail(f"{what} is {value} at byte {self.at - 1}, which should be 0 or 1")
        return bool(value)


def read(path: str) -> ModelFile:
    """Map a model. Raises FileNotFoundError; ValueError for what is no classifier of fastText's, naming the
    file and what is wrong with it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"fastText model {path!r} is not a file")
    file = _Reader(path)
    if len(file.data) < 8 or file.value(np.int32, "the magic number") != MAGIC:
        file.fail("not a fastText model (it does not begin with fastText's magic number)")
    version = file.value(np.int32, "the version")
    if version not in (11, 12):
        file.fail(f"fastText file format {version}; 11 and 12 can be read")
    names = ("dim", "ws", "epoch", "minCount", "neg", "wordNgrams", "loss", "model", "bucket", "minn", "maxn")
    args = {name: file.value(np.int32, "the settings") for name in (*names, "lrUpdateRate")}
    file.array(np.float64, 1, "the settings")
    if args["model"] != _SUPERVISED:
        kind = {1: "cbow", 2: "skipgram"}.get(args["model"])
        if kind is None:
            file.fail(f"damaged settings (model {args['model']})")
        file.fail(f"word vectors ({kind}), not a classifier: train it with fasttext's supervised mode")
    ranges = {"dim": 1, "wordNgrams": 0, "bucket": 0, "minn": 0, "maxn": 0}
    wrong = [f"{name} {args[name]}" for name, least in ranges.items() if args[name] < least]
    if args["loss"] not in (HS, NS, SOFTMAX, OVA):
        wrong.append(f"loss {args['loss']}")
    hashed = args["wordNgrams"] > 1 or (args["maxn"] > 0 and version == 12)
    if hashed and args["bucket"] == 0:
        wrong.append("n-grams without buckets")
    if wrong:
        file.fail(f"damaged settings ({', '.join(wrong)})")

    starts, n_words, labels, counts, kept = _dictionary(file)
    coded = file.flag("the mark of a quantised input matrix")
    if kept is not None and not coded:
        file.fail("pruned but not quantised: an early fastText wrote such files in error; train it anew")
    dim = args["dim"]
    inputs = _coded(file, "the input matrix") if coded else _dense(file, "the input matrix")
    hashes = args["bucket"] if kept is None else len(kept)
    _check(file, inputs, n_words + (hashes if hashed else 0), dim, "the input matrix")
    limits = (args["bucket"], inputs.n - n_words)
    if kept is not None and len(kept) and (kept.min() < 0 or (kept.max(axis=0) >= limits).any()):
        file.fail("damaged: the list of n-grams kept names buckets or rows that are not there")
    coded_output = file.flag("the mark of a quantised output matrix") and coded
    outputs = _coded(file, "the output matrix") if coded_output else _dense(file, "the output matrix")
    _check(file, outputs, len(labels), dim, "the output matrix")
    return ModelFile(
        path, dim, args["loss"], args["wordNgrams"], args["bucket"], args["minn"],
        args["maxn"] if version == 12 else 0, n_words, labels, counts, np.asarray(file.data), starts, kept,
        inputs, outputs,
    )  # fmt: skip


def _dictionary(
    file: _Reader,
) -> tuple[np.ndarray, int, tuple[str, ...], tuple[int, ...], np.ndarray | None]:
    from filters.text.fasttext_kernels import find_words

    size, n_words, n_labels = (file.value(np.int32, "the dictionary") for _ in range(3))
    file.value(np.int64, "the dictionary")
    pruned = file.value(np.int64, "the dictionary")
    least = 10  # bytes of an entry: text and its NUL, count, type
    if n_words < 0 or n_labels < 1 or size != n_words + n_labels or pruned < -1:
        file.fail(f"damaged dictionary ({size} entries: {n_words} words, {n_labels} labels; pruned {pruned})")
    if size * least > len(file.data) - file.at:
        file.fail(f"cut short in the dictionary: it should have {size} entries")
    starts = np.empty(size, np.uint32 if len(file.data) < 2**32 else np.int64)
    end, entry = find_words(np.asarray(file.data), file.at, n_words, starts)
    if entry >= 0:
        if end < 0:
            file.fail(f"cut short in the dictionary, in entry {entry} of {size}")
        file.fail(f"damaged dictionary: entry {entry} of {size} is neither a word nor a label in its place")
    labels, counts = [], []
    ends = [*starts[n_words + 1 :].tolist(), end]
    for start, after in zip(starts[n_words:].tolist(), ends, strict=True):
        labels.append(file.data[start : after - least].tobytes().decode(errors="replace"))
        counts.append(int.from_bytes(file.data[after - 9 : after - 1].tobytes(), "little", signed=True))
    file.at = end
    kept = None
    if pruned >= 0:
        kept = file.array(np.int32, 2 * pruned, "the list of n-grams kept").reshape(-1, 2)
    return starts, n_words, tuple(labels), tuple(counts), kept


def _shape(file: _Reader, what: str) -> tuple[int, int]:
    n, dim = file.value(np.int64, what), file.value(np.int64, what)
    if not (0 <= n < 2**40 and 0 < dim < 2**31):
        file.fail(f"damaged: {what} would be {n} x {dim}")
    return n, dim


def _dense(file: _Reader, what: str) -> Dense:
    n, dim = _shape(file, what)
    return Dense(n, dim, file.array(np.uint8, 4 * n * dim, what))


def _coded(file: _Reader, what: str) -> Coded:
    has_norms = file.flag(f"the mark of norms of {what}")
    n, dim = _shape(file, what)
    codes = file.array(np.uint8, file.value(np.int32, what), what)
    part, centroids = _quantiser(file, dim, what)
    parts = -(-dim // part)
    if len(codes) != n * parts:
        file.fail(f"damaged: {what} has {len(codes)} codes for {n} rows of {parts}")
    norms = np.ones(n, np.float32)
    if has_norms:
        norm_codes = file.array(np.uint8, n, f"the norms of {what}")
        norms = _quantiser(file, 1, f"the norms of {what}")[1][norm_codes]
    return Coded(n, dim, part, codes.reshape(n, parts), centroids, norms)


def _quantiser(file: _Reader, dim: int, what: str) -> tuple[int, np.ndarray]:
    found = tuple(file.value(np.int32, f"the quantiser of {what}") for _ in range(4))
    part = found[2]
    if part < 1 or found != (dim, -(-dim // part), part, dim - (-(-dim // part) - 1) * part):
        file.fail(f"damaged: the quantiser of {what} has sizes {found} for rows of {dim}")
    centroids = file.array(np.float32, _CENTROIDS * dim, f"the quantiser of {what}")
    return part, centroids.copy()  # a copy is aligned


def _check(file: _Reader, matrix: Dense | Coded, n: int, dim: int, what: str) -> None:
    if matrix.dim != dim or matrix.n < n:
        file.fail(f"damaged: {what} is {matrix.n} x {matrix.dim}; the settings ask for {n} x {dim}")
