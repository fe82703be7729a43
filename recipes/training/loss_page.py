"""The page of a training run: curves over the steps, out of ``log.jsonl``. Opens without a network."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.html import Html, count, el, num, page, svg

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760.0, 56.0, 12.0, 22.0, 24.0
POINTS = 600  # a line has at most so many; each stands for the steps around it
CSS = """
figure { margin: 2rem 0 0; }
svg.curve { width: 100%; height: auto; max-width: 60rem; overflow: visible; }
.curve .grid { stroke: var(--line); stroke-width: 1; }
.curve .each { fill: var(--soft); stroke: none; }
.curve .line { fill: none; stroke: var(--accent); stroke-width: 1.75; stroke-linejoin: round; }
.curve .title { font-size: 13px; font-weight: 600; fill: var(--ink); }
"""


def read_log(log: Path) -> list[dict[str, Any]]:
    """The records of a run, a step each."""
    with open(log, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(path: Path, document: str) -> None:
    """Write a page whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(document, encoding="utf-8")
    partial.replace(path)


def render(
    model: str,
    result: Any,
    fingerprint: str,
    on: str,
    facts: Mapping[str, tuple[str, str | None]],
    curves: Iterable[Html],
) -> str:
    """The whole document.

    ``result`` says ``scale``, ``scale_hash`` and ``seed``; ``on`` and ``fingerprint`` are the data that
    ``model`` was trained on; ``facts`` are a name, a value and a note each.
    """
    shown = [
        el("div", el("dt", name), el("dd", value, note and el("small", note)))
        for name, (value, note) in facts.items()
    ]
    return page(
        f"{result.scale}, seed {result.seed}: training",
        el(
            "main",
            el("p", f"Training run · scale {result.scale} ", el("code", result.scale_hash), class_="over"),
            el("h1", model),
            el("p", f"Seed {result.seed}, on {on} ", el("code", fingerprint), class_="lede"),
            el("dl", *shown, class_="facts"),
            *[el("figure", curve) for curve in curves],
            el("p", "The band spans the single steps, the line is their mean.", class_="muted"),
        ),
        css=CSS,
        description=f"Loss, learning rate and speed of a training run of {result.scale}",
    )


def curve(
    title: str,
    steps: Sequence[int],
    values: Sequence[float],
    said: Callable[[float], str],
    height: float,
    floor: float | None = None,
) -> Html:
    """Mean and range of neighbouring steps over the steps."""
    bins = _bins(steps, values)
    low = floor if floor is not None else min(b[1] for b in bins)
    high = max(b[3] for b in bins)
    ticks = _ticks(low, high, 5 if height > 200 else 2)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max(steps[-1], steps[0] + 1)

    def x(step: float) -> str:
        return num(LEFT + (WIDTH - LEFT - RIGHT) * (step - steps[0]) / (last - steps[0]))

    def y(value: float) -> str:
        return num(height - BOTTOM - (height - TOP - BOTTOM) * (value - low) / ((high - low) or 1.0))

    drawn = [el("text", title, x=0, y=12, class_="title")]
    for value in ticks:
        drawn.append(el("line", x1=LEFT, y1=y(value), x2=WIDTH - RIGHT, y2=y(value), class_="grid"))
        drawn.append(el("text", said(value), x=LEFT - 8, y=num(float(y(value)) + 4), text_anchor="end"))
    for step in [s for s in _ticks(steps[0], last, 6) if steps[0] <= s <= last]:
        drawn.append(el("text", count(step), x=x(step), y=num(height - 6), text_anchor="middle"))
    edge = [f"{x(s)},{y(top)}" for s, _, _, top in bins]
    edge += [f"{x(s)},{y(bottom)}" for s, bottom, _, _ in reversed(bins)]
    drawn.append(el("path", d=f"M{'L'.join(edge)}Z", class_="each"))
    drawn.append(
        el("polyline", points=" ".join(f"{x(s)},{y(mean)}" for s, _, mean, _ in bins), class_="line")
    )
    return svg(WIDTH, height, *drawn, label=f"{title} over {count(len(steps))} steps", class_="curve")


def _bins(steps: Sequence[int], values: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """(middle step, least, mean, greatest) of runs of neighbouring steps; at most POINTS of them."""
    size = max(1, math.ceil(len(values) / POINTS), min(10, len(values) // 40))
    out = []
    for i in range(0, len(values), size):
        part = values[i : i + size]
        middle = (steps[i] + steps[i + len(part) - 1]) / 2
        out.append((middle, min(part), sum(part) / len(part), max(part)))
    return out


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers in steps that reach over the range."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """500, 20k, 1.5M: at a tick."""
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"
