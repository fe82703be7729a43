"""The files of a set's folder: text files, what the manifest of a fetch says of them, a cheap fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from evaluation.clip.examples import SetError, SetMissing

MANIFEST = "_hub.json"
_EDGE = 1 << 16  # bytes hashed at either end of a large file


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: ``sha256`` of large files, git's ``blob`` id (SHA-1) of small ones."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class HubManifest:
    """Which version of which data set a folder holds, or is to hold once its fetch has ended."""

    source: str
    revision: str
    endpoint: str
    files: tuple[HubFile, ...]

    @classmethod
    def read(cls, folder: Path) -> HubManifest | None:
        """The manifest of a folder; None where it was not fetched. SetError when it does not parse."""
        path = folder / MANIFEST
        if not path.is_file():
            return None
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def check(self, folder: Path) -> None:
        """SetMissing unless every file is there with its size (bytes are checked when they are fetched)."""
        for file in self.files:
            path = folder / file.path
            found = path.stat().st_size if path.is_file() else None
            if found != file.size:
                state = "is not there yet" if found is None else f"has {found:,} bytes, not {file.size:,}"
                raise SetMissing(
                    f"{path} {state}: the fetch of {self.source} has not ended or a file was changed; "
                    "fetch it again (what is there is kept)"
                )


@lru_cache(maxsize=128)
def _parsed(path: Path, mtime: int, size: int) -> HubManifest:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(HubFile(**file) for file in value.pop("files"))
        return HubManifest(files=files, **value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetError(f"{path} does not parse ({error}); remove it and fetch the set again") from None


def read_text(path: Path) -> str:
    """A small text file of a set; SetError where it is missing, empty or not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetError(f"{path} is missing; fetch the set again") from None
    except UnicodeDecodeError as error:
        raise SetError(f"{path} is not UTF-8 text ({error}); fetch the set again") from None
    if not text.strip():
        raise SetError(f"{path} is empty; fetch the set again")
    return text


def lines(path: Path) -> list[str]:
    """Lines without surrounding blanks; empty ones do not count, as CLIP_benchmark has it."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def fingerprint(folder: Path, parts: Iterable[str], files: Iterable[Path]) -> str:
    """Hex of what a set is read from: ``parts`` (texts, settings), and of every file its path in the folder,
    size, and the checksum of the manifest; without a manifest, 64 KiB at either end."""
    manifest = HubManifest.read(folder)
    known = {} if manifest is None else {file.path: file for file in manifest.files}
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\0{part}\0".encode())
    for path in files:
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        if not path.is_file():
            raise SetError(f"{path} is missing; fetch the set again")
        size = path.stat().st_size
        listed = known.get(name)
        if listed is not None and listed.size == size and listed.sha256:
            content = listed.sha256
        else:
            content = _edges(path, size)
        digest.update(f"{name}\0{size}\0{content}\0".encode())
    return digest.hexdigest()[:32]


def _edges(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        if size > _EDGE:
            file.seek(max(_EDGE, size - _EDGE))
            digest.update(file.read(_EDGE))
    return digest.hexdigest()
