"""From a folder of curated shards to packed training contexts, in an order that depends on nothing but
the rows and the seed.

Documents longer than a *piece* are cut at white space, so that a budget that reads only a few per cent of
the text still sees a fair sample of it instead of a handful of long documents. Pieces are visited in the
order of a hash of (seed, epoch, row id, piece number): shard names, row order and worker counts do not
matter. Each piece is followed by the end-of-text token; the stream is cut into disjoint contexts of T+1
tokens (T inputs and the targets one further), as DCLM does. Only the pieces that are needed are tokenised.

The text is held in memory (Arrow, no Python object per row); this is the path for pools of a few GB.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import xxhash

from recipes.lm.train_tokenizer import DATA, ENDS, end_of_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
GROUP = 32  # pieces tokenised at a time


class DataError(ValueError):
    """Shards or a tokenizer that cannot be trained on; the message names the file and the mend."""


@dataclass(frozen=True)
class Corpus:
    """Rows ``id, text`` of some shards. Both columns are one contiguous Arrow array."""

    folder: Path
    ids: pa.LargeStringArray
    text: pa.LargeStringArray

    @property
    def rows(self) -> int:
        return len(self.ids)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(rows + 1,) byte offsets into ``buffer``."""
        return np.frombuffer(self.text.buffers()[1], dtype=np.int64)[
            self.text.offset : self.text.offset + self.rows + 1
        ]

    @cached_property
    def buffer(self) -> memoryview:
        data = self.text.buffers()[2]
        return memoryview(data if data is not None else b"").cast("B")

    @property
    def bytes(self) -> int:
        """Bytes of UTF-8 text."""
        return int(self.offsets[-1] - self.offsets[0]) if self.rows else 0

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all (id, text), whatever the order of rows and shards. Guards a resumed run."""
        total = 0
        for i in range(self.rows):
            row = xxhash.xxh3_64(self.ids[i].as_buffer())
            row.update(self.buffer[self.offsets[i] : self.offsets[i + 1]])
            total += row.intdigest()
        return f"{self.rows}-{total % 2**64:016x}"


def shard_files(folder: str | Path) -> list[Path]:
    """The shards of a folder, sorted; of a run directory (with ``data/``), those under ``data/``.

    The path of a single shard is taken as it is.
    """
    root = Path(folder)
    if root.is_file() and root.name.endswith(SUFFIXES):
        return [root]
    if (root / "data").is_dir():
        root = root / "data"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that a plan's write step made")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.name.endswith(SUFFIXES)
        and not any(p.startswith(("_", ".")) for p in path.relative_to(root).parts)
    )
    if not files:
        raise DataError(f"{root}: no shard here; expected files ending in {', '.join(SUFFIXES)}")
    return files


def read_corpus(folder: str | Path) -> Corpus:
    """Read ``id`` and ``text`` of every shard. Rows without text (null or empty) are left out."""
    tables = [_read_shard(path) for path in shard_files(folder)]
    table = pa.concat_tables(tables).combine_chunks()
    ids, text = (_one_array(table.column(name)) for name in ("id", "text"))
    corpus = Corpus(Path(folder), ids, text)
    if corpus.bytes == 0:
        raise DataError(f"{folder}: {len(table)} rows but no text; did the plan drop everything?")
    return corpus


def _one_array(column: pa.ChunkedArray) -> pa.LargeStringArray:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())


def _read_shard(path: Path) -> pa.Table:
    import pyarrow.compute as pc

    if path.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        names = pq.read_schema(path).names
        _require(path, [name for name in ("id", "text") if name not in names], f"its columns are {names}")
        table = pq.read_table(path, columns=["id", "text"], partitioning=None)
    else:
        import orjson

        ids, texts = [], []
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                    ids.append(row["id"])
                    texts.append(row["text"])
                except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{path}, line {number}: expected a record with id and text: {error!r}"
                    ) from None
        table = pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.large_string())})
    table = table.cast(pa.schema([("id", pa.large_string()), ("text", pa.large_string())]))
    if table.column("id").null_count:
        raise DataError(f"{path}: {table.column('id').null_count} rows have no id")
    return table.filter(pc.greater(pc.binary_length(table.column("text")), 0))


def _require(path: Path, missing: list[str], found: str) -> None:
    if missing:
        raise DataError(f"{path}: no column {' and '.join(missing)}; {found}")


def _open(path: Path) -> Any:
    import gzip
    import io

    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")
    if path.name.endswith(".zst"):
        import zstandard

        return io.BufferedReader(
            zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True)
        )
    return open(path, "rb")


@dataclass(frozen=True)
class Position:
    """Where a stream stands: ``skip`` tokens into piece number ``piece`` of ``epoch``'s order."""

    epoch: int = 0
    piece: int = 0
    skip: int = 0


class Contexts:
    """An endless stream of packed contexts, resumable at any :class:`Position`.

    ``piece_bytes`` is the size of a piece; 0 = documents whole.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        context: int,
        *,
        seed: int,
        piece_bytes: int = 2048,
        start: Position | None = None,
    ) -> None:
        end = end_of_text(tokenizer)
        if end is None:
            raise DataError(f"the tokenizer has none of {', '.join(ENDS)} to part documents with")
        self.corpus, self.tokenizer, self.length, self.end = corpus, tokenizer, context + 1, end
        self.seed, self.piece_bytes = seed, piece_bytes
        size = np.diff(corpus.offsets)
        self._pieces_of = (
            np.maximum(1, -(-size // piece_bytes)) if piece_bytes else np.ones(len(size), dtype=np.int64)
        )
        self._row = np.repeat(np.arange(corpus.rows), self._pieces_of)  # piece -> row
        first = np.cumsum(self._pieces_of) - self._pieces_of
        self._number = np.arange(len(self._row)) - np.repeat(
            first, self._pieces_of
        )  # piece -> its place in the row
        self._share = (
            np.repeat(size / self._pieces_of, self._pieces_of) / size.sum()
        )  # piece -> share of the bytes
        self._occurrence = _occurrences(corpus.ids)
        self._queue: deque[tuple[Position, str, np.ndarray]] = deque()
        self.seek(start or Position())

    def seek(self, position: Position) -> None:
        self._queue.clear()
        self._next = Position(position.epoch, position.piece)
        self._order = self.order(position.epoch)
        if position.skip:
            self._fill()
            where, row_id, tokens = self._queue[0]
            self._queue[0] = (
                Position(where.epoch, where.piece, position.skip),
                row_id,
                tokens[position.skip :],
            )

    @property
    def position(self) -> Position:
        """Where the next context begins."""
        return self._queue[0][0] if self._queue else self._next

    @property
    def epochs(self) -> float:
        """How often the text has been read so far; 0.25 is a quarter of its bytes."""
        at = self.position
        done = float(self._share[self.order(at.epoch)[: at.piece]].sum()) if at.piece else 0.0
        if at.skip:
            left = len(self._queue[0][2])
            done += float(self._share[self.order(at.epoch)[at.piece]]) * at.skip / (at.skip + left)
        return at.epoch + done

    def take(self, n: int) -> tuple[np.ndarray, list[str]]:
        """The next ``n`` contexts, (n, T+1) int64, and the ids of the rows they come from, in order."""
        out = np.empty(n * self.length, dtype=np.int64)
        ids: list[str] = []
        filled = 0
        while filled < len(out):
            if not self._queue:
                self._fill()
            where, row_id, tokens = self._queue.popleft()
            part = tokens[: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            ids.append(row_id)
            if len(part) < len(tokens):
                rest = Position(where.epoch, where.piece, where.skip + len(part))
                self._queue.appendleft((rest, row_id, tokens[len(part) :]))
        return out.reshape(n, self.length), list(dict.fromkeys(ids))

    def order(self, epoch: int) -> np.ndarray:
        """The pieces of an epoch in the order they are read."""
        key = f"{self.seed}:{epoch}".encode()
        salt = xxhash.xxh3_64_intdigest(key)
        by_row = np.fromiter(
            (xxhash.xxh3_64_intdigest(i.as_buffer(), salt) for i in self.corpus.ids),
            np.uint64,
            self.corpus.rows,
        )
        within = self._number.astype(np.uint64) + (
            self._occurrence[self._row].astype(np.uint64) << np.uint64(32)
        )
        return np.argsort(_mix(by_row[self._row] ^ _mix(within)), kind="stable")

    def text(self, piece: int) -> str:
        """Piece ``piece`` (in row order, not in reading order)."""
        row, number = int(self._row[piece]), int(self._number[piece])
        return bytes(self.corpus.buffer[self._cut(row, number) : self._cut(row, number + 1)]).decode(
            "utf-8", "replace"
        )

    def _cut(self, row: int, number: int) -> int:
        """Byte offset where piece ``number`` of a row begins: even parts, moved on to white space."""
        low, high = int(self.corpus.offsets[row]), int(self.corpus.offsets[row + 1])
        pieces = int(self._pieces_of[row])
        if number in (0, pieces):
            return low if number == 0 else high
        at = low + (high - low) * number // pieces
        stop = min(high, at + 128)
        for i in range(at, stop):
            if self.corpus.buffer[i] in b" \n\t":
                return i
        while at < high and self.corpus.buffer[at] & 0xC0 == 0x80:  # inside a UTF-8 character
            at += 1
        return at

    def _fill(self) -> None:
        """Tokenise the next pieces into the queue."""
        at = self._next
        if at.piece == len(self._order):
            at = Position(at.epoch + 1, 0)
            self._order = self.order(at.epoch)
        group = self._order[at.piece : at.piece + GROUP]
        encoded = self.tokenizer.encode_batch_fast([self.text(p) for p in group], add_special_tokens=False)
        for i, (piece, encoding) in enumerate(zip(group, encoded, strict=True)):
            tokens = np.array([*encoding.ids, self.end], dtype=np.int64)
            row_id = self.corpus.ids[int(self._row[piece])].as_py()
            self._queue.append((Position(at.epoch, at.piece + i), row_id, tokens))
        self._next = Position(at.epoch, at.piece + len(group))


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """A ``tokenizers`` JSON by the name of a file in ``recipes/data``, a known name, or by path.

    Special tokens that occur in a document's own text are read as plain text: a page that spells out
    ``<|endoftext|>`` must not be able to end a document.
    """
    from tokenizers import Tokenizer

    path = tokenizer_file(name_or_path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path}: not a tokenizers JSON file: {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizer_file(name_or_path: str | Path) -> Path:
    """The file of a tokenizer, as ``recipes.lm.encode`` finds it."""
    ours = DATA / f"{name_or_path}.json"
    if ours.is_file():  # without the import, which a run of lm-tiny would feel
        return ours
    from recipes.lm import encode

    try:
        return encode.find(name_or_path)
    except encode.TokenizerError as error:
        raise DataError(str(error)) from None


def _occurrences(ids: pa.LargeStringArray) -> np.ndarray:
    """How many rows with the same id came before: the copies of a row that is in a subset twice."""
    seen: dict[str, int] = {}
    out = np.zeros(len(ids), dtype=np.int64)
    for i, value in enumerate(ids.to_pylist()):
        out[i] = seen[value] = seen.get(value, -1) + 1
    return out


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 that spreads every bit."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
