"""Where a run happens: one process or many, CPU or GPU, weights whole in each process or sharded.

Processes find each other by the environment that ``torchrun`` sets (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT), or by the process group that Ray Train made before. None of this may change the
result: each process takes its rows of the same global batch, and gradients are averaged over all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from recipes.lm.run_folder import TrainingError

if TYPE_CHECKING:
    from recipes.lm.model import Decoder

PARALLEL = ("auto", "none", "ddp", "fsdp")
STATE_BYTES = 16  # a parameter with its gradient and two running means, in fp32
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

    def rows(self, batch: int) -> tuple[int, int]:
        """First and past-the-last row of a global batch that this process takes.

        Raises TrainingError when the processes cannot have equally many.
        """
        if batch % self.size:
            fits = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
            raise TrainingError(
                f"{self.size} processes cannot share a batch of {batch} contexts evenly; use one of {fits}"
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
        dist.init_process_group(_backend(where))
    try:
        yield World(where, rank, size) if size > 1 else World(where)
    finally:
        if dist.is_available() and dist.is_initialized():  # also the one that sharding made for itself
            dist.destroy_process_group()


def _backend(where: torch.device) -> str:
    return "nccl" if where.type == "cuda" else "gloo"


class Objective(nn.Module):
    """The training loss as a module's forward, which is where DDP and FSDP come in."""

    def __init__(self, model: Decoder, z_loss: float) -> None:
        super().__init__()
        self.model, self.z_loss = model, z_loss

    def forward(self, contexts: Tensor) -> tuple[Tensor, Tensor]:  # (B, T+1) -> objective, cross-entropy
        return self.model.loss(contexts, self.z_loss)


@dataclass(frozen=True)
class Parallel:
    """A model made ready for its world."""

    kind: str
    """``none``, ``ddp`` (whole weights in each process) or ``fsdp`` (sharded)."""
    model: Decoder
    module: nn.Module
    """Contexts in, (objective, cross-entropy) out."""

    @property
    def sharded(self) -> bool:
        return self.kind == "fsdp"

    def keep_local(self) -> AbstractContextManager[Any]:
        """Within it, gradients of replicas are added up and not yet exchanged: micro-batches but the last.

        Sharded gradients are exchanged each time, because whole ones would not fit.
        """
        return self.module.no_sync() if self.kind == "ddp" else nullcontext()


def choose(parallel: str, precision: str, parameters: int, world: World) -> str:
    """Which way of sharing the work ``auto`` stands for; TrainingError for one that cannot be."""
    if parallel not in PARALLEL:
        raise TrainingError(f"parallel is {parallel!r}; use one of {', '.join(PARALLEL)}")
    if parallel == "auto":
        if precision == "bf16_pure":
            return "fsdp"
        if world.size == 1:
            return "none"
        memory = torch.cuda.get_device_properties(world.device).total_memory if _cuda(world) else None
        return "fsdp" if memory and STATE_BYTES * parameters > memory / 4 else "ddp"
    if precision == "bf16_pure" and parallel != "fsdp":
        raise TrainingError(f"precision bf16_pure is done by fsdp, not by {parallel}; use auto or fsdp")
    if parallel == "none" and world.size > 1:
        raise TrainingError(f"parallel none with {world.size} processes would train {world.size} models")
    return parallel


def wrap(model: Decoder, z_loss: float, precision: str, kind: str, world: World) -> Parallel:
    """Replicate or shard a model whose weights are the same in every process."""
    objective = Objective(model, z_loss)
    if kind == "ddp":
        import inspect

        from torch.nn.parallel import DistributedDataParallel

        # The only buffers are rotary tables, the same in every process; newer torch renamed the option.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        unsent = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        ids = [world.device.index] if _cuda(world) else None
        return Parallel(
            kind,
            model,
            DistributedDataParallel(objective, device_ids=ids, **{unsent: False}),
        )
    if kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        _alone(world)
        pure = torch.bfloat16 if precision == "bf16_pure" else None
        policy = MixedPrecisionPolicy(param_dtype=pure, reduce_dtype=pure)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
    return Parallel(kind, model, objective)


def _alone(world: World) -> None:
    """Sharding wants a process group, also of one process."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group(_backend(world.device), store=dist.HashStore(), rank=0, world_size=1)


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all processes must ask); a plain one is its own."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole value into a tensor; into this process's part, where it is sharded."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(tensor.device)
        value = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(value)


def _cuda(world: World) -> bool:
    return world.device.type == "cuda"
