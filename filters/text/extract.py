"""HTML to text: the body of an HTTP response becomes the main text of the page.

Extraction is resiliparse's plain text with its main-content heuristics, as DCLM does. Unlike there, a page
that is not UTF-8 is decoded, not lost.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import curation as c

HTML = ("text/html", "application/xhtml+xml", "application/xhtml", "application/vnd.wap.xhtml+xml")
PLAIN = ("text/plain",)

_META = re.compile(rb"""<meta\s[^>]{0,400}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:\-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:\-]{2,40})""", re.IGNORECASE)
_TAG = re.compile(rb"<\s*(!doctype\s+html|html|head|body|div|p|table|title|script|meta)\b", re.IGNORECASE)
_BLOCK = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(content: bytes, http_charset: str | None = None) -> tuple[str, str]:
    """Text of a page's bytes and the charset that was used. Never fails: what no charset explains is U+FFFD.

    In order: byte-order mark; valid UTF-8 that is not plain ASCII (no other charset produces it by accident,
    and headers are often wrong); the HTTP header, then the meta tag or XML declaration, if the bytes are
    valid in it; UTF-8 with some damage; detection (uchardet); at last windows-1252. Labels mean what the
    WHATWG encoding standard says they mean (iso-8859-1 is windows-1252, gb2312 is gbk).
    """
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    for bom, charset in _BOMS:
        if content.startswith(bom):
            return content[len(bom) :].decode(charset, "replace"), charset
    try:
        text = content.decode("utf-8")
        if not content.isascii():
            return text, "utf-8"
    except UnicodeDecodeError:
        pass
    head = content[:4096]
    labels = [
        http_charset,
        *(m.group(1).decode("ascii") for m in (_META.search(head), _XML.search(head)) if m),
    ]
    known = [map_encoding_to_html5(label.strip().lower(), False) for label in labels if label]
    claims = list(dict.fromkeys(name for name in known if name))
    if content.isascii():
        # all charsets of the web agree on it, except those that shift by escape sequences
        shifted = next((name for name in claims if name.startswith(("iso2022", "iso-2022", "hz"))), None)
        return content.decode(shifted or "ascii", "replace"), shifted or "ascii"
    for charset in claims:
        try:
            return content.decode(charset), charset
        except (UnicodeDecodeError, LookupError):
            continue
    detected = detect_encoding(content)
    if "utf-8" in (*claims, detected):
        text = content.decode("utf-8", "replace")
        damaged = text.count("\ufffd")
        if damaged <= sum(char > "\x7f" for char in text) - damaged:
            return text, "utf-8"
    charset = detected if detected != "utf-8" else "windows-1252"
    try:
        return content.decode(charset, "replace"), charset
    except LookupError:
        return content.decode("windows-1252", "replace"), "windows-1252"


def nesting(html: str) -> int:
    """How deep <div> and <article> elements nest."""
    depth = deepest = 0
    for match in _BLOCK.finditer(html):
        depth = max(0, depth - 1) if match.group(1) else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _may_nest(content: bytes, depth: int) -> bool:
    """Can the page have more than ``depth`` <div> or <article> tags? A quick look that mostly says no."""
    data = np.frombuffer(content, np.uint8)
    first = np.flatnonzero(data[:-1] == 0x3C) + 1
    if len(first) <= depth:
        return False
    letter = data[first] | 0x20
    # '\0': UTF-16, which has one between the letters
    return int(np.count_nonzero((letter == 0x64) | (letter == 0x61) | (data[first] == 0))) > depth


def mend(text: str) -> str:
    """``text`` as Arrow and every later tool can hold it: no NUL, no lone surrogate (it becomes U+FFFD)."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@dataclass(frozen=True)
class Extract(c.Transform):
    """Turn ``content`` (bytes of an HTTP body) into ``text``.

    ``main_content``: leave out navigation, footers and other boilerplate. ``min_chars``: shorter texts are
    dropped. HTML is extracted, ``text/plain`` passes as it is; a missing or generic type is looked at; rows
    of any other type are dropped (with this step's name as the reason).

    Adds ``text``, ``extractor`` ("resiliparse" or "plain") and ``charset``; retires ``content``.
    A row without content is an error, and so is a page whose elements nest deeper than ``max_depth``: the
    main-content heuristics take time quadratic in the depth (3 s for 10,000 nested <div>).
    """

    main_content: bool = True
    min_chars: int = 1
    max_depth: int = 3000
    inputs = ("content", "http_charset", "content_type")
    outputs = {"text": pa.string(), "extractor": pa.string(), "charset": pa.string()}
    removes = ("content",)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        from resiliparse.extract.html2text import extract_plain_text

        texts, extractors, charsets, parents = [], [], [], []
        columns = (batch.column(name).to_pylist() for name in self.inputs)
        for row, (content, http_charset, content_type) in enumerate(zip(*columns, strict=True)):
            if content is None:
                raise ValueError("content is null: this row has no HTTP body to extract from")
            kind = media_type(content_type, content)
            if kind is None:
                continue
            text, charset = decode(content, http_charset)
            if kind == "html":
                depth = nesting(text) if _may_nest(content, self.max_depth) else 0
                if depth > self.max_depth:
                    raise ValueError(f"elements nest {depth} deep, more than max_depth={self.max_depth}")
                text = extract_plain_text(text, main_content=self.main_content)
            text = mend(text)
            if len(text) < self.min_chars:
                continue
            texts.append(text)
            extractors.append("resiliparse" if kind == "html" else "plain")
            charsets.append(charset)
            parents.append(row)
        origin = np.array(parents, dtype=np.int64)
        kept = batch.drop_columns(["content"]).take(pa.array(origin))
        made = dict(zip(kept.schema.names, kept.columns, strict=True))
        made["text"] = pa.array(texts, pa.string())
        made["extractor"] = pa.array(extractors, pa.string())
        made["charset"] = pa.array(charsets, pa.string())
        return pa.RecordBatch.from_pydict(made), origin


def media_type(content_type: str | None, content: bytes) -> str | None:
    """ "html", "plain", or None for what cannot be extracted (images, PDF, JSON …)."""
    kind = (content_type or "").split(";", 1)[0].strip().lower()
    if kind in HTML:
        return "html"
    if kind in PLAIN:
        return "plain"
    if kind in ("", "application/octet-stream", "unknown/unknown", "application/xml", "text/xml", "*/*"):
        return "html" if _TAG.search(content[:2048]) else None
    return None


extract = Extract
