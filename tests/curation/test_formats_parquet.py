"""Parquet: round trips, projection, parts, ids, and row groups that do not depend on batches."""

from __future__ import annotations

import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import put, read, written

from curation.formats import FormatError, reader_schema, row_id
from curation.formats import parquet as parquet_module
from curation.formats.rebuffer import Rebuffer, row_bytes
from curation.shards import list_shards

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("image", pa.binary()),
        ("n", pa.int32()),
        ("x", pa.float32()),
        ("ok", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("gopher", pa.struct([("words", pa.int64()), ("why", pa.string())])),
    ]
)
rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(),
            "text": st.none() | st.text(max_size=100),
            "image": st.none() | st.binary(max_size=50),
            "n": st.none() | st.integers(-(2**31), 2**31 - 1),
            "x": st.none() | st.floats(width=32, allow_nan=False),
            "ok": st.none() | st.booleans(),
            "tags": st.none() | st.lists(st.none() | st.text(max_size=5), max_size=4),
            "gopher": st.none()
            | st.fixed_dictionaries(
                {"words": st.none() | st.integers(0, 9), "why": st.none() | st.text(max_size=9)}
            ),
        }
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("x")


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_strategy,
    data=st.data(),
    max_rows=st.sampled_from([3, 1_000]),
    max_bytes=st.sampled_from([90, 1 << 20]),
)
def test_any_rows_in_any_batches_give_the_same_bytes_and_come_back(folder, rows, data, max_rows, max_bytes):
    table = pa.Table.from_pylist(rows, SCHEMA)
    splits = data.draw(st.lists(st.integers(0, len(rows)), max_size=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_module, "ROW_GROUP_ROWS", max_rows)
        patch.setattr(parquet_module, "ROW_GROUP_BYTES", max_bytes)
        packed = written(table, "parquet", splits)
        assert packed == written(table, "parquet")
    path = put(folder / "x.parquet", packed)
    assert pq.read_table(path).to_pylist() == rows
    found, bads, _ = read(path, batch_bytes=data.draw(st.sampled_from([1, 200, 1 << 20])))
    assert (found, bads) == (rows, [])


def test_slices_and_values_under_nulls_do_not_change_the_bytes():
    # Two arrays of the same rows over different buffers: garbage under the null, an offset, a spare bitmap.
    plain = pa.array(["a", None, "c"])
    dirty = pa.Array.from_buffers(
        pa.string(),
        3,
        [pa.py_buffer(b"\x05"), pa.py_buffer(struct.pack("<4i", 0, 1, 9, 10)), pa.py_buffer(b"agarbagexc")],
    )
    sliced = pa.array(["z", "a", None, "c"]).slice(1)
    same = (plain, dirty, sliced)
    assert all(column.to_pylist() == ["a", None, "c"] for column in same)
    ids = ["1", "2", "3"]
    for format in ("parquet", "jsonl"):
        assert len({written(pa.table({"id": ids, "text": column}), format) for column in same}) == 1


def test_row_bytes_count_values_not_buffers():
    batch = pa.record_batch(
        {
            "s": pa.array(["ab", None, "ü"]),
            "n": pa.array([1, None, 3], pa.int32()),
            "l": pa.array([["a", "bc"], None, []]),
            "d": pa.array(["x", "x", None]).dictionary_encode(),
            "t": pa.array([{"a": "xyz"}, None, {"a": None}]),
        }
    )
    # string: 4 + bytes; int32: 4; list: 4 + its values; dictionary: as its values; struct: its fields
    assert row_bytes(batch).tolist() == [6 + 4 + (4 + 5 + 6) + 5 + 7, 4 + 4 + 4 + 5 + 4, 6 + 4 + 4 + 4 + 4]
    assert row_bytes(batch.slice(1)).tolist() == row_bytes(batch).tolist()[1:]


def test_groups_close_with_the_row_that_fills_them():
    table = pa.table({"id": ["x" * n for n in (1, 1, 30, 1, 1, 1, 1)]})

    def groups(size: int) -> list[int]:
        rebuffer = Rebuffer(table.schema, 3, 20)
        full = [group.num_rows for batch in table.to_batches(size) for group in rebuffer.add(batch)]
        return [*full, *(group.num_rows for group in rebuffer.rest())]

    # ids take 4 + length bytes: 5, 5, 34 | 5, 5, 5 | 5
    assert groups(1) == groups(2) == groups(7) == [3, 3, 1]


# ---------------------------------------------------------------- schema, projection, types


def test_wide_types_become_plain_ones(tmp_path):
    table = pa.table(
        {
            "uid": pa.array(["u1", "u2"], pa.large_string()),
            "text": pa.array(["a", "b"]).dictionary_encode(),
            "image": pa.array([b"1", None], pa.large_binary()),
            "boxes": pa.array([[[0.0, 1.0]], []], pa.list_(pa.list_(pa.float64()))),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    rows, bads, _ = read(tmp_path / "x.parquet")
    (shard,) = list_shards(str(tmp_path))
    assert [(f.name, str(f.type)) for f in reader_schema(shard)] == [
        ("id", "string"),
        ("text", "string"),
        ("image", "binary"),
        ("boxes", "list<element: list<element: double>>"),
    ]
    assert rows == [
        {"id": "u1", "text": "a", "image": b"1", "boxes": [[0.0, 1.0]]},
        {"id": "u2", "text": "b", "image": None, "boxes": []},
    ]
    assert bads == []


def test_projection_is_pushed_down_and_counts_what_is_left(tmp_path):
    pq.write_table(pa.table({"uid": ["a"], "text": ["t"], "image": [b"i"]}), tmp_path / "x.parquet")
    rows, _, unread = read(tmp_path / "x.parquet", columns=["text"])
    assert rows == [{"id": "a", "text": "t"}]
    assert unread == {"image": 1}
    assert read(tmp_path / "x.parquet", columns=["uid"])[0] == [{"id": "a"}]
    with pytest.raises(FormatError, match="no column 'caption'; there are: id, text, image"):
        read(tmp_path / "x.parquet", columns=["caption"])


def test_a_pool_schema_fills_and_casts(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "x.parquet")
    schema = pa.schema([("id", pa.string()), ("n", pa.int64()), ("lang", pa.string())])
    assert read(tmp_path / "x.parquet", schema=schema)[0] == [{"id": "a", "n": 1, "lang": None}]
    pq.write_table(pa.table({"id": ["a"], "n": ["one"]}), tmp_path / "x.parquet")
    with pytest.raises(FormatError, match="column 'n' is string, the pool's is int64"):
        read(tmp_path / "x.parquet", schema=schema)


def test_ids_are_cast_made_and_independent_of_batches_and_parts(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1, None, 3]}), path)
    assert [r["id"] for r in read(path)[0]] == ["1", row_id("x.parquet", 1), "3"]
    pq.write_table(pa.table({"id": [b"\x01\xff", None, b""]}), path)
    assert [r["id"] for r in read(path)[0]] == ["01ff", row_id("x.parquet", 1), ""]
    pq.write_table(pa.table({"text": [str(i) for i in range(10)]}), path, row_group_size=4)
    expected = [row_id("x.parquet", i) for i in range(10)]
    for size in (1, 1 << 20):
        assert [r["id"] for r in read(path, batch_bytes=size)[0]] == expected
    parts = list_shards(str(path), split_bytes=1)
    assert [s.part for s in parts] == ["groups:0-1", "groups:1-2", "groups:2-3"]
    assert [r["id"] for s in parts for r in read(s)[0]] == expected
    assert read(path, columns=["id"])[0] == [{"id": i} for i in expected]


def test_zero_rows(tmp_path):
    path = put(tmp_path / "x.parquet", written(SCHEMA.empty_table(), "parquet"))
    assert read(path) == ([], [], {})
    (shard,) = list_shards(str(path))
    assert reader_schema(shard).names == SCHEMA.names


def test_batches_are_near_the_size_asked_for(tmp_path):
    table = pa.table(
        {"id": [str(i) for i in range(5_000)], "text": ["x" * 990 + f"{i:010d}" for i in range(5_000)]}
    )
    path = put(tmp_path / "x.parquet", written(table, "parquet"))
    from curation.formats import read_batches

    (shard,) = list_shards(str(path))
    sizes = [b.nbytes for b in read_batches(shard, batch_bytes=500_000, bad=pytest.fail)]
    assert len(sizes) == pytest.approx(10, abs=3)
    assert max(sizes) < 1_000_000


def test_pages_carry_checksums():
    packed = written(pa.table({"id": ["a" * 100]}), "parquet")
    # A damaged value is found even where zstd alone would not notice, by the page's checksum.
    meta = pq.ParquetFile(io.BytesIO(packed)).metadata.row_group(0).column(0)
    spoiled = bytearray(packed)
    spoiled[meta.data_page_offset + meta.total_compressed_size - 3] ^= 0xFF
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(io.BytesIO(bytes(spoiled)), page_checksum_verification=True)
