"""Texts without their padding: the same features for a fraction of the work.

CLIP's text tower reads 77 positions whatever the text. Its attention is causal and its output is read where
the text ends, so what stands after the last end of a batch cannot reach any output: those positions are cut
off. A class prompt has about ten tokens. Only for open_clip's ``CLIP``, whose tower is so; others stay whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

STEP = 8
"""Lengths are multiples of this (of the context, where that is shorter), which matrix kernels like."""


def trimmed(tower: Any) -> Any:
    """The tower with a text side that reads no padding; the tower itself, where that may not be right."""
    module = getattr(tower, "module", None)
    return replace(tower, module=_Trimmed(module)) if module is not None and can_trim(module) else tower


def can_trim(module: nn.Module) -> bool:
    """Whether the text tower is causal, is read at the largest token (the end of the text), and adds one
    vector per position."""
    if not type(module).__module__.startswith("open_clip"):
        return False
    import open_clip  # it is loaded: the module is one of its classes

    if not isinstance(module, open_clip.model.CLIP) or module.text_pool_type != "argmax":
        return False
    mask, positions = module.attn_mask, module.positional_embedding
    if mask is None or positions is None or mask.shape != (len(positions),) * 2:
        return False
    causal = torch.triu(torch.full(mask.shape, -torch.inf, device=mask.device), diagonal=1)
    return bool(torch.equal(mask.float(), causal))


class _Trimmed(nn.Module):
    """What ``TwoTower`` needs of a module."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.text = _Text(clip)

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        return self.text.clip.encode_image(image, normalize=normalize)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        clip = self.text.clip
        longest = int(text.argmax(-1).max()) + 1
        length = min(text.shape[1], -(-longest // STEP) * STEP)
        if length == text.shape[1]:
            return clip.encode_text(text, normalize=normalize)
        short = {
            "clip.positional_embedding": clip.positional_embedding[:length],
            "clip.attn_mask": clip.attn_mask[:length, :length],
        }
        return torch.func.functional_call(self.text, short, (text[:, :length], normalize))


class _Text(nn.Module):
    """A forward pass that is the text tower's, for ``functional_call``."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, text: Tensor, normalize: bool) -> Tensor:
        return self.clip.encode_text(text, normalize=normalize)
