"""Where tasks run. The driver knows three methods; everything about processes and clusters is behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Reply:
    """What became of one submitted task.

    `kind`: "ok" (`value` is the record), "failed" (the task raised: `error` and `trace`), or "lost" (its
    process died or its machine went away: worth another attempt).
    """

    ticket: int
    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""


class Executor(Protocol):
    """`submit` takes a pickled (function, arguments) and answers with a ticket; `wait` returns replies;
    `abandon` stops whatever is still running, whose replies never come."""

    slots: int

    def submit(self, payload: bytes) -> int: ...

    def wait(self, timeout: float) -> list[Reply]: ...

    def abandon(self) -> None: ...

    def close(self) -> None: ...


def call(payload: bytes) -> tuple[str, Any, str, str]:
    """Run a pickled (function, arguments) on a worker: (kind, value, error, trace)."""
    import traceback

    import cloudpickle

    try:
        function, arguments = cloudpickle.loads(payload)
        return "ok", function(*arguments), "", ""
    except Exception as error:
        return "failed", None, f"{type(error).__name__}: {error}", traceback.format_exc()
