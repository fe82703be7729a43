"""Where tasks run. The driver knows three methods; everything about processes and clusters is behind them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
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
    """`submit` takes a function and its arguments and answers with a ticket; `wait` returns replies;
    `abandon` stops whatever is still running, whose replies never come."""

    slots: int

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> int: ...

    def wait(self, timeout: float) -> list[Reply]: ...

    def abandon(self) -> None: ...

    def close(self) -> None: ...


def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any, str, str]:
    """Run a task where it has arrived: (kind, value, error, trace)."""
    try:
        return "ok", function(*arguments), "", ""
    except Exception as error:
        return "failed", None, f"{type(error).__name__}: {error}", traceback.format_exc()


def pack(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """A task as it travels; functions of the caller's script go by value."""
    import cloudpickle

    return cloudpickle.dumps((function, arguments))


def call_packed(payload: bytes) -> tuple[str, Any, str, str]:
    """Unpack a task and run it."""
    import pickle

    try:
        function, arguments = pickle.loads(payload)
    except Exception as error:
        return "failed", None, f"{type(error).__name__}: {error}", traceback.format_exc()
    return call(function, arguments)
