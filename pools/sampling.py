"""Which shards of a listing: a seeded sample, and one machine's part of it.

Both go by a hash of seed and name, so they depend neither on the order of the list nor on where the pool
lies, and a sample of 3 is within the sample of 10 of the same seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def rank(name: str, seed: int) -> bytes:
    """What a name is ordered by under a seed."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()


def sample(items: Sequence[T], n: int | None, seed: int, name: Callable[[T], str]) -> list[T]:
    """`n` of the items (all, for None), in the order of their names. ValueError when there are fewer."""
    if n is None:
        return sorted(items, key=name)
    if not 1 <= n <= len(items):
        raise ValueError(f"a sample of {n:,} shards of {len(items):,}: ask for 1 to {len(items):,}")
    return sorted(sorted(items, key=lambda item: rank(name(item), seed))[:n], key=name)


def part(items: Sequence[T], which: str | None, seed: int, name: Callable[[T], str]) -> list[T]:
    """The `i/n`-th part (from 1/n to n/n) of the items; the n parts are disjoint, even, and give all."""
    if which is None:
        return list(items)
    found = re.fullmatch(r"(\d+)/(\d+)", which)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"part {which!r}: it is i/n, from 1/n to n/n, e.g. 1/8 on the first of 8 machines")
    i, n = int(found[1]), int(found[2])
    if n > len(items):
        raise ValueError(f"part {which}: there are only {len(items):,} shards")
    chosen = sorted(items, key=lambda item: rank(name(item), seed))[i - 1 :: n]
    return sorted(chosen, key=name)
