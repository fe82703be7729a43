"""Static pages out of plain functions: elements that escape what they hold, and a self-contained document.

Everything put into an element is escaped unless it is :class:`Html`, which only the functions here make.
A page carries its style and script inline, loads nothing, and says so in a content security policy, so that
text of the web (which is what a curation report shows) can neither run nor call home.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}
_SVG_LEAVES = {"circle", "line", "path", "polyline", "rect", "stop", "use"}

# Not shown as they are: C0 and C1 controls, bidi embeddings, overrides and isolates (they reorder the text
# around them; plain direction marks are honest spelling and stay), zero-width characters but the joiners that
# emoji and scripts need, lone surrogates (not encodable), non-characters.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


class Html(str):
    """Markup that goes into a page as it is."""

    __slots__ = ()


def visible(text: str) -> str:
    """Text with the characters that a reader could not see, or that would change others, made visible."""

    def show(match: re.Match[str]) -> str:
        code = ord(match.group())
        if 0xD800 <= code <= 0xDFFF:
            return "\ufffd"
        if code < 0x20:
            return chr(0x2400 + code)
        return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"

    return _HIDDEN.sub(show, text)


def escape(value: Any) -> Html:
    """A value as text for an element or an attribute in double quotes; Html passes."""
    if isinstance(value, Html):
        return value
    text = visible(str(value))
    for raw, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(raw, entity)
    return Html(text)


def join(*children: Any) -> Html:
    """Children one after the other: lists are flattened, None and False left out, the rest escaped."""
    parts: list[str] = []
    for child in children:
        if child is None or child is False:
            continue
        parts.append(join(*child) if isinstance(child, list | tuple) else escape(child))
    return Html("".join(parts))


def el(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element. `class_` is written `class`, other underscores become hyphens, True is a bare attribute,
    None and False leave the attribute out."""
    head = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        head += f" {key}" if value is True else f' {key}="{escape(value)}"'
    if name in _VOID:
        return Html(f"<{head}>")
    if name in _SVG_LEAVES and not children:
        return Html(f"<{head}/>")
    return Html(f"<{head}>{join(*children)}</{name}>")


def svg(across: float, down: float, *children: Any, label: str, **attributes: Any) -> Html:
    """A drawing of `across` × `down` user units with a name for readers that cannot see it."""
    return el(
        "svg",
        *children,
        viewBox=f"0 0 {num(across)} {num(down)}",
        role="img",
        aria_label=label,
        xmlns="http://www.w3.org/2000/svg",
        **attributes,
    )


def num(value: float) -> str:
    """A coordinate: two decimals at most, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if "." in f"{value:.2f}" else f"{value:.2f}"


def link(text: Any, url: str | None) -> Html:
    """A link if the URL is http(s), which says nothing about where the reader came from; else the text."""
    if not url or not re.match(r"https?://[^\s]+$", url):
        return escape(text)
    return el("a", text, href=url, rel="noreferrer noopener nofollow", target="_blank")


def page(title: str, *body: Any, css: str = "", script: str = "", description: str = "") -> str:
    """A whole document: the shared style and `css` inline, `script` inline and allowed by its hash only."""
    style = asset(Path(__file__).with_name("html.css")) + css
    runs = _hash(script) if script else "'none'"
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {runs}"
    )
    head = join(
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        description and el("meta", name="description", content=description),
        el("title", title),
        el("style", Html(style)),
    )
    foot = el("script", Html(script)) if script else None
    document = el("html", el("head", head), "\n", el("body", *body, foot), lang="en")
    return f"<!doctype html>\n{document}\n"


def asset(path: Path) -> str:
    """A style sheet or script that ships beside the code."""
    text = path.read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{path.name} holds '</', which would end the element it is put in")
    return text


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# ------------------------------------------------------------------------------ numbers as people read them


def count(n: float | None) -> str:
    """Rows: 2,700."""
    return "–" if n is None else f"{round(n):,}"


def share(part: float | None, whole: float | None) -> str:
    """A percentage of one decimal: 15.2 %; what is there but rounds to nothing is < 0.1 %."""
    if not whole or part is None:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def size(n: float | None) -> str:
    """Bytes in decimal units: 16.5 MB."""
    if n is None:
        return "–"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= 0.9995 * scale:
            value = n / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{n:.0f} B"


def duration(seconds: float | None) -> str:
    """0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds is None:
        return "–"
    if seconds < 0.0005:
        return "0 s"
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def figure(value: Any) -> str:
    """A score: four significant digits, labels as they are, null as –."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if value == 0 or 1e-4 <= abs(value) < 1e7:
            text = f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}" if value else "0"
            return text.rstrip("0").rstrip(".") if "." in text else text
        return f"{value:.3g}"
    return str(value)
