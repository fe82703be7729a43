"""A persistent child process that extracts one page at a time, so that no page takes its worker along.

* A page that overruns its deadline ends the child, and only it; the next page gets a new one. The deadline is
  CPU time of the child, enforced by a kernel timer also inside compiled code: a busy machine does not change
  which pages are lost. A page that merely sleeps is ended after ten times as long by the clock.
* What the extractor raises comes back at once, with its type and message.
* The child's memory is limited, and it is replaced when it has grown: extractors leak.
* It reads requests from a pipe and ends with it: nothing outlives a worker that is killed by more than one
  page's deadline.

One child serves a process, whatever the number of steps and extractors. It starts on first use, and a fork
does not inherit it. A frame is: length of a JSON header, length of a body, header, body.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

_FRAME = struct.Struct("<IQ")
_PATIENCE = 10  # clock seconds for each second of the deadline
_IMPORT_SECONDS = 300  # for the libraries, on a machine that may be busy
_RETIRE_BYTES = 768 << 20  # a child that has needed more than this serves no further page
_WAKE_SECONDS = 5.0  # how often an idle child looks whether its parent is still there


class DeadlineError(Exception):
    """The page took longer than its deadline allows."""


class ChildDiedError(Exception):
    """The child process died on the page: too much memory, or a crash."""


class ExtractorError(Exception):
    """What the extractor raised, as text: its type and message."""


def extract(
    extractor: str, content: bytes, charset: str | None, deadline: float, memory: int, html: bool = True
) -> tuple[bytes, str]:
    """(text as UTF-8, charset) of a page, made in the child process.

    ``charset`` as the HTTP header says; ``deadline`` in seconds, ``memory`` in bytes; without ``html`` the
    page is only decoded. Raises DeadlineError, ChildDiedError or ExtractorError, each about this page alone.
    """
    asked = {
        "extractor": extractor, "charset": charset, "deadline": deadline, "memory": memory, "html": html,
    }  # fmt: skip
    with _lock:
        return _child.extract(asked, content)


def pid() -> int | None:
    """Process id of this process's child; None while there is none."""
    return _child.process.pid if _child.process is not None else None


def close() -> None:
    """End this process's child; the next page starts another."""
    with _lock:
        _child.stop()


# ---------------------------------------------------------------------------------------------- the worker


class _Child:
    """The worker's end of the pipe; the process is started when it is needed and not there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._notes: IO[bytes] | None = None  # what the process writes to its standard error

    def extract(self, asked: dict[str, Any], content: bytes) -> tuple[bytes, str]:
        process = self._send(json.dumps(asked).encode(), content)
        until = time.monotonic() + asked["deadline"] * _PATIENCE + _IMPORT_SECONDS
        try:
            answer, body = _receive(process, until)
        except TimeoutError:  # stopped by a debugger, or by a machine that is out of everything
            self.stop()
            raise DeadlineError(_overrun(asked, content, "no answer came")) from None
        except EOFError:
            raise self._death(process, asked, content) from None
        if answer["retire"]:
            self.stop()
        if answer["error"]:
            raise ExtractorError(f"{asked['extractor']}: {answer['error']}")
        return body, answer["charset"]

    def _send(self, head: bytes, content: bytes) -> subprocess.Popen[bytes]:
        for _ in range(2):
            process = self.process or self._start()
            assert process.stdin is not None
            try:
                for piece in (_FRAME.pack(len(head), len(content)) + head, content):
                    view = memoryview(piece)
                    while view:  # a raw pipe may take a part
                        view = view[process.stdin.write(view) :]
                return process
            except OSError:  # it died between two pages, of neither
                notes = self._last_words()
                self.stop()
        raise ChildDiedError(f"the child process for extraction ends before it reads a page{notes}")

    def _start(self) -> subprocess.Popen[bytes]:
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
            "PYTHONSAFEPATH": "1",
            "PYTHONHASHSEED": "0",  # an extractor that walks through sets gives the same text every time
            "OMP_NUM_THREADS": "1",
            "RUST_BACKTRACE": "0",  # one line why it died, not forty where
        }
        command = [sys.executable, "-c", "from filters.text.child import serve; serve()"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._notes, env=environment, bufsize=0
        )
        return self.process

    def _death(self, process: subprocess.Popen[bytes], asked: dict[str, Any], content: bytes) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        status, notes = process.poll(), self._last_words()
        self.stop()
        if status == -signal.SIGPROF:
            return DeadlineError(_overrun(asked, content, "it used that much CPU time"))
        if status == -signal.SIGALRM:
            return DeadlineError(_overrun(asked, content, f"{_PATIENCE} times that went by"))
        how = f"of {signal.Signals(-status).name}" if status and status < 0 else f"with status {status}"
        return ChildDiedError(
            f"{asked['extractor']}: the child process died {how} on this page of {len(content)} bytes "
            f"(its memory is limited to {asked['memory'] >> 20} MiB){notes}"
        )

    def _last_words(self) -> str:
        if self._notes is None:
            return ""
        self._notes.seek(max(0, self._notes.seek(0, os.SEEK_END) - 300))
        words = self._notes.read().decode("utf-8", "replace").strip().replace("\n", " | ")
        return f": {words}" if words else ""

    def stop(self) -> None:
        process, notes = self.process, self._notes
        self.process = self._notes = None
        if process is not None:
            process.kill()
            process.wait()
            for end in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    end.close()  # type: ignore[union-attr]
        if notes is not None:
            notes.close()


def _overrun(asked: dict[str, Any], content: bytes, how: str) -> str:
    return (
        f"deadline of {asked['deadline']:g} s: {asked['extractor']} was ended on this page of "
        f"{len(content)} bytes ({how})"
    )


def _receive(process: subprocess.Popen[bytes], until: float) -> tuple[dict[str, Any], bytes]:
    assert process.stdout is not None
    source = process.stdout.fileno()
    head, body = _FRAME.unpack(_read(source, _FRAME.size, until))
    return json.loads(_read(source, head, until)), _read(source, body, until)


def _read(source: int, size: int, until: float) -> bytes:
    pieces = []
    while size:
        if not select.select([source], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(source, min(size, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


_child = _Child()
_lock = threading.Lock()
atexit.register(close)


def _after_fork() -> None:
    """The fork has its own child, and leaves that of the other alone."""
    global _child, _lock
    _child, _lock = _Child(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ----------------------------------------------------------------------------------------------- the child


def serve() -> None:
    """What the child process does: answer requests on standard input until it ends or this process grows."""
    import logging
    import warnings

    requests, answers = os.dup(0), os.dup(1)  # away from code that reads or prints
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    parent = os.getppid()
    with os.fdopen(requests, "rb") as source, os.fdopen(answers, "wb") as target:
        while True:
            while not select.select([source], [], [], _WAKE_SECONDS)[0]:
                if os.getppid() != parent:  # a fork of the worker may still hold the pipe
                    return
            size = source.read(_FRAME.size)
            if len(size) < _FRAME.size:
                return
            head, body = _FRAME.unpack(size)
            asked = json.loads(source.read(head))
            content = source.read(body)
            if len(content) < body:
                return
            text, answer = _answer(asked, content)
            del content
            answer["retire"] = answer["retire"] or _peak() > _RETIRE_BYTES
            header = json.dumps(answer).encode()
            with contextlib.suppress(BrokenPipeError):
                target.write(_FRAME.pack(len(header), len(text)) + header)
                target.write(text)
                target.flush()
            if answer["retire"]:
                return


def _answer(asked: dict[str, Any], content: bytes) -> tuple[bytes, dict[str, Any]]:
    from filters.text import charset, extractors

    try:
        run = extractors.load(asked["extractor"]) if asked["html"] else None
        with _bounds(asked["deadline"], asked["memory"]):
            text, used = charset.decode(content, asked["charset"])
            if run is not None:
                text = run(text) or ""
            return charset.mended(text), {"charset": used, "error": None, "retire": False}
    except MemoryError:
        error = f"MemoryError: the page needs more than {asked['memory'] >> 20} MiB"
        return b"", {"charset": None, "error": error, "retire": True}
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"[:2000]
        return b"", {"charset": None, "error": error, "retire": False}


@contextlib.contextmanager
def _bounds(deadline: float, memory: int) -> Any:
    """Inside, more CPU time than ``deadline`` ends the process, and memory beyond ``memory`` is refused."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = _mapped() + memory
    if limits[1] == resource.RLIM_INFINITY or most < limits[1]:
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, deadline)
    signal.setitimer(signal.ITIMER_REAL, deadline * _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _mapped() -> int:
    """Bytes of address space in use; on systems that do not tell, a guess that leaves room."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 4 << 30


def _peak() -> int:
    """The most bytes of memory this process has held. Not getrusage's figure where Linux has a better one: a
    process that was just started inherits that of its parent, and a child of a large worker would retire at
    every page."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


__all__ = ["ChildDiedError", "DeadlineError", "ExtractorError", "close", "extract", "pid", "serve"]
