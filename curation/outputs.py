"""Files of a run directory that appear whole or not at all, hashed and counted while they are written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import xxhash

from curation import storage
from curation.manifest import Manifest


class HashingFile:
    """A binary file that hashes and counts what is written to it."""

    def __init__(self, raw: IO[bytes]):
        self.raw, self.hash, self.count, self.closed = raw, xxhash.xxh3_128(), 0, False
        self.abandoned = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        self.hash.update(view)
        self.raw.write(view)
        self.count += len(view)
        return len(view)

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        if not self.abandoned:
            self.raw.flush()

    def close(self) -> None:  # the owner of the file closes it
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def committed(manifest: Manifest, relative: str, outputs: list[dict[str, Any]]) -> Iterator[HashingFile]:
    """A file of the run directory that appears whole or not at all; its size and hash go to `outputs`."""
    # A rename that a power cut undoes is found on resume: a record counts only with its outputs there, whole.
    with storage.atomic_write(manifest.path(*relative.split("/")), manifest.tmp, sync_folder=False) as raw:
        hashing = HashingFile(raw)
        try:
            yield hashing
        except BaseException:
            hashing.abandoned = True  # a writer that is closed late must not write to a closed file
            raise
    outputs.append({"url": relative, "bytes": hashing.count, "xxh3": hashing.hash.hexdigest()})
