"""Decoding by worker processes that leave no trace in the result: jobs in, parts of batches out, in order."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from filters.image_text.pixels import UndecodableImage
from recipes.clip.augment import Views
from recipes.clip.reading import Places, Unreadable

JOB_ROWS = 64
AHEAD = 2  # jobs that each worker may be ahead

Tokenizer = Callable[[Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class Job:
    """Rows at places start … of a step's global batch. number: of the job, counted from 0."""

    number: int
    step: int
    start: int
    places: Places


@dataclass(frozen=True)
class Done:
    """What became of a job: pixels uint8 [n, s, s, 3], valid until the next one is asked for, and tokens
    int64 [n, context]; or a fault: (row of the job, reason)."""

    start: int
    pixels: np.ndarray | None
    tokens: np.ndarray | None
    fault: tuple[int, str] | None = None


@dataclass(frozen=True)
class Decoder:
    """Carries out jobs; the same wherever it does."""

    views: Views
    tokenizer: Tokenizer

    def do(self, job: Job) -> Done:
        """Read, decode, crop, tokenise."""
        try:
            images, captions = job.places.read()
            pixels = self.views.make(images, job.step, job.start)
        except Unreadable as error:  # told by the process that knows the row's name
            return Done(job.start, None, None, (error.row, str(error)))
        except UndecodableImage as error:
            return Done(job.start, None, None, (error.row, error.reason))
        return Done(job.start, pixels, self.tokenizer(captions).numpy())


class _Slots(Dataset):
    """The decoder in a worker: pixels go into memory shared from the start (anonymous: neither a container's
    small /dev/shm nor file descriptors in flight), the rest goes home through the queue."""

    def __init__(self, decoder: Decoder, count: int):
        size = decoder.views.pixels.size
        shape = (count, JOB_ROWS, size, size, 3)
        self._decoder = decoder
        self._memory = mmap.mmap(-1, int(np.prod(shape)))
        self._slots = np.frombuffer(self._memory, np.uint8).reshape(shape)

    def __getitem__(self, job: Job) -> tuple[Job, int, Done]:
        done = self._decoder.do(job)
        slot, rows = job.number % len(self._slots), 0
        if done.pixels is not None:
            rows = len(done.pixels)
            self._slots[slot, :rows] = done.pixels
            done = Done(done.start, None, done.tokens, done.fault)
        return job, rows, done

    def take(self, found: tuple[Job, int, Done]) -> Done:
        """The result as the worker left it."""
        job, rows, done = found
        pixels = self._slots[job.number % len(self._slots), :rows]
        return Done(done.start, pixels if rows else None, done.tokens, done.fault)


def carry_out(decoder: Decoder, jobs: Iterator[Job], workers: int) -> Generator[Done, None, None]:
    """Jobs done by `workers` processes (0: here), in the order of the jobs. The processes start at once."""
    if not workers or "fork" not in multiprocessing.get_all_start_methods():
        return (decoder.do(job) for job in jobs)
    # one slot more than there are jobs under way: a job is sent while the result before it is being copied
    slots = _Slots(decoder, workers * AHEAD + 1)
    loader = DataLoader(
        slots,
        batch_size=None,
        sampler=jobs,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else the loader would draw from the trainer's random numbers
    )
    return _results(iter(loader), slots)


def _results(found: Any, slots: _Slots) -> Generator[Done, None, None]:
    try:
        for result in found:
            yield slots.take(result)
    finally:
        # at once and by name: left to the garbage collector, the queues may be gone first, and then each
        # worker is waited for in vain (5 s)
        found._shutdown_workers()


def _as_it_is(value: Any) -> Any:
    return value
