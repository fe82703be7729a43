"""Any datatrove filter or formatter as steps of a plan, with datatrove's own decisions and reasons.

    from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter
    from filters.text.from_datatrove import datatrove

    plan = [c.read("pool/"), datatrove(GopherQualityFilter(min_doc_words=100)), c.write("out/")]

    - filters.text.from_datatrove:datatrove:            # the same in a recipe
        filter: datatrove.pipeline.filters.GopherQualityFilter
        params: {min_doc_words: 100}

A filter becomes a score, a struct `{kept, reason}` named after its class, and one keep for each reason that
it can give. One that edits the text on its way (C4QualityFilter) becomes a transform with the same column,
and the edited text comes out. A formatter becomes a transform. They run at datatrove's speed, in Python and
one document at a time: `filters.text` has the compiled forms of the published ones.

datatrove is not needed until such a step is named: `winnow-data[peers]`.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import curation as c
from curation.apply import replace_columns
from curation.errors import suggest
from curation.identity import canonical, class_identity, function_identity
from curation.steps import Types, snake

VERDICT = pa.struct([("kept", pa.bool_()), ("reason", pa.string())])

_HOMES = ("datatrove.pipeline.filters", "datatrove.pipeline.formatters")
_NOT_STATE = ("stats", "exclusion_writer")  # what a filter gathers and where it writes: no part of its rule
#: class → columns that go into `doc.metadata` unless told otherwise
_METADATA = {"URLFilter": ("url",)}
#: class → the reasons it makes up from its settings
_MADE_UP = {
    "GopherRepetitionFilter": lambda get: [
        *(f"top_{n}_gram" for n, _ in get("top_n_grams")),
        *(f"duplicated_{n}_n_grams" for n, _ in get("dup_n_grams")),
    ],
    "C4ParagraphFilter": lambda get: ["< 3 paragraphs"],
}
_BY_CHANCE = {
    "SamplerFilter": lambda get: True,
    "C4BadWordsFilter": lambda get: get("keep_fraction") > 0,
}


def datatrove(
    filter: Any,
    params: Mapping[str, Any] | None = None,
    name: str | None = None,
    metadata: list[str] | tuple[str, ...] | None = None,
    edits: bool | None = None,
    reasons: list[str] | tuple[str, ...] | None = None,
) -> list[Any]:
    """A datatrove filter or formatter as a list of steps.

    filter: an instance; or a class, or its dotted name, which is made with `params` once per worker.
    name: of the step and of its column; default: the class name in snake case.
    metadata: columns that the filter finds in `doc.metadata` (null ones are left out); URLFilter gets `url`.
    edits: whether the filter changes `doc.text`; read from its source unless given. One that does so unsaid
        is an error of the row.
    reasons: strings that it gives with False, one keep each; read from its source unless given. A row that is
        refused without a reason, or with another one, leaves with `name` as the reason.

    A refused row keeps its text as it was. PlanError: no such class or parameter, a filter that decides by
    chance (it would depend on the order of rows; use `c.sample`), an extractor or another kind of block.
    """
    target = _Target.of(filter, dict(params or {}))
    label = name or snake(target.cls.__name__)
    if not re.fullmatch(r"[A-Za-z_]\w*", label):
        raise c.PlanError(f"datatrove(name={label!r}): it names a column, so letters, digits and _")
    if _is(target.cls, "BaseFormatter"):
        return [DatatroveFormatter(target, label)]
    columns = tuple(metadata) if metadata is not None else _METADATA.get(target.cls.__name__, ())
    editing = _assigns_text(target.cls) if edits is None else edits
    step = (DatatroveEditingFilter if editing else DatatroveFilter)(target, label, columns)
    known = list(dict.fromkeys(reasons)) if reasons is not None else _reasons(target)
    quoted = [f"'{reason.replace(chr(39), chr(39) * 2)}'" for reason in known]
    # refused for none of these reasons: for one that nobody foresaw, or without any
    listed = f" or {label}.reason in ({', '.join(quoted)})" if known else ""
    return [
        step,
        *(
            c.keep(f"{label}.reason is distinct from {q}", reason=r)
            for q, r in zip(quoted, known, strict=True)
        ),
        c.keep(f"{label}.kept{listed}", reason=label),
    ]


# -------------------------------------------------------------------------------------------------- the steps


class _Target:
    """A datatrove block: an instance, or a class and its parameters."""

    def __init__(self, cls: type, params: Mapping[str, Any], instance: Any = None):
        self.cls, self.params, self.instance = cls, params, instance

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}"[:60] for k, v in self.params.items())
        return f"{self.cls.__name__}({given or ('…' if self.instance is not None else '')})"

    @staticmethod
    def of(filter: Any, params: dict[str, Any]) -> _Target:
        if isinstance(filter, str):
            filter = _named(filter)
        cls = filter if isinstance(filter, type) else type(filter)
        _check_kind(cls)
        if isinstance(filter, type):
            target = _Target(cls, _checked(cls, params))
        elif params:
            raise c.PlanError(
                f"datatrove({cls.__name__}(…), params=…): the instance has its parameters already"
            )
        else:
            target = _Target(cls, {}, _fresh(filter))
        if _BY_CHANCE.get(cls.__name__, lambda get: False)(target.setting):
            raise c.PlanError(
                f"datatrove's {cls.__name__} draws random numbers row after row, so what it keeps depends on "
                "the order and the workers; use c.sample(fraction=…, seed=…), which depends on ids only"
            )
        return target

    def setting(self, name: str) -> Any:
        """A setting of the block: of the instance, else as given, else the default."""
        if self.instance is not None:
            return getattr(self.instance, name)
        if name in self.params:
            return self.params[name]
        return inspect.signature(self.cls).parameters[name].default

    def make(self) -> Any:
        """A block for one worker."""
        return _fresh(self.instance) if self.instance is not None else self.cls(**self.params)

    @property
    def identity(self) -> Any:
        from importlib.metadata import version

        name = f"{self.cls.__module__}.{self.cls.__qualname__}"
        state = self.params if self.instance is None else _state(self.instance)
        where = "params" if self.instance is None else "state"
        return [
            name,
            class_identity(self.cls),
            {where: _stable(state, name)},
            "datatrove",
            version("datatrove"),
        ]


class _Block:
    """What the three steps share."""

    target: _Target
    label: str

    @property
    def name(self) -> str:
        return self.label

    @property
    def identity(self) -> Any:
        rest = {k: v for k, v in vars(self).items() if k in ("label", "metadata")}
        return [class_identity(type(self)), self.target.identity, canonical(rest)]

    def describe(self) -> str:
        """One line for people."""
        return f"{self.label}: datatrove {self.target!r}"

    def setup(self) -> None:
        object.__setattr__(self, "_block", self.target.make())


def _decide(block: Any, batch: pa.RecordBatch, metadata: tuple[str, ...]) -> tuple[list[dict], list[str]]:
    """(verdict, text afterwards) of each row."""
    from datatrove.data import Document

    texts = batch.column("text").to_pylist()
    if None in texts:
        raise ValueError("text is null: a datatrove document has a text")
    extra = batch.select(list(metadata)).to_pylist() if metadata else [{}] * len(texts)
    docs = [
        Document(text=text, id=id, metadata={k: v for k, v in row.items() if v is not None})
        for text, id, row in zip(texts, batch.column("id").to_pylist(), extra, strict=True)
    ]
    verdicts: list[dict] = []
    size = max(1, block.batch_size)
    for start in range(0, len(docs), size):
        answers = list(block.filter_batch(docs[start : start + size]))
        if len(answers) != len(docs[start : start + size]):
            raise ValueError(
                f"filter_batch gave {len(answers)} answers for {len(docs[start : start + size])} documents"
            )
        for answer in answers:
            kept, reason = answer if isinstance(answer, tuple) else (answer, None)
            kept = bool(kept)
            verdicts.append({"kept": kept, "reason": None if kept or reason is None else str(reason)})
    return verdicts, [doc.text for doc in docs]


@dataclass(frozen=True)
class DatatroveFilter(_Block, c.Model):
    """Score `label`: {kept, reason} as the datatrove filter decides."""

    target: _Target
    label: str
    metadata: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("id", "text", *self.metadata)

    @property
    def outputs(self) -> Types:  # type: ignore[override]
        return {self.label: VERDICT}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        verdicts, texts = _decide(self._block, batch, self.metadata)  # type: ignore[attr-defined]
        if texts != batch.column("text").to_pylist():
            raise TypeError(
                f"{self.target.cls.__name__} changed the text: say so with datatrove(…, edits=True)"
            )
        return pa.array(verdicts, VERDICT)


@dataclass(frozen=True)
class DatatroveEditingFilter(_Block, c.Transform):
    """The same for a filter that edits the text of what it keeps: `label`, and the new `text`."""

    target: _Target
    label: str
    metadata: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("id", "text", *self.metadata)

    @property
    def outputs(self) -> Types:  # type: ignore[override]
        return {"text": pa.string(), self.label: VERDICT}

    def output_types(self, schema: Types) -> Types:
        return {"text": schema.get("text", pa.string()), self.label: VERDICT}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        verdicts, texts = _decide(self._block, batch, self.metadata)  # type: ignore[attr-defined]
        old = batch.column("text")
        new = [t if v["kept"] else o for v, t, o in zip(verdicts, texts, old.to_pylist(), strict=True)]
        made = {"text": pa.array(new, old.type), self.label: pa.array(verdicts, VERDICT)}
        return replace_columns(batch, **made)


@dataclass(frozen=True)
class DatatroveFormatter(_Block, c.Transform):
    """A formatter: `text` as it leaves it, which may be empty (datatrove keeps such a document too).

    PIIFormatter hands out its replacement addresses in turn, and datatrove goes on counting from document to
    document. Here each document begins with the first, so that its text does not depend on its neighbours.
    """

    target: _Target
    label: str

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("text",)

    @property
    def outputs(self) -> Types:  # type: ignore[override]
        return {"text": pa.string()}

    def output_types(self, schema: Types) -> Types:
        return {"text": schema.get("text", pa.string())}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        block = self._block  # type: ignore[attr-defined]
        counters = [v for v in vars(block).values() if hasattr(v, "_replace_i")]
        texts = []
        for text in batch.column("text").to_pylist():
            if text is None:
                raise ValueError("text is null: a datatrove document has a text")
            for counter in counters:
                counter._replace_i = 0
            texts.append(block.format(text))
            if not isinstance(texts[-1], str):
                raise TypeError(
                    f"{self.target.cls.__name__}.format returned {type(texts[-1]).__name__}, not str"
                )
        return replace_columns(batch, text=pa.array(texts, batch.column("text").type))


# --------------------------------------------------------------------------------------- finding and checking


def _named(name: str) -> type:
    """The class of a dotted name, or of a bare one in datatrove's filters and formatters."""
    places = [name.rpartition(".")[0]] if "." in name else list(_HOMES)
    last = name.rpartition(".")[2]
    known: list[str] = []
    for place in places:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] == "datatrove" and "." not in error.name:
                raise c.PlanError(
                    f"datatrove({name!r}) needs datatrove: install `winnow-data[peers]`"
                ) from None
            raise c.PlanError(f"datatrove({name!r}): there is no module {error.name!r}") from None
        found = getattr(module, last, None)
        if isinstance(found, type):
            return found
        known += [n for n, v in vars(module).items() if isinstance(v, type)]
    raise c.PlanError(f"datatrove({name!r}): there is no such class; {suggest(last, known)}")


def _is(cls: type, base: str) -> bool:
    return any(k.__name__ == base and k.__module__.startswith("datatrove.") for k in cls.__mro__)


def _check_kind(cls: type) -> None:
    if _is(cls, "BaseExtractor"):
        raise c.PlanError(
            f"datatrove({cls.__name__}): extractors turn HTML into text in a process of their own; "
            "use filters.text:extract"
        )
    if not (_is(cls, "BaseFilter") or _is(cls, "BaseFormatter")):
        raise c.PlanError(f"datatrove({cls.__name__}): it is neither a datatrove filter nor a formatter")
    if inspect.isabstract(cls):
        raise c.PlanError(
            f"datatrove({cls.__name__}): the class is abstract: {', '.join(cls.__abstractmethods__)}"
        )
    needed = [d for k in cls.__mro__ for d in getattr(k, "_requires_dependencies", ())]
    if needed:
        from datatrove.utils._import_utils import check_required_dependencies

        try:
            check_required_dependencies(cls.__name__, needed)
        except ImportError as error:
            raise c.PlanError(f"datatrove({cls.__name__}): {error}") from None


def _checked(cls: type, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters that the class takes; lists of a recipe become the tuples that it asks for."""
    known = inspect.signature(cls).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in params:
        if key == "exclusion_writer":
            raise c.PlanError(f"datatrove({cls.__name__}): removed rows go where c.write(removed=…) says")
        if key not in known and not free:
            names = [n for n in known if n != "exclusion_writer"]
            raise c.PlanError(f"datatrove({cls.__name__}): no parameter {key!r}; {suggest(key, names)}")
    try:
        inspect.signature(cls).bind(**params)
    except TypeError as error:
        raise c.PlanError(f"datatrove({cls.__name__}): {error}") from None

    def fitted(key: str, value: Any) -> Any:
        p = known.get(key)
        if (
            p is not None
            and isinstance(value, list)
            and (isinstance(p.default, tuple) or "tuple" in str(p.annotation))
        ):
            return _tuples(value)
        return value

    return {key: fitted(key, value) for key, value in params.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------- reading a filter


@functools.cache
def _tree(cls: type) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return None


def _own_classes(cls: type) -> Iterator[type]:
    """The class and its bases below datatrove's BaseFilter."""
    for k in cls.__mro__:
        if k.__name__ == "BaseFilter" and k.__module__.startswith("datatrove."):
            return
        yield k


def _assigns_text(cls: type) -> bool:
    """Whether a method assigns to an attribute `text`, as filters that edit their document do."""
    for k in _own_classes(cls):
        for node in ast.walk(_tree(k) or ast.Module([], [])):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                for target in targets:
                    if isinstance(target, ast.Attribute) and target.attr == "text":
                        return True
    return False


def _reasons(target: _Target) -> list[str]:
    """Strings that the filter returns with False, in the order of its source; then those it makes up."""
    found: dict[str, None] = {}
    for k in _own_classes(target.cls):
        for node in ast.walk(_tree(k) or ast.Module([], [])):
            if (
                isinstance(node, ast.Return)
                and isinstance(node.value, ast.Tuple)
                and len(node.value.elts) == 2
            ):
                first, second = node.value.elts
                refused = not (isinstance(first, ast.Constant) and first.value is True)
                if refused and isinstance(second, ast.Constant) and isinstance(second.value, str):
                    found[second.value] = None
        if k.__name__ in _MADE_UP and k.__module__.startswith("datatrove."):
            found |= dict.fromkeys(_MADE_UP[k.__name__](target.setting))
    return list(found)


# ------------------------------------------------------------------------------------------------------ state


def _fresh(block: Any) -> Any:
    """A copy without what the block gathered, so that it can travel and start anew."""
    from datatrove.utils.stats import Stats

    clone = copy.copy(block)
    clone.stats = Stats(str(block))
    if hasattr(clone, "exclusion_writer"):
        clone.exclusion_writer = None
    return clone


def _state(block: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(block).items() if k not in _NOT_STATE}


def _stable(value: Any, name: str, depth: int = 0) -> Any:
    """A JSON-able form that is the same in every process. PlanError for what has none."""
    if depth > 12:
        raise c.PlanError(
            f"datatrove({name}): its state goes too deep to be told; give the class and `params`"
        )
    again = functools.partial(_stable, name=name, depth=depth + 1)
    if isinstance(value, re.Pattern):
        return {"pattern": again(value.pattern), "flags": int(value.flags)}
    if isinstance(value, Mapping):
        return {str(k): again(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [again(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((again(v) for v in value), key=repr)
    if isinstance(value, types.FunctionType):
        return function_identity(value)
    if isinstance(value, types.MethodType):
        return [function_identity(value.__func__), again(value.__self__)]
    if isinstance(value, functools.partial):
        return [again(value.func), again(value.args), again(value.keywords)]
    if isinstance(value, type):
        return class_identity(value)
    if isinstance(value, bool | int | float | str | bytes) or value is None:
        return canonical(value)
    if isinstance(value, types.BuiltinFunctionType):
        owner = value.__self__
        return [
            value.__qualname__,
            None if isinstance(owner, types.ModuleType) or owner is None else again(owner),
        ]
    if hasattr(value, "__dict__"):
        return [class_identity(type(value)), again(vars(value))]
    told = repr(value)
    if " at 0x" in told:
        raise c.PlanError(
            f"datatrove({name}): it holds a {type(value).__name__}, whose state cannot be told, so a changed "
            "one would go unnoticed; give the class and `params` instead of an instance"
        )
    return told
