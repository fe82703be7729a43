"""The runner: every kind of task from its files to its figures, encoded once, kept, and none taken down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluation.clip import aggregate, benchmark_tasks
from evaluation.clip.__main__ import main
from evaluation.clip.devices import EncodeError, How, Pool, ProcessDied, places
from evaluation.clip.examples import SetError
from evaluation.clip.run import evaluate, table
from evaluation.clip.suites import BenchmarkSuite, suite
from evaluation.clip.tasks import TaskError
from evaluation.leaderboard_page.results import read_result

sys.path.insert(0, str(Path(__file__).parent))
from clip_oracle import oracle
from clip_towers import HashedTower, die
from wds_sets import SUITE, picture, write_suite, write_task, write_wds, write_winogavil


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, BenchmarkSuite]:
    """Tiny sets of eleven tasks, one of every kind."""
    folder = tmp_path_factory.mktemp("sets")
    return folder, BenchmarkSuite("datacomp", tuple(write_suite(folder, size=24)))


def folder_of(root: Path, key: str) -> Path:
    return root / aggregate.task(key).source.partition("/")[2]


def ranked(record: dict, folder: Path) -> Any:
    """The result as the leaderboard reads it."""
    trained = {"scale": "clip-small", "scale_hash": "ab", "dataset": {"rows": 100}}
    (folder / "seed-0.json").write_text(json.dumps({**record, **trained}))
    return read_result(folder / "seed-0.json")


# ---- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", SUITE)
@pytest.mark.parametrize("ties", [False, True], ids=["dense", "ties"])
def test_every_kind_equals_loops_over_its_files(small, key, ties) -> None:
    root, tasks = small
    tower = HashedTower(ties)
    record = evaluate(tower, tasks, data_dir=root, only=[key], strict=True)
    entry = {**record["tasks"], **record.get("reports", {})}[key]
    expected = oracle(aggregate.task(key), folder_of(root, key), tower)
    assert {name: measure["value"] for name, measure in entry["metrics"].items()} == pytest.approx(expected)
    known = aggregate.task(key)
    if known.metric is not None:
        assert entry["value"] == pytest.approx(expected[known.metric]) and entry["stderr"] >= 0
        assert entry["chance"] == known.chance and entry["in_score"]


@pytest.mark.parametrize("seed", range(4))
def test_winogavil_from_csv_to_slices_with_ties_and_every_size(tmp_path, seed) -> None:
    rng = np.random.default_rng(seed)
    cues = ["owl", "Émile", "Apple", "ice cream", "x-ray", "Universe", "market", "oak", "storm", "eel"]
    sizes = rng.choice([5, 6, 10, 12], len(cues))
    instances = [(c, int(n), int(rng.integers(1, min(6, n)))) for c, n in zip(cues, sizes, strict=True)]
    folder = write_winogavil(tmp_path / "winogavil", instances)
    task = aggregate.BenchmarkTask(**{**vars(aggregate.task("misc/winogavil")), "size": len(instances)})
    tower = HashedTower(ties=True, salt=str(seed))
    record = evaluate(tower, BenchmarkSuite("x", (task,), whole=False), data_dir=tmp_path, strict=True)
    entry = record["tasks"]["misc/winogavil"]
    expected = oracle(task, folder, tower)
    assert {n: m["value"] for n, m in entry["metrics"].items()} == pytest.approx(expected)
    assert {text for text, _ in tower.texts} == {
        f"{'An' if cue[0].lower() in 'aeiou' else 'A'} {cue.lower()}" for cue in cues
    }


def test_the_table_of_forty_has_five_numbers_and_one_missing_has_none(tmp_path) -> None:
    keys = [task.key for task in aggregate.tasks()]
    tasks = BenchmarkSuite("datacomp", tuple(write_suite(tmp_path, keys, size=6)))
    record = evaluate(HashedTower(), tasks, data_dir=tmp_path, strict=True, jsonl=tmp_path / "r.jsonl")
    values = [entry["value"] for entry in record["tasks"].values()]
    assert len(values) == 38 and list(record["reports"]) == ["fairness/fairface", "fairness/utkface"]
    assert record["score"]["value"] == pytest.approx(100 * np.mean(values))
    average = record["averages"]["average"]
    assert average["value"] == pytest.approx(np.mean(values)) and average["tasks"] == 38
    assert average["low"] < average["value"] < average["high"]
    assert record["averages"]["imagenet"]["value"] == record["tasks"]["imagenet1k"]["value"]
    fmow = record["tasks"]["wilds/fmow"]
    difference = (fmow["corrected"]["value"] - fmow["value"]) / 38
    wino = record["tasks"]["misc/winogavil"]
    difference += (wino["corrected"]["value"] - wino["value"]) / 38
    mended = record["averages_corrected"]["average"]["value"]
    assert mended - average["value"] == pytest.approx(difference)
    assert "average of 38" in table(record) and main(["aggregate", str(tmp_path / "r.jsonl")]) == 0
    assert ranked(record, tmp_path).score == record["score"]["value"]

    (folder_of(tmp_path, "mnist") / "test" / "0.tar").unlink()
    for file in sorted(folder_of(tmp_path, "stl10").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    again = evaluate(HashedTower(), tasks, data_dir=tmp_path)
    assert again["score"]["value"] is None and again["averages"]["average"]["value"] is None
    assert again["score"]["missing"] == ["mnist", "stl10"]
    assert again["averages"]["vtab"]["value"] == record["averages"]["vtab"]["value"]
    assert again["harness"]["failed"] == ["mnist"]  # the other is not broken, it is not there
    assert "0.tar" in again["not_run"]["mnist"] and "no set in" in again["not_run"]["stl10"]
    assert "average of 38: not available, missing mnist, stl10" in table(again)
    assert ranked(again, tmp_path).missing == ("mnist", "stl10")


def test_examples_beside_the_result_give_the_numbers_again(small, tmp_path) -> None:
    root, tasks = small
    record = evaluate(HashedTower(ties=True), tasks, tmp_path / "r.json", data_dir=root, strict=True)
    assert json.loads((tmp_path / "r.json").read_text()) == record
    rows = pq.read_table(tmp_path / record["examples"]).to_pylist()
    geode = [r for r in rows if r["task"] == "fairness/geode"]
    groups = {g: np.mean([r["rank"] == 0 for r in geode if r["group"] == g]) for g in "012345"}
    assert min(groups.values()) == record["tasks"]["fairness/geode"]["value"]
    fmow = [r for r in rows if r["task"] == "wilds/fmow" and r["group"] == "Other"]
    assert len(fmow) == 1 == record["tasks"]["wilds/fmow"]["groups"]["acc_worst_region"]["Other"]["n"]
    wino = [r for r in rows if r["task"] == "misc/winogavil"]
    scores = []
    for row in wino:
        right, said = set(row["target"].split()), set(row["answer"].split())
        scores.append(len(right & said) / len(right | said))
    figures = record["tasks"]["misc/winogavil"]["metrics"]
    assert np.mean(scores) == pytest.approx(figures["avg_jaccard_score"]["value"])
    crime = [r for r in rows if r["task"] == "fairness/fairface" and r["way"] == "toxic"]
    assert len(crime) == 24
    rate = np.mean([r["answer"] in ("word 18", "word 19") for r in crime])
    faces = record["reports"]["fairness/fairface"]["metrics"]
    assert rate == pytest.approx(faces["toxicity_crime_avg"]["value"])


# ---- encoded once --------------------------------------------------------------------------------


def test_every_picture_and_every_text_once(small) -> None:
    root, tasks = small
    tower = HashedTower()
    record = evaluate(tower, tasks, data_dir=root, strict=True)
    per_set = {task.key: task.size for task in tasks.tasks} | {"misc/winogavil": 14}
    assert sum(tower.images.values()) == sum(per_set.values()) == record["harness"]["images_encoded"]
    assert set(tower.texts.values()) == {1}  # six sets have the same classes and templates
    assert len(tower.texts) == record["harness"]["texts_encoded"]


def test_two_sets_with_the_same_pictures_are_encoded_once(tmp_path) -> None:
    keys = ["vtab/clevr_count_all", "vtab/clevr_closest_object_distance"]
    tasks = [write_task(key, tmp_path, size=10) for key in keys]
    # the second has them in another order, and two of its own
    order = [picture(i) for i in (3, 1, 2, 0, 9, 8, 7, 6, 5, 77, 78)]
    rows = [{"label": i % 6, "image": image} for i, image in enumerate(order)]
    write_wds(folder_of(tmp_path, keys[1]), rows, [f"thing {c}" for c in range(6)])
    tasks[1] = aggregate.BenchmarkTask(**{**vars(tasks[1]), "size": 11})
    tower = HashedTower()
    both = evaluate(tower, BenchmarkSuite("clevr", tuple(tasks), whole=False), data_dir=tmp_path, strict=True)
    assert both["harness"]["images_encoded"] == 12 and set(tower.images.values()) == {1}
    for key in keys:
        alone = oracle(aggregate.task(key), folder_of(tmp_path, key), HashedTower())
        assert both["tasks"][key]["metrics"]["acc1"]["value"] == pytest.approx(alone["acc1"])


# ---- precision -----------------------------------------------------------------------------------


class Coarse(HashedTower):
    """Half precision with so few bits that it decides."""

    def _features(self, kind, things, precision):
        out = super()._features(kind, things, "fp32")
        self.precisions.add((kind, precision))
        return np.round(out * 2) / 2 if precision == "amp" else out


def test_compat_is_datacomps_mix_and_the_corrected_value_is_single_precision(small) -> None:
    root, tasks = small
    tower = Coarse(amp=True)
    record = evaluate(tower, tasks, data_dir=root, strict=True)
    assert record["precision"] == {
        "mode": "compat", "class_texts": "fp16 autocast", "images": "fp32",
        "retrieval_and_winogavil": "fp16 autocast", "corrected": "fp32",
    }  # fmt: skip
    plain = evaluate(HashedTower(), tasks, data_dir=root, strict=True)
    assert plain["precision"]["mode"] == "fp32"
    fp32 = evaluate(Coarse(amp=True), tasks, data_dir=root, precision="fp32", strict=True)
    assert fp32["tasks"].keys() == plain["tasks"].keys() and fp32["precision"]["mode"] == "fp32"
    differ = 0
    for key, entry in record["tasks"].items():
        known = aggregate.task(key)
        single = plain["tasks"][key]
        wanted = single.get("corrected", single)["value"]
        assert entry["corrected"]["value"] == wanted == fp32["tasks"][key].get("corrected", single)["value"]
        assert entry["corrected"]["metric"] == (known.corrected.metric if known.corrected else known.metric)
        differ += entry["value"] != single["value"]
    assert differ >= 3
    # pictures of classification are never encoded in half precision, those of the other two in both
    halves = {image for image, precision in tower.images if precision == "amp"}
    assert len(halves) == 24 + 14 and all(tower.images[image, "fp32"] == 1 for image in halves)
    assert max(tower.images.values()) <= 11  # sets share pictures 0…23; never twice for one set


def test_class_texts_alone_are_in_half_precision(tmp_path) -> None:
    tasks = BenchmarkSuite("x", (write_task("cifar10", tmp_path, size=40),), whole=False)
    tower = Coarse(amp=True)
    entry = evaluate(tower, tasks, data_dir=tmp_path, strict=True)["tasks"]["cifar10"]

    class Mixed(HashedTower):
        def vector(self, kind, thing):
            own = super().vector(kind, thing)
            return np.round(own * 2) / 2 if kind == "texts" else own

    folder = folder_of(tmp_path, "cifar10")
    assert entry["value"] == pytest.approx(oracle(tasks.tasks[0], folder, Mixed())["acc1"])
    assert entry["corrected"]["value"] == pytest.approx(oracle(tasks.tasks[0], folder, HashedTower())["acc1"])
    assert {p for kind, p in tower.precisions if kind == "images"} == {"fp32"}


def test_winogavil_similarities_are_halves_under_autocast(tmp_path) -> None:
    """Candidates that differ past the eleventh bit are equal there: the last is taken, not the better."""
    write_winogavil(tmp_path / "winogavil", [("owl", 10, 1)])
    task = aggregate.BenchmarkTask(**{**vars(aggregate.task("misc/winogavil")), "size": 1})

    class Close(HashedTower):
        seen = 0

        def vector(self, kind, thing):
            out = np.zeros(2, np.float32)
            out[0] = 1.0
            if kind == "images":  # rising by less than a half can tell, but for the first, which is best
                out[0] = 0.85 + 1e-5 * (5 if Close.seen % 10 == 0 else Close.seen % 10 / 10)
                Close.seen += 1
            return out

    suite_of_one = BenchmarkSuite("x", (task,), whole=False)
    entry = evaluate(Close(amp=True), suite_of_one, data_dir=tmp_path, strict=True)["tasks"]["misc/winogavil"]
    assert entry["metrics"]["avg_jaccard_score"]["value"] == 0.0  # one answer, and it is the first candidate
    fp32 = evaluate(Close(), suite_of_one, data_dir=tmp_path, strict=True)["tasks"]["misc/winogavil"]
    assert fp32["metrics"]["avg_jaccard_score"]["value"] == 1.0


def test_compat_is_refused_where_there_is_no_autocast(small) -> None:
    root, tasks = small
    with pytest.raises(TaskError, match="compat needs fp16 autocast, which cpu has not"):
        evaluate(HashedTower(), tasks, data_dir=root, precision="compat")
    with pytest.raises(TaskError, match="precision is 'fp16'; use compat or fp32"):
        evaluate(HashedTower(), tasks, data_dir=root, precision="fp16")


# ---- what fails, and what does not --------------------------------------------------------------


def test_a_broken_set_costs_its_own_task(small, tmp_path, capsys) -> None:
    from filters.image_text import network

    tasks = [write_task(key, tmp_path, size=8) for key in ("cifar10", "stl10", "mnist", "vtab/pets")]
    shard = folder_of(tmp_path, "stl10") / "test" / "1.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    rows = [{"label": 0, "image": picture(i) if i != 5 else b"no picture"} for i in range(8)]
    write_wds(folder_of(tmp_path, "mnist"), rows, [f"thing {c}" for c in range(6)])
    tasks.append(aggregate.BenchmarkTask(**{**vars(write_task("food101", tmp_path, size=8)), "size": 9}))
    tower = network.build({"small": {}})
    record = evaluate(tower, BenchmarkSuite("x", tuple(tasks)), data_dir=tmp_path)
    assert list(record["tasks"]) == ["cifar10", "vtab/pets"]
    assert record["harness"]["failed"] == ["stl10", "mnist", "food101"]
    assert "1.tar" in record["not_run"]["stl10"]
    assert "set mnist, mnist/1/s0000005: cannot decode an image of 10 bytes" in record["not_run"]["mnist"]
    assert "8" in record["not_run"]["food101"] and "9" in record["not_run"]["food101"]
    with pytest.raises(SetError, match=r"1\.tar"):
        evaluate(tower, BenchmarkSuite("x", tuple(tasks)), data_dir=tmp_path, strict=True)

    network.save(tower, tmp_path / "model")
    command = ["evaluate", str(tmp_path / "model"), "--tasks", str(folder_of(tmp_path, "mnist").rename(
        tmp_path / "own_set"))]  # fmt: skip
    assert main(command) == 1
    said = capsys.readouterr()
    assert "own_set: not run" in said.out and "error: own_set" in said.err
    assert main([*command, "--allow-failures"]) == 0
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a model directory" in capsys.readouterr().err


def test_a_model_that_gives_nonsense_is_named_with_set_and_row(tmp_path) -> None:
    task = write_task("cifar10", tmp_path, size=8)
    one = BenchmarkSuite("x", (task,), whole=False)

    class Sick(HashedTower):
        source = "sick"

        def vector(self, kind, thing):
            wrong = {"images": picture(5), "texts": b"a photo of a thing 3"}
            out = super().vector(kind, thing)
            return out * np.nan if self.where == kind and thing == wrong[kind] else out

    class Wide(HashedTower):
        source = "wide"

        def encode_texts(self, texts, precision="fp32"):
            return np.ones((len(texts), 7), np.float32)

    class Short(HashedTower):
        source = "short"

        def encode_images(self, images, precision="fp32"):
            return np.ones((len(images) - 1, 7), np.float32)

    sick = Sick()
    for where, what in (("images", "cifar10/1/s0000005"), ("texts", "text 'a photo of a thing 3'")):
        sick.where = where
        with pytest.raises(EncodeError, match=f"model sick, set cifar10, {what}: .*not finite"):
            evaluate(sick, one, data_dir=tmp_path, strict=True)
    with pytest.raises(EncodeError, match="model wide, set cifar10: pictures have 16 features, the text"):
        evaluate(Wide(), one, data_dir=tmp_path, strict=True)
    with pytest.raises(EncodeError, match=r"model short, set cifar10: .*shape \(7, 7\) for 8 images"):
        evaluate(Short(), one, data_dir=tmp_path, strict=True)


def test_lists_that_cannot_be_run_are_refused(small, tmp_path) -> None:
    root, tasks = small
    with pytest.raises(TaskError, match="give the folder that has them"):
        evaluate(HashedTower(), "datacomp")
    with pytest.raises(TaskError, match="no task cifar11 in 'datacomp'"):
        evaluate(HashedTower(), tasks, data_dir=root, only=["cifar11"])
    with pytest.raises(TaskError, match=r"no evaluation set: it has no classnames\.txt"):
        evaluate(HashedTower(), tmp_path)
    with pytest.raises(TaskError, match="2 workers load the model themselves"):
        evaluate(HashedTower(), tasks, data_dir=root, workers=2)
    with pytest.raises(ValueError, match="workers is 0"):
        places("cpu", 0)
    by_name = evaluate(HashedTower(), tasks, data_dir=root, only=["Oxford-IIIT Pet"])
    assert list(by_name["tasks"]) == ["vtab/pets"]


def test_one_folder_is_a_task_of_its_own(tmp_path) -> None:
    folder = write_wds(tmp_path / "birds", [{"label": i % 3} for i in range(9)], ["owl", "eagle", "tit"])
    record = evaluate(HashedTower(), folder, strict=True)
    assert list(record["tasks"]) == ["birds"] and "score" not in record and "averages" not in record
    assert set(record["tasks"]["birds"]["metrics"]) == {"acc1", "mean_per_class_recall"}  # too few for acc5
    write_task("vtab/pets", tmp_path, 4)
    assert suite(folder_of(tmp_path, "vtab/pets")).tasks[0].metric == "mean_per_class_recall"


# ---- kept, killed, shared ------------------------------------------------------------------------


def test_what_is_kept_is_not_done_again_and_is_the_same(small, tmp_path) -> None:
    root, tasks = small
    first = evaluate(HashedTower(), tasks, tmp_path / "a.json", data_dir=root, cache=tmp_path / "kept")
    tower = HashedTower()
    again = evaluate(tower, tasks, tmp_path / "b.json", data_dir=root, cache=tmp_path / "kept")
    assert not tower.images and not tower.texts
    for part in ("tasks", "reports", "averages", "averages_corrected", "score"):
        assert again[part] == first[part]
    one, two = (pq.read_table(tmp_path / f"{n}.examples.parquet") for n in "ab")
    assert one.equals(two)
    other = HashedTower(salt="other")
    evaluate(other, tasks, data_dir=root, cache=tmp_path / "kept", only=["cifar10"])
    assert sum(other.images.values()) == 24  # another model

    damaged = next((tmp_path / "kept").glob("cifar10-*.parquet"))
    for file in (tmp_path / "kept").glob("cifar10-*.parquet"):
        file.write_bytes(damaged.read_bytes()[:500])
    tower = HashedTower()
    mended = evaluate(tower, tasks, data_dir=root, cache=tmp_path / "kept")
    assert sum(tower.images.values()) == 24
    assert {**mended["tasks"]["cifar10"], "seconds": 0} == {**first["tasks"]["cifar10"], "seconds": 0}
    with pytest.raises(TaskError, match="no identity"):
        evaluate(type("Nameless", (), {})(), tasks, data_dir=root, cache=tmp_path / "kept")


def test_another_set_or_task_or_precision_is_not_taken_for_the_one_that_is_kept(tmp_path) -> None:
    task = write_task("cifar10", tmp_path, size=8)
    kept = {"data_dir": tmp_path, "cache": tmp_path / "kept"}

    def encoded(tower, one, **more) -> int:
        evaluate(tower, BenchmarkSuite("x", (one,), whole=False), **kept, **more)
        return sum(tower.images.values())

    assert encoded(HashedTower(), task) == 8 and encoded(HashedTower(), task) == 0
    changed = aggregate.BenchmarkTask(**{**vars(task), "metric": "mean_per_class_recall"})
    assert encoded(HashedTower(), changed) == 8
    assert encoded(HashedTower(amp=True), task) == 8  # compat there
    assert encoded(HashedTower(amp=True), task, precision="fp32") == 0
    write_wds(folder_of(tmp_path, "cifar10"), [{"label": i % 6, "image": picture(50 + i)} for i in range(8)],
              [f"thing {c}" for c in range(6)])  # fmt: skip
    assert encoded(HashedTower(), task) == 8


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from clip_towers import HashedTower, die
from wds_sets import write_suite
from evaluation.clip.run import evaluate
from evaluation.clip.suites import BenchmarkSuite
import dataclasses
from evaluation.clip.aggregate import task

class Doomed(HashedTower):
    def encode_images(self, images, precision="fp32"):
        if sum(self.images.values()) >= 72:
            os.kill(os.getpid(), 9)
        return super().encode_images(images, precision)

tasks = [dataclasses.replace(task(key), **more) for key, more in {tasks!r}]
evaluate(Doomed(), BenchmarkSuite("datacomp", tuple(tasks)), data_dir={root!r}, cache={kept!r})
"""


def test_kill_9_loses_the_task_at_hand_and_nothing_else(small, tmp_path) -> None:
    root, tasks = small
    own = [(t.key, {"size": t.size, "classes": t.classes}) for t in tasks.tasks]
    here, kept = str(Path(__file__).parent), str(tmp_path / "kept")
    script = KILLED.format(tests=here, tasks=own, root=str(root), kept=kept)
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    kept = sorted(file.name.partition("-")[0] for file in (tmp_path / "kept").iterdir())
    assert len(kept) == 3 and all(f.suffix == ".parquet" for f in (tmp_path / "kept").iterdir())
    tower = HashedTower()
    record = evaluate(tower, tasks, data_dir=root, cache=tmp_path / "kept")
    whole = evaluate(HashedTower(), tasks, data_dir=root)
    assert sum(tower.images.values()) == whole["harness"]["images_encoded"] - 72
    for key, entry in record["tasks"].items():
        assert {**entry, "seconds": 0, "set": 0} == {**whole["tasks"][key], "seconds": 0, "set": 0}
    assert record["score"] == whole["score"] and record["averages"] == whole["averages"]


def test_two_processes_give_what_one_gives_and_survive_a_broken_set(tmp_path) -> None:
    from filters.image_text import network

    network.save(network.build({"small": {}}, seed=3), tmp_path / "model")
    keys = ("cifar10", "vtab/pets", "wilds/fmow", "misc/winogavil")
    tasks = [write_task(key, tmp_path, size=30) for key in keys]
    rows = [{"label": 0, "image": picture(i) if i != 5 else b"no picture"} for i in range(8)]
    write_wds(folder_of(tmp_path, "mnist"), rows, [f"thing {c}" for c in range(6)])
    broken = aggregate.BenchmarkTask(**{**vars(aggregate.task("mnist")), "size": 8, "classes": 6})
    tasks.insert(1, broken)
    both = [
        evaluate(tmp_path / "model", BenchmarkSuite("x", tuple(tasks)), tmp_path / f"{n}.json",
                 data_dir=tmp_path, workers=n, device="cpu")
        for n in (1, 2)
    ]  # fmt: skip
    for record in both:
        assert list(record["not_run"]) == record["harness"]["failed"] == ["mnist"]
        assert "set mnist, mnist/1/s0000005: cannot decode" in record["not_run"]["mnist"]
        for entry in record["tasks"].values():
            entry["seconds"] = 0
    assert both[0]["tasks"] == both[1]["tasks"] and both[1]["harness"]["processes"] == 2
    assert both[0]["harness"]["model"] == both[1]["harness"]["model"] is not None
    one, two = (pq.read_table(tmp_path / f"{n}.examples.parquet") for n in (1, 2))
    assert one.equals(two)


def test_a_process_that_dies_is_said_to_have_died() -> None:
    with pytest.raises(ProcessDied, match="ended with code 7"):
        Pool(die, ["cpu"])


def test_logits_are_a_hundred_cosines(small) -> None:
    root, tasks = small
    from evaluation.clip.devices import Here
    from evaluation.clip.encode import Features
    from evaluation.clip.sets import open_set

    tower = HashedTower()
    features = Features(Here(tower))
    data = open_set(tasks.tasks[0], root)
    encoded = features.images(data, How("fp32", drop_alpha=True))
    found = benchmark_tasks.logits(encoded, features.texts(["owl", "eel"]))
    assert found.shape == (24, 2) and found.dtype == np.float32
    expected = 100 * float(tower.vector("images", picture(3)) @ tower.vector("texts", b"eel"))
    assert found[3, 1] == pytest.approx(expected, abs=1e-4)


# ---- texts without their padding -----------------------------------------------------------------

VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXTS = ["owl", "a photo of an owl that sits on the branch of an old tree", "", " ".join(["word"] * 90)]


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_texts_without_padding_have_the_same_features(quick_gelu) -> None:
    pytest.importorskip("open_clip")
    from evaluation.clip.short_texts import trimmed
    from filters.image_text import network

    tower = network.build({"open_clip": {**VIT, "quick_gelu": quick_gelu}}, seed=1)
    short = trimmed(tower)
    lengths = []
    short.module.text.register_forward_hook(lambda module, given, out: lengths.append(given[0].shape[1]))
    for texts in (*([text] for text in TEXTS), TEXTS[:3]):
        whole = tower.encode_texts(texts)
        np.testing.assert_allclose(short.encode_texts(texts), whole, atol=2e-6)
    assert lengths == [8, 16, 8, 16]  # the one that fills the context is given whole
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(short.encode_pixels(pixels), tower.encode_pixels(pixels))


def test_towers_that_read_elsewhere_are_left_whole() -> None:
    pytest.importorskip("open_clip")
    from evaluation.clip.short_texts import can_trim, trimmed
    from filters.image_text import network

    small = network.build({"small": {}})
    assert trimmed(small) is small
    for text in ({"pool_type": "last"}, {"no_causal_mask": True}):
        config = {**VIT, "text_cfg": {**VIT["text_cfg"], **text}}
        assert not can_trim(network.build({"open_clip": config}).module), text


# ---- models from elsewhere, devices, the command line --------------------------------------------


def test_an_open_clip_checkpoint_by_configuration_from_the_command_line(tmp_path, capsys) -> None:
    pytest.importorskip("open_clip")
    import torch

    from filters.image_text import network

    tower = network.build({"open_clip": VIT}, seed=2)
    (tmp_path / "vit.json").write_text(json.dumps(VIT))
    torch.save({"state_dict": {f"module.{k}": v for k, v in tower.module.state_dict().items()}},
               tmp_path / "epoch_1.pt")  # fmt: skip
    write_task("vtab/pets", tmp_path, size=18)
    folder = folder_of(tmp_path, "vtab/pets")
    (folder / "classnames.txt").write_text("".join(f"thing {i}\n" for i in range(37)))
    command = ["evaluate", str(tmp_path / "vit.json"), "--pretrained", str(tmp_path / "epoch_1.pt")]
    command += ["--tasks", "datacomp", "--data-dir", str(tmp_path), "--only", "Oxford-IIIT Pet"]
    assert main([*command, "--out", str(tmp_path / "r.json")]) == 1  # 18 pictures, 3,669 are declared
    assert "expected 3669" in capsys.readouterr().err.replace(",", "")
    folder.rename(tmp_path / "pets")
    command = [
        *command[:4],
        "--tasks",
        str(tmp_path / "pets"),
        "--out",
        str(tmp_path / "r.json"),
        "--progress",
    ]
    assert main([*command, "--recipe", "mine"]) == 0
    said = capsys.readouterr()
    assert "pets: done (18 rows" in said.out and "pets  1/1 tasks" in said.err
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["recipe"], record["scale"], record["official"]) == ("mine", "none", False)
    entry = record["tasks"]["pets"]
    expected = []
    for row in range(18):
        image = tower.encode_images([picture(row)])[0]
        names = [tower.encode_texts([f"a photo of a thing {i}"])[0] for i in range(37)]
        expected.append(int(np.argmax([image @ name for name in names])) == row % 6)
    assert entry["value"] == pytest.approx(np.mean(expected)) and entry["n"] == 18


def test_the_folder_of_a_run_says_what_was_trained(tmp_path) -> None:
    from filters.image_text import network

    extra = {"scale": {"name": "clip-tiny"}, "scale_hash": "88bc", "seed": 4}
    network.save(network.build({"small": {}}), tmp_path / "model", extra)
    data = write_wds(tmp_path / "own", [{"label": i % 2} for i in range(4)], ["owl", "eel"])
    alone = evaluate(tmp_path / "model", data)
    assert (alone["scale"], alone["scale_hash"], alone["seed"]) == ("clip-tiny", "88bc", 4)
    trained = {"model": "model", "scale": "clip-tiny", "scale_hash": "88bc", "seed": 4, "rows": 9, "steps": 2,
               "distinct_rows": 8, "samples": 16, "epochs": 1.8, "final_loss": 4.0, "seconds": 1.0,
               "data": "f00d", "official": True, "sampling": {"kind": "epochs"}}  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(trained))
    whole = evaluate(tmp_path, data, recipe="rules", title="Rules", control=True, dataset={"rows_pool": 90})
    assert whole["official"] and whole["train"]["tokens_or_samples"] == 16 and whole["control"]
    assert whole["dataset"] == {"rows": 9, "epochs": 1.8, "fingerprint": "f00d", "rows_pool": 90}
    assert (whole["recipe"], whole["title"], whole["track"]) == ("rules", "Rules", "image_text")
    assert whole["tasks"]["own"]["value"] == alone["tasks"]["own"]["value"]


def test_gpus_are_taken_from_the_one_named_on(monkeypatch) -> None:
    import torch

    assert places("cpu", 2) == ["cpu", "cpu"] and places("cuda:0, cuda:3", 1) == ["cuda:0", "cuda:3"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert places("cuda:1", 3) == ["cuda:1", "cuda:2", "cuda:3"] and places(None, 2) == ["cuda:0", "cuda:1"]
    with pytest.raises(ValueError, match="4 workers from GPU 1 on, but there are 4 GPUs"):
        places("cuda:1", 4)
