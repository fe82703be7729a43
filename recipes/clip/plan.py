"""What a CLIP scale will cost before anything runs: samples, steps, disk, bytes read, FLOPs and hours.

    print(plan("clip-medium", gpus=8))

Parameters and operations are counted on the model itself, built without memory for its weights. The hours
rest on two assumptions that are printed with them (the peak of the device and the share of it that is used).
What DataComp reports for the same scale stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recipes import planning
from recipes import scale as scales

MFU = 0.13
"""Share of the peak that training is assumed to use: what the A100 hours that DataComp reports come to (0.13
for small, 0.14 for xlarge). The trainer prints the real one."""
BYTES_A_PAIR = 450e9 / 12.8e6
"""Bytes of a pair in tars at 512 pixels: DataComp's small pool, 450 GB for 12.8 M pairs."""
DECODE_SECONDS = 2.1e-3
"""Core seconds to decode a JPEG of 512 x 342 pixels and scale a crop to 224, with Pillow (1.96 to 2.39 ms for
files of 26 to 88 kB on the machine this was written on)."""


@dataclass(frozen=True)
class ModelShape:
    """Size of a two-tower model. macs: multiply-adds of one forward pass of both towers on one pair."""

    name: str
    parameters: int
    image_parameters: int
    image_macs: int
    text_macs: int
    image_size: int
    context: int
    """Text tokens."""

    @property
    def macs(self) -> int:
        return self.image_macs + self.text_macs

    @property
    def training_flops(self) -> int:
        """Operations of training for each sample: two a multiply-add; the backward pass counts as two forward
        ones. Gradient checkpointing adds a third to the work and nothing to this figure."""
        return 2 * 3 * self.macs


@dataclass(frozen=True)
class TrainingPlan:
    """The figures of one training run."""

    scale: str
    scale_hash: str
    official: bool
    """The scale is one that comes with Winnow, unchanged."""
    model: ModelShape
    steps: int
    batch: int
    checkpoints: int
    device: str
    gpus: int
    published: dict[str, float]

    @property
    def samples(self) -> int:
        """Pairs seen: steps x batch, exactly."""
        return self.steps * self.batch

    @property
    def parameters(self) -> int:
        return self.model.parameters

    @property
    def flops(self) -> float:
        return float(self.samples) * self.model.training_flops

    @property
    def bytes_read(self) -> float:
        """Bytes of tars that training reads over all epochs, by `BYTES_A_PAIR`."""
        return self.samples * BYTES_A_PAIR

    @property
    def checkpoint_bytes(self) -> int:
        """Disk of a checkpoint: weights and two running means in fp32."""
        return planning.CHECKPOINT_BYTES * self.parameters

    @property
    def hours(self) -> float:
        """Hours on all devices together, by `planning.PEAKS` and `MFU`."""
        return planning.hours(self.flops, self.device, self.gpus, MFU)

    def __str__(self) -> str:
        model, rate = self.model, self.samples / (3600 * self.hours)
        lines = [
            f"scale       {self.scale} {self.scale_hash}{planning.unofficial(self.official)}",
            f"model       {model.name}: {model.parameters:,} parameters, {model.image_size} pixels, "
            f"{model.context} tokens",
            f"budget      {self.steps:,} steps x {self.batch:,} pairs = {self.samples:,} samples",
            f"data read   about {planning.size(self.bytes_read)} at {BYTES_A_PAIR / 1e3:.1f} kB a pair",
            f"disk        {planning.size(2 * self.checkpoint_bytes)} for two checkpoints while one replaces "
            f"the other, {self.checkpoints} times",
            f"compute     {self.flops:.2e} FLOPs",
            f"time        about {planning.duration(self.hours)} on {self.gpus} x {self.device} "
            f"({planning.peak(self.device) / 1e12:,.0f} TFLOP/s each in bf16, {MFU:.0%} of it used)",
        ]
        if self.hours > 1 / 60:  # below, the loader's start takes longer than the training
            lines.append(
                f"loading     {rate:,.0f} images a second keep that up: "
                f"{planning.size(rate * BYTES_A_PAIR)}/s and about {max(1, round(rate * DECODE_SECONDS))} "
                f"cores that decode, {DECODE_SECONDS * 1e3:.1f} ms an image"
            )
        if self.published:
            reported = self.published
            lines += [
                f"pool        {reported['pool_pairs']:,.0f} pairs when nothing is filtered, "
                f"{planning.size(reported['pool_bytes'])} of tars at 512 pixels",
                f"published   DataComp reports {reported['a100_hours']:,.0f} A100 hours and "
                f"{reported['train_macs']:.1e} multiply-adds of forward passes for this scale; ours is "
                f"{self.hours * self.gpus:,.3g} {self.device} hours and {self.samples * model.macs:.1e}",
            ]
        return "\n".join(lines)


def plan(scale: str | Path | scales.Scale, device: str = "H100", gpus: int = 1) -> TrainingPlan:
    """The plan of an image-text scale on so many devices. ScaleError for a scale of another track, ValueError
    for a device that `planning.PEAKS` does not have or for a budget that is no whole number of steps."""
    from recipes.clip.settings import Settings

    scale = scales.load(scale)
    if scale.track != "image_text":
        raise scales.ScaleError(f"scale {scale.name!r} is of track {scale.track!r}, not image_text")
    planning.peak(device)
    values, train = scale.to_dict(), scale.section("train", Settings)
    return TrainingPlan(
        scale.name,
        scale.hash,
        scales.is_official(scale),
        model_shape(values["model"], values.get("pixels")),
        train.steps,
        train.batch,
        train.checkpoints,
        device,
        gpus,
        planning.published(scale.name),
    )


def model_shape(spec: dict[str, Any], pixels: dict[str, Any] | None = None) -> ModelShape:
    """Count a model's parameters and multiply-adds (of matrix products and convolutions) without its weights.

    spec, pixels: as `recipes.clip.model.build` takes them.
    """
    import json

    return _model_shape(json.dumps(spec), json.dumps(pixels))


@lru_cache(maxsize=16)
def _model_shape(spec: str, pixels: str) -> ModelShape:
    import json

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from recipes.clip.model import build

    architecture = json.loads(spec)
    with torch.device("meta"), torch.no_grad():
        model = build(architecture, json.loads(pixels))
        module, size, context = model.module.eval(), model.pixels.size, model.context
        counts = []
        for encode, inputs in (
            (module.encode_image, torch.empty(1, 3, size, size)),
            (module.encode_text, torch.zeros(1, context, dtype=torch.int64)),
        ):
            with FlopCounterMode(display=False) as counter:
                encode(inputs)
            counts.append(counter.get_total_flops() // 2)  # the counter has two operations a multiply-add
    image = sum(p.numel() for name, p in module.named_parameters() if name.startswith("visual"))
    kind, config = next(iter(architecture.items()))
    name = config if isinstance(config, str) else {"small": "small"}.get(kind, "open_clip configuration")
    total = sum(p.numel() for p in module.parameters())
    return ModelShape(name, total, image, counts[0], counts[1], size, context)
