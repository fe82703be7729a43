"""The order of a set too large for memory: shards are read one after another, and yet every batch is mixed.

The stream. A cycle (an epoch; with weights, the whole run) sees row i as often as it should, over `rounds`
passes, so that copies of a row lie far apart. A pass is a seeded permutation of shards laid end to end, rows
in file order. The stream is cut into blocks of `depth` batches. In a block, lane l of L takes the l-th equal
run of neighbouring rows, shuffles it, and gives batch / L rows to every step, at places l · batch / L …: so
each lane reads on through its shards, every batch holds rows of the whole block, and any number of processes
that divides L sees the same batches. A block is arranged whole by every process (row numbers only), and
mended so that no pair stands twice in a batch.

The last block is up to twice as long and ends with the budget, so that counts over the run are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from recipes.clip.sampling import ExactCounts, ExactEpochs, SamplingError, dealt

BLOCK_ROWS = 1 << 16
MOST_LANES, COMPAT_LANES = 512, 32
COMPAT_SHUFFLE = 5_000
SPREAD = 8

#: (shard, round) → row numbers int32 [n] and keys uint64 [n, 2] of what that pass sees of the shard
Occurrences = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Block:
    """Steps first … first + k - 1, whole batches: shard and row number of every place, int32 [k, batch]."""

    number: int
    first: int
    shard: np.ndarray
    row: np.ndarray


def lanes_of(batch: int, most: int = MOST_LANES) -> int:
    """The largest divisor of the batch up to `most`."""
    return next(n for n in range(min(batch, most), 0, -1) if batch % n == 0)


def check_share(share: tuple[int, int], batch: int, lanes: int | None = None) -> None:
    """Refuse a share that is no part of a batch, or (with lanes) cuts a lane in two."""
    start, stop = share
    if not 0 <= start < stop <= batch:
        raise SamplingError(f"share {share} of a batch of {batch}: need 0 <= start < stop <= batch")
    if lanes is not None:
        width = batch // lanes
        if start % width or stop % width:
            fits = [n for n in range(1, lanes + 1) if lanes % n == 0]
            raise SamplingError(
                f"places {start} to {stop} of a batch of {batch} cut a lane of {width} in two ({lanes} lanes)"
                f"; use a number of processes that divides {lanes}: {', '.join(map(str, fits))}"
            )


@dataclass(frozen=True)
class Shape:
    """How a stream is cut. depth: batches a block; rounds: passes a cycle."""

    depth: int
    rounds: int


def shape_of(rows: int, distinct: int, most: int, batch: int) -> Shape | None:
    """Depth and rounds for a cycle of `rows`, in which no row is seen more than `most` times.

    A pass is never shorter than a block, and sees a row at most depth / 2 times, so that a block, which meets
    two passes at most, holds no pair more often than it has batches. None: too small for a stream.
    """
    if distinct < 8 * batch or rows < 8 * batch:
        return None
    depth = max(4, min(64, BLOCK_ROWS // batch))
    spread = min(most, max(SPREAD, -(-2 * rows // distinct)))
    while depth >= 2:
        # a pass has about rows / rounds rows; a quarter is left for the draw of which copies it gets
        fit = min(rows, distinct * 4) * 3 // (4 * depth * batch) if most > 1 else rows // (depth * batch)
        need = -(-most // (depth // 2))
        if fit >= max(1, need):
            return Shape(depth, max(need, min(spread, fit)))
        depth //= 2
    return None


def in_round(times: np.ndarray, keys: np.ndarray, seed: int, round: int, rounds: int) -> np.ndarray:
    """Of `times` copies of each row, how many the pass `round` of `rounds` sees: int64 [n].

    They are spread evenly from a phase that the row's key decides; over all rounds the sum is `times`.
    """
    if rounds == 1:
        return times
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(keys[:, 0] + np.uint64(seed)) + keys[:, 1])
        phase = (mixed % np.uint64(rounds)).astype(np.int64)
    return (times * (round + 1) + phase) // rounds - (times * round + phase) // rounds


def _mix(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input reaches every bit of the output."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class BlockOrder:
    """Exact epochs or exact weights over shards, as the module's text says.

    totals: int64 [rounds, shards], what each pass sees of each shard; samples: the whole budget; endless:
    cycles follow each other until the budget is spent (epochs), or there is one (weights).
    """

    def __init__(
        self, totals: np.ndarray, occurrences: Occurrences, batch: int, samples: int, seed: int, depth: int
    ):
        self.totals, self._occurrences = totals, occurrences
        self.batch, self.steps, self.seed, self.depth = batch, samples // batch, seed, depth
        self.lanes = lanes_of(batch)
        self._rounds = totals.sum(axis=1)
        self._ends = np.cumsum(self._rounds)
        self.cycle = int(self._ends[-1])
        self.last = max(1, self.steps // depth) - 1

    def block_of(self, step: int) -> int:
        return min(step // self.depth, self.last)

    def border(self, block: int) -> tuple[int, int]:
        """First step of a block and the one after its last."""
        return block * self.depth, self.steps if block == self.last else (block + 1) * self.depth

    def position(self, step: int) -> dict[str, int]:
        """Where the first row of a step's block lies."""
        seen = self.border(self.block_of(step))[0] * self.batch
        cycle, rest = divmod(seen, self.cycle)
        return {
            "step": step,
            "epoch": cycle,
            "pass": int(np.searchsorted(self._ends, rest, side="right")),
            "block": self.block_of(step),
        }

    def block(self, number: int) -> Block:
        """Every place of a block: a function of (data, seed, number)."""
        first, stop = self.border(number)
        steps = stop - first
        shards, rows, keys = [], [], []
        for round, shard, start, end in self._segments(first * self.batch, steps * self.batch):
            found, found_keys = self._occurrences(shard, round)
            rows.append(found[start:end])
            keys.append(found_keys[start:end])
            shards.append(np.full(end - start, shard, np.int32))
        rng = np.random.Generator(np.random.PCG64([self.seed, 3 << 20, number]))
        run = steps * self.batch // self.lanes
        order = rng.permuted(np.arange(steps * self.batch).reshape(self.lanes, run), axis=1)
        order = order.reshape(self.lanes, steps, -1).transpose(1, 0, 2).reshape(steps, self.batch)
        places = dealt(_groups(np.concatenate(keys))[order], rng, self.lanes)
        if places is not None:
            order = order.reshape(-1)[places]
        return Block(number, first, np.concatenate(shards)[order], np.concatenate(rows)[order])

    def _segments(self, start: int, need: int) -> Iterator[tuple[int, int, int, int]]:
        """(round, shard, first and end among what the pass sees of it) for `need` rows of the stream."""
        cycle, rest = divmod(start, self.cycle)
        round = int(np.searchsorted(self._ends, rest, side="right"))
        rest -= int(self._ends[round] - self._rounds[round])
        while need:
            shards, ends = self._pass(cycle * len(self.totals) + round, round)
            at = int(np.searchsorted(ends, rest, side="right"))
            while need and at < len(shards):
                shard = int(shards[at])
                begin = rest - int(ends[at] - self.totals[round, shard])
                take = min(need, int(ends[at]) - rest)
                yield round, shard, begin, begin + take
                rest, need, at = rest + take, need - take, at + 1
            rest, round = 0, round + 1
            if round == len(self.totals):
                cycle, round = cycle + 1, 0

    @lru_cache(maxsize=3)  # noqa: B019 (an order lives as long as its run)
    def _pass(self, number: int, round: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards of one pass that have rows in it, in seeded order, and where each ends in the pass."""
        shards = np.flatnonzero(self.totals[round])
        np.random.Generator(np.random.PCG64([self.seed, 2 << 20, number])).shuffle(shards)
        return shards, np.cumsum(self.totals[round, shards])


class ReplacedOrder:
    """DataComp's sampling: each lane draws shards with replacement and shuffles about 5,000 samples.

    (open_clip's --dataset-resampled, its loader workers being our lanes.) A shard's chance is its weight; its
    rows come in file order, then are shuffled among `depth` × batch / lanes neighbours. A pair may stand
    twice in a batch, and one "epoch" meets only about 63 % of the shards: that is the manner reproduced.
    """

    def __init__(
        self,
        totals: np.ndarray,
        occurrences: Occurrences,
        batch: int,
        samples: int,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        self.totals, self._occurrences = totals[0], occurrences
        self.batch, self.steps, self.seed = batch, samples // batch, seed
        self.lanes = lanes_of(batch, COMPAT_LANES)
        self._width = batch // self.lanes
        self.depth = max(1, round(COMPAT_SHUFFLE / self._width))
        chance = (self.totals > 0).astype(np.float64) if weights is None else weights * (self.totals > 0)
        if not chance.sum() > 0:
            raise SamplingError("no shard with rows has a weight above 0")
        self.chance = chance / chance.sum()
        self.cycle = int(self.totals.sum())
        self.last = -(-self.steps // self.depth) - 1

    def block_of(self, step: int) -> int:
        return step // self.depth

    def border(self, block: int) -> tuple[int, int]:
        """First step of a block and the one after its last."""
        return block * self.depth, min((block + 1) * self.depth, self.steps)

    def position(self, step: int) -> dict[str, int]:
        """The step and its block; there are no epochs."""
        return {"step": step, "block": self.block_of(step)}

    @cached_property
    def _drawn(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per lane: the shards it draws for the whole run, and where each ends in the lane's stream."""
        need = -(-self.steps // self.depth) * self.depth * self._width
        out = []
        for lane in range(self.lanes):
            rng = np.random.Generator(np.random.PCG64([self.seed, 4 << 20, lane]))
            drawn = np.empty(0, np.int64)
            while self.totals[drawn].sum() < need:
                drawn = np.concatenate([drawn, rng.choice(len(self.chance), 256, p=self.chance)])
            out.append((drawn, np.cumsum(self.totals[drawn])))
        return out

    def block(self, number: int) -> Block:
        """Every place of a block: a function of (data, seed, number)."""
        first, stop = self.border(number)
        run = self.depth * self._width
        shards = np.empty((self.lanes, run), np.int32)
        rows = np.empty((self.lanes, run), np.int32)
        for lane, (drawn, ends) in enumerate(self._drawn):
            at = np.arange(number * run, (number + 1) * run)
            np.random.Generator(np.random.PCG64([self.seed, 3 << 20, lane, number])).shuffle(at)
            draw = np.searchsorted(ends, at, side="right")
            shards[lane] = drawn[draw]
            within = at - (ends[draw] - self.totals[drawn[draw]])
            for shard in np.unique(shards[lane]):
                mine = shards[lane] == shard
                rows[lane, mine] = self._occurrences(int(shard), 0)[0][within[mine]]
        shape = (self.lanes, self.depth, self._width)
        grids = [a.reshape(shape).transpose(1, 0, 2).reshape(self.depth, self.batch) for a in (shards, rows)]
        return Block(number, first, grids[0][: stop - first], grids[1][: stop - first])


class SmallOrder:
    """A set of few pairs: any order at all of single rows (`ExactEpochs`, `ExactCounts`), no lanes needed."""

    def __init__(self, order: ExactEpochs | ExactCounts, shard: np.ndarray, row: np.ndarray, samples: int):
        self._order, self._shard, self._row = order, shard, row
        self.batch, self.steps = order.batch, samples // order.batch
        self.lanes = None
        counts = order.repeats if isinstance(order, ExactEpochs) else order.counts
        self.cycle = int(counts.sum())
        self.depth = max(1, min(64, BLOCK_ROWS // order.batch))
        self.last = -(-self.steps // self.depth) - 1
        self._next: tuple[int, Iterator[np.ndarray]] = (-1, iter(()))

    def block_of(self, step: int) -> int:
        return step // self.depth

    def border(self, block: int) -> tuple[int, int]:
        """First step of a block and the one after its last."""
        return block * self.depth, min((block + 1) * self.depth, self.steps)

    def position(self, step: int) -> dict[str, int]:
        """Where the first row of a step lies."""
        epoch, row = divmod(step * self.batch, self.cycle)
        return {"step": step, "epoch": epoch, "row": row}

    def block(self, number: int) -> Block:
        """Every place of a block: a function of (data, seed, number)."""
        first, stop = self.border(number)
        at, batches = self._next
        if at != first:
            batches = self._order.batches(self.steps, first)
        rows = np.stack([next(batches) for _ in range(first, stop)])
        self._next = (stop, batches)
        return Block(number, first, self._shard[rows], self._row[rows])


Order = BlockOrder | ReplacedOrder | SmallOrder


def _groups(keys: np.ndarray) -> np.ndarray:
    """A number for each different key of uint64 [n, 2]: int64 [n]."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ranked = keys[order]
    new = np.zeros(len(keys), np.int64)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    out = np.empty(len(keys), np.int64)
    out[order] = np.cumsum(new)
    return out
