"""Pairs for training: read shards, decode each image once, keep the pixels in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.formats import Bad, FormatError, read_batches
from curation.shards import Shard, list_shards
from filters.image_text.pixels import Pixels

COLUMNS = ("id", "text", "image")
COPY = re.compile(r"/\d+$")


class DataError(ValueError):
    """Shards that cannot be trained on; the message names file and row."""


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs, sorted by id: so the training depends on the rows and not on how they were sharded.

    ids: str [n]; captions: str [n]; pixels: uint8 [n, size, size, 3]; repeats: int64 [n], how often each id
    stood in the shards (a subset with multiplicity).
    """

    ids: list[str]
    captions: list[str]
    pixels: np.ndarray
    repeats: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Rows with multiplicity: the length of one epoch."""
        return int(self.repeats.sum())

    @property
    def fingerprint(self) -> str:
        """Hash of ids, captions, multiplicities and pixels: what a checkpoint must agree with."""
        total = hashlib.blake2b(digest_size=16)
        total.update("\0".join(self.ids).encode())
        total.update("\0".join(self.captions).encode("utf-8", "surrogatepass"))
        total.update(np.ascontiguousarray(self.repeats).tobytes())
        total.update(np.ascontiguousarray(self.pixels).tobytes())
        return total.hexdigest()


def load_pairs(source: Any, pixels: Pixels) -> Pairs:
    """Pairs from a folder, a file or a list of these (WebDataset tars, parquet; any fsspec URL), the folder
    of a curation run, a pyarrow table, or Pairs.

    Tables need the columns id, text and image. Raises DataError for no rows, a missing column, an id that
    stands with two captions, or an image that does not decode.
    """
    if isinstance(source, Pairs):
        if source.pixels.shape[1] != pixels.size:
            raise DataError(
                f"the pairs hold {source.pixels.shape[1]} px images, the model wants {pixels.size} px"
            )
        return source
    first: dict[str, int] = {}
    ids: list[str] = []
    captions: list[str] = []
    repeats: list[int] = []
    images: list[np.ndarray] = []
    for where, row_id, caption, image in _rows(source):
        key = COPY.sub("", row_id)  # a subset with multiplicity leaves copies as <uid>/0, <uid>/1, …
        at = first.get(key)
        if at is not None:
            if captions[at] != caption:
                raise DataError(
                    f"{where}: id {key} stands twice with different captions "
                    f"({captions[at][:60]!r} and {caption[:60]!r}); ids must be unique"
                )
            repeats[at] += 1
            continue
        try:
            images.append(pixels.one(image))
        except ValueError as error:
            raise DataError(f"{where}, id {key}: {error}; filter the shards with ImageBasics first") from None
        first[key] = len(ids)
        ids.append(key)
        captions.append(caption)
        repeats.append(1)
    if not ids:
        raise DataError(f"no image-text pairs in {_name(source)}")
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    return Pairs(
        [ids[i] for i in order],
        [captions[i] for i in order],
        np.stack(images)[order],
        np.array(repeats, np.int64)[order],
    )


def _name(source: Any) -> str:
    return "the table" if isinstance(source, pa.Table | pa.RecordBatch) else str(source)


def _rows(source: Any) -> Iterator[tuple[str, str, str, bytes]]:
    """(where, id, caption, image) of every row."""
    if isinstance(source, pa.Table | pa.RecordBatch):
        yield from _table_rows("table", source)
        return
    for shard in _shards(source):
        try:
            batches = read_batches(shard, columns=COLUMNS, bad=_refuse)
            for batch in batches:
                yield from _table_rows(shard.url, batch)
        except FormatError as error:
            raise DataError(str(error)) from None


def _shards(source: str | Path | Sequence[str | Path]) -> list[Shard]:
    urls = [source] if isinstance(source, str | Path) else list(source)
    places = []
    for url in map(str, urls):
        # the folder of a curation run: its kept rows are under data/, beside scores and records
        ran = storage.exists(storage.join(url, "_winnow", "report.json"))
        places.append(storage.join(url, "data") if ran else url)
    try:
        return list_shards(places)
    except (FileNotFoundError, FormatError) as error:
        raise DataError(f"no shards to train on: {error}") from None


def _refuse(bad: Bad) -> None:
    raise DataError(
        f"{bad.source}, {bad.position}: {bad.error}; run the shards through a plan, which quarantines it"
    )


def _table_rows(where: str, table: pa.Table | pa.RecordBatch) -> Iterator[tuple[str, str, str, bytes]]:
    missing = [name for name in COLUMNS if name not in table.schema.names]
    if missing:
        raise DataError(
            f"{where} lacks the column {', '.join(missing)}; it has {', '.join(table.schema.names)}"
        )
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    for key, caption, image in zip(*columns, strict=True):
        if key is None or caption is None or image is None:
            raise DataError(f"{where}, id {key}: null id, caption or image")
        yield where, key, caption, image
