"""From encoded image bytes to a fixed square of uint8 pixels: the one place that decides how."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

CHOICES = {
    "resize": ("pad", "crop", "squash", "longest"),
    "interpolation": ("bicubic", "bilinear"),
    "rgb": ("white", "drop", "last"),
}
ALWAYS_STORED = ("size", "resize", "mean", "std")


@dataclass(frozen=True)
class Pixels:
    """How an image becomes a square: part of a model's configuration, so that scoring and training agree.

    size: side in pixels. resize: "crop" (shorter side to size, then the centre), "squash", "pad" (longer side
    to size, cut to whole pixels, the rest `fill`) or "longest" (the same in open_clip's arithmetic: sizes
    rounded, padded in the image's own mode). mean, std: per RGB channel, applied to values in 0..1.
    rgb: "white" lays transparent parts on white and then resizes; "drop" leaves alpha out and then resizes
    (what DataComp's loaders do: decode to RGB, then transform); "last" resizes the image in its own mode and
    makes it RGB at the end (open_clip's transform on a Pillow image). They differ for images that are not
    plain RGB or grey. Nothing rotates by EXIF.
    """

    size: int = 224
    resize: str = "crop"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    fill: int = 255
    rgb: str = "white"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(f'"{choice}"' for choice in choices)
                raise ValueError(f'{name} is "{getattr(self, name)}"; use one of {known}')
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size is {self.size!r}; give the side of the square in whole pixels")
        for name in ("mean", "std"):
            values = tuple(float(x) for x in getattr(self, name))
            if len(values) != 3:
                raise ValueError(f"{name} has {len(values)} values; give one each for red, green and blue")
            object.__setattr__(self, name, values)

    @classmethod
    def from_open_clip(cls, settings: Mapping[str, Any]) -> Pixels:
        """The transform that open_clip's preprocess settings describe: size, mean, std, interpolation,
        resize_mode and fill_color; what is missing is open_clip's default."""
        size = settings.get("size", 224)
        if not isinstance(size, int):
            if len(set(size)) > 1:
                raise ValueError(f"preprocess size is {list(size)}; only square images are supported")
            size = int(size[0])
        default = cls()
        mode = settings.get("resize_mode") or "shortest"
        if mode not in ("shortest", "longest", "squash"):
            raise ValueError(f'preprocess resize_mode is "{mode}"; known: shortest, longest, squash')
        means = {name: _three(settings.get(name) or getattr(default, name)) for name in ("mean", "std")}
        interpolation = settings.get("interpolation") or "bicubic"
        return cls(
            size=size,
            resize="crop" if mode == "shortest" else mode,
            # open_clip's "random" is for training only and evaluates as bicubic
            interpolation="bicubic" if interpolation == "random" else interpolation,
            fill=settings.get("fill_color") or 0,
            rgb="last",
            **means,
        )

    def to_dict(self) -> dict[str, Any]:
        """Keyword arguments that make the same Pixels; of the later fields only those that are not default,
        so that a stored model keeps its bytes."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {f.name: f.default for f in fields(self)}
        return {k: v for k, v in values.items() if k in ALWAYS_STORED or v != plain[k]}

    def one(self, data: bytes) -> np.ndarray:
        """Decode one image to uint8 [size, size, 3]. Raises ValueError when the bytes cannot be read."""
        from PIL import Image

        buffer = io.BytesIO(data)
        try:
            with Image.open(buffer) as image:
                if self.rgb == "last":
                    return np.asarray(self._square(image).convert("RGB"))
                rgb = on_white(image) if self.rgb == "white" else image.convert("RGB")
        except Exception as error:
            # Pillow's own words name the buffer by its address, which differs from run to run
            reason = str(error).replace(f" {buffer!r}", "")
            raise ValueError(f"cannot decode an image of {len(data or b'')} bytes: {reason}") from error
        return np.asarray(self._square(rgb))

    def many(
        self, images: Sequence[bytes], each: Callable[[Callable, Iterable], Iterable] = map
    ) -> np.ndarray:
        """Decode a list of images to uint8 [n, size, size, 3]; the error names the row.

        each: a thread pool's `map` decodes in parallel; the pixels are the same.
        """
        out = np.empty((len(images), self.size, self.size, 3), np.uint8)

        def decode(row: int) -> None:
            try:
                out[row] = self.one(images[row])
            except ValueError as error:
                raise UndecodableImage(row, str(error)) from None

        for _ in each(decode, range(len(images))):
            pass
        return out

    def normalise(self, pixels):  # type: ignore[no-untyped-def]
        """uint8 array or tensor [n, size, size, 3] → float32 tensor [n, 3, size, size], normalised.

        With open_clip's ways of making RGB also in the order of its arithmetic: the last bit differs.
        """
        import torch

        tensor = torch.as_tensor(pixels).permute(0, 3, 1, 2).float()
        scale = torch.tensor(self.std, device=tensor.device).view(1, 3, 1, 1)
        shift = torch.tensor(self.mean, device=tensor.device).view(1, 3, 1, 1)
        if self.rgb == "white":
            return tensor.sub_(255.0 * shift).div_(255.0 * scale)
        return tensor.div_(255.0).sub_(shift).div_(scale)

    def _square(self, image):  # type: ignore[no-untyped-def]
        """A Pillow image → one of size x size in the same mode."""
        from PIL import Image, ImageOps

        how = getattr(Image.Resampling, self.interpolation.upper())
        width, height = image.size
        size = self.size
        if self.resize == "squash" or width == height:
            return image.resize((size, size), how)
        if self.resize == "crop":
            # the longer side is cut to whole pixels and the offset rounded, as torchvision's transforms do
            side = min(width, height)
            scaled = image.resize((width * size // side, height * size // side), how)
            left, top = round((scaled.width - size) / 2.0), round((scaled.height - size) / 2.0)
            return scaled.crop((left, top, left + size, top + size))
        side = max(width, height)
        if self.resize == "longest":
            scaled = image.resize(
                (max(1, round(width / (side / size))), max(1, round(height / (side / size)))), how
            )
            x, y, bands = size - scaled.width, size - scaled.height, len(scaled.getbands())
            border = (x // 2, y // 2, (x + 1) // 2, (y + 1) // 2)
            palette = scaled.getpalette() if scaled.mode == "P" else None
            padded = ImageOps.expand(scaled, border, self.fill if bands == 1 else (self.fill,) * bands)
            if palette is not None:
                padded.putpalette(palette)  # expand may have added the fill as a colour
            return padded
        scaled = image.resize((max(1, width * size // side), max(1, height * size // side)), how)
        square = Image.new("RGB", (size, size), (self.fill,) * 3)
        square.paste(scaled, (round((size - scaled.width) / 2.0), round((size - scaled.height) / 2.0)))
        return square


class UndecodableImage(ValueError):
    """Bytes that are no image; `row` is its place in what was given."""

    def __init__(self, row: int, reason: str):
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason

    def __reduce__(self) -> tuple[Any, ...]:  # errors travel between processes
        return UndecodableImage, (self.row, self.reason)


def _three(value: Any) -> tuple[float, float, float]:
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)


def on_white(image):  # type: ignore[no-untyped-def]
    """RGB copy of a Pillow image, transparent parts on white (black would make an edge nobody drew)."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
