"""Which pair is seen when: exact epochs, a fixed number of steps, no pair twice in one batch.

The order depends on the rows, the batch size and the seed, and on nothing else: not on loader workers, number
of GPUs or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TRIES = 64


class SamplingError(ValueError):
    """A budget that cannot be met exactly; the message says which numbers clash and the mend."""


def steps_of(samples: int, batch: int) -> int:
    """samples / batch, refused unless it divides: rounding would change the budget silently."""
    if batch < 1 or samples < batch:
        raise SamplingError(f"samples={samples} and batch={batch}: need samples >= batch >= 1")
    if samples % batch:
        raise SamplingError(
            f"samples={samples} is not a multiple of batch={batch}; the nearest exact budgets are "
            f"{samples // batch * batch} and {(samples // batch + 1) * batch}"
        )
    return samples // batch


@dataclass(frozen=True)
class ExactEpochs:
    """Batches of row numbers. Each epoch is a seeded permutation in which row i stands repeats[i] times.

    Epochs follow each other without a gap, so a batch may hold the end of one and the start of the next; when
    the budget ends inside an epoch, the rest of that epoch is not seen. A row that would stand twice in one
    batch changes places with another row of its epoch, so every count stays exact.
    repeats: int64 [rows], each ≥ 1.
    """

    repeats: np.ndarray
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.repeats) < self.batch:
            raise SamplingError(
                f"{len(self.repeats)} distinct pairs cannot fill a batch of {self.batch} without repeating "
                "one; keep more pairs"
            )
        if self.repeats.min() < 1:
            raise SamplingError("every row needs a multiplicity of at least 1")
        total, most = int(self.repeats.sum()), int(self.repeats.max())
        if most > 1 and most > total // self.batch:
            row = int(self.repeats.argmax())
            raise SamplingError(
                f"row {row} repeats {most} times in an epoch of {total // self.batch} batches, so some batch "
                "would hold it twice; lower its multiplicity"
            )

    @property
    def rows_per_epoch(self) -> int:
        return int(self.repeats.sum())

    def batches(self, steps: int, start: int = 0) -> Iterator[np.ndarray]:
        """Row numbers int64 [batch] of steps start … steps - 1."""
        step, epoch = 0, 0
        carried = np.empty(0, np.int64)
        while step < steps:
            order = np.concatenate([carried, self._epoch(epoch, carried)])
            epoch += 1
            whole = len(order) // self.batch * self.batch
            for at in range(0, whole, self.batch):
                if step >= steps:
                    return
                if step >= start:
                    yield order[at : at + self.batch]
                step += 1
            carried = order[whole:]

    def _epoch(self, epoch: int, carried: np.ndarray) -> np.ndarray:
        """One permutation, mended so that no window holds a row twice; `carried` fills the first window."""
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = np.repeat(np.arange(len(self.repeats)), self.repeats)
        rng.shuffle(order)
        if self.repeats.max() == 1 and len(carried) == 0:
            return order
        stream = np.concatenate([carried, order])
        fixed = len(carried)
        # without repeats only the window that holds both epochs can clash
        last = len(stream) if self.repeats.max() > 1 else min(self.batch, len(stream))
        for at in range(0, last, self.batch):
            window = slice(at, min(at + self.batch, len(stream)))
            for position in _repeats_in(stream[window], max(0, fixed - at)):
                self._swap(stream, at + position, fixed, rng)
        return stream[fixed:]

    def _swap(self, stream: np.ndarray, position: int, fixed: int, rng: np.random.Generator) -> None:
        def window(p: int) -> slice:
            start = p // self.batch * self.batch
            return slice(start, start + self.batch)

        mine = stream[window(position)]
        free = len(stream) - fixed
        tries = fixed + rng.integers(0, free, TRIES)
        for other in [*tries.tolist(), *range(fixed, len(stream))]:
            if other // self.batch == position // self.batch or stream[other] in mine:
                continue
            if stream[position] in stream[window(other)]:
                continue
            stream[position], stream[other] = stream[other], stream[position]
            return
        raise SamplingError(
            f"row {int(stream[position])} repeats too often to keep it from standing twice in a batch of "
            f"{self.batch}; lower its multiplicity"
        )


def _repeats_in(window: np.ndarray, fixed: int) -> list[int]:
    """Positions ≥ fixed whose row stands earlier in the window already."""
    _, first = np.unique(window, return_index=True)
    extra = np.setdiff1d(np.arange(len(window)), first)
    return [int(p) for p in extra if p >= fixed]


def exact_counts(weights: np.ndarray, samples: int, seed: int, steps: int | None = None) -> np.ndarray:
    """How often each row is seen so that weights hold exactly: int64, sum = samples.

    A row of weight w is expected samples · w / Σw times and gets the floor or the ceil of that; over seeds
    the mean is the expectation (systematic sampling, Madow 1949). weights: float64 ≥ 0. steps: refuse a row
    that would be seen more often than there are batches, for it may stand in a batch only once.
    """
    weights = np.asarray(weights, np.float64)
    borders = expected_borders(weights, samples)
    counts = counts_between(borders, seed)
    if steps is not None and counts.max() > steps:
        row = int(counts.argmax())
        share = weights[row] / weights.sum()
        most = steps / (share * samples)
        raise SamplingError(
            f"row {row} has {share:.3g} of the weight: it would be seen {int(counts[row])} times, but there "
            f"are {steps} batches and a pair stands in a batch only once; lower its weight to {most:.3g} of "
            "what it is, or keep more pairs"
        )
    return counts


def expected_borders(weights: np.ndarray, samples: int) -> np.ndarray:
    """Cumulative expected counts, float64 [n + 1], from 0 to samples. Raises SamplingError without weight."""
    borders = np.zeros(len(weights) + 1)
    np.cumsum(weights, out=borders[1:])
    if not borders[-1] > 0 or not np.isfinite(borders[-1]):
        raise SamplingError(f"the weights sum to {borders[-1]}; at least one must be above 0, all finite")
    borders *= samples / borders[-1]
    borders[-1] = samples
    return borders


def counts_between(borders: np.ndarray, seed: int) -> np.ndarray:
    """Whole counts between cumulative expectations; the one draw decides where fractions round up."""
    # away from 0 and 1, so that rounding errors of the sum cannot move an expectation that is whole
    start = np.random.Generator(np.random.PCG64([seed, 5 << 20])).uniform(1e-6, 1 - 1e-6)
    return np.diff(np.floor(borders + start)).astype(np.int64)


@dataclass(frozen=True)
class ExactCounts:
    """Batches in which row i stands counts[i] times over all steps, evenly spread, never twice in a batch.

    counts: int64 [rows], sum = steps × batch. Refused where a row is to be seen more often than there are
    steps; everything else can be dealt.
    """

    counts: np.ndarray
    batch: int
    seed: int

    def __post_init__(self) -> None:
        total, most = int(self.counts.sum()), int(self.counts.max())
        if total % self.batch:
            raise SamplingError(f"{total} samples are no whole number of batches of {self.batch}")
        if most > total // self.batch:
            raise SamplingError(
                f"row {int(self.counts.argmax())} is to be seen {most} times in {total // self.batch} batches"
                "; a pair stands in one only once: lower its weight, or keep more pairs"
            )

    def batches(self, steps: int, start: int = 0) -> Iterator[np.ndarray]:
        """Row numbers int64 [batch] of steps start … steps - 1."""
        rng = np.random.Generator(np.random.PCG64([self.seed, 6 << 20]))
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        copy = np.arange(len(rows)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        phase = rng.random(len(self.counts))
        # copy j of a row seen c times comes at (j + phase) / c of the run
        order = rows[np.argsort((copy + phase[rows]) / self.counts[rows], kind="stable")]
        grid = deal(order.reshape(-1, self.batch), rng)
        yield from grid[start:steps]


def deal(grid: np.ndarray, rng: np.random.Generator, lanes: int = 1) -> np.ndarray:
    """`grid` (groups [steps, batch]) with places changed so that no group stands twice in a row.

    Few clashes are mended by swaps with other steps (of the same lane, where it can be); many, or a clash
    that no swap mends, by dealing groups out in turn, which succeeds whenever no group is there more often
    than there are steps. Raises SamplingError where one is.
    """
    order = dealt(grid, rng, lanes)
    return grid if order is None else grid.reshape(-1)[order]


def dealt(grid: np.ndarray, rng: np.random.Generator, lanes: int = 1) -> np.ndarray | None:
    """What `deal` does, as places in the flattened grid: int64 [steps, batch]; None where nothing clashes."""
    steps, batch = grid.shape
    clashes = _clashes(grid)
    if not len(clashes):
        return None
    places = np.arange(grid.size).reshape(grid.shape)
    if len(clashes) <= grid.size // 8:
        found = grid.copy()
        width = batch // lanes
        if all(_swap_in(found, places, s, p, width, rng) for s, p in clashes.tolist()):
            return places
    groups, which = np.unique(grid, return_inverse=True)
    which = which.reshape(-1)
    most = int(np.bincount(which).max())
    if most > steps:
        raise SamplingError(
            f"one pair stands {most} times among {steps} batches of {batch} that follow each other, and may "
            "stand in a batch only once; lower its multiplicity or weight, or keep more pairs"
        )
    # copies of a group are neighbours in this order, so that turns put them into different steps
    rank = rng.permutation(len(groups))[which]
    turn = np.argsort(rank, kind="stable").reshape(batch, steps).T
    turn = turn[rng.permutation(steps)]
    return rng.permuted(turn, axis=1)


def _clashes(grid: np.ndarray) -> np.ndarray:
    """[step, place] of every group that stands earlier in its step: int64 [n, 2]."""
    order = np.argsort(grid, axis=1, kind="stable")
    ranked = np.take_along_axis(grid, order, axis=1)
    step, at = np.nonzero(ranked[:, 1:] == ranked[:, :-1])
    return np.stack([step, order[step, at + 1]], axis=1)


def _swap_in(
    grid: np.ndarray, places: np.ndarray, step: int, place: int, width: int, rng: np.random.Generator
) -> bool:
    """Change one clashing place with one of another step, its own lane first. Whether that could be done."""
    steps, batch = grid.shape
    lane = place // width * width
    near = rng.permutation(steps * width)
    tries = [(int(k) // width, lane + int(k) % width) for k in near[:TRIES]]
    far = rng.integers(0, steps * batch, TRIES)
    tries += [(int(k) // batch, int(k) % batch) for k in far]
    mine = grid[step, place]
    for other, at in tries:
        if other == step or (grid[other] == mine).any() or (grid[step] == grid[other, at]).any():
            continue
        for array in (grid, places):
            array[step, place], array[other, at] = array[other, at], array[step, place]
        return True
    return False
