"""Shards: which files (or parts of large files) a pool consists of. The unit of work, of retry, of resume."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash

from curation import storage
from curation.formats.common import FormatError

_COMPRESSED = ("", ".gz", ".zst", ".zstd")
#: format → file name suffixes it is known by
SUFFIXES: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "jsonl": tuple(s + c for s in (".jsonl", ".ndjson", ".json") for c in _COMPRESSED),
    "warc": (".warc", ".warc.gz"),
    "wet": (".wet", ".wet.gz"),
    "wds": (".tar", ".tar.gz", ".tgz"),
}
_NOT_DATA = ("_stats.json",)  # the downloader's completion records beside DataComp's tars


@dataclass(frozen=True)
class Shard:
    """One file of a pool, or one part of it.

    ``size`` is in bytes (of the part), ``name`` the path inside the pool, ``index`` the place in the
    listing, ``part`` None or ``groups:a-b`` (parquet row groups) or ``bytes:a-b`` (lines that begin in it).
    """

    url: str
    size: int
    etag: str
    format: str
    index: int
    part: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", storage.basename(self.url))

    @property
    def stem(self) -> str:
        """The file's name without the suffix of its format."""
        base = storage.basename(self.name)
        known = [s for s in SUFFIXES.get(self.format, ()) if base.endswith(s)]
        return base[: -len(max(known, key=len))] if known else base

    @property
    def key(self) -> str:
        """A name for what is made of this shard: the same wherever the pool lies, safe in any file system."""
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", self.stem).strip("-_")[:80] or "shard"
        digest = xxhash.xxh3_64_hexdigest(f"{self.name}\0{self.size}\0{self.part or ''}".encode())
        return f"{safe}-{digest[:10]}"


def format_of(name: str) -> str | None:
    """The format that a file name's suffix stands for."""
    if name.endswith(_NOT_DATA):
        return None
    return next((f for f, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def list_shards(
    url: str | Sequence[str], format: str | None = None, split_bytes: int | None = None
) -> list[Shard]:
    """The shards under a folder, a glob, a file, or a list of these, sorted by URL.

    The format is told by suffix; ``format`` chooses where several lie together (parquet files beside tars of
    the same names are DataComp's metadata and give way to the tars). With ``split_bytes``, parquet files and
    plain jsonl files larger than that become several shards. Raises FileNotFoundError for a listing without
    any shard, and FormatError for mixed formats or an unknown one.
    """
    if format is not None and format not in SUFFIXES:
        raise FormatError(f"unknown format {format!r}; there are: {', '.join(SUFFIXES)}")
    files = storage.list_files(url)
    named = [(f, format_of(f.name)) for f in files]
    if format is not None:
        # A single file named by the user may have any suffix; in a folder the suffix decides.
        single = isinstance(url, str) and [storage.basename(f.url) for f in files] == [storage.basename(url)]
        named = [(f, format) for f, found in named if found == format or (single and found is None)]
    named = [(f, found) for f, found in named if found is not None]
    if not named:
        looked = SUFFIXES if format is None else {format: SUFFIXES[format]}
        suffixes = " ".join(s for group in looked.values() for s in group)
        raise FileNotFoundError(f"no shards in {url!r}: {len(files)} files, none of them {suffixes}")
    formats = {found for _, found in named}
    if formats == {"wds", "parquet"}:
        tars = {f.name.rsplit(".tar", 1)[0] for f, found in named if found == "wds"}
        if all(f.name.removesuffix(".parquet") in tars for f, found in named if found == "parquet"):
            named = [(f, found) for f, found in named if found == "wds"]
            formats = {"wds"}
    if len(formats) > 1:
        counts = ", ".join(f"{sum(x == f for _, x in named)} {f}" for f in sorted(formats, key=str))
        raise FormatError(f"{url!r} holds several formats ({counts}): choose one with format=")
    shards = [Shard(f.url, f.size, f.etag, str(found), 0, None, f.name) for f, found in named]
    if split_bytes is not None:
        shards = [part for shard in shards for part in _split(shard, split_bytes)]
    shards = [replace(shard, index=i) for i, shard in enumerate(shards)]
    seen: dict[str, Shard] = {}
    for shard in shards:
        other = seen.setdefault(shard.key, shard)
        if other is not shard:
            raise FormatError(f"{other.url} and {shard.url} have one key ({shard.key}): rename one of them")
    return shards


def _split(shard: Shard, split_bytes: int) -> list[Shard]:
    if split_bytes < 1:
        raise ValueError(f"split_bytes must be at least 1, not {split_bytes}")
    if shard.size <= split_bytes:
        return [shard]
    if shard.format == "jsonl" and shard.url.endswith((".jsonl", ".ndjson", ".json")):
        count = -(-shard.size // split_bytes)
        borders = [shard.size * i // count for i in range(count + 1)]
        itertools.pairwise(borders)
        return [replace(shard, size=b - a, part=f"bytes:{a}-{b}") for a, b in itertools.pairwise(borders)]
    if shard.format == "parquet":
        from curation.formats import parquet

        try:
            groups = parquet.row_groups(shard.url, shard.size)
        except FormatError:
            return [shard]  # the reader will quarantine it
        parts, start, held = [], 0, 0
        for i, size in enumerate(groups):
            held += size
            if held >= split_bytes or i == len(groups) - 1:
                parts.append(replace(shard, size=held, part=f"groups:{start}-{i + 1}"))
                start, held = i + 1, 0
        return parts if len(parts) > 1 else [shard]
    return [shard]
