"""A web server on this machine for tests: files with ETags and ranges, and requests that go wrong."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Trouble = Callable[["Handler", bytes, dict[str, str]], None]


class Web:
    """`files`: path → bytes. `trouble[path]`: what the next GET requests of a path meet, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.trouble: dict[str, list[Trouble]] = defaultdict(list)
        self.log: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.agents: set[str] = set()
        self.release = threading.Event()
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self.extra: dict[str, str] = {}  # headers of every answer

    def url(self, path: str) -> str:
        return f"{self.base}{path}"

    def gets(self, path: str) -> list[str | None]:
        """The Range headers of a path's GET requests, in order."""
        return [ranged for method, at, ranged in self.log if (method, at) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def version_string(self) -> str:
        return self.server.web.extra.get("Server", "test")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        web = self.server.web
        self.close_connection = True
        with web.lock:
            web.active += 1
            web.most_active = max(web.most_active, web.active)
        try:
            web.log.append((self.command, self.path, self.headers.get("Range")))
            web.agents.add(self.headers.get("User-Agent", ""))
            script = web.trouble[self.path]
            if script and self.command == "GET":
                script.pop(0)(self, web.files.get(self.path, b""), web.extra)
            elif self.path not in web.files:
                self.answer(404, {})
            else:
                honest(self, web.files[self.path], web.extra)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with web.lock:
                web.active -= 1

    def answer(
        self, status: int, headers: dict[str, str], body: bytes = b"", length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body) if length is None else length),
            **headers,
        }.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    web: Web

    def handle_error(self, *_: object) -> None:
        pass


def etag(data: bytes) -> str:
    return f'"v-{hashlib.sha256(data).hexdigest()[:12]}"'


def honest(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    """What a good server does: ranges, and the whole file when the version asked for is not this one."""
    headers = {"ETag": etag(data), "Accept-Ranges": "bytes", **extra}
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if asked and handler.headers.get("If-Range") in (None, headers["ETag"]):
        start = int(asked[1])
        if start >= len(data):
            handler.answer(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
        else:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.answer(206, headers, data[start:])
    else:
        handler.answer(200, headers, data)


def cut(after: int) -> Trouble:
    """The connection ends `after` bytes of an otherwise honest answer."""

    def trouble(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        headers = {"ETag": etag(data), **extra}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.answer(206 if start else 200, headers, data[start : start + after], length=len(data) - start)

    return trouble


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Trouble:
    return lambda handler, data, extra: handler.answer(code, headers or {}, body)


def redirect(target: str) -> Trouble:
    return status(302, {"Location": target})


def silent(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    """Nothing is said until the test ends."""
    handler.server.web.release.wait(20)


def wrong_range(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    """A part other than the one asked for, and says so."""
    headers = {"ETag": etag(data), "Content-Range": f"bytes 5-{len(data) - 1}/{len(data)}"}
    handler.answer(206, headers, data[5:])


def lying_range(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    """The right header over the wrong bytes: only a checksum can tell."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"])
    assert asked
    start = int(asked[1])
    headers = {"ETag": etag(data), "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    handler.answer(206, headers, data[: len(data) - start])


def no_length(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    """Neither Content-Length nor chunks: the end of the connection is the end of the file."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def chunked(handler: Handler, data: bytes, extra: dict[str, str]) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(data), 1000):
        piece = data[at : at + 1000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def serve(files: dict[str, bytes] | None = None) -> Iterator[Web]:
    """A running server; `web.files` and `web.trouble` may be changed while it runs."""
    web = Web()
    web.files.update(files or {})
    server = Server(("127.0.0.1", 0), Handler)
    server.web = web
    web.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
