"""JSON lines: what a line means, what a schema is, round trips, parts, bytes."""

from __future__ import annotations

import gzip
import json

import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import put, read, written

from curation.formats import ColumnNotFound, FormatError, is_json, pool_schema, reader_schema, row_id
from curation.formats import jsonl as jsonl_module
from curation.shards import list_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("x")


TABLE = pa.table(
    {
        "id": ["a", "b", "c"],
        "text": ["naïve\x00\u2028 😀", None, ""],
        "n": pa.array([1, None, -(2**63)], pa.int64()),
        "x": [1.0, 0.1, None],
        "ok": [True, None, False],
    }
)


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_round_trip(tmp_path, suffix):
    path = put(tmp_path / f"x.{suffix}", written(TABLE, suffix))
    rows, bads, unread = read(path)
    assert (rows, bads, unread) == (TABLE.to_pylist(), [], {})


def test_compressed_files_are_one_frame_that_every_reader_reads_whole():
    plain = written(TABLE, "jsonl")
    assert gzip.decompress(written(TABLE, "jsonl.gz")) == plain
    packed = written(TABLE, "jsonl.zst")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    assert written(TABLE, "jsonl.gz")[4:8] == bytes(4)  # no time in the header


rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(min_size=1),
            "text": st.none() | st.text(max_size=200),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "tags": st.none() | st.lists(st.text(max_size=3), max_size=3),
        }
    ),
    min_size=1,
    max_size=30,
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("tags", pa.list_(pa.string())),
    ]
)


@settings(max_examples=60, deadline=None)
@given(rows=rows_strategy, data=st.data(), suffix=st.sampled_from(["jsonl", "jsonl.gz", "jsonl.zst"]))
def test_any_rows_in_any_batches_give_the_same_bytes_and_come_back(folder, rows, data, suffix):
    table = pa.Table.from_pylist(rows, SCHEMA)
    splits = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_module, "_FEED", 64)
        packed = written(table, suffix, splits)
        assert packed == written(table, suffix)
    path = put(folder / f"x.{suffix}", packed)
    size = data.draw(st.sampled_from([1, 50, 1 << 20]))
    found, bads, _ = read(path, schema=SCHEMA, batch_bytes=size)
    assert (found, bads) == (rows, [])


def test_binary_columns_are_refused_before_anything_is_written():
    with pytest.raises(FormatError, match="'image' is binary"):
        written(pa.table({"id": ["a"], "image": [b"x"]}), "jsonl")


# ---------------------------------------------------------------- what a line means


def test_bom_crlf_blank_lines_and_a_missing_last_line_end(tmp_path):
    data = b'\xef\xbb\xbf{"text":"a"}\r\n\r\n  \n{"text":"b"}\r\n{"text":"c"}'
    rows, bads, _ = read(put(tmp_path / "x.jsonl", data))
    assert [r["text"] for r in rows] == ["a", "b", "c"]
    assert bads == []
    # ids come from byte offsets in the file, the mark included
    assert [r["id"] for r in rows] == [row_id("x.jsonl", at) for at in (3, 22, 36)]


def test_an_empty_file_has_no_rows_and_nothing_bad(tmp_path):
    for name, data in (
        ("x.jsonl", b""),
        ("y.jsonl.gz", b""),
        ("z.jsonl.gz", gzip.compress(b"")),
        ("w.jsonl", b"\n\n"),
    ):
        path = put(tmp_path / name, data)
        assert read(path) == ([], [], {})
        (shard,) = list_shards(str(path))
        assert reader_schema(shard) == pa.schema([("id", pa.string())])


def test_each_wrong_line_is_quarantined_alone(tmp_path):
    wrong = {
        b'{"text": "cut': "unexpected end",
        b'{"text": "\xff\xfe"}': "UTF-8",
        b'{"text": "\\ud800"}': "surrogate",
        b'{"text": "raw \x00 byte"}': "control character",
        b"[1, 2]": "a JSON array, not an object",
        b'"text"': "a JSON string, not an object",
        b"null": "a JSON null, not an object",
        b"17": "a JSON number, not an object",
        b'{"text": "a"} {"text": "b"}': "unexpected content",
        b'{"text": NaN}': "unexpected character",
        b'{"text": 5}': "column 'text' is string, found int 5",
        b'{"text": "x", "n": "5"}': "column 'n' is int64, found str '5'",
        b'{"text": "x", "n": 1.5}': "column 'n' is int64, found float 1.5",
        b'{"text": "x", "n": true}': "column 'n' is int64, found bool True",
        b'{"text": "x", "n": 9223372036854775808}': "column 'n' is int64, found int 9223372036854775808",
    }
    good = b'{"text": "fine \\u0000", "n": 3}'
    body, at, starts = good + b"\n", len(good) + 1, []
    for line in wrong:
        starts.append(at)
        body += line + b"\n" + good + b"\n"
        at += len(line) + len(good) + 2
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("n", pa.int64())])
    for size in (1, 100, 1 << 20):  # whatever shares a batch with whatever
        rows, bads, _ = read(put(tmp_path / "x.jsonl", body), schema=schema, batch_bytes=size)
        assert [(r["text"], r["n"]) for r in rows] == [("fine \x00", 3)] * (len(wrong) + 1)
        found = {bad.position: bad for bad in bads}
        assert sorted(found) == starts
        assert len(bads) == len(wrong)
        for start, (line, error) in zip(starts, wrong.items(), strict=True):
            assert error in found[start].error
            assert f"byte {start}" in found[start].error
            if "column" not in error:
                assert found[start].sample == line


def test_the_last_value_of_a_doubled_key_counts(tmp_path):
    rows, _, _ = read(put(tmp_path / "x.jsonl", b'{"text":"a","text":"b"}\n'))
    assert rows[0]["text"] == "b"


@pytest.mark.parametrize("size", [1 << 10, 16 << 20])
def test_a_line_over_the_limit_is_quarantined_unheld(tmp_path, size):
    long = b'{"text":"' + b"x" * 5_000 + b'"}\n'
    good = b'{"text":"ok"}\n'
    path = put(tmp_path / "x.jsonl", good + long + good + long + good)
    rows, bads, _ = read(path, max_record_bytes=2_000, batch_bytes=size)
    assert [r["text"] for r in rows] == ["ok"] * 3
    assert [b.position for b in bads] == [len(good), 2 * len(good) + len(long)]
    assert all(f"line of {len(long) - 1} bytes" in b.error and "max_record_bytes" in b.error for b in bads)
    assert all(b.sample == long[:1_000] for b in bads)
    # and as the last line, without a line end
    rows, bads, _ = read(put(path, good + long.rstrip()), max_record_bytes=2_000, batch_bytes=size)
    assert (len(rows), [b.position for b in bads]) == (1, [len(good)])


# ---------------------------------------------------------------- schema


def test_inferred_types(tmp_path):
    rows = [
        {"s": "a", "i": 1, "f": 1, "b": True, "o": {"a": [1, None]}, "l": [], "null": None, "big": 2**64},
        {"s": None, "i": None, "f": 0.5, "b": None, "o": None, "late": "x"},
    ]
    (shard,) = list_shards(str(put(tmp_path / "x.jsonl", lines(*rows))))
    schema = reader_schema(shard)
    types = {f.name: (str(f.type), is_json(f)) for f in schema}
    assert types == {
        "id": ("string", False),
        "s": ("string", False),
        "i": ("int64", False),
        "f": ("double", False),
        "b": ("bool", False),
        "o": ("string", True),
        "l": ("string", True),
        "null": ("string", False),
        "big": ("double", False),
        "late": ("string", False),
    }
    found, bads, _ = read(shard)
    assert bads == []
    assert found[0]["o"] == '{"a":[1,null]}'
    assert found[1]["o"] is None
    assert found[0]["f"] == 1.0


def test_json_columns_are_written_back_as_they_were(tmp_path):
    rows = [
        {"id": "a", "meta": {"k": [1, {"z": None}]}},
        {"id": "b", "meta": None},
        {"id": "c", "meta": ["x"]},
    ]
    (shard,) = list_shards(str(put(tmp_path / "x.jsonl", lines(*rows))))
    found, _, _ = read(shard)
    again = written(pa.Table.from_pylist(found, reader_schema(shard)), "jsonl")
    # the same rows under a schema that lost its metadata, whatever shares a batch
    bare = pa.schema([(f.name, f.type) for f in reader_schema(shard)])
    for size in (1, 1 << 20):
        assert read(shard, schema=bare, batch_bytes=size)[:2] == (found, [])
    assert [orjson.loads(line) for line in again.splitlines()] == rows


def test_a_few_wrong_values_do_not_decide_a_type_but_many_do(tmp_path):
    few = [{"n": i} for i in range(99)] + [{"n": "x"}]
    rows, bads, _ = read(put(tmp_path / "few.jsonl", lines(*few)))
    assert len(rows) == 99
    assert "column 'n' is int64" in bads[0].error
    many = [{"n": 1}, {"n": "x"}, {"n": [2]}]
    rows, bads, _ = read(put(tmp_path / "many.jsonl", lines(*many)))
    assert [r["n"] for r in rows] == ["1", "x", "[2]"]
    assert bads == []


def test_inference_reads_the_first_thousand_good_rows_only(tmp_path):
    rows = [{"n": 1}] * 1_000 + [{"n": 1, "late": 2}]
    path = put(tmp_path / "x.jsonl", lines(*rows))
    found, bads, unread = read(path)
    assert (len(found), bads, unread) == (1_001, [], {"late": 1})


def test_projection_and_unread_keys(tmp_path):
    path = put(tmp_path / "x.jsonl", lines({"id": "1", "a": 1, "b": 2}, {"id": "2", "a": 1}))
    rows, _, unread = read(path, columns=["a"])
    assert rows == [{"id": "1", "a": 1}, {"id": "2", "a": 1}]
    assert unread == {"b": 1}
    with pytest.raises(ColumnNotFound, match=r"no column 'c'; there are: id, a, b$") as caught:
        read(path, columns=["c"])
    assert isinstance(caught.value, (FormatError, KeyError))


def test_a_pool_has_one_schema_and_missing_keys_are_null(tmp_path):
    put(tmp_path / "a.jsonl", b"")
    put(tmp_path / "b.jsonl", lines({"text": "x", "n": 1}))
    put(tmp_path / "c.jsonl", lines({"text": "y", "n": 1.5, "lang": "en"}))
    shards = list_shards(str(tmp_path))
    schema = pool_schema(shards)
    assert [(f.name, str(f.type)) for f in schema] == [
        ("id", "string"),
        ("text", "string"),
        ("n", "double"),
        ("lang", "string"),
    ]
    assert [{k: r[k] for k in ("text", "n", "lang")} for s in shards for r in read(s, schema=schema)[0]] == [
        {"text": "x", "n": 1.0, "lang": None},
        {"text": "y", "n": 1.5, "lang": "en"},
    ]


# ---------------------------------------------------------------- ids and parts


def test_ids_are_the_rows_own_or_uid_or_made(tmp_path):
    rows = [{"id": "x"}, {"id": 7}, {"id": None, "uid": "u"}, {"uid": "v"}, {"id": None}, {"id": True}]
    found, bads, _ = read(put(tmp_path / "x.jsonl", lines(*rows)))
    assert [r["id"] for r in found[:4]] == ["x", "7", "u", "v"]
    assert found[4]["id"] == row_id("x.jsonl", len(lines(*rows[:4])))
    assert found[5]["id"] == "true"
    assert len(found[4]["id"]) == 32
    assert bads == []


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=20),
    split=st.integers(1, 400),
    batch=st.integers(1, 400),
    bom=st.booleans(),
)
def test_parts_hold_every_line_once_and_ids_do_not_depend_on_them(folder, texts, split, batch, bom):
    data = (b"\xef\xbb\xbf" if bom else b"") + lines(*[{"text": t} for t in texts])
    path = put(folder / "x.jsonl", data)
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    whole, _, _ = read(path, schema=schema)
    assert [r["text"] for r in whole] == texts
    shards = list_shards(str(path), split_bytes=split)
    assert sum(s.size for s in shards) == len(data)
    assert len({s.key for s in shards}) == len(shards)
    parts = []
    for shard in shards:
        rows, bads, _ = read(shard, schema=schema, batch_bytes=batch)
        parts += rows
        assert bads == []
    assert parts == whole
