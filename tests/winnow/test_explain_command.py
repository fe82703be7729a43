"""`winnow explain`: a page from anywhere enters the plan where it belongs, and the answer is the run's."""

from __future__ import annotations

import argparse
import gzip
import http.server
import io
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

import curation as c
from winnow import explain

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
from static_check import check

OVER_TEXT = """
title: Long enough
steps:
  - read: ${pool}
  - filters.text:n_chars
  - keep: {where: "n_chars >= ${limit}", reason: short}
  - dedup_exact: {on: text}
  - write: ${out}
defaults: {limit: 60}
"""
OVER_PAGES = """
title: Pages
steps:
  - read: ${pool}
  - filters.text:url_words
  - filters.text:url_rules
  - filters.text:extract
  - filters.text:n_chars
  - keep: {where: "n_chars >= 20", reason: short}
  - write: ${out}
"""
HTML = "<!doctype html><html><head><title>t</title></head><body><main><p>{}</p></main></body></html>"


@pytest.fixture
def recipes(tmp_path):
    for name, text in (("text", OVER_TEXT), ("pages", OVER_PAGES)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return SimpleNamespace(text=str(tmp_path / "text.yaml"), pages=str(tmp_path / "pages.yaml"))


def run(*words):
    """The sub-command alone, as the `winnow` parser calls it."""
    parser = argparse.ArgumentParser()
    explain.add(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["explain", *words])
    arguments.run(arguments)


def told(capsys, *words):
    run(*words, "--json")
    return json.loads(capsys.readouterr().out)


def step(trace, name):
    return next(s for s in trace["steps"] if name in (s["name"], s["reason"]))


def test_without_a_page_the_plan_is_explained_as_ever(text_pool, recipes, tmp_path, capsys):
    run(recipes.text, "--pool", str(text_pool), "--set", "limit=70")
    text = capsys.readouterr().out
    assert "n_chars >= 70" in text and "others leave as 'short'" in text and "8 shards" in text
    with pytest.raises(c.PlanError, match="--run needs a page"):
        run(recipes.text, "--pool", str(text_pool), "--run", "out")
    with pytest.raises(c.PlanError, match=r"\$\{pool\}"):
        run(recipes.text)


def test_a_text(recipes, capsys):
    trace = told(capsys, recipes.text, "--text", "Too short.")
    assert trace["dropped_by"] == "short" and trace["page"] == "from --text"
    assert step(trace, "short")["margins"][0] == {
        "column": "n_chars", "op": ">=", "threshold": 60.0, "value": 10, "met": False, "distance": -50.0,
    }  # fmt: skip
    run(recipes.text, "--text", "Long enough. " * 9, "--colour", "always")
    said = capsys.readouterr().out
    assert "verdict: kept, unless 'exact duplicate' removes it" in said and "\x1b[" in said
    run(recipes.text, "--text", "Long enough. " * 9)
    assert "\x1b[" not in capsys.readouterr().out  # no terminal here


def test_html_enters_at_the_extraction_and_text_after_it(recipes, tmp_path, capsys):
    page = tmp_path / "page.html"
    page.write_bytes(HTML.format("Grüße aus Köln, in einer alten Kodierung.").encode("windows-1252"))
    trace = told(capsys, recipes.pages, "--file", str(page), "--url", "https://example.org/gruss")
    assert trace["verdict"] == "kept" and step(trace, "url_words")["status"] == "scored"
    assert step(trace, "extract")["edits"][1]["pieces"] == [
        ["=", "Grüße aus Köln, in einer alten Kodierung."]
    ]
    text = tmp_path / "page.txt"
    text.write_text("<p> here is only a text about the <p> tag")
    trace = told(capsys, recipes.pages, "--file", str(text))
    assert (
        step(trace, "extract")["status"] == "skipped"
        and step(trace, "url: soft words")["status"] == "unknown"
    )
    assert trace["verdict"] == "kept" and trace["notes"] == ["not given, so null: url"]


def test_html_for_a_plan_over_text_is_extracted_first(recipes, tmp_path, capsys):
    page = tmp_path / "page.htm"
    page.write_text(HTML.format("A page of words. " * 8))
    run(recipes.text, "--file", str(page), "--json")
    done = capsys.readouterr()
    assert "the page was extracted first" in done.err
    assert step(json.loads(done.out), "n_chars")["values"]["n_chars"] == 135
    page.write_text("")
    with pytest.raises(ValueError, match="finds no text"):
        run(recipes.text, "--file", str(page))


def test_standard_input_is_text_or_html(recipes, monkeypatch, capsys):
    for data, status in (
        (HTML.format("Words of a page. " * 3), "changed"),
        ("Words of a text. " * 3, "skipped"),
    ):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data.encode())))
        trace = told(capsys, recipes.pages, "-")
        assert step(trace, "extract")["status"] == status and trace["verdict"] == "kept"


def test_rows_of_shards_by_number_and_by_id(text_pool, recipes, tmp_path, capsys):
    file = sorted(text_pool.iterdir())[2]
    rows = pq.read_table(file).to_pylist()
    trace = told(capsys, recipes.text, "--file", f"{file}:3")
    assert trace["id"] == rows[3]["id"] and trace["url"] == rows[3]["url"]
    assert told(capsys, recipes.text, "--file", str(file), "--id", rows[5]["id"])["id"] == rows[5]["id"]
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"id": "a", "text": "short"}\nbroken\n{"id": "b", "text": "' + "long " * 30 + '"}\n')
    assert told(capsys, recipes.text, "--file", f"{lines}:1")["id"] == "b"
    with pytest.raises(ValueError, match="no row 7: there are 2 rows, and 1 damaged records"):
        run(recipes.text, "--file", f"{lines}:7")
    with pytest.raises(ValueError, match="no row with id 'c'"):
        run(recipes.text, "--file", str(lines), "--id", "c")
    with pytest.raises(ValueError, match="is one page"):
        (tmp_path / "p.txt").write_text("x")
        run(recipes.text, "--file", str(tmp_path / "p.txt"), "--id", "c")


def test_a_row_of_the_pool_and_what_its_run_stored(text_pool, recipes, tmp_path, capsys):
    out = str(tmp_path / "out")
    import baselines

    c.run(baselines.find(recipes.text).plan(pool=str(text_pool), out=out), progress=False)
    from curation.select import scores_table

    rows = scores_table(out).to_pylist()
    copy = next(r["id"] for r in rows if r["dropped_by"] == "exact duplicate")
    trace = told(capsys, recipes.text, "--pool", str(text_pool), "--id", copy, "--run", out)
    assert trace["dropped_by"] == "exact duplicate" and trace["undecided"] == []
    assert trace["stored"]["same_plan"] and trace["stored"]["ranks"]["n_chars"]["of"] == len(rows)
    assert told(capsys, recipes.text, "--pool", str(text_pool), "--id", copy)["verdict"] == "depends"
    with pytest.raises(FileNotFoundError, match="--file SHARD or --pool POOL"):
        run(recipes.text, "--id", copy)


def test_the_page_it_writes(recipes, tmp_path, capsys):
    out = tmp_path / "why.html"
    run(recipes.text, "--text", "<script>alert(1)</script> short", "--html", str(out))
    assert str(out) in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert "Dropped by" in " ".join(check(page).text) and "<script>alert" not in page


def test_two_pages_at_once_are_refused(recipes):
    with pytest.raises(c.PlanError, match="--file and --text"):
        run(recipes.text, "--text", "x", "--file", "y")


# --------------------------------------------------------------------------------------------------- fetching


@pytest.fixture
def server():
    answers = {
        "/page": (200, {"Content-Type": "text/html; charset=utf-8"}, HTML.format("Fetched words of a page.")),
        "/latin": (
            200,
            {"Content-Type": "text/html; charset=iso-8859-1"},
            HTML.format("Déjà vu à la carte."),
        ),
        "/moved": (302, {"Location": "/page"}, ""),
        "/big": (200, {"Content-Type": "text/html"}, "x" * 3000),
        "/bomb": (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, "x" * 5000),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answers.get(self.path, (404, {}, "no"))
            data = body.encode("iso-8859-1" if "iso" in headers.get("Content-Type", "") else "utf-8")
            data = gzip.compress(data) if "Content-Encoding" in headers else data
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_an_address_is_fetched(recipes, server, monkeypatch, capsys):
    pytest.importorskip("pools.public_http", reason="pools.public_http is not there")
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    trace = told(capsys, recipes.pages, "--url", f"{server}/moved")
    assert trace["verdict"] == "kept" and trace["url"] == f"{server}/page"
    trace = told(capsys, recipes.pages, "--url", f"{server}/latin")
    assert step(trace, "extract")["edits"][1]["pieces"][0][1] == "Déjà vu à la carte."
    with pytest.raises(OSError, match="404"):
        run(recipes.pages, "--url", f"{server}/none")
    with pytest.raises(ValueError, match="only http"):
        run(recipes.pages, "--url", "file:///etc/passwd")
    monkeypatch.setattr(explain, "PAGE_BYTES", 1000)
    for path in ("/big", "/bomb"):
        with pytest.raises(ValueError, match="which no page"):
            run(recipes.pages, "--url", server + path)


def test_private_addresses_are_refused(recipes, server, monkeypatch):
    pytest.importorskip("pools.public_http", reason="pools.public_http is not there")
    monkeypatch.delenv("WINNOW_FETCH_PRIVATE", raising=False)
    with pytest.raises(OSError, match="public"):
        run(recipes.pages, "--url", f"{server}/page")
