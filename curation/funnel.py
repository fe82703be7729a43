"""The funnel of a run: what came in, what each step removed and why, with real rows, as a page or a table.

The page is one file without any outside resource; it is made from report.json and the score side-cars that
the run left, so it can be made again at any time, also for a run on an object store.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation import storage
from curation.html import asset, count, duration, el, page, share

_ASSETS = Path(__file__).with_name("funnel_page")


def render(run_dir: str | Path, out: str | Path | None = None) -> str:
    """Write the page of a run and return where it is (default: run_dir/funnel.html).

    Reads run_dir/_winnow/report.json and run_dir/scores/**.parquet; `run_dir` is a path or an fsspec URL.
    FileNotFoundError if the run has no report, ValueError if the report cannot be read.
    """
    from curation.funnel_page.facts import columns_of, thresholds_of
    from curation.funnel_page.scores import distributions

    run_dir = str(run_dir)
    report = read_report(run_dir)
    rules: dict[str, list[str]] = {}
    marks: dict[str, list[float]] = {}
    for step in report["steps"]:
        reasons = [r["reason"] for r in report.get("reasons") or () if r.get("step") == step.get("index")]
        for column in columns_of(step) if step.get("kind") in ("keep", "barrier") else ():
            rules.setdefault(column, []).extend(reasons)
        for mark in thresholds_of(report, step):
            marks.setdefault(mark.column, []).append(mark.value)
    shapes = {shape.column: shape for shape in distributions(run_dir, rules, marks)}
    target = storage.join(run_dir, "funnel.html") if out is None else str(out)
    text = html(report, shapes, storage.basename(run_dir))
    storage.write_bytes(target, text.encode("utf-8"))
    return target


def html(report: Mapping[str, Any], shapes: Mapping[str, Any] | None = None, place: str = "") -> str:
    """The page of a report as text; `shapes`: column → curation.funnel_page.scores.Distribution."""
    from curation.funnel_page import details, edits, header, reasons, steps
    from curation.funnel_page.facts import Facts

    facts = Facts(report, shapes or {}, place)
    return page(
        f"Funnel of {place or 'a run'}: {count(facts.rows_out)} of {count(facts.rows_in)} rows",
        el("a", "Skip to what was removed", href="#removed", class_="skip"),
        header.header(facts),
        el(
            "main",
            steps.funnel(facts),
            reasons.removed(facts),
            reasons.kept(facts),
            edits.edited(facts),
            details.scores(facts),
            details.barriers(facts),
            details.cost(facts),
            details.quarantined(facts),
            details.plan(facts),
        ),
        el(
            "footer",
            f"Made by Winnow {report.get('winnow') or ''} from report.json and the score side-cars of "
            "this run. Examples are rows of the pool, shown as text.",
            class_="foot",
        ),
        css=asset(_ASSETS / "funnel.css"),
        script=asset(_ASSETS / "funnel.js"),
        description="What a curation run kept, what it removed, and why",
    )


def read_report(run_dir: str) -> dict[str, Any]:
    """report.json of a run. FileNotFoundError without one, ValueError if it is not a report."""
    import orjson

    url = storage.join(run_dir, "_winnow", "report.json")
    try:
        report = orjson.loads(storage.read_bytes(url))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{run_dir} holds no finished run: there is no _winnow/report.json "
            "(run the plan to its end, or resume it, and render again)"
        ) from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{url} is not JSON ({error}): run the plan again to write it anew") from error
    if not isinstance(report, dict) or not isinstance(report.get("steps"), list):
        raise ValueError(f"{url} has no list of steps: it is not a report of a curation run")
    return report


def table(report: Mapping[str, Any]) -> str:
    """The funnel as text for a terminal: a line a step, then reasons and quarantined rows."""
    steps = report.get("steps") or []
    rows_in = (report.get("input") or {}).get("rows") or 0
    rows_out = (report.get("output") or {}).get("rows") or 0
    scale = max([rows_in, *((s.get("rows_in") or 0) + (s.get("added") or 0) for s in steps)], default=0)
    lines = [["", "step", "", "rows after", "removed", "", "work"]]
    for step in steps:
        dropped, left = step.get("dropped") or 0, step.get("rows_out") or 0
        name = str(step.get("name") or step.get("kind") or "")
        if step.get("reason"):
            name = f"{'keep' if step.get('kind') == 'keep' else name}: {step['reason']}"
        notes = f"-{count(dropped)}" if dropped else ""
        notes += f" +{count(step['added'])}" if step.get("added") else ""
        notes += f" ({count(step['quarantined'])} bad)" if step.get("quarantined") else ""
        lines.append(
            [
                str(step.get("index", "")),
                _line(name),
                _blocks(left, scale),
                count(left),
                notes.strip(),
                share(dropped, step.get("rows_in")) if dropped else "",
                duration(step.get("seconds")),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(7)]
    body = []
    for line in lines:
        cells = [
            cell.ljust(width) if i in (1, 2) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        body.append("  ".join(cells).rstrip())
    kept = f"{count(rows_out)} of {count(rows_in)} rows kept ({share(rows_out, rows_in)})"
    last = [f"{kept} in {duration(report.get('seconds'))}"]
    errors = (report.get("quarantined") or {}).get("by_error") or {}
    last += [
        f"quarantined: {count(n)}  {_line(name)}" for name, n in sorted(errors.items(), key=lambda e: -e[1])
    ]
    return "\n".join([*body, "", *last])


def _blocks(rows: int, scale: int, width: int = 24) -> str:
    """A bar of eighths of a character."""
    eighths = round(8 * width * rows / scale) if scale else 0
    eighths = max(eighths, 1) if rows else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest]).rstrip().ljust(width)


def _line(text: str, width: int = 44) -> str:
    """One line of at most `width` characters, controls made visible so that they cannot move the cursor."""
    from curation.html import visible

    text = visible(" ".join(text.split()))
    return text if len(text) <= width else text[: width - 1] + "…"
