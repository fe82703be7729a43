"""What the trainer reads and in which order: `open_source(...)` gives a `Source`, that gives batches by step.

What is seen at a step is a function of (data, settings, seed, step): never of workers, processes, prefetch or
where a run was resumed. Small sets of squares stay decoded in memory; everything else is read from its shards
by an index (`recipes.clip.index`), in an order (`recipes.clip.order`) that reads shards one after another.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from curation import storage, subsets
from filters.image_text.pixels import Pixels
from recipes.clip.augment import Views, augment
from recipes.clip.data import DataError, Pairs, load_pairs, shards_of
from recipes.clip.index import Index, count_rows, open_index
from recipes.clip.loading import JOB_ROWS, Decoder, Done, Job, Tokenizer, carry_out
from recipes.clip.order import Block, Order, ReplacedOrder, check_share
from recipes.clip.reading import Places, Reader
from recipes.clip.sampling import ExactEpochs, SamplingError
from recipes.clip.selection import (
    Selection,
    distinct_in_sorted,
    order_of,
    refuse_missing,
    refuse_unusable,
    subset_digest,
)
from recipes.clip.settings import SAMPLINGS
from recipes.training.ahead import ahead

IN_MEMORY = 1 << 30  # bytes of decoded squares

Weights = str | Mapping[str, float] | Sequence[float]


@dataclass(frozen=True)
class Batch:
    """One process's rows of one step.

    pixels: uint8 [n, size, size, 3]; tokens: int64 [n, context]; ids: the n row ids, for error reports;
    position: where in the data the step lies, for the log.
    """

    step: int
    pixels: torch.Tensor
    tokens: torch.Tensor
    ids: list[str]
    position: dict[str, Any]


class Source(Protocol):
    """Data ready for training. rows: length of one epoch, with multiplicity; bytes: of the shards read;
    fingerprint: what a checkpoint must agree with; about: one line; sampling: goes into the result."""

    rows: int
    distinct_rows: int
    bytes: int
    fingerprint: str
    about: str
    sampling: dict[str, Any]

    def batches(self, first: int, steps: int, share: tuple[int, int]) -> Iterator[Batch]:
        """Batches of steps first … steps - 1: places share[0] … share[1] - 1 of each global batch."""
        ...


def open_source(
    data: Any,
    model_pixels: Pixels,
    tokenizer: Tokenizer,
    settings: Any,
    seed: int,
    *,
    subset: Any = None,
    weights: Weights | None = None,
    workers: int = 0,
    index: str | Path | None = None,
    allow_missing: bool = False,
    bad: str = "refuse",
) -> Source:
    """Open training data: a folder, files, globs or a list of these (WebDataset tars, parquet; any fsspec
    URL), the folder of a curation run, a DataComp pool, a pyarrow table, or Pairs.

    settings: the `train` section of a scale. subset: a DataComp subset file (or its array): only its uids are
    seen, as often as they stand in it. weights (sampling "weighted"): the name of a column or JSON key, or a
    factor for the rows of every entry of `data` (a list in their order, or by name); for
    "shards_with_replacement" a factor for the chance of every entry's shards. workers: processes that decode.
    index: folder that keeps the index of the shards, by default under $WINNOW_CACHE or ~/.cache/winnow.
    allow_missing: take a subset whose uids are not all in the pool. bad: "skip" leaves out, counts and names
    rows that the index finds broken; "refuse" raises.

    Raises DataError (what cannot be read: file and row) and SamplingError (a budget that cannot be met).
    """
    kind = getattr(settings, "sampling", "epochs")
    if kind not in SAMPLINGS:
        raise SamplingError(f'sampling is "{kind}"; use one of {", ".join(SAMPLINGS)}')
    if bad not in ("refuse", "skip"):
        raise DataError(f'bad is "{bad}"; use "refuse" or "skip"')
    if (weights is not None) != (kind == "weighted") and not (weights and kind == "shards_with_replacement"):
        need = "needs weights" if weights is None else "takes no weights; use sampling: weighted"
        raise SamplingError(f"sampling: {kind} {need}")
    if kind == "shards_with_replacement" and isinstance(weights, str):
        raise SamplingError(
            f'sampling: {kind} takes a factor for every place of data, not the column "{weights}": '
            "its rows come as their shards hold them; use sampling: weighted"
        )
    chosen = None
    if subset is not None:
        chosen = subset if isinstance(subset, np.ndarray) else _read_subset(subset)
    area = getattr(settings, "resized_crop", None)
    simple = kind == "epochs" and area is None
    if isinstance(data, Pairs):
        if not simple:
            raise DataError("Pairs hold decoded squares; give the shards for random crops or other sampling")
        return InMemory(load_pairs(data, model_pixels, chosen), tokenizer, settings, seed)
    folder = Path(index) if index is not None else _cache()
    if isinstance(data, pa.Table | pa.RecordBatch):
        if simple:
            return _small(data, model_pixels, tokenizer, settings, seed, chosen, allow_missing)
        data = _as_file(data, folder)
    entries = [data] if isinstance(data, str | Path) else list(data)
    listed = [(str(entry), shard) for entry in entries for shard in shards_of(entry)]
    shards = [shard for _, shard in listed]
    if simple and bad == "refuse":
        most = IN_MEMORY // (model_pixels.size**2 * 3)
        if count_rows(shards, most) <= most:
            return _small(data, model_pixels, tokenizer, settings, seed, chosen, allow_missing)
    factors, column = _weights_of(weights, [entry for entry, _ in listed], [str(e) for e in entries])
    known = open_index(shards, folder, weight=column, workers=max(1, workers), bad=bad)
    selection = Selection(
        known,
        chosen,
        factors if kind == "weighted" else None,
        column is not None,
        settings.samples,
        seed,
    )
    where = ", ".join(map(str, entries[:2])) + (", …" if len(entries) > 2 else "")
    refuse_unusable(selection, settings.batch, allow_missing, where)
    order, facts = order_of(kind, selection, settings.batch, settings.samples, seed, factors)
    facts["weights"] = weights if weights is None or isinstance(weights, str) else _plain(weights)
    views = Views(
        model_pixels,
        seed,
        settings.batch,
        None if area is None else (float(area[0]), float(area[1])),
        getattr(settings, "shift", 0),
        getattr(settings, "crop", 1.0),
    )
    return Stream(known, selection, order, Decoder(views, tokenizer), workers, facts)


def _small(
    data: Any, pixels: Pixels, tokenizer: Tokenizer, settings: Any, seed: int, chosen: Any, allow: bool
) -> InMemory:
    pairs = load_pairs(data, pixels, chosen)
    missing = 0
    if chosen is not None:
        entries = distinct_in_sorted(chosen)
        missing = entries - len(pairs)
        refuse_missing(missing, entries, "the data", allow)
    source = InMemory(pairs, tokenizer, settings, seed)
    if chosen is not None:
        source.sampling["subset_missing"] = missing
    return source


def _read_subset(subset: Any) -> np.ndarray:
    try:
        return subsets.read_subset(subset)
    except (ValueError, OSError) as error:
        raise DataError(f"the subset cannot be read: {error}") from None


def _cache() -> Path:
    root = os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow"
    return Path(root).expanduser() / "clip-index"


def _as_file(table: Any, folder: Path) -> str:
    """A table as a parquet file beside the index, named by what it holds."""
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content = sink.getvalue()
    name = hashlib.blake2b(content, digest_size=12).hexdigest()
    path = folder / f"table-{name}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(str(path), content.to_pybytes())
    return str(path)


def _plain(weights: Mapping[str, float] | Sequence[float]) -> Any:
    return dict(weights) if isinstance(weights, Mapping) else [float(w) for w in weights]


def _weights_of(
    weights: Weights | None, entry_of: list[str], entries: list[str]
) -> tuple[np.ndarray | None, str | None]:
    """(factor of every shard, column of every row's weight), each None where there is none."""
    if weights is None or isinstance(weights, str):
        return None, weights
    if isinstance(weights, Mapping):
        if set(weights) != set(entries):
            raise SamplingError(f"weights for {', '.join(weights)}; the data are {', '.join(entries)}")
        factors = {entry: float(weights[entry]) for entry in entries}
    else:
        if len(weights) != len(entries):
            raise SamplingError(
                f"{len(weights)} weights for {len(entries)} places of data; give one for each"
            )
        factors = {entry: float(w) for entry, w in zip(entries, weights, strict=True)}
    wrong = [f"{entry}: {w}" for entry, w in factors.items() if not 0 <= w < float("inf")]
    if wrong:
        raise SamplingError(f"weights must be finite and >= 0; found {', '.join(wrong)}")
    return np.array([factors[entry] for entry in entry_of]), None


class InMemory:
    """Decoded squares in memory, in `ExactEpochs` order."""

    def __init__(self, pairs: Pairs, tokenizer: Tokenizer, settings: Any, seed: int):
        self._pairs, self._settings, self._seed = pairs, settings, seed
        self._tokens = tokenizer(pairs.captions)
        self._order = ExactEpochs(pairs.repeats, settings.batch, seed)
        self.rows = pairs.rows
        self.distinct_rows = len(pairs)
        self.bytes = int(pairs.pixels.nbytes)
        self.fingerprint = pairs.fingerprint
        self.about = f"{self.rows:,} pairs ({self.distinct_rows:,} distinct), decoded in memory"
        self.sampling = {
            "kind": "epochs",
            "seed": seed,
            "epochs": settings.samples / self.rows,
            "order": "rows",
        }

    def batches(self, first: int, steps: int, share: tuple[int, int]) -> Iterator[Batch]:
        """Batches of steps first … steps - 1; see `Source`."""
        check_share(share, self._settings.batch)
        start, stop = share
        pairs, settings = self._pairs, self._settings
        for step, rows in enumerate(self._order.batches(steps, first), first):
            mine = rows[start:stop]
            pixels = augment(pairs.pixels[mine], settings, self._seed, step, share, settings.batch)
            seen = step * settings.batch
            yield Batch(
                step,
                torch.from_numpy(pixels),
                self._tokens[torch.from_numpy(mine)],
                [pairs.ids[i] for i in mine],
                {"step": step, "epoch": seen // self.rows, "row": seen % self.rows},
            )


class Stream:
    """Rows read from their shards, block after block, decoded ahead of the trainer.

    Memory, whatever the size of the pool: the table of shards (200 bytes each), 2 M index rows (100 MB), row
    numbers and places of three blocks, and what the workers are ahead: workers × 2 × 64 squares and two
    batches. Disk: the rows of two blocks, unless they are read from local tars in place.
    """

    def __init__(
        self,
        index: Index,
        selection: Selection,
        order: Order,
        decoder: Decoder,
        workers: int,
        facts: dict[str, Any],
    ):
        self._index, self._order, self._decoder, self._workers = index, order, decoder, workers
        self.rows, self.distinct_rows = selection.summary[0], selection.summary[1]
        self.bytes = index.bytes
        parts = [index.fingerprint, subset_digest(selection.subset), orjson.dumps(facts.get("weights")).hex()]
        self.fingerprint = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
        self.sampling = facts
        if selection.subset is not None:
            self.sampling["subset_missing"] = selection.missing
        if index.skipped:
            self.sampling["skipped"] = len(index.skipped)
            self.sampling["skipped_examples"] = index.skipped[:10]
        broken = f"; {len(index.skipped)} broken rows left out" if index.skipped else ""
        self.about = (
            f"{self.rows:,} pairs ({self.distinct_rows:,} distinct) of {index.total:,} rows in "
            f"{len(index.shards):,} shards, {self.bytes / 1e9:.3g} GB{broken}"
        )

    def batches(self, first: int, steps: int, share: tuple[int, int]) -> Iterator[Batch]:
        """Batches of steps first … steps - 1; see `Source`. A share that cuts a block's lane is refused."""
        order = self._order
        # DataComp's few lanes may be cut: two processes then read the same shards, each its own rows of them
        check_share(share, order.batch, None if isinstance(order, ReplacedOrder) else order.lanes)
        if first >= steps:
            return
        if steps > order.steps:
            raise SamplingError(f"steps up to {steps} asked of a budget of {order.steps}")
        plans = _Plans(self._index, order, first, steps, share)
        with closing(plans), closing(carry_out(self._decoder, plans.jobs(), self._workers)) as done:
            made = self._made(range(first, steps), share, done, plans)
            yield from ahead(made, 1 if self._workers else 0)

    def _made(
        self, steps: range, share: tuple[int, int], done: Iterator[Done], plans: _Plans
    ) -> Generator[Batch, None, None]:
        for step in steps:
            batch = self._assemble(step, share, done, plans)
            plans.finished(step)
            yield batch

    def _assemble(self, step: int, share: tuple[int, int], done: Iterator[Done], plans: _Plans) -> Batch:
        """One step's batch, from the parts that its jobs made."""
        n, start, size = share[1] - share[0], share[0], self._decoder.views.pixels.size
        pinned = torch.cuda.is_available()
        pixels = torch.empty((n, size, size, 3), dtype=torch.uint8, pin_memory=pinned)
        tokens: torch.Tensor | None = None
        filled = 0
        while filled < n:
            part = next(done)
            at = part.start - start
            if part.pixels is None or part.tokens is None:
                shards, rows = plans.of(step)
                row, reason = part.fault or (0, "")
                raise self._refused(int(shards[at + row]), int(rows[at + row]), reason)
            if tokens is None:
                tokens = torch.empty((n, *part.tokens.shape[1:]), dtype=torch.int64, pin_memory=pinned)
            pixels[at : at + len(part.pixels)] = torch.from_numpy(part.pixels)
            tokens[at : at + len(part.pixels)] = torch.from_numpy(part.tokens)
            filled += len(part.pixels)
        assert tokens is not None
        return Batch(step, pixels, tokens, plans.ids(step), self._order.position(step))

    def _refused(self, shard: int, row: int, reason: str) -> DataError:
        name = self._index.read(shard).names(np.array([row]))[0]
        where = self._index.shards[shard].url
        return DataError(
            f"{where}, row {row} (id {name}): {reason}; filter the shards with ImageBasics first"
        )


class _Plans:
    """The blocks of one pass over steps: planned and read a block ahead by a thread, let go when done."""

    def __init__(self, index: Index, order: Order, first: int, steps: int, share: tuple[int, int]):
        self._index, self._order, self._first, self._steps, self._share = index, order, first, steps, share
        self._reader = Reader(index)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clip-data")
        self._blocks: dict[int, tuple[Block, list[list[str]]]] = {}
        self._numbers = range(order.block_of(first), order.block_of(steps - 1) + 1)
        self._ahead: deque[tuple[int, Future]] = deque()
        self._asked = 0

    def _ask(self) -> None:
        if self._asked < len(self._numbers):
            number = self._numbers[self._asked]
            self._asked += 1
            self._ahead.append((number, self._thread.submit(self._plan, number)))

    def _plan(self, number: int) -> tuple[Block, list[list[str]], int, Places]:
        """A block's rows of this share, from the first step that is wanted; runs in the thread."""
        block = self._order.block(number)
        skip = max(0, self._first - block.first)
        stop = min(len(block.shard), self._steps - block.first)
        start, end = self._share
        shard, row = block.shard[skip:stop, start:end], block.row[skip:stop, start:end]
        mine = Block(number, block.first + skip, shard, row)
        places = self._reader.places(shard.reshape(-1), row.reshape(-1), number)
        return mine, self._names(shard, row), skip, places

    def _names(self, shard: np.ndarray, row: np.ndarray) -> list[list[str]]:
        flat, rows = shard.reshape(-1), row.reshape(-1)
        out = np.empty(len(flat), object)
        for number in np.unique(flat):
            mine = np.flatnonzero(flat == number)
            out[mine] = self._index.read(int(number)).names(rows[mine])
        return out.reshape(shard.shape).tolist()

    def jobs(self) -> Iterator[Job]:
        """Every job of the pass, in order; waits for a block that is not read yet."""
        width = self._share[1] - self._share[0]
        self._ask()  # only now: processes are forked before there are threads
        self._ask()
        count = 0
        while self._ahead or self._asked < len(self._numbers):
            if not self._ahead:  # many workers and small blocks: more is under way than two blocks hold
                self._ask()
            number, future = self._ahead.popleft()
            block, names, _, places = future.result()
            self._blocks[number] = (block, names)
            for step in range(len(block.shard)):
                for at in range(0, width, JOB_ROWS):
                    begin = step * width + at
                    end = min(begin + JOB_ROWS, (step + 1) * width)
                    yield Job(count, block.first + step, self._share[0] + at, places.slice(begin, end))
                    count += 1

    def of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards and rows of this share of a step."""
        block = self._blocks[self._order.block_of(step)][0]
        return block.shard[step - block.first], block.row[step - block.first]

    def ids(self, step: int) -> list[str]:
        """Row ids of this share of a step."""
        block, names = self._blocks[self._order.block_of(step)]
        return names[step - block.first]

    def finished(self, step: int) -> None:
        """The trainer has had a step; after the last of a block the next but one is asked for."""
        number = self._order.block_of(step)
        block = self._blocks[number][0]
        if step == block.first + len(block.shard) - 1:
            del self._blocks[number]
            self._reader.release(number)
            self._ask()

    def close(self) -> None:
        """Stop reading and remove what was spooled."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
