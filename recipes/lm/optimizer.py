"""AdamW with decoupled weight decay (arXiv 1711.05101), on plain tensors.

torch's own optimiser imports the whole compiler when it is made, which takes longer than a tenth of a
``lm-tiny`` run; the tests hold this one against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class AdamW:
    """State per parameter: running mean of the gradient and of its square. Every parameter decays."""

    parameters: list[Tensor]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    steps: int = 0
    mean: list[Tensor] = field(init=False)
    square: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter from its gradient, then drop the gradients."""
        self.steps += 1
        b1, b2 = self.betas
        rate = lr / (1 - b1**self.steps)
        correction = (1 - b2**self.steps) ** 0.5
        for p, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            mean.lerp_(p.grad, 1 - b1)
            square.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            p.mul_(1 - lr * self.weight_decay)
            p.addcdiv_(mean, square.sqrt().div_(correction).add_(self.eps), value=-rate)
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        named = {f"mean.{i}": t for i, t in enumerate(self.mean)}
        named |= {f"square.{i}": t for i, t in enumerate(self.square)}
        return named | {"steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for i in range(len(self.parameters)):
            self.mean[i].copy_(state[f"mean.{i}"])
            self.square[i].copy_(state[f"square.{i}"])


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], largest: float) -> float:
    """Scale all gradients so that their global L2 norm is at most ``largest``; returns the norm before."""
    gradients = [p.grad for p in parameters]
    norm = torch.stack([g.norm() for g in gradients]).norm().item()
    if norm > largest:
        for g in gradients:
            g.mul_(largest / (norm + 1e-6))
    return norm
