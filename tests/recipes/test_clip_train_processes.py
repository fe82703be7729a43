"""Two processes train the model that one trains, and one may go on where two were killed."""

import json
import os
import random
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from test_clip_train import table, tiny, vit
from two_processes import killed_at

from filters.image_text import network
from recipes.clip import train as clip

ROOT = Path(__file__).parents[2]
PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCALES = {
    "small": tiny(samples=192, crop=0.9),  # with batch normalisation
    "vit": vit(samples=192, warmup=3, grad_clip=1.0, crop=0.9),
    "sick": tiny(samples=96, lr=1e38, warmup=0),
}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return network.load(folder / "model").module.state_dict()


@pytest.fixture
def files(tmp_path) -> Path:
    pq.write_table(table(), tmp_path / "pairs.parquet")
    for name, scale in SCALES.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(scale.to_dict()))
    return tmp_path


def test_two_processes_equal_one_and_one_goes_on_where_two_were_killed(files) -> None:
    pytest.importorskip("open_clip")
    death = random.randrange(5, 12)  # any step of the last run after its first checkpoint
    command = [*PROCESSES, str(Path(__file__).with_name("clip_two_processes.py"))]
    command += [str(files), str(files / "pairs.parquet"), str(files)]
    said = killed_at(command, death)

    bad = json.loads((files / "sick" / "bad_batch.json").read_text())
    assert (len(set(bad["ids"])), bad["step"], bad["loss"]) == (16, 2, "nan")  # of both processes
    assert "".join(said).count("sick: step 2: loss nan") == 2

    one = {}
    for name in ("small", "vit"):
        clip.train(SCALES[name], files / "pairs.parquet", files / f"one-{name}", 1, quiet=True)
        one[name] = files / f"one-{name}"
    for name, same in (("small", one["small"]), ("vit", one["vit"]), ("micro", one["vit"])):
        assert losses(files / name) == pytest.approx(losses(same), abs=2e-5), name
        expected = weights(same)
        for key, value in weights(files / name).items():
            torch.testing.assert_close(value, expected[key], atol=2e-3, rtol=1e-3, msg=f"{name} {key}")
    how = "2 × CPU process, fp32: 8 pairs each, 3 at a time"
    assert json.loads((files / "micro" / "train.json").read_text())["machine"] == how
    assert not (files / "killed" / "train.json").exists()
    steps: list[int] = []
    clip.train(
        SCALES["vit"], files / "pairs.parquet", files / "killed", 1, quiet=True,
        on_step=lambda r: steps.append(r["step"]),
    )  # fmt: skip
    assert steps[0] in (4 * (death // 4) + 1, 4 * (death // 4) - 3), f"killed after step {death}"
    assert losses(files / "killed") == pytest.approx(losses(one["vit"]), abs=2e-5)


@pytest.mark.skipif(not os.environ.get("WINNOW_SLOW_TESTS"), reason="starts Ray: set WINNOW_SLOW_TESTS=1")
def test_ray_train_trains_the_same_model(files, capsys, monkeypatch) -> None:
    clip.train(SCALES["small"], files / "pairs.parquet", files / "one", 1, quiet=True)
    monkeypatch.chdir(files)
    command = ["--on", "ray", "--device", "cpu", "--scale", "small.yaml", "--seed", "1"]
    command += ["--data", "pairs.parquet", "--out", "two"]
    assert clip.main([*command, "--processes", "2"]) == 0
    assert losses(files / "two") == pytest.approx(losses(files / "one"), abs=2e-5)
    assert clip.main([*command[:-1], "three", "--processes", "3"]) == 1
    assert "3 processes cannot share a batch of 16 pairs" in capsys.readouterr().err


def test_without_ray_train_the_mend_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    assert clip.main(["--on", "ray", "--data", str(tmp_path), "--out", str(tmp_path / "m")]) == 1
    assert "--on ray needs Ray Train: pip install 'ray[train]'" in capsys.readouterr().err
