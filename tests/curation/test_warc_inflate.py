"""Gzip members are inflated in one go where that is safe: rows and damages are those of the careful walk."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import put, read

from curation.formats import warc

pytest.importorskip("fastwarc", reason="fastwarc is not installed: pip install 'winnow-data[text]'")
SAMPLES = (
    Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
    / "commoncrawl_sample"
)


def record(block: bytes, kind: str = "response", name: bytes = b"WARC-Type") -> bytes:
    head = b"WARC/1.0\r\n%s: %s\r\nWARC-Target-URI: http://a/b\r\nContent-Type: application/http\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(block)
    return head % (name, kind.encode()) + length + block + b"\r\n\r\n"


def page(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/html; charset=EUC-JP", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def both(path: Path, monkeypatch, **options):
    """(rows, bads) by the quick way and by the careful one, with each batch size the same."""
    quick = read(path, **options)[:2]
    with monkeypatch.context() as patch:
        patch.setattr(warc, "_inflater", lambda: None)
        careful = read(path, **options)[:2]
    return quick, careful


MEMBERS = [gzip.compress(record(page(bytes([65 + i]) * n))) for i, n in enumerate((10, 3000, 70_000, 1, 900))]


@pytest.mark.parametrize(
    "data",
    [
        b"".join(MEMBERS),
        b"\0\0".join(MEMBERS) + b"\0" * 50,  # padding
        gzip.compress(record(page(b"a")) + record(b"x", "warcinfo") + record(page(b"b"))) + MEMBERS[0],
        gzip.compress(b"") + MEMBERS[0],
        gzip.compress(b"\r\n" + record(page(b"a"))) + MEMBERS[0],
        gzip.compress(record(page(b"a"))[:-4]) + gzip.compress(record(page(b"a")) + b"junk") + MEMBERS[0],
        gzip.compress(record(page(b"a"))[:-40]) + MEMBERS[0],
        gzip.compress(b"no record") + MEMBERS[0],
        gzip.compress(record(page(b"a")).replace(b"\r\n", b"\n")) + MEMBERS[0],
        MEMBERS[0] + b"garbage" + MEMBERS[1],
        MEMBERS[0][:-1] + MEMBERS[1] + MEMBERS[2],
        MEMBERS[0] + MEMBERS[1][: len(MEMBERS[1]) // 2],
        gzip.compress(record(page(gzip.compress(b"inner"), "Content-Encoding: gzip")), 0) + MEMBERS[0],
        gzip.compress(record(b"", "response")) + MEMBERS[0],
    ],
    ids=[
        "plain", "padding", "several records", "empty member", "blank first", "odd ends", "short record",
        "not a record", "bare LF", "garbage between", "member cut", "file cut", "magic inside", "empty block",
    ],
)  # fmt: skip
def test_odd_members(tmp_path, monkeypatch, data):
    path = put(tmp_path / "x.warc.gz", data)
    for options in ({}, {"batch_bytes": 1}, {"max_record_bytes": 2_000}):
        quick, careful = both(path, monkeypatch, **options)
        assert quick == careful


def test_members_longer_than_what_is_read_at_once(tmp_path, monkeypatch):
    noise = random.Random(1).randbytes(700_000)
    path = put(tmp_path / "x.warc.gz", MEMBERS[0] + gzip.compress(record(page(noise)), 1) + MEMBERS[1])
    quick, careful = both(path, monkeypatch)
    assert quick == careful and [len(row["content"]) for row in quick[0]] == [10, 700_000, 3000]
    monkeypatch.setattr(warc, "_WINDOW", 1 << 16)  # shorter than the member
    assert both(path, monkeypatch)[0] == careful


def test_flipped_bits(tmp_path, monkeypatch):
    data, rng = b"".join(MEMBERS), random.Random(7)
    for case in range(60):
        broken = bytearray(data)
        for _ in range(1 + case % 3):
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        quick, careful = both(put(tmp_path / f"{case}.warc.gz", bytes(broken)), monkeypatch)
        assert quick == careful, case


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("x")


header = st.sampled_from(
    [
        "content-type: text/plain", "CONTENT-TYPE:  text/HTML ;Charset='utf-8'", "Content-Type : a/b",
        "Content-Type:", "Content-Type: text/html; charset=\"gbk\"; x=y", "Content-Encoding: identity",
        "Content-Encoding: br", "Transfer-Encoding: chunked", "Content-Length: 3", "X: y", " folded",
        "X-Content-Type: no/no", "Content-Typed: no/no", "Set-Cookie: a\nb",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(headers=st.lists(header, max_size=4), body=st.binary(max_size=40), first=st.sampled_from(["OK", ""]))
def test_any_http_header_reads_as_fastwarc_reads_it(headers, body, first):
    block = "\r\n".join([f"HTTP/1.1 200 {first}", *headers]).encode() + b"\r\n\r\n" + body
    quick = warc._plain_http(warc._Record(0, 0, {}, b"before" + block + b"after", 6, 6 + len(block)), 1 << 20)
    if quick is not None:
        kind, charset, content = quick
        assert (kind, charset, bytes(content)) == warc._http(warc._crlf_header(block), 1 << 20)


@pytest.mark.parametrize(
    "name", ["warcfile.warc.gz", "clueweb-quirk.warc.gz", "whirlwind.warc.wet.gz", "clipped.warc.gz"]
)
def test_real_samples(name, monkeypatch):
    if not (SAMPLES / name).exists():
        pytest.skip(f"no {SAMPLES / name}: set WINNOW_SHARED_DATA to read real Common Crawl files")
    quick, careful = both(SAMPLES / name, monkeypatch)
    assert quick == careful
