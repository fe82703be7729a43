"""Deduplication of paragraphs and documents by a filter of n-grams already seen, as DCLM-Baseline does it
(BFF: Groeneveld, "The Big Friendly Filter"; Li et al. 2024, arXiv 2406.11794).

Rows are read one after the other. Each span of a text (a line) whose n-grams have nearly all been seen is cut
out; the n-grams of the others become known at once, so that a repeat further down the same text is found too.
Then a row of whose n-grams nearly all had been seen is dropped.

Words and n-gram hashes are made in parallel, with the rows. What must be in order, the pass over the hashes,
is one compiled loop for each group of shards: it reads 8 bytes an n-gram as a stream and holds the filter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.barriers.base import Decide, Decision, Totals, column_of, require

MODES = ("old-both", "paragraph", "document")
FILTERS = ("bloom", "exact")
DECISION = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("contained", pa.float64()),
        ("removed", pa.int64()),
        ("dropped", pa.bool_()),
        ("cuts", pa.list_(pa.int32())),
    ]
)
_STATE = ("bits_set", "spans_removed", "expected_false_positives", "spans", "ngrams_inserted")


@dataclass(frozen=True)
class DedupBff(Decide):
    """See `dedup_bff`."""

    on: str = "text"
    mode: str = "old-both"
    min_ngram: int = 13
    max_ngram: int = 13
    threshold: float = 0.8
    fp_rate: float = 0.01
    filter: str = "bloom"
    groups: int | None = None
    seed: int = 0
    reason: str = "seen before"
    prefix: str = "bff"
    name: ClassVar[str] = "dedup_bff"
    uses: ClassVar[tuple[str, ...]] = (
        "curation.hashing",
        "curation._hash_kernels",
        "curation.barriers._bff_kernels",
        "curation.barriers._text_kernels",
        "curation.barriers._word_break",
    )

    @property
    def partitions(self) -> int:  # type: ignore[override]
        return self.groups or 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.on,)

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        return {f"{self.prefix}_contained": pa.float64(), f"{self.prefix}_removed": pa.int64()}

    @property
    def changes(self) -> tuple[str, ...]:
        return (self.on,)

    def describe(self) -> str:
        what = {
            "old-both": "cut lines, then drop rows",
            "paragraph": "cut lines",
            "document": "drop rows",
        }[self.mode]
        size = f"{self.min_ngram} to {self.max_ngram}" if self.min_ngram < self.max_ngram else self.max_ngram
        where = f" within each of {self.groups} groups of shards" if self.groups else ""
        how = f"Bloom filter, {self.fp_rate:g} false" if self.filter == "bloom" else "exact set"
        return (
            f"{what} of {self.on} with more than {self.threshold:g} of their {size}-word n-grams seen before"
            f"{where} ({how})"
        )

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        from curation.barriers import _bff_kernels as kernels
        from curation.hashing import hash64

        column = column_of(batch, self.on)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise TypeError(f"dedup_bff(on={self.on!r}): the column is {column.type}; it must be text")
        salt = int(hash64(pa.array([self.seed]))[0])
        cut = self.mode != "document"
        hashes, span_bytes, span_ngrams, row_spans, row_ngrams = kernels.shingle(
            column, self.max_ngram, self.min_ngram, cut, salt
        )
        index = np.flatnonzero(row_ngrams)  # nothing can be said of a row without an n-gram
        spans = np.repeat(row_ngrams > 0, row_spans)
        ends = np.cumsum(row_spans[index])
        return pa.table(
            {
                "partition": pa.array(np.zeros(len(index), np.int32)),
                "index": pa.array(index),
                "hashes": _lists(np.cumsum(row_ngrams[index]), hashes),
                "span_bytes": _lists(ends, span_bytes[spans]),
                "span_ngrams": _lists(ends, span_ngrams[spans]),
            }
        )

    def partition_of(self, shard: int) -> int:
        return shard % self.partitions

    def reduce(self, part: pa.Table) -> pa.Table:
        order = [("shard", "ascending"), ("row", "ascending")]
        return self.reduce_stream(lambda: iter([part.sort_by(order).combine_chunks()]))

    def reduce_stream(self, pieces: Callable[[], Iterator[pa.Table]]) -> pa.Table:
        from curation.barriers import _bff_kernels as kernels

        n = sum(len(_values(piece.column("hashes"))) for piece in pieces())
        if self.filter == "bloom":
            size, hashers = bloom_size(max(n, 1), self.fp_rate)
            table = _zeros(-(-size // 64), self)
        else:
            hashers = 0
            table = _zeros(1 << max(1, 2 * n - 1).bit_length(), self)
            size = len(table)
        state = np.zeros(len(_STATE))
        made, seen, rows, rows_dropped, text_bytes = [], 0, 0, 0, 0
        for piece in pieces():
            hashes, span_bytes = _values(piece.column("hashes")), _values(piece.column("span_bytes"))
            row_spans = _lengths(piece.column("span_bytes"))
            row_ngrams = _lengths(piece.column("hashes"))
            contained, removed = np.empty(len(row_spans), np.int64), np.empty(len(row_spans), np.int64)
            dropped, row_cuts = np.empty(len(row_spans), np.bool_), np.empty(len(row_spans), np.int64)
            cuts = np.empty(2 * len(span_bytes), np.int32)
            used = kernels.deduplicate(
                hashes, row_ngrams, row_spans, span_bytes, _values(piece.column("span_ngrams")), table,
                np.uint64(size), hashers, float(self.threshold), self.mode != "paragraph", state, contained,
                removed, dropped, cuts, row_cuts,
            )  # fmt: skip
            seen, rows = seen + int(contained.sum()), rows + len(contained)
            rows_dropped, text_bytes = rows_dropped + int(dropped.sum()), text_bytes + int(removed.sum())
            touched = np.flatnonzero(contained)  # a row of which nothing had been seen loses nothing
            lists = _lists(row_cuts, cuts[:used].copy(), pa.ListArray)
            at = pa.array(touched)
            columns = [
                piece.column("shard").take(at),
                piece.column("row").take(at),
                pa.array(contained[touched] / row_ngrams[touched]),
                pa.array(removed[touched]),
                pa.array(dropped[touched]),
                lists.take(at),
            ]
            made.append(pa.table(columns, schema=DECISION))
        facts = dict(zip(_STATE, state.tolist(), strict=True))
        facts |= {"ngrams": n, "ngrams_contained": seen, "rows": rows, "rows_dropped": rows_dropped}
        facts |= {"bytes_removed": text_bytes, "bits": size, "hashers": hashers, "filter_bytes": table.nbytes}
        result = pa.concat_tables([DECISION.empty_table(), *made]).combine_chunks()
        return result.replace_schema_metadata({"facts": json.dumps(facts)})

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        facts = [json.loads(part.schema.metadata[b"facts"]) for part in parts]
        table = pa.concat_tables(
            [DECISION.empty_table(), *(part.replace_schema_metadata(None) for part in parts)]
        ).combine_chunks()
        order = [("shard", "ascending"), ("row", "ascending")]

        def total(name: str) -> int:
            return round(sum(f[name] for f in facts))

        summary: dict[str, Any] = {
            "rows_dropped": total("rows_dropped"),
            "rows_shortened": pc.sum(pc.greater(pc.list_value_length(table.column("cuts")), 0)).as_py() or 0,
            "bytes_removed": total("bytes_removed"),
            "spans": total("spans"),
            "spans_removed": total("spans_removed"),
            "ngrams": total("ngrams"),
            "ngrams_contained": total("ngrams_contained"),
            "ngrams_inserted": total("ngrams_inserted"),
            "groups": len(parts),
            "filter_bytes": max((f["filter_bytes"] for f in facts), default=0),
        }
        if self.filter == "bloom":
            rates = [(f["bits_set"] / f["bits"]) ** f["hashers"] for f in facts]
            summary |= {
                "bits": total("bits"),
                "bits_set": total("bits_set"),
                "hashers": max((f["hashers"] for f in facts), default=0),
                "fp_rate_at_end": max(rates, default=0.0),
                "expected_false_positives": total("expected_false_positives"),
            }
        return Decision(table.sort_by(order), summary)

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        n = batch.num_rows
        text = column_of(batch, self.on)
        keep, contained, removed = np.ones(n, np.bool_), np.zeros(n), np.zeros(n, np.int64)
        if table is not None and table.num_rows:
            first, last = np.searchsorted(table.column("row").to_numpy(), [row_start, row_start + n])
            part = table.slice(first, last - first).combine_chunks()
            rows = part.column("row").to_numpy() - row_start
            keep[rows] = ~part.column("dropped").to_numpy()
            contained[rows] = part.column("contained").to_numpy()
            removed[rows] = part.column("removed").to_numpy()
            text = _without(text, rows, part.column("cuts"), removed)
        columns = dict(zip(self.outputs, (pa.array(contained), pa.array(removed)), strict=True))
        return pa.array(keep), columns | {self.on: text}


def bloom_size(n: int, fp_rate: float) -> tuple[int, int]:
    """(bits, hashers) of the smallest Bloom filter that has at most `fp_rate` false positives after n
    insertions: hashers = ⌈bits / n · ln 2⌉, rate = (1 − (1 − 1/bits)^(hashers · n))^hashers, by bisection as
    in BFF."""

    def hashers(bits: int) -> int:
        return math.ceil(bits / n * math.log(2))

    def rate(bits: int) -> float:
        return (-math.expm1(hashers(bits) * n * math.log1p(-1 / bits))) ** hashers(bits)

    low, high = 1, 64
    while rate(high) > fp_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rate(middle) > fp_rate else (low, middle)
    return high, hashers(high)


def _zeros(n: int, step: DedupBff) -> np.ndarray:
    import psutil

    found = psutil.virtual_memory().total
    if 8 * n > 0.9 * found:
        raise MemoryError(
            f"dedup_bff: the filter of one group needs {8 * n / 1e9:.1f} GB and this machine has "
            f"{found / 1e9:.1f} GB: deduplicate within more groups of shards (groups={2 * step.partitions}), "
            "or raise fp_rate"
        )
    return np.zeros(n, np.uint64)


def _lists(ends: np.ndarray, values: np.ndarray, kind: Any = pa.LargeListArray) -> Any:
    """Lists that lie one behind the other in `values`, by their ends."""
    width = np.int64 if kind is pa.LargeListArray else np.int32
    return kind.from_arrays(pa.array(np.r_[0, ends].astype(width)), pa.array(values))


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """All lists of a column as one array."""
    return _one(column).flatten().to_numpy()


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_value_length(_one(column)).to_numpy(zero_copy_only=False).astype(np.int64)


def _one(column: pa.ChunkedArray) -> Any:
    column = column if column.num_chunks == 1 else column.combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _without(text: pa.Array, rows: np.ndarray, cuts: pa.ChunkedArray, removed: np.ndarray) -> pa.Array:
    """A text column without the bytes that `cuts` says of its `rows`."""
    from curation.barriers import _bff_kernels as kernels
    from curation.hashing import byte_buffers

    lengths = _lengths(cuts)
    if not lengths.any():
        return text
    data, offsets = byte_buffers(text)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    out_offsets = np.zeros(len(text) + 1, np.int64)
    values = _values(cuts)
    kernels.cut_text(data, offsets, rows, values, np.r_[0, np.cumsum(lengths)], out, out_offsets)
    buffers = [None, pa.py_buffer(out_offsets), pa.py_buffer(out[: out_offsets[-1]].copy())]
    made = pa.LargeStringArray.from_buffers(len(text), buffers[1], buffers[2]).cast(text.type)
    return pc.if_else(text.is_valid(), made, pa.scalar(None, text.type)) if text.null_count else made


def dedup_bff(
    on: str = "text",
    mode: str = "old-both",
    min_ngram: int = 13,
    max_ngram: int = 13,
    threshold: float = 0.8,
    fp_rate: float = 0.01,
    filter: str = "bloom",
    groups: int | None = None,
    seed: int = 0,
    reason: str = "seen before",
    *,
    prefix: str = "bff",
) -> DedupBff:
    """Cut lines, and drop rows, that earlier rows of the pool have nearly word for word (BFF).

    Rows come in the pool's order, shard by shard. A text is cut before every newline into spans, each span
    into words (Unicode word boundaries, UAX #29; white space is no word, a punctuation mark is one), and all
    `max_ngram` words in a row are an n-gram; a span of fewer words, but `min_ngram` or more, is one n-gram.

    * Span rule: a span is removed if more than `threshold` of its n-grams (strictly) are known. The n-grams
      of a span that stays are known from there on, to the next span of the same text too.
    * Row rule: a row is dropped if of all its n-grams more than `threshold` were known when their turn came.
      Those of spans that would have stayed remain known. A row is dropped too if the span rule leaves nothing
      but white space of it.

    A row without an n-gram is kept as it is. What remains of a text is joined unchanged, so it begins with a
    newline if its first span went.

    mode: "old-both" (both rules; made DCLM-Baseline), "paragraph" (span rule only), "document" (the whole
        text is one span). BFF's own "both" and "naive-both" are other algorithms, and not here.
    fp_rate, filter: "bloom" takes about 1.2 bytes an n-gram at .01, and takes some n-grams for known that are
        not. "exact" keeps 64-bit hashes, 16 to 32 bytes an n-gram, and makes no such errors.
    groups: None: the pool as one. n: shard i belongs to group i mod n, and rows know only their own group
        (DCLM-Baseline: 100). Groups run in parallel; each needs memory for its own filter.
    seed: of the hashes: another seed has other false positives.

    Adds `bff_contained` (share of the row's n-grams that were known; 0 without n-grams) and `bff_removed`
    (bytes cut from the text; all of them for a dropped row); `prefix` renames both. The outcome depends on
    the order of shards and rows, as with the original, but not on workers or batches. Scratch: 8 bytes an
    n-gram.
    """
    require(isinstance(on, str) and on != "", "dedup_bff needs a text column: dedup_bff(on='text')")
    require("." not in on, f"dedup_bff: on is {on!r}; it changes the text, so it needs a column, not a field")
    require(
        mode in MODES,
        f"dedup_bff: mode is {mode!r}; it is {', '.join(map(repr, MODES))}"
        + (" (BFF's own 'both' is another algorithm; DCLM used 'old-both')" if mode == "both" else ""),
    )
    require(filter in FILTERS, f"dedup_bff: filter is {filter!r}; it is 'bloom' or 'exact'")
    for label, value in {"min_ngram": min_ngram, "max_ngram": max_ngram, "groups": groups or 1}.items():
        require(
            isinstance(value, int) and value >= 1, f"dedup_bff: {label} is {value!r}; it must be 1 or more"
        )
    require(
        min_ngram <= max_ngram,
        f"dedup_bff: min_ngram is {min_ngram} and max_ngram {max_ngram}; the first may not be the larger",
    )
    require(groups is None or groups >= 1, f"dedup_bff: groups is {groups!r}; it is None, or 1 or more")
    require(0 <= threshold <= 1, f"dedup_bff: threshold is {threshold!r}; it is a share, from 0 to 1")
    require(0 < fp_rate < 1, f"dedup_bff: fp_rate is {fp_rate!r}; it lies between 0 and 1")
    return DedupBff(on, mode, min_ngram, max_ngram, threshold, fp_rate, filter, groups, seed, reason, prefix)
