"""Near-duplicate removal by MinHash and locality-sensitive hashing (Broder 1997).

A document is the set of its word n-grams. Its signature has bands × rows numbers, each the minimum of one
random function over that set, so two documents agree in one place with probability J, their Jaccard
similarity, and in a whole band, and thus share a bucket, with probability J^rows:

    P(found) = 1 − (1 − J^rows)^bands         14 bands of 8 rows: .05 at J = .5, .56 at .7, .92 at .8

The random functions are x → a·high(x) + b·low(x) mod 2^32 over a well-mixed 64-bit hash x of the n-gram, with
odd random a and b: two multiplications, no modulus, vectorised by the compiler.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.barriers import clusters
from curation.barriers.base import Decide, Decision, Totals, column_of, require


@dataclass(frozen=True)
class DedupMinhash(Decide):
    """See `dedup_minhash`."""

    on: str
    ngram: int = 5
    bands: int = 14
    rows: int = 8
    priority: str | None = None
    seed: int = 1
    reason: str = "near duplicate"
    verify: float | None = None
    prefix: str = "dedup"
    partitions: int = 32
    name: ClassVar[str] = "dedup_minhash"
    uses: ClassVar[tuple[str, ...]] = (
        "curation.hashing",
        "curation._hash_kernels",
        "curation.barriers.clusters",
        "curation.barriers._text_kernels",
        "curation.barriers._unicode",
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        priority = clusters.split_priority(self.priority)[0]
        return tuple(dict.fromkeys(n.split(".")[0] for n in (self.on, priority) if n))

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        return {f"{self.prefix}_cluster": pa.string(), f"{self.prefix}_size": pa.int64()}

    def describe(self) -> str:
        knee = (1 / self.bands) ** (1 / self.rows)
        check = f", verified at {self.verify:g}" if self.verify is not None else ""
        return (
            f"keep one of near-equal {self.on}: {self.ngram}-word shingles, {self.bands} bands × {self.rows} "
            f"rows, similar from about {knee:.2f}{check}"
        )

    def scatter(self, batch: pa.RecordBatch) -> pa.Table:
        column = column_of(batch, self.on)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise TypeError(f"dedup_minhash(on={self.on!r}): the column is {column.type}; it must be text")
        signed, words = signatures(column, self.ngram, self.bands * self.rows, self.seed)
        index = np.flatnonzero(words)
        buckets = band_buckets(signed[index], self.bands, self.rows).reshape(-1)
        at = pa.array(np.repeat(index, self.bands))
        table = {
            "partition": pa.array((buckets % np.uint64(self.partitions)).astype(np.int32)),
            "index": at,
            "bucket": pa.array(buckets),
            "id": batch.column("id").take(at),
        }
        if self.priority:
            table["priority"] = clusters.priorities(batch, self.priority).take(at)
        if self.verify is not None:
            sketch = np.repeat(_sketches(signed[index]), self.bands, axis=0)
            width = pa.binary(sketch.shape[1])
            buffers = [None, pa.py_buffer(np.ascontiguousarray(sketch))]
            table["sketch"] = pa.FixedSizeBinaryArray.from_buffers(width, len(sketch), buffers)
        return pa.table(table)

    def reduce(self, part: pa.Table) -> pa.Table:
        """Every row that shares a bucket, with the row it is joined to (`head_shard`, `head_row`)."""
        group = clusters.group_numbers(part.column("bucket").to_numpy())
        shard, row = part.column("shard").to_numpy(), part.column("row").to_numpy()
        chosen = np.flatnonzero(group >= 0)
        chosen = chosen[np.lexsort((row[chosen], shard[chosen], group[chosen]))]
        group = group[chosen]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.zeros(0, np.int64)
        if self.verify is None:
            member = np.arange(len(chosen))
            head = np.repeat(starts, np.diff(np.r_[starts, len(chosen)]))
        else:
            sketches = _sketch_matrix(part.column("sketch").take(pa.array(chosen)))
            member, head = self._similar(sketches, np.r_[starts, len(chosen)])
        rows = part.drop_columns([c for c in ("bucket", "sketch") if c in part.column_names])
        rows = rows.take(pa.array(chosen[member])).append_column("head_shard", pa.array(shard[chosen[head]]))
        return rows.append_column("head_row", pa.array(row[chosen[head]]))

    def _similar(self, sketches: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs within a bucket whose signatures agree in enough of the places outside the shared band."""
        from curation.barriers import _text_kernels as kernels

        assert self.verify is not None
        chance = 1 / 256  # two different minima have the same byte
        places = (self.bands - 1) * self.rows
        needed = self.rows + math.ceil(places * (self.verify + (1 - self.verify) * chance) - 1e-9)
        room = max(16, 2 * len(sketches))
        while True:
            member, head = np.empty(room, np.int64), np.empty(room, np.int64)
            found = int(kernels.similar_pairs(sketches, starts.astype(np.int64), needed, member, head))
            if found <= room:
                break
            room = found
        member, head = member[:found], head[:found]
        heads = np.unique(head)  # a head is a row of the result too: joined to itself
        return np.r_[member, heads], np.r_[head, heads]

    def resolve(self, parts: list[pa.Table], totals: Totals) -> Decision:
        from curation.barriers import _text_kernels as kernels

        parts = [part for part in parts if part.num_rows]
        if not parts:
            return clusters.summarise(clusters.DECISION.empty_table(), pairs=0)
        rows = pa.concat_tables(parts).combine_chunks()
        first = totals.first_rows
        node = first[rows.column("shard").to_numpy()] + rows.column("row").to_numpy()
        head = first[rows.column("head_shard").to_numpy()] + rows.column("head_row").to_numpy()
        # every head is a node as well, so nodes are all there is
        nodes, place, number = np.unique(node, return_index=True, return_inverse=True)
        joined = node != head
        other = np.searchsorted(nodes, head[joined])
        group = kernels.components(len(nodes), number[joined].astype(np.int64), other.astype(np.int64))
        rows = rows.drop_columns(["head_shard", "head_row"]).take(pa.array(place))
        decided = clusters.decide(rows, group, clusters.split_priority(self.priority)[1])
        pairs = len(np.unique(number[joined] * len(nodes) + other))  # bands find a pair more than once
        table = decided.sort_by([("shard", "ascending"), ("row", "ascending")])
        return clusters.summarise(table, pairs=pairs)

    def apply(
        self, batch: pa.RecordBatch, row_start: int, table: pa.Table | None, summary: dict[str, Any]
    ) -> tuple[pa.BooleanArray, dict[str, pa.Array]]:
        return clusters.apply(batch, row_start, table, self.prefix)


@functools.lru_cache(maxsize=16)
def permutations(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The multipliers a, b of n random functions: odd uint32[n] each, from XXH64 of their numbers."""
    from curation.hashing import hash64

    words = hash64(pa.array(np.arange(n)), seed)
    odd = np.uint32(1)
    return (words >> np.uint64(32)).astype(np.uint32) | odd, (words & np.uint64(0xFFFFFFFF)).astype(
        np.uint32
    ) | odd


def signatures(
    column: pa.Array, ngram: int = 5, n: int = 112, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures of a text column: uint32[rows, n]; and how many words each row has: int64[rows].

    Words are runs of letters, marks and numbers, lower-cased (one character each in scripts written without
    spaces); shingles are `ngram` words in a row, or all the words of a shorter row. A row without a word
    (null, empty, punctuation only) has no shingle and its signature means nothing.
    """
    from curation.barriers import _text_kernels as kernels

    return kernels.signatures(column, ngram, *permutations(n, seed))


def band_buckets(signed: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """The bucket of every band of every signature: uint64[n, bands]; equal for equal bands, same number."""
    from curation.barriers import _text_kernels as kernels

    out = np.empty((len(signed), bands), np.uint64)
    kernels.bucket_hashes(signed, bands, rows, out)
    return out


def collision_probability(similarity: float, bands: int, rows: int) -> float:
    """P(two documents of this Jaccard similarity share a bucket) = 1 − (1 − J^rows)^bands."""
    return 1 - (1 - similarity**rows) ** bands


def _sketches(signed: np.ndarray) -> np.ndarray:
    """One well-mixed byte for each number of a signature: uint8, same shape."""
    return ((signed * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def _sketch_matrix(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        array = pa.array([], column.type)
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def dedup_minhash(
    on: str = "text",
    ngram: int = 5,
    bands: int = 14,
    rows: int = 8,
    priority: str | None = None,
    seed: int = 1,
    reason: str = "near duplicate",
    *,
    verify: float | None = None,
    prefix: str = "dedup",
    partitions: int = 32,
) -> DedupMinhash:
    """Keep one row of every cluster of near-equal texts (MinHash-LSH, connected components).

    ngram: words in a shingle. bands, rows: of the signature; pairs are found with probability
        1 − (1 − J^rows)^bands. The defaults are FineWeb's (knee at J = .72); DCLM's ablation is 93 × 15,
        RefinedWeb's 450 × 20.
    verify: None joins all that share a bucket, as datatrove and most pipelines do. A similarity t joins a row
        to others of its bucket only if their signatures, outside the shared band, estimate J ≥ t (with a
        standard error of .04): fewer false pairs and chains, for 112 bytes × 14 more scratch a row.
    priority: the survivor is min(priority, id): "column" for its smallest value, "-column" for its largest,
        None for the smallest id.
    Adds `dedup_cluster` (id of the survivor) and `dedup_size` (rows in the cluster, 1 for a lone row);
    `prefix` renames both. Rows without a word are never near-duplicates. Scratch is about 70 bytes × bands a
    row, memory of a reduce task that × rows / partitions.
    """
    require(isinstance(on, str) and on != "", "dedup_minhash needs a text column: dedup_minhash(on='text')")
    for label, value in {"ngram": ngram, "bands": bands, "rows": rows, "partitions": partitions}.items():
        require(
            isinstance(value, int) and value >= 1,
            f"dedup_minhash: {label} is {value!r}; it must be 1 or more",
        )
    require(
        verify is None or (0 < verify <= 1 and bands > 1),
        f"dedup_minhash: verify is {verify!r}; it is None or a similarity above 0, and needs 2 bands or more",
    )
    clusters.split_priority(priority)
    return DedupMinhash(on, ngram, bands, rows, priority, seed, reason, verify, prefix, partitions)
