"""Memory of one worker against the size of the shard it reads: it should not depend on it.

    python bench/memory.py                       # shards of 50, 200 and 800 MB of text
    python bench/memory.py --megabytes 50 2000   # others

Each row is a process of its own that runs the plan of a recipe on one jsonl shard, in one process. `private`
is the memory that only this process has (RssAnon of Linux), sampled every 20 ms; `resident` also counts the
code of shared libraries, which workers of one machine share. The text is the embedded pool's prose, repeated
with a number in front; the last row is a shard with one document of 30 MB in it (one line of JSON may have
32 MB). The funnel page, which the driver draws once at the end with DuckDB, is not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def plan_of(pool: str, out: str) -> list:
    """The rules of a recipe, for text that is already extracted; every removed row is written too."""
    import curation as c
    from filters.text import (
        gopher,
        gopher_quality_rules,
        gopher_repetition_rules,
        language,
        language_rules,
        url_rules,
        url_words,
    )

    return [
        c.read(pool), url_words(), url_rules(), language(), language_rules(), gopher(),
        gopher_quality_rules(min_words=120), gopher_repetition_rules(), c.dedup_minhash(on="text"),
        c.write(out, removed=out + "-removed"),
    ]  # fmt: skip


def write_shard(path: Path, megabytes: int, huge: int = 0) -> None:
    """Rows of prose, so many MB of text; with `huge`, one document of so many MB in the middle."""
    from pools import demo_text

    texts = [row["text"] for row in demo_text.trusted()]
    size = number = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes << 20:
            text = f"{number} {texts[number % len(texts)]}"
            if huge and size > megabytes << 19:
                text, huge = " ".join(texts[:40])[: 1 << 20] * huge, 0
            row = {"id": f"doc-{number}", "url": f"https://site.example/{number}", "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            size += len(text.encode())
            number += 1


def child(pool: str, out: str) -> None:
    """Run the plan; print peaks as JSON."""
    import curation as c

    peak = {"private": 0, "resident": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                key = {"RssAnon": "private", "VmRSS": "resident"}.get(name)
                if key:
                    peak[key] = max(peak[key], int(value.split()[0]) * 1024)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = c.run(plan_of(pool, out), workers=1, progress=False, funnel=False, error_budget=1.0)
    done.set()
    watcher.join()
    seconds = time.perf_counter() - start
    print(json.dumps(peak | {"seconds": seconds, "rows": result.rows_in, "kept": result.rows_out}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    if not Path("/proc/self/status").exists():
        sys.exit("bench/memory.py reads /proc/self/status, which only Linux has")
    print(
        f"{'one shard of':>20} {'rows':>9} {'kept':>9} {'seconds':>8} {'private MB':>11} {'resident MB':>12}"
    )
    for megabytes, huge in [*((m, 0) for m in options.megabytes), (100, 30)]:
        with tempfile.TemporaryDirectory() as folder:
            shard = Path(folder) / "shard.jsonl"
            write_shard(shard, megabytes, huge)
            command = [sys.executable, __file__, "--child", str(shard), f"{folder}/out"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        name = f"{megabytes} MB" + (f" (one of {huge})" if huge else "")
        if done.returncode:
            print(f"{name:>20} failed: {done.stderr.strip().splitlines()[-1:]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:>20} {row['rows']:>9,} {row['kept']:>9,} {row['seconds']:>8.1f} "
            f"{row['private'] / 1e6:>11,.0f} {row['resident'] / 1e6:>12,.0f}"
        )


if __name__ == "__main__":
    main()
