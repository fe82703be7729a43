"""Small pools and checks for the engine's tests."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "the of and to a in cat river stone # … light window paper seven market slow".split()  # noqa: SIM905


def documents(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Documents of 3 to 120 words; about one in ten is an exact copy of an earlier one under its own id."""
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    for number in range(n):
        if rows and rng.random() < 0.1:
            text = rng.choice(rows)["text"]
        else:
            text = " ".join(rng.choices(WORDS, k=rng.randint(3, 120)))
        rows.append({"id": f"doc-{seed}-{number:05d}", "text": text, "url": f"https://example.org/{number}"})
    return rows


def write_text_pool(folder: Path, shards: int = 8, rows: int = 60, seed: int = 0) -> Path:
    """The documents dealt over parquet shards of unequal size."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = documents(shards * rows, seed)
    start = 0
    for shard in range(shards):
        stop = start + rows + (shard % 3 - 1) * 20 if shard < shards - 1 else len(everything)
        pq.write_table(pa.Table.from_pylist(everything[start:stop]), folder / f"part-{shard:03d}.parquet")
        start = stop
    return folder


def read_rows(out: Path | str, part: str = "data") -> list[dict]:
    """All rows of a run's output, shard after shard."""
    rows: list[dict] = []
    for file in sorted(Path(out, part).rglob("*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def fingerprint(out: Path | str) -> dict[str, str]:
    """Relative path → hash of every file that a plan determines: data, scores, quarantine."""
    out = Path(out)
    folders = [out / "data", out / "scores", out / "_winnow" / "bad"]
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()]
    return {f.relative_to(out).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
