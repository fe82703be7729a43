"""Token shards: training contexts in files that are read where they lie.

    tokens.json        what the folder holds (below)
    shard-00000.bin    contexts of T+1 token ids, one after the other, little-endian uint16 or uint32

Contexts are disjoint windows of T inputs and the target one further, already in their final, shuffled
order: the trainer reads context 0, 1, 2, …, and past the last one a seeded permutation of each further
epoch (:func:`epoch_order`). A row is one read of 4 KB from a memory map; nothing is decoded.

``tokens.json``: ``format``, ``length`` (T+1), ``dtype``, ``vocab`` (ids are below it), ``end`` (id of the
end of text), ``tokenizer``, ``tokenizer_hash``, ``contexts``, ``tokens`` (contexts x length), ``shards``
(file, contexts, xxh3 of its bytes), ``budget`` (contexts a trainer was promised; more than ``contexts``
only when repeating was allowed), ``sources`` and ``seed`` (how the folder was made).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from recipes.lm.tars import TarContexts

FORMAT = "winnow-tokens/1"
INFO = "tokens.json"
OPEN_MAPS = 256  # shards mapped at a time: far below the usual limit of open files


class TokensError(ValueError):
    """Token shards that cannot be used; the message names the file and the mend."""


@dataclass(frozen=True, eq=False)
class TokenShards:
    """A folder of token shards, memory-mapped. ``len()`` is the number of contexts."""

    folder: Path
    info: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        counts = np.array([s["contexts"] for s in self.info["shards"]], dtype=np.int64)
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(counts)]))
        object.__setattr__(self, "_maps", OrderedDict())

    @classmethod
    def open(cls, folder: str | Path) -> TokenShards:
        """Check ``tokens.json`` against the sizes of the files. Raises TokensError."""
        folder = Path(folder)
        info = read_info(folder)
        row = info["length"] * np.dtype(info["dtype"]).itemsize
        for shard in info["shards"]:
            path = folder / shard["file"]
            if not path.is_file():
                raise TokensError(f"{path}: missing, though {INFO} names it; run the tokenising again")
            size, want = path.stat().st_size, shard["contexts"] * row
            if size != want:
                raise TokensError(
                    f"{path}: {size:,} bytes where {shard['contexts']:,} contexts of {info['length']:,} "
                    f"{info['dtype']} have {want:,}: cut short or of another run; run the tokenising again"
                )
        total = sum(s["contexts"] for s in info["shards"])
        if total != info["contexts"]:
            raise TokensError(
                f"{folder / INFO}: contexts is {info['contexts']:,} and its shards hold {total:,}"
            )
        return cls(folder, info)

    def __len__(self) -> int:
        return int(self._starts[-1])  # type: ignore[attr-defined]

    @property
    def length(self) -> int:
        """Tokens of a context, T+1."""
        return int(self.info["length"])

    @property
    def vocab(self) -> int:
        return int(self.info["vocab"])

    @property
    def end(self) -> int:
        """Id of the token that ends a document."""
        return int(self.info["end"])

    @property
    def tokenizer_hash(self) -> str:
        return str(self.info["tokenizer_hash"])

    @property
    def fingerprint(self) -> str:
        """Hash of every token and its place. Guards a resumed run against other data."""
        return fingerprint(self.info)

    @property
    def budget(self) -> int:
        """Contexts that a trainer may read: fewer never, and more than ``len`` only by further epochs."""
        return int(self.info["budget"])

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The contexts with these numbers, (n, T+1) int64, in the order asked for.

        Raises TokensError for a number that there is not and for a token id outside the vocabulary.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise TokensError(
                f"{self.folder}: context {int(indices.max())} of {len(self):,}: see epoch_order for repeats"
            )
        out = np.empty((len(indices), self.length), dtype=np.int64)
        starts = self._starts  # type: ignore[attr-defined]
        shards = np.searchsorted(starts, indices, side="right") - 1
        for shard in dict.fromkeys(shards.tolist()):
            at = np.flatnonzero(shards == shard)
            out[at] = self._map(shard)[indices[at] - starts[shard]]
        if out.size and out.max() >= self.vocab:
            row, column = np.argwhere(out >= self.vocab)[0]
            file, place = self.place(int(indices[row]))
            raise TokensError(
                f"{self.folder / file}, context {place}, token {column}: id {out[row, column]} with a "
                f"vocabulary of {self.vocab:,}; check the folder with python -m recipes.lm.validate"
            )
        return out

    def place(self, index: int) -> tuple[str, int]:
        """Shard file and row of a context."""
        starts = self._starts  # type: ignore[attr-defined]
        shard = int(np.searchsorted(starts, index, side="right")) - 1
        return str(self.info["shards"][shard]["file"]), int(index - starts[shard])

    def _map(self, shard: int) -> np.ndarray:
        maps: OrderedDict[int, np.ndarray] = self._maps  # type: ignore[attr-defined]
        if shard not in maps:
            entry = self.info["shards"][shard]
            maps[shard] = np.memmap(
                self.folder / entry["file"],
                dtype=np.dtype(self.info["dtype"]).newbyteorder("<"),
                mode="r",
                shape=(entry["contexts"], self.length),
            )
            if len(maps) > OPEN_MAPS:
                maps.popitem(last=False)
        maps.move_to_end(shard)
        return maps[shard]

    def __reduce__(self) -> tuple[Any, ...]:  # maps stay where they are
        return TokenShards, (self.folder, self.info)


def is_tokens(folder: str | Path) -> bool:
    """Whether a folder holds token shards."""
    return (Path(folder) / INFO).is_file()


def open_tokens(path: str | Path, **options: Any) -> TokenShards | TarContexts:
    """Token shards, or the WebDataset tars of a ``manifest.jsonl`` (its path, or the folder that has it)."""
    if is_tokens(path):
        return TokenShards.open(path)
    from recipes.lm.tars import TarContexts

    return TarContexts.open(path, **options)


def read_info(folder: str | Path) -> dict[str, Any]:
    """``tokens.json`` of a folder, checked for the keys that reading needs. Raises TokensError."""
    path = Path(folder) / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TokensError(
            f"{folder}: no {INFO}: not a folder of token shards, or its tokenising has not finished "
            "(run it again, it goes on where it stopped)"
        ) from None
    except ValueError as error:
        raise TokensError(f"{path}: not JSON: {error}") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise TokensError(f"{path}: its format is not {FORMAT!r}; made by another version?")
    keys = ("length", "dtype", "vocab", "end", "tokenizer_hash", "contexts", "budget", "shards")
    missing = [key for key in keys if key not in info]
    if missing:
        raise TokensError(f"{path}: no {', '.join(missing)}")
    return info


def fingerprint(info: dict[str, Any]) -> str:
    """16 hex digits over the layout and the checksums of the shards."""
    keys = ("length", "dtype", "vocab", "end", "tokenizer_hash")
    parts = [[info[key] for key in keys], [[s["contexts"], s["xxh3"]] for s in info["shards"]]]
    return xxhash.xxh3_64_hexdigest(json.dumps(parts).encode())


def dtype_for(vocab: int) -> str:
    """The narrowest dtype that holds every id of a vocabulary."""
    return "uint16" if vocab <= 1 << 16 else "uint32"


# ---------------------------------------------------------------- orders without arrays


def epoch_order(contexts: int, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """Which contexts stand at some positions of an epoch, int64 (n,); epoch 0 is the order of the files.

    Further epochs are permutations of 0 … contexts-1 by a Feistel network over the smallest even number of
    bits that holds them, repeated until a number is in range (Black and Rogaway, 2002: cycle walking), so no
    array of the whole epoch is ever needed. Every epoch and every seed has its own.
    """
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and (positions.min() < 0 or positions.max() >= contexts):
        raise TokensError(f"position {int(positions.max())} of an epoch of {contexts:,} contexts")
    if epoch == 0:
        return positions.copy()
    half = max(1, (max(contexts - 1, 1).bit_length() + 1) // 2)
    keys = [xxhash.xxh3_64_intdigest(f"epoch:{seed}:{epoch}:{round}".encode()) for round in range(6)]
    out = _feistel(positions.astype(np.uint64), half, keys)
    while True:
        outside = np.flatnonzero(out >= contexts)
        if not len(outside):
            return out.astype(np.int64)
        out[outside] = _feistel(out[outside], half, keys)


def reading_order(contexts: int, seed: int, numbers: np.ndarray) -> np.ndarray:
    """The context that a trainer reads as its 0th, 1st, … (n,): epoch after epoch, without end."""
    numbers = np.asarray(numbers, dtype=np.int64)
    out = np.empty_like(numbers)
    epochs = numbers // contexts
    for epoch in np.unique(epochs).tolist():
        at = np.flatnonzero(epochs == epoch)
        out[at] = epoch_order(contexts, seed, epoch, numbers[at] - epoch * contexts)
    return out


def _feistel(x: np.ndarray, half: int, keys: list[int]) -> np.ndarray:
    """A permutation of the numbers below 4**half; uint64 in and out."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> shift, x & mask
    for key in keys:
        left, right = right, left ^ (mix64(right ^ np.uint64(key)) & mask)
    return (left << shift) | right


def mix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 that spreads every bit."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
