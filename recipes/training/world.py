"""Where a run happens: one process or many, on CPUs or on GPUs.

Processes find each other by the environment that ``torchrun`` sets (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT), or by the process group that Ray Train made before. None of this may change the
result: each process takes its rows of the same global batch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from recipes.training.run_folder import TrainingError

T = TypeVar("T")


def device(name: str | None = None) -> torch.device:
    """The device of this process: its own GPU where there is one, else the CPU; or the one named."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError("device cuda was asked for, but torch sees no GPU here")
        place = int(os.environ.get("LOCAL_RANK", 0))
        if place >= torch.cuda.device_count():
            raise TrainingError(
                f"process {place} of this machine has no GPU: there are {torch.cuda.device_count()}; start "
                "as many processes as GPUs"
            )
        return torch.device("cuda", place)
    return torch.device(name)


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """The process that prints and writes."""
        return self.rank == 0

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def rows(self, batch: int, of: str = "contexts") -> tuple[int, int]:
        """First and past-the-last row of a global batch that this process takes. ``of``: what is in it.

        Raises TrainingError when the processes cannot have equally many.
        """
        if batch % self.size:
            fits = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
            raise TrainingError(
                f"{self.size} processes cannot share a batch of {batch} {of} evenly; use one of {fits}"
            )
        share = batch // self.size
        return self.rank * share, (self.rank + 1) * share

    def on_main(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the main process only; its value, or its exception, comes to every process."""
        if self.size == 1:
            return work()
        import torch.distributed as dist

        box: list[Any] = [None, None]
        if self.main:
            try:
                box[0] = work()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank. Anything that can be pickled; for reports, not for maths."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values


@contextmanager
def join(where: torch.device) -> Iterator[World]:
    """The world of this process; leaves the process group again if this made it."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    import torch.distributed as dist

    if where.type == "cuda":
        torch.cuda.set_device(where)
    if dist.is_available() and dist.is_initialized():
        yield World(where, dist.get_rank(), dist.get_world_size())
        return
    if size > 1:
        # Its functions take the group of the moment of import as a default and keep it for ever; DDP imports
        # it. A group that is never freed keeps its threads, and at exit one of them may end the process with
        # "terminate called without an active exception". So: before there is a group.
        from torch.distributed import nn  # noqa: F401

        dist.init_process_group(backend(where))
    try:
        yield World(where, rank, size) if size > 1 else World(where)
    finally:
        if dist.is_available() and dist.is_initialized():  # also the one that sharding made for itself
            dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End a trainer's process with an exit code; call it last, when all is written and closed.

    One of several processes goes without the interpreter's clean-up: torch's caches of shardings hold the
    process group, whose threads would still run while C++ takes down what they use (about one run in ten on a
    busy machine then died, well trained, by SIGABRT).
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def backend(where: torch.device) -> str:
    """What the processes talk by."""
    return "nccl" if where.type == "cuda" else "gloo"


@contextmanager
def cpu_threads(n: int | None, cpu: bool) -> Iterator[None]:
    """Run with ``n`` CPU threads, then restore. With one, results are the same to the last bit.

    Without ``n``: one on a CPU (``cpu``), torch's own choice beside a GPU.
    """
    if n is None and not cpu:
        yield
        return
    n, before = n or 1, torch.get_num_threads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if n == 1 else "true")
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
