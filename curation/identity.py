"""What a step *is*: a hash of its source and parameters.

The hash goes into the plan hash, and so into every done record: a step whose code or parameters changed
never re-uses an output made by its former self.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import sys
import tokenize
import types
from pathlib import Path
from typing import Any

_PLAIN = (bool, int, float, str, bytes, type(None))


def digest(value: Any) -> str:
    """32 hex characters of the canonical form of a JSON-like value."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def canonical(value: Any) -> Any:
    """A JSON-able form that is equal for equal parameters, in any process on any machine."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, bytes):
        return {"bytes": hashlib.blake2b(value, digest_size=16).hexdigest()}
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): canonical(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((canonical(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, types.FunctionType):
        return {"function": function_identity(value)}
    if isinstance(value, type):
        return {"class": class_identity(value)}
    return repr(value)


def function_identity(fn: Any, _seen: frozenset[int] = frozenset()) -> Any:
    """Source of a function, of the plain functions of its own module that it calls, its defaults,
    and the plain values it closes over or reads from its module."""
    fn = inspect.unwrap(fn)
    if isinstance(fn, functools.partial):
        return ["partial", function_identity(fn.func, _seen), canonical(fn.args), canonical(fn.keywords)]
    if not isinstance(fn, types.FunctionType):
        return repr(fn)
    if id(fn) in _seen:
        return fn.__qualname__
    seen = _seen | {id(fn)}
    closure = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            closure[name] = _referenced(cell.cell_contents, fn, seen)
        except ValueError:  # an empty cell: the name is not bound yet
            closure[name] = None
    globals_ = {
        name: _referenced(fn.__globals__[name], fn, seen)
        for name in sorted(set(fn.__code__.co_names))
        if name in fn.__globals__
    }
    return {
        "name": fn.__qualname__,
        "source": _source(fn),
        "defaults": canonical(fn.__defaults__),
        "kwdefaults": canonical(fn.__kwdefaults__),
        "closure": {k: v for k, v in closure.items() if v is not None},
        "globals": {k: v for k, v in globals_.items() if v is not None},
    }


def _referenced(value: Any, owner: types.FunctionType, seen: frozenset[int]) -> Any:
    if isinstance(value, _PLAIN):
        return canonical(value)
    if isinstance(value, list | tuple | set | frozenset | dict) and len(value) <= 100_000:
        return digest(value)
    if isinstance(value, types.FunctionType) and value.__module__ == owner.__module__:
        return function_identity(value, seen)
    return None


# the last two: the file that the code says it is from is another, or has changed
_NO_SOURCE = (OSError, TypeError, SyntaxError, tokenize.TokenError)


def _source(fn: types.FunctionType) -> Any:
    try:
        return inspect.getsource(fn)
    except _NO_SOURCE:  # typed at a prompt, or made by exec: the byte code is what there is
        code = fn.__code__
        return [code.co_code.hex(), [c for c in code.co_consts if isinstance(c, _PLAIN)], list(code.co_names)]


@functools.cache
def _module_source_hash(module_name: str) -> str | None:
    # found, not imported: a module that is not loaded yet has the same source as one that is
    module = sys.modules.get(module_name)
    found = None if module is not None or module_name == "__main__" else importlib.util.find_spec(module_name)
    file = getattr(module, "__file__", None) or (found.origin if found else None)
    if module_name == "__main__" or not file or not os.path.exists(file):
        return None
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()


def class_identity(cls: type) -> Any:
    """A class step is its module's source and that of the modules it names in `uses`."""
    modules = [cls.__module__, *getattr(cls, "uses", ())]
    sources = [[name, _module_source_hash(name)] for name in modules]
    if sources[0][1] is None:
        try:
            sources[0][1] = inspect.getsource(cls)
        except _NO_SOURCE:
            body = {k: v for k, v in vars(cls).items() if isinstance(v, types.FunctionType)}
            sources[0][1] = digest({k: _source(v) for k, v in body.items()})
    return [cls.__qualname__, sources]


def file_identity(path: str) -> str | None:
    """Content hash of an existing local file or folder of files (a model, a list), else None."""
    if len(path) > 4096 or "\n" in path or "\0" in path or not os.path.exists(path):
        return None
    files = [Path(path)] if os.path.isfile(path) else sorted(p for p in Path(path).rglob("*") if p.is_file())
    if len(files) > 1000:
        return None
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        total.update(file.relative_to(path).as_posix().encode() if file != Path(path) else b"")
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                total.update(block)
    return total.hexdigest()
