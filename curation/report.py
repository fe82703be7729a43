"""Add up a run's done records into report.json: every number a page shows comes from here."""

from __future__ import annotations

import datetime
from typing import Any

from curation.edits import merged, rank
from curation.manifest import Record
from curation.plan import Plan, kind_of, step_name, step_params
from curation.shards import Shard
from curation.steps import Keep, RowTransform, Score, Write

_EXAMPLES = 12
_EDITS = 6  # edited texts shown per transform


def make_report(
    plan: Plan,
    shards: list[Shard],
    stages: list[list[Record]],
    barriers: list[dict[str, Any]],
    write: Write,
    started: datetime.datetime,
    seconds: float,
    on: str,
    workers: int,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The report of a finished run, JSON-able; see docs/run-directory.md for its fields."""
    first, last = stages[0], stages[-1]
    steps, reasons = [], []
    for index, step in enumerate(plan.steps):
        entry = _step(index, step, stages, plan, barriers)
        steps.append(entry)
        merged = _reason(index, entry["reason"] or entry["name"], stages)
        if merged:
            reasons.append(merged)
    bad: dict[str, int] = {}
    nulls: dict[str, int] = {}
    for records in stages:
        for record in records:
            for kind, count in record["bad_by_error"].items():
                bad[kind] = bad.get(kind, 0) + count
            for kind, count in record["nulls"].items():
                nulls[kind] = nulls.get(kind, 0) + count
    return {
        "winnow": versions.get("winnow-data", "0"),
        "plan_hash": plan.hash,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "on": on,
        "workers": workers,
        "input": {
            "url": plan.read.url if isinstance(plan.read.url, str) else list(plan.read.url),
            "shards": len(shards),
            "bytes": sum(s.size for s in shards),
            "rows": sum(r["rows_in"] for r in first),
            "text_bytes": sum(r["text_bytes_in"] for r in first),
        },
        "output": {
            "url": write.url,
            "shards": len(last),
            "rows": sum(r["rows_out"] for r in last),
            "bytes": sum(r["outputs"][0]["bytes"] for r in last),
            "text_bytes": sum(r["text_bytes_out"] for r in last),
            "files": [r["outputs"][0] | {"text_bytes": r["text_bytes_out"]} for r in last],
        },
        "quarantined": {
            "rows": sum(bad.values()),
            "by_error": dict(sorted(bad.items(), key=lambda kv: -kv[1])),
        },
        "null_scores": nulls,
        "steps": steps,
        "reasons": reasons,
        "edits": [e for index, step in enumerate(plan.steps) if (e := _edit(index, step, stages))],
        "kept_examples": _choose([e for r in last for e in r["kept_examples"]]),
        "barriers": barriers,
        "peak_memory_bytes": max((r["peak_memory_bytes"] for s in stages for r in s), default=0),
        "versions": versions,
    }


def _step(
    index: int, step: Any, stages: list[list[Record]], plan: Plan, barriers: list[dict[str, Any]]
) -> dict[str, Any]:
    total = {"rows_in": 0, "rows_out": 0, "added": 0, "dropped": 0, "quarantined": 0, "seconds": 0.0}
    if index == 0:
        found = [r["read"] for r in stages[0]]
    elif isinstance(step, Write):
        rows = sum(r["rows_out"] for r in stages[-1])
        found = [total | {"rows_in": rows, "rows_out": rows}]
    else:
        found = [r["steps"][str(index)] for s in stages for r in s if str(index) in r["steps"]]
    for counts in found:
        for name in total:
            total[name] += counts[name]
    for stage, records in zip(plan.stages, stages, strict=True):
        if stage.end.index == index and stage.end.kind == "barrier":  # its summary rows, made with the stage
            total["seconds"] += sum(r.get("scatter_seconds", 0.0) for r in records)
    # … and its own tasks, between the stages
    total["seconds"] += sum(b["seconds"] for b in barriers if b["step"] == index)
    total["seconds"] = round(total["seconds"], 4)
    kind = kind_of(step)
    return {
        "index": index,
        "name": step_name(step),
        "kind": kind,
        "inputs": list(getattr(step, "inputs", None) or ()),
        "params": _shown(step_params(step)),
        "describe": describe_step(step),
        "reason": getattr(step, "reason", None),
        "where": step.where if isinstance(step, Keep) else None,
        **total,
    }


def describe_step(step: Any) -> str:
    """One line a person reads."""
    kind = kind_of(step)
    if kind == "read":
        places = step.url if isinstance(step.url, str) else ", ".join(step.url)
        return f"read {places}"
    if kind == "write":
        return f"write {step.url} as {step.format}" if step.url else "(no write)"
    if isinstance(step, Keep):
        return f"keep where {step.where}" if step.where else f"keep where {step.fn.__name__}() is true"  # type: ignore[union-attr]
    if isinstance(step, Score | RowTransform):
        return f"{step.name}({', '.join(step.inputs)})"
    if hasattr(step, "describe"):
        return step.describe()
    params = ", ".join(f"{k}={v!r}" for k, v in step_params(step).items() if v is not None and k != "reason")
    return f"{step_name(step)}({params})"


def _shown(params: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v if not isinstance(v, list) or len(v) <= 50 else [*v[:50], f"… {len(v)} in all"]
        for k, v in params.items()
    }


def _reason(index: int, label: str, stages: list[list[Record]]) -> dict[str, Any] | None:
    found = [r["reasons"][str(index)] for s in stages for r in s if str(index) in r["reasons"]]
    if not found:
        return None
    return {
        "reason": label,
        "step": index,
        "rows": sum(f["rows"] for f in found),
        "text_bytes": sum(f["text_bytes"] for f in found),
        "examples": _choose([e for f in found for e in f["examples"]]),
    }


def _edit(index: int, step: Any, stages: list[list[Record]]) -> dict[str, Any] | None:
    """What a transform did to the texts, and the labels it gave."""
    found = [r["edits"][str(index)] for s in stages for r in s if str(index) in r.get("edits", ())]
    return {"step": index, "name": step_name(step), **merged(found, _EDITS)} if found else None


def _choose(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same few examples whatever the order the shards finished in."""
    return sorted(examples, key=lambda e: rank(e["id"]))[:_EXAMPLES]
