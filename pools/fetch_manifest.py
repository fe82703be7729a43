"""What a folder of fetched files holds: one JSON line a file, so that a second call knows what is there.

`_fetched.jsonl` beside the files (a name that pools skip): `path, url, bytes, sha256, etag, mtime_ns, when`.
Lines are appended; the last one of a path counts, and a torn last line is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "_fetched.jsonl"


@dataclass(frozen=True)
class Fetched:
    """One file that arrived whole: `path` in its folder, `bytes` and their `sha256`, `etag` or None."""

    path: str
    url: str
    bytes: int
    sha256: str
    etag: str | None
    mtime_ns: int
    when: str


class Manifest:
    """The manifest of one folder; safe for threads."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / NAME
        self._lock = threading.Lock()
        self.records: dict[str, Fetched] = {}
        text = self.file.read_text(encoding="utf-8", errors="replace") if self.file.is_file() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                record = Fetched(**json.loads(line))
            except (ValueError, TypeError):
                continue  # torn by a kill; its file is fetched again
            self.records[record.path] = record

    def add(self, record: Fetched) -> None:
        """Remember a file, also across a kill of this process."""
        line = json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n"
        with self._lock:
            descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, (b"\n" if self._torn else b"") + line)
            finally:
                os.close(descriptor)
            self._torn = False
            self.records[record.path] = record

    def state(self, path: str, hash_again: bool = False) -> str:
        """`there`: as recorded; `changed`: other bytes than recorded; `missing`: no file or no record of it.

        Bytes are hashed again when size or time of change differ from the record, or when asked.
        """
        record, file = self.records.get(path), self.folder / path
        if record is None or not file.is_file():
            return "missing"
        stat = file.stat()
        if stat.st_size != record.bytes:
            return "changed"
        if stat.st_mtime_ns == record.mtime_ns and not hash_again:
            return "there"
        return "there" if sha256_of(file) == record.sha256 else "changed"


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
