"""Pieces that several sections show: the key of a drawing, a head over numbers, one score drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.scores import Distribution
from curation.funnel_page.thresholds import Threshold
from curation.html import Html, count, el, figure


def legend(entries: Sequence[tuple[str, Any]]) -> Html:
    def swatch(class_: str) -> Html:
        rect = el("rect", x=0, y=0, width=10, height=10, class_=class_)
        return el("svg", rect, viewBox="0 0 10 10", aria_hidden="true")

    return el("ul", [el("li", swatch(class_), text) for class_, text in entries], class_="key")


def number_head(text: str, extra: str = "") -> Html:
    return el("th", text, scope="col", class_=f"n {extra}".strip())


def shape(found: Distribution, marks: Sequence[Threshold] = ()) -> Html:
    """One score: its name and what it ranges over, drawn."""
    facts = [f"{count(found.rows)} rows"]
    if found.mean is not None:
        facts.append(f"mean {figure(found.mean)}")
        facts.append(f"{figure(found.minimum)} to {figure(found.maximum)}")
    if found.nulls:
        facts.append(f"{count(found.nulls)} without a score")
    mine = [m for m in marks if m.column == found.column]
    return el(
        "figure",
        el("figcaption", el("b", found.column), " ", "; ".join(facts)),
        figures.histogram(found, mine) if found.bins else figures.labels(found),
    )


def shape_legend(shapes: Sequence[Distribution]) -> Html:
    words = "kept" if all(s.joined for s in shapes) else "passed on to the next stage"
    by_rule, elsewhere = "removed by a rule that reads this score", "removed by another rule"
    return legend([("kept", words), ("cut", by_rule), ("gone", elsewhere)])
