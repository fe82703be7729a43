"""The same plan against an S3 server gives the same bytes, and resumes there."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import fingerprint, object_store

import curation as c


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Array:
    return pc.utf8_length(text)


def plan(pool, out):
    return [
        c.read(pool),
        n_chars,
        c.keep("n_chars > 40", reason="short"),
        c.dedup_exact(on="text"),
        c.write(out),
    ]


@pytest.fixture
def bucket():
    with object_store("winnow-engine") as client:
        yield client


def test_same_bytes_on_an_object_store(bucket, text_pool, tmp_path):
    for file in text_pool.iterdir():
        bucket.put_object(Bucket="winnow-engine", Key=f"pool/{file.name}", Body=file.read_bytes())
    c.run(plan(text_pool, tmp_path / "out"), progress=False, funnel=False)
    first = c.run(plan("s3://winnow-engine/pool", "s3://winnow-engine/out"), progress=False, funnel=False)
    listed = bucket.list_objects_v2(Bucket="winnow-engine", Prefix="out/")["Contents"]
    there = {
        item["Key"].removeprefix("out/"): hashlib.sha256(
            bucket.get_object(Bucket="winnow-engine", Key=item["Key"])["Body"].read()
        ).hexdigest()
        for item in listed
        if item["Key"].startswith(("out/data/", "out/scores/", "out/_winnow/bad/"))
    }
    assert there == fingerprint(tmp_path / "out") and len(there) >= 16
    again = c.run(plan("s3://winnow-engine/pool", "s3://winnow-engine/out"), progress=False, funnel=False)
    assert again.resumed > 8 and again.rows_out == first.rows_out
