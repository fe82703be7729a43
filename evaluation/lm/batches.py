"""How texts to score become batches: what neighbours share is read once, equal lengths lie together.

Rows are token ids whose last ``answers[i]`` tokens are scored. Consecutive rows that begin alike (the choices
of a question after its context; the two contexts of a schema after their shots) form a unit: its common
beginning is read once, and the rest of each row goes on from there with the model's cache. Nothing here knows
of questions: sharing is found in the ids, so a unit can never score another text than the one it was given,
and a row that lost its beginning to the context's length simply shares less.

A plan depends on rows and limits only, not on the device or on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MERGE_GAIN = 8
"""Tokens that a row must save to be read from the cache of its unit: below, one long read is as quick."""
REST_COST = 1.0
"""How much dearer a token is behind a cache than in a read from the start (its attention has a mask): rows
with a short common beginning and long rests are better read whole."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one batch. A single unit or row may exceed them: it cannot be cut."""

    tokens: int = 4096
    """Of one read, padding included."""
    cached: int = 65_536
    """Positions held in caches at once, padding and the copies for the second read included."""


@dataclass(frozen=True)
class Rest:
    """Second read: what follows the shared beginnings; ``owner`` (N,) says which, as a row of the first."""

    owner: np.ndarray
    ids: np.ndarray
    """(N, T), padded on the right."""
    lengths: np.ndarray


@dataclass(frozen=True)
class Batch:
    """One first read, the reads that go on from it, and where the scored tokens are predicted.

    ``states[r]``, ascending, are the positions (row · T + column) of read r whose hidden states the head is
    applied to; scored token m is ``target[m]``, predicted by state ``source[m]`` of all of them joined. Its
    text is ``rows[k]``, with ``counts[k]`` scored tokens each, in order.
    """

    ids: np.ndarray
    lengths: np.ndarray
    rests: tuple[Rest, ...]
    states: tuple[np.ndarray, ...]
    source: np.ndarray
    target: np.ndarray
    rows: np.ndarray
    counts: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens read, padding included: the work."""
        return self.ids.size + sum(rest.ids.size for rest in self.rests)


@dataclass(frozen=True)
class Unit:
    """Rows read together: the first ``shared`` tokens of each are the same."""

    rows: tuple[int, ...]
    shared: int


def find_units(rows: Sequence[np.ndarray], gain: int = MERGE_GAIN) -> list[Unit]:
    """Consecutive rows that share enough to be worth it. The last token of a row is never read, only scored.

    A row joins the unit before it when that saves at least ``gain`` tokens of reading, what is dearer about
    reading behind a cache paid.
    """
    units: list[Unit] = []
    members: list[int] = []
    shared, read, saved = 0, 0, 0.0  # of the unit so far: common beginning, tokens of its rows, tokens saved
    for i, row in enumerate(rows):
        n = len(row) - 1
        if members:
            first, k = rows[members[0]], len(members) + 1
            common = min(shared, n)
            unequal = np.flatnonzero(first[:common] != row[:common])
            common = int(unequal[0]) if len(unequal) else common
            now = (k - 1) * common - REST_COST * (read + n - k * common)
            if now - saved >= gain:
                members.append(i)
                shared, read, saved = common, read + n, now
                continue
            units.append(Unit(tuple(members), shared))
        members, shared, read, saved = [i], n, n, 0.0
    if members:
        units.append(Unit(tuple(members), shared))
    return units


def plan(
    rows: Sequence[np.ndarray], answers: Sequence[int], limits: Limits, gain: int = MERGE_GAIN
) -> list[Batch]:
    """Batches over all rows, the largest first, so that a batch too large for the memory shows at once.

    ``gain`` as in :func:`find_units`; a huge one reads every row whole (the plain path).
    """
    units = find_units(rows, gain)
    batches: list[Batch] = []
    # Rows alone need no cache, so they are never batched with units that do.
    for alone in (True, False):
        some = sorted((u for u in units if (len(u.rows) == 1) == alone), key=lambda u: u.shared)
        begin = 0
        while begin < len(some):
            end = begin + 1
            while end < len(some) and (end + 1 - begin) * some[end].shared <= limits.tokens:
                end += 1
            batches.append(_batch(some[begin:end], rows, answers, limits))
            begin = end
    return sorted(batches, key=lambda b: -b.tokens)


def _batch(
    units: Sequence[Unit], rows: Sequence[np.ndarray], answers: Sequence[int], limits: Limits
) -> Batch:
    width = max(unit.shared for unit in units)
    ids = np.zeros((len(units), width), dtype=np.int64)
    for b, unit in enumerate(units):
        ids[b, : unit.shared] = rows[unit.rows[0]][: unit.shared]
    lengths = np.array([unit.shared for unit in units], dtype=np.int64)

    owners = {i: b for b, unit in enumerate(units) for i in unit.rows}
    left = {i: len(rows[i]) - 1 - int(lengths[b]) for i, b in owners.items()}
    rests: list[Rest] = []
    place: dict[int, tuple[int, int]] = {}  # row -> (read, row in it)
    chunk: list[int] = []

    def flush() -> None:
        if not chunk:
            return
        rest = np.zeros((len(chunk), left[chunk[-1]]), dtype=np.int64)
        for n, i in enumerate(chunk):
            rest[n, : left[i]] = rows[i][lengths[owners[i]] : -1]
            place[i] = (len(rests) + 1, n)
        owner = np.array([owners[i] for i in chunk], dtype=np.int64)
        rests.append(Rest(owner, rest, np.array([left[i] for i in chunk], dtype=np.int64)))
        chunk.clear()

    room = max(1, limits.cached - ids.size)
    for i in sorted((i for i in owners if left[i]), key=lambda i: (left[i], i)):
        count = len(chunk) + 1
        if count * left[i] > limits.tokens or count * (2 * width + left[i]) > room:
            flush()
        chunk.append(i)
    flush()

    # Every position that predicts a scored token, once per read however many choices ask for it. Positions
    # of all reads are numbered through.
    reads = [ids, *(rest.ids for rest in rests)]
    base = np.cumsum([0, *(read.size for read in reads)])
    scored = sorted(owners)
    asked, target = [], []
    for i in scored:
        b, n = owners[i], len(rows[i])
        shared, at = int(lengths[b]), np.arange(n - 1 - answers[i], n - 1)
        position = b * width + at
        if left[i]:
            read, line = place[i]
            beyond = base[read] + line * reads[read].shape[1] + at - shared
            position = np.where(at < shared, position, beyond)
        asked.append(position)
        target.append(rows[i][n - answers[i] :])
    positions, source = np.unique(np.concatenate(asked), return_inverse=True)
    edges = np.searchsorted(positions, base)
    states = tuple(positions[edges[r] : edges[r + 1]] - base[r] for r in range(len(reads)))
    return Batch(
        ids=ids,
        lengths=lengths,
        rests=tuple(rests),
        states=states,
        source=source,
        target=np.concatenate(target),
        rows=np.array(scored, dtype=np.int64),
        counts=np.array([answers[i] for i in scored], dtype=np.int64),
    )
