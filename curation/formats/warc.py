"""WARC and WET, plain or gzip: pages as crawled, and text as Common Crawl extracted it.

Records and gzip members are walked here, HTTP (chunked transfer, content encodings, charset) is fastwarc's.
The walk exists because readers stop at the first damage: here one damaged gzip member is one quarantined
record with its byte offset, and reading resumes at the next member that inflates to a WARC header. A member
is believed only when its checksum holds.

``response`` records are rows of a WARC, ``conversion`` records rows of a WET; other records are no rows.
"""

from __future__ import annotations

import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pyarrow as pa
import xxhash

from curation import storage
from curation.formats.common import Bad, FormatError, OnBad, row_id, sample
from curation.formats.compression import GZIP_MAGIC, codec
from curation.formats.rows import binary_array

if TYPE_CHECKING:
    from curation.shards import Shard

MAX_RECORD_BYTES = 64 << 20
_READ = 1 << 18
_OUT = 1 << 20
_HOLD = 32 << 20  # a member's records wait for its checksum up to this size, and stream beyond it
_MAX_HEADER = 1 << 20
_WINDOW = 8 << 20  # the largest member, packed or unpacked, that is inflated in one go
_ID_HEADER = "winnow-id"  # rows written by us keep their id when they are read again

WARC_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("http_charset", pa.string()),
        ("content_type", pa.string()),
        ("content", pa.binary()),
    ]
)
WET_SCHEMA = pa.schema(
    [("id", pa.string()), ("url", pa.string()), ("date", pa.string()), ("text", pa.string())]
)


def schema(shard: Shard) -> pa.Schema:
    """Fixed: id, url, date and the HTTP body with its type and charset; for a WET id, url, date, text."""
    return WET_SCHEMA if shard.format == "wet" else WARC_SCHEMA


def read(
    shard: Shard,
    target: pa.Schema,
    batch_bytes: int,
    bad: OnBad,
    unread: Counter[str],
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Batches of about ``batch_bytes``. Positions are byte offsets of gzip members or records."""
    to_row = _page if schema(shard) is WARC_SCHEMA else _text
    if to_row is _page:
        _need_fastwarc()
    rows: list[dict[str, Any]] = []
    held = 0
    with storage.open_read(shard.url) as file:
        walk = _gzip_records if codec(shard.url) == "gz" else _plain_records
        for found in walk(file, max_record_bytes):
            where = _place(found.offset, found.inner)
            if isinstance(found, _Damage):
                bad(Bad(shard.name, found.offset, f"{found.error} at {where}", sample=sample(found.head)))
                continue
            try:
                row = to_row(found, max_record_bytes)
            except (OSError, ValueError) as error:
                text = f"record at {where}: {error}"
                bad(Bad(shard.name, found.offset, text, sample=sample(found.body)))
                continue
            if row is None:
                continue
            if not row["id"]:
                place = f"{found.offset}+{found.inner}" if found.inner else found.offset
                row["id"] = row_id(shard.name, place)
            rows.append(row)
            held += found.stop - found.start
            if held >= batch_bytes:
                yield _batch(rows, target)
                rows, held = [], 0
    if rows:
        yield _batch(rows, target)


def _need_fastwarc() -> None:
    try:
        import fastwarc.warc  # noqa: F401
    except ImportError as error:
        raise ImportError(f"reading WARC needs fastwarc ({error}): install `winnow-data[text]`") from error


def _place(offset: int, inner: int) -> str:
    return f"byte {offset}" + (f" (+{inner} decompressed)" if inner else "")


def _batch(rows: list[dict[str, Any]], target: pa.Schema) -> pa.RecordBatch:
    columns = [
        binary_array([row.get(f.name) for row in rows])
        if f.name == "content"
        else pa.array([row.get(f.name) for row in rows], f.type)
        for f in target
    ]
    return pa.RecordBatch.from_arrays(columns, schema=target)


# ---------------------------------------------------------------- record → row


@dataclass
class _Record:
    """A whole record: where it lies, the header fields that rows need (lower-case names), and its body, which
    is ``block[start:stop]``: pages are copied once on their way to Arrow."""

    offset: int
    inner: int
    fields: dict[str, str]
    block: bytes
    start: int
    stop: int

    @property
    def body(self) -> bytes:
        return self.block[self.start : self.stop]


@dataclass
class _Damage:
    """A stretch that is no record."""

    offset: int
    inner: int
    error: str
    head: bytes | None = None


def _page(record: _Record, limit: int) -> dict[str, Any] | None:
    fields = record.fields
    if fields.get("warc-type", "").lower() != "response":
        return None
    if not fields.get("content-type", "application/http").lower().startswith("application/http"):
        return None  # e.g. the answer of a name server
    if not record.block.startswith(b"HTTP/", record.start, record.stop):
        raise ValueError("a response without an HTTP status line")
    kind, charset, content = _plain_http(record, limit) or _http(_crlf_header(record.body), limit)
    return {**_common(fields), "http_charset": charset, "content_type": kind, "content": content}


def _text(record: _Record, limit: int) -> dict[str, Any] | None:
    if record.fields.get("warc-type", "").lower() != "conversion":
        return None
    return {**_common(record.fields), "text": record.body.decode("utf-8")}


def _common(fields: dict[str, str]) -> dict[str, Any]:
    url = fields.get("warc-target-uri")
    given = fields.get(_ID_HEADER)
    return {
        "id": unquote(given) if given else None,
        "url": url.strip("<>") if url else None,  # WARC 1.0 wrote it in angle brackets
        "date": fields.get("warc-date"),
    }


def _plain_http(record: _Record, limit: int) -> tuple[str | None, str | None, memoryview] | None:
    """`_http` for the common case, a body stored as it is; None for every other: an encoded body, a folded
    header line, one that ends in a bare LF, two content types."""
    block, start, stop = record.block, record.start, record.stop
    end = block.find(b"\r\n\r\n", start, stop)
    if end < 0 or stop - end - 4 > limit:
        return None
    head = block[start : end + 2].lower()
    if b"\r\ncontent-encoding" in head or b"\r\ntransfer-encoding" in head:
        return None
    if b"\n " in head or b"\n\t" in head or head.count(b"\n") != head.count(b"\r\n"):
        return None
    kind = charset = None
    at = head.find(b"\r\ncontent-type")
    if at >= 0:
        if head[at + 14 : at + 15] != b":" or head.find(b"\r\ncontent-type", at + 14) >= 0:
            return None
        line = start + at + 15
        kind, charset = _described(block[line : block.find(b"\r\n", line)])
    return kind, charset, memoryview(block)[end + 4 : stop]


@lru_cache(1024)
def _described(content_type: bytes) -> tuple[str | None, str | None]:
    """Media type and charset, as fastwarc reads them in a Content-Type header."""
    return _decode(b"HTTP/1.1 200 OK\r\nContent-Type:" + content_type + b"\r\n\r\n", 0, "none")[:2]


_ENVELOPE = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n"
_CHUNK = re.compile(rb"\s*[0-9a-fA-F]+[ \t]*(;[^\r\n]*)?\r?\n")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a]")


def _http(block: bytes, limit: int) -> tuple[str | None, str | None, bytes]:
    """(content type, charset, decoded body) of an HTTP response."""
    try:
        return _decode(block, limit, "all")
    except OSError as problem:
        # Crawlers store bodies decoded and leave the headers that say otherwise: then take them as they lie.
        kind, charset, raw = _decode(block, limit, "none")
        if _BINARY.search(raw[:512]) or _CHUNK.match(raw):
            raise ValueError(f"body does not decode as its HTTP header says ({problem})") from problem
        return kind, charset, raw


_HTTP_END = re.compile(rb"\r?\n\r?\n")


def _crlf_header(block: bytes) -> bytes:
    """The response with CRLF after every header line; some crawls (ClueWeb09) stored bare LF."""
    end = _HTTP_END.search(block)
    if end is None or end.group() == b"\r\n\r\n":
        return block
    lines = block[: end.start()].replace(b"\r\n", b"\n").split(b"\n")
    return b"\r\n".join(lines) + b"\r\n\r\n" + block[end.end() :]


def _decode(block: bytes, limit: int, decode: Any) -> tuple[str | None, str | None, bytes]:
    from fastwarc.warc import ArchiveIterator

    whole = io.BytesIO(b"".join((_ENVELOPE % len(block), block, b"\r\n\r\n")))
    record = next(iter(ArchiveIterator(whole, parse_http=True, auto_decode=decode)), None)
    if record is None:
        raise ValueError("no HTTP response could be parsed")
    content = record.reader.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"decoded body is over the limit of {limit} bytes (max_record_bytes)")
    return record.http_content_type, record.http_charset, content


# ---------------------------------------------------------------- bytes → records

_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"\r\n\r\n|\n\n")
_NEXT = re.compile(rb"\n(?=WARC/\d)")


class _Splitter:
    """Cuts decompressed bytes into records as they come; resumes at the next ``WARC/`` line after damage."""

    def __init__(self, offset: int, max_record: int, compressed: bool) -> None:
        self._offset = offset
        self._compressed = compressed
        self._max = max_record
        self._buffer = bytearray()
        self._at = 0  # decompressed bytes before the buffer
        self._skip = 0  # bytes of an over-long record still to pass over
        self._lost: tuple[int, str, bytes] | None = None  # a damaged stretch: where, why, its head

    def _where(self, at: int) -> tuple[int, int]:
        return (self._offset, at) if self._compressed else (self._offset + at, 0)

    def _drop(self, n: int) -> None:
        del self._buffer[:n]
        self._at += n

    def feed(self, data: bytes, end: bool = False) -> Iterator[_Record | _Damage]:
        """Records completed by ``data``; with ``end``, also what is left of the last one."""
        if self._skip:
            n = min(self._skip, len(data))
            self._skip -= n
            self._at += n
            data = data[n:]
        self._buffer += data
        while self._buffer:
            found = self._step(end)
            if found is None:
                break
            if not isinstance(found, bool):
                yield found
        if end and self._skip:
            yield _Damage(*self._where(self._at), "file ends inside an over-long record")
        if end and self._lost:
            yield self._found_again()

    def _found_again(self) -> _Damage:
        assert self._lost is not None
        at, error, head = self._lost
        self._lost = None
        return _Damage(*self._where(at), error, head)

    def _lose(self, error: str, passed: int) -> None:
        """From here on nothing is believed until the next header; ``passed`` bytes are surely not one."""
        if self._lost is None:
            self._lost = (self._at, error, bytes(self._buffer[:1_000]))
        self._drop(passed)

    def _step(self, end: bool) -> _Record | _Damage | bool | None:
        """One record or damage; True: progress without either; None: more bytes are needed."""
        buffer = self._buffer
        if self._lost is not None:
            match = _NEXT.search(buffer)
            if match is None:
                keep = 0 if end else 16  # a header line may be cut by the piece's end
                self._drop(max(0, len(buffer) - keep))
                return None
            self._drop(match.end())
            return self._found_again()
        blank = len(buffer) - len(buffer.lstrip(b"\r\n"))
        if blank:
            self._drop(blank)
            return True
        if not buffer.startswith(b"WARC/"[: len(buffer)]) or (end and len(buffer) < 5):
            self._lose("no WARC header", 0)
            return True
        header = _HEADER_END.search(buffer, 0, _MAX_HEADER)
        if header is None:
            if len(buffer) < _MAX_HEADER and not end:
                return None
            self._lose("record header without an end", 5)
            return True
        head = bytes(buffer[: header.start()])
        length = _LENGTH.search(head)
        if length is None:
            self._lose("record header without Content-Length", 5)
            return True
        start, stop = header.end(), header.end() + int(length.group(1))
        if stop - start > self._max:
            damage = _Damage(
                *self._where(self._at),
                f"record of {stop - start} bytes is over the limit of {self._max} (max_record_bytes)",
                head[:1_000],
            )
            self._skip = max(0, stop - len(buffer))
            self._drop(min(stop, len(buffer)))
            return damage
        if len(buffer) < stop + 16 and not end:
            return None
        if len(buffer) < stop:
            self._lose("truncated record", 5)
            return True
        after = bytes(buffer[stop : stop + 16])
        if not (after.startswith(b"\r\n\r\n") or after.lstrip(b"\r\n")[:5] in (b"", b"WARC/")):
            self._lose("record whose length does not lead to the next", 5)
            return True
        record = _Record(*self._where(self._at), _fields(head), bytes(buffer[start:stop]), 0, stop - start)
        self._drop(stop)
        return record


_FIELD = re.compile(
    rb"^[ \t]*(warc-type|content-type|warc-target-uri|warc-date|winnow-id)[ \t]*:([^\n]*)",
    re.IGNORECASE | re.M,
)


def _fields(head: bytes) -> dict[str, str]:
    """The header fields that rows are made of, by lower-case name."""
    return {n.lower().decode("ascii"): v.strip().decode("utf-8", "replace") for n, v in _FIELD.findall(head)}


def _plain_records(file: IO[bytes], max_record: int) -> Iterator[_Record | _Damage]:
    splitter = _Splitter(0, max_record, compressed=False)
    while data := file.read(_OUT):
        yield from splitter.feed(data)
    yield from splitter.feed(b"", end=True)


def _gzip_records(file: IO[bytes], max_record: int) -> Iterator[_Record | _Damage]:
    inflated = _inflater()
    data, at = b"", 0  # compressed bytes of which those before `at` are done
    offset = 0  # of data[0] in the file
    while True:
        if at == len(data):
            offset += at
            data, at = file.read(_READ), 0
            if not data:
                return
        if not data[at]:  # zero padding between or after members
            at = len(data) - len(data[at:].lstrip(b"\0"))
            continue
        if inflated is not None:
            end = data.find(GZIP_MAGIC, at + 18)  # the next member, or what looks like one
            if end < 0 and len(data) - at < _WINDOW and (more := file.read(_READ)):
                offset += at
                data, at = data[at:] + more, 0
                continue
            end = end if end > 0 else len(data)
            block = inflated(data[at:end])
            if block is not None:
                yield from _records_of(block, offset + at, max_record)
                at = end
                continue
        start = offset + at
        data, offset = data[at:], start
        at = 0
        splitter = _Splitter(start, max_record, compressed=True)
        inflate = zlib.decompressobj(wbits=31)
        held: list[_Record | _Damage] = []
        size, error = 0, None
        while not inflate.eof:
            if not data:
                data = file.read(_READ)
            try:
                out = inflate.decompress(data, _OUT)
            except zlib.error as problem:
                error = f"corrupt gzip member ({problem})"
                break
            if not data and not out:
                error = "truncated gzip member"
                break
            rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            offset += len(data) - len(rest)
            data = rest
            held += splitter.feed(out)
            size += len(out)
            if size > _HOLD:
                yield from held
                held = []
        if error is None:
            yield from held
            yield from splitter.feed(b"", end=True)
            continue
        if error.startswith("truncated") and len(held) > 1:
            # A whole WARC in one member, cut: there is no checksum to wait for. A member of one record is a
            # record without its checksum, and may as well be one whose flipped bit hid its end.
            yield from held
        yield _Damage(start, 0, error, None)
        found = _next_member(file, start + 1)
        if found is None:
            return
        file.seek(found)
        offset, data = found, b""


def _inflater() -> Callable[[bytes], bytes | None] | None:
    """A function from the bytes of one whole gzip member to what they hold: fastwarc's decoder, which takes
    half of zlib's time. It answers None to everything that is not exactly one small, sound member, and the
    careful walk has its turn. Without fastwarc there is none."""
    try:
        from fastwarc.stream_io import GzipReader
    except ImportError:
        return None

    def inflated(member: bytes) -> bytes | None:
        size = int.from_bytes(member[-4:], "little")  # a member ends with its checksum and its size
        if not 0 < size <= _WINDOW:
            return None
        try:
            block = GzipReader(io.BytesIO(member), buffer_size=1 << 14).read(size + 1)
        except (OSError, ValueError):  # a checksum that does not hold is one
            return None
        return bytes(block) if len(block) == size else None

    return inflated


def _records_of(block: bytes, offset: int, max_record: int) -> Iterator[_Record | _Damage]:
    """The records of a whole member: nearly always one, which needs no search."""
    end = block.find(b"\r\n\r\n", 0, _MAX_HEADER)
    if block.startswith(b"WARC/") and end > 0 and block.find(b"\n\n", 0, end) < 0:
        head = block[:end]
        length = _LENGTH.search(head)
        stop = end + 4 + int(length.group(1)) if length else 0
        if 0 < stop - end - 4 <= max_record and block[stop:] == b"\r\n\r\n":
            yield _Record(offset, 0, _fields(head), block, end + 4, stop)
            return
    splitter = _Splitter(offset, max_record, compressed=True)
    yield from splitter.feed(block)
    yield from splitter.feed(b"", end=True)


def _next_member(file: IO[bytes], at: int) -> int | None:
    """The offset of the next gzip member, at or after ``at``, that inflates to the beginning of a record."""
    file.seek(at)
    window = b""
    while piece := file.read(_OUT):
        window += piece
        base = at + len(window)  # offset after the window
        found = window.find(GZIP_MAGIC)
        while found >= 0:
            candidate = base - len(window) + found
            if _is_record(file, candidate):
                return candidate
            found = window.find(GZIP_MAGIC, found + 1)
        file.seek(base)
        keep = len(GZIP_MAGIC) - 1
        at, window = base - min(keep, len(window)), window[-keep:]
    return None


def _is_record(file: IO[bytes], offset: int) -> bool:
    file.seek(offset)
    try:
        return zlib.decompressobj(wbits=31).decompress(file.read(1 << 16), 64).startswith(b"WARC/")
    except zlib.error:
        return False


# ---------------------------------------------------------------- writing


class Writer:
    """One gzip member a record: responses from a ``content`` column, else conversions from ``text``."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        names = set(schema.names)
        self._column = "content" if "content" in names else "text"
        missing = {"id", self._column} - names
        if missing:
            raise FormatError(
                f"WARC needs the columns id and content (or text); missing: {', '.join(sorted(missing))}; "
                f"there are: {', '.join(schema.names)}"
            )
        self._file = file

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            body = row[self._column] or b""
            self._file.write(_member(row, body.encode() if isinstance(body, str) else body, self._column))

    def close(self) -> None:
        pass  # members end by themselves


def _member(row: dict[str, Any], body: bytes, column: str) -> bytes:
    digest = xxhash.xxh3_128_hexdigest(row["id"].encode())
    uuid = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))
    page = column == "content"
    if page:
        kind = _clean(row.get("content_type") or "application/octet-stream")
        charset = row.get("http_charset")
        http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}" + (
            f"; charset={_clean(charset)}" if charset else ""
        )
        body = f"{http}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    lines = ["WARC/1.0", f"WARC-Type: {'response' if page else 'conversion'}"]
    if row.get("url"):
        lines.append(f"WARC-Target-URI: {_clean(row['url'])}")
    lines += [
        f"WARC-Date: {_clean(str(row.get('date') or '1970-01-01T00:00:00Z'))}",
        f"WARC-Record-ID: <urn:uuid:{uuid}>",
        f"Winnow-ID: {quote(row['id'], safe='/:+=@,;!$()*~')}",
        f"Content-Type: {'application/http; msgtype=response' if page else 'text/plain; charset=utf-8'}",
        f"Content-Length: {len(body)}",
    ]
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)  # zlib writes mtime 0
    record = "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n\r\n"
    return deflate.compress(record) + deflate.flush()


def _clean(value: str) -> str:
    """A header value cannot hold line ends."""
    return value.replace("\r", "%0D").replace("\n", "%0A")
