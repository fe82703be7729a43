import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.lm import build_tasks
from evaluation.lm.__main__ import main
from evaluation.lm.run import evaluate
from evaluation.lm.tasks import DATA, TaskError, load_suite, read_items
from pools import demo_text
from recipes import scale as scales
from recipes.lm.train import train

ROOT = Path(__file__).parents[2]


def test_the_committed_tasks_are_what_the_script_builds(tmp_path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-m", "evaluation.lm.build_tasks", "--out", str(tmp_path)],
        cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    built = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    committed = {p.name: p.read_bytes() for p in (DATA / "tiny").iterdir()}
    assert built.keys() == committed.keys()
    assert [name for name in built if built[name] != committed[name]] == []
    assert sum(map(len, committed.values())) <= 400_000


def test_items_are_sound() -> None:
    suite = load_suite("tiny")
    for task in suite.tasks:
        items = read_items(task, suite.folder)
        if task.kind == "multiple_choice":
            assert all(len(i["choices"]) == len(set(i["choices"])) == 4 for i in items)
            gold = Counter(i["gold"] for i in items)
            assert max(gold.values()) < 0.4 * len(items), (task.name, gold)
            assert task.chance == 0.25
        if task.name in ("word_order", "word_swap"):
            for i in items:
                assert len({tuple(sorted(c.split())) for c in i["choices"]}) == 1
        if task.kind == "schema":
            assert all(i["context_options"][0] != i["context_options"][1] for i in items)


def test_validation_and_evaluation_items_do_not_meet(tmp_path) -> None:
    pages = sorted(demo_text.heldout("validation"), key=lambda row: row["id"])
    build_tasks.build(pages, "validation", tmp_path)
    for path in (DATA / "tiny").iterdir():
        a, b = (set(f.read_text().splitlines()) for f in (path, tmp_path / path.name))
        assert not a & b, path.name


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"query": "q", "choices": ["a", "b"], "gold": 2}', "gold is 2, but there are 2 options"),
        ('{"query": "q", "choices": ["a"], "gold": 0}', "at least two texts"),
        ('{"query": "q", "choices": ["a", 3], "gold": 0}', "at least two texts"),
        ('{"query": "q", "choices": ["a", "b"]}', r"needs gold \(int\), found None"),
        ('{"query": 5, "choices": ["a", "b"], "gold": 0}', r"needs query \(str\), found 5"),
        ("{", "not JSON"),
        ("[1]", "expected an object, found list"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"query": "q", "choices": ["a", "b"], "gold": 0}\n\n' + line + "\n")
    (tmp_path / "s.yaml").write_text("tasks: [{name: t, kind: multiple_choice, file: t.jsonl}]")
    suite = load_suite(tmp_path / "s.yaml", tmp_path)
    with pytest.raises(TaskError, match=rf"t\.jsonl, line 3: .*{message}"):
        read_items(suite.tasks[0], tmp_path)


def test_bad_suites_are_refused(tmp_path) -> None:
    with pytest.raises(TaskError, match="known: dclm, tiny"):
        load_suite("heavy")
    (tmp_path / "s.yaml").write_text("tasks: [{name: t, kind: quiz, file: t.jsonl}]")
    with pytest.raises(TaskError, match="kind is 'quiz'"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text("tasks: [{name: t, kind: text, file: t.jsonl, shot: 3}]")
    with pytest.raises(TaskError, match="shot"):
        load_suite(tmp_path / "s.yaml")


def test_dclms_table() -> None:
    suite = load_suite("dclm")
    assert len(suite.tasks) == 53 and suite.folder is None
    assert Counter(t.kind for t in suite.tasks) == {
        "multiple_choice": 33,
        "language_modeling": 13,
        "generation": 5,
        "schema": 2,
    }
    assert sum(t.core for t in suite.tasks) == 22
    boolq = next(t for t in suite.tasks if t.name == "boolq")
    assert (boolq.shots, boolq.chance, boolq.delimiter) == (10, 0.62, "\nAnswer: ")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "rules" / "data").mkdir(parents=True)
    (folder / "rules" / "_winnow").mkdir()
    texts = [f"The value {i} is set in the file of the server. " * 20 for i in range(30)]
    table = pa.table({"id": [str(i) for i in range(30)], "text": texts})
    pq.write_table(table, folder / "rules" / "data" / "0.parquet")
    size = sum(map(len, texts))
    report = {"plan_hash": "abc", "input": {"rows": 60, "text_bytes": 2 * size}, "output": {"rows": 30}}
    (folder / "rules" / "_winnow" / "report.json").write_text(json.dumps(report))
    scale = scales.load("lm-tiny").replace(
        model={"dim": 16, "layers": 1}, train={"steps": 5, "warmup_steps": 1, "batch": 1}
    )
    train(scale, folder / "rules", folder / "model", 2, print_every=0)
    return folder, scale, size


def test_the_result_file_is_the_contracts(model) -> None:
    folder, scale, size = model
    out = folder / "results" / "text" / "rules" / "seed-2.json"
    record = evaluate(
        folder / "model", "tiny", out, title="English + rules", limit=5, dataset={"funnel": "f.html"}
    )
    assert json.loads(out.read_text()) == record
    assert record["track"] == "text" and record["recipe"] == "rules" and record["title"] == "English + rules"
    assert (record["scale"], record["scale_hash"], record["seed"]) == ("lm-tiny", scale.hash, 2)
    assert record["dataset"]["kept_fraction"] == 0.5 and record["dataset"]["plan_hash"] == "abc"
    assert (record["dataset"]["rows"], record["dataset"]["rows_pool"], record["dataset"]["bytes"]) == (
        30,
        60,
        size,
    )
    assert record["dataset"]["funnel"] == "f.html" and record["control"] is False
    assert record["train"]["tokens_or_samples"] == 5 * 128
    assert next(iter(record["tasks"])) == "heldout_bpb"
    for task in record["tasks"].values():
        assert {"title", "metric", "value", "stderr", "n", "chance", "higher_is_better", "in_score"} <= set(
            task
        )
    assert set(record["score"]) == {"name", "value", "stderr", "higher_is_better"}


def test_the_same_model_gets_the_same_figures(model) -> None:
    folder, _, _ = model
    a, b = (evaluate(folder / "model", "tiny", limit=5)["tasks"] for _ in range(2))
    for name in a:
        assert a[name]["metrics"] == b[name]["metrics"]


def test_command_line(model, capsys) -> None:
    folder, _, _ = model
    assert main([str(folder / "model"), "--limit", "4", "--only", "cloze,word_swap"]) == 0
    shown = capsys.readouterr().out
    assert "word_swap" in shown and "not available, missing word_order" in shown
    assert main([str(folder / "model"), "--tasks", "dclm"]) == 1
    assert "give the folder of its task files" in capsys.readouterr().err
    assert main([str(folder / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
