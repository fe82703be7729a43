"""Stages of a job over files: tasks that leave a done record each, run by an executor of the engine.

The same promises as a curation run, by the same parts: a record is written after its outputs are in place,
a job that was killed goes on where it stopped, and what a task writes depends on its arguments alone.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from curation.driver import Options, TaskLoop
from curation.errors import RunFailed
from curation.executors import Executor
from curation.manifest import Manifest, Record
from curation.progress import Progress

__all__ = ["Jobs", "RunFailed", "finish"]

Task = tuple[Callable[..., Record], tuple[Any, ...]]


class Jobs:
    """The stages of one job, in one folder. Use as a context manager: it ends the worker processes."""

    def __init__(self, root: str, on: str = "local", workers: int | None = 1, progress: bool = True) -> None:
        if on not in ("local", "ray"):
            raise ValueError(f"on={on!r}: it is 'local' or 'ray' (RAY_ADDRESS names a cluster)")
        self.manifest = Manifest(root)
        self.options = Options(on=on, workers=workers)
        self.progress = Progress(self.manifest, progress)
        self._executor: Executor | None = None

    def __enter__(self) -> Jobs:
        self.manifest.clear_tmp()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        if self._executor is not None:
            self._executor.close()
        self.manifest.clear_tmp()

    def stage(self, stage: str, stage_hash: str, title: str, tasks: Mapping[str, Task]) -> list[Record]:
        """Run the tasks that have no valid record; all records in the order of ``tasks``.

        RunFailed when some are not done; what is done is kept.
        """
        self.manifest.begin_stage(stage, stage_hash)
        known = self.manifest.done(stage, stage_hash)
        for key in set(known) - set(tasks):
            self.manifest.forget_task(known[key])
        done = {key: record for key, record in known.items() if key in tasks}
        self.progress.stage(stage, title, len(tasks), done.values())
        todo = [key for key in tasks if key not in done]
        if todo:
            done |= TaskLoop(self._workers(), dict(tasks), self.options, self.progress).run(todo)
        self.progress.stage_done()
        return [done[key] for key in tasks]

    def _workers(self) -> Executor:
        if self._executor is None:
            workers = self.options.workers
            if self.options.on == "ray":
                from curation.executors.ray import RayExecutor

                self._executor = RayExecutor(workers)
            else:
                from curation.executors.local import InlineExecutor, LocalExecutor

                workers = workers or os.cpu_count() or 1
                self._executor = InlineExecutor() if workers == 1 else LocalExecutor(workers)
        return self._executor


def finish(
    root: str, stage: str, stage_hash: str, key: str, outputs: list[dict[str, Any]], started: float,
    attempt: int, **counts: Any,
) -> Record:  # fmt: skip
    """Write a task's done record and return it. ``started``: time.perf_counter() at its beginning."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    record = {
        "stage": stage,
        "stage_hash": stage_hash,
        "key": key,
        "outputs": outputs,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak,
        "attempt": attempt,
        "rows_out": 0,
        **counts,
    }
    Manifest(root).record_done(record)
    return record
