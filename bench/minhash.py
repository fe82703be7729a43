"""MinHash signatures beside datatrove's: the same pages, one process, one thread, one run.

    python bench/minhash.py                 # real web pages if there, else the embedded pool
    python bench/minhash.py --pages 200     # quicker

Timed are the steps from text to band hashes (5-word shingles, 14 bands of 8 rows): for datatrove
`MinhashDedupSignature.get_shingles` and `get_signature`, with its own words (spaCy) and with str.split in
their place. Then the other hashes that every row of a pool passes through. Seconds are CPU seconds; the best
of several runs counts for ours, a single run for a peer. A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
from text import load_pages, seconds

from curation import subsets
from curation.barriers import dedup_exact, dedup_minhash
from curation.barriers.minhash import band_buckets, collision_probability, signatures
from curation.hashing import DuplicateIds, hash64


def page_texts(limit: int | None) -> tuple[str, list[str]]:
    """(where from, main text of each page that has any)."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError:
        sys.exit("bench/minhash.py needs resiliparse to extract text: pip install winnow-data[text]")
    source, pages = load_pages(limit)
    texts = [extract_plain_text(bytes_to_str(p, detect_encoding(p)), main_content=True) for p in pages]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    return source, [text for text in texts if text.strip()]


def datatrove_rows(texts: list[str]) -> dict[str, Callable[[], Any] | str]:
    """Name → work, or why it is skipped."""
    try:
        import xxhash
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

        step = MinhashDedupSignature(tempfile.mkdtemp(), MinhashConfig())
        step.word_tokenizer.word_tokenize("warm up")
    except ImportError as error:
        return {"datatrove": f"not installed ({error})"}
    # its own function hands str to xxhash, which takes only bytes from version 4 on; the hash is the same
    step._hash_func = lambda data: xxhash.xxh64_intdigest(data.encode())
    own = step.word_tokenizer

    class Split:
        word_tokenize = staticmethod(str.split)

    def work(tokenizer: Any) -> None:
        step.word_tokenizer = tokenizer
        with np.errstate(over="ignore"):
            for text in texts:
                shingles = step.get_shingles(text)
                if shingles.size:
                    step.get_signature(shingles)

    return {
        "datatrove, its words (spaCy)": lambda: work(own),
        "datatrove, words by str.split": lambda: work(Split),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages")
    parser.add_argument("--repeat", type=int, default=5, help="runs of the fast rows; the best counts")
    options = parser.parse_args()
    source, texts = page_texts(options.pages)
    column = pa.array(texts, pa.string())
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} pages, {source}: {size:.2f} MB of text\n")
    batch = pa.record_batch({"id": [f"{i:032x}" for i in range(len(texts))], "text": column})

    start = time.perf_counter()
    dedup_minhash().scatter(batch.slice(0, 1))
    spent = time.perf_counter() - start
    print(f"first call {spent:.1f} s (compiling, or loading what an earlier run compiled)\n")

    def ours() -> None:
        band_buckets(signatures(column)[0], 14, 8)

    base = seconds(ours, options.repeat)
    rows: dict[str, Callable[[], Any] | str] = {
        "winnow, whole scatter": lambda: dedup_minhash().scatter(batch),
        "winnow, scatter with verify=.7": lambda: dedup_minhash(verify=0.7).scatter(batch),
    }
    print(f"{'MinHash, 112 hashes, 5-word shingles':38} {'CPU s':>8} {'MB/s':>8} {'ours is':>9}")
    print(f"{'winnow, signatures and bands':38} {base:8.3f} {size / base:8.2f} {1:8.1f}x")
    for name, work in (rows | datatrove_rows(texts)).items():
        if isinstance(work, str):
            print(f"{name:38} skipped: {work}")
            continue
        spent = seconds(work, options.repeat if name.startswith("winnow") else 1)
        print(f"{name:38} {spent:8.3f} {size / spent:8.2f} {spent / base:8.1f}x")

    print(f"\n{'Other hashes':38} {'CPU s':>8} {'MB/s':>8}")
    for name, work in {
        "hash64 of the text (XXH64)": lambda: hash64(column),
        "dedup_exact scatter": lambda: dedup_exact().scatter(batch),
        "dedup_exact scatter, whitespace": lambda: dedup_exact(normalize="whitespace").scatter(batch),
        "dedup_exact scatter, ccnet": lambda: dedup_exact(normalize="ccnet").scatter(batch),
    }.items():
        work()
        spent = seconds(work, options.repeat)
        print(f"{name:38} {spent:8.4f} {size / spent:8.0f}")

    n = 2_000_000
    ids = pa.array([f"{i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for i in range(n)])
    held = subsets.union(ids[: n // 2], ids[:0])

    def check_ids() -> None:
        seen = DuplicateIds()
        for start in range(0, n, 50_000):
            seen.add(ids[start : start + 50_000])

    print(f"\n{'Ids (32 hex digits)':38} {'CPU s':>8} {'M ids/s':>8}")
    for name, work in {
        "hash64": lambda: hash64(ids),
        "duplicate check, 2 M ids, growing": check_ids,
        "multiplicity in a subset of 1 M": lambda: subsets.multiplicity(held, ids),
    }.items():
        work()
        spent = seconds(work, 3)
        print(f"{name:38} {spent:8.3f} {n / spent / 1e6:8.1f}")

    print("\nP(a pair is found), 14 bands of 8 rows")
    for similarity in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
        print(f"  J = {similarity:<5} {collision_probability(similarity, 14, 8):.3f}")


if __name__ == "__main__":
    main()
