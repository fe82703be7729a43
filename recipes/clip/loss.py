"""The contrastive loss over all processes: each computes the logits of its own pairs against everybody's.

Local loss with gathered gradients, as DataComp trains: a process holds (n, B) logits instead of (B, B), and
the gradient of every process's loss reaches the features it was computed from, wherever these were made. The
mean of the processes' losses, and of their gradients (which DDP takes), are those of one process with the
whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.clip.model import clip_loss
from recipes.training.world import World


def local_loss(image: Tensor, text: Tensor, scale: Tensor, world: World) -> Tensor:
    """Symmetric InfoNCE of this process's pairs against all. image, text: [n, d] of length 1, equally many in
    every process; scale: the factor of the cosines."""
    if world.size == 1:
        return clip_loss(image, text, scale)
    images, texts = Gather.apply(image, world), Gather.apply(text, world)
    target = torch.arange(len(image), device=image.device) + world.rank * len(image)
    of_images = F.cross_entropy(scale * image @ texts.T, target)
    of_texts = F.cross_entropy(scale * text @ images.T, target)
    return (of_images + of_texts) / 2


class Gather(torch.autograd.Function):
    """Rows of all processes one after the other; backward, the sum of all processes' gradients of mine."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        import torch.distributed as dist

        ctx.world, ctx.rows = world, len(rows)
        whole = rows.new_empty(len(rows) * world.size, *rows.shape[1:])
        dist.all_gather_into_tensor(whole, rows.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        import torch.distributed as dist

        whole = gradients[0].contiguous()
        if ctx.world.gpu:
            mine = whole.new_empty(ctx.rows, *whole.shape[1:])
            dist.reduce_scatter_tensor(mine, whole)
            return mine, None
        dist.all_reduce(whole)  # gloo scatters no sums
        first = ctx.world.rank * ctx.rows
        return whole[first : first + ctx.rows], None
