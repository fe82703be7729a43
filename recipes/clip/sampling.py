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
