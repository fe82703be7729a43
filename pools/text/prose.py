"""Text out of a page: the main content as a pipeline would see it, and the pure paragraphs inside it."""

from __future__ import annotations

import re

_ENDS = (".", "!", "?", ".)", '."', ".”")
_SPACE = re.compile(r"\s+")
MIN_PARAGRAPH = 100  # characters
MIN_LETTERS = 0.9  # share of letters and spaces in a paragraph


def main_text(html: bytes, charset: str = "utf-8") -> str:
    """The main content as plain text (resiliparse), lines kept, outer white space stripped."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(html.decode(charset, "replace"), main_content=True, alt_texts=False).strip()


def paragraphs(html: bytes, charset: str = "utf-8") -> list[str]:
    """The running prose of a page: sentences in `<p>`, outside code, tables and navigation.

    A paragraph counts when it has at least 100 characters, ends like a sentence, and nine tenths of it
    are letters and spaces. White space is collapsed.
    """
    from resiliparse.parse.html import HTMLTree

    body = HTMLTree.parse(html.decode(charset, "replace")).body
    if body is None:
        return []
    for selector in ("pre", "table", "script", "style", "nav", "header", "footer", "a.headerlink", "sup"):
        for node in body.query_selector_all(selector):
            node.decompose()
    kept, seen = [], set()
    for node in body.query_selector_all("p"):
        text = _SPACE.sub(" ", node.text or "").replace(" ¶", "").strip()
        if is_prose(text) and text not in seen:
            seen.add(text)
            kept.append(text)
    return kept


def is_prose(text: str) -> bool:
    """Whether one paragraph is running prose; the rule is in `paragraphs`."""
    if len(text) < MIN_PARAGRAPH or not text.endswith(_ENDS):
        return False
    return sum(ch.isalpha() or ch == " " for ch in text) > MIN_LETTERS * len(text)
