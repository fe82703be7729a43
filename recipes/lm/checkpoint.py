"""What a checkpoint of a language model holds: model, optimiser, position in the data, RNG and step.

Tensors are stored whole and in fp32 whatever the number of processes, so that any number of processes can go
on from it. How it is written and found again: ``recipes.training.checkpoint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.lm.model import Decoder
from recipes.lm.optimizer import AdamW
from recipes.training import checkpoint
from recipes.training.checkpoint import FOLDER, META, STATE, refuse_full_disk, remove
from recipes.training.tensors import save_tensors
from recipes.training.world import World

__all__ = ["FOLDER", "META", "STATE", "Resume", "load", "refuse_full_disk", "remove", "save", "save_model"]


@dataclass(frozen=True)
class Resume:
    """Where to go on: steps done, the source's position after them, seconds spent so far."""

    step: int = 0
    position: Mapping[str, Any] | None = None
    seconds: float = 0.0


def save(
    out: Path,
    model: Decoder,
    optimizer: AdamW,
    world: World,
    resume: Resume,
) -> None:
    """Write the state after ``resume.step`` steps. Every process must call it; the main one writes.

    Raises TrainingError, everywhere, when it cannot be written; the checkpoint before is still there then.
    """
    tensors = {**_targets(model, optimizer), "rng": torch.get_rng_state()}
    tensors["optimizer.steps"] = optimizer.state()["steps"]
    checkpoint.save(out, tensors, asdict(resume), world)


def load(out: Path, model: Decoder, optimizer: AdamW) -> Resume:
    """Fill model and optimiser from the checkpoint; the start of a run without one."""
    found = checkpoint.load(out, _targets(model, optimizer))
    if found is None:
        return Resume()
    meta, others = found
    optimizer.resume(int(others["optimizer.steps"]))
    torch.set_rng_state(others["rng"])
    return Resume(**meta)


def save_model(path: Path, model: Decoder, world: World) -> None:
    """The weights alone, as ``model.safetensors``. Every process must call it."""
    save_tensors(path, _kept(model), world)


def _targets(model: Decoder, optimizer: AdamW) -> dict[str, Tensor]:
    """What is copied back as it is."""
    tensors = {f"model.{k}": v for k, v in _kept(model).items()}
    return tensors | {f"optimizer.{k}": v for k, v in optimizer.state().items() if k != "steps"}


def _kept(model: Decoder) -> dict[str, Tensor]:
    """The model's tensors, a tied head once."""
    state = model.state_dict()
    if model.shape.tied:
        del state["head.weight"]
    return state
