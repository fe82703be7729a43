import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recipes import scale as scales
from recipes.lm import train as lm
from recipes.training import tensors

ROOT = Path(__file__).parents[2]
SMALL = scales.load("lm-tiny").replace(
    name="lm-test",
    model={"dim": 16, "layers": 1, "context": 32, "ffn_multiple": 16},
    train={"steps": 40, "batch": 2, "warmup_steps": 4, "piece_bytes": 256},
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("model", "data", "token", "plan") for b in ("", "s", "ing", " of", " the")]
    texts = [" ".join(rng.choice(words, 200)) for _ in range(40)]
    pq.write_table(pa.table({"id": [f"d{i}" for i in range(40)], "text": texts}), folder / "0.parquet")
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, lm.train(SMALL, shards, out, 3, print_every=0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("deaths", [[1], [8], [9, 23], [39], [5, 6, 7, 30, 31]])
def test_killed_and_resumed_equals_undisturbed(shards, tmp_path, undisturbed, deaths: list[int]) -> None:
    whole, expected = undisturbed
    out = tmp_path / "run"
    for death in deaths:

        def die(record, death=death):
            if record["step"] == death:
                raise Killed

        with pytest.raises(Killed):
            lm.train(SMALL, shards, out, 3, print_every=0, checkpoint_every=4, on_step=die)
    result = lm.train(SMALL, shards, out, 3, print_every=0, checkpoint_every=4)
    assert losses(out) == losses(whole)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (result.epochs, result.final_loss, result.tokens) == (
        expected.epochs,
        expected.final_loss,
        40 * 2 * 32,
    )
    assert not (out / "checkpoint").exists()


def test_sigkill_while_running_then_the_command_line_resumes(shards, tmp_path, undisturbed, capsys) -> None:
    import yaml

    whole, _ = undisturbed
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(SMALL.to_dict()))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "recipes.lm.train", "--scale", str(tmp_path / "scale.yaml")]
    command += ["--data", str(shards), "--out", str(out), "--seed", "3", "--checkpoint-every", "3"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    death = random.randrange(4, 39)  # any step after the first checkpoint
    for line in first.stdout:
        if line.startswith(f"step {death:>2}/"):
            os.kill(first.pid, signal.SIGKILL)
            break
    first.wait(timeout=60)
    first.stdout.close()
    assert first.returncode == -signal.SIGKILL and not (out / "result.json").exists()
    assert lm.main(command[3:]) == 0
    assert "from step" in capsys.readouterr().out.splitlines()[0], f"killed after step {death}"
    assert losses(out) == losses(whole), f"killed after step {death}"


def test_a_finished_run_is_not_repeated_and_not_overwritten(shards, undisturbed) -> None:
    out, result = undisturbed
    began = time.perf_counter()
    assert lm.train(SMALL, shards, out, 3, print_every=0) == result
    assert time.perf_counter() - began < 1.0
    with pytest.raises(lm.TrainingError, match=r"holds another run \(seed 3, now 4"):
        lm.train(SMALL, shards, out, 4, print_every=0)


def test_seed_decides_and_learning_happens(shards, tmp_path, undisturbed) -> None:
    whole, _ = undisturbed
    lm.train(SMALL, shards, tmp_path / "other", 4, print_every=0)
    assert losses(tmp_path / "other") != losses(whole)
    curve = losses(whole)
    assert curve[0] == pytest.approx(math.log(4096), abs=0.6)
    assert sum(curve[-5:]) / 5 < curve[0] - 2


def test_loss_that_is_not_finite_stops_and_names_the_rows(shards, tmp_path, monkeypatch) -> None:
    real = lm.data.Contexts.take
    state = {"calls": 0}

    def poisoned_loss(self, contexts, z_loss=0.0):
        state["calls"] += 1
        objective, cross_entropy = original(self, contexts, z_loss)
        bad = float("nan") if state["calls"] == 3 else 1.0
        return objective * bad, cross_entropy * bad

    from recipes.lm.model import Decoder

    original = Decoder.loss
    monkeypatch.setattr(Decoder, "loss", poisoned_loss)
    with pytest.raises(lm.TrainingError, match="step 3: loss nan"):
        lm.train(SMALL, shards, tmp_path / "run", 3, print_every=0)
    report = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    stream = lm.data.Contexts(
        lm.data.read_corpus(shards), lm.data.load_tokenizer("bpe4096"), 32, seed=3, piece_bytes=256
    )
    for _ in range(3):
        batch, ids = real(stream, 2)
    assert report["ids"] == ids and report["tokens"] == batch.tolist() and report["step"] == 3
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("written", [0, 1, 7])
def test_full_disk_while_checkpointing_keeps_the_old_checkpoint(
    shards, tmp_path, monkeypatch, undisturbed, written: int
) -> None:
    whole, _ = undisturbed
    real, state = tensors._write, {"tensors": 0}

    def full(file, tensor):
        state["tensors"] += 1
        if state["tensors"] > 2 * 32 + written:  # in the third checkpoint: 3 x 10, step and RNG in each
            file.write(b"half")
            raise OSError(28, "No space left on device")
        return real(file, tensor)

    monkeypatch.setattr(tensors, "_write", full)
    with pytest.raises(lm.TrainingError, match=r"step 24 .*No space left on device.* step 16 is kept"):
        lm.train(SMALL, shards, tmp_path / "run", 3, print_every=0, checkpoint_every=8)
    assert [p.name for p in (tmp_path / "run").glob("checkpoint*")] == ["checkpoint"]
    monkeypatch.undo()
    assert resumed_at(shards, tmp_path / "run") == 17
    assert losses(tmp_path / "run") == losses(whole)


def test_a_disk_that_is_really_full(shards, tmp_path, undisturbed) -> None:
    whole, _ = undisturbed
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "winnow-test", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:

        def fill_up(record):
            if record["step"] == 10:
                with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

        with pytest.raises(lm.TrainingError, match=r"No space left on device.*step 8 is kept"):
            lm.train(SMALL, shards, disk / "run", 3, print_every=0, checkpoint_every=8, on_step=fill_up)
        with pytest.raises(lm.TrainingError, match=r"two checkpoints .* need .*; make room"):
            lm.train(SMALL, shards, disk / "run", 3, print_every=0)
        (disk / "filler").unlink()
        assert resumed_at(shards, disk / "run") == 9
        assert losses(disk / "run") == losses(whole)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def resumed_at(shards, out) -> int:
    steps: list[int] = []
    lm.train(SMALL, shards, out, 3, print_every=0, on_step=lambda record: steps.append(record["step"]))
    return steps[0]


def test_model_comes_back_as_it_was_saved(undisturbed) -> None:
    out, _ = undisturbed
    model, tokenizer, config = lm.load_model(out)
    assert config["scale_hash"] == SMALL.hash and tokenizer.get_vocab_size() == 4096
    assert model.head.weight is model.embedding.weight
    assert not torch.equal(model.embedding.weight, type(model)(model.shape, 3).embedding.weight)


def test_learning_rate_reaches_the_peak_and_the_floor() -> None:
    linear = lm.Budget(
        10, 1, 1.0, 4, "linear", 0.1, 0, (0.9, 0.95), 1e-8, 1, 0, tokenizer="bpe4096", piece_bytes=1
    )
    assert [round(linear.lr_at(s), 6) for s in range(10)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        0.85,
        0.7,
        0.55,
        0.4,
        0.25,
    ]
    assert linear.lr_at(10) == pytest.approx(0.1)
    from dataclasses import replace

    cosine = replace(linear, decay="cosine")
    assert cosine.lr_at(7) == pytest.approx(0.55) and cosine.lr_at(10) == pytest.approx(0.1)
    with pytest.raises(scales.ScaleError, match="use linear or cosine"):
        replace(linear, decay="step")


def test_what_cannot_be_trained_is_refused_before_it_starts(shards, tmp_path) -> None:
    with pytest.raises(lm.TrainingError, match="4096 entries, the model only 100"):
        lm.train(SMALL.replace(model={"vocab": 100}), shards, tmp_path / "a")
    with pytest.raises(lm.TrainingError, match="track 'image_text'"):
        lm.train(scales.Scale("x", "image_text", {}), shards, tmp_path / "b")
    assert not list(tmp_path.iterdir())
    with pytest.raises(lm.TrainingError, match="is the training finished"):
        lm.load_model(tmp_path)


def test_command_line_reports_errors_in_one_line(tmp_path, capsys) -> None:
    assert lm.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "m")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "no such folder" in err and err.count("\n") == 1
