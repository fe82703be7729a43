"""What a transform did to the rows of a shard, for the report: how many texts it changed and by how much, a
few of them before and after, and how often each label that it added occurs."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.examples import is_text
from curation.textdiff import ADDED, GAP, REMOVED, Piece, pieces

EXAMPLES = 3  # edited texts shown per transform and shard
LABELS = 64  # a column with more values than that names rows rather than labelling them
_DIFF = 1200  # characters of one example, about
_LARGE = 1 << 18  # bytes; of a longer text only a window is held and compared
_WINDOW = 1 << 16  # bytes of either text in that window
_AROUND = 64  # bytes of it before the first difference, and after the last


def rank(row_id: str) -> bytes:
    """An order of ids that has nothing to do with where rows lie: examples are the first few in it."""
    return hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(frozen=True)
class _Example:
    """A text before and after: whole, or a window of each and how many characters are left out."""

    before: str
    after: str
    chars_before: int
    chars_after: int
    head: int = 0  # characters before the windows, the same in both
    tail: int = 0
    rest: tuple[int, int] | None = None  # characters between the windows and the tail

    def diff(self) -> list[Piece]:
        found = pieces(self.before, self.after, _DIFF)
        if self.rest:
            # what ends at the window's edge may go on behind it
            sure = [n for n, (op, _) in enumerate(found, 1) if op not in (REMOVED, ADDED, GAP)]
            found = found[: sure[-1]] if sure else found
            left = "the rest of {:,} → {:,} characters is not compared".format(*self.rest)
            found.append((GAP, left))
        skipped = [[(GAP, f"{n:,} characters unchanged")] if n else [] for n in (self.head, self.tail)]
        return [*skipped[0], *found, *skipped[1]]


class Edits:
    """One transform on one shard. The examples are the same however its rows are cut into batches."""

    def __init__(self) -> None:
        self.rows = self.changed = self.before = self.after = 0
        self.examples: list[tuple[bytes, str, str | None, _Example]] = []
        self.labels: dict[str, dict[str, int] | None] = {}

    def look(self, old: pa.RecordBatch, new: pa.RecordBatch, parents: np.ndarray | None) -> None:
        """Compare a batch with what became of it; `parents`: for each new row its old one."""
        self._count_labels(old, new)
        if not (_has_text(old) and _has_text(new)) or not new.num_rows:
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
            self.examples.append((key, row_id, url, _example(one[row], other[row])))
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
            {"id": row_id, "url": url, "chars_before": text.chars_before, "chars_after": text.chars_after,
             "diff": text.diff()}
            for _, row_id, url, text in self.examples
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


def _example(old: pa.Scalar, new: pa.Scalar) -> _Example:
    """Of long texts what surrounds their first difference, so that what is held does not grow with them."""
    a, b = (np.frombuffer(value.as_buffer(), np.uint8) for value in (old, new))
    if max(len(a), len(b)) <= _LARGE:
        before, after = old.as_py(), new.as_py()
        return _Example(before, after, len(before), len(after))
    same = _same(a, b)
    head = _boundary(a, max(0, same - _AROUND))
    tail = max(0, _same(a[same:][::-1], b[same:][::-1]) - _AROUND)
    ends = [_boundary(text, len(text) - tail) for text in (a, b)]
    stops = [
        _boundary(text, min(end, head + _WINDOW)) for text, end in zip((a, b), ends, strict=True)
    ]  # fmt: skip
    rest = (_chars(a[stops[0] : ends[0]]), _chars(b[stops[1] : ends[1]]))
    before, after = (text[head:stop].tobytes().decode() for text, stop in zip((a, b), stops, strict=True))
    return _Example(
        before,
        after,
        _chars(a),
        _chars(b),
        _chars(a[:head]),
        _chars(a[ends[0] :]),
        rest if any(rest) else None,
    )


def _same(a: np.ndarray, b: np.ndarray) -> int:
    """How many first bytes are equal."""
    shortest = min(len(a), len(b))
    for start in range(0, shortest, 1 << 20):
        stop = min(start + (1 << 20), shortest)
        differ = a[start:stop] != b[start:stop]
        if differ.any():
            return start + int(differ.argmax())
    return shortest


def _boundary(text: np.ndarray, at: int) -> int:
    """The last place at or before ``at`` where a character begins."""
    while 0 < at < len(text) and text[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _chars(text: np.ndarray) -> int:
    return sum(int(((text[i : i + (1 << 20)] & 0xC0) != 0x80).sum()) for i in range(0, len(text), 1 << 20))


def _has_text(batch: pa.RecordBatch) -> bool:
    return "text" in batch.schema.names and is_text(batch.schema.field("text").type)
