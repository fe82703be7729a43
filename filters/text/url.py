"""URL words and lists of domains and URLs, the RefinedWeb way (Penedo et al. 2023, arXiv 2306.01116, G.1).

    plan = [url_words(), url_rules()]                                       # the built-in words
    plan = [url_blocklist(domains="s3://lists/domains.txt.gz"), url_blocklist_rules()]

The built-in word lists (``lists/url_*.txt``) are small and Winnow's own; every list can be replaced by a file
or fsspec URL, one entry a line, ``#`` for comments, or by a tuple of entries. Lists of domains are not part
of Winnow; ``docs/url-lists.md`` says where their publishers keep them. What the host of a URL is, is defined
in ``url_lists``; UT1's categories are in ``url_ut1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.identity import class_identity
from filters.text import url_lists
from filters.text.automaton import compile_patterns
from filters.text.buffers import SHARED
from filters.text.url_lists import List, read_list

__all__ = [
    "UrlBlocklist", "UrlWords", "read_list", "url_blocklist", "url_blocklist_rules", "url_rules", "url_words",
]  # fmt: skip

URL_TYPE = pa.struct(
    [
        ("strict", pa.int32()),
        ("hard", pa.int32()),
        ("soft", pa.int32()),
        ("domain", pa.bool_()),
        ("hit", pa.string()),
    ]
)
BLOCKLIST_TYPE = pa.struct([("domain", pa.bool_()), ("url", pa.bool_()), ("hit", pa.string())])
LISTS = Path(__file__).with_name("lists")
MODULES = (
    *SHARED,
    "filters.text.automaton",
    "filters.text.automaton_kernels",
    "filters.text.lowercase",
    "filters.text.url_kernels",
    "filters.text.url_lists",
)

_WORD = re.compile(r"[\w]+")


@dataclass(frozen=True)
class UrlWords(c.Model):
    """Count the words of a URL that are on lists: struct column ``url_words``.

    ``strict``: different strings of the strict list found anywhere in the URL, '-' and '.' taken out first.
    ``hard``, ``soft``: different words of that list standing alone, between characters other than letters,
    marks, digits and ``_``. ``domain``: the host, a leading ``www.`` aside, is on the domain list;
    ``match="exact"`` (as DCLM): an entry does not cover its subdomains; ``match="subdomains"``: it does.
    ``hit``: what was found first, in the order of the rules: the domain, else the strict string, the hard
    word, the soft word that ends first in the URL; null when nothing was. Upper and lower case are the same;
    percent-encoding is not undone. A null URL gives null.

    Each list is a file (path or fsspec URL), a tuple of entries, or None: the built-in list. ``domains`` has
    none. Raises ValueError for a hard or soft entry that is not one word, and for a strict entry of '-' and
    '.' alone.
    """

    strict: List | None = None
    hard: List | None = None
    soft: List | None = None
    domains: List | None = ()
    match: str = "exact"
    inputs = ("url",)
    outputs = {"url_words": URL_TYPE}
    uses = MODULES

    def __post_init__(self) -> None:
        _freeze(self, "strict", "hard", "soft", "domains")
        url_lists.check_match(self.match)

    def _list(self, name: str) -> List:
        given = getattr(self, name)
        if given is None:
            return () if name == "domains" else str(LISTS / f"url_{name}.txt")
        return given

    @property
    def identity(self) -> Any:
        # what is on a list counts, not where it lies
        lists = {n: url_lists.fingerprint(self._list(n)) for n in ("strict", "hard", "soft", "domains")}
        return [self.name, class_identity(type(self)), lists, self.match, str(URL_TYPE)]

    def setup(self) -> None:
        strict, hard, soft = (url_lists.entries(self._list(name)) for name in ("strict", "hard", "soft"))
        for name, words in (("hard", hard), ("soft", soft)):
            for entry in words:
                if not _WORD.fullmatch(entry):
                    raise ValueError(
                        f"url list {name!r}: {entry!r} is not one word of letters, digits and '_'; "
                        "put strings of other characters on the strict list"
                    )
        object.__setattr__(self, "_strict", compile_patterns(strict, delete="-."))
        object.__setattr__(self, "_words", compile_patterns(hard, soft, boundary="unicode"))
        object.__setattr__(self, "_domains", url_lists.domain_table(self._list("domains"), self.match))

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        url = batch.column("url")
        strict, words = self._strict.find(url), self._words.find(url)
        listed, domain = self._domains.find(url)
        hit = pc.coalesce(domain, strict.word(), words.word(0), words.word(1))
        columns = [
            pa.array(strict.counts[0]),
            pa.array(words.counts[0]),
            pa.array(words.counts[1]),
            pa.array(listed != 0),
            hit,
        ]
        return pa.StructArray.from_arrays(columns, fields=list(URL_TYPE), mask=url.is_null())


@dataclass(frozen=True)
class UrlBlocklist(c.Model):
    """Is the URL on a list of domains or of URLs: struct column ``url_blocklist``.

    ``domain``: the host is on the list ``domains``. ``match="subdomains"`` (default): an entry covers the
    hosts below it too (``bad.example`` covers ``www.bad.example`` and ``a.b.bad.example``, not
    ``notbad.example``); ``match="exact"``: only the host itself, a leading ``www.`` aside. An IP address is
    never below another.
    ``url``: the URL is on the list ``urls``: the same host (``www.`` aside), path and query. Scheme, user
    name, port, fragment and one slash at the end do not count; upper and lower case count in path and query.
    ``hit``: the entry found (the domain, if both; the shortest, if several). A null URL gives null.

    Each list is a file (path or fsspec URL; ``.gz``, ``.bz2``, ``.xz``, ``.zst`` are unpacked) or a tuple.
    Millions of entries are fine: 4.5 million load in about a second and take 75 MB. datatrove's URLFilter
    covers the registered domain and the exact host; ``match="subdomains"`` what is between them as well.
    Raises ValueError when both lists are empty, FileNotFoundError for a list that is not there.
    """

    domains: List = ()
    urls: List = ()
    match: str = "subdomains"
    inputs = ("url",)
    outputs = {"url_blocklist": BLOCKLIST_TYPE}
    uses = MODULES

    def __post_init__(self) -> None:
        _freeze(self, "domains", "urls")
        url_lists.check_match(self.match)
        if not self.domains and not self.urls:
            raise ValueError(
                "url_blocklist has no list: give domains= or urls= (a file, an fsspec URL or a tuple); "
                "docs/url-lists.md says where published lists are"
            )

    @property
    def identity(self) -> Any:
        lists = {name: url_lists.fingerprint(getattr(self, name)) for name in ("domains", "urls")}
        return [self.name, class_identity(type(self)), lists, self.match, str(BLOCKLIST_TYPE)]

    def setup(self) -> None:
        urls = url_lists.build([(0, url_lists.hashes(self.urls, urls=True))], urls=True, wide=False)
        object.__setattr__(self, "_domains", url_lists.domain_table(self.domains, self.match))
        object.__setattr__(self, "_urls", urls)

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        url = batch.column("url")
        in_domains, domain = self._domains.find(url)
        in_urls, address = self._urls.find(url)
        columns = [pa.array(in_domains != 0), pa.array(in_urls != 0), pc.coalesce(domain, address)]
        return pa.StructArray.from_arrays(columns, fields=list(BLOCKLIST_TYPE), mask=url.is_null())


def _freeze(step: Any, *names: str) -> None:
    """Lists of a plan file become tuples, paths strings."""
    for name in names:
        given = getattr(step, name)
        if given is not None and not isinstance(given, str):
            frozen = str(given) if hasattr(given, "__fspath__") else tuple(given)
            object.__setattr__(step, name, frozen)


url_words = UrlWords
url_blocklist = UrlBlocklist


def url_rules(max_strict: int = 0, max_hard: int = 0, max_soft: int = 1) -> list[c.Keep]:
    """RefinedWeb's decisions over ``url_words``: no listed domain, no strict or hard word, one soft word."""
    return [
        c.keep("not url_words.domain", reason="url: domain list"),
        c.keep(f"url_words.strict <= {max_strict!r}", reason="url: strict word"),
        c.keep(f"url_words.hard <= {max_hard!r}", reason="url: hard word"),
        c.keep(f"url_words.soft <= {max_soft!r}", reason="url: soft words"),
    ]


def url_blocklist_rules() -> list[c.Keep]:
    """Drop what ``url_blocklist`` found: listed domains, then listed URLs."""
    return [
        c.keep("not url_blocklist.domain", reason="url: blocked domain"),
        c.keep("not url_blocklist.url", reason="url: blocked address"),
    ]
