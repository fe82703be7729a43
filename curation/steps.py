"""Steps: immutable values that say what to do with rows.

A score computes columns and never removes a row. A keep is the only thing that removes rows, and says why.
A transform changes a row or turns it into 0..n rows. Reads and writes are the ends of a plan. Barriers,
which need the whole pool, live in `curation.barriers`.

Every step has `name`, `kind`, `inputs` (columns it reads; None = the whole batch) and `identity`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from curation.errors import PlanError
from curation.identity import canonical, class_identity, file_identity, function_identity

Types = dict[str, pa.DataType]

_SCALARS: dict[Any, pa.DataType] = {
    float: pa.float64(),
    int: pa.int64(),
    str: pa.string(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}
_ARRAYS: dict[Any, pa.DataType] = {
    pa.StringArray: pa.string(),
    pa.LargeStringArray: pa.large_string(),
    pa.BinaryArray: pa.binary(),
    pa.BooleanArray: pa.bool_(),
    pa.Int8Array: pa.int8(),
    pa.Int16Array: pa.int16(),
    pa.Int32Array: pa.int32(),
    pa.Int64Array: pa.int64(),
    pa.UInt8Array: pa.uint8(),
    pa.UInt16Array: pa.uint16(),
    pa.UInt32Array: pa.uint32(),
    pa.UInt64Array: pa.uint64(),
    pa.FloatArray: pa.float32(),
    pa.DoubleArray: pa.float64(),
}


@dataclass(frozen=True)
class Resources:
    """What one worker of a step needs. `actors` > 0 asks for that many long-lived workers even on CPUs."""

    cpus: float = 1
    gpus: float = 0
    memory: str | None = None
    actors: int = 0


# ------------------------------------------------------------------------------------------------ functions


@dataclass(frozen=True)
class Score:
    """A function that computes one column. Row tier: Python values in, a value out. Batch tier: Arrow arrays
    in, an Arrow array of the same length out. Call it like the function it wraps."""

    fn: Callable[..., Any]
    name: str
    inputs: tuple[str, ...]
    batch: bool = False
    output: pa.DataType | None = None
    kind: ClassVar[str] = "score"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def output_types(self, schema: Types) -> Types:
        """Column → type. A batch function annotated as plain `pa.Array` is asked with empty arrays."""
        if self.output is not None:
            return {self.name: self.output}
        empty = [pa.array([], schema[c]) for c in self.inputs]
        try:
            answer = self.fn(*empty)
            answer = answer.combine_chunks() if isinstance(answer, pa.ChunkedArray) else answer
            return {self.name: answer.type}
        except Exception as error:
            raise PlanError(
                f"score {self.name!r}: its output type is unknown, and calling it on empty arrays failed "
                f"({type(error).__name__}: {error}); annotate the result, for example -> pa.DoubleArray"
            ) from error

    @property
    def identity(self) -> Any:
        return ["score", self.name, self.batch, str(self.output), function_identity(self.fn)]


def score(fn: Callable[..., Any] | None = None, *, batch: bool = False, name: str | None = None) -> Any:
    """Decorator: a function becomes a score. Parameter name = input column, function name = output column.

    Row tier (default): `def f(text: str) -> float`; the result annotation (float, int, str, bool, a
    NamedTuple of these, or `X | None`) is the column's type. Batch tier, Arrow in and out:
    `def f(text: pa.StringArray) -> pa.Array`.
    """
    if fn is None:
        return partial(score, batch=batch, name=name)
    label = name or fn.__name__
    output = _array_type(fn, label) if batch else _row_type(fn, label)
    return Score(fn, label, _parameters(fn, label), batch, output)


@dataclass(frozen=True)
class RowTransform:
    """A function from a row's columns to a dict of changed columns, a list of dicts (0..n rows), or None
    (drop the row, with the step's name as the reason)."""

    fn: Callable[..., Any]
    name: str
    inputs: tuple[str, ...]
    outputs: Types = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    kind: ClassVar[str] = "transform"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def output_types(self, schema: Types) -> Types:
        return dict(self.outputs)

    @property
    def identity(self) -> Any:
        outputs = {k: str(v) for k, v in self.outputs.items()}
        return ["transform", self.name, outputs, self.removes, function_identity(self.fn)]


def transform(
    fn: Callable[..., Any] | None = None,
    *,
    outputs: Mapping[str, pa.DataType] | None = None,
    removes: tuple[str, ...] = (),
    name: str | None = None,
) -> Any:
    """Decorator: a row function becomes a transform. It may change its input columns freely; columns it
    adds are declared in `outputs`, columns it retires in `removes`."""
    if fn is None:
        return partial(transform, outputs=outputs, removes=removes, name=name)
    label = name or fn.__name__
    return RowTransform(fn, label, _parameters(fn, label), dict(outputs or {}), tuple(removes))


# -------------------------------------------------------------------------------------------------- classes


def snake(name: str) -> str:
    """CamelCase → snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class _ClassStep:
    """What `Model` and `Transform` share: fields are the identity; state made by `setup` never travels."""

    inputs: Any = None
    outputs: Any = None
    resources: Resources = Resources()
    batch_size: int = 0
    uses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return snake(type(self).__name__)

    def setup(self) -> None:
        """Load weights or lists; called once per worker, before the first batch."""

    def parameters(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @property
    def identity(self) -> Any:
        params = self.parameters()
        files = {
            k: file_identity(str(v))
            for k, v in params.items()
            if isinstance(v, str) or hasattr(v, "__fspath__")
        }
        # a file's content is what counts, not the place it lies in
        shown = {k: {"file": files[k]} if files.get(k) else canonical(v) for k, v in params.items()}
        outputs = {k: str(v) for k, v in (self.outputs or {}).items()}
        return [self.name, class_identity(type(self)), shown, outputs]

    def __getstate__(self) -> dict[str, Any]:
        return self.parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            object.__setattr__(self, key, value)


class Model(_ClassStep):
    """A score with state: subclass as a frozen dataclass whose fields are its identity.

    `inputs`: columns it reads (None: the whole batch). `outputs`: column → type (default: one float32 column
    named like the class). `setup()` runs once per worker. `__call__(batch)` returns one array, a dict of
    arrays, or a struct array whose fields are the outputs. With `resources.gpus` (or `actors`) the stage runs
    on a pool of long-lived actors, one shard a call.
    """

    kind: ClassVar[str] = "score"

    def output_types(self, schema: Types) -> Types:
        return dict(self.outputs) if self.outputs else {self.name: pa.float32()}

    def __call__(self, batch: pa.RecordBatch) -> Any:
        raise NotImplementedError


class Transform(_ClassStep):
    """A transform over batches: subclass as a frozen dataclass. `__call__(batch)` returns a batch of the same
    rows, or (batch, parents) where `parents` (int64, ascending) is the row each result came from; a parent
    that does not appear is dropped, with the step's name as the reason."""

    kind: ClassVar[str] = "transform"
    removes: Any = ()

    def output_types(self, schema: Types) -> Types:
        return dict(self.outputs or {})

    def __call__(self, batch: pa.RecordBatch) -> Any:
        raise NotImplementedError


# --------------------------------------------------------------------------------------- keep, read, write


@dataclass(frozen=True)
class Keep:
    """A predicate with a reason: an SQL expression over columns, or a row function returning bool. A null
    verdict does not keep."""

    where: str | None
    fn: Callable[..., Any] | None
    reason: str
    kind: ClassVar[str] = "keep"

    @property
    def name(self) -> str:
        return f"keep {self.reason}"

    @property
    def inputs(self) -> tuple[str, ...]:
        if self.where is not None:
            from curation.expressions import columns_of

            return columns_of(self.where)
        assert self.fn is not None
        return _parameters(self.fn, self.reason)

    @property
    def identity(self) -> Any:
        return ["keep", self.where, self.reason, None if self.fn is None else function_identity(self.fn)]


def keep(where: str | Callable[..., Any], reason: str | None = None) -> Keep:
    """Keep the rows for which `where` is true; the others leave with `reason`."""
    if callable(where):
        fn = where.fn if isinstance(where, Score) else where
        if reason is None and fn.__name__ == "<lambda>":
            raise PlanError("keep(lambda …) needs a reason: keep(lambda …, reason='why these rows leave')")
        return Keep(None, fn, reason or fn.__name__)
    if not isinstance(where, str) or not where.strip():
        raise PlanError('keep needs an expression such as "n_chars >= 200", or a function of columns')
    return Keep(where, None, reason or where)


def threshold(column: str, minimum: float, reason: str | None = None) -> Keep:
    """Keep rows whose score is at least `minimum` (inclusive)."""
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in column.split("."))
    return Keep(f"{quoted} >= {minimum!r}", None, reason or column)


@dataclass(frozen=True)
class Read:
    """Where rows come from: a file, a folder, a glob, any fsspec URL, or a list of these."""

    url: str | tuple[str, ...]
    format: str | None = None
    columns: tuple[str, ...] | None = None
    split_bytes: int | None = None
    kind: ClassVar[str] = "read"
    name: ClassVar[str] = "read"
    inputs: ClassVar[tuple[str, ...]] = ()

    @property
    def identity(self) -> Any:
        # not the place: the same pool elsewhere is the same input; shards carry names, sizes and etags
        return ["read", self.format, self.columns, self.split_bytes]


def read(url: Any, format: str | None = None, columns: Any = None, split_bytes: int | None = None) -> Read:
    """Read a pool: jsonl(.gz/.zst), parquet, WARC(.gz), WET, WebDataset tars; local or any fsspec URL."""
    place = tuple(str(u) for u in url) if isinstance(url, list | tuple) else str(url)
    return Read(place, format, tuple(columns) if columns else None, split_bytes)


@dataclass(frozen=True)
class Write:
    """Where kept rows go (and removed ones, if `removed` names a place)."""

    url: str
    removed: str | None = None
    format: str = "parquet"
    columns: tuple[str, ...] | None = None
    kind: ClassVar[str] = "write"
    name: ClassVar[str] = "write"
    inputs: ClassVar[tuple[str, ...]] = ()

    @property
    def identity(self) -> Any:
        return ["write", self.format, self.columns, self.removed is not None]


def write(url: Any, removed: Any = None, format: str = "parquet", columns: Any = None) -> Write:
    """Write kept rows as filtered shards under `url`/data, one output shard per input shard."""
    return Write(
        str(url), None if removed is None else str(removed), format, tuple(columns) if columns else None
    )


# ------------------------------------------------------------------------------------------- introspection


def _parameters(fn: Callable[..., Any], label: str) -> tuple[str, ...]:
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        raise PlanError(f"{label!r} has no readable signature: wrap it in a plain function") from None
    names = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PlanError(f"{label!r} takes *{parameter.name}: name each column it reads as a parameter")
        if parameter.default is parameter.empty:
            names.append(parameter.name)
    if not names:
        raise PlanError(f"{label!r} has no parameter: a step reads at least one column, named as a parameter")
    return tuple(names)


def _annotation(fn: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(fn).get("return")
    except Exception:  # an annotation that names something undefined here
        return getattr(fn, "__annotations__", {}).get("return")


def arrow_type(annotation: Any) -> pa.DataType | None:
    """Arrow type of a Python annotation: a scalar, `X | None`, list[X], a NamedTuple, an Arrow type."""
    if isinstance(annotation, pa.DataType):
        return annotation
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is list and len(arguments) == 1:
        item = arrow_type(arguments[0])
        return None if item is None else pa.list_(item)
    if len(arguments) == 1 and type(None) in typing.get_args(annotation):
        return arrow_type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        hints = typing.get_type_hints(annotation)
        fields = [(name, arrow_type(hints.get(name))) for name in annotation._fields]
        if all(t is not None for _, t in fields):
            return pa.struct(fields)
    return None


def _row_type(fn: Callable[..., Any], label: str) -> pa.DataType:
    annotation = _annotation(fn)
    found = arrow_type(annotation)
    if found is None:
        raise PlanError(
            f"score {label!r}: the result annotation is {annotation!r}; it must say the column's type: "
            "-> float, int, str, bool, a NamedTuple of these, or X | None"
        )
    return found


def _array_type(fn: Callable[..., Any], label: str) -> pa.DataType | None:
    annotation = _annotation(fn)
    if isinstance(annotation, pa.DataType):
        return annotation
    return _ARRAYS.get(annotation)
