"""The funnel page: it agrees with the run, survives hostile text, and stands without a run's extras."""

import base64
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
sys.path.insert(0, str(Path(__file__).parent))

import synthetic_run
from static_check import check

from curation import funnel
from curation.funnel_page import figures
from curation.funnel_page.scores import Bars, Distribution, distributions
from curation.funnel_page.thresholds import Threshold, names_in, thresholds_in
from curation.html import duration, el, escape, figure, join, link, page, share, size, visible


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    report = synthetic_run.write(root)
    return root, report, Path(funnel.render(root)).read_text(encoding="utf-8")


# ----- the page


def test_page_is_well_formed_self_contained_and_legible(run):
    check(run[2])


def test_page_shows_every_step_reason_and_number(run):
    _, report, text = run
    said = " ".join(check(text).text)
    for step in report["steps"]:
        assert f"{step['rows_out']:,}" in said and (step["reason"] or step["name"]) in said
    for reason in report["reasons"]:
        assert f"{reason['rows']:,}" in said
    assert f"{report['output']['rows']:,} of {report['input']['rows']:,} rows kept" in said
    assert "Every row is accounted for" in said
    assert "truncated gzip member <at the end>" in said
    assert "near duplicate dedup_minhash, step 6" in " ".join(said.split())


def test_text_of_the_pool_stays_text(run):
    _, _, text = run
    found = check(text)
    said = "".join(found.text)
    assert "</script><script>document.title='owned'</script>" in said
    assert "<img src=x onerror=\"document.title='owned'\"> & 'quotes' \"double\" &amp; &lt;b&gt;" in said
    assert "<script>document" not in text and "<img src=x" not in text and "<svg onload" not in text
    assert "\u202e" not in text and "‹U+202E›" in said
    assert "\x00" not in text and "\x07" not in text and "␀" in said and "␇" in said and "␛[31m" in said
    assert "👩‍👩‍👧‍👦" in said and "🇯🇵" in said


def test_page_forbids_everything_but_its_own_script_and_style(run):
    import hashlib
    import re

    text = run[2]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1).replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name in ("style", "script"):
        content = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_same_run_same_bytes(run, tmp_path):
    root, _, text = run
    assert Path(funnel.render(root, tmp_path / "other.html")).read_text(encoding="utf-8") == text


def test_largest_reason_comes_first_and_is_open(run):
    _, report, text = run
    largest = max(report["reasons"], key=lambda r: r["rows"])
    first = text.index('<details class="reason" id="reason-0" open>')
    assert f"<b>{largest['reason']}</b>" in text[first : first + 200]


def test_images_are_shown_and_only_valid_ones(tmp_path):
    report = synthetic_run.write_images(tmp_path)
    text = Path(funnel.render(tmp_path)).read_text(encoding="utf-8")
    check(text)
    assert text.count('<img src="data:image/png;base64,') == 7
    examples = report["reasons"][0]["examples"]
    examples[0] |= {"image_type": "svg+xml"}
    examples[1] |= {"image": 'x" onerror="alert(1)'}
    examples[2] |= {"image_type": 'png" onerror="alert(1)'}
    text = funnel.html(report | {"kept_examples": []})
    check(text)
    assert text.count("<img ") == 2


@pytest.mark.parametrize("change", ["nothing read", "one step", "no scores", "no drops", "bare"])
def test_a_run_without_the_extras_still_has_a_page(tmp_path, change):
    report = synthetic_run.write_empty(tmp_path)
    if change != "nothing read":
        report["input"]["rows"] = report["output"]["rows"] = 5
        report["steps"][0] |= {"rows_in": 5, "rows_out": 5}
    if change in ("no scores", "no drops"):
        report["steps"].append(
            report["steps"][0] | {"index": 1, "kind": "keep", "name": "keep x", "reason": "x"}
        )
    if change == "bare":
        report = {"steps": []}
    (tmp_path / "_winnow" / "report.json").write_text(json.dumps(report))
    said = " ".join(check(Path(funnel.render(tmp_path)).read_text(encoding="utf-8")).text)
    assert "No row was removed by this plan." in said
    assert (
        "No rows were read" if change in ("nothing read", "bare") else "5 of 5 rows kept (100.0 %)"
    ) in said
    assert funnel.table(report).count("\n") >= 2


def test_rows_that_do_not_add_up_are_called_out(run):
    _, report, _ = run
    broken = report | {"output": report["output"] | {"rows": report["output"]["rows"] + 1}}
    assert "Rows do not add up" in funnel.html(broken)


def test_fan_out_is_counted_as_added():
    steps = [
        {"index": 0, "kind": "read", "name": "read", "rows_in": 10, "rows_out": 10},
        {"index": 1, "kind": "transform", "name": "split", "rows_in": 10, "rows_out": 30, "added": 20},
    ]
    report = {"input": {"rows": 10}, "output": {"rows": 30}, "steps": steps}
    said = " ".join(check(funnel.html(report)).text)
    assert "30 rows kept, from 10 read and 20 added" in said and "+ 20 added" in said
    assert "10 read + 20 added = 30 kept" in said
    assert "+20" in funnel.table(report)


def test_neighbouring_rules_that_removed_nothing_are_folded():
    keep = {"kind": "keep", "rows_in": 5, "rows_out": 5, "dropped": 0}
    steps = [{"index": 0, "kind": "read", "name": "read", "rows_in": 5, "rows_out": 5}]
    steps += [keep | {"index": i, "name": f"keep r{i}", "reason": f"r{i}"} for i in range(1, 5)]
    said = " ".join(check(funnel.html({"input": {"rows": 5}, "output": {"rows": 5}, "steps": steps})).text)
    assert "4 rules that removed nothing" in said and "r3" in said


def test_a_directory_without_a_run_and_a_broken_report_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no _winnow/report\.json"):
        funnel.render(tmp_path)
    (tmp_path / "_winnow").mkdir()
    (tmp_path / "_winnow" / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json is not JSON"):
        funnel.render(tmp_path)
    (tmp_path / "_winnow" / "report.json").write_text("[]")
    with pytest.raises(ValueError, match="no list of steps"):
        funnel.render(tmp_path)


def test_a_run_on_an_object_store(run):
    import fsspec

    root, _, text = run
    memory = fsspec.filesystem("memory")
    for file in root.rglob("*"):
        if file.is_file() and file.name != "funnel.html":
            memory.pipe_file(f"/{root.name}/{file.relative_to(root).as_posix()}", file.read_bytes())
    target = funnel.render(f"memory://{root.name}")
    assert target == f"memory://{root.name}/funnel.html"
    assert memory.cat_file(f"/{root.name}/funnel.html").decode() == text


def test_table_for_the_terminal(run):
    _, report, _ = run
    lines = funnel.table(report).splitlines()
    assert len(lines) == len(report["steps"]) + 1 + 2 + 2
    assert lines[0].split() == ["step", "rows", "after", "removed", "work"]
    assert "keep: language" in lines[3] and "48.4 %" in lines[3] and "-1,308" in lines[3]
    assert lines[-3] == "340 of 2,703 rows kept (12.6 %) in 12 s"
    assert "\x1b" not in funnel.table({"steps": [{"name": "\x1b[31mred", "kind": "score"}]})


# ----- scores


def side_car(folder, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "a.parquet")


def test_every_scored_row_is_in_its_bar(run):
    root, report, _ = run
    rules = {"language_score": ["language"], "language": ["language"], "edu": ["quality"]}
    shapes = {d.column: d for d in distributions(str(root), rules)}
    assert list(shapes) == ["language", "language_score", "gopher.n_words", "gopher.symbol_ratio", "edu",
                            "near_duplicate"]  # fmt: skip
    rows, kept = report["input"]["rows"] - 3, report["output"]["rows"]
    by_language = next(r["rows"] for r in report["reasons"] if r["reason"] == "language")
    for name in ("language_score", "gopher.n_words", "gopher.symbol_ratio"):
        bars = shapes[name].bins
        assert sum(b.rows for b in bars) == shapes[name].rows == rows
        assert sum(b.kept for b in bars) == kept  # rows that later stages removed are not kept
        assert sum(b.by_rule for b in bars) == (by_language if name == "language_score" else 0)
    assert sum(b.rows for b in shapes["language"].labels.values()) == rows
    assert shapes["edu"].nulls == 60 and sum(b.by_rule for b in shapes["edu"].bins) == 682


def test_bins_hold_exactly_the_values_between_their_edges(tmp_path):
    values = [0.0, 0.05, 0.1, 0.149, 0.15, 0.3, 0.65, 0.65, 0.999, 1.0]
    dropped = [None] * 6 + ["low", "other", None, None]
    side_car(tmp_path / "scores" / "0", id=[str(i) for i in range(10)], x=values, dropped_by=dropped)
    (shape,) = distributions(str(tmp_path), {"x": ["low"]}, {"x": [0.65]})
    assert (shape.start, shape.width, len(shape.bins)) == (0.0, 0.025, 40)
    expected = [0] * 40
    for v in values:
        expected[min(39, int(v / 0.025 + 1e-9))] += 1
    assert [b.rows for b in shape.bins] == expected
    assert shape.bins[26] == Bars(kept=0, by_rule=1, elsewhere=1)
    assert (shape.minimum, shape.maximum, shape.nulls) == (0.0, 1.0, 0)


def test_odd_columns(tmp_path):
    n = 2000
    struct = pa.StructArray.from_arrays([pa.array([1.5] * n), pa.array(["x"] * n)], ["c d", 'e"f'])
    side_car(
        tmp_path / "scores" / "0",
        id=[str(i) for i in range(n)],
        constant=pa.array([0.0] * n, pa.float32()),
        nothing=pa.array([None] * n, pa.float64()),
        broken=pa.array([float("nan"), float("inf"), 1.0, None] * 500),
        length=pa.array([10**7, *range(1, n)], pa.int64()),
        few=pa.array([0, 1, 2, 3] * 500, pa.int8()),
        unique=[f"u{i}" for i in range(n)],
        **{'a "b"': struct},
        dropped_by=pa.array([None] * n, pa.string()),
    )
    shapes = {d.column: d for d in distributions(str(tmp_path), {}, {"constant": [0.3]})}
    assert set(shapes) == {"constant", "nothing", "broken", "length", "few", 'a "b".c d', 'a "b".e"f'}
    assert shapes["constant"].place(0.3) <= 1 and shapes["constant"].bins[0].rows == n
    assert shapes["nothing"].rows == 0 and shapes["nothing"].nulls == n
    assert shapes["broken"].rows == 500 and shapes["broken"].nulls == 1500
    assert sum(b.rows for b in shapes["length"].bins) == n and shapes["length"].above == 1
    assert shapes["few"].width == 1 and [b.rows for b in shapes["few"].bins] == [500] * 4
    assert shapes['a "b".e"f'].labels == {"x": Bars(kept=n)}


def test_long_tails_of_counts_are_drawn_by_their_logarithm(tmp_path):
    values = [int(10 ** (k / 50)) for k in range(300)]  # 1 … 977,237
    side_car(
        tmp_path / "scores" / "0",
        id=[str(i) for i in range(300)],
        n=values,
        dropped_by=pa.nulls(300, pa.string()),
    )
    (shape,) = distributions(str(tmp_path), {}, {"n": [50, 2500]})
    assert shape.log and sum(b.rows for b in shape.bins) == 300
    assert 0.2 < shape.place(50) < 0.4 < shape.place(2500) < 0.65
    assert shape.edge(0) == pytest.approx(1) and shape.place(0) == float("-inf")


def test_no_side_cars_no_distributions(tmp_path):
    assert distributions(str(tmp_path), {}) == []
    side_car(tmp_path / "scores" / "0", id=pa.array([], pa.string()), x=pa.array([], pa.float64()),
             dropped_by=pa.array([], pa.string()))  # fmt: skip
    assert distributions(str(tmp_path), {}) == []


def test_threshold_is_drawn_where_it_belongs():
    shape = Distribution("x", "0", 10, 0, 0.0, 1.0, 0.5, 0.0, 0.1, False, (Bars(1),) * 10)
    drawn = figures.histogram(shape, [Threshold("x", ">=", 0.65), Threshold("x", "<", 3.0)])
    assert f'<line x1="{0.65 * figures.WIDTH:g}"' in drawn
    assert "≥ 0.65" in drawn and "&lt; 3 →" in drawn
    assert drawn.count('class="kept"') == 10


# ----- thresholds


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("language = 'en' and language_score >= .65", [("language_score", ">=", 0.65)]),
        (
            "50 <= gopher.n_words and gopher.n_words <= 1e5",
            [("gopher.n_words", ">=", 50), ("gopher.n_words", "<=", 1e5)],
        ),
        ("n between -3 and 2.5 or m == 7", [("n", ">=", -3), ("n", "<=", 2.5), ("m", "=", 7)]),
        ('"words per line" > 2 and "a""b" < -1', [("words per line", ">", 2), ('a"b', "<", -1)]),
        ("abs(z) > 2 and a + b > 5 and c * 2 > 4 and d > 3 * e", []),
        ("text = 'score > 5' and x != 4", []),
        ("x > 5 and x > 5", [("x", ">", 5)]),
        ("not (x < 1)", [("x", "<", 1)]),
        ("a.b . c >= 0.10", [("a.b.c", ">=", 0.1)]),
        ("", []),
    ],
)
def test_thresholds_of_an_expression(where, expected):
    assert [(t.column, t.op, t.value) for t in thresholds_in(where)] == expected


def test_columns_of_an_expression():
    assert names_in("language = 'en' and lower(url) like '%x%' and gopher.n > 3 and language is null") == [
        "language", "url", "gopher.n",
    ]  # fmt: skip
    assert names_in(None) == []


# ----- html helpers


def test_elements_escape_and_flatten():
    assert el("p", "a<b", ["&", None, [1, False]], class_="x\"y'", hidden=True, title=None) == (
        '<p class="x&quot;y&#39;" hidden>a&lt;b&amp;1</p>'
    )
    assert el("br") == "<br>" and el("rect", x=1) == '<rect x="1"/>' and el("td", 0) == "<td>0</td>"
    assert join(el("b", "<"), "<") == "<b>&lt;</b>&lt;"
    assert escape(escape("<")) == "&lt;"


def test_lone_surrogates_and_hidden_characters_are_shown():
    assert visible("a\ud800b").encode() == "a\ufffdb".encode()
    assert visible("\x00\x1b\x7f\x85\u2066\ufeff") == "␀␛␡‹U+0085›‹U+2066›‹U+FEFF›"
    assert visible("a\tb\nc\u200d\u200f é") == "a\tb\nc\u200d\u200f é"


def test_links_lead_to_the_web_only():
    assert link("x", "https://e.org/?a=1&b='") == (
        '<a href="https://e.org/?a=1&amp;b=&#39;" rel="noreferrer noopener nofollow" target="_blank">x</a>'
    )
    for url in (
        "javascript:alert(1)",
        "data:text/html,x",
        "//e.org",
        "file:///etc/passwd",
        None,
        "https://a b",
    ):
        assert link("x<", url) == "x&lt;"


def test_a_page_refuses_assets_that_would_end_their_element(tmp_path):
    from curation.html import asset

    (tmp_path / "a.js").write_text("x = '</script>'")
    with pytest.raises(ValueError, match=r"a\.js holds '</'"):
        asset(tmp_path / "a.js")
    check(page("t", el("h1", "t")))


def test_numbers_as_people_read_them():
    assert [size(n) for n in (0, 999, 1000, 16_500_000, 999_600, 2.5e12, None)] == [
        "0 B", "999 B", "1 kB", "16.5 MB", "1 MB", "2.5 TB", "–",
    ]  # fmt: skip
    assert [duration(s) for s in (0, 0.004, 0.42, 9.96, 59.6, 125, 7800, None)] == [
        "0 s", "4 ms", "0.4 s", "10 s", "1 min 00 s", "2 min 05 s", "2 h 10 min", "–",
    ]  # fmt: skip
    assert [share(a, b) for a, b in ((1, 8), (1, 10**6), (10**6 - 1, 10**6), (0, 5), (1, 0), (5, 5))] == [
        "12.5 %", "< 0.1 %", "> 99.9 %", "0.0 %", "–", "100.0 %",
    ]  # fmt: skip
    assert [figure(v) for v in (0.65, 0.000757, 1234.5, 12, True, None, "en", 1e-9, float("nan"), -0.5)] == [
        "0.65", "0.000757", "1,234", "12", "yes", "–", "en", "1e-09", "nan", "-0.5",
    ]  # fmt: skip
