"""URL words, domain lists and personal data side by side with datatrove: the same rows, one thread, one run.

    python bench/urls.py                     # URLs linked from the embedded pool's pages
    python bench/urls.py --domains FILE      # look domains up in a list of yours

datatrove's URLFilter gets the same lists and none of its own; its PIIFormatter gets the same pages. Without
--domains the list that datatrove's package carries is used (4.5 million domains), else a made-up one of
1 million. Seconds are CPU seconds of this process. A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import random
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

from filters.text import url_lists  # noqa: E402
from filters.text.pii import MaskPii, PiiCounts  # noqa: E402
from filters.text.url import LISTS, UrlBlocklist, UrlWords, read_list  # noqa: E402


def pool() -> tuple[list[str], list[str]]:
    """(URLs that the embedded pool's pages link to, texts of the pages)."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    from pools import demo_text

    urls, texts = [], []
    link = re.compile(rb"""["'](https?://[^"'<>\s]{4,500})["']""")
    for shard in sorted(Path(demo_text.unpack()).rglob("*.warc.gz")):
        with shard.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                content = record.reader.read()
                urls.append(record.headers.get("WARC-Target-URI", ""))
                urls += [match.decode("utf-8", "replace") for match in link.findall(content)]
                texts.append(extract_plain_text(content.decode("utf-8", "replace")))
    return urls, texts


@contextlib.contextmanager
def domain_list(given: str | None) -> Iterator[tuple[str, str]]:
    """(what it is, path of a file with one domain a line)."""
    if given:
        yield given, given
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "domains"
        found = importlib.util.find_spec("datatrove")
        for package in (found.submodule_search_locations or ()) if found else ():
            for archive in Path(package).glob("assets/url_filterblacklists*.tar.gz"):
                with tarfile.open(archive) as tar:
                    place.write_bytes(tar.extractfile("domains").read())  # type: ignore[union-attr]
                yield "the list in datatrove's package", str(place)
                return
        place.write_text("\n".join(f"host{i}.example{i % 97}.com" for i in range(1_000_000)))
        yield "made up", str(place)


def seconds(work: Callable[[], Any], repeat: int = 5) -> float:
    """Best of ``repeat``: the least disturbed run on a shared machine."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def repeated(rows: list[str], at_least: int) -> list[str]:
    return (rows * (at_least // len(rows) + 1))[: max(at_least, len(rows))]


def line(name: str, rows: float, spent: float, unit: str, ours: float | None = None) -> None:
    ratio = f"   ours is {ours / (rows / spent):,.0f}x" if ours else ""
    print(f"  {name:44} {rows / spent:12,.0f} {unit}/s{ratio}")


def url_filter(**lists: Any) -> Any:
    """datatrove's filter with these lists only, never asking the network; or why there is none."""
    try:
        import tldextract
        from datatrove.pipeline.filters import URLFilter

        peer = URLFilter(use_integrated_lists=False, **lists)
    except ImportError as error:
        needs = "datatrove, tldextract, pyahocorasick and fasteners are needed"
        return f"skipped: {str(error).splitlines()[0]} ({needs})"
    peer.tldextractor = tldextract.TLDExtract(suffix_list_urls=())
    return peer


def run_filter(peer: Any, urls: list[str]) -> Callable[[], int]:
    from datatrove.data import Document

    documents = [Document(text="", id="", metadata={"url": url}) for url in urls]
    return lambda: sum(peer.filter(document) is not True for document in documents)


def bench_words(urls: list[str], few: list[str]) -> None:
    print("words: strict, hard and soft lists, every count and the word that hit")
    step = UrlWords()
    step.setup()
    batch = pa.record_batch({"url": urls})
    step(batch)
    spent = seconds(lambda: step(batch))
    ours = len(urls) / spent
    line("winnow, url_words", len(urls), spent, "URLs")
    lists = [read_list(LISTS / f"url_{name}.txt") for name in ("hard", "soft", "strict")]
    peer = url_filter(banned_words=lists[0], soft_banned_words=lists[1], banned_subwords=lists[2])
    if isinstance(peer, str):
        print(f"  datatrove, URLFilter with the same words: {peer}")
        return
    work = run_filter(peer, few)
    work()
    line("datatrove, URLFilter with the same words", len(few), seconds(work, 1), "URLs", ours)


def bench_domains(urls: list[str], few: list[str], given: str | None) -> None:
    with domain_list(given) as (name, place):
        start = time.process_time()
        step = UrlBlocklist(domains=place)
        step.setup()
        table = step._domains  # type: ignore[attr-defined]
        size = (table.keys.nbytes + table.sets.nbytes) / 1e6
        print(f"domains: {table.n_entries:,} entries ({name}), {size:.0f} MB,", end=" ")
        print(f"loaded in {time.process_time() - start:.1f} CPU s")
        exact = url_lists.domain_table(place, "exact")
        column = pa.array(urls)
        spent = seconds(lambda: table.find(column))
        ours = len(urls) / spent
        line("winnow, with parent domains", len(urls), spent, "URLs")
        line("winnow, exact", len(urls), seconds(lambda: exact.find(column)), "URLs")
        # every URL on the list and no two alike: each look-up waits for memory
        with open(place, encoding="utf-8") as file:
            names = file.read().split()
        listed = [f"https://{name}/a/page.html" for name in random.Random(0).sample(names, 200_000)]
        del names
        column = pa.array(listed)
        spent = seconds(lambda: table.find(column))
        line("winnow, with parent domains, all listed", len(listed), spent, "URLs")
        few = few + listed[: len(few) // 10]
        hits = int((table.find(pa.array(few))[0] != 0).sum())
        start = time.process_time()
        with open(place, encoding="utf-8") as file:
            peer = url_filter(extra_domains=file)
        if isinstance(peer, str):
            print(f"  datatrove, URLFilter with the same domains: {peer}")
            return
        load = time.process_time() - start
        work = run_filter(peer, few)
        theirs = work()
        label = f"datatrove, URLFilter ({load:.1f} s to load)"
        line(label, len(few), seconds(work, 1), "URLs", ours)
        print(f"  of {len(few):,} URLs {hits:,} are listed here and {theirs:,} there (the whole host")
        print("  and the registered domain are looked up there, every parent here)")


def bench_pii(texts: list[str]) -> None:
    batch = pa.record_batch({"text": texts})
    size = batch["text"].nbytes / 1e6
    print(f"personal data: {len(texts):,} pages, {size:.1f} MB of text (MB/s)")
    steps = {
        "winnow, mask_pii (e-mail, IP, phone)": MaskPii(),
        "winnow, mask_pii (e-mail, IPv4 and IPv6)": MaskPii(phones=False),
        "winnow, pii_counts": PiiCounts(),
    }
    ours = 0.0
    for name, step in steps.items():
        step(batch)
        spent = seconds(lambda step=step: step(batch))
        ours = size / spent if "IPv6" in name else ours
        line(name, size, spent, "MB")
    try:
        from datatrove.pipeline.formatters.pii import PIIFormatter
    except ImportError as error:
        print(f"  datatrove, PIIFormatter: skipped: {error}")
        return
    peer = PIIFormatter()
    line(
        "datatrove, PIIFormatter (e-mail, IPv4)",
        size,
        seconds(lambda: [peer.format(t) for t in texts], 1),
        "MB",
        ours,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", help="file with one domain a line")
    parser.add_argument("--peer-urls", type=int, default=20_000, help="URLs that the peer gets; it is slow")
    options = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        found, texts = pool()
    urls = repeated(found, 500_000)
    few = urls[:: max(1, len(found) // options.peer_urls)][: options.peer_urls]
    mean = sum(map(len, found)) / len(found)
    different = len(set(found))
    print(f"{len(found):,} URLs of the pool's pages, {different:,} different, mean length {mean:.0f}\n")
    bench_words(urls, few)
    print()
    bench_domains(urls, few, options.domains)
    print()
    bench_pii(texts)


if __name__ == "__main__":
    main()
