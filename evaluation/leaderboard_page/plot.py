"""Kept fraction against score, as one SVG: error bars, the level of no-filter as a band, labels that do not
overlap. The same drawing goes into the page (colours from its style) and into a file of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curation.html import Html, asset, el, figure, num, svg
from evaluation.leaderboard_page.standings import Row, Standings, known

WIDTH, HEIGHT = 760.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 30.0, 44.0
FONT, LETTER = 12.0, 0.62  # pixels, and the width of a wide letter in ems
_APART = 11.0  # pixels between the bars of rows that keep about as much
_NAME = 34  # characters of a recipe's title

_COLOURS = """
svg { --paper: #ffffff; --ink: #171a1e; --muted: #59616a; --line: #dfe2e5; --accent: #0c6b5f; --wash: #eceeef;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #131518; --ink: #e7e9ec; --muted: #9da5ae;
  --line: #2d3238; --accent: #5cc4b1; --wash: #23282e; } }
"""


@dataclass(frozen=True)
class Box:
    """A rectangle of the drawing."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return across * down if across > 0 and down > 0 else 0.0


@dataclass(frozen=True)
class Label:
    """A placed label: its text begins at (x, baseline); `leader` says that it lies away from its point."""

    text: str
    box: Box
    leader: bool

    @property
    def baseline(self) -> float:
        return self.box.y + self.box.height - 4


def plot(table: Standings, standalone: bool = False) -> Html:
    """The drawing of the rows whose kept fraction is known; `standalone`: with its own style, for a file."""
    shown = [row for row in table.rows if row.kept_fraction is not None]
    table = replace(table, rows=shown)
    if not shown:
        said = "No row's kept fraction is known"
        return svg(WIDTH, 40, el("text", said, x=0, y=24), label=said, class_="plot")
    axes = _Axes(table)
    points = axes.points(table.rows)
    drawn = [_grid(axes, table), _band(axes, table)]
    drawn += [_bar(axes, row, x) for row, (x, _) in zip(table.rows, points, strict=True)]
    level = next(
        (y for row, (_, y) in zip(table.rows, points, strict=True) if row.control == "no-filter"), None
    )
    labels = place_labels(table.rows, points, [axes.span(row) for row in table.rows], level)
    for row, (x, y), label in zip(table.rows, points, labels, strict=True):
        end = label.box.x if label.box.x > x else label.box.x + label.box.width
        middle = label.box.y + label.box.height / 2
        leader = el("line", x1=num(x), y1=num(y), x2=num(end), y2=num(middle), class_="leader")
        drawn.append(
            el(
                "g",
                el("title", _said(row)),
                leader if label.leader else None,
                _mark(row, x, y),
                el("text", label.text, x=num(label.box.x), y=num(label.baseline), class_="name"),
                class_="control" if row.control else "candidate",
            )
        )
    style = el("style", Html(_COLOURS + asset(Path(__file__).with_name("plot.css")))) if standalone else None
    ground = (
        el("rect", x=0, y=0, width=num(WIDTH), height=num(HEIGHT), class_="ground") if standalone else None
    )
    size = {"width": num(WIDTH), "height": num(HEIGHT)} if standalone else {}
    said = f"{table.track}, {table.scale}: {table.score_name} against the fraction of the pool that was kept"
    return svg(WIDTH, HEIGHT, style, ground, drawn, label=said, class_="plot", **size)


def place_labels(
    rows: Sequence[Row],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    level: float | None = None,
) -> list[Label]:
    """A label for each point, at the first place around it that meets no point, error bar, earlier label or
    the line at `level`; where there is none, the place that meets least."""
    taken = [Box(x - 6, y - 6, 12, 12) for x, y in points]
    taken += [Box(x - 4, high, 8, low - high) for (x, _), (high, low) in zip(points, bars, strict=True)]
    if level is not None:
        taken.append(Box(LEFT, level - 1, WIDTH - LEFT - RIGHT, 2))
    labels: dict[int, Label] = {}
    for i in sorted(range(len(rows)), key=lambda i: (points[i][1], points[i][0])):
        x, y = points[i]
        text = rows[i].title if len(rows[i].title) <= _NAME else rows[i].title[: _NAME - 1] + "…"
        options = [_inside(box) for box in _around(x, y, FONT * LETTER * len(text))]
        costs = [sum(box.overlap(other) for other in taken) for box in options]
        best = min(range(len(options)), key=lambda k: (costs[k] > 0, costs[k] if costs[k] > 0 else 0, k))
        box = options[best]
        gap = max(box.x - x, x - box.x - box.width, box.y - y, y - box.y - box.height)
        labels[i] = Label(text, box, gap > 14)
        taken.append(box)
    return [labels[i] for i in range(len(rows))]


def _around(x: float, y: float, width: float) -> list[Box]:
    """Places for a label around a point: beside it, above and below, then further away."""
    height = FONT + 5
    places = [Box(x + 10, y - height / 2, width, height), Box(x - 10 - width, y - height / 2, width, height)]
    for away in (0.0, 18.0, 36.0, 54.0, 72.0, 96.0, 120.0, 150.0):
        for up in (-1, 1):
            top = y + up * (away + 10 + height / 2) - height / 2
            places += [
                Box(x + 10 + away / 2, top, width, height),
                Box(x - 10 - width - away / 2, top, width, height),
                Box(x - width / 2, top, width, height),
            ]
    return places


def _inside(box: Box) -> Box:
    """The box, moved into the plot."""
    x = min(max(box.x, LEFT + 2), WIDTH - RIGHT - box.width)
    y = min(max(box.y, TOP), HEIGHT - BOTTOM - box.height)
    return Box(x, y, box.width, box.height)


class _Axes:
    """From fractions and scores to places. The fraction axis is logarithmic when less than 5 % is kept."""

    def __init__(self, table: Standings):
        fractions = [_kept(row) for row in table.rows]
        self.log = min(fractions) < 0.05 and min(fractions) > 0
        self.low_x = 10 ** math.floor(math.log10(min(fractions))) if self.log else 0.0
        ends = [
            v
            for row in table.rows
            for v in (row.score.low, row.score.high, row.score.mean)
            if math.isfinite(v)
        ]
        low, high = min(ends), max(ends)
        pad = 0.08 * (high - low) or max(abs(high), 1.0) * 0.1
        self.low, self.high = low - pad, high + pad

    def x(self, fraction: float) -> float:
        inner = WIDTH - LEFT - RIGHT - 24
        if not self.log:
            return LEFT + 12 + inner * fraction
        at = math.log10(max(fraction, self.low_x) / self.low_x) / math.log10(1 / self.low_x)
        return LEFT + 12 + inner * at

    def y(self, score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (score - self.low) / (self.high - self.low)

    def points(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Where each row stands; rows that keep about as much stand a little apart, or their bars would be
        one bar."""
        order = sorted(range(len(rows)), key=lambda i: (_kept(rows[i]), i))
        clusters: list[list[int]] = []
        for i in order:
            at = self.x(_kept(rows[i]))
            if clusters and at - self.x(_kept(rows[clusters[-1][-1]])) < _APART:
                clusters[-1].append(i)
            else:
                clusters.append([i])
        places = {}
        for cluster in clusters:
            middle = sum(self.x(_kept(rows[i])) for i in cluster) / len(cluster)
            for k, i in enumerate(cluster):
                alone = len(cluster) == 1
                places[i] = (
                    self.x(_kept(rows[i])) if alone else middle + _APART * (k - (len(cluster) - 1) / 2)
                )
        return [(places[i], self.y(rows[i].score.mean)) for i in range(len(rows))]

    def span(self, row: Row) -> tuple[float, float]:
        """Top and bottom of an error bar (of the point where there is no interval)."""
        if not known(row.score):
            return self.y(row.score.mean), self.y(row.score.mean)
        return self.y(row.score.high), self.y(row.score.low)

    def ticks_x(self) -> list[float]:
        if not self.log:
            return [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        tens = range(round(math.log10(self.low_x)), 1)
        return [m * 10.0**p for p in tens for m in (1, 2, 5) if m * 10.0**p <= 1]

    def ticks_y(self) -> list[float]:
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
        first = math.ceil(self.low / step)
        return [round(k * step, 12) for k in range(first, math.floor(self.high / step) + 1)]


def _grid(axes: _Axes, table: Standings) -> list[Html]:
    drawn = []
    for value in axes.ticks_y():
        y = num(axes.y(value))
        drawn.append(el("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"))
        drawn.append(el("text", figure(value), x=LEFT - 8, y=num(axes.y(value) + 4), text_anchor="end"))
    for value in axes.ticks_x():
        x = num(axes.x(value))
        drawn.append(el("line", x1=x, y1=HEIGHT - BOTTOM, x2=x, y2=HEIGHT - BOTTOM + 4, class_="tick"))
        drawn.append(el("text", f"{100 * value:g} %", x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    better = "higher" if table.higher_is_better else "lower"
    fraction_of = table.rows[0].fraction_of
    drawn.append(el("text", f"{table.score_name} ({better} is better)", x=LEFT - 44, y=14, class_="title"))
    kept = f"kept of the pool ({fraction_of})" + (", log scale" if axes.log else "")
    drawn.append(el("text", kept, x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end", class_="title"))
    return drawn


def _band(axes: _Axes, table: Standings) -> Html | None:
    """The level of no-filter across the plot."""
    row = next((row for row in table.rows if row.control == "no-filter"), None)
    if row is None:
        return None
    high, low = axes.span(row)
    y = num(axes.y(row.score.mean))
    return el(
        "g",
        el("title", f"Level of no filter: {_score(row)}"),
        el(
            "rect",
            x=LEFT,
            y=num(high),
            width=num(WIDTH - LEFT - RIGHT),
            height=num(low - high),
            class_="band",
        ),
        el("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="level"),
    )


def _bar(axes: _Axes, row: Row, x: float) -> Html | None:
    if not known(row.score):
        return None
    high, low = axes.span(row)
    path = f"M{num(x)} {num(high)}V{num(low)}M{num(x - 4)} {num(high)}h8M{num(x - 4)} {num(low)}h8"
    return el("path", d=path, class_="error control" if row.control else "error")


def _mark(row: Row, x: float, y: float) -> Html:
    if row.control:
        return el("rect", x=num(x - 4), y=num(y - 4), width=8, height=8, class_="point")
    return el("circle", cx=num(x), cy=num(y), r=5, class_="point")


def _kept(row: Row) -> float:
    """The kept fraction of a row that is drawn, which has one."""
    assert row.kept_fraction is not None
    return row.kept_fraction


def _score(row: Row) -> str:
    if not known(row.score):
        return f"{figure(row.score.mean)}, no interval ({row.score.n} seeds)"
    return f"{figure(row.score.mean)} [{figure(row.score.low)}, {figure(row.score.high)}]"


def _said(row: Row) -> str:
    return f"{row.title}: {_score(row)}, keeping {100 * _kept(row):.1f} %"
