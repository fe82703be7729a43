"""The small CLIP for CPUs: patch-stem convolutions for images, a bag of hashed words for text."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SMALL_DEFAULTS: dict[str, Any] = {
    "widths": [32, 64, 128],
    "embed_dim": 128,
    "vocab": 4096,
    "text_width": 96,
    "context": 16,
    "text_init": 0.02,
}
WORD = re.compile(r"\w+")


class HashedWords:
    """Tokeniser of the small model: lower-case words hashed (CRC-32) into `vocab` ids; 0 is padding.

    texts → int64 [n, context]. Words past `context` are dropped. No vocabulary file, same ids everywhere.
    """

    def __init__(self, vocab: int, context: int):
        self.vocab, self.context = vocab, context
        self._ids: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        out = np.zeros((len(texts), self.context), np.int64)
        ids = self._ids
        for row, text in enumerate(texts):
            for at, word in enumerate(WORD.findall(text.lower())[: self.context]):
                token = ids.get(word)
                if token is None:
                    token = ids[word] = 1 + zlib.crc32(word.encode()) % (self.vocab - 1)
                out[row, at] = token
        return torch.from_numpy(out)


class SmallTwoTower(nn.Module):
    """0.5 M-parameter CLIP for CPUs: patch-stem convolutions for images, a bag of hashed words for text.

    image float32 [n, 3, s, s] → 4×4 patches → two 3×3 stride-2 convolutions → mean → linear [n, embed_dim].
    text int64 [n, context] → summed embeddings → LayerNorm → linear [n, embed_dim]. Both come out normalised.
    """

    def __init__(
        self,
        widths: Sequence[int],
        embed_dim: int,
        vocab: int,
        text_width: int,
        context: int,
        text_init: float = 0.02,
    ):
        super().__init__()
        a, b, d = widths
        self.visual = nn.Sequential(
            *_conv(3, a, kernel=4, stride=4, padding=0),
            *_conv(a, b, kernel=3, stride=2, padding=1),
            *_conv(b, d, kernel=3, stride=2, padding=1),
        )
        self.visual_proj = nn.Linear(d, embed_dim, bias=False)
        self.words = nn.EmbeddingBag(vocab, text_width, mode="sum", padding_idx=0)
        with torch.no_grad():  # unit variance, the default, drowns what few updates a rare word gets
            self.words.weight.mul_(text_init)
        self.text_norm = nn.LayerNorm(text_width)
        self.text_proj = nn.Linear(text_width, embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, image: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        out = self.visual_proj(self.visual(image).mean((2, 3)))
        return F.normalize(out, dim=-1) if normalize else out

    def encode_text(self, text: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        out = self.text_proj(self.text_norm(self.words(text)))
        return F.normalize(out, dim=-1) if normalize else out


def _conv(n_in: int, n_out: int, kernel: int, stride: int, padding: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )
