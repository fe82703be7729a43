"""The unpacked pool: DataComp's layout, the same bytes each time, safe against interruption."""

import hashlib
import json
import os
import tarfile

import pyarrow.parquet as pq
import pytest

from pools import demo_image_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_image_text.unpack(tmp_path_factory.mktemp("cache"), shards=8)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {f"shards/{i:08d}{end}" for i in range(8) for end in (".tar", ".parquet", "_stats.json")}
    [metadata] = names - expected
    assert expected <= names
    assert metadata.startswith("metadata/") and len(metadata) == len("metadata/") + 32 + len(".parquet")


def test_tar_holds_the_rows_of_the_pool_in_order(folder):
    pool = demo_image_text.pool()
    row = 0
    for index in range(8):
        beside = pq.read_table(folder / f"shards/{index:08d}.parquet")
        with tarfile.open(folder / f"shards/{index:08d}.tar") as tar:
            members = tar.getmembers()
            assert len(members) == 3 * beside.num_rows
            for number in range(0, len(members), 3):
                key = f"{index:08d}{number // 3:04d}"
                assert [m.name for m in members[number : number + 3]] == [
                    f"{key}.{e}" for e in ("webp", "txt", "json")
                ]
                if number % 600:  # every 200th sample is read
                    continue
                image, text, record = (tar.extractfile(m).read() for m in members[number : number + 3])
                expected = pool.slice(row + number // 3, 1).to_pylist()[0]
                record = json.loads(record)
                assert image == expected["image"] and text.decode() == expected["text"] == record["caption"]
                assert record["sha256"] == hashlib.sha256(image).hexdigest()
                assert record["uid"] == expected["uid"] == beside["uid"][number // 3].as_py()
                assert record["key"] == key and record["status"] == "success"
                assert record["original_width"] == expected["original_width"]
        stats = json.loads((folder / f"shards/{index:08d}_stats.json").read_text())
        assert stats["count"] == stats["successes"] == beside.num_rows
        row += beside.num_rows
    assert row == pool.num_rows


def test_metadata_has_the_nine_columns_of_commonpool(folder):
    [path] = (folder / "metadata").glob("*.parquet")
    table = pq.read_table(path)
    assert table.schema.names == [
        "uid", "url", "text", "original_width", "original_height", "clip_b32_similarity_score",
        "clip_l14_similarity_score", "face_bboxes", "sha256",
    ]  # fmt: skip
    assert [str(t) for t in table.schema.types[3:8]] == [
        "int64", "int64", "float", "float", "list<element: list<element: double>>",
    ]  # fmt: skip
    assert table["uid"].to_pylist() == demo_image_text.pool()["uid"].to_pylist()
    assert table["clip_l14_similarity_score"].null_count == table.num_rows


def test_same_bytes_each_time_and_once_is_enough(folder, tmp_path):
    again = demo_image_text.unpack(tmp_path)
    assert again.name == folder.name
    assert digests(again) == digests(folder)
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*")}
    assert demo_image_text.unpack(tmp_path) == again
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*")} == before


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    calls = []

    def broken(folder, index, table):
        calls.append(index)
        if index == 1:
            raise OSError("disk full")

    monkeypatch.setattr(demo_image_text, "write_shard", broken)
    with pytest.raises(OSError, match="disk full"):
        demo_image_text.unpack(tmp_path)
    assert calls == [0, 1]
    assert os.listdir(tmp_path / "pools") == []


def test_who_loses_the_race_takes_the_winner_s_folder(tmp_path, monkeypatch, folder):
    """Another process finishes between our check and our rename."""
    rename = os.rename

    def late(source, target):
        demo_image_text.shutil.copytree(folder, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert digests(demo_image_text.unpack(tmp_path)) == digests(folder)
    assert len(os.listdir(tmp_path / "pools")) == 1


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "from-env"))
    assert demo_image_text.cache_folder() == tmp_path / "from-env"
    assert demo_image_text.cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("WINNOW_CACHE")
    assert demo_image_text.cache_folder().parts[-2:] == (".cache", "winnow")


@pytest.mark.parametrize("shards", [0, -1, 10**6])
def test_impossible_shard_counts_are_refused(tmp_path, shards):
    with pytest.raises(ValueError, match=f"shards={shards}"):
        demo_image_text.unpack(tmp_path, shards=shards)


def test_a_shard_too_large_for_its_keys_is_refused(tmp_path):
    with pytest.raises(ValueError, match="four digits"):
        demo_image_text.write_shard(tmp_path, 0, demo_image_text.pool())
