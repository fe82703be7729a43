"""Categories of domains and URLs in the layout of UT1, the block lists of Université Toulouse Capitole.

    plan = [url_categories(lists="lists/ut1"), url_category_rules()]

The lists are made by their publisher (Fabrice Prigent, CC BY-SA 4.0) and are not part of Winnow. Get them at
https://dsi.ut-capitole.fr/blacklists/ (``download/adult.tar.gz`` … one archive a category, or
``download/blacklists.tar.gz`` for all), put them into a folder, unpacked or not, and name the folder, or any
fsspec URL of one. Read as squidGuard reads them: a domain covers its subdomains, a URL covers what goes on
below it, upper and lower case are the same.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation import storage
from curation.identity import class_identity
from filters.text import url_lists
from filters.text.url import MODULES

# What DCLM's configuration names as the alternative to RefinedWeb's curated list.
CATEGORIES = (
    "adult", "phishing", "dating", "gambling", "filehosting",
    "ddos", "agressif", "chat", "mixed_adult", "arjel",
)  # fmt: skip
KINDS = ("domains", "urls")
PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")
WHERE = (
    "get the lists from https://dsi.ut-capitole.fr/blacklists/ (download/<category>.tar.gz or "
    "download/blacklists.tar.gz), put them into a folder and pass lists='that folder' (or an fsspec URL)"
)


@dataclass(frozen=True)
class UrlCategories(c.Model):
    """Which UT1 categories hold the URL: struct column ``url_categories``, one bool per category and ``hit``.

    ``categories``: names of UT1's folders (default: the ten that DCLM names for the language-model pool).
    ``lists``: where they are: a folder (or fsspec URL) that holds, per category, a folder
    ``<category>/domains`` and/or ``<category>/urls`` (plain or compressed) or the archive
    ``<category>.tar.gz``; or that holds ``blacklists.tar.gz``; or one archive itself.
    ``hit``: the domain or URL entry found (the shortest), null when none. A null URL gives null.

    Raises ValueError without ``lists`` or for a category named twice, FileNotFoundError for a category that
    is not there. Both say where the lists are published.
    """

    categories: tuple[str, ...] = CATEGORIES
    lists: str = ""
    inputs = ("url",)
    uses = ("filters.text.url", *MODULES)

    def __post_init__(self) -> None:
        if isinstance(self.categories, str):
            raise ValueError(f"categories={self.categories!r}: a list of names is expected")
        object.__setattr__(self, "categories", tuple(self.categories))
        object.__setattr__(self, "lists", str(self.lists or ""))
        if not self.lists:
            raise ValueError(f"url_categories: no lists; {WHERE}")
        names = [*self.categories, "hit"]
        if len(set(names)) < len(names) or not self.categories or len(self.categories) > 64:
            raise ValueError(
                f"categories={self.categories!r}: 1 to 64 different names, none of them 'hit', are expected"
            )

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        fields = [(name, pa.bool_()) for name in self.categories]
        return {"url_categories": pa.struct([*fields, ("hit", pa.string())])}

    @property
    def identity(self) -> Any:
        files = [
            [place, url_lists.fingerprint(url)] for place, url in find_files(self.lists, self.categories)
        ]
        return [self.name, class_identity(type(self)), self.categories, files]

    def setup(self) -> None:
        number = {name: i for i, name in enumerate(self.categories)}
        parts: dict[str, list[tuple[int, np.ndarray]]] = {"domains": [], "urls": []}
        seen = set()
        for category, kind, file in open_lists(self.lists, self.categories):
            urls = kind == "urls"
            found = url_lists.hashes(file, urls, fold_path=urls, name=f"{self.lists}: {category}/{kind}")
            parts[kind].append((number[category], found))
            seen.add(category)
        for category in self.categories:
            if category not in seen:
                raise _missing(self.lists, category)
        urls = url_lists.build(parts["urls"], urls=True, wide=True, fold_path=True)
        object.__setattr__(self, "_domains", url_lists.build(parts["domains"], urls=False, wide=True))
        object.__setattr__(self, "_urls", urls)

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        url = batch.column("url")
        by_domain, domain = self._domains.find(url)
        by_url, address = self._urls.find(url)
        bits = by_domain | by_url
        columns: list[pa.Array] = [
            pa.array((bits >> np.uint64(i)) & np.uint64(1) != 0) for i in range(len(self.categories))
        ]
        columns.append(pc.coalesce(domain, address))
        fields = list(self.outputs["url_categories"])
        return pa.StructArray.from_arrays(columns, fields=fields, mask=url.is_null())


url_categories = UrlCategories


def url_category_rules(categories: Sequence[str] = CATEGORIES) -> list[c.Keep]:
    """Drop every URL in one of these categories of ``url_categories``, each with its own reason."""
    return [
        c.keep('not url_categories."' + name.replace('"', '""') + '"', reason=f"url: {name}")
        for name in categories
    ]


# ------------------------------------------------------------------------------------------------- layout


def find_files(lists: str, categories: Sequence[str]) -> list[tuple[str, str]]:
    """(name below ``lists``, URL) of the files that these categories are in. Raises FileNotFoundError."""
    if lists.endswith(ARCHIVES):
        if not storage.exists(lists):
            raise FileNotFoundError(f"url_categories: {lists!r} is not there; {WHERE}")
        return [("", lists)]
    whole = storage.join(lists, "blacklists.tar.gz")
    out = []
    for category in categories:
        names = [f"{category}/{kind}{packed}" for kind in KINDS for packed in PACKED]
        names = [name for name in names if storage.exists(storage.join(lists, name))]
        # one file of each kind, the unpacked one first
        names = [
            name for i, name in enumerate(names) if not any(_same_list(name, other) for other in names[:i])
        ]
        archives = [f"{category}{packed}" for packed in ARCHIVES]
        if not names:
            names = [name for name in archives if storage.exists(storage.join(lists, name))][:1]
        if not names and storage.exists(whole):
            out.append(("blacklists.tar.gz", whole))
        elif not names:
            raise _missing(lists, category)
        out += [(name, storage.join(lists, name)) for name in names]
    return list(dict.fromkeys(out))


def open_lists(lists: str, categories: Sequence[str]) -> Iterator[tuple[str, str, IO[bytes]]]:
    """(category, "domains" or "urls", open file) of every list of these categories."""
    for name, url in find_files(lists, categories):
        with storage.open_read(url) as file:
            if url.endswith(ARCHIVES):
                wanted = [name.split(".")[0]] if name and name != "blacklists.tar.gz" else categories
                yield from _members(file, url, wanted)
            else:
                category, kind = name.split("/")
                yield category, kind.split(".")[0], url_lists.unpacked(file, name)


def _members(file: IO[bytes], url: str, categories: Sequence[str]) -> Iterator[tuple[str, str, IO[bytes]]]:
    try:
        archive = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115 (closed below)
        members = archive.getmembers()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"url_categories: {url!r} is not a whole tar archive ({error}); fetch it again"
        ) from error
    # UT1's archive of everything has folders under a second name (porn -> adult)
    other_names = {m.name.strip("./"): m.linkname for m in members if m.issym()}
    at: dict[str, list[str]] = {}
    for category in categories:
        at.setdefault(category, []).append(category)
        for path, target in other_names.items():
            if posixpath.basename(path) == category:
                at.setdefault(posixpath.basename(target.rstrip("/")), []).append(category)
    with archive:
        for member in members:
            parts = member.name.strip("./").split("/")
            if not member.isfile() or parts[-1] not in KINDS:
                continue
            folder = parts[-2] if len(parts) > 1 else (categories[0] if len(categories) == 1 else "")
            for category in at.get(folder, ()):
                content = archive.extractfile(member)
                assert content is not None
                yield category, parts[-1], content


def _same_list(name: str, other: str) -> bool:
    return name.split(".")[0] == other.split(".")[0]


def _missing(lists: str, category: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"url_categories: category {category!r} is not in {lists!r}: expected {category}/domains, "
        f"{category}/urls or {category}.tar.gz there; {WHERE}"
    )
