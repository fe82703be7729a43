"""A plan is a list of steps: data, not control flow. This module checks it, hashes it, and cuts it into
stages at its barriers. Nothing here reads a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.errors import PlanError, suggest
from curation.identity import canonical, class_identity, digest
from curation.steps import (
    Keep,
    Model,
    Read,
    RowTransform,
    Score,
    Transform,
    Types,
    Write,
    arrow_type,
)

ENGINE = 1  # raised when the engine itself would write other bytes for the same plan
RESERVED = ("dropped_by",)


@dataclass(frozen=True)
class Op:
    """A step at its place in the plan."""

    index: int
    step: Any

    @property
    def kind(self) -> str:
        return kind_of(self.step)


@dataclass(frozen=True)
class Stage:
    """The steps between two barriers, in the order they run, and what ends them: a barrier or the write."""

    number: int
    ops: tuple[Op, ...]
    end: Op
    schema_in: Types
    schema_out: Types
    scores: Types  # columns made by scores here and by the barrier before: what the side-car holds

    @property
    def identity(self) -> Any:
        return [[step_identity(op.step) for op in self.ops], step_identity(self.end.step)]


@dataclass(frozen=True)
class Plan:
    """A checked plan."""

    steps: tuple[Any, ...]
    stages: tuple[Stage, ...]
    nested: frozenset[str] = frozenset()  # string columns that hold JSON text, as the reader marked them

    @property
    def read(self) -> Read:
        return self.steps[0]

    @property
    def write(self) -> Write | None:
        return self.steps[-1] if isinstance(self.steps[-1], Write) else None

    @property
    def hash(self) -> str:
        return plan_hash(self.steps)


def flatten(plan: Iterable[Any]) -> tuple[Any, ...]:
    """Nested lists of steps, as ready-made keeps come, as one tuple."""

    def walk(items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, list | tuple) and not hasattr(item, "_fields"):
                yield from walk(item)
            else:
                yield item

    return tuple(walk(plan))


def kind_of(step: Any) -> str:
    """read, score, keep, transform, barrier or write; PlanError for anything else."""
    kind = getattr(step, "kind", None)
    if isinstance(step, type):
        raise PlanError(f"{step.__name__} is a class, not a step: call it, {step.__name__}(…)")
    if kind in ("read", "score", "keep", "transform", "write", "barrier"):
        return kind
    if decides(step) or hasattr(step, "layout"):
        return "barrier"
    if callable(step):
        name = getattr(step, "__name__", repr(step))
        raise PlanError(
            f"{name} is a plain function: put @c.score or @c.transform above it, or use c.keep({name})"
        )
    raise PlanError(
        f"{step!r} is not a step (a plan holds c.read, scores, keeps, transforms, barriers, c.write)"
    )


def decides(step: Any) -> bool:
    """Whether a barrier drops rows (dedup, top fraction), rather than moving them (shuffle, reshard)."""
    return hasattr(step, "scatter")


def step_identity(step: Any) -> Any:
    """What goes into the hash: own `identity`, or class and fields."""
    own = getattr(step, "identity", None)
    if own is not None:
        return own
    return [class_identity(type(step)), canonical(step)]


def step_name(step: Any) -> str:
    name = getattr(step, "name", None)
    return name if isinstance(name, str) else type(step).__name__.lower()


def step_params(step: Any) -> dict[str, Any]:
    """Parameters as shown in reports."""
    if isinstance(step, Score | RowTransform):
        return {"inputs": list(step.inputs)}
    if dataclasses.is_dataclass(step):
        return {f.name: canonical(getattr(step, f.name)) for f in dataclasses.fields(step)}
    return {}


def plan_hash(plan: Iterable[Any]) -> str:
    """32 hex characters over the identity of every step, in order."""
    return digest([ENGINE, [step_identity(s) for s in flatten(plan)]])


def build(plan: Iterable[Any], schema: Types, nested: frozenset[str] = frozenset()) -> Plan:
    """Check a plan against the schema its read delivers, and cut it into stages. `nested`: columns that hold
    JSON text.

    Raises PlanError with the step's number and name for: a missing or doubled read or write, a column that no
    earlier step makes, a type that does not fit, two steps that make one column, a bad expression.
    """
    steps = flatten(plan)
    check_shape(steps)
    return Plan(steps, tuple(_stages(steps, schema)), nested)


def check_shape(steps: tuple[Any, ...]) -> None:
    """PlanError unless the plan is read, steps, write."""
    if not steps:
        raise PlanError("the plan is empty: it starts with c.read(…)")
    for index, step in enumerate(steps):
        try:
            kind = kind_of(step)
        except PlanError as error:
            raise PlanError(f"step {index}: {error}") from None
        if kind == "read" and index != 0:
            raise PlanError(
                f"step {index} is a second c.read: a plan has one, with a list of places if need be"
            )
        if kind == "write" and index != len(steps) - 1:
            raise PlanError(
                f"step {index} is a c.write, but {len(steps) - 1 - index} steps follow: write comes last"
            )
    if not isinstance(steps[0], Read):
        raise PlanError(f"step 0 is {step_name(steps[0])!r}: a plan starts with c.read(…)")


def _stages(steps: tuple[Any, ...], schema: Types) -> Iterator[Stage]:
    made_by: dict[str, str] = dict.fromkeys(schema, "the input")
    types: Types = dict(schema)
    schema_in, number = dict(types), 0
    scores: Types = {}
    ops: list[Op] = []
    for index, step in enumerate(steps[1:], 1):
        where = f"step {index} ({step_name(step)})"
        kind = kind_of(step)
        if kind in ("score", "transform"):
            _check_inputs(step, types, where)
            added = step.output_types(types)
            _check_outputs(step, added, types, made_by, where)
            for column in getattr(step, "removes", ()):
                types.pop(column, None)
            types |= added
            made_by |= dict.fromkeys(added, where)
            if kind == "score":
                scores |= added
        elif kind == "keep":
            _check_keep(step, types, where)
        elif kind == "write":
            for column in step.columns or ():
                if column not in types:
                    raise PlanError(
                        f"{where}: no step makes column {column!r}; {suggest(column, list(types))}"
                    )
        elif kind == "barrier":
            _check_inputs(step, types, where)
            yield Stage(number, _schedule(ops), Op(index, step), schema_in, dict(types), scores)
            added = dict(step.outputs) if decides(step) else {}
            for column in added:
                if column in types:
                    raise PlanError(f"{where}: column {column!r} was already made by {made_by[column]}")
            types |= added
            made_by |= dict.fromkeys(added, where)
            schema_in, scores, ops, number = dict(types), dict(added), [], number + 1
            continue
        if kind != "write":
            ops.append(Op(index, step))
    end = Op(len(steps) - 1, steps[-1])
    if isinstance(steps[-1], Write):
        yield Stage(number, _schedule(ops), end, schema_in, types, scores)
    else:
        yield Stage(number, _schedule(ops), Op(len(steps), Write("")), schema_in, types, scores)


def _schedule(ops: list[Op]) -> tuple[Op, ...]:
    """Keeps stay in their order; a score waits until something needs it, so that rows die before they are
    scored by steps whose answer would not be looked at."""
    order: list[Op] = []
    waiting: list[Op] = []

    def flush(columns: set[str] | None) -> None:
        if columns is None:
            needed = list(waiting)
        else:
            wanted, needed = set(columns), []
            for op in reversed(waiting):
                makes = _made_columns(op.step)
                if makes is None or wanted & makes:
                    needed.append(op)
                    wanted |= _read_columns(op.step, waiting)
            needed.reverse()
        for op in needed:
            waiting.remove(op)
            order.append(op)

    for op in ops:
        if op.kind == "score":
            waiting.append(op)
        elif op.kind == "keep":
            flush(set(op.step.inputs))
            order.append(op)
        else:
            flush(None)
            order.append(op)
    flush(None)
    return tuple(order)


def _read_columns(step: Any, waiting: list[Op]) -> set[str]:
    """Columns a score reads; one that takes the whole batch reads all that the waiting scores would make."""
    if step.inputs is not None:
        return set(step.inputs)
    return {column for op in waiting for column in _made_columns(op.step) or ()}


def _made_columns(step: Any) -> set[str] | None:
    if isinstance(step, Score):
        return {step.name}
    if isinstance(step, Model):
        return set(step.output_types({}))
    return None


def _check_inputs(step: Any, types: Types, where: str) -> None:
    names = getattr(step, "inputs", None)
    for column in names or ():
        if column not in types:
            raise PlanError(
                f"{where} reads column {column!r}, which no earlier step makes; "
                f"{suggest(column, list(types))}"
            )
    if isinstance(step, Score | RowTransform):
        _check_types(step.fn, step.inputs, types, where, isinstance(step, Score) and step.batch)
    if isinstance(step, Transform | RowTransform):
        for column in step.removes:
            if column not in types:
                raise PlanError(
                    f"{where} removes column {column!r}, which is not there; {suggest(column, list(types))}"
                )
        if "id" in step.removes:
            raise PlanError(f"{where} removes 'id': a row's id never changes")


_FITS = {
    str: lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    bytes: lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
    int: pa.types.is_integer,
    float: lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    bool: pa.types.is_boolean,
}


def _check_types(fn: Any, names: tuple[str, ...], types: Types, where: str, batch: bool) -> None:
    import typing

    from curation.steps import _ARRAYS

    try:
        hints = typing.get_type_hints(fn)
    except Exception:
        hints = getattr(fn, "__annotations__", {})
    for name in names:
        hint = hints.get(name)
        options = [h for h in typing.get_args(hint) if h is not type(None)] or [hint]
        if len(options) != 1:
            continue
        wanted, found = options[0], types[name]
        if batch and wanted in _ARRAYS and _ARRAYS[wanted] != found:
            raise PlanError(
                f"{where}: parameter {name!r} is annotated {wanted.__name__}, but the column is {found}"
            )
        if not batch and wanted in _FITS and not _FITS[wanted](found):
            raise PlanError(
                f"{where}: parameter {name!r} is annotated {wanted.__name__}, but the column is {found}"
            )


def _check_outputs(step: Any, added: Types, types: Types, made_by: dict[str, str], where: str) -> None:
    for column in added:
        if column in RESERVED or column == "id":
            raise PlanError(f"{where} makes column {column!r}, a name the engine keeps for itself: rename it")
        if step.kind == "score" and column in types:
            raise PlanError(
                f"{where} makes column {column!r}, which was already made by {made_by[column]}; "
                "a score adds columns and never changes one (use a transform, or another name)"
            )


def _check_keep(step: Keep, types: Types, where: str) -> None:
    from curation.expressions import check

    if step.where is not None:
        try:
            check(step.where, types)
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from None
        return
    for column in step.inputs:
        if column not in types:
            raise PlanError(
                f"{where} reads column {column!r}, which no earlier step makes; "
                f"{suggest(column, list(types))}"
            )
    assert step.fn is not None
    _check_types(step.fn, step.inputs, types, where, batch=False)
    hint = getattr(step.fn, "__annotations__", {}).get("return")
    if hint not in (None, bool, "bool") and arrow_type(hint) != pa.bool_():
        raise PlanError(f"{where}: the function is annotated to return {hint}, a keep needs bool")
