"""A full disk and a read-only output: a clean failure that names the cause, and a resume that works after."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import fingerprint, write_text_pool

import curation as c


@c.score
def n_words(text: str) -> int:
    return len(text.split())


def run(pool: Path, out: Path):
    return c.run([c.read(pool), n_words, c.write(out)], progress=False, funnel=False, workers=1)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "winnow-test", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_fails_cleanly_and_a_larger_one_resumes(tmp_path, small_disk):
    pool = write_text_pool(tmp_path / "pool", shards=40, rows=200)
    out = small_disk / "out"
    with pytest.raises((c.RunFailed, OSError), match=r"No space left|28"):
        run(pool, out)
    assert not list(out.rglob(".tmp-*"))
    done = {p.stem for p in (out / "_winnow" / "done").rglob("*.json")}
    for file in (out / "data").glob("*.parquet"):  # what has its name is whole
        import pyarrow.parquet as pq

        pq.read_table(file)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    result = run(pool, out)
    assert result.resumed == len(done) and result.shards == 40
    run(pool, tmp_path / "fresh")
    assert fingerprint(out) == fingerprint(tmp_path / "fresh")


def test_a_read_only_output_fails_before_work_and_a_writable_one_resumes(tmp_path, small_disk):
    pool = write_text_pool(tmp_path / "pool", shards=2, rows=20)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        run(pool, small_disk / "out")
    assert not (small_disk / "out").exists()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert run(pool, small_disk / "out").rows_out == 40


def test_a_folder_without_write_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only mount test covers this")
    pool = write_text_pool(tmp_path / "pool", shards=2, rows=20)
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        run(pool, place / "out")
    place.chmod(0o700)
    assert run(pool, place / "out").rows_out == 40
    shutil.rmtree(place)


def test_a_file_where_the_output_should_go(tmp_path):
    pool = write_text_pool(tmp_path / "pool", shards=2, rows=20)
    (tmp_path / "out").write_text("something of the user's")
    with pytest.raises(OSError):
        run(pool, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "something of the user's"
