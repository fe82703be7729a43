"""The embedded text pool: complete, licensed, disjoint from what it is judged on, always the same bytes."""

import collections
import hashlib
import re

import pytest

from pools import demo_text
from pools.text import overlap

pytest.importorskip("fastwarc", reason="reading WARC needs fastwarc (extra: text)")

PERMISSIVE = {
    "PSF-2.0", "MIT OR Apache-2.0", "PostgreSQL", "LicenseRef-Public-Domain", "Apache-2.0",
    "BSD-3-Clause", "MIT",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_text.unpack(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def truth():
    return demo_text.truth().to_pylist()


@pytest.fixture(scope="module")
def records(folder):
    """(URL, record id, HTTP charset, body) of every response record in the shards."""
    from fastwarc.warc import ArchiveIterator

    found = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, verify_digests=False):
                body = record.reader.read()
                found.append((record.headers["WARC-Target-URI"], record.record_id, record.http_charset, body))
                assert record.headers["WARC-Type"] == "response"
                assert record.http_headers.status_code == 200
                assert len(body) == int(record.http_headers["Content-Length"])
    return found


def heldout():
    return [*demo_text.heldout("validation"), *demo_text.heldout("evaluation")]


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# --- size and licences ----------------------------------------------------------------------------------


def test_committed_data_stays_within_its_budget():
    sizes = {path.name: path.stat().st_size for path in demo_text.DATA.rglob("*") if path.is_file()}
    assert sizes["pool.warc.xz"] <= 4_000_000
    assert sum(sizes.values()) <= 5_500_000


def test_every_row_names_a_permissive_licence_and_a_source(truth):
    for row in [*truth, *demo_text.trusted(), *heldout()]:
        assert row["licence"] in PERMISSIVE, row.get("url") or row["id"]
        assert row["source"]
    texts = {path.stem for path in (demo_text.DATA / "LICENSES").iterdir()}
    for licence in PERMISSIVE:
        assert set(licence.split(" OR ")) <= texts


def test_copyleft_prose_is_not_in_the_pool(truth):
    assert not [row["url"] for row in truth if "embedded-book" in row["url"] or "print.html" in row["url"]]


# --- records and truth ----------------------------------------------------------------------------------


def test_truth_covers_each_record_exactly_once(records, truth):
    assert sorted(url for url, _, _, _ in records) == [row["url"] for row in truth]
    assert len({row["url"] for row in truth}) == len({row["record_id"] for row in truth}) == len(truth)
    by_url = {row["url"]: row for row in truth}
    for url, record_id, http_charset, body in records:
        row = by_url[url]
        assert row["record_id"] == f"<{record_id.strip('<>')}>"
        assert row["html_bytes"] == len(body)
        assert row["header_charset"] == http_charset


def test_every_page_decodes_in_the_charset_that_truth_and_page_declare(records, truth):
    by_url = {row["url"]: row for row in truth}
    old = collections.Counter()
    for url, _, _, body in records:
        row = by_url[url]
        body.decode(row["charset"])
        if row["charset"] != "utf-8":
            old[row["charset"]] += 1
            declared = re.search(rb"charset=[\"']?([A-Za-z0-9_-]+)", body[:2048], re.I)
            assert declared and declared.group(1).decode().lower() == row["charset"], url
    assert len(old) >= 8 and sum(old.values()) >= 80
    assert any(row["header_charset"] is None for row in truth)


def test_the_pool_is_a_mixture(truth):
    pages = collections.Counter(row["class"] for row in truth)
    assert 3_000 <= len(truth) <= 3_600
    assert pages["prose"] >= 450
    assert pages["other_language"] >= 400
    spam = sum(count for kind, count in pages.items() if kind.startswith("spam_"))
    assert 0.2 <= spam / len(truth) <= 0.4
    assert {"api", "changelog", "nav", "code", "mirror", "untranslated", "boilerplate"} <= set(pages)
    assert len({row["language"] for row in truth}) >= 100


def test_copies_have_a_heavy_tail_and_their_original_is_in_the_pool(truth):
    groups = collections.Counter(row["group"] for row in truth if row["group"])
    assert min(groups.values()) >= 2
    assert max(groups.values()) >= 50
    assert sum(size == 2 for size in groups.values()) >= 20
    urls = {row["url"] for row in truth}
    assert all(row["copy_of"] in urls for row in truth if row["copy_of"])


# --- disjoint -------------------------------------------------------------------------------------------


def test_no_document_is_in_two_of_pool_trusted_validation_evaluation(truth):
    pool = {row["url"] for row in truth} | {row["copy_of"] for row in truth}
    parts = [pool] + [
        {row["id"] for row in rows}
        for rows in (demo_text.trusted(), demo_text.heldout("validation"), demo_text.heldout("evaluation"))
    ]
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_heldout_and_trusted_share_few_shingles_with_any_class_of_the_pool(records, truth):
    html2text = pytest.importorskip("resiliparse.extract.html2text", reason="extraction needs resiliparse")
    charsets = {row["url"]: row["charset"] for row in truth}
    texts = (
        html2text.extract_plain_text(body.decode(charsets[url]), main_content=False)
        for url, _, _, body in records
    )
    pool = overlap.union(texts)
    trusted = overlap.union(row["text"] for row in demo_text.trusted())
    for row in heldout():
        own = overlap.shingles(row["text"])
        assert overlap.share_in(own, pool) <= overlap.LIMIT, row["id"]
        assert overlap.share_in(own, trusted) <= overlap.LIMIT, row["id"]
    for row in demo_text.trusted():
        assert overlap.share_in(overlap.shingles(row["text"]), pool) <= overlap.LIMIT, row["id"]


def test_heldout_splits_do_not_share_text():
    validation = overlap.union(row["text"] for row in demo_text.heldout("validation"))
    for row in demo_text.heldout("evaluation"):
        assert overlap.share_in(overlap.shingles(row["text"]), validation) <= overlap.LIMIT, row["id"]


# --- the rows -------------------------------------------------------------------------------------------


def test_heldout_is_running_prose():
    from pools.text import prose

    rows = heldout()
    assert len(demo_text.heldout("evaluation")) >= 90
    assert 20 <= len(demo_text.heldout("validation")) <= 40
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert all(prose.is_prose(paragraph) for paragraph in row["text"].split("\n\n")), row["id"]
    assert sum(len(row["text"]) for row in rows) >= 500_000


def test_trusted_is_about_two_hundred_pages():
    rows = demo_text.trusted()
    assert 180 <= len(rows) <= 240
    assert sum(len(row["text"]) for row in rows) >= 1_500_000
    assert all(set(row) == {"id", "source", "licence", "text"} for row in rows)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="validation and evaluation"):
        demo_text.heldout("test")


# --- unpack ---------------------------------------------------------------------------------------------


def test_unpack_gives_the_same_bytes_every_time(folder, tmp_path):
    again = demo_text.unpack(tmp_path)
    assert again.parent == tmp_path and again.name == folder.name
    assert sorted(digests(folder)) == [f"part-{i:05d}.warc.gz" for i in range(8)]
    assert digests(again) == digests(folder)


def test_shards_have_one_gzip_member_a_record(folder, records):
    import zlib

    members = 0
    for path in folder.iterdir():
        rest = path.read_bytes()
        while rest:
            unpacker = zlib.decompressobj(31)
            unpacker.decompress(rest)
            assert unpacker.eof
            rest, members = unpacker.unused_data, members + 1
    assert members == len(records)


def test_unpack_is_idempotent_and_mends_what_was_changed(tmp_path):
    first = demo_text.unpack(tmp_path, shards=3)
    before = digests(first)
    stamps = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert demo_text.unpack(tmp_path, shards=3) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == stamps

    (first / "part-00001.warc.gz").write_bytes(b"cut short")
    (first / "stray.warc.gz").write_bytes(b"")
    assert demo_text.unpack(tmp_path, shards=3) == first
    assert digests(first) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, f"{first.name}.sha256"]


def test_unpack_goes_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "here"))
    assert demo_text.unpack(shards=1).parent == tmp_path / "here"


def test_a_damaged_package_is_refused(monkeypatch, tmp_path):
    packed = (demo_text.DATA / "pool.warc.xz").read_bytes()
    (tmp_path / "pool.warc.xz").write_bytes(packed[:-1])
    (tmp_path / "pool.warc.xz.sha256").write_text((demo_text.DATA / "pool.warc.xz.sha256").read_text())
    monkeypatch.setattr(demo_text, "DATA", tmp_path)
    with pytest.raises(ValueError, match="install Winnow again"):
        demo_text.unpack(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
