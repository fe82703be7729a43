"""What a language model's run says while it works: one line a step."""

from __future__ import annotations

from typing import Any

import torch

from recipes.lm.model import Shape
from recipes.lm.plan import PEAKS, flops_a_token
from recipes.training.progress import Pace, duration, rate

__all__ = ["Meter", "duration", "peak_of"]


class Meter(Pace):
    """Speed, share of the device's peak, memory and time left, for the lines of one process's console.

    The peak is the maker's figure for dense bf16; the operations counted are those of
    ``recipes.lm.plan.flops_a_token``: 6 a weight of a matrix product and token, and causal attention.
    """

    def __init__(self, shape: Shape, batch: int, steps: int, device: torch.device, size: int) -> None:
        super().__init__(batch * shape.context, steps, device)
        peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak = peak * size if peak else None
        self._flops = flops_a_token(shape)

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation; none on a device whose peak is not known."""
        return self.a_second * self._flops / self._peak if self._peak else None

    def line(self, record: dict[str, Any]) -> str:
        mfu = self.mfu
        return (
            f"step {record['step']:>{len(str(self.steps))}}/{self.steps}  loss {record['loss']:.3f}  "
            f"lr {record['lr']:.2e}  {rate(self.a_second)} tokens/s  "
            f"MFU {'–' if mfu is None else f'{100 * mfu:.1f} %'}  memory {self.memory / 1e9:.2f} GB  "
            f"ETA {self.left(record['step'])}"
        )


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name that its driver gives; none for one that is not known."""
    plain = name.upper().replace(" ", "").replace("-", "")
    return next((peak for key, peak in PEAKS.items() if key.upper() in plain), None)
