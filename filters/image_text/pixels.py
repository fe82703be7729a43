"""From encoded image bytes to a fixed square of uint8 pixels: the one place that decides how."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pixels:
    """How an image becomes a square: part of a model's configuration, so that scoring and training agree.

    size: side in pixels. resize: "pad" (longer side to size, the rest white), "crop" (shorter side to size,
    then the centre: open_clip's evaluation) or "squash". Transparent images are laid on white. mean, std: per
    RGB channel, applied to values in 0..1.
    """

    size: int = 224
    resize: str = "crop"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if self.resize not in ("pad", "crop", "squash"):
            raise ValueError(f'resize is "{self.resize}"; use "pad", "crop" or "squash"')
        object.__setattr__(self, "mean", tuple(float(x) for x in self.mean))
        object.__setattr__(self, "std", tuple(float(x) for x in self.std))

    def one(self, data: bytes) -> np.ndarray:
        """Decode one image to uint8 [size, size, 3]. Raises ValueError when the bytes cannot be read."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data)) as image:
                rgb = _on_white(image)
        except Exception as error:
            raise ValueError(f"cannot decode an image of {len(data or b'')} bytes: {error}") from error
        width, height = rgb.size
        if self.resize == "squash" or width == height:
            return np.asarray(rgb.resize((self.size, self.size), Image.Resampling.BICUBIC))
        side = max(width, height) if self.resize == "pad" else min(width, height)
        # the longer side is cut to whole pixels and the offset rounded, as torchvision's transforms do
        scaled = rgb.resize(
            (max(1, width * self.size // side), max(1, height * self.size // side)), Image.Resampling.BICUBIC
        )
        square = Image.new("RGB", (self.size, self.size), (255, 255, 255))
        square.paste(
            scaled, (round((self.size - scaled.width) / 2.0), round((self.size - scaled.height) / 2.0))
        )
        return np.asarray(square)

    def many(self, images: Sequence[bytes]) -> np.ndarray:
        """Decode a list of images to uint8 [n, size, size, 3]; the error names the row."""
        out = np.empty((len(images), self.size, self.size, 3), np.uint8)
        for row, data in enumerate(images):
            try:
                out[row] = self.one(data)
            except ValueError as error:
                raise ValueError(f"row {row}: {error}") from None
        return out

    def normalise(self, pixels):  # type: ignore[no-untyped-def]
        """uint8 array or tensor [n, size, size, 3] → float32 tensor [n, 3, size, size], normalised."""
        import torch

        tensor = torch.as_tensor(pixels).permute(0, 3, 1, 2).float()
        scale = 255.0 * torch.tensor(self.std, device=tensor.device).view(1, 3, 1, 1)
        shift = 255.0 * torch.tensor(self.mean, device=tensor.device).view(1, 3, 1, 1)
        return tensor.sub_(shift).div_(scale)


def _on_white(image):  # type: ignore[no-untyped-def]
    """RGB copy of a Pillow image, transparent parts on white (black would make an edge nobody drew)."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
