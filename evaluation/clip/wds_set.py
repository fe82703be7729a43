"""Sets in the layout of the published WebDataset evaluation sets: classification, WILDS, fairness, faces.

``classnames.txt`` and ``zeroshot_classification_templates.txt`` ("{c}" stands for the class), one a line,
``test/nshards.txt``, and ``test/0.tar`` … with the members KEY.webp|jpg|jpeg|png, KEY.cls, and, where the
task has metadata, KEY.npy: one number for each of its columns.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.clip.examples import Batcher, Examples, SetError
from evaluation.clip.set_files import HubManifest, fingerprint, lines
from evaluation.clip.tar_samples import TarSample, samples, shards

CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
FACE_OBJECTIVES = ("race", "gender", "age", "toxic")
"""Objectives of a face set, in DataComp's order."""
FACE_LABELS = ("gender", "age")
"""Those whose class is the metadata's number. Race is compared by ``race_binary``; toxic has no label."""


@dataclass(frozen=True)
class WdsSet:
    """A classification set; ``Examples`` have the columns ``label`` (int) and ``metadata`` (numbers or None),
    and one column for each name in ``metadata``.

    size: number of examples, n_classes: of classnames.txt; both are checked where given. metadata: names of
    the .npy's columns, whose number is then checked. required: those of them that must be numbers (others
    may be NaN).
    """

    name: str
    directory: Path
    size: int | None = None
    n_classes: int | None = None
    metadata: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))
        object.__setattr__(self, "metadata", tuple(self.metadata))
        object.__setattr__(self, "required", tuple(self.required))
        for file in (CLASSES, TEMPLATES, "test/nshards.txt"):
            if not (self.directory / file).is_file():
                raise SetError(f"{self.directory} is not an evaluation set: {file} is missing")
        manifest = HubManifest.read(self.directory)
        if manifest is not None:
            manifest.check(self.directory)
        unknown = [name for name in self.required if name not in self.metadata]
        if unknown:
            raise SetError(f"{self.name}: {unknown[0]} is not among the metadata {', '.join(self.metadata)}")
        self._check_texts()

    def _check_texts(self) -> None:
        _ = self.classes, self.templates

    @cached_property
    def classes(self) -> list[str]:
        path = self.directory / CLASSES
        found = lines(path)
        if self.n_classes is not None and len(found) != self.n_classes:
            raise SetError(
                f"{path} names {len(found)} classes, {self.name} has {self.n_classes}; fetch the set again"
            )
        return found

    @cached_property
    def templates(self) -> list[str]:
        return _templates(self.directory / TEMPLATES)

    @property
    def shards(self) -> list[Path]:
        return shards(self.directory / "test")

    @cached_property
    def fingerprint(self) -> str:
        texts = [*lines(self.directory / CLASSES), "", *lines(self.directory / TEMPLATES)]
        return fingerprint(self.directory, ["wds", *texts, "", *self.metadata], self.shards)

    def batches(self, size: int = 512) -> Iterator[Examples]:
        """Examples in the order of the tars. SetError names tar and sample."""
        batcher, seen = Batcher(size), 0
        n_classes = len(self.classes)
        for shard in self.shards:
            for sample in samples(shard):
                seen += 1
                self._not_too_many(seen, sample)
                columns = {"label": _label(sample, n_classes), **self._metadata(sample)}
                yield from batcher.add(self._id(shard, sample), sample.image, columns)
        yield from batcher.rest()
        self._enough(seen)

    def _id(self, shard: Path, sample: TarSample) -> str:
        return f"{self.name}/{shard.stem}/{sample.key}"

    def _not_too_many(self, seen: int, sample: TarSample) -> None:
        if self.size is not None and seen > self.size:
            raise SetError(
                f"{sample.where}: {self.directory} holds more examples than the {self.size} expected; "
                "it is another set or version: fetch it again"
            )

    def _enough(self, seen: int) -> None:
        if self.size is not None and seen < self.size:
            raise SetError(
                f"{self.directory} holds {seen} examples, expected {self.size}: it is cut short; "
                "fetch the set again"
            )

    def _metadata(self, sample: TarSample) -> dict[str, Any]:
        """Column ``metadata``, and one for each named value: whole numbers as int."""
        if "npy" not in sample.members and not self.metadata:
            return {"metadata": None}
        values = _vector(sample)
        if not self.metadata:
            return {"metadata": values}
        if len(values) != len(self.metadata):
            raise SetError(
                f"{sample.where}: .npy has {len(values)} values, and {self.name} has "
                f"{len(self.metadata)} columns ({', '.join(self.metadata)}); fetch the set again"
            )
        named = dict(zip(self.metadata, values, strict=True))
        for column in self.required:
            value = named[column]
            if not math.isfinite(value) or value != int(value):
                raise SetError(f"{sample.where}: metadata {column} is {value}, expected a whole number")
        whole = {k: int(v) if math.isfinite(v) and v == int(v) else v for k, v in named.items()}
        return {"metadata": values, **whole}


@dataclass(frozen=True)
class FaceSet(WdsSet):
    """A face set: every line of the two text files is "objective:…", and each objective is a classifier of
    its own. ``Examples`` have the metadata's columns (age, gender, race, race_binary as int) and no label.

    objectives: objective → its class names, in the file's order from 0; objective_templates: likewise.
    """

    def _check_texts(self) -> None:
        for path, found in ((CLASSES, self.objectives), (TEMPLATES, self.objective_templates)):
            missing = [o for o in FACE_OBJECTIVES if o not in found]
            if missing:
                raise SetError(f'{self.directory / path} has no line of the objective "{missing[0]}"')
        for objective, templates in self.objective_templates.items():
            _check_templates(self.directory / TEMPLATES, templates, f" of {objective}")

    @cached_property
    def objectives(self) -> dict[str, list[str]]:
        return _by_objective(self.directory / CLASSES)

    @cached_property
    def objective_templates(self) -> dict[str, list[str]]:
        return _by_objective(self.directory / TEMPLATES)

    def batches(self, size: int = 512) -> Iterator[Examples]:
        batcher, seen = Batcher(size), 0
        for shard in self.shards:
            for sample in samples(shard):
                seen += 1
                self._not_too_many(seen, sample)
                columns = self._metadata(sample)
                for objective in FACE_LABELS:
                    value, names = columns.get(objective), self.objectives[objective]
                    if value is not None and not 0 <= value < len(names):
                        raise SetError(
                            f"{sample.where}: {objective} is {value}, outside the {len(names)} of {CLASSES}"
                        )
                yield from batcher.add(self._id(shard, sample), sample.image, columns)
        yield from batcher.rest()
        self._enough(seen)


def _by_objective(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row, line in enumerate(lines(path), 1):
        objective, colon, name = line.partition(":")
        if not colon or not name.strip():
            raise SetError(f'{path}, line {row}: {line!r} is not "objective:name"')
        found.setdefault(objective.strip(), []).append(name.strip())
    return found


def _templates(path: Path) -> list[str]:
    found = lines(path)
    _check_templates(path, found)
    return found


def _check_templates(path: Path, templates: Sequence[str], of: str = "") -> None:
    for row, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise SetError(
                f'{path}, line {row}{of}: template {template!r} lacks "{{c}}", which the class replaces'
            )


def _label(sample: TarSample, n_classes: int) -> int:
    data = sample.member("cls")
    try:
        label = int(data.decode().strip())
    except ValueError:
        raise SetError(f"{sample.where}: .cls holds {data[:20]!r}, expected a class number") from None
    if not 0 <= label < n_classes:
        raise SetError(f"{sample.where}: label {label} is outside the {n_classes} classes of {CLASSES}")
    return label


def _vector(sample: TarSample) -> list[float]:
    data = sample.member("npy")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise SetError(f"{sample.where}: .npy does not load without pickle ({error})") from None
    if array.ndim > 1 and max(array.shape) != array.size:
        raise SetError(f"{sample.where}: .npy has shape {array.shape}, expected one row of numbers")
    if array.dtype.kind not in "biuf":
        raise SetError(f"{sample.where}: .npy holds {array.dtype}, expected numbers")
    return array.ravel().tolist()
