"""Pages in the charsets that the web used before UTF-8."""

from __future__ import annotations

import re
from dataclasses import replace

from pools.text.sources import Page

# Language → charsets that pages in it were written in. English pages with typographic quotes: cp1252.
CHARSETS = {
    "en": ("windows-1252",), "de": ("iso-8859-1", "windows-1252"), "fr": ("iso-8859-15", "windows-1252"),
    "es": ("iso-8859-1",), "pt": ("iso-8859-1",), "it": ("iso-8859-1",), "nl": ("windows-1252",),
    "sv": ("iso-8859-1",), "da": ("iso-8859-1",), "pl": ("iso-8859-2",), "cs": ("windows-1250",),
    "hu": ("iso-8859-2",), "ru": ("koi8-r", "windows-1251"), "uk": ("koi8-u",), "bg": ("windows-1251",),
    "el": ("iso-8859-7",), "tr": ("iso-8859-9",), "he": ("windows-1255",), "ar": ("windows-1256",),
    "ja": ("shift_jis", "euc-jp"), "ko": ("euc-kr",), "zh": ("gb2312", "big5"), "zh-cn": ("gbk",),
    "zh-Hans": ("gb18030",), "zh-Hant": ("big5",), "th": ("tis-620",), "vi": ("windows-1258",),
}  # fmt: skip
_META = re.compile(r"<meta[^>]*charset=[^>]*>", re.I)


def recode(page: Page, charset: str, in_header: bool) -> Page:
    """`page` in another charset, declared in its meta element and, if asked for, in the HTTP header.

    Letters that the charset lacks become character references, as editors of the time wrote them.
    """
    text = _META.sub("", page.html.decode(page.charset, "replace"))
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">'
    text = re.sub(r"(<head[^>]*>)", lambda found: found.group(1) + meta, text, count=1, flags=re.I)
    if meta not in text:
        raise ValueError(f"{page.url} has no head element to declare {charset} in")
    encoded = text.encode(charset, "xmlcharrefreplace")
    return replace(page, html=encoded, charset=charset, header_charset=charset if in_header else None)
