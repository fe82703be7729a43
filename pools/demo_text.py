"""The embedded text pool: real WARC shards to curate, a trusted slice, and held-out prose to evaluate on.

    from pools import demo_text
    pool = demo_text.unpack()                   # a folder with 8 .warc.gz shards
    positives = demo_text.trusted()             # clean pages, for a quality classifier
    prose = demo_text.heldout("evaluation")     # paragraphs that neither of the two contains

Where everything comes from, and under which licence, is in `pools/data/text/SOURCES.md`; what each page of
the pool really is (prose, spam, a mirror, …) is `truth()`, kept apart so that no filter reads it by chance.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

DATA = Path(__file__).parent / "data" / "text"
SPLITS = ("validation", "evaluation")


def unpack(cache_dir: str | Path | None = None, shards: int = 8) -> Path:
    """Expands the pool into `shards` real `.warc.gz` files, once, and returns their folder.

    One gzip member a record, no time stamps: the same bytes whenever it runs (with the same zlib). Records
    are dealt out in the order of a hash of their URL. The folder lies below `cache_dir`, which is the
    environment's WINNOW_CACHE or `~/.cache/winnow` unless given. It appears whole or not at all, and one that
    was changed since is made again. Raises ValueError when the packed pool in the package is damaged.
    """
    from pools.text import records

    packed = (DATA / "pool.warc.xz").read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    expected = (DATA / "pool.warc.xz.sha256").read_text().strip()
    if digest != expected:
        raise ValueError(
            f"{DATA / 'pool.warc.xz'} has sha256 {digest[:16]}…, not {expected[:16]}…: install Winnow again"
        )
    root = Path(cache_dir or os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")
    folder = root / f"text-pool-{digest[:12]}-{shards}"
    sums = root / f"{folder.name}.sha256"
    if _intact(folder, sums):
        return folder

    dealt = records.shards(records.split(lzma.decompress(packed)), shards)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary) / "pool"
        made.mkdir()
        lines = []
        with ThreadPoolExecutor(2) as pool:  # zlib works outside the interpreter's lock
            for number, shard in enumerate(pool.map(_pack, dealt)):
                name = f"part-{number:05d}.warc.gz"
                (made / name).write_bytes(shard)
                lines.append(f"{hashlib.sha256(shard).hexdigest()}  {name}\n")
        listing = Path(temporary) / "sums"
        listing.write_text("".join(lines))
        if folder.exists() and not _intact(folder, sums):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:  # another process was first; its folder holds the same bytes
            if not folder.is_dir():
                raise
        listing.replace(sums)
    return folder


def trusted() -> list[dict]:
    """About 200 clean prose pages as rows `id, source, licence, text` (the full extracted text).

    Positives for a quality classifier, and what the tokenizer is trained on. Disjoint from the pool and
    from the held-out rows, by document and by near-duplicate.
    """
    return _rows("trusted.jsonl.xz")


def heldout(split: str) -> list[dict]:
    """Held-out prose as rows `id, split, source, licence, text`; paragraphs are parted by an empty line.

    `split` is "validation" (settings are fixed on it) or "evaluation" (scores are reported on it).
    """
    if split not in SPLITS:
        raise ValueError(f"no held-out split {split!r}; there are {' and '.join(SPLITS)}")
    return [row for row in _rows("heldout.jsonl.xz") if row["split"] == split]


def truth() -> pa.Table:
    """What each record of the pool really is; one row a record, sorted by `url`.

    Columns: url, record_id, class (prose, api, changelog, nav, code, other_language, untranslated, mirror,
    boilerplate, spam_*), group (the same for pages that are copies by construction, null for single pages),
    copy_of (URL), source, licence (SPDX), language, charset (of the bytes), header_charset (null: the server
    did not say), html_bytes. For measuring filters, never for filtering.
    """
    import pyarrow as pa

    columns = {
        name: pa.int64() if name == "html_bytes" else pa.string()
        for name in (
            "url", "record_id", "class", "group", "copy_of", "source", "licence", "language", "charset",
            "header_charset", "html_bytes",
        )
    }  # fmt: skip
    return pa.Table.from_pylist(_rows("truth.jsonl.xz"), schema=pa.schema(columns))


def _pack(shard: list[memoryview]) -> bytes:
    from pools.text import records

    return b"".join(records.member(record) for record in shard)


def _intact(folder: Path, sums: Path) -> bool:
    if not (folder.is_dir() and sums.is_file()):
        return False
    listed = [line.split("  ") for line in sums.read_text().splitlines()]
    if sorted(name for _, name in listed) != sorted(path.name for path in folder.iterdir()):
        return False
    return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for digest, name in listed)


def _rows(name: str) -> list[dict]:
    with lzma.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
