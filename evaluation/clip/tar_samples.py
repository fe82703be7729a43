"""The samples of a set's tars: in one pass, one at a time, the first fault an error that names its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curation.formats import wds
from evaluation.clip.examples import SetError
from evaluation.clip.set_files import read_text

IMAGE_SUFFIXES = ("webp", "jpg", "jpeg", "png")
MAX_SAMPLE_BYTES = 256 << 20
"""The largest member that is believed: a larger one is a damaged header."""


@dataclass(frozen=True)
class TarSample:
    """Members of one basename by suffix; ``where`` names tar and sample for messages."""

    key: str
    members: dict[str, bytes]
    where: str

    @property
    def image(self) -> bytes:
        """The image file as it is. SetError when there is none or it is empty."""
        data = next((self.members[s] for s in IMAGE_SUFFIXES if s in self.members), None)
        if data is None:
            raise SetError(
                f"{self.where}: no image member (.{', .'.join(IMAGE_SUFFIXES)}), it has "
                f".{', .'.join(sorted(self.members))}; fetch the tar again"
            )
        if not data:
            raise SetError(f"{self.where}: its image is an empty file; fetch the tar again")
        return data

    def member(self, suffix: str) -> bytes:
        """One member's bytes. SetError when it is not there."""
        if suffix not in self.members:
            raise SetError(
                f"{self.where}: no .{suffix} member, it has .{', .'.join(sorted(self.members))}; "
                "fetch the tar again, or write the set again"
            )
        return self.members[suffix]


def shards(folder: Path) -> list[Path]:
    """The tars of a split's folder, as many as its nshards.txt says: 0.tar, 1.tar, …"""
    path = folder / "nshards.txt"
    text = read_text(path).strip()
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1_000_000:
        raise SetError(f"{path}: expected a number of shards, found {text[:40]!r}; fetch the set again")
    found = [folder / f"{i}.tar" for i in range(int(text))]
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise SetError(
            f"{missing[0]} is missing ({len(missing)} of {len(found)} shards); fetch the set again"
        )
    return found


def samples(path: Path) -> Iterator[TarSample]:
    """The samples of a tar in order. SetError at the first damaged or missing byte, and for a key that comes
    twice; what came before it was whole."""
    seen: set[str] = set()
    last = "none"
    with path.open("rb") as file:
        for found in wds.samples(file, max_record_bytes=MAX_SAMPLE_BYTES):
            if found.error is not None:
                inside = "" if found.key == "?" else f", in sample {found.key}"
                raise SetError(
                    f"{path} is damaged after sample {last}{inside}: {found.error}; fetch the tar again"
                )
            where, last = f"{path}, sample {found.key}", found.key
            if found.key in seen:
                raise SetError(f"{where} comes twice, again at byte {found.offset:,}; write the tar again")
            seen.add(found.key)
            yield TarSample(found.key, found.members, where)
    if not seen:
        raise SetError(f"{path} holds no sample; fetch the tar again")
