"""Check training contexts before a long run trusts them: ``python -m recipes.lm.validate FOLDER``.

Token shards (``tokens.json``) and WebDataset tars (``manifest.jsonl``) alike: what is listed is there and
nothing else is, counts agree, checksums where there are any, every context has the same length, ids lie in
the vocabulary, documents end. Exit code 0: all is well; 1: problems, one a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from recipes.lm import tars
from recipes.lm.tokens import INFO, TokensError, is_tokens, read_info

ROWS = 1024  # contexts looked at a time


@dataclass
class Figures:
    """What was seen on the way."""

    contexts: int = 0
    tokens: int = 0
    ends: int = 0
    highest: int = -1


def problems(
    path: str | Path, *, vocab: int | None = None, end: int | None = None, compat: str | None = None,
    figures: Figures | None = None,
) -> Iterator[str]:  # fmt: skip
    """What is wrong with a folder of token shards or of tars, a sentence each, as it is found.

    vocab: of the model, when it is narrower than what the folder says. end: id of the end of text, for tars
    that do not say (default: 0, GPT-NeoX). compat="open_lm": negative ids in tars are no problem.
    """
    figures = figures if figures is not None else Figures()
    path = Path(path)
    try:
        if is_tokens(path):
            yield from _native(path, vocab, figures)
        else:
            yield from _tars(path, vocab, end, compat, figures)
    except TokensError as error:
        yield str(error)
    else:
        if figures.contexts and not figures.ends:
            yield f"{path}: no context holds an end of text: documents run into each other; is `end` right?"


def _native(folder: Path, vocab: int | None, figures: Figures) -> Iterator[str]:
    info = read_info(folder)
    length, dtype = info["length"], np.dtype(info["dtype"]).newbyteorder("<")
    if vocab is not None and info["vocab"] > vocab:
        yield f"{folder / INFO}: the tokenizer has {info['vocab']:,} ids, the model a vocabulary of {vocab:,}"
    limit = min(info["vocab"], vocab or info["vocab"])
    for shard in info["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            yield f"{path}: listed in {INFO} and not there"
            continue
        size, want = path.stat().st_size, shard["contexts"] * length * dtype.itemsize
        if size != want:
            yield f"{path}: {size:,} bytes where {shard['contexts']:,} contexts have {want:,}"
        checksum, first = xxhash.xxh3_128(), 0
        with open(path, "rb") as file:
            while data := file.read(ROWS * length * dtype.itemsize):
                checksum.update(data)
                ids = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
                for at, wrong in _ids(ids, limit, info["end"], figures):
                    yield f"{path}, context {first + at // length}, token {at % length}: {wrong}"
                first += ROWS
        figures.contexts += size // (length * dtype.itemsize)
        if size == want and checksum.hexdigest() != shard["xxh3"]:
            yield f"{path}: its bytes are not those that were written (checksum); copy or make it again"
    listed = {shard["file"] for shard in info["shards"]}
    for path in sorted(folder.glob("shard-*.bin")):
        if path.name not in listed:
            yield f"{path}: not listed in {INFO}; left by another job?"
    total = sum(s["contexts"] for s in info["shards"])
    if info["contexts"] != total or info.get("tokens", total * length) != total * length:
        yield f"{folder / INFO}: says {info['contexts']:,} contexts, its shards have {total:,}"


def _ids(ids: np.ndarray, limit: int, end: int, figures: Figures) -> Iterator[tuple[int, str]]:
    """Count ids; the place of the first one outside the vocabulary, and what is wrong."""
    if not ids.size:
        return
    figures.tokens += ids.size
    figures.ends += int(np.count_nonzero(ids == end))
    figures.highest = max(figures.highest, int(ids.max()))
    wrong = np.flatnonzero(ids >= limit)
    if len(wrong):
        at = int(wrong[0])
        yield at, f"id {ids[at]} with a vocabulary of {limit:,} ({len(wrong):,} such ids here)"


def _tars(
    path: Path, vocab: int | None, end: int | None, compat: str | None, figures: Figures
) -> Iterator[str]:
    path = path / tars.MANIFEST if path.is_dir() else path
    shards = tars.read_manifest(path)
    if not path.read_bytes().endswith(b"\n"):
        yield f"{path}: its last line is not ended: open_lm would never train on {shards[-1].path.name}"
    info = tars.read_dataset(path.parent)
    listed = {shard.path for shard in shards}
    for extra in sorted(path.parent.glob("*.tar")):
        if extra not in listed:
            yield f"{extra}: not listed in {path.name}: nothing will train on it"
    checksums = {s["shard"]: s["xxh3"] for s in info.get("shards", ())}
    end = info.get("end", 0) if end is None else end
    limit = vocab or info.get("vocab") or 50_432
    length = info.get("length")
    for shard in shards:
        try:
            members = tars.scan(shard.path)
        except TokensError as error:
            yield str(error)
            continue
        if len(members.names) != shard.contexts:
            yield tars.disagreement(shard, members, path)
        elif not members.whole:
            yield f"{shard.path}: the blocks that end a tar are missing"
        with open(shard.path, "rb") as file:
            for name, offset, size in zip(members.names, members.offsets, members.sizes, strict=True):
                where = f"{shard.path}, member {name}"
                file.seek(offset)
                try:
                    ids = tars.whole_numbers(tars.parse(file.read(size), name, where), where, compat)
                except TokensError as error:
                    yield str(error)
                    continue
                length = length or len(ids)
                if len(ids) != length:
                    yield f"{where}: {len(ids):,} ids where contexts have {length:,}"
                row = np.array(ids, dtype=np.int64)
                if compat == "open_lm":
                    row = np.where(row < 0, row % limit, row)
                if row.size and row.min() < 0:
                    yield f"{where}: id {row.min()} (open_lm takes it modulo its vocabulary)"
                for at, wrong in _ids(row, limit, end, figures):
                    yield f"{where}, token {at}: {wrong}"
                figures.contexts += 1
        wanted = checksums.get(shard.path.name.removesuffix(".tar"))
        if wanted and _checksum(shard.path) != wanted:
            yield f"{shard.path}: its bytes are not those that were written (checksum); copy or make it again"


def _checksum(path: Path) -> str:
    checksum = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            checksum.update(data)
    return checksum.hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="folder of token shards or tars, or a manifest.jsonl")
    parser.add_argument("--vocab", type=int, help="of the model that will read them")
    parser.add_argument(
        "--end", type=int, help="id of the end of text, for tars that do not say (default: 0)"
    )
    parser.add_argument("--compat", choices=["open_lm"], help="take negative ids in tars as open_lm does")
    parser.add_argument("--most", type=int, default=20, help="stop after so many problems (default: 20)")


def run(arguments: argparse.Namespace) -> int:
    """The command, with arguments as :func:`add_arguments` has them. 0: all is well."""
    figures, found = Figures(), 0
    a = arguments
    for problem in problems(a.path, vocab=a.vocab, end=a.end, compat=a.compat, figures=figures):
        found += 1
        print(f"problem: {problem}", file=sys.stderr)
        if found >= arguments.most:
            print("there may be more (--most)", file=sys.stderr)
            break
    if found:
        return 1
    print(
        f"{figures.contexts:,} contexts, {figures.tokens:,} tokens, ids up to {figures.highest:,}, "
        f"{figures.ends:,} ends of text: all is well"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.lm.validate", description="Check token shards or tars of training contexts."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
