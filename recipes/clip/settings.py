"""The `train` section of an image-text scale: what a run spends, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.training.run_folder import TrainingError

PRECISIONS = ("fp32", "bf16")
SAMPLINGS = ("epochs", "weighted", "shards_with_replacement")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the maths of a run beside model and pixels. Steps are samples / batch, exactly.

    How a machine carries it out (processes, micro-batches, loader workers, threads) is not in here: it must
    not change the result.
    """

    samples: int
    batch: int
    """Pairs a step, over all processes and micro-batches."""
    lr: float
    """The peak: after `warmup` linear steps, then half a cosine down to 0 over all steps."""
    warmup: int
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    max_logit_scale: float = 100.0
    shift: int = 0
    """Random roll of each batch by up to so many pixels."""
    crop: float = 1.0
    """Smallest side of a random square crop of the squared image, as a share."""
    resized_crop: tuple[float, float] | None = None
    """Random crop of the original image by its share of the area, ratio 3/4 to 4/3, bicubic, per image
    (torchvision's RandomResizedCrop; DataComp: 0.9 to 1). Instead of shift and crop."""
    sampling: str = "epochs"
    """`epochs`: every pair once an epoch; `weighted`: by given weights, exactly; `shards_with_replacement`:
    whole shards drawn with replacement, as DataComp's code does since August 2023."""
    grad_clip: float | None = None
    """Largest global norm of the gradient; DataComp does not clip."""
    precision: str = "fp32"
    """`fp32`, or `bf16`: compute under autocast, weights and their sums in fp32. Not part of what makes a
    result official: DataComp leaves it open, and the result says which was used."""
    checkpoints: int = 5
    """How often the state is saved, evenly spread over the steps (the last is the model itself)."""

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.sampling not in SAMPLINGS:
            raise TrainingError(f'sampling is "{self.sampling}"; use one of {", ".join(SAMPLINGS)}')
        if not 0 < self.crop <= 1:
            raise TrainingError(
                f"crop is {self.crop}; it is the smallest side of a crop, above 0 and up to 1"
            )
        if self.resized_crop is not None:
            if len(self.resized_crop) != 2 or not 0 < self.resized_crop[0] <= self.resized_crop[1] <= 1:
                raise TrainingError(
                    f"resized_crop is {list(self.resized_crop)}; give the least and the greatest share of "
                    "the area, as [0.9, 1.0]"
                )
            if self.shift or self.crop < 1:
                raise TrainingError("resized_crop stands in place of shift and crop; give one or the other")
        if not 0 <= self.warmup < self.steps or self.checkpoints < 1:
            raise TrainingError(
                f"{self.warmup} warm-up steps of {self.steps} steps, {self.checkpoints} checkpoints; "
                "need fewer warm-up steps than steps, and 1 or more checkpoints"
            )

    @property
    def steps(self) -> int:
        """samples / batch. SamplingError unless it divides."""
        from recipes.clip.sampling import steps_of

        return steps_of(self.samples, self.batch)


def check_precision(precision: str) -> None:
    """TrainingError for one that the trainer does not have."""
    if precision not in PRECISIONS:
        raise TrainingError(f'precision is "{precision}"; use one of {", ".join(PRECISIONS)}')


def learning_rate(step: int, settings: Settings, steps: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to 0 at the last step (step counts from 0)."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup)))
