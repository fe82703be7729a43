"""Tasks on Ray: core tasks for plain stages, a pool of actors for stages with models.

Only payloads (small) and records (smaller) go through Ray. System faults are ours to retry, so that an
attempt is counted in one place; application errors come back as values.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

from curation.executors import Reply, call_packed, pack
from curation.steps import Resources


def start(workers: int | None) -> bool:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine. True if this call did either."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return False
    common: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**common)
        return True
    ray.init(
        num_cpus=workers or os.cpu_count(),
        include_dashboard=False,
        object_store_memory=128 << 20,  # rows never enter it
        **common,
    )
    return True


class RayExecutor:
    """Ray core tasks, or actors when `resources` asks for GPUs or a number of actors."""

    def __init__(self, workers: int | None = None, resources: Resources | None = None):
        started = start(workers)
        import ray

        self._ray, self._started = ray, started
        self._tickets = itertools.count()
        self._running: dict[Any, tuple[int, Any]] = {}
        need = resources or Resources()
        cpus = int(ray.cluster_resources().get("CPU", 1))
        options: dict[str, Any] = {"num_cpus": need.cpus, "num_gpus": need.gpus}
        if need.memory:
            options["memory"] = _bytes(need.memory)
        path = [p for p in sys.path if p]
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._queue: list[tuple[int, bytes]] = []
        if need.gpus or need.actors:
            gpus = ray.cluster_resources().get("GPU", 0)
            if need.gpus and gpus < need.gpus:
                raise RuntimeError(
                    f"a step needs {need.gpus} GPU(s) a worker and the cluster has {gpus:g}: "
                    "connect to one that has them, or set resources = c.Resources(gpus=0)"
                )
            count = need.actors or max(1, int(gpus / need.gpus))
            self._actor_class = ray.remote(max_restarts=0, **options)(_Actor)
            self._actors = [self._actor_class.remote(path) for _ in range(count)]
            self._idle = list(self._actors)
            self.slots = count
        else:
            self._task = ray.remote(max_retries=0, **options)(_task)
            self._path = path
            self.slots = max(1, int(cpus / max(need.cpus, 0.01)))

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        ticket, payload = next(self._tickets), pack(function, arguments)
        if self._actors:
            self._queue.append((ticket, payload))
            self._feed()
        else:
            self._running[self._task.remote(payload, self._path)] = (ticket, None)
        return ticket

    def _feed(self) -> None:
        while self._queue and self._idle:
            actor = self._idle.pop()
            ticket, payload = self._queue.pop(0)
            self._running[actor.run.remote(payload)] = (ticket, actor)

    def wait(self, timeout: float) -> list[Reply]:
        if not self._running:
            return []
        refs = list(self._running)
        done, _ = self._ray.wait(refs, num_returns=1, timeout=timeout)
        if done:  # whatever else has ended comes along
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        replies = []
        for ref in done:
            ticket, actor = self._running.pop(ref)
            try:
                replies.append(Reply(ticket, *self._ray.get(ref)))
            except Exception as error:  # Ray's own: worker or node died, out of memory, …
                replies.append(Reply(ticket, "lost", error=f"{type(error).__name__}: {str(error)[:300]}"))
                if actor is not None:
                    self._replace(actor)
                    continue
            if actor is not None:
                self._idle.append(actor)
        self._feed()
        return replies

    def abandon(self) -> None:
        self._queue.clear()
        for ref, (_, actor) in self._running.items():
            try:
                if actor is None:
                    self._ray.cancel(ref, force=True)
                else:
                    self._ray.kill(actor)
                    self._replace(actor)
            except Exception:  # it has ended already
                pass
        self._running.clear()

    def _replace(self, actor: Any) -> None:
        """A fresh actor in the place of one that is gone."""
        self._actors.remove(actor)
        fresh = self._actor_class.remote([p for p in sys.path if p])
        self._actors.append(fresh)
        self._idle.append(fresh)

    def close(self) -> None:
        self.abandon()
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


def _task(payload: bytes, path: list[str]) -> tuple[str, Any, str, str]:
    _extend(path)
    return call_packed(payload)


class _Actor:
    def __init__(self, path: list[str]) -> None:
        _extend(path)

    def run(self, payload: bytes) -> tuple[str, Any, str, str]:
        return call_packed(payload)


def _extend(path: list[str]) -> None:
    for entry in path:
        if entry not in sys.path:
            sys.path.append(entry)


def _bytes(text: str) -> int:
    units = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
    for unit, factor in units.items():
        if text.upper().endswith(unit):
            return int(float(text[: -len(unit)]) * factor)
    return int(text)
