"""The ``train`` section of a scale: what a run spends, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.scale import ScaleError

PRECISIONS = ("fp32", "bf16", "bf16_pure")


@dataclass(frozen=True)
class Budget:
    """Everything that decides the maths of a run beside the model's shape.

    How a machine carries it out (processes, micro-batches, compilation, threads) is not in here: it must not
    change the result.
    """

    steps: int
    batch: int
    """Contexts a step, over all workers and micro-batches."""
    lr: float
    warmup_steps: int
    decay: str
    """``linear`` or ``cosine``, from ``lr`` after the warm-up to ``end_lr`` at the last step."""
    end_lr: float
    weight_decay: float
    """On every parameter, norms and embeddings included, as DCLM does."""
    betas: tuple[float, float]
    eps: float
    clip: float
    """Largest global norm of the gradient."""
    z_loss: float
    tokenizer: str
    piece_bytes: int = 0
    """Longer documents are read in pieces of this size; 0 = documents whole (see ``recipes.lm.data``)."""
    precision: str = "fp32"
    """``fp32``; ``bf16``: compute under autocast, weights and their sums in fp32; ``bf16_pure``: weights are
    cast to bf16 for all of the computing and gradients are added up in bf16 (the optimiser stays in fp32)."""
    checkpoints: int = 5
    """How often the state is saved, evenly spread over the steps (the last is the model itself)."""
    seed: int | None = None
    """The seed of a run that is not given one."""

    def __post_init__(self) -> None:
        if self.decay not in ("linear", "cosine"):
            raise ScaleError(f"decay is {self.decay!r}; use linear or cosine")
        if self.precision not in PRECISIONS:
            raise ScaleError(f"precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        if not (self.steps > 0 and self.batch > 0 and 0 <= self.warmup_steps < self.steps):
            raise ScaleError(
                f"a budget needs steps and batch above 0 and fewer warm-up steps than steps, got "
                f"{self.steps} steps, batch {self.batch}, {self.warmup_steps} warm-up steps"
            )
        if self.checkpoints < 1 or self.piece_bytes < 0:
            raise ScaleError(
                f"checkpoints must be 1 or more and piece_bytes 0 or more, got {self.checkpoints} and "
                f"{self.piece_bytes}"
            )

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, …: linear warm-up, then decay."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        left = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.end_lr + (self.lr - self.end_lr) * left
