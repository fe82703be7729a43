"""Small pools and checks for the engine's tests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WORDS = "the of and to a in cat river stone # … light window paper seven market slow".split()  # noqa: SIM905


def documents(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Documents of 3 to 120 words; about one in ten is an exact copy of an earlier one under its own id."""
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    for number in range(n):
        if rows and rng.random() < 0.1:
            text = rng.choice(rows)["text"]
        else:
            text = " ".join(rng.choices(WORDS, k=rng.randint(3, 120)))
        rows.append({"id": f"doc-{seed}-{number:05d}", "text": text, "url": f"https://example.org/{number}"})
    return rows


def write_text_pool(folder: Path, shards: int = 8, rows: int = 60, seed: int = 0) -> Path:
    """The documents dealt over parquet shards of unequal size."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = documents(shards * rows, seed)
    start = 0
    for shard in range(shards):
        stop = start + rows + (shard % 3 - 1) * 20 if shard < shards - 1 else len(everything)
        pq.write_table(pa.Table.from_pylist(everything[start:stop]), folder / f"part-{shard:03d}.parquet")
        start = stop
    return folder


def read_rows(out: Path | str, part: str = "data") -> list[dict]:
    """All rows of a run's output, shard after shard."""
    rows: list[dict] = []
    for file in sorted(Path(out, part).rglob("*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def fingerprint(out: Path | str) -> dict[str, str]:
    """Relative path → hash of every file that a plan determines: data, scores, quarantine."""
    out = Path(out)
    folders = [out / "data", out / "scores", out / "_winnow" / "bad"]
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()]
    return {f.relative_to(out).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@contextmanager
def object_store(bucket: str) -> Iterator[Any]:
    """A real S3 server on this machine with one bucket; gives boto3's client. Skips without moto or s3fs."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    import boto3

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        yield client
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
