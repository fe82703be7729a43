"""WARC and WET: HTTP decoding, which records are rows, round trips, and real Common Crawl samples."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import put, read, written

from curation.formats import FormatError, row_id

pytest.importorskip("fastwarc", reason="fastwarc is not installed: pip install 'winnow-data[text]'")
SAMPLES = (
    Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
    / "commoncrawl_sample"
)


def record(
    block: bytes, type: str = "response", content_type: str = "application/http; msgtype=response"
) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {type}\r\nWARC-Target-URI: http://example.org/a\r\n"
        f"WARC-Date: 2024-05-18T01:58:10Z\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def http(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/html; charset=EUC-JP", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


PAGE = b"<html>" + bytes(range(32, 127)) * 30
CHUNKED = b"5\r\n<html\r\n1\r\n>\r\n0\r\n\r\n"


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (http(PAGE), PAGE),
        (http(gzip.compress(PAGE), "Content-Encoding: gzip"), PAGE),
        (http(CHUNKED, "Transfer-Encoding: chunked"), b"<html>"),
        (http(b""), b""),
        # headers that lie, as crawlers leave them when they store the body decoded
        (http(PAGE, "Content-Encoding: gzip"), PAGE),
        (http(PAGE, "Transfer-Encoding: chunked"), PAGE),
        # bare LF in the header (ClueWeb09), CRLF pairs in the body
        (http(b"a\r\n\r\nb").replace(b"\r\n", b"\n", 2).replace(b"\r\n\r\na", b"\n\na"), b"a\r\n\r\nb"),
    ],
    ids=["plain", "gzip", "chunked", "empty", "not gzip", "not chunked", "bare LF"],
)
def test_the_body_is_decoded(tmp_path, block, content):
    rows, bads, _ = read(put(tmp_path / "x.warc", record(block)))
    assert bads == []
    assert rows == [
        {
            "id": row_id("x.warc", 0),
            "url": "http://example.org/a",
            "date": "2024-05-18T01:58:10Z",
            "http_charset": "euc-jp",
            "content_type": "text/html",
            "content": content,
        }
    ]


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (b"no header at all", "without an HTTP status line"),
        (b"", "without an HTTP status line"),
        (http(b"\x1f\x8b\x08" + b"\xff" * 50, "Content-Encoding: gzip"), "does not decode"),
        (http(CHUNKED[:-9], "Transfer-Encoding: chunked"), "does not decode"),
        (http(gzip.compress(bytes(2_000_000)), "Content-Encoding: gzip"), "over the limit of 1000000 bytes"),
    ],
    ids=["no header", "empty", "broken gzip", "chunks cut", "bomb"],
)
def test_a_body_that_does_not_decode_is_bad_and_its_neighbours_are_not(tmp_path, block, error):
    good = record(http(PAGE))
    path = put(tmp_path / "x.warc", good + record(block) + good)
    rows, bads, _ = read(path, max_record_bytes=1_000_000)
    assert [r["content"] for r in rows] == [PAGE, PAGE]
    assert [b.position for b in bads] == [len(good)]
    assert error in bads[0].error


def test_only_http_responses_are_rows(tmp_path):
    data = (
        record(b"software: x", "warcinfo", "application/warc-fields")
        + record(b"GET / HTTP/1.1\r\n\r\n", "request", "application/http; msgtype=request")
        + record(http(b"one"))
        + record(b"", "revisit")
        + record(b"20240518 1.2.3.4", "response", "text/dns")
        + record(http(b"two"))
        + record(b"k: v", "metadata", "application/warc-fields")
    )
    for name, packed in (("x.warc", data), ("x.warc.gz", gzip.compress(data))):
        rows, bads, _ = read(put(tmp_path / name, packed))
        assert ([r["content"] for r in rows], bads) == ([b"one", b"two"], [])


def test_a_wet_gives_text(tmp_path):
    data = record(b"software: x", "warcinfo", "application/warc-fields") + record(
        "naïve\n".encode(), "conversion", "text/plain"
    )
    rows, bads, _ = read(put(tmp_path / "x.warc.wet.gz", gzip.compress(data)))
    assert bads == []
    assert [(r["url"], r["date"], r["text"]) for r in rows] == [
        ("http://example.org/a", "2024-05-18T01:58:10Z", "naïve\n")
    ]
    rows, bads, _ = read(put(tmp_path / "y.wet", record(b"\xff", "conversion", "text/plain")))
    assert rows == []
    assert "utf-8" in bads[0].error


def test_ids_come_from_the_place_in_the_file(tmp_path):
    one, two = record(http(b"one")), record(http(b"two"))
    path = put(tmp_path / "x.warc.gz", gzip.compress(one) + gzip.compress(two + one))
    second = len(gzip.compress(one))
    expected = [row_id("x.warc.gz", p) for p in (0, second, f"{second}+{len(two)}")]
    for size in (1, 1 << 20):
        assert [r["id"] for r in read(path, batch_bytes=size)[0]] == expected


def test_a_record_over_the_limit_is_passed_over_unheld(tmp_path):
    small, large = record(http(b"small")), record(http(bytes(100_000)))
    for name, pack in (("x.warc", lambda b: b), ("x.warc.gz", gzip.compress)):
        path = put(tmp_path / name, pack(small) + pack(large) + pack(small))
        rows, bads, _ = read(path, max_record_bytes=50_000)
        assert len(rows) == 2
        assert [b.position for b in bads] == [len(pack(small))]
        assert "over the limit of 50000" in bads[0].error


# ---------------------------------------------------------------- writing

row = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1),
        "url": st.none()
        | st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="<>"), min_size=1),
        "date": st.just("2024-05-18T01:58:10Z"),
        "http_charset": st.sampled_from([None, "utf-8", "euc-jp"]),
        "content_type": st.sampled_from(["text/html", "application/pdf"]),
        "content": st.binary(max_size=300),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("x")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=12), data=st.data())
def test_any_rows_in_any_batches_give_the_same_bytes_and_come_back(folder, rows, data):
    schema = pa.schema(
        [(k, pa.string()) for k in ("id", "url", "date", "http_charset", "content_type")]
        + [("content", pa.binary())]
    )
    table = pa.Table.from_pylist(rows, schema)
    packed = written(table, "warc.gz", data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    assert packed == written(table, "warc.gz")
    found, bads, _ = read(
        put(folder / "x.warc.gz", packed), batch_bytes=data.draw(st.sampled_from([1, 1 << 20]))
    )
    assert (found, bads) == (rows, [])


def test_what_is_written_is_a_warc_to_others():
    warcio = pytest.importorskip("warcio.archiveiterator")
    table = pa.table(
        {"id": ["é\n"], "url": ["http://a/\r\nX:y"], "content": [PAGE], "content_type": ["text/html"]}
    )
    found = next(warcio.ArchiveIterator(io.BytesIO(written(table, "warc.gz")), check_digests=True))
    assert found.rec_type == "response"
    assert found.rec_headers["WARC-Target-URI"] == "http://a/%0D%0AX:y"
    assert found.http_headers["Content-Type"] == "text/html"
    assert found.content_stream().read() == PAGE
    text = next(
        warcio.ArchiveIterator(io.BytesIO(written(pa.table({"id": ["a"], "text": ["naïve"]}), "warc.gz")))
    )
    assert (text.rec_type, text.content_stream().read()) == ("conversion", "naïve".encode())


def test_a_schema_without_content_is_refused():
    with pytest.raises(FormatError, match="missing: text; there are: id, n"):
        written(pa.table({"id": ["a"], "n": [1]}), "warc.gz")


# ---------------------------------------------------------------- Common Crawl's own


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("whirlwind.warc", 1, b"<!DOCTYPE html>\n<html class="),
        ("whirlwind.warc.gz", 1, b"<!DOCTYPE html>\n<html class="),
        ("whirlwind.warc.wet", 1, "Escopete - Biquipedia, a encic"),
        ("whirlwind.warc.wet.gz", 1, "Escopete - Biquipedia, a encic"),
        ("warcfile.warc", 16, b"<html>\r\n<head>\r\n"),
        ("warcfile.warc.gz", 16, b"<html>\r\n<head>\r\n"),
        ("clueweb-quirk.warc.gz", 29, b"<html>\n<head>\n<title>\xa5\xd6"),
        ("block-sized-records.warc.gz", 0, None),
    ],
)
def test_real_samples(name, count, first):
    if not (SAMPLES / name).exists():
        pytest.skip(f"no {SAMPLES / name}: set WINNOW_SHARED_DATA to read real Common Crawl files")
    rows, bads, _ = read(SAMPLES / name)
    assert (len(rows), bads) == (count, [])
    assert len({r["id"] for r in rows}) == count
    if rows:
        body = rows[0].get("content", rows[0].get("text"))
        assert body[: len(first)] == first


def test_real_bodies_equal_fastwarcs_own_reading():
    path = SAMPLES / "warcfile.warc.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set WINNOW_SHARED_DATA to read real Common Crawl files")
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as file:
        kind = WarcRecordType.response
        records = ArchiveIterator(file, record_types=kind, parse_http=True, auto_decode="all")
        theirs = [(r.headers["WARC-Target-URI"], r.http_charset, r.reader.read()) for r in records]
    assert [(r["url"], r["http_charset"], r["content"]) for r in read(path)[0]] == theirs


def test_a_really_clipped_sample_is_one_bad_record():
    path = SAMPLES / "clipped.warc.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set WINNOW_SHARED_DATA to read real Common Crawl files")
    rows, bads, _ = read(path)
    assert rows == []
    assert [(b.position, b.error) for b in bads] == [(0, "truncated gzip member at byte 0")]
