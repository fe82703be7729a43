"""`winnow pool`: where pools come from. Each sub-command is a few lines over the room `pools`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import PlanError

if TYPE_CHECKING:
    from pools.fetch import FetchError, Progress
    from pools.listing import Listing

EPILOG = """examples:
  winnow pool demo-text pool/                                   unpack the embedded text pool
  winnow pool common-crawl CC-MAIN-2024-22 pool/ --sample 3     three WARC shards of a crawl
  winnow pool common-crawl CC-MAIN-2024-22 --kind wet --dry-run how large all of its WET would be
  winnow pool common-crawl latest pool.json --from s3 --list-only --sample 100
  winnow pool dclm 1b-1x pool/ --shard 2/8                      the second of eight machines' part
  winnow pool list s3://bucket/crawl pool.json --sample 50      a listing to run on, or to fetch
  winnow pool describe pool/
"""


def add(commands: Any) -> None:
    """Add `pool` and its sub-commands to the sub-parsers of the command line."""
    top = commands.add_parser(
        "pool",
        help="get a pool: embedded, Common Crawl, DCLM's, a list of URLs; or list or describe any",
        description="Get a pool of shards, list one, or describe one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = top.add_subparsers(title="pools", metavar="POOL", required=True)

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = what.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    for name, text in (("demo-text", "3,385 web pages as WARC"), ("demo-image-text", "10,981 pairs as tars")):
        sub = command(name, _demo, f"unpack the embedded pool of {text}")
        sub.set_defaults(what=name)
        sub.add_argument("place", help="target folder")
        sub.add_argument("--shards", type=int, default=8, help="shards to unpack into (default: 8)")

    sub = command("describe", _describe, "print a pool's shards, size, format and columns")
    sub.add_argument("place", help="folder, glob, URL or listing (.json) of the pool")

    sub = command("common-crawl", _common_crawl, "fetch or list shards of a Common Crawl crawl")
    sub.add_argument("crawl", help="id, e.g. CC-MAIN-2024-22, or latest")
    sub.add_argument("--kind", choices=["warc", "wet"], default="warc", help="default: warc")
    _mirror(sub)
    _choose(sub)
    _take(sub)

    sub = command("warc-list", _warc_list, "fetch or list the shards that a file names, one a line")
    sub.add_argument("file", help="path or URL of the list, plain or gzip: URLs, or paths of Common Crawl")
    _mirror(sub)
    _choose(sub)
    _take(sub)

    sub = command("dclm", _dclm, "fetch or list a DCLM competition pool")
    sub.add_argument("scale", help="400m-1x, 1b-1x, 3b-1x, 7b-1x or 7b-2x")
    sub.add_argument("--kind", choices=["preextracted", "raw_warcs", "refinedweb"], default="preextracted",
                     help="text as DCLM extracted it, the WARCs it is from, or its filtered rows "
                     "(default: preextracted)")  # fmt: skip
    _mirror(sub)
    _choose(sub)
    _take(sub)

    sub = command("list", _list, "write the listing of any folder, glob or URL of shards")
    sub.add_argument("place", help="folder, glob or fsspec URL of jsonl, parquet, WARC, WET or tar shards")
    sub.add_argument("dest", nargs="?", help="listing file to write, e.g. pool.json (default: print URLs)")
    sub.add_argument("--out", dest="out", help="the same as DEST")
    sub.add_argument("--format", choices=["jsonl", "parquet", "warc", "wet", "wds"], help="where several lie")
    _choose(sub)

    sub = command("fetch", _fetch, "fetch the shards of a listing")
    sub.add_argument("listing", help="a listing file, as `winnow pool list` or --list-only writes it")
    _choose(sub)
    _take(sub)


def _mirror(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--from", dest="source", choices=["https", "s3"], default="https",
                     help="data.commoncrawl.org, or s3://commoncrawl (default: https)")  # fmt: skip
    sub.add_argument("--base", help="a mirror instead: folder or URL of the same layout (WINNOW_CC_BASE)")


def _choose(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--sample", type=int, metavar="N", help="only N shards, chosen by --seed")
    sub.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    sub.add_argument("--shard", metavar="I/N", help="of those, the I-th of N machines' part (1/N to N/N)")


def _take(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dest", nargs="?", help="folder for the shards; with --list-only the listing to write")
    sub.add_argument(
        "--list-only", action="store_true", help="write the listing, or print the URLs; fetch nothing"
    )
    sub.add_argument(
        "--dry-run", action="store_true", help="print shards, bytes, text and disk; fetch nothing"
    )
    sub.add_argument("--concurrency", type=int, default=4, metavar="N", help="files at once (default: 4)")
    sub.add_argument("--recheck", choices=["bytes", "source"],
                     help="files that are there: hash them again, or ask for newer ones")  # fmt: skip
    sub.add_argument("--missing-ok", type=float, default=0.0, metavar="SHARE",
                     help="share of shards that may be gone at the source (default: 0)")  # fmt: skip
    sub.add_argument("--quiet", action="store_true", help="no progress line")


# ---------------------------------------------------------------- sub-commands


def _demo(arguments: argparse.Namespace) -> None:
    from pools import demo_image_text, demo_text

    pool = demo_text if arguments.what == "demo-text" else demo_image_text
    print(pool.unpack(arguments.place, shards=arguments.shards))


def _describe(arguments: argparse.Namespace) -> None:
    from curation.formats import reader_schema
    from curation.shards import list_shards
    from pools import listing
    from pools.public_http import is_http

    if listing.is_listing(arguments.place):
        pool = listing.load(arguments.place)
        size = "size not known" if pool.bytes is None else f"{pool.bytes / 1e6:,.1f} MB"
        print(f"{len(pool.entries)} shards, {size}, {pool.entries[0].format}")
        if is_http(pool.entries[0].url):
            return  # its columns are known once it is fetched
        shards = list_shards(pool.entries[0].url)
    else:
        shards = list_shards(arguments.place)
        print(f"{len(shards)} shards, {sum(s.size for s in shards) / 1e6:,.1f} MB, {shards[0].format}")
    for column in reader_schema(shards[0], columns=None):
        print(f"  {column.name}: {column.type}")


def _common_crawl(arguments: argparse.Namespace) -> int:
    from pools import common_crawl

    _check(arguments)
    pool = common_crawl.crawl(arguments.crawl, arguments.kind, arguments.source, arguments.base)
    return _deliver(pool, arguments)


def _warc_list(arguments: argparse.Namespace) -> int:
    from pools import common_crawl

    _check(arguments)
    return _deliver(common_crawl.warc_list(arguments.file, arguments.source, arguments.base), arguments)


def _dclm(arguments: argparse.Namespace) -> int:
    from pools import dclm

    _check(arguments)
    pool = dclm.pool(arguments.scale, arguments.kind, arguments.source, arguments.base)
    if "derived" in pool.source:
        print(
            f"winnow: names {pool.source['derived']}; some may be missing, see --missing-ok", file=sys.stderr
        )
    return _deliver(pool, arguments)


def _fetch(arguments: argparse.Namespace) -> int:
    from pools import listing

    _check(arguments)
    return _deliver(listing.load(arguments.listing), arguments)


def _list(arguments: argparse.Namespace) -> None:
    from pools import listing

    pool = listing.of_place(arguments.place, arguments.format)
    _write(pool.sampled(arguments.sample, arguments.seed, arguments.shard), arguments.out or arguments.dest)


# ---------------------------------------------------------------- list, estimate, fetch


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is asked of a server."""
    if not (arguments.dest or arguments.list_only or arguments.dry_run):
        raise PlanError("where to? name a folder, or ask for --list-only or --dry-run")
    if arguments.concurrency < 1:
        raise PlanError(f"--concurrency {arguments.concurrency}: at least 1")


def _deliver(pool: Listing, arguments: argparse.Namespace) -> int:
    """What is asked for of a listing: the chosen shards listed, estimated, or fetched."""
    from pools import listing
    from pools.fetch import FetchFailed, Policy

    pool = pool.sampled(arguments.sample, arguments.seed, arguments.shard)
    if arguments.dry_run:
        _print_estimate(pool, arguments.dest)
        return 0
    if arguments.list_only:
        _write(pool, arguments.dest)
        return 0
    policy = Policy(concurrency=arguments.concurrency, per_host=arguments.concurrency)
    line = _Line(show=not arguments.quiet)
    try:
        report = listing.fetch(pool, arguments.dest, policy, arguments.recheck, line)
    except FetchFailed as error:
        line.end()
        report = error.report
        gone = [e for e in report.failed if e.kind in ("gone", "refused")]
        if len(gone) < len(report.failed) or len(gone) > arguments.missing_ok * len(pool.entries):
            raise
        _print_missing(gone)
    line.end()
    print(f"{report} → {arguments.dest}")
    return 0


def _print_missing(gone: list[FetchError]) -> None:
    for error in gone[:5]:
        print(f"winnow: missing: {error}", file=sys.stderr)
    print(f"winnow: {len(gone)} shards are missing at the source, as --missing-ok allows", file=sys.stderr)


def _write(pool: Listing, dest: str | None) -> None:
    if dest is None:
        for entry in pool.entries:
            print(entry.url)
        return
    if not dest.endswith(".json"):
        raise PlanError(f"{dest!r}: a listing is a .json file")
    pool.save(dest)
    size = "" if pool.bytes is None else f", {pool.bytes / 1e6:,.1f} MB"
    print(f"{len(pool.entries):,} shards{size} → {dest}")


def _print_estimate(pool: Listing, dest: str | None) -> None:
    from pools import listing

    found = listing.estimate(pool)
    of = pool.source.get("of_shards")
    print(f"shards  {found.shards:,} {pool.entries[0].format}" + (f" of {of:,}" if of else ""))
    if found.bytes is None:
        print(f"bytes   not known{f': {found.problem}' if found.problem else ''}")
    else:
        how = "as listed" if found.measured == found.shards and pool.bytes else f"{found.measured} measured"
        print(f"bytes   {_human(found.bytes)} ({how}, {_human(found.bytes / found.shards)} a shard)")
        if found.text_bytes is not None:
            factor = found.text_bytes / max(1, found.bytes)
            print(f"text    about {_human(found.text_bytes)} (rough: {factor:.1f} × the bytes)")
    place = next(
        p for p in (Path(dest or ".").absolute(), *Path(dest or ".").absolute().parents) if p.exists()
    )
    free = shutil.disk_usage(place).free
    fits = "" if found.bytes is None or found.bytes <= free else ": TOO LITTLE"
    print(f"disk    {_human(free)} free at {dest or '.'}{fits}")
    for entry in pool.entries[:3]:
        print(f"        {entry.url}")
    if found.shards > 3:
        print(f"        … and {found.shards - 3:,} more")


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


class _Line:
    """One live line on a terminal; nothing where it would fill a log."""

    def __init__(self, show: bool):
        self.show = show and sys.stderr.isatty()
        self.shown = False

    def __call__(self, progress: Progress) -> None:
        if self.show:
            print(f"\r\x1b[2K{progress.line()}", end="", file=sys.stderr, flush=True)
            self.shown = True

    def end(self) -> None:
        if self.shown:
            print(file=sys.stderr)
            self.shown = False
