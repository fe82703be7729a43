"""DCLM's pools from path lists like the published ones, and what is said when the lists cannot be had."""

from __future__ import annotations

import gzip
import json

import pytest
from local_web import serve
from support import documents, read_rows

import curation as c
from pools import dclm, listing
from pools.fetch import FetchError, Policy

SEGMENT = "1368696382185"


def name_of(number: int) -> str:
    return f"CC-MAIN-20130516092622-{number:05d}-ip-10-60-113-184.ec2.internal"


def warc(number: int) -> str:
    return f"s3://commoncrawl/crawl-data/CC-MAIN-2013-20/segments/{SEGMENT}/warc/{name_of(number)}.warc.gz"


def text(number: int) -> str:
    return f"s3://commoncrawl/contrib/datacomp/DCLM-pool/crawl=CC-MAIN-2013-20/{SEGMENT}/{name_of(number)}.jsonl.gz"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    monkeypatch.delenv("WINNOW_CC_BASE", raising=False)


@pytest.fixture
def web(monkeypatch):
    """The path lists, and DCLM's shards, in the layout in which both are published."""
    files = {}
    for kind, of in (("preextracted", text), ("raw_warcs", warc)):
        # as published: no newline at the end
        files[f"/lists/{kind}/400m-1x.txt"] = "\n".join(of(i) for i in range(40)).encode()
    files["/lists/raw_warcs/3b-1x.txt"] = "\n".join(warc(i) for i in range(40)).encode()
    for number in range(40):
        rows = [
            {"text": row["text"], "metadata": {"WARC-Target-URI": row["url"]}, "warcinfo": "robots: classic"}
            for row in documents(20, seed=number)
        ]
        data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
        files["/" + text(number).removeprefix("s3://commoncrawl/")] = data
    with serve(files) as running:
        monkeypatch.setenv("WINNOW_DCLM_LISTS", running.url("/lists"))
        yield running


def test_scales_are_those_of_the_paper():
    assert list(dclm.SCALES) == ["400m-1x", "1b-1x", "3b-1x", "7b-1x", "7b-2x"]
    assert [s.tokens for s in dclm.SCALES.values()] == [469e9, 1.64e12, 3.18e12, 7.85e12, 15.7e12]
    # the one published list that was counted agrees with tokens a shard to 4 %
    counted = dict(dclm.scale("400m-1x").shards)["preextracted"]
    assert abs(dclm.scale("400m-1x").expected_shards / counted - 1) < 0.04


def test_a_scale_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="did you mean '1b-1x'"):
        dclm.pool("1b1x")
    with pytest.raises(ValueError, match="retired for 3b-1x"):
        dclm.pool("1b-5x")
    with pytest.raises(ValueError, match="did you mean 'raw_warcs'"):
        dclm.pool("1b-1x", "raw_warc")


def test_the_published_list_becomes_a_pool(web):
    pool = dclm.pool("400m-1x")
    assert len(pool.entries) == 40 and pool.entries[0].format == "jsonl"
    assert pool.entries[0].url == "https://data.commoncrawl.org/" + text(0).removeprefix("s3://commoncrawl/")
    assert pool.entries[0].name == f"DCLM-pool/crawl=CC-MAIN-2013-20/{SEGMENT}/{name_of(0)}.jsonl.gz"
    assert dclm.pool("400m-1x", source="s3").entries[7].url == text(7)
    raw = dclm.pool("400m-1x", "raw_warcs", source="s3")
    assert raw.entries[7].url == warc(7) and raw.entries[7].format == "warc"
    assert raw.source["commit"] == dclm.COMMIT


def test_names_of_3b_are_derived_from_its_warcs(web):
    assert dclm.preextracted_of(warc(3)) == text(3)
    pool = dclm.pool("3b-1x", source="s3")
    assert [e.url for e in pool.entries] == [text(i) for i in range(40)] and pool.source["derived"]
    with pytest.raises(ValueError, match="not a WARC of Common Crawl"):
        dclm.preextracted_of("s3://commoncrawl/other.gz")


def test_a_list_of_other_places_is_refused(web):
    web.files["/lists/preextracted/1b-1x.txt"] = b"s3://elsewhere/x.jsonl.gz\n"
    with pytest.raises(ValueError, match="is not in s3://commoncrawl/"):
        dclm.pool("1b-1x")
    web.files["/lists/preextracted/7b-1x.txt"] = b"s3://commoncrawl/../x.jsonl.gz\n"
    with pytest.raises(ValueError, match="is not in s3://commoncrawl/"):
        dclm.pool("7b-1x")


def test_without_network_the_mend_is_said(web):
    with pytest.raises(FetchError, match="set WINNOW_DCLM_LISTS to that folder") as caught:
        dclm.pool("7b-2x")
    assert caught.value.kind == "gone"


def test_the_counted_list_is_checked_when_it_comes_from_its_authors(web, monkeypatch):
    monkeypatch.delenv("WINNOW_DCLM_LISTS")
    monkeypatch.setattr(dclm, "LISTS", web.url("/lists/"))
    with pytest.raises(FetchError, match="sha256 is") as caught:
        dclm.pool("400m-1x")
    assert caught.value.kind == "checksum"


def test_a_sample_is_fetched_and_read(web, tmp_path):
    pool = dclm.pool("400m-1x", base=web.base).sampled(3, seed=2)
    report = listing.fetch(pool, tmp_path / "pool", policy=Policy(wait=0.01))
    assert len(report.fetched) == 3
    c.run([c.read(tmp_path / "pool"), c.write(tmp_path / "out")], progress=False, funnel=False)
    rows = read_rows(tmp_path / "out")
    assert len(rows) == 60 and len({r["id"] for r in rows}) == 60
    numbers = [int(e.name.split("-ip-")[0].rsplit("-", 1)[1]) for e in pool.entries]
    assert sorted(r["text"] for r in rows) == sorted(
        d["text"] for n in numbers for d in documents(20, seed=n)
    )


def test_refinedweb_is_listed_in_its_store(tmp_path):
    folder = tmp_path / "mirror/contrib/datacomp/DCLM-refinedweb/global-shard_03_of_10"
    for number in range(10):
        (folder / f"local-shard_{number}_of_10").mkdir(parents=True)
        (folder / f"local-shard_{number}_of_10" / "shard_00000000_processed.jsonl.zst").write_bytes(b"x")
    for scale, expected in (
        ("1b-1x", {1}),
        ("3b-1x", {1, 8}),
        ("7b-1x", {1, 3, 6, 8, 9}),
        ("7b-2x", set(range(10))),
    ):
        pool = dclm.pool(scale, "refinedweb", base=str(tmp_path / "mirror"))
        assert {int(e.name.split("local-shard_")[1][0]) for e in pool.entries} == expected
        assert all(e.size == 1 for e in pool.entries)
    with pytest.raises(ValueError, match="smaller than one local shard"):
        dclm.pool("400m-1x", "refinedweb", base=str(tmp_path / "mirror"))
    with pytest.raises(ValueError, match="--from s3"):
        dclm.pool("1b-1x", "refinedweb")
