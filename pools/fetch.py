"""Files from https, object stores or local paths into a folder: resumed, checked, recorded, politely.

    from pools.fetch import Item, fetch_all
    report = fetch_all([Item("https://…/a.warc.gz", "a.warc.gz")], "pool/")

A file is written to `.NAME.part`, with what identifies its version beside it, and gets its name only when it
is whole and its checksum holds; killed at any moment, the next call goes on from there and ends with the same
bytes. What arrived is in the folder's manifest (`pools.fetch_manifest`), so a second call does nothing.
Failures have kinds (`pools.public_http.KINDS`), each with its own retry. Nothing is decompressed here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from curation import storage
from pools.fetch_manifest import NAME as MANIFEST
from pools.fetch_manifest import Fetched, Manifest, sha256_of
from pools.fetch_sources import open_source, storage_errors, validator_of
from pools.partial_file import Part
from pools.public_http import (
    KINDS,
    FetchError,
    is_http,
    open_url,
    private_allowed,
    public_addresses,
)

__all__ = ["KINDS", "FetchError", "FetchFailed", "Fetched", "Item", "Policy", "Progress", "Report", "cached",
           "fetch", "fetch_all", "remote_size"]  # fmt: skip

_CHUNK = 1 << 18
_GIVE_UP = 16  # files in a row that a host failed, after which it is asked for no more
_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much is not counted against the file
_NO_HOST = ("file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory")


@dataclass(frozen=True)
class Item:
    """One file to fetch: its URL, and `path` relative to the folder. What is known of it is checked.

    `headers` go with the request to its host, and an Authorization to no other; nothing prints them."""

    url: str
    path: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Policy:
    """How hard to try, and where to stop. Waits double from `wait` to `max_wait` seconds, with seeded jitter.

    `concurrency` files at once, `per_host` of them from one host; a host that asks to slow down gets half as
    many, and one more again after every 16 files. `timeout`: seconds of silence. `file_bytes`,
    `file_seconds`, `total_bytes`, `total_seconds`: limits. `allow_private`: see `pools.public_http`.
    """

    concurrency: int = 4
    per_host: int = 4
    tries: int = 6
    throttled_tries: int = 60
    wait: float = 1.0
    max_wait: float = 60.0
    timeout: float = 30.0
    file_bytes: int = 64 << 30
    file_seconds: float = 6 * 3600.0
    total_bytes: int | None = None
    total_seconds: float | None = None
    allow_private: bool | None = None
    seed: int = 0

    def delay(self, url: str, attempt: int, asked: float | None = None) -> float:
        """Seconds before retry number `attempt`, from 1; at least what the server asked for."""
        most = min(self.max_wait, self.wait * 2 ** min(attempt - 1, 30))
        jitter = random.Random(f"{self.seed}\0{url}\0{attempt}").uniform(0.5, 1.0)
        return max(most * jitter, min(asked or 0.0, 10 * self.max_wait))


@dataclass(frozen=True)
class Progress:
    """Where a `fetch_all` stands; `bytes_total` counts files of unknown size at the mean of the known."""

    files: int
    files_total: int
    failed: int
    bytes: int
    bytes_total: int | None
    seconds: float
    active: int
    retries: Mapping[str, int]

    def line(self) -> str:
        """Files, bytes, speed, retries by kind, time left."""
        speed = self.bytes / max(self.seconds, 1e-9)
        parts = [f"{self.files:,}/{self.files_total:,} files", f"{self.bytes / 1e6:,.1f} MB"]
        parts.append(f"{speed / 1e6:.1f} MB/s")
        if self.active:
            parts.append(f"{self.active} at once")
        parts += [f"{count} × {kind}" for kind, count in sorted(self.retries.items())]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.files < self.files_total and self.bytes_total and self.bytes:
            left = (self.bytes_total - self.bytes) / speed
            parts.append(f"{left:.0f} s left" if left < 600 else f"{left / 60:.0f} min left")
        return ", ".join(parts)


@dataclass(frozen=True)
class Report:
    """What a `fetch_all` did: files fetched now, those there already, failures, and retries by kind.

    `changed`: paths whose bytes here, or whose version at the source, were not those recorded; fetched again.
    """

    fetched: tuple[Fetched, ...]
    there: tuple[Fetched, ...]
    failed: tuple[FetchError, ...]
    changed: tuple[str, ...]
    retries: Mapping[str, int]
    bytes: int
    seconds: float

    @property
    def failed_by_kind(self) -> dict[str, int]:
        return dict(sorted(Counter(error.kind for error in self.failed).items()))

    def __str__(self) -> str:
        parts = [f"{len(self.fetched):,} files fetched ({self.bytes / 1e6:,.1f} MB in {self.seconds:.1f} s)"]
        if self.there:
            parts.append(f"{len(self.there):,} there already")
        if self.changed:
            parts.append(f"{len(self.changed):,} had changed and were fetched again")
        if self.retries:
            parts.append("retries: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.retries.items())))
        if self.failed:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.failed_by_kind.items())
            parts.append(f"{len(self.failed):,} failed ({kinds})")
        return "; ".join(parts)


class FetchFailed(RuntimeError):
    """Some files did not arrive; `report` says which and why. Those that did stay."""

    def __init__(self, report: Report):
        lines = [str(error) for error in report.failed[:10]]
        more = len(report.failed) - len(lines)
        super().__init__(
            f"{report}\n  "
            + "\n  ".join(f"[{e.kind}] {line}" for e, line in zip(report.failed, lines, strict=False))
            + (f"\n  and {more} more" if more else "")
            + "\n  run it again to try these; what arrived stays"
        )
        self.report = report


def fetch(
    url: str,
    target: str | Path,
    sha256: str | None = None,
    size: int | None = None,
    md5: str | None = None,
    policy: Policy | None = None,
) -> Fetched:
    """One file to `target`; nothing is done when the folder's manifest says that it is there.

    Raises FetchError, or OSError when it cannot be written.
    """
    target = Path(target)
    item = Item(str(url), target.name, size, sha256, md5)
    report = fetch_all([item], target.parent, policy=policy, raise_failures=False)
    if report.failed:
        raise report.failed[0]
    return (report.fetched or report.there)[0]


def fetch_all(
    items: Iterable[Item],
    folder: str | Path,
    concurrency: int | None = None,
    policy: Policy | None = None,
    recheck: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    raise_failures: bool = True,
) -> Report:
    """All `items` into `folder`, several at once. Raises FetchFailed at the end when some did not arrive.

    A file that the manifest has, with its recorded size and time of change, is not looked at again;
    `recheck="bytes"` hashes it, `recheck="source"` asks its server whether it is still that version.
    A full disk, or any other error in writing, stops everything and is raised as it is.
    """
    policy = policy or Policy()
    if concurrency is not None:
        policy = replace(policy, concurrency=concurrency, per_host=min(concurrency, policy.per_host))
    if recheck not in (None, "bytes", "source"):
        raise ValueError(f"recheck={recheck!r}: it is None, 'bytes' or 'source'")
    todo = list(items)
    _check_paths(todo)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return _Run(todo, folder, policy, recheck, on_progress).execute(raise_failures)


def cached(url: str, sha256: str | None = None, policy: Policy | None = None) -> Path:
    """A small file (list, model) by URL, fetched once and kept below WINNOW_CACHE; a local path is itself.

    With `sha256` the file is checked, also a local one (ValueError). Without network, and with nothing kept,
    FetchError says where the file may be put by hand.
    """
    if storage.is_local(url):
        path = Path(storage.local_path(url))
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        if sha256 is not None and (found := sha256_of(path)) != sha256.lower():
            raise ValueError(f"{path} has sha256 {found[:16]}…, not {sha256[:16]}…")
        return path
    root = os.environ.get("WINNOW_CACHE") or str(Path.home() / ".cache" / "winnow")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(urlsplit(url).path).name)[-80:].lstrip("._-")
    # one folder a URL: its manifest is its own, so that processes do not share one
    target = (
        Path(root).expanduser() / "fetched" / hashlib.sha256(url.encode()).hexdigest()[:16] / (name or "file")
    )
    if sha256 is not None:
        if target.is_file() and sha256_of(target) == sha256.lower():
            return target
    elif target.is_file() and target.name not in Manifest(target.parent).records:
        return target  # put there by hand
    try:
        fetch(url, target, sha256=sha256, policy=policy or Policy(file_bytes=8 << 30, tries=3))
    except FetchError as error:
        raise FetchError(error.kind, url, f"{error.message} (or put it at {target})") from error
    return target


def remote_size(
    url: str, policy: Policy | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int | None, str | None]:
    """Bytes and etag of a file where it lies, without fetching it: a HEAD request, or the store's listing."""
    policy = policy or Policy()
    _check_scheme(url, policy)
    if not is_http(url):
        with storage_errors(url):
            info = storage.info(url)
            return info.size, info.etag
    with open_url(
        url, headers, method="HEAD", timeout=policy.timeout, allow_private=policy.allow_private
    ) as answer:
        length = answer.headers.get("Content-Length")
        return (int(length) if length else None), validator_of(answer.headers)


# ---------------------------------------------------------------- one run


class _Stopped(Exception):
    """This run is ending; what is on disk stays for the next one."""


class _Host:
    """One host's share of the connections: fewer when it asks to slow down, none while it asked to wait."""

    def __init__(self, limit: int):
        self.most = self.limit = max(1, limit)
        self.active = self.good = 0
        self.not_before = 0.0
        self.failures = 0  # files in a row
        self.turn = threading.Condition()

    def enter(self, stop: threading.Event) -> None:
        with self.turn:
            while True:
                if stop.is_set():
                    raise _Stopped
                wait = self.not_before - time.monotonic()
                if self.active < self.limit and wait <= 0:
                    self.active += 1
                    return
                self.turn.wait(min(0.5, wait) if wait > 0 else 0.5)

    def leave(self, good: bool) -> None:
        with self.turn:
            self.active -= 1
            self.good += good
            if self.good >= 16 and self.limit < self.most:
                self.limit, self.good = self.limit + 1, 0
            self.turn.notify()

    def slow_down(self, seconds: float) -> None:
        with self.turn:
            self.limit, self.good = max(1, self.limit // 2), 0
            self.not_before = max(self.not_before, time.monotonic() + seconds)


@dataclass
class _Run:
    items: list[Item]
    folder: Path
    policy: Policy
    recheck: str | None
    on_progress: Callable[[Progress], None] | None
    stop: threading.Event = field(default_factory=threading.Event)
    hosts: dict[str, _Host] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    retries: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    received: int = 0
    skipped: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def execute(self, raise_failures: bool) -> Report:
        self.manifest = Manifest(self.folder)
        self.start = time.monotonic()
        self.sizes = {item.path: item.size for item in self.items if item.size is not None}
        results: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        waiting = iter(self.items)
        ended: dict[str, list[Any]] = {"fetched": [], "there": [], "failed": []}

        def work() -> None:
            while not self.stop.is_set():
                with self.lock:
                    item = next(waiting, None)
                if item is None:
                    return
                try:
                    results.put(self._one(item))
                    self._host(item.url).failures = 0
                except FetchError as error:
                    results.put(("failed", error))
                    if error.kind in ("throttled", "timeout", "unreachable"):
                        self._host(item.url).failures += 1
                except _Stopped:
                    return
                except BaseException as error:  # a full disk: of no use to go on
                    results.put(("broken", error))
                    self.stop.set()
                    return

        count = max(1, min(self.policy.concurrency, len(self.items)))
        threads = [threading.Thread(target=work, name=f"fetch-{i}", daemon=True) for i in range(count)]
        broken: BaseException | None = None
        try:
            for thread in threads:
                thread.start()
            while sum(map(len, ended.values())) < len(self.items) and broken is None:
                with contextlib.suppress(queue.Empty):
                    kind, value = results.get(timeout=0.25)
                    if kind == "broken":
                        broken = value
                    else:
                        ended[kind].append(value)
                self._tell(len(ended["fetched"]) + len(ended["there"]), len(ended["failed"]))
        finally:  # also when the person at the keyboard has had enough
            self.stop.set()
            for thread in threads:
                thread.join(timeout=2.0)  # one in a silent connection ends when that times out
        if broken is not None:
            raise broken
        order = {item.path: i for i, item in enumerate(self.items)}
        urls = {item.url: i for i, item in enumerate(self.items)}
        report = Report(
            tuple(sorted(ended["fetched"], key=lambda r: order[r.path])),
            tuple(sorted(ended["there"], key=lambda r: order[r.path])),
            tuple(sorted(ended["failed"], key=lambda e: urls.get(e.url, 0))),
            tuple(sorted(self.changed)),
            dict(self.retries),
            self.received,
            time.monotonic() - self.start,
        )
        if report.failed and raise_failures:
            raise FetchFailed(report)
        return report

    def _tell(self, files: int, failed: int) -> None:
        if self.on_progress is None:
            return
        with self.lock:
            known, received, retries = dict(self.sizes), self.received, dict(self.retries)
            coming = len(self.items) - self.skipped
        total = round(sum(known.values()) / len(known) * coming) if known else None
        active = sum(host.active for host in list(self.hosts.values()))
        seconds = time.monotonic() - self.start
        self.on_progress(Progress(files, len(self.items), failed, received, total, seconds, active, retries))

    # ------------------------------------------------------------ one file

    def _one(self, item: Item) -> tuple[str, Fetched]:
        _check_scheme(item.url, self.policy)
        state = self.manifest.state(item.path, hash_again=self.recheck == "bytes")
        if state == "there":
            record = self.manifest.records[item.path]
            if self._as_asked(item, record):
                with self.lock:
                    self.sizes.pop(item.path, None)
                    self.skipped += 1
                return "there", record
            state = "changed"
        if state == "changed":
            with self.lock:
                self.changed.append(item.path)
        return "fetched", self._fetch(item)

    def _as_asked(self, item: Item, record: Fetched) -> bool:
        """Whether the recorded file is the one asked for, and with `recheck="source"` still its version."""
        return (
            record.url == item.url
            and (item.size is None or item.size == record.bytes)
            and (item.sha256 is None or item.sha256.lower() == record.sha256)
            and (self.recheck != "source" or self._same_at_source(item, record))
        )

    def _same_at_source(self, item: Item, record: Fetched) -> bool:
        size, etag = remote_size(item.url, self.policy, item.headers)
        return etag == record.etag if etag and record.etag else size == record.bytes

    def _fetch(self, item: Item) -> Fetched:
        """Attempts until the file is whole, or its kind of failure has had its retries."""
        policy, host = self.policy, self._host(item.url)
        target = self.folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Part(target.with_name(f".{target.name}.part"))
        tries: Counter[str] = Counter()
        limits = {"throttled": policy.throttled_tries, "checksum": 1, "changed": 3, "gone": 0, "refused": 0,
                  "limit": 0}  # fmt: skip
        began = time.monotonic()
        with part.locked(item.url):
            while True:
                before = part.size()
                self._within_limits(item, part.size(), began)
                if host.failures >= _GIVE_UP:
                    raise FetchError(
                        "skipped", item.url, f"not tried: {_GIVE_UP} files in a row failed there"
                    )
                host.enter(self.stop)
                problem: FetchError | None = None
                try:
                    record = self._attempt(item, part, began)
                except FetchError as error:
                    problem = error
                finally:
                    host.leave(problem is None)
                if problem is None:
                    part.take(target)
                    self.manifest.add(record)
                    return record
                if problem.kind in ("changed", "checksum"):
                    part.drop()
                if part.size() - before >= _PROGRESS_BYTES and problem.kind == "timeout":
                    tries[problem.kind] = 0
                tries[problem.kind] += 1
                if tries[problem.kind] > limits.get(problem.kind, policy.tries):
                    attempts = sum(tries.values())
                    if attempts == 1:
                        raise problem
                    raise FetchError(problem.kind, item.url, f"{problem.message}, after {attempts} attempts")
                with self.lock:
                    self.retries[problem.kind] += 1
                wait = policy.delay(item.url, tries[problem.kind], problem.retry_after)
                if problem.kind == "throttled":
                    host.slow_down(wait)  # all files of this host wait
                elif self.stop.wait(wait):
                    raise _Stopped

    def _attempt(self, item: Item, part: Part, began: float) -> Fetched:
        """Fetch what is missing of the part file and check the whole. FetchError, or OSError of the disk."""
        policy = self.policy
        known = part.validator(item.url)
        have = part.size() if known else 0
        with open_source(item.url, have, known, policy.timeout, policy.allow_private, item.headers) as body:
            total = body.total
            if item.size is not None and total is not None and total != item.size:
                raise FetchError("refused", item.url, f"has {total:,} bytes, and {item.size:,} were expected")
            if total is None and not body.framed and item.size is None and item.sha256 is None:
                raise FetchError(
                    "refused", item.url, "the server does not say how long it is: give its size or sha256"
                )
            if (total or 0) > policy.file_bytes:
                raise FetchError(
                    "refused", item.url, f"has {total:,} bytes, over the limit of {policy.file_bytes:,}"
                )
            if total is not None:
                with self.lock:
                    self.sizes[item.path] = total
            promised = {**body.promised, **_wanted(item)}
            hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *promised}}
            at = part.begin(item.url, body.validator, body.start, hashes.values())
            with part.open_append() as file:
                while chunk := body.read(_CHUNK):
                    left = memoryview(chunk)
                    while left:  # an unbuffered write may take a part
                        left = left[file.write(left) :]
                    for digest in hashes.values():
                        digest.update(chunk)
                    at += len(chunk)
                    self._count(item, len(chunk), at, began)
                file.flush()
                os.fsync(file.fileno())
        expected = total if total is not None else item.size
        if expected is not None and at < expected:
            raise FetchError("timeout", item.url, f"the connection ended after {at:,} of {expected:,} bytes")
        if expected is not None and at > expected:
            raise FetchError("checksum", item.url, f"{at:,} bytes came, and {expected:,} were expected")
        for name, digest_wanted in promised.items():
            if hashes[name].hexdigest() != digest_wanted:
                raise FetchError(
                    "checksum",
                    item.url,
                    f"{name} is {hashes[name].hexdigest()[:16]}…, not {digest_wanted[:16]}… "
                    f"({'as given' if name in _wanted(item) else 'as the server says'})",
                )
        return Fetched(
            item.path, item.url, at, hashes["sha256"].hexdigest(), body.validator, part.mtime_ns(),
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip

    def _count(self, item: Item, n: int, at: int, began: float) -> None:
        with self.lock:
            self.received += n
        if self.stop.is_set():
            raise _Stopped
        self._within_limits(item, at, began)

    def _within_limits(self, item: Item, at: int, began: float) -> None:
        policy, received, now = self.policy, self.received, time.monotonic()
        if at > policy.file_bytes:
            raise FetchError("refused", item.url, f"is over the limit of {policy.file_bytes:,} bytes")
        if now - began > policy.file_seconds:
            raise FetchError("limit", item.url, f"took over {policy.file_seconds:,.0f} s (file_seconds)")
        if policy.total_bytes is not None and received > policy.total_bytes:
            raise FetchError("limit", item.url, f"all files together are over {policy.total_bytes:,} bytes")
        if policy.total_seconds is not None and now - self.start > policy.total_seconds:
            raise FetchError("limit", item.url, f"all files together took over {policy.total_seconds:,.0f} s")

    def _host(self, url: str) -> _Host:
        name = urlsplit(url).netloc or "local"
        with self.lock:
            return self.hosts.setdefault(name, _Host(self.policy.per_host))


def _wanted(item: Item) -> dict[str, str]:
    named = {"sha256": item.sha256, "md5": item.md5}
    return {name: digest.lower() for name, digest in named.items() if digest}


# ---------------------------------------------------------------- checks before any work


def _check_paths(items: list[Item]) -> None:
    seen: dict[str, str] = {}
    for item in items:
        path = PurePosixPath(item.path)
        if not item.path or path.is_absolute() or ".." in path.parts or set(item.path) & {"\\", "\0"}:
            raise ValueError(f"{item.url}: {item.path!r} is not a path inside the folder")
        if path.name == MANIFEST or path.name.endswith((".part", ".part.json")):
            raise ValueError(f"{item.url}: {item.path!r} is a name that this program keeps for itself")
        other = seen.setdefault(str(path), item.url)
        if other != item.url:
            raise ValueError(f"{other} and {item.url} would both be written to {item.path!r}: rename one")


def _check_scheme(url: str, policy: Policy) -> None:
    """Refuse chained URLs, and hosts that are not public for protocols that name one."""
    if "::" in url.partition("://")[0]:
        raise FetchError("refused", url, "chained URLs are not fetched: name the file itself")
    scheme = urlsplit(url).scheme.lower() if "://" in url else "file"
    if is_http(url) or scheme in _NO_HOST:
        return
    host = urlsplit(url).hostname
    if host and not private_allowed(policy.allow_private):
        public_addresses(host, urlsplit(url).port or 0, url, False)
