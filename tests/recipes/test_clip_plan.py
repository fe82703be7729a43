"""DataComp's scales value by value, and what a plan says of them against published figures."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

from recipes import planning
from recipes import scale as scales
from recipes.clip.plan import MFU, TrainingPlan, model_shape, plan
from recipes.clip.sampling import SamplingError
from recipes.clip.settings import Settings

# name: model, steps, batch, lr, warm-up, beta2 (DataComp's scale_configs and tables 1, 13, 14)
DATACOMP = {
    "clip-small": ("ViT-B-32", 3_125, 4_096, 5e-4, 500, 0.98),
    "clip-medium": ("ViT-B-32", 31_250, 4_096, 5e-4, 500, 0.98),
    "clip-large": ("ViT-B-16", 156_250, 8_192, 5e-4, 500, 0.98),
    "clip-xlarge": ("ViT-L-14", 142_045, 90_112, 1e-3, 10_000, 0.95),
}
NOMINAL = {"clip-small": 12.8e6, "clip-medium": 128e6, "clip-large": 1.28e9, "clip-xlarge": 12.8e9}

# parameters and forward GFLOPs of the two towers in open_clip's docs/model_profile.csv
PROFILE = {
    "ViT-S-32-alt": (43.22, 2.29, 1.27),
    "ViT-S-32": (63.09, 2.29, 3.38),
    "ViT-B-32": (151.28, 8.82, 5.96),
    "ViT-B-16": (149.62, 35.13, 5.96),
    "ViT-L-14": (427.62, 162.03, 13.3),
    "RN50": (102.01, 12.22, 5.96),
    "convnext_base_w": (179.39, 40.11, 9.27),
}


@pytest.mark.parametrize("name", DATACOMP)
def test_datacomps_scales_value_by_value(name):
    scale = scales.load(name).to_dict()
    model, steps, batch, lr, warmup, beta2 = DATACOMP[name]
    assert scale["track"] == "image_text" and scale["model"] == {"open_clip": model}
    assert scale["train"] == {
        "samples": steps * batch,
        "batch": batch,
        "lr": lr,
        "warmup": warmup,
        "weight_decay": 0.2,
        "beta1": 0.9,
        "beta2": beta2,
        "eps": 1e-6,
        "max_logit_scale": 100,
        "resized_crop": [0.9, 1.0],
        "sampling": "epochs",
        "checkpoints": 5,
        "precision": "bf16",
    }
    assert abs(steps * batch / NOMINAL[name] - 1) < 1e-5
    assert (steps * batch == NOMINAL[name]) == (name != "clip-xlarge")


@pytest.mark.parametrize(
    "name, digest",
    [
        ("clip-mini", "3ff0e91f681a5ab6"),
        ("clip-small", "f1e34874acaa3541"),
        ("clip-medium", "58a61dd5efb6d70e"),
        ("clip-large", "681c194061bb86a1"),
        ("clip-xlarge", "a0ea9e0a07559704"),
    ],
)
def test_an_official_scale_never_changes_by_itself(name, digest):
    scale = scales.load(name)
    assert scale.hash == digest and scales.is_official(scale)
    assert scale.section("train", Settings).steps == plan(scale).steps


@pytest.mark.parametrize("name", [*DATACOMP, "clip-mini"])
def test_pixels_of_the_scales_are_open_clips(name):
    import open_clip

    from filters.image_text.pixels import Pixels

    pixels = Pixels(**scales.load(name).to_dict()["pixels"])
    assert (pixels.mean, pixels.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert (pixels.size, pixels.resize, pixels.interpolation, pixels.rgb) == (224, "crop", "bicubic", "drop")


@pytest.mark.parametrize("name", PROFILE)
def test_parameters_and_operations_are_open_clips_published_profile(name):
    parameters, image, text = PROFILE[name]
    shape = model_shape({"open_clip": name})
    assert round(shape.parameters / 1e6, 2) == parameters
    assert round(2 * shape.image_macs / 1e9, 2) == image
    assert round(2 * shape.text_macs / 1e9, 2) == text
    assert shape.training_flops == 6 * (shape.image_macs + shape.text_macs)


@pytest.mark.parametrize("name", DATACOMP)
def test_multiply_adds_are_those_that_datacomp_reports(name):
    found = plan(name)
    assert found.official and found.samples == DATACOMP[name][1] * DATACOMP[name][2]
    assert f"{found.samples * found.model.macs:.1e}" == f"{found.published['train_macs']:.1e}"


def test_the_assumed_share_of_the_peak_is_what_datacomps_hours_come_to():
    shares = []
    for name in DATACOMP:
        found = plan(name, "A100")
        shares.append(found.flops / (planning.peak("A100") * 3600 * found.published["a100_hours"]))
        assert found.hours == pytest.approx(found.published["a100_hours"], rel=0.12)
    assert min(shares) > 0.12 and max(shares) < 0.15 and round(sum(shares) / 4, 2) == MFU


def test_a_plan_reads_well(capsys):
    print(plan("clip-medium", "H100", 8))
    said = capsys.readouterr().out
    assert "clip-medium" in said and "UNOFFICIAL" not in said
    assert "ViT-B-32: 151,277,313 parameters, 224 pixels, 77 tokens" in said
    assert "31,250 steps x 4,096 pairs = 128,000,000 samples" in said
    assert "about 4.5 TB at 35.2 kB a pair" in said
    assert "3.63 GB for two checkpoints" in said and "5.67e+18 FLOPs" in said
    assert "about 1.5 hours on 8 x H100" in said
    assert "23,202 images a second keep that up: 816 MB/s and about 49 cores" in said
    assert "128,000,000 pairs when nothing is filtered, 4.5 TB of tars" in said
    assert "DataComp reports 40 A100 hours and 9.5e+17 multiply-adds" in said
    assert max(map(len, said.splitlines())) < 180


def test_twice_the_devices_take_half_the_time_and_a_changed_scale_is_marked():
    one, two = plan("clip-mini", "L40S", 1), plan("clip-mini", "L40S", 2)
    assert one.hours == pytest.approx(2 * two.hours) and one.published == {}
    assert (one.steps, one.batch, one.checkpoints) == (1_250, 1_024, 5)
    changed = plan(scales.load("clip-mini").replace(train={"lr": 1e-3}))
    assert not changed.official and "UNOFFICIAL" in str(changed)


def test_the_small_model_is_counted_too():
    from recipes.clip.model import build

    values = scales.load("clip-tiny").to_dict()
    found = plan("clip-tiny")
    module = build(values["model"], values["pixels"]).module
    assert found.parameters == sum(p.numel() for p in module.parameters())
    # 4x4 patches of 32 pixels: 8x8 places, then 4x4 and 2x2; then the two projections
    image = 64 * 48 * 32 + 16 * 9 * 32 * 64 + 4 * 9 * 64 * 128 + 128 * 128
    assert (found.model.image_macs, found.model.text_macs) == (image, 96 * 128)
    assert "small: 516,225 parameters, 32 pixels, 16 tokens" in str(found) and "loading" not in str(found)


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(scales.ScaleError, match="track 'text', not image_text"):
        plan("lm-tiny")
    with pytest.raises(ValueError, match="no peak known for device 'abacus'; known: A100"):
        plan("clip-small", "abacus")
    with pytest.raises(SamplingError, match="not a multiple of batch=4096"):
        plan(scales.load("clip-small").replace(train={"samples": 12_800_001}))


def test_a_plan_needs_no_memory_for_the_weights():
    import torch

    from recipes.clip.model import build

    with torch.device("meta"):
        module = build({"open_clip": "ViT-B-32"}).module
    assert all(p.device.type == "meta" for p in module.parameters())
    assert isinstance(plan("clip-small"), TrainingPlan)


@pytest.mark.parametrize(
    "count, said",
    [(4.5e11, "450 GB"), (35156, "35.2 kB"), (3.63e9, "3.63 GB"), (4.5e14, "450 TB"), (2e15, "2 PB")],
)
def test_bytes_in_words(count, said):
    assert planning.size(count) == said
