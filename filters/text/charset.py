"""Bytes of a web page to text: which charset it is in, and text that Arrow can hold.

A page that is not UTF-8 is decoded, never lost. Labels mean what the WHATWG encoding standard says they mean
(iso-8859-1 is windows-1252, gb2312 is gbk), and each charset is decoded by its largest superset in use.
"""

from __future__ import annotations

import codecs
import contextlib
import re

_META = re.compile(rb"""<meta\s[^>]{0,400}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:\-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:\-]{2,40})""", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD = 4096  # bytes in which a page may declare its charset; browsers look at 1,024
# Python codec → the superset that browsers decode by
_WIDER = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
}
# labels in use that the mapping of resiliparse leaves out
_MORE_LABELS = {
    "utf16": "utf-16-le",
    "cp932": "cp932",
    "ms932": "cp932",
    "cp949": "cp949",
    "uhc": "cp949",
    "cp936": "gb18030",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-mac-ukrainian": "mac-cyrillic",
    "hz-gb-2312": "hz",
    "iso-2022-kr": "iso2022_kr",
}
# Python codec → name in the WHATWG standard, for the names that differ by more than a prefix
_NAMES = {
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "cp932": "shift_jis",
    "cp949": "euc-kr",
    "cp874": "windows-874",
    "cp866": "ibm866",
    "big5hkscs": "big5",
    "euc_jp": "euc-jp",
    "iso2022_jp": "iso-2022-jp",
    "iso2022_kr": "iso-2022-kr",
    "mac-roman": "macintosh",
    "mac-cyrillic": "x-mac-cyrillic",
    "hz": "hz-gb-2312",
}
_SHIFTED = ("iso2022_jp", "iso2022_kr", "hz")  # 7-bit: they change alphabet by escape sequences


def decode(content: bytes | memoryview, http_charset: str | None = None) -> tuple[str, str]:
    """Text of a page's bytes and the charset that was used (its WHATWG name, or "ascii"). Never fails: what
    no charset explains is U+FFFD.

    In order: byte-order mark; UTF-16 by its NULs; valid UTF-8 that is not plain ASCII (no other charset
    produces it by accident, and headers are often wrong); the charset of the HTTP header, of the meta tag, of
    the XML declaration, if all bytes are valid in it; the first of UTF-8 and these in which less is damaged
    than not; detection (uchardet); at last windows-1252.
    """
    text, codec = _decode(content, http_charset)
    return text, _NAMES.get(codec) or codec.replace("cp125", "windows-125").replace("iso8859", "iso-8859")


def _decode(content: bytes | memoryview, http_charset: str | None) -> tuple[str, str]:
    head = bytes(content[:256])
    if head[:1] in (b"\xef", b"\xfe", b"\xff"):
        for bom, codec in _BOMS:
            if head.startswith(bom):
                return str(content[len(bom) :], codec, "replace"), codec
    if b"\0" in head and (wide := _utf16(head)):
        return str(content, wide, "replace"), wide
    try:
        text = str(content, "utf-8")
    except UnicodeDecodeError:
        return _other(bytes(content), http_charset)
    return (text, "utf-8") if not text.isascii() else _ascii(text, bytes(content[:_HEAD]), http_charset)


def _other(content: bytes, http_charset: str | None) -> tuple[str, str]:
    """What is not valid UTF-8."""
    if b"\xed" in content:  # some programs write emoji as two surrogates
        with contextlib.suppress(UnicodeDecodeError):
            return _paired(content.decode("utf-8", "surrogatepass")), "utf-8"
    # A claim of UTF-16 without its byte-order mark or NULs is about other bytes than these.
    claims = [codec for codec in _claims(content, http_charset) if not codec.startswith("utf-16")]
    for codec in claims:
        try:
            return content.decode(codec), codec
        except UnicodeDecodeError:
            continue
    detected = _detect(content)
    for codec in dict.fromkeys(["utf-8"] * ("utf-8" in (*claims, detected)) + claims):
        text = content.decode(codec, "replace")
        damaged = text.count("\ufffd")
        foreign = len(text) - len(text.encode("ascii", "ignore"))  # U+FFFD is one of them
        if 2 * damaged <= foreign:
            return text, codec
    codec = detected if detected != "utf-8" else "cp1252"
    return content.decode(codec, "replace"), codec


def _ascii(text: str, head: bytes, http_charset: str | None) -> tuple[str, str]:
    """All charsets of the web agree on ASCII, except those that shift by escape sequences."""
    if "\x1b" in text or ("~" in text and "~{" in text):
        for codec in _claims(head, http_charset):
            if codec in _SHIFTED:
                return text.encode("ascii").decode(codec, "replace"), codec
    return text, "ascii"


def _claims(content: bytes, http_charset: str | None) -> list[str]:
    """Python codecs that the header, the meta tag and the XML declaration name, without repetition."""
    head = content[:_HEAD]
    found = (m.group(1).decode("ascii") for m in (_META.search(head), _XML.search(head)) if m)
    codecs_ = [_codec(label) for label in (http_charset, *found) if label]
    return list(dict.fromkeys(name for name in codecs_ if name))


def _codec(label: str) -> str | None:
    """The Python codec that decodes what the web calls ``label``; None for what nothing is called."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = label.strip().strip("\"'").lower()
    name = _MORE_LABELS.get(label) or map_encoding_to_html5(label, False)
    name = _WIDER.get(name, name) if name else None
    try:
        return name and codecs.lookup(name) and name
    except LookupError:
        return None


def _detect(content: bytes) -> str:
    from resiliparse.parse.encoding import detect_encoding

    return _codec(detect_encoding(content) or "") or "cp1252"


def _utf16(head: bytes) -> str | None:
    """UTF-16 without a byte-order mark: markup is ASCII, so every other byte is mostly 0."""
    half = len(head) // 2
    even, odd = head[: 2 * half : 2].count(0), head[1 : 2 * half : 2].count(0)
    if max(even, odd) * 10 < 7 * half or min(even, odd) * 10 > half:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def mend(text: str) -> str:
    """``text`` as Arrow and every later tool can hold it: no NUL, no lone surrogate (it becomes U+FFFD)."""
    return mended(text).decode("utf-8")


def mended(text: str) -> bytes:
    """`mend`, as UTF-8."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        data = _paired(text).encode("utf-8")
    return data.replace(b"\0", b"") if b"\0" in data else data


def _paired(text: str) -> str:
    """Pairs of surrogates joined, lone ones replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


__all__ = ["decode", "mend", "mended"]
