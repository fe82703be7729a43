"""Batch normalisation over the batch of all processes, on any device (torch's own works on GPUs only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm(_BatchNorm):
    """Mean and variance of a channel over the rows of all processes, which must have equally many."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # as the layer it stands for had it

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        import torch.distributed as dist

        size = dist.get_world_size()
        axes = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x.float()
        mean = Average.apply(values.mean(axes), size)
        centred = values - mean.view(shape)
        variance = Average.apply(centred.square().mean(axes), size)
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                count = size * values.numel() // values.shape[1]
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / max(1, count - 1)), share)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


class Average(torch.autograd.Function):
    """The mean over all processes; backward, that of their gradients: each has its part in every loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, size: int) -> Tensor:
        return _average(value, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        import torch.distributed as dist

        return _average(gradients[0], dist.get_world_size()), None


def _average(value: Tensor, size: int) -> Tensor:
    import torch.distributed as dist

    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / size


def over_all_processes(module: nn.Module) -> None:
    """Make every batch normalisation of a model one over all processes; weights and names stay."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = GlobalBatchNorm


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())
