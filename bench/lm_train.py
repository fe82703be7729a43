"""The trainer against a bare loop over the same model, batches and precision: what the comforts cost.

    python bench/lm_train.py                                  # CPU: lm-tiny, and lm-10m cut down to fit
    python bench/lm_train.py --scale lm-150m --device cuda --tokens DIR --micro-batch 32   # a GPU

The bare loop is what one would write by hand: forward, backward, torch's clipping and AdamW, the loss read
every step; no log, no checkpoint, no console line. The trainer does all of that (its console goes to a file).
Turns of both alternate in one process; the figure is the median over the turns of the ratio of mean seconds a
step. On a CPU, seconds are CPU seconds of one thread, so that neighbours count little; on a GPU, wall clock.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from recipes import scale as scales  # noqa: E402

WARM = 5  # steps before the clock starts
CUT = {  # of lm-10m, so that a step takes a second or two of one core
    "model": {"vocab": 4096, "context": 256},
    "train": {"batch": 8, "tokenizer": "bpe4096", "precision": "fp32"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", action="append", help="default: lm-tiny and lm-10m cut down")
    parser.add_argument("--steps", type=int, help="default: 100 of lm-tiny, 12 of others")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tokens", help="token shards of the scale (default: made from the embedded pool)")
    parser.add_argument("--micro-batch", type=int)
    arguments = parser.parse_args()
    for name in arguments.scale or ("lm-tiny", "lm-10m cut"):
        whole = scales.load(name.removesuffix(" cut"))
        scale = whole.replace(**CUT) if name.endswith(" cut") else whole
        steps = arguments.steps or (100 if name == "lm-tiny" else 12)
        # checkpoints as often as in the whole run, but one at least
        every = min(max(1, scale["train"]["steps"] // 5), steps - 1)
        scale = scale.replace(train={"steps": steps, "warmup_steps": min(4, steps - 1)})
        with tempfile.TemporaryDirectory() as folder:
            compare(name, scale, every, Path(folder), arguments)


def compare(name: str, scale: Any, every: int, folder: Path, arguments: argparse.Namespace) -> None:
    tokens = arguments.tokens or make_tokens(scale, folder)
    ratios, ours, bare = [], [], []
    for turn in range(arguments.turns):
        first, second = (trainer, bare_loop) if turn % 2 else (bare_loop, trainer)
        seconds = {}
        for run in (first, second):
            seconds[run] = run(scale, tokens, folder / f"{turn}", every, arguments)
        ours.append(seconds[trainer])
        bare.append(seconds[bare_loop])
        ratios.append(ours[-1] / bare[-1])
    per_step = scale["train"]["batch"] * scale["model"]["context"]
    turns = ", ".join(f"{r:.3f}" for r in ratios)
    print(
        f"{name}: bare loop {per_step / statistics.median(bare):,.0f} tokens/s, trainer "
        f"{per_step / statistics.median(ours):,.0f} tokens/s; {statistics.median(ratios):.3f} x the bare "
        f"loop's time (turns {turns}; {scale['train']['steps']} steps, a checkpoint every {every})",
        flush=True,
    )
    print("  " + (folder / "console").read_text().splitlines()[-1])


def make_tokens(scale: Any, folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pools import demo_text
    from recipes.lm.tokenise import for_scale, tokenise

    text = folder / "text"
    text.mkdir()
    rows = list(demo_text.trusted())
    columns = {key: [row[key] for row in rows] for key in ("id", "text")}
    pq.write_table(pa.table(columns), text / "0.parquet")
    tokenise(text, folder / "tokens", **for_scale(scale), allow_repeat=True, progress=False)
    return folder / "tokens"


def trainer(scale: Any, tokens: Any, out: Path, every: int, arguments: argparse.Namespace) -> float:
    from recipes.lm.train import Machine, train

    clock, ends = _clock(arguments), []
    machine = Machine(device=arguments.device, micro_batch=arguments.micro_batch)
    with open(out.parent / "console", "w") as console, contextlib.redirect_stdout(console):
        train(
            scale,
            tokens,
            out,
            0,
            checkpoint_every=every,
            allow_repeat=True,
            machine=machine,
            on_step=lambda record: ends.append(clock()),
        )
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def bare_loop(scale: Any, tokens: Any, out: Path, every: int, arguments: argparse.Namespace) -> float:
    import numpy as np
    import torch

    from recipes.lm.budget import Budget
    from recipes.lm.model import Decoder, Shape
    from recipes.lm.tokens import TokenShards, reading_order

    torch.set_num_threads(1)
    clock, ends = _clock(arguments), []
    shape, budget = scale.section("model", Shape), scale.section("train", Budget)
    gpu = arguments.device == "cuda"
    shards = TokenShards.open(tokens)
    model = Decoder(shape, 0).to(arguments.device)
    if gpu:
        for block in model.blocks:
            block.compile()
    optimizer = torch.optim.AdamW(
        model.parameters(), budget.lr, budget.betas, budget.eps, budget.weight_decay, fused=gpu
    )
    micro = min(arguments.micro_batch or budget.batch, budget.batch)
    for step in range(budget.steps):
        numbers = reading_order(len(shards), 0, np.arange(step * budget.batch, (step + 1) * budget.batch))
        ids = torch.from_numpy(shards.rows(numbers)).to(arguments.device)
        for group in optimizer.param_groups:
            group["lr"] = budget.lr_at(step)
        total = 0.0
        for part in ids.split(micro):
            half = budget.precision != "fp32"
            with torch.autocast(arguments.device, torch.bfloat16) if half else contextlib.nullcontext():
                objective, cross_entropy = model.loss(part, budget.z_loss)
            (objective * (len(part) / len(ids))).backward()
            total = total + cross_entropy.detach() * (len(part) / len(ids))
        torch.nn.utils.clip_grad_norm_(model.parameters(), budget.clip)
        optimizer.step()
        optimizer.zero_grad()
        total.item()
        ends.append(clock())
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def _clock(arguments: argparse.Namespace) -> Any:
    return time.perf_counter if arguments.device == "cuda" else time.process_time


if __name__ == "__main__":
    main()
