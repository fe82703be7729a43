"""The CLIP trainer: exact steps, loss and schedule as published, resume, refusals; open_clip's models too."""

import io
import json
import math
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

torch = pytest.importorskip("torch")

from filters.image_text import network  # noqa: E402
from recipes import scale as scales  # noqa: E402
from recipes.clip import engine  # noqa: E402
from recipes.clip import train as trainer  # noqa: E402
from recipes.clip.augment import augment  # noqa: E402
from recipes.clip.data import DataError, load_pairs  # noqa: E402
from recipes.clip.model import clip_loss, parameter_groups  # noqa: E402
from recipes.clip.sampling import ExactEpochs, SamplingError  # noqa: E402
from recipes.clip.train import Machine, Settings, TrainingError, learning_rate, train  # noqa: E402
from recipes.training.world import World  # noqa: E402

ROOT = Path(__file__).parents[2]
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square", "bar", "ring")


def picture(colour, shape, rng):
    image = Image.new("RGB", (40, 40), "white")
    x, y, r = *rng.integers(12, 28, 2).tolist(), int(rng.integers(6, 11))
    draw = ImageDraw.Draw(image)
    box = (x - r, y - r, x + r, y + r)
    if shape == "bar":
        draw.rectangle((x - r, y - 2, x + r, y + 2), fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.ellipse(box, fill=colour if shape == "circle" else None, outline=colour, width=3)
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def table(n=96, seed=0):
    rng = np.random.default_rng(seed)
    kinds = [(COLOURS[i % 6], SHAPES[i // 6 % 4]) for i in range(n)]
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(n)],
            "text": [f"a {colour} {shape}" for colour, shape in kinds],
            "image": pa.array([picture(c, s, rng) for c, s in kinds], pa.binary()),
        }
    )


def tiny(**overrides):
    settings = {"samples": 160, "batch": 16, "warmup": 3, **overrides}
    return scales.load("clip-tiny").replace(train=settings)


def losses(out):
    return [json.loads(line)["loss"] for line in (Path(out) / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pairs():
    return load_pairs(table(), network.build({"small": {}}, {"size": 32, "resize": "pad"}).pixels)


def test_a_run_is_exact_and_repeatable(pairs, tmp_path, capsys):
    first = train(tiny(), pairs, tmp_path / "a", seed=1)
    assert (first.steps, first.samples, first.rows) == (10, 160, 96)
    assert first.epochs == pytest.approx(160 / 96)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert len(lines) == 10 and "samples/s" in lines[-1] and "10/10" in lines[-1]
    train(tiny(), pairs, tmp_path / "b", seed=1, quiet=True)
    assert capsys.readouterr().err == ""
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    weights = [(tmp_path / x / "model" / "model.safetensors").read_bytes() for x in "ab"]
    assert weights[0] == weights[1]
    train(tiny(), pairs, tmp_path / "c", seed=2, quiet=True)
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


def test_it_learns(pairs, tmp_path):
    result = train(tiny(samples=1600), pairs, tmp_path, quiet=True)
    assert losses(tmp_path)[0] > 2.4
    assert result.final_loss < 1.6
    model = network.load(result.model)
    fresh = table(48, seed=9)
    image = model.encode_images(fresh["image"].to_pylist())
    names = sorted(set(fresh["text"].to_pylist()))
    found = (image @ model.encode_texts(names).T).argmax(1)
    hits = np.mean([names[i] == text for i, text in zip(found, fresh["text"].to_pylist(), strict=True)])
    assert hits > 0.3  # chance is 1/24


def test_killed_and_resumed_gives_the_same_losses_and_weights(pairs, tmp_path, monkeypatch):
    train(tiny(), pairs, tmp_path / "whole", seed=3, quiet=True)
    real = engine.local_loss
    calls = []

    def killed(*args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(engine, "local_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), pairs, tmp_path / "cut", seed=3, quiet=True, checkpoint_every=4)
    monkeypatch.setattr(engine, "local_loss", real)
    resumed = []
    train(tiny(), pairs, tmp_path / "cut", seed=3, quiet=True, on_step=lambda r: resumed.append(r["step"]))
    assert resumed == [5, 6, 7, 8, 9, 10]  # it went on from the checkpoint of step 4
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = [(tmp_path / x / "model" / "model.safetensors").read_bytes() for x in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "cut").glob("checkpoint*"))


def test_kill_9_and_resume(tmp_path):
    pq.write_table(table(), tmp_path / "pairs.parquet")
    death = random.randrange(3, 10)  # any step after the first checkpoint
    script = (
        "import os, sys\n"
        "from recipes import scale\n"
        "from recipes.clip import train as t\n"
        "s = scale.load('clip-tiny').replace(train={'samples': 160, 'batch': 16, 'warmup': 3})\n"
        "def die(record):\n"
        f"    if record['step'] == {death}: os.kill(os.getpid(), 9)\n"
        f"t.train(s, {str(tmp_path / 'pairs.parquet')!r}, {str(tmp_path / 'cut')!r}, 3, checkpoint_every=2,\n"
        "        on_step=die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True)
    assert killed.returncode == -9
    assert sorted(f.name for f in (tmp_path / "cut" / "checkpoint").iterdir()) == [
        "state.json",
        "state.safetensors",
    ]
    seen = []
    train(tiny(), tmp_path / "pairs.parquet", tmp_path / "cut", 3, quiet=True, on_step=seen.append)
    train(tiny(), tmp_path / "pairs.parquet", tmp_path / "whole", 3, quiet=True)
    assert seen[0]["step"] == (death - 1) // 2 * 2 + 1, f"killed in step {death}"
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_finished_run_is_returned_and_another_runs_folder_is_refused(pairs, tmp_path):
    first = train(tiny(), pairs, tmp_path, quiet=True)
    assert train(tiny(), pairs, tmp_path, quiet=True) == first
    with pytest.raises(TrainingError, match=r"holds another run \(seed 0, now 1\)"):
        train(tiny(), pairs, tmp_path, seed=1, quiet=True)
    with pytest.raises(TrainingError, match="scale_hash"):
        train(tiny(lr=1e-4), pairs, tmp_path, quiet=True)
    with pytest.raises(TrainingError, match=r"data .*, now"):
        train(tiny(), table(80), tmp_path, quiet=True)


def test_the_shards_do_not_matter_only_the_rows(tmp_path):
    rows = table(60)
    pq.write_table(rows.slice(0, 25), tmp_path / "b.parquet")
    pq.write_table(rows.slice(25), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for i, row in enumerate(reversed(rows.to_pylist())):
            meta = json.dumps({"uid": row["id"], "url": "x"}).encode()
            members = [("png", row["image"]), ("txt", row["text"].encode()), ("json", meta)]
            for suffix, data in members:
                info = tarfile.TarInfo(f"{i:09d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    pixels = network.build({"small": {}}).pixels
    one = load_pairs(rows, pixels)
    two = load_pairs([tmp_path / "a.parquet", tmp_path / "b.parquet"], pixels)
    three = load_pairs(tmp_path / "all.tar", pixels)
    assert one.fingerprint == two.fingerprint == three.fingerprint
    assert one.ids == sorted(one.ids)


def test_a_repeated_id_is_multiplicity(tmp_path):
    rows = table(24)
    pixels = network.build({"small": {}}).pixels
    pairs = load_pairs(pa.concat_tables([rows, rows.slice(3, 1), rows.slice(3, 1)]), pixels)
    assert (len(pairs), pairs.rows, pairs.repeats[3]) == (24, 26, 3)
    changed = rows.slice(3, 1).set_column(1, "text", pa.array(["something else"]))
    with pytest.raises(DataError, match="stands twice with different captions"):
        load_pairs(pa.concat_tables([rows, changed]), pixels)


def test_bad_data_is_refused_by_name(tmp_path):
    pixels = network.build({"small": {}}).pixels
    with pytest.raises(DataError, match="no shards to train on"):
        load_pairs(tmp_path, pixels)
    broken = table(3).set_column(2, "image", pa.array([b"a", b"b", b"c"]))
    with pytest.raises(DataError, match=r"id 0{32}: cannot decode"):
        load_pairs(broken, pixels)
    with pytest.raises(DataError, match="lacks the column image"):
        load_pairs(table(3).drop(["image"]), pixels)
    with pytest.raises(DataError, match="no image-text pairs"):
        load_pairs(table(3).slice(0, 0), pixels)


def test_nan_stops_with_the_step_and_keeps_the_checkpoint(pairs, tmp_path, monkeypatch):
    real, calls = engine.local_loss, []

    def sick(*args):
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(engine, "local_loss", sick)
    with pytest.raises(TrainingError, match=r"step 6: loss nan .* 16 pairs of the batch are named in"):
        train(tiny(), pairs, tmp_path, quiet=True, checkpoint_every=5)
    assert not (tmp_path / "train.json").exists()
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    report = json.loads((tmp_path / "bad_batch.json").read_text())
    order = next(ExactEpochs(pairs.repeats, 16, 0).batches(6, 5))
    assert (state["step"], report["step"], report["loss"]) == (5, 6, "nan")
    assert report["ids"] == [pairs.ids[i] for i in order]
    monkeypatch.setattr(engine, "local_loss", real)  # what made it sick is gone: it goes on
    train(tiny(), pairs, tmp_path, quiet=True)
    train(tiny(), pairs, tmp_path / "well", quiet=True)
    assert losses(tmp_path) == losses(tmp_path / "well")


def test_weights_that_are_not_finite_are_never_kept(pairs, tmp_path, monkeypatch):
    real, steps = torch.optim.AdamW.step, []

    def step(self, *args, **kwargs):
        real(self, *args, **kwargs)
        steps.append(1)
        if len(steps) == 4:
            self.param_groups[1]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(TrainingError, match="step 4: the update left weights that are not finite"):
        train(tiny(), pairs, tmp_path, quiet=True, checkpoint_every=2)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 2


def test_loss_equals_open_clips():
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(9, 12), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(9, 12), dim=-1)
    scale = torch.tensor(14.3)
    expected = open_clip.ClipLoss()(image, text, scale)
    assert clip_loss(image, text, scale).item() == pytest.approx(expected.item(), abs=1e-6)


def test_loss_of_perfect_and_of_blind_models():
    eye = torch.eye(8)
    assert clip_loss(eye, eye, torch.tensor(100.0)).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(8, 4) / 2
    assert clip_loss(same, same, torch.tensor(100.0)).item() == pytest.approx(math.log(8), abs=1e-6)


def test_learning_rate_warms_up_and_falls_to_zero():
    settings = Settings(samples=1000, batch=10, lr=2e-3, warmup=20)
    rates = [learning_rate(step, settings, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4) and rates[19] == rates[20] == pytest.approx(2e-3)
    assert rates[60] == pytest.approx(1e-3)
    assert 0 < rates[99] < 2e-6
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_weight_decay_spares_norms_biases_and_temperature():
    module = network.build({"small": {}}).module
    plain, decayed = parameter_groups(module, 0.2)
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.2)
    names = {id(p): n for n, p in module.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "visual.0.weight", "visual.3.weight", "visual.6.weight", "visual_proj.weight", "words.weight",
        "text_proj.weight",
    }  # fmt: skip
    assert len(plain["params"]) + len(decayed["params"]) == len(names)


def test_temperature_is_clamped(pairs, tmp_path):
    result = train(tiny(lr=0.5, max_logit_scale=15.0), pairs, tmp_path, quiet=True)
    scale = network.load(result.model).module.logit_scale.exp().item()
    assert 1 - 1e-6 <= scale <= 15 + 1e-4


def test_augmentation_is_a_function_of_seed_and_step(pairs):
    settings = Settings(samples=160, batch=16, lr=1e-3, warmup=1, shift=2, crop=0.8)
    batch = pairs.pixels[:16]
    a, b = augment(batch, settings, 1, 5), augment(batch, settings, 1, 5)
    np.testing.assert_array_equal(a, b)
    assert a.shape == batch.shape and a.dtype == np.uint8
    assert (a != augment(batch, settings, 1, 6)).any() and (a != augment(batch, settings, 2, 5)).any()
    off = Settings(samples=160, batch=16, lr=1e-3, warmup=1)
    np.testing.assert_array_equal(augment(batch, off, 1, 5), batch)


def vit(vision=None, **overrides):
    """A scale with the smallest of open_clip's transformers."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16, **(vision or {}),
        },
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    settings = {"samples": 48, "batch": 16, "lr": 1e-3, "warmup": 1, **overrides}
    return scales.Scale("vit-test", "image_text", {"model": {"open_clip": config}, "train": settings})


def test_open_clip_vit_trains_with_the_same_loop(tmp_path):
    pytest.importorskip("open_clip")
    scale = vit(crop=0.9, precision="bf16")
    result = train(scale, table(), tmp_path, quiet=True)
    assert result.steps == 3 and len(losses(tmp_path)) == 3
    assert all(math.isfinite(x) for x in losses(tmp_path))
    assert (result.precision, result.official) == ("bf16", False)
    loaded = network.load(result.model)
    before = network.build(scale.to_dict()["model"], seed=0).module.state_dict()
    moved = [k for k, v in loaded.module.state_dict().items() if not torch.equal(v, before[k])]
    assert "visual.conv1.weight" in moved and "token_embedding.weight" in moved
    assert loaded.encode_texts(["a red circle"]).shape == (1, 16)


def test_settings_are_checked():
    with pytest.raises(TrainingError, match="precision"):
        Settings(samples=1, batch=1, lr=1, warmup=0, precision="fp8")
    with pytest.raises(TrainingError, match="crop"):
        Settings(samples=1, batch=1, lr=1, warmup=0, crop=0)
    with pytest.raises(TrainingError, match=r"resized_crop is \[0.9, 1.2\]"):
        Settings(samples=1, batch=1, lr=1, warmup=0, resized_crop=(0.9, 1.2))
    with pytest.raises(TrainingError, match="in place of shift and crop"):
        Settings(samples=1, batch=1, lr=1, warmup=0, resized_crop=(0.9, 1.0), shift=2)
    with pytest.raises(TrainingError, match='sampling is "all"'):
        Settings(samples=1, batch=1, lr=1, warmup=0, sampling="all")
    with pytest.raises(TrainingError, match="1 warm-up steps of 1 steps"):
        Settings(samples=1, batch=1, lr=1, warmup=1)


def test_sizes_that_do_not_divide_are_refused(pairs, tmp_path):
    with pytest.raises(SamplingError, match=r"samples=100 is not a multiple of batch=16; .* 96 and 112"):
        train(tiny(samples=100), pairs, tmp_path, quiet=True)
    with pytest.raises(
        TrainingError, match="3 processes cannot share a batch of 16 pairs evenly; use one of 1, 2, 4"
    ):
        World(torch.device("cpu"), 0, 3).rows(16, "pairs")
    with pytest.raises(TrainingError, match="of track 'text'"):
        train("lm-tiny", pairs, tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision, close", [("fp32", 2e-6), ("bf16", 2e-2)])
def test_micro_batches_have_the_loss_and_the_gradient_of_the_whole_batch(precision, close):
    pytest.importorskip("open_clip")
    scale = vit(grad_clip=0.5)
    settings, data = scale.section("train", Settings), table(16)
    engines = {}
    for micro in (None, 16, 5, 1):
        model = network.build(scale.to_dict()["model"], seed=1)
        one = engine.Engine(model.module, model.pixels, settings, World(torch.device("cpu")), 0,
                            precision=precision, micro_batch=micro)  # fmt: skip
        pixels = torch.from_numpy(model.pixels.many(data["image"].to_pylist()))
        done = one.step(0, pixels, model.tokenizer(data["text"].to_pylist()), 1e-3)
        engines[micro] = done, {n: p.grad for n, p in model.module.named_parameters()}
    whole, expected = engines.pop(None)
    for done, gradients in engines.values():
        assert done.loss == pytest.approx(whole.loss, abs=close)
        assert done.grad_norm == pytest.approx(whole.grad_norm, rel=10 * close)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], atol=close, rtol=close, msg=name)
    assert expected["logit_scale"].abs() > 1e-4  # it takes part


def test_a_run_in_micro_batches_with_checkpointed_activations_equals_a_plain_one(tmp_path):
    pytest.importorskip("open_clip")
    train(vit(), table(), tmp_path / "plain", quiet=True)
    machine = Machine(micro_batch=6, checkpoint_activations=True)
    result = train(vit(), table(), tmp_path / "cut", quiet=True, machine=machine)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    assert "16 pairs each, 6 at a time, activations checkpointed" in result.machine


def test_micro_batches_that_would_train_another_model_are_refused(pairs, tmp_path):
    with pytest.raises(TrainingError, match="batch normalisation"):
        train(tiny(), pairs, tmp_path / "a", quiet=True, machine=Machine(micro_batch=4))
    with pytest.raises(TrainingError, match="cannot checkpoint activations"):
        train(tiny(), pairs, tmp_path / "b", quiet=True, machine=Machine(checkpoint_activations=True))
    pytest.importorskip("open_clip")
    scale = vit(vision={"patch_dropout": 0.5})
    with pytest.raises(TrainingError, match=r"draws at random .*\(PatchDropout\)"):
        train(scale, table(), tmp_path / "c", quiet=True, machine=Machine(micro_batch=4))


def test_a_model_with_dropout_repeats_and_resumes_too(tmp_path):
    pytest.importorskip("open_clip")
    scale, state = vit(vision={"patch_dropout": 0.5}, samples=96), torch.get_rng_state()
    train(scale, table(), tmp_path / "whole", quiet=True)
    assert torch.equal(torch.get_rng_state(), state)

    def die(record):
        if record["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scale, table(), tmp_path / "cut", quiet=True, checkpoint_every=3, on_step=die)
    torch.rand(7)
    train(scale, table(), tmp_path / "cut", quiet=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    short = vit(vision={"patch_dropout": 0.5}, samples=32)
    train(short, table(), tmp_path / "large seed", seed=2**31, quiet=True)  # times a million: above 64 bits


def test_precision_is_the_users_choice_and_stands_in_the_result(tmp_path):
    pytest.importorskip("open_clip")
    first = train(vit(), table(), tmp_path, quiet=True, machine=Machine(precision="bf16"))
    assert json.loads((tmp_path / "train.json").read_text())["precision"] == first.precision == "bf16"
    with pytest.raises(TrainingError, match="precision bf16, now fp32"):
        train(vit(), table(), tmp_path, quiet=True)
    assert train(vit(), table(), tmp_path, quiet=True, restart=True).precision == "fp32"


def test_nothing_pickled_is_ever_loaded(pairs, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    out = tmp_path / "out"
    out.mkdir()
    torch.save(Evil(), out / "checkpoint.pt")  # of an earlier version: not looked at
    train(tiny(samples=32, warmup=1), pairs, out, quiet=True)
    torch.save(Evil(), tmp_path / "state")

    def swap(record):
        if record["step"] == 3:
            (tmp_path / "state").replace(tmp_path / "cut" / "checkpoint" / "state.safetensors")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), pairs, tmp_path / "cut", quiet=True, checkpoint_every=2, on_step=swap)
    with pytest.raises(TrainingError, match=r"checkpoint.state.safetensors cannot be read .*restart"):
        train(tiny(), pairs, tmp_path / "cut", quiet=True)
    assert not (tmp_path / "ran").exists()


def test_the_command_its_line_and_its_page(tmp_path, capsys):
    pq.write_table(table(), tmp_path / "pairs.parquet")
    (tmp_path / "scale.yaml").write_text(json.dumps(tiny().to_dict()))
    command = ["--scale", str(tmp_path / "scale.yaml"), "--data", str(tmp_path / "pairs.parquet"), "--out",
               str(tmp_path / "m"), "--seed", "5", "--print-every", "5", "--device", "cpu"]  # fmt: skip
    assert trainer.main(command) == 0
    said = capsys.readouterr()
    title, how, *lines = said.err.splitlines()
    assert title.startswith(f"clip-tiny {tiny().hash} | 10 steps × 16 pairs | 96 pairs") and "seed 5" in title
    assert how == "1 × CPU process, fp32: 16 pairs each, 16 at a time"
    line = (r"step +{}/10  loss +\d\.\d{{3}}  lr \S+  scale +\d+\.\d\d +[\d,]+ samples/s  data +\d+%  "
            r"memory \d+\.\d\d GB  ETA \d+:\d\d")  # fmt: skip
    assert len(lines) == 2 and all(
        re.fullmatch(line.format(n), x) for n, x in zip((5, 10), lines, strict=True)
    )
    assert "160 samples in" in said.out
    page = (tmp_path / "m" / "loss.html").read_text()
    assert page.count("<svg") == 5 and "Waiting for data" in page and not re.search(r'(src|href)="', page)
    log = [json.loads(x) for x in (tmp_path / "m" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == list(range(1, 11)) and all(0 <= r["data_wait"] <= 1 for r in log)
    result = json.loads((tmp_path / "m" / "train.json").read_text())
    assert result["sampling"]["kind"] == "epochs" and result["official"] is False and result["machine"] == how
    assert trainer.main([*command, "--seed", "6"]) == 1
    assert "holds another run (seed 5, now 6)" in capsys.readouterr().err
    args = trainer.parser().parse_args([*command, "--micro-batch", "4", "--compile"])
    again = ["--data", "x", "--out", "y", *trainer.as_arguments(args)]
    assert {**vars(trainer.parser().parse_args(again)), "data": 0, "out": 0, "scale": 0} == {
        **vars(args), "data": 0, "out": 0, "scale": 0,
    }  # fmt: skip
