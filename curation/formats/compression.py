"""Decompression that gives every byte before a fault, then says where the fault is.

The libraries' file objects either hide a cut (zstandard's reader just ends) or lose what was decoded before
it. Here the frames are walked by hand, output is bounded per call, and a fault is an exception after the
last good byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any

_READ = 1 << 18  # bytes read from storage a call
_OUT = 1 << 20  # most bytes given a piece
# A zstd block of 4 bytes can stand for 128 KiB, so what is fed a call bounds what comes out of it.
_ZSTD_FEED = 1 << 13
_ZSTD_WINDOW = 1 << 31  # `zstd --long=31` is in use for large corpora

GZIP_MAGIC = b"\x1f\x8b\x08"


class Damaged(Exception):
    """Compressed data that ends early or does not decode; ``offset`` is a byte offset in the file."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def codec(name: str) -> str | None:
    """``"gz"``, ``"zst"`` or None, by the file name's end."""
    if name.endswith((".gz", ".tgz")):
        return "gz"
    return "zst" if name.endswith((".zst", ".zstd")) else None


def pieces(file: IO[bytes], kind: str | None) -> Iterator[bytes]:
    """The decompressed content of ``file`` in pieces; raises :class:`Damaged` after the last good byte."""
    if kind is None:
        while data := file.read(_OUT):
            yield data
    elif kind == "gz":
        yield from _gzip(file)
    else:
        yield from _zstd(file)


def _gzip(file: IO[bytes]) -> Iterator[bytes]:
    inflate: Any = None
    offset = start = 0  # of the next byte to feed; of the member being read
    while data := file.read(_READ):
        while data:
            if inflate is None:
                if not data.strip(b"\0"):  # zero padding after the last member, as gzip allows
                    offset += len(data)
                    data = b""
                    continue
                inflate, start = zlib.decompressobj(wbits=31), offset
            try:
                out = inflate.decompress(data, _OUT)
            except zlib.error as error:
                raise Damaged(f"corrupt gzip member ({error})", start) from error
            rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            offset += len(data) - len(rest)
            data = rest
            if out:
                yield out
            if inflate.eof:
                inflate = None
    if inflate is not None:
        while out := inflate.decompress(inflate.unconsumed_tail, _OUT):
            yield out
        if not inflate.eof:
            raise Damaged("truncated gzip member", start)


def _zstd(file: IO[bytes]) -> Iterator[bytes]:
    import zstandard

    frame: Any = None
    offset = start = 0
    while block := file.read(_READ):
        for at in range(0, len(block), _ZSTD_FEED):
            data = block[at : at + _ZSTD_FEED]
            while data:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
                    start = offset
                try:
                    out = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise Damaged(f"corrupt zstd frame ({error})", start) from error
                rest = frame.unused_data if frame.eof else b""
                offset += len(data) - len(rest)
                data = rest
                if out:
                    yield out
                if frame.eof:
                    frame = None
    if frame is not None:
        raise Damaged("truncated zstd frame", start)


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(kind: str | None) -> Any:
    """An object with ``compress(bytes)`` and ``flush()``; output depends on the pieces fed, not on time."""
    if kind is None:
        return _Plain()
    if kind == "gz":
        return zlib.compressobj(6, zlib.DEFLATED, 31)  # zlib writes mtime 0
    import zstandard

    return zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
