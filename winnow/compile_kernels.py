"""Compile every numba kernel once, into the cache beside its source: `python -m winnow.compile_kernels`.

`make env` runs it, so that no worker and no test waits for a compiler.
"""

from __future__ import annotations

import time

import pyarrow as pa


def main() -> None:
    """Call each kernel family on a few rows."""
    start = time.perf_counter()
    import curation as c
    from curation.barriers import Totals
    from curation.hashing import DuplicateIds, hash64
    from filters.text import gopher, gopher_quality, gopher_repetition, url_words

    rows = {
        "id": [f"{i:032x}" for i in range(4)],
        "text": ["one two three four five six seven", "a\n\nb\nb", "", "日本語の文 words"],
        "url": ["https://example.org/a"] * 4,
        "score": [0.1, 0.5, 0.3, None],
    }
    batch = pa.RecordBatch.from_pydict(rows)
    hash64(batch.column("id"))
    DuplicateIds().add(batch.column("id"))
    for step in (gopher(), gopher(words="whitespace"), gopher_quality(), gopher_repetition(), url_words()):
        step.setup()
        step(batch)
    barriers = (
        c.dedup_exact(on="text", normalize="whitespace"),
        c.dedup_exact(on="text", normalize="ccnet"),
        c.dedup_minhash(on="text"),
        c.top_fraction("score", 0.5, by="bytes"),
        c.sample(rows=2),
    )
    for barrier in barriers:
        summary = barrier.scatter(batch)
        at = summary.column_names.index("index")
        summary = summary.set_column(at, "row", summary["index"].cast(pa.int64()))
        summary = summary.append_column("shard", pa.array([0] * summary.num_rows, pa.int32()))
        parts = [
            barrier.reduce(summary.filter(pa.compute.equal(summary["partition"], p)))
            for p in sorted(set(summary["partition"].to_pylist()))
        ]
        decision = barrier.resolve(parts, Totals(rows=(4,), bytes=60, pool_rows=4, pool_bytes=60))
        barrier.apply(batch, 0, decision.table, decision.summary)
    c.shuffle(seed=0, shards=2).assign(batch.column("id"), 0, Totals(rows=(4,), bytes=60), 2)
    print(f"kernels compiled in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
