"""HTML to text: the body of an HTTP response becomes the text of the page.

`Extract` is one extractor, by default resiliparse with its main-content heuristics as in DCLM. `ExtractAll`
makes one version of the page per extractor, for recipes that choose among them. Unlike in DCLM, a page that
is not UTF-8 is decoded, not lost (`filters.text.charset`).

No page can hang or kill its worker: resiliparse runs in the worker on ordinary pages, and every other case
(large or deeply nested pages, other extractors) in a child process with a deadline and a memory limit
(`filters.text.child`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

import curation as c
from curation.errors import PlanError
from curation.formats.rows import binary_array
from filters.text import child, extractors
from filters.text.charset import decode, mend, mended

HTML = ("text/html", "application/xhtml+xml", "application/xhtml", "application/vnd.wap.xhtml+xml")
PLAIN = ("text/plain",)
_TAG = re.compile(rb"<\s*(!doctype\s+html|html|head|body|div|p|table|title|script|meta)\b", re.IGNORECASE)


def media_type(content_type: str | None, content: bytes | memoryview) -> str | None:
    """ "html", "plain", or None for what cannot be extracted (images, PDF, JSON …)."""
    kind = (content_type or "").split(";", 1)[0].strip().lower()
    if kind in HTML:
        return "html"
    if kind in PLAIN:
        return "plain"
    if kind in ("", "application/octet-stream", "unknown/unknown", "application/xml", "text/xml", "*/*"):
        return "html" if _TAG.search(content[:2048]) else None
    return None


# ------------------------------------------------------------------------------------- which pages are risky

_SMALL = 6_000  # bytes; no page of this size takes more than a second or two
_LARGE = 4 << 20  # bytes; resiliparse needs 13 times the page in memory, and 0.1 s for a megabyte
_GAP = 1 << 15  # bytes without ">"
_SEPARATORS = 10_000  # of attributes: 0.2 s for one tag with so many
_NESTED = 20_000_000  # pairs of nested tags and elements: 80 ns each
_UNCLOSED = 1_000_000  # pairs of unclosed formatting and elements: 2.5 µs and 200 bytes each


_NAMES = {
    1: ("div", "article"),
    2: ("ol", "ul"),
    3: ("li",),
    4: ("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strong", "tt", "u"),
}
# kind of a tag by the first two letters of its name, which is enough to err towards yes
_KIND = np.zeros(1 << 16, np.uint8)
for _kind, _names in _NAMES.items():
    for _name in _names:
        _KIND[ord(_name[0]) << 8 | ord(_name[1:2] or " ")] = _kind


def risky(content: bytes | memoryview) -> bool:
    """Could extracting this page in the worker take more than a second or two, or unbounded memory?

    A look that costs microseconds and errs towards yes. Time and output of resiliparse grow with the product
    of two numbers in four cases: elements below nested <div> or <article>, items below nested lists, elements
    after formatting elements that are never closed, the attributes of one tag.
    """
    size = len(content)
    if size < _SMALL:
        return False
    if size > _LARGE:
        return True
    from filters.text.page_kernels import tags as look

    words = np.frombuffer(content, np.uint64, size >> 3)
    tags, closed, bare = look(words, _GAP >> 3)
    if bare and _many_attributes(content):
        return True
    unclosed = tags - 2 * closed  # void elements and comments are among them
    if tags * tags <= _UNCLOSED or (tags * tags <= _NESTED and unclosed * tags <= _UNCLOSED):
        return False
    data = np.frombuffer(bytes(content).replace(b"\0", b"") + b"   ", np.uint8)  # NUL: UTF-16
    at = np.flatnonzero(data == 0x3C)
    closes = data[at + 1] == 0x2F
    first = data[at + 1 + closes] | np.uint8(0x20)  # lower case
    second = data[at + 2 + closes] | np.uint8(0x20)
    pair = first.astype(np.uint16) << 8 | np.where(second < 0x61, 0x20, second)
    count = np.bincount(_KIND[pair] + np.where(closes, 5, 0), minlength=10)
    _, containers, lists, items, formatting = (int(n) for n in count[:5])
    unclosed = formatting - int(count[9])
    return containers * tags > _NESTED or lists * items > _NESTED or unclosed * tags > _UNCLOSED


_CLOSE = re.compile(b">")  # searches a memoryview too, and no slower than bytes.find


def _many_attributes(content: bytes | memoryview) -> bool:
    """Is there a long stretch without ">" in which thousands of attributes could lie? Scripts and embedded
    images are long too, but they hold few of what separates attributes."""
    at, last = 0, len(content) - _GAP
    while at < last:
        if _CLOSE.search(content, at, at + _GAP) is None:
            before = bytes(content[max(0, at - _GAP) : at])  # there is one in it, or none at all
            start = at - len(before) + before.rfind(b">") + 1
            found = _CLOSE.search(content, at + _GAP)
            stretch = bytes(content[start : found.start() if found else len(content)])
            between = len(stretch) - len(stretch.translate(None, b" \n\t\r\f/\"'"))
            if between > _SEPARATORS:
                return True
            at = start + len(stretch)
        at += _GAP
    return False


# ------------------------------------------------------------------------------------------------- the steps

_Version = tuple[bytes, str, str]  # text as UTF-8, label of the extractor, charset


@dataclass(frozen=True)
class _Extraction(c.Transform):
    """What `Extract` and `ExtractAll` share: one page under one extractor, and rows that fail."""

    min_chars: int = 1
    deadline: float = 10.0
    memory: int = 2 << 30
    isolated: bool = False
    inputs = ("content", "http_charset", "content_type")
    removes = ("content",)
    uses = ("filters.text.charset", "filters.text.extractors", "filters.text.child")

    def __post_init__(self) -> None:
        if not self.deadline > 0:
            raise PlanError(f"extraction needs a deadline of more than 0 seconds, not {self.deadline!r}")
        if self.memory < 64 << 20:
            raise PlanError(f"memory={self.memory!r} bytes: an extractor needs at least 67108864 (64 MiB)")

    def _version(self, extractor: str, kind: str, content: memoryview, http_charset: str | None) -> _Version:
        html = kind == "html"
        label = extractors.label(extractor) if html else "plain"
        own = not html or extractor.startswith("resiliparse")
        if self.isolated or not own or risky(content):
            text, charset = child.extract(
                extractor, bytes(content), http_charset, self.deadline, self.memory, html=html
            )
            return text, label, charset
        page, charset = decode(content, http_charset)
        return mended((extractors.load(extractor)(page) or "") if html else page), label, charset

    def _long_enough(self, text: bytes) -> bool:
        if len(text) >= 4 * self.min_chars or len(text) < self.min_chars:
            return len(text) >= self.min_chars
        return len(text.decode("utf-8")) >= self.min_chars

    def _each(self, batch: pa.RecordBatch) -> list[Any]:
        """`_page` of every row; raises what the first failing one raises.

        The engine then halves the batch until it knows which rows raise. What became of the rows of such a
        batch is remembered until another comes, so that no page meets its deadline more than once.
        """
        known: dict[bytes, Any] = self.__dict__.get("_known") or {}
        contents, *others = (batch.column(name) for name in self.inputs)
        content = _views(contents)  # a scalar of Arrow is a copy of its page, and as_py another
        labels = list(zip(*(column.to_pylist() for column in others), strict=True))
        made: list[Any] = []
        failed: Exception | None = None
        hits = 0
        for row, label in enumerate(labels):
            values = (content(row), *label)
            found = known.get(_key(values)) if known else None
            hits += found is not None
            if found is None:
                try:
                    found = self._page(*values)
                except Exception as error:
                    found = error
            if isinstance(found, Exception):
                failed = failed or found
            made.append(found)
        if failed is not None:
            if batch.num_rows > 1 and hits < batch.num_rows:
                keys = (_key((content(row), *label)) for row, label in enumerate(labels))
                object.__setattr__(self, "_known", dict(zip(keys, made, strict=True)))
            raise failed.with_traceback(None)
        if known and not hits:
            object.__setattr__(self, "_known", {})
        return made

    def _page(self, content: memoryview | None, http_charset: str | None, content_type: str | None) -> Any:
        raise NotImplementedError


def _views(contents: pa.Array) -> Callable[[int], memoryview | None]:
    """The rows of a binary column, where they lie."""
    kind = np.int64 if pa.types.is_large_binary(contents.type) else np.int32
    valid, offsets, data = contents.buffers()
    places = np.frombuffer(offsets, kind)[contents.offset :] if len(contents) else np.zeros(1, kind)
    whole = memoryview(data if data is not None else b"").cast("B")
    null = None if valid is None else contents.is_null().to_pylist()

    def view(row: int) -> memoryview | None:
        return None if null is not None and null[row] else whole[places[row] : places[row + 1]]

    return view


def _key(values: tuple[Any, ...]) -> bytes:
    """128-bit hash of a row's content, charset and type."""
    digest = xxhash.xxh3_128(values[0] or b"")
    digest.update(repr((values[0] is None, *values[1:])).encode())
    return digest.digest()


def _no_body() -> ValueError:
    return ValueError("content is null: this row has no HTTP body to extract from")


@dataclass(frozen=True)
class Extract(_Extraction):
    """Turn ``content`` (bytes of an HTTP body) into ``text``.

    ``extractor``: see `filters.text.extractors`; for resiliparse, ``main_content=False`` keeps navigation,
    footers and other boilerplate. HTML is extracted, ``text/plain`` passes as it is; a missing or generic
    type is looked at. Rows of any other type and texts of fewer than ``min_chars`` characters are dropped,
    with this step's name as the reason; with ``drop=False`` they stay (null text, or the short text) for
    `extract_rules` to drop, each with its own reason.

    A page may take ``deadline`` seconds (of CPU) and ``memory`` bytes; one that needs more is quarantined,
    and so is one whose extractor raises. Ordinary pages of resiliparse, which cannot, are extracted in the
    worker; ``isolated=True`` sends these to the child process, too.

    Adds ``text``, ``extractor`` (with the library's version: "resiliparse-2.0.1", or "plain") and ``charset``
    (name of the WHATWG standard); retires ``content``. A row without content is an error.
    """

    extractor: str = "resiliparse"
    main_content: bool = True
    drop: bool = True
    outputs = {"text": pa.string(), "extractor": pa.string(), "charset": pa.string()}

    def __post_init__(self) -> None:
        super().__post_init__()
        extractors.check(self.extractor)
        if not self.main_content and self.extractor != "resiliparse":
            raise PlanError(f"main_content=False is resiliparse's; {self.extractor!r} has no such parameter")

    def _page(self, content: memoryview | None, http_charset: str | None, content_type: str | None) -> Any:
        if content is None:
            raise _no_body()
        kind = media_type(content_type, content)
        if kind is None:
            return (None, None, None)
        extractor = self.extractor if self.main_content else "resiliparse:all"
        return self._version(extractor, kind, content, http_charset)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        made = self._each(batch)
        parents = np.arange(len(made), dtype=np.int64)
        if self.drop:
            good = [text is not None and self._long_enough(text) for text, _, _ in made]
            parents = parents[np.array(good, dtype=bool)] if made else parents
            made = [version for version, stays in zip(made, good, strict=True) if stays]
        text, extractor, charset = zip(*made, strict=True) if made else ((), (), ())
        out = _taken(batch, parents)
        out["text"] = _strings(text)
        out["extractor"] = pa.array(extractor, pa.string())
        out["charset"] = pa.array(charset, pa.string())
        return pa.RecordBatch.from_pydict(out), parents


@dataclass(frozen=True)
class ExtractAll(_Extraction):
    """Turn ``content`` into one row per extractor: the versions of a page, for a recipe to choose among.

    The first version of a page becomes ``<id>/0``, the next ``<id>/1`` …; a page with a single version keeps
    its id. ``page_id`` holds the page's id, ``extractor_rank`` the place of the extractor in ``extractors``
    (0 is the one preferred). Versions shorter than ``min_chars`` are left out; a page without any is dropped,
    as is one that is not HTML. ``text/plain`` has one version.

    An extractor that fails on a page costs that version alone, and is named in ``extract_error`` of the
    others; a page on which every extractor fails is quarantined. Deadline and memory are those of each
    version, as in `Extract`.

    Source: "Beyond a Single Extractor" (arXiv 2602.19548), which filters the versions of each extractor and
    keeps the union: baselines/text/union_extractors.yaml.
    """

    extractors: tuple[str, ...] = ("resiliparse", "trafilatura", "justext")
    outputs = {
        "text": pa.string(),
        "extractor": pa.string(),
        "charset": pa.string(),
        "page_id": pa.string(),
        "extractor_rank": pa.int32(),
        "extract_error": pa.string(),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "extractors", tuple(self.extractors))
        for name in self.extractors:
            extractors.check(name)
        if not self.extractors or len(set(self.extractors)) < len(self.extractors):
            raise PlanError(f"extract_all needs one or more different extractors, not {self.extractors!r}")

    def _page(self, content: memoryview | None, http_charset: str | None, content_type: str | None) -> Any:
        if content is None:
            raise _no_body()
        kind = media_type(content_type, content)
        versions: list[tuple[int, _Version]] = []
        errors: list[Exception] = []
        for rank, name in enumerate(self.extractors[: {"html": None, "plain": 1, None: 0}[kind]]):
            try:
                version = self._version(name, kind or "", content, http_charset)
            except (child.DeadlineError, child.ChildDiedError, child.ExtractorError, ValueError) as error:
                errors.append(error)
                continue
            if self._long_enough(version[0]):
                versions.append((rank, version))
        if errors and not versions:
            raise errors[0]
        return versions, "; ".join(f"{type(e).__name__}: {e}" for e in errors) or None

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        rows = [
            (row, *version, rank, error)
            for row, (versions, error) in enumerate(self._each(batch))
            for rank, version in versions
        ]
        parents, text, extractor, charset, rank, error = zip(*rows, strict=True) if rows else ((),) * 6
        origin = np.array(parents, dtype=np.int64)
        out = _taken(batch, origin)
        out["page_id"] = out["id"]
        out["text"] = _strings(text)
        out["extractor"] = pa.array(extractor, pa.string())
        out["charset"] = pa.array(charset, pa.string())
        out["extractor_rank"] = pa.array(rank, pa.int32())
        out["extract_error"] = pa.array(error, pa.string())
        return pa.RecordBatch.from_pydict(out), origin


def _strings(texts: Any) -> pa.Array:
    """UTF-8 byte strings (or None) as a string column; they are valid, and are not looked at again."""
    return binary_array(list(texts)).view(pa.string())


def _taken(batch: pa.RecordBatch, parents: np.ndarray) -> dict[str, pa.Array]:
    """The columns of the rows ``parents``, less the content."""
    kept = batch.drop_columns(["content"])
    if len(parents) != batch.num_rows or not np.array_equal(parents, np.arange(batch.num_rows)):
        kept = kept.take(pa.array(parents))
    return dict(zip(kept.schema.names, kept.columns, strict=True))


def extract_rules(min_chars: int = 1) -> list[Any]:
    """What `Extract` drops by itself, as keeps with a reason each, for ``extract(drop=False)``: rows that are
    not HTML or plain text, and texts of fewer than ``min_chars`` characters."""
    return [
        c.keep("extractor is not null", reason="not HTML"),
        c.keep(f"length(text) >= {int(min_chars)}", reason="extracted text too short"),
    ]


extract = Extract
extract_all = ExtractAll

__all__ = [
    "Extract",
    "ExtractAll",
    "decode",
    "extract",
    "extract_all",
    "extract_rules",
    "media_type",
    "mend",
    "risky",
]
