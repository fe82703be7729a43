"""Whole runs: what survives a kill, what is run again, several processes, generation, sets and files."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evaluation.lm import aggregate, prompts, run
from evaluation.lm.__main__ import main
from evaluation.lm.generate import Request, fit, generate, stopped
from evaluation.lm.results import Progress, TaskCache, code_hash, model_hash
from evaluation.lm.run import evaluate, run_task
from evaluation.lm.scorer import Scorer
from evaluation.lm.tasks import Task, file_hash, load_suite, read_items
from recipes import scale as scales
from recipes.lm.model import Decoder, Shape

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "recipes" / "data" / "bpe4096.json"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    scale = scales.load("lm-tiny").replace(model={"dim": 32, "layers": 2, "heads": 2, "context": 512})
    model = Decoder(scale.section("model", Shape), seed=3)
    with torch.no_grad():
        model.embedding.weight.mul_(4)
    state = model.state_dict()
    state.pop("head.weight")
    save_file(state, folder / "model.safetensors")
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    config = {"scale": scale.to_dict(), "scale_hash": scale.hash, "seed": 3}
    (folder / "config.json").write_text(json.dumps(config))
    trained = {"scale": scale.name, "scale_hash": scale.hash, "seed": 3, "data": "nowhere", "steps": 1}
    trained |= {"tokens": 1, "seconds": 1.0, "final_loss": 8.0, "parameters": 1, "data_rows": 1}
    trained |= {"data_bytes": 1, "data_fingerprint": "x", "epochs": 1.0}
    (folder / "result.json").write_text(json.dumps(trained))
    return folder


@pytest.fixture(scope="module")
def scorer(model_dir):
    torch.set_num_threads(1)
    return Scorer.load(model_dir, devices=["cpu"])


KILLED = """
import os, signal, sys
from evaluation.lm.run import evaluate
done = []
def on_task(name, task):
    done.append(name)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
evaluate(sys.argv[1], "tiny", limit=4, cache=sys.argv[2], on_task=on_task)
"""


def test_a_killed_run_goes_on_with_the_tasks_that_are_missing(model_dir, tmp_path, monkeypatch) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(model_dir), str(tmp_path)], env=environment, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    names = [task.name for task in load_suite("tiny").tasks]
    assert sorted(p.name.rsplit("-", 1)[0] for p in tmp_path.iterdir()) == sorted(names[:3])

    ran: list[str] = []

    def spy(scorer, task, *rest):
        ran.append(task.name)
        return run_task(scorer, task, *rest)

    monkeypatch.setattr(run, "run_task", spy)
    resumed = evaluate(model_dir, "tiny", limit=4, cache=tmp_path)
    assert ran == names[3:]
    again = evaluate(model_dir, "tiny", limit=4, cache=tmp_path)
    assert ran == names[3:] and again["tasks"] == resumed["tasks"]
    fresh = evaluate(model_dir, "tiny", limit=4)
    assert ran[len(names) - 3 :] == names
    for name in names:
        assert fresh["tasks"][name]["metrics"] == resumed["tasks"][name]["metrics"]


def test_a_result_is_kept_under_everything_it_depends_on(model_dir, tmp_path, monkeypatch) -> None:
    suite = load_suite("tiny")
    task = suite.tasks[1]
    data = file_hash(suite.folder / task.file)
    cache = TaskCache(tmp_path, model_hash(model_dir), {"limit": None})
    cache.put(task, data, {"value": 1})
    assert cache.get(task, data) == {"value": 1}
    assert cache.get(task, "other file") is None
    assert cache.get(Task(**{**task.__dict__, "shots": 1}), data) is None
    assert TaskCache(tmp_path, model_hash(model_dir), {"limit": 3}).get(task, data) is None
    assert TaskCache(tmp_path, "other model", {"limit": None}).get(task, data) is None
    monkeypatch.setattr("evaluation.lm.results.HARNESS", "next")
    assert TaskCache(tmp_path, model_hash(model_dir), {"limit": None}).get(task, data) is None
    cache.path(task, data).write_text('{"result": {"val')
    assert cache.get(task, data) is None
    assert len(code_hash()) == len(model_hash(model_dir)) == 16


def test_two_processes_give_the_figures_of_one(model_dir, scorer) -> None:
    suite = load_suite("tiny")
    two = Scorer.load(model_dir, devices=["cpu", "cpu"])
    try:
        for name in ("heldout_bpb", "word_swap", "cloze_choice_2shot", "function_word"):
            task = next(t for t in suite.tasks if t.name == name)
            a, b = (run_task(s, task, suite.folder, 24) for s in (scorer, two))
            assert a.metrics == b.metrics, name
        requests = [Request(np.array(scorer.encode([t])[0]), 4) for t in ("One day", "It was", "The")]
        assert generate(two, requests) == generate(scorer, requests)
    finally:
        two.close()


def naive_generation(scorer: Scorer, request: Request) -> str:
    ids: list[int] = []
    text = ""
    while len(ids) < request.new:
        with torch.no_grad():
            token = int(scorer.model(torch.tensor([[*request.ids.tolist(), *ids]]))[0, -1].argmax())
        if token == scorer.end:
            break
        ids.append(token)
        text = scorer.tokenizer.decode(ids)
        if any(stop in text for stop in request.stops):
            break
    return text


def test_generation_equals_reading_all_again_for_every_token(scorer) -> None:
    items = read_items(load_suite("tiny").tasks[-1], load_suite("tiny").folder)[:24]
    ids = [np.array(scorer.encode([item["context"]])[0]) for item in items]
    free = [Request(row, 6 + i % 5) for i, row in enumerate(ids)]
    texts = generate(scorer, free)
    assert texts == [naive_generation(scorer, request) for request in free]
    assert len(set(texts)) > 5 and all(texts)
    # Stops that do occur, one of them across two tokens' border.
    stops = [text[len(text) // 2 : len(text) // 2 + 2] for text in texts]
    halted = [Request(r.ids, r.new, (stop, "never seen")) for r, stop in zip(free, stops, strict=True)]
    cut = generate(scorer, halted)
    assert cut == [naive_generation(scorer, request) for request in halted]
    assert all(stop in text for stop, text in zip(stops, cut, strict=True))
    assert sum(len(c) < len(t) for c, t in zip(cut, texts, strict=True)) > 12


def test_generation_ends_at_the_end_of_text_token(scorer, monkeypatch) -> None:
    request = Request(np.array(scorer.encode(["He said"])[0]), 8)
    ids = scorer.encode([generate(scorer, [request])[0]])[0]
    monkeypatch.setattr(scorer, "end", ids[2])
    assert scorer.encode([generate(scorer, [request])[0]])[0] == ids[: ids.index(ids[2])]
    with pytest.raises(ValueError, match="request 0: 0 tokens"):
        generate(scorer, [Request(np.array([], dtype=np.int64), 3)])


def test_prompts_leave_room_for_the_answer() -> None:
    assert fit(range(10), 4, 8).tolist() == [6, 7, 8, 9]
    assert fit(range(3), 4, 8).tolist() == [0, 1, 2]


def test_a_stop_string_is_seen_when_its_last_byte_comes(scorer) -> None:
    ids = scorer.encode(["one é\n\nQ: two"])[0]
    seen = [stopped(scorer.tokenizer, ids[:n], ("\n\nQ:",)) for n in range(1, len(ids) + 1)]
    full = ["\n\nQ:" in scorer.tokenizer.decode(ids[:n]) for n in range(1, len(ids) + 1)]
    assert seen.index(True) == full.index(True)


@pytest.fixture
def dclm_folder(tmp_path):
    """Two of DCLM's files, as many rows as need be for their shots, and a broken one."""
    rows = [{"context": f"{i} apples and {i} more?", "answer": str(2 * i)} for i in range(1, 40)]
    cot = [{**row, "chain_of_thought": "Add them."} for row in rows]
    for name, records in {
        "symbolic_problem_solving/svamp.jsonl": cot,
        "commonsense_reasoning/copa.jsonl": [
            {"query": f"q {i}", "choices": ["a b", "c"], "gold": i % 2} for i in range(100)
        ],
        "commonsense_reasoning/openbook_qa.jsonl": [{"query": 1}],
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    suite = (Path(run.__file__).parents[1] / "data" / "lm" / "dclm.yaml").read_text()
    (tmp_path / "dclm.yaml").write_text(suite)
    return tmp_path


def test_generation_tasks_are_run(scorer, dclm_folder) -> None:
    task = next(t for t in load_suite("dclm").tasks if t.name == "svamp_cot")
    task = Task(**{**task.__dict__, "rows": None, "blob": ""})
    result = run_task(scorer, task, dclm_folder, 5)
    assert result.n == 5 and result.kind == "generation" and result.metrics["bits_per_byte"]["value"] > 0
    assert {"accuracy", "accuracy_corrected"} <= set(result.metrics)
    items = read_items(task, dclm_folder)
    new = prompts.max_new_tokens(task, items, lambda texts: [len(i) for i in scorer.encode(texts)])
    assert 10 < new < 40
    small = Scorer(scorer.model, scorer.tokenizer, context=8)
    with pytest.raises(run.CannotRun, match=rf"{new} tokens long, but the model's context is 8"):
        run_task(small, task, dclm_folder, 5)


def test_sets_aggregates_and_broken_files(model_dir, dclm_folder, tmp_path, capsys) -> None:
    out, dclm = tmp_path / "r.json", tmp_path / "d.json"
    arguments = [str(model_dir), "--data-dir", str(dclm_folder), "--set", "core", "--out", str(out)]
    code = main([*arguments, "--dclm-json", str(dclm), "--no-cache"])
    shown = capsys.readouterr()
    assert code == 1 and "openbook_qa.jsonl, line 1" in shown.err and "copa" in shown.out
    record = json.loads(out.read_text())
    assert list(record["tasks"]) == ["copa"] and len(record["not_run"]) == 21
    assert record["harness"]["failed"] == ["openbook_qa"]
    core = record["aggregates"]["compat"]["v2"]["core"]
    assert core["value"] is None and len(core["missing"]) == 21 and core["tasks"] == 22
    assert record["score"]["value"] is None and "piqa" in record["score"]["missing"]
    assert set(record["aggregates"]["corrected"]) == {"v0", "v1", "v2"}
    theirs = json.loads(dclm.read_text())
    accuracy = record["tasks"]["copa"]["metrics"]["accuracy"]["value"]
    assert theirs["eval_metrics"] == {"icl": {"copa": accuracy}}
    assert theirs["Core"].startswith(aggregate.MISSING) and theirs["eval_version"] == "v2"
    assert main([str(model_dir), "--set", "corre"]) == 1
    assert "no set corre; there are core, extended" in capsys.readouterr().err


def test_core_is_the_score_when_every_task_is_there(model_dir, monkeypatch) -> None:
    suite = load_suite("dclm")
    figure = {"value": 0.7, "stderr": 0.01}
    members = [t for t in suite.tasks if t.core]

    def result(task: Task) -> run.TaskResult:
        metrics = {"accuracy": figure, "accuracy_corrected": {"value": 0.6, "stderr": 0.02}}
        shape = (task.title, "accuracy", 0.7, 0.01, 9, task.chance, True, False, task.kind, 0, 0, "", 0.0)
        return run.TaskResult(*shape, metrics)

    done = run.SuiteResult("dclm", {t.name: result(t) for t in members}, {}, (), None, 0.0)
    got = run._aggregates(suite, done, "v1")
    expected = aggregate.aggregates({t.name: 0.7 for t in members}, "v1")["Core"]
    assert got["score"]["value"] == pytest.approx(100 * expected) and got["score"]["name"] == "Core (v1)"
    assert got["score"]["stderr"] > 0
    assert got["aggregates"]["corrected"]["v1"]["core"]["value"] < expected
    assert got["aggregates"]["compat"]["v1"]["extended"]["value"] is None


def test_progress_counts_tasks_and_learns_the_speed(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("evaluation.lm.results.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress({"kept": 50.0, "a": 100.0, "b": 300.0}, show=True, stream=stream)
    progress.begin("kept")
    progress.end(cached=True)
    progress.begin("a")
    progress.items = 40
    now[0] = 20.0
    assert progress.line(0.5) == "a  1/3 tasks  1 items/s  eta 2:20"
    now[0] = 40.0
    progress.end()
    assert stream.getvalue().splitlines() == [
        "kept  1/3 tasks  (kept)",
        "a  2/3 tasks  1 items/s  eta 2:00",
    ]
    assert "2/3 tasks" in progress.line(None)
    quiet = io.StringIO()
    silent = Progress({"a": 1.0}, stream=quiet)
    silent.begin("a")
    silent.update(0.5)
    silent.end()
    silent.close()
    assert quiet.getvalue() == ""
