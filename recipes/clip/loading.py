"""Decoding by worker processes that leave no trace in the result: jobs in, parts of batches out, in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from filters.image_text.pixels import UndecodableImage
from recipes.clip.augment import Views
from recipes.clip.data import DataError
from recipes.clip.reading import Places, Unreadable

JOB_ROWS = 64
AHEAD = 2  # jobs that each worker may be ahead

Tokenizer = Callable[[Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class Job:
    """Rows at places start … of a step's global batch."""

    step: int
    start: int
    places: Places


@dataclass(frozen=True)
class Done:
    """What became of a job: pixels uint8 [n, s, s, 3] and tokens int64 [n, context], or a fault at `row`."""

    job_step: int
    start: int
    pixels: torch.Tensor | None
    tokens: torch.Tensor | None
    fault: tuple[int, str] | None = None


@dataclass(frozen=True)
class Decoder(Dataset):
    """Carries out jobs; the same wherever it does."""

    views: Views
    tokenizer: Tokenizer

    def __getitem__(self, job: Job) -> Done:
        try:
            images, captions = job.places.read()
            pixels = self.views.make(images, job.step, job.start)
        except Unreadable as error:  # told by the process that knows the row's name
            return Done(job.step, job.start, None, None, (error.row, str(error)))
        except UndecodableImage as error:
            return Done(job.step, job.start, None, None, (error.row, error.reason))
        return Done(job.step, job.start, torch.from_numpy(pixels), self.tokenizer(captions))


def carry_out(decoder: Decoder, jobs: Iterable[Job], workers: int) -> Generator[Done, None, None]:
    """Jobs done by `workers` processes (0: here), in the order of the jobs."""
    if not workers:
        for job in jobs:
            yield decoder[job]
        return
    _room_for(workers, decoder.views.pixels.size)
    methods = multiprocessing.get_all_start_methods()
    loader = DataLoader(
        decoder,
        batch_size=None,
        sampler=jobs,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        multiprocessing_context="fork" if "fork" in methods else None,
        generator=torch.Generator(),  # else the loader would draw from the trainer's random numbers
    )
    done = iter(loader)
    try:
        yield from done
    finally:
        # at once and by name: left to the garbage collector, the queues may be gone first, and then each
        # worker is waited for in vain (5 s)
        done._shutdown_workers()  # type: ignore[attr-defined]


def _as_it_is(value: Any) -> Any:
    return value


def _room_for(workers: int, size: int) -> None:
    """Results travel through shared memory, which containers keep small: say so before a bus error does."""
    need = workers * (AHEAD + 1) * JOB_ROWS * size * size * 3
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    if free < need:
        fit = max(0, workers * free // need)
        raise DataError(
            f"{workers} workers need {need >> 20} MiB of shared memory, /dev/shm has {free >> 20} MiB free; "
            f"use at most {fit} workers, or give the container more (docker: --shm-size, or --ipc=host)"
        )
