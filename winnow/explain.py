"""`winnow explain`: what a recipe would do to a pool, or what it says about one page, rule by rule."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.variables import variables

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.steps import Read

PAGE_BYTES = 20 << 20  # of a page that is fetched or read
PAGE_SECONDS = 30.0
_HTML_NAMES = (".html", ".htm", ".xhtml")
_TEXT_NAMES = (".txt", ".md", ".text")
_TAG = re.compile(rb"<\s*(!doctype\s+html|html|head|body|div|p|table|title|script|meta)\b", re.IGNORECASE)
_ROW = re.compile(r"(?P<path>.+):(?P<number>\d+)")

HELP = "what a recipe would do to a pool, or what every step of it says about one page"
EPILOG = """without a page, the recipe is checked against the pool and printed; nothing is run.

with a page, every step runs on it without stopping at the first rule that drops it:
  winnow explain text/rules --url https://example.org/
  winnow explain text/rules --file page.html        (or page.txt)
  winnow explain text/rules --file pool/part-0.warc.gz:12       its 13th page; or --id ID
  winnow explain text/rules --pool pool/ --id ID    looked for in the pool
  winnow explain text/rules --text "Some text to try."
  some-command | winnow explain text/rules -        text or HTML from stdin
  … --run out/rules     also what that finished run stored, which decides barriers
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add `explain` to the sub-commands of the `winnow` parser."""
    sub: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help=HELP,
        description=HELP[0].upper() + HELP[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(run=explain)
    sub.add_argument(
        "recipe", help="a recipe file, or one of ours by name, e.g. text/rules (see `winnow recipes`)"
    )
    sub.add_argument("stdin", nargs="?", choices=["-"], help="-: a page from standard input")
    sub.add_argument("--pool", help="where the pool is: folder, glob or URL (fills ${pool})")
    sub.add_argument("--out", help="where the output goes (fills ${out})")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fill another ${NAME}")
    page = sub.add_argument_group("a page")
    page.add_argument("--url", help="fetch this page (public addresses only); with another page: its address")
    page.add_argument(
        "--file", metavar="FILE[:N]", help="an HTML or text file, or row N (from 0) of a shard: WARC, WET, "
        "jsonl, parquet"
    )  # fmt: skip
    page.add_argument("--text", help="this text")
    page.add_argument(
        "--id", help="the row with this id, of --file, else of --pool (with --run: found at once)"
    )
    page.add_argument("--part", type=int, default=0, metavar="K",
                      help="go on with row K when a step makes several of one (default: 0)")  # fmt: skip
    page.add_argument("--run", dest="run_dir", metavar="RUN", help="a finished run: show what it stored")
    show = sub.add_argument_group("how to show it")
    show.add_argument("--html", metavar="OUT", help="write a page that loads nothing from elsewhere")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.add_argument("--colour", choices=["auto", "always", "never"], default="auto")
    return sub


def explain(arguments: argparse.Namespace) -> None:
    """Run the command."""
    import baselines
    import curation as c

    values = variables(arguments)
    values["out"] = values["out"] or "OUT"
    recipe = baselines.find(arguments.recipe)
    if not any((arguments.url, arguments.file, arguments.text is not None, arguments.id, arguments.stdin)):
        for flag in ("run_dir", "html", "json"):
            if getattr(arguments, flag):
                name = "--run" if flag == "run_dir" else f"--{flag}"
                raise c.PlanError(f"{name} needs a page: --url, --file, --text, --id or -")
        c.explain(recipe.plan(**values))
        return
    values["pool"] = values["pool"] or "POOL"
    plan = recipe.plan(**values)
    row, came = _page(arguments, plan)
    trace = c.trace(plan, row, part=arguments.part, run=arguments.run_dir)
    if arguments.html:
        Path(arguments.html).write_text(trace.html(), encoding="utf-8")
    if arguments.json:
        print(json.dumps(trace.as_dict() | {"page": came}, ensure_ascii=False, indent=1))
        return
    print(f"page {came}")
    print(trace.text(_colour(arguments.colour), _width()), end="")
    if arguments.html:
        print(f"page: {arguments.html}")


def _colour(wanted: str) -> bool:
    if wanted != "auto":
        return wanted == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _width() -> int:
    import shutil

    return max(60, shutil.get_terminal_size((110, 40)).columns)


# ------------------------------------------------------------------------------------------- where pages are


def _page(arguments: argparse.Namespace, plan: list[Any]) -> tuple[Any, str]:
    """(row, where it came from, for people)."""
    from curation.errors import PlanError

    given = [n for n in ("file", "text", "stdin") if getattr(arguments, n) is not None]
    if len(given) > 1:
        raise PlanError(
            f"one page at a time: {' and '.join('-' if n == 'stdin' else '--' + n for n in given)}"
        )
    if arguments.text is not None:
        return _enter(arguments.text, arguments.url, plan, "from --text")
    if arguments.stdin:
        return _enter(_bytes(sys.stdin.buffer, "standard input"), arguments.url, plan, "from standard input")
    if arguments.file is not None:
        return _file(arguments.file, arguments.id, arguments.url, plan)
    if arguments.id is not None:
        return _from_pool(arguments.id, plan, arguments.run_dir)
    content, charset, kind, place = fetch_page(arguments.url)
    return _enter(content, place, plan, f"fetched from {place}", charset, kind)


def _file(name: str, row_id: str | None, url: str | None, plan: list[Any]) -> tuple[Any, str]:
    from curation.shards import format_of, list_shards

    match = None if os.path.exists(name) else _ROW.fullmatch(name)
    path, number = (match["path"], int(match["number"])) if match else (name, None)
    if format_of(path) is None:
        if number is not None or row_id is not None:
            raise ValueError(
                f"{path} is one page: a row number or an id is for shards (WARC, jsonl, parquet)"
            )
        with open(path, "rb") as file:
            data = _bytes(file, path)
        page: str | bytes = data
        if path.lower().endswith(_TEXT_NAMES):
            page = _decoded(data)
        return _enter(page, url, plan, f"from {path}", forced=path.lower().endswith(_HTML_NAMES))
    shards = list_shards(path)
    batch, at = _row(shards, number, row_id)
    return _into(batch, plan), f"{at} of {path}"


def _from_pool(row_id: str, plan: list[Any], run: str | None) -> tuple[Any, str]:
    from curation.plan import flatten
    from curation.shards import list_shards
    from curation.stored import shard_of

    read: Read = flatten(plan)[0]
    if read.url == "POOL":
        raise FileNotFoundError(f"--id {row_id}: say where it is, with --file SHARD or --pool POOL")
    shards = list_shards(list(read.url) if isinstance(read.url, tuple) else read.url, format=read.format)
    if run is not None:
        key = shard_of(run, row_id)
        shards = [s for s in shards if s.key == key] or shards
    batch, at = _row(shards, None, row_id)
    return _into(batch, plan), at


def _row(shards: list[Any], number: int | None, row_id: str | None) -> tuple[pa.RecordBatch, str]:
    """A row by number (over the shards' readable rows) or by id, and what to call it."""
    import pyarrow.compute as pc

    from curation.formats import pool_schema, read_batches

    schema, seen, bad = pool_schema(shards), 0, []
    for shard in shards:
        for batch in read_batches(shard, schema=schema, bad=bad.append):
            at = (number or 0) - seen
            if row_id is not None:
                at = pc.index(batch.column("id"), row_id).as_py()
            if 0 <= at < batch.num_rows:
                return batch.slice(at, 1), f"row {seen + at}, id {batch.column('id')[at]}"
            seen += batch.num_rows
    damaged = f", and {len(bad)} damaged records" if bad else ""
    wanted = f"no row with id {row_id!r}" if row_id is not None else f"no row {number or 0}"
    raise ValueError(f"{wanted}: there are {seen:,} rows{damaged} in {', '.join(s.url for s in shards[:3])}")


def _bytes(file: Any, name: str) -> bytes:
    data: bytes = file.read(PAGE_BYTES + 1)
    if len(data) > PAGE_BYTES:
        raise ValueError(f"{name} is larger than {PAGE_BYTES >> 20} MiB, which no page is")
    return data


# ------------------------------------------------------------------------------------ where they enter a plan


def _enter(
    page: str | bytes,
    url: str | None,
    plan: list[Any],
    came: str,
    charset: str | None = None,
    kind: str | None = None,
    forced: bool = False,
) -> tuple[Any, str]:
    """A bare page as a row for this plan: a text, or bytes for the extraction that the plan begins with."""
    row: dict[str, Any] = {"id": "page"} | ({"url": url} if url else {})
    if isinstance(page, bytes):
        if forced or kind is not None or _TAG.search(page[:4096]):
            kind = kind or "text/html"
            return _into(
                _arrow(row | {"content": page, "http_charset": charset, "content_type": kind}), plan
            ), came
        page = _decoded(page)
    return row | {"text": page}, came


def _arrow(row: dict[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    kinds = {"content": pa.binary()}
    return pa.RecordBatch.from_pydict({k: pa.array([v], kinds.get(k, pa.string())) for k, v in row.items()})


def _into(batch: pa.RecordBatch, plan: list[Any]) -> Any:
    """A row of HTML for a plan over text is extracted on the way, as the plan's pool must have been."""
    from curation.tracing import needs

    names = set(batch.schema.names)
    if "content" not in names or "text" in names or "text" not in needs(plan, names):
        return batch
    import curation as c
    from filters.text.extract import extract

    print("this plan is over text: the page was extracted first (filters.text:extract)", file=sys.stderr)
    found = c.trace([extract()], batch)
    if found.verdict == "dropped":
        raise ValueError(f"extraction finds no text in it (content type {found.row.get('content_type')!r})")
    if found.verdict == "quarantined":
        raise ValueError(f"extraction failed on it: {found.steps[0].note}")
    kept = batch.drop_columns(["content"]).to_pylist()[0]
    return kept | dict(found.steps[0].after)


def _decoded(data: bytes) -> str:
    from filters.text.extract import decode, mend

    return mend(decode(data)[0])


# --------------------------------------------------------------------------------------------------- fetching


def fetch_page(url: str) -> tuple[bytes, str | None, str | None, str]:
    """(body, charset, media type, final URL) of a page: public addresses only, at most PAGE_BYTES and about
    PAGE_SECONDS. OSError says what went wrong."""
    try:
        from pools.public_http import is_http, open_url
    except ImportError as error:
        raise RuntimeError(f"--url cannot fetch ({error}): save the page and give it with --file") from error
    if not is_http(url):
        raise ValueError(f"--url {url!r}: only http and https are fetched; give a file with --file")
    deadline = time.monotonic() + PAGE_SECONDS
    headers = {
        "Accept": "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.5",
        "Accept-Encoding": "gzip",
    }
    with open_url(url, headers=headers, timeout=10.0) as answer:
        data = bytearray()
        while block := answer.response.read1(1 << 16):
            data += block
            if len(data) > PAGE_BYTES:
                raise ValueError(f"{url}: larger than {PAGE_BYTES >> 20} MiB, which no page is")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}: not whole after {PAGE_SECONDS:.0f} s")
        body = bytes(data)
        if (answer.headers.get("Content-Encoding") or "").strip().lower() in ("gzip", "x-gzip"):
            body = _inflated(body, url)
        kind = answer.headers.get("Content-Type")
        charset = answer.headers.get_content_charset()
        return body, charset, kind.split(";", 1)[0].strip() if kind else "text/html", answer.url


def _inflated(data: bytes, url: str) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        body = inflate.decompress(data, PAGE_BYTES)
    except zlib.error as error:
        raise ValueError(f"{url}: the body is not the gzip that its header says ({error})") from None
    if inflate.unconsumed_tail:
        raise ValueError(f"{url}: inflates to more than {PAGE_BYTES >> 20} MiB, which no page does")
    return body
