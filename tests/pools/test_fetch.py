"""Downloads from a server that throttles, cuts, lies, moves, changes: whole and right, or a named failure."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import local_web
import pytest
from local_web import chunked, cut, lying_range, no_length, redirect, serve, silent, status, wrong_range

from pools import fetch as module
from pools import public_http
from pools.fetch import FetchError, FetchFailed, Item, Policy, cached, fetch, fetch_all, remote_size
from pools.fetch_manifest import NAME

DATA = random.Random(5).randbytes(300_000)
QUICK = Policy(wait=0.01, max_wait=0.02, timeout=5.0, allow_private=True)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WINNOW_FETCH_PRIVATE", raising=False)


@pytest.fixture
def web():
    with serve({"/a.bin": DATA}) as running:
        yield running


def get(web, tmp_path, path="/a.bin", policy=QUICK, **known):
    return fetch(web.url(path), tmp_path / "a.bin", policy=policy, **known)


def left_over(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.name.startswith("."))


# ---------------------------------------------------------------- whole, resumed, recorded


def test_a_file_arrives_and_is_recorded(web, tmp_path):
    record = get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert (record.bytes, record.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert record.etag == local_web.etag(DATA)
    (line,) = (tmp_path / NAME).read_text().splitlines()
    assert json.loads(line)["path"] == "a.bin" and json.loads(line)["url"] == web.url("/a.bin")
    assert left_over(tmp_path) == []
    assert all(agent.startswith("winnow/") for agent in web.agents)


def test_a_second_call_asks_nothing(web, tmp_path):
    first = get(web, tmp_path)
    asked = len(web.log)
    assert get(web, tmp_path) == first and len(web.log) == asked


def test_a_cut_connection_is_resumed_where_it_ended(web, tmp_path):
    web.trouble["/a.bin"] = [cut(100_000), cut(50_000)]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert web.gets("/a.bin") == [None, "bytes=100000-", "bytes=150000-"]


def test_a_resumed_file_keeps_what_an_earlier_process_left(web, tmp_path):
    web.trouble["/a.bin"] = [cut(200_000), status(404)]
    with pytest.raises(FetchError, match="404"):
        get(web, tmp_path)
    assert (tmp_path / ".a.bin.part").stat().st_size == 200_000 and not (tmp_path / "a.bin").exists()
    record = get(web, tmp_path)
    assert web.gets("/a.bin")[-1] == "bytes=200000-"
    assert record.sha256 == hashlib.sha256(DATA).hexdigest()
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_part_of_an_earlier_boot_or_of_another_url_is_not_trusted(web, tmp_path):
    for change in ({"boot": "before the power cut"}, {"url": "https://example.org/other"}):
        web.trouble["/a.bin"] = [cut(200_000), status(404)]
        with pytest.raises(FetchError):
            get(web, tmp_path)
        note = tmp_path / ".a.bin.part.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | change))
        get(web, tmp_path)
        assert web.gets("/a.bin")[-1] is None and (tmp_path / "a.bin").read_bytes() == DATA
        (tmp_path / "a.bin").unlink()


def test_a_file_that_changes_in_the_middle_is_one_version_in_the_end(web, tmp_path):
    other = bytes(reversed(DATA))

    def cut_and_change(handler, data, extra):
        web.files["/a.bin"] = other
        cut(100_000)(handler, data, extra)

    web.trouble["/a.bin"] = [cut_and_change]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == other


def test_a_server_that_ignores_if_range_does_not_mix_two_versions(web, tmp_path):
    other = bytes(reversed(DATA))

    def careless(handler, data, extra):
        del handler.headers["If-Range"]
        local_web.honest(handler, other, extra)

    web.trouble["/a.bin"] = [cut(100_000), careless]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert web.gets("/a.bin") == [None, "bytes=100000-", None]


def test_a_part_that_was_not_asked_for_is_not_appended(web, tmp_path):
    web.trouble["/a.bin"] = [cut(100_000), wrong_range]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert web.gets("/a.bin")[-1] is None


def test_wrong_bytes_under_the_right_range_are_found_by_the_checksum(web, tmp_path):
    web.trouble["/a.bin"] = [cut(100_000), lying_range]
    get(web, tmp_path, sha256=hashlib.sha256(DATA).hexdigest())
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert web.gets("/a.bin") == [None, "bytes=100000-", None]


def test_a_range_past_the_end_starts_over(web, tmp_path):
    web.trouble["/a.bin"] = [cut(200_000), status(404)]
    with pytest.raises(FetchError):
        get(web, tmp_path)
    web.trouble["/a.bin"] = [status(416)]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_an_empty_file_and_chunks_without_a_length(web, tmp_path):
    web.files["/empty"] = b""
    assert fetch(web.url("/empty"), tmp_path / "empty", policy=QUICK).bytes == 0
    web.trouble["/a.bin"] = [chunked]
    get(web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_whose_end_cannot_be_told_needs_a_size_or_a_checksum(web, tmp_path):
    web.trouble["/a.bin"] = [no_length] * 3
    with pytest.raises(FetchError, match="give its size or sha256"):
        get(web, tmp_path)
    assert get(web, tmp_path, size=len(DATA)).bytes == len(DATA)


def test_a_changed_file_here_is_noticed_and_fetched_again(web, tmp_path):
    items = [Item(web.url("/a.bin"), "a.bin")]
    fetch_all(items, tmp_path, policy=QUICK)
    file = tmp_path / "a.bin"
    os.utime(file, (1, 1))  # touched, same bytes
    assert fetch_all(items, tmp_path, policy=QUICK).there[0].bytes == len(DATA)
    file.write_bytes(b"x" + DATA[1:])
    report = fetch_all(items, tmp_path, policy=QUICK)
    assert report.changed == ("a.bin",) and file.read_bytes() == DATA
    stat = file.stat()
    file.write_bytes(b"x" + DATA[1:])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a change that leaves no trace but the bytes
    assert not fetch_all(items, tmp_path, policy=QUICK).changed
    assert fetch_all(items, tmp_path, policy=QUICK, recheck="bytes").changed == ("a.bin",)
    assert file.read_bytes() == DATA


def test_a_newer_version_at_the_source_is_noticed_when_asked(web, tmp_path):
    items = [Item(web.url("/a.bin"), "a.bin")]
    fetch_all(items, tmp_path, policy=QUICK)
    web.files["/a.bin"] = DATA[:1000]
    assert not fetch_all(items, tmp_path, policy=QUICK).fetched
    report = fetch_all(items, tmp_path, policy=QUICK, recheck="source")
    assert report.changed == ("a.bin",) and (tmp_path / "a.bin").read_bytes() == DATA[:1000]
    assert not fetch_all(items, tmp_path, policy=QUICK, recheck="source").fetched


def test_a_torn_manifest_line_costs_one_file(web, tmp_path):
    web.files["/b.bin"] = DATA[:10]
    items = [Item(web.url(f"/{n}.bin"), f"{n}.bin") for n in "ab"]
    fetch_all(items, tmp_path, concurrency=1, policy=QUICK)
    manifest = tmp_path / NAME
    manifest.write_bytes(manifest.read_bytes()[:-20])
    report = fetch_all(items, tmp_path, policy=QUICK)
    assert [r.path for r in report.fetched] == ["b.bin"] and [r.path for r in report.there] == ["a.bin"]
    assert len(fetch_all(items, tmp_path, policy=QUICK).there) == 2


def test_killed_in_the_middle_and_again_gives_the_same_bytes(web, tmp_path):
    def stall_in_the_middle(handler, data, extra):
        cut(120_000)(handler, data, extra)
        handler.wfile.flush()
        web.release.wait(20)

    web.trouble["/a.bin"] = [stall_in_the_middle]
    code = f"""
        from pools.fetch import Policy, fetch
        fetch({web.url("/a.bin")!r}, {str(tmp_path / "a.bin")!r}, policy=Policy(allow_private=True))
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=os.environ | {"PYTHONPATH": "."}
    )
    part = tmp_path / ".a.bin.part"
    try:
        while child.poll() is None and not (part.exists() and part.stat().st_size):
            pass
        with pytest.raises(FetchError, match="another process is fetching it"):
            get(web, tmp_path)
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    have = part.stat().st_size
    assert 0 < have <= 120_000 and not (tmp_path / "a.bin").exists()
    record = get(web, tmp_path)
    assert web.gets("/a.bin")[-1] == f"bytes={have}-"
    assert (tmp_path / "a.bin").read_bytes() == DATA and record.sha256 == hashlib.sha256(DATA).hexdigest()


# ---------------------------------------------------------------- kinds of failure


def test_throttled_is_waited_for_and_lowers_concurrency(web, tmp_path):
    slow_down = b"<Error><Code>SlowDown</Code></Error>"
    web.trouble["/a.bin"] = [status(503, {"Retry-After": "0"}), status(429), status(403, {}, slow_down)]
    report = fetch_all([Item(web.url("/a.bin"), "a.bin")], tmp_path, policy=QUICK)
    assert report.retries == {"throttled": 3} and len(web.gets("/a.bin")) == 4
    host = module._Host(8)
    host.slow_down(0.0)
    host.slow_down(0.0)
    assert host.limit == 2
    for _ in range(16):
        host.enter(threading.Event())
        host.leave(True)
    assert host.limit == 3


def test_throttled_for_ever_is_given_up(web, tmp_path):
    web.trouble["/a.bin"] = [status(503)] * 9
    with pytest.raises(FetchError, match="after 4 attempts") as caught:
        get(web, tmp_path, policy=replace(QUICK, throttled_tries=3))
    assert caught.value.kind == "throttled"


def test_gone_is_not_retried(web, tmp_path):
    for code in (404, 410):
        web.trouble["/a.bin"] = [status(code)]
        with pytest.raises(FetchError) as caught:
            get(web, tmp_path)
        assert caught.value.kind == "gone"
    assert len(web.log) == 2


def test_forbidden_is_not_retried_and_says_what_stores_mean_by_it(web, tmp_path):
    web.trouble["/a.bin"] = [status(403, {}, b"<Code>AccessDenied</Code>")]
    with pytest.raises(FetchError, match="403 for what they do not have") as caught:
        get(web, tmp_path)
    assert caught.value.kind == "refused" and len(web.log) == 1


def test_server_faults_and_silence_are_retried(web, tmp_path):
    web.trouble["/a.bin"] = [status(500), status(502), silent]
    report = fetch_all([Item(web.url("/a.bin"), "a.bin")], tmp_path, policy=replace(QUICK, timeout=0.2))
    assert report.retries == {"timeout": 3} and (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_that_never_ends_well_fails_as_timeout(web, tmp_path):
    web.trouble["/a.bin"] = [cut(0)] * 9
    with pytest.raises(FetchError, match=r"ended after 0 of 300,000 bytes, after 4 attempts") as caught:
        get(web, tmp_path, policy=replace(QUICK, tries=3))
    assert caught.value.kind == "timeout"


def test_progress_keeps_a_file_alive_that_others_do_not(web, tmp_path):
    web.files["/large"] = DATA * 30
    web.trouble["/large"] = [cut(2_000_000)] * 4
    assert fetch(web.url("/large"), tmp_path / "large", policy=replace(QUICK, tries=1)).bytes == 9_000_000
    web.files["/small"] = DATA
    web.trouble["/small"] = [cut(10_000)] * 4
    with pytest.raises(FetchError, match="after 2 attempts"):
        fetch(web.url("/small"), tmp_path / "small", policy=replace(QUICK, tries=1))


def test_a_bad_checksum_is_tried_once_more_from_zero(web, tmp_path):
    with pytest.raises(FetchError, match="not 0000000000000000… \\(as given\\), after 2 attempts") as caught:
        get(web, tmp_path, sha256="0" * 64)
    assert caught.value.kind == "checksum" and web.gets("/a.bin") == [None, None]
    assert not (tmp_path / "a.bin").exists() and (tmp_path / ".a.bin.part").stat().st_size == 0


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({"Content-MD5": b64encode(hashlib.md5(DATA).digest()).decode()}, True),
        ({"Content-MD5": b64encode(hashlib.md5(b"").digest()).decode()}, False),
        ({"Repr-Digest": f"sha-256=:{b64encode(hashlib.sha256(DATA).digest()).decode()}:"}, True),
        ({"Digest": f"SHA-256={b64encode(hashlib.sha256(b'').digest()).decode()}"}, False),
        ({"x-goog-hash": f"crc32c=AAAAAA==,md5={b64encode(hashlib.md5(b'').digest()).decode()}"}, False),
        ({"X-Linked-Etag": f'"{hashlib.sha256(b"").hexdigest()}"'}, False),
        ({"Server": "AmazonS3", "ETag": f'"{hashlib.md5(b"").hexdigest()}"'}, False),
        ({"ETag": f'"{hashlib.md5(b"").hexdigest()}"'}, True),  # not a store's: an ETag is any string
        (
            {
                "x-amz-request-id": "1",
                "ETag": f'"{hashlib.md5(b"").hexdigest()}"',
                "x-amz-server-side-encryption": "aws:kms",
            },
            True,
        ),
        ({"x-amz-request-id": "1", "ETag": f'"{hashlib.md5(DATA).hexdigest()}-4"'}, True),  # many pieces
    ],
)
def test_what_the_server_promises_is_checked(web, tmp_path, headers, good):
    web.extra = headers
    if good:
        assert get(web, tmp_path).bytes == len(DATA)
    else:
        with pytest.raises(FetchError, match="as the server says") as caught:
            get(web, tmp_path)
        assert caught.value.kind == "checksum"


def test_a_wrong_size_is_refused_before_any_byte(web, tmp_path):
    with pytest.raises(FetchError, match="has 300,000 bytes, and 5 were expected"):
        get(web, tmp_path, size=5)


def test_limits(web, tmp_path):
    with pytest.raises(FetchError, match="over the limit of 1,000"):
        get(web, tmp_path, policy=replace(QUICK, file_bytes=1000))
    web.trouble["/a.bin"] = [chunked]
    with pytest.raises(FetchError, match="over the limit of 1,000"):
        get(web, tmp_path, policy=replace(QUICK, file_bytes=1000))
    with pytest.raises(FetchError) as caught:
        get(web, tmp_path, policy=replace(QUICK, total_bytes=1000))
    assert caught.value.kind == "limit"
    asked = len(web.log)
    with pytest.raises(FetchError) as caught:
        get(web, tmp_path, policy=replace(QUICK, total_seconds=0.0))
    assert caught.value.kind == "limit" and len(web.log) == asked


def test_nobody_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="is this machine on the network") as caught:
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", policy=replace(QUICK, tries=1))
    assert caught.value.kind == "unreachable"
    with pytest.raises(FetchError, match="no address for host") as caught:
        fetch("https://nowhere.invalid/x", tmp_path / "x", policy=replace(QUICK, tries=0))
    assert caught.value.kind == "unreachable"


def test_the_report_names_each_failure_by_kind_and_what_arrived_stays(web, tmp_path):
    web.trouble["/c.bin"] = [status(403)]
    items = [Item(web.url(f"/{n}.bin"), f"deep/{n}.bin") for n in "abc"]
    with pytest.raises(FetchFailed, match="run it again") as caught:
        fetch_all(items, tmp_path, policy=QUICK)
    assert caught.value.report.failed_by_kind == {"gone": 1, "refused": 1}
    assert f"[gone] {web.url('/b.bin')}: HTTP 404" in str(caught.value)
    assert [r.path for r in caught.value.report.fetched] == ["deep/a.bin"]
    assert (tmp_path / "deep" / "a.bin").read_bytes() == DATA


def test_a_host_that_fails_file_after_file_is_asked_no_more(web, tmp_path):
    for n in range(40):
        web.trouble[f"/{n}"] = [cut(0)] * 3
    policy = replace(QUICK, tries=1, concurrency=1)
    items = [Item(web.url(f"/{n}"), f"{n}.bin") for n in range(40)]
    web.files |= {f"/{n}": DATA for n in range(40)}
    report = fetch_all(items, tmp_path, policy=policy, raise_failures=False)
    assert report.failed_by_kind == {"skipped": 24, "timeout": 16}
    assert len(web.log) == 32 and "not tried: 16 files in a row" in str(report.failed[-1])


def test_an_error_of_the_disk_stops_everything(web, tmp_path):
    (tmp_path / "deep").write_text("a file where a folder is needed")
    with pytest.raises(FileExistsError):
        fetch_all([Item(web.url("/a.bin"), "deep/a.bin")], tmp_path, policy=QUICK)


# ---------------------------------------------------------------- polite


def test_not_more_than_per_host_at_once_and_progress_adds_up(web, tmp_path):
    for n in range(12):
        web.files[f"/{n}"] = DATA[: 1000 * n]
    seen = []
    report = fetch_all(
        [Item(web.url(f"/{n}"), f"{n}.bin") for n in range(12)],
        tmp_path,
        policy=replace(QUICK, concurrency=6, per_host=2),
        on_progress=seen.append,
    )
    assert len(report.fetched) == 12 and web.most_active <= 2
    assert (seen[-1].files, seen[-1].bytes) == (12, 66_000) == (seen[-1].files_total, seen[-1].bytes_total)
    assert "12/12 files" in seen[-1].line() and "MB/s" in seen[-1].line()
    assert [r.path for r in report.fetched] == [f"{n}.bin" for n in range(12)]


def test_waits_grow_are_seeded_and_honour_retry_after():
    policy = Policy(wait=1.0, max_wait=8.0)
    waits = [policy.delay("u", n) for n in range(1, 7)]
    assert waits == [policy.delay("u", n) for n in range(1, 7)] != [policy.delay("v", n) for n in range(1, 7)]
    assert all(0.5 * most <= wait <= most for wait, most in zip(waits, [1, 2, 4, 8, 8, 8], strict=True))
    assert policy.delay("u", 1, asked=30.0) == 30.0 and policy.delay("u", 1, asked=1e9) == 80.0
    assert public_http.retry_after("7") == 7.0 and public_http.retry_after("soon") is None
    assert public_http.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


# ---------------------------------------------------------------- only public addresses


def test_a_private_address_is_refused_unless_allowed(web, tmp_path, monkeypatch):
    with pytest.raises(FetchError, match=r"127\.0\.0\.1, which is not a public address") as caught:
        fetch(web.url("/a.bin"), tmp_path / "a.bin")
    assert caught.value.kind == "refused" and not web.log
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    assert fetch(web.url("/a.bin"), tmp_path / "a.bin").bytes == len(DATA)


def test_a_redirect_to_a_private_address_is_refused(web, tmp_path, monkeypatch):
    """The first host passes the check (as a public one would); where it points to does not."""
    checked = public_http.public_addresses

    def first_is_public(host, port, url, allow_private):
        return checked(host, port, url, host == "127.0.0.1")

    monkeypatch.setattr(public_http, "public_addresses", first_is_public)
    web.trouble["/a.bin"] = [redirect(f"http://localhost:{web.base.rsplit(':', 1)[1]}/secret")]
    web.files["/secret"] = b"keys"
    with pytest.raises(FetchError, match=r"'localhost' is .*not a public address"):
        fetch(web.url("/a.bin"), tmp_path / "a.bin")
    assert web.log == [("GET", "/a.bin", None)] and not (tmp_path / "a.bin").exists()


def test_redirects_are_followed_but_not_for_ever_nor_elsewhere(web, tmp_path):
    web.trouble["/b"] = [redirect("/a.bin")]
    assert fetch(web.url("/b"), tmp_path / "b", policy=QUICK).bytes == len(DATA)
    web.trouble["/loop"] = [redirect("/loop")] * 9
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch(web.url("/loop"), tmp_path / "loop", policy=QUICK)
    web.trouble["/file"] = [redirect("file:///etc/hostname")]
    with pytest.raises(FetchError, match="not followed"):
        fetch(web.url("/file"), tmp_path / "file", policy=QUICK)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "224.0.0.1",
     "2002:7f00:1::", "255.255.255.255"],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not public_http.is_public(address)


def test_addresses_that_are_public():
    assert all(public_http.is_public(a) for a in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"))


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost"])
def test_other_spellings_of_this_machine_are_refused(host, tmp_path):
    with pytest.raises(FetchError) as caught:
        fetch(f"http://{host}:1/x", tmp_path / "x", policy=Policy(tries=0))
    assert caught.value.kind in ("refused", "unreachable")


def test_urls_that_are_not_fetched(tmp_path):
    for url, says in (
        ("http://user:secret@127.0.0.1/x", "carries a name or password"),
        ("simplecache::http://127.0.0.1/x", "chained"),
        ("ftp://127.0.0.1/x", "not a public address"),
        ("http:///x", "not an http"),
    ):
        with pytest.raises(FetchError, match=says) as caught:
            fetch(url, tmp_path / "x")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\b", ""])
def test_paths_stay_inside_the_folder(path, tmp_path):
    with pytest.raises(ValueError, match="not a path inside the folder"):
        fetch_all([Item("https://example.org/x", path)], tmp_path)


@pytest.mark.parametrize("path", [NAME, f"a/{NAME}", ".x.part", "x.part.json"])
def test_names_that_are_ours_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match="keeps for itself"):
        fetch_all([Item("https://example.org/x", path)], tmp_path)


def test_two_urls_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="would both be written to 'x'"):
        fetch_all([Item("https://a.example/x", "x"), Item("https://b.example/x", "x")], tmp_path)


# ---------------------------------------------------------------- other places


def test_local_files_are_copied_checked_and_gone_when_gone(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(DATA)
    out = tmp_path / "out"
    for url in (str(source), source.as_uri()):
        report = fetch_all([Item(url, "x.bin", size=len(DATA))], out)
        assert (out / "x.bin").read_bytes() == DATA and len(report.fetched) == 1
    assert remote_size(str(source))[0] == len(DATA)
    with pytest.raises(FetchError) as caught:
        fetch(str(tmp_path / "none"), out / "none")
    assert caught.value.kind == "gone"
    with pytest.raises(FetchError) as caught:
        fetch(str(tmp_path), out / "none")
    assert caught.value.kind == "refused"


def test_memory_urls(tmp_path):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/fetch-test/x.bin", DATA)
    assert fetch("memory://fetch-test/x.bin", tmp_path / "x.bin").sha256 == hashlib.sha256(DATA).hexdigest()


def test_remote_size_is_a_head_request(web):
    assert remote_size(web.url("/a.bin"), QUICK) == (len(DATA), local_web.etag(DATA))
    assert web.log == [("HEAD", "/a.bin", None)]


def test_cached_is_fetched_once_and_may_be_put_there_by_hand(web, tmp_path, monkeypatch):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    good = hashlib.sha256(DATA).hexdigest()
    file = cached(web.url("/a.bin"), sha256=good, policy=QUICK)
    assert file.read_bytes() == DATA and file.name == "a.bin" and tmp_path in file.parents
    asked = len(web.log)
    assert cached(web.url("/a.bin"), policy=QUICK) == file == cached(web.url("/a.bin"), good, QUICK)
    assert len(web.log) == asked
    with pytest.raises(FetchError, match="or put it at") as caught:
        cached(web.url("/none.txt"), policy=QUICK)
    by_hand = Path(str(caught.value).rsplit("put it at ", 1)[1].rstrip(")"))
    by_hand.write_bytes(DATA)
    assert cached(web.url("/none.txt"), good, QUICK) == by_hand == cached(web.url("/none.txt"), policy=QUICK)
    assert cached(str(by_hand)) == by_hand == cached(by_hand.as_uri(), good)
    with pytest.raises(ValueError, match="has sha256"):
        cached(str(by_hand), "0" * 64)
    with pytest.raises(FileNotFoundError):
        cached(str(tmp_path / "nothing"))
