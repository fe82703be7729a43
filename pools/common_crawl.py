"""Common Crawl as a pool: a crawl's WARC, WET or WAT shards by its own path listing, or a list of WARCs.

    from pools import common_crawl, listing
    pool = common_crawl.crawl("CC-MAIN-2024-22", kind="warc").sampled(3, seed=1)
    listing.fetch(pool, "pool/")

The listing of a crawl is `crawl-data/<crawl>/<kind>.paths.gz` under https://data.commoncrawl.org/ or
s3://commoncrawl/ (which wants AWS credentials). WINNOW_CC_BASE, or `base`, names a mirror: any folder or URL
of the same layout. A crawl has about 90,000 shards of about 1 GB (WARC) or 0.1 GB (WET).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
import zlib
from pathlib import Path

from curation import storage
from curation.errors import suggest
from pools import fetch as fetching
from pools.listing import Listing, name_of, of_urls
from pools.public_http import FetchError, is_http

BASES = {"https": "https://data.commoncrawl.org/", "s3": "s3://commoncrawl/"}
COLLINFO = "https://index.commoncrawl.org/collinfo.json"
SUFFIX = {"warc": ".warc.gz", "wet": ".warc.wet.gz", "wat": ".warc.wat.gz"}
MAX_LIST_BYTES = 1 << 30  # of a path listing, decompressed
_LIST = fetching.Policy(file_bytes=MAX_LIST_BYTES, tries=3, file_seconds=1800)


def base_url(source: str = "https", base: str | None = None) -> str:
    """Where crawl data lies: `base`, WINNOW_CC_BASE, or Common Crawl's own by `source` (https, s3)."""
    if source not in BASES:
        raise ValueError(f"source {source!r}: {suggest(source, list(BASES))}")
    chosen = base or os.environ.get("WINNOW_CC_BASE") or BASES[source]
    return chosen if chosen.endswith("/") else chosen + "/"


def crawls(base: str | None = None) -> list[str]:
    """Ids of all crawls, newest first, as Common Crawl lists them (a mirror: its `collinfo.json`)."""
    mirror = base or os.environ.get("WINNOW_CC_BASE")
    place = storage.join(mirror, "collinfo.json") if mirror else COLLINFO
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:  # not cached: it grows every month
        fetching.fetch(
            place, Path(folder) / "collinfo.json", policy=fetching.Policy(file_bytes=64 << 20, tries=3)
        )
        found = json.loads((Path(folder) / "collinfo.json").read_text(encoding="utf-8"))
    return [str(crawl["id"]) for crawl in found]


def paths(crawl_id: str, kind: str = "warc", source: str = "https", base: str | None = None) -> list[str]:
    """The crawl's shards as paths below the base (`crawl-data/…`), in the listing's order.

    The listing is kept under WINNOW_CACHE. ValueError for an unknown kind, an impossible id, or a listing of
    other things; FetchError when it cannot be had, with the nearest crawl id when the id is unknown.
    """
    if kind not in SUFFIX:
        raise ValueError(f"kind {kind!r}: {suggest(kind, list(SUFFIX))}")
    if not re.fullmatch(r"CC-[A-Z]+(-\d{1,4}){0,2}", crawl_id):
        raise ValueError(f"crawl {crawl_id!r}: it is an id such as CC-MAIN-2024-22")
    where = base_url(source, base)
    place = f"{where}crawl-data/{crawl_id}/{kind}.paths.gz"
    try:
        file = fetching.cached(place, policy=_LIST)
    except FileNotFoundError:
        raise FetchError("gone", place, f"no such listing: {_hint(crawl_id, base)}") from None
    except FetchError as error:
        if error.kind not in ("gone", "refused"):
            raise
        raise FetchError(
            error.kind, place, f"no such listing: {_hint(crawl_id, base)} ({error.message})"
        ) from error
    lines = read_lines(file, place)
    wrong = next((line for line in lines if not line.endswith(SUFFIX[kind]) or not _plain(line)), None)
    if wrong is not None or not lines:
        raise ValueError(f"{place}: not a listing of {kind} shards: {wrong if lines else 'it is empty'!r}")
    return lines


def crawl(crawl_id: str, kind: str = "warc", source: str = "https", base: str | None = None) -> Listing:
    """All shards of one kind of a crawl; `latest` is the newest crawl."""
    if crawl_id == "latest":
        crawl_id = crawls(base)[0]
    if kind == "wat":
        raise ValueError("WAT shards hold metadata and no text: take warc or wet (`paths` lists WAT, too)")
    where = base_url(source, base)
    urls = [(where + path, path.removeprefix("crawl-data/")) for path in paths(crawl_id, kind, source, base)]
    return of_urls(urls, {"kind": "common-crawl", "crawl": crawl_id, "format": kind, "place": where})


def warc_list(place: str, source: str = "https", base: str | None = None) -> Listing:
    """The shards that a file names, one a line (plain or gzip): URLs, paths of Common Crawl, or local paths.

    A path that begins with `crawl-data/` lies under Common Crawl's base, any other relative one under `base`
    or beside the file. A list that came by http may not name local files.
    """
    file = fetching.cached(place, policy=_LIST)
    where = base_url(source, base)
    beside = (
        os.path.dirname(storage.local_path(place)) if storage.is_local(place) else place.rsplit("/", 1)[0]
    )
    urls = []
    for line in read_lines(file, place):
        if "://" in line:
            url, name = line, name_of(line, (*BASES.values(), where))
        elif line.startswith("/"):
            url, name = line, name_of(line)
        elif not _plain(line):
            raise ValueError(f"{place}: {line!r} is not a path below the list")
        elif base or line.startswith("crawl-data/"):
            url, name = where + line, line.removeprefix("crawl-data/")
        else:
            url, name = storage.join(beside, line), line
        if is_http(place) and storage.is_local(url):
            raise ValueError(f"{place}: a list from the web names the local file {line!r}")
        urls.append((url, name))
    return of_urls(urls, {"kind": "warc-list", "place": str(place)})


def read_lines(file: Path, place: str) -> list[str]:
    """Lines of a text file, plain or gzip, without empty ones and comments (`#`). ValueError when damaged."""
    with file.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(file) if packed else file.open("rb") as lines:
            data = lines.read(MAX_LIST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{place} is damaged ({error}): remove {file} and try again") from None
    if len(data) > MAX_LIST_BYTES:
        raise ValueError(f"{place} is over {MAX_LIST_BYTES:,} bytes, decompressed: not a list of shards")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not a list of shards: {error}") from None
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def _plain(path: str) -> bool:
    return not (path.startswith("/") or "://" in path or ".." in path.split("/"))


def _hint(crawl_id: str, base: str | None) -> str:
    try:
        return f"{suggest(crawl_id, crawls(base))}"
    except (OSError, ValueError, KeyError, TypeError):
        return "the list of crawls cannot be had either"
