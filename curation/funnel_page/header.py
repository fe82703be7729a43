"""The head of the page: what came in, what was kept, and that every row is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.common import legend
from curation.funnel_page.facts import Facts
from curation.html import Html, count, duration, el, join, share, size


def header(facts: Facts) -> Html:
    report = facts.report
    source = report.get("input") or {}
    pool = source.get("url") or "–"
    kept, whole = facts.rows_out, facts.whole
    if not facts.rows_in:
        title = "No rows were read"
    elif facts.added:
        title = f"{count(kept)} rows kept, from {count(facts.rows_in)} read and {count(facts.added)} added"
    else:
        title = f"{count(kept)} of {count(facts.rows_in)} rows kept ({share(kept, whole)})"
    bad = facts.quarantined
    cuts = [r for r in facts.reasons if r.get("rows")][:3]
    largest = ", ".join(f"{r['reason']} ({share(r['rows'], whole)})" for r in cuts)
    return el(
        "header",
        el("p", "Curation run ", el("span", facts.place, class_="mono"), class_="over"),
        el("h1", title),
        el("p", f"Largest cuts: {largest}.", class_="lede") if cuts else None,
        _total(facts),
        el(
            "dl",
            _fact("Input", f"{count(facts.rows_in)} rows", _shards(source)),
            _fact("Output", f"{count(kept)} rows", _shards(report.get("output") or {})),
            _text_fact(report),
            _fact("Quarantined", count(facts.quarantined), bad and share(bad, facts.rows_in)),
            _fact("Time", duration(report.get("seconds")), _where(report)),
            _fact("Peak memory", size(report.get("peak_memory_bytes")), "of one process"),
            _fact("Plan", el("code", str(report.get("plan_hash") or "–")[:12]), f"{len(facts.steps)} steps"),
            class_="facts",
        ),
        el("p", "Pool: ", el("code", pool if isinstance(pool, str) else ", ".join(pool)), class_="over pool"),
        _balance(facts),
    )


def _fact(name: str, value: Any, note: Any = None) -> Html:
    return el("div", el("dt", name), el("dd", value, el("small", note) if note and note != "–" else None))


def _shards(side: Mapping[str, Any]) -> str:
    shards = side.get("shards")
    return f"{count(shards)} shard{'' if shards == 1 else 's'}, {size(side.get('bytes'))}"


def _where(report: Mapping[str, Any]) -> str:
    workers = report.get("workers")
    return f"{count(workers)} worker{'' if workers == 1 else 's'}, {report.get('on') or 'local'}"


def _text_fact(report: Mapping[str, Any]) -> Html | None:
    before = (report.get("input") or {}).get("text_bytes")
    after = (report.get("output") or {}).get("text_bytes")
    if not before and not after:
        return None
    return _fact("Text kept", size(after), f"{share(after, before)} of {size(before)}" if before else None)


def _total(facts: Facts) -> Html | None:
    if not facts.whole:
        return None
    parts = [("kept", facts.rows_out), ("gone", facts.dropped), ("bad", facts.quarantined)]
    words = {"kept": "kept", "gone": "removed", "bad": "quarantined"}
    said = ", ".join(f"{count(rows)} {words[name]}" for name, rows in parts)
    shown = [(name, words[name], rows) for name, rows in parts if rows or name != "bad"]
    return el(
        "div",
        figures.bar(parts, facts.whole, said, 20),
        legend([(c, _amount(word, rows, facts.whole)) for c, word, rows in shown]),
        class_="total",
    )


def _amount(word: str, rows: int, whole: int) -> Html:
    return join(word, " ", el("b", count(rows)), f" ({share(rows, whole)})")


def _balance(facts: Facts) -> Html | None:
    """The conservation sum, so that a reader can check that nothing was lost."""
    if not facts.steps:
        return None
    left, right = facts.whole, facts.rows_out + facts.dropped + facts.quarantined
    added = f" + {count(facts.added)} added" if facts.added else ""
    sums = (
        f"{count(facts.rows_in)} read{added} = {count(facts.rows_out)} kept + {count(facts.dropped)} removed "
        f"+ {count(facts.quarantined)} quarantined"
    )
    if left == right:
        return el("p", f"Every row is accounted for: {sums}.", class_="over")
    sides = f"{count(left)} against {count(right)}"
    return el("p", f"Rows do not add up ({sides}): {sums}. Treat this report as wrong.", class_="warn")
