"""The CLIP trainer against a bare training step and against open_clip's own trainer: what the comforts cost.

    python bench/clip_train.py                         # CPU: clip-tiny, and a small vision transformer
    python bench/clip_train.py --device cuda           # a GPU: DataComp's ViT-B-32, too
    python bench/clip_train.py --device cuda --scale ViT-B-32 --batch 2048

All three have the same model, the same batches from the same source, and the same precision. The bare step is
what one would write by hand: both towers, open_clip's ClipLoss, backward, torch's AdamW, the loss read every
step; no log, no checkpoint, no console line. open_clip's trainer is `open_clip_train.train.train_one_epoch`,
with its own optimiser settings; it reads the loss every hundredth step. Our trainer does all it does for a
user (its console goes to a file). Turns alternate in one process; a ratio is the median over the turns of
mean seconds a step. On a CPU, seconds are CPU seconds of one thread, so that neighbours count little; on a
GPU, wall clock. Checkpoints come as often as in a whole run: one after 80 steps of clip-tiny, none in the few
steps of the others (DataComp's small has one in 625). The share of waiting for data is the trainer's own.

Squares are made up and lie decoded in memory: this measures training. What reading and decoding cost is
measured with the loader.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from recipes import scale as scales  # noqa: E402

WARM = 3  # steps before the clock starts
SMALL_VIT = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
WORDS = ("red", "green", "blue", "small", "large", "boat", "house", "tree", "dog", "cat", "on", "a", "photo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", action="append", help="clip-tiny, small-vit or a model of open_clip's")
    parser.add_argument("--steps", type=int, help="default: 123 of clip-tiny, 14 of others")
    parser.add_argument("--batch", type=int, help="default: 128, 64 of small-vit, 1024 of others")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: fp32 on a CPU, bf16 on a GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    usual = ["clip-tiny", "small-vit", *["ViT-B-32"] * (arguments.device == "cuda")]
    for name in arguments.scale or usual:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, scale_of(name, arguments), Path(folder), arguments)


def scale_of(name: str, arguments: argparse.Namespace) -> Any:
    """A scale of as many steps as are timed, without views: all three must have the same batches."""
    tiny = name == "clip-tiny"
    steps = arguments.steps or (123 if tiny else 14)
    batch = arguments.batch or {"clip-tiny": 128, "small-vit": 64}.get(name, 1024)
    precision = arguments.precision or ("bf16" if arguments.device == "cuda" else "fp32")
    train = {"samples": steps * batch, "batch": batch, "lr": 5e-4, "warmup": 2, "precision": precision}
    if tiny:
        return scales.load(name).replace(train=train)
    model = {"open_clip": SMALL_VIT if name == "small-vit" else name}
    return scales.Scale(name, "image_text", {"model": model, "train": train})


def compare(name: str, scale: Any, folder: Path, arguments: argparse.Namespace) -> None:
    pairs = make_pairs(scale)
    runs: dict[str, Callable[..., float]] = {"trainer": trainer, "a bare step": bare_step}
    with contextlib.suppress(ImportError):
        import open_clip_train.train  # noqa: F401

        runs["open_clip's trainer"] = open_clip_trainer
    seconds: dict[str, list[float]] = {run: [] for run in runs}
    for turn in range(arguments.turns):
        order = list(runs) if turn % 2 else list(runs)[::-1]
        for run in order:
            seconds[run].append(runs[run](scale, pairs, folder / f"{turn}", arguments.device))
    train = scale["train"]
    print(
        f"{name}, {train['precision']}, batch {train['batch']}, {train['samples'] // train['batch']} steps: "
        + ", ".join(
            f"{run} {train['batch'] / statistics.median(s):,.0f} samples/s" for run, s in seconds.items()
        )
    )
    for run in list(runs)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(seconds["trainer"], seconds[run], strict=True)]
        turns = ", ".join(f"{r:.3f}" for r in ratios)
        print(f"  {statistics.median(ratios):.3f} x the time of {run} (turns {turns})")
    records = [json.loads(line) for line in (folder / "0" / "log.jsonl").read_text().splitlines()][WARM:]
    wait = sum(r["data_wait"] * r["seconds"] for r in records) / sum(r["seconds"] for r in records)
    print(f"  {wait:.1%} of the trainer's time is waiting for data")
    print("  " + (folder / "console").read_text().splitlines()[-1])
    took, size = checkpoint_of(scale, pairs, folder / "checkpointed", arguments.device)
    print(f"  a checkpoint takes {took:.2f} s of wall clock for {size / 1e6:,.1f} MB", flush=True)


def make_pairs(scale: Any) -> Any:
    """Three batches of noise with captions."""
    from recipes.clip.data import Pairs
    from recipes.clip.model import build

    values = scale.to_dict()
    size = build(values["model"], values.get("pixels")).pixels.size
    rng, n = np.random.default_rng(0), 3 * scale["train"]["batch"]
    captions = [" ".join(rng.choice(WORDS, 8)) for _ in range(n)]
    pixels = rng.integers(0, 256, (n, size, size, 3), np.uint8)
    return Pairs([f"{i:032x}" for i in range(n)], captions, pixels, np.ones(n, np.int64))


def trainer(scale: Any, pairs: Any, out: Path, device: str) -> float:
    from recipes.clip.train import Machine, train

    clock, ends = clock_of(device), []
    with open(out.parent / "console", "w") as console, contextlib.redirect_stderr(console):
        train(
            scale,
            pairs,
            out,
            machine=Machine(device=device, threads=1),
            checkpoint_every=80 if scale.name == "clip-tiny" else 0,
            on_step=lambda record: ends.append(clock()),
        )
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def checkpoint_of(scale: Any, pairs: Any, out: Path, device: str) -> tuple[float, int]:
    """Seconds and bytes of the first checkpoint of a run."""
    from recipes.clip.train import Machine, train
    from recipes.training import checkpoint

    taken: list[float] = []

    def save(folder: Path, *args: Any) -> None:
        begun = time.perf_counter()
        real(folder, *args)
        taken.append(time.perf_counter() - begun)
        raise KeyboardInterrupt

    real, checkpoint.save = checkpoint.save, save
    try:
        with contextlib.suppress(KeyboardInterrupt):
            train(
                scale, pairs, out, quiet=True, machine=Machine(device=device, threads=1), checkpoint_every=2
            )
    finally:
        checkpoint.save = real
    return taken[0], sum(f.stat().st_size for f in (out / "checkpoint").iterdir())


def bare_step(scale: Any, pairs: Any, out: Path, device: str) -> float:
    from open_clip.loss import ClipLoss

    from recipes.clip.train import learning_rate

    model, settings, steps, batches, optimizer = ready(scale, pairs, device, fused=True)
    loss, clock, ends = ClipLoss(), clock_of(device), []
    half = partial(torch.autocast, device, torch.bfloat16, enabled=settings.precision == "bf16")
    for step, (images, texts) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings, steps)
        with half():
            made = model(images, texts)
            value = loss(made["image_features"], made["text_features"], made["logit_scale"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(100)))
        value.item()
        ends.append(clock())
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def open_clip_trainer(scale: Any, pairs: Any, out: Path, device: str) -> float:
    from open_clip.loss import ClipLoss
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    model, settings, steps, batches, optimizer = ready(scale, pairs, device, fused=False)
    clock, fetched = clock_of(device), []

    class Loader:
        num_batches, num_samples = steps, settings.samples

        def __iter__(self) -> Iterator[Any]:
            for batch in batches:
                fetched.append(clock())
                yield batch

    data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda epoch: None)}
    args = SimpleNamespace(
        device=device, precision="amp_bf16" if settings.precision == "bf16" else "fp32", distill=False,
        accum_freq=1, skip_scheduler=False, grad_clip_norm=None, horovod=False, log_every_n_steps=100,
        batch_size=settings.batch, world_size=1, rank=0, local_rank=0, log_local=False, wandb=False,
    )  # fmt: skip
    schedule = cosine_lr(optimizer, settings.lr, settings.warmup, steps)
    train_one_epoch(model, data, ClipLoss(), 0, optimizer, None, schedule, None, args)
    end = clock()
    return (end - fetched[WARM]) / (steps - WARM)


def ready(scale: Any, pairs: Any, device: str, fused: bool) -> Any:
    """Model, settings, steps, normalised batches on the device, optimiser with open_clip's groups."""
    from recipes.clip.model import build, parameter_groups
    from recipes.clip.settings import Settings
    from recipes.clip.stream import open_source

    values, settings = scale.to_dict(), scale.section("train", Settings)
    tower = build(values["model"], values.get("pixels"), 0)
    source = open_source(pairs, tower.pixels, tower.tokenizer, settings, 0)
    model = Named(tower.module.to(device).train())

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in source.batches(0, settings.steps, (0, settings.batch)):
            yield tower.pixels.normalise(batch.pixels.to(device)), batch.tokens.to(device)

    optimizer = torch.optim.AdamW(
        parameter_groups(tower.module, settings.weight_decay),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=fused or None,
    )
    return model, settings, settings.steps, batches(), optimizer


class Named(torch.nn.Module):
    """A model that names what it gives, as open_clip's trainer wants it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.logit_scale = inner, inner.logit_scale

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "image_features": self.inner.encode_image(images, normalize=True),
            "text_features": self.inner.encode_text(texts, normalize=True),
            "logit_scale": self.logit_scale.exp(),
        }


def clock_of(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return when_done


if __name__ == "__main__":
    main()
