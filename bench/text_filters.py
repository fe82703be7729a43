"""Text filters side by side with their peers: the same pages, one process, one thread, one run.

    python bench/text_filters.py                # real web pages if there, else the embedded pool
    python bench/text_filters.py --pages 200    # quicker

Gopher quality and repetition with every score kept, against datatrove's two filters (as they are, which stop
at the first rule that fails; and with bounds that make them compute every rule, as ours always does) and
against the floor of any Python implementation, a bare loop over str.split. Then extraction, language id and
URL words.

Seconds are CPU seconds of this process, so that neighbours on a shared machine count as little as can be.
A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

from filters.text import Extract, Language, UrlWords, gopher_scores  # noqa: E402
from filters.text.extract import decode, mend  # noqa: E402


def load_pages(limit: int | None) -> tuple[str, list[bytes]]:
    """(where from, HTML of each page)."""
    shared = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data"))
    archive = shared / "web_pages" / "pages.tar.xz"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            pages = [tar.extractfile(member).read() for member in tar if member.isfile()]  # type: ignore[union-attr]
        return "real web pages (trafilatura's test set)", pages[:limit]
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    from pools import demo_text

    pages = []
    for shard in sorted(Path(demo_text.unpack()).rglob("*.warc.gz")):
        with shard.open("rb") as file:
            records = ArchiveIterator(file, record_types=WarcRecordType.response)
            pages += [record.reader.read() for record in records]
    return "embedded demo pool", pages[:limit]


def seconds(work: Callable[[], Any], repeat: int) -> float:
    """Best of ``repeat``: the least disturbed run on a shared machine."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def datatrove_rows(texts: list[str]) -> dict[str, Callable[[], Any] | str]:
    """Name → work, or why it is skipped."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            GopherQualityFilter,
            GopherRepetitionFilter,
            gopher_quality_filter,
            gopher_repetition_filter,
        )
        from datatrove.utils.text import split_into_words
    except ImportError as error:
        return {"datatrove": f"not installed ({error})"}
    texts = [text for text in texts if text.split()]  # it divides by zero on the others

    def both(split: Callable[..., list[str]], every: bool) -> Callable[[], None]:
        bounds: dict[str, Any] = {}
        repetition_bounds: dict[str, Any] = {}
        if every:  # bounds nothing fails, so that every rule is computed
            bounds = {"min_doc_words": 1e-9, "max_doc_words": 1e18, "min_avg_word_length": 1e-9}
            bounds |= {"max_avg_word_length": 1e18, "max_symbol_word_ratio": 1e18}
            bounds |= {"max_bullet_lines_ratio": 1e18, "max_ellipsis_lines_ratio": 1e18}
            bounds |= {"max_non_alpha_words_ratio": 1e-9, "min_stop_words": 1e-9}
            fractions = ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
            repetition_bounds = dict.fromkeys(fractions, 1e18)
            repetition_bounds["top_n_grams"] = tuple((n, 1e18) for n in (2, 3, 4))
            repetition_bounds["dup_n_grams"] = tuple((n, 1e18) for n in (5, 6, 7, 8, 9, 10))
        quality = GopherQualityFilter(**bounds)
        repetition = GopherRepetitionFilter(**repetition_bounds)

        def work() -> None:
            gopher_quality_filter.split_into_words = split
            gopher_repetition_filter.split_into_words = split
            for text in texts:
                document = Document(text=text, id="")
                quality.filter(document)
                repetition.filter(document)

        return work

    def cheap(text: str, language: str = "") -> list[str]:
        return text.split()

    rows: dict[str, Callable[[], Any] | str] = {}
    try:
        split_into_words("warm up the tokeniser")
        rows["datatrove, its words (spaCy)"] = both(split_into_words, every=False)
        rows["datatrove, its words, every rule"] = both(split_into_words, every=True)
    except ImportError as error:
        rows["datatrove, its words (spaCy)"] = f"not installed ({error})"
    rows["datatrove, words by str.split"] = both(cheap, every=False)
    rows["datatrove, str.split, every rule"] = both(cheap, every=True)
    return rows


def table(rows: list[tuple[str, float | None, str]], mega_bytes: float, ours: float, pages: int) -> None:
    print(f"{'':36} {'CPU s':>8} {'MB/s':>8} {'pages/s':>9} {'ours is':>9}")
    for name, spent, note in rows:
        if spent is None:
            print(f"{name:36} skipped: {note}")
        else:
            speed = f"{spent:8.3f} {mega_bytes / spent:8.2f} {pages / spent:9.0f}"
            print(f"{name:36} {speed} {spent / ours:8.1f}x")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages")
    parser.add_argument("--repeat", type=int, default=5, help="runs of the fast rows; the best counts")
    options = parser.parse_args()
    source, html = load_pages(options.pages)
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        sys.exit("bench/text_filters.py needs resiliparse to extract text: pip install winnow-data[text]")
    texts = [mend(extract_plain_text(decode(page)[0], main_content=True)) for page in html]
    column = pa.array(texts, pa.string())
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(
        f"{len(texts)} pages, {source}: {sum(map(len, html)) / 1e6:.1f} MB of HTML, {size:.2f} MB of text\n"
    )

    start = time.perf_counter()
    gopher_scores(column.slice(0, 1))
    spent = time.perf_counter() - start
    print(f"first call {spent:.1f} s (compiling, or loading what an earlier run compiled)\n")

    print("Gopher quality + repetition")
    ours = seconds(lambda: gopher_scores(column), options.repeat)
    rows: list[tuple[str, float | None, str]] = [("winnow, every score", ours, "")]
    for words, name in (
        ("tokens", "winnow, punctuation marks as words"),
        ("whitespace", "winnow, white-space words"),
    ):
        spent = seconds(lambda words=words: gopher_scores(column, words=words), options.repeat)
        rows.append((name, spent, ""))
    for name, work in datatrove_rows(texts).items():
        rows.append((name, None, work) if isinstance(work, str) else (name, seconds(work, 1), ""))
    rows.append(("only str.split, nothing computed", seconds(lambda: [t.split() for t in texts], 3), ""))
    table(rows, size, ours, len(texts))

    print("Extraction (MB of HTML)")
    mega_bytes = sum(map(len, html)) / 1e6
    batch = pa.record_batch(
        {
            "id": [str(i) for i in range(len(html))],
            "content": pa.array(html, pa.binary()),
            "http_charset": pa.nulls(len(html), pa.string()),
            "content_type": ["text/html"] * len(html),
        }
    )
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    def bare() -> None:
        for page in html:
            extract_plain_text(bytes_to_str(page, detect_encoding(page)), main_content=True)

    step = seconds(lambda: Extract()(batch), 2)
    rows = [("winnow, Extract", step, ""), ("bare resiliparse loop", seconds(bare, 2), "")]
    table(rows, mega_bytes, step, len(html))

    print("Language id, lid.176")
    rows = []
    labels = {}
    try:
        for name, chars in (
            ("winnow, first 1,000 characters", 1000),
            ("winnow, first 2,000", 2000),
            ("all", 0),
        ):
            lid = Language(max_chars=chars)
            lid.setup()
            rows.append((name, seconds(lambda lid=lid: lid(pa.record_batch({"text": column})), 2), ""))
            labels[chars] = lid(pa.record_batch({"text": column}))["language"].to_pylist()
        table(rows, size, rows[1][1] or 1.0, len(texts))
        for chars in (1000, 2000):
            same = sum(a == b for a, b in zip(labels[chars], labels[0], strict=True))
            print(f"{chars} characters give the label of the whole text on {same} of {len(texts)} pages")
        print()
    except (FileNotFoundError, ImportError) as error:
        print(f"skipped: {error}\n")

    print("URL words")
    step_url = UrlWords()
    step_url.setup()
    urls = [
        f"https://www.site{i % 997}.example/some-path/article_{i}/index.html?q=free" for i in range(100_000)
    ]
    spent = seconds(lambda: step_url(pa.record_batch({"url": urls})), 3)
    print(f"{len(urls) / spent:,.0f} URLs/s")


if __name__ == "__main__":
    main()
