"""The language-model trainer on a Ray cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipes.lm.run_folder import RESULT, TrainResult
from recipes.training.on_ray import run_on_ray


def train_on_ray(
    workers: int, scale: Any, data: str | Path, out: str | Path, seed: int | None = None, **settings: Any
) -> TrainResult:
    """``recipes.lm.train.train`` in ``workers`` processes: see :func:`recipes.training.on_ray.run_on_ray`."""
    from recipes.lm.train import train

    folder = run_on_ray(train, workers, scale, data, out, seed, settings)
    return TrainResult(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
