"""A plan of a few seconds, as a program that can be killed: `workload.py POOL OUT WORKERS`."""

from __future__ import annotations

import hashlib
import sys

import curation as c


@c.score
def digest(text: str) -> float:
    """About half a millisecond of work a row, the same number every time."""
    state = text.encode()
    for _ in range(400):
        state = hashlib.sha256(state).digest()
    return int.from_bytes(state[:6], "little") / 2**48


@c.score
def n_words(text: str) -> int:
    if text.startswith("river river"):
        raise ValueError("a row for the quarantine")
    return len(text.split())


def plan(pool: str, out: str) -> list:
    return [
        c.read(pool),
        n_words,
        digest,
        c.keep("n_words >= 5", reason="short"),
        c.dedup_exact(on="text"),
        c.top_fraction("digest", 0.6, reason="digest"),
        c.shuffle(seed=5, shards=4),
        c.write(out),
    ]


if __name__ == "__main__":
    c.run(plan(sys.argv[1], sys.argv[2]), workers=int(sys.argv[3]), progress=False, straggler_seconds=5)
