"""What the trainer reads and in which order: `open_source(...)` gives a `Source`, that gives batches by step.

What is seen at a step is a function of (data, settings, seed, step): never of workers, processes, prefetch or
where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from filters.image_text.pixels import Pixels
from recipes.clip.augment import augment
from recipes.clip.data import Pairs, load_pairs
from recipes.clip.sampling import ExactEpochs, SamplingError

Tokenizer = Callable[[Sequence[str]], torch.Tensor]


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
    weights: Any = None,
    workers: int = 0,
) -> Source:
    """Open training data: a folder, files, a table or Pairs (see `recipes.clip.data.load_pairs`)."""
    return InMemory(load_pairs(data, model_pixels), tokenizer, settings, seed)


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
        self.about = f"{self.rows:,} pairs ({self.distinct_rows:,} distinct) in memory"
        self.sampling = {
            "kind": "epochs",
            "seed": seed,
            "epochs": settings.samples / self.rows,
            "order": "memory",
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


def check_share(share: tuple[int, int], batch: int) -> None:
    """Refuse a share that is no part of a batch."""
    start, stop = share
    if not 0 <= start < stop <= batch:
        raise SamplingError(f"share {share} of a batch of {batch}: need 0 <= start < stop <= batch")
