"""Re-filtering from stored scores: what `select` answers is what a new run would keep, where it can know."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import read_rows

import curation as c
from curation.select import scores_table, select_ids


class Shape(NamedTuple):
    words: int
    stones: float


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Int32Array:
    return pc.utf8_length(text)


@c.transform
def without_hashes(text: str):
    left = text.replace("#", "")
    return {"text": left} if len(left) > 30 else None


@c.score
def shape(text: str) -> Shape:
    words = text.split()
    return Shape(len(words), words.count("stone") / max(1, len(words)))


def plan(pool, out, raw=60, words=40, stones=0.05, transform=True):
    return [
        c.read(str(pool)), n_chars, c.keep(f"n_chars >= {raw}", reason="short"),
        *([without_hashes] if transform else []), shape,
        c.keep(f"shape.words >= {words}", reason="few words"),
        c.keep(f"shape.stones <= {stones}", reason="stones"), c.write(str(out)),
    ]  # fmt: skip


def kept(pool, out, **thresholds):
    c.run(plan(pool, out, **thresholds), progress=False, workers=1)
    return [r["id"] for r in read_rows(out)]


@pytest.mark.parametrize(
    "new", [{"words": 10}, {"stones": 0.2}, {"words": 5, "stones": 1.0}, {"words": 50, "stones": 0.04}]
)
def test_after_a_transform_any_threshold_can_be_tried(text_pool, tmp_path, new):
    """Every struct score of every row that the transform left is stored with scores="all"."""
    c.run(plan(text_pool, tmp_path / "all"), scores="all", progress=False, workers=1)
    asked = {"words": 40, "stones": 0.05} | new
    where = f"shape.words >= {asked['words']} and shape.stones <= {asked['stones']}"
    ids = select_ids(tmp_path / "all", where)
    assert ids == kept(text_pool, tmp_path / "new", **new) and len(ids) > 20


def test_scores_of_kept_only_know_tighter_thresholds(text_pool, tmp_path):
    c.run(plan(text_pool, tmp_path / "run"), progress=False, workers=1)  # scores="kept"
    tighter = "n_chars >= 200 and shape.words >= 50 and shape.stones <= 0.03"
    assert select_ids(tmp_path / "run", tighter) == kept(
        text_pool, tmp_path / "tighter", raw=200, words=50, stones=0.03
    )
    scores = scores_table(tmp_path / "run").to_pylist()
    assert all(r["shape"] is None for r in scores if r["dropped_by"] == "short")


def test_a_rule_before_a_transform_can_be_loosened_only_by_a_run(text_pool, tmp_path):
    """A row that left before a transform was never transformed, so no later score of it exists: it cannot be
    selected, and which rows these are can be asked."""
    c.run(plan(text_pool, tmp_path / "all"), scores="all", progress=False, workers=1)
    loose = "n_chars >= 30 and shape.words >= 5 and shape.stones <= 1"
    selected = select_ids(tmp_path / "all", loose)
    new = kept(text_pool, tmp_path / "new", raw=30, words=5, stones=1.0)
    missing = set(new) - set(selected)
    assert missing and set(selected) < set(new)
    unknown = select_ids(tmp_path / "all", "n_chars >= 30 and shape is null and dropped_by = 'short'")
    assert missing <= set(unknown)


def test_without_a_transform_every_threshold_can_be_loosened(text_pool, tmp_path):
    c.run(plan(text_pool, tmp_path / "all", transform=False), scores="all", progress=False, workers=1)
    selected = select_ids(tmp_path / "all", "n_chars >= 20 and shape.words >= 5 and shape.stones <= 1")
    assert selected == kept(text_pool, tmp_path / "new", raw=20, words=5, stones=1.0, transform=False)
