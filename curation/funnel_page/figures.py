"""The drawings of the funnel page, as inline SVG whose colours are classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curation.funnel_page.scores import Bars, Distribution
from curation.funnel_page.thresholds import Threshold
from curation.html import Html, count, el, figure, num, share, svg

WIDTH, HEIGHT = 360.0, 132.0
_TOP, _BOTTOM = 26.0, 18.0  # room for threshold labels, and for the axis


def bar(parts: Sequence[tuple[str, float]], whole: float, label: str, height: float = 10) -> Html:
    """One horizontal bar: (class, rows) one after the other, on a scale where `whole` is the full width.
    What is there is never thinner than a hair, so that one row of a million still shows."""
    x, drawn = 0.0, []
    for class_, rows in parts:
        if rows <= 0 or whole <= 0:
            continue
        width = min(max(1000 * rows / whole, 2.0), 1000 - x)
        drawn.append(el("rect", x=num(x), y=0, width=num(width), height=height, class_=class_))
        x += width
    return svg(1000, height, drawn, label=label, class_="bar", preserveAspectRatio="none", height=height)


def histogram(shape: Distribution, thresholds: Sequence[Threshold] = ()) -> Html:
    """Rows by score: kept at the bottom, then removed by a rule that reads the score, then by others;
    thresholds as dashed lines with their comparison written above."""
    plot = HEIGHT - _TOP - _BOTTOM
    high = max((b.rows for b in shape.bins), default=0) or 1
    step = WIDTH / max(1, len(shape.bins))
    start, end = shape.edge(0), shape.edge(len(shape.bins))
    drawn: list[Html] = []
    for i, bars in enumerate(shape.bins):
        if not bars.rows:
            continue
        edge = ""
        if i == 0 and shape.below:
            edge = f", of which {count(shape.below)} lie below"
        if i == len(shape.bins) - 1 and shape.above:
            edge = f", of which {count(shape.above)} lie above"
        title = f"{figure(shape.edge(i))} to {figure(shape.edge(i + 1))}: {_said(bars)}{edge}"
        drawn.append(
            el("g", el("title", title), _stack(bars, i * step + 0.4, max(step - 0.8, 0.4), high, plot))
        )
    axis = HEIGHT - _BOTTOM
    drawn.append(el("line", x1=0, y1=axis, x2=WIDTH, y2=axis, class_="axis"))
    ends = ((shape.below, start, 0.0, "start"), (shape.above, end, WIDTH, "end"))
    for beyond, value, x, anchor in ends:
        sign = "" if not beyond else ("≤ " if anchor == "start" else "≥ ")
        shown = float(f"{value:.2g}") if shape.log else value
        drawn.append(el("text", sign + figure(shown), x=num(x), y=HEIGHT - 4, text_anchor=anchor))
    if shape.log:
        drawn.append(el("text", "log scale", x=WIDTH / 2, y=HEIGHT - 4, text_anchor="middle"))
    drawn += _marks(thresholds, shape)
    ends_said = f"{figure(shape.minimum)} and {figure(shape.maximum)}"
    said = f"{shape.column}: {count(shape.rows)} rows between {ends_said}"
    return svg(WIDTH, HEIGHT, drawn, label=said, class_="histogram")


def _marks(thresholds: Sequence[Threshold], shape: Distribution) -> list[Html]:
    """Threshold lines; labels that would overlap go on the second line."""
    drawn, taken = [], [-1e9, -1e9]
    for mark in sorted(thresholds, key=lambda t: t.value):
        place = shape.place(mark.value)
        text = mark.label + ("" if 0 <= place <= 1 else (" ←" if place < 0 else " →"))
        at = min(max(WIDTH * place, 0.75), WIDTH - 0.75)
        half = 3.4 * len(text)
        middle = min(max(at, half), WIDTH - half)
        row = 0 if middle - half > taken[0] + 6 or taken[0] <= taken[1] else 1
        taken[row] = middle + half
        drawn.append(
            el(
                "line",
                x1=num(at),
                y1=_TOP - 3 if row == 0 else _TOP - 12,
                x2=num(at),
                y2=num(HEIGHT - _BOTTOM),
                class_="mark",
            )
        )
        y = 20 if row == 0 else 9
        drawn.append(el("text", text, x=num(middle), y=y, text_anchor="middle", class_="strong"))
    return drawn


def _stack(bars: Bars, x: float, width: float, high: int, plot: float) -> list[Html]:
    drawn, y = [], HEIGHT - _BOTTOM
    for class_, rows in (("kept", bars.kept), ("cut", bars.by_rule), ("gone", bars.elsewhere)):
        if rows:
            tall = max(plot * rows / high, 0.75)
            y -= tall
            drawn.append(el("rect", x=num(x), y=num(y), width=num(width), height=num(tall), class_=class_))
    return drawn


def _said(bars: Bars) -> str:
    parts = [f"{count(bars.rows)} rows", f"{count(bars.kept)} kept"]
    if bars.by_rule:
        parts.append(f"{count(bars.by_rule)} removed by this score")
    if bars.elsewhere:
        parts.append(f"{count(bars.elsewhere)} removed by other rules")
    return ", ".join(parts)


def labels(shape: Distribution) -> Html:
    """A column of labels: one bar each, most frequent first."""
    high = max((b.rows for b in shape.labels.values()), default=0)
    rows = [
        el(
            "tr",
            el("th", el("bdi", label), scope="row", title=label),
            el(
                "td",
                bar([("kept", b.kept), ("cut", b.by_rule), ("gone", b.elsewhere)], high, _said(b)),
                title=_said(b),
            ),
            el("td", count(b.rows), class_="n"),
            el("td", share(b.rows, shape.rows), class_="n"),
        )
        for label, b in shape.labels.items()
    ]
    return el(
        "table", el("caption", f"Values of {shape.column}", class_="hide"), el("tbody", rows), class_="labels"
    )


def sizes(clusters: dict[int, int]) -> Html:
    """Clusters by size, in classes that double: 2, 3–4, 5–8, …"""
    classes: dict[int, int] = {}
    for rows, n in clusters.items():
        power = max(1, math.ceil(math.log2(max(rows, 2))))
        classes[power] = classes.get(power, 0) + n
    high = max(classes.values(), default=0)
    lines = []
    for power in range(1, max(classes, default=0) + 1):
        low, top = 2 ** (power - 1) + 1, 2**power
        n = classes.get(power, 0)
        lines.append(
            el(
                "tr",
                el("th", str(top) if low >= top else f"{low:,}–{top:,}", scope="row"),
                el("td", bar([("cut", n)], high, f"{count(n)} clusters")),
                el("td", count(n), class_="n"),
            )
        )
    return el(
        "table", el("caption", "Clusters by number of rows in them"), el("tbody", lines), class_="labels"
    )
