"""What a transform did to the rows of a shard, for the report: how many texts it changed and by how much, a
few of them before and after, and how often each label that it added occurs."""

from __future__ import annotations

import hashlib
import heapq
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.textdiff import pieces

EXAMPLES = 3  # edited texts shown per transform and shard
LABELS = 64  # a column with more values than that names rows rather than labelling them
_DIFF = 1200  # characters of one example, about


def rank(row_id: str) -> bytes:
    """An order of ids that has nothing to do with where rows lie: examples are the first few in it."""
    return hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Edits:
    """One transform on one shard. The examples are the same however its rows are cut into batches."""

    def __init__(self) -> None:
        self.rows = self.changed = self.before = self.after = 0
        self.examples: list[tuple[bytes, str, str | None, str, str]] = []
        self.labels: dict[str, dict[str, int] | None] = {}

    def look(self, old: pa.RecordBatch, new: pa.RecordBatch, parents: np.ndarray | None) -> None:
        """Compare a batch with what became of it; `parents`: for each new row its old one."""
        self._count_labels(old, new)
        if not (_is_text(old) and _is_text(new)) or not new.num_rows:
            return
        one, other = old.column("text"), new.column("text")
        moved = parents is not None and not np.array_equal(parents, np.arange(len(one)))
        one = one.take(pa.array(parents)) if moved else one
        if one.type != other.type:
            one = one.cast(other.type)
        differ = pc.fill_null(pc.not_equal(one, other), False)
        self.rows += new.num_rows
        self.before += pc.sum(pc.binary_length(one)).as_py() or 0
        self.after += pc.sum(pc.binary_length(other)).as_py() or 0
        at = np.flatnonzero(differ.to_numpy(zero_copy_only=False))
        self.changed += len(at)
        if not len(at):
            return
        ids = new.column("id").take(pa.array(at)).to_pylist()
        limit = self.examples[-1][0] if len(self.examples) == EXAMPLES else None
        ranked = ((rank(row_id), row_id, int(row)) for row_id, row in zip(ids, at, strict=True))
        best = heapq.nsmallest(EXAMPLES, (r for r in ranked if limit is None or r[0] < limit))
        urls = new.column("url") if "url" in new.schema.names else None
        for key, row_id, row in best:
            url = None if urls is None else urls[row].as_py()
            self.examples.append((key, row_id, url, one[row].as_py(), other[row].as_py()))
        self.examples = sorted(self.examples, key=lambda e: e[:2])[:EXAMPLES]

    def _count_labels(self, old: pa.RecordBatch, new: pa.RecordBatch) -> None:
        for field in new.schema:
            if field.name in old.schema.names or field.name == "text" or not pa.types.is_string(field.type):
                continue
            known = self.labels.setdefault(field.name, {})
            if known is None:
                continue
            for item in pc.value_counts(new.column(field.name)):
                value = item["values"].as_py()
                label = "(null)" if value is None else value[:60]
                known[label] = known.get(label, 0) + item["counts"].as_py()
                if len(known) > LABELS:
                    self.labels[field.name] = None
                    break

    def as_dict(self) -> dict[str, Any]:
        """For the done record."""
        examples = [
            {"id": row_id, "url": url, "chars_before": len(before), "chars_after": len(after),
             "diff": pieces(before, after, _DIFF)}
            for _, row_id, url, before, after in self.examples
        ]  # fmt: skip
        labels = {column: counts for column, counts in self.labels.items() if counts}
        return {
            "rows": self.rows, "changed": self.changed, "text_bytes_before": self.before,
            "text_bytes_after": self.after, "examples": examples, "labels": labels,
        }  # fmt: skip


def merged(found: list[dict[str, Any]], examples: int) -> dict[str, Any]:
    """The done records' parts of one transform as one, with so many examples."""
    sums = ("rows", "changed", "text_bytes_before", "text_bytes_after")
    labels: dict[str, dict[str, int]] = {}
    for part in found:
        for column, counts in part["labels"].items():
            mine = labels.setdefault(column, {})
            for value, count in counts.items():
                mine[value] = mine.get(value, 0) + count
    return {
        **{name: sum(part[name] for part in found) for name in sums},
        "examples": sorted((e for part in found for e in part["examples"]), key=lambda e: rank(e["id"]))[
            :examples
        ],
        "labels": {
            c: dict(sorted(v.items(), key=lambda kv: (-kv[1], kv[0]))[:LABELS]) for c, v in labels.items()
        },
    }


def _is_text(batch: pa.RecordBatch) -> bool:
    if "text" not in batch.schema.names:
        return False
    kind = batch.schema.field("text").type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
