"""The trainer on tokens that lie ready, in micro-batches, in each precision; what it says and shows."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_tokens_by_hand import walks, write_tokens

from recipes import scale as scales
from recipes.lm import checkpoint, distributed, progress
from recipes.lm import train as lm
from recipes.lm.budget import Budget
from recipes.lm.model import Decoder, Shape
from recipes.lm.optimizer import AdamW, clip_gradients
from recipes.lm.sources import TokenSource, open_source

SCALE = scales.load("lm-tiny").replace(
    name="lm-tokens",
    model={"dim": 16, "layers": 2, "context": 32, "ffn_multiple": 16},
    train={"steps": 12, "batch": 8, "warmup_steps": 3},
)
SHAPE, BUDGET = SCALE.section("model", Shape), SCALE.section("train", Budget)
IDS = walks(120, 33)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens", IDS)


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, lm.train(SCALE, tokens, out, 1, print_every=0)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_step_reads_its_contexts_in_order_and_processes_share_them(tokens) -> None:
    source = open_source(tokens, SHAPE, BUDGET, seed=5)
    assert isinstance(source, TokenSource)
    for step in (0, 7, 11):
        parts = [source.take(step, 2 * rank, 2 * rank + 2).contexts for rank in range(4)]
        assert (np.concatenate(parts) == IDS[8 * step : 8 * step + 8]).all()
    names, ids = source.take(7, 0, 2).whole()
    assert names[:5] == [f"shard-00000.bin:{i}" for i in range(56, 60)] + ["shard-00001.bin:0"]
    assert (ids == IDS[56:64]).all()


def test_text_is_shared_by_processes_too(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"document {i} of a few words " * 20 for i in range(30)]
    pq.write_table(pa.table({"id": [str(i) for i in range(30)], "text": texts}), tmp_path / "0.parquet")
    one, two = (open_source(tmp_path, SHAPE, BUDGET, 1) for _ in range(2))
    for step in range(3):
        all_rows, half = one.take(step, 0, 8), two.take(step, 4, 8)
        assert (all_rows.contexts[4:] == half.contexts).all() and all_rows.position == half.position
    late = open_source(tmp_path, SHAPE, BUDGET, 1)
    late.seek(json.loads(json.dumps(half.position)))
    assert (late.take(3, 0, 8).contexts == one.take(3, 0, 8).contexts).all()


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_do_not_change_the_maths(tokens, whole, tmp_path, micro: int) -> None:
    lm.train(SCALE, tokens, tmp_path / "m", 1, print_every=0, machine=lm.Machine(micro_batch=micro))
    assert losses(tmp_path / "m") == pytest.approx(losses(whole[0]), abs=1e-5)


def test_tars_of_the_same_contexts_give_the_same_run(tokens, whole, tmp_path) -> None:
    from recipes.lm.tars import export

    export(tokens, tmp_path / "tars", workers=1, progress=False)
    lm.train(SCALE, tmp_path / "tars", tmp_path / "folder", 1, print_every=0)
    lm.train(SCALE, tmp_path / "tars" / "manifest.jsonl", tmp_path / "file", 1, print_every=0)
    assert losses(tmp_path / "folder") == losses(tmp_path / "file") == losses(whole[0])


def test_result_and_learning_on_tokens(whole) -> None:
    out, result = whole
    assert (result.steps, result.tokens, result.epochs, result.data_rows) == (12, 12 * 8 * 32, 96 / 120, 120)
    assert losses(out)[-1] < losses(out)[0] - 0.5


@pytest.mark.parametrize("minutes", [0.0, 30.0])
def test_a_run_on_tokens_goes_on_to_the_bit(tokens, whole, tmp_path, minutes: float) -> None:
    def die(record):
        if record["step"] == 8:
            raise KeyboardInterrupt

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        lm.train(
            SCALE, tokens, tmp_path / "r", 1, print_every=0, on_step=die, checkpoint_every=3,
            checkpoint_minutes=minutes,
        )  # fmt: skip
    lm.train(SCALE, tokens, tmp_path / "r", 1, print_every=0, on_step=lambda r: steps.append(r["step"]))
    assert steps[0] == (8 if minutes == 0 else 7)  # the clock makes one after every step, or after step 6
    assert losses(tmp_path / "r") == losses(whole[0])
    model = "model.safetensors"
    assert (tmp_path / "r" / model).read_bytes() == (whole[0] / model).read_bytes()


def test_tokens_that_are_too_few_say_how_many_epochs_it_would_be(tmp_path) -> None:
    few = write_tokens(tmp_path / "few", IDS[:50])
    message = r"50 contexts \(1,600 tokens.*reads 96 \(3,072 tokens\): that would be 1\.92 epochs"
    with pytest.raises(lm.TrainingError, match=message):
        lm.train(SCALE, few, tmp_path / "m", print_every=0)
    assert not (tmp_path / "m").exists()
    assert lm.train(SCALE, few, tmp_path / "m", print_every=0, allow_repeat=True).epochs == 1.92
    source = open_source(few, SHAPE, BUDGET, 3, allow_repeat=True)
    read = np.concatenate([source.take(step, 0, 8).contexts for step in range(12)] + [])
    rows = {row.tobytes(): i for i, row in enumerate(IDS[:50])}
    order = [rows[row.astype(np.int64).tobytes()] for row in read]
    assert order[:50] == list(range(50))
    assert len(set(order[50:])) == 46 and order[50:] != sorted(order[50:])


def test_tokens_of_another_scale_are_refused(tokens, tmp_path) -> None:
    with pytest.raises(
        lm.TrainingError, match="contexts of 33 tokens, but the model's context of 16 needs 17"
    ):
        lm.train(SCALE.replace(model={"context": 16}), tokens, tmp_path / "m")
    with pytest.raises(lm.TrainingError, match="4096 entries, the model only 512"):
        lm.train(SCALE.replace(model={"vocab": 512}), tokens, tmp_path / "m")
    other = write_tokens(tmp_path / "other", IDS, tokenizer_hash="0" * 64)
    with pytest.raises(lm.TrainingError, match=r"made with another tokenizer \(sha256 000000000000"):
        lm.train(SCALE, other, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_ids_out_of_range_are_named(tokens, tmp_path, capsys, monkeypatch) -> None:
    wrong = IDS.copy()
    wrong[70, 5] = 5000
    bad = write_tokens(tmp_path / "bad", wrong)
    with pytest.raises(ValueError, match=r"shard-00001\.bin, context 10.*id 5000"):
        lm.train(SCALE, bad, tmp_path / "m", print_every=0)
    # what a reader of tars lets through is caught before the model sees it
    source = open_source(tokens, SHAPE, BUDGET, 0)
    monkeypatch.setattr(source, "_rows", lambda step, first, last: wrong[8 * step + first : 8 * step + last])
    source.take(7, 0, 8)
    message = r"step 9 has token ids from 0 to 5000, the model knows 0 to 4095; .* shard-00001\.bin:10$"
    with pytest.raises(lm.TrainingError, match=message):
        source.take(8, 0, 8)


def test_a_loss_that_is_not_finite_names_the_contexts(tokens, tmp_path, monkeypatch) -> None:
    original = Decoder.loss

    def poisoned(self, contexts, z_loss=0.0):
        objective, cross_entropy = original(self, contexts, z_loss)
        bad = float("inf") if (contexts[:, 0] == int(IDS[19, 0])).any() else 1.0
        return objective * bad, cross_entropy

    monkeypatch.setattr(Decoder, "loss", poisoned)
    first = next(s for s in range(12) if (IDS[8 * s : 8 * s + 8, 0] == IDS[19, 0]).any())
    with pytest.raises(lm.TrainingError, match=rf"step {first + 1}: .* The 8 rows"):
        lm.train(SCALE, tokens, tmp_path / "m", 1, print_every=0, machine=lm.Machine(micro_batch=2))
    report = json.loads((tmp_path / "m" / "bad_batch.json").read_text())
    assert report["step"] == first + 1
    assert report["ids"] == [f"shard-00000.bin:{i}" for i in range(8 * first, 8 * first + 8)]
    assert report["tokens"] == IDS[8 * first : 8 * first + 8].tolist()


@pytest.mark.parametrize("precision", ["bf16", "bf16_pure"])
def test_half_precision_follows_full_precision(tokens, whole, tmp_path, precision: str) -> None:
    scale = SCALE.replace(train={"precision": precision})

    def die(record):
        if record["step"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lm.train(scale, tokens, tmp_path / "m", 1, print_every=0, on_step=die, checkpoint_every=5)
    lm.train(scale, tokens, tmp_path / "m", 1, print_every=0)
    lm.train(scale, tokens, tmp_path / "undisturbed", 1, print_every=0)
    assert losses(tmp_path / "m") == losses(tmp_path / "undisturbed")
    assert losses(tmp_path / "m") != losses(whole[0])
    assert losses(tmp_path / "m") == pytest.approx(losses(whole[0]), abs=0.02)
    model, _, _ = lm.load_model(tmp_path / "m")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.distributed.is_initialized()


def test_the_scales_seed_serves_where_none_is_given(tokens, tmp_path, whole) -> None:
    scale = SCALE.replace(train={"seed": 1})
    assert lm.train(scale, tokens, tmp_path / "a", print_every=0).seed == 1
    assert losses(tmp_path / "a") == losses(whole[0])
    assert lm.train(SCALE, tokens, tmp_path / "b", print_every=0).seed == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"precision": "fp16"}, "precision is 'fp16'; use one of fp32, bf16, bf16_pure"),
        ({"checkpoints": 0}, "checkpoints must be 1 or more"),
        ({"piece_bytes": -1}, "piece_bytes 0 or more"),
        ({"warmup_steps": 12}, "fewer warm-up steps than steps"),
    ],
)
def test_budgets_that_cannot_be_are_refused(settings, message: str) -> None:
    with pytest.raises(scales.ScaleError, match=message):
        SCALE.replace(train=settings).section("train", Budget)


def test_every_text_scale_has_a_budget_and_a_shape() -> None:
    for name in scales.names():
        scale = scales.load(name)
        if scale.track == "text":
            budget, shape = scale.section("train", Budget), scale.section("model", Shape)
            assert budget.lr_at(budget.warmup_steps) == budget.lr and shape.parameters > 0


def test_fused_optimizer_equals_the_plain_one() -> None:
    start = [torch.randn(5, 3), torch.randn(7)]
    plain, fused = ([t.clone().requires_grad_() for t in start] for _ in range(2))
    a, b = (AdamW(p, (0.9, 0.95), 1e-8, 0.1, fused=f) for p, f in ((plain, False), (fused, True)))
    for step in range(10):
        if step == 5:  # as after a resume
            c = AdamW(fused, (0.9, 0.95), 1e-8, 0.1, fused=True)
            for name, tensor in b.state().items():
                c.state()[name].copy_(tensor)
            c.resume(b.steps)
            b = c
        for x, y in zip(plain, fused, strict=True):
            x.grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(step)) * 3
            y.grad = x.grad.clone()
        assert clip_gradients(plain, 1.0) == clip_gradients(fused, 1.0)
        a.step(0.05 / (step + 1))
        b.step(0.05 / (step + 1))
        for x, y in zip(plain, fused, strict=True):
            torch.testing.assert_close(x, y)


def test_tensor_files_are_those_of_the_library(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {
        "b.weight": torch.randn(3, 5),
        "a": torch.arange(7),
        "scalar": torch.tensor(3.5),
        "half": torch.randn(4).bfloat16(),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "view": torch.randn(6, 4).T,
    }
    world = distributed.World(torch.device("cpu"))
    checkpoint.save_tensors(tmp_path / "ours", tensors, world)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    back = load_file(tmp_path / "ours")
    assert all(torch.equal(back[k], v) for k, v in tensors.items())


def test_the_line_of_a_step(tokens, tmp_path, capsys, monkeypatch) -> None:
    lm.train(SCALE, tokens, tmp_path / "m", print_every=4)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith(f"{SCALE.name} {SCALE.hash} | ") and "120 contexts, 0.80 epochs" in title
    assert [re.sub(r"[\d.]+k", "Nk", re.sub(r"\d\.\d\d GB", "N GB", line)) for line in lines] == [
        f"step {n:>2}/12  loss {losses(tmp_path / 'm')[n - 1]:.3f}  lr {BUDGET.lr_at(n - 1):.2e}  "
        "Nk tokens/s  MFU –  memory N GB  ETA 0:00"
        for n in (4, 8, 12)
    ]
    meter = progress.Meter(scales.load("lm-150m").section("model", Shape), 256, 5862, torch.device("cpu"), 2)
    meter._peak, meter._ends[0] = 2 * 989e12, 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: 101.0)
    meter.tick()
    # 6 a weight but those of the embedding, and causal attention; 256 x 2,048 tokens in one second
    shape = scales.load("lm-150m").section("model", Shape)
    flops = 6 * (shape.parameters - 50_432 * 576) + 6 * 24 * 576 * 2048
    assert meter.mfu == pytest.approx(flops * 524_288 / (2 * 989e12))
    line = meter.line({"step": 2, "loss": 9.0, "lr": 1e-3})
    assert "524.3k tokens/s  MFU 24.3 %" in line and line.endswith("ETA 1:37:40")


@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Some CPU", None),
    ],
)
def test_peaks_are_found_by_the_drivers_names(name: str, peak: float | None) -> None:
    assert progress.peak_of(name) == peak


def test_durations_as_people_read_them() -> None:
    assert [progress.duration(s) for s in (0, 65, 3600, 90_061)] == [
        "0:00",
        "1:05",
        "1:00:00",
        "1 d 01:01:01",
    ]


def test_the_page_shows_the_curves_and_loads_nothing(whole) -> None:
    text = (whole[0] / "loss.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 3 and text.count("<polyline") == 3
    assert not re.search(r"(src|href)=", text) and "prefers-color-scheme: dark" in text
    points = re.findall(r'<polyline points="([^"]+)"', text)
    heights = [float(p.split(",")[1]) for p in points[0].split()]
    curve = losses(whole[0])
    # higher on the page is a smaller y: the order of the points is that of the losses
    assert len(heights) == 12 and np.argsort(heights).tolist() == np.argsort(curve)[::-1].tolist()
