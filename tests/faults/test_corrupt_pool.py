"""A pool with every kind of damage goes through the engine: counted, quarantined, nothing lost."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest
from support import read_rows

import curation as c


@c.score
def n_chars(text: str) -> int:
    return len(text)


def lines_of(rows):
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


GOOD = [{"id": f"g{i}", "text": f"good row {i}"} for i in range(20)]

# name → (bytes, rows that come out, records that are quarantined)
CORPUS = {
    "plain.jsonl": (lines_of(GOOD), 20, 0),
    "empty.jsonl": (b"", 0, 0),
    "not-json.jsonl": (lines_of(GOOD[:5]) + b"{not json}\n" + lines_of(GOOD[5:]), 20, 1),
    "not-utf8.jsonl": (lines_of(GOOD[:5]) + b'{"id": "x", "text": "\xff\xfe"}\n' + lines_of(GOOD[5:]), 20, 1),
    "lone-surrogate.jsonl": (lines_of(GOOD) + b'{"id": "s", "text": "a\\ud800b"}\n', 20, 1),
    "nul-escape.jsonl": (lines_of(GOOD) + b'{"id": "n", "text": "a\\u0000b"}\n', 21, 0),
    "crlf-bom.jsonl": (b"\xef\xbb\xbf" + lines_of(GOOD).replace(b"\n", b"\r\n"), 20, 0),
    "long-line.jsonl": (lines_of(GOOD) + b'{"id": "l", "text": "' + b"x" * (50 << 20) + b'"}\n', 20, 1),
    "duplicate-ids.jsonl": (lines_of(GOOD + GOOD[:3]), 20, 3),
    "cut.jsonl.gz": (gzip.compress(lines_of(GOOD * 400), mtime=0)[:-400], None, None),
}


@pytest.mark.parametrize("name", CORPUS)
def test_each_kind_of_damage(tmp_path, name):
    data, out, bad = CORPUS[name]
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / name).write_bytes(data)
    if name == "empty.jsonl":  # a pool of nothing but an empty file has no columns; beside a good one it has
        (tmp_path / "pool" / "good.jsonl").write_bytes(lines_of(GOOD[:1]))
        out = 1
    result = c.run(
        [c.read(tmp_path / "pool"), n_chars, c.write(tmp_path / "out")],
        progress=False, funnel=False, error_budget=1.0,
    )  # fmt: skip
    assert result.rows_in == result.rows_out + result.quarantined
    assert len(read_rows(tmp_path / "out")) == result.rows_out
    if out is not None:
        assert (result.rows_out, result.quarantined) == (out, bad)
    else:
        assert result.quarantined >= 1 and result.rows_out == 20  # repeated ids are quarantined, the cut once
    lines = [json.loads(x) for f in (tmp_path / "out/_winnow/bad").rglob("*.jsonl") for x in f.open()]
    assert len(lines) == result.quarantined
    assert all(
        line["source"].endswith(name) and line["position"] is not None and line["error"] for line in lines
    )


def test_unreadable_images_and_a_tar_cut_short(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    from filters.image_text import image_basics

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(12):
            picture = io.BytesIO()
            image.new("RGB", (8 + number, 8)).save(picture, "PNG")
            body = picture.getvalue() if number != 4 else b"this is no picture"
            for suffix, data in (
                ("png", body),
                ("txt", f"caption {number}".encode()),
                ("json", json.dumps({"uid": f"{number:032x}"}).encode()),
            ):
                info = tarfile.TarInfo(f"{number:012d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    pool = tmp_path / "pool"
    pool.mkdir()
    whole = buffer.getvalue()
    (pool / "00000000.tar").write_bytes(whole)
    (pool / "00000001.tar").write_bytes(whole[: len(whole) // 2])
    result = c.run(
        [c.read(pool), image_basics(), c.write(tmp_path / "out", format="wds")],
        progress=False, funnel=False, error_budget=1.0,
    )  # fmt: skip
    assert result.rows_in == result.rows_out + result.quarantined
    by = result.report["quarantined"]["by_error"]
    assert sum(v for k, v in by.items() if k.startswith("image_basics")) == 2  # row 4 of each tar
    assert sum(v for k, v in by.items() if k.startswith("read")) == 1  # the cut


def test_zero_rows_all_the_way(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "pool").mkdir()
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "pool" / "none.parquet")
    plan = [c.read(tmp_path / "pool"), n_chars, c.keep("n_chars > 1", reason="r"), c.dedup_exact(on="text"),
            c.top_fraction("n_chars", 0.5), c.shuffle(seed=1), c.write(tmp_path / "out")]  # fmt: skip
    result = c.run(plan, progress=False)
    assert (result.rows_in, result.rows_out, result.quarantined) == (0, 0, 0)
    assert read_rows(tmp_path / "out") == []
