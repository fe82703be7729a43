"""Extraction side by side with its peers: the same files, one process, one thread, one run.

    python bench/extraction.py              # both tables
    python bench/extraction.py speed        # WARC → text beside a bare fastwarc + resiliparse loop
    python bench/extraction.py quality      # gold segments of 990 real pages (some minutes: trafilatura)
    python bench/extraction.py memory       # a worker's memory on pages of 20 and 50 MB

Seconds are CPU seconds of this process and its children; the loops take turns, each ratio is of one turn, and
the median of the turns is printed. The bare loops keep no URL, guard against no page and quarantine nothing.
One takes every page for UTF-8 and replaces what is not (the cheapest, and wrong for pages that are not), the
other asks resiliparse for the charset.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

import pyarrow as pa  # noqa: E402
from gold import Confusion, gold_pages  # noqa: E402
from pages import pool_warcs, web_pages_html  # noqa: E402

from curation.formats import open_writer, read_batches  # noqa: E402
from curation.shards import list_shards  # noqa: E402
from filters.text import child  # noqa: E402
from filters.text.extract import Extract  # noqa: E402


def cpu() -> float:
    """CPU seconds of this process, of its children that have ended, and of the child that extracts."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = child.pid()
    clock = 0.0 if alive is None else time.clock_gettime((~alive << 3) | 2)  # Linux: CPU clock of a process
    return sum(usage.ru_utime + usage.ru_stime for usage in used) + clock


# --------------------------------------------------------------------------------------------------- speed


def packed(folder: str) -> list[Path]:
    """The real web pages as a .warc.gz; nothing when they are not there."""
    rows = [
        {"id": name, "url": f"https://example.org/{name}", "content_type": "text/html", "content": content}
        for name, _, content in web_pages_html()
    ]
    if not rows:
        return []
    path = Path(folder) / "pages.warc.gz"
    table = pa.Table.from_pylist(rows)
    with path.open("wb") as file:
        writer = open_writer(file, "warc.gz", table.schema)
        for batch in table.to_batches(max_chunksize=64):
            writer.write(batch)
        writer.close()
    return [path]


def bare_loop(files: list[Path], detect: bool = False) -> tuple[int, int]:
    """fastwarc and resiliparse and nothing else; with ``detect``, the charset is resiliparse's guess instead
    of UTF-8."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    pages = characters = 0
    for path in files:
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                body = record.reader.read()
                html = (
                    bytes_to_str(body, detect_encoding(body)) if detect else body.decode("utf-8", "replace")
                )
                characters += len(extract_plain_text(html, main_content=True))
                pages += 1
    return pages, characters


def bare_read(files: list[Path]) -> tuple[int, int]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = size = 0
    for path in files:
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                size += len(record.reader.read())
                pages += 1
    return pages, size


def refuse(bad: Any) -> None:
    raise RuntimeError(f"{bad.source}: {bad.error}")  # these files are sound


def winnow_read(files: list[Path]) -> tuple[int, int]:
    pages = size = 0
    for shard in list_shards([str(path) for path in files]):
        for batch in read_batches(shard, bad=refuse):
            pages += batch.num_rows
            size += batch.column("content").nbytes
    return pages, size


def winnow(files: list[Path]) -> tuple[int, int]:
    step = Extract()
    pages = size = 0
    for shard in list_shards([str(path) for path in files]):
        for batch in read_batches(shard, bad=refuse):
            out, _ = step(batch)
            pages += out.num_rows
            size += out.column("text").nbytes
    return pages, size


LOOPS = {"fastwarc": bare_read, "winnow read": winnow_read, "bare loop": bare_loop, "winnow": winnow}
PEERS = {"fastwarc": "", "winnow read": "fastwarc", "bare loop": "", "winnow": "bare loop"}


LOOPS: dict[str, Callable[[list[Path]], Any]] = {
    "fastwarc": bare_read,
    "winnow read": winnow_read,
    "bare loop, UTF-8": bare_loop,
    "bare loop, detected": lambda files: bare_loop(files, detect=True),
    "winnow": winnow,
}
PEERS = (
    ("fastwarc", ""),
    ("winnow read", "fastwarc"),
    ("bare loop, UTF-8", ""),
    ("bare loop, detected", ""),
    ("winnow", "bare loop, UTF-8"),
    ("winnow", "bare loop, detected"),
)


def turns(files: list[Path], n: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in LOOPS}
    for turn in range(n + 1):
        for name, loop in LOOPS.items():
            before = cpu()
            loop(files)
            if turn:  # the first imports libraries and fills caches
                taken[name].append(cpu() - before)
    return taken


def speed(n: int) -> None:
    print("| files | loop | s (median) | MB/s of HTML | times its peer |")
    print("|--|--|--|--|--|")
    with tempfile.TemporaryDirectory() as folder:
        for name, files in (("embedded pool", pool_warcs()), ("real web pages", packed(folder))):
            if not files:
                print(f"| {name} | not there: set WINNOW_SHARED_DATA | | | |")
                continue
            pages, size = bare_read(files)
            about = f"{name}: {pages} pages, {size / 1e6:.0f} MB"
            taken = turns(files, n)
            for loop, peer in PEERS:
                middle = statistics.median(taken[loop])
                ratios = [a / b for a, b in zip(taken[loop], taken[peer or loop], strict=True)]
                shown = f"{statistics.median(ratios):.3f} × {peer}" if peer else ""
                rate = size / 1e6 / middle
                print(f"| {about} | {loop} | {middle:.3f} | {rate:.0f} | {shown} |", flush=True)


# ------------------------------------------------------------------------------------------------- quality


def step_text(step: Extract) -> Callable[[bytes], str | None]:
    def text_of(content: bytes) -> str | None:
        try:
            out, _ = step(one(content))
        except (child.DeadlineError, child.ChildDiedError, child.ExtractorError):
            return None
        return out.column("text")[0].as_py() if out.num_rows else None

    return text_of


def one(content: bytes, kind: str = "text/html") -> pa.RecordBatch:
    return pa.record_batch(
        {
            "id": ["x"],
            "content": pa.array([content], pa.binary()),
            "http_charset": pa.array([None], pa.string()),
            "content_type": [kind],
        }
    )


def bare_resiliparse(decode: Callable[[bytes], str]) -> Callable[[bytes], str | None]:
    from resiliparse.extract.html2text import extract_plain_text

    def text_of(content: bytes) -> str | None:
        try:
            return extract_plain_text(decode(content), main_content=True)
        except UnicodeDecodeError:
            return None

    return text_of


def quality(every: int) -> None:
    import trafilatura
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    pages = list(gold_pages(every))
    if not pages:
        print("no gold segments: set WINNOW_SHARED_DATA")
        return
    systems: dict[str, Callable[[bytes], str | None]] = {
        "winnow (resiliparse)": step_text(Extract()),
        "bare resiliparse, strict UTF-8 (DCLM)": bare_resiliparse(bytes.decode),
        "bare resiliparse, detected charset": bare_resiliparse(
            lambda content: bytes_to_str(content, detect_encoding(content))
        ),
        "winnow, main_content=False": step_text(Extract(main_content=False)),
        "winnow, trafilatura": step_text(Extract(extractor="trafilatura")),
        "winnow, trafilatura:precision": step_text(Extract(extractor="trafilatura:precision")),
        "winnow, trafilatura:recall": step_text(Extract(extractor="trafilatura:recall")),
        "bare trafilatura": lambda content: trafilatura.extract(content, include_comments=False),
        "winnow, justext": step_text(Extract(extractor="justext")),
    }
    print(f"{len(pages)} pages, {sum(len(p.wanted) + len(p.unwanted) for p in pages)} segments\n")
    print("| extractor | precision | recall | F1 | accuracy | pages without text | CPU s | MB/s |")
    print("|--|--|--|--|--|--|--|--|")
    size = sum(len(page.content) for page in pages) / 1e6
    for name, text_of in systems.items():
        text_of(pages[0].content)  # imports libraries
        child.close()  # its CPU time counts once it has ended
        confusion, before = Confusion(), cpu()
        texts = [text_of(page.content) for page in pages]
        child.close()
        seconds = cpu() - before
        for page, text in zip(pages, texts, strict=True):
            confusion.add(page, text)
        print(
            f"| {name} | {confusion.precision:.3f} | {confusion.recall:.3f} | {confusion.f1:.3f} "
            f"| {confusion.accuracy:.3f} | {confusion.lost} | {seconds:.1f} | {size / seconds:.1f} |",
            flush=True,
        )


# -------------------------------------------------------------------------------------------------- memory

SENTENCE = (
    b"The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village. "
)
LARGE: dict[str, Callable[[], tuple[bytes, str]]] = {
    "ordinary page": lambda: (b"<html><body><p>" + SENTENCE * 20, "text/html"),
    "20 MB of HTML": lambda: (b"<html><body>" + (b"<p>" + SENTENCE + b"</p>\n") * 185_000, "text/html"),
    "50 MB of HTML": lambda: (b"<html><body>" + (b"<p>" + SENTENCE + b"</p>\n") * 462_000, "text/html"),
    "50 MB in one line": lambda: (b"word " * 10_000_000, "text/plain"),
    "10,000 nested div": lambda: (b"<html><body>" + b"<div>" * 10_000 + b"x", "text/html"),
    "100,000 nested div": lambda: (b"<html><body>" + b"<div>" * 100_000 + b"x", "text/html"),
    "100,000 nested span": lambda: (b"<html><body>" + b"<span>" * 100_000 + b"x", "text/html"),
    "60,000 nested lists": lambda: (b"<html><body>" + b"<ol><li>x" * 60_000, "text/html"),
}


def memory() -> None:
    print("| page | became | clock s | worker MB | child MB |")
    print("|--|--|--|--|--|")
    for name in LARGE:
        command = [sys.executable, str(Path(__file__).resolve()), "memory", "--one", name]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(), flush=True)


def one_page(name: str) -> None:
    content, kind = LARGE[name]()
    batch = one(content, kind)
    del content
    began = time.perf_counter()
    try:
        out, _ = Extract()(batch)
        became = f"{out.column('text').nbytes:,} bytes of text"
    except (child.DeadlineError, child.ChildDiedError, child.ExtractorError) as error:
        became = f"quarantined: {type(error).__name__}: {str(error)[:60]} …"
    seconds = time.perf_counter() - began
    child.close()
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(f"| {name} | {became} | {seconds:.1f} | {peaks[0]:.0f} | {peaks[1]:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("speed", "quality", "memory"))
    parser.add_argument("--turns", type=int, default=5, help="times that each loop runs")
    parser.add_argument("--every", type=int, default=1, help="each n-th page of the gold set")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_page(arguments.one)
        return
    if arguments.what in (None, "speed"):
        speed(arguments.turns)
    if arguments.what in (None, "quality"):
        quality(arguments.every)
    if arguments.what in (None, "memory"):
        memory()


if __name__ == "__main__":
    main()
