"""Which files are shards, what they are called, and how large ones are split."""

from __future__ import annotations

import dataclasses
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.formats import FormatError, open_writer, read_batches, suffix
from curation.shards import Shard, format_of, list_shards


def put(path, data=b"{}\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.parquet", "parquet"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.json.zst", "jsonl"),
        ("CC-1.warc.gz", "warc"),
        ("CC-1.warc", "warc"),
        ("CC-1.warc.wet.gz", "wet"),
        ("00000000.tar", "wds"),
        ("a.tgz", "wds"),
        ("CC-1.warc.wat.gz", None),
        ("00000000_stats.json", None),
        ("notes.txt", None),
    ],
)
def test_formats_are_told_by_suffix(name, format):
    assert format_of(name) == format


def test_keys_depend_on_the_name_size_and_part_alone(tmp_path):
    for folder in ("one", "two"):
        put(tmp_path / folder / "sub/a b.jsonl")
        put(tmp_path / folder / "c.jsonl")
    one, two = (list_shards(str(tmp_path / f)) for f in ("one", "two"))
    assert [s.key for s in one] == [s.key for s in two]
    assert [s.name for s in one] == ["c.jsonl", "sub/a b.jsonl"]
    assert [s.index for s in one] == [0, 1]
    assert re.fullmatch(r"a-b-[0-9a-f]{10}", one[1].key)
    # a golden value: keys name files that runs left behind, so they must never change
    assert Shard("x/c.jsonl", 3, "tag", "jsonl", 0).key == "c-5ba091ace3"
    first = one[0]
    assert dataclasses.replace(first, size=4).key != first.key
    assert dataclasses.replace(first, part="bytes:0-2").key != first.key
    assert dataclasses.replace(first, etag="other", index=9, url="elsewhere/c.jsonl").key == first.key


def test_same_names_in_two_folders_have_two_keys(tmp_path):
    put(tmp_path / "x/a.jsonl")
    put(tmp_path / "y/a.jsonl")
    keys = [s.key for s in list_shards(str(tmp_path))]
    assert len(set(keys)) == 2
    assert all(k.startswith("a-") for k in keys)


def test_nothing_to_read_says_what_was_looked_for(tmp_path):
    put(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"1 files, none of them \.parquet \.jsonl"):
        list_shards(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"none of them \.warc \.warc\.gz"):
        list_shards(str(tmp_path), format="warc")
    with pytest.raises(FormatError, match="unknown format 'csv'; there are: parquet, jsonl"):
        list_shards(str(tmp_path), format="csv")


def test_mixed_formats_must_be_chosen_from(tmp_path):
    put(tmp_path / "a.jsonl")
    put(tmp_path / "b.warc.gz")
    with pytest.raises(FormatError, match=r"several formats \(1 jsonl, 1 warc\): choose one with format="):
        list_shards(str(tmp_path))
    assert [s.name for s in list_shards(str(tmp_path), format="warc")] == ["b.warc.gz"]


def test_metadata_beside_tars_is_no_shard(tmp_path):
    for name in ("00000000.tar", "00000000.parquet", "00000000_stats.json", "00000001.tar"):
        put(tmp_path / name)
    assert [s.name for s in list_shards(str(tmp_path))] == ["00000000.tar", "00000001.tar"]
    assert [s.name for s in list_shards(str(tmp_path), format="parquet")] == ["00000000.parquet"]


def test_a_named_file_may_have_any_suffix_when_the_format_is_said(tmp_path):
    put(tmp_path / "data.txt")
    (shard,) = list_shards(str(tmp_path / "data.txt"), format="jsonl")
    assert (shard.format, shard.name) == ("jsonl", "data.txt")


def test_parquet_parts_hold_about_the_bytes_asked_for(tmp_path):
    table = pa.table({"text": [f"{i:01000d}" for i in range(100)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=10, compression="none", use_dictionary=False)
    parts = list_shards(str(tmp_path), split_bytes=30_000)
    assert [p.part for p in parts] == ["groups:0-3", "groups:3-6", "groups:6-9", "groups:9-10"]
    assert all(30_000 < p.size < 45_000 for p in parts[:3])
    assert sum(p.size for p in parts) == (tmp_path / "x.parquet").stat().st_size
    assert list_shards(str(tmp_path), split_bytes=10**9)[0].part is None


def test_compressed_files_are_not_split(tmp_path):
    put(tmp_path / "x.jsonl.gz", b"x" * 1_000)
    assert [s.part for s in list_shards(str(tmp_path), split_bytes=10)] == [None]
    with pytest.raises(ValueError, match="at least 1"):
        list_shards(str(tmp_path), split_bytes=0)


def test_unknown_formats_are_refused():
    with pytest.raises(FormatError, match="cannot write format 'csv'; there are: parquet"):
        suffix("csv")
    with pytest.raises(FormatError, match="cannot write format 'csv'"):
        open_writer(None, "csv", pa.schema([]))
    with pytest.raises(FormatError, match="unknown format 'csv'"):
        read_batches(Shard("x.csv", 0, "", "csv", 0), bad=print)
