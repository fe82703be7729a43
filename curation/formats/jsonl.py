"""JSON lines, plain or compressed: one object a line.

Every line is parsed on its own by orjson, good files and bad ones alike, so that what a line means never
depends on its neighbours. (pyarrow.json is 1.4-2 times faster per block but reads NaN, two objects on a
line and objects that span lines, and fails per block.) A line that is no JSON object, or holds a value that
does not fit its column, is quarantined alone.

Types are inferred from the first 1,000 good rows: bool, int64, float64 (for ints among floats too), string.
Objects and arrays become strings of JSON text; so does all but strings under a key whose values are of
several kinds. The field's metadata says ``json``, and writers put the values back as they were. A kind that
fills at least nine tenths of a key's values wins, so that a few wrong values do not decide. A key that is
null throughout is a string.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from curation import storage
from curation.formats.common import (
    JSON_FIELD,
    SAMPLE_BYTES,
    Bad,
    FormatError,
    OnBad,
    is_json,
    sample,
    with_id,
)
from curation.formats.compression import Damaged, codec, compressor, pieces
from curation.formats.rebuffer import joined
from curation.formats.rows import to_batch

if TYPE_CHECKING:
    from curation.shards import Shard

INFER_ROWS = 1_000
MAX_RECORD_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_PARSED_BYTES = 2 << 20  # at a time: Python objects of a row take several times its bytes


def schema(shard: Shard) -> pa.Schema:
    """The schema of a shard, from its first good rows; only ``id`` for a shard without any."""
    rows: list[dict[str, Any]] = []
    for block in _blocks(shard, 1 << 20, MAX_RECORD_BYTES, lambda bad: None):
        good, _ = _parse(block, shard.name, lambda bad: None)
        rows += good
        if len(rows) >= INFER_ROWS:
            break
    return with_id(infer(rows[:INFER_ROWS]))


def infer(rows: list[dict[str, Any]]) -> pa.Schema:
    """Column types of parsed rows (the rule is in the module's text), in order of first appearance."""
    kinds: dict[str, Counter[str]] = {}
    for row in rows:
        for key, value in row.items():
            count = kinds.setdefault(key, Counter())
            if value is not None:
                count[_kind(value)] += 1
    return pa.schema([_field(key, count) for key, count in kinds.items()])


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "float"
    return {float: "float", str: "string"}.get(type(value), "json")


def _field(key: str, count: Counter[str]) -> pa.Field:
    total = count.total()
    if not total:
        return pa.field(key, pa.string())
    count = Counter(count)
    if count["float"]:
        count["float"] += count.pop("int", 0)
    kind, most = max(count.items(), key=lambda item: (item[1], item[0]))
    if kind == "json" or most < 0.9 * total:
        return pa.field(key, pa.string(), metadata=JSON_FIELD)
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "string": pa.string()}
    return pa.field(key, types[kind])


def read(
    shard: Shard,
    target: pa.Schema,
    batch_bytes: int,
    bad: OnBad,
    unread: Counter[str],
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Batches of about ``batch_bytes`` of JSON text. Positions are byte offsets in the decompressed file."""

    @cache
    def loose() -> frozenset[str]:
        # A schema that was handled as names and types has lost what marks JSON text: look again.
        return frozenset(field.name for field in schema(shard) if is_json(field))

    held: list[pa.RecordBatch] = []
    size = 0
    for block in _blocks(shard, min(batch_bytes, _PARSED_BYTES), max_record_bytes, bad):
        rows, offsets = _parse(block, shard.name, bad)
        batch = to_batch(rows, offsets, target, shard.name, "byte", bad, unread, loose)
        size += len(block.data)
        del rows
        block.data = b""  # a line of 30 MB is not kept while its row goes through the steps
        if batch.num_rows:
            held.append(batch)
        del batch
        if held and size >= batch_bytes:
            yield _taken(held)
            size = 0
    if held:
        yield _taken(held)


def _taken(held: list[pa.RecordBatch]) -> pa.RecordBatch:
    """What is held, as one batch, and no longer held."""
    batch = joined(held)
    held.clear()
    return batch


class _Block:
    """Whole lines, and the byte offset of the first in the decompressed file."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset


def _blocks(shard: Shard, batch_bytes: int, max_record: int, bad: OnBad) -> Iterator[_Block]:
    """Cut the content at line ends; a line over ``max_record`` bytes is reported and never held."""
    lines: list[bytes] = []  # whole lines gathered for a block, and their bytes
    size = 0
    tail: list[bytes] = []  # the line that is not whole yet, and its bytes
    tail_size = 0
    offset = 0  # of lines[0]
    skipping: tuple[int, bytes] | None = None  # offset and head of an over-long line
    damage: Damaged | None = None
    stream = _content(shard)
    while True:
        try:
            piece = next(stream, None)
        except Damaged as error:
            damage = error
            break
        if piece is None:
            break
        if isinstance(piece, int):  # where the content begins
            offset = piece
            continue
        if skipping is not None:
            end = piece.find(b"\n")
            if end < 0:
                offset += len(piece)
                continue
            offset += end + 1
            bad(_too_long(shard.name, skipping, offset - 1, max_record))
            skipping, piece = None, piece[end + 1 :]
        last = piece.rfind(b"\n") + 1
        if last:
            lines += [*tail, piece[:last]]
            size += tail_size + last
            tail, tail_size = [], 0
        if last < len(piece):
            tail.append(piece[last:])
            tail_size += len(piece) - last
        if lines and (size >= batch_bytes or tail_size > max_record):
            yield from _within_limit(_Block(b"".join(lines), offset), max_record, shard.name, bad)
            offset += size
            lines, size = [], 0
        if tail_size > max_record:
            skipping = (offset, b"".join(tail[:2])[:SAMPLE_BYTES])
            offset += tail_size
            tail, tail_size = [], 0
    if damage is None:
        lines += tail  # the last line may lack its end
        tail = []
    if lines:
        yield from _within_limit(_Block(b"".join(lines), offset), max_record, shard.name, bad)
    if damage is not None:
        # What follows the last line end was cut with the file: one fault, one report.
        text = f"{damage} at byte {damage.offset}; what follows is lost"
        bad(Bad(shard.name, damage.offset, text, sample=sample(b"".join(tail))))
    elif skipping is not None:
        bad(_too_long(shard.name, skipping, offset, max_record))


def _too_long(name: str, line: tuple[int, bytes], end: int, limit: int) -> Bad:
    offset, head = line
    text = f"line of {end - offset} bytes at byte {offset} is over the limit of {limit} (max_record_bytes)"
    return Bad(name, offset, text, sample=head)


def _within_limit(block: _Block, limit: int, name: str, bad: OnBad) -> Iterator[_Block]:
    """The block, without its lines over the limit (they fit the block, so the gatherer let them pass)."""
    if len(block.data) <= limit:
        yield block
        return
    ends = np.flatnonzero(np.frombuffer(block.data, np.uint8) == 10)
    if not len(ends) or ends[-1] != len(block.data) - 1:
        ends = np.append(ends, len(block.data))
    starts = np.concatenate(([0], ends[:-1] + 1))
    at = 0
    for i in np.flatnonzero(ends - starts > limit):
        start, end = int(starts[i]), int(ends[i])
        if start > at:
            yield _Block(block.data[at:start], block.offset + at)
        bad(
            _too_long(
                name,
                (block.offset + start, block.data[start : start + SAMPLE_BYTES]),
                block.offset + end,
                limit,
            )
        )
        at = end + 1
    if at < len(block.data):
        yield _Block(block.data[at:], block.offset + at)


def _content(shard: Shard) -> Iterator[bytes | int]:
    """Pieces of decompressed bytes; an int gives the offset of what follows."""
    with storage.open_read(shard.url) as file:
        if shard.part is None:
            first = True
            for piece in pieces(file, codec(shard.url)):
                if first:
                    first = False
                    if piece.startswith(_BOM):
                        yield len(_BOM)
                        piece = piece[len(_BOM) :]
                if piece:
                    yield piece
        else:
            yield from _byte_range(file, *byte_range(shard.part))


def byte_range(part: str) -> tuple[int, int]:
    """The half-open range of a ``bytes:<start>-<end>`` part."""
    start, end = part.removeprefix("bytes:").split("-")
    return int(start), int(end)


def _byte_range(file: Any, start: int, end: int) -> Iterator[bytes | int]:
    """The lines that begin inside ``[start, end)``, whole."""
    at = start
    if start:
        file.seek(start - 1)
        at = start - 1
        while True:  # a line that began before belongs to the part before
            piece = file.read(1 << 20)
            if not piece:
                return
            cut = piece.find(b"\n")
            if cut >= 0:
                at += cut + 1
                break
            at += len(piece)
        if at >= end:
            return
        file.seek(at)
    first = True
    while piece := file.read(1 << 20):
        if first:
            first = False
            if at == 0 and piece.startswith(_BOM):
                piece, at = piece[len(_BOM) :], len(_BOM)
            yield at
        if at + len(piece) >= end:
            # The last line may run over the end; it ends at the first line end at or after end - 1.
            cut = piece.find(b"\n", max(0, end - 1 - at))
            if cut >= 0:
                yield piece[: cut + 1]
                return
        yield piece
        at += len(piece)


def _parse(block: _Block, name: str, bad: OnBad) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Objects of a block's lines and the byte offset of each; blank lines are no records."""
    lines = block.data.split(b"\n")
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    offsets = np.cumsum(lengths + 1) - (lengths + 1) + block.offset
    if not lines[-1]:
        lines.pop()
        offsets = offsets[:-1]
    try:
        rows = list(map(orjson.loads, lines))
        if all(type(row) is dict for row in rows):
            return rows, offsets
    except ValueError:
        pass
    rows, kept = [], []
    for line, at in zip(lines, offsets.tolist(), strict=True):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            if type(row) is dict:
                rows.append(row)
                kept.append(at)
                continue
            error = f"a JSON {_json_name(row)}, not an object"
        except ValueError as problem:
            error = str(problem)
        bad(Bad(name, at, f"line at byte {at}: {error}", sample=sample(line)))
    return rows, np.array(kept, np.int64)


def _json_name(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


class Writer:
    """JSON lines: keys in schema order, nulls written, columns of JSON text written as the JSON they hold.

    Compressed output is one frame (readers that stop after the first frame lose nothing), fed in pieces of
    a fixed size, so that the bytes depend on the rows alone. Not-a-number and infinite floats become null.
    """

    def __init__(self, file: IO[bytes], schema: pa.Schema, kind: str | None) -> None:
        for field in schema:
            if _has_binary(field.type):
                raise FormatError(
                    f"column {field.name!r} is {field.type}, which JSON cannot hold: drop or encode it"
                )
        self._file = file
        self._names = schema.names
        self._json = [is_json(field) for field in schema]
        self._compress = compressor(kind)
        self._pending = bytearray()

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            _fragments(c) if raw else c.to_pylist() for c, raw in zip(batch.columns, self._json, strict=True)
        ]
        option = orjson.OPT_APPEND_NEWLINE
        for values in zip(*columns, strict=True):
            row = dict(zip(self._names, values, strict=True))
            self._pending += orjson.dumps(row, default=str, option=option)
        while len(self._pending) >= _FEED:
            self._file.write(self._compress.compress(bytes(self._pending[:_FEED])))
            del self._pending[:_FEED]

    def close(self) -> None:
        self._file.write(self._compress.compress(bytes(self._pending)))
        self._file.write(self._compress.flush())
        self._pending.clear()


_FEED = 1 << 20


def _fragments(column: pa.Array) -> list[Any]:
    """JSON text to be written as it stands; text that is no JSON (a step changed it) as a string."""
    out: list[Any] = []
    for text in column.to_pylist():
        try:
            out.append(text if text is None else orjson.loads(text))
        except ValueError:
            out.append(text)
    return out


def _has_binary(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_has_binary(kind.field(i).type) for i in range(kind.num_fields))
