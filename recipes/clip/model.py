"""What the CLIP trainer needs of a model: building it, its loss, and its weight-decay groups.

The architectures themselves are in `filters.image_text.network`, since filters use trained models too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from filters.image_text.network import TwoTower, build, load, save

__all__ = [
    "TwoTower",
    "build",
    "checkpoint_towers",
    "clamp_logit_scale",
    "clip_loss",
    "load",
    "parameter_groups",
    "save",
]


def clip_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (Radford et al. 2021). image, text: [n, d] of length 1; row i of both is one pair."""
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two AdamW groups. No decay for vectors and scalars and for names with bn, ln, bias or logit_scale:
    the rule of open_clip's trainer, which DataComp's results were made with."""
    decayed, plain = [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        (plain if exempt else decayed).append(parameter)
    return [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


@torch.no_grad()
def clamp_logit_scale(module: nn.Module, largest: float) -> None:
    """Keep the temperature sane: logit_scale in 0..ln(largest)."""
    module.logit_scale.clamp_(0, math.log(largest))  # type: ignore[operator, union-attr]


def checkpoint_towers(module: nn.Module) -> bool:
    """Gradient checkpointing in both towers: activations are computed again in the backward pass, which saves
    memory and changes no value. False where the model has none (the small one needs none)."""
    switch = getattr(module, "set_grad_checkpointing", None)
    if switch is None:
        return False
    switch(True)
    return True
