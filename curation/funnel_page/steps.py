"""The funnel itself: a row for every step, with what it left and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.common import legend, number_head
from curation.funnel_page.facts import Facts, told
from curation.html import Html, count, duration, el, share


def funnel(facts: Facts) -> Html:
    scale = max(
        [facts.whole, *((s.get("rows_in") or 0) + (s.get("added") or 0) for s in facts.steps)], default=0
    )
    places = {r.get("step"): i for i, r in enumerate(facts.reasons)}
    rows = [
        _folded(run) if len(run) >= 3 else [_step_row(facts, step, scale, places) for step in run]
        for run in _runs(facts.steps)
    ]
    entries = [
        ("kept", "rows that remain"),
        ("still", "unchanged by the step"),
        ("gone", "removed by the step"),
    ]
    if facts.added:
        entries.append(("added", "added by a transform"))
    if facts.quarantined:
        entries.append(("bad", "quarantined"))
    return el(
        "section",
        el("h2", "The funnel", id="funnel"),
        legend(entries),
        el(
            "div",
            el(
                "table",
                el("caption", "Every step of the plan with the rows it left", class_="hide"),
                el(
                    "thead",
                    el(
                        "tr",
                        el("th", "#", scope="col", class_="wide"),
                        el("th", "Step", scope="col"),
                        number_head("Rows after"),
                        number_head("Removed"),
                        number_head("of its input", "wide"),
                        number_head("Work", "wide"),
                    ),
                ),
                el("tbody", rows),
                class_="steps",
            ),
            class_="scroll",
        ),
    )


def _runs(steps: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Steps one by one, but neighbouring keeps that removed nothing together."""
    runs: list[list[Mapping[str, Any]]] = []
    for step in steps:
        idle = step.get("kind") == "keep" and not step.get("dropped") and not step.get("quarantined")
        if idle and runs and runs[-1][0].get("kind") == "keep" and not runs[-1][0].get("dropped"):
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def _folded(run: Sequence[Mapping[str, Any]]) -> Html:
    """Rules that removed nothing, as one row that opens."""
    lines = [
        el("li", step.get("reason") or step.get("name"), " ", el("span", told(step), class_="what"))
        for step in run
    ]
    first, last = run[0].get("index"), run[-1].get("index")
    said = f"{len(run)} rules that removed nothing"
    return el(
        "tr",
        el("td", f"{first}–{last}", class_="index wide"),
        el(
            "td",
            el("details", el("summary", said, class_="name"), el("ol", lines, start=first)),
            class_="step",
        ),
        el("td", count(run[-1].get("rows_out")), class_="n"),
        el("td", "–", class_="n"),
        el("td", class_="n wide"),
        el("td", duration(sum(s.get("seconds") or 0 for s in run)), class_="n muted wide"),
        class_="quiet",
    )


def _step_row(facts: Facts, step: Mapping[str, Any], scale: int, places: Mapping[Any, int]) -> Html:
    came, left = step.get("rows_in") or 0, step.get("rows_out") or 0
    added, dropped, bad = (step.get(k) or 0 for k in ("added", "dropped", "quarantined"))
    quiet = not (added or dropped or bad)
    name = step.get("reason") or step.get("name")
    gone: Any = count(dropped) if dropped else "–"
    if dropped and step.get("index") in places:
        place = f"#reason-{places[step['index']]}"
        gone = el("a", gone, href=place, title="What was removed, with examples")
    if quiet:
        parts: list[tuple[str, float]] = [("still" if step.get("kind") != "read" else "kept", left)]
    else:
        parts = [("kept", max(0, left - added)), ("added", min(added, left)), ("gone", dropped), ("bad", bad)]
    said = f"{count(left)} rows after {name}" + (f", {count(dropped)} removed" if dropped else "")
    said += f", {count(added)} added" if added else ""
    said += f", {count(bad)} quarantined" if bad else ""
    notes = [el("small", f"+ {count(added)} added", class_="muted")] if added else []
    notes += [el("small", f"{count(bad)} quarantined", class_="warn")] if bad else []
    return el(
        "tr",
        el("td", step.get("index"), class_="index wide"),
        el(
            "td",
            el("span", name or step.get("kind"), class_="name"),
            el("span", told(step), class_="what"),
            figures.bar(parts, scale, said, 3 if quiet else 12) if scale else None,
            class_="step",
        ),
        el("td", count(left), notes, class_="n"),
        el("td", gone, class_="n"),
        el("td", share(dropped, came) if dropped else "", class_="n wide"),
        el("td", duration(step.get("seconds")), class_="n muted wide"),
        class_="quiet" if quiet else None,
    )
