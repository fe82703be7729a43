"""Image files of a set by name, out of zip archives and folders, as they are."""

from __future__ import annotations

import zipfile
import zlib
from functools import cached_property
from pathlib import Path, PurePosixPath

from evaluation.clip.examples import SetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_BYTES = 256 << 20


class Pictures:
    """Every picture of the zips in ``folder``, and of the folder itself and those below it.

    A picture is found by its name, with or without folders and suffix; where an archive and a folder have
    the same picture (it was unpacked), the archive's is read, whose bytes have a checksum.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Path, zipfile.ZipFile] = {}

    def __reduce__(self) -> tuple[type[Pictures], tuple[Path]]:
        return Pictures, (self.folder,)  # open archives stay in their process

    @cached_property
    def archives(self) -> list[Path]:
        return sorted(p for p in self.folder.rglob("*.zip") if not _hidden(p.relative_to(self.folder)))

    @cached_property
    def files(self) -> list[Path]:
        """What the pictures are read from; of a folder of many pictures only their names tell."""
        return self.archives

    @cached_property
    def _index(self) -> dict[str, list[tuple[Path, str]]]:
        """Base name, and base name without suffix → where it is: (zip, member) or (file, "")."""
        found: dict[str, list[tuple[Path, str]]] = {}
        for archive in self.archives:
            for member in self._zip(archive).namelist():
                name = PurePosixPath(member)
                if name.suffix.lower() in SUFFIXES and not _hidden(name):
                    for key in (name.name, name.stem):
                        found.setdefault(key, []).append((archive, member))
        for path in sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES):
            if not _hidden(path.relative_to(self.folder)) and path.name not in found:
                found[path.name] = [(path, "")]
                found.setdefault(path.stem, [(path, "")])
        return found

    def read(self, name: str, where: str) -> bytes:
        """The bytes of a picture. SetError, beginning with ``where``, when it is missing or does not read."""
        wanted = PurePosixPath(name.replace("\\", "/"))
        places = self._index.get(wanted.name) or self._index.get(wanted.name.replace(" ", "_")) or []
        exact = [p for p in places if f"/{p[1]}".endswith(f"/{wanted}")] if len(places) > 1 else []
        places = exact or places
        if not places:
            inside = ", ".join(a.name for a in self.archives) or "no zip there"
            raise SetError(
                f"{where}: there is no picture {name!r} in {self.folder} ({inside}); fetch the set again"
            )
        if len(places) > 1:
            raise SetError(f"{where}: {name!r} is {places[0][1]} and {places[1][1]} of {places[0][0]}")
        path, member = places[0]
        data = path.read_bytes() if not member else self._member(path, member, where)
        if not data:
            raise SetError(f"{where}: picture {name!r} of {path} is an empty file; fetch the set again")
        return data

    def _member(self, archive: Path, member: str, where: str) -> bytes:
        try:
            info = self._zip(archive).getinfo(member)
            if info.file_size > MAX_BYTES:
                raise zipfile.BadZipFile(f"{info.file_size:,} bytes, over the limit of {MAX_BYTES:,}")
            return self._zip(archive).read(info)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
            raise SetError(
                f"{where}: {archive}, member {member}, does not read ({error}); fetch it again"
            ) from None

    def _zip(self, archive: Path) -> zipfile.ZipFile:
        if archive not in self._open:
            try:
                self._open[archive] = zipfile.ZipFile(archive)
            except (zipfile.BadZipFile, OSError) as error:
                raise SetError(f"{archive} is not a whole zip ({error}); fetch it again") from None
        return self._open[archive]


def _hidden(path: Path | PurePosixPath) -> bool:
    """Rubbish of archivers (``__MACOSX``, ``._x``) and of downloads under way."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)
