"""Real pages for parity tests and benchmarks: text extracted from HTML, in many languages and scripts.

Three sources. The embedded pool is always there; the other two are measuring data that are not part of the
project: ``web_pages`` (trafilatura's test set) and the WARC files of ``commoncrawl_sample``, both looked for
under the environment's WINNOW_SHARED_DATA or in ``../shared/data`` beside the repository.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Page:
    source: str  # "pool", "web_pages" or "warc"
    name: str
    text: str


def pool_warcs() -> list[Path]:
    """The embedded pool's shards."""
    from pools import demo_text

    return sorted(Path(demo_text.unpack()).rglob("*.warc.gz"))


def warc_html(path: Path) -> Iterator[tuple[str, str | None, bytes]]:
    """(URL, charset of the HTTP header, body) of each HTML response of a WARC file."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            kind = (record.http_content_type or "").lower()
            if "html" in kind or not kind:
                yield record.headers.get("WARC-Target-URI", ""), record.http_charset, record.reader.read()


def web_pages_html() -> Iterator[tuple[str, str | None, bytes]]:
    """The same of ``web_pages``; nothing when it is not there."""
    archive = SHARED / "web_pages" / "pages.tar.xz"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    yield Path(member.name).name, None, tar.extractfile(member).read()


def html(source: str) -> Iterator[tuple[str, str | None, bytes]]:
    """Pages of one source, as bytes."""
    if source == "web_pages":
        yield from web_pages_html()
    else:
        folder = SHARED / "commoncrawl_sample"
        for path in pool_warcs() if source == "pool" else sorted(folder.glob("*.warc.gz")):
            yield from warc_html(path)


def load(source: str, every: int = 1, max_chars: int | None = None) -> list[Page]:
    """Each ``every``-th page of a source that has any text, its text cut after ``max_chars`` code points."""
    from resiliparse.extract.html2text import extract_plain_text

    from filters.text.extract import decode, mend

    pages = []
    for i, (name, charset, content) in enumerate(html(source)):
        if i % every == 0:
            text = mend(extract_plain_text(decode(content, charset)[0], main_content=True))[:max_chars]
            if text.split():  # datatrove's filters divide by zero on a page without a word
                pages.append(Page(source, name, text))
    return pages
