"""The bytes of chosen rows, as places in files on this machine.

Rows of a local tar are read where they lie. What lies elsewhere (an object store, a compressed tar, parquet)
is read once, in sequence, into spool files that last for one block. So workers that decode need no index,
no credentials and no knowledge of formats: they read stretches of local files.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import storage
from curation.formats.compression import codec
from curation.hashing import byte_buffers
from curation.shards import Shard
from recipes.clip.data import DataError
from recipes.clip.index import Index, with_retries

GAP = 1 << 20  # unwanted bytes that are read rather than skipped by a new request
REQUEST = 32 << 20
THREADS = 8


@dataclass(frozen=True)
class Places:
    """Where n rows lie: all arrays have length n. files: paths; file: index into them; in_json: whether the
    caption's place holds a JSON object with the key "caption" instead of text."""

    files: Sequence[str]
    file: np.ndarray
    image_at: np.ndarray
    image_size: np.ndarray
    text_at: np.ndarray
    text_size: np.ndarray
    in_json: np.ndarray

    def slice(self, start: int, stop: int) -> Places:
        """Some rows of these, with the files they need."""
        used, file = np.unique(self.file[start:stop], return_inverse=True)
        rest = (self.image_at, self.image_size, self.text_at, self.text_size, self.in_json)
        return Places(
            [self.files[i] for i in used], file.astype(np.int32), *(column[start:stop] for column in rest)
        )

    def read(self) -> tuple[list[bytes], list[str]]:
        """Images and captions. Raises `Unreadable` with the row that cannot be read."""
        images: list[bytes] = [b""] * len(self.file)
        captions = [""] * len(self.file)
        for number, path in enumerate(self.files):
            rows = np.flatnonzero(self.file == number)
            rows = rows[np.argsort(self.image_at[rows])]
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise Unreadable(int(rows[0]), str(error)) from None
            try:
                for row in rows.tolist():
                    images[row] = _stretch(handle, int(self.image_at[row]), int(self.image_size[row]), row)
                    text = _stretch(handle, int(self.text_at[row]), int(self.text_size[row]), row)
                    try:
                        captions[row] = json.loads(text)["caption"] if self.in_json[row] else text.decode()
                    except (ValueError, KeyError, TypeError) as error:
                        raise Unreadable(row, f"the caption is not where the index says ({error})") from None
            finally:
                os.close(handle)
        return images, captions


class Unreadable(Exception):
    """Row `row` of `Places` cannot be read; the message says why."""

    def __init__(self, row: int, reason: str):
        super().__init__(reason)
        self.row = row


def _stretch(handle: int, at: int, size: int, row: int) -> bytes:
    data = os.pread(handle, size, at)
    if len(data) < size:
        raise Unreadable(row, f"the file ends before byte {at + size}: it was cut since the index was made")
    return data


@dataclass
class Reader:
    """Places of rows, shard after shard. folder: for spool files, removed by `close`.

    Disk: what the rows of the blocks in use weigh; memory: one request (32 MiB) or one parquet row group a
    thread.
    """

    index: Index
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="winnow-clip-")))
    fetched: int = 0

    def places(self, shard: np.ndarray, row: np.ndarray, block: int) -> Places:
        """Places of rows (int32 [n] each), spooling what is not a local tar; `release(block)` lets go."""
        order = np.argsort(shard, kind="stable")
        shards, starts = np.unique(shard[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        spool = self.folder / f"{block:08d}"
        columns = {name: np.zeros(len(row), np.int64) for name in _PLACES}
        file = np.zeros(len(row), np.int32)
        # the index is not shared between threads: what they need of it is taken here
        work = []
        for number, start, end in zip(shards.tolist(), starts.tolist(), ends, strict=True):
            at = order[start:end]
            wanted, where = np.unique(row[at], return_inverse=True)
            known = self.index.read(number)
            where_in_tar = None
            if known.image_at is not None:
                where_in_tar = tuple(getattr(known, name)[wanted] for name in _PLACES)
            work.append((self.index.shards[number], wanted, where_in_tar, spool / f"{number:08d}", at, where))
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda item: _fetch(*item[:4]), work))
        files = []
        for number, ((path, places), item) in enumerate(zip(found, work, strict=True)):
            at, where = item[4:]
            files.append(path)
            file[at] = number
            for name, values in zip(_PLACES, places, strict=True):
                columns[name][at] = values[where]
        in_json = columns.pop("in_json").astype(bool)
        return Places(files, file, **columns, in_json=in_json)

    def release(self, block: int) -> None:
        """Remove a block's spool files."""
        shutil.rmtree(self.folder / f"{block:08d}", ignore_errors=True)

    def close(self) -> None:
        """Remove all spool files."""
        shutil.rmtree(self.folder, ignore_errors=True)


_PLACES = ("image_at", "image_size", "text_at", "text_size", "in_json")
_Columns = tuple[np.ndarray, ...]


def _fetch(shard: Shard, rows: np.ndarray, places: _Columns | None, spool: Path) -> tuple[str, _Columns]:
    """The file and the places in it of sorted rows of one shard."""
    unchanged(shard)
    if places is not None and storage.is_local(shard.url) and codec(shard.url) is None:
        return storage.local_path(shard.url), places
    spool.parent.mkdir(parents=True, exist_ok=True)
    if places is None:
        return str(spool), with_retries(lambda: _spool_parquet(shard, rows, spool), shard.url)
    return str(spool), with_retries(lambda: _spool_tar(shard, places, spool), shard.url)


def unchanged(shard: Shard) -> None:
    """Refuse a shard that is gone, or is not the one that the index was made of."""
    try:
        # listed as it was for the index: some stores word an etag differently when asked for one file
        (now,) = with_retries(lambda: storage.list_files(shard.url), shard.url)
    except FileNotFoundError:
        raise DataError(f"{shard.url} is gone since the training began; bring it back and resume") from None
    if (now.size, now.etag) != (shard.size, shard.etag):
        raise DataError(
            f"{shard.url} changed since its index was made: {shard.size} bytes ({shard.etag}), now "
            f"{now.size} ({now.etag}); bring the old file back and resume, or start a run on the new data"
        )


def _spool_tar(shard: Shard, places: _Columns, spool: Path) -> _Columns:
    """Copy the stretches that hold the rows; places in the copy."""
    image_at, image_size, text_at, text_size, in_json = places
    starts = np.minimum(image_at, text_at)
    ends = np.maximum(image_at + image_size, text_at + text_size)
    order = np.argsort(starts)
    reach = np.maximum.accumulate(ends[order])
    first = np.r_[True, starts[order][1:] > reach[:-1] + GAP]
    begins = starts[order][first]
    stops = reach[np.r_[np.flatnonzero(first)[1:] - 1, len(order) - 1]]
    with storage.open_read(shard.url) as raw, open(spool, "wb") as out:
        file: Any = gzip.GzipFile(fileobj=raw) if codec(shard.url) == "gz" else raw
        for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
            file.seek(begin)
            while begin < stop:
                try:
                    data = file.read(min(REQUEST, stop - begin))
                except zlib.error as error:
                    raise DataError(f"{shard.url}: corrupt near byte {begin} ({error})") from None
                if not data:
                    raise DataError(f"{shard.url} ends at byte {begin}; its rows go on to {stop}")
                out.write(data)
                begin += len(data)
    offset = np.r_[0, np.cumsum(stops - begins)[:-1]] - begins
    run = np.empty(len(order), np.int64)
    run[order] = np.cumsum(first) - 1
    return image_at + offset[run], image_size, text_at + offset[run], text_size, in_json


def _spool_parquet(shard: Shard, rows: np.ndarray, spool: Path) -> _Columns:
    """Write images and captions of some rows one after another; their places. One row group at a time."""
    out_places = np.zeros((4, len(rows)), np.int64)
    group = -1
    try:
        with storage.open_read(shard.url) as raw, open(spool, "wb") as out:
            parquet = pq.ParquetFile(raw)
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
            borders = np.r_[0, np.cumsum(sizes)]
            at = 0
            for group in range(len(sizes)):
                mine = slice(*np.searchsorted(rows, borders[group : group + 2]))
                if mine.start == mine.stop:
                    continue
                table = parquet.read_row_group(group, columns=["image", "text"], use_threads=False)
                table = table.take(pa.array(rows[mine] - borders[group]))
                for column, name in enumerate(("image", "text")):
                    if table.column(name).null_count:
                        nulls = table.column(name).combine_chunks().is_null().to_numpy(zero_copy_only=False)
                        row = int(rows[mine][np.flatnonzero(nulls)[0]])
                        raise DataError(f"{shard.url}, row {row}: null {name}; filter it out")
                    data, offsets = byte_buffers(table.column(name))
                    out.write(data[offsets[0] : offsets[-1]].tobytes())
                    out_places[2 * column, mine] = offsets[:-1] - offsets[0] + at
                    out_places[2 * column + 1, mine] = np.diff(offsets)
                    at += int(offsets[-1] - offsets[0])
    except pa.ArrowException as error:
        raise DataError(f"{shard.url}, row group {group}: {error}; fetch it again") from None
    return (*out_places, np.zeros(len(rows), bool))
