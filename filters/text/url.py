"""URL words and domain lists, the RefinedWeb way (Penedo et al. 2023, arXiv 2306.01116, appendix G.1).

The built-in word lists (``lists/url_*.txt``) are small and Winnow's own; every list can be replaced by a
file, one entry a line, ``#`` for comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c

URL_TYPE = pa.struct(
    [("strict", pa.int32()), ("hard", pa.int32()), ("soft", pa.int32()), ("domain", pa.bool_())]
)
LISTS = Path(__file__).with_name("lists")

_HOST = r"^(?:[a-z][a-z0-9+.\-]*:)?//(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"
_WORD = re.compile(r"[a-z0-9_]+")


def read_list(path: str | Path) -> tuple[str, ...]:
    """Entries of a list file, lower-cased, sorted, without comments, blank lines and repeats."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(
        sorted({line.strip().lower() for line in lines if line.strip() and not line.startswith("#")})
    )


@dataclass(frozen=True)
class UrlWords(c.Model):
    """Count the words of a URL that are on lists: struct column ``url_words``.

    ``strict``: different strings of the strict list found anywhere in the URL, '-' and '.' taken out first.
    ``hard``, ``soft``: different words of that list standing alone, between characters other than letters,
    digits and ``_``. ``domain``: the host, a leading ``www.`` aside, is on the domain list (exactly: a list
    entry does not cover its subdomains). Upper and lower case are the same. A null URL gives null.

    Each list is a file, a tuple of entries, or None: the built-in list (for ``domains``: none).
    Raises ValueError for a hard or soft entry that is not one word.
    """

    strict: str | tuple[str, ...] | None = None
    hard: str | tuple[str, ...] | None = None
    soft: str | tuple[str, ...] | None = None
    domains: str | tuple[str, ...] | None = ()
    inputs = ("url",)
    outputs = {"url_words": URL_TYPE}

    @property
    def identity(self) -> Any:
        # the built-in lists are part of what this step is
        used = {
            name: self._entries(name) for name in ("strict", "hard", "soft") if getattr(self, name) is None
        }
        return [super().identity, {name: list(entries) for name, entries in used.items()}]

    def _entries(self, name: str) -> tuple[str, ...]:
        given = getattr(self, name)
        if given is None:
            return () if name == "domains" else read_list(LISTS / f"url_{name}.txt")
        if isinstance(given, str):
            return read_list(given)
        return tuple(sorted({entry.strip().lower() for entry in given}))

    def setup(self) -> None:
        for name in ("hard", "soft"):
            for entry in self._entries(name):
                if not _WORD.fullmatch(entry):
                    raise ValueError(
                        f"url list {name!r}: {entry!r} is not one word of letters, digits and '_'; "
                        "put strings of other characters on the strict list"
                    )
        hard, soft = self._entries("hard"), self._entries("soft")
        words = pa.array(sorted({*hard, *soft}), pa.string())
        strict = [entry.replace("-", "").replace(".", "") for entry in self._entries("strict")]
        state = {
            "_strict": [entry for entry in dict.fromkeys(strict) if entry],
            "_words": words,
            "_is_hard": np.isin(words.to_pylist(), hard) if len(words) else np.zeros(0, bool),
            "_is_soft": np.isin(words.to_pylist(), soft) if len(words) else np.zeros(0, bool),
            "_domains": pa.array(self._entries("domains"), pa.string()),
        }
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        url = pc.utf8_lower(batch.column("url"))
        n = len(url)
        hard, soft = self._count_words(url)
        columns = [
            pa.array(self._count_strict(url), pa.int32()),
            pa.array(hard, pa.int32()),
            pa.array(soft, pa.int32()),
            self._on_domain_list(url) if len(self._domains) else pa.array(np.zeros(n, bool)),
        ]
        return pa.StructArray.from_arrays(columns, fields=list(URL_TYPE), mask=url.is_null())

    def _count_strict(self, url: pa.Array) -> np.ndarray:
        counts = np.zeros(len(url), np.int32)
        if self._strict:
            bare = pc.replace_substring_regex(url, "[-.]", "")
            # one automaton over all strings finds the few URLs worth a closer look
            any_of = "|".join(map(re.escape, self._strict))
            suspects = np.flatnonzero(pc.fill_null(pc.match_substring_regex(bare, any_of), False))
            for row, text in zip(suspects, bare.take(pa.array(suspects)).to_pylist(), strict=True):
                counts[row] = sum(entry in text for entry in self._strict)
        return counts

    def _count_words(self, url: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        pieces = pc.split_pattern_regex(url, "[^a-z0-9_]+")
        rows = np.asarray(pc.list_parent_indices(pieces))
        found = pc.index_in(pc.list_flatten(pieces), value_set=self._words)
        listed = np.asarray(found.is_valid())
        pairs = np.unique(np.stack([rows[listed], np.asarray(found.drop_null())], axis=1), axis=0)
        hard = np.bincount(pairs[:, 0], weights=self._is_hard[pairs[:, 1]], minlength=len(url))
        soft = np.bincount(pairs[:, 0], weights=self._is_soft[pairs[:, 1]], minlength=len(url))
        return hard.astype(np.int32), soft.astype(np.int32)

    def _on_domain_list(self, url: pa.Array) -> pa.Array:
        host = pc.struct_field(pc.extract_regex(url, _HOST), "host")
        host = pc.replace_substring_regex(host, r"^www\.", "")
        return pc.fill_null(pc.is_in(host, value_set=self._domains), False)


url_words = UrlWords


def url_rules(max_strict: int = 0, max_hard: int = 0, max_soft: int = 1) -> list[c.Keep]:
    """RefinedWeb's decisions over ``url_words``: no listed domain, no strict or hard word, one soft word."""
    return [
        c.keep("not url_words.domain", reason="url: domain list"),
        c.keep(f"url_words.strict <= {max_strict!r}", reason="url: strict word"),
        c.keep(f"url_words.hard <= {max_hard!r}", reason="url: hard word"),
        c.keep(f"url_words.soft <= {max_soft!r}", reason="url: soft words"),
    ]
