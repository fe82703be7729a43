"""The filter-network trainer and its poisoning check."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

pytest.importorskip("torch")

from filters.image_text import FilterNetwork
from recipes.filter_network import (
    FilterNetworkError,
    auc,
    auc_stderr,
    train_filter_network,
)

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 210), "yellow": (240, 220, 40)}


def trusted(n=320, poisoned=False, seed=0):
    """Blocks of two colours; the caption names both (or, poisoned, those of some other row)."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    images, captions = [], []
    for _ in range(n):
        a, b = rng.choice(4, 2).tolist()
        pixels = np.full((32, 32, 3), 255, np.uint8)
        pixels[4:16, 4:28], pixels[16:28, 4:28] = COLOURS[names[a]], COLOURS[names[b]]
        noise = rng.integers(-20, 20, pixels.shape)
        out = io.BytesIO()
        Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(out, "png")
        images.append(out.getvalue())
        captions.append(f"{names[a]} above {names[b]}")
    if poisoned:
        captions = [captions[i] for i in rng.permutation(n)]
    ids = [f"{i:032x}" for i in range(n)]
    return pa.table({"id": ids, "text": captions, "image": pa.array(images, pa.binary())})


SHORT = {"samples": 3200, "batch": 32, "warmup": 10}


def test_trained_on_right_pairs_it_passes_and_scores_a_pool(tmp_path):
    path, report = train_filter_network(trusted(), tmp_path / "net", **SHORT)
    assert report.auc_low > 0.6 and report.matched_mean > report.shuffled_mean
    assert (report.trained_on, report.held_out, report.left_out) == (288, 32, 0)
    assert (tmp_path / "net" / "report.json").is_file()
    step = FilterNetwork(path)
    step.setup()
    fresh = trusted(64, seed=5)
    right = step(fresh.combine_chunks().to_batches()[0]).to_numpy(zero_copy_only=False)
    wrong_rows = fresh.set_column(1, "text", pa.array(["blue above blue"] * 64))
    wrong = step(wrong_rows.combine_chunks().to_batches()[0]).to_numpy(zero_copy_only=False)
    assert auc(right, wrong) > 0.7


def test_trained_on_shuffled_captions_it_is_refused(tmp_path):
    with pytest.raises(FilterNetworkError, match="is not to be used"):
        train_filter_network(trusted(poisoned=True), tmp_path / "net", **SHORT)
    assert (tmp_path / "net" / "report.json").is_file()  # the numbers stay, to look at


def test_images_of_the_pool_are_left_out_of_the_training(tmp_path):
    rows = trusted()
    _, report = train_filter_network(rows, tmp_path, apart_from=rows.slice(100, 40), **SHORT)
    assert report.left_out == 40
    assert report.trained_on + report.held_out == 280


def test_too_few_held_out_images_are_refused(tmp_path):
    with pytest.raises(FilterNetworkError, match="too few for the poisoning check"):
        train_filter_network(trusted(60), tmp_path, **SHORT)


def test_auc_equals_scikit_learn_with_ties():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for levels in (2, 5, 1000):
        a, b = rng.integers(0, levels, 40), rng.integers(0, levels, 60)
        labels = np.r_[np.ones(40), np.zeros(60)]
        assert auc(a, b) == pytest.approx(metrics.roc_auc_score(labels, np.r_[a, b]))
    assert auc(np.ones(3), np.ones(4)) == 0.5
    with pytest.raises(ValueError, match="both kinds"):
        auc(np.ones(3), np.array([]))


def test_auc_error_matches_the_spread_of_repeated_draws():
    rng = np.random.default_rng(1)
    draws = [auc(rng.normal(0.8, 1, 80), rng.normal(0, 1, 80)) for _ in range(400)]
    assert auc_stderr(float(np.mean(draws)), 80, 80) == pytest.approx(np.std(draws), rel=0.15)
