"""The embedded text pool: real WARC shards to curate, a trusted slice, and held-out prose to evaluate on.

    from pools import demo_text
    pool = demo_text.unpack()                   # a folder with 8 .warc.gz shards
    positives = demo_text.trusted()             # clean pages, for a quality classifier
    prose = demo_text.heldout("evaluation")     # paragraphs that neither of the two contains

Where everything comes from, and under which licence, is in `pools/data/text/SOURCES.md`; what each page of
the pool really is (prose, spam, a mirror, …) is `truth()`, kept apart so that no filter reads it by chance.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

DATA = Path(__file__).parent / "data" / "text"
SPLITS = ("validation", "evaluation")


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


def _rows(name: str) -> list[dict]:
    with lzma.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
