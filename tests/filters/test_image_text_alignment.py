"""Alignment scores: the same for any batching, tied to the weights, open_clip through the same path."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import curation as c
from filters.image_text import ClipScore, FilterNetwork

torch = pytest.importorskip("torch")

from filters.image_text import checkpoints, network  # noqa: E402

TINY_VIT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def picture(seed):
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(out, "webp")
    return out.getvalue()


@pytest.fixture(scope="module")
def batch():
    captions = [f"picture {'of ' * (i % 4)} number {i}" for i in range(150)]
    return pa.record_batch(
        {"image": pa.array([picture(i) for i in range(150)], pa.binary()), "text": captions}
    )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    model = network.build({"small": {}}, {"resize": "pad"}, seed=3)
    return network.save(model, tmp_path_factory.mktemp("model"))


def scores(step, batch):
    return step(batch).to_numpy(zero_copy_only=False)


def test_scores_do_not_depend_on_batching(model_dir, batch):
    step = FilterNetwork(model_dir)
    step.setup()
    whole = scores(step, batch)
    assert whole.dtype == np.float32 and len(whole) == 150
    assert np.abs(whole).max() <= 1 + 1e-6 and whole.std() > 0
    for size in (1, 7, 64, 100):
        parts = np.concatenate([scores(step, batch.slice(i, size)) for i in range(0, 150, size)])
        np.testing.assert_array_equal(parts, whole)


def test_score_is_the_cosine_of_the_two_towers(model_dir, batch):
    step = FilterNetwork(model_dir)
    step.setup()
    model = network.load(model_dir)
    image = model.encode_images(batch["image"].to_pylist())
    text = model.encode_texts(batch["text"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(scores(step, batch), (image * text).sum(1), atol=1e-6)


def test_identity_follows_the_weights_and_not_the_folder(model_dir, tmp_path):
    same = network.save(network.build({"small": {}}, {"resize": "pad"}, seed=3), tmp_path / "same")
    other = network.save(network.build({"small": {}}, {"resize": "pad"}, seed=4), tmp_path / "other")
    assert FilterNetwork(same).identity == FilterNetwork(model_dir).identity
    assert FilterNetwork(other).identity != FilterNetwork(model_dir).identity


def test_weights_that_changed_after_the_plan_was_made_are_refused(tmp_path):
    path = network.save(network.build({"small": {}}, seed=1), tmp_path / "m")
    step = FilterNetwork(path)
    network.save(network.build({"small": {}}, seed=2), path)
    with pytest.raises(ValueError, match="make the plan again"):
        step.setup()


def test_a_missing_model_directory_is_refused_when_the_plan_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        FilterNetwork(tmp_path / "nothing")


def test_unreadable_image_names_its_row(model_dir, batch):
    step = FilterNetwork(model_dir)
    step.setup()
    bad = pa.record_batch({"image": pa.array([picture(0), b"no image"], pa.binary()), "text": ["a", "b"]})
    with pytest.raises(ValueError, match="row 1: cannot decode an image of 8 bytes"):
        step(bad)


def test_is_a_step_with_declared_columns(model_dir):
    step = FilterNetwork(model_dir)
    assert isinstance(step, c.Model)
    assert step.inputs == ("image", "text") and step.outputs == {"alignment": pa.float32()}


def test_clip_score_of_an_open_clip_model_from_directory_and_config(tmp_path, batch):
    pytest.importorskip("open_clip")
    model = network.build({"open_clip": TINY_VIT}, seed=5)
    path = network.save(model, tmp_path / "vit")
    step = ClipScore(str(path))
    step.setup()
    small = batch.slice(0, 9)
    image = model.encode_images(small["image"].to_pylist())
    text = model.encode_texts(small["text"].to_pylist())
    np.testing.assert_allclose(scores(step, small), (image * text).sum(1), atol=1e-6)


def test_open_clip_checkpoint_file_by_model_name(tmp_path, batch, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "winnow-test-vit.json").write_text(json.dumps(TINY_VIT))
    open_clip.add_model_config(folder)
    model = network.build({"open_clip": "winnow-test-vit"}, seed=6)
    path = tmp_path / "epoch_1.pt"
    # the form in which open_clip's trainer writes checkpoints
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in model.module.state_dict().items()}}, path
    )
    step = ClipScore("winnow-test-vit", str(path))
    step.setup()
    small = batch.slice(0, 5)
    expected = (
        model.encode_images(small["image"].to_pylist()) * model.encode_texts(small["text"].to_pylist())
    ).sum(1)
    np.testing.assert_allclose(scores(step, small), expected, atol=1e-6)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickled_checkpoint_is_refused(tmp_path, capsys):
    pytest.importorskip("open_clip")
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(network.ModelError, match="convert it to safetensors"):
        checkpoints.read_weights(path)
    assert "never run" not in capsys.readouterr().out


def test_weights_of_another_architecture_and_nan_are_refused(tmp_path):
    path = network.save(network.build({"small": {}}, seed=0), tmp_path / "m")
    config = json.loads((path / "config.json").read_text())
    config["model"]["small"]["embed_dim"] = 64
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(network.ModelError, match="another architecture"):
        network.load(path)
    model = network.build({"small": {}}, seed=0)
    model.module.visual_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(network.ModelError, match=r"visual_proj\.weight holds NaN"):
        network.load(network.save(model, tmp_path / "nan"))


def test_unknown_names_say_what_to_do(tmp_path):
    with pytest.raises(network.ModelError, match="say which weights too"):
        network.load("ViT-B-32")
    with pytest.raises(network.ModelError, match="exactly one of"):
        network.build({"resnet": {}})
