"""What was removed, and why: each reason with its rule, its scores and real rows; and rows that were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.common import shape, shape_legend
from curation.funnel_page.facts import Facts, columns_of, thresholds_of, told
from curation.funnel_page.rows import example
from curation.html import Html, count, el, join, share, size

_SHOWN = 6  # examples of a reason in view; the others are folded


def removed(facts: Facts) -> Html:
    reasons = facts.reasons
    if not reasons:
        return el(
            "section",
            el("h2", "What was removed, and why", id="removed"),
            el("p", "No row was removed by this plan."),
        )
    largest = max((r.get("rows") or 0 for r in reasons), default=0)
    return el(
        "section",
        el("h2", "What was removed, and why", id="removed"),
        el(
            "div",
            el(
                "p",
                "By number of rows. Open a reason for its rule, its scores, and rows that it removed.",
                class_="muted",
            ),
            el("button", "Open all", id="open-all", type="button", hidden=True),
            class_="bars",
        ),
        [_reason(facts, i, reason, largest) for i, reason in enumerate(reasons)],
    )


def _reason(facts: Facts, place: int, reason: Mapping[str, Any], largest: int) -> Html:
    step = facts.step(reason.get("step"))
    rows = reason.get("rows") or 0
    columns = columns_of(step)
    marks = thresholds_of(facts.report, step)
    shapes = [facts.shapes[c] for c in columns if c in facts.shapes and facts.shapes[c].rows]
    rule = step.get("where") or told(step) or step.get("name")
    text = reason.get("text_bytes")
    examples = reason.get("examples") or []
    return el(
        "details",
        el(
            "summary",
            el("b", reason.get("reason")),
            el("span", figures.bar([("gone", rows)], largest, f"{count(rows)} rows", 8), class_="meter"),
            el("span", count(rows), class_="n"),
            el("span", share(rows, facts.whole), class_="n muted"),
        ),
        el(
            "div",
            el(
                "p",
                el("span", "keeps ", el("code", rule)) if step.get("where") else el("code", rule),
                el("span", f"step {step.get('index')}") if step else None,
                el("span", f"{share(rows, step.get('rows_in'))} of what reached it") if step else None,
                el("span", f"{size(text)} of text") if text else None,
                class_="rule",
            ),
            el("div", [shape(s, marks) for s in shapes], class_="shapes") if shapes else None,
            shapes and shape_legend(shapes),
            _examples(examples, columns, rows),
            class_="inside",
        ),
        class_="reason",
        id=f"reason-{place}",
        open=place == 0,
    )


def _examples(examples: Sequence[Mapping[str, Any]], read: Sequence[str], rows: int) -> Html:
    if not examples:
        return el("p", "No examples were stored.", class_="muted")
    said = f"{len(examples)} of {count(rows)} removed rows" if rows > len(examples) else "All of them"
    shown, more = ([example(e, read) for e in some] for some in (examples[:_SHOWN], examples[_SHOWN:]))
    rest = None
    if more:
        folded = el("ul", more, class_="examples")
        rest = el("details", el("summary", f"{len(more)} more"), folded, class_="more")
    return join(el("h3", said), el("ul", shown, class_="examples"), rest)


def kept(facts: Facts) -> Html | None:
    rows = facts.report.get("kept_examples") or []
    if not rows:
        return None
    return el(
        "section",
        el("h2", "What was kept", id="kept"),
        el("p", f"{len(rows)} of {count(facts.rows_out)} kept rows.", class_="muted"),
        el("ul", [example(r) for r in rows], class_="examples"),
    )
