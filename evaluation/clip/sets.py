"""Evaluation sets: a table in memory, or the published WebDataset layout on disk, read batch by batch."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

IMAGE_SUFFIXES = ("webp", "jpg", "jpeg", "png")


class SetError(ValueError):
    """An evaluation set that cannot be trusted; the message names file and row."""


@dataclass(frozen=True)
class Examples:
    """One batch: encoded image files, and the other columns row by row."""

    ids: list[str]
    images: list[bytes]
    columns: dict[str, list[Any]]


@dataclass(frozen=True)
class TableSet:
    """A set held as an Arrow table with the columns id, image and whatever its tasks use."""

    name: str
    table: pa.Table

    def __post_init__(self) -> None:
        missing = [c for c in ("id", "image") if c not in self.table.column_names]
        if missing:
            raise SetError(f"set {self.name} lacks the column {', '.join(missing)}")
        if self.table.num_rows == 0:
            raise SetError(f"set {self.name} has no rows")

    def batches(self, size: int = 512) -> Iterator[Examples]:
        for batch in self.table.to_batches(max_chunksize=size):
            columns = {n: batch.column(n).to_pylist() for n in batch.schema.names}
            yield Examples(columns.pop("id"), columns.pop("image"), columns)


def demo_sets(split: str = "evaluation") -> dict[str, TableSet]:
    """The set of the task list "demo": the embedded evaluation pictures. split "validation" is the one that
    settings are fixed on; its concepts and those of "evaluation" do not meet."""
    from pools import demo_image_text

    return {"demo": TableSet("demo", demo_image_text.evaluation(split))}


@dataclass(frozen=True)
class WdsSet:
    """A classification set in the layout of the published WebDataset evaluation sets (DataComp's tasks).

    classnames.txt, zeroshot_classification_templates.txt ("{c}" stands for the class), test/nshards.txt and
    test/0.tar … with members KEY.webp|jpg|png, KEY.cls and optionally KEY.npy (metadata vector).
    Columns: label (int), metadata (list of numbers or None). size: expected number of examples, checked.
    """

    name: str
    directory: Path
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))
        for file in ("classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"):
            if not (self.directory / file).is_file():
                raise SetError(f"{self.directory} is not an evaluation set: {file} is missing")

    @property
    def classes(self) -> list[str]:
        return _lines(self.directory / "classnames.txt")

    @property
    def templates(self) -> list[str]:
        path = self.directory / "zeroshot_classification_templates.txt"
        templates = _lines(path)
        for row, template in enumerate(templates, 1):
            if "{c}" not in template:
                raise SetError(f'{path}, line {row}: template {template!r} lacks "{{c}}"')
        return templates

    @property
    def shards(self) -> list[Path]:
        path = self.directory / "test" / "nshards.txt"
        text = path.read_text().strip()
        if not text.isdigit() or int(text) < 1:
            raise SetError(f"{path}: expected a number of shards, found {text[:40]!r}")
        shards = [self.directory / "test" / f"{i}.tar" for i in range(int(text))]
        missing = [p for p in shards if not p.is_file()]
        if missing:
            raise SetError(
                f"{missing[0]} is missing ({len(missing)} of {len(shards)} shards); fetch the set again"
            )
        return shards

    def batches(self, size: int = 512) -> Iterator[Examples]:
        n_classes, seen = len(self.classes), 0
        ids: list[str] = []
        images: list[bytes] = []
        columns: dict[str, list[Any]] = {"label": [], "metadata": []}
        for shard in self.shards:
            for key, members in _samples(shard):
                where = f"{shard}, sample {key}"
                image = next((members[s] for s in IMAGE_SUFFIXES if s in members), None)
                if image is None or "cls" not in members:
                    raise SetError(f"{where}: needs an image and .cls, has {', '.join(sorted(members))}")
                columns["label"].append(_label(members["cls"], n_classes, where))
                columns["metadata"].append(_metadata(members.get("npy"), where))
                ids.append(f"{self.name}/{shard.stem}/{key}")
                images.append(image)
                seen += 1
                if len(ids) == size:
                    yield Examples(ids, images, columns)
                    ids, images, columns = [], [], {"label": [], "metadata": []}
        if ids:
            yield Examples(ids, images, columns)
        if seen == 0 or (self.size is not None and seen != self.size):
            raise SetError(f"{self.directory} holds {seen} examples, expected {self.size or 'at least one'}")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise SetError(f"{path} is empty")
    return lines


def _label(data: bytes, n_classes: int, where: str) -> int:
    try:
        label = int(data.decode().strip())
    except ValueError:
        raise SetError(f"{where}: .cls holds {data[:20]!r}, expected a class number") from None
    if not 0 <= label < n_classes:
        raise SetError(f"{where}: label {label} is outside the {n_classes} classes of classnames.txt")
    return label


def _metadata(data: bytes | None, where: str) -> list[float] | None:
    if data is None:
        return None
    try:
        return np.load(io.BytesIO(data), allow_pickle=False).ravel().tolist()
    except ValueError as error:
        raise SetError(f"{where}: .npy does not load without pickle: {error}") from None


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    key: str | None = None
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                if stem != key:
                    if key is not None:
                        yield key, members
                    key, members = stem, {}
                stream = tar.extractfile(member)
                assert stream is not None
                members[suffix.lower()] = stream.read()
    except (tarfile.TarError, EOFError) as error:
        raise SetError(f"{path} is damaged after sample {key}: {error}; fetch the set again") from error
    if key is not None:
        yield key, members
