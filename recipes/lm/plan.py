"""What a scale will cost before anything runs: tokens, steps, disk, FLOPs and hours.

    print(plan("lm-400m-1x", gpus=8))

Every figure is computed from the scale file; the hours rest on two assumptions that are printed with them
(the peak of the device and the share of it that is used; small models use less). What others report for the
same scale stands beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes import planning
from recipes import scale as scales
from recipes.planning import PEAKS

MFU = 0.40
"""Share of the peak that training is assumed to use; the trainer prints the real one."""
BYTES_A_TOKEN = 4.4
"""UTF-8 bytes of English web text that a token of GPT-NeoX stands for, about; only for the estimate of how
much text a budget reads."""


@dataclass(frozen=True)
class TrainingPlan:
    """The figures of one training run."""

    scale: str
    scale_hash: str
    official: bool
    """The scale is one that comes with Winnow, unchanged."""
    parameters: int
    steps: int
    batch: int
    context: int
    flops: float
    device: str
    gpus: int
    published: dict[str, float]

    @property
    def tokens(self) -> int:
        """Predicted tokens: steps x batch x context."""
        return self.steps * self.batch * self.context

    @property
    def contexts(self) -> int:
        return self.steps * self.batch

    @property
    def token_bytes(self) -> int:
        """Disk of the native token shards: two bytes a token, context + 1 tokens a context."""
        return self.contexts * (self.context + 1) * 2

    @property
    def checkpoint_bytes(self) -> int:
        """Disk of a checkpoint: weights and two running means in fp32."""
        return planning.CHECKPOINT_BYTES * self.parameters

    @property
    def hours(self) -> float:
        """Hours on all devices together, by `PEAKS` and `MFU`."""
        return planning.hours(self.flops, self.device, self.gpus, MFU)

    def __str__(self) -> str:
        lines = [
            f"scale       {self.scale} {self.scale_hash}{planning.unofficial(self.official)}",
            f"model       {self.parameters:,} parameters, context {self.context:,}",
            f"budget      {self.steps:,} steps x {self.batch:,} contexts x {self.context:,} tokens "
            f"= {self.tokens:,} tokens",
            f"text read   about {self.tokens * BYTES_A_TOKEN / 1e9:,.1f} GB at {BYTES_A_TOKEN} bytes a token",
            f"disk        {self.token_bytes / 1e9:,.1f} GB of tokens; "
            f"{2 * self.checkpoint_bytes / 1e9:,.1f} GB for two checkpoints while one replaces the other",
            f"compute     {self.flops:.2e} FLOPs",
            f"time        about {planning.duration(self.hours)} on {self.gpus} x {self.device} "
            f"({PEAKS[self.device] / 1e12:,.0f} TFLOP/s each, {MFU:.0%} of it used)",
        ]
        if self.published:
            reported = self.published
            lines.append(
                f"published   DCLM reports {reported['h100_hours']:,.0f} H100 hours and "
                f"{reported['flops']:.1e} FLOPs for this scale; ours is {self.hours * self.gpus:,.0f} "
                f"{self.device} hours"
            )
        return "\n".join(lines)


def plan(scale: str | Path | scales.Scale, device: str = "H100", gpus: int = 1) -> TrainingPlan:
    """The plan of a text scale on so many devices. ScaleError for a scale of another track, ValueError for a
    device that `PEAKS` does not have."""
    from recipes.lm.budget import Budget
    from recipes.lm.model import Shape

    scale = scales.load(scale)
    if scale.track != "text":
        raise scales.ScaleError(f"scale {scale.name!r} is of track {scale.track!r}, not text")
    planning.peak(device)
    shape, budget = scale.section("model", Shape), scale.section("train", Budget)
    return TrainingPlan(
        scale.name,
        scale.hash,
        scales.is_official(scale),
        shape.parameters,
        budget.steps,
        budget.batch,
        shape.context,
        budget.steps * budget.batch * shape.context * flops_a_token(shape),
        device,
        gpus,
        planning.published(scale.name),
    )


def flops_a_token(shape: Any) -> float:
    """Floating-point operations of training for each predicted token: 6 for each weight of a matrix product
    (the embedding is a look-up), and causal attention, forward and backward."""
    matrices = shape.parameters - (0 if shape.tied else shape.vocab * shape.dim)
    return 6.0 * matrices + 6.0 * shape.layers * shape.dim * shape.context
