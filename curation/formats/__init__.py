"""File formats: bytes in, Arrow record batches out, and back.

:func:`read_batches` gives every record of a shard either as a row or to ``bad``, never neither.
:func:`open_writer` gives the same bytes for the same rows, however they are batched.
One module a format; each is imported when a shard of its format is met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from curation.formats.common import Bad, Batches, ColumnNotFound, FormatError, OnBad, is_json, project, row_id

if TYPE_CHECKING:
    from curation.shards import Shard

__all__ = [
    "WRITE_FORMATS",
    "Bad",
    "Batches",
    "ColumnNotFound",
    "FormatError",
    "OnBad",
    "Writer",
    "is_json",
    "open_writer",
    "pool_schema",
    "read_batches",
    "reader_schema",
    "row_id",
    "suffix",
]

_READERS = {"jsonl": "jsonl", "parquet": "parquet", "warc": "warc", "wet": "warc", "wds": "wds"}
#: format name of ``open_writer`` → (module, file name suffix)
WRITE_FORMATS = {
    "parquet": ("parquet", ".parquet"),
    "jsonl": ("jsonl", ".jsonl"),
    "jsonl.gz": ("jsonl", ".jsonl.gz"),
    "jsonl.zst": ("jsonl", ".jsonl.zst"),
    "wds": ("wds", ".tar"),
    "warc.gz": ("warc", ".warc.gz"),
}


class Writer(Protocol):
    """Takes record batches; ``close`` ends the format and leaves the file open for its owner to commit."""

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def _reader(shard: Shard) -> Any:
    if shard.format not in _READERS:
        raise FormatError(f"{shard.url}: unknown format {shard.format!r}; there are: {', '.join(_READERS)}")
    return import_module(f"curation.formats.{_READERS[shard.format]}")


def reader_schema(shard: Shard, columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema of the rows that :func:`read_batches` gives: ``id: string`` first, then the file's columns.

    ``columns`` keeps those (and ``id``); an unknown one raises ColumnNotFound naming what there is. A file
    whose schema cannot be read raises FormatError.
    """
    return project(_reader(shard).schema(shard), columns, shard.url)


def pool_schema(shards: Sequence[Shard], columns: Sequence[str] | None = None, probe: int = 8) -> pa.Schema:
    """One schema for a pool: the union over up to ``probe`` shards, so that a damaged one is no harm.

    Where two shards disagree on a column's type the first wins, save that int64 gives way to float64.
    Raises FormatError when no shard can be read, ColumnNotFound when an asked column is in none.
    """
    fields: dict[str, pa.Field] = {}
    errors: list[str] = []
    for shard in shards[:probe]:
        try:
            found = _reader(shard).schema(shard)
        except FormatError as error:
            errors.append(str(error))
            continue
        for field in found:
            if field.name not in fields or (fields[field.name].type, field.type) == (
                pa.int64(),
                pa.float64(),
            ):
                fields[field.name] = field
    if not fields:
        raise FormatError("no shard of the pool can be read: " + "; ".join(errors or ["it has no shards"]))
    return project(pa.schema(list(fields.values())), columns, "the pool")


def read_batches(
    shard: Shard,
    *,
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    batch_bytes: int = 16 << 20,
    bad: OnBad,
    **options: Any,
) -> Batches:
    """Stream a shard as record batches of about ``batch_bytes``, all of one schema.

    ``schema`` is the pool's (a column that this shard lacks is null); without it the shard's own. ``bad`` is
    called once per quarantined record. Rows without an ``id`` get one made of the shard's name and the
    row's place, so it never depends on batches, on parts, or on where the pool lies. The iterator's
    ``unread`` counts keys that the schema has no column for. ``options`` go to the format
    (``max_record_bytes`` for jsonl, warc and wds).
    """
    reader = _reader(shard)
    if schema is None:
        try:
            schema = reader.schema(shard)
        except FormatError:
            schema = pa.schema([pa.field("id", pa.string())])  # the reader reports the damage to `bad`
            columns = None
    target = project(schema, columns, shard.url)
    unread: Counter[str] = Counter()
    return Batches(target, reader.read(shard, target, batch_bytes, bad, unread, **options), unread)


def suffix(format: str) -> str:
    """The file name suffix of a format that can be written; raises FormatError for others."""
    if format not in WRITE_FORMATS:
        raise FormatError(f"cannot write format {format!r}; there are: {', '.join(WRITE_FORMATS)}")
    return WRITE_FORMATS[format][1]


def open_writer(file: IO[bytes], format: str, schema: pa.Schema, *, index: int = 0) -> Writer:
    """A writer of ``format`` (a key of ``WRITE_FORMATS``) into an open binary file.

    ``index`` is the number of the shard among its siblings: WebDataset keys begin with it. Raises
    FormatError for a schema that the format cannot hold.
    """
    suffix(format)
    module = import_module(f"curation.formats.{WRITE_FORMATS[format][0]}")
    if format == "wds":
        return module.Writer(file, schema, index)
    if format.startswith("jsonl"):
        return module.Writer(file, schema, format.removeprefix("jsonl").removeprefix(".") or None)
    return module.Writer(file, schema)
