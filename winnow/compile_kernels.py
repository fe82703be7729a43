"""Compile every numba kernel once, into the cache beside its source: `python -m winnow.compile_kernels`.

`make env` runs it, so that no worker and no test waits for a compiler.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

REPEATED = "\n".join([" ".join("abcdefghijklmno")] * 2 + ["other words here"])
"""A text that loses a line as a duplicate, so that what cuts it is compiled too."""


def text_steps() -> list[Any]:
    """Every text step with a kernel of its own."""
    from filters import text as t
    from filters.text import dclm

    return [
        t.gopher(), t.gopher(words="whitespace"), t.gopher_quality(), t.gopher_repetition(), t.heuristics(),
        t.fineweb(), t.c4(), t.c4_lines(), t.c4_paragraph(), t.c4_bad_words(),
        dclm.dclm_scores(), dclm.dclm_repetition(), dclm.remove_urls(), dclm.remove_urls(compat="dclm"),
        dclm.squeeze_newlines(),
        dclm.refinedweb_lines(),
        t.redpajama_signals(lines=True, bad_words=("a b",)), t.dolma_gopher(), t.dolma_no_punctuation(),
        t.dolma_repetitions(), t.dolma_c4(), t.dolma_lengths(),
        t.url_words(domains=("a.example",)), t.url_blocklist(domains=("a.example",), urls=("a.example/x",)),
        t.mask_pii(), t.pii_counts(),
    ]  # fmt: skip


def main() -> None:
    """Call each kernel family on a few rows."""
    start = time.perf_counter()
    import curation as c
    from curation.barriers import Totals
    from curation.hashing import DuplicateIds, hash64
    from filters.text.extract import risky
    from recipes.lm import encode

    rows = {
        "id": [f"{i:032x}" for i in range(5)],
        "text": [
            "one two three four five six seven",
            "a\n\nb\nb",
            "",
            "日本語 a@b.example 212-555-0123",
            REPEATED,
        ],
        "url": ["https://example.org/a"] * 5,
        "score": [0.1, 0.5, 0.3, None, 0.2],
    }
    batch = pa.RecordBatch.from_pydict(rows)
    hash64(batch.column("id"))
    DuplicateIds().add(batch.column("id"))
    for step in text_steps():
        step.setup()
        step(batch)
    for shift in range(2):  # a page may lie at any address, and a kernel is compiled for either kind
        risky(memoryview(b"<p>" * 4000)[shift:])
    barriers = (
        c.dedup_exact(on="text", normalize="whitespace"),
        c.dedup_exact(on="text", normalize="ccnet"),
        c.dedup_minhash(on="text"),
        c.dedup_bff(mode="paragraph"),
        c.dedup_bff(filter="exact"),
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
        decision = barrier.resolve(parts, Totals(rows=(5,), bytes=99, pool_rows=5, pool_bytes=99))
        barrier.apply(batch, 0, decision.table, decision.summary)
    c.shuffle(seed=0, shards=2).assign(batch.column("id"), 0, Totals(rows=(5,), bytes=99), 2)
    encode.compile_kernels()
    print(f"kernels compiled in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
