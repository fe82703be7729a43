import copy
import pickle
from dataclasses import dataclass

import pytest

from recipes import scale as scales


@dataclass(frozen=True)
class Train:
    steps: int
    lr: float
    decay: str = "linear"


YAML = "name: toy\ntrack: text\ntrain: {steps: 10, lr: 3e-3}\nlist: [1, [2]]\n"


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(YAML)
    return scales.load(path)


def test_exponent_without_a_dot_is_a_number(toy) -> None:
    assert toy.section("train", Train) == Train(10, 0.003, "linear")


def test_hash_ignores_layout_and_sees_values(toy, tmp_path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("track: text\nlist:\n- 1\n- - 2\ntrain:\n  lr: 0.003\n  steps: 10\nname: toy\n")
    assert scales.load(other) == toy and scales.load(other).hash == toy.hash
    assert toy.hash == "d10ed66a774e6f06", "the hash of a scale must never change by itself"
    assert toy.replace(train={"steps": 11}).hash != toy.hash
    assert toy.replace(train={"steps": 11})["train"]["lr"] == 0.003


def test_read_only_yet_travels(toy) -> None:
    with pytest.raises(TypeError):
        toy["train"]["steps"] = 5
    assert pickle.loads(pickle.dumps(toy)) == toy == copy.deepcopy(toy)
    assert scales.Scale.from_dict(toy.to_dict()).hash == toy.hash


@pytest.mark.parametrize(
    "text, message",
    [
        (YAML + "train: {}\n", "'train' twice"),
        ("track: text\n", "name must be given"),
        ("name: a\ntrack: audio\n", "audio"),
        ("- 1\n", "expected a mapping"),
        ("name: a\ntrack: text\nwhen: 2020-01-01\n", "date"),
    ],
)
def test_bad_files_are_refused(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(scales.ScaleError, match=message):
        scales.load(path)


def test_sections_name_wrong_keys(toy) -> None:
    with pytest.raises(scales.ScaleError, match="unknown stepz; missing steps"):
        scales.Scale("a", "text", {"train": {"stepz": 1, "lr": 1.0}}).section("train", Train)
    with pytest.raises(scales.ScaleError, match="has no setting 'model'"):
        toy.section("model", Train)
    with pytest.raises(scales.ScaleError, match=r"known: .*lm-tiny"):
        scales.load("lm-tinny")


def test_every_shipped_scale_loads() -> None:
    assert "lm-tiny" in scales.names()
    for name in scales.names():
        assert scales.load(name).name == name


@pytest.mark.parametrize("value", ["fast", True, None])
def test_a_value_of_another_kind_names_section_and_key(value):
    from recipes.lm.budget import Budget

    wrong = scales.load("lm-tiny").replace(train={"lr": value})
    with pytest.raises(scales.ScaleError, match=r"section train: lr is .*, not a number"):
        wrong.section("train", Budget)
