"""Listing, reading and atomic writing: local, in memory, and against an S3 server."""

from __future__ import annotations

import errno
import gc
import os
import subprocess

import pyarrow as pa
import pytest
from reading import read
from support import object_store

from curation import formats, storage
from curation.shards import list_shards


@pytest.fixture(scope="module")
def s3():
    """An S3 server on this machine, found through the environment alone; gives a boto3 client."""
    with object_store("winnow") as client:
        yield client


def s3_keys(client) -> list[str]:
    return [o["Key"] for o in client.list_objects_v2(Bucket="winnow").get("Contents", [])]


def s3_uploads(client) -> int:
    return len(client.list_multipart_uploads(Bucket="winnow").get("Uploads", []))


def put(path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ---------------------------------------------------------------- names


def test_join_has_one_slash_between_parts():
    assert storage.join("s3://b/a/", "c", "/d") == "s3://b/a/c/d"
    assert storage.join("out", "data", "x.parquet") == "out/data/x.parquet"


@pytest.mark.parametrize(
    ("url", "local"),
    [("a/b", True), ("/a/b", True), ("file:///a", True), ("s3://b/a", False), ("memory://a", False)],
)
def test_is_local(url, local):
    assert storage.is_local(url) is local


# ---------------------------------------------------------------- listing


def test_a_folder_lists_recursively_sorted_without_hidden_names(tmp_path):
    for name in ("b.jsonl", "a/c.jsonl", "_winnow/done.jsonl", ".tmp-x.jsonl", "a/_x.jsonl", "a/notes.md"):
        put(tmp_path / name, name.encode())
    found = storage.list_files(str(tmp_path), (".jsonl",))
    assert [(f.name, f.size) for f in found] == [("a/c.jsonl", 9), ("b.jsonl", 7)]
    assert found[0].url == str(tmp_path / "a/c.jsonl")
    stat = os.stat(found[0].url)
    assert found[0].etag == f"{stat.st_size}-{stat.st_mtime_ns}"


def test_globs_files_and_lists(tmp_path):
    for name in ("x/1.jsonl", "x/2.jsonl", "y/1.jsonl"):
        put(tmp_path / name)
    names = lambda url: [f.name for f in storage.list_files(url)]  # noqa: E731
    assert names(f"{tmp_path}/*/1.jsonl") == ["x/1.jsonl", "y/1.jsonl"]
    assert names(f"{tmp_path}/**/*.jsonl") == ["x/1.jsonl", "x/2.jsonl", "y/1.jsonl"]
    assert names(f"{tmp_path}/x/2.jsonl") == ["2.jsonl"]
    assert names([f"{tmp_path}/x", f"{tmp_path}/y"]) == ["x/1.jsonl", "x/2.jsonl", "y/1.jsonl"]
    # The same file by two ways is listed once.
    assert names([f"{tmp_path}/x", f"{tmp_path}/x/1.jsonl"]) == ["1.jsonl", "2.jsonl"]


def test_a_real_name_with_brackets_is_no_glob(tmp_path):
    put(tmp_path / "a[1].jsonl")
    assert [f.name for f in storage.list_files(str(tmp_path / "a[1].jsonl"))] == ["a[1].jsonl"]


def test_what_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nope"):
        storage.list_files(str(tmp_path / "nope"))
    with pytest.raises(FileNotFoundError, match=r"\*\.jsonl"):
        storage.list_files(str(tmp_path / "*.jsonl"))
    assert storage.list_files(str(tmp_path)) == []


# ---------------------------------------------------------------- atomic writes, local


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "out.bin"
    with storage.atomic_write(str(path)) as f:
        f.write(b"abc")
        f.flush()
        assert not path.exists()
        assert storage.list_files(str(tmp_path)) == []  # the unfinished file is not listed
    assert path.read_bytes() == b"abc"
    assert os.listdir(path.parent) == ["out.bin"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.bin"
    storage.write_bytes(str(path), b"old")
    with pytest.raises(ZeroDivisionError), storage.atomic_write(str(path)) as f:
        f.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_tmp_dir_holds_the_unfinished_file(tmp_path):
    tmp = tmp_path / "work"
    with storage.atomic_write(str(tmp_path / "out.bin"), str(tmp)) as f:
        f.write(b"abc")
        assert [n.startswith(".tmp-out.bin") for n in os.listdir(tmp)] == [True]
    assert os.listdir(tmp) == []
    assert (tmp_path / "out.bin").read_bytes() == b"abc"


def test_two_attempts_do_not_meet(tmp_path):
    path = str(tmp_path / "out.bin")
    with storage.atomic_write(path) as first, storage.atomic_write(path) as second:
        first.write(b"same")
        second.write(b"same")
    assert storage.read_bytes(path) == b"same"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_full_disk_at_sync_stays_enospc_and_leaves_nothing(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write_bytes(str(tmp_path / "out.bin"), b"abc")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here: a really full disk is not tried")
    if done.returncode:
        pytest.skip("may not mount a small file system here: a really full disk is not tried")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


@pytest.mark.parametrize("piece", [1 << 10, 1 << 20])
def test_a_really_full_disk_is_enospc_and_is_left_as_it_was(small_disk, piece):
    storage.write_bytes(str(small_disk / "kept.bin"), b"kept")
    with (
        pytest.raises(OSError, match="No space left") as caught,
        storage.atomic_write(str(small_disk / "out.bin")) as f,
    ):
        for _ in range((1 << 20) // piece):
            f.write(bytes(piece))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == ["kept.bin"]
    storage.write_bytes(str(small_disk / "out.bin"), b"fits")  # and the next attempt works
    assert (small_disk / "out.bin").read_bytes() == b"fits"


def test_read_only_output_is_an_error_that_names_it(tmp_path):
    """Root may write into any folder, so a file system mounted read-only stands in for a forbidden one."""
    folder = tmp_path / "out"
    folder.mkdir()
    mounted = False
    if os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            pass
        if not mounted:
            pytest.skip("root that may not mount: a read-only folder is not tried")
    else:
        folder.chmod(0o500)
    try:
        with pytest.raises(OSError, match=str(folder)) as caught:
            storage.write_bytes(str(folder / "out.bin"), b"abc")
        assert caught.value.errno in (errno.EACCES, errno.EROFS)
        assert os.listdir(folder) == []
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)


def test_remove_and_exists(tmp_path):
    path = str(tmp_path / "a")
    storage.write_bytes(path, b"1")
    assert storage.exists(path)
    storage.remove(path)
    assert not storage.exists(path)
    storage.remove(path)
    with pytest.raises(FileNotFoundError):
        storage.remove(path, missing_ok=False)


# ---------------------------------------------------------------- other file systems


def test_memory_files_are_atomic_too():
    root = "memory://test-storage"
    with storage.atomic_write(f"{root}/a/b.bin") as f:
        f.write(b"abc")
        assert not storage.exists(f"{root}/a/b.bin")
    assert storage.read_bytes(f"{root}/a/b.bin") == b"abc"
    with pytest.raises(ZeroDivisionError), storage.atomic_write(f"{root}/a/c.bin") as f:
        raise ZeroDivisionError
    assert [f.name for f in storage.list_files(root)] == ["a/b.bin"]


@pytest.mark.parametrize("size", [0, 10, 20 << 20])
def test_an_object_appears_only_when_the_block_ends(s3, size):
    url = f"s3://winnow/new/{size}.bin"
    with storage.atomic_write(url) as f:
        f.write(b"a" * size)
        assert f"new/{size}.bin" not in s3_keys(s3)
        assert not storage.exists(url)
    assert storage.read_bytes(url) == b"a" * size
    assert s3_uploads(s3) == 0


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_an_error_uploads_nothing_and_leaves_no_parts(s3, size):
    with pytest.raises(ZeroDivisionError), storage.atomic_write(f"s3://winnow/bad/{size}.bin") as f:
        f.write(b"a" * size)
        raise ZeroDivisionError
    del f
    gc.collect()  # a file object that closes itself when collected would upload now
    assert f"bad/{size}.bin" not in s3_keys(s3)
    assert s3_uploads(s3) == 0


def test_listing_objects_as_files(s3, tmp_path):
    for name in ("p/b.jsonl", "p/a/c.jsonl", "p/_winnow/d.jsonl", "p/.e.jsonl"):
        storage.write_bytes(f"s3://winnow/{name}", name.encode())
        put(tmp_path / name, name.encode())
    remote = storage.list_files("s3://winnow/p", (".jsonl",))
    assert [f.url for f in remote] == ["s3://winnow/p/a/c.jsonl", "s3://winnow/p/b.jsonl"]
    local = storage.list_files(str(tmp_path / "p"), (".jsonl",))
    assert [(f.name, f.size) for f in remote] == [(f.name, f.size) for f in local]
    assert [f.name for f in storage.list_files("s3://winnow/p/*.jsonl")] == ["b.jsonl"]
    assert [f.name for f in storage.list_files("s3://winnow/p/b.jsonl")] == ["b.jsonl"]
    with pytest.raises(FileNotFoundError, match="s3://winnow/none"):
        storage.list_files("s3://winnow/none")


def test_the_etag_of_an_object_follows_its_content(s3):
    url = "s3://winnow/tag.bin"
    tags = []
    for data in (b"one", b"two", b"one"):
        storage.write_bytes(url, data)
        tags.append(storage.info(url).etag)
    assert tags[0] == tags[2] != tags[1]


def test_reading_a_part_of_an_object_and_removing_it(s3):
    url = "s3://winnow/part.bin"
    storage.write_bytes(url, bytes(range(100)))
    with storage.open_read(url) as f:
        f.seek(40)
        assert f.read(3) == bytes([40, 41, 42])
    storage.remove(url)
    assert not storage.exists(url)
    storage.remove(url)
    with pytest.raises(FileNotFoundError):
        storage.open_read(url)


def test_a_pool_on_s3_has_the_same_keys_bytes_and_rows_as_on_disk(s3, tmp_path):
    ids = [f"{i:032x}" for i in range(50)]
    text = pa.table({"id": ids, "text": [f"page {i}" for i in range(50)]})
    images = text.append_column("image", pa.array([bytes([i]) * 600 for i in range(50)]))
    pages = pa.table({"id": ids, "url": text["text"], "content": images["image"]})
    tables = {
        "parquet": text,
        "jsonl": text,
        "jsonl.gz": text,
        "jsonl.zst": text,
        "wds": images,
        "warc.gz": pages,
    }
    for format, table in tables.items():
        name = f"{format.replace('.', '-')}/x{formats.suffix(format)}"
        for root in (str(tmp_path), "s3://winnow/pool"):
            with storage.atomic_write(storage.join(root, name)) as f:
                writer = formats.open_writer(f, format, table.schema)
                for batch in table.to_batches(max_chunksize=7):
                    writer.write(batch)
                writer.close()
        assert storage.read_bytes(f"s3://winnow/pool/{name}") == (tmp_path / name).read_bytes()
        folder = name.split("/")[0]
        (here,) = list_shards(f"{tmp_path}/{folder}")
        (there,) = list_shards(f"s3://winnow/pool/{folder}")
        assert (here.key, here.name, here.size) == (there.key, there.name, there.size)
        assert read(here) == read(there)
        assert len(read(there)[0]) == 50
    plain = [list_shards(f"{root}/jsonl", split_bytes=500) for root in (str(tmp_path), "s3://winnow/pool")]
    assert [s.key for s in plain[0]] == [s.key for s in plain[1]]
    assert [r for s in plain[1] for r in read(s)[0]] == text.to_pylist()
