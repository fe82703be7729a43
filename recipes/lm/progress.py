"""What a run says while it works: one line a step."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import torch

from recipes.lm.model import Shape
from recipes.lm.plan import PEAKS, flops_a_token

WINDOW = 50  # steps that the speed is averaged over


class Meter:
    """Speed, share of the device's peak, memory and time left, for the lines of one process's console.

    The peak is the maker's figure for dense bf16; the operations counted are those of
    ``recipes.lm.plan.flops_a_token``: 6 a weight of a matrix product and token, and causal attention.
    """

    def __init__(self, shape: Shape, batch: int, steps: int, device: torch.device, size: int) -> None:
        self.tokens_a_step, self.steps, self.device = batch * shape.context, steps, device
        peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak = peak * size if peak else None
        self._flops = flops_a_token(shape)
        self._ends = deque([time.perf_counter()], maxlen=WINDOW + 1)

    def tick(self) -> float:
        """A step has ended; its seconds."""
        now = time.perf_counter()
        self._ends.append(now)
        return now - self._ends[-2]

    @property
    def tokens_a_second(self) -> float:
        return self.tokens_a_step * (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation; none on a device whose peak is not known."""
        return self.tokens_a_second * self._flops / self._peak if self._peak else None

    @property
    def memory(self) -> int:
        """Most bytes in use so far: of the GPU, or of this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ImportError:  # not on Windows
            return 0
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def line(self, record: dict[str, Any]) -> str:
        left = (self.steps - record["step"]) * self.tokens_a_step / self.tokens_a_second
        mfu = self.mfu
        return (
            f"step {record['step']:>{len(str(self.steps))}}/{self.steps}  loss {record['loss']:.3f}  "
            f"lr {record['lr']:.2e}  {_rate(self.tokens_a_second)} tokens/s  "
            f"MFU {'–' if mfu is None else f'{100 * mfu:.1f} %'}  memory {self.memory / 1e9:.2f} GB  "
            f"ETA {duration(left)}"
        )


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by the name that its driver gives; none for one that is not known."""
    plain = name.upper().replace(" ", "").replace("-", "")
    return next((peak for key, peak in PEAKS.items() if key.upper() in plain), None)


def duration(seconds: float) -> str:
    """1:05, 2:03:04, 5 d 02:03:04."""
    if not math.isfinite(seconds):
        return "–"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h:02d}:{m:02d}:{s:02d}"
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"


def _rate(n: float) -> str:
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}k"
