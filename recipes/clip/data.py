"""Pairs for training: read shards, decode each image once, keep the pixels in memory."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.image_text.pixels import Pixels

IMAGE_SUFFIXES = ("webp", "jpg", "jpeg", "png", "gif", "bmp")


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
    """Pairs from a folder, file or list of files (WebDataset .tar, .parquet), a pyarrow table, or Pairs.

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
    for where, key, caption, image in _rows(source):
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
    if isinstance(source, pa.Table | pa.RecordBatch):
        yield from _table_rows("table", source)
        return
    for path in _files(source):
        if path.suffix == ".tar":
            yield from _tar_rows(path)
        else:
            file = pq.ParquetFile(path)
            _need(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(1024, columns=["id", "text", "image"]):
                yield from _table_rows(str(path), batch)


def _files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise DataError(f"{path} does not exist")
        if path.is_file():
            return [path]
        tars = sorted(path.rglob("*.tar"))
        # side-cars and metadata may lie beside tars, so parquet counts only where there is no tar
        found = tars or sorted(p for p in path.rglob("*.parquet") if "_winnow" not in p.parts)
        found = [p for p in found if "scores" not in p.relative_to(path).parts[:-1]]
        if not found:
            raise DataError(f"{path} holds no .tar and no .parquet shard")
        return found
    return [p for item in source for p in _files(item)]


def _need(where: str, names: Iterable[str]) -> None:
    missing = [name for name in ("id", "text", "image") if name not in set(names)]
    if missing:
        raise DataError(f"{where} lacks the column {', '.join(missing)}; it has {', '.join(names)}")


def _table_rows(where: str, table: pa.Table | pa.RecordBatch) -> Iterator[tuple[str, str, str, bytes]]:
    _need(where, table.schema.names)
    columns = [table.column(name).to_pylist() for name in ("id", "text", "image")]
    for key, caption, image in zip(*columns, strict=True):
        if key is None or caption is None or image is None:
            raise DataError(f"{where}, id {key}: null id, caption or image")
        yield where, key, caption, image


def _tar_rows(path: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Samples of a WebDataset tar: members KEY.json (uid), KEY.txt and KEY.<image>, side by side."""
    current: dict[str, bytes] = {}
    stem = None
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                base, _, suffix = member.name.rpartition("/")[2].partition(".")
                if base != stem:
                    if stem is not None:
                        yield _sample(path, stem, current)
                    stem, current = base, {}
                stream = tar.extractfile(member)
                assert stream is not None
                current[suffix.lower()] = stream.read()
    except tarfile.TarError as error:
        raise DataError(f"{path}: {error}, after sample {stem}") from error
    if stem is not None:
        yield _sample(path, stem, current)


def _sample(path: Path, stem: str, members: dict[str, bytes]) -> tuple[str, str, str, bytes]:
    where = f"{path}, sample {stem}"
    image = next((members[s] for s in IMAGE_SUFFIXES if s in members), None)
    meta = json.loads(members["json"]) if "json" in members else {}
    caption = members["txt"].decode("utf-8") if "txt" in members else meta.get("caption", meta.get("text"))
    if image is None or caption is None:
        raise DataError(f"{where}: needs an image and a caption, has members {', '.join(sorted(members))}")
    return where, str(meta.get("uid") or meta.get("id") or f"{path.stem}/{stem}"), caption, image
