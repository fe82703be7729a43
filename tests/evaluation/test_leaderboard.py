"""The leaderboard: numbers against scipy, ranks, controls, statements, and files that are refused."""

import copy
import csv
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from scipy import stats as scipy_stats

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
sys.path.insert(0, str(Path(__file__).parent))

import synthetic_results
from static_check import check

from evaluation import leaderboard
from evaluation.leaderboard_page import words
from evaluation.leaderboard_page.plot import HEIGHT, WIDTH, Box, place_labels, plot
from evaluation.leaderboard_page.results import read_result, read_results
from evaluation.leaderboard_page.standings import control_kind, known, standings


@pytest.fixture
def results(tmp_path):
    return synthetic_results.write(tmp_path)


def tables_of(results):
    return standings(read_results(results))


def edit(file, change):
    """Change a result file in place by a function of its content."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def rows_of(table):
    return {row.recipe: row for row in table.rows}


# ----- standings


def test_text_comes_first_and_ranks_follow_the_mean(results):
    tables = tables_of(results)
    assert [(t.track, t.scale) for t in tables] == [("text", "lm-tiny"), ("image_text", "clip-tiny")]
    assert [(r.rank, r.recipe) for r in tables[0].rows] == [
        (1, "fasttext"), (2, "rules"), (3, "rules-dedup"), (4, "no-filter"), (5, "random"),
    ]  # fmt: skip
    assert [r.control for r in tables[0].rows] == [None, None, None, "no-filter", "random"]


def test_intervals_and_differences_are_scipys(results):
    rows = rows_of(tables_of(results)[0])
    row, base, near = rows["fasttext"], rows["no-filter"], rows["random"]
    expected = scipy_stats.t.interval(0.95, 2, loc=sum(row.scores) / 3, scale=scipy_stats.sem(row.scores))
    assert (row.score.low, row.score.high) == pytest.approx(expected, rel=1e-9)
    assert row.score.n == 3
    for other, found in ((base, row.gain), (near, row.gain_random)):
        exact = scipy_stats.ttest_ind(row.scores, other.scores, equal_var=False).confidence_interval(0.95)
        assert found.mean == pytest.approx(sum(row.scores) / 3 - sum(other.scores) / 3)
        # degrees of freedom are rounded down, so ours is the wider one
        assert found.low <= exact.low + 1e-9 and found.high >= exact.high - 1e-9
        assert found.high - found.low < 1.6 * (exact.high - exact.low)
    assert row.beats is True and row.tied is False
    task = row.tasks["order"].value
    assert task.mean == pytest.approx(0.68 + (0.01 - 0.012 + 0.004) / 3)


def test_beats_needs_both_controls_outside_the_interval(results):
    rows = rows_of(tables_of(results)[1])
    rules = rows["rules"]
    assert rules.gain.low > 0 and rules.gain_random.low < 0 < rules.gain_random.mean
    assert rules.beats is False and words.beats(rules) == "no"
    assert rows["filter-network"].beats is True
    assert rows["rules-network"].tied and not rows["rules"].tied
    assert rows["no-filter"].beats is None and rows["no-filter"].gain is None
    assert rows["random"].gain is not None and rows["random"].gain_random is None


def test_lower_is_better_turns_ranks_and_signs_round(results):
    for file in (results / "text").rglob("seed-*.json"):
        edit(file, lambda v: v["score"].update(higher_is_better=False, value=100 - v["score"]["value"]))
    mirrored = tables_of(results)[0]
    rows = rows_of(mirrored)
    assert [r.recipe for r in mirrored.rows][:2] == ["fasttext", "rules"]
    assert rows["fasttext"].gain.mean == pytest.approx(12.2333333) and rows["fasttext"].beats is True


def test_the_random_control_nearest_in_size_is_the_one_compared_with(results):
    for seed in range(3):
        file = results / "text" / "random" / f"seed-{seed}.json"
        value = json.loads(file.read_text())
        value |= {"recipe": "random-40", "title": "Random 40 %"}
        value["dataset"]["kept_fraction"] = 0.4
        value["score"]["value"] += 20
        synthetic_results.save(results / "text" / "random-40" / file.name, value)
    rows = rows_of(tables_of(results)[0])
    assert rows["fasttext"].against_random == "random" and rows["fasttext"].beats is True
    assert rows["rules"].against_random == "random-40" and rows["rules"].beats is False


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval_and_claim_nothing(tmp_path, seeds):
    results = synthetic_results.write(tmp_path, seeds)
    table = tables_of(results)[0]
    for row in table.rows:
        assert not known(row.score) and not known(row.gain) and row.beats is None and not row.tied
    assert "No claim is made" in words.verdict(table)
    page = leaderboard.build(results, tmp_path / "out").read_text(encoding="utf-8")
    assert f"n/a, {seeds} seeds" in page and ">yes<" not in page
    assert (
        json.loads((tmp_path / "out" / "leaderboard.json").read_text())[0]["rows"][0]["score"]["low"] is None
    )


def test_seeds_that_do_not_differ_prove_nothing(results):
    for recipe, score in (("fasttext", 30.0), ("no-filter", 20.0)):
        for file in (results / "text" / recipe).glob("*.json"):
            edit(file, lambda v, score=score: v["score"].update(value=score))
    row = rows_of(tables_of(results)[0])["fasttext"]
    assert row.gain.mean == 10 and not known(row.gain) and row.beats is None


def test_scales_with_another_hash_never_share_a_table(results):
    for seed in range(3):
        edit(results / "text" / "rules" / f"seed-{seed}.json", lambda v: v.update(scale_hash="other"))
    tables = [t for t in tables_of(results) if t.track == "text"]
    assert len(tables) == 2 and tables[0].scale == tables[1].scale
    assert sorted(len(t.rows) for t in tables) == [1, 4]
    alone = next(t for t in tables if len(t.rows) == 1)
    assert alone.rows[0].beats is None
    page = leaderboard.build(results, results.parent / "out")
    check(page.read_text(encoding="utf-8"))
    assert {p.name for p in page.parent.glob("plot-*.svg")} == {
        "plot-image-text.svg", "plot-text-lm-tiny-lm-tiny.svg", "plot-text-lm-tiny-other.svg",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("no-filter", "no-filter"), ("no_filter", "no-filter"), ("nofilter", "no-filter"),
     ("unfiltered", "no-filter"),
     ("random", "random"), ("random-same-size", "random"), ("text_random_15", "random"), ("oracle", "other")],
)  # fmt: skip
def test_controls_by_name(recipe, kind):
    assert control_kind(recipe, True) == kind and control_kind(recipe, False) is None


# ----- refused files


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("score.value", "31", r"score\.value should be a finite number, found '31'"),
        ("score.value", float("nan"), r"score\.value should be a finite number, found nan"),
        ("score.value", None, r"score\.value should be a finite number, found null"),
        ("score.value", ..., r"score\.value should be a finite number, found nothing"),
        ("score", ..., r"score should be an object, found None"),
        (
            "dataset.kept_fraction",
            1.5,
            r"dataset\.kept_fraction should be a finite number >= 0 and <= 1, found 1\.5",
        ),
        ("dataset.rows", -1, r"dataset\.rows should be a whole number >= 0, found -1"),
        ("seed", True, r"seed should be a whole number >= 0, found True"),
        ("recipe", "", r"recipe should be a text, found ''"),
        ("control", "yes", r"control should be true or false, found 'yes'"),
        ("tasks.order.value", [], r"tasks\.order\.value should be a finite number, found \[\]"),
        ("tasks.order", 3, r"tasks\.order should be an object, found 3"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(results, path, value, said):
    file = results / "text" / "rules" / "seed-1.json"

    def change(content):
        *groups, last = path.split(".")
        for group in groups:
            content = content[group]
        content.pop(last) if value is ... else content.update({last: value})

    edit(file, change)
    with pytest.raises(ValueError, match=said) as error:
        leaderboard.build(results, results.parent / "out")
    assert str(file) in str(error.value)
    assert not (results.parent / "out").exists()


def test_files_that_are_not_results(results):
    file = results / "text" / "rules" / "seed-1.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_results(results)
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"the file should be an object, found \[\]"):
        read_result(file)
    with pytest.raises(FileNotFoundError, match="no result file"):
        read_results(results / "nowhere")


def test_a_seed_counts_once(results):
    file = results / "text" / "rules" / "seed-1.json"
    synthetic_results.save(results / "text" / "copy" / "seed-1.json", json.loads(file.read_text()))
    with pytest.raises(ValueError, match="both seed 1 of recipe 'rules'"):
        read_results(results)


def test_scores_of_another_kind_do_not_mix(results):
    edit(results / "text" / "rules" / "seed-1.json", lambda v: v["score"].update(name="Core (other)"))
    with pytest.raises(ValueError, match=r"score\.name is 'Core \(other\)', but"):
        read_results(results)


# ----- the page and its files


def test_page_holds_the_numbers(results):
    page = leaderboard.build(results, results.parent / "out", title="A <title>")
    found = check(page.read_text(encoding="utf-8"))
    said = " ".join(" ".join(found.text).split())
    assert "A <title>" in said
    for text in ("33.6", "[32.3, 35.0]", "+12.2", "[+8.5, +16.0]", "15.0 %", "of 2,700",
                 "Word order, 4 ways",
                 "bits per byte, lower is better, 92 items; not in the score",
                 "control: nothing removed",
                 "Not separable from Filter network, top 30 % at this number of seeds: Rules",
                 "no correction for the number of recipes", "Welch"):  # fmt: skip
        assert text in said, text


def test_same_results_same_bytes(results):
    one = leaderboard.build(results, results.parent / "one").parent
    two = leaderboard.build(results, results.parent / "two").parent
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert {str(f) for f in files} == {
        "index.html", "leaderboard.csv", "leaderboard.json", "leaderboard.md", "plot-image-text.svg",
        "plot-text.svg",
    }  # fmt: skip
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_hostile_titles_stay_text(results):
    title = "</title><script>alert(1)</script> | a | \u202eb"
    for file in (results / "text" / "rules").glob("*.json"):
        edit(file, lambda v: v.update(title=title))
        edit(file, lambda v: v["tasks"]["order"].update(title="<b>\"'&"))
    page = leaderboard.build(results, results.parent / "out")
    text = page.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in "".join(check(text).text) and "<script>alert" not in text
    markdown = (page.parent / "leaderboard.md").read_text(encoding="utf-8")
    row = next(line for line in markdown.splitlines() if "alert" in line and line.startswith("| 2"))
    assert row.replace("\\|", "").count("|") == 9 and "\\<script\\>" in row
    ElementTree.parse(page.parent / "plot-text.svg")


def test_funnel_and_recipe_are_copied_beside_the_page(results):
    here = results.parent
    (here / "runs" / "rules").mkdir(parents=True)
    (here / "runs" / "rules" / "funnel.html").write_text("the funnel")
    (here / "runs" / "rules" / "recipe.yaml").write_text("the recipe")
    (here.parent / "secret.html").write_text("not yours")
    (here / "key.pem").write_text("not yours")
    for seed in range(3):
        edit(results / "text" / "rules" / f"seed-{seed}.json", lambda v: v["dataset"].update(
            funnel="../../../runs/rules/funnel.html", recipe_file="runs/rules/recipe.yaml"))  # fmt: skip
        edit(results / "text" / "fasttext" / f"seed-{seed}.json", lambda v: v["dataset"].update(
            funnel="../../../../secret.html", recipe_file="key.pem"))  # fmt: skip
    page = leaderboard.build(results, here / "out")
    text = page.read_text(encoding="utf-8")
    folder = page.parent / "recipes" / "text-lm-tiny-lm-tiny-rules"
    assert (folder / "funnel.html").read_text() == "the funnel"
    assert (folder / "recipe.yaml").read_text() == "the recipe"
    assert 'href="recipes/text-lm-tiny-lm-tiny-rules/funnel.html"' in text
    assert 'href="recipes/text-lm-tiny-lm-tiny-rules/recipe.yaml"' in text
    assert text.count("funnel not found") == 1 and text.count("recipe not found") == 1
    assert "not yours" not in "".join(p.read_text() for p in page.parent.rglob("*") if p.is_file())


def test_exports_agree_with_each_other(results):
    out = leaderboard.build(results, results.parent / "out").parent
    tables = json.loads((out / "leaderboard.json").read_text(encoding="utf-8"))
    lines = list(csv.DictReader((out / "leaderboard.csv").open(encoding="utf-8", newline="")))
    rows = [(table, row) for table in tables for row in table["rows"]]
    assert len(lines) == len(rows) == 10
    for line, (table, row) in zip(lines, rows, strict=True):
        assert (line["track"], line["recipe"], int(line["rank"])) == (
            table["track"],
            row["recipe"],
            row["rank"],
        )
        assert (
            float(line["score"]) == row["score"]["mean"] and float(line["score_low"]) == row["score"]["low"]
        )
        assert int(line["seeds"]) == len(row["seeds"]) == 3
        assert float(line["order"]) == row["tasks"]["order"]["mean"]
        assert bool(line["heldout_bpb"]) == (table["track"] == "text")
        wanted = {None: "", True: "true", False: "false"}[row["beats_both_outside_interval"]]
        assert line["beats_both_outside_interval"] == wanted
    assert rows[0][1]["seeds"] == {"0": 33.6, "1": 34.2, "2": 33.1}
    markdown = (out / "leaderboard.md").read_text(encoding="utf-8")
    assert (
        "| 1 | Rules + dedup + fastText quality | 33.6 [32.3, 35.0] | +12.2 [+8.5, +16.0] | yes |" in markdown
    )
    assert "(plot-text.svg)" in markdown


# ----- the plot


def test_labels_meet_neither_each_other_nor_points(results):
    table = tables_of(results)[0]
    base = table.rows[0]
    for n in (2, 5, 9, 14):
        rows = [copy.copy(base) for _ in range(n)]
        points = [(200 + 12 * (i % 4), 120 + 9 * i) for i in range(n)]
        labels = place_labels(rows, points, [(y - 5, y + 5) for _, y in points])
        for i, label in enumerate(labels):
            assert label.box.x >= 0 and label.box.x + label.box.width <= WIDTH
            assert label.box.y >= 0 and label.box.y + label.box.height <= HEIGHT
            assert all(label.box.overlap(other.box) == 0 for other in labels[:i])
            assert all(label.box.overlap(Box(x - 5, y - 5, 10, 10)) == 0 for x, y in points)


def test_plot_is_drawn_to_scale_and_valid_xml(results):
    table = tables_of(results)[1]
    root = ElementTree.fromstring(plot(table, standalone=True))
    space = "{http://www.w3.org/2000/svg}"
    titles = [t.text for t in root.iter(f"{space}title")]
    assert any(
        t.startswith("Filter network, top 30 %: 19.9 [") and t.endswith("keeping 30.0 %") for t in titles
    )
    points = {
        g.find(f"{space}title").text.split(":")[0]: g
        for g in root.iter(f"{space}g")
        if g.get("class") in ("candidate", "control")
    }
    height = {name: float(g.find(f"{space}circle").get("cy")) for name, g in points.items() if "circle" in
              ElementTree.tostring(g, encoding="unicode")}  # fmt: skip
    order = sorted(height, key=height.get)
    assert order == ["Filter network, top 30 %", "Rules + filter network", "Caption and image rules"]
    scores = {row.title: row.score.mean for row in table.rows}
    a, b, c = order
    assert (height[c] - height[a]) / (height[b] - height[a]) == pytest.approx(
        (scores[a] - scores[c]) / (scores[a] - scores[b]), rel=0.05
    )
    squares = [g.find(f"{space}rect") for name, g in points.items() if name not in height]
    assert len(squares) == 2 and all(float(s.get("width")) == 8 for s in squares)


def test_a_recipe_on_data_of_its_own_is_ranked_but_not_drawn(results):
    for file in (results / "text" / "fasttext").glob("*.json"):
        edit(file, lambda v: v["dataset"].update(kept_fraction=None))
    table = tables_of(results)[0]
    row = rows_of(table)["fasttext"]
    assert row.rank == 1 and row.beats is True and words.percent(row) == "–"
    assert "on data of its own" in words.verdict(table)
    assert "fastText" not in plot(table) and "English + rules" in plot(table)
    check(leaderboard.build(results, results.parent / "out").read_text(encoding="utf-8"))


def test_small_fractions_get_a_logarithmic_axis(results):
    for file in (results / "text" / "fasttext").glob("*.json"):
        edit(file, lambda v: v["dataset"].update(kept_fraction=0.004))
    text = plot(tables_of(results)[0])
    assert "log scale" in text and ">0.1 %<" in text and ">100 %<" in text


def test_a_run_without_a_score_is_named_and_a_changed_scale_is_marked(tmp_path):
    folder = synthetic_results.write(tmp_path)
    files = sorted((folder / "text").rglob("seed-*.json"))
    lacking = json.loads(files[0].read_text())
    lacking["score"] |= {"value": None, "missing": ["squad", "coqa"]}
    lacking["title"] = "Half evaluated"
    (folder / "text" / "half").mkdir()
    (folder / "text" / "half" / "seed-0.json").write_text(json.dumps(lacking | {"recipe": "half"}))
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"official": False}))
    page = leaderboard.build(folder, tmp_path / "board").read_text()
    said = (tmp_path / "board" / "leaderboard.md").read_text()
    line = "no {}, because 2 of its tasks were not run: squad, coqa".format(lacking["score"]["name"])
    assert line in said and line in page and "Half evaluated" in page
    assert "lm-tiny (unofficial)" in page and "clip-tiny (unofficial)" not in page
    data = json.loads((tmp_path / "board" / "leaderboard.json").read_text())
    assert [table["official"] for table in data] == [False, True]
    assert not any(row["recipe"] == "half" for table in data for row in table["rows"])


def test_a_board_of_runs_without_scores_is_still_written(tmp_path):
    folder = synthetic_results.write(tmp_path)
    for file in sorted(folder.rglob("seed-*.json")):
        value = json.loads(file.read_text())
        value["score"] |= {"value": None, "missing": ["arc_easy"]}
        file.write_text(json.dumps(value))
    leaderboard.build(folder, tmp_path / "board")
    assert "Not ranked" in (tmp_path / "board" / "leaderboard.md").read_text()


def test_a_model_from_elsewhere_is_named_and_has_no_place(results):
    ours = results / "text" / "rules" / "seed-0.json"
    theirs = results / "text" / "public" / "seed-0.json"
    theirs.parent.mkdir()
    theirs.write_text(ours.read_text())
    edit(theirs, lambda v: (v.pop("dataset"), v.update(scale="none", title="A public model", dataset={})))
    board = leaderboard.build(results, results.parent / "out").parent
    said = (board / "leaderboard.md").read_text()
    assert "A public model" in said.split("Not ranked")[1] and "from elsewhere" in said
