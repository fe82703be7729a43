"""What the plans of both trainers share: device peaks, disk of a checkpoint, published figures, wording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

# dense bf16 FLOP/s of one device, from the makers' data sheets
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "L40S": 362e12, "RTX4090": 165e12}
CHECKPOINT_BYTES = 12
"""Disk of a training checkpoint for each parameter: the weight and two running means in fp32."""


def peak(device: str) -> float:
    """FLOP/s of a device by name; ValueError for one that `PEAKS` does not have."""
    if device not in PEAKS:
        raise ValueError(f"no peak known for device {device!r}; known: {', '.join(PEAKS)}")
    return PEAKS[device]


def hours(flops: float, device: str, gpus: int, share: float) -> float:
    """Hours on all devices together, when `share` of their peak is used."""
    return flops / (peak(device) * share * gpus) / 3600


def published(scale: str) -> dict[str, Any]:
    """What others report for a scale (recipes/data/published_scales.yaml); empty where nothing is known."""
    import yaml

    values = yaml.safe_load((DATA / "published_scales.yaml").read_text(encoding="utf-8"))
    return values.get(scale, {})


def unofficial(official: bool) -> str:
    return "" if official else "  UNOFFICIAL: not one of Winnow's own scales, or changed"


def duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 1 else "a minute"


def size(count: float) -> str:
    """Bytes in words, three digits: 450 GB, 35.2 kB."""
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}"
    return f"{count / 1e3:,.3g} kB"
