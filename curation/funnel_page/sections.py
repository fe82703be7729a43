"""The sections of the funnel page, each a function of the facts of a run."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.funnel_page import figures
from curation.funnel_page.scores import Distribution
from curation.funnel_page.thresholds import Threshold, names_in, thresholds_in
from curation.html import Html, count, duration, el, figure, join, link, share, size

_IMAGES = {"png", "jpeg", "jpg", "webp", "gif", "avif", "bmp"}
_SHOWN = 6  # examples of a reason in view; the others are folded
_COSTLY = 12  # steps shown by what they cost; the rest is summed
_TEXT = 600  # characters of an example that are shown


@dataclass(frozen=True)
class Facts:
    """A run as the page needs it: its report, and the distributions of its scores by column."""

    report: Mapping[str, Any]
    shapes: Mapping[str, Distribution]
    place: str = ""

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        return self.report.get("steps") or []

    @property
    def rows_in(self) -> int:
        return (self.report.get("input") or {}).get("rows") or 0

    @property
    def rows_out(self) -> int:
        return (self.report.get("output") or {}).get("rows") or 0

    @property
    def added(self) -> int:
        return sum(s.get("added") or 0 for s in self.steps)

    @property
    def dropped(self) -> int:
        return sum(s.get("dropped") or 0 for s in self.steps)

    @property
    def quarantined(self) -> int:
        return (self.report.get("quarantined") or {}).get("rows") or 0

    @property
    def whole(self) -> int:
        """Rows that ever were: the ones read and the ones that transforms added."""
        return self.rows_in + self.added

    @property
    def reasons(self) -> list[Mapping[str, Any]]:
        """Reasons by falling number of rows."""
        return sorted(
            self.report.get("reasons") or [], key=lambda r: (-(r.get("rows") or 0), r.get("step") or 0)
        )

    def step(self, index: Any) -> Mapping[str, Any]:
        return next((s for s in self.steps if s.get("index") == index), {})


def columns_of(step: Mapping[str, Any]) -> list[str]:
    """Columns that a keep or barrier decides on, as far as the report tells."""
    names = names_in(step.get("where"))
    if step.get("kind") == "barrier":
        names += [v for v in (step.get("params") or {}).values() if isinstance(v, str)]
    names += [n for n in step.get("inputs") or () if isinstance(n, str)]
    return list(dict.fromkeys(names))


def thresholds_of(facts_report: Mapping[str, Any], step: Mapping[str, Any]) -> list[Threshold]:
    """Thresholds of a keep's expression, or the one that a barrier found."""
    marks = thresholds_in(step.get("where"))
    for barrier in facts_report.get("barriers") or ():
        found = (barrier.get("summary") or {}).get("threshold")
        if barrier.get("step") == step.get("index") and isinstance(found, int | float):
            marks += [Threshold(name, ">=", float(found)) for name in columns_of(step)]
    return marks


# ----------------------------------------------------------------------------------------------------- header


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


def legend(entries: Sequence[tuple[str, Any]]) -> Html:
    def swatch(class_: str) -> Html:
        rect = el("rect", x=0, y=0, width=10, height=10, class_=class_)
        return el("svg", rect, viewBox="0 0 10 10", aria_hidden="true")

    return el("ul", [el("li", swatch(class_), text) for class_, text in entries], class_="key")


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


# ------------------------------------------------------------------------------------------------- the funnel


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
                        _head("Rows after"),
                        _head("Removed"),
                        _head("of its input", "wide"),
                        _head("Work", "wide"),
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
        el("li", step.get("reason") or step.get("name"), " ", el("span", _what(step), class_="what"))
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


def _head(text: str, extra: str = "") -> Html:
    return el("th", text, scope="col", class_=f"n {extra}".strip())


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
            el("span", _what(step), class_="what"),
            figures.bar(parts, scale, said, 3 if quiet else 12) if scale else None,
            class_="step",
        ),
        el("td", count(left), notes, class_="n"),
        el("td", gone, class_="n"),
        el("td", share(dropped, came) if dropped else "", class_="n wide"),
        el("td", duration(step.get("seconds")), class_="n muted wide"),
        class_="quiet" if quiet else None,
    )


def _what(step: Mapping[str, Any]) -> str:
    """The step in one line, without saying its name twice."""
    if step.get("kind") == "keep" and step.get("where"):
        return str(step["where"])
    told, name = str(step.get("describe") or ""), str(step.get("name") or "")
    if told in (name, step.get("reason")):
        return ""
    told = told.removeprefix(name)
    return told[1:-1] if told.startswith("(") and told.endswith(")") else told.lstrip(": ")


# ---------------------------------------------------------------------------------- what was removed, and why


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
    rule = step.get("where") or _what(step) or step.get("name")
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
            shapes and _shape_legend(shapes),
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


def example(row: Mapping[str, Any], read: Sequence[str] = ()) -> Html:
    """One row: image if there is one, text, where it is from, its scores; those in `read` stand out."""
    text = row.get("text")
    scores = _flat(row.get("scores") or {})
    url = row.get("url")
    return el(
        "li",
        _image(row),
        el(
            "div",
            el("p", _clip(text), class_="text", dir="auto")
            if text
            else el("p", "(no text)" if text is None else "(empty text)", class_="muted text"),
            el(
                "p",
                el("code", row.get("id")),
                [el("br"), link(url, str(url))] if url else None,
                class_="from",
            ),
            el("dl", [_chip(k, v, k in read) for k, v in scores.items()], class_="chips") if scores else None,
        ),
        class_="example",
    )


def _clip(text: Any) -> str:
    text = " \n".join(line.strip() for line in str(text).splitlines() if line.strip())
    return text if len(text) <= _TEXT else text[:_TEXT].rstrip() + " …"


def _chip(name: str, value: Any, read: bool) -> Html:
    return el("div", el("dt", name), el("dd", figure(value)), class_="read" if read else None)


def _flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Struct scores as a.b, nulls left out."""
    out: dict[str, Any] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            out[f"{prefix}{key}"] = value
    return out


def _image(row: Mapping[str, Any]) -> Html | None:
    """The row's picture as a data URI: raster formats only, and only if it is valid base64."""
    data, kind = row.get("image"), str(row.get("image_type") or "").lower().removeprefix("image/")
    if not isinstance(data, str) or kind not in _IMAGES:
        return None
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    caption = str(row.get("text") or "")[:120]
    alt = f"Image captioned: {caption}" if caption else "Image"
    return el("img", src=f"data:image/{kind};base64,{data}", alt=alt, loading="lazy")


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


# ----------------------------------------------------------------------------------------------------- scores


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


def _shape_legend(shapes: Sequence[Distribution]) -> Html:
    words = "kept" if all(s.joined for s in shapes) else "passed on to the next stage"
    by_rule, elsewhere = "removed by a rule that reads this score", "removed by another rule"
    return legend([("kept", words), ("cut", by_rule), ("gone", elsewhere)])


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
        _shape_legend(shapes),
        grid(first) if first else None,
        more if rest else None,
    )


# --------------------------------------------------------------------------------------------- the small rest


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
    head = el("thead", el("tr", el("th", "Error", scope="col"), _head("Rows")))
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
