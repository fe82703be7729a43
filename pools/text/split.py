"""Which prose pages are held out, which are trusted, and the proof that neither is in the pool."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from pools.text import overlap
from pools.text.sources import Page

TRUSTED_TEXT = 18_000  # characters of a trusted page
HELDOUT_TEXT = 9_000  # characters of paragraphs a held-out page
MIN_HELDOUT_TEXT = 2_000
MIN_PROSE_SHARE = 0.4  # of a candidate's text that is running prose

# Pages a package. The small manuals give a larger share of theirs, so that no package dominates.
HELDOUT = {"postgresql-doc-15": 40, "rust-doc": 28, "sqlite3-doc": 22, "python-django-doc": 16,
           "apache2-doc": 11, "python3.11-doc": 8}  # fmt: skip
TRUSTED = {"postgresql-doc-15": 65, "rust-doc": 55, "sqlite3-doc": 36, "python-django-doc": 26,
           "apache2-doc": 16, "python3.11-doc": 12}  # fmt: skip
VALIDATION_SHARE = 0.25


@dataclass(frozen=True)
class Document:
    """A page with its extracted text and its paragraphs of running prose."""

    page: Page
    text: str
    paragraphs: tuple[str, ...] = ()


def draw(seed: int, *key: object) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.sha256("\x1f".join([str(seed), *map(str, key)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(documents: list[Document], seed: int) -> tuple[list[dict], list[dict], set[str]]:
    """Chooses held-out and trusted rows. Returns (held-out, trusted, families that the pool must not show).

    A candidate is a prose page that is mostly running text. A held-out page loses every paragraph that
    shares more than a fifth of its shingles with any page of another family, whatever its class, and is
    dropped when the same holds for the page. Trusted pages are checked in the same way.
    """
    candidates = defaultdict(list)
    for document in documents:
        page, prose = document.page, sum(map(len, document.paragraphs))
        if page.kind == "prose" and not page.copy_of and page.source.split()[0] in HELDOUT:
            size = len(document.text)
            if prose >= MIN_HELDOUT_TEXT and prose >= MIN_PROSE_SHARE * size and size <= TRUSTED_TEXT:
                candidates[page.source.split()[0]].append(document)

    shared = _shared_shingles(documents)
    heldout: list[dict] = []
    trusted: list[dict] = []
    reserved: set[str] = set()
    for package, wanted in HELDOUT.items():
        queue = sorted(candidates[package], key=lambda d: draw(seed, "split", d.page.family))
        taken = 0
        for document in queue:
            if document.page.family in reserved:
                continue
            own = overlap.shingles(document.text)
            if overlap.share_in(own, shared) > overlap.LIMIT:
                continue
            if taken < wanted:
                row = _heldout_row(document, shared)
                if row is None:
                    continue
                heldout.append(row)
            elif taken < wanted + TRUSTED[package]:
                trusted.append(_row(document.page, document.text))
            else:
                break
            reserved.add(document.page.family)
            taken += 1
    order = sorted(heldout, key=lambda row: draw(seed, "validation", row["id"]))
    n_validation = round(VALIDATION_SHARE * len(order))
    for i, row in enumerate(order):
        row["split"] = "validation" if i < n_validation else "evaluation"
    return heldout, trusted, reserved


def _row(page: Page, text: str) -> dict:
    return {"id": page.url, "source": page.source, "licence": page.licence, "text": text}


def _heldout_row(document: Document, shared: np.ndarray) -> dict | None:
    kept, size = [], 0
    for paragraph in document.paragraphs:
        if overlap.share_in(overlap.shingles(paragraph), shared) > overlap.LIMIT:
            continue
        if size + len(paragraph) > HELDOUT_TEXT:
            break
        kept.append(paragraph)
        size += len(paragraph)
    return _row(document.page, "\n\n".join(kept)) if size >= MIN_HELDOUT_TEXT else None


def _shared_shingles(documents: list[Document]) -> np.ndarray:
    """The sorted shingles that occur in more than one family."""
    families = defaultdict(list)
    for document in documents:
        families[document.page.family].append(document.text)
    every = np.concatenate([overlap.union(texts) for texts in families.values()])
    every.sort()
    return np.unique(every[1:][every[1:] == every[:-1]])
