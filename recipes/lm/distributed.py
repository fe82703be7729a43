"""A language model in its world: weights whole in each process, or sharded.

None of this may change the result: each process takes its rows of the same global batch, and gradients are
averaged over all of them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recipes.training.run_folder import TrainingError
from recipes.training.world import World, backend, device, join

if TYPE_CHECKING:
    from recipes.lm.model import Decoder

__all__ = ["Objective", "Parallel", "World", "choose", "device", "join", "wrap"]

PARALLEL = ("auto", "none", "ddp", "fsdp")
STATE_BYTES = 16  # a parameter with its gradient and two running means, in fp32


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
        memory = torch.cuda.get_device_properties(world.device).total_memory if world.gpu else None
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
        ids = [world.device.index] if world.gpu else None
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
        dist.init_process_group(backend(world.device), store=dist.HashStore(), rank=0, world_size=1)
