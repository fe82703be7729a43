"""Mappers over whole pages: a Python function from a page (dict) to a list of pages, as a step.

DCLM's mappers are such functions: an empty list drops the page, one page keeps or changes it, several split
it. ``PageMapper`` runs any of them, ours for rare kinds of pages (StackExchange, arXiv, code) and those
that users wrote for DCLM. It makes Python objects for every page: for plain web text, take the compiled
filters.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.errors import PlanError, suggest
from curation.identity import canonical, class_identity, file_identity
from filters.text.dclm.mappers import compat_of

Page = dict[str, Any]
Pages = list[Page]
TYPES = {"string": pa.string(), "double": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
TYPES |= {"float": pa.float64(), "str": pa.string(), "json": pa.string()}


@dataclass(frozen=True)
class PageMapper(c.Transform):
    """``function`` applied to each page.

    ``function``: ``module:name``, or ``path/to/file.py:name``. ``arguments``: its parameters, as pairs.
    ``adds``: columns it adds or may add, as pairs of name and type (``string``, ``double``, ``int``,
    ``bool``, ``json``). ``columns``: those it reads and changes; None for all, so that a page is the whole
    row. ``requires``: those that must be there. ``label``: the step's name, and so its reason of removal
    (None: that of the function).

    A page holds the row's columns that are not null. Columns of JSON text (objects and lists in jsonl
    pools) are read, and written back, as what they stand for; text, id and url never are. A column that the
    function deletes becomes null; one that it adds without saying so in ``adds`` is an error, for it would
    be lost.
    """

    function: str
    arguments: tuple[tuple[str, Any], ...] = ()
    adds: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] | None = None
    requires: tuple[str, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.function.rpartition(":")[2]

    @property
    def inputs(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return self.requires or None

    @property
    def identity(self) -> Any:
        file = self.function.rpartition(":")[0]
        code = file_identity(file) if file.endswith(".py") else module_hash(file)
        # not the place of the file: what is in it
        own = [self.name, self.arguments, self.adds, self.columns, self.requires]
        return [class_identity(type(self)), canonical(own), code]

    def __post_init__(self) -> None:
        for name, kind in self.adds:
            if kind not in TYPES:
                raise PlanError(
                    f"{self.name}: column {name!r} is said to be {kind!r}; {suggest(kind, list(TYPES))}"
                )

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        return {name: TYPES[kind] for name, kind in self.adds if name not in schema}

    def setup(self) -> None:
        object.__setattr__(self, "_mapper", mapper_of(self.function, dict(self.arguments)))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        added = self.output_types({f.name: f.type for f in batch.schema})
        kinds = {f.name: f.type for f in batch.schema} | added
        names = [n for n in batch.schema.names if self.columns is None or n in self.columns or n == "id"]
        values = [batch.column(n).to_pylist() for n in names]
        mapper: Callable[[Page], Any] = self._mapper  # type: ignore[attr-defined]
        made: list[tuple[Page, dict[str, tuple[str, bytes]]]] = []
        parents: list[int] = []
        for row in range(batch.num_rows):
            page, texts = read_page(names, [column[row] for column in values])
            answer = mapper(page)
            if not isinstance(answer, list):
                raise TypeError(
                    f"{self.name} returned {type(answer).__name__}; a mapper returns a list of pages"
                )
            for result in answer:
                extra = next((n for n in result if n not in kinds), None)
                if extra is not None:
                    raise KeyError(
                        f"{self.name} added {extra!r}, a column that is not declared: say "
                        f"`_outputs: {{{extra}: double}}` (or string, int, bool, json) at its step"
                    )
                made.append((result, texts))
                parents.append(row)
        origin = np.array(parents, np.int64)
        out = dict(
            zip(batch.schema.names, (col.take(pa.array(origin)) for col in batch.columns), strict=True)
        )
        for name in [*(n for n in names if n != "id"), *added]:
            cells = [write_value(name, page.get(name), kinds[name], texts) for page, texts in made]
            out[name] = pa.array(cells, kinds[name])
        return pa.RecordBatch.from_pydict(out), origin


def read_page(names: list[str], values: list[Any]) -> tuple[Page, dict[str, tuple[str, bytes]]]:
    """The page, and for each column that was JSON text: that text, and what it reads as."""
    page: Page = {}
    texts: dict[str, tuple[str, bytes]] = {}
    for name, value in zip(names, values, strict=True):
        if value is None:
            continue
        if isinstance(value, str) and name not in ("id", "text", "url") and value[:1] in ("{", "["):
            try:
                parsed = orjson.loads(value)
            except orjson.JSONDecodeError:
                parsed = value
            if not isinstance(parsed, str):
                texts[name] = value, orjson.dumps(parsed)
                value = parsed
        page[name] = value
    return page, texts


def write_value(name: str, value: Any, kind: pa.DataType, texts: dict[str, tuple[str, bytes]]) -> Any:
    """A page's value as its column holds it; JSON text that nobody changed stays as it was, to the byte."""
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if name in texts and texts[name][1] == data:
        return texts[name][0]
    return data.decode()


# ------------------------------------------------------------------------------------------------ functions


def mapper_of(function: str, arguments: dict[str, Any]) -> Callable[[Page], Any]:
    """The function that ``module:name`` or ``file.py:name`` means, with its arguments; a factory is called
    once."""
    place, _, name = function.rpartition(":")
    module = load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    found = getattr(module, name, None)
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise PlanError(f"{place} has no function {name!r}; {suggest(name, public)}")
    if hasattr(found, "_is_factory"):
        return found(**arguments)
    return lambda page: found(page, **arguments)


def load_file(path: Path) -> types.ModuleType:
    """A user's module from its file. It may import DCLM's constants and its factory decorator."""
    spec = importlib.util.spec_from_file_location(f"_mapper_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PlanError(f"there is no Python file {str(path)!r} with the mapper")
    module = importlib.util.module_from_spec(spec)
    with _dclm_modules():
        spec.loader.exec_module(module)
    return module


def factory_function(make: Callable[..., Callable[[Page], Any]]) -> Callable[..., Callable[[Page], Any]]:
    """Marks a function that returns a mapper, and is called once with the step's parameters."""
    make._is_factory = True  # type: ignore[attr-defined]
    return make


@contextmanager
def _dclm_modules() -> Iterator[None]:
    """While a user's file is read, the two small modules of DCLM that such files import exist, under both
    of the names that DCLM gives them, unless DCLM itself is there."""
    constants = {"CONTENT": "text", "URL": "url", "CHUNK": "chunk"}
    made: dict[str, types.ModuleType] = {}
    for package in ("core", "baselines.core"):
        if importlib.util.find_spec(package) is not None:
            continue
        for name in ("", ".constants", ".factory_utils"):
            made[package + name] = types.ModuleType(package + name)
        made[package].__path__ = []
        vars(made[package + ".constants"]).update(constants)
        vars(made[package + ".factory_utils"])["factory_function"] = factory_function
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def module_hash(name: str) -> str | None:
    """Content hash of an importable module's file."""
    spec = importlib.util.find_spec(name)
    return file_identity(spec.origin) if spec and spec.origin else None


def builtin(
    label: str,
    function: Callable[..., Any],
    columns: tuple[str, ...],
    requires: tuple[str, ...] = (),
    adds: tuple[tuple[str, str], ...] = (),
    **arguments: Any,
) -> PageMapper:
    """One of our own page functions as a step, under the name DCLM's users know it by."""
    inspect.signature(function).bind({}, **arguments)
    place = f"{function.__module__}:{function.__name__}"
    return PageMapper(place, tuple(sorted(arguments.items())), adds, columns, requires or columns[:1], label)


# -------------------------------------------------------------------------------------------- url and keys


@dataclass(frozen=True)
class MoveUrlModifier(c.Transform):
    """``url`` from the WARC header kept in ``metadata`` (key ``WARC-Target-URI``), as DCLM's raw pages have
    it.

    A page without it is an error and is quarantined (in DCLM it disappears). Where there is no column
    ``metadata`` but a ``url``, as our WARC reader delivers, nothing is left to do.
    """

    inputs = None

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        if "metadata" not in schema and "url" not in schema:
            raise PlanError("move_url_modifier: rows have neither 'metadata' to take the URL from, nor 'url'")
        return {} if "url" in schema and "metadata" not in schema else {"url": pa.string()}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if "metadata" not in batch.schema.names:
            return batch
        urls = []
        for value in batch.column("metadata").to_pylist():
            fields = orjson.loads(value) if isinstance(value, str) else dict(value or {})
            if not isinstance(fields.get("WARC-Target-URI"), str):
                raise KeyError("metadata has no WARC-Target-URI: this page has no URL")
            urls.append(fields["WARC-Target-URI"])
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return pa.RecordBatch.from_pydict(columns | {"url": pa.array(urls, pa.string())})


def move_url_modifier() -> MoveUrlModifier:
    """See ``MoveUrlModifier``."""
    return MoveUrlModifier()


@dataclass(frozen=True)
class KeyNameModifier(c.Transform):
    """Column ``old_key`` goes on as ``new_key``; ``old_key`` stays, with nothing in it (null).

    Where ``old_key`` is not there, nothing happens; where ``new_key`` is there too, only ``allow_overwrite``
    replaces it (DCLM's rule, page by page: a page whose ``new_key`` is null takes the other).
    """

    old_key: str = "content"
    new_key: str = "text"
    allow_overwrite: bool = False
    inputs = None

    def output_types(self, schema: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
        if self.old_key not in schema or self.old_key == self.new_key:
            return {}
        old, new = schema[self.old_key], schema.get(self.new_key)
        if new is not None and new != old and not self.allow_overwrite:
            return {}
        return {self.new_key: old}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        types_ = {f.name: f.type for f in batch.schema}
        if not self.output_types(types_):
            return batch
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        old, new = columns[self.old_key], columns.get(self.new_key)
        if new is None or self.allow_overwrite:
            moved = old.is_valid()
            columns[self.new_key] = old if new is None or new.type != old.type else pc.coalesce(old, new)
        else:
            moved = pc.and_(old.is_valid(), new.is_null())
            columns[self.new_key] = pc.coalesce(new, old)
        columns[self.old_key] = pc.if_else(moved, pa.scalar(None, old.type), old)
        return pa.RecordBatch.from_pydict(columns)


def key_name_modifier(
    old_key: str = "content", new_key: str = "text", allow_overwrite: bool = False
) -> KeyNameModifier:
    """See ``KeyNameModifier``."""
    return KeyNameModifier(old_key, new_key, allow_overwrite)


# ------------------------------------------------------------------------------------- HTML, StackExchange


def html_to_text(page: Page) -> Pages:
    """Text of the HTML in ``text``: all of jusText's paragraphs, boilerplate too, with a blank line
    between."""
    import justext
    from lxml.etree import ParserError

    try:
        paragraphs = justext.justext(page["text"], frozenset())
    except ParserError:  # nothing in it
        return []
    text = "\n\n".join(paragraph.text for paragraph in paragraphs)
    return [{**page, "text": text}] if text else []


def html_content_extraction_modifier() -> PageMapper:
    """HTML in ``text`` becomes its text by jusText, every paragraph kept as DCLM has it (no stop words, so
    that none is judged); a page without any is dropped. Pools of WARC files are better read by
    ``filters.text:extract``.
    """
    return builtin("html_content_extraction_modifier", html_to_text, ("text",))


def _texts(page: Page) -> Iterator[dict[str, Any]]:
    yield page["question"]
    yield from page.get("answers") or ()


def stackexchange_lists(page: Page, compat: str | None = None) -> Pages:
    for part in _texts(page):
        text = part["text"].replace("<li>", "\n*").replace("</li>", "")
        text = text.replace("<ol>", "\n*" if compat == "dclm" else "\n").replace("</ol>", "")
        part["text"] = text
    return [page]


def stackexchange_sorted(page: Page, descending: bool = True) -> Pages:
    if isinstance(page.get("answers"), list):
        page["answers"].sort(key=lambda answer: answer.get("score", 0), reverse=descending)
    return [page]


def stackexchange_text(page: Page) -> Pages:
    for part in _texts(page):
        part["text"] = markup_text(part["text"])
    return [page]


def markup_text(html: str) -> str:
    """All text of an HTML fragment, as lxml reads it; without scripts, styles and comments."""
    import lxml.html

    if not html.strip():
        return html
    root = lxml.html.fragment_fromstring(html, create_parent="div")
    for element in list(root.iter("script", "style")):
        element.text = None
    return str(root.xpath("string()"))


def stackexchange_joined(page: Page, remove_qa: bool = False) -> Pages:
    if "question" not in page:
        return []
    parts = [f"Q: {page['question']['text']}", *(f"A: {a['text']}" for a in page.get("answers") or ())]
    if remove_qa:
        page = {name: value for name, value in page.items() if name not in ("question", "answers")}
    return [{**page, "text": "\n".join(parts)}]


_QA = ("question", "answers")


def stackexchange_list_modifier(compat: str | None = None) -> PageMapper:
    """HTML lists in ``question`` and ``answers`` ({text, …}): ``<li>`` becomes a new line with '*',
    ``<ol>`` a new line. DCLM gives ``<ol>`` a '*' of its own: only with ``compat="dclm"``."""
    return builtin("stackexchange_list_modifier", stackexchange_lists, _QA, compat=compat_of(compat))


def stackexchange_answer_sort_modifier(descending: bool = True) -> PageMapper:
    """Answers by ``score`` (0 where there is none), the best first; equal ones keep their order."""
    return builtin("stackexchange_answer_sort_modifier", stackexchange_sorted, _QA, descending=descending)


def stackexchange_html_extraction_modifier() -> PageMapper:
    """HTML in ``question`` and ``answers`` becomes its text."""
    return builtin("stackexchange_html_extraction_modifier", stackexchange_text, _QA)


def stackexchange_qa_formatter(remove_qa: bool = False) -> PageMapper:
    """``text`` from ``question`` and ``answers``: "Q: …", then one "A: …" for each answer, on lines of
    their own. A page without a question is dropped; ``remove_qa`` empties the two columns. (DCLM writes one
    empty "A: " for an empty list of answers; here there is none.)"""
    adds = (("text", "string"),)
    columns = (*_QA, "text")
    return builtin(
        "stackexchange_qa_formatter", stackexchange_joined, columns, adds=adds, remove_qa=remove_qa
    )
