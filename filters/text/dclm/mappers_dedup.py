"""DCLM's one global step, ``exact_dedup``: of pages with an equal key one stays; of equal lines in the
whole pool one stays (C4), when the text was cut by ``split_lines_modifier``.

Where DCLM keeps whichever it meets first, the smallest id stays here: the same one on every machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.apply import replace_columns
from curation.barriers.base import Decide, Decision, Totals
from curation.errors import PlanError
from curation.hashing import hash128
from filters.text.dclm.mappers import SPACE, lower, one_of
from filters.text.dclm.mappers_lines import filtered_lists


def normalize_url(url: pa.Array) -> pa.Array:
    """Without ``http(s)://`` and ``www.``, without ``?utm_…``, ``?ref…``, ``?feed…`` and what follows,
    without a final slash (C4's rule)."""
    url = pc.replace_substring_regex(url, r"https?://(www\.)?", "")
    return pc.utf8_rtrim(pc.replace_substring_regex(url, r"\?(utm_|ref|feed).*", ""), characters="/")


def normalize_whitespace_and_lowercase(text: pa.Array) -> pa.Array:
    """Lower case, without outer white space."""
    return lower(pc.utf8_trim(text, characters=SPACE))


def normalize_timestamps(stamps: pa.Array) -> pa.Array:
    """Seconds since 1970 (UTC) of ``2019-04-18T12:34:56Z`` and the like; −1 for anything else."""
    return pa.array([None if s is None else _seconds(s) for s in stamps.to_pylist()], pa.float64())


def _seconds(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return -1.0


def hash_text(text: pa.Array) -> pa.Array:
    """MD5 in hexadecimal."""
    digests = (None if t is None else hashlib.md5(t.encode("utf-8")).hexdigest() for t in text.to_pylist())
    return pa.array(digests, pa.string())


_CCNET = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"


def ccnet_dedup_normalizer(text: pa.Array) -> pa.Array:
    """Lower case, digits as 0, CCNet's punctuation (not ASCII's) and control characters out, everything else
    spelt in ASCII by the package unidecode."""
    from unidecode import unidecode

    text = pc.replace_substring_regex(normalize_whitespace_and_lowercase(text), r"\p{Nd}", "0")
    text = pc.replace_substring_regex(text, f"[{_CCNET}\\x00-\\x1f\\x7f-\\x{{9f}}]", "")
    return pa.array([None if t is None else unidecode(t) for t in text.to_pylist()], pa.string())


NORMALIZERS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "normalize_url": normalize_url,
    "normalize_timestamps": normalize_timestamps,
    "normalize_whitespace_and_lowercase": normalize_whitespace_and_lowercase,
    "hash_text": hash_text,
    "ccnet_dedup_normalizer": ccnet_dedup_normalizer,
}


@dataclass(frozen=True)
class Normalized(c.Model):
    """Column ``key`` after one of ``NORMALIZERS``, as ``column``."""

    key: str
    normalize: str
    column: str

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.key,)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64() if self.normalize == "normalize_timestamps" else pa.string()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        return NORMALIZERS[self.normalize](batch.column(self.key))


def exact_dedup(
    content_key: str = "text",
    normalize: str | None = None,
    selection_key: str | None = None,
    selection_normalize: str | None = None,
    selection_reverse: bool = False,
    *,
    units: bool = False,
    prefix: str = "exact_dedup",
    reason: str = "exact_dedup",
) -> list[Any]:
    """Of all pages with equal ``content_key`` (after ``normalize``, one of ``NORMALIZERS``) keep the one
    with the smallest ``selection_key`` (after ``selection_normalize``; ``selection_reverse``: the largest),
    and of those the smallest id.

    ``units``: ``text`` is a list of strings (``split_lines_modifier``), and of equal strings in the whole
    pool one stays; a page that keeps none is dropped. Columns are named after ``prefix``.
    """
    for name, value in (("normalize", normalize), ("selection_normalize", selection_normalize)):
        if value is not None:
            one_of(f"exact_dedup: {name}", value, tuple(NORMALIZERS))
            if value == "ccnet_dedup_normalizer" and importlib.util.find_spec("unidecode") is None:
                raise PlanError(
                    "ccnet_dedup_normalizer needs the package unidecode, which is not installed; close to it "
                    "is the engine's own: dedup_exact: {on: text, normalize: ccnet}"
                )
    steps: list[Any] = []
    on, priority = content_key, selection_key
    if selection_key is not None and selection_normalize is not None:
        priority = f"{prefix}_selection"
        steps.append(Normalized(selection_key, selection_normalize, priority))
    if units:
        if content_key != "text":
            raise PlanError(f"exact_dedup: units of {content_key!r}; only text is cut into units")
        if normalize == "normalize_timestamps":
            raise PlanError("exact_dedup: units are text; normalize_timestamps makes numbers")
        barrier = DedupUnits(normalize, priority, selection_reverse, reason, prefix)
        return [*steps, barrier, RemoveUnits(f"{prefix}_repeats", reason)]
    if normalize is not None:
        on = f"{prefix}_key"
        steps.append(Normalized(content_key, normalize, on))
    if priority is not None and selection_reverse:
        priority = f"-{priority}"
    return [*steps, c.dedup_exact(on, priority=priority, reason=reason, prefix=prefix)]


@dataclass(frozen=True)
class DedupUnits(Decide):
    """Find the repeats among all strings of column ``text`` (list<string>) of the pool: adds
    ``<prefix>_repeats``, the places in each page's list that are not the survivor; see ``exact_dedup``."""

    normalize: str | None = None
    selection: str | None = None
    reverse: bool = False
    reason: str = "exact_dedup"
    prefix: str = "exact_dedup"
    partitions: int = 16
    name: ClassVar[str] = "dedup_units"
    uses: ClassVar[tuple[str, ...]] = (
        "curation.hashing",
        "curation._hash_kernels",
        "filters.text.dclm.mappers",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",) if self.selection is None else ("text", self.selection)

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        return {f"{self.prefix}_repeats": pa.list_(pa.int32())}

    def describe(self) -> str:
        how = f" after {self.normalize}" if self.normalize else ""
        return f"of equal units of text{how} in the whole pool, keep one"

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        lists = batch.column("text")
        if not pa.types.is_list(lists.type):
            raise TypeError("text is no list of strings: split_lines_modifier comes before")
        units = pc.list_flatten(lists)
        rows = np.asarray(pc.list_parent_indices(lists)).astype(np.int64)
        starts = np.r_[0, np.cumsum(np.bincount(rows, minlength=len(lists)))]
        first, second = hash128(units if self.normalize is None else NORMALIZERS[self.normalize](units))
        at = pa.array(rows)
        table = {
            "partition": pa.array((first % np.uint64(self.partitions)).astype(np.int32)),
            "index": at,
            "unit": pa.array((np.arange(len(units)) - starts[rows]).astype(np.int32)),
            "hash": pa.array(first),
            "hash2": pa.array(second),
            "id": batch.column("id").take(at),
        }
        if self.selection:
            table["selection"] = batch.column(self.selection).take(at)
        return pa.table(table)

    def reduce(self, part: pa.Table) -> pa.Table:
        keys = [(k, "ascending") for k in ("hash", "hash2")]
        if self.selection:
            keys.append(("selection", "descending" if self.reverse else "ascending"))
        keys += [(k, "ascending") for k in ("id", "shard", "row", "unit")]
        part = part.take(pc.sort_indices(part, sort_keys=keys)).combine_chunks()
        first, second = part.column("hash").to_numpy(), part.column("hash2").to_numpy()
        again = np.r_[False, (first[1:] == first[:-1]) & (second[1:] == second[:-1])]
        return part.select(["shard", "row", "unit"]).filter(pa.array(again[: len(first)]))

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        kinds = pa.schema([("shard", pa.int32()), ("row", pa.int64()), ("unit", pa.int32())])
        table = pa.concat_tables([kinds.empty_table(), *(p.cast(kinds) for p in parts)]).combine_chunks()
        order = [("shard", "ascending"), ("row", "ascending"), ("unit", "ascending")]
        table = table.sort_by(order).combine_chunks()
        shard, row = table.column("shard").to_numpy(), table.column("row").to_numpy()
        new = np.r_[True, (shard[1:] != shard[:-1]) | (row[1:] != row[:-1])][: len(row)]
        starts = np.flatnonzero(new)
        offsets = np.r_[starts, len(row)].astype(np.int32) if len(row) else np.zeros(1, np.int32)
        units = pa.ListArray.from_arrays(pa.array(offsets), table.column("unit").combine_chunks())
        grouped = pa.table({"shard": table.column("shard").take(pa.array(starts)),
                            "row": table.column("row").take(pa.array(starts)), "units": units})  # fmt: skip
        return Decision(grouped, {"units_removed": len(row), "pages_touched": len(starts)})

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        n = batch.num_rows
        lengths = np.asarray(pc.fill_null(pc.list_value_length(batch.column("text")), 0))
        gone = np.zeros(n, np.int64)
        places = pa.array([[]] * n, pa.list_(pa.int32()))
        if table is not None and table.num_rows:
            rows = table.column("row").to_numpy()
            start, stop = np.searchsorted(rows, [row_start, row_start + n])
            if stop > start:
                part = table.slice(start, stop - start).column("units").combine_chunks()
                here = rows[start:stop] - row_start
                gone[here] = np.asarray(pc.list_value_length(part))
                offsets = np.zeros(n + 1, np.int32)
                np.cumsum(gone, out=offsets[1:])
                places = pa.ListArray.from_arrays(pa.array(offsets), pc.list_flatten(part))
        return pa.array(gone < np.maximum(lengths, 1)), {f"{self.prefix}_repeats": places}


@dataclass(frozen=True)
class RemoveUnits(c.Transform):
    """``text`` (list<string>) without the places that column ``places`` lists."""

    places: str
    label: str = "exact_dedup"

    @property
    def name(self) -> str:
        return self.label

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("text", self.places)

    @property
    def removes(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.places,)

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        return {"text": pa.list_(pa.string())}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        lists, places = batch.column("text"), batch.column(self.places)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
        starts = np.r_[0, np.cumsum(lengths)]
        keep = np.ones(int(starts[-1]), bool)
        rows = np.asarray(pc.list_parent_indices(places)).astype(np.int64)
        keep[starts[rows] + np.asarray(pc.list_flatten(places))] = False
        return replace_columns(batch.drop_columns([self.places]), text=filtered_lists(lists, keep))
