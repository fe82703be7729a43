"""One row through a plan: the verdict is the run's, and every step says what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import curation as c
from curation.select import scores_table

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
from static_check import check


@c.score
def n_words(text: str) -> int:
    return len(text.split())


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Int32Array:
    return pc.utf8_length(text)


@c.score
def fragile(text: str) -> float:
    if "boom" in text:
        raise ValueError("boom in the text")
    return 1.0


@c.transform
def without_menu(text: str):
    lines = [line for line in text.split("\n") if not line.startswith("Menu")]
    return {"text": "\n".join(lines)} if any(lines) else None


@c.transform
def halves(text: str):
    return [{"text": half} for half in text.split("\n==\n")]


@c.score
def host_length(url: str) -> int:
    return len(url.split("/")[2])


PLAN = [
    n_chars,
    c.keep("n_chars >= 10 and n_chars < 1000", reason="length"),
    without_menu,
    fragile,
    c.keep("fragile > 0", reason="fragile"),
    n_words,
    c.keep("n_words >= 4", reason="few words"),
    c.keep(lambda text: "spam" not in text, reason="spam"),
]


def at(trace, name):
    return next(s for s in trace.steps if name in (s.name, s.reason))


def test_every_step_is_run_and_the_first_failure_is_the_verdict():
    trace = c.trace(PLAN, "Menu | Home\nspam and more")
    assert (trace.verdict, trace.dropped_by, trace.step) == ("dropped", "few words", 7)
    statuses = "scored pass changed scored pass scored FAIL FAIL"
    assert [s.status for s in trace.steps] == statuses.split()
    assert [s.reason for s in trace.failing] == ["few words", "spam"]
    rule = at(trace, "few words")
    assert rule.values == {"n_words": 3} and rule.where == "n_words >= 4"
    (margin,) = rule.margins
    assert (margin.value, margin.threshold, margin.distance, margin.met) == (3, 4, -1, False)
    assert [m.met for m in at(trace, "length").margins] == [True, True]
    edit = at(trace, "without_menu")
    assert edit.before == {"text": "Menu | Home\nspam and more"} and edit.after == {"text": "spam and more"}


def test_text_json_and_page_say_the_same():
    trace = c.trace(
        PLAN, {"text": "Menu | Home\nspam <b>and</b> more", "id": "x", "url": "https://e.org/?a&b"}
    )
    said = str(trace)
    assert "dropped by 'few words', step 7: n_words 3, asked ≥ 4 (1, 25 % below)" in said
    assert "- Menu | Home" in said and "1 more step would remove it too" in said
    assert "\x1b[" not in said and "\x1b[1;31m" in trace.text(colour=True)
    told = json.loads(json.dumps(trace.as_dict()))
    assert told["verdict"] == "dropped" and told["steps"][2]["edits"][0]["pieces"][0] == [
        "-",
        "Menu | Home\n",
    ]
    page = trace.html()
    found = check(page)
    assert "spam <b>and</b> more" in "".join(found.text) and "<b>and</b>" not in page
    assert "<del>Menu | Home" in page


def test_an_error_is_quarantine_and_what_follows_is_still_looked_at():
    trace = c.trace(PLAN, "this goes boom in the end, spam")
    assert (trace.verdict, trace.dropped_by, trace.step) == ("quarantined", None, 4)
    assert "ValueError: boom in the text" in str(trace)
    assert at(trace, "spam").status == "FAIL" and at(trace, "few words").status == "pass"


def test_a_transform_that_makes_nothing_drops_by_its_name():
    trace = c.trace(PLAN, "Menu one two\nMenu three")
    assert (trace.verdict, trace.dropped_by) == ("dropped", "without_menu")
    assert at(trace, "n_words").values == {"n_words": 5}  # of the row as it was


def test_fan_out_follows_one_row():
    plan = [halves, n_words, c.keep("n_words > 1", reason="short")]
    assert c.trace(plan, "one\n==\none two").dropped_by == "short"
    second = c.trace(plan, "one\n==\none two", part=1)
    assert second.verdict == "kept" and "made 2 rows; this is number 1 (row/1)" in at(second, "halves").note


def test_what_was_not_given_is_not_judged():
    plan = [host_length, c.keep("host_length < 3", reason="host"), *PLAN]
    trace = c.trace(plan, "five words are in here")
    assert trace.verdict == "kept" and at(trace, "host").status == "unknown"
    assert trace.notes == ("not given, so null: url",)
    assert "1 rule could not be judged" in str(trace)
    assert (
        c.trace(plan, {"text": "five words are in here", "url": "https://example.org/"}).dropped_by == "host"
    )


def test_a_given_text_skips_its_extraction():
    from filters.text.extract import extract

    plan = [extract(), n_chars, c.keep("n_chars > 5", reason="short")]
    trace = c.trace(plan, "plain text")
    assert at(trace, "extract").status == "skipped" and trace.verdict == "kept"
    page = c.trace(plan, {"content": b"<html><body><p>Some text of a page</p>", "content_type": "text/html"})
    assert at(page, "extract").after["text"] == "Some text of a page"
    none = c.trace(plan, {"content": b"%PDF-1.4", "content_type": "application/pdf"})
    assert none.dropped_by == "extract" and at(none, "n_chars").status == "not run"


def test_barriers_are_named_and_do_not_stop_the_rest():
    plan = [
        *PLAN,
        c.dedup_exact(on="text"),
        c.top_fraction("n_words", 0.5),
        c.keep("n_chars < 20", reason="last"),
    ]
    trace = c.trace(plan, "these are five short words")
    assert trace.dropped_by == "last"
    assert [s.reason for s in trace.undecided] == ["exact duplicate", "quality"]
    assert "unless 'exact duplicate', 'quality' removes it before" in str(trace)
    kept = c.trace(plan[:-1], "these are five short words")
    assert kept.verdict == "depends" and "only the whole pool decides" in str(kept)


def test_a_plan_that_cannot_work_is_refused():
    with pytest.raises(c.PlanError, match="step 2 \\(keep x\\)"):
        c.trace([n_words, c.keep("n_words.lines > 3", reason="x")], "text")
    with pytest.raises(ValueError, match="one row"):
        c.trace(PLAN, pa.record_batch({"id": ["a", "b"], "text": ["x", "y"]}))


# ------------------------------------------------------------------------------- the same as a run says


def _pages(n: int) -> pa.Table:
    """Real pages as crawled: the embedded pool's first shard."""
    from curation.formats import read_batches
    from curation.shards import list_shards
    from pools import demo_text

    shard = list_shards(str(demo_text.unpack()))[0]
    batch = next(iter(read_batches(shard, bad=lambda bad: None)))
    assert batch.num_rows >= n
    return pa.Table.from_batches([batch.slice(0, n)])


def test_the_verdict_is_the_runs_for_200_real_pages(tmp_path):
    from filters.text import extract, gopher_quality, gopher_quality_rules, language, language_rules

    pages = _pages(200)
    (tmp_path / "pool").mkdir()
    pq.write_table(pages, tmp_path / "pool" / "a.parquet")
    plan = [
        c.read(str(tmp_path / "pool")), host_length, c.keep("host_length < 24", reason="host"), extract(),
        language(), language_rules(keep=["en"], threshold=0.65), without_menu, gopher_quality(),
        gopher_quality_rules(), c.write(str(tmp_path / "out")),
    ]  # fmt: skip
    c.run(plan, progress=False, workers=1)
    table = scores_table(tmp_path / "out")
    stored = dict(zip(table["id"].to_pylist(), table["dropped_by"].to_pylist(), strict=True))
    bad = {
        json.loads(line)["id"]
        for f in (tmp_path / "out" / "_winnow" / "bad").rglob("*.jsonl")
        for line in f.open()
    }
    seen = set()
    for row in range(pages.num_rows):
        one = pages.slice(row, 1)
        trace = c.trace(plan, one)
        if trace.id in bad:
            assert trace.verdict == "quarantined"
            continue
        assert trace.dropped_by == stored[trace.id], str(trace)
        assert trace.verdict == ("kept" if stored[trace.id] is None else "dropped")
        seen.add(trace.dropped_by)
    assert len(seen) >= 4, seen  # the pages do exercise the rules


def test_a_finished_run_decides_barriers_and_ranks(text_pool, tmp_path):
    out = str(tmp_path / "out")
    plan = [
        c.read(str(text_pool)), n_chars, c.keep("n_chars >= 60", reason="short"), c.dedup_exact(on="text"),
        n_words, c.top_fraction("n_words", 0.3, reason="best"), c.write(out),
    ]  # fmt: skip
    c.run(plan, progress=False, workers=1)
    table = scores_table(out)
    stored = {r["id"]: r["dropped_by"] for r in table.to_pylist()}
    rows = {r["id"]: r for f in sorted(text_pool.iterdir()) for r in pq.read_table(f).to_pylist()}
    seen = {}
    for row_id, reason in stored.items():
        if seen.get(reason, 0) < 6:
            seen[reason] = seen.get(reason, 0) + 1
            trace = c.trace(plan, rows[row_id], run=out)
            assert trace.dropped_by == reason
            assert not trace.undecided or reason in ("short", "exact duplicate")
            assert (trace.verdict == "kept") == (reason is None)
    assert set(seen) == {None, "short", "exact duplicate", "best"}

    trace = c.trace(plan, rows[next(i for i, r in stored.items() if r is None)], run=out)
    below, of = trace.stored.ranks["n_chars"]
    values = [v for v in table["n_chars"].to_pylist() if v is not None]
    assert of == len(values) and below == sum(v < len(trace.row["text"]) for v in values) / of
    assert at(trace, "best").margins[0].met
    assert "of the run" in str(trace) and "was kept" in str(trace)

    fresh = c.trace(
        plan, "a text that no run has seen, of quite a number of words to be long enough " * 3, run=out
    )
    assert fresh.verdict == "depends" and not fresh.stored.found
    other = c.trace([*plan[:2], *plan[3:]], rows[next(iter(stored))], run=out)
    assert not other.stored.same_plan and all("another plan" in s.note for s in other.undecided)
