"""The decoder of DCLM's family, whole, in one file.

Pre-norm blocks, gain-only LayerNorm, rotary positions, query/key norm over the full vector, SwiGLU, no bias
anywhere, initialisation scaled down with depth (DCLM's OpenLM configurations, arXiv 2406.11794). What
a model needs to read on from what it has read is in ``recipes.lm.cache``.

Shapes in comments: B sequences, T positions, D = dim, H heads, K = head dim, F = feed-forward width,
V = vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.lm.cache import Cache, Past, Reading, causal


@dataclass(frozen=True)
class Shape:
    """Everything that decides the parameters and the function of a decoder."""

    vocab: int
    dim: int
    layers: int
    heads: int
    context: int
    """Longest sequence, in tokens, that the model is trained on and may be given."""
    tied: bool = False
    """Share the embedding matrix with the output head (DCLM does not; at tiny widths it pays)."""
    qk_norm: bool = True
    ffn_multiple: int = 256
    """The feed-forward width is 8/3 of ``dim``, rounded up to a multiple of this."""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(
                f"dim {self.dim} with {self.heads} heads gives head dim {self.dim / self.heads:g}; "
                "rotary positions need an even whole number"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def ffn_dim(self) -> int:
        return self.ffn_multiple * math.ceil((8 * self.dim // 3) / self.ffn_multiple)

    @property
    def parameters(self) -> int:
        """Number of parameters, embeddings included (each matrix once)."""
        norms = 2 + 2 * self.qk_norm
        block = 4 * self.dim**2 + 3 * self.dim * self.ffn_dim + norms * self.dim
        return self.layers * block + self.dim + self.vocab * self.dim * (1 if self.tied else 2)


class Norm(nn.Module):
    """LayerNorm with a gain and no bias, over the last axis; under autocast in its precision, as in DCLM."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., dim) -> (..., dim)
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)
        # Left to itself, autocast would take layer norms to fp32 on some devices.
        low = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            return F.layer_norm(x.to(low), self.weight.shape, self.weight.to(low), None, self.eps)


class Wanted:
    """Positions whose hidden states are wanted: ``flat`` (N,), ascending, row · T + column of a (B, T) batch.

    Where they are few, attention asks for them only, as rows padded to the most of any, Q: ``columns`` (B, Q)
    says which and ``slots`` (N,) where they then lie. Where they are many, ``columns`` is None: attention
    without a mask is quicker than with one, and only what follows it is left out.
    """

    FEW = 4  # at most one position in so many

    def __init__(self, flat: Tensor, b: int, t: int) -> None:
        self.flat = self.slots = flat
        self.columns: Tensor | None = None
        row = flat // t
        counts = row.bincount(minlength=b)
        q = int(counts.max())
        if self.FEW * q > t:
            return
        before = counts.cumsum(0) - counts
        self.slots = row * q + torch.arange(len(flat), device=flat.device) - before[row]
        columns = flat.new_zeros(b * q)  # padding asks for the first position: its states are finite
        columns[self.slots] = flat % t
        self.columns = columns.view(b, q)


class Attention(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads, self.head_dim = s.heads, s.head_dim
        self.qkv = nn.Linear(s.dim, 3 * s.dim, bias=False)
        self.out = nn.Linear(s.dim, s.dim, bias=False)
        self.q_norm = Norm(s.dim, s.norm_eps) if s.qk_norm else nn.Identity()
        self.k_norm = Norm(s.dim, s.norm_eps) if s.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None, at: Wanted | None = None
    ) -> Tensor:  # (B, T, D) -> (B, T, D), or (N, D) of the positions wanted
        b, t, d = x.shape  # cos and sin: (T, K), or (B, 1, T, K) where rows stand at different positions
        columns = None if at is None else at.columns
        if columns is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (B, T, D)
            q_cos, q_sin = cos, sin
        else:
            rows = torch.arange(b, device=x.device)[:, None]
            q = F.linear(x[rows, columns], self.qkv.weight[:d])  # (B, Q, D)
            k, v = F.linear(x, self.qkv.weight[d:]).chunk(2, dim=-1)
            q_cos, q_sin = (y.expand(b, 1, t, -1)[rows, 0, columns][:, None] for y in (cos, sin))
        q, k = self.q_norm(q), self.k_norm(k)  # over all heads at once, before the split
        q, k, v = (
            y.view(b, -1, self.heads, self.head_dim).transpose(1, 2) for y in (q, k, v)
        )  # (B, H, T, K)
        q, k = rotate(q, q_cos, q_sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)  # turned in fp32 at least
        attend = causal if past is None else past.attend
        y = attend(q, k, v, columns).transpose(1, 2)  # (B, T, H, K)
        y = y.reshape(b, t, d) if at is None else y.reshape(-1, d)[at.slots]
        return self.out(y)


class FeedForward(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_up = nn.Linear(s.dim, 2 * s.ffn_dim, bias=False)
        self.down = nn.Linear(s.ffn_dim, s.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        gate, up = self.gate_up(x).chunk(2, dim=-1)  # each (B, T, F)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norm(s.dim, s.norm_eps), Attention(s)
        self.ffn_norm, self.ffn = Norm(s.dim, s.norm_eps), FeedForward(s)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None, at: Wanted | None = None
    ) -> Tensor:  # (B, T, D) -> (B, T, D), or (N, D) of the positions wanted
        y = self.attention(self.attention_norm(x), cos, sin, past, at)
        x = (x if at is None else x.flatten(0, 1)[at.flat]) + y
        return x + self.ffn(self.ffn_norm(x))


class Decoder(nn.Module):
    """Token ids in, logits out. ``Decoder(shape, seed)`` is the same on every run and machine (fp32, CPU)."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.dim, shape.norm_eps)
        self.head = nn.Linear(shape.dim, shape.vocab, bias=False)
        if shape.tied:
            self.head.weight = self.embedding.weight
        cos, sin = rotary_table(shape.context, shape.head_dim, shape.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Normal, cut at 3 σ. Projections that write to the residual stream shrink with their depth."""
        generator = torch.Generator().manual_seed(seed)

        def fill(weight: Tensor, std: float) -> None:
            nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)

        s = self.shape
        fill(self.embedding.weight, s.dim**-0.5)
        if not s.tied:
            fill(self.head.weight, s.dim**-0.5)
        for depth, block in enumerate(self.blocks):
            shrink = (2 * (depth + 1)) ** -0.5
            fill(block.attention.qkv.weight, s.dim**-0.5)
            fill(block.attention.out.weight, s.dim**-0.5 * shrink)
            fill(block.ffn.gate_up.weight, s.dim**-0.5)
            fill(block.ffn.down.weight, s.ffn_dim**-0.5 * shrink)

    def hidden(self, ids: Tensor, at: Tensor | None = None) -> Tensor:
        """Normalised last hidden states: (B, T) -> (B, T, D). The head is left to the caller.

        ``at`` (N,), ascending, asks for positions row · T + column only: (N, D), the same as the whole's
        ``.flatten(0, 1)[at]`` up to float rounding. Beside its keys and values, the last block then
        computes nothing else.
        """
        b, t = ids.shape
        if t > self.shape.context:
            raise ValueError(f"{t} tokens, but the model's context is {self.shape.context}")
        x, wanted = self.embedding(ids), None if at is None else Wanted(at, b, t)
        for depth, block in enumerate(self.blocks, 1):
            x = block(x, self.cos[:t], self.sin[:t], at=wanted if depth == self.shape.layers else None)
        return self.norm(x)

    @torch.no_grad()
    def read(
        self, ids: Tensor, lengths: Tensor, cache: Cache | None = None, at: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """Read on: hidden states of new tokens, (B, T) -> (B, T, D), and the cache to go on from.

        Row b of ``ids`` holds ``lengths[b]`` tokens, then padding: any ids, whose hidden states mean nothing.
        Row b of ``cache`` is what was read before it; the cache is left as it was and may be read on from
        again. Equal to :meth:`hidden` of the joined rows up to float rounding; ``at`` is as there, and may be
        empty where only the cache is wanted. For inference only.
        """
        b, t = ids.shape
        if lengths.shape != (b,) or (cache is not None and cache.lengths.shape != (b,)):
            rows = "no cache" if cache is None else f"a cache of {len(cache.lengths)} rows"
            raise ValueError(f"{b} rows of ids with {tuple(lengths.shape)} lengths and {rows}")
        before = torch.zeros_like(lengths) if cache is None else cache.lengths
        after = before + lengths
        if int(after.max()) > self.shape.context:
            raise ValueError(f"{int(after.max())} tokens, but the model's context is {self.shape.context}")
        place = before[:, None] + torch.arange(t, device=ids.device)  # (B, T)
        place = place.clamp(max=self.shape.context - 1)  # padding may reach beyond the table
        cos, sin = self.cos[place][:, None], self.sin[place][:, None]  # (B, 1, T, K)
        if cache is None:
            pasts = [Past(n, None, None) for n in range(len(self.blocks))]
        else:
            reading = Reading(cache, t)
            pasts = [Past(n, layer, reading) for n, layer in enumerate(cache.layers)]
        x, wanted = self.embedding(ids), None if at is None else Wanted(at, b, t)
        for depth, (block, past) in enumerate(zip(self.blocks, pasts, strict=True), 1):
            x = block(x, cos, sin, past, wanted if depth == self.shape.layers else None)
        return self.norm(x), Cache(after, [p.layer for p in pasts], cache.stem if cache else None)

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        return self.head(self.hidden(ids))

    def loss(self, contexts: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Next-token loss of packed contexts (B, T+1): (objective with z-loss, cross-entropy in nats).

        z-loss = coefficient × mean(logsumexp(logits)²): keeps the logits' scale from drifting.
        """
        x = self.hidden(contexts[:, :-1]).flatten(0, 1)  # (B·T, D)
        return LinearCrossEntropy.apply(x, self.head.weight, contexts[:, 1:].flatten(), z_loss)


class LinearCrossEntropy(torch.autograd.Function):
    """Head, softmax, cross-entropy and z-loss in one pass over blocks of positions, gradients included.

    The logits are by far the largest tensor of a small model. Here a block of them lives in one scratch
    buffer (on a CPU it stays in cache), so they are neither stored for the backward pass nor walked over
    again. Under autocast, or when ``x`` itself is in bf16, matrices are multiplied in bf16; the softmax, the
    losses and the sum over blocks of the head's gradient are in fp32.
    """

    BLOCK = {"cpu": 1 << 19, "cuda": 1 << 27}  # logits a block

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
        kind = x.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            objective, cross_entropy, grad_x, grad_weight = LinearCrossEntropy._blocks(
                x.to(low), weight.to(low), targets, z_loss, any(ctx.needs_input_grad)
            )
        if grad_x is not None:
            ctx.save_for_backward(grad_x.to(x.dtype), grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(cross_entropy)
        return objective, cross_entropy

    @staticmethod
    def _blocks(x: Tensor, weight: Tensor, targets: Tensor, z_loss: float, need_grad: bool) -> tuple:
        n, vocab = len(x), len(weight)
        rows = min(n, max(1, LinearCrossEntropy.BLOCK.get(x.device.type, 1 << 24) // vocab))
        exact = torch.promote_types(x.dtype, torch.float32)
        scratch = x.new_empty(rows, vocab)
        lse, target_logit = (x.new_empty(n, 1, dtype=exact) for _ in range(2))
        grad_x = torch.empty_like(x) if need_grad else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if need_grad else None
        for i in range(0, n, rows):
            block, target = x[i : i + rows], targets[i : i + rows, None]
            logits = torch.mm(block, weight.T, out=scratch[: len(block)]).to(exact)
            target_logit[i : i + rows] = logits.gather(1, target)
            top = logits.amax(dim=1, keepdim=True)
            p = logits.sub_(top).exp_()
            total = p.sum(dim=1, keepdim=True)
            lse[i : i + rows] = top.add_(total.log())
            if need_grad:
                # d objective / d logits = softmax · (1 + 2 z lse) − onehot, all over n
                p.mul_((1 + 2 * z_loss * top) / (total * n))
                p.scatter_add_(1, target, p.new_full((len(block), 1), -1 / n))
                if x.dtype == exact:
                    torch.mm(p, weight, out=grad_x[i : i + rows])
                    grad_weight.addmm_(p.T, block)
                else:
                    p = p.to(x.dtype)
                    torch.mm(p, weight, out=grad_x[i : i + rows])
                    grad_weight += p.T @ block
        cross_entropy = (lse - target_logit).mean()
        return cross_entropy + z_loss * lse.square().mean(), cross_entropy, grad_x, grad_weight

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad * grad_x, grad * grad_weight, None, None


def rotary_table(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each (length, head_dim), for the half-rotation layout; computed in float64."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (K/2,)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency).repeat(1, 2)  # (T, K)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # (B, H, T, K), 2 × (T, K) -> (B, H, T, K)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
