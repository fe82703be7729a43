"""A trace as text for a terminal, as a page, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation import textdiff
from curation.html import Html, asset, count, el, figure, link, page, visible
from curation.tracing import Margin, Trace, TracedStep

_SHOWN = 600  # characters of a new text
_VALUE = 80  # characters of a label
_COLOURS = {
    "FAIL": "\x1b[1;31m", "dropped": "\x1b[1;31m", "error": "\x1b[1;31m", "pass": "\x1b[32m",
    "changed": "\x1b[36m", "unknown": "\x1b[33m", "undecided": "\x1b[33m", "skipped": "\x1b[33m",
    "not run": "\x1b[33m",
}  # fmt: skip
_SIGNS = {"<=": "≤", ">=": "≥"}


def verdict(trace: Trace) -> str:
    """The verdict in a few words."""
    if trace.verdict == "dropped":
        return f"Dropped by {trace.dropped_by!r}"
    return {"kept": "Kept", "depends": "Kept, unless a barrier removes it"}.get(trace.verdict, "Quarantined")


def headline(trace: Trace) -> str:
    """The verdict in a sentence."""
    rest = len(trace.failing) - 1
    more = f"; {rest} more step{'s' if rest > 1 else ''} would remove it too" if rest > 0 else ""
    unknown = sum(s.status == "unknown" and s.kind == "keep" for s in trace.steps)
    blind = f"; {unknown} rule{'s' if unknown > 1 else ''} could not be judged" if unknown else ""
    names = ", ".join(repr(s.reason) for s in trace.undecided)
    if trace.verdict == "kept":
        return f"kept{blind}"
    if trace.verdict == "depends":
        return f"kept, unless {names} removes it, which only the whole pool decides{blind}"
    at = next(s for s in trace.steps if s.index == trace.step and s.leaves)
    sooner = [s for s in trace.undecided if s.index < at.index]
    first = f" (unless {', '.join(repr(s.reason) for s in sooner)} removes it before)" if sooner else ""
    if trace.verdict == "quarantined":
        return f"quarantined by step {at.index}, {at.name}: {at.note}{first}{more}{blind}"
    why = "; ".join(_margin(m) for m in at.margins if not m.met) or at.note or _beside(at)
    return f"dropped by {trace.dropped_by!r}, step {at.index}{': ' + why if why else ''}{first}{more}{blind}"


def _margin(margin: Margin) -> str:
    sign = _SIGNS.get(margin.op, margin.op)
    if margin.value is None:
        return f"{margin.column} is null, asked {sign} {figure(margin.threshold)}"
    if margin.met:
        return f"{margin.column} {figure(margin.value)} {sign} {figure(margin.threshold)}{_away(margin)}"
    return f"{margin.column} {figure(margin.value)}, asked {sign} {figure(margin.threshold)}{_away(margin)}"


def _away(margin: Margin) -> str:
    distance = margin.distance
    if distance is None or distance == 0 or not math.isfinite(distance):
        return " (on it)" if distance == 0 else ""
    share = f", {100 * abs(distance) / abs(margin.threshold):.0f} %" if margin.threshold else ""
    return f" ({figure(abs(distance))}{share} {'above' if distance > 0 else 'below'})"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Structs as a.b."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{count(len(value))} bytes"
    if isinstance(value, str):
        text = visible(" ".join(value.split()))
        return text if len(text) <= _VALUE else f"{text[:_VALUE]}… ({count(len(value))} characters)"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, list):
        text = "[" + ", ".join(_shown(v) for v in value[:8]) + (", …]" if len(value) > 8 else "]")
        return text
    return "null" if value is None else figure(value)


def _edits(step: TracedStep) -> list[tuple[str, str, Any]]:
    """(column, what became of it, pieces or None) of a transform's columns."""
    out: list[tuple[str, str, Any]] = []
    for name in dict.fromkeys([*step.before, *step.after]):
        old, new = step.before.get(name), step.after.get(name)
        if name not in step.after:
            out.append((name, f"retired ({_shown(old)})", None))
        elif isinstance(old, str) and isinstance(new, str):
            said = f"{count(len(old))} → {count(len(new))} characters"
            out.append((name, said, textdiff.pieces(old, new)))
        elif name not in step.before and isinstance(new, str) and (name == "text" or len(new) > _VALUE):
            head = new if len(new) <= _SHOWN else new[:_SHOWN]
            found = [(textdiff.SAME, head)]
            if len(new) > _SHOWN:
                found.append((textdiff.GAP, f"{len(new) - _SHOWN:,} more characters"))
            out.append((name, f"made, {count(len(new))} characters", found))
        elif name not in step.before:
            out.append((name, _shown(new), None))
        else:
            out.append((name, f"{_shown(old)} → {_shown(new)}", None))
    return out


# ------------------------------------------------------------------------------------------------- terminal


def as_text(trace: Trace, colour: bool = False, width: int = 100) -> str:
    def paint(text: str, code: str) -> str:
        return f"{code}{text}\x1b[0m" if colour and code else text

    url = trace.row.get("url")
    place = f"  {visible(str(url))}" if url else ""
    bad = trace.verdict in ("dropped", "quarantined")
    code = "\x1b[1;31m" if bad else "\x1b[1;33m" if trace.verdict == "depends" else "\x1b[1;32m"
    lines = [
        f"row {visible(trace.id)}{place}",
        paint(f"verdict: {headline(trace)}", code),
        *([trace.stored.told] if trace.stored else []),
        *trace.notes,
        "",
    ]
    name_width = min(44, max([len(_name(s)) for s in trace.steps], default=20))
    for step in trace.steps:
        first = f"{step.index:>3}  {step.kind:<9}  "
        status = paint(f"{step.status:<9}", _COLOURS.get(step.status, ""))
        lines.append(f"{first}{status}  {_name(step):<{name_width}}  {_beside(step)}".rstrip())
        indent = " " * 16
        lines += [f"{indent}{line}" for line in _below(trace, step, width - 16)]
        for column, said, found in _edits(step):
            lines.append(f"{indent}{column}: {said}")
            if found:
                lines.append(textdiff.as_text(found, colour, indent + "  "))
    return "\n".join(lines) + "\n"


def _name(step: TracedStep) -> str:
    return str(step.reason) if step.kind in ("keep", "barrier") and step.reason else step.name


def _beside(step: TracedStep) -> str:
    """What stands on the step's own line: a rule with what it read."""
    if step.kind == "barrier":
        return step.describe
    if step.kind != "keep":
        return ""
    told = step.where or step.describe
    if step.status == "unknown":
        return f"{told}   [{step.note}]"
    if _simple(step):
        return _margin(step.margins[0])
    words = "" if step.margins else "   ".join(f"{n} {_shown(v)}" for n, v in _read(step).items())
    return f"{told}   [{words}]" if words and len(words) <= 60 else told


def _simple(step: TracedStep) -> bool:
    """Whether a rule is one comparison, which its margin tells whole."""
    return len(step.margins) == 1 and len((step.where or "").split()) == 3


def _read(step: TracedStep) -> dict[str, Any]:
    """What a keep read, besides whole structs (their fields say it) and what its margins tell."""
    told = {m.column for m in step.margins}
    return {n: v for n, v in step.values.items() if n not in told and not isinstance(v, Mapping)}


def _below(trace: Trace, step: TracedStep, width: int) -> list[str]:
    """Notes, margins and values, wrapped."""
    beside = step.kind == "keep" and step.status == "unknown"
    lines = [visible(step.note)] if step.note and not beside else []
    if not _simple(step):
        lines += [_margin(m) for m in step.margins]
    words = [f"{n} {_shown(v)}{_rank(_ranks(trace, step).get(n))}" for n, v in _values(step).items()]
    if step.kind == "keep" and _beside(step).endswith("]"):
        words = []
    line = ""
    for word in words:
        if line and len(line) + len(word) + 3 > width:
            lines.append(line)
            line = ""
        line += f"{'   ' if line else ''}{word}"
    return [*lines, line] if line else lines


def _values(step: TracedStep) -> dict[str, Any]:
    return _read(step) if step.kind == "keep" else _flat(step.values)


def _ranks(trace: Trace, step: TracedStep) -> Mapping[str, tuple[float, int]]:
    return trace.stored.ranks if trace.stored and step.kind == "score" else {}


def _rank(rank: tuple[float, int] | None) -> str:
    return "" if rank is None else f" (above {100 * rank[0]:.0f} % of the run)"


# ----------------------------------------------------------------------------------------------------- page

_ASSETS = Path(__file__).with_name("funnel_page")
_BADGE = {"FAIL": "out", "dropped": "out", "error": "out", "pass": "in", "changed": "in"}


def as_page(trace: Trace) -> str:
    """A document of its own: the verdict, then every step with what it saw and did."""
    url = trace.row.get("url")
    text = trace.row.get("text")
    return page(
        f"Row {trace.id}: {trace.verdict}",
        el(
            "header",
            el(
                "p",
                "Row ",
                el("code", trace.id),
                [" · ", link(url, str(url))] if url else None,
                class_="over",
            ),
            el("h1", verdict(trace)),
            el("p", headline(trace)[:1].upper() + headline(trace)[1:] + ".", class_="lede"),
            el("p", trace.stored.told) if trace.stored else None,
            [el("p", note, class_="muted") for note in trace.notes],
            el("p", "Plan ", el("code", trace.plan_hash[:12]), class_="over pool"),
        ),
        el(
            "main",
            el(
                "section",
                el("h2", "Every step"),
                el("ol", [_item(trace, s) for s in trace.steps], class_="trace"),
            ),
            _given_text(text),
        ),
        css=asset(_ASSETS / "funnel.css") + asset(_ASSETS / "trace.css"),
        description="What every step of a plan says about one row",
    )


def _given_text(text: Any) -> Html | None:
    if not isinstance(text, str):
        return None
    rest = el("span", f"⋯ {len(text) - 5000:,} more characters ⋯", class_="gap") if len(text) > 5000 else None
    return el(
        "section", el("h2", "The text, as given"), el("p", text[:5000], rest, class_="diff", dir="auto")
    )


def _item(trace: Trace, step: TracedStep) -> Html:
    told = step.where or (step.describe if step.describe != step.name else "")
    ranks, values = _ranks(trace, step), _values(step)
    return el(
        "li",
        el(
            "p",
            el("span", step.index, class_="index"),
            el("span", step.status, class_=f"status {_BADGE.get(step.status, '')}".strip()),
            el("b", _name(step)),
            el("code", told) if told else None,
            class_="line",
        ),
        el("p", step.note, class_="muted") if step.note else None,
        [el("p", _margin(m), class_="margin" if m.met else "margin warn") for m in step.margins],
        el(
            "dl",
            [el("div", el("dt", n), el("dd", _shown(v), _rank(ranks.get(n)))) for n, v in values.items()],
            class_="chips",
        )
        if values
        else None,
        [
            el(
                "div",
                el("p", el("b", column), " ", said, class_="muted"),
                textdiff.as_html(found) if found else None,
            )
            for column, said, found in _edits(step)
        ],
        class_="leaves" if step.leaves else None,
    )


# ----------------------------------------------------------------------------------------------------- JSON


def as_dict(trace: Trace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "url": trace.row.get("url"),
        "plan_hash": trace.plan_hash,
        "verdict": trace.verdict,
        "dropped_by": trace.dropped_by,
        "step": trace.step,
        "says": headline(trace),
        "undecided": [s.reason for s in trace.undecided],
        "notes": list(trace.notes),
        "steps": [_step_dict(s) for s in trace.steps],
        "stored": None
        if trace.stored is None
        else {
            "run": trace.stored.run,
            "found": trace.stored.found,
            "same_plan": trace.stored.same_plan,
            "dropped_by": trace.stored.dropped_by,
            "scores": _plain(trace.stored.scores),
            "ranks": {k: {"below": b, "of": n} for k, (b, n) in trace.stored.ranks.items()},
        },
    }


def _step_dict(step: TracedStep) -> dict[str, Any]:
    return {
        "index": step.index,
        "name": step.name,
        "kind": step.kind,
        "status": step.status,
        "reason": step.reason,
        "where": step.where,
        "describe": step.describe,
        "note": step.note,
        "values": _plain(step.values),
        "margins": [
            {"column": m.column, "op": m.op, "threshold": m.threshold, "value": _plain(m.value), "met": m.met,
             "distance": _plain(m.distance)}
            for m in step.margins
        ],
        "edits": [
            {"column": column, "says": said, "pieces": None if found is None else [list(p) for p in found]}
            for column, said, found in _edits(step)
        ],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
