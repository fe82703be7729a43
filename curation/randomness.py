"""Randomness that depends on the row and the step, and on nothing else."""

from __future__ import annotations

import hashlib
import random


def rng(row_id: str, step: str) -> random.Random:
    """A generator seeded by (row id, step name) alone, so results do not depend on workers, batches,
    executors, order or PYTHONHASHSEED."""
    seed = hashlib.blake2b(f"{len(step)}:{step}\0{row_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    return random.Random(int.from_bytes(seed.digest(), "little"))
