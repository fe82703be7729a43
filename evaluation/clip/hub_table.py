"""The rows of a data set of the hub, whatever its files are: CSV or JSON with pictures beside, or Parquet and
the Arrow cache of the ``datasets`` library with the pictures inside."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.clip.examples import SetError
from evaluation.clip.pictures import Pictures

HF_CACHE = "hf_cache"
"""Where DataComp's download_evalsets.py lets ``datasets`` put the sets that are no tars."""
SUFFIXES = (".csv", ".jsonl", ".json", ".parquet", ".arrow")
_CELL = 16 << 20  # characters of one CSV field


@dataclass(frozen=True)
class HubTable:
    """A table in one or several files of ``directory``; the files found are of one kind."""

    directory: Path
    files: tuple[Path, ...]

    @classmethod
    def find(cls, directory: Path, columns: Sequence[Sequence[str]]) -> HubTable | None:
        """The table with, of each group of names in ``columns``, at least one. None where there is none.

        Several files of one kind are one table when they are Parquet or Arrow; of several lists the first
        with the columns is taken. The files of the test split win over others.
        """
        for suffix in SUFFIXES:
            files = [p for p in sorted(directory.rglob(f"*{suffix}")) if _is_data(p, directory)]
            files = [p for p in files if "test" in p.relative_to(directory).as_posix().lower()] or files
            tables = (
                [cls(directory, tuple(files))]
                if suffix in (".parquet", ".arrow")
                else [cls(directory, (f,)) for f in files]
            )
            for table in tables:
                if table.files and all(table._has(group) for group in columns):
                    return table
        return None

    @property
    def kind(self) -> str:
        return self.files[0].suffix

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.directory)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        if self.kind == ".parquet":
            with _readable(self.files[0]):
                return tuple(pq.read_schema(self.files[0]).names)
        if self.kind == ".arrow":
            with _readable(self.files[0]), pa.memory_map(str(self.files[0])) as source:
                return tuple(_arrow(source).schema.names)
        first = next(self.rows(), None)
        return () if first is None else tuple(name for name in first[1] if name is not None)

    def _has(self, group: Sequence[str]) -> bool:
        return any(name in self.columns for name in group)

    def column(self, *names: str) -> str | None:
        """The first of these names that the table has."""
        return next((name for name in names if name in self.columns), None)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, row) in order, only with ``columns`` where given; place names file and row for messages."""
        for path in self.files:
            with _readable(path):
                for number, row in enumerate(self._read(path, columns), 1):
                    yield f"{path}, row {number}", row

    def _read(self, path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        if self.kind == ".parquet":
            with pq.ParquetFile(path) as file:
                chosen = None if columns is None else [*columns]
                for batch in file.iter_batches(batch_size=32, columns=chosen):
                    yield from batch.to_pylist()
        elif self.kind == ".arrow":
            with pa.memory_map(str(path)) as source:
                for batch in _arrow(source):
                    for at in range(0, batch.num_rows, 32):
                        part = batch.slice(at, 32)
                        yield from (part if columns is None else part.select([*columns])).to_pylist()
        elif self.kind == ".csv":
            csv.field_size_limit(_CELL)
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from _only_test(csv.DictReader(file, strict=True))
        else:
            yield from _only_test(_json_rows(path))

    def picture(self, value: Any, where: str) -> bytes:
        """The bytes of an image cell: bytes, the struct {bytes, path} of ``datasets``, or a file's name."""
        if isinstance(value, dict):
            if value.get("bytes"):
                return value["bytes"]
            value = value.get("path")
            if isinstance(value, str) and (path := self._unpacked(value)) is not None:
                return path.read_bytes()
        if isinstance(value, bytes) and value:
            return value
        if isinstance(value, str) and value:
            return self.pictures.read(value, where)
        raise SetError(f"{where}: it has no image; fetch the set again")

    def _unpacked(self, path: str) -> Path | None:
        """A file that the Arrow cache names by its full path, also where the whole cache was moved since."""
        inside = path.partition(f"/{HF_CACHE}/")[2]
        places = [Path(path), *([self.directory.parent / inside] if inside else [])]
        return next((place for place in places if place.is_file()), None)

    def texts(self, value: Any, where: str, column: str) -> list[str]:
        """A list of texts: as it is, or written as JSON or as a Python list in a CSV cell; else one text."""
        if isinstance(value, str) and value.lstrip().startswith("["):
            for parse in (json.loads, ast.literal_eval):
                with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                    value = parse(value)
                    break
            else:
                raise SetError(f"{where}: {column} does not parse as a list: {value[:60]!r}")
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not found or not all(isinstance(t, str) for t in found):
            raise SetError(f"{where}: {column} is {str(value)[:60]!r}, expected texts")
        return found


def _is_data(path: Path, directory: Path) -> bool:
    parts = path.relative_to(directory).parts
    about = path.name in ("dataset_infos.json", "dataset_info.json", "state.json")
    hidden = path.name.startswith("_") or any(part.startswith((".", "__MACOSX")) for part in parts)
    return not about and not hidden


def _only_test(rows: Iterator[dict[str, Any]] | csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    """Rows of the test split, where the rows say which they are of."""
    for row in rows:
        if row.get("split") in (None, "", "test"):
            yield row


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON list, of a list under a key (``images``, ``data``, …), or one a line."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            values = (json.loads(line) for line in file if line.strip())
            yield from (v for v in values if isinstance(v, dict))
        return
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        value = max(lists, key=len, default=[])
    for row in value:
        if isinstance(row, dict):
            sentences = row.get("sentences")
            if isinstance(sentences, list) and sentences and isinstance(sentences[0], dict):
                row = {**row, "sentences": [s.get("raw") for s in sentences]}
            yield row


def _arrow(source: pa.NativeFile) -> Any:
    """Batches of an Arrow file, whichever of the two formats it has."""
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        reader = pa.ipc.open_file(source)
        return _Batches(reader)


class _Batches:
    def __init__(self, reader: Any) -> None:
        self.reader, self.schema = reader, reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return (self.reader.get_batch(i) for i in range(self.reader.num_record_batches))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A file that does not read as what it is called is a SetError that names it."""
    try:
        yield
    except SetError:
        raise
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, ValueError, OSError) as error:
        raise SetError(f"{path} does not read ({error}); fetch it again") from None
