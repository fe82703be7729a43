"""Retrieval sets: images, each with its captions; the hub's table with pictures, or tars.

The tars are the layout of CLIP_benchmark: ``test/0.tar`` … with KEY.jpg and KEY.txt of one caption a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.clip.examples import Batcher, Examples, SetError
from evaluation.clip.hub_table import HubTable
from evaluation.clip.set_files import HubManifest, fingerprint
from evaluation.clip.tar_samples import samples, shards

IMAGE = ("image", "filename", "file_name", "img", "jpg")
CAPTION = ("caption", "captions", "raw", "sentences")


@dataclass(frozen=True)
class RetrievalSet:
    """Images with their captions; ``Examples`` have the column ``caption``: a list of texts per image.

    size: number of images, checked where given. captions: the same lists, without reading pictures where
    the layout allows it.
    """

    name: str
    directory: Path
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))
        manifest = HubManifest.read(self.directory)
        if manifest is not None:
            manifest.check(self.directory)
        if not self._tars and self._table is None:
            raise SetError(
                f"{self.directory} is not a retrieval set: there is neither test/nshards.txt nor a table "
                f"with an image ({', '.join(IMAGE)}) and captions ({', '.join(CAPTION)})"
            )

    @cached_property
    def _tars(self) -> bool:
        return (self.directory / "test" / "nshards.txt").is_file()

    @cached_property
    def _table(self) -> HubTable | None:
        return HubTable.find(self.directory, (IMAGE, CAPTION))

    @cached_property
    def fingerprint(self) -> str:
        if self._tars:
            return fingerprint(self.directory, ["retrieval tars"], shards(self.directory / "test"))
        assert self._table is not None
        files = [*self._table.files, *self._table.pictures.files]
        return fingerprint(self.directory, ["retrieval table"], files)

    @cached_property
    def captions(self) -> list[list[str]]:
        """Per image, in the order of ``batches``. SetError names file and row."""
        return [captions for _, captions, _ in self._rows(False)]

    def batches(self, size: int = 512) -> Iterator[Examples]:
        batcher = Batcher(size)
        for id, captions, image in self._rows(True):
            yield from batcher.add(id, image, {"caption": captions})
        yield from batcher.rest()

    def _rows(self, pictures: bool) -> Iterator[tuple[str, list[str], bytes]]:
        seen = 0
        for id, captions, image in self._from_tars() if self._tars else self._from_table(pictures):
            seen += 1
            if self.size is not None and seen > self.size:
                raise SetError(
                    f"{self.directory} holds more images than the {self.size} expected, from {id} on; "
                    "it is another set or version: fetch it again"
                )
            yield id, captions, image
        if seen == 0 or (self.size is not None and seen < self.size):
            raise SetError(
                f"{self.directory} holds {seen} images, expected {self.size or 'at least one'}: it is cut "
                "short; fetch the set again"
            )

    def _from_tars(self) -> Iterator[tuple[str, list[str], bytes]]:
        for shard in shards(self.directory / "test"):
            for sample in samples(shard):
                try:
                    text = sample.member("txt").decode("utf-8")
                except UnicodeDecodeError as error:
                    raise SetError(f"{sample.where}: .txt is not UTF-8 ({error})") from None
                captions = [line.strip() for line in text.splitlines() if line.strip()]
                if not captions:
                    raise SetError(f"{sample.where}: .txt has no caption; fetch the tar again")
                yield f"{self.name}/{shard.stem}/{sample.key}", captions, sample.image

    def _from_table(self, pictures: bool) -> Iterator[tuple[str, list[str], bytes]]:
        table = self._table
        assert table is not None
        image, caption = table.column(*IMAGE), table.column(*CAPTION)
        label = table.column("filename", "file_name", "img_id", "image_id")
        assert image is not None and caption is not None
        wanted = [caption] + [c for c in (label, image if pictures else None) if c is not None]
        for number, (where, row) in enumerate(table.rows(list(dict.fromkeys(wanted)))):
            captions = [t.strip() for t in table.texts(row[caption], where, caption)]
            if not all(captions):
                raise SetError(f"{where}: caption {captions.index('') + 1} of {len(captions)} is empty")
            data = table.picture(row[image], where) if pictures else b""
            yield f"{self.name}/{_id(row, label, number)}", captions, data


def _id(row: dict[str, Any], label: str | None, number: int) -> str:
    return str(row[label]) if label is not None and row.get(label) not in (None, "") else str(number)
