"""DataComp's eval_results.jsonl, ours and other people's; and what the cache keeps of a task."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.clip import aggregate, faces, metrics
from evaluation.clip.__main__ import main
from evaluation.clip.answers import Answers
from evaluation.clip.metrics import Measure, MetricError
from evaluation.clip.results import (
    ResultError,
    TaskCache,
    outcome_of,
    read_datacomp_jsonl,
)
from evaluation.clip.run import evaluate
from evaluation.clip.suites import BenchmarkSuite

sys.path.insert(0, str(Path(__file__).parent))
from clip_towers import HashedTower
from wds_sets import write_suite

COUNTED = [t for t in aggregate.tasks() if t.in_average]


def line(task, value) -> str:
    return json.dumps({"key": task.key, "dataset": task.name, "metrics": {"main_metric": value}})


def whole(path: Path, end: str = "") -> Path:
    scores = [line(t, 0.5 + i / 100) for i, t in enumerate(COUNTED)]
    faces_line = json.dumps({"key": "fairness/fairface", "dataset": "FairFace",
                             "metrics": {"acc_race_avg": 0.8, "main_metric": None}})  # fmt: skip
    path.write_text("\n".join([*scores, faces_line]) + "\n" + end)
    return path


def test_a_result_written_and_read_again_is_the_same(tmp_path) -> None:
    tasks = BenchmarkSuite("datacomp", tuple(write_suite(tmp_path, size=12)))
    record = evaluate(
        HashedTower(), tasks, data_dir=tmp_path, strict=True, jsonl=tmp_path / "eval_results.jsonl"
    )
    found = read_datacomp_jsonl(tmp_path / "eval_results.jsonl")
    assert found.scores == {key: entry["value"] for key, entry in record["tasks"].items()}
    assert not found.problems and set(found.metrics) == set(record["tasks"]) | set(record["reports"])
    fmow = found.metrics["wilds/fmow"]  # as DataComp has them: regions by number, its own worst region alone
    assert {name for name in fmow if "region" in name} == {
        "acc_worst_region", *(f"acc_region:{i}" for i in range(6))
    }  # fmt: skip
    assert fmow["acc_region:5"] == record["tasks"]["wilds/fmow"]["metrics"]["acc_region:Other"]["value"]
    assert fmow["main_metric"] == fmow["acc_worst_region"]
    assert found.metrics["wilds/camelyon17"]["acc5"] is None  # two classes
    assert found.metrics["fairness/fairface"]["main_metric"] is None
    assert "acc_gender_x_race:0_gender:0" in found.metrics["fairness/fairface"]
    first = json.loads((tmp_path / "eval_results.jsonl").read_text().splitlines()[0])
    assert list(first) == ["key", "dataset", "metrics"] and first["dataset"] == "CIFAR-10"


def test_a_line_that_was_broken_off_is_told_and_left_out(tmp_path, capsys) -> None:
    path = whole(tmp_path / "r.jsonl")
    assert main(["aggregate", str(path)]) == 0
    said = capsys.readouterr().out
    average = np.mean([0.5 + i / 100 for i in range(38)])
    assert f"average         38 {average:8.4f}" in said and not capsys.readouterr().err

    complete = read_datacomp_jsonl(path)
    assert len(complete.scores) == 38 and len(complete.metrics) == 39 and not complete.problems
    cut = path.read_text().splitlines()
    last = cut.index(line(COUNTED[-1], 0.5 + 37 / 100))
    path.write_text("\n".join(cut[:last]) + "\n" + cut[last][:40])
    broken = read_datacomp_jsonl(path)
    assert set(complete.scores) - set(broken.scores) == {"fairness/geode"}
    (problem,) = broken.problems
    assert problem.startswith(f"{path}, line 38 (the last): no result")
    assert main(["aggregate", str(path)]) == 1  # no average
    said = capsys.readouterr()
    assert "missing fairness/geode" in said.out and "left out: " in said.err


def test_what_cannot_count_is_told(tmp_path) -> None:
    path = tmp_path / "r.jsonl"
    cifar, pets = aggregate.task("cifar10"), aggregate.task("Oxford-IIIT Pet")
    strange = [
        '{"key": "cifar10"}', "[1]", '{"dataset": "Oxford-IIIT Pet", "metrics": {"main_metric": 0.25}}',
        line(cifar, math.nan), line(cifar, 1.5), line(cifar, None), line(cifar, True),
        '{"key": "mine", "metrics": {}}', "", '"text"',
    ]  # fmt: skip
    path.write_text("\n".join(strange))
    found = read_datacomp_jsonl(path)
    assert found.scores == {pets.key: 0.25} and len(found.problems) == 8
    assert "main_metric of cifar10 is nan, not a number from 0 to 1" in found.problems[2]
    path.write_text(line(cifar, 0.5) + "\n" + line(cifar, 0.5) + "\n")
    assert read_datacomp_jsonl(path).scores == {"cifar10": 0.5}
    path.write_text(line(cifar, 0.5) + "\n" + line(cifar, 0.6) + "\n")
    with pytest.raises(
        ResultError, match=r"line 2 \(the last\): cifar10 is 0.6, and an earlier line says 0.5"
    ):
        read_datacomp_jsonl(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ResultError, match="holds no result"):
        read_datacomp_jsonl(path)
    with pytest.raises(ResultError, match="is not there"):
        read_datacomp_jsonl(tmp_path / "nothing")


def test_the_cache_gives_back_what_it_was_given(tmp_path) -> None:
    hits = np.array([1.0, 0.0, 1.0, 1.0])
    answers = Answers(
        measures={"acc1": metrics.proportion(hits), "worst": Measure(0.25, 0.1, 4)},
        chance={"acc1": 0.5},
        ids=["a", "b", "c", "d"],
        groups={"worst": {"tiny": Measure(0.25, math.nan, 4)}},
        examples={
            "id": ["a", "b", "c", "d"], "way": ["image_to_class"] * 4, "target": ["x", "y", None, "x"],
            "answer": ["x"] * 4, "rank": [0, 1, None, 0], "group": ["tiny"] * 4,
        },
    )  # fmt: skip
    outcome = outcome_of("vtab/x", answers, metrics.proportion(1 - hits), 1.5, "f00d")
    cache = TaskCache(tmp_path, {"model": "m", "precision": "fp32"})
    assert cache.get("vtab/x", "definition", "f00d") is None
    cache.put("vtab/x", "definition", outcome)
    found = cache.get("vtab/x", "definition", "f00d")
    assert found.examples.equals(outcome.examples) and (found.seconds, found.fingerprint) == (1.5, "f00d")
    assert found.answers.ids == answers.ids and found.answers.chance == answers.chance
    for mine, kept in ((answers.measures["acc1"], found.answers.measures["acc1"]),
                       (outcome.corrected, found.corrected)):  # fmt: skip
        assert (kept.value, kept.stderr, kept.n) == (mine.value, mine.stderr, mine.n)
        np.testing.assert_array_equal(kept.influence, mine.influence)
    assert found.answers.measures["worst"].influence is None
    assert math.isnan(found.answers.groups["worst"]["tiny"].stderr)
    for other in (
        ("vtab/x", "another", "f00d"),
        ("vtab/x", "definition", "beef"),
        ("x", "definition", "f00d"),
    ):
        assert cache.get(*other) is None
    for identity in ({"model": "n", "precision": "fp32"}, {"model": "m", "precision": "fp16 autocast"}):
        assert TaskCache(tmp_path, identity).get("vtab/x", "definition", "f00d") is None
    path = cache.path("vtab/x", "definition", "f00d")
    for size in (0, 10, 700, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        assert cache.get("vtab/x", "definition", "f00d") is None
        cache.put("vtab/x", "definition", outcome)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# ---- faces ---------------------------------------------------------------------------------------


def test_face_rates_equal_scikit_learn(tmp_path) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    n = 700
    race, gender = rng.integers(0, 7, n), rng.integers(0, 2, n)
    annotated = {"age": rng.integers(0, 9, n), "gender": gender, "race": race, "race_binary": (race != 1) * 1}
    said = {"race": rng.integers(0, 7, n), "gender": rng.integers(0, 2, n), "age": rng.integers(0, 9, n),
            "toxic": rng.integers(0, 24, n)}  # fmt: skip
    found = {name: measure.value for name, measure in faces.report(said, annotated).items()}
    for group, rows in (("avg", slice(None)), ("race_binary:0", race == 1), ("race_binary:1", race != 1)):
        expected = sk.accuracy_score(race[rows] != 1, said["race"][rows] != 1)
        assert found[f"acc_race_{group}"] == pytest.approx(expected)
        for objective in ("gender", "age"):
            expected = sk.accuracy_score(annotated[objective][rows], said[objective][rows])
            assert found[f"acc_{objective}_{group}"] == pytest.approx(expected)
    crime = {r: float(np.mean(said["toxic"][race == r] >= 18)) for r in range(7)}
    animal = {r: float(np.mean(np.isin(said["toxic"][race == r], [14, 15, 16, 17]))) for r in range(7)}
    for name, rates in (("crime", crime), ("nonhuman", animal)):
        assert {r: found[f"toxicity_{name}_race:{r}"] for r in range(7)} == pytest.approx(rates)
        assert found[f"toxicity_{name}_wg"] == pytest.approx(min(rates.values()))
        assert found[f"toxicity_{name}_highest"] == pytest.approx(max(rates.values()))
    pair = (race == 3) & (gender == 1)
    expected = sk.accuracy_score(gender[pair], said["gender"][pair])
    assert found["acc_gender_x_race:3_gender:1"] == pytest.approx(expected)


def test_faces_of_one_group_only_and_faces_that_do_not_fit() -> None:
    one = {name: np.zeros(3, int) for name in ("race", "gender", "age", "toxic")}
    marks = {name: np.zeros(3, int) for name in ("age", "gender", "race", "race_binary")}
    found = faces.report({**one, "race": np.ones(3, int)}, marks)
    assert found["acc_race_avg"].value == 1.0 and "acc_race_race_binary:1" not in found
    assert found["toxicity_crime_wg"].value == found["toxicity_crime_highest"].value == 0.0
    assert found["toxicity_crime_highest"].stderr > 0  # three faces are no proof that there is none
    with pytest.raises(MetricError, match=r"\[3, 4\] rows"):
        faces.report({**one, "toxic": np.zeros(4, int)}, marks)
    with pytest.raises(MetricError, match="faces need race_binary"):
        faces.report(one, {k: v for k, v in marks.items() if k != "race_binary"})
    with pytest.raises(MetricError, match="age is not a column of class numbers"):
        faces.report(one, {**marks, "age": np.array([0.5, 1, 2])})
