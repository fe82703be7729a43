"""Pictures: SVG to pixels, shrink, encode, and the thumbnail distance that finds near copies.

resvg draws the vectors: unlike cairo's SVG reader it handles masks and filters, which some flag and emoji
sets need (drawn without them they come out as a sliver, and nothing raises).
"""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

STORED_SIZE = 48  # longest side in pixels of what is committed
THUMBNAIL = 12  # side of the thumbnail that near copies are found by
NEAR = 6.0  # root mean square difference (0..255) under which two thumbnails count as one picture


class CannotDraw(ValueError):
    """The source file gives no usable picture (broken, blank, or only text)."""


def draw_svg(svg: str, longest: int) -> Image.Image:
    """RGBA picture of an SVG, its longer side `longest` pixels."""
    import resvg_py

    # only one side is given, so the aspect stays; 90 dpi is what the clip-art's editors of 2004 meant by "pt"
    png = resvg_py.svg_to_bytes(svg_string=svg, width=longest, skip_system_fonts=True, dpi=90)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if image.height > image.width * 6 or image.height < 1:
        raise CannotDraw(f"aspect {image.width}x{image.height}")
    return image


def flatten(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Lay a picture with alpha on a plain background."""
    if image.mode == "RGB":
        return image
    base = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(base, image.convert("RGBA")).convert("RGB")


def shrink(image: Image.Image, longest: int) -> Image.Image:
    """Reduce so that the longer side is `longest`; never enlarges."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def trim(image: Image.Image) -> Image.Image:
    """Cut away an empty page around a drawing, leaving a margin of 4 %."""
    ink = np.abs(np.asarray(image, np.int16) - 255).max(axis=2) > 12
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        raise CannotDraw("blank")
    margin = round(0.04 * max(image.size))
    box = (max(0, columns[0] - margin), max(0, rows[0] - margin),
           min(image.width, columns[-1] + 1 + margin), min(image.height, rows[-1] + 1 + margin))  # fmt: skip
    if min(box[2] - box[0], box[3] - box[1]) < 12 or max(box[2] - box[0], box[3] - box[1]) < 48:
        raise CannotDraw("nearly blank")
    return image.crop(box)


def check_not_blank(image: Image.Image) -> None:
    if np.asarray(image, np.float32).std(axis=(0, 1)).max() < 4:
        raise CannotDraw("blank")


def encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def near_copy(image: Image.Image, rng: random.Random) -> Image.Image:
    """What a second site does to a picture: moves it by a pixel or two and saves it as a poor JPEG."""
    dx, dy = rng.choice((-2, -1, 1, 2)), rng.choice((-2, -1, 0, 1, 2))
    edge = image.getpixel((0, 0))
    moved = Image.new("RGB", image.size, edge)
    moved.paste(image, (dx, dy))
    buffer = io.BytesIO()
    moved.save(buffer, "JPEG", quality=rng.choice((35, 45, 60)))
    return decode(buffer.getvalue())


def banner(image: Image.Image, rng: random.Random) -> Image.Image:
    """An extreme shape, as page furniture has: a thin band cut from the picture, or wide letterbox bars."""
    width, height = image.size
    if rng.random() < 0.5:
        band = max(4, round(height / rng.uniform(4.5, 8)))
        top = rng.randrange(0, height - band)
        return image.crop((0, top, width, top + band))
    wide = Image.new("RGB", (round(width * rng.uniform(4.5, 7)), height), image.getpixel((0, 0)))
    wide.paste(image, (rng.randrange(0, wide.width - width), 0))
    return wide


def placeholder(which: int) -> Image.Image:
    """The grey squares that sites serve for a missing picture."""
    image = Image.new(
        "RGB", (STORED_SIZE, STORED_SIZE), ((238, 238, 238), (204, 208, 214), (250, 246, 240))[which]
    )
    draw = ImageDraw.Draw(image)
    ink = ((150, 150, 150), (240, 240, 240), (190, 170, 160))[which]
    if which == 0:  # frame with a mountain and a sun
        draw.rectangle((9, 12, 38, 35), outline=ink, width=2)
        draw.polygon(((12, 33), (20, 22), (26, 29), (30, 25), (36, 33)), fill=ink)
        draw.ellipse((28, 15, 33, 20), fill=ink)
    elif which == 1:  # head and shoulders
        draw.ellipse((17, 10, 31, 24), fill=ink)
        draw.pieslice((9, 26, 39, 58), 180, 360, fill=ink)
    else:  # a cross
        draw.line((10, 10, 38, 38), fill=ink, width=3)
        draw.line((38, 10, 10, 38), fill=ink, width=3)
    return image.filter(ImageFilter.SMOOTH)


def thumbnail(image: Image.Image) -> np.ndarray:
    """float32 vector of the 12 x 12 RGB thumbnail; aspect is given up on purpose."""
    small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float32).reshape(-1)


def nearest(queries: np.ndarray, base: np.ndarray, block: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """For each query thumbnail the root mean square distance to the nearest of `base`, and its row."""
    distance = np.full(len(queries), np.inf, np.float32)
    row = np.full(len(queries), -1, np.int64)
    if not len(base):
        return distance, row
    norms = np.einsum("ij,ij->i", base, base, dtype=np.float64)
    for start in range(0, len(queries), block):
        q = queries[start : start + block].astype(np.float64)
        squared = np.einsum("ij,ij->i", q, q)[:, None] + norms[None, :] - 2 * (q @ base.T.astype(np.float64))
        best = squared.argmin(axis=1)
        row[start : start + block] = best
        mean = np.maximum(squared[np.arange(len(q)), best], 0) / queries.shape[1]
        distance[start : start + block] = np.sqrt(mean)
    return distance, row
