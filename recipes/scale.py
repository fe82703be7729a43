"""A scale: one fixed training budget with every hyper-parameter, and the hash that names it.

Two results are comparable only when their scales have the same hash. A scale is a YAML file with the keys
``name``, ``track`` (``text`` or ``image_text``) and any further sections, e.g. ``model`` and ``train``;
trainers turn a section into their own dataclass with :meth:`Scale.section`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

SCALES = Path(__file__).parent / "scales"
TRACKS = ("text", "image_text")

T = TypeVar("T")


class ScaleError(ValueError):
    """A scale file that cannot be used; the message names the file and the mend."""


@dataclass(frozen=True, eq=False)
class Scale:
    """A named budget. ``settings`` is read-only all the way down (lists become tuples)."""

    name: str
    track: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.track not in TRACKS:
            raise ScaleError(f"scale {self.name!r}: track is {self.track!r}; use one of {', '.join(TRACKS)}")
        object.__setattr__(self, "settings", _freeze(self.settings))

    @property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON: the same on every machine and Python."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __getitem__(self, key: str) -> Any:
        try:
            return self.settings[key]
        except KeyError:
            have = ", ".join(sorted(self.settings))
            raise ScaleError(f"scale {self.name!r} has no setting {key!r}; it has {have}") from None

    def section(self, key: str, cls: type[T]) -> T:
        """The mapping ``key`` as dataclass ``cls``; unknown and missing keys are errors that name them."""
        values = self[key]
        if not isinstance(values, Mapping):
            raise ScaleError(f"scale {self.name!r}: {key} must be a mapping, found {values!r}")
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        required = {
            n
            for n, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        missing = sorted(required - set(values))
        if unknown or missing:
            what = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [
                f"missing {', '.join(missing)}"
            ] * bool(missing)
            raise ScaleError(f"scale {self.name!r}, section {key}: {'; '.join(what)}")
        kinds = typing.get_type_hints(cls)
        for name, value in values.items():
            if not _fits(value, kinds[name]):
                wanted = PLAIN[kinds[name]]
                raise ScaleError(f"scale {self.name!r}, section {key}: {name} is {value!r}, not {wanted}")
        return cls(**values)

    def replace(self, **settings: Any) -> Scale:
        """A copy with sections merged over (``scale.replace(train={"steps": 10})``). Its hash differs."""
        merged = _thaw(self.settings)
        for key, value in settings.items():
            old = merged.get(key)
            merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
        return Scale(self.name, self.track, merged)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "track": self.track, **_thaw(self.settings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scale:
        rest = dict(values)
        return cls(rest.pop("name"), rest.pop("track"), rest)

    # A mapping proxy cannot be pickled or copied, and scales travel to worker processes.
    def __reduce__(self) -> tuple[Any, ...]:
        return Scale, (self.name, self.track, _thaw(self.settings))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scale) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return int(self.hash, 16)


def names() -> list[str]:
    """The scales that come with Winnow."""
    return sorted(path.stem for path in SCALES.glob("*.yaml"))


def load(name_or_path: str | Path | Scale) -> Scale:
    """A scale by the name of a file under ``recipes/scales`` or by the path of a YAML file."""
    import yaml

    if isinstance(name_or_path, Scale):
        return name_or_path
    path = SCALES / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise ScaleError(
            f"no scale {str(name_or_path)!r}; known: {', '.join(names())}, or the path of a file"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml_loader())
    except yaml.YAMLError as error:
        raise ScaleError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ScaleError(f"{path}: expected a mapping with name, track and settings, found {values!r}")
    missing = [key for key in ("name", "track") if not isinstance(values.get(key), str)]
    if missing:
        raise ScaleError(f"{path}: {' and '.join(missing)} must be given as text")
    return Scale.from_dict(values)


def is_official(scale: Scale) -> bool:
    """Whether a scale is one that comes with Winnow, with nothing changed; others are marked."""
    return scale.name in names() and load(scale.name).hash == scale.hash


def yaml_loader() -> type:
    """A safe YAML loader that reads ``3e-3`` as a number and refuses a key given twice.

    YAML 1.1 wants a dot in floats, so plain PyYAML reads the learning rate ``3e-3`` as text.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if key in result:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} twice", key_node.start_mark)
            result[key] = loader.construct_object(value_node, deep=True)
        return result

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader


PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain kind; what is no plain kind checks itself."""
    if kind not in PLAIN:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({str(k): _freeze(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_freeze(v) for v in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ScaleError(
        f"a scale holds numbers, text, lists and mappings, found {type(value).__name__}: {value!r}"
    )


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _thaw(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_thaw(v) for v in value]
    return value
