"""Plans as files: a recipe in YAML names steps as `room.module:name` with parameters.

    title: English + rules
    description: what it is and where it comes from
    steps:
      - read: ${pool}
      - filters.text:language: {max_chars: 2000}
      - filters.text:gopher_quality            # no parameters
      - filters.text:gopher_quality_rules      # a function that returns a list of keeps
      - keep: {where: "language = 'en'", reason: language}
      - top_fraction: {column: quality, fraction: 0.15, reason: quality}
      - write: ${out}

Engine steps (read, keep, write, barriers) go by their short names. `${name}` is filled from the variables
given on the command line or from `defaults:`. Names are imported from modules; nothing registers itself.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import curation
from curation.errors import PlanError, suggest

ENGINE_STEPS = (
    "read", "keep", "threshold", "write", "dedup_exact", "dedup_minhash", "dedup_bff", "top_fraction",
    "sample", "shuffle", "reshard", "subset",
)  # fmt: skip
_KEYS = ("title", "description", "source", "track", "control", "defaults", "steps", "order", "needs")


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: `on: text` and `keep: [no]` mean what they say."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


@dataclass(frozen=True)
class Recipe:
    """A plan file: what it says about itself, and its steps once variables are filled in."""

    path: str
    name: str
    title: str
    description: str = ""
    source: str = ""
    track: str | None = None
    control: bool = False
    order: int = 0
    needs: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    raw_steps: tuple[Any, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that the file asks for, in order of appearance."""
        found = re.findall(r"\$\{(\w+)\}", yaml.safe_dump(list(self.raw_steps), sort_keys=False))
        return tuple(dict.fromkeys(found))

    def plan(self, **variables: Any) -> list[Any]:
        """The steps, built. PlanError names the step, what is unknown in it, and the nearest right name."""
        values = {**self.defaults, **{k: v for k, v in variables.items() if v is not None}}
        missing = [name for name in self.variables if name not in values]
        if missing:
            raise PlanError(f"{self.path} needs ${{{missing[0]}}}: give it with --set {missing[0]}=…")
        return [_build(number, step, values, self.path) for number, step in enumerate(self.raw_steps)]


def load_plan(path: str | Path) -> Recipe:
    """Read a recipe file. PlanError for unreadable YAML or unknown keys."""
    text = Path(path).read_text(encoding="utf-8")
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        raise PlanError(f"{path}: a recipe is a mapping with a list `steps`")
    for key in data:
        if key not in _KEYS:
            raise PlanError(f"{path}: unknown key {key!r}; {suggest(key, _KEYS)}")
    name = Path(path).stem
    return Recipe(
        path=str(path),
        name=name,
        title=str(data.get("title", name)),
        description=str(data.get("description", "")).strip(),
        source=str(data.get("source", "")).strip(),
        track=data.get("track"),
        control=bool(data.get("control", False)),
        order=int(data.get("order", 0)),
        needs=tuple(data.get("needs", ())),
        defaults=dict(data.get("defaults", {})),
        raw_steps=tuple(data["steps"]),
    )


def resolve(name: str) -> Any:
    """The object that `room.module:name` means."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise PlanError(f"step {name!r}: there is no module {error.name!r}") from None
    if not hasattr(module, attribute):
        public = [n for n in dir(module) if not n.startswith("_")]
        raise PlanError(f"step {name!r}: {module_name} has no {attribute!r}; {suggest(attribute, public)}")
    return getattr(module, attribute)


def _build(number: int, step: Any, values: Mapping[str, Any], path: str) -> Any:
    where = f"{path}, step {number}"
    name: str
    params: Any
    if isinstance(step, str):
        name, params = step, None
    elif isinstance(step, dict) and len(step) == 1:
        name, params = next(iter(step.items()))
    else:
        raise PlanError(f"{where}: {step!r} is not `name` or `name: parameters`")
    if ":" in name:
        maker = resolve(name)
    elif name in ENGINE_STEPS:
        maker = getattr(curation, name)
    else:
        raise PlanError(
            f"{where}: unknown step {name!r}; {suggest(name, ENGINE_STEPS)} (others: room.module:name)"
        )
    params = _fill(params, values)
    if getattr(maker, "kind", None) is not None and not inspect.isclass(maker):
        if params:
            raise PlanError(f"{where}: {name} is a finished step and takes no parameters")
        return maker
    arguments: list[Any] = [] if params is None or isinstance(params, dict) else [params]
    keywords: dict[str, Any] = params if isinstance(params, dict) else {}
    signature = inspect.signature(maker)
    for key in keywords:
        if key not in signature.parameters:
            raise PlanError(
                f"{where}: {name} has no parameter {key!r}; {suggest(key, list(signature.parameters))}"
            )
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise PlanError(f"{where}: {name}: {error}") from None
    return maker(*arguments, **keywords)


def _fill(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {k: _fill(v, values) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, values) for v in value]
    if isinstance(value, str):
        whole = re.fullmatch(r"\$\{(\w+)\}", value)
        if whole:
            return values[whole.group(1)]  # keeps numbers numbers
        return re.sub(r"\$\{(\w+)\}", lambda m: str(values[m.group(1)]), value)
    return value
