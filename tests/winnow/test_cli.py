"""The command line does what the API does, says what is wrong, and tells it by its exit code."""

import json

import pyarrow.parquet as pq
import pytest
from support import documents, read_rows

from winnow.cli import main

RECIPE = """
title: Long enough
steps:
  - read: ${pool}
  - filters.text:n_chars
  - keep: {where: "n_chars >= ${limit}", reason: short}
  - dedup_exact: {on: text}
  - write: ${out}
defaults: {limit: 60}
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return str(file)


def test_run_funnel_select(text_pool, tmp_path, recipe, capsys):
    out = str(tmp_path / "out")
    assert main(["run", recipe, "--pool", str(text_pool), "--out", out, "--quiet", "--set", "limit=100"]) == 0
    kept = read_rows(out)
    expected = {}
    for row in documents(480):
        if len(row["text"]) >= 100:
            expected.setdefault(row["text"], row["id"])
    assert sorted(r["id"] for r in kept) == sorted(expected.values())
    assert (tmp_path / "out" / "funnel.html").is_file()

    capsys.readouterr()
    assert main(["funnel", out]) == 0
    assert "short" in capsys.readouterr().out

    ids = tmp_path / "ids.parquet"
    assert main(["select", out, "--where", "dropped_by is null and n_chars > 200", "--out", str(ids)]) == 0
    assert pq.read_table(ids)["id"].to_pylist() == [r["id"] for r in kept if r["n_chars"] > 200]
    assert (
        main(["select", out, "--where", "dropped_by is null", "--top", "n_chars:0.25", "--out", str(ids)])
        == 0
    )
    best = sorted(kept, key=lambda r: (-r["n_chars"], r["id"]))[: round(len(kept) * 0.25)]
    assert set(pq.read_table(ids)["id"].to_pylist()) == {r["id"] for r in best}


def test_select_knows_what_a_barrier_dropped(text_pool, tmp_path):
    """The stage after a selection makes no score, and still says whom the selection dropped."""
    file = tmp_path / "top.yaml"
    file.write_text(
        RECIPE.replace("dedup_exact: {on: text}", "top_fraction: {column: n_chars, fraction: 0.3}")
    )
    out, ids = str(tmp_path / "out"), tmp_path / "ids.parquet"
    assert main(["run", str(file), "--pool", str(text_pool), "--out", out, "--quiet"]) == 0
    assert main(["select", out, "--where", "dropped_by is null", "--out", str(ids)]) == 0
    assert pq.read_table(ids)["id"].to_pylist() == [r["id"] for r in read_rows(out)]
    assert main(["select", out, "--where", "dropped_by = 'quality'", "--out", str(ids)]) == 0
    assert pq.read_table(ids).num_rows > 100


def test_explain_runs_nothing(text_pool, tmp_path, recipe, capsys):
    assert main(["explain", recipe, "--pool", str(text_pool), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "n_chars >= 60" in text and "others leave as 'short'" in text
    assert not (tmp_path / "out").exists()


def test_reshard(text_pool, tmp_path):
    out = tmp_path / "out"
    assert main(["reshard", str(text_pool), str(out), "--rows", "100"]) == 0
    sizes = [pq.read_metadata(f).num_rows for f in sorted((out / "data").iterdir())]
    assert sizes == [100, 100, 100, 100, 80]
    assert [r["id"] for r in read_rows(out)] == [d["id"] for d in documents(480)]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "text/rulse", "--pool", "p", "--out", "o"], 2, "did you mean 'text/rules'"),
        (["run", "text/rules", "--pool", "p", "--out", "o"], 2, "p"),
        (["explain", "text/rules"], 2, "${pool}"),
        (["run", "text/no_filter", "--pool", "p", "--out", "o", "--set", "x"], 2, "NAME=VALUE"),
        (["funnel", "nowhere"], 1, "no finished run"),
        (["leaderboard", "nowhere", "board"], 1, "nowhere"),
        (["train", "lm-huge", "d", "o"], 1, "lm-tiny"),
    ],
)
def test_what_goes_wrong_is_said_and_told_by_the_exit_code(
    arguments, code, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert says in capsys.readouterr().err


def test_a_run_that_fails_exits_with_one_and_names_the_shard(tmp_path, recipe, capsys):
    pool = tmp_path / "pool"
    pool.mkdir()
    lines = "".join(json.dumps({"id": str(i), "text": "x" * 99}) + "\n" for i in range(30)) + "broken\n" * 30
    (pool / "bad.jsonl").write_text(lines)
    assert main(["run", recipe, "--pool", str(pool), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "30 of 60 rows are bad" in error and "raise error_budget" in error


def test_pool_describe_and_recipes(text_pool, capsys):
    assert main(["pool", "describe", str(text_pool)]) == 0
    assert "8 shards" in capsys.readouterr().out
    assert main(["recipes", "text"]) == 0
    listed = capsys.readouterr().out
    assert "text/fasttext" in listed and "--set classifier=" in listed


@pytest.mark.parametrize("command", [[], ["run"], ["select"], ["demo"], ["train"], ["pool"]])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200
