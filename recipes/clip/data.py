"""Pairs for training: read shards, decode each image once, keep the pixels in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage, subsets
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


def load_pairs(source: Any, pixels: Pixels, subset: np.ndarray | None = None) -> Pairs:
    """Pairs from a folder, a file or a list of these (WebDataset tars, parquet; any fsspec URL), the folder
    of a curation run, a pyarrow table, or Pairs.

    subset: uids to keep, with multiplicity (`curation.subsets`); a copy in the shards counts as often again.
    Tables need the columns id, text and image. Raises DataError for no rows, a missing column, an id that
    stands with two captions, or an image that does not decode.
    """
    if isinstance(source, Pairs):
        if subset is not None:
            raise DataError("a subset is taken from shards or a table; these pairs are loaded already")
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
        times = 1 if subset is None else _times(subset, key, where)
        if not times:
            continue
        at = first.get(key)
        if at is not None:
            if captions[at] != caption:
                raise DataError(
                    f"{where}: id {key} stands twice with different captions "
                    f"({captions[at][:60]!r} and {caption[:60]!r}); ids must be unique"
                )
            repeats[at] += times
            continue
        try:
            images.append(pixels.one(image))
        except ValueError as error:
            raise DataError(f"{where}, id {key}: {error}; filter the shards with ImageBasics first") from None
        first[key] = len(ids)
        ids.append(key)
        captions.append(caption)
        repeats.append(times)
    if not ids:
        raise DataError(f"no image-text pairs in {_name(source)}")
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    return Pairs(
        [ids[i] for i in order],
        [captions[i] for i in order],
        np.stack(images)[order],
        np.array(repeats, np.int64)[order],
    )


def _times(subset: np.ndarray, key: str, where: str) -> int:
    try:
        return int(subsets.multiplicity(subset, pa.array([key]))[0])
    except ValueError:
        raise DataError(
            f"{where}, id {key}: no uid (32 hex digits), which is what a subset file names; filter by a plan"
        ) from None


def _name(source: Any) -> str:
    return "the table" if isinstance(source, pa.Table | pa.RecordBatch) else str(source)


def _rows(source: Any) -> Iterator[tuple[str, str, str, bytes]]:
    """(where, id, caption, image) of every row."""
    if isinstance(source, pa.Table | pa.RecordBatch):
        yield from _table_rows("table", source)
        return
    for shard in shards_of(source):
        try:
            batches = read_batches(shard, columns=COLUMNS, bad=_refuse)
            for batch in batches:
                yield from _table_rows(shard.url, batch)
        except FormatError as error:
            raise DataError(str(error)) from None


def shards_of(source: str | Path | Sequence[str | Path]) -> list[Shard]:
    """The shards of a folder, file, glob or list of these; of a run's folder, or a DataComp pool's, those
    with its rows. Raises DataError where there are none, or where one that should be there is missing."""
    urls = [source] if isinstance(source, str | Path) else list(source)
    places = [_rows_place(url) for url in map(str, urls)]
    try:
        _complete(places)
        return list_shards(places)
    except (FileNotFoundError, FormatError) as error:
        raise DataError(f"no shards to train on: {error}") from None


def _rows_place(url: str) -> str:
    """Where the rows lie: a run's under data/, beside scores and records; a pool's under shards/."""
    if storage.exists(storage.join(url, "_winnow", "report.json")):
        return storage.join(url, "data")
    shards = storage.join(url, "shards")
    return shards if storage.exists(storage.join(url, "metadata")) and storage.exists(shards) else url


def _complete(places: Sequence[str]) -> None:
    """DataComp's tars have a parquet and a _stats.json beside them, its resharder's a meta.json: use them."""
    for place in places:
        found = storage.list_files(place)
        names = {info.name for info in found}
        if not any(name.endswith(".tar") for name in names):
            continue
        partners = [n.removesuffix("_stats.json") for n in names if re.search(r"(^|/)\d+_stats\.json$", n)]
        partners += [n.removesuffix(".parquet") for n in names if re.search(r"(^|/)\d+\.parquet$", n)]
        missing = {f"{stem}.tar" for stem in partners} - names
        meta = next((info for info in found if info.name == "meta.json"), None)
        if meta is not None:
            values = json.loads(storage.read_bytes(meta.url))
            count, form = values.get("output_shard_count"), values.get("output_shard_format")
            if isinstance(count, int) and isinstance(form, str):
                missing |= {form.format(i) for i in range(count)} - names
        if missing:
            listed = ", ".join(sorted(missing)[:3])
            raise DataError(
                f"{place}: {len(missing)} tars are missing ({listed}{', …' if len(missing) > 3 else ''}): "
                "files beside them speak of them; fetch them again, or remove what is left of them"
            )


def _refuse(bad: Bad) -> None:
    raise DataError(
        f"{bad.source}, {bad.position}: {bad.error}; run the shards through a plan, which "
        "quarantines it, or leave such rows out (--bad skip, bad='skip')"
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
