"""Tasks on this machine: in the driver's own process, or in a small pool of worker processes.

Workers are plain spawned processes with one pipe each. A worker that dies is replaced and its task reported
lost; a driver that dies takes its workers with it, because their pipe ends.
"""

from __future__ import annotations

import itertools
import multiprocessing as mp
import os
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from curation.executors import Reply, call


class InlineExecutor:
    """One task at a time in this process: no start-up cost, and what a debugger wants."""

    slots = 1

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, bytes]] = deque()

    def submit(self, payload: bytes) -> int:
        ticket = next(self._tickets)
        self._waiting.append((ticket, payload))
        return ticket

    def wait(self, timeout: float) -> list[Reply]:
        if not self._waiting:
            return []
        ticket, payload = self._waiting.popleft()
        return [Reply(ticket, *call(payload))]

    def close(self) -> None:
        self._waiting.clear()


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ticket: int | None = None


class LocalExecutor:
    """A pool of `workers` spawned processes, started when there is work for them."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: a pool needs at least one")
        self.slots = workers
        self._context = mp.get_context("spawn")
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._pool: list[_Worker] = []

    def submit(self, payload: bytes) -> int:
        ticket = next(self._tickets)
        self._waiting.append((ticket, payload))
        self._feed()
        return ticket

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._pool.append(worker)
        return worker

    def _feed(self) -> None:
        while self._waiting:
            idle = next((w for w in self._pool if w.ticket is None), None)
            if idle is None and len(self._pool) < self.slots:
                idle = self._start()
            if idle is None:
                return
            ticket, payload = self._waiting.popleft()
            try:
                idle.pipe.send_bytes(payload)
                idle.ticket = ticket
            except (BrokenPipeError, ConnectionResetError):
                self._discard(idle)
                self._waiting.appendleft((ticket, payload))

    def wait(self, timeout: float) -> list[Reply]:
        busy = {w.pipe: w for w in self._pool if w.ticket is not None}
        replies = []
        for pipe in wait(list(busy), timeout) if busy else []:
            worker = busy[pipe]  # type: ignore[index]
            ticket = worker.ticket
            assert ticket is not None
            try:
                kind, value, error, trace = worker.pipe.recv()
                worker.ticket = None
                replies.append(Reply(ticket, kind, value, error, trace))
            except (EOFError, ConnectionResetError, OSError):
                self._discard(worker)
                code = worker.process.exitcode
                replies.append(
                    Reply(ticket, "lost", error=f"worker process {worker.process.pid} died ({code})")
                )
        self._feed()
        return replies

    def _discard(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        worker.pipe.close()
        worker.process.join(1)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers there are now."""
        return [w.process.pid for w in self._pool]

    def close(self) -> None:
        for worker in list(self._pool):
            if worker.ticket is not None:
                worker.process.kill()
            self._discard(worker)


def _serve(pipe: Connection, driver: int) -> None:
    """A worker's life: payloads in, replies out, until the driver closes the pipe or is gone."""
    import signal
    import threading
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        try:
            payload = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        answer = call(payload)
        try:
            pipe.send(answer)
        except (BrokenPipeError, OSError):
            return
