"""Random views of training images: a function of (seed, step, place in the batch) and of nothing else.

So it does not matter which process or worker makes a view, or whether the run was resumed before it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ShiftAndCrop(Protocol):
    """The settings that small in-memory squares are augmented with (`recipes.clip.settings`)."""

    shift: int
    crop: float


def augment(
    pixels: np.ndarray,
    settings: ShiftAndCrop,
    seed: int,
    step: int,
    share: tuple[int, int] | None = None,
    batch: int | None = None,
) -> np.ndarray:
    """Random roll and crop of squares, uint8 [n, s, s, 3] → same shape.

    The roll is one for the whole batch, the crop one per image. share: which places of a batch of `batch`
    images these are; without it they are the whole batch.
    """
    if settings.shift == 0 and settings.crop == 1:
        return np.ascontiguousarray(pixels)
    start, stop = share or (0, len(pixels))
    rng = np.random.Generator(np.random.PCG64([seed, 1 << 20, step]))
    if settings.shift:
        down, right = rng.integers(-settings.shift, settings.shift + 1, 2)
        pixels = np.roll(pixels, (down, right), axis=(1, 2))
    if settings.crop < 1:
        draws = rng.random((batch or len(pixels), 3))[start:stop]
        pixels = _square_crops(pixels, settings.crop, draws)
    return np.ascontiguousarray(pixels)


def _square_crops(pixels: np.ndarray, smallest: float, draws: np.ndarray) -> np.ndarray:
    """Per image a square crop whose side is smallest..1 of the whole, scaled back (bicubic)."""
    from PIL import Image

    size = pixels.shape[1]
    out = np.empty_like(pixels)
    for i, (part, x, y) in enumerate(draws):
        side = size * (smallest + (1 - smallest) * part)
        left, top = x * (size - side), y * (size - side)
        box = (left, top, left + side, top + side)
        out[i] = np.asarray(
            Image.fromarray(pixels[i]).resize((size, size), Image.Resampling.BICUBIC, box=box)
        )
    return out
