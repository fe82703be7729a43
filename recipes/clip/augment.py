"""Random views of training images: a function of (seed, step, place in the batch) and of nothing else.

So it does not matter which process or worker makes a view, or whether the run was resumed before it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from filters.image_text.pixels import Pixels, UndecodableImage, on_white


class ShiftAndCrop(Protocol):
    """How squares are augmented: shift in pixels, crop the smallest side as a share."""

    @property
    def shift(self) -> int: ...

    @property
    def crop(self) -> float: ...


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


RATIO = (3 / 4, 4 / 3)
TRIES = 10
_DRAWS = 4 * TRIES  # a place's own stretch of the random stream, whatever it uses of it


def draws(seed: int, step: int, start: int, stop: int) -> np.ndarray:
    """Uniform draws in [0, 1) of places start … stop - 1 of a step's batch: float64 [stop - start, 40].

    From Philox (Salmon et al. 2011), a counter-based generator: key (seed, step), counter by place.
    """
    counter = np.array([start * _DRAWS // 4, 0, 0, 0], np.uint64)  # one count gives four numbers
    bits = np.random.Philox(key=np.array([seed, step], np.uint64), counter=counter)
    return np.random.Generator(bits).random((stop - start, _DRAWS))


def crop_box(
    width: int, height: int, draw: Sequence[float], area: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random crop: the rule of torchvision's RandomResizedCrop.

    area: smallest and largest share of the image's area; the sides' ratio is log-uniform in 3/4 … 4/3. After
    ten boxes that do not fit, the middle of the image, cut to that ratio if need be. draw: 40 of [0, 1).
    """
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for attempt in range(0, _DRAWS, 4):
        share, slant, down, right = draw[attempt : attempt + 4]
        target = width * height * (area[0] + (area[1] - area[0]) * share)
        ratio = math.exp(low + (high - low) * slant)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(down * (height - h + 1)), int(right * (width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(image: Image.Image, box: tuple[int, int, int, int], size: int, how: int) -> np.ndarray:
    """A box of an image as a square: uint8 [size, size, 3]. Cut first: a resize with a box would let the
    filter see pixels around it."""
    if box != (0, 0, *image.size):
        image = image.crop(box)
    return np.asarray(image.resize((size, size), how).convert("RGB"))


@dataclass(frozen=True)
class Views:
    """Encoded images → training squares, as the settings say.

    area: of random resized crops, or None: the model's own resize, then `augment` of the squares.
    """

    pixels: Pixels
    seed: int
    batch: int
    area: tuple[float, float] | None = None
    shift: int = 0
    crop: float = 1.0

    def make(self, images: Sequence[bytes], step: int, start: int) -> np.ndarray:
        """Views of places start … of a step's batch: uint8 [n, size, size, 3].

        Raises UndecodableImage with the number of the image that cannot be read.
        """
        if self.area is None:
            share = (start, start + len(images))
            return augment(self.pixels.many(images), self, self.seed, step, share, self.batch)
        size = self.pixels.size
        out = np.empty((len(images), size, size, 3), np.uint8)
        how = getattr(Image.Resampling, self.pixels.interpolation.upper())
        numbers = draws(self.seed, step, start, start + len(images)).tolist()
        for row, (data, draw) in enumerate(zip(images, numbers, strict=True)):
            try:
                with Image.open(io.BytesIO(data)) as image:
                    rgb = self._rgb(image)
                    out[row] = resized_crop(rgb, crop_box(*rgb.size, draw, self.area), size, how)
            except Exception as error:
                reason = f"cannot decode an image of {len(data)} bytes: {error}"
                raise UndecodableImage(row, reason) from None
        return out

    def _rgb(self, image: Image.Image) -> Image.Image:
        plain = image.mode == "RGB" and "transparency" not in image.info
        if plain or self.pixels.rgb == "last":
            return image
        return on_white(image) if self.pixels.rgb == "white" else image.convert("RGB")
