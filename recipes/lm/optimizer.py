"""AdamW with decoupled weight decay (arXiv 1711.05101), on plain and on sharded tensors.

torch's own optimiser imports the whole compiler when it is made, which takes longer than a tenth of a
``lm-tiny`` run; the tests hold this one against it. On CUDA the arithmetic is torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class AdamW:
    """State per parameter: running mean of the gradient and of its square. Every parameter decays.

    Sharded parameters (DTensor) have sharded state; each process updates its own part. ``fused`` does all
    parameters in one kernel: for CUDA, where a launch costs more than a small tensor's arithmetic.
    """

    parameters: list[Tensor]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    fused: bool = False
    steps: int = 0
    mean: list[Tensor] = field(init=False)
    square: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.mean = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.square = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._counts: list[Tensor] = []
        self._sharded = any(hasattr(p, "to_local") for p in self.parameters)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter from its gradient, then drop the gradients."""
        if self.fused:
            self._fused_step(lr)
            return
        self.steps += 1
        b1, b2 = self.betas
        rate = lr / (1 - b1**self.steps)
        correction = (1 - b2**self.steps) ** 0.5
        for whole, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            p, grad = whole, whole.grad
            if self._sharded:
                p, grad, mean, square = local(p), local(grad), local(mean), local(square)
            mean.lerp_(grad, 1 - b1)
            square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
            p.mul_(1 - lr * self.weight_decay)
            p.addcdiv_(mean, square.sqrt().div_(correction).add_(self.eps), value=-rate)
            whole.grad = None

    def _fused_step(self, lr: float) -> None:
        from torch.optim.adamw import adamw

        parameters = [local(p) for p in self.parameters]
        if not self._counts:  # a counter each, because the kernel counts up every one
            self._counts = [p.new_full((), float(self.steps), dtype=torch.float32) for p in parameters]
        adamw(
            parameters,
            [local(p.grad) for p in self.parameters],
            [local(t) for t in self.mean],
            [local(t) for t in self.square],
            [],
            self._counts,
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )
        self.steps += 1
        for p in self.parameters:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        named = {f"mean.{i}": t for i, t in enumerate(self.mean)}
        named |= {f"square.{i}": t for i, t in enumerate(self.square)}
        return named | {"steps": torch.tensor(self.steps)}

    def resume(self, steps: int) -> None:
        """Go on after ``steps`` steps; the running means are copied into :meth:`state` by the caller."""
        self.steps, self._counts = steps, []


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; a plain tensor is its own."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Global L2 norm of the gradients (of this process's part of sharded ones), a scalar on their device."""
    gradients = [local(p.grad) for p in parameters]
    if gradients[0].is_cuda:
        return torch.stack(torch._foreach_norm(gradients)).norm()
    return torch.stack([g.norm() for g in gradients]).norm()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], largest: float, norm: float | None = None) -> float:
    """Scale all gradients so that their global L2 norm is at most ``largest``; returns the norm before.

    ``norm``: that norm where it is known already.
    """
    parameters = list(parameters)
    if norm is None:
        norm = gradient_norm(parameters).item()
    if norm > largest:
        gradients = [local(p.grad) for p in parameters]
        factor = largest / (norm + 1e-6)
        if gradients[0].is_cuda:
            torch._foreach_mul_(gradients, factor)
        else:
            for g in gradients:
                g.mul_(factor)
    return norm
