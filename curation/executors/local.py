"""Tasks on this machine: in the driver's own process, or in a small pool of worker processes.

Workers are fresh Python processes with one socket each. They do not import the caller's script (payloads
carry its functions), so a script needs no `if __name__ == "__main__"` guard. A worker that dies is replaced
and its task reported lost; a driver that dies takes its workers with it, because their socket ends.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from curation.executors import Reply, call, call_packed, pack


class InlineExecutor:
    """One task at a time in this process: no start-up cost, and what a debugger wants."""

    slots = 1

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        ticket = next(self._tickets)
        self._waiting.append((ticket, function, arguments))
        return ticket

    def wait(self, timeout: float) -> list[Reply]:
        if not self._waiting:
            return []
        ticket, function, arguments = self._waiting.popleft()
        return [Reply(ticket, *call(function, arguments))]

    def abandon(self) -> None:
        self._waiting.clear()

    close = abandon


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ticket: int | None = None


class LocalExecutor:
    """A pool of `workers` spawned processes, started when there is work for them."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: a pool needs at least one")
        self.slots = workers
        self._tickets = itertools.count()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._pool: list[_Worker] = []

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        ticket = next(self._tickets)
        self._waiting.append((ticket, pack(function, arguments)))
        self._feed()
        return ticket

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        code = f"from curation.executors.local import serve; serve({theirs.fileno()})"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        worker = _Worker(process, Connection(ours.detach()))
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
                code = worker.process.returncode
                replies.append(
                    Reply(ticket, "lost", error=f"worker process {worker.process.pid} died ({code})")
                )
        self._feed()
        return replies

    def _discard(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        worker.pipe.close()
        try:
            worker.process.wait(2)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()

    def abandon(self) -> None:
        self._waiting.clear()
        for worker in [w for w in self._pool if w.ticket is not None]:
            worker.process.kill()
            self._discard(worker)

    def close(self) -> None:
        self.abandon()
        for worker in list(self._pool):
            self._discard(worker)


def serve(handle: int) -> None:
    """A worker's life: payloads in, replies out, until the driver closes the socket or is gone."""
    import signal
    import threading
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    pipe, driver = Connection(handle), os.getppid()

    def watch() -> None:  # a driver killed while this worker computes
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        try:
            payload = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        answer = call_packed(payload)
        try:
            pipe.send(answer)
        except (BrokenPipeError, OSError):
            return
