"""The pools of the DCLM benchmark by scale, from the path lists that its authors publish.

    from pools import dclm, listing
    pool = dclm.pool("1b-1x").sampled(10, seed=1)

Nothing of a pool is in this project but where its list is and what it should hold. Source of the figures: the
DCLM paper (arXiv 2406.11794, version 4) and the repository mlfoundations/dclm at the commit below.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from curation import storage
from curation.errors import suggest
from pools import fetch as fetching
from pools.common_crawl import base_url, read_lines
from pools.listing import Entry, Listing, of_urls
from pools.public_http import FetchError

COMMIT = "361714bdd60bb9b7f4b2d8354cebbf0dec0c329e"
LISTS = f"https://raw.githubusercontent.com/mlfoundations/dclm/{COMMIT}/data/competition_pools/"
KINDS = ("preextracted", "raw_warcs", "refinedweb")
TOKENS_PER_SHARD = 47e6  # GPT-NeoX tokens of the text extracted from one WARC
_S3 = "s3://commoncrawl/"
_REFINEDWEB = "contrib/datacomp/DCLM-refinedweb/global-shard_03_of_10/"


@dataclass(frozen=True)
class Scale:
    """One competition pool: tokens (GPT-NeoX, of the extracted text) and, where known, its lists' lines.

    `shards` and `sha256` are by kind of list; `refinedweb`: local shards of global shard 3 that make the
    pre-filtered pool of this scale (none for 400m-1x: it would be smaller than one).
    """

    name: str
    tokens: float
    refinedweb: tuple[int, ...]
    shards: tuple[tuple[str, int], ...] = ()
    sha256: tuple[tuple[str, str], ...] = ()

    @property
    def expected_shards(self) -> int:
        """About how many shards make the tokens."""
        return round(self.tokens / TOKENS_PER_SHARD)


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "400m-1x",
            469e9,  # the README's 137 billion is older than the list
            (),
            shards=(("preextracted", 10_306), ("raw_warcs", 10_364)),
            sha256=(
                ("preextracted", "158077ea183177110c174c26af4c7d7447d6df88c4efad326124c4fdd95fb977"),
                ("raw_warcs", "cf5ff94c6d965e009347fd8eebc05c78bacd3bece07b57c393e2600528b2821b"),
            ),
        ),
        Scale("1b-1x", 1.64e12, (1,)),
        Scale("3b-1x", 3.18e12, (1, 8)),
        Scale("7b-1x", 7.85e12, (1, 3, 6, 8, 9)),
        Scale("7b-2x", 15.7e12, tuple(range(10))),
    )
}


def scale(name: str) -> Scale:
    """A scale by name. ValueError names the nearest one."""
    if name not in SCALES:
        retired = " (1b-5x was retired for 3b-1x)" if name == "1b-5x" else ""
        raise ValueError(f"no DCLM pool {name!r}{retired}; {suggest(name, list(SCALES))}")
    return SCALES[name]


def pool(name: str, kind: str = "preextracted", source: str = "https", base: str | None = None) -> Listing:
    """The shards of a competition pool.

    `preextracted`: jsonl.gz of text that DCLM extracted (rows `text`, `metadata`, `warcinfo`); `raw_warcs`:
    the WARCs they are from; `refinedweb`: DCLM's own filtered and deduplicated rows (s3 only). `base` is a
    mirror in place of s3://commoncrawl/ (also WINNOW_CC_BASE), WINNOW_DCLM_LISTS one of the path lists.

    For 3b-1x only the list of WARCs is published; its pre-extracted shards are named after them by the rule
    that holds for all 10,306 of 400m-1x. About 0.6 % of WARCs have none.
    """
    chosen = scale(name)
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: {suggest(kind, KINDS)}")
    where = base_url(source, base)
    about = {"kind": "dclm", "scale": name, "format": kind, "place": where, "commit": COMMIT}
    if kind == "refinedweb":
        return _refinedweb(chosen, where, about)
    derived = kind == "preextracted" and name == "3b-1x"
    lines = _published(chosen, "raw_warcs" if derived else kind)
    if derived:
        lines = [preextracted_of(line) for line in lines]
        about["derived"] = "from the published list of WARCs"
    urls = []
    for line in lines:
        below = line.removeprefix(_S3)
        if below == line or ".." in below.split("/"):
            raise ValueError(f"the list of {name} names {line!r}, which is not in {_S3}")
        urls.append((where + below, below.removeprefix("contrib/datacomp/").removeprefix("crawl-data/")))
    return of_urls(urls, about)


def preextracted_of(warc: str) -> str:
    """The pre-extracted shard of a WARC in s3://commoncrawl/."""
    found = re.fullmatch(r"s3://commoncrawl/crawl-data/([^/]+)/segments/([^/]+)/warc/(.+)\.warc\.gz", warc)
    if not found:
        raise ValueError(f"{warc!r} is not a WARC of Common Crawl")
    return f"s3://commoncrawl/contrib/datacomp/DCLM-pool/crawl={found[1]}/{found[2]}/{found[3]}.jsonl.gz"


def _published(chosen: Scale, kind: str) -> list[str]:
    lists = os.environ.get("WINNOW_DCLM_LISTS") or LISTS
    place = storage.join(lists, kind, f"{chosen.name}.txt")
    digest = dict(chosen.sha256).get(kind) if lists == LISTS else None
    try:
        file = fetching.cached(place, sha256=digest, policy=fetching.Policy(file_bytes=256 << 20, tries=3))
    except FetchError as error:
        raise FetchError(
            error.kind,
            place,
            f"the path list of {chosen.name} cannot be had ({error.message}); take it from "
            "data/competition_pools/ of mlfoundations/dclm and set WINNOW_DCLM_LISTS to that folder",
        ) from error
    return read_lines(file, place)


def _refinedweb(chosen: Scale, where: str, about: dict[str, str]) -> Listing:
    if not chosen.refinedweb:
        raise ValueError(f"{chosen.name} has no refinedweb pool: it would be smaller than one local shard")
    if where.startswith("http"):
        raise ValueError("the refinedweb pools have no path list: list them in their store (`--from s3`)")
    entries = []
    for number in chosen.refinedweb:
        folder = f"{_REFINEDWEB}local-shard_{number}_of_10/"
        for file in storage.list_files(where + folder, suffixes=(".jsonl.zst", ".jsonl.gz", ".jsonl")):
            name = f"{folder.removeprefix('contrib/datacomp/')}{file.name}"
            entries.append(Entry(file.url, name, "jsonl", file.size, file.etag))
    return Listing(tuple(sorted(entries, key=lambda e: e.name)), "text", about)
