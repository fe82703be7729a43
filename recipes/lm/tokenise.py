"""A curated set to training contexts: tokenise, pack, shuffle, mix, to an exact budget.

    python -m recipes.lm.tokenise out/rules tokens/rules --scale lm-400m-1x --workers 16
    python -m recipes.lm.tokenise mix.yaml tokens/mix --tokenizer gpt-neox-20b --tokens 8e9

Three stages, each of tasks that leave a done record: input shards become streams of token ids (every
document followed by the end of text); streams are cut into disjoint contexts of T+1 ids and scattered; output
shards are gathered (``recipes.lm.shuffle``). The same bytes come out whatever the workers, the batches and
the interruptions. Memory is that of one batch of text, one run or one output shard.

The end of a shard that fills no context goes on into the end of the next one: no token is lost but the last
few of a source. ``compat="dclm"`` fills it up with a padding id instead, as DCLM's tokeniser does (and then
trains on the padding).
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.driver import INLINE_BYTES
from curation.formats.compression import Damaged, codec, pieces
from curation.identity import digest
from curation.manifest import Manifest, Record
from curation.outputs import committed
from recipes.lm import encode, mixing, shuffle
from recipes.lm.data import DataError, shard_files
from recipes.lm.jobs import Jobs, finish
from recipes.lm.mixing import Source
from recipes.lm.shuffle import Copies, Gather, Runs, Scatter, Stream
from recipes.lm.tokens import FORMAT, INFO, TokensError, TokenShards, dtype_for, is_tokens, read_info

STREAMS = "1-tokenise"
BATCH_BYTES = 4 << 20  # text encoded at a time
SHARD_BYTES = 128 << 20  # of an output shard, and so of what a gather task holds
MIXES = (".yaml", ".yml")
NEOX_PAD = 50256  # what DCLM pads with: -1 modulo 50254 + 3, a run of spaces in GPT-NeoX's vocabulary


@dataclass(frozen=True)
class StreamTask:
    """One input shard to be tokenised."""

    root: str
    stage_hash: str
    key: str
    path: str
    tokenizer: str
    dtype: str
    column: str
    pad: int | None
    length: int


@dataclass(frozen=True)
class Input:
    """One shard of a source; ``name`` is its path under the source's folder."""

    source: str
    name: str
    path: Path
    size: int
    etag: str

    @property
    def key(self) -> str:
        """Name of its task: another one when the file has changed."""
        readable = re.sub(r"[^\w.-]+", "-", f"{self.source}-{self.name}").strip("-.")[:80]
        return f"{readable}-{digest([self.source, self.name, self.size, self.etag])[:12]}"


def tokenise(
    data: str | Path | Sequence[Source],
    out: str | Path,
    *,
    tokenizer: str | Path = "gpt-neox-20b",
    context: int = 2048,
    seed: int = 0,
    contexts: int | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    allow_repeat: bool = False,
    vocab: int | None = None,
    compat: str | None = None,
    pad: int | None = None,
    column: str = "text",
    shard_contexts: int | None = None,
    workers: int | None = 1,
    on: str = "local",
    progress: bool = True,
    keep_work: bool = False,
    overwrite: bool = False,
) -> TokenShards:
    """Write ``out/tokens.json`` and its shards, or go on where an interrupted call stopped.

    data: a run's output or a folder of shards with a column ``text``, or the sources of a mix.
    context: T; contexts have T+1 ids.
    contexts | tokens | epochs: an exact budget, as contexts, as predicted tokens (T a context, rounded up) or
        as passes over what there is; default: everything once. More than there is raises TokensError with the
        epochs that it would be, unless ``allow_repeat``; the trainer then makes further epochs itself, so
        nothing is stored twice (except copies that a mix asks for).
    vocab: of the model; a tokenizer with more ids is refused.
    compat: "dclm" pads the end of every input shard with ``pad`` (50256 for GPT-NeoX).
    workers: processes (None: all cores, or this process where there is little to do); on="ray": a local Ray,
        or the cluster of RAY_ADDRESS, with ``out`` on a file system that all nodes share.
    keep_work: keep the token streams (2 or 4 bytes a token) for another seed, mix or budget in this folder.
    overwrite: replace the finished tokens of another job.

    Raises TokensError, TokenizerError or DataError before anything is started; RunFailed when a shard could
    not be read, written or encoded (what is done is kept; call again).
    """
    sources = [Source("data", str(data))] if isinstance(data, str | Path) else list(data)
    mixing.check(sources)
    if not storage.is_local(str(out)):
        raise TokensError(
            f"{out}: token shards are memory-mapped: give a folder on this machine or a shared disk"
        )
    root = storage.local_path(str(out))
    encoder = _encoder(str(encode.find(tokenizer).absolute()))
    _refuse(root, encoder, context, vocab, compat)
    if tokens is not None:
        if contexts is not None or epochs is not None:
            raise TokensError("tokens with contexts or epochs: give one budget")
        contexts = -(-int(tokens) // context)
    length, dtype = context + 1, dtype_for(encoder.vocab)
    pad = _padding(encoder, pad) if compat else None
    inputs = list_inputs(sources)
    per_shard = shard_contexts or max(1, SHARD_BYTES // (length * np.dtype(dtype).itemsize))
    stream_hash = digest([1, encoder.hash, dtype, column, compat, [pad, length] if compat else None])
    identity = digest([stream_hash, length, seed, contexts, epochs, allow_repeat, per_shard,
                       [[s.name, s.epochs, s.weight] for s in sources],
                       [[i.source, i.name, i.size, i.etag] for i in inputs]])  # fmt: skip
    if is_tokens(root):
        if read_info(root).get("identity") == identity:
            return TokenShards.open(root)
        if not overwrite:
            raise TokensError(
                f"{out} holds finished tokens of another job (other data, tokenizer, seed, mix or budget): "
                "write somewhere else, or overwrite=True (--overwrite)"
            )
        storage.remove(str(Path(root, INFO)))

    if workers is None and on == "local" and sum(i.size for i in inputs) < INLINE_BYTES:
        workers = 1
    with Jobs(root, on, workers, progress) as jobs:
        tasks = {}
        for i in inputs:
            path, file = str(i.path.absolute()), str(encoder.path)
            task = StreamTask(root, stream_hash, i.key, path, file, dtype, column, pad, length)
            tasks[i.key] = (write_stream, (task,))
        records = jobs.stage(STREAMS, stream_hash, "tokenise", tasks)
        streams, tails = _streams(jobs.manifest, inputs, records, length, dtype, padded=compat is not None)
        by_source = [[s for s in streams if s.source == source.name] for source in sources]
        available = [sum(s.contexts for s in own) for own in by_source]
        shared = mixing.share(sources, available, contexts=contexts, epochs=epochs, allow_repeat=allow_repeat)
        copies = {
            id(stream): wanted
            for own, count in zip(by_source, shared.counts, strict=True)
            for stream, wanted in zip(own, shuffle.choose(own, seed, count), strict=True)
        }
        shards = _shuffled(jobs, streams, [copies[id(s)] for s in streams], seed, length, dtype, per_shard,
                           encoder.vocab, digest([stream_hash, [r["outputs"] for r in records]]))  # fmt: skip
        info = {
            "format": FORMAT,
            "length": length,
            "dtype": dtype,
            "vocab": encoder.vocab,
            "end": encoder.end,
            "tokenizer": Path(tokenizer).name.removesuffix(".json"),
            "tokenizer_hash": encoder.hash,
            "contexts": sum(s["contexts"] for s in shards),
            "tokens": sum(s["contexts"] for s in shards) * length,
            "budget": shared.budget,
            "seed": seed,
            "compat": compat,
            "pad": pad,
            "documents": sum(r["documents"] for r in records),
            "empty_documents": sum(r["empty"] for r in records),
            "text_bytes": sum(r["text_bytes"] for r in records),
            "document_tokens": sum(r["tokens"] for r in records),
            "pad_tokens": sum(r["pads"] for r in records),
            "left_over_tokens": sum(tails.values()),
            "sources": _summary(sources, inputs, records, available, shared.counts, tails),
            "shards": shards,
            "identity": identity,
        }
        _conserve(info, available, length)
        jobs.manifest.write_json(info, INFO, indent=True)
        if not keep_work:
            jobs.manifest.remove_work()
    return TokenShards.open(root)


def for_scale(scale: Any) -> dict[str, Any]:
    """What a scale fixes of a call: tokenizer, context, the model's vocabulary and the budget."""
    from recipes import scale as scales

    scale = scales.load(scale)
    model, train = scale["model"], scale["train"]
    return {
        "tokenizer": train["tokenizer"],
        "context": model["context"],
        "vocab": model["vocab"],
        "contexts": train["steps"] * train["batch"],
    }


def list_inputs(sources: Sequence[Source]) -> list[Input]:
    """The shards of every source. Raises when a shard of a divided folder belongs to none or to two."""
    out, taken = [], {}
    for source in sources:
        folder, found = Path(source.path), 0
        for path in shard_files(folder):
            name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
            if source.contains and not any(part in name for part in source.contains):
                taken.setdefault((folder, path), None)
                continue
            if taken.get((folder, path)) is not None:
                raise TokensError(
                    f"{path} belongs to the sources {taken[folder, path]!r} and {source.name!r}: "
                    "make what their `contains` say narrower"
                )
            taken[folder, path] = source.name
            entry = storage.info(str(path))
            out.append(Input(source.name, name, path, entry.size, entry.etag))
            found += 1
        if not found:
            raise TokensError(
                f"source {source.name!r}: no shard of {folder} has {source.contains} in its name"
            )
    lost = [path for (_, path), name in taken.items() if name is None]
    if lost:
        raise TokensError(
            f"{lost[0]}{f' and {len(lost) - 1} more' * (len(lost) > 1)} belong to no source of the mix: "
            "name them in a `contains`, or move them away"
        )
    return out


# ---------------------------------------------------------------- first stage: text to streams


def write_stream(task: StreamTask, attempt: int = 1) -> Record:
    """Tokenise one shard into a file of ids: documents in order, each followed by the end of text."""
    started = time.perf_counter()
    manifest, outputs = Manifest(task.root), []
    encoder = _encoder(task.tokenizer)
    documents = empty = text_bytes = tokens = pads = 0
    file = f"_winnow/work/tokens/{task.key}.ids"
    with committed(manifest, file, outputs) as out:
        for texts in read_texts(Path(task.path), task.column):
            sizes = pc.fill_null(pc.binary_length(texts), 0)
            text_bytes += pc.sum(sizes).as_py() or 0
            nothing = pc.sum(pc.equal(sizes, 0)).as_py() or 0
            empty += nothing
            if nothing and task.pad is None:
                texts = texts.filter(pc.greater(sizes, 0))
            documents += len(texts)
            if not len(texts):
                continue
            try:
                offsets, ids = encoder.encode(texts)
            except ValueError as error:
                raise type(error)(f"{task.path}: {error}") from None
            ids = np.insert(ids.astype(task.dtype), offsets[1:], encoder.end)
            tokens += len(ids)
            out.write(ids.astype(np.dtype(task.dtype).newbyteorder("<"), copy=False))
        if task.pad is not None and tokens % task.length:
            pads = task.length - tokens % task.length
            out.write(np.full(pads, task.pad, np.dtype(task.dtype).newbyteorder("<")))
    return finish(
        task.root, STREAMS, task.stage_hash, task.key, outputs, started, attempt,
        documents=documents, empty=empty, text_bytes=text_bytes, tokens=tokens, pads=pads,
        rows_in=documents, rows_out=documents, text_bytes_in=text_bytes,
    )  # fmt: skip


def _encoder(path: str) -> encode.Encoder:
    """One per worker process: loading it takes as long as a few MB of text, and its memo is worth keeping."""
    return _loaded(path, storage.info(path).etag)


@functools.lru_cache(maxsize=1)
def _loaded(path: str, etag: str) -> encode.Encoder:
    return encode.load(path)


def read_texts(path: Path, column: str = "text") -> Iterator[pa.Array]:
    """The texts of a shard in batches of about 4 MB, nulls included. Raises DataError, naming the place."""
    try:
        if path.name.endswith(".parquet"):
            yield from _parquet_texts(path, column)
        else:
            yield from _json_texts(path, column)
    except (pa.ArrowException, Damaged, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the shard
        at = f" (byte {error.offset:,})" if isinstance(error, Damaged) else ""
        raise DataError(f"{path}: cannot be read, damaged or cut short{at}: {error}") from None


def _parquet_texts(path: Path, column: str) -> Iterator[pa.Array]:
    import pyarrow.parquet as pq

    # A buffered file reads a column chunk page by page, so large row groups are no matter.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise DataError(f"{path}: no column {column}; its columns are {names}")
        type_ = file.schema_arrow.field(column).type
        if not (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
            raise DataError(f"{path}: column {column} is {type_}, not text")
        at = file.schema_arrow.names.index(column)
        for group in range(file.num_row_groups):
            meta = file.metadata.row_group(group)
            size = meta.column(at).total_uncompressed_size if meta.num_columns == len(names) else 1 << 30
            rows = max(1, min(65_536, BATCH_BYTES * meta.num_rows // max(1, size)))
            for batch in file.iter_batches(rows, [group], [column], use_threads=False):
                yield batch.column(0)


def _json_texts(path: Path, column: str) -> Iterator[pa.Array]:
    import orjson

    texts: list[str | None] = []
    size = 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            text = orjson.loads(line)[column]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: expected a record with {column}: {error!r}") from None
        if not (text is None or isinstance(text, str)):
            raise DataError(f"{path}, line {number}: {column} is {type(text).__name__}, not text")
        texts.append(text)
        size += len(line)
        if size >= BATCH_BYTES:
            yield pa.array(texts, pa.large_string())
            texts, size = [], 0
    if texts:
        yield pa.array(texts, pa.large_string())


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    with open(path, "rb") as file:
        for piece in pieces(file, codec(path.name)):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
    yield rest


# ---------------------------------------------------------------- further stages


def _streams(
    manifest: Manifest, inputs: list[Input], records: list[Record], length: int, dtype: str, padded: bool
) -> tuple[list[Stream], dict[str, int]]:
    """The streams in order, those of joined tails included, and the tokens left over of each source."""
    streams, left = [], {}
    size = np.dtype(dtype).itemsize
    for source in dict.fromkeys(i.source for i in inputs):
        own = [(i, r) for i, r in zip(inputs, records, strict=True) if i.source == source]
        total = 0
        tails = f"_winnow/work/tokens/tails-{digest(source)[:12]}.ids"
        with committed(manifest, tails, []) as out:
            for entry, record in own:
                count, rest = divmod(record["tokens"] + record["pads"], length)
                file = record["outputs"][0]["url"]
                streams.append(Stream(file, source, entry.name, count))
                if rest:
                    with open(manifest.path(file), "rb") as stream:
                        stream.seek(count * length * size)
                        out.write(stream.read(rest * size))
                    total += rest
        if not padded:
            streams.append(Stream(tails, source, "\0tails", total // length))
        left[source] = total % length
    return streams, left


def _shuffled(
    jobs: Jobs, streams: list[Stream], copies: list[Copies], seed: int, length: int, dtype: str,
    per_shard: int, vocab: int, content: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Scatter and gather; the entries of the shards."""
    import orjson

    root = jobs.manifest.root
    chain = digest([content, streams, copies, seed, length])
    tasks = {}
    for number, (stream, wanted) in enumerate(zip(streams, copies, strict=True)):
        key = f"{number:06d}"
        tasks[key] = (shuffle.scatter, (Scatter(root, chain, key, stream, wanted, seed, length, dtype),))
    scattered = jobs.stage(shuffle.SCATTER, chain, "scatter", tasks)
    runs_file = "_winnow/work/runs.json"
    storage.write_bytes(
        jobs.manifest.path(runs_file),
        orjson.dumps({"runs": [r["runs"] for r in scattered]}),
        jobs.manifest.tmp,
    )
    runs = [Runs(r["runs"]["rows"], r["runs"]["keys"], tuple(r["runs"]["sizes"])) for r in scattered]
    chain = digest([chain, per_shard])
    tasks, counts = {}, []
    for number, (first, last, skip, count) in enumerate(shuffle.boundaries(root, runs, per_shard)):
        key = f"{number:06d}"
        # "./" because a record's outputs are looked for in the folder that its name has
        file = f"./shard-{number:05d}.bin"
        tasks[key] = (shuffle.gather, (Gather(root, chain, key, file, runs_file, first, last, skip, count,
                                              length, dtype, vocab),))  # fmt: skip
        counts.append(count)
    gathered = jobs.stage(shuffle.GATHER, chain, "gather", tasks)
    return [
        {"file": r["outputs"][0]["url"].removeprefix("./"), "contexts": n, "xxh3": r["outputs"][0]["xxh3"]}
        for r, n in zip(gathered, counts, strict=True)
    ]


# ---------------------------------------------------------------- checks and figures


def _refuse(root: str, encoder: encode.Encoder, context: int, vocab: int | None, compat: str | None) -> None:
    if context < 1:
        raise TokensError(f"context={context}: a context has at least one token and its target")
    if vocab is not None and encoder.vocab > vocab:
        raise TokensError(
            f"{encoder.path.name}: the tokenizer has {encoder.vocab:,} ids and the model a vocabulary of "
            f"{vocab:,}: use the tokenizer of the scale, or a model with a larger vocabulary"
        )
    if compat not in (None, "dclm"):
        raise TokensError(f"compat={compat!r}: it is 'dclm' or nothing")
    if Path(root, "_winnow", "plan.json").exists():
        raise TokensError(
            f"{root} is the output of a curation run: write the tokens to a folder of their own"
        )


def _padding(encoder: encode.Encoder, pad: int | None) -> int:
    if pad is None and encoder.vocab <= NEOX_PAD:
        raise TokensError(
            f"DCLM's padding id {NEOX_PAD} is outside the {encoder.vocab:,} ids of {encoder.path.name}: "
            "say which id to pad with (pad=…, --pad)"
        )
    pad = NEOX_PAD if pad is None else pad
    if not 0 <= pad < encoder.vocab:
        raise TokensError(f"pad={pad}: not one of the {encoder.vocab:,} ids of {encoder.path.name}")
    return pad


def _summary(
    sources: Sequence[Source], inputs: list[Input], records: list[Record], available: list[int],
    counts: Sequence[int], tails: dict[str, int],
) -> list[dict[str, Any]]:  # fmt: skip
    out = []
    for source, have, count in zip(sources, available, counts, strict=True):
        own = [r for i, r in zip(inputs, records, strict=True) if i.source == source.name]
        out.append({
            "name": source.name, "shards": len(own), "documents": sum(r["documents"] for r in own),
            "document_tokens": sum(r["tokens"] for r in own), "available_contexts": have, "contexts": count,
            "epochs": round(count / have, 6), "left_over_tokens": tails[source.name],
        })  # fmt: skip
    return out


def _conserve(info: dict[str, Any], available: list[int], length: int) -> None:
    """Every token that the tokenizer gave is in a context or counted as left over."""
    had = info["document_tokens"] + info["pad_tokens"]
    have = sum(available) * length + info["left_over_tokens"]
    written, wanted = info["contexts"], sum(s["contexts"] for s in info["sources"])
    if had != have or written != wanted:
        raise TokensError(
            f"tokens do not add up: {had:,} encoded, {have:,} packed or left over; {wanted:,} contexts "
            f"wanted, {written:,} written: a fault of this program; the output is not to be used"
        )


def describe(shards: TokenShards) -> str:
    """A few lines for the console."""
    i = shards.info
    lines = [
        f"{i['documents']:,} documents, {i['document_tokens']:,} tokens with ends of text "
        f"({i['text_bytes'] / max(1, i['document_tokens']):.2f} bytes each)",
        f"{i['contexts']:,} contexts of {i['length']:,} = {i['tokens']:,} tokens in "
        f"{len(i['shards'])} shards, {i['left_over_tokens']:,} tokens left over → {shards.folder}",
    ]
    if i["budget"] > i["contexts"]:
        lines.append(f"budget {i['budget']:,} contexts: {i['budget'] / i['contexts']:.4g} epochs")
    if len(i["sources"]) > 1:
        lines += [
            f"  {s['name']}: {s['contexts']:,} contexts of {s['available_contexts']:,} "
            f"({s['epochs']:.4g} epochs)"
            for s in i["sources"]
        ]
    return "\n".join(lines)


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="a run's folder, a folder of shards, or the YAML file of a mix")
    parser.add_argument("out", help="where the token shards go; an unfinished job there is continued")
    parser.add_argument("--scale", help="take tokenizer, context, vocabulary and budget from a scale")
    parser.add_argument("--tokenizer", help="name, or path of a tokenizer.json (default: gpt-neox-20b)")
    parser.add_argument(
        "--context", type=int, help="tokens of a context (default: 2048, and one target more)"
    )
    parser.add_argument("--seed", type=int, default=0)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--contexts", type=_count, help="exact budget, in contexts")
    budget.add_argument("--tokens", type=_count, help="exact budget, in predicted tokens (8e9 is understood)")
    budget.add_argument("--epochs", type=float, help="exact budget, in passes over the data")
    budget.add_argument("--everything", action="store_true", help="no budget, also with --scale")
    parser.add_argument("--allow-repeat", action="store_true", help="a budget may be more than one epoch")
    parser.add_argument("--compat", choices=["dclm"], help="pad the end of every input shard, as DCLM does")
    parser.add_argument("--pad", type=int, help=f"id to pad with (default: {NEOX_PAD}, GPT-NeoX)")
    parser.add_argument("--column", default="text")
    parser.add_argument("--tars", metavar="DIR", help="also write WebDataset tars and manifest.jsonl there")
    parser.add_argument("--workers", type=int, help="processes or local Ray CPUs (default: all cores)")
    parser.add_argument("--on", default="local", choices=["local", "ray"])
    parser.add_argument("--keep-work", action="store_true", help="keep the token streams for other budgets")
    parser.add_argument("--overwrite", action="store_true", help="replace the tokens of another job in OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def run(arguments: argparse.Namespace) -> int:
    """The command, with arguments as :func:`add_arguments` has them."""
    options: dict[str, Any] = for_scale(arguments.scale) if arguments.scale else {}
    for name in ("tokenizer", "context", "contexts"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if arguments.tokens is not None or arguments.epochs is not None or arguments.everything:
        options["contexts"] = None
    common = {"workers": arguments.workers, "on": arguments.on, "progress": not arguments.quiet}
    shards = tokenise(
        mixing.load(arguments.data) if arguments.data.endswith(MIXES) else arguments.data,
        arguments.out,
        **options,
        **common,
        tokens=arguments.tokens,
        epochs=arguments.epochs,
        allow_repeat=arguments.allow_repeat,
        seed=arguments.seed,
        compat=arguments.compat,
        pad=arguments.pad,
        column=arguments.column,
        keep_work=arguments.keep_work,
        overwrite=arguments.overwrite,
    )
    print(describe(shards))
    if arguments.tars:
        from recipes.lm import tars

        written = tars.export(shards, arguments.tars, seed=arguments.seed, **common)
        print(f"{len(written):,} contexts in {len(written.shards)} tars → {written.path}")
    return 0


def _count(text: str) -> int:
    value = float(text) if re.search("[eE.]", text) else int(text.replace("_", "").replace(",", ""))
    if value != int(value) or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(value)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m recipes.lm.tokenise``. Exit code 1: it failed, and the message says at what."""
    from curation.errors import RunFailed

    parser = argparse.ArgumentParser(
        prog="python -m recipes.lm.tokenise",
        description="Turn a curated set into shuffled training contexts.",
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except (ValueError, RunFailed, OSError) as error:
        print(f"tokenise: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from recipes.lm import tokenise as _job  # workers look its functions up by this name

    sys.exit(_job.main())
