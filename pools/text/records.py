"""WARC records out of pages, and shards out of records. The same pages give the same bytes."""

from __future__ import annotations

import hashlib
import io
import uuid
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from pools.text.sources import Page

_FIRST_DAY = datetime(2024, 5, 1, tzinfo=timezone.utc)


def record_id(url: str) -> str:
    """The WARC-Record-ID of the page at `url`: a name-based UUID, so it never changes."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>"


def response(page: Page) -> bytes:
    """One WARC response record (uncompressed) with the HTTP header that a server would have sent."""
    from fastwarc.warc import WarcRecord, WarcRecordType

    seconds = int.from_bytes(hashlib.sha256(page.url.encode()).digest()[:4], "big") % (20 * 86_400)
    date = (_FIRST_DAY + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    content_type = f"text/html; charset={page.header_charset}" if page.header_charset else "text/html"
    block = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(page.html)}\r\n\r\n"
    ).encode() + page.html
    record = WarcRecord()
    record.init_headers(record_type=WarcRecordType.response)
    record.headers["WARC-Record-ID"] = record_id(page.url)
    record.headers["WARC-Date"] = date
    record.headers["WARC-Target-URI"] = page.url
    record.headers["Content-Type"] = "application/http; msgtype=response"
    record.set_bytes_content(block)
    out = io.BytesIO()
    record.write(out)
    return out.getvalue()


def split(stream: bytes) -> Iterator[tuple[str, memoryview]]:
    """Yields (URL, record bytes) for every record of an uncompressed WARC."""
    from fastwarc.warc import ArchiveIterator

    starts, urls = [], []
    for record in ArchiveIterator(io.BytesIO(stream), parse_http=False):
        starts.append(record.stream_pos)
        urls.append(record.headers.get("WARC-Target-URI"))
    view = memoryview(stream)
    for url, start, end in zip(urls, starts, [*starts[1:], len(stream)], strict=True):
        yield url, view[start:end]


def shards(records: Iterable[tuple[str, memoryview]], count: int) -> list[list[memoryview]]:
    """Deals records out over `count` shards of about equal length, in an order that looks shuffled.

    The order is that of a hash of the URL, so it depends on the pages alone.
    """
    if count < 1:
        raise ValueError(f"a pool needs at least one shard, not {count}")
    ordered = sorted(records, key=lambda item: hashlib.sha256(item[0].encode()).digest())
    cuts = [len(ordered) * i // count for i in range(count + 1)]
    return [[record for _, record in ordered[a:b]] for a, b in pairwise(cuts)]


def member(record: bytes | memoryview, level: int = 4) -> bytes:
    """One record as one gzip member without a time stamp, as WARC readers that seek expect it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(record) + packer.flush()
