"""Selections of an exact size: the best rows by a score, or a random sample.

Both are one cut through a total order of the pool, so the decision is a pair of numbers and no table. Rows
are ordered by two 64-bit keys: for `top_fraction` the score (highest first; null and NaN last) and a hash of
the id; for `sample` two hashes of the id. Each partition sorts its keys; the cut is then found by bisection
over the sorted partitions, which reads a few thousand keys however many rows there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.barriers.base import Decide, Decision, Totals, column_of, require
from curation.hashing import hash64, salt_seed

LAST = 0xFFFFFFFFFFFFFFFF  # the key of a row without a score
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True)
class Select(Decide):
    """Base of both selections; see `top_fraction` and `sample`. Exactly one of fraction, rows, bytes."""

    column: str | None
    fraction: float | None = None
    rows: int | None = None
    bytes: int | None = None
    by: str = "rows"
    of: str = "input"
    bytes_column: str | None = None
    compat: str | None = None
    seed: int = 0
    reason: str = "quality"
    partitions: int = 16
    uses: ClassVar[tuple[str, ...]] = ("curation.hashing", "curation._hash_kernels")

    @property
    def name(self) -> str:  # type: ignore[override]
        return "sample" if self.column is None else "top_fraction"

    @property
    def inputs(self) -> tuple[str, ...]:
        sizes = (self.bytes_column or "text") if self.by == "bytes" else None
        return tuple(dict.fromkeys(n.split(".")[0] for n in (self.column, sizes) if n))

    def describe(self) -> str:
        amount = f"{self.fraction:.6g} of the {self.by}" if self.fraction is not None else ""
        amount = amount or (f"{self.rows} rows" if self.rows is not None else f"{self.bytes} bytes")
        pool = " in the pool" if self.of == "pool" else ""
        return f"keep {amount}{pool}, " + (f"highest {self.column} first" if self.column else "at random")

    def keys(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Both keys of every row; smaller keys are kept first: uint64[n], uint64[n]."""
        ids = batch.column("id")
        if self.column is None:
            return hash64(ids, salt_seed(f"sample/{self.seed}")), hash64(ids, salt_seed("tie"))
        return rank_keys(column_of(batch, self.column), self.column), hash64(ids, salt_seed("tie"))

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        key, tie = self.keys(batch)
        table = {
            # even by construction, whatever the scores: any row may go to any partition
            "partition": pa.array((tie % np.uint64(self.partitions)).astype(np.int32)),
            "index": pa.array(np.arange(batch.num_rows, dtype=np.int64)),
            "key": pa.array(key),
            "tie": pa.array(tie),
        }
        if self.by == "bytes":
            table["bytes"] = row_sizes(batch, self.bytes_column)
        return pa.table(table)

    def reduce(self, part: pa.Table) -> pa.Table:
        key, tie = part.column("key").to_numpy(), part.column("tie").to_numpy()
        order = np.lexsort((tie, key))
        table = {"key": pa.array(key[order]), "tie": pa.array(tie[order])}
        if self.by == "bytes":
            table["sum"] = pa.array(np.cumsum(part.column("bytes").to_numpy()[order]))
        return pa.table(table)

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        runs = [_Run(part) for part in parts if part.num_rows]
        n = sum(len(run.key) for run in runs)
        total = sum(run.amount(len(run.key)) for run in runs)
        cut: tuple[int, int] | None
        if self.compat == "datacomp":
            assert self.fraction is not None
            budget, cut = None, _datacomp_cut(runs, int(self._whole(n, total, totals) * self.fraction))
        else:
            budget = self._budget(n, total, totals)
            cut = _largest_cut(runs, budget)
        stops = [run.stop(*cut) if cut else 0 for run in runs]
        kept = sum(stops)
        # the last row that stays: the cut as a row has it, not just a number between two rows
        cut = max((run.at(stop - 1) for run, stop in zip(runs, stops, strict=True) if stop), default=None)
        summary: dict[str, Any] = {
            "cut": None if cut is None else [f"{word:016x}" for word in cut],
            "kept": kept,
            "of": n,
            "fraction": kept / n if n else 0.0,
        }
        if self.column is not None:
            summary["threshold"] = _lowest_kept(runs, stops)
        if self.by == "bytes":
            summary |= {
                "bytes": sum(run.amount(s) for run, s in zip(runs, stops, strict=True)),
                "of_bytes": total,
                "budget_bytes": budget,
            }
        return Decision(None, summary)

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        if summary["cut"] is None:
            return pa.array(np.zeros(batch.num_rows, bool)), {}
        key, tie = self.keys(batch)
        cut_key, cut_tie = (np.uint64(int(word, 16)) for word in summary["cut"])
        return pa.array((key < cut_key) | ((key == cut_key) & (tie <= cut_tie))), {}

    def _whole(self, n: int, total: int, totals: Totals) -> int:
        """What the fraction is a fraction of."""
        if self.of == "input":
            return total if self.by == "bytes" else n
        whole = totals.pool_bytes if self.by == "bytes" else totals.pool_rows
        if whole is None:
            raise ValueError(f"{self.name}(of='pool'): the pool's {self.by} are not known; use of='input'")
        return whole

    def _budget(self, n: int, total: int, totals: Totals) -> int:
        if self.rows is not None:
            return self.rows
        if self.bytes is not None:
            return self.bytes
        # exact on the fraction as it is written: 0.1 means one tenth
        share = self._whole(n, total, totals) * Fraction(repr(self.fraction))
        return math.floor(share + Fraction(1, 2)) if self.by == "rows" else math.floor(share)


class _Run:
    """One partition's sorted keys, and how much lies before each."""

    def __init__(self, part: pa.Table) -> None:
        self.key = part.column("key").to_numpy()
        self.tie = part.column("tie").to_numpy()
        self.sum = part.column("sum").to_numpy() if "sum" in part.column_names else None

    def amount(self, stop: int) -> int:
        """Rows, or bytes, of the first `stop` rows."""
        if self.sum is None or stop == 0:
            return int(stop)
        return int(self.sum[stop - 1])

    def at(self, row: int) -> tuple[int, int]:
        return int(self.key[row]), int(self.tie[row])

    def below(self, key: int) -> int:
        """Rows with a key ≤ `key`."""
        return 0 if key < 0 else int(np.searchsorted(self.key, np.uint64(key), side="right"))

    def stop(self, key: int, tie: int) -> int:
        """Rows with (key, tie) ≤ the given pair."""
        start = int(np.searchsorted(self.key, np.uint64(key), side="left"))
        within = self.tie[start : self.below(key)]
        return start + int(np.searchsorted(within, np.uint64(tie), side="right"))


def _bisect(fits: Any) -> int:
    """The largest x in −1 … LAST for which fits(x) holds, given that it holds below it."""
    low, high = -1, LAST + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _largest_cut(runs: list[_Run], budget: int) -> tuple[int, int] | None:
    """The last (key, tie) up to which all rows together stay within the budget; None when no row does."""
    key = _bisect(lambda x: sum(run.amount(run.below(x)) for run in runs) <= budget)
    if key == LAST:
        return LAST, LAST
    # the rows of the next key do not all fit: cut them by their tie-break
    following = min(int(run.key[run.below(key)]) for run in runs if run.below(key) < len(run.key))
    tie = _bisect(lambda t: sum(run.amount(run.stop(following, t)) for run in runs) <= budget)
    if tie >= 0 and any(run.stop(following, tie) > run.below(key) for run in runs):
        return following, tie
    return (key, LAST) if key >= 0 else None


def _datacomp_cut(runs: list[_Run], position: int) -> tuple[int, int]:
    """DataComp's rule: every row that scores at least what the row at this place of the ranking does."""
    if position >= sum(len(run.key) for run in runs):
        return LAST, LAST
    return _bisect(lambda x: sum(run.below(x) for run in runs) <= position) + 1, LAST


def _lowest_kept(runs: list[_Run], stops: list[int]) -> float | None:
    # rows without a score come last and have none to show
    scored = [min(stop, run.below(LAST - 1)) for run, stop in zip(runs, stops, strict=True)]
    kept = [int(run.key[stop - 1]) for run, stop in zip(runs, scored, strict=True) if stop]
    return score_of(max(kept)) if kept else None


def rank_keys(scores: pa.Array, column: str) -> np.ndarray:
    """uint64[n] in the opposite order of the scores, LAST for null and NaN. Numbers and booleans only."""
    kind = scores.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"top_fraction({column!r}): the column is {kind}, and only numbers can be ranked")
    if pa.types.is_boolean(kind):
        scores = scores.cast(pa.int8())
    values = pc.fill_null(scores.cast(pa.float64()), math.nan).to_numpy(zero_copy_only=False)
    bits = (values + 0.0).view(np.uint64)  # −0.0 + 0.0 = 0.0: one zero
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.where(np.isnan(values), np.uint64(LAST), ~ascending)


def score_of(key: int) -> float:
    """The score behind a rank key."""
    ascending = ~np.array([key], np.uint64)
    bits = np.where(ascending & _SIGN, ascending ^ _SIGN, ~ascending)
    return float(bits.view(np.float64)[0])


def row_sizes(batch: pa.RecordBatch, column: str | None) -> pa.Array:
    """Bytes of each row: of `text`, or what `column` says."""
    if column is None:
        sizes = pc.binary_length(batch.column("text")).cast(pa.int64())
    else:
        sizes = column_of(batch, column).cast(pa.int64())
        lowest = pc.min(sizes).as_py()
        if lowest is not None and lowest < 0:
            raise ValueError(f"bytes_column {column!r} holds {lowest}: sizes cannot be negative")
    return pc.fill_null(sizes, 0)


def top_fraction(
    column: str,
    fraction: float | None = None,
    *,
    by: str = "rows",
    of: str = "input",
    rows: int | None = None,
    bytes: int | None = None,
    bytes_column: str | None = None,
    compat: str | None = None,
    quantile: str = "exact",
    reason: str = "quality",
    partitions: int = 16,
) -> Select:
    """Keep the rows that score highest in `column`, exactly as many as asked for.

    Give one of: `fraction`, 0 … 1; `rows`; `bytes`.
    by: what a fraction counts, "rows" or "bytes" of text. By rows, round(n · fraction) rows stay, halves
        upwards. By bytes, rows are taken from the top while the sum stays within the budget; the first one
        that would pass it ends the selection, so the result is one cut through the ranking.
    of: the fraction is of what reaches this step ("input") or of what the plan read ("pool").
    bytes_column: sizes to add up instead of the UTF-8 bytes of `text`.
    compat: "datacomp" keeps every row that scores at least as much as the row at place int(n · fraction) of
        the ranking, as DataComp's baselines do: one row more, and all ties with it.
    quantile: "exact" ranks every row; "streaming" finds the threshold in a histogram, with bins 1/4096 of a
        power of two wide: a few hundred kilobytes for any pool, and never more rows than asked for, but
        fewer by up to what lies in one bin (the report counts them). Equal scores stay or leave together.

    Equal scores are ordered by a hash of the id. Rows without a score (null, NaN) rank last. The report holds
    the threshold: the lowest score that was kept.
    """
    require(isinstance(column, str) and column != "", "top_fraction needs a column: top_fraction('edu', 0.1)")
    by = _check_amount("top_fraction", fraction, rows, bytes, by)
    require(of in ("input", "pool"), f"top_fraction: of is {of!r}; it is 'input' or 'pool'")
    require(compat in (None, "datacomp"), f"top_fraction: compat is {compat!r}; it is None or 'datacomp'")
    require(
        compat is None or (fraction is not None and by == "rows"),
        "top_fraction: compat='datacomp' goes with a fraction of rows",
    )
    require(bytes_column is None or by == "bytes", "top_fraction: bytes_column goes with by='bytes'")
    require(partitions >= 1, f"top_fraction: partitions is {partitions}; it must be 1 or more")
    require(
        quantile in ("exact", "streaming"),
        f"top_fraction: quantile is {quantile!r}; it is 'exact' or 'streaming'",
    )
    if quantile == "streaming":
        from curation.barriers.streaming import StreamingSelect

        require(compat is None, "top_fraction: compat goes with quantile='exact'")
        return StreamingSelect(column, fraction, rows, bytes, by, of, bytes_column, None, 0, reason)
    return Select(column, fraction, rows, bytes, by, of, bytes_column, compat, 0, reason, partitions)


def sample(
    rows: int | None = None,
    fraction: float | None = None,
    bytes: int | None = None,
    seed: int = 0,
    reason: str = "sample",
    *,
    by: str = "rows",
    of: str = "input",
    bytes_column: str | None = None,
    partitions: int = 16,
) -> Select:
    """Keep a random sample of an exact size: the rows with the smallest hash of (id, seed).

    Give one of `rows`, `bytes` or `fraction` (with `by` and `of` as in `top_fraction`). Samples of one
    seed are nested: a smaller one is part of every larger one.
    """
    by = _check_amount("sample", fraction, rows, bytes, by)
    require(of in ("input", "pool"), f"sample: of is {of!r}; it is 'input' or 'pool'")
    require(bytes_column is None or by == "bytes", "sample: bytes_column goes with by='bytes'")
    require(partitions >= 1, f"sample: partitions is {partitions}; it must be 1 or more")
    return Select(None, fraction, rows, bytes, by, of, bytes_column, None, seed, reason, partitions)


def _check_amount(step: str, fraction: Any, rows: Any, bytes: Any, by: str) -> str:
    given = {k: v for k, v in {"fraction": fraction, "rows": rows, "bytes": bytes}.items() if v is not None}
    require(
        len(given) == 1,
        f"{step} needs exactly one of fraction=, rows=, bytes=; it got {', '.join(given) or 'none of them'}",
    )
    require(by in ("rows", "bytes"), f"{step}: by is {by!r}; it is 'rows' or 'bytes'")
    if fraction is not None:
        require(
            isinstance(fraction, int | float) and 0 <= fraction <= 1,
            f"{step}: fraction is {fraction!r}; it lies between 0 and 1 (ten per cent is 0.1)",
        )
        return by
    (name, amount), *_ = given.items()
    require(
        isinstance(amount, int) and amount >= 0, f"{step}: {name} is {amount!r}; it is a whole number from 0"
    )
    require(name == "bytes" or by == "rows", f"{step}: rows= does not go with by={by!r}")
    return name
