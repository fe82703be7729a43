"""Scoring extracted text against ``gold_segments.json``: passages of 990 real pages that an extractor must
find, and passages (menus, dates, imprints) that it must leave out. Source: trafilatura's evaluation data.

Shared by the parity test and by bench/extraction.py.
"""

from __future__ import annotations

import json
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pages import SHARED


@dataclass(frozen=True)
class GoldPage:
    name: str
    content: bytes
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]


def gold_pages(every: int = 1) -> Iterator[GoldPage]:
    """Each ``every``-th page that has gold segments; nothing when the data are not there."""
    archive, gold = SHARED / "web_pages" / "pages.tar.xz", SHARED / "web_pages" / "gold_segments.json"
    if not (archive.is_file() and gold.is_file()):
        return
    entries = json.loads(gold.read_text(encoding="utf-8")).values()
    chosen = {entry["file"]: entry for entry in sorted(entries, key=lambda e: e["file"])[::every]}
    with tarfile.open(archive) as tar:
        for member in tar:
            entry = chosen.pop(Path(member.name).name, None)
            if entry is not None:
                content = tar.extractfile(member).read()
                yield GoldPage(entry["file"], content, tuple(entry["with"]), tuple(entry["without"]))


@dataclass
class Confusion:
    """Segments found and not found, of those wanted (true) and unwanted (false positives)."""

    true_positives: int = 0
    false_negatives: int = 0
    false_positives: int = 0
    true_negatives: int = 0
    lost: int = 0  # pages without any text

    def add(self, page: GoldPage, text: str | None) -> None:
        plain = normal(text or "")
        self.lost += not plain
        for segment in page.wanted:
            found = normal(segment) in plain
            self.true_positives += found
            self.false_negatives += not found
        for segment in page.unwanted:
            found = normal(segment) in plain
            self.false_positives += found
            self.true_negatives += not found

    @property
    def precision(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)

    @property
    def accuracy(self) -> float:
        total = self.true_positives + self.false_negatives + self.false_positives + self.true_negatives
        return (self.true_positives + self.true_negatives) / max(1, total)


def normal(text: str) -> str:
    """Canonical composition, one space for any run of white space: how a page is wrapped is not asked."""
    return " ".join(unicodedata.normalize("NFC", text).split())
