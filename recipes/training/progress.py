"""What a trainer says while it works: speed, memory and time left, for one line a step."""

from __future__ import annotations

import math
import time
from collections import deque

import torch

from recipes.planning import PEAKS

WINDOW = 50  # steps that the speed is averaged over


class Pace:
    """Speed, share of the device's peak, memory and time left of a run, seen from the process that prints.

    The peak is the maker's figure for dense bf16.
    """

    def __init__(
        self, a_step: int, steps: int, device: torch.device, size: int = 1, flops: float = 0.0
    ) -> None:
        """``a_step``: how many of what is counted (tokens, samples) a step takes, of ``flops`` operations
        each, on ``size`` devices."""
        self.a_step, self.steps, self.device = a_step, steps, device
        peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak = peak * size if peak else None
        self._flops = flops
        self._ends = deque([time.perf_counter()], maxlen=WINDOW + 1)

    def tick(self) -> float:
        """A step has ended; its seconds."""
        now = time.perf_counter()
        self._ends.append(now)
        return now - self._ends[-2]

    @property
    def a_second(self) -> float:
        return self.a_step * (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation; none on a device whose peak is not known."""
        return self.a_second * self._flops / self._peak if self._peak else None

    @property
    def mfu_in_words(self) -> str:
        return "–" if self.mfu is None else f"{100 * self.mfu:.1f} %"

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

    def left(self, step: int) -> str:
        """The time left after so many steps."""
        return duration((self.steps - step) * self.a_step / self.a_second)


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


def rate(n: float) -> str:
    """15.2k, 1.25M: at a glance, of numbers a second."""
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}k"
