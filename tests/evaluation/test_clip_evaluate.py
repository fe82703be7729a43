"""Task lists end to end with towers whose answers are known, and the published WebDataset layout."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation.clip import associations
from evaluation.clip.devices import EncodeError
from evaluation.clip.encode import class_vectors
from evaluation.clip.run import evaluate
from evaluation.clip.sets import SetError, TableSet, WdsSet
from evaluation.clip.tasks import Task, TaskError, TaskList, load_tasks

sys.path.insert(0, str(Path(__file__).parent))
from clip_towers import HashedTower

NAMES = ["cat", "dog", "red car", "blue car", "tree", "sun"]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


class Tower:
    """Knows each picture's class (its first byte) and reads prompts that end in a class name."""

    def __init__(self, swap=()):
        self.swap, self.encoded = dict(swap), 0

    def encode_images(self, images):
        self.encoded += len(images)
        return np.stack([np.eye(len(NAMES), dtype=np.float32)[self.swap.get(i[0], i[0])] for i in images])

    def encode_texts(self, texts):
        rows = [next(i for i, n in enumerate(NAMES) if text.endswith(n)) for text in texts]
        return np.eye(len(NAMES), dtype=np.float32)[rows]


def table(per_class=3):
    rows = [(c, i) for c in range(len(NAMES)) for i in range(per_class)]
    return pa.table(
        {
            "id": [f"{c}-{i}" for c, i in rows],
            "image": pa.array([bytes([c, i]) for c, i in rows], pa.binary()),
            "name": [NAMES[c] for c, _ in rows],
            "kind": ["car" if "car" in NAMES[c] else "other" for c, _ in rows],
            "caption": [[f"a {NAMES[c]}", f"the {NAMES[c]}"] for c, _ in rows],
        }
    )


def task(**values):
    defaults = {
        "key": "names", "title": "Names", "kind": "classification", "set": "demo", "metrics": ["acc1"],
        "label": "name", "templates": ["{c}", "a picture of a {c}"],
    }  # fmt: skip
    return Task(**{**defaults, **values})


def run(tower, *tasks, score=(), out=None, rows=None, **more):
    tasks = TaskList("test", tasks, tuple(score), "mean")
    sets = {"demo": TableSet("demo", rows or table())}
    return evaluate(tower, tasks, out, sets=sets, **{"strict": True, **more})


def test_a_tower_that_knows_gets_everything_and_images_are_encoded_once(tmp_path):
    tower = Tower()
    tasks = [
        task(metrics=["acc1", "acc5", "mean_per_class1", "worst_group1"], group="kind"),
        task(key="cars", where={"kind": "car"}),
        task(
            key="find",
            kind="retrieval",
            metrics=["mean_recall10", "text_to_image_recall5"],
            caption="caption",
        ),
    ]
    result = run(
        tower,
        *tasks,
        score=["names_acc1", "cars_acc1"],
        out=tmp_path / "r.json",
        about={"recipe": "x", "seed": 3},
    )
    assert tower.encoded == 18
    values = {key: entry["value"] for key, entry in result["tasks"].items()}
    assert values["names_acc1"] == values["cars_acc1"] == values["names_worst_group1"] == 1.0
    # each caption names a class of three pictures: all three are among its first five
    assert values["find_text_to_image_recall5"] == 1.0
    assert result["score"] == {"name": "mean", "value": 100.0, "stderr": 0.0, "higher_is_better": True}
    assert (result["recipe"], result["seed"], result["track"]) == ("x", 3, "image_text")
    entry = result["tasks"]["names_acc1"]
    assert entry["chance"] == pytest.approx(1 / 6) and entry["in_score"] and entry["n"] == 18
    assert not result["tasks"]["names_acc5"]["in_score"]
    assert result["tasks"]["names_acc5"]["chance"] == pytest.approx(5 / 6)
    assert result["tasks"]["cars_acc1"]["chance"] == 0.5
    assert json.loads((tmp_path / "r.json").read_text()) == result


def test_every_number_can_be_made_again_from_the_examples(tmp_path):
    tower = Tower(swap={2: 3, 4: 0})  # red cars are taken for blue ones, trees for cats
    tasks = [
        task(metrics=["acc1", "worst_group1"], group="kind"),
        task(
            key="find",
            kind="retrieval",
            metrics=["image_to_text_recall10", "mean_recall1"],
            caption="caption",
        ),
    ]
    result = run(tower, *tasks, out=tmp_path / "r.json")
    rows = pq.read_table(tmp_path / result["examples"]).to_pylist()
    names = [r for r in rows if r["task"] == "names"]
    assert (
        np.mean([r["rank"] < 1 for r in names])
        == result["tasks"]["names_acc1"]["value"]
        == pytest.approx(4 / 6)
    )
    cars = [r["rank"] < 1 for r in names if r["group"] == "car"]
    assert np.mean(cars) == result["tasks"]["names_worst_group1"]["value"] == 0.5
    assert result["tasks"]["names_worst_group1"]["groups"]["other"]["value"] == 0.75
    assert {r["answer"] for r in names if r["target"] == "red car"} == {"blue car"}
    find = [r for r in rows if r["task"] == "find"]
    forward = np.mean([r["rank"] < 1 for r in find if r["way"] == "image_to_text"])
    backward = np.mean([r["rank"] < 1 for r in find if r["way"] == "text_to_image"])
    assert (forward + backward) / 2 == pytest.approx(result["tasks"]["find_mean_recall1"]["value"])


def test_class_vectors_are_the_normalised_mean_of_normalised_prompts():
    tower = Tower()
    vectors = class_vectors(tower.encode_texts, [["cat"], ["red car", "blue car"]], task().templates)
    np.testing.assert_allclose(vectors[0], np.eye(6)[0])
    np.testing.assert_allclose(vectors[1], (np.eye(6)[2] + np.eye(6)[3]) / np.sqrt(2), atol=1e-6)


def test_members_stand_for_a_class_whose_name_the_model_never_read():
    result = run(Tower(), task(label="kind", members="name", metrics=["acc1"]))
    assert result["tasks"]["names_acc1"]["value"] == 1.0


def test_retrieval_chance_is_that_of_a_random_order():
    class Random:
        def __init__(self, seed):
            self.rng = np.random.default_rng(seed)

        def encode_images(self, images):
            return self.rng.normal(size=(len(images), 8)).astype(np.float32)

        def encode_texts(self, texts):
            return self.rng.normal(size=(len(texts), 8)).astype(np.float32)

    one = task(key="find", kind="retrieval", metrics=["mean_recall5"], caption="caption")
    results = [run(Random(seed), one)["tasks"]["find_mean_recall5"] for seed in range(150)]
    assert np.mean([r["value"] for r in results]) == pytest.approx(results[0]["chance"], abs=0.03)


def test_tasks_and_lists_are_checked():
    with pytest.raises(TaskError, match='no metric "acc3"'):
        task(metrics=["acc3"])
    with pytest.raises(TaskError, match="needs `group`"):
        task(metrics=["worst_group1"])
    with pytest.raises(TaskError, match=r'lacks "\{c\}"'):
        task(templates=["a photo"])
    with pytest.raises(TaskError, match="score names other_acc1"):
        TaskList("x", (task(),), ("other_acc1",), "s")
    with pytest.raises(TaskError, match="names_acc1 stands twice"):
        TaskList("x", (task(), task()), (), "s")
    with pytest.raises(TaskError, match="cannot enter the score"):
        TaskList("x", (task(metrics=["worst_group1"], group="kind"),), ("names_worst_group1",), "s")
    with pytest.raises(TaskError, match="no column nothing; it has caption, kind, name"):
        run(Tower(), task(label="nothing"))
    with pytest.raises(TaskError, match="label 'tree' is not among its 2 classes"):
        run(Tower(), task(classes=["cat", "dog", "sun"][:2], where={"name": "tree"}))
    with pytest.raises(TaskError, match="no row with"):
        run(Tower(), task(where={"name": "zebra"}))
    with pytest.raises(TaskError, match="no task list"):
        load_tasks("nothing")
    with pytest.raises(SetError, match="lacks the column image"):
        TableSet("x", table().drop(["image"]))


def test_a_tower_that_gives_nan_is_an_error():
    class Sick(Tower):
        def encode_images(self, images):
            return super().encode_images(images) * np.nan

    with pytest.raises(EncodeError, match=r"model .*, set demo, 0-0: .*not finite"):
        run(Sick(), task())


def test_a_task_that_fails_costs_itself_and_the_score(tmp_path):
    """Labels that are no classes, in one of two tasks on the same pictures."""
    tasks = [task(), task(key="few", classes=["cat", "dog"])]
    result = run(Tower(), *tasks, score=["names_acc1", "few_acc1"], out=tmp_path / "r.json", strict=False)
    assert result["tasks"]["names_acc1"]["value"] == 1.0 and result["harness"]["failed"] == ["few"]
    assert "label 'blue car' is not among its 2 classes" in result["not_run"]["few"]
    assert result["score"] == {"name": "mean", "value": None, "stderr": None, "higher_is_better": True,
                               "missing": ["few_acc1"]}  # fmt: skip
    alone = run(Tower(), *tasks, only=["names"])
    assert list(alone["tasks"]) == ["names_acc1"] and not alone["not_run"]
    with pytest.raises(TaskError, match="the set other was not given"):
        run(Tower(), task(set="other"))


@pytest.mark.parametrize("ties", [False, True])
def test_associations_equal_a_loop_over_the_instances(ties):
    tower = HashedTower(ties)
    rows = table(per_class=8).append_column("cue", table(per_class=8)["name"])
    one = task(key="with", kind="winogavil", cue="cue", near="kind", instances=9, templates=["it is {c}"],
               metrics=["avg_jaccard_score", "jaccard_score_5", "jaccard_score_10-12"])  # fmt: skip
    found = run(tower, one, rows=rows)["tasks"]
    columns = {name: rows[name].to_pylist() for name in rows.column_names}
    scores = []
    for instance in associations.draw(one, columns["id"], columns):
        text = tower.vector(
            "texts", f"it is {'An' if instance.cue[0] in 'aeiou' else 'A'} {instance.cue}".encode()
        )
        similar = [
            float(np.dot(tower.vector("images", columns["image"][r]), text)) for r in instance.candidates
        ]
        best = sorted(range(len(similar)), key=lambda i: (-similar[i], i))[: len(instance.answers)]
        said = {instance.candidates[i] for i in best}
        true = set(instance.answers)
        scores.append((len(similar), len(said & true) / len(said | true)))
    assert len(scores) == 36
    for metric, low, high in (
        ("avg_jaccard_score", 0, 99),
        ("jaccard_score_5", 5, 5),
        ("jaccard_score_10-12", 10, 12),
    ):
        own = [score for size, score in scores if low <= size <= high]
        assert found[f"with_{metric}"]["value"] == pytest.approx(np.mean(own))
        assert found[f"with_{metric}"]["n"] == len(own) and 0.1 < found[f"with_{metric}"]["chance"] < 0.6


@pytest.mark.parametrize("ties", [False, True])
def test_attributes_and_macro_f1_equal_scikit_learn(ties):
    sk = pytest.importorskip("sklearn.metrics")
    tower = HashedTower(ties)
    rows = table(per_class=5)
    size = [None if i % 4 == 0 else ["small", "large"][i % 3 == 0] for i in range(rows.num_rows)]
    rows = rows.append_column("size", pa.array(size, pa.string()))
    attributes = {
        "size": {"label": "size", "classes": ["small", "large"], "templates": ["a {c} one"], "group": "kind"},
        "what": {"label": "name", "templates": ["{c}"]},
    }
    wanted = ["acc1_size", "worst_group1_size", "acc1_what"]
    both = task(key="see", kind="attributes", metrics=wanted, attributes=attributes)
    found = run(tower, both, task(metrics=["macro_f1", "acc1"]), rows=rows)["tasks"]

    def said(classes, templates):
        vectors = []
        for name in classes:
            mean = np.mean(
                [tower.vector("texts", t.replace("{c}", name).encode()) for t in templates], axis=0
            )
            vectors.append(mean / np.linalg.norm(mean))
        images = [tower.vector("images", image) for image in rows["image"].to_pylist()]
        scores = [[float(np.dot(image, vector)) for vector in vectors] for image in images]
        return [classes[min(range(len(row)), key=lambda i: (-row[i], i))] for row in scores]

    there = [i for i, value in enumerate(size) if value is not None]
    hits = np.array(
        [value == own for value, own in zip(size, said(["small", "large"], ["a {c} one"]), strict=True)]
    )
    assert found["see_acc1_size"]["value"] == pytest.approx(hits[there].mean())
    kind = np.array(rows["kind"].to_pylist())
    groups = [hits[[i for i in there if kind[i] == name]].mean() for name in ("car", "other")]
    assert found["see_worst_group1_size"]["value"] == pytest.approx(min(groups))
    names = rows["name"].to_pylist()
    assert found["see_acc1_what"]["value"] == pytest.approx(
        sk.accuracy_score(names, said(sorted(NAMES), ["{c}"]))
    )
    answers = said(sorted(NAMES), task().templates)
    expected = sk.f1_score(names, answers, labels=sorted(set(names)), average="macro")
    assert found["names_macro_f1"]["value"] == pytest.approx(expected)
    assert found["names_acc1"]["value"] == pytest.approx(sk.accuracy_score(names, answers))


# ---------------------------------------------------------------------- the published WebDataset layout


def picture(seed):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def wds(folder, labels, shards=2, metadata=True):
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\n{c}\n")
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    for shard in range(shards):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for i in range(shard, len(labels), shards):
                members = {"png": picture(i), "cls": str(labels[i]).encode()}
                if metadata:
                    buffer = io.BytesIO()
                    np.save(buffer, np.array([i, labels[i]]))
                    members["npy"] = buffer.getvalue()
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{i:06d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def test_wds_layout_is_read_whole(tmp_path):
    data = WdsSet("toy", wds(tmp_path / "toy", [0, 1, 2, 3, 4, 5, 0]), size=7)
    assert data.classes == NAMES and data.templates == ["a photo of a {c}", "{c}"]
    batches = list(data.batches(3))
    assert [len(b.ids) for b in batches] == [3, 3, 1]
    assert [x for b in batches for x in b.columns["label"]] == [0, 2, 4, 0, 1, 3, 5]
    assert batches[0].columns["metadata"][1] == [2.0, 2.0]


def test_damaged_wds_sets_are_refused_by_file_and_row(tmp_path):
    with pytest.raises(SetError, match=r"classnames\.txt is missing"):
        WdsSet("x", tmp_path)
    with pytest.raises(SetError, match="sample 000001: label 6 is outside the 6 classes"):
        list(WdsSet("x", wds(tmp_path / "a", [0, 6])).batches())
    with pytest.raises(SetError, match="holds 2 examples, expected 3"):
        list(WdsSet("x", wds(tmp_path / "b", [0, 1]), size=3).batches())
    folder = wds(tmp_path / "c", [0, 1, 2])
    (folder / "test" / "1.tar").unlink()
    with pytest.raises(SetError, match=r"1\.tar is missing \(1 of 2 shards\)"):
        list(WdsSet("x", folder).batches())
    folder = wds(tmp_path / "d", [0, 1, 2, 3])
    shard = folder / "test" / "0.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(SetError, match=r"0\.tar is damaged after sample"):
        list(WdsSet("x", folder).batches())
    folder = wds(tmp_path / "e", [0])
    (folder / "zeroshot_classification_templates.txt").write_text("a photo\n")
    with pytest.raises(SetError, match="line 1: template 'a photo' lacks"):
        _ = WdsSet("x", folder).templates


@pytest.fixture(scope="module")
def cifar():
    folder = SHARED / "wds_cifar10_test"
    if not folder.is_dir():
        pytest.skip(f"the shared data folder has no wds_cifar10_test ({SHARED})")
    return folder


def test_cifar10_in_the_published_layout(cifar, tmp_path):
    """All 10,000 images by an untrained tower; scikit-learn agrees on what was measured."""
    sk = pytest.importorskip("sklearn.metrics")
    pytest.importorskip("torch")
    from filters.image_text import network

    data = WdsSet("cifar10", cifar, size=10_000)
    tower = network.build({"small": {}}, seed=0)
    result = evaluate(tower, cifar, tmp_path / "cifar10.json", strict=True)
    rows = pq.read_table(tmp_path / "cifar10.examples.parquet")
    assert rows.num_rows == 10_000
    targets, answers = rows["target"].to_pylist(), rows["answer"].to_pylist()
    assert {targets.count(name) for name in data.classes} == {1000}
    entry = result["tasks"]["cifar10"]
    assert entry["value"] == pytest.approx(sk.accuracy_score(targets, answers))
    balanced = entry["metrics"]["mean_per_class_recall"]["value"]
    assert balanced == pytest.approx(entry["value"])  # of equally large classes
    assert entry["chance"] == pytest.approx(0.1) and 0.02 < entry["value"] < 0.3
    assert "score" not in result
