"""What a trainer says while it works: speed, memory and time left, for one line a step."""

from __future__ import annotations

import math
import time
from collections import deque

import torch

WINDOW = 50  # steps that the speed is averaged over


class Pace:
    """Speed, memory and time left of a run, seen from the process that prints."""

    def __init__(self, a_step: int, steps: int, device: torch.device) -> None:
        """``a_step``: how many of what is counted (tokens, samples) a step takes."""
        self.a_step, self.steps, self.device = a_step, steps, device
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
