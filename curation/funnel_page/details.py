"""The rest of the page: scores, barriers, cost, quarantined rows, the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.common import number_head, shape, shape_legend
from curation.funnel_page.facts import Facts, columns_of, thresholds_of
from curation.funnel_page.scores import Distribution
from curation.funnel_page.thresholds import Threshold
from curation.html import Html, count, duration, el, figure, join, share

_COSTLY = 12  # steps shown by what they cost; the rest is summed


def scores(facts: Facts) -> Html | None:
    shapes = [s for s in facts.shapes.values() if s.rows]
    if not shapes:
        return None
    deciding: dict[str, list[Threshold]] = {}
    for step in facts.steps:
        if step.get("kind") in ("keep", "barrier"):
            for name in columns_of(step):
                deciding.setdefault(name, [])
            for mark in thresholds_of(facts.report, step):
                if mark not in deciding.setdefault(mark.column, []):
                    deciding[mark.column].append(mark)
    first = [s for s in shapes if s.column in deciding]
    rest = [s for s in shapes if s.column not in deciding]

    def grid(some: Sequence[Distribution]) -> Html:
        return el("div", [shape(s, deciding.get(s.column, ())) for s in some], class_="shapes")

    more = el(
        "details",
        el("summary", f"{len(rest)} score{'' if len(rest) == 1 else 's'} that decided nothing"),
        grid(rest),
        class_="more",
        open=not first,
    )
    return el(
        "section",
        el("h2", "Scores", id="scores"),
        shape_legend(shapes),
        grid(first) if first else None,
        more if rest else None,
    )


def barriers(facts: Facts) -> Html | None:
    found = facts.report.get("barriers") or []
    if not found:
        return None
    return el("section", el("h2", "Barriers", id="barriers"), [_barrier(facts, b) for b in found])


def _barrier(facts: Facts, barrier: Mapping[str, Any]) -> Html:
    summary = dict(barrier.get("summary") or {})
    sizes = summary.pop("sizes", None)
    summary.pop("cut", None)  # the cut as the engine keeps it: bits of the last key, not for reading
    step = facts.step(barrier.get("step"))
    rows: list[tuple[str, Any]] = []
    if step:
        came, left = step.get("rows_in") or 0, step.get("rows_out") or 0
        rows.append(("rows", f"{count(came)} in, {count(left)} out ({share(left, came)})"))
    rows += [
        (k.replace("_", " "), figure(v) if not isinstance(v, list | dict) else json.dumps(v)[:300])
        for k, v in summary.items()
    ]
    histogram = None
    if isinstance(sizes, Mapping) and sizes:
        clusters = {int(k): int(v) for k, v in sizes.items() if str(k).isdigit() and int(k) >= 2}
        histogram = figures.sizes(clusters) if clusters else None
    return el(
        "section",
        el(
            "h3",
            step.get("reason") or step.get("name") or barrier.get("kind"),
            el(
                "small",
                f" {step.get('name') or barrier.get('kind')}, step {barrier.get('step')}",
                class_="muted",
            ),
        ),
        el("dl", [join(el("dt", k), el("dd", v)) for k, v in rows], class_="pairs"),
        el("div", el("figure", histogram), class_="shapes") if histogram else None,
    )


def cost(facts: Facts) -> Html | None:
    timed = [s for s in facts.steps if (s.get("seconds") or 0) > 0]
    whole = sum(s["seconds"] for s in timed)
    if not whole:
        return None
    top = max(s["seconds"] for s in timed)
    rows = []
    timed = sorted(timed, key=lambda s: -s["seconds"])
    rest = timed[_COSTLY:]
    if len(rest) > 1:
        others = {"name": f"{len(rest)} other steps", "seconds": sum(s["seconds"] for s in rest)}
        timed = [*timed[:_COSTLY], others]
    for step in timed:
        name, took, came = step.get("name"), step["seconds"], step.get("rows_in")
        rows.append(
            el(
                "tr",
                el("th", name, scope="row"),
                el("td", figures.bar([("cut", took)], top, f"{name}: {duration(took)}", 8)),
                el("td", duration(took), class_="n"),
                el("td", share(took, whole), class_="n"),
                el("td", f"{count(came / took)} rows/s" if came else "–", class_="n wide"),
            )
        )
    caption = el("caption", "Seconds of work by step", class_="hide")
    wall = duration(facts.report.get("seconds"))
    return el(
        "section",
        el("h2", "Where the time went", id="cost"),
        el("p", f"{duration(whole)} of work over all workers; the run took {wall}.", class_="muted"),
        el("div", el("table", caption, el("tbody", rows), class_="labels"), class_="scroll"),
    )


def quarantined(facts: Facts) -> Html | None:
    errors = (facts.report.get("quarantined") or {}).get("by_error") or {}
    if not errors:
        return None
    rows = [
        el("tr", el("th", name, scope="row"), el("td", count(n), class_="n"))
        for name, n in sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    ]
    head = el("thead", el("tr", el("th", "Error", scope="col"), number_head("Rows")))
    return el(
        "section",
        el("h2", "Quarantined", id="quarantined"),
        el(
            "p",
            "Rows that could not be read or on which a step failed. ",
            "Source, position and error of each are in ",
            el("code", "_winnow/bad/"),
            ".",
            class_="muted",
        ),
        el("div", el("table", head, el("tbody", rows)), class_="scroll"),
    )


def plan(facts: Facts) -> Html:
    lines = []
    for step in facts.steps:
        params = {
            k: v for k, v in (step.get("params") or {}).items() if v not in (None, [], {}) and k != "where"
        }
        told = step.get("where") or json.dumps(params, ensure_ascii=False, sort_keys=True)
        told = told if len(told) <= 400 else told[:400] + " …"
        first = f"{step.get('index', ''):>2}  {step.get('kind') or '':<9}"
        lines.append(f"{first} {step.get('name') or ''}  {'' if told == '{}' else told}".rstrip())
    versions = facts.report.get("versions") or {}
    about = [(k.replace("_", " "), facts.report.get(k)) for k in ("plan_hash", "started", "winnow")]
    about += versions.items()
    return el(
        "section",
        el("h2", "The plan, and what it ran on", id="plan"),
        el("pre", el("code", "\n".join(lines)), tabindex=0, aria_label="The plan") if lines else None,
        el("dl", [join(el("dt", k), el("dd", el("code", v))) for k, v in about if v], class_="pairs"),
    )
