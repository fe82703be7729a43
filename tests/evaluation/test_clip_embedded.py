"""The evaluation sets that ship with Winnow: what they hold, what they share with nothing, what is asked."""

from __future__ import annotations

import collections
import hashlib
import io
import re

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from evaluation.clip import associations, embedded, metric_families, run
from evaluation.clip.associations import Instance
from evaluation.clip.tasks import DATA, WINOGAVIL_METRICS, Task, TaskError, TaskList, load_tasks
from filters.image_text import network
from pools import demo_image_text
from pools.image_text import render

SPLITS = ("evaluation", "validation")
README = DATA / "README.md"


@pytest.fixture(scope="module")
def sets():
    return {split: embedded.sets(split) for split in SPLITS}


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {task.key: task for task in load_tasks("demo").tasks}


@pytest.fixture(scope="module")
def images(sets):
    """Every picture by where it is: the pool, the trusted set, and each embedded set in each split."""
    found = {"pool": demo_image_text.pool()["image"], "trusted": demo_image_text.trusted()["image"]}
    for split in SPLITS:
        found |= {f"{name} {split}": s.table["image"] for name, s in sets[split].items()}
    return {name: column.to_pylist() for name, column in found.items()}


def chosen(sets, task: Task, split: str = "evaluation") -> dict[str, list]:
    """The columns of the rows that a task uses, without the pictures."""
    table = sets[split][task.set].table.drop_columns(["image"])
    for column, value in task.where.items():
        table = table.filter(pc.equal(table[column], value))
    return table.to_pydict()


def captions_of(columns: dict[str, list]) -> list[str]:
    return [caption for own in columns["captions"] for caption in own]


def drawn(sets, task: Task, split: str = "evaluation") -> list[Instance]:
    columns = chosen(sets, task, split)
    return associations.draw(task, columns["id"], columns)


# --- the sets


def test_sizes_and_columns(sets):
    assert {n: s.table.num_rows for n, s in sets["evaluation"].items()} == {"demo": 1753, "digits": 1000}
    assert {n: s.table.num_rows for n, s in sets["validation"].items()} == {"demo": 519, "digits": 797}
    demo = sets["evaluation"]["demo"].table
    before = demo_image_text.evaluation()
    assert demo.select(before.column_names).equals(before)  # columns are added; what was there stays
    shown = collections.Counter(zip(demo["task"].to_pylist(), demo["shows"].to_pylist(), strict=True))
    assert shown == {
        ("emoji", None): 1248,
        ("flag", None): 175,
        ("person", "person"): 240,
        ("person", "limb"): 90,
    }
    with pytest.raises(ValueError, match="split is 'test'"):
        embedded.sets("test")
    with pytest.raises(ValueError, match="split is 'test'"):
        embedded.digits("test")


def test_words_name_every_subgroup_once(sets):
    words = yaml.safe_load((DATA / "kinds.yaml").read_text())
    subgroups = {v for split in SPLITS for v in sets[split]["demo"].table["subgroup"].to_pylist()}
    assert set(words["kinds"]) == subgroups and len(set(words["kinds"].values())) == len(subgroups) == 96
    assert set(words["cues"]) < subgroups and len(set(words["cues"].values())) == len(words["cues"])


def test_a_subgroup_without_words_is_named(sets):
    table = demo_image_text.evaluation().slice(0, 1)
    at = table.column_names.index("subgroup")
    with pytest.raises(ValueError, match="no words for the subgroup robots"):
        embedded.with_words(table.set_column(at, "subgroup", [["robots"]]))


def test_digits_are_scikit_learns():
    pytest.importorskip("sklearn", reason="scikit-learn, where the digits are from, is not installed")
    from evaluation.clip.build_digits import table

    assert pq.read_table(embedded.DIGITS).equals(table())
    assert embedded.DIGITS.stat().st_size < 50_000


def test_a_digit_is_drawn_point_for_point(sets):
    raw = pq.read_table(embedded.DIGITS)
    digit = sets["evaluation"]["digits"].table.slice(0, 1).to_pylist()[0]
    assert digit["id"] == "digit-0797" and digit["label"] == raw["label"][797].as_py()
    pixels = np.asarray(Image.open(io.BytesIO(digit["image"])))
    assert pixels.shape == (32, 32, 3)
    points = np.frombuffer(raw["pixels"][797].as_py(), np.uint8).reshape(8, 8).astype(int)
    np.testing.assert_array_equal(pixels[::4, ::4, 1], 255 - np.round(points * 255 / 16).astype(np.uint8))
    assert (pixels.reshape(8, 4, 8, 4, 3) == pixels[::4, ::4][:, None, :, None]).all()
    assert pixels[0, 0, 0] == 255 and points[0, 0] == 0  # dark ink on white


# --- nothing is shared


def test_no_picture_of_a_task_is_in_the_pool_the_trusted_set_or_the_other_split(images):
    digests = {name: {hashlib.sha256(i).hexdigest() for i in found} for name, found in images.items()}
    names = list(digests)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not digests[a] & digests[b], (a, b)


# Root mean square difference (0..255) of the nearest 12 x 12 thumbnails: the measure of the pool
NEAREST = {
    ("demo evaluation", "pool"): 6.31,
    ("demo evaluation", "trusted"): 8.91,
    ("demo validation", "pool"): 6.66,
    ("demo validation", "trusted"): 7.27,
    ("demo validation", "demo evaluation"): 6.11,
    ("digits evaluation", "pool"): 32.92,
    ("digits evaluation", "trusted"): 40.18,
    ("digits evaluation", "demo evaluation"): 38.89,
    ("digits validation", "pool"): 44.49,
    ("digits validation", "trusted"): 48.24,
    ("digits validation", "digits evaluation"): 13.69,
}


def test_no_picture_of_a_task_is_nearly_in_the_pool_or_the_trusted_set(images):
    thumbnails = {
        name: np.stack([render.thumbnail(Image.open(io.BytesIO(image))) for image in found])
        for name, found in images.items()
    }
    found = {}
    for a, b in NEAREST:
        distance, _ = render.nearest(thumbnails[a], thumbnails[b])
        found[a, b] = float(distance.min())
        assert found[a, b] > render.NEAR == 6.0, (a, b)
    assert found == pytest.approx(NEAREST, abs=0.01)
    for distance in NEAREST.values():
        assert f"{distance:.2f}" in README.read_text()


def test_validation_shares_no_concept_with_evaluation(sets, tasks):
    # settings may be fixed on "validation": the classes asked in "evaluation" are then still unknown
    for key in ("names", "flags", "persons"):
        ours, theirs = (set(chosen(sets, tasks[key], split)["name"]) for split in SPLITS)
        assert not ours & theirs
    for key in ("retrieval", "lookalikes"):
        ours, theirs = (set(captions_of(chosen(sets, tasks[key], split))) for split in SPLITS)
        assert not ours & theirs


def test_fixed_class_lists_fit_both_splits_and_say_nothing_about_either(sets, tasks):
    parts = {"digits": tasks["digits"], **tasks["people"].parts()}
    for name, task in parts.items():
        for split in SPLITS:
            labels = chosen(sets, task, split)[task.label]
            known = range(10) if name == "digits" else task.classes
            assert set(labels) == set(known), (name, split)


# --- the list


def test_the_score_is_what_it_was(tasks):
    listed = load_tasks("demo")
    assert listed.score_name == "zero-shot score"
    assert listed.score == (
        "names_acc5", "subgroups_mean_per_class1", "flags_acc5", "retrieval_mean_recall10",
    )  # fmt: skip


# What the four results are made from, since the first release; templates joined by "|"
SCORED = {
    "names": ("emoji", "name", None, "{c}|{c} emoji|a picture of a {c}|an illustration of a {c}|{c} icon"),
    "subgroups": ("emoji", "subgroup", "name", "{c}|{c} emoji|a picture of a {c}"),
    "flags": ("flag", "name", None, "flag of {c}|{c} flag|the national flag of {c}|{c}"),
    "retrieval": ("emoji", "captions", None, "{c}"),
}


def test_what_the_score_is_made_from_is_what_it_was(tasks):
    for key, (rows, column, members, templates) in SCORED.items():
        task = tasks[key]
        assert (task.set, task.where, task.chance) == ("demo", {"task": rows}, None)
        assert (task.caption if task.kind == "retrieval" else task.label) == column
        assert (task.members, "|".join(task.templates)) == (members, templates)


def test_every_task_runs_on_a_cpu_and_the_score_needs_only_its_four(sets):
    model = network.build({"small": {}}, seed=1)
    result = run.evaluate(model, "demo", sets=sets["evaluation"], strict=True)
    listed = load_tasks("demo")
    assert list(result["tasks"]) == [f"{t.key}_{m}" for t in listed.tasks for m in t.metrics]
    for name, entry in result["tasks"].items():
        assert 0 <= entry["value"] <= 1 and 0 < entry["chance"] <= 0.5, name
        assert entry["stderr"] is not None and entry["n"] >= 175, name
    assert [k for k, entry in result["tasks"].items() if entry["in_score"]] == list(listed.score)
    four = {key.rsplit("_", 1)[0].removesuffix("_mean").removesuffix("_mean_per") for key in listed.score}
    assert four == set(SCORED)
    alone = TaskList("demo", tuple(t for t in listed.tasks if t.key in four), listed.score, listed.score_name)
    assert run.evaluate(model, alone, sets=sets["evaluation"], strict=True)["score"] == result["score"]
    # a chance of its own for every number of candidates
    slices = [
        result["tasks"][f"associations_{m}"]["chance"] for m in ("jaccard_score_10-12", "jaccard_score_5-6")
    ]
    assert slices == pytest.approx([0.2182, 0.3481], abs=1e-4)


def test_every_family_of_datacomps_tasks_is_there(tasks):
    assert len(tasks) == 10
    kinds = collections.Counter(task.kind for task in tasks.values())
    assert kinds == {"classification": 6, "retrieval": 2, "winogavil": 1, "attributes": 1}
    metrics = {
        re.sub(r"\d+$", "", m) for t in tasks.values() if t.kind == "classification" for m in t.metrics
    }
    assert metrics == {"acc", "mean_per_class", "worst_group", "macro_f"}
    assert all(task.why for task in tasks.values())


def chance_of(sets, task: Task) -> float:
    """Chance of a task's first metric, from its definition."""
    columns = chosen(sets, task)
    metric = task.metrics[0]
    if task.kind == "winogavil":
        return associations.chances(drawn(sets, task))[metric]
    if task.kind == "retrieval":
        pictures = len(columns["id"])
        captions = [len(own) for own in columns[task.caption]]
        assert metric == "mean_recall1"
        return (np.mean([own / sum(captions) for own in captions]) + 1 / pictures) / 2
    if metric == "macro_f1":
        labels = np.unique(columns[task.label], return_counts=True)[1]
        even = len(columns["id"]) / len(labels)
        return float(np.mean([2 * n / len(labels) / (n + even) for n in labels]))
    if task.kind == "attributes":
        task = next(iter(task.parts().values()))
        metric = task.metrics[0]
    classes = len(task.classes) or len(set(columns[task.label]))
    return int(metric[-1]) / classes


def test_chance_of_the_long_tail_is_that_of_guessing_each_kind_equally_often(sets, tasks):
    task = tasks["long_tail"]
    names, labels = np.unique(chosen(sets, task)["kind"], return_inverse=True)
    rng = np.random.default_rng(0)
    guesses = [
        metric_families.macro_f1(rng.integers(0, len(names), len(labels)), labels).value for _ in range(300)
    ]
    sizes = np.bincount(labels)
    assert chance_of(sets, task) == pytest.approx(np.mean(guesses), rel=0.1)  # first order against trial
    assert (len(names), sizes.min(), sizes.max()) == (95, 1, 175)


def table_of_readme() -> list[list[str]]:
    text = README.read_text()
    section = text[text.index("## Embedded tasks") :].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    rows = rows[: rows.index(next(row for row in rows if row.startswith("| set |")))]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows[1:]]


def expected_rows(sets, tasks) -> list[list[str]]:
    rows = []
    for key, task in tasks.items():
        columns = chosen(sets, task)
        n = f"{len(columns['id']):,}"
        classes = "–"
        if task.kind == "classification":
            classes = f"{len(task.classes) or len(set(columns[task.label])):,}"
        elif task.kind == "retrieval":
            n += f" × {len(captions_of(columns)):,}"
        elif task.kind == "winogavil":
            instances = drawn(sets, task)
            n = f"{len(instances):,}"
            classes = f"{len({i.cue for i in instances})} cues"
        else:
            classes = " and ".join(str(len(part.classes)) for part in task.parts().values())
        sources = collections.Counter(columns.get("source", ["scikit-learn"]))
        licences = dict.fromkeys(columns.get("license", ["BSD-3-Clause, CC-BY-4.0"]))
        rows.append(
            [
                key,
                task.metrics[0],
                n,
                classes,
                f"{chance_of(sets, task):.4f}",
                ", ".join(sources),
                ", ".join(licences),
            ]
        )
    return rows


def test_the_readme_says_what_the_data_say(sets, tasks):
    found = [row[:7] for row in table_of_readme()]
    expected = expected_rows(sets, tasks)
    assert found == expected, "\n".join("| " + " | ".join(row) + " |" for row in expected)


# --- associations


def test_instances_are_sound(sets, tasks):
    task = tasks["associations"]
    columns = chosen(sets, task)
    instances = drawn(sets, task)
    assert collections.Counter(len(i.candidates) for i in instances) == dict.fromkeys(associations.SIZES, 100)
    for instance in instances:
        cues = [columns["cue"][row] for row in instance.candidates]
        assert len(set(instance.candidates)) == len(cues)
        right = {r for r, cue in zip(instance.candidates, cues, strict=True) if cue == instance.cue}
        assert None not in cues  # kinds that no word tells from all others take no part
        assert right == set(instance.answers)  # nothing else among the candidates belongs to the cue
        size = len(cues)
        assert 2 <= len(right) <= (3 if size < 10 else 5)
        group = columns["group"][instance.answers[0]]
        near = [columns["group"][r] for r in instance.candidates if r not in right]
        assert near.count(group) >= (size - len(right)) // 2  # the hard half
    turns = collections.Counter(i.cue for i in instances)
    assert len(turns) == 44 and max(turns.values()) - min(turns.values()) <= 4
    # an answer is not recognised by where it stands
    places = collections.Counter(
        i.candidates.index(a) for i in instances if len(i.candidates) == 12 for a in i.answers
    )
    assert len(places) == 12 and max(places.values()) < 2.5 * min(places.values())


def test_what_is_drawn_depends_on_ids_and_not_on_the_order_of_rows(sets, tasks):
    task = tasks["associations"]
    columns = chosen(sets, task)
    order = np.random.default_rng(1).permutation(len(columns["id"])).tolist()
    moved = {name: [values[i] for i in order] for name, values in columns.items()}

    def named(drawn, ids):
        return [(i.cue, [ids[r] for r in i.candidates], {ids[r] for r in i.answers}) for i in drawn]

    first = named(associations.draw(task, columns["id"], columns), columns["id"])
    assert named(associations.draw(task, moved["id"], moved), moved["id"]) == first
    assert named(associations.draw(task, columns["id"], columns, seed=1), columns["id"]) != first
    # golden: the instances are part of the benchmark
    digest = hashlib.sha256(repr([(cue, shown) for cue, shown, _ in first]).encode()).hexdigest()
    assert digest[:16] == "1de606ecf2ae6db1"


def test_chance_of_associations_is_that_of_random_similarities(sets, tasks):
    instances = drawn(sets, tasks["associations"])
    candidates = np.array([len(i.candidates) for i in instances])
    associated = np.concatenate([np.isin(i.candidates, i.answers) for i in instances])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(200):
        scores = metric_families.winogavil(rng.random(len(associated)), associated, candidates)
        values.append([scores["avg_jaccard_score"].value, scores["jaccard_score_10-12"].value])
    expected = associations.chances(instances)
    assert list(expected) == list(WINOGAVIL_METRICS)
    np.testing.assert_allclose(
        np.mean(values, 0), [expected["avg_jaccard_score"], expected["jaccard_score_10-12"]], atol=0.004
    )
    assert expected["jaccard_score_5-6"] == pytest.approx(
        (expected["jaccard_score_5"] + expected["jaccard_score_6"]) / 2
    )
    assert associations.chance([Instance("x", (0, 1, 2, 3, 4), (0, 1))]) == pytest.approx(0.3)


def test_cues_read_as_winogavils():
    read = [associations.prompt(cue) for cue in ("goat", "Ape", "hour", "unicorn")]
    assert read == ["A goat", "An ape", "A hour", "An unicorn"]  # the vowel as written decides, as published


def test_too_few_pictures_for_associations_are_named():
    task = Task("a", "A", "winogavil", "s", ("avg_jaccard_score",), instances=1)
    with pytest.raises(TaskError, match="task a: 1 values of cue have two pictures"):
        associations.draw(task, ["1", "2", "3"], {"cue": ["x", "x", None]})
    with pytest.raises(TaskError, match="task a: 5 candidates are more than the set has"):
        associations.draw(task, list("1234"), {"cue": ["x", "x", "y", "y"]})
    with pytest.raises(TaskError, match="must be some, and not all"):
        Instance("x", (1, 2), (1, 2))


# --- attributes


def test_attributes_are_plain_classifications(tasks):
    parts = tasks["people"].parts()
    assert list(parts) == ["tone", "shows"]
    tone = parts["tone"]
    assert tone.kind == "classification" and tone.metrics == ("acc1", "worst_group1")
    assert (tone.label, tone.group, tone.where) == ("group", "shows", {"task": "person"})
    assert len(tone.classes) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": {}}, "needs `attributes`"),
        ({"metrics": ["acc1"]}, 'no metric "acc1"'),
        (
            {"metrics": ["acc1_age"]},
            'no metric "acc1_age"; use a metric of classification with _ and one of tone',
        ),
        ({"metrics": ["acc2_tone"]}, 'task p.tone: no metric "acc2"'),
        ({"metrics": ["worst_group1_tone"]}, "task p.tone: worst_group1 needs `group`"),
        ({"attributes": {"tone": {"labels": "x"}}}, "task p, attribute tone: .*labels"),
        ({"kind": "faces"}, 'kind is "faces"'),
    ],
)
def test_bad_attribute_tasks_are_refused(changes, message):
    values = {
        "key": "p", "title": "P", "kind": "attributes", "set": "s", "metrics": ["acc1_tone"],
        "attributes": {"tone": {"label": "tone", "classes": ["a", "b"]}},
    }  # fmt: skip
    Task(**values)
    with pytest.raises(TaskError, match=message):
        Task(**{**values, **changes})


def test_attributes_enter_no_score():
    task = Task("p", "P", "attributes", "s", ("acc1_t",), attributes={"t": {"classes": ["a"]}})
    with pytest.raises(TaskError, match="attributes are only reported"):
        TaskList("x", (task,), ("p_acc1_t",), "score")
