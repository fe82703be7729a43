"""Which rows of an index are seen, and how often: all once, those of a subset file, or by weight."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from curation.subsets import multiplicity_of_words
from recipes.clip.data import DataError
from recipes.clip.index import Index, ShardRows, count_distinct
from recipes.clip.order import BlockOrder, Order, ReplacedOrder, SmallOrder, in_round, shape_of
from recipes.clip.sampling import ExactCounts, ExactEpochs, SamplingError, counts_between, expected_borders

MOST_ROWS = 1 << 24  # of a cycle whose order is held in memory


@dataclass
class Selection:
    """How often every row of an index is seen in one cycle (an epoch; with weights, the whole run).

    Copies of a pair in one shard are one row, that counts as often. subset: `curation.subsets` array; its
    multiplicities count. weights: float64 [shards], a factor for the rows of each; by_column: times the
    column the index was made with; both None: no weights. samples: with weights, the run's budget.
    """

    index: Index
    subset: np.ndarray | None = None
    weights: np.ndarray | None = None
    by_column: bool = False
    samples: int = 0
    seed: int = 0
    rounds: int = field(default=1, init=False)

    def _copies(self, shard: int) -> tuple[ShardRows, np.ndarray]:
        """The rows of a shard and how often each stands there in its subset: int64 [n]."""
        known = self.index.read(shard)
        if self.subset is None:
            times = np.ones(len(known), np.int64)
        else:
            times = multiplicity_of_words(self.subset, known.keys)
        return known, times

    def _merged(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values of copies added to the first of them, the others 0."""
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        ranked = keys[order]
        new = np.ones(len(keys), bool)
        new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
        if new.all():
            return values
        starts = np.flatnonzero(new)
        out = np.zeros_like(values)
        out[order[starts]] = np.add.reduceat(values[order], starts)
        return out

    def _weighted(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and weights of a shard's rows: its factor × column × multiplicity."""
        known, times = self._copies(shard)
        weight = times.astype(np.float64)
        if self.weights is not None:
            weight *= self.weights[shard]
        if self.by_column and known.weight is not None:
            weight *= known.weight
        return known.keys, self._merged(known.keys, weight)

    @property
    def by_weight(self) -> bool:
        """Whether counts are drawn from weights."""
        return self.weights is not None or self.by_column

    @cached_property
    def _what(self) -> str:
        """Everything that counts depend on, beside the index."""
        weights = "" if self.weights is None else self.weights.tobytes().hex()
        drawn = f"{self.samples} {self.seed}" if self.by_weight else ""
        return f"{subset_digest(self.subset)} {weights} {self.by_column} {drawn}"

    @cached_property
    def _borders(self) -> np.ndarray:
        """Cumulative expected counts at the shards' ends, float64 [shards + 1]."""

        def add_up() -> dict[str, np.ndarray]:
            shards = range(len(self.index.shards))
            return {"weight": np.array([self._weighted(i)[1].sum() for i in shards])}

        return expected_borders(self.index.remembered(f"weight {self._what}", add_up)["weight"], self.samples)

    def times(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys of a shard's rows and how often each is seen in a cycle: uint64 [n, 2], int64 [n]."""
        if not self.by_weight:
            known, times = self._copies(shard)
            return known.keys, self._merged(known.keys, times)
        keys, weight = self._weighted(shard)
        start, stop = self._borders[shard : shard + 2]
        total = weight.sum()
        if not total:
            return keys, np.zeros(len(keys), np.int64)
        borders = start + np.r_[0.0, np.cumsum(weight)] * ((stop - start) / total)
        borders[-1] = stop  # the next shard begins here, to the last bit
        return keys, counts_between(borders, self.seed)

    @cached_property
    def summary(self) -> tuple[int, int, int, np.ndarray]:
        """(rows of a cycle, distinct pairs, most often seen, rows of each shard). Reads the index once."""
        found = self.index.remembered(f"rows {self._what}", self._count)
        return int(found["rows"].sum()), int(found["distinct"]), int(found["most"]), found["rows"]

    def _count(self) -> dict[str, np.ndarray]:
        rows = np.zeros(len(self.index.shards), np.int64)
        most = 0

        def keys():  # type: ignore[no-untyped-def]
            nonlocal most
            for shard in range(len(rows)):
                found, times = self.times(shard)
                rows[shard] = times.sum()
                most = max(most, int(times.max(initial=0)))
                yield found[times > 0]

        distinct = count_distinct(keys())
        return {"rows": rows, "distinct": np.int64(distinct), "most": np.int64(most)}  # type: ignore[dict-item]

    def cut(self, rounds: int) -> np.ndarray:
        """Split a cycle into passes; what each sees of each shard: int64 [rounds, shards]."""
        self.rounds = rounds
        if rounds == 1:
            return self.summary[3][None]

        def count() -> dict[str, np.ndarray]:
            totals = np.zeros((rounds, len(self.index.shards)), np.int64)
            for shard in range(len(self.index.shards)):
                keys, times = self.times(shard)
                for round in range(rounds):
                    totals[round, shard] = in_round(times, keys, self.seed, round, rounds).sum()
            return {"rows": totals}

        return self.index.remembered(f"cut {rounds} {self.seed} {self._what}", count)["rows"]

    def occurrences(self, shard: int, round: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (int32 [n]) and keys (uint64 [n, 2]) that a pass sees of a shard, in file order."""
        keys, times = self.times(shard)
        times = in_round(times, keys, self.seed, round, self.rounds)
        rows = np.repeat(np.arange(len(times), dtype=np.int32), times)
        return rows, keys[rows]

    def single_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every pair once, by key: shard and row (int32 [n]) and times (int64 [n]). For small sets."""
        parts = []
        for shard in range(len(self.index.shards)):
            keys, times = self.times(shard)
            rows = np.flatnonzero(times)
            parts.append(
                (keys[rows], np.full(len(rows), shard, np.int32), rows.astype(np.int32), times[rows])
            )
        keys, shards, rows, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys, shards, rows, times = keys[order], shards[order], rows[order], times[order]
        first = np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)]
        starts = np.flatnonzero(first)
        return shards[starts], rows[starts], np.add.reduceat(times, starts)

    @cached_property
    def missing(self) -> int:
        """How many uids of the subset stand in no shard."""
        if self.subset is None:
            return 0
        if not self.by_weight:
            return distinct_in_sorted(self.subset) - self.summary[1]
        plain = Selection(self.index, self.subset)
        return distinct_in_sorted(self.subset) - plain.summary[1]


def distinct_in_sorted(subset: np.ndarray, step: int = 1 << 20) -> int:
    """Different entries of a sorted subset, read a stretch at a time."""
    count = min(1, len(subset))
    for start in range(0, len(subset) - 1, step):
        piece = np.asarray(subset[start : start + step + 1])
        count += int((piece[1:] != piece[:-1]).sum())
    return count


def subset_digest(subset: np.ndarray | None, step: int = 1 << 20) -> str:
    """Hash of a subset's entries; "" for none."""
    if subset is None:
        return ""
    total = hashlib.blake2b(digest_size=16)
    for start in range(0, len(subset), step):
        total.update(np.ascontiguousarray(subset[start : start + step]).tobytes())
    return total.hexdigest()


def refuse_missing(missing: int, entries: int, where: str, allowed: bool) -> None:
    """Raise for a subset that names uids which are not there, unless that is allowed."""
    if missing and not allowed:
        raise DataError(
            f"{missing:,} of the subset's {entries:,} uids are not in {where}; fetch what is missing, or "
            "allow it (--allow-missing, allow_missing=True): the result then says how many were missing"
        )


def refuse_unusable(selection: Selection, batch: int, allow_missing: bool, where: str) -> None:
    """Raise where a set cannot be trained on: nothing in it, too little for a batch, a subset not in it."""
    rows, distinct, most, _ = selection.summary
    if selection.subset is not None:
        refuse_missing(selection.missing, distinct_in_sorted(selection.subset), where, allow_missing)
    if not rows:
        raise DataError(f"no image-text pairs in {where}")
    if distinct < batch:
        raise SamplingError(
            f"{distinct} distinct pairs cannot fill a batch of {batch} without repeating one; keep more pairs"
        )
    steps = selection.samples // batch
    if selection.by_weight and most > steps:
        raise SamplingError(
            f"one row would be seen {most} times by its weight, but there are {steps} batches and a pair "
            f"stands in a batch only once; divide its weight by {most / steps:.3g}, or keep more pairs"
        )


def order_of(
    kind: str, selection: Selection, batch: int, samples: int, seed: int, chances: np.ndarray | None = None
) -> tuple[Order, dict[str, Any]]:
    """The order in which a selection is seen, and what the result says of it.

    kind: "epochs", "weighted" or "shards_with_replacement" (chances: of every shard, None for equal ones).
    """
    rows, distinct, most, totals = selection.summary
    facts: dict[str, Any] = {"kind": kind, "seed": seed}
    if kind == "shards_with_replacement":
        drawn = ReplacedOrder(totals[None], selection.occurrences, batch, samples, seed, chances)
        facts |= {
            "order": "drawn shards",
            "lanes": drawn.lanes,
            "shuffle": drawn.depth * batch // drawn.lanes,
        }
        return drawn, facts
    if kind == "epochs":
        facts["epochs"] = samples / rows
    shape = shape_of(rows, distinct, most, batch)
    if shape is not None:
        cut = selection.cut(shape.rounds)
        # which copies a pass gets is drawn by key: what it came to decides how long a block may be
        depth = min(shape.depth, int(cut.sum(axis=1).min()) // batch)
        if depth >= max(2, 2 * -(-most // shape.rounds) * (most > 1)):
            order = BlockOrder(cut, selection.occurrences, batch, samples, seed, depth)
            facts |= {"order": "blocks", "lanes": order.lanes, "depth": depth, "passes": shape.rounds}
            return order, facts
    if rows > MOST_ROWS:
        raise SamplingError(
            f"{most} copies of one pair among {distinct:,} are too many to spread over {rows:,} rows in "
            f"batches of {batch}; lower the multiplicity or weight, or keep more pairs"
        )
    selection.rounds = 1
    shard, row, times = selection.single_rows()
    rule = ExactEpochs(times, batch, seed) if kind == "epochs" else ExactCounts(times, batch, seed)
    return SmallOrder(rule, shard, row, samples), {**facts, "order": "rows"}
