"""Zero-shot evaluation against CLIP_benchmark's own code: same weights, same WebDataset files, same numbers.

CLIP_benchmark (the package clip-benchmark) is what DataComp's evaluation calls. It is taken from the
environment, or from the folder that WINNOW_CLIP_BENCHMARK names (made with ``pip install --target FOLDER
--no-deps clip-benchmark``). Everything on its side is its own: the model by open_clip's factory, the pictures
through torchvision, the tars through webdataset.
"""

from __future__ import annotations

import importlib
import os
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from parity import clip_models

from evaluation.clip import embedded, metric_families
from evaluation.clip.benchmark_tasks import logits
from evaluation.clip.encode import Encoded, class_vectors
from evaluation.clip.retrieval_set import RetrievalSet
from evaluation.clip.wds_set import WdsSet
from filters.image_text import network

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from wds_sets import write_wds

SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def peer() -> SimpleNamespace:
    """The parts of CLIP_benchmark that DataComp calls."""
    folder = os.environ.get("WINNOW_CLIP_BENCHMARK")
    if folder:
        sys.path.append(folder)
    try:
        names = (
            "datasets.builder",
            "metrics.zeroshot_classification",
            "metrics.zeroshot_retrieval",
            "models.open_clip",
        )
        parts = [importlib.import_module(f"clip_benchmark.{name}") for name in names]
    except ImportError as error:
        pytest.skip(
            f"clip-benchmark is not there (install it, or name its folder in WINNOW_CLIP_BENCHMARK): {error}"
        )
    finally:
        if folder:
            sys.path.remove(folder)
    builder, classification, retrieval, models = parts
    # Its accuracy() calls float() on an array of one number, which NumPy refuses from 2.4 on
    classification.float = lambda value: float(np.asarray(value, np.float64).sum())
    return SimpleNamespace(builder=builder, classification=classification, retrieval=retrieval, models=models)


@pytest.fixture(scope="module")
def models(peer, tmp_path_factory) -> SimpleNamespace:
    """One small open_clip model with random weights, loaded by each side from the same checkpoint file."""
    import open_clip

    config, weights = clip_models.write(tmp_path_factory.mktemp("model"))
    open_clip.add_model_config(config)
    model, transform, tokenizer = peer.models.load_open_clip(clip_models.NAME, str(weights), device="cpu")
    return SimpleNamespace(
        ours=network.load(config, weights), theirs=model.eval(), transform=transform, tokenizer=tokenizer
    )


def cut(source: Path, target: Path, examples: int) -> Path:
    """The first examples of a published set, as a set of two shards."""
    (target / "test").mkdir(parents=True)
    for file in source.glob("*.txt"):
        (target / file.name).write_bytes(file.read_bytes())
    (target / "test" / "nshards.txt").write_text("2")
    for shard in range(2):
        keys: set[str] = set()
        with (
            tarfile.open(source / "test" / f"{shard}.tar") as whole,
            tarfile.open(target / "test" / f"{shard}.tar", "w") as part,
        ):
            for member in whole:
                keys.add(member.name.partition(".")[0])
                if len(keys) > examples // 2:
                    break
                part.addfile(member, whole.extractfile(member))
    return target


@pytest.fixture(scope="module", params=["digits", "flags", "random", "cifar10"])
def classification_set(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "cifar10":
        published = SHARED / "wds_cifar10_test"
        if not published.is_dir():
            pytest.skip("wds_cifar10_test is not in the shared data (WINNOW_SHARED_DATA)")
        return cut(published, folder / "wds_cifar10_test", 600)
    if request.param == "random":  # pictures smaller than the model's, four classes: no acc5
        rows = [{"label": i % 4} for i in range(40)]
        return write_wds(folder, rows, ["cat", "dog", "red car", "tree"], ["a photo of a {c}", "the {c}."])
    if request.param == "digits":
        table = embedded.digits("evaluation").slice(0, 200).to_pylist()
        names, rows = [str(i) for i in range(10)], table
        return write_wds(folder, rows, names, ["a photo of the number {c}", "{c}", "digit {c}!"])
    # flags are 4 : 3, so that resizing and cropping count; labels leave out some classes
    table = [r for r in embedded.sets()["demo"].table.to_pylist() if r["task"] == "flag"]
    names = sorted({r["name"] for r in table} | {"Atlantis", "Narnia"})
    rows = [{"label": names.index(r["name"]), "image": r["image"]} for r in table]
    return write_wds(folder, rows, names, ["flag of {c}", "a {c} flag"], shards=3, format="webp")


def ours_on(model: network.TwoTower, folder: Path) -> dict[str, Any]:
    """Class vectors [classes, d], logits [n, classes] and metrics by our code."""
    data = WdsSet(folder.name, folder)
    encoded = encode(model, data)
    vectors = class_vectors(model.encode_texts, [[name] for name in data.classes], data.templates)
    scores, targets = logits(encoded, vectors), np.array(encoded.columns["label"])
    found = {name: measure.value for name, measure in metric_families.classification(scores, targets).items()}
    return {"vectors": vectors, "logits": scores, "targets": targets, "metrics": found}


def encode(model: network.TwoTower, data: Any) -> Encoded:
    batches = list(data.batches(64))
    columns = {name: [v for b in batches for v in b.columns[name]] for name in batches[0].columns}
    features = np.concatenate([model.encode_images(b.images) for b in batches])
    return Encoded([i for b in batches for i in b.ids], features, columns)


def loader(peer, models, folder: Path) -> tuple[Any, Any]:
    kind = "retrieval" if (folder / "dataset_type.txt").is_file() else "classification"
    data = peer.builder.build_dataset(
        "wds/parity", root=str(folder), transform=models.transform, download=False, task=f"zeroshot_{kind}"
    )
    return data, torch.utils.data.DataLoader(data.batched(64), batch_size=None, shuffle=False, num_workers=0)


def test_classification_is_the_same(peer, models, classification_set):
    ours = ours_on(models.ours, classification_set)
    data, batches = loader(peer, models, classification_set)
    vectors = peer.classification.zero_shot_classifier(
        models.theirs, models.tokenizer, data.classes, data.templates, "cpu", amp=False
    )
    scores, targets = peer.classification.run_classification(
        models.theirs, vectors, batches, "cpu", amp=False
    )
    np.testing.assert_allclose(ours["vectors"], vectors.numpy().T, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours["logits"], scores.numpy(), rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(ours["targets"], targets.numpy())
    batches.dataset.classes = data.classes
    theirs = peer.classification.evaluate(
        models.theirs, batches, models.tokenizer, data.classes, data.templates, "cpu", amp=False
    )
    assert len(set(scores.argmax(1).tolist())) >= 3  # the model does tell pictures apart
    if len(data.classes) < 5:
        assert np.isnan(theirs.pop("acc5"))
    assert ours["metrics"] == theirs


@pytest.mark.parametrize("captions", [1, 5])
def test_retrieval_is_the_same(peer, models, captions, tmp_path):
    rows = [r for r in embedded.sets()["demo"].table.to_pylist() if r["task"] == "person"][:90]
    # the number of captions differs from picture to picture, as it does in MSCOCO
    examples = [
        {"image": r["image"], "captions": r["captions"][: captions - i % 2 if captions > 1 else 1]}
        for i, r in enumerate(rows)
    ]
    write_wds(tmp_path, examples, format="webp")
    (tmp_path / "dataset_type.txt").write_text("retrieval")
    encoded = encode(models.ours, RetrievalSet("parity", tmp_path))
    texts = [text for own in encoded.columns["caption"] for text in own]
    owner = np.repeat(np.arange(len(rows)), [len(own) for own in encoded.columns["caption"]])
    assert len(texts) == sum(len(e["captions"]) for e in examples)
    scores = encoded.features @ models.ours.encode_texts(texts).T
    ours = {name: m.value for name, m in metric_families.retrieval(scores, owner).items()}
    _, batches = loader(peer, models, tmp_path)
    theirs = peer.retrieval.evaluate(
        models.theirs, batches, models.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    for name, value in theirs.items():
        assert np.float32(ours[name]) == np.float32(value), name  # it averages in single precision
    assert set(ours) - set(theirs) == {f"mean_recall@{k}" for k in (1, 5, 10)}
