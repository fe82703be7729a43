"""What the engine costs: start-up, per-shard overhead, and throughput of a plan that does nothing.

    python bench/engine.py

Prints a table; every figure is the median of several runs in this process, and ratios are against a plain
loop over the same files in the same run.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import curation as c

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def n_chars(text: pa.StringArray) -> pa.Int32Array:
    return pc.utf8_length(text)


def page_texts() -> list[str]:
    """The text of the embedded pool's pages."""
    from filters.text import extract
    from pools import demo_text

    with tempfile.TemporaryDirectory() as out:
        plan = [c.read(demo_text.unpack()), extract(), c.write(out, columns=["id", "text"])]
        c.run(plan, progress=False, funnel=False, workers=1)
        files = sorted(Path(out, "data").glob("*.parquet"))
        return [text for file in files for text in pq.read_table(file)["text"].to_pylist()]


def write_shards(folder: Path, texts: list[str], shards: int, rows: int) -> int:
    """Parquet shards of pages drawn from `texts`; returns the bytes of text in them."""
    rng, total = random.Random(0), 0
    folder.mkdir(parents=True)
    for shard in range(shards):
        chosen = rng.choices(texts, k=rows)
        ids = [f"{shard:04d}-{row:06d}" for row in range(rows)]
        pq.write_table(
            pa.table({"id": ids, "text": chosen}), folder / f"{shard:04d}.parquet", compression="zstd"
        )
        total += sum(len(text.encode()) for text in chosen)
    return total


def plain_loop(pool: Path, out: Path) -> None:
    """What a script would do: read, score, filter, write; no manifest, no sync, no counts."""
    out.mkdir(parents=True)
    for file in sorted(pool.glob("*.parquet")):
        table = pq.read_table(file)
        length = pc.utf8_length(table["text"])
        table = table.append_column("n_chars", length).filter(pc.greater_equal(length, 200))
        pq.write_table(table, out / file.name, compression="zstd")


def timed(function, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="winnow-bench-"))
    try:
        small = work / "small"
        texts = page_texts()
        size = write_shards(small, texts, shards=32, rows=100)
        step = c.score(n_chars, batch=True)

        def run(name: str, pool: Path, **options):
            def go():
                out = work / name
                shutil.rmtree(out, ignore_errors=True)
                plan = [c.read(pool), step, c.keep("n_chars >= 200", reason="short"), c.write(out)]
                c.run(plan, progress=False, funnel=False, **options)

            return go

        def loop():
            shutil.rmtree(work / "loop", ignore_errors=True)
            plain_loop(small, work / "loop")

        title = f"32 shards, {size / 1e6:.0f} MB, one score and one keep"
        print(f"{title:<46}{'seconds':>9}{'ratio':>8}{'limit':>8}")
        run("warm", small)()  # imports, compiled code, page cache
        loop()
        pairs = []
        for _ in range(7):  # in turn, so that a noisy machine is noisy to both
            pairs.append((timed(loop, 1), timed(run("local", small), 1)))
        base = statistics.median(p[0] for p in pairs)
        local = statistics.median(p[1] for p in pairs)
        print(f"{'plain loop, no manifest':<46}{base:>9.3f}{1:>8.2f}")
        print(
            f"{'winnow, local':<46}{local:>9.3f}{statistics.median(b / a for a, b in pairs):>8.2f}{'≤ 2':>8}"
        )
        try:
            import ray

            from curation.executors.ray import start

            began = time.perf_counter()
            start(2)
            print(f"{'starting Ray (once)':<46}{time.perf_counter() - began:>9.3f}")
            run("ray", small, on="ray", workers=2)()
            pairs = [(timed(loop, 1), timed(run("ray", small, on="ray", workers=2), 1)) for _ in range(5)]
            seconds = statistics.median(p[1] for p in pairs)
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"{'winnow, Ray already started':<46}{seconds:>9.3f}{ratio:>8.2f}{'≤ 3':>8}")
            ray.shutdown()
        except ImportError:
            print("winnow on Ray: skipped, ray is not installed")

        large = work / "large"
        text = write_shards(large, texts, shards=4, rows=8_000)
        noop = work / "noop"

        def copy():
            shutil.rmtree(noop, ignore_errors=True)
            c.run([c.read(large), c.write(noop)], progress=False, funnel=False, workers=1)

        copy()
        seconds = timed(copy, 5)
        print(f"\n{'no-op plan over parquet, one core':<46}{text / seconds / 1e6:>9.0f} MB/s of text (≥ 200)")

        code = "import time; t = time.perf_counter(); import curation; print(time.perf_counter() - t)"
        command = [sys.executable, "-c", code]
        imports = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5)]
        print(f"{'import curation':<46}{statistics.median(imports):>9.3f} s (< 0.5)")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
