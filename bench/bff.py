"""dedup_bff's two loops beside the same algorithm in plain Python: the same pages, one thread.

    python bench/bff.py                   # real web pages if there, else the embedded pool
    python bench/bff.py --pages 200       # quicker
    python bench/bff.py --bff path/to/bff # and beside DCLM's own program, if you have built it

Texts are main text of the pages; a third of them get lines of other pages, so that there is something to
find. Plain Python is a set of tuples of words, with words of `regex` (its Unicode word boundaries) or of a
much simpler pattern. With --bff the program reads the texts as one jsonl file, in one thread, twice: with its
filter at .01 for the time, and at 10^-9, where it should err nowhere, to count rows whose text differs from
ours. Seconds are CPU seconds; the best of several runs for ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import subprocess
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
from minhash import page_texts
from text import seconds

from curation.barriers import _bff_kernels as kernels
from curation.barriers import dedup_bff
from curation.barriers.bff import bloom_size


def with_repeats(texts: list[str], seed: int = 0) -> list[str]:
    """Every third page gets some lines of others."""
    order = random.Random(seed)
    lines = [line for text in texts for line in text.split("\n") if len(line) > 80]
    return [
        text + "\n" + "\n".join(order.choices(lines, k=order.randint(1, 8))) if i % 3 == 0 else text
        for i, text in enumerate(texts)
    ]


def plain_python(
    texts: list[str], words: Callable[[str], list[str]], n: int = 13, threshold: float = 0.8
) -> int:
    """old-both with an exact set; returns how many rows stay."""
    known: set[tuple[str, ...]] = set()
    stay = 0
    for text in texts:
        head, *rest = text.split("\n")
        total = contained = 0
        for span in [head, *("\n" + line for line in rest)]:
            tokens = words(span)
            ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            seen = sum(ngram in known for ngram in ngrams)
            total, contained = total + len(ngrams), contained + seen
            if not (ngrams and seen / len(ngrams) > threshold):
                known.update(ngrams)
        stay += not (total and contained / total > threshold)
    return stay


def regex_words() -> Callable[[str], list[str]]:
    import regex

    boundary = regex.compile(r"\b", regex.V1 | regex.WORD)

    def words(text: str) -> list[str]:
        cuts = [0, *(m.start() for m in boundary.finditer(text)), len(text)]
        return [w for a, b in itertools.pairwise(cuts) if (w := text[a:b]) and not w.isspace()]

    return words


def table_of(step: Any, batch: pa.RecordBatch) -> pa.Table:
    """What the engine hands to reduce, of one shard."""
    made = step.scatter(batch)
    names = {"index": "row"}
    made = made.rename_columns([names.get(name, name) for name in made.column_names]).drop_columns(
        ["partition"]
    )
    return made.append_column("shard", pa.array(np.zeros(made.num_rows, np.int32)))


def decided(step: Any, batch: pa.RecordBatch) -> dict[str, str]:
    """id → text of the rows that stay."""
    from curation.barriers import Totals

    decision = step.resolve([step.reduce(table_of(step, batch))], Totals((batch.num_rows,)))
    keep, columns = step.apply(batch, 0, decision.table, decision.summary)
    ids, texts = batch.column("id").filter(keep), columns["text"].filter(keep)
    return dict(zip(ids.to_pylist(), texts.to_pylist(), strict=True))


def program(path: str, batch: pa.RecordBatch, n: int, fp_rate: float) -> tuple[float, dict[str, str]]:
    """DCLM's bff on the batch: wall seconds (one thread), and id → text of the rows that stay."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "rows.jsonl"), Path(folder, "out")
        rows = (
            json.dumps(row, ensure_ascii=False) + "\n" for row in batch.select(["id", "text"]).to_pylist()
        )
        source.write_text("".join(rows), encoding="utf-8")
        command = [path, "bff", "--inputs", str(source), "--output-directory", str(out)]
        command += ["--expected-ngram-count", str(n), "--fp-rate", str(fp_rate), "--remove-type", "old-both"]
        command += ["--min-ngram-size", "13", "--max-ngram-size", "13", "--filtering-threshold", "0.8"]
        command += ["--threads", "1", "--no-save-bloom-filter", "--no-progress-bar"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        spent = time.perf_counter() - start
        lines = [json.loads(line) for f in out.rglob("*") if f.is_file() for line in f.open(encoding="utf-8")]
        return spent, {row["id"]: row["text"] for row in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=None, help="only the first N pages")
    parser.add_argument("--repeat", type=int, default=5, help="runs of our rows; the best counts")
    parser.add_argument("--bff", help="DCLM's program (dedup/bff), built by you")
    parser.add_argument("--ngrams", type=int, default=30_000_000, help="n-grams of the large filter")
    options = parser.parse_args()
    source, texts = page_texts(options.pages)
    texts = with_repeats(texts)
    batch = pa.record_batch({"id": [f"{i:032x}" for i in range(len(texts))], "text": texts})
    size = sum(len(text.encode()) for text in texts) / 1e6
    step, exact = dedup_bff(), dedup_bff(filter="exact")
    part = table_of(step, batch)
    step.reduce(part), exact.reduce(part)
    n = len(part.column("hashes").combine_chunks().flatten())
    print(f"{len(texts)} pages, {source}: {size:.2f} MB of text, {n:,} n-grams of 13 words\n")

    def python_row(words: Callable[[str], list[str]]) -> Callable[[], Any]:
        return lambda: plain_python(texts, words)

    both = seconds(lambda: step.reduce(table_of(step, batch)), options.repeat)
    rows: dict[str, Callable[[], Any] | str] = {
        "winnow, scatter (words, hashes)": lambda: step.scatter(batch),
        "winnow, pass with a Bloom filter": lambda: step.reduce(part),
        "winnow, pass with an exact set": lambda: exact.reduce(part),
        r"plain Python, words by \w+|[^\w\s]": python_row(re.compile(r"\w+|[^\w\s]").findall),
    }
    try:
        rows["plain Python, words by regex"] = python_row(regex_words())
    except ImportError as error:
        rows["plain Python, words by regex"] = f"not installed ({error})"
    print(f"{'old-both, 13 words, threshold .8':38} {'CPU s':>8} {'MB/s':>8} {'ours is':>9}")
    print(f"{'winnow, both loops':38} {both:8.3f} {size / both:8.1f} {1:8.1f}x")
    for name, work in rows.items():
        if isinstance(work, str):
            print(f"{name:38} skipped: {work}")
            continue
        spent = seconds(work, options.repeat if name.startswith("winnow") else 1)
        print(f"{name:38} {spent:8.3f} {size / spent:8.1f} {spent / both:8.1f}x")
    if options.bff:
        spent, _ = program(options.bff, batch, n, 0.01)
        _, theirs = program(options.bff, batch, n, 1e-9)
        ours = decided(exact, batch)
        differ = len(set(theirs) ^ set(ours)) + sum(theirs[k] != ours[k] for k in theirs.keys() & ours.keys())
        print(f"{'DCLM bff, jsonl to jsonl (wall)':38} {spent:8.3f} {size / spent:8.1f} {spent / both:8.1f}x")
        print(f"rows that DCLM's bff decides or cuts otherwise than filter='exact': {differ} of {len(texts)}")

    print(f"\n{'The pass over a filter beyond the caches':38} {'CPU s':>8} {'M/s':>8} {'filter':>9}")
    hashes = np.random.default_rng(0).integers(0, 2**64, options.ngrams // 500 * 500, dtype=np.uint64)
    for title in ("all n-grams new", "half of them known"):
        if title.startswith("half"):
            hashes[len(hashes) // 2 :] = hashes[: len(hashes) - len(hashes) // 2]
        for kind in ("Bloom", "exact"):
            bits, hashers = bloom_size(len(hashes), 0.01)
            if kind == "exact":
                bits, hashers = 64 << (2 * len(hashes) - 1).bit_length(), 0
            table = np.zeros(-(-bits // 64), np.uint64)
            spent = large_pass(hashes, table, bits, hashers)
            name = f"{kind}, {title}"
            print(f"{name:38} {spent:8.2f} {len(hashes) / spent / 1e6:8.1f} {table.nbytes / 1e6:6.0f} MB")


def large_pass(hashes: np.ndarray, table: np.ndarray, bits: int, hashers: int) -> float:
    """CPU seconds for rows of ten spans of fifty n-grams."""
    n = len(hashes) // 500
    counts = np.full(n, 500), np.full(n, 10), np.full(10 * n, 300, np.int32), np.full(10 * n, 50, np.int32)
    start = time.process_time()
    kernels.deduplicate(
        hashes, *counts, table, np.uint64(bits), hashers, 0.8, True, np.zeros(5), np.empty(n, np.int64),
        np.empty(n, np.int64), np.empty(n, np.bool_), np.empty(20 * n, np.int32), np.empty(n, np.int64),
    )  # fmt: skip
    return time.process_time() - start


if __name__ == "__main__":
    main()
