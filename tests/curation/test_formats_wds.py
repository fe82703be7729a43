"""WebDataset tars: samples from members, what becomes which column, round trips, DataComp's layout."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import put, read, written

from curation.formats import FormatError, row_id
from curation.formats.wds import SCHEMA, image_suffix, tar_header

CIFAR = (
    Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
    / "wds_cifar10_test"
)


def tar(members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar as Python's tarfile makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def dense(row: dict) -> dict:
    return {k: v for k, v in row.items() if v is not None}


# ---------------------------------------------------------------- reading


def test_datacomps_members_become_columns(tmp_path):
    meta = {
        "uid": "f" * 32,
        "url": "http://a/1.jpg",
        "caption": "a cat",
        "key": "000000000000",
        "status": "success",
        "error_message": None,
        "width": 512,
        "height": 384,
        "original_width": 1024,
        "original_height": 768,
        "exif": "{}",
        "sha256": "ab",
        "face_bboxes": [[0.1, 0.2, 0.3, 0.4]],
    }
    data = tar(
        [
            ("000000000000.jpg", b"JPEG"),
            ("000000000000.json", json.dumps(meta).encode()),
            ("000000000000.txt", b"a cat"),
        ]
    )
    rows, bads, unread = read(put(tmp_path / "00000000.tar", data))
    assert (bads, unread) == ([], {})
    assert [dense(r) for r in rows] == [
        {
            "id": "f" * 32,
            "text": "a cat",
            "image": b"JPEG",
            "image_ext": "jpg",
            "url": "http://a/1.jpg",
            "width": 512,
            "height": 384,
            "original_width": 1024,
            "original_height": 768,
            "sha256": "ab",
            "extra": '{"exif":"{}","face_bboxes":[[0.1,0.2,0.3,0.4]]}',
        }
    ]


def test_samples_are_neighbours_of_one_basename(tmp_path):
    data = tar(
        [
            ("a/1.PNG", b"png"),
            ("a/1.cls", b"7\n"),
            ("a/1.seg.npy", b"?"),
            ("b/1.webp", b"webp"),
            ("b/1.txt", "é".encode()),
            ("b/1.webp", b"again"),
            ("2.txt", b"no image"),
        ]
    )
    rows, bads, unread = read(put(tmp_path / "x.tar", data))
    assert bads == []
    assert [dense(r) for r in rows] == [
        {"id": row_id("x.tar", 0), "image": b"png", "image_ext": "png", "cls": 7},
        {"id": row_id("x.tar", 3 * 1024), "image": b"webp", "image_ext": "webp", "text": "é"},
        {"id": row_id("x.tar", 5 * 1024), "image": b"again", "image_ext": "webp"},
        {"id": row_id("x.tar", 6 * 1024), "text": "no image"},
    ]
    assert unread == {".seg.npy": 1}


def test_the_caption_stands_in_for_a_missing_txt_and_is_kept_where_it_differs(tmp_path):
    data = tar([("1.json", b'{"caption":"c"}'), ("2.txt", b"t"), ("2.json", b'{"caption":"c"}')])
    rows, _, _ = read(put(tmp_path / "x.tar", data))
    assert [(r["text"], r["extra"]) for r in rows] == [("c", None), ("t", '{"caption":"c"}')]


def test_a_schema_may_name_json_keys_and_leave_others(tmp_path):
    data = tar([("1.jpg", b"x"), ("1.json", b'{"uid":"u","clip":0.5,"lang":"en"}')])
    schema = pa.schema([("id", pa.string()), ("clip", pa.float32())])
    rows, bads, unread = read(put(tmp_path / "x.tar", data), schema=schema)
    assert (rows, bads, unread) == ([{"id": "u", "clip": 0.5}], [], {"lang": 1})
    rows, _, unread = read(tmp_path / "x.tar", columns=["image"])
    assert rows == [{"id": "u", "image": b"x"}]
    assert unread == {"clip": 1, "lang": 1}


def test_members_that_do_not_parse_make_their_sample_bad(tmp_path):
    wrong = [
        ("1.json", b"{", ".json does not parse"),
        ("2.json", b"[]", ".json is not an object"),
        ("3.txt", b"\xff", ".txt is not UTF-8"),
        ("4.cls", b"cat", ".cls is no integer"),
        ("5.json", b'{"width":"wide"}', "column 'width' is int64, found str 'wide'"),
    ]
    members = [
        m
        for name, data, _ in wrong
        for m in ((f"{name[0]}.jpg", b"img"), (name, data), (f"{name[0]}x.jpg", b"ok"))
    ]
    for size in (1, 1 << 20):
        rows, bads, _ = read(put(tmp_path / "x.tar", tar(members)), batch_bytes=size)
        assert [r["image"] for r in rows] == [b"ok"] * 5
        assert sorted(b.position for b in bads) == [i * 3 * 1024 for i in range(5)]
        for bad in bads:
            assert wrong[bad.position // 3072][2] in bad.error


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, format):
    deep = "d" * 90 + "/" + "é" * 60 + "/" + "k" * 90
    data = tar([(f"{deep}.jpg", b"x"), (f"{deep}.txt", b"t"), ("s.jpg", b"y")], format)
    rows, bads, unread = read(put(tmp_path / "x.tar", data))
    assert ([(r["image"], r["text"]) for r in rows], bads, unread) == ([(b"x", "t"), (b"y", None)], [], {})


def test_folders_and_links_are_no_samples_and_nothing_is_extracted(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../../evil.txt")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"t"))
    rows, bads, _ = read(put(tmp_path / "x.tar", out.getvalue()))
    assert ([r["text"] for r in rows], bads) == (["t"], [])
    assert os.listdir(tmp_path) == ["x.tar"]


def test_a_member_over_the_limit_makes_its_sample_bad(tmp_path):
    data = tar([("1.jpg", bytes(5_000)), ("1.txt", b"t"), ("2.jpg", b"ok"), ("2.txt", b"t")])
    rows, bads, _ = read(put(tmp_path / "x.tar", data), max_record_bytes=4_000)
    assert [r["image"] for r in rows] == [b"ok"]
    assert [(b.position, "'1.jpg' of 5000 bytes is over the limit of 4000" in b.error) for b in bads] == [
        (0, True)
    ]


def test_gzip_and_empty_tars(tmp_path):
    data = tar([("1.jpg", b"x")])
    assert read(put(tmp_path / "x.tar.gz", gzip.compress(data)))[0][0]["image"] == b"x"
    assert read(put(tmp_path / "y.tar", b"")) == ([], [], {})
    assert read(put(tmp_path / "z.tar", tar([]))) == ([], [], {})


# ---------------------------------------------------------------- writing

row = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1),
        "text": st.none() | st.text(max_size=50),
        "image": st.none() | st.binary(min_size=1, max_size=2_000),
        "url": st.none() | st.text(max_size=20),
        "width": st.none() | st.integers(0, 10_000),
        "sha256": st.none() | st.text("0123456789abcdef", max_size=8),
        "cls": st.none() | st.integers(0, 999),
        "extra": st.none()
        | st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.integers(-9, 2**53), min_size=1).map(
            lambda d: json.dumps(d, separators=(",", ":"))
        ),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("x")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=10), data=st.data())
def test_any_rows_in_any_batches_give_the_same_bytes_and_come_back(folder, rows, data):
    table = pa.Table.from_pylist(rows, pa.schema([SCHEMA.field(name) for name in rows[0]]))
    packed = written(table, "wds", data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    assert packed == written(table, "wds")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        infos = archive.getmembers()
    assert {(i.mode, i.uid, i.gid, i.mtime, i.type) for i in infos} == {(0o644, 0, 0, 0, tarfile.REGTYPE)}
    found, bads, unread = read(
        put(folder / "x.tar", packed), batch_bytes=data.draw(st.sampled_from([1, 1 << 20]))
    )
    assert (bads, unread) == ([], {})
    for row in rows:
        row["image_ext"] = None if row["image"] is None else image_suffix(row["image"])
    assert [dense(r) for r in found] == [dense(r) for r in rows]


def test_the_layout_is_datacomps():
    table = pa.table(
        {
            "id": ["0" * 31 + "1"],
            "text": ["a cat"],
            "image": [b"\x89PNG\r\n"],
            "url": ["http://a/"],
            "width": [2],
            "height": [3],
            "sha256": ["ab"],
            "clip_score": [0.25],
        }
    )
    packed = written(table, "wds", index=12)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
        meta = json.load(archive.extractfile(names[2]))
    assert names == ["000000120000.png", "000000120000.txt", "000000120000.json"]
    assert meta == {
        "uid": "0" * 31 + "1",
        "url": "http://a/",
        "caption": "a cat",
        "key": "000000120000",
        "width": 2,
        "height": 3,
        "sha256": "ab",
        "clip_score": 0.25,
    }
    assert len(packed) % 10240 == 0


def test_headers_equal_tarfiles():
    info = tarfile.TarInfo("000000000000.jpg")
    info.size = 1234
    theirs = info.tobuf(tarfile.USTAR_FORMAT)
    assert tar_header("000000000000.jpg", 1234) == theirs


def test_webdataset_reads_what_is_written(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    table = pa.table({"id": ["a", "b"], "text": ["x", "é"], "image": [b"GIF8", b"RIFF0000WEBP"]})
    path = put(tmp_path / "x.tar", written(table, "wds"))
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [s["txt"] for s in samples] == [b"x", "é".encode()]
    assert [s.get("gif") or s.get("webp") for s in samples] == [b"GIF8", b"RIFF0000WEBP"]


def test_a_schema_without_images_is_refused():
    with pytest.raises(FormatError, match="needs the columns id and image; there are: id, text"):
        written(pa.table({"id": ["a"], "text": ["t"]}), "wds")


def test_a_real_evaluation_set():
    path = CIFAR / "test" / "0.tar"
    if not path.exists():
        pytest.skip(f"no {path}: set WINNOW_SHARED_DATA to read a real WebDataset")
    rows, bads, unread = read(path)
    assert (len(rows), bads, unread) == (5_000, [], {})
    assert {r["cls"] for r in rows} == set(range(10))
    assert all(r["image"].startswith(b"\xff\xd8\xff") for r in rows)
