"""A pool as a listing: its shards by URL, with a schema; read from where they lie, or fetched to a folder.

    from pools import listing
    pool = listing.of_place("s3://bucket/crawl/").sampled(100, seed=1)
    pool.save("pool.json")
    plan = [listing.read("pool.json"), …]            # streams from the store
    listing.fetch(pool, "pool/"); plan = [c.read("pool/"), …]

The file is JSON: `{"winnow_pool": 1, "schema": "text", "source": {…}, "shards": [{"url", "name", "format",
"size", "etag"}]}`. `name` is the shard's path in a fetched folder. URLs of shards that lie beside or below
the file are relative to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import curation as c
from curation import storage
from curation.shards import format_of, list_shards
from pools import fetch as fetching
from pools import sampling
from pools.public_http import FetchError, is_http

VERSION = 1
FOLDER_FILE = "_pool.json"  # in a fetched folder: what was asked for
#: bytes of text in one byte of a file, roughly. WARC: 47 million tokens of extracted text in a shard of 1 GB;
#: jsonl.gz: the 240 T tokens of DCLM-Pool in 370 TB; at 4.3 bytes a token.
TEXT_PER_BYTE = {"warc": 0.2, "wet": 2.5, "jsonl": 2.8, "parquet": 2.0}


@dataclass(frozen=True)
class Entry:
    """One shard: where it lies, its name in the pool, its format; size in bytes and etag where known."""

    url: str
    name: str
    format: str
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Listing:
    """Shards of one pool, sorted by name. `schema` is `text` or `image_text`; `source` says where from."""

    entries: tuple[Entry, ...]
    schema: str = "text"
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int | None:
        """Of all shards; None unless each one's size is known."""
        sizes = [e.size for e in self.entries]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    def sampled(self, n: int | None = None, seed: int = 0, part: str | None = None) -> Listing:
        """A seeded sample of `n` shards, and of it the part `i/n` of one machine (see `pools.sampling`)."""
        chosen = sampling.sample(self.entries, n, seed, lambda e: e.name)
        chosen = sampling.part(chosen, part, seed, lambda e: e.name)
        asked = {"sample": n, "seed": seed, "part": part} if n is not None or part is not None else {}
        of = {"of_shards": len(self.entries)} if asked else {}
        return replace(self, entries=tuple(chosen), source={**self.source, **of, **asked})

    def save(self, place: str | Path) -> None:
        """Write the listing, atomically; local shards beside or below the file by relative path."""
        folder = os.path.dirname(storage.local_path(str(place))) if storage.is_local(str(place)) else None
        shards = [
            {k: v for k, v in {**asdict(e), "url": _relative(e.url, folder)}.items() if v is not None}
            for e in self.entries
        ]
        head = {"winnow_pool": VERSION, "schema": self.schema, "source": dict(self.source)}
        lines = ",\n".join("  " + json.dumps(s, ensure_ascii=False) for s in shards)
        text = json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "shards": [\n{lines}\n ]\n}}\n'
        storage.write_bytes(str(place), text.encode())


def load(place: str | Path) -> Listing:
    """Read a listing. ValueError when the file is something else, or names a shard outside its folder."""
    place = str(place)
    try:
        data = json.loads(storage.read_bytes(place))
        if data["winnow_pool"] != VERSION:
            raise ValueError(f"it has version {data['winnow_pool']!r}, this program reads {VERSION}")
        entries = tuple(Entry(**{**s, "url": _absolute(s["url"], place)}) for s in data["shards"])
        return Listing(entries, data["schema"], data.get("source", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place} is not a pool listing ({error}): `winnow pool list` makes one") from None


def of_place(place: str, format: str | None = None, schema: str | None = None) -> Listing:
    """The listing of a folder, glob, file or URL of jsonl(.gz/.zst), parquet, WARC, WET or tar shards."""
    shards = list_shards(place, format=format)
    entries = tuple(Entry(s.url, s.name, s.format, s.size, s.etag) for s in shards)
    if schema is None:
        schema = "image_text" if shards[0].format == "wds" or _has_images(shards) else "text"
    return Listing(
        tuple(sorted(entries, key=lambda e: e.name)), schema, {"kind": "place", "place": str(place)}
    )


def of_urls(urls: Sequence[tuple[str, str]], source: Mapping[str, Any]) -> Listing:
    """The listing of (URL, name) pairs. ValueError for names without a known suffix, mixed ones, or twins."""
    entries: dict[str, Entry] = {}
    for url, name in urls:
        kind = format_of(name)
        if kind is None:
            raise ValueError(f"{url}: no shard has such a name (jsonl, parquet, warc, wet, tar; .gz, .zst)")
        if any(p.startswith(("_", ".")) for p in name.split("/")):
            raise ValueError(f"{url}: its name {name!r} has a part that pools skip (it begins with _ or .)")
        other = entries.setdefault(name, Entry(url, name, kind))
        if other.url != url:
            raise ValueError(f"{other.url} and {url} would both be named {name!r}")
    formats = sorted({e.format for e in entries.values()})
    if len(formats) != 1:
        what = f"several formats ({', '.join(formats)}): list each alone" if formats else "no shards"
        raise ValueError(f"{source.get('place', 'the list')} has {what}")
    return Listing(tuple(sorted(entries.values(), key=lambda e: e.name)), "text", source)


def read(pool: Listing | str | Path, columns: Sequence[str] | None = None) -> c.Read:
    """The read step that streams a listing from where its shards lie: local paths, object stores.

    ValueError for http(s) shards: those are fetched, with checks and limits, not streamed.
    """
    pool = pool if isinstance(pool, Listing) else load(pool)
    if not pool.entries:
        raise ValueError("the listing has no shards")
    web = next((e.url for e in pool.entries if is_http(e.url)), None)
    if web is not None:
        raise ValueError(
            f"{web}: http shards are not streamed; fetch them (`winnow pool fetch LISTING FOLDER`), or list "
            "the same pool in its object store (`--from s3`)"
        )
    return c.read([e.url for e in pool.entries], format=pool.entries[0].format, columns=columns)


def is_listing(place: str) -> bool:
    """Whether a place is a listing file; only its first bytes are read."""
    if not place.endswith(".json"):
        return False
    try:
        with storage.open_read(place) as file:
            return b'"winnow_pool"' in file.read(256)
    except OSError:
        return False  # nothing there: for `read` to say


def pool_argument(value: str | None) -> str | list[str] | None:
    """What a pool on the command line stands for: the shards of a listing file; of a folder in DataComp's
    layout the tars, without the parquet files of the same rows; else the place itself."""
    if value is None:
        return None
    if is_listing(value):
        return list(read(value).url)
    shards = storage.join(value, "shards")
    if storage.exists(storage.join(value, "metadata")) and storage.exists(shards):
        return storage.join(shards, "*.tar")
    return value


def fetch(
    pool: Listing,
    folder: str | Path,
    policy: fetching.Policy | None = None,
    recheck: str | None = None,
    on_progress: Callable[[fetching.Progress], None] | None = None,
    raise_failures: bool = True,
) -> fetching.Report:
    """Fetch all shards to a local folder under their names (see `pools.fetch.fetch_all`)."""
    if not storage.is_local(str(folder)):
        raise ValueError(f"{folder}: pools are fetched to a local folder; read an object store where it lies")
    folder = Path(storage.local_path(str(folder)))
    items = [fetching.Item(e.url, e.name, e.size) for e in pool.entries]
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    there = sum((folder / e.name).stat().st_size for e in pool.entries if (folder / e.name).is_file())
    if (needed := (pool.bytes or 0) - there) > free:
        raise OSError(
            f"{folder} has {free / 1e9:,.1f} GB free, and {needed / 1e9:,.1f} GB are to come: choose another "
            "place, a --sample, or a part (--shard i/n)"
        )
    pool.save(folder / FOLDER_FILE)
    return fetching.fetch_all(
        items, folder, policy=policy, recheck=recheck, on_progress=on_progress, raise_failures=raise_failures
    )


@dataclass(frozen=True)
class Estimate:
    """How large a pool is: `bytes` of its shards (None: not known) from `measured` of them, and its text."""

    shards: int
    measured: int
    bytes: int | None
    text_bytes: int | None
    problem: str | None = None


def estimate(pool: Listing, probe: int = 8, policy: fetching.Policy | None = None) -> Estimate:
    """Sizes as listed; where they are not, those of `probe` shards (by seeded choice) scaled to all."""
    n = len(pool.entries)
    total, measured, problem = pool.bytes, n, None
    if total is None:
        chosen = sampling.sample(pool.entries, min(probe, n), 0, lambda e: e.name)
        sizes = []
        for entry in chosen:
            try:
                sizes.append(fetching.remote_size(entry.url, policy)[0])
            except FetchError as error:
                problem = problem or str(error)
        known = [s for s in sizes if s is not None]
        measured = len(known)
        total = round(sum(known) / measured * n) if known else None
    kind = pool.entries[0].format if n else "warc"
    plain = kind == "jsonl" and not pool.entries[0].name.endswith((".gz", ".zst"))
    factor = 0.9 if plain else TEXT_PER_BYTE.get(kind)
    text = round(total * factor) if total is not None and factor and pool.schema == "text" else None
    return Estimate(n, measured, total, text, problem)


def name_of(url: str, bases: Sequence[str] = ()) -> str:
    """A shard's name in a pool, of its URL: the path below one of `bases` (without `crawl-data/`), else host
    and path; the same whatever else is fetched with it."""
    for base in bases:
        below = url.removeprefix(base.rstrip("/") + "/")
        if below != url:
            return below.removeprefix("crawl-data/")
    if storage.is_local(url):
        return storage.local_path(url).lstrip("/")
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1].replace(":", "-")
    return f"{host}/{unquote(parts.path).lstrip('/')}"


def _has_images(shards: Sequence[Any]) -> bool:
    from curation.formats import FormatError, reader_schema

    if shards[0].format != "parquet":
        return False
    try:
        return "image" in reader_schema(shards[0]).names
    except FormatError:
        return False


def _relative(url: str, folder: str | None) -> str:
    if folder is None or not storage.is_local(url):
        return url
    path = storage.local_path(url)
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip("/") + "/") else path


def _absolute(url: str, place: str) -> str:
    if "://" in url or url.startswith("/"):
        return url
    if ".." in url.split("/"):
        raise ValueError(f"shard {url!r} is not below the listing")
    folder = (
        os.path.dirname(storage.local_path(place)) if storage.is_local(place) else place.rsplit("/", 1)[0]
    )
    return storage.join(folder, url)
