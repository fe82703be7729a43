"""Two processes train the model that one trains, and either may go on where the other was killed."""

import json
import os
import random
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lm_tokens_by_hand import walks, write_tokens
from two_processes import killed_at

from recipes import scale as scales
from recipes.lm import train as lm
from recipes.lm.distributed import World, choose

ROOT = Path(__file__).parents[2]
SCALE = scales.load("lm-tiny").replace(
    name="lm-pair",
    model={"dim": 16, "layers": 2, "context": 32, "ffn_multiple": 16},
    train={"steps": 12, "batch": 8, "warmup_steps": 3},
)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_equal_one_and_one_goes_on_where_two_were_killed(tmp_path, capsys) -> None:
    tokens = write_tokens(tmp_path / "tokens", walks(120, 33))
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(SCALE.to_dict()))
    death = random.randrange(4, 11)  # any step of the third run after its first checkpoint
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(Path(__file__).with_name("lm_two_processes.py"))]
    command += [str(tmp_path / "scale.yaml"), str(tokens), str(tmp_path)]
    killed_at(command, death)

    whole = tmp_path / "whole"
    lm.train(SCALE, tokens, whole, 1, print_every=0)
    one = records(whole)
    for name in ("ddp", "fsdp"):
        two = records(tmp_path / name)
        assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], abs=1e-5), name
        assert [r["grad_norm"] for r in two] == pytest.approx([r["grad_norm"] for r in one], rel=1e-4), name
        a, b = (lm.load_model(f)[0].state_dict() for f in (tmp_path / name, whole))
        for key, value in a.items():
            torch.testing.assert_close(value, b[key], atol=2e-4, rtol=1e-3)
    assert not (tmp_path / "killed" / "result.json").exists()
    steps: list[int] = []
    lm.train(SCALE, tokens, tmp_path / "killed", 1, print_every=0, on_step=lambda r: steps.append(r["step"]))
    assert steps[0] in (4 * (death // 4) + 1, 4 * (death // 4) - 3), f"killed after step {death}"
    resumed = [r["loss"] for r in records(tmp_path / "killed")]
    assert resumed == pytest.approx([r["loss"] for r in one], abs=1e-5)


def test_processes_that_cannot_share_a_batch_are_refused() -> None:
    cpu = torch.device("cpu")
    assert [World(cpu, rank, 4).rows(12) for rank in range(4)] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    message = "5 processes cannot share a batch of 12 contexts evenly; use one of 1, 2, 3, 4, 6, 12$"
    with pytest.raises(lm.TrainingError, match=message):
        World(cpu, 0, 5).rows(12)


def test_how_the_weights_lie_is_chosen_by_precision_and_size() -> None:
    one, two = World(torch.device("cpu")), World(torch.device("cpu"), 0, 2)
    assert choose("auto", "fp32", 10**6, one) == "none"
    assert choose("auto", "bf16", 10**6, two) == "ddp"
    assert choose("auto", "bf16_pure", 10**6, one) == "fsdp"
    with pytest.raises(lm.TrainingError, match="bf16_pure is done by fsdp, not by ddp"):
        choose("ddp", "bf16_pure", 1, two)
    with pytest.raises(lm.TrainingError, match="would train 2 models"):
        choose("none", "fp32", 1, two)
    with pytest.raises(lm.TrainingError, match="parallel is 'tensor'"):
        choose("tensor", "fp32", 1, two)


def test_a_gpu_that_is_not_there_is_named(monkeypatch) -> None:
    from recipes.lm.distributed import device

    assert device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(lm.TrainingError, match="process 2 of this machine has no GPU: there are 2"):
        device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(lm.TrainingError, match="torch sees no GPU"):
        device("cuda")


def test_without_ray_train_the_mend_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    assert lm.main(["--on", "ray", "--data", str(tmp_path), "--out", str(tmp_path / "m")]) == 1
    assert "--on ray needs Ray Train: pip install 'ray[train]'" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("WINNOW_SLOW_TESTS"), reason="starts Ray: set WINNOW_SLOW_TESTS=1")
def test_ray_train_trains_the_same_model(tmp_path, capsys) -> None:
    tokens = write_tokens(tmp_path / "tokens", walks(120, 33))
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(SCALE.to_dict()))
    lm.train(SCALE, tokens, tmp_path / "one", 1, print_every=0)
    command = ["--on", "ray", "--device", "cpu", "--scale", str(tmp_path / "scale.yaml"), "--seed", "1"]
    command += ["--data", str(tokens), "--out", str(tmp_path / "two")]
    assert lm.main([*command, "--processes", "2"]) == 0
    one, two = ([r["loss"] for r in records(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)
    assert lm.main([*command[:-1], str(tmp_path / "three"), "--processes", "3"]) == 1
    assert "3 processes cannot share a batch of 8" in capsys.readouterr().err
