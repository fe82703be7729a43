"""The unfinished file of a download: its bytes, and which version of which URL they are a part of."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pools.public_http import FetchError


@dataclass(frozen=True)
class Part:
    """`.NAME.part` and, in `.NAME.part.json`, the version of the file that its bytes belong to."""

    path: Path

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @contextlib.contextmanager
    def locked(self, url: str) -> Iterator[None]:
        """Alone with the file; another process at work on it is a FetchError."""
        with open(self.path, "ab") as held:
            try:
                import fcntl

                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FetchError("refused", url, f"another process is fetching it to {self.path}") from None
            except (ImportError, OSError):
                pass  # a system or a file system without locks
            yield

    def validator(self, url: str) -> str | None:
        """The version that the bytes belong to; None when they cannot be trusted to be a part of `url`."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            # a power cut may have left holes in what was not synced
            return note["validator"] if note["url"] == url and note["boot"] == _boot() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def mtime_ns(self) -> int:
        return self.path.stat().st_mtime_ns

    def begin(self, url: str, validator: str | None, start: int, hashes: Iterable[Any]) -> int:
        """Cut to `start` bytes, say what they belong to, and hash them; returns `start`."""
        hashes = list(hashes)
        os.truncate(self.path, start)
        if start:
            with self.path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    for digest in hashes:
                        digest.update(chunk)
        else:
            self._note.write_text(json.dumps({"url": url, "validator": validator, "boot": _boot()}), "utf-8")
        return start

    def open_append(self) -> IO[bytes]:
        return self.path.open("ab", buffering=0)  # what came is there after a kill

    def drop(self) -> None:
        os.truncate(self.path, 0)
        self._note.unlink(missing_ok=True)

    def take(self, target: Path) -> None:
        """Give the file its name."""
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some file systems cannot sync a folder
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _boot() -> str:
    """Names this start of the machine, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
