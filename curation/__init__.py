"""Curate a pool: score rows, keep some, write filtered shards.

    import curation as c

    plan = [c.read("pool/"), my_score, c.keep("my_score >= .5", reason="quality"), c.write("out/")]
    c.explain(plan)
    c.run(plan)

Everything here is loaded on first use, so importing the room is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Keep": "steps",
    "Model": "steps",
    "Read": "steps",
    "Resources": "steps",
    "Score": "steps",
    "Transform": "steps",
    "Write": "steps",
    "keep": "steps",
    "read": "steps",
    "score": "steps",
    "threshold": "steps",
    "transform": "steps",
    "write": "steps",
    "rng": "randomness",
    "PlanError": "errors",
    "RunFailed": "errors",
    "ShardError": "errors",
    "dedup_bff": "barriers",
    "dedup_exact": "barriers",
    "dedup_minhash": "barriers",
    "reshard": "barriers",
    "sample": "barriers",
    "shuffle": "barriers",
    "subset": "barriers",
    "top_fraction": "barriers",
    "Plan": "plan",
    "plan_hash": "plan",
    "explain": "preview",
    "check": "preview",
    "Trace": "tracing",
    "trace": "tracing",
    "Result": "driver",
    "run": "driver",
    "load_plan": "plan_file",
    "read_subset": "subsets",
    "write_subset": "subsets",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'curation' has no attribute {name!r}")
    value = getattr(import_module(f"curation.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
