"""What transforms changed: how much text each took away or added, a few rows before and after, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation import textdiff
from curation.funnel_page import figures
from curation.funnel_page.facts import Facts
from curation.html import Html, count, el, join, link, share, size

_LABELS = 12  # values of a label column that are shown; the rest is summed


def edited(facts: Facts) -> Html | None:
    entries = [e for e in facts.report.get("edits") or () if e.get("changed") or e.get("labels")]
    if not entries:
        return None
    largest = max((e.get("changed") or 0 for e in entries), default=0)
    first = next((e for e in entries if e.get("changed")), None)
    return el(
        "section",
        el("h2", "What was changed", id="edits"),
        el(
            "p",
            "Texts before and after: ",
            el("del", "struck out"),
            " is what a transform removed, ",
            el("ins", "underlined"),
            " what it put in.",
            class_="muted",
        )
        if first
        else None,
        [_entry(e, largest, e is first) for e in entries if e.get("changed")],
        _labels(entries),
    )


def _entry(entry: Mapping[str, Any], largest: int, open_: bool) -> Html:
    changed, rows = entry.get("changed") or 0, entry.get("rows") or 0
    before, after = entry.get("text_bytes_before"), entry.get("text_bytes_after")
    examples = entry.get("examples") or []
    moved = f"{size(before)} → {size(after)} of text" if before is not None else None
    return el(
        "details",
        el(
            "summary",
            el("b", entry.get("name")),
            el(
                "span", figures.bar([("kept", changed)], largest, f"{count(changed)} rows", 8), class_="meter"
            ),
            el("span", count(changed), class_="n"),
            el("span", share(changed, rows), class_="n muted"),
        ),
        el(
            "div",
            el(
                "p",
                el("span", f"step {entry.get('step')}"),
                el("span", f"{count(changed)} of {count(rows)} texts changed"),
                el("span", moved) if moved else None,
                class_="rule",
            ),
            el("ul", [_example(e) for e in examples], class_="edits"),
            class_="inside",
        ),
        class_="reason",
        open=open_,
    )


def _example(example: Mapping[str, Any]) -> Html:
    url = example.get("url")
    lengths = f"{count(example.get('chars_before'))} → {count(example.get('chars_after'))} characters"
    pieces = [p for p in example.get("diff") or () if isinstance(p, list | tuple) and len(p) == 2]
    return el(
        "li",
        textdiff.as_html(pieces),
        el(
            "p",
            el("code", example.get("id")),
            f" {lengths}",
            [el("br"), link(url, str(url))] if url else None,
            class_="from",
        ),
        class_="example",
    )


def _labels(entries: list[Mapping[str, Any]]) -> Html | None:
    tables = [
        _table(entry, column, counts)
        for entry in entries
        for column, counts in (entry.get("labels") or {}).items()
        if counts
    ]
    return join(el("h3", "Labels it gave"), el("div", tables, class_="shapes")) if tables else None


def _table(entry: Mapping[str, Any], column: str, counts: Mapping[str, int]) -> Html:
    whole = sum(counts.values())
    shown = list(counts.items())[:_LABELS]
    rest = list(counts.items())[_LABELS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(n for _, n in rest)))
    high = max((n for _, n in shown), default=0)
    rows = [
        el(
            "tr",
            el("th", el("bdi", label), scope="row", title=label),
            el("td", figures.bar([("still", n)], high, f"{label}: {count(n)} rows", 8)),
            el("td", count(n), class_="n"),
            el("td", share(n, whole), class_="n"),
        )
        for label, n in shown
    ]
    return el(
        "figure",
        el("figcaption", el("b", column), f" by {entry.get('name')}, step {entry.get('step')}"),
        el("table", el("caption", f"Values of {column}", class_="hide"), el("tbody", rows), class_="labels"),
    )
