"""`winnow benchmark`: the whole chain as one command, and what it would cost."""

import json
import subprocess
from pathlib import Path

import pytest

from pools import demo_image_text, demo_text
from winnow.cli import main

ROOT = Path(__file__).resolve().parents[2]
SCALE = """
name: mini
track: text
model: {vocab: 4096, dim: 32, layers: 1, heads: 2, context: 64, ffn_multiple: 32}
train: {steps: 20, batch: 4, lr: 7e-3, warmup_steps: 2, decay: cosine, end_lr: 3e-5, weight_decay: 0.033,
        betas: [0.9, 0.95], eps: 1e-8, clip: 1.0, z_loss: 1e-4, tokenizer: bpe4096}
"""


def test_a_dry_run_prints_the_costs_of_dclms_scale(capsys):
    assert main(["benchmark", "lm-400m-1x", "--dry-run", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert "7,851 steps x 512 contexts x 2,048 tokens = 8,232,370,176 tokens" in said
    assert "16.5 GB of tokens" in said  # 7,851 x 512 contexts of 2,049 two-byte tokens
    assert "8 x H100" in said and "26 H100 hours" in said and "UNOFFICIAL" not in said


def test_a_dry_run_names_the_steps_and_the_tasks_that_are_missing(capsys, tmp_path):
    pool = demo_text.unpack()
    code = main(["benchmark", "lm-150m", "--dry-run", "--pool", str(pool), "--recipe", "text/rules",
                 "--out", str(tmp_path / "out"), "--eval-data", str(tmp_path)])  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0 and "gopher" in said and "8 shards" in said
    assert "0 of DCLM's 53 in" in said and "arc_easy" in said
    assert not (tmp_path / "out").exists()


def test_one_command_goes_from_the_pool_to_a_leaderboard_row_and_resumes(capsys, tmp_path):
    scale = tmp_path / "mini.yaml"
    scale.write_text(SCALE)
    pool = tmp_path / "pool"
    pool.mkdir()
    part = sorted(Path(demo_text.unpack()).iterdir())[0]
    (pool / part.name).symlink_to(part)
    command = ["benchmark", str(scale), "--pool", str(pool), "--recipe", "text/rules", "--out",
               str(tmp_path / "out"), "--workers", "1"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "UNOFFICIAL" in said and "80 contexts of 65" in said and "step 20/20" in said
    result = json.loads((tmp_path / "out/results/text/rules/seed-0.json").read_text())
    assert result["train"]["tokens_or_samples"] == 20 * 4 * 64 and result["official"] is False
    # of the kept text only a part was read: 80 contexts of some thousand
    assert 0 < result["dataset"]["epochs"] < 0.1
    assert "mini" in (tmp_path / "out/leaderboard/leaderboard.md").read_text()
    assert main(command) == 0  # nothing is run twice
    assert "step 20/20" not in capsys.readouterr().out


def test_what_is_needed_is_said(capsys, tmp_path):
    assert main(["benchmark", "lm-tiny", "--out", str(tmp_path)]) == 1
    assert "needs --pool and --recipe" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["lm-7b-2x", "clip-mini", "clip-small", "clip-xlarge"])
def test_make_has_a_target_for_every_scale(scale):
    done = subprocess.run(["make", "-n", scale, "POOL=p", "RECIPE=r", "GPUS=8", "DRY=1"],
                          cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f'winnow benchmark {scale} --pool "p" --recipe "r" --gpus 8' in done.stdout


def test_a_dry_run_prints_the_costs_of_datacomps_scale(capsys, tmp_path):
    pool = demo_image_text.unpack()
    out = tmp_path / "out"
    code = main(["benchmark", "clip-small", "--dry-run", "--gpus", "4", "--pool", str(pool), "--recipe",
                 "image_text/rules", "--out", str(out), "--eval-data", str(tmp_path)])  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0 and "3,125 steps x 4,096 pairs = 12,800,000 samples" in said
    assert "4 x H100" in said and "4 A100 hours" in said and "UNOFFICIAL" not in said
    assert "8 shards" in said  # of tars: the parquet files beside them hold the same rows
    assert "0 of DataComp's 40 in" in said and "vtab/pets" in said
    assert not out.exists()


@pytest.mark.parametrize("name, parameters", [("lm-400m-1x", 411_616_256), ("lm-7b-1x", 6_889_410_560)])
def test_flops_and_parameters(name, parameters):
    from recipes import scale as scales
    from recipes.lm.model import Shape
    from recipes.lm.plan import flops_a_token, plan

    shape = scales.load(name).section("model", Shape)
    gains = 2 * shape.layers * shape.dim  # of query and key norms, which DCLM's count leaves out
    assert plan(name).parameters == parameters + gains
    attention = 6 * shape.layers * shape.dim * shape.context
    assert flops_a_token(shape) == 6 * (shape.parameters - shape.vocab * shape.dim) + attention


def test_winnow_train_in_two_processes_trains_what_one_trains(tmp_path, capfd):
    from recipes.lm.tokenise import tokenise

    scale = tmp_path / "mini.yaml"
    scale.write_text(SCALE.replace("steps: 20", "steps: 4").replace("warmup_steps: 2", "warmup_steps: 1"))
    (tmp_path / "text").mkdir()
    rows = "".join(
        json.dumps({"id": str(i), "text": f"The boat number {i} left. " * 9}) + "\n" for i in range(99)
    )
    (tmp_path / "text" / "a.jsonl").write_text(rows)
    tokenise(tmp_path / "text", tmp_path / "tokens", tokenizer="bpe4096", context=64, progress=False)
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"model-{processes}"
        assert main(["train", str(scale), str(tmp_path / "tokens"), str(out), "--gpus", str(processes),
                     "--device", "cpu"]) == 0  # fmt: skip
        losses.append([json.loads(line)["loss"] for line in (out / "log.jsonl").open()])
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], abs=1e-5)


CLIP_SCALE = """
name: mini-pairs
track: image_text
model: {small: {widths: [8, 8, 16], embed_dim: 16, vocab: 512, text_width: 16, context: 8}}
pixels: {size: 32, resize: pad, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
train: {samples: 640, batch: 64, lr: 3e-3, warmup: 2}
"""


def test_one_command_goes_from_pairs_to_a_leaderboard_row_and_resumes(capfd, tmp_path):
    scale = tmp_path / "mini-pairs.yaml"
    scale.write_text(CLIP_SCALE)
    pool = tmp_path / "pool"
    (pool / "shards").mkdir(parents=True)
    source = sorted((demo_image_text.unpack() / "shards").glob("00000000*"))
    for file in source:  # with the parquet file of the same rows, which must not be read as pairs too
        (pool / "shards" / file.name).symlink_to(file)
    command = ["benchmark", str(scale), "--pool", str(pool), "--recipe", "image_text/rules", "--out",
               str(tmp_path / "out"), "--workers", "1", "--gpus", "2", "--seed", "3"]  # fmt: skip
    assert main(command) == 0
    said = "".join(capfd.readouterr())
    assert "4/4 rank" in said and "step 10/10" in said and "UNOFFICIAL" in said
    result = json.loads((tmp_path / "out/results/image_text/rules/seed-3.json").read_text())
    assert result["train"]["tokens_or_samples"] == 640 and result["official"] is False
    assert result["dataset"]["rows_pool"] == 1373 > result["dataset"]["rows"] > 640
    assert {"associations_jaccard_score_10-12", "flags_worst_group5", "digits_acc1"} <= set(result["tasks"])
    assert "mini-pairs (unofficial)" in (tmp_path / "out/leaderboard/leaderboard.md").read_text()
    assert main(command) == 0  # nothing is trained twice
    assert "step 10/10" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_gpu_that_cannot_hold_its_share_of_the_pairs_gets_fewer_at_a_time(gpus, tmp_path, monkeypatch):
    from recipes import scale as scales
    from recipes.clip import train
    from winnow import jobs

    said = []
    monkeypatch.setattr(train, "train", lambda *a, machine: said.append(machine))
    monkeypatch.setattr(jobs, "torchrun", lambda *a: said.append(train.parser().parse_args(
        ["--data", "d", "--out", "o", *a[-1]])))  # fmt: skip
    jobs.train_clip(scales.load("clip-small"), tmp_path, tmp_path / "m", gpus=gpus, micro_batch=256,
                    checkpoint_activations=True)  # fmt: skip
    assert (said[0].micro_batch, said[0].checkpoint_activations) == (256, True)


def test_processes_that_cannot_share_a_batch_are_refused_before_anything_starts(capfd, tmp_path):
    assert main(["train", "clip-tiny", str(tmp_path), str(tmp_path / "m"), "--gpus", "3"]) == 1
    assert main(["benchmark", "clip-tiny", "--dry-run", "--gpus", "3"]) == 1
    said = capfd.readouterr().err
    assert said.count("3 processes cannot share a batch of 128 pairs evenly") == 2 and "Traceback" not in said


def test_an_evaluation_of_nothing_fails(capsys, tmp_path):
    import torch

    from filters.image_text.network import build, save

    torch.manual_seed(0)
    model = save(build({"small": {}}, {"size": 32}), tmp_path / "model")
    result = str(tmp_path / "seed-0.json")
    assert main(["eval", str(model), "--data-dir", str(tmp_path / "gone"), "--out", result]) == 1
    assert "gone is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["eval", str(model), "--data-dir", str(tmp_path / "empty"), "--out", result]) == 1
    said = capsys.readouterr()
    assert "no task was evaluated" in said.err and "40 tasks not run" in said.out and "--fetch" in said.out
