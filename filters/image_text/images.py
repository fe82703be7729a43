"""Size and format of an encoded image, from its header: no pixel is decoded unless asked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

import curation as c

PICTURE = pa.struct(
    [("width", pa.int32()), ("height", pa.int32()), ("aspect", pa.float32()), ("format", pa.string())]
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# JPEG markers that start a frame and so carry the size; C4, C8 and CC share the range but are tables.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageError(ValueError):
    """The bytes are not an image that can be read; the message says what was found."""


class Header(NamedTuple):
    """What the header of an image file says: format name, width and height in pixels."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Format and size of an encoded PNG, JPEG, WebP, GIF or BMP; other formats are left to Pillow.

    A file that ends before its own structure says it should is refused (a download that was cut short):
    PNG without IEND, JPEG without end marker, WebP shorter than its RIFF size. Raises ImageError.
    """
    if len(data) == 0:
        raise ImageError("the image has 0 bytes")
    try:
        if data[:8] == PNG_SIGNATURE:
            header = _png(data)
        elif data[:2] == b"\xff\xd8":
            header = _jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _webp(data)
        elif data[:6] in (b"GIF87a", b"GIF89a"):
            header = Header("gif", *struct.unpack_from("<HH", data, 6))
        elif data[:2] == b"BM" and len(data) >= 26:
            width, height = struct.unpack_from("<ii", data, 18)
            header = Header("bmp", width, abs(height))
        else:
            header = _by_pillow(data)
    except (struct.error, IndexError):
        raise ImageError(f"the image is cut short inside its header ({len(data)} bytes)") from None
    if header.width <= 0 or header.height <= 0:
        raise ImageError(f"{header.format} image of {header.width}×{header.height} pixels")
    return header


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise ImageError("png without IHDR chunk")
    if b"IEND" not in data[-64:]:
        raise ImageError(f"png is cut short: no IEND in its last bytes ({len(data)} bytes)")
    return Header("png", *struct.unpack_from(">II", data, 16))


def _jpeg(data: bytes) -> Header:
    at = 2
    while True:
        while data[at] != 0xFF:  # padding between segments
            at += 1
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            if b"\xff\xd9" not in data[-1024:]:
                raise ImageError(f"jpeg is cut short: no end marker ({len(data)} bytes)")
            return Header("jpeg", width, height)
        if marker == 0xD9 or marker == 0xDA:
            raise ImageError("jpeg without a frame header")
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        at += struct.unpack_from(">H", data, at)[0]


def _webp(data: bytes) -> Header:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if len(data) < riff_size + 8:
        raise ImageError(f"webp is cut short: {len(data)} bytes of {riff_size + 8}")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1)
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return Header("webp", width, height)
    raise ImageError(f"webp with unknown chunk {kind!r}")


def _by_pillow(data: bytes) -> Header:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return Header((image.format or "unknown").lower(), *image.size)
    except Exception as error:
        raise ImageError(f"not an image: first bytes {data[:8]!r}, {len(data)} bytes") from error


@dataclass(frozen=True)
class ImageBasics(c.Model):
    """Size and format of the encoded image, as one struct column `picture`.

    width, height: pixels; aspect: longer side / shorter side (≥ 1); format: png, jpeg, webp, gif, bmp, ….
    decode: also decode every pixel, which finds damage behind a healthy header (about 5,000 small images a
    second and core). An unreadable image raises ImageError, so that the engine quarantines that row.
    """

    decode: bool = False
    max_pixels: int = 178_956_970  # Pillow's own limit against decompression bombs

    inputs = ("image",)
    outputs = {"picture": PICTURE}

    def setup(self) -> None:
        pass

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        images = batch.column("image").to_pylist()
        headers = []
        for row, data in enumerate(images):
            try:
                if data is None:
                    raise ImageError("the image is null")
                header = read_header(data)
                if header.width * header.height > self.max_pixels:
                    raise ImageError(
                        f"{header.width}×{header.height} pixels exceed max_pixels={self.max_pixels}"
                    )
                if self.decode:
                    _decode_all(data)
            except ImageError as error:
                raise ImageError(f"row {row} of the batch: {error}") from None
            headers.append(header)
        width = pa.array([h.width for h in headers], pa.int32())
        height = pa.array([h.height for h in headers], pa.int32())
        aspect = pa.array([max(h.width, h.height) / min(h.width, h.height) for h in headers], pa.float32())
        kind = pa.array([h.format for h in headers], pa.string())
        return pa.StructArray.from_arrays([width, height, aspect, kind], fields=list(PICTURE))


def _decode_all(data: bytes) -> None:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:
        raise ImageError(f"the image does not decode: {error}") from error


image_basics = ImageBasics
