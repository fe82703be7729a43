"""Text curation side by side with its peers: the same pages, one run, one thread, ratios.

    python bench/text.py                        # everything; real web pages if there, else the embedded pool
    python bench/text.py --pages 200            # quicker
    python bench/text.py --only families end    # some of: families extraction language url end

families    Gopher quality + Gopher repetition + FineWeb + C4, every score kept, against datatrove's four
            filters (as they are: they stop at the first rule that fails) and a loop that only calls str.split
extraction  WARC to text: our reader and Extract against a bare fastwarc + resiliparse loop
language    lid.176 on the start of the page and on all of it
url         URL words
end         whole runs, WARC in and shards out: recipe text/dclm_baseline (without a classifier) against
            extraction alone (two workers against one: bench/workers.py)

Seconds are CPU seconds of this process and its children, so that neighbours on a shared machine count as
little as can be. A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import os
import re
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

TURNS = 5
SECTIONS = ("families", "extraction", "language", "url", "end")
Rows = list[tuple[str, float | None, str]]


def load_pages(limit: int | None) -> tuple[str, list[bytes]]:
    """(where from, HTML of each page)."""
    shared = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data"))
    archive = shared / "web_pages" / "pages.tar.xz"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            pages = [tar.extractfile(member).read() for member in tar if member.isfile()]  # type: ignore[union-attr]
        return "real web pages (trafilatura's test set)", pages[:limit]
    return "embedded demo pool", pool_html()[:limit]


def pool_html() -> list[bytes]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = []
    for shard in pool_shards():
        with shard.open("rb") as file:
            records = ArchiveIterator(file, record_types=WarcRecordType.response)
            pages += [record.reader.read() for record in records]
    return pages


def pool_shards() -> list[Path]:
    from pools import demo_text

    return sorted(Path(demo_text.unpack()).rglob("*.warc.gz"))


def cpu() -> float:
    """CPU seconds so far of this process and its children: the ended ones and, on Linux, the living."""
    spent = os.times()
    total = spent.user + spent.system + spent.children_user + spent.children_system
    for listing in Path("/proc/self/task").glob("*/children"):
        for child in listing.read_text().split():
            try:
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended just now, and is counted above next time
                continue
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def seconds(work: Callable[[], Any], repeat: int, clock: Callable[[], float] = time.process_time) -> float:
    """Best of ``repeat``: the least disturbed run on a shared machine."""
    best = float("inf")
    for _ in range(repeat):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best


def table(rows: Rows, mega_bytes: float, ours: float, pages: int, unit: str = "CPU s") -> None:
    print(f"{'':44} {unit:>8} {'MB/s':>8} {'pages/s':>9} {'ours is':>9}")
    for name, spent, note in rows:
        if spent is None:
            print(f"{name:44} skipped: {note}")
        else:
            speed = f"{spent:8.3f} {mega_bytes / spent:8.2f} {pages / spent:9.0f}"
            print(f"{name:44} {speed} {spent / ours:8.2f}x")
    print()


# ------------------------------------------------------------------------------------------- four families


def datatrove_rows(texts: list[str]) -> dict[str, Callable[[], Any] | str]:
    """Name → work, or why it is skipped."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
            c4_filters,
            fineweb_quality_filter,
            gopher_quality_filter,
            gopher_repetition_filter,
        )
        from datatrove.utils.text import split_into_sentences, split_into_words
    except ImportError as error:
        return {"datatrove": f"not installed ({error})"}
    texts = [text for text in texts if text.split()]  # it divides by zero on the others
    with_words = (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter)
    rules = (GopherQualityFilter(), GopherRepetitionFilter(), FineWebQualityFilter(), C4QualityFilter())

    def four(words: Callable[..., list[str]], sentences: Callable[..., list[str]]) -> Callable[[], None]:
        def work() -> None:
            for module in with_words:
                module.split_into_words = words
            c4_filters.split_into_sentences = sentences
            for text in texts:
                for rule in rules:  # each on the page as it came; its words are cut once, in its own cache
                    rule.filter(Document(text=text, id=""))

        return work

    def split(text: str, language: str = "") -> list[str]:
        return text.split()

    end = re.compile(r"(?<=[.!?])\s+")

    def split_sentences(text: str, language: str = "") -> list[str]:
        return end.split(text)

    rows: dict[str, Callable[[], Any] | str] = {}
    try:
        split_into_words("warm up the tokeniser")
        rows["datatrove, its words and sentences (spaCy)"] = four(split_into_words, split_into_sentences)
    except ImportError as error:
        rows["datatrove, its words and sentences (spaCy)"] = f"not installed ({error})"
    rows["datatrove, words by str.split"] = four(split, split_sentences)
    return rows


def families(texts: list[str], repeat: int) -> None:
    from filters.text.c4 import c4_edit, c4_scores
    from filters.text.fineweb import fineweb_scores
    from filters.text.gopher import gopher_scores
    from filters.text.heuristics import text_scores

    column = pa.array(texts, pa.string())
    size = sum(len(text.encode()) for text in texts) / 1e6
    start = time.perf_counter()
    text_scores(column.slice(0, 1))
    c4_edit(column.slice(0, 1))
    print(f"first call {time.perf_counter() - start:.1f} s (compiling, or loading what was compiled)\n")

    print("Gopher quality + Gopher repetition + FineWeb + C4")
    ours = seconds(lambda: text_scores(column), repeat)
    rows: Rows = [("winnow, every score", ours, "")]
    for words, name in (("tokens", "punctuation marks as words"), ("whitespace", "white-space words")):
        rows.append((f"winnow, {name}", seconds(lambda w=words: text_scores(column, words=w), repeat), ""))
    for name, score in (
        ("winnow, only Gopher", gopher_scores),
        ("winnow, only FineWeb", fineweb_scores),
        ("winnow, only C4", c4_scores),
        ("winnow, C4's line edits", c4_edit),
    ):
        rows.append((name, seconds(lambda score=score: score(column), repeat), ""))
    for name, work in datatrove_rows(texts).items():
        rows.append((name, None, work) if isinstance(work, str) else (name, seconds(work, 1), ""))
    rows.append(("only str.split, nothing computed", seconds(lambda: [t.split() for t in texts], 3), ""))
    table(rows, size, ours, len(texts))


# ---------------------------------------------------------------------- extraction, language, URL words


def extraction(html: list[bytes]) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    import curation as c
    from filters.text.extract import extract

    print("Extraction, pages in memory (MB of HTML)")
    mega_bytes = sum(map(len, html)) / 1e6
    batch = pa.record_batch(
        {
            "id": [str(i) for i in range(len(html))],
            "content": pa.array(html, pa.binary()),
            "http_charset": pa.nulls(len(html), pa.string()),
            "content_type": ["text/html"] * len(html),
        }
    )

    def bare() -> None:
        for page in html:
            extract_plain_text(bytes_to_str(page, detect_encoding(page)), main_content=True)

    step = extract()
    step.setup()
    step(batch.slice(0, 100))  # starts what it needs to start
    spent = seconds(lambda: step(batch), 2, cpu)
    rows: Rows = [("winnow, extract", spent, ""), ("bare resiliparse loop", seconds(bare, 2), "")]
    table(rows, mega_bytes, spent, len(html))

    print("WARC to text, embedded pool (MB of HTML)")
    shards = pool_shards()
    total = [0, 0]

    def bare_warc() -> None:
        total[:] = [0, 0]
        for shard in shards:
            with shard.open("rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                    page = record.reader.read()
                    total[0] += 1
                    total[1] += len(page)
                    encoding = record.http_charset or detect_encoding(page)
                    extract_plain_text(bytes_to_str(page, encoding), main_content=True)

    def whole_run() -> None:
        with tempfile.TemporaryDirectory() as out:
            plan = [c.read(str(shards[0].parent)), extract(), c.write(out)]
            c.run(plan, on="local", workers=1, progress=False, funnel=False)

    whole_run()  # imports
    bare_spent = seconds(bare_warc, 2)
    spent = seconds(whole_run, 2, cpu)
    rows = [("winnow, a run: read, extract, write parquet", spent, "")]
    rows.append(("bare fastwarc + resiliparse loop", bare_spent, ""))
    table(rows, total[1] / 1e6, spent, total[0])


def languages(texts: list[str]) -> None:
    from filters.text.language import Language

    print("Language id, lid.176")
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    size = sum(len(text.encode()) for text in texts) / 1e6
    rows: Rows = []
    labels = {}
    names = {1000: "winnow, first 1,000 characters", 2000: "winnow, first 2,000", 0: "winnow, all"}
    try:
        for chars, name in names.items():
            lid = Language(max_chars=chars)
            lid.setup()
            rows.append((name, seconds(lambda lid=lid: lid(batch), 2), ""))
            labels[chars] = lid(batch)["language"].to_pylist()
    except (FileNotFoundError, ImportError) as error:
        print(f"skipped: {error}\n")
        return
    table(rows, size, rows[1][1] or 1.0, len(texts))
    for chars in (1000, 2000):
        same = sum(a == b for a, b in zip(labels[chars], labels[0], strict=True))
        print(f"{chars} characters give the label of the whole text on {same} of {len(texts)} pages")
    print()


def url() -> None:
    from filters.text.url import UrlWords

    print("URL words")
    step = UrlWords()
    step.setup()
    urls = [
        f"https://www.site{i % 997}.example/some-path/article_{i}/index.html?q=free" for i in range(100_000)
    ]
    spent = seconds(lambda: step(pa.record_batch({"url": urls})), 3)
    print(f"{len(urls) / spent:,.0f} URLs/s\n")


# ------------------------------------------------------------------------------------------- end to end


def make_warcs(html: list[bytes], folder: Path, shards: int = 8) -> Path:
    """The pages as WARC files, one gzip member a record, without record ids (so that copies are rows too)."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with (folder / f"{shard}.warc.gz").open("wb") as file:
            for i in range(shard, len(html), shards):
                block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html[i]
                head = (
                    f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://site{i}.example/page\r\n"
                    "Content-Type: application/http; msgtype=response\r\n"
                    f"Content-Length: {len(block)}\r\n\r\n"
                )
                file.write(gzip.compress(head.encode() + block + b"\r\n\r\n", 1))
    return folder


def end(html: list[bytes]) -> None:
    import baselines
    import curation as c
    from curation.errors import PlanError

    def run(recipe: Any, pool: Path) -> None:
        with tempfile.TemporaryDirectory() as out:
            plan = recipe.plan(pool=str(pool), out=out, classifier="none")
            c.run(plan, on="local", workers=1, progress=False, funnel=False)

    alone = baselines.find("text/no_filter")
    try:
        whole = baselines.find("text/dclm_baseline")
        steps = tuple(step for step in whole.raw_steps if not _is_classifier(step))
        whole = dataclasses.replace(whole, raw_steps=steps)
    except PlanError as error:
        print(f"End to end: skipped, {error}\n")
        whole = None

    embedded = pool_html()
    with tempfile.TemporaryDirectory() as work:
        # two files each: what a shard costs whatever its size must not decide, and a real one is 5 GB
        dense = make_warcs(embedded, Path(work) / "embedded", 2)
        pools = {"the embedded pool, which is dense in text": (dense, embedded)}
        if html:
            pools = {"the pages above, as WARC": (make_warcs(html, Path(work) / "pages", 2), html)} | pools
        for name, (folder, pages) in pools.items():
            if whole is None:
                break
            print(f"End to end on {name}, one worker (MB of HTML)")
            run(alone, folder)  # imports, and compiled code from its cache
            run(whole, folder)
            # in turns, so that a machine that grows slower slows both
            taken = [
                [seconds(lambda r=r, f=folder: run(r, f), 1, cpu) for r in (alone, whole)]
                for _ in range(TURNS)
            ]
            spent, filtered = (min(column) for column in zip(*taken, strict=True))
            rows: Rows = [("extraction alone (text/no_filter)", spent, "")]
            rows.append(("text/dclm_baseline", filtered, ""))
            table(rows, sum(map(len, pages)) / 1e6, spent, len(pages))
            middle = statistics.median(one / all_ for one, all_ in taken)
            print(
                f"all its filters: {middle:.0%} of the speed of extraction alone (median of {TURNS} turns)\n"
            )


def _is_classifier(step: Any) -> bool:
    """The steps that need trained weights: the quality classifier and the cut by its score."""
    name = step if isinstance(step, str) else next(iter(step))
    return "fasttext" in name or name in ("top_fraction", "threshold")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages")
    parser.add_argument("--repeat", type=int, default=5, help="runs of the fast rows; the best counts")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="these parts only")
    options = parser.parse_args()
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        sys.exit("bench/text.py needs resiliparse to extract text: pip install winnow-data[text]")
    from filters.text.extract import decode, mend

    source, html = "", []
    if set(options.only) != {"url"}:
        source, html = load_pages(options.pages)
        texts = [mend(extract_plain_text(decode(page)[0], main_content=True)) for page in html]
        size = sum(len(text.encode()) for text in texts) / 1e6
        mega_bytes = sum(map(len, html)) / 1e6
        print(f"{len(texts)} pages, {source}: {mega_bytes:.1f} MB of HTML, {size:.2f} MB of text\n")
    if "families" in options.only:
        families(texts, options.repeat)
    if "extraction" in options.only:
        extraction(html)
    if "language" in options.only:
        languages(texts)
    if "url" in options.only:
        url()
    if "end" in options.only:
        end(html if source.startswith("real") else [])


if __name__ == "__main__":
    main()
