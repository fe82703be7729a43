"""Common Crawl's layout from a server that imitates it: listing, sample, download, and the rows."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from local_web import cut, serve, status
from support import object_store, read_rows

import baselines
import curation as c
from pools import common_crawl, demo_text, listing, sampling
from pools.fetch import FetchError, Policy
from pools.public_http import is_http

CRAWL = "CC-MAIN-2024-22"
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUICK = Policy(wait=0.01, max_wait=0.02, timeout=5.0)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    monkeypatch.delenv("WINNOW_CC_BASE", raising=False)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    """The embedded WARC shards, in many small files."""
    return demo_text.unpack(tmp_path_factory.mktemp("embedded"), shards=24)


def path_of(number: int, kind: str = "warc") -> str:
    name = f"CC-MAIN-20240517233122-20240518023122-{number:05d}{common_crawl.SUFFIX[kind]}"
    return f"crawl-data/{CRAWL}/segments/17159710{number % 3:05d}.{number % 7}/{kind}/{name}"


def layout(embedded: Path) -> dict[str, bytes]:
    """URL path → bytes, as Common Crawl has them."""
    shards = sorted(embedded.iterdir())
    files = {f"/{path_of(i)}": shard.read_bytes() for i, shard in enumerate(shards)}
    lines = "".join(f"{path_of(i)}\n" for i in range(len(shards)))
    files[f"/crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress(lines.encode())
    files[f"/crawl-data/{CRAWL}/wet.paths.gz"] = gzip.compress(lines.encode())  # of the wrong kind
    files["/collinfo.json"] = json.dumps([{"id": "CC-MAIN-2024-26"}, {"id": CRAWL}]).encode()
    return files


@pytest.fixture
def mirror(embedded, monkeypatch):
    with serve(layout(embedded)) as web:
        monkeypatch.setenv("WINNOW_CC_BASE", web.base)
        yield web


# ---------------------------------------------------------------- listings


def test_a_crawls_paths_are_fetched_once(mirror):
    paths = common_crawl.paths(CRAWL)
    assert paths == [path_of(i) for i in range(24)]
    asked = len(mirror.log)
    assert common_crawl.paths(CRAWL) == paths and len(mirror.log) == asked
    pool = common_crawl.crawl(CRAWL)
    assert {e.format for e in pool.entries} == {"warc"} and len(pool.entries) == 24
    assert pool.entries[0].url == f"{mirror.base}/crawl-data/{pool.entries[0].name}"
    assert pool.source == {
        "kind": "common-crawl",
        "crawl": CRAWL,
        "format": "warc",
        "place": mirror.base + "/",
    }


def test_what_is_wrong_with_a_crawl_is_said(mirror):
    with pytest.raises(ValueError, match="not a listing of wet shards: 'crawl-data"):
        common_crawl.paths(CRAWL, "wet")
    with pytest.raises(FetchError, match="did you mean 'CC-MAIN-2024-22'"):
        common_crawl.paths("CC-MAIN-2014-22")
    with pytest.raises(ValueError, match="did you mean 'warc'"):
        common_crawl.paths(CRAWL, "wrac")
    with pytest.raises(ValueError, match="an id such as"):
        common_crawl.paths("2024-22")
    with pytest.raises(ValueError, match="WAT shards hold metadata"):
        common_crawl.crawl(CRAWL, "wat")
    with pytest.raises(ValueError, match="source 'gcs'"):
        common_crawl.base_url("gcs")
    mirror.files[f"/crawl-data/{CRAWL}/wat.paths.gz"] = b"\x1f\x8b\x08\x00 not gzip at all"
    with pytest.raises(ValueError, match=r"is damaged .* remove"):
        common_crawl.paths(CRAWL, "wat")


def test_latest_and_bases(mirror, monkeypatch):
    assert common_crawl.crawls() == ["CC-MAIN-2024-26", CRAWL]
    with pytest.raises(FetchError, match="CC-MAIN-2024-26"):
        common_crawl.crawl("latest")
    monkeypatch.delenv("WINNOW_CC_BASE")
    assert common_crawl.base_url() == "https://data.commoncrawl.org/"
    assert common_crawl.base_url("s3") == "s3://commoncrawl/"
    assert common_crawl.base_url("s3", "/mirror") == "/mirror/"


def test_a_local_mirror_needs_no_network(embedded, tmp_path, monkeypatch):
    for path, data in layout(embedded).items():
        file = tmp_path / "mirror" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    pool = common_crawl.crawl(CRAWL, base=str(tmp_path / "mirror")).sampled(2, seed=1)
    report = listing.fetch(pool, tmp_path / "pool")
    assert len(report.fetched) == 2 and not any(is_http(e.url) for e in pool.entries)
    with pytest.raises(FetchError, match="no such listing: did you mean 'CC-MAIN-2024-2"):
        common_crawl.paths("CC-MAIN-2024-27", base=str(tmp_path / "mirror"))


def test_the_real_listing_sample_is_not_one_of_warcs():
    """The sample we have is named warc.paths.gz, and lists the parquet files of the URL index."""
    place = SHARED / "commoncrawl_sample" / f"{CRAWL}.warc.paths.gz"
    if not place.exists():
        pytest.skip(f"no shared data at {place}")
    lines = common_crawl.read_lines(place, str(place))
    assert len(lines) == 300 and all(line.endswith(".gz.parquet") for line in lines)
    pool = common_crawl.warc_list(str(place), base="s3://commoncrawl/cc-index/table/")
    assert {e.format for e in pool.entries} == {"parquet"} and len(pool.entries) == 300
    assert pool.sampled(3, seed=1).entries == pool.sampled(3, seed=1).entries


def test_a_list_of_warcs_takes_urls_paths_and_files_beside_it(tmp_path, monkeypatch):
    (tmp_path / "near.warc.gz").write_bytes(b"")
    file = tmp_path / "list.txt"
    file.write_text(
        "# ours\n"
        f"{path_of(1)}\n\n"
        "s3://commoncrawl/crawl-data/x/2.warc.gz\n"
        "https://data.commoncrawl.org/crawl-data/x/3.warc.gz\n"
        "https://example.org:8080/some%20where/4.warc.gz\n"
        "near.warc.gz\n"
        f"{tmp_path}/near.warc.gz\n"
    )
    pool = common_crawl.warc_list(str(file))
    assert {e.name: e.url for e in pool.entries} == {
        path_of(1).removeprefix("crawl-data/"): "https://data.commoncrawl.org/" + path_of(1),
        "x/2.warc.gz": "s3://commoncrawl/crawl-data/x/2.warc.gz",
        "x/3.warc.gz": "https://data.commoncrawl.org/crawl-data/x/3.warc.gz",
        "example.org-8080/some where/4.warc.gz": "https://example.org:8080/some%20where/4.warc.gz",
        "near.warc.gz": str(tmp_path / "near.warc.gz"),
        f"{tmp_path}/near.warc.gz".lstrip("/"): str(tmp_path / "near.warc.gz"),
    }
    file.write_text(
        "https://data.commoncrawl.org/crawl-data/x/1.warc.gz\ns3://commoncrawl/crawl-data/x/1.warc.gz"
    )
    with pytest.raises(ValueError, match=r"would both be named 'x/1.warc.gz'"):
        common_crawl.warc_list(str(file))
    for text, says in (
        ("../secret.warc.gz", "not a path below the list"),
        ("a.warc.gz\nb.parquet", "several formats"),
        ("a.pdf", "no shard has such a name"),
        ("", "has no shards"),
        ("a/_tmp/b.warc.gz", "that pools skip"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            common_crawl.warc_list(str(file))


def test_a_list_from_the_web_may_not_name_local_files(mirror):
    mirror.files["/list.txt"] = b"/etc/passwd.warc.gz\n"
    with pytest.raises(ValueError, match="names the local file"):
        common_crawl.warc_list(mirror.url("/list.txt"))
    mirror.files["/list2.txt"] = b"file:///etc/passwd.warc.gz\n"
    with pytest.raises(ValueError, match="names the local file"):
        common_crawl.warc_list(mirror.url("/list2.txt"))
    mirror.files["/list3.txt"] = b"a.warc.gz\n"
    pool = common_crawl.warc_list(mirror.url("/list3.txt"))
    assert [e.url for e in pool.entries] == [mirror.url("/a.warc.gz")]


# ---------------------------------------------------------------- sampling


def test_a_sample_depends_on_seed_and_names_only():
    names = [f"shard-{i}" for i in range(1000)]
    ten = sampling.sample(names, 10, 1, str)
    assert ten == sampling.sample(names[::-1], 10, 1, str) == sorted(ten)
    assert set(sampling.sample(names, 3, 1, str)) < set(ten) != set(sampling.sample(names, 10, 2, str))
    assert sampling.sample(names[::-1], None, 1, str) == sorted(names)
    for n in (0, 1001):
        with pytest.raises(ValueError, match="ask for 1 to 1,000"):
            sampling.sample(names, n, 0, str)
    # evenly: each half of the list gets its share
    halves = [int(name.split("-")[1]) < 500 for name in sampling.sample(names, 400, 3, str)]
    assert 160 < sum(halves) < 240


def test_parts_are_disjoint_even_and_complete():
    names = [f"shard-{i}" for i in range(103)]
    parts = [sampling.part(names, f"{i}/8", 5, str) for i in range(1, 9)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert {len(part) for part in parts} == {12, 13}
    for wrong in ("0/8", "9/8", "8", "a/b", "1/200"):
        with pytest.raises(ValueError, match=wrong):
            sampling.part(names, wrong, 5, str)


def test_the_same_sample_by_https_and_by_s3(mirror):
    near = common_crawl.crawl(CRAWL).sampled(5, seed=3, part="2/2")
    mirror.files["/again/" + f"crawl-data/{CRAWL}/warc.paths.gz"] = mirror.files[
        f"/crawl-data/{CRAWL}/warc.paths.gz"
    ]
    far = common_crawl.crawl(CRAWL, base=mirror.url("/again")).sampled(5, seed=3, part="2/2")
    assert [e.name for e in near.entries] == [e.name for e in far.entries] and len(near.entries) == 2
    assert near.source["of_shards"] == 24


# ---------------------------------------------------------------- listings as files


def test_a_listing_is_read_where_its_shards_lie(embedded, tmp_path, text_pool):
    pool = listing.of_place(str(text_pool)).sampled(3, seed=1)
    assert pool.schema == "text" and pool.bytes == sum(e.size for e in pool.entries)
    pool.save(tmp_path / "pool.json")
    shards = json.loads((tmp_path / "pool.json").read_text())["shards"]
    assert all(s["url"] == f"pool/{s['name']}" for s in shards)  # relative: the folder may be moved
    loaded = listing.load(tmp_path / "pool.json")
    assert loaded == listing.Listing(pool.entries, "text", loaded.source) and loaded.source["sample"] == 3
    c.run([listing.read(tmp_path / "pool.json"), c.write(tmp_path / "out")], progress=False, funnel=False)
    expected = [row for e in pool.entries for row in pq.read_table(text_pool / e.name).to_pylist()]
    assert [r["id"] for r in read_rows(tmp_path / "out")] == [r["id"] for r in expected]
    assert listing.pool_argument(str(tmp_path / "pool.json")) == [e.url for e in pool.entries]
    assert listing.pool_argument(str(text_pool)) == str(text_pool) and listing.pool_argument(None) is None
    lines = tmp_path / "rows.json"
    lines.write_text('{"id": "1", "text": "a shard of jsonl"}\n')
    assert listing.pool_argument(str(lines)) == str(lines)


def test_listings_of_other_things_are_refused(tmp_path):
    outside = '{"winnow_pool": 1, "schema": "text", "shards": [{"url": "../../x.parquet"}]}'
    newer = '{"winnow_pool": 9, "schema": "text", "shards": []}'
    for text in ("[]", "{}", "not json", newer, outside):
        (tmp_path / "pool.json").write_text(text)
        with pytest.raises(ValueError, match="is not a pool listing"):
            listing.load(tmp_path / "pool.json")


def test_web_shards_are_fetched_and_not_streamed(mirror, tmp_path):
    pool = common_crawl.crawl(CRAWL).sampled(1)
    with pytest.raises(ValueError, match="not streamed; fetch them"):
        listing.read(pool)
    with pytest.raises(ValueError, match="fetched to a local folder"):
        listing.fetch(pool, "s3://bucket/pool")


def test_images_make_another_schema(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"id": ["a"], "image": [b"png"]}), tmp_path / "a.parquet")
    assert listing.of_place(str(tmp_path)).schema == "image_text"


def test_an_estimate_measures_a_few(mirror):
    pool = common_crawl.crawl(CRAWL)
    true = sum(len(data) for path, data in mirror.files.items() if path.endswith(".warc.gz"))
    all_of_it = listing.estimate(pool, probe=24)
    assert (all_of_it.shards, all_of_it.measured, all_of_it.bytes) == (24, 24, true)
    some = listing.estimate(pool, probe=6)
    assert some.measured == 6 and 0.5 < some.bytes / true < 2
    assert some.text_bytes == round(some.bytes * 0.2)
    mirror.files.clear()
    nothing = listing.estimate(pool, probe=2, policy=QUICK)
    assert nothing.bytes is None and "404" in nothing.problem


# ---------------------------------------------------------------- the whole way


def rules(pool: str | Path, out: Path) -> list[dict]:
    plan = baselines.find("text/rules").plan(pool=str(pool), out=str(out))
    c.run(plan, progress=False, funnel=False)
    return read_rows(out)


def test_from_listing_to_rows_over_a_bad_connection(mirror, embedded, tmp_path):
    """Listing → sample of 3 → download with cuts and throttling → text/rules: as if read from the disk."""
    pool = common_crawl.crawl(CRAWL).sampled(3, seed=1)
    urls = ["/crawl-data/" + e.name for e in pool.entries]
    mirror.trouble[urls[0]] = [cut(40_000), cut(1)]
    mirror.trouble[urls[1]] = [status(503, {"Retry-After": "0"}), status(403, {}, b"SlowDown")]
    mirror.trouble[urls[2]] = [status(500)]
    report = listing.fetch(pool, tmp_path / "pool", policy=QUICK)
    assert report.retries == {"throttled": 2, "timeout": 3} and len(report.fetched) == 3
    assert mirror.gets(urls[0]) == [None, "bytes=40000-", "bytes=40001-"]

    direct = tmp_path / "direct"
    for entry in pool.entries:
        number = int(entry.name.rsplit("-", 1)[1].split(".")[0])
        (direct / entry.name).parent.mkdir(parents=True, exist_ok=True)
        (direct / entry.name).write_bytes(sorted(embedded.iterdir())[number].read_bytes())
    rows = rules(tmp_path / "pool", tmp_path / "out")
    assert rows == rules(direct, tmp_path / "direct-out") and len(rows) > 50

    asked = len(mirror.log)
    assert len(listing.fetch(pool, tmp_path / "pool").there) == 3 and len(mirror.log) == asked
    more = listing.fetch(common_crawl.crawl(CRAWL).sampled(5, seed=1), tmp_path / "pool")
    assert (len(more.fetched), len(more.there)) == (2, 3)


@pytest.fixture
def bucket():
    with object_store("commoncrawl") as client:
        yield client


def test_the_same_by_s3_fetched_and_streamed(bucket, embedded, tmp_path, monkeypatch):
    monkeypatch.delenv("WINNOW_FETCH_PRIVATE")  # the end point is the user's own word
    for path, data in layout(embedded).items():
        bucket.put_object(Bucket="commoncrawl", Key=path.lstrip("/"), Body=data)
    pool = common_crawl.crawl(CRAWL, source="s3").sampled(3, seed=1)
    report = listing.fetch(pool, tmp_path / "pool", policy=QUICK)
    numbers = [int(r.path.rsplit("-", 1)[1].split(".")[0]) for r in report.fetched]
    for record, number in zip(report.fetched, numbers, strict=True):
        assert (tmp_path / "pool" / record.path).read_bytes() == sorted(embedded.iterdir())[
            number
        ].read_bytes()

    # what an earlier process left is gone on from, when the object still is that version
    victim = tmp_path / "pool" / report.fetched[0].path
    whole = victim.read_bytes()
    part = victim.with_name(f".{victim.name}.part")
    from pools.partial_file import Part

    part.write_bytes(b"")
    Part(part).begin(report.fetched[0].url, report.fetched[0].etag, 0, [])
    part.write_bytes(whole[:10_000])
    victim.unlink()
    again = listing.fetch(pool, tmp_path / "pool", policy=QUICK)
    assert victim.read_bytes() == whole and again.bytes == len(whole) - 10_000

    pool.save(tmp_path / "pool.json")
    plan = baselines.find("text/rules").plan(
        pool=listing.pool_argument(str(tmp_path / "pool.json")), out=str(tmp_path / "streamed")
    )
    c.run(plan, progress=False, funnel=False)
    streamed = {(r["url"], r["text"]) for r in read_rows(tmp_path / "streamed")}
    assert streamed == {(r["url"], r["text"]) for r in rules(tmp_path / "pool", tmp_path / "out")}
    assert len(streamed) > 50
    with pytest.raises(FetchError) as caught:
        common_crawl.paths("CC-MAIN-1999-01", source="s3")
    assert caught.value.kind == "gone"
