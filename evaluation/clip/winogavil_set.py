"""WinoGAViL: which of 5 to 12 pictures go with a cue; each picture is read once, however often it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluation.clip.examples import Batcher, Examples, SetError
from evaluation.clip.hub_table import HubTable
from evaluation.clip.set_files import HubManifest, fingerprint

_PICTURES = ("candidate_images", "candidates_images")


@dataclass(frozen=True)
class Instance:
    """One question: ``candidates`` are rows of the set's images, in the order they were shown;
    ``associations`` those of them that go with the cue."""

    id: str
    cue: str
    candidates: tuple[int, ...]
    associations: tuple[int, ...]


@dataclass(frozen=True)
class WinogavilSet:
    """The images of all instances, once each in the order of first use (``batches``), and the instances.

    n_instances: how many there must be, checked where given. ``size`` is the number of distinct images.
    """

    name: str
    directory: Path
    n_instances: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))
        manifest = HubManifest.read(self.directory)
        if manifest is not None:
            manifest.check(self.directory)
        if self._found is None:
            raise SetError(
                f"{self.directory} is not WinoGAViL: no table there has the columns cue, candidates and "
                "associations"
            )

    @cached_property
    def _found(self) -> HubTable | None:
        return HubTable.find(self.directory, (("cue",), ("candidates",), ("associations",)))

    @property
    def _table(self) -> HubTable:
        assert self._found is not None
        return self._found

    @cached_property
    def fingerprint(self) -> str:
        files = [*self._table.files, *self._table.pictures.files]
        return fingerprint(self.directory, ["winogavil"], files)

    @property
    def size(self) -> int:
        return len(self.names)

    @cached_property
    def names(self) -> list[str]:
        """Names of the images, in the order of ``batches``."""
        return self._read[0]

    @cached_property
    def instances(self) -> list[Instance]:
        """In the order of the table. SetError names file and row."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[list[str], list[Instance]]:
        table, at, instances = self._table, dict[str, int](), list[Instance]()
        id_column = table.column("ID", "id")
        columns = ["cue", "candidates", "associations", *([id_column] if id_column else [])]
        for number, (where, row) in enumerate(table.rows(columns)):
            cue = row["cue"]
            if not isinstance(cue, str) or not cue.strip():
                raise SetError(f"{where}: the cue is empty")
            candidates = table.texts(row["candidates"], where, "candidates")
            true = table.texts(row["associations"], where, "associations")
            for kind, names in (("candidates", candidates), ("associations", true)):
                if len(set(names)) < len(names):
                    raise SetError(f"{where}: {kind} name {_repeated(names)!r} twice")
            stray = [name for name in true if name not in candidates]
            if stray:
                raise SetError(f"{where}: association {stray[0]!r} is not among the candidates")
            rows = tuple(at.setdefault(name, len(at)) for name in candidates)
            id = str(row[id_column]) if id_column and row[id_column] not in (None, "") else str(number)
            instances.append(Instance(id, cue.strip(), rows, tuple(at[name] for name in true)))
        expected = self.n_instances
        if not instances or (expected is not None and len(instances) != expected):
            raise SetError(
                f"{self.directory} holds {len(instances)} instances, expected {expected or 'at least one'}; "
                "fetch the set again"
            )
        return list(at), instances

    def batches(self, size: int = 512) -> Iterator[Examples]:
        """The images, without columns; ids end in their names."""
        batcher, table = Batcher(size), self._table
        column = table.column(*_PICTURES)
        if column is not None:
            rows = self._inside(column)
        else:
            where = str(table.files[0])
            rows = ((name, table.pictures.read(name, where)) for name in self.names)
        for name, image in rows:
            yield from batcher.add(f"{self.name}/{name}", image, {})
        yield from batcher.rest()

    def _inside(self, column: str) -> Iterator[tuple[str, bytes]]:
        """Pictures out of the table itself, at their first use."""
        seen: set[str] = set()
        table = self._table
        for where, row in table.rows(["candidates", column]):
            names, images = table.texts(row["candidates"], where, "candidates"), row[column]
            if not isinstance(images, list) or len(images) != len(names):
                count = len(images) if isinstance(images, list) else "no"
                raise SetError(f"{where}: {len(names)} candidates and {count} images; fetch the set again")
            for name, image in zip(names, images, strict=True):
                if name not in seen:
                    seen.add(name)
                    yield name, table.picture(image, f"{where}, candidate {name!r}")


def _repeated(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
