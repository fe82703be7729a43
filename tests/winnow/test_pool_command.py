"""`winnow pool`: what each sub-command prints, writes and refuses."""

from __future__ import annotations

import argparse
import gzip
import json
import sys

import pytest
from local_web import serve

from curation.errors import PlanError
from pools import listing
from pools.fetch import FetchError, FetchFailed
from winnow import pool

CRAWL = "CC-MAIN-2024-22"
SHARDS = {
    f"crawl-data/{CRAWL}/segments/1.{i}/warc/CC-{i:05d}.warc.gz": gzip.compress(b"WARC/1.0\r\n" * (100 + i))
    for i in range(20)
}
BYTES = sum(map(len, SHARDS.values()))


def run(*words: object) -> int:
    """As `winnow pool WORDS`."""
    parser = argparse.ArgumentParser(prog="winnow")
    pool.add(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["pool", *map(str, words)])
    return int(arguments.run(arguments) or 0)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    monkeypatch.delenv("WINNOW_CC_BASE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def web():
    with serve({f"/{path}": data for path, data in SHARDS.items()}) as running:
        lines = "".join(f"{path}\n" for path in SHARDS)
        running.files[f"/crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress(lines.encode())
        running.files["/warcs.txt"] = lines.encode()
        running.files["/collinfo.json"] = json.dumps([{"id": CRAWL}]).encode()
        yield running


def fetched(folder) -> list[str]:
    return sorted(f.name for f in folder.rglob("*.warc.gz"))


def test_common_crawl_fetches_a_sample_and_nothing_the_second_time(web, tmp_path, capsys):
    command = ("common-crawl", CRAWL, "pool", "--base", web.base, "--sample", 3, "--seed", 1)
    assert run(*command) == 0
    said = capsys.readouterr()
    assert said.out.startswith("3 files fetched (") and said.out.endswith("→ pool\n") and not said.err
    assert len(fetched(tmp_path / "pool")) == 3
    for file in (tmp_path / "pool").rglob("*.warc.gz"):
        assert file.read_bytes() == SHARDS[f"crawl-data/{file.relative_to(tmp_path / 'pool').as_posix()}"]
    about = json.loads((tmp_path / "pool" / "_pool.json").read_text())["source"]
    assert (about["crawl"], about["sample"], about["seed"], about["of_shards"]) == (CRAWL, 3, 1, 20)
    assert run(*command) == 0
    assert "0 files fetched (0.0 MB" in capsys.readouterr().out
    assert run("common-crawl", "latest", "pool", "--base", web.base, "--sample", 3, "--seed", 1) == 0
    assert "3 there already" in capsys.readouterr().out


def test_machines_parts_are_one_pool(web, tmp_path):
    for part in ("1/3", "2/3", "3/3"):
        assert run("common-crawl", CRAWL, f"p{part[0]}", "--base", web.base, "--shard", part) == 0
    parts = [fetched(tmp_path / f"p{n}") for n in (1, 2, 3)]
    assert sorted(map(len, parts)) == [6, 7, 7]
    assert sorted(name for part in parts for name in part) == sorted(p.rsplit("/", 1)[1] for p in SHARDS)


def test_a_dry_run_fetches_no_shard(web, tmp_path, capsys):
    assert run("common-crawl", CRAWL, "pool", "--base", web.base, "--sample", 8, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "shards  8 warc of 20" in said and "(8 measured" in said and "free at pool" in said
    assert "text    about" in said and "… and 5 more" in said
    assert not (tmp_path / "pool").exists()
    assert {method for method, path, _ in web.log if path.endswith(".warc.gz")} == {"HEAD"}


def test_list_only_prints_or_writes(web, tmp_path, capsys):
    assert run("common-crawl", CRAWL, "--base", web.base, "--list-only", "--sample", 2) == 0
    urls = capsys.readouterr().out.split()
    assert len(urls) == 2 and all(url.startswith(f"{web.base}/crawl-data/") for url in urls)
    assert run("common-crawl", CRAWL, "pool.json", "--base", web.base, "--list-only", "--sample", 2) == 0
    assert capsys.readouterr().out == "2 shards → pool.json\n"
    assert [e.url for e in listing.load("pool.json").entries] == urls
    assert run("describe", "pool.json") == 0
    assert capsys.readouterr().out == "2 shards, size not known, warc\n"
    assert run("fetch", "pool.json", "pool") == 0
    assert len(fetched(tmp_path / "pool")) == 2


def test_warc_list(web, tmp_path, capsys):
    assert run("warc-list", web.url("/warcs.txt"), "pool", "--base", web.base, "--sample", 4) == 0
    assert len(fetched(tmp_path / "pool")) == 4
    (tmp_path / "mine.txt").write_text(web.url("/" + next(iter(SHARDS))) + "\n")
    assert run("warc-list", "mine.txt", "other") == 0
    assert fetched(tmp_path / "other") == ["CC-00000.warc.gz"]


def test_dclm(web, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WINNOW_DCLM_LISTS", str(tmp_path / "lists"))
    (tmp_path / "lists" / "raw_warcs").mkdir(parents=True)
    lines = "\n".join(f"s3://commoncrawl/{path}" for path in SHARDS)
    (tmp_path / "lists" / "raw_warcs" / "3b-1x.txt").write_text(lines)
    assert run("dclm", "3b-1x", "pool", "--kind", "raw_warcs", "--base", web.base, "--sample", 2) == 0
    assert len(fetched(tmp_path / "pool")) == 2
    assert run("dclm", "3b-1x", "--kind", "preextracted", "--list-only", "--sample", 1) == 0
    said = capsys.readouterr()
    assert "names from the published list of WARCs" in said.err
    assert "https://data.commoncrawl.org/contrib/datacomp/DCLM-pool/crawl=CC-MAIN-2024-22/1." in said.out


def test_shards_that_are_gone_fail_unless_allowed(web, tmp_path, capsys):
    gone = next(iter(SHARDS))
    del web.files["/" + gone]
    with pytest.raises(FetchFailed, match=r"19 files fetched .* 1 failed \(1 gone\)"):
        run("common-crawl", CRAWL, "pool", "--base", web.base)
    assert len(fetched(tmp_path / "pool")) == 19
    with pytest.raises(FetchFailed):
        run("common-crawl", CRAWL, "pool", "--base", web.base, "--missing-ok", 0.01)
    capsys.readouterr()
    assert run("common-crawl", CRAWL, "pool", "--base", web.base, "--missing-ok", 0.05) == 0
    assert "1 shards are missing at the source" in capsys.readouterr().err


def test_list_any_place(text_pool, tmp_path, capsys):
    assert run("list", text_pool, "pool.json", "--sample", 3, "--seed", 5) == 0
    assert capsys.readouterr().out.startswith("3 shards, 0.")
    assert run("list", text_pool, "--out", "again.json", "--sample", 3, "--seed", 5) == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "pool.json").read_text()
    capsys.readouterr()
    assert run("list", text_pool) == 0
    assert len(capsys.readouterr().out.split()) == 8
    assert run("describe", "pool.json") == 0
    assert "  text: string" in capsys.readouterr().out
    assert run("fetch", "pool.json", "copy", "--dry-run") == 0
    assert "(as listed" in capsys.readouterr().out
    assert run("fetch", "pool.json", "copy") == 0
    assert len(list((tmp_path / "copy").glob("*.parquet"))) == 3


def test_embedded_pools_and_describe_as_before(text_pool, tmp_path, capsys):
    assert run("demo-text", tmp_path / "demo", "--shards", 2) == 0
    folder = capsys.readouterr().out.strip()
    assert run("describe", folder) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(" MB, warc")
    assert run("describe", text_pool) == 0
    said = capsys.readouterr().out
    assert said.startswith("8 shards") and "  id: string" in said


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("common-crawl", CRAWL), PlanError, "where to"),
        (("common-crawl", "2024-22", "pool"), ValueError, "such as CC-MAIN-2024-22"),
        (("common-crawl", CRAWL, "s3://bucket/pool"), ValueError, "local folder"),
        (("common-crawl", CRAWL, "pool", "--sample", "0"), ValueError, "ask for 1 to 20"),
        (("common-crawl", CRAWL, "pool", "--shard", "0/8"), ValueError, "from 1/n to n/n"),
        (("common-crawl", CRAWL, "list.txt", "--list-only"), PlanError, "a .json file"),
        (("common-crawl", "CC-MAIN-2014-22", "pool"), FetchError, "did you mean 'CC-MAIN-2024-22'"),
        (("dclm", "1b-5x", "pool"), ValueError, "retired"),
        (("list", "nowhere"), FileNotFoundError, "nowhere"),
        (("fetch", "nowhere.json", "pool"), FileNotFoundError, "nowhere"),
    ],
)
def test_what_is_wrong_is_said(web, monkeypatch, words, error, says):
    monkeypatch.setenv("WINNOW_CC_BASE", web.base)
    with pytest.raises(error, match=says):
        run(*words)


def test_the_line_is_live_on_a_terminal_only(web, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("common-crawl", CRAWL, "pool", "--base", web.base, "--sample", 4) == 0
    said = capsys.readouterr().err
    assert "4/4 files" in said and "MB/s" in said and said.endswith("\n")
    assert run("common-crawl", CRAWL, "quiet", "--base", web.base, "--sample", 4, "--quiet") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [(), ("common-crawl",), ("warc-list",), ("dclm",), ("list",), ("fetch",)])
def test_help_is_there(words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words, "--help")
    assert stop.value.code == 0 and len(capsys.readouterr().out) > 200
