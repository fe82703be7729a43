"""What every page must be, checked without a browser: well-formed, self-contained, navigable, legible."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}
_LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("object", "data"),
          ("use", "href"), ("image", "href"), ("source", "src"), ("form", "action")}  # fmt: skip


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self.headings: list[int] = []

    def handle_starttag(self, tag, attrs):
        names = [k for k, _ in attrs]
        self.faults += [f"<{tag}> has {n} twice" for n in set(names) if names.count(n) > 1]
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "href" and (value or "").startswith("#"):
                self.anchors.append(value[1:])
            if (tag, name) in _LOADS and not (value or "").startswith("data:image/"):
                self.loads.append(f"{tag} {name}={value}")
            if name.startswith("on") or name == "style":
                self.faults.append(f"<{tag}> carries {name}, which the content policy forbids")
            if (value or "").strip().lower().startswith("javascript:"):
                self.faults.append(f"<{tag}> has a javascript: address")
        if tag == "script":
            self.scripts += 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" and not dict(attrs).get("alt"):
            self.faults.append("an image without a text for those who cannot see it")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:] or 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def check(page: str) -> _Page:
    """AssertionError naming everything that is wrong with a page; the parsed page otherwise."""
    found = _Page()
    found.feed(page)
    found.close()
    faults = list(found.faults)
    faults += [f"<{tag}> is never closed" for tag in found.open]
    faults += [
        f"id {i!r} is used {found.ids.count(i)} times" for i in set(found.ids) if found.ids.count(i) > 1
    ]
    faults += [f"#{a} leads nowhere" for a in found.anchors if a not in found.ids]
    faults += [f"loads from outside: {load}" for load in found.loads]
    if "url(" in page.split("</style>")[0] or "@import" in page.split("</style>")[0]:
        faults.append("the style loads something")
    if found.scripts > 1:
        faults.append(f"{found.scripts} scripts, the page has one")
    if found.headings[:1] != [1] or found.headings.count(1) != 1:
        faults.append("the page should have one h1, first")
    faults += [
        f"h{b} follows h{a}" for a, b in zip(found.headings, found.headings[1:], strict=False) if b > a + 1
    ]
    if not re.search(r'<html lang="en">', page) or "<title>" not in page or 'name="viewport"' not in page:
        faults.append("language, title or viewport is missing")
    faults += _contrast(page)
    assert not faults, "\n".join(faults)
    return found


def _contrast(page: str) -> list[str]:
    """WCAG AA: 4.5 for text on its grounds, 3 for what is drawn, in each palette of the style."""
    faults = []
    palettes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    if len(palettes) != 3:  # light, dark, print
        faults.append(f"{len(palettes)} palettes, expected light, dark and print")
    for palette in palettes:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palette))
        for ink in ("ink", "muted", "accent", "warn"):
            for ground in ("paper", "sheet", "wash"):
                ratio = contrast(colour[ink], colour[ground])
                if ratio < 4.5:
                    faults.append(
                        f"{ink} {colour[ink]} on {ground} {colour[ground]}: contrast {ratio:.2f} < 4.5"
                    )
        for ink in ("accent", "cut", "warn"):
            if contrast(colour[ink], colour["paper"]) < 3:
                faults.append(f"{ink} is hard to see on paper")
    return faults


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two #rrggbb colours (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
