"""WebDataset tars: image, caption and metadata as neighbouring members of one basename.

The 512-byte headers are walked here and nothing is extracted by path. Suffixes become columns: ``.jpg``,
``.jpeg``, ``.png``, ``.webp``, ``.gif`` → ``image`` (the file's bytes as they are) and ``image_ext``;
``.txt`` → ``text``; ``.json`` → ``id`` (its ``uid``), ``url``, sizes, ``sha256`` and whatever else the schema
names; ``.cls`` → ``cls``. JSON keys without a column are kept as JSON text in ``extra``; other members are
counted as unread.

Tar has no checksum of content, only of headers. A damaged header costs the sample it belongs to: reading
resumes at the next valid header, and what remains of a sample is told by comparison with the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from curation import storage
from curation.formats.common import JSON_FIELD, Bad, FormatError, OnBad, is_json, sample
from curation.formats.compression import Damaged, codec, pieces
from curation.formats.rows import to_batch

if TYPE_CHECKING:
    from curation.shards import Shard

MAX_RECORD_BYTES = 64 << 20
IMAGES = ("jpg", "jpeg", "png", "webp", "gif")
_BLOCK = 512

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("image", pa.binary()),
        ("image_ext", pa.string()),
        ("url", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("original_width", pa.int64()),
        ("original_height", pa.int64()),
        ("sha256", pa.string()),
        ("cls", pa.int64()),
        pa.field("extra", pa.string(), metadata=JSON_FIELD),
    ]
)
# Columns that members other than the JSON fill; a key of the same name in the JSON is not a second source.
_FROM_MEMBERS = {"image", "image_ext", "cls", "extra"}


def schema(shard: Shard) -> pa.Schema:
    """Fixed: the columns of an image-text row (``SCHEMA``)."""
    return SCHEMA


# ---------------------------------------------------------------- reading


def read(
    shard: Shard,
    target: pa.Schema,
    batch_bytes: int,
    bad: OnBad,
    unread: Counter[str],
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Batches of about ``batch_bytes``. Positions are byte offsets of a sample's first header in the tar."""
    rows: list[dict[str, Any]] = []
    offsets: list[int] = []
    held = 0
    with storage.open_read(shard.url) as file:
        for found in samples(file, shard.url, max_record_bytes):
            if found.error is None:
                try:
                    row = _row(found, target, unread)
                except ValueError as error:
                    found.error = str(error)
            if found.error is not None:
                text = f"sample {found.key!r} at byte {found.offset}: {found.error}"
                first = next(iter(found.members.values()), b"")
                bad(Bad(shard.name, found.offset, text, sample=sample(first)))
                continue
            rows.append(row)
            offsets.append(found.offset)
            held += sum(map(len, found.members.values()))
            if held >= batch_bytes:
                yield from _batch(rows, offsets, target, shard.name, bad)
                rows, offsets, held = [], [], 0
    yield from _batch(rows, offsets, target, shard.name, bad)


def samples(file: IO[bytes], name: str = "", max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[Sample]:
    """The samples of a tar in order, whatever their members; one with an ``error`` must not become a row.

    ``name`` tells the compression by its ending. One sample is held in memory at a time.
    """
    return _samples(_Stream(pieces(file, codec(name))), max_record_bytes)


def _batch(
    rows: list[dict[str, Any]], offsets: list[int], target: pa.Schema, name: str, bad: OnBad
) -> Iterator[pa.RecordBatch]:
    if rows:
        at = np.array(offsets, np.int64)
        bare = pa.schema([f.remove_metadata() if f.name == "extra" else f for f in target])
        batch = to_batch(rows, at, bare, name, "byte", bad, Counter())
        if batch.num_rows:
            yield pa.RecordBatch.from_arrays(batch.columns, schema=target)


def _row(found: Sample, target: pa.Schema, unread: Counter[str]) -> dict[str, Any]:
    """One sample's members as a row; raises ValueError for JSON, text or class that do not parse."""
    row: dict[str, Any] = {}
    for suffix, data in found.members.items():
        if suffix in IMAGES and "image" not in row:
            row["image"], row["image_ext"] = data, suffix
        elif suffix == "txt":
            try:
                row["text"] = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f".txt is not UTF-8 ({error})") from error
        elif suffix == "cls":
            try:
                row["cls"] = int(data)
            except ValueError as error:
                raise ValueError(f".cls is no integer ({sample(data)!r})") from error
        elif suffix != "json":
            unread[f".{suffix}"] += 1
    if "json" in found.members:
        try:
            meta = orjson.loads(found.members["json"])
        except ValueError as error:
            raise ValueError(f".json does not parse ({error})") from error
        if not isinstance(meta, dict):
            raise ValueError(".json is not an object")
        _merge(row, meta, target, unread)
    return row


def _merge(row: dict[str, Any], meta: dict[str, Any], target: pa.Schema, unread: Counter[str]) -> None:
    caption = meta.pop("caption", None)
    if "text" not in row:
        row["text"] = caption
    elif caption is not None and caption != row["text"]:
        meta["caption"] = caption
    if meta.get("uid") is not None:
        row["id"] = meta.pop("uid")
    names = set(target.names) - _FROM_MEMBERS - {"text"}
    extra = {}
    for key, value in meta.items():
        if key in names and key not in row:
            row[key] = value
        else:
            extra[key] = value
    for key in (
        "key",
        "status",
        "error_message",
    ):  # the downloader's book-keeping, true of every sample in a tar
        extra.pop(key, None)
    if extra and "extra" in target.names:
        row["extra"] = orjson.dumps(extra).decode()
    else:
        unread.update(extra.keys())


@dataclass
class Sample:
    """Members of one basename (``key``, with its folder), by lower-case suffix; ``offset``: of its first
    header in the tar; ``error`` when it must not become a row."""

    key: str
    offset: int
    members: dict[str, bytes] = field(default_factory=dict)
    error: str | None = None


class _Stream:
    """Exact reads from pieces, with the offset. After the end, ``damage`` tells whether it was a fault."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._buffer = bytearray()
        self.offset = 0
        self.damage: Damaged | None = None

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end."""
        while len(self._buffer) < size:
            piece = self._next()
            if piece is None:
                break
            self._buffer += piece
        out = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.offset += len(out)
        return out

    def unread(self, data: bytes) -> None:
        """Put back what was just read."""
        self._buffer[:0] = data
        self.offset -= len(data)

    def skip(self, size: int) -> bool:
        """Pass over bytes without holding them; whether they were all there."""
        while size:
            if not self._buffer:
                piece = self._next()
                if piece is None:
                    return False
                self._buffer += piece
            n = min(size, len(self._buffer))
            del self._buffer[:n]
            self.offset += n
            size -= n
        return True

    def _next(self) -> bytes | None:
        try:
            return next(self._source, None)
        except Damaged as error:
            self.damage = error
            self._source = iter(())
            return None


def _samples(stream: _Stream, max_record: int) -> Iterator[Sample]:
    """Samples in order; a damaged stretch is a sample with an error."""
    current: Sample | None = None
    usual: set[str] | None = None  # suffixes of the last whole sample: what a cut sample is compared with
    damaged: str | None = None  # after damage: the key it was reported for; the next sample may lack members
    long_name: str | None = None
    while True:
        at = stream.offset
        header = stream.read(_BLOCK)
        if not header and at == 0 and stream.damage is None:
            return  # an empty file holds nothing and lacks nothing
        if len(header) < _BLOCK:
            yield from _cut(current, at, usual, _end(stream, at))
            return
        if not header.strip(b"\0"):
            break  # end of archive
        member = read_header(header)
        if member is None:
            damaged = current.key if current and set(current.members) != usual else "?"
            yield from _cut(current, at, usual, f"damaged tar header at byte {at}")
            current, long_name = None, None
            if not _resync(stream):
                return
            continue
        name, size, kind = member
        padded = -(-size // _BLOCK) * _BLOCK
        if kind in b"Lx":  # a long name comes before its member
            data = stream.read(padded)
            if len(data) < padded:
                yield from _cut(current, at, usual, _end(stream, at))
                return
            long_name = read_long_name(data[:size], kind) or long_name
            continue
        if kind not in b"0\0":
            stream.skip(padded)  # folders, links, global headers hold no data of a sample
            long_name = None
            continue
        name, long_name = long_name or name, None
        folder, _, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
        if current is not None and (current.key != key or suffix in current.members):
            yield from _whole(current, damaged, usual)
            if damaged is None and current.error is None:
                usual = set(current.members)
            current, damaged = None, None
        if current is None:
            current = Sample(key, at)
        if size > max_record:
            text = f"member {name!r} of {size} bytes is over the limit of {max_record} (max_record_bytes)"
            current.error = current.error or text
            whole = stream.skip(padded)
        else:
            data = stream.read(padded)
            whole = len(data) >= size
            current.members[suffix] = data[:size]
        if not whole:
            current.members.pop(suffix, None)
            yield from _cut(current, at, None, _end(stream, at))
            return
    if current is not None:
        yield from _whole(current, damaged, usual)


def _whole(current: Sample, damaged: str | None, usual: set[str] | None) -> Iterator[Sample]:
    """A sample that another follows. The first after damage may be the rest of one already reported."""
    if damaged is not None and set(current.members) != usual:
        if usual is not None or current.key == damaged:
            return
        current.error = "members may be lost in the damage before it"
    yield current


def _end(stream: _Stream, at: int) -> str:
    return f"{stream.damage or 'tar cut short'}: no end of archive after byte {at}"


def _cut(current: Sample | None, at: int, usual: set[str] | None, error: str) -> Iterator[Sample]:
    """A fault at byte ``at``: the sample being read is believed if it looks whole, else the fault is its."""
    if current is not None and current.error is None and usual is not None and set(current.members) == usual:
        yield current
        current = None
    yield Sample(
        current.key if current else "?",
        current.offset if current else at,
        current.members if current else {},
        error,
    )


def read_header(header: bytes) -> tuple[str, int, int] | None:
    """(name, size, type) of a member, or None where the checksum does not hold."""
    try:
        stated = int(header[148:156].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None
    if stated != sum(header) - sum(header[148:156]) + 8 * 32:
        return None
    size_field = header[124:136]
    try:
        if size_field[0] & 0x80:  # base-256, for members of 8 GiB and more
            size = int.from_bytes(size_field[1:], "big")
        else:
            size = int(size_field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None
    name = header[:100].split(b"\0", 1)[0]
    if header[257:262] == b"ustar" and header[345] and header[257:265] != b"ustar  \0":
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "replace"), size, header[156]


def read_long_name(data: bytes, kind: int) -> str | None:
    if kind == ord("L"):
        return data.rstrip(b"\0").decode("utf-8", "replace")
    while data:  # pax records: "<length> <key>=<value>\n"
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or not 0 < int(digits) <= len(data):
            return None
        record, data = data[len(digits) + 1 : int(digits) - 1], data[int(digits) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "replace")
    return None


def _resync(stream: _Stream) -> bool:
    """Go on to just before the next block that is a valid header; whether there is one."""
    while True:
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            return False
        if block[257:262] == b"ustar" and read_header(block) is not None:
            stream.unread(block)
            return True


# ---------------------------------------------------------------- writing


class Writer:
    """A WebDataset tar in DataComp's layout: 12-digit keys (8 of the shard, 4 or more of the row), members
    image, ``.txt`` and ``.json``, every header fixed but for name and size."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, index: int = 0) -> None:
        if "id" not in schema.names or "image" not in schema.names:
            raise FormatError(
                f"WebDataset needs the columns id and image; there are: {', '.join(schema.names)}"
            )
        self._file = file
        self._index = index
        self._row = 0
        self._written = 0
        self._json = {f.name for f in schema if is_json(f)}

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            key = f"{self._index:08d}{self._row:04d}"
            self._row += 1
            image, cls = row.pop("image"), row.pop("cls", None)
            ext, text = row.pop("image_ext", None), row.pop("text", None)
            if image is not None:
                self._member(f"{key}.{ext or image_suffix(image)}", image)
            if text is not None:
                self._member(f"{key}.txt", text.encode())
            if cls is not None:
                self._member(f"{key}.cls", str(cls).encode())
            meta: dict[str, Any] = {
                "uid": row.pop("id"),
                "url": row.pop("url", None),
                "caption": text,
                "key": key,
            }
            extra = row.pop("extra", None)
            for name, value in row.items():
                meta[name] = orjson.loads(value) if name in self._json and value is not None else value
            if extra is not None:
                kept = orjson.loads(extra)
                meta["caption"] = kept.pop("caption", text)  # one that differs from the .txt was kept apart
                meta |= {name: value for name, value in kept.items() if name not in meta}
            self._member(f"{key}.json", orjson.dumps(meta, default=str))

    def _member(self, name: str, data: bytes) -> None:
        self._file.write(tar_header(name, len(data)))
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))
        self._written += _BLOCK + -(-len(data) // _BLOCK) * _BLOCK

    def close(self) -> None:
        end = 2 * _BLOCK
        self._file.write(bytes(end + -(self._written + end) % 10240))  # tar's record size


def image_suffix(data: bytes) -> str:
    """The suffix for an encoded image, by its first bytes; jpg where they say nothing."""
    if data.startswith(b"\x89PNG"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "gif" if data.startswith(b"GIF8") else "jpg"


def tar_header(name: str, size: int) -> bytes:
    """A ustar header of a plain file: mode 644, owner 0, time 0."""
    header = bytearray(_BLOCK)
    encoded = name.encode()
    if len(encoded) > 100 or size >= 8 << 30:
        raise FormatError(f"tar member {name!r} of {size} bytes: name over 100 bytes or size over 8 GiB")
    header[: len(encoded)] = encoded
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"
    header[148:156] = b"        "
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
