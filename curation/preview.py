"""Look before you run: what a plan would do, and what a step says about one row."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from curation import apply
from curation.plan import Plan, flatten
from curation.report import describe_step
from curation.steps import Keep, Write


def explain(plan: Iterable[Any], file: TextIO | None = None) -> str:
    """Check a plan against its input and print it: stages, order of execution, columns, hash. Returns the
    text. Raises PlanError exactly where `run` would."""
    from curation.driver import open_plan

    checked, shards = open_plan(flatten(plan))
    text = _text(checked, len(shards), sum(s.size for s in shards))
    print(text, file=file or sys.stdout)
    return text


def _text(plan: Plan, shards: int, size: int) -> str:
    lines = [
        f"plan {plan.hash[:12]}: {shards} shards, {size / 1e6:,.1f} MB",
        f"  0  {describe_step(plan.read)}",
    ]
    for stage in plan.stages:
        lines.append(f"stage {stage.number}, one task a shard; columns in: {_columns(stage.schema_in)}")
        types = dict(stage.schema_in)
        for op in stage.ops:
            lines.append(f"{op.index:>3}  {op.kind:<9} {describe_step(op.step)}")
            made = getattr(op.step, "output_types", None)
            if made is not None:
                new = made(types)
                types |= new
                lines.append(f"{'':>15}→ {_columns(new)}")
            if isinstance(op.step, Keep):
                lines.append(f"{'':>15}others leave as {op.step.reason!r}")
        if isinstance(stage.end.step, Write):
            lines.append(
                f"{stage.end.index:>3}  {describe_step(stage.end.step)}; "
                f"columns: {_columns(stage.schema_out)}"
            )
        else:
            lines.append(
                f"{stage.end.index:>3}  barrier   {describe_step(stage.end.step)} (needs the whole pool)"
            )
    return "\n".join(lines)


def _columns(types: dict[str, pa.DataType]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in types.items()) or "none"


def check(step: Any, row: Any) -> Any:
    """What one score, keep or transform says about one row: a value for the first input column, or a dict of
    columns. Returns the value (one output), a dict (several), a bool (keep), or a list of rows
    (transform)."""
    first = step.inputs[0] if step.inputs else "text"
    columns = dict(row) if isinstance(row, dict) else {first: row}
    columns.setdefault("id", "row")
    batch = pa.RecordBatch.from_pylist([columns])
    if isinstance(step, Keep):
        kept, errors = apply.verdict(step, batch)
        _raise(errors)
        return bool(np.asarray(kept)[0])
    outcome = apply.apply_step(apply.ready(step), batch)
    _raise(outcome.errors)
    if step.kind == "transform":
        return outcome.batch.to_pylist()
    made = step.output_types({f.name: f.type for f in batch.schema})
    values = {name: outcome.batch.column(name)[0].as_py() for name in made}
    return next(iter(values.values())) if len(values) == 1 else values


def _raise(errors: list[apply.RowError]) -> None:
    if errors:
        raise ValueError(f"{errors[0].error}\n{errors[0].trace}")
