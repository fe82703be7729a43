"""HTTP GET that goes only to public addresses: each hop of a redirect is resolved, checked, connected to.

Lists of URLs come from outside, and a URL may name a machine of the reader's own network (a router, a cloud's
metadata service). So a host is resolved once, addresses that are not public are refused, and the connection
goes to an address that was checked (a second look-up could answer differently). `allow_private=True`, or the
environment's WINNOW_FETCH_PRIVATE=1, switches the check off, for a mirror inside one's own network.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import os
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import curation

USER_AGENT = f"winnow/{curation.__version__} (pretraining data curation; resumes, backs off, one file once)"
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_SLOW_DOWN = (b"slowdown", b"slow down", b"reduce your request rate", b"rate limit", b"too many requests")

#: why a file did not arrive → what is done about it
KINDS = {
    "throttled": "the server asked to slow down (429, 503, or 403 SlowDown): wait, lower concurrency, retry",
    "timeout": "timeout, reset, cut connection or server fault (5xx): retry, resume",
    "unreachable": "no address for the host, or nobody answers there: retry",
    "changed": "the file changed while it was fetched: retry from zero",
    "checksum": "the bytes are not those promised: retry from zero, once",
    "skipped": "its host failed many files in a row: not tried",
    "limit": "a limit on total bytes or seconds was reached: run again to go on",
    "gone": "404 or 410: no retry",
    "refused": "not allowed (401, 403), not public, too large, not a file: no retry",
}


class FetchError(OSError):
    """One URL could not be fetched. `kind`: one of KINDS; `retry_after`: seconds the server asked for."""

    def __init__(self, kind: str, url: str, message: str, retry_after: float | None = None):
        super().__init__(f"{url}: {message}")
        self.kind, self.url, self.message, self.retry_after = kind, url, message, retry_after


@dataclass
class Answer:
    """The open answer to a request; `url` is where it came from after redirects. Close it."""

    url: str
    status: int
    headers: Message
    first: Message  # headers of the first answer, before any redirect
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()


def is_http(url: str) -> bool:
    """Whether this module fetches the URL."""
    return url.lower().startswith(("http://", "https://"))


def private_allowed(given: bool | None = None) -> bool:
    """`given`, or what WINNOW_FETCH_PRIVATE says."""
    return os.environ.get("WINNOW_FETCH_PRIVATE", "") not in ("", "0") if given is None else given


def open_url(
    url: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    timeout: float = 30.0,
    allow_private: bool | None = None,
) -> Answer:
    """The answer (200, 206 or 416) to a request, redirects followed. FetchError for any other, with its kind.

    A redirect from https to http is refused, like one to an address that is not public; an Authorization
    header is not sent on to another host. The body is as it was sent: nothing is decompressed here.
    """
    private = private_allowed(allow_private)
    sent = dict(headers or {})
    here = url
    first: Message | None = None
    for _ in range(MAX_REDIRECTS + 1):
        answer = _request(here, sent, method, timeout, private)
        first = answer.headers if first is None else first
        if answer.status in _REDIRECTS and answer.headers.get("Location"):
            answer.__exit__()
            target = urljoin(here, answer.headers["Location"])
            if not is_http(target) or (here.startswith("https:") and not target.startswith("https:")):
                raise FetchError("refused", url, f"redirects to {target!r}, which is not followed")
            if urlsplit(target).netloc.lower() != urlsplit(here).netloc.lower():
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
            here = target
            continue
        if answer.status in (200, 206, 416):
            answer.first = first
            return answer
        with answer:
            raise _refusal(url, answer)
    raise FetchError("refused", url, f"more than {MAX_REDIRECTS} redirects")


def public_addresses(host: str, port: int, url: str, allow_private: bool) -> list[tuple[Any, ...]]:
    """`getaddrinfo` rows of a host that may be connected to. FetchError when there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(
            "unreachable", url, f"no address for host {host!r} ({error}): is this machine on the network?"
        ) from None
    allowed = [row for row in found if allow_private or is_public(str(row[4][0]))]
    if not allowed:
        raise FetchError(
            "refused",
            url,
            f"host {host!r} is {found[0][4][0]}, which is not a public address; for a mirror in your own "
            "network set WINNOW_FETCH_PRIVATE=1",
        )
    return allowed


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also when it carries an IPv4 address inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


# ---------------------------------------------------------------- one request


def _request(url: str, headers: dict[str, str], method: str, timeout: float, private: bool) -> Answer:
    parts = urlsplit(url)
    secure = parts.scheme.lower() == "https"
    try:
        host, port = parts.hostname, parts.port or (443 if secure else 80)
    except ValueError as error:
        raise FetchError("refused", url, f"not a URL: {error}") from None
    if not host or parts.scheme.lower() not in ("http", "https"):
        raise FetchError("refused", url, "not an http(s) URL")
    if parts.username or parts.password:
        safe = f"{parts.scheme}://{host}{parts.path}"
        raise FetchError("refused", safe, "carries a name or password: they do not belong in URLs")
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*[]")
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:=&~+!$,;'@()*[]?")
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
    connection = _connect(url, host, port, secure, timeout, private)
    try:
        if isinstance(connection, _Proxied):
            path = f"http://{parts.netloc}{path}"
            headers = {**headers, **connection.proxy_headers}
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
    except BaseException as error:
        connection.close()
        if isinstance(error, FetchError):
            raise
        if isinstance(error, (OSError, http.client.HTTPException)):
            raise classified(url, error) from error
        raise
    return Answer(url, response.status, response.headers, response.headers, response, connection)


def classified(url: str, error: BaseException) -> FetchError:
    """The FetchError that a socket's or an HTTP parser's exception amounts to."""
    if isinstance(error, FetchError):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError("refused", url, f"its certificate does not hold ({error.verify_message})")
    if isinstance(error, (ConnectionRefusedError, socket.gaierror)) or getattr(error, "errno", 0) in (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    ):
        return FetchError("unreachable", url, f"{text}: is this machine on the network?")
    if isinstance(error, (http.client.InvalidURL, http.client.UnknownProtocol)):
        return FetchError("refused", url, text)
    return FetchError("timeout", url, text)


def _refusal(url: str, answer: Answer) -> FetchError:
    status, reason = answer.status, answer.response.reason
    try:
        body = answer.response.read(4_096).lower()
    except (OSError, http.client.HTTPException):
        body = b""
    wait = retry_after(answer.headers.get("Retry-After"))
    if status in (429, 503) or (status == 403 and any(word in body for word in _SLOW_DOWN)):
        return FetchError("throttled", url, f"HTTP {status} {reason}", wait)
    if status in (404, 410):
        return FetchError("gone", url, f"HTTP {status} {reason}")
    if status == 408 or status >= 500:
        return FetchError("timeout", url, f"HTTP {status} {reason}", wait)
    hint = " (object stores answer 403 for what they do not have, too)" if status == 403 else ""
    return FetchError("refused", url, f"HTTP {status} {reason}{hint}")


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, of a Retry-After header (seconds or a date); None without one."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    import time

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


# ---------------------------------------------------------------- connections


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Proxied(http.client.HTTPConnection):
    """Plain http through a proxy, which is asked for the whole URL."""

    proxy_headers: dict[str, str]


def _connect(
    url: str, host: str, port: int, secure: bool, timeout: float, private: bool
) -> http.client.HTTPConnection:
    proxy = _proxy(host, "https" if secure else "http")
    if proxy is None:
        rows = public_addresses(host, port, url, private)
        connection: Any = (
            http.client.HTTPSConnection(host, port, timeout=timeout, context=_context())
            if secure
            else http.client.HTTPConnection(host, port, timeout=timeout)
        )
        # the checked addresses, not a second look-up; TLS still verifies the host's name
        connection._create_connection = lambda *_a, **_k: _dial(rows, timeout)
        return connection
    # A proxy resolves names itself. What this machine can resolve is checked; the rest is the proxy's word.
    try:
        public_addresses(host, port, url, private)
    except FetchError as error:
        if error.kind == "refused":
            raise
    proxy_host, proxy_port, proxy_headers = proxy
    if secure:
        tunnel = http.client.HTTPSConnection(proxy_host, proxy_port, timeout=timeout, context=_context())
        tunnel.set_tunnel(host, port, headers=proxy_headers)
        return tunnel
    plain = _Proxied(proxy_host, proxy_port, timeout=timeout)
    plain.proxy_headers = proxy_headers
    return plain


def _dial(rows: list[tuple[Any, ...]], timeout: float) -> socket.socket:
    problem: OSError | None = None
    for family, kind, protocol, _, address in rows:
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(timeout)
            connected.connect(address)
            return connected
        except OSError as error:
            connected.close()
            problem = error
    assert problem is not None
    raise problem


def _proxy(host: str, scheme: str) -> tuple[str, int, dict[str, str]] | None:
    """The proxy that the environment names for a host: its host, port and headers."""
    if host == "localhost" or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies().get(scheme)
    if not found:
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    if not parts.hostname:
        return None
    headers = {}
    if parts.username:
        import base64

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode()
    return parts.hostname, parts.port or 80, headers
