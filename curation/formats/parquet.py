"""Parquet: row groups streamed in batches, columns projected in the file, damage confined to its row group.

Row groups that our writer cuts do not depend on how batches arrived, and carry page checksums that the
reader verifies, so that a flipped byte is found rather than read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import storage
from curation.formats.common import Bad, FormatError, OnBad, row_id, with_id
from curation.formats.rebuffer import Rebuffer, joined

if TYPE_CHECKING:
    from curation.shards import Shard

ROW_GROUP_BYTES = 16 << 20  # of Arrow values, before encoding
ROW_GROUP_ROWS = 100_000
# Columns whose values are nearly all distinct: a dictionary would be built only to be thrown away.
_DISTINCT = {"id", "text", "content", "image", "url", "sha256"}
_ERRORS = (pa.ArrowException, OSError, ValueError, EOFError)


def schema(shard: Shard) -> pa.Schema:
    """The schema of a file's rows; raises FormatError when the footer cannot be read."""
    with storage.open_read(shard.url) as file:
        try:
            found = pq.ParquetFile(file).schema_arrow
        except _ERRORS as error:
            raise FormatError(f"{shard.url}: no readable parquet footer ({error})") from error
    fields = [pa.field(f.name, plain(f.type), metadata=_user_metadata(f)) for f in found]
    return with_id(pa.schema(fields))


def _user_metadata(field: pa.Field) -> dict[bytes, bytes] | None:
    kept = {k: v for k, v in (field.metadata or {}).items() if not k.startswith(b"PARQUET:")}
    return kept or None


def plain(kind: pa.DataType) -> pa.DataType:
    """The type that rows have here: 32-bit offsets, no views, no dictionaries, at every depth of lists."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.binary()
    if pa.types.is_large_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def row_groups(url: str, size: int) -> list[int]:
    """The share of the file's ``size`` bytes of each row group, by its decoded size.

    Raises FormatError when the footer cannot be read. (Column chunks state their stored sizes, but pyarrow
    aborts the process when it is asked for a damaged one.)
    """
    with storage.open_read(url) as file:
        try:
            meta = pq.ParquetFile(file).metadata
        except _ERRORS as error:
            raise FormatError(f"{url}: no readable parquet footer ({error})") from error
        ends = np.cumsum([max(1, meta.row_group(i).total_byte_size) for i in range(meta.num_row_groups)])
    borders = [0, *(int(end) * size // int(ends[-1]) for end in ends)] if len(ends) else [0]
    return [stop - start for start, stop in pairwise(borders)]


def group_range(part: str) -> tuple[int, int]:
    """The half-open range of a ``groups:<start>-<end>`` part."""
    start, end = part.removeprefix("groups:").split("-")
    return int(start), int(end)


def read(
    shard: Shard, target: pa.Schema, batch_bytes: int, bad: OnBad, unread: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of about ``batch_bytes``. Positions are row numbers in the file, across its parts."""
    with storage.open_read(shard.url) as file:
        yield from _gathered(_batches(file, shard, target, batch_bytes, bad, unread), batch_bytes)


def _batches(
    file: IO[bytes], shard: Shard, target: pa.Schema, batch_bytes: int, bad: OnBad, unread: Counter[str]
) -> Iterator[pa.RecordBatch]:
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        meta = parquet.metadata
        names = parquet.schema_arrow.names
        groups = [
            (meta.row_group(i).num_rows, meta.row_group(i).total_byte_size)
            for i in range(meta.num_row_groups)
        ]
        counted = sum(rows for rows, _ in groups)
        if counted != meta.num_rows or any(rows < 0 for rows, _ in groups):
            raise pa.ArrowInvalid(f"it says {meta.num_rows} rows, its row groups {counted}")
    except _ERRORS as error:
        text = f"unreadable parquet footer ({error}): all {shard.size} bytes of {shard.name} are lost"
        bad(Bad(shard.name, 0, text))
        return
    source = "id" if "id" in names else "uid" if "uid" in names else None
    wanted = [f.name for f in target if f.name != "id" and f.name in names]
    stored = wanted + ([source] if source and "id" in target.names else [])
    first, last = (0, len(groups)) if shard.part is None else group_range(shard.part)
    row = sum(rows for rows, _ in groups[:first])
    for index, (rows, size) in list(enumerate(groups))[first:last]:
        for name in set(names) - set(stored):
            unread[name] += rows
        step = max(1, min(rows, batch_bytes * rows // max(1, size)))
        end = row + rows
        while row < end:
            try:
                if row == end - rows:
                    batches = parquet.iter_batches(
                        step, row_groups=[index], columns=stored, use_threads=False
                    )
                found = next(batches, None)
                if found is None:
                    raise pa.ArrowInvalid("it ends before its last row")
                batch = _conform(found, target, source, shard.name, row, bad)
            except FormatError:
                raise
            except _ERRORS as error:
                text = f"damaged row group {index} ({error}): rows {row} to {end - 1} are lost"
                bad(Bad(shard.name, row, text, rows=end - row))
                break
            row += found.num_rows
            if batch.num_rows:
                yield batch
        row = end


def _gathered(batches: Iterator[pa.RecordBatch], batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Small batches joined to about ``batch_bytes``: a projected row is narrower than the file's rows."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if 2 * size > batch_bytes:
            yield joined(held)
            held, size = [], 0
    if held:
        yield joined(held)


def _conform(
    found: pa.RecordBatch, target: pa.Schema, source: str | None, name: str, row: int, bad: OnBad
) -> pa.RecordBatch:
    """``found`` (rows ``row``… of the file) as ``target``; rows with invalid UTF-8 are bad."""
    found, numbers = _valid_rows(found, name, row, bad)
    columns = []
    for field in target:
        if field.name == "id":
            columns.append(_ids(found, source, name, numbers))
        elif field.name not in found.schema.names:
            columns.append(pa.nulls(found.num_rows, field.type))
        else:
            column = found.column(field.name)
            if column.type != field.type:
                try:
                    column = column.cast(field.type)
                except pa.ArrowException as error:
                    raise FormatError(
                        f"{name}: column {field.name!r} is {column.type}, the pool's is {field.type} "
                        f"({error}); read it under its own schema or convert it"
                    ) from error
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=target)


def _valid_rows(
    found: pa.RecordBatch, name: str, row: int, bad: OnBad
) -> tuple[pa.RecordBatch, np.ndarray | range]:
    """Parquet promises UTF-8 but no reader checks it; compiled kernels downstream must meet nothing else."""
    try:
        found.validate(full=True)
        return found, range(row, row + found.num_rows)
    except pa.ArrowException as problem:
        first = str(problem)
    keep = []
    for i in range(found.num_rows):
        try:
            found.slice(i, 1).validate(full=True)
            keep.append(i)
        except pa.ArrowException as problem:
            bad(Bad(name, row + i, f"row {row + i}: {problem}"))
    if len(keep) == found.num_rows:
        raise pa.ArrowInvalid(first)
    kept = np.array(keep, np.int64)
    return found.take(pa.array(kept)), kept + row


def _ids(found: pa.RecordBatch, source: str | None, name: str, numbers: np.ndarray | range) -> pa.Array:
    if source is None:
        return pa.array([row_id(name, int(n)) for n in numbers], pa.string())
    ids = found.column(source)
    if pa.types.is_binary(ids.type) or pa.types.is_fixed_size_binary(ids.type):
        ids = pa.array([None if v is None else v.hex() for v in ids.to_pylist()], pa.string())
    elif ids.type != pa.string():
        ids = ids.cast(pa.string())
    if ids.null_count:
        pairs = zip(ids.to_pylist(), numbers, strict=True)
        ids = pa.array([row_id(name, int(n)) if v is None else v for v, n in pairs], pa.string())
    return ids


class Writer:
    """Parquet, zstd, with page checksums; the same rows give the same bytes however they are batched."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._schema = schema
        self._rebuffer = Rebuffer(schema, ROW_GROUP_ROWS, ROW_GROUP_BYTES)
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=1,  # twice the speed of 3 for about 5 % more bytes
            use_dictionary=[f.name for f in schema if f.name not in _DISTINCT],
            write_page_checksum=True,
            version="2.6",
            data_page_version="1.0",
        )

    def write(self, batch: pa.RecordBatch) -> None:
        for group in self._rebuffer.add(batch):
            self._writer.write_table(group, row_group_size=group.num_rows)

    def close(self) -> None:
        for group in self._rebuffer.rest():
            self._writer.write_table(group, row_group_size=group.num_rows)
        self._writer.close()
