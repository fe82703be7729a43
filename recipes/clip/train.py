"""Train a CLIP model on filtered shards under a fixed budget: `train(scale, shards, out)`.

The same loop trains the small CPU model and open_clip's models. Steps = samples / batch, exactly. The order
of pairs and the augmentation are functions of (rows, seed, step): a killed run resumes with the same losses.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curation import storage
from recipes import scale as scales
from recipes.clip.data import Pairs, load_pairs
from recipes.clip.model import TwoTower, build, clamp_logit_scale, clip_loss, parameter_groups, save
from recipes.clip.sampling import ExactEpochs, steps_of
from recipes.scale import Scale

CHECKPOINT, LOG, RESULT = "checkpoint.pt", "log.jsonl", "train.json"


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says at which step and why."""


@dataclass(frozen=True)
class Settings:
    """The `train` section of a scale. lr: peak, after `warmup` linear steps, then cosine to 0 over all steps.

    shift: random roll of each batch by up to that many pixels; crop: smallest side of a random crop, as a
    share (DataComp: .9); precision: "fp32" or "bf16" (autocast).
    """

    samples: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    max_logit_scale: float = 100.0
    shift: int = 0
    crop: float = 1.0
    grad_clip: float | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise TrainingError(f'precision is "{self.precision}"; use "fp32" or "bf16"')
        if not 0 < self.crop <= 1:
            raise TrainingError(
                f"crop is {self.crop}; it is the smallest side of a crop, above 0 and up to 1"
            )


@dataclass(frozen=True)
class TrainResult:
    """What one run left. model: directory for `filters.image_text.network.load`; rows: pairs with
    multiplicity; epochs: samples / rows; final_loss: mean over the last twentieth of the steps; seconds: of
    training alone."""

    model: Path
    scale: str
    scale_hash: str
    seed: int
    rows: int
    distinct_rows: int
    steps: int
    samples: int
    epochs: float
    final_loss: float
    seconds: float
    data: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": self.model.name}


def learning_rate(step: int, settings: Settings, steps: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to 0 at the last step (step counts from 0)."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup)))


def train(
    scale: str | Path | Scale,
    shards: Any,
    out: str | Path,
    seed: int = 0,
    *,
    quiet: bool = False,
    checkpoint_every: int = 100,
    threads: int | None = 1,
    device: str = "cpu",
) -> TrainResult:
    """Train the model of `scale` on `shards` and write out/model, out/log.jsonl and out/train.json.

    shards: folder or files (WebDataset tars, parquet), a table, or `Pairs` loaded before. Called again, a
    finished run is returned as it is and an unfinished one goes on from its last checkpoint (every
    `checkpoint_every` steps; 0: none); a folder that belongs to another scale, seed or data set is refused.
    threads: of this process while training (CPU results depend on it in the last bits); None leaves it.
    """
    scale = scales.load(scale)
    settings = scale.section("train", Settings)
    steps = steps_of(settings.samples, settings.batch)
    values = scale.to_dict()
    model = build(values["model"], values.get("pixels"), seed)
    pairs = load_pairs(shards, model.pixels)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    identity = {"scale_hash": scale.hash, "seed": seed, "data": pairs.fingerprint}
    if (out / RESULT).is_file():
        return _finished(out, identity)
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        loss, seconds = _loop(model, pairs, settings, steps, out, identity, quiet, checkpoint_every, device)
    finally:
        torch.set_num_threads(before)
    save(model, out / "model", {"scale": scale.to_dict(), "scale_hash": scale.hash, "seed": seed})
    result = TrainResult(
        model=out / "model",
        scale=scale.name,
        rows=pairs.rows,
        distinct_rows=len(pairs),
        steps=steps,
        samples=settings.samples,
        epochs=settings.samples / pairs.rows,
        final_loss=loss,
        seconds=seconds,
        **identity,
    )
    storage.write_bytes(str(out / RESULT), json.dumps(result.to_dict(), indent=1).encode() + b"\n")
    (out / CHECKPOINT).unlink(missing_ok=True)
    return result


def _loop(
    model: TwoTower,
    pairs: Pairs,
    settings: Settings,
    steps: int,
    out: Path,
    identity: dict[str, Any],
    quiet: bool,
    checkpoint_every: int,
    device: str,
) -> tuple[float, float]:
    module = model.module.to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(module, settings.weight_decay),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
    start, spent = 0, 0.0
    if (out / CHECKPOINT).is_file():
        start, spent = _restore(out / CHECKPOINT, module, optimizer, identity)
    losses = _cut_log(out / LOG, start)
    tokens = model.tokenizer(pairs.captions)
    order = ExactEpochs(pairs.repeats, settings.batch, identity["seed"])
    module.train()
    began = time.perf_counter() - spent
    with open(out / LOG, "a", encoding="utf-8") as log:
        for step, rows in enumerate(order.batches(steps, start), start):
            tick = time.perf_counter()
            lr = learning_rate(step, settings, steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images = model.pixels.normalise(
                torch.from_numpy(augment(pairs.pixels[rows], settings, identity["seed"], step)).to(device)
            )
            texts = tokens[torch.from_numpy(rows)].to(device)
            waited = time.perf_counter() - tick
            with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = clip_loss(
                    module.encode_image(images, normalize=True),
                    module.encode_text(texts, normalize=True),
                    module.logit_scale.exp(),
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), settings.grad_clip)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"loss is {value} at step {step + 1} of {steps} (lr {lr:.3g}); lower lr or lengthen "
                    f"warmup. The last checkpoint is kept in {out}"
                )
            optimizer.step()
            clamp_logit_scale(module, settings.max_logit_scale)
            losses.append(value)
            took = time.perf_counter() - tick
            _report(
                log, step, steps, settings, value, lr, module.logit_scale.exp().item(), took, waited, quiet
            )
            if checkpoint_every and (step + 1) % checkpoint_every == 0 and step + 1 < steps:
                log.flush()
                _checkpoint(
                    out / CHECKPOINT, module, optimizer, identity, step + 1, time.perf_counter() - began
                )
    last = losses[-max(1, steps // 20) :]
    return float(np.mean(last)), time.perf_counter() - began


def augment(pixels: np.ndarray, settings: Settings, seed: int, step: int) -> np.ndarray:
    """Random roll and crop of a batch, uint8 [n, s, s, 3] → same shape; a function of (seed, step) only."""
    if settings.shift == 0 and settings.crop == 1:
        return np.ascontiguousarray(pixels)
    rng = np.random.Generator(np.random.PCG64([seed, 1 << 20, step]))
    if settings.shift:
        down, right = rng.integers(-settings.shift, settings.shift + 1, 2)
        pixels = np.roll(pixels, (down, right), axis=(1, 2))
    if settings.crop < 1:
        pixels = _random_crop(pixels, settings.crop, rng)
    return np.ascontiguousarray(pixels)


def _random_crop(pixels: np.ndarray, smallest: float, rng: np.random.Generator) -> np.ndarray:
    """Per image a square crop whose side is smallest..1 of the whole, scaled back (bicubic)."""
    from PIL import Image

    size = pixels.shape[1]
    out = np.empty_like(pixels)
    for i, (share, x, y) in enumerate(rng.random((len(pixels), 3))):
        side = size * (smallest + (1 - smallest) * share)
        left, top = x * (size - side), y * (size - side)
        box = (left, top, left + side, top + side)
        out[i] = np.asarray(
            Image.fromarray(pixels[i]).resize((size, size), Image.Resampling.BICUBIC, box=box)
        )
    return out


def _report(
    log: Any,
    step: int,
    steps: int,
    settings: Settings,
    loss: float,
    lr: float,
    scale: float,
    took: float,
    waited: float,
    quiet: bool,
) -> None:
    line = {
        "step": step + 1,
        "samples": (step + 1) * settings.batch,
        "loss": loss,
        "lr": lr,
        "logit_scale": round(scale, 3),
        "samples_per_second": round(settings.batch / took, 1),
        "data_wait": round(waited / took, 3),
    }
    log.write(json.dumps(line) + "\n")
    if not quiet:
        print(
            f"step {step + 1:>{len(str(steps))}}/{steps}  loss {loss:6.3f}  lr {lr:.2e}  scale {scale:6.2f}  "
            f"{settings.batch / took:8,.0f} samples/s  data {waited / took:4.0%}",
            file=sys.stderr,
            flush=True,
        )


def _checkpoint(path: Path, module: Any, optimizer: Any, identity: dict, step: int, seconds: float) -> None:
    buffer = io.BytesIO()
    state = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    torch.save({**state, **identity}, buffer)
    storage.write_bytes(str(path), buffer.getvalue())


def _restore(path: Path, module: Any, optimizer: Any, identity: dict[str, Any]) -> tuple[int, float]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    _same_run(path, state, identity)
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def _finished(out: Path, identity: dict[str, Any]) -> TrainResult:
    values = json.loads((out / RESULT).read_text())
    _same_run(out / RESULT, values, identity)
    return TrainResult(**{**values, "model": out / values["model"]})


def _same_run(path: Path, found: dict[str, Any], identity: dict[str, Any]) -> None:
    for key, value in identity.items():
        if found.get(key) != value:
            raise TrainingError(
                f"{path} is of another run: {key} is {found.get(key)}, wanted {value}; give another folder"
            )


def _cut_log(path: Path, steps: int) -> list[float]:
    """Drop the log lines past the checkpoint; returns the losses that stay."""
    lines = path.read_text().splitlines()[:steps] if path.is_file() else []
    path.write_text("".join(line + "\n" for line in lines))
    return [json.loads(line)["loss"] for line in lines]
