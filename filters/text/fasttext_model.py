"""fastText classifiers over Arrow text columns, without a Python object per row and without the library.

The model file is read by ``fasttext_file``, inference is compiled (``fasttext_kernels``). Dense matrices are
mapped from the file, so that workers share one copy; quantised ones are unfolded in memory while they are
small. Training is the business of ``recipes``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.text import fasttext_file
from filters.text.buffers import Utf8, utf8
from filters.text.fasttext_file import HS, Coded, ModelFile

MODULES = (
    "filters.text.fasttext_model",
    "filters.text.fasttext_file",
    "filters.text.fasttext_kernels",
    "filters.text.fasttext_vectors",
)
"""What a step that asks a model ``uses``."""
PREFIX = "__label__"
MEMO_BYTES = 16 << 20
"""Room for the words a worker remembers."""
UNFOLDED_BYTES = 64 << 20
"""A quantised matrix that is larger when unfolded stays as it is, and is slower."""


class Top(NamedTuple):
    """Most likely label of each text, without ``__label__``, and its probability, at most 1: null for null,
    for blank text, and where the model knows nothing of it. ``cut``: there was more text than was read."""

    labels: pa.StringArray
    probabilities: pa.FloatArray
    cut: pa.BooleanArray


class Model:
    """A classifier. ``labels``: all it knows, as in the file (``__label__…``).

    Results depend on the text alone, not on what was read before; threads may share a model.
    """

    def __init__(
        self, file: ModelFile, memo_bytes: int = MEMO_BYTES, unfolded_bytes: int = UNFOLDED_BYTES
    ) -> None:
        self.labels = file.labels
        self._file = file
        self._input = _input(file, unfolded_bytes)
        self._output = _output(file)
        self._names = pa.array([label.removeprefix(PREFIX) for label in file.labels], pa.string())
        self._memo_bytes = memo_bytes
        self._memos: list[Any] = []  # those at rest

    def top(self, text: pa.Array, max_chars: int = 0, newline: str = " ") -> Top:
        """Most likely label of each text. ``max_chars``: only that many code points are read (0: all);
        ``newline``: what stands for one, ``" "`` or nothing."""
        if newline not in (" ", ""):
            raise ValueError(f"newline={newline!r}: expected a space or nothing")
        from filters.text import fasttext_kernels as kernels

        column, longest = _column(text, max_chars)
        n = len(text)
        best, chances, cut = np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.bool_)
        memo = self._memo()
        kernels.top(
            self._input, self._output, memo, column.data, column.offsets, max_chars, newline == "", longest,
            best, chances, cut,
        )  # fmt: skip
        self._memos.append(memo)
        unknown = best < 0
        labels = self._names.take(pa.array(best, mask=unknown))
        null = np.asarray(text.is_null()) if text.null_count else None
        chances = np.minimum(chances, np.float32(1))
        return Top(labels, pa.array(chances, pa.float32(), mask=unknown), pa.array(cut, mask=null))

    def probability(self, text: pa.Array, label: str, chunk_words: int | None = None) -> np.ndarray:
        """float64[n]: probability of ``label`` (as in ``labels``), at most 1; 0 for blank text and null.

        Newlines are spaces. ``chunk_words``: the text is cut into chunks of so many white-space words, and
        their mean is given. Raises ValueError for a label the model does not have.
        """
        from filters.text import fasttext_kernels as kernels

        if label not in self.labels:
            have = ", ".join(sorted(self.labels)[:20])
            raise ValueError(f"{self._file.path}: no label {label!r}; the model has {have}")
        index = self.labels.index(label)
        path, turns = _path(self._output, index) if self._file.loss == HS else _NO_PATH
        column, longest = _column(text, 0)
        chances = np.empty(len(text), np.float64)
        memo = self._memo()
        kernels.probability(
            self._input, self._output, memo, column.data, column.offsets, index, path, turns,
            chunk_words or 0, longest, chances,
        )  # fmt: skip
        self._memos.append(memo)
        return chances

    def _memo(self) -> Any:
        try:
            return self._memos.pop()
        except IndexError:
            return _memo(self._memo_bytes, self._file.dim if self._file.maxn else 0)


def load(path: str) -> Model:
    """A supervised fastText model (.bin or .ftz). Raises FileNotFoundError; ValueError for a file that is no
    such model, saying what is wrong with it."""
    return Model(fasttext_file.read(str(path)))


_NO_PATH = np.zeros(0, np.int32), np.zeros(0, np.bool_)


def _column(text: pa.Array, max_chars: int) -> tuple[Utf8, int]:
    """The text's buffers, and how many bytes of a text are read at most."""
    column = utf8(text)
    longest = int(np.diff(column.offsets).max(initial=0))
    if max_chars > 0:
        longest = min(longest, 4 * max_chars)
    return Utf8(_fixed(column.data), column.offsets), longest


def _fixed(array: np.ndarray) -> np.ndarray:
    """Read-only, so that compiled code meets one type whoever owns the memory."""
    array = array.view()
    array.flags.writeable = False
    return array


def _input(file: ModelFile, unfolded_bytes: int) -> Any:
    from filters.text import fasttext_kernels as kernels

    table = np.zeros(1 << max(4, int(1.5 * len(file.starts)).bit_length()), np.uint64)
    kernels.index_words(_fixed(file.data), file.starts, table)
    rows, codes = np.zeros(0, np.uint8), np.zeros(0, np.uint8)
    centroids, norms = np.zeros(0, np.float32), np.zeros(0, np.float32)
    part, coded = 1, False
    matrix = file.input
    if isinstance(matrix, Coded):
        if file.kept is not None:
            matrix = matrix.take(_bucket_order(file.kept, file.n_words))
        coded = 4 * matrix.n * matrix.dim > unfolded_bytes
        if coded:
            codes, part = matrix.codes.reshape(-1), matrix.part
            centroids, norms = matrix.centroids, matrix.norms
        else:
            rows = matrix.dense().reshape(-1).view(np.uint8)
    else:
        rows = matrix.data
    pruned, kept = file.kept is not None, _kept_buckets(file.kept, file.bucket)
    inverse = np.uint64((2**64 - 1) // max(2, file.bucket) + 1)
    net = kernels.Input(
        _fixed(file.data), file.starts, table, file.n_words, -1, file.minn, file.maxn, file.bucket, inverse,
        max(1, file.word_ngrams), int(pruned), kept, file.dim, _fixed(rows), int(coded), _fixed(codes), part,
        centroids, norms,
    )  # fmt: skip
    eos = kernels.find_entry(net, np.frombuffer(b"</s>", np.uint8))
    return net._replace(eos=int(eos))


def _bucket_order(kept: np.ndarray, n_words: int) -> np.ndarray:
    """Rows of the input matrix: those of words, then those of the buckets kept, by bucket."""
    by_bucket = kept[np.argsort(kept[:, 0]), 1].astype(np.int64)
    return np.concatenate([np.arange(n_words), n_words + by_bucket])


def _kept_buckets(kept: np.ndarray | None, bucket: int) -> np.ndarray:
    """Buckets that were not pruned, 32 a number: how many were kept before << 32 | a bit for each."""
    if kept is None:
        return np.zeros(0, np.uint64)
    has = np.zeros(-(-max(1, bucket) // 32) * 32, np.bool_)
    has[kept[:, 0]] = True
    bits = np.packbits(has, bitorder="little").view(np.uint32).astype(np.uint64)
    counts = has.reshape(-1, 32).sum(axis=1, dtype=np.uint64)
    return (np.cumsum(counts) - counts) << np.uint64(32) | bits


def _output(file: ModelFile) -> Any:
    from filters.text import fasttext_kernels as kernels

    matrix = file.output
    if isinstance(matrix, Coded):
        rows, norms = matrix.directions(), matrix.norms
    else:
        rows, norms = matrix.dense(), np.ones(matrix.n, np.float32)
    n = len(file.labels)
    left, right = _huffman(file.label_counts) if file.loss == HS else (np.zeros(0, np.int32),) * 2
    x = np.arange(513, dtype=np.float32) * np.float32(16) / np.float32(512) - np.float32(8)
    sigmoid = (1.0 / (1.0 + np.exp(-x).astype(np.float64))).astype(np.float32)
    return kernels.Output(
        file.loss, np.ascontiguousarray(rows[:n]), np.ascontiguousarray(rows[:n].T), norms[:n].copy(),
        sigmoid, left, right,
    )  # fmt: skip


def _huffman(counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Left and right child of each inner node, as fastText merges labels that come by falling count: it takes
    the rarer of the next leaf and the next node, of equals the node. Node len(counts) + k is inner node k."""
    n = len(counts)
    weight = [*counts, *[10**15] * (n - 1)]
    leaf, inner = n - 1, n
    left, right = np.zeros(n - 1, np.int32), np.zeros(n - 1, np.int32)
    for node in range(n, 2 * n - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[inner]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(inner)
                inner += 1
        left[node - n], right[node - n] = pair
        weight[node] = weight[pair[0]] + weight[pair[1]]
    return left, right


def _path(output: Any, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Inner nodes from the root of the tree to a label, and at each whether to go right."""
    n = len(output.left) + 1
    parent = {int(child): (k, False) for k, child in enumerate(output.left)}
    parent |= {int(child): (k, True) for k, child in enumerate(output.right)}
    steps = []
    node = label
    while node in parent:
        inner, turn = parent[node]
        steps.append((inner, turn))
        node = n + inner
    steps.reverse()
    return np.array([k for k, _ in steps], np.int32), np.array([turn for _, turn in steps], np.bool_)


def _memo(room: int, dim: int) -> Any:
    """An empty memo of about ``room`` bytes, its slots on cache lines."""
    from filters.text import fasttext_kernels as kernels

    stride = kernels.HEADER + -(-dim // 16) * 8
    groups = max(2, room // (8 * stride * kernels.WAYS))
    groups = 1 << (groups.bit_length() - 1)
    n = groups * kernels.WAYS
    raw = np.zeros(n * stride + 8, np.uint64)
    skip = -raw.ctypes.data // 8 % 8
    slots = raw[skip : skip + n * stride]
    shift = np.uint64(64 - (groups.bit_length() - 1))
    return kernels.Memo(
        np.zeros(n, np.uint32), np.zeros(groups, np.uint8), slots, slots.view(np.uint8),
        slots.view(np.float32), stride, shift,
    )  # fmt: skip
