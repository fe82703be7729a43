"""One row through a whole plan, without stopping at the first rule that drops it.

    trace = c.trace(plan, {"text": "…", "url": "https://…"})
    print(trace)                    # every score, every rule with its margin, what each edit did, the verdict
    trace.dropped_by                # what a run would write into `dropped_by`

The steps are the run's own, in the run's order, so the verdict is the run's. Barriers, which need the whole
pool, are the one thing a row alone cannot know: they are named, and a finished run can be asked about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from curation import apply
from curation.funnel_page.thresholds import Threshold, names_in, thresholds_in
from curation.plan import Op, Plan, Stage, Types, build, decides, flatten, kind_of, plan_hash, step_name
from curation.report import describe_step
from curation.steps import Keep, Read, RowTransform, Write
from curation.stored import Stored, stored_row

# what a pool's own columns are when the row does not say
_KNOWN: Types = {
    **dict.fromkeys(("id", "url", "date", "text", "http_charset", "content_type", "sha256"), pa.string()),
    **dict.fromkeys(("content", "image"), pa.binary()),
    **dict.fromkeys(("width", "height"), pa.int64()),
}
_COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
}


@dataclass(frozen=True)
class Margin:
    """`value op threshold`, one comparison of a keep; `value` is null where the score is."""

    column: str
    op: str
    threshold: float
    value: float | None

    @property
    def met(self) -> bool:
        return self.value is not None and bool(_COMPARE[self.op](self.value, self.threshold))

    @property
    def distance(self) -> float | None:
        """How far the value lies above (+) or below (-) the threshold, in the score's own unit."""
        return None if self.value is None else self.value - self.threshold


@dataclass(frozen=True)
class TracedStep:
    """What one step said. `status` is one of

    score:     "scored", "error" (it raised), "unknown" (the row has none of the columns it reads)
    keep:      "pass", "FAIL", "error", "unknown"
    transform: "changed", "unchanged", "dropped" (into no row), "error", "skipped" (its result was given)
    barrier:   "pass", "FAIL" (as a stored run decided), "undecided"
    any:       "not run" (no row was left to look at)
    """

    index: int
    name: str
    kind: str
    describe: str
    status: str
    reason: str | None = None  # what `dropped_by` says of the rows that leave here
    where: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)  # made by a score, read by a keep
    margins: tuple[Margin, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)  # columns a transform changed or retired
    after: Mapping[str, Any] = field(default_factory=dict)  # columns it changed or added
    note: str = ""

    @property
    def leaves(self) -> bool:
        """Whether a run would have lost the row here."""
        return self.status in ("FAIL", "dropped", "error")


@dataclass(frozen=True)
class Trace:
    """All of it. `verdict`: "kept", "dropped", "quarantined", or "depends" when only barriers could still
    drop the row. `dropped_by`: the reason that a run would store, null for the others. `step`: where."""

    row: Mapping[str, Any]
    plan_hash: str
    steps: tuple[TracedStep, ...]
    verdict: str
    dropped_by: str | None = None
    step: int | None = None
    notes: tuple[str, ...] = ()
    stored: Stored | None = None

    @property
    def id(self) -> str:
        return str(self.row.get("id"))

    @property
    def undecided(self) -> tuple[TracedStep, ...]:
        """Barriers that only the whole pool can decide."""
        return tuple(s for s in self.steps if s.status == "undecided" and s.reason is not None)

    @property
    def failing(self) -> tuple[TracedStep, ...]:
        """Every step that would take the row out, the first of which is the verdict."""
        return tuple(s for s in self.steps if s.leaves)

    def text(self, colour: bool = False, width: int = 100) -> str:
        """For a terminal."""
        from curation.trace_view import as_text

        return as_text(self, colour, width)

    def html(self) -> str:
        """A page of its own, which loads nothing."""
        from curation.trace_view import as_page

        return as_page(self)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; edits as the pieces of `curation.textdiff`."""
        from curation.trace_view import as_dict

        return as_dict(self)

    def __str__(self) -> str:
        return self.text()


def trace(plan: Iterable[Any], row: Any, *, part: int = 0, run: str | None = None) -> Trace:
    """Run every step of a plan on one row.

    row: a dict of columns, a record batch of one row, or just the text. Columns that the plan reads and the
        row lacks are null; a rule of which no column is known is not judged. A row with `text` skips the
        transforms that would have made it from `content`.
    part: which of the rows to go on with when a transform makes several of one.
    run: folder of a finished run, to show what it stored about this id and where the scores rank in it.

    PlanError: the plan cannot work on such a row. What a step's `setup` raises is raised here too.
    """
    steps = flatten(plan)
    hash_ = plan_hash(steps)
    steps = steps if steps and isinstance(steps[0], Read) else (Read("row"), *steps)
    batch = _as_batch(row)
    given = set(batch.schema.names)
    steps, skipped = _enter(steps, given)
    missing = _missing(steps, given)
    for name, kind in missing.items():
        batch = batch.append_column(name, pa.nulls(1, kind))
    checked = build(steps, {f.name: f.type for f in batch.schema})
    stored = None if run is None else stored_row(run, batch.column("id")[0].as_py(), hash_)
    walk = _Walk(checked, batch, set(missing), skipped, part, stored)
    walk.go()
    return walk.result(hash_, given, missing)


class _Walk:
    """The row on its way through the plan."""

    def __init__(
        self,
        plan: Plan,
        batch: pa.RecordBatch,
        unknown: set[str],
        skipped: Mapping[int, str],
        part: int,
        stored: Stored | None,
    ):
        self.plan, self.start, self.unknown, self.skipped = plan, batch, unknown, skipped
        self.batch: pa.RecordBatch | None = batch
        self.part, self.stored = part, stored
        self.steps: list[TracedStep] = []
        self.notes: list[str] = []

    def go(self) -> None:
        for stage in self.plan.stages:
            for op in stage.ops:
                self.steps.append(self._one(op))
            if not isinstance(stage.end.step, Write):
                self.steps.append(self._barrier(stage))

    def result(self, hash_: str, given: set[str], missing: Types) -> Trace:
        read = {c for s in self.plan.steps for c in (getattr(s, "inputs", None) or ())}
        absent = sorted(name for name in missing if name in read)
        if absent:
            self.notes.append(f"not given, so null: {', '.join(absent)}")
        row = {name: self.start.column(name)[0].as_py() for name in self.start.schema.names if name in given}
        first = next((s for s in self.steps if s.leaves), None)
        verdict, reason, index = "kept", None, None
        if first is not None:
            verdict, index = ("quarantined" if first.status == "error" else "dropped"), first.index
            reason = first.reason if verdict == "dropped" else None
        elif any(s.status == "undecided" and s.reason is not None for s in self.steps):
            verdict = "depends"
        stored = self.stored
        if stored is not None:
            scores = {k: v for s in self.steps if s.kind == "score" for k, v in s.values.items()}
            stored = stored.ranked(scores)
        return Trace(row, hash_, tuple(self.steps), verdict, reason, index, tuple(self.notes), stored)

    # ------------------------------------------------------------------------------------------------ steps

    def _one(self, op: Op) -> TracedStep:
        step = op.step
        said = TracedStep(op.index, step_name(step), op.kind, describe_step(step), "not run")
        if op.kind == "keep":
            said = replace(said, reason=step.reason, where=step.where)
        elif op.kind == "transform":
            said = replace(said, reason=step.name)
        if op.index in self.skipped:
            return replace(said, status="skipped", note=self.skipped[op.index])
        if self.batch is None:
            return said
        if op.kind == "keep":
            return self._keep(said, step)
        return self._score(said, step) if op.kind == "score" else self._transform(said, step)

    def _score(self, said: TracedStep, step: Any) -> TracedStep:
        assert self.batch is not None
        made = step.output_types({f.name: f.type for f in self.batch.schema})
        if self._blind(step.inputs):
            self._add_nulls(made)
            self.unknown |= set(made)
            return replace(said, status="unknown", note=f"{', '.join(step.inputs)} not given")
        ready = apply.ready(step)
        try:
            outcome = apply.apply_step(ready, self.batch, null_on_error=True)
            errors, batch = outcome.errors, outcome.batch
        except Exception as error:  # a step that cannot even be asked for its empty answer
            errors, batch = [apply.RowError(0, f"{type(error).__name__}: {error}", "")], None
        if batch is None:
            self._add_nulls(made)
        else:
            self.batch = batch
        if errors:
            return replace(said, status="error", note=errors[0].error)
        values = {name: self.batch.column(name)[0].as_py() for name in made}
        return replace(said, status="scored", values=values)

    def _keep(self, said: TracedStep, step: Keep) -> TracedStep:
        assert self.batch is not None
        if self._blind(step.inputs):
            return replace(said, status="unknown", note=f"{', '.join(step.inputs)} not known")
        kept, errors = apply.verdict(step, self.batch)
        names = names_in(step.where) if step.where is not None else list(step.inputs)
        values = {name: self._value(name) for name in names if self._has(name)}
        margins = tuple(
            Margin(m.column, m.op, m.value, _number(self._value(m.column)))
            for m in thresholds_in(step.where)
            if self._has(m.column)
        )
        said = replace(said, values=values, margins=margins)
        if errors:
            return replace(said, status="error", note=errors[0].error)
        return replace(said, status="pass" if bool(np.asarray(kept)[0]) else "FAIL")

    def _transform(self, said: TracedStep, step: Any) -> TracedStep:
        assert self.batch is not None
        old = self.batch
        made = step.output_types({f.name: f.type for f in old.schema})
        outcome = apply.apply_step(apply.ready(step), old)
        if outcome.errors or not outcome.batch.num_rows:
            status = "error" if outcome.errors else "dropped"
            note = outcome.errors[0].error if outcome.errors else "it made no row of this one"
            if set(made) - set(old.schema.names):
                self.batch = None  # what later steps would read was never made
                note += "; nothing is left for the steps after it"
            else:
                note += "; the steps after it see the row as it was"
            return replace(said, status=status, note=note)
        count = outcome.batch.num_rows
        at = min(self.part, count - 1) if count > 1 else 0
        new = outcome.batch.slice(at, 1)
        if count > 1:
            said = replace(said, note=f"made {count} rows; this is number {at} ({new.column('id')[0]})")
            self.part = 0
        self.unknown -= set(made)
        before, after = _changes(old, new)
        self.batch = new
        status = "changed" if before or after else "unchanged"
        return replace(said, status=status, before=before, after=after)

    def _barrier(self, stage: Stage) -> TracedStep:
        op = stage.end
        said = TracedStep(op.index, step_name(op.step), "barrier", describe_step(op.step), "not run")
        if not decides(op.step):
            return replace(said, status="pass", note="moves rows and drops none")
        said = replace(said, reason=op.step.reason)
        column = getattr(op.step, "column", None)
        values = {} if column is None or not self._has(column) else {column: self._value(column)}
        made = dict(op.step.outputs)
        if self.batch is not None:
            self._add_nulls(made)
            self.unknown |= set(made)
        if self.stored is None:
            note = "needs the whole pool: one row cannot say"
            return replace(said, status="undecided", values=values, note=note)
        said = replace(said, values=values | {k: v for k, v in self.stored.scores.items() if k in made})
        status, note = self.stored.barrier(op.step.reason, self._later_reasons(op.index))
        margins: tuple[Margin, ...] = ()
        cut = self.stored.threshold(op.index)
        if column is not None and cut is not None and values:
            margins = (Margin(column, ">=", cut, _number(values[column])),)
        return replace(said, status=status, note=note, margins=margins)

    # ---------------------------------------------------------------------------------------------- helpers

    def _later_reasons(self, index: int) -> set[str]:
        return {
            getattr(step, "reason", None) or step_name(step)
            for number, step in enumerate(self.plan.steps)
            if number > index and kind_of(step) in ("keep", "transform", "barrier")
        }

    def _blind(self, inputs: Iterable[str] | None) -> bool:
        names = {n.lower() for n in inputs or ()}
        return bool(names) and names <= {n.lower() for n in self.unknown}

    def _add_nulls(self, types: Types) -> None:
        assert self.batch is not None
        for name, kind in types.items():
            if name not in self.batch.schema.names:
                self.batch = self.batch.append_column(name, pa.nulls(1, kind))

    def _column(self, name: str) -> str | None:
        assert self.batch is not None
        return next((n for n in self.batch.schema.names if n.lower() == name.lower()), None)

    def _has(self, name: str) -> bool:
        return self.batch is not None and self._column(name.split(".")[0]) is not None

    def _value(self, name: str) -> Any:
        """A column of the row, or a field of a struct by its dotted name."""
        assert self.batch is not None
        head, *rest = name.split(".")
        value = self.batch.column(self._column(head))[0].as_py()
        for part in rest:
            if not isinstance(value, dict):
                return None
            value = next((v for k, v in value.items() if k.lower() == part.lower()), None)
        return value


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _changes(old: pa.RecordBatch, new: pa.RecordBatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns that differ, before and after; `id` is left out, since a row keeps it."""
    before, after = {}, {}
    for name in dict.fromkeys([*old.schema.names, *new.schema.names]):
        if name == "id":
            continue
        one = old.column(name)[0].as_py() if name in old.schema.names else None
        other = new.column(name)[0].as_py() if name in new.schema.names else None
        if name not in new.schema.names:
            before[name] = one
        elif name not in old.schema.names:
            after[name] = other
        elif one != other:
            before[name], after[name] = one, other
    return before, after


# ---------------------------------------------------------------------------------------- entering the plan


def _as_batch(row: Any) -> pa.RecordBatch:
    if isinstance(row, pa.RecordBatch | pa.Table):
        if row.num_rows != 1:
            raise ValueError(f"trace takes one row, not {row.num_rows}: slice the batch")
        batch = row if isinstance(row, pa.RecordBatch) else row.combine_chunks().to_batches()[0]
    else:
        if not isinstance(row, dict):
            row = {"content" if isinstance(row, bytes) else "text": row}
        # a null says nothing of its type: the plan's other columns do
        typed = {k: pa.array([v], _KNOWN.get(k, pa.string()) if v is None else None) for k, v in row.items()}
        batch = pa.RecordBatch.from_pydict(typed)
    if "id" not in batch.schema.names:
        batch = batch.add_column(0, "id", pa.array(["row"]))
    return batch


def needs(plan: Iterable[Any], have: Iterable[str] = ()) -> list[str]:
    """Columns that a plan reads before a step of its own makes them, besides those in `have`."""
    return list(_missing(flatten(plan), set(have)))


def _enter(steps: tuple[Any, ...], given: set[str]) -> tuple[tuple[Any, ...], dict[int, str]]:
    """The steps with those replaced whose result the row brings along: a text needs no extraction."""
    out, skipped = list(steps), {}
    made = set(given) | {"id"}
    for index, step in enumerate(steps):
        outputs = dict(getattr(step, "outputs", None) or {}) if kind_of(step) == "transform" else {}
        lacks = [
            c for c in getattr(step, "inputs", None) or () if c not in made and c in ("content", "image")
        ]
        if "text" in outputs and "text" in given and lacks:
            out[index] = _given(step.name, {k: v for k, v in outputs.items() if k not in given})
            skipped[index] = f"the text was given, and {lacks[0]} was not"
        if kind_of(step) in ("score", "transform", "barrier"):
            made |= set(outputs)
    return tuple(out), skipped


def _given(name: str, outputs: Types) -> RowTransform:
    def unchanged(text: str | None) -> dict[str, Any]:
        return {}

    return RowTransform(unchanged, name, ("text",), outputs)


def _missing(steps: tuple[Any, ...], given: set[str]) -> Types:
    """Columns that steps read and neither the row nor an earlier step has, with a type for each."""
    made = {name.lower() for name in given} | {"id"}
    found: Types = {}
    for step in steps:
        kind = kind_of(step)
        if kind in ("read", "write"):
            continue
        names = list(getattr(step, "inputs", None) or ())
        names += [c for c in getattr(step, "removes", ()) or () if c not in names]
        for name in names:
            if name.lower() not in made:
                found[name] = _type_of(name, step)
                made.add(name.lower())
        made |= {name.lower() for name in _outputs(step, kind)}
    return found


def _outputs(step: Any, kind: str) -> Iterable[str]:
    if kind == "score":
        # a batch function says its type only when asked with columns; its name it knows
        return (step.name,) if hasattr(step, "fn") else step.output_types({})
    if kind == "transform":
        return step.output_types({})
    return step.outputs if kind == "barrier" and decides(step) else ()


def _type_of(name: str, step: Any) -> pa.DataType:
    import typing

    from curation.steps import _ARRAYS, arrow_type

    if name in _KNOWN:
        return _KNOWN[name]
    if isinstance(step, Keep) and step.where is not None:
        marks: list[Threshold] = thresholds_in(step.where)
        return pa.float64() if any(m.column == name for m in marks) else pa.string()
    try:
        hint = typing.get_type_hints(getattr(step, "fn", None)).get(name)
    except Exception:  # a class, or an annotation that names something undefined here
        hint = None
    return _ARRAYS.get(hint) or arrow_type(hint) or pa.string()
