"""Training contexts as WebDataset tars, the form that open_lm trains on and DCLM publishes.

    manifest.jsonl        {"shard": "shard_00000000", "num_sequences": 8192} a line, the last one ended too
    shard_00000000.tar    members 00000000-000000.json.gz: a gzipped JSON list of T+1 ids
    dataset.json          what the contexts are: length, vocab, tokenizer, contexts, tokens, checksums

open_lm's reader drops what follows the last end of line, so a manifest without one loses its last shard;
ours has one, and the reader here takes both. ``python -m recipes.lm.tars TOKENS OUT`` writes the tars of a
folder of token shards, further epochs included when its budget asks for them.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from curation.identity import digest
from curation.manifest import Manifest, Record
from curation.outputs import HashingFile, committed
from recipes.lm.jobs import Jobs, finish
from recipes.lm.tokens import TokensError, TokenShards, reading_order

MANIFEST, DATASET = "manifest.jsonl", "dataset.json"
SHARD_CONTEXTS = 8192
TARS = "1-tars"
GZIP_LEVEL = 4
DECODED_ROWS = 4096  # contexts decoded lately that are kept: a shuffled order comes back to few of them
_SUFFIXES = (".json.gz", ".json", ".txt", ".txt.gz")


@dataclass(frozen=True)
class TarTask:
    """One tar: the contexts that a trainer reads as numbers ``first`` … ``first + count - 1``."""

    root: str
    stage_hash: str
    key: str
    tokens: str
    number: int
    first: int
    count: int
    seed: int


@dataclass(frozen=True)
class TarShard:
    """A line of the manifest."""

    path: Path
    contexts: int


def export(
    tokens: TokenShards | str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    shard_contexts: int = SHARD_CONTEXTS,
    workers: int | None = 1,
    on: str = "local",
    progress: bool = True,
) -> TarContexts:
    """Write tars and ``manifest.jsonl`` of a folder of token shards; goes on where it was interrupted.

    The contexts are in the order in which our trainer reads them with this seed, as many as the folder's
    budget: past one epoch, the permutations of ``recipes.lm.tokens.reading_order``.
    """
    shards = tokens if isinstance(tokens, TokenShards) else TokenShards.open(tokens)
    root, total = str(Path(out).absolute()), shards.budget
    stage = digest([1, shards.fingerprint, seed, shard_contexts, total, GZIP_LEVEL])
    tasks, counts = {}, []
    for number, first in enumerate(range(0, total, shard_contexts)):
        key, count = f"{number:08d}", min(shard_contexts, total - first)
        task = TarTask(root, stage, key, str(shards.folder.absolute()), number, first, count, seed)
        tasks[key] = (write_tar, (task,))
        counts.append(count)
    with Jobs(root, on, workers, progress) as jobs:
        records = jobs.stage(TARS, stage, "tars", tasks)
        names = [r["outputs"][0]["url"].removeprefix("./").removesuffix(".tar") for r in records]
        with committed(jobs.manifest, MANIFEST, []) as file:
            for name, count in zip(names, counts, strict=True):
                file.write(json.dumps({"shard": name, "num_sequences": count}).encode() + b"\n")
        info = {key: shards.info[key] for key in ("length", "vocab", "end", "tokenizer", "tokenizer_hash")}
        info |= {
            "contexts": total,
            "num_tokens": total * shards.length,
            "tokens_fingerprint": shards.fingerprint,
        }
        info["shards"] = [
            {"shard": name, "xxh3": r["outputs"][0]["xxh3"]} for name, r in zip(names, records, strict=True)
        ]
        jobs.manifest.write_json(info, DATASET, indent=True)
    return TarContexts.open(root)


def write_tar(task: TarTask, attempt: int = 1) -> Record:
    """Write one tar, the same bytes at every attempt."""
    started, outputs = time.perf_counter(), []
    shards = TokenShards.open(task.tokens)
    with committed(Manifest(task.root), f"./shard_{task.key}.tar", outputs) as out:
        write_members(out, shards, task)
    return finish(
        task.root, TARS, task.stage_hash, task.key, outputs, started, attempt,
        rows_in=task.count, rows_out=task.count,
    )  # fmt: skip


def write_members(out: HashingFile | io.BufferedIOBase, shards: TokenShards, task: TarTask) -> None:
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:  # type: ignore[arg-type]
        for low in range(0, task.count, 256):
            numbers = np.arange(task.first + low, task.first + min(low + 256, task.count))
            rows = shards.rows(reading_order(len(shards), task.seed, numbers))
            for i, row in enumerate(rows, low):
                packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
                data = packer.compress(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) + packer.flush()
                member = tarfile.TarInfo(f"{task.key}-{i:06d}.json.gz")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class TarContexts:
    """The contexts of a manifest's tars, by number, as :class:`recipes.lm.tokens.TokenShards` has them.

    A tar's members are found once (their headers are read), then each context is one read, one inflation
    and one parsing of JSON: for data that is here as tars only. Otherwise prefer token shards.
    """

    path: Path
    shards: tuple[TarShard, ...] = field(repr=False)
    length: int
    vocab: int
    tokenizer_hash: str
    fingerprint: str
    compat: str | None = None

    def __post_init__(self) -> None:
        counts = np.array([s.contexts for s in self.shards], dtype=np.int64)
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(counts)]))
        object.__setattr__(self, "_members", {})
        object.__setattr__(self, "_rows", OrderedDict())

    @classmethod
    def open(
        cls, manifest: str | Path, *, vocab: int | None = None, compat: str | None = None
    ) -> TarContexts:
        """Open by the path of a manifest or of the folder that holds ``manifest.jsonl``.

        vocab: of the model; default: what ``dataset.json`` says, else 50,432 (DCLM's models).
        compat: "open_lm" reads ids as its loader does: negative ones modulo the vocabulary, what is no whole
            number as 0. Without it both are errors that name the member.
        """
        if compat not in (None, "open_lm"):
            raise TokensError(f"compat={compat!r}: it is 'open_lm' or nothing")
        path = Path(manifest)
        path = path / MANIFEST if path.is_dir() else path
        shards = read_manifest(path)
        info = read_dataset(path.parent)
        parts = [path.read_bytes().rstrip(b"\n").hex(), [s.path.stat().st_size for s in shards], compat]
        fingerprint = xxhash.xxh3_64_hexdigest(json.dumps(parts).encode())
        length = info.get("length") or len(_first(shards, path))
        if vocab and info.get("vocab", 0) > vocab:
            raise TokensError(
                f"{path}: made by a tokenizer of {info['vocab']:,} ids, and the model has a vocabulary of "
                f"{vocab:,}; use a model with a larger one, or tokenise again"
            )
        vocab = vocab or info.get("vocab") or 50_432
        return cls(path, tuple(shards), int(length), int(vocab), str(info.get("tokenizer_hash", "")),
                   fingerprint, compat)  # fmt: skip

    def __len__(self) -> int:
        return int(self._starts[-1])  # type: ignore[attr-defined]

    @property
    def budget(self) -> int:
        """Contexts that there are: tars have their repeats written out."""
        return len(self)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The contexts with these numbers, (n, T+1) int64. Raises TokensError that names tar and member."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise TokensError(f"{self.path}: context {int(indices.max())} of {len(self):,}")
        out = np.empty((len(indices), self.length), dtype=np.int64)
        for at in np.argsort(indices, kind="stable").tolist():
            out[at] = self._row(int(indices[at]))
        return out

    def place(self, index: int) -> tuple[str, int]:
        """Tar and the number of the member in it."""
        starts = self._starts  # type: ignore[attr-defined]
        shard = int(np.searchsorted(starts, index, side="right")) - 1
        return self.shards[shard].path.name, int(index - starts[shard])

    def members(self, shard: int) -> Members:
        """Where the contexts of a tar lie. Raises TokensError when there are more or fewer than listed."""
        known: dict[int, Members] = self._members  # type: ignore[attr-defined]
        if shard not in known:
            entry = self.shards[shard]
            found = scan(entry.path)
            if len(found.names) != entry.contexts:
                raise TokensError(disagreement(entry, found, self.path))
            known[shard] = found
        return known[shard]

    def _row(self, index: int) -> np.ndarray:
        cache: OrderedDict[int, np.ndarray] = self._rows  # type: ignore[attr-defined]
        if index not in cache:
            shard = int(np.searchsorted(self._starts, index, side="right")) - 1  # type: ignore[attr-defined]
            members = self.members(shard)
            at = index - int(self._starts[shard])  # type: ignore[attr-defined]
            cache[index] = self._decode(members, at)
            if len(cache) > DECODED_ROWS:
                cache.popitem(last=False)
        return cache[index]

    def _decode(self, members: Members, at: int) -> np.ndarray:
        where = f"{members.path}, member {members.names[at]}"
        with open(members.path, "rb") as file:
            file.seek(members.offsets[at])
            ids = parse(file.read(members.sizes[at]), members.names[at], where)
        row = np.asarray(whole_numbers(ids, where, self.compat), dtype=np.int64)
        if row.shape != (self.length,):
            raise TokensError(f"{where}: {row.size:,} ids where contexts have {self.length:,}")
        if self.compat == "open_lm":
            row = np.where(row < 0, row % self.vocab, row)
        if row.min() < 0 or row.max() >= self.vocab:
            wrong = int(np.flatnonzero((row < 0) | (row >= self.vocab))[0])
            mend = "; compat='open_lm' reads negative ids modulo the vocabulary" * bool(row.min() < 0)
            raise TokensError(
                f"{where}, token {wrong}: id {row[wrong]} with a vocabulary of {self.vocab:,}{mend}"
            )
        return row.astype(np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return TarContexts, (self.path, self.shards, self.length, self.vocab, self.tokenizer_hash,
                             self.fingerprint, self.compat)  # fmt: skip


@dataclass(frozen=True)
class Members:
    """Contexts of one tar: names, byte offsets and sizes of their data, in order."""

    path: Path
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    whole: bool
    """The tar has its end: if not, it may have been cut short between two members."""


def disagreement(entry: TarShard, found: Members, manifest: Path) -> str:
    """What to say of a tar that has not as many contexts as its manifest lists."""
    why = "one of them is of another version" if found.whole else "the tar has no end, it was cut short"
    return (
        f"{entry.path}: {len(found.names):,} contexts and {manifest.name} says {entry.contexts:,}: {why}; "
        "fetch or write both again"
    )


def read_manifest(path: Path) -> list[TarShard]:
    """The shards that a manifest lists, whether or not its last line is ended. Raises TokensError."""
    if not path.is_file():
        raise TokensError(f"{path}: no such manifest")
    shards = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
            name, count = str(entry["shard"]), int(entry["num_sequences"])
        except (ValueError, KeyError, TypeError) as error:
            raise TokensError(
                f"{path}, line {number}: expected shard and num_sequences, found {line[:80]!r}: {error!r}"
            ) from None
        if count < 0 or Path(name).is_absolute() or ".." in Path(name).parts:
            raise TokensError(f"{path}, line {number}: {line[:80]!r} names no tar beside the manifest")
        shard = path.parent / (name if name.endswith(".tar") else f"{name}.tar")
        if not shard.is_file():
            raise TokensError(
                f"{path}, line {number}: {shard.name} is not there; fetch it, or the manifest again"
            )
        shards.append(TarShard(shard, count))
    if not shards:
        raise TokensError(f"{path}: no shard is listed")
    return shards


def read_dataset(folder: Path) -> dict[str, Any]:
    """``dataset.json`` of a folder of tars that we wrote, or nothing."""
    try:
        info = json.loads((folder / DATASET).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TokensError(f"{folder / DATASET}: not JSON: {error}") from None
    return info if isinstance(info, dict) else {}


def scan(path: Path) -> Members:
    """Find the contexts of a tar by its headers. Raises TokensError for one that is cut short or damaged."""
    names, offsets, sizes = [], [], []
    size, end = path.stat().st_size, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                end = member.offset_data + member.size
                if end > size:
                    raise TokensError(f"{path}: cut short in member {member.name}; fetch or write it again")
                if member.isfile() and member.name.endswith(_SUFFIXES):
                    names.append(member.name)
                    offsets.append(member.offset_data)
                    sizes.append(member.size)
    except tarfile.TarError as error:
        raise TokensError(f"{path}: not a whole tar ({error}); fetch or write it again") from None
    # A tar ends with blocks of zeros; where there are none, members may be missing.
    return Members(path, names, offsets, sizes, whole=size >= -(-end // 512) * 512 + 512)


def parse(data: bytes, name: str, where: str) -> list[Any]:
    """The JSON list of a member."""
    try:
        if name.endswith(".gz"):
            data = zlib.decompress(data, 31)
        ids = orjson.loads(data)
    except (zlib.error, ValueError) as error:
        raise TokensError(f"{where}: not a {'gzipped ' * name.endswith('.gz')}JSON list: {error}") from None
    if not isinstance(ids, list):
        raise TokensError(f"{where}: a JSON {type(ids).__name__}, not a list of ids")
    return ids


def whole_numbers(ids: list[Any], where: str, compat: str | None = None) -> list[int]:
    """The ids; what is no whole number is an error, or 0 as open_lm has it."""
    if all(type(i) is int for i in ids):
        return ids
    if compat == "open_lm":
        return [i if type(i) is int else 0 for i in ids]
    wrong = next(n for n, i in enumerate(ids) if type(i) is not int)
    raise TokensError(
        f"{where}, token {wrong}: {ids[wrong]!r} is no whole number; compat='open_lm' reads 0 there"
    )


def _first(shards: Sequence[TarShard], path: Path) -> list[Any]:
    for shard in shards:
        if shard.contexts:
            members = scan(shard.path)
            if members.names:
                with open(shard.path, "rb") as file:
                    file.seek(members.offsets[0])
                    data = file.read(members.sizes[0])
                return parse(data, members.names[0], f"{shard.path}, member {members.names[0]}")
    raise TokensError(f"{path}: its tars hold no context")


def main(argv: Sequence[str] | None = None) -> int:
    from curation.errors import RunFailed

    parser = argparse.ArgumentParser(
        prog="python -m recipes.lm.tars", description="Write token shards as WebDataset tars for open_lm."
    )
    parser.add_argument("tokens", help="folder of token shards (tokens.json)")
    parser.add_argument("out", help="folder for shard_*.tar and manifest.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of further epochs' order (default: 0)")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")
    parser.add_argument("--on", default="local", choices=["local", "ray"])
    parser.add_argument("--quiet", action="store_true")
    a = parser.parse_args(argv)
    try:
        written = export(a.tokens, a.out, seed=a.seed, workers=a.workers, on=a.on, progress=not a.quiet)
    except (ValueError, RunFailed, OSError) as error:
        print(f"tars: {error}", file=sys.stderr)
        return 1
    print(f"{len(written):,} contexts in {len(written.shards)} tars → {written.path}")
    return 0


if __name__ == "__main__":
    from recipes.lm import tars as _module  # workers look its functions up by this name

    sys.exit(_module.main())
