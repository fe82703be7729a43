"""Run one step on one record batch, and find the rows it fails on.

Every function returns the surviving batch and what became of the others; nothing here knows about files.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from curation.steps import Keep, Model, RowTransform, Score, Transform


@dataclass(frozen=True)
class RowError:
    """A row a step raised on: its position in the batch and what was raised."""

    row: int
    error: str
    trace: str


@dataclass
class Outcome:
    """`batch`: surviving rows; `parents`: for each, its row in the input batch; `errors`: rows that raised;
    `dropped`: input rows a transform turned into nothing; `kept`: a keep's verdict per input row."""

    batch: pa.RecordBatch
    parents: np.ndarray | None = None  # None: rows are the input's rows, in order
    errors: list[RowError] = field(default_factory=list)
    dropped: np.ndarray | None = None


_ready: dict[str, Any] = {}


def ready(step: Any) -> Any:
    """The step with its `setup` done, once per process and identity."""
    from curation.identity import digest

    if not isinstance(step, Model | Transform):
        return step
    key = digest(step.identity)
    if key not in _ready:
        step.setup()
        _ready[key] = step
    return _ready[key]


def apply_step(step: Any, batch: pa.RecordBatch, null_on_error: bool = False) -> Outcome:
    """Apply a score or a transform. `null_on_error`: a score's failing rows get null instead of leaving."""
    if isinstance(step, Score):
        made, errors = (
            _score_rows(step, batch) if not step.batch else _score_batches(_score_batch(step), batch)
        )
        return _with_columns(batch, made, errors, null_on_error)
    if isinstance(step, Model):
        made, errors = _score_batches(_model_batch(step, batch.schema), batch, step.batch_size)
        return _with_columns(batch, made, errors, null_on_error)
    if isinstance(step, RowTransform):
        return _transform_rows(step, batch)
    if isinstance(step, Transform):
        return _transform_batch(step, batch)
    raise TypeError(f"not a score or a transform: {step!r}")


def verdict(step: Keep, batch: pa.RecordBatch) -> tuple[np.ndarray, list[RowError]]:
    """bool[n] of a keep, and the rows its function raised on (not kept)."""
    if step.where is not None:
        from curation.expressions import evaluate

        return evaluate(step.where, batch), []
    assert step.fn is not None
    kept, errors = np.zeros(batch.num_rows, dtype=bool), []
    for row, values in enumerate(_rows(batch, step.inputs)):
        try:
            kept[row] = bool(step.fn(*values))
        except Exception as error:
            errors.append(_row_error(row, error))
    return kept, errors


def verdicts(steps: Sequence[Keep], batch: pa.RecordBatch) -> list[np.ndarray]:
    """bool[n] of each of these keeps by expression, at once. Raises what any of them raises."""
    from curation.expressions import evaluate_all

    return evaluate_all([step.where for step in steps if step.where is not None], batch)


# ------------------------------------------------------------------------------------------------- scores


def _with_columns(
    batch: pa.RecordBatch, made: dict[str, pa.Array], errors: list[RowError], null_on_error: bool
) -> Outcome:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True)) | made
    out = pa.RecordBatch.from_pydict(columns)
    if not errors or null_on_error:
        return Outcome(out, errors=errors)
    good = np.ones(batch.num_rows, dtype=bool)
    good[[e.row for e in errors]] = False
    return Outcome(out.filter(pa.array(good)), np.flatnonzero(good), errors)


def _rows(batch: pa.RecordBatch, names: tuple[str, ...]) -> Any:
    return zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def _score_rows(step: Score, batch: pa.RecordBatch) -> tuple[dict[str, pa.Array], list[RowError]]:
    values: list[Any] = []
    errors: list[RowError] = []
    for row, arguments in enumerate(_rows(batch, step.inputs)):
        try:
            value = step.fn(*arguments)
            values.append(value._asdict() if hasattr(value, "_asdict") else value)
        except Exception as error:
            errors.append(_row_error(row, error))
            values.append(None)
    assert step.output is not None
    try:
        return {step.name: pa.array(values, step.output)}, errors
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for row, value in enumerate(values):  # some value is not of the declared type: find which
            try:
                pa.array([value], step.output)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                errors.append(_row_error(row, error))
                values[row] = None
        return {step.name: pa.array(values, step.output)}, sorted(errors, key=lambda e: e.row)


def _score_batch(step: Score) -> Callable[[pa.RecordBatch], dict[str, pa.Array]]:
    def call(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        made = step.fn(*(batch.column(name) for name in step.inputs))
        array = _one_array(made)
        if step.output is not None and array.type != step.output:
            array = array.cast(step.output)
        return {step.name: array}

    return call


def _model_batch(step: Model, schema: pa.Schema) -> Callable[[pa.RecordBatch], dict[str, pa.Array]]:
    types = step.output_types({f.name: f.type for f in schema})

    def call(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        made = step(batch if step.inputs is None else batch.select(list(step.inputs)))
        if isinstance(made, dict):
            arrays = {name: _one_array(value) for name, value in made.items()}
        elif isinstance(made, pa.RecordBatch):
            arrays = dict(zip(made.schema.names, made.columns, strict=True))
        elif isinstance(made, pa.StructArray) and list(types) != [step.name] and len(types) > 1:
            arrays = dict(zip((f.name for f in made.type), made.flatten(), strict=True))
        else:
            arrays = {next(iter(types)): _one_array(made)}
        if set(arrays) != set(types):
            raise TypeError(f"{step.name} made columns {sorted(arrays)}, but declares {sorted(types)}")
        return {n: arrays[n] if arrays[n].type == t else arrays[n].cast(t) for n, t in types.items()}

    return call


def _one_array(value: Any) -> pa.Array:
    if isinstance(value, pa.ChunkedArray):
        return value.combine_chunks()
    return value if isinstance(value, pa.Array) else pa.array(value)


T = TypeVar("T")


def _bisect(
    call: Callable[[int, int], T], n_rows: int, size: int
) -> tuple[list[tuple[int, int, T | None]], list[RowError]]:
    """`call(start, stop)` on slices of `size` rows; on an exception halve until the failing rows are found.
    Returns (start, stop, answer or None for a failed row) in order, and the errors.

    A loop and not a recursion: a function that refers to itself is a cycle, which would hold every batch
    until the garbage collector comes by.
    """
    answers: list[tuple[int, int, T | None]] = []
    errors: list[RowError] = []
    size = size or max(1, n_rows)
    todo = [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)][::-1]
    while todo:
        start, stop = todo.pop()
        try:
            answers.append((start, stop, call(start, stop)))
        except Exception as error:
            if stop - start == 1:
                errors.append(_row_error(start, error))
                answers.append((start, stop, None))
            else:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
    return answers, errors


def _score_batches(
    call: Callable[[pa.RecordBatch], dict[str, pa.Array]], batch: pa.RecordBatch, size: int = 0
) -> tuple[dict[str, pa.Array], list[RowError]]:
    """The columns that a score makes of a batch; null where a row failed."""

    def attempt(start: int, stop: int) -> dict[str, pa.Array]:
        made = call(batch.slice(start, stop - start))
        for name, array in made.items():
            if len(array) != stop - start:
                raise ValueError(f"{name}: {stop - start} rows went in, {len(array)} values came out")
        return made

    answers, errors = _bisect(attempt, batch.num_rows, size)
    made = [answer for _, _, answer in answers if answer is not None]
    if not made:  # no row, or every row failed: the types are what an empty call says
        made_types = {k: v.type for k, v in call(batch.slice(0, 0)).items()}
        return {k: pa.nulls(batch.num_rows, t) for k, t in made_types.items()}, errors
    columns = {}
    for name, first in made[0].items():
        chunks = [pa.nulls(j - i, first.type) if a is None else a[name] for i, j, a in answers]
        columns[name] = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    return columns, errors


# --------------------------------------------------------------------------------------------- transforms


def _transform_rows(step: RowTransform, batch: pa.RecordBatch) -> Outcome:
    names = [n for n in batch.schema.names if n not in step.removes]
    types = {n: batch.schema.field(n).type for n in names} | step.outputs
    changeable = {*step.inputs, *step.outputs} - {"id"}
    parents: list[int] = []
    changes: list[dict[str, Any]] = []
    errors: list[RowError] = []
    for row, arguments in enumerate(_rows(batch, step.inputs)):
        try:
            answer = step.fn(*arguments)
            made = [] if answer is None else [answer] if isinstance(answer, dict) else list(answer)
            for item in made:
                extra = set(item) - changeable
                if extra:
                    raise TypeError(
                        f"{step.name} returned column {sorted(extra)[0]!r}, which is neither an input nor "
                        f"declared in outputs: @c.transform(outputs={{{sorted(extra)[0]!r}: pa.…}})"
                    )
                for name, value in item.items():
                    pa.array([value], types[name])
            parents.extend([row] * len(made))
            changes.extend(made)
        except Exception as error:
            errors.append(_row_error(row, error))
    origin = np.array(parents, dtype=np.int64)
    base = batch.take(pa.array(origin))
    columns: dict[str, pa.Array] = {}
    for name, kind in types.items():
        if any(name in item for item in changes):
            before = base.column(name).to_pylist() if name in batch.schema.names else [None] * len(changes)
            after = [item.get(name, old) for item, old in zip(changes, before, strict=True)]
            columns[name] = pa.array(after, kind)
        else:
            columns[name] = base.column(name) if name in batch.schema.names else pa.nulls(len(changes), kind)
    out = pa.RecordBatch.from_pydict(columns)
    return _fanned(batch, out, origin, errors)


def _transform_batch(step: Transform, batch: pa.RecordBatch) -> Outcome:
    added = step.output_types({f.name: f.type for f in batch.schema})

    def attempt(start: int, stop: int) -> tuple[pa.RecordBatch, np.ndarray]:
        answer = step(batch.slice(start, stop - start))
        out, origin = answer if isinstance(answer, tuple) else (answer, None)
        if origin is None:
            if out.num_rows != stop - start:
                raise ValueError(
                    f"{step.name}: {stop - start} rows in, {out.num_rows} out, and no parents returned"
                )
            origin = np.arange(stop - start, dtype=np.int64)
        origin = np.asarray(origin, dtype=np.int64)
        if len(origin) != out.num_rows or np.any(np.diff(origin) < 0):
            raise ValueError(f"{step.name}: parents must be ascending, one for each row returned")
        if len(origin) and (origin[0] < 0 or origin[-1] >= stop - start):
            raise ValueError(f"{step.name}: a parent lies outside the batch")
        return _conform(step, batch, out, added), origin + start

    answers, errors = _bisect(attempt, batch.num_rows, step.batch_size)
    pieces = [answer for _, _, answer in answers if answer is not None]
    if not pieces:
        empty = step(batch.slice(0, 0))
        out = empty[0] if isinstance(empty, tuple) else empty
        pieces.append((_conform(step, batch, out, added), np.zeros(0, dtype=np.int64)))
    table = pa.Table.from_batches([p for p, _ in pieces]).combine_chunks()
    out = table.to_batches()[0] if table.num_rows else pieces[0][0].slice(0, 0)
    return _fanned(batch, out, np.concatenate([o for _, o in pieces]), errors)


def _conform(
    step: Any, batch: pa.RecordBatch, out: pa.RecordBatch, added: dict[str, pa.DataType]
) -> pa.RecordBatch:
    """Check a transform's result against what it declared, in the plan's column order."""
    names = [n for n in batch.schema.names if n not in step.removes or n in added]
    wanted = {n: batch.schema.field(n).type for n in names} | dict(added)
    missing = set(wanted) - set(out.schema.names)
    if missing:
        raise TypeError(
            f"{step.name} returned no column {sorted(missing)[0]!r}; declare it in `removes` to retire it"
        )
    columns = {
        n: out.column(n) if out.column(n).type == t else out.column(n).cast(t) for n, t in wanted.items()
    }
    return pa.RecordBatch.from_pydict(columns)


def _fanned(
    batch: pa.RecordBatch, out: pa.RecordBatch, origin: np.ndarray, errors: list[RowError]
) -> Outcome:
    """Give the 2nd, 3rd, … child of a row its own id, and say which rows became nothing."""
    n = batch.num_rows
    counts = np.bincount(origin, minlength=n) if n else np.zeros(0, dtype=np.int64)
    gone = counts == 0
    gone[[e.row for e in errors]] = False
    if np.any(counts > 1):
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        number = np.arange(len(origin)) - first[origin]
        ids = batch.column("id").to_pylist()
        many = counts[origin] > 1
        new = [f"{ids[p]}/{k}" if m else ids[p] for p, k, m in zip(origin, number, many, strict=True)]
        out = out.set_column(out.schema.get_field_index("id"), "id", pa.array(new, pa.string()))
    return Outcome(out, origin, sorted(errors, key=lambda e: e.row), np.flatnonzero(gone))


def _row_error(row: int, error: BaseException) -> RowError:
    text = f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error)[-3:])
    return RowError(row, text[:2000], trace[-4000:])


def replace_columns(batch: pa.RecordBatch, **columns: pa.Array) -> pa.RecordBatch:
    """The batch with columns replaced or appended: what most class transforms return."""
    return pa.RecordBatch.from_pydict(dict(zip(batch.schema.names, batch.columns, strict=True)) | columns)


__all__ = ["Outcome", "RowError", "apply_step", "ready", "replace_columns", "verdict"]
