"""What a language model's run says while it works: one line a step."""

from __future__ import annotations

from typing import Any

import torch

from recipes.lm.model import Shape
from recipes.lm.plan import flops_a_token
from recipes.training.progress import Pace, duration, peak_of, rate

__all__ = ["Meter", "duration", "peak_of"]


class Meter(Pace):
    """Speed, share of the device's peak, memory and time left, for the lines of one process's console.

    The peak is the maker's figure for dense bf16; the operations counted are those of
    ``recipes.lm.plan.flops_a_token``: 6 a weight of a matrix product and token, and causal attention.
    """

    def __init__(self, shape: Shape, batch: int, steps: int, device: torch.device, size: int) -> None:
        super().__init__(batch * shape.context, steps, device, size, flops_a_token(shape))

    def line(self, record: dict[str, Any]) -> str:
        return (
            f"step {record['step']:>{len(str(self.steps))}}/{self.steps}  loss {record['loss']:.3f}  "
            f"lr {record['lr']:.2e}  {rate(self.a_second)} tokens/s  "
            f"MFU {self.mfu_in_words}  memory {self.memory / 1e9:.2f} GB  "
            f"ETA {self.left(record['step'])}"
        )
