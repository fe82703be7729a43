"""What a decoder has read, kept as keys and values, so that reading on costs only the new tokens.

Rows that share a beginning (the choices of one question) share its keys and values: each beginning attends
once for all of its rows, and what a row read itself is joined by the softmax's own sums (the split of
"Hydragen", arXiv 2402.05099). Shapes in comments as in ``recipes.lm.model``; S = positions kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = tuple[Tensor, Tensor]  # keys and values, (B, H, S, K) each


def causal(q: Tensor, k: Tensor, v: Tensor, columns: Tensor | None = None) -> Tensor:
    """(B, H, Q, K) of queries at ``columns`` (B, Q), over keys and values (B, H, T, K); None = one each."""
    if columns is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if not columns.numel():
        return q
    seen = torch.arange(k.shape[2], device=k.device) <= columns[:, None, :, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class Cache:
    """What a batch of rows has read so far: keys and values of every layer, to read on from.

    Never changed by reading on: :meth:`Decoder.read` returns a longer one. A row is its part of a stem that
    it may share with other rows (made by :meth:`select`, kept once), and then what it read itself.
    """

    def __init__(self, lengths: Tensor, layers: list[Layer], stem: Stem | None = None) -> None:
        self.lengths = lengths  # (B,) int64: tokens read, per row
        # Keys and values of each layer, (B, H, S, K): what a row read itself, then room for more.
        self.layers = layers
        self.stem = stem
        self.room_taken = False  # has a longer cache been written into the room behind this one?

    def select(self, rows: Tensor, share: bool = False) -> Cache:
        """The cache of the rows numbered ``rows`` (N,), in that order; a row may come many times or never.

        ``share``: a few tokens will be read on, so what was read had better stay where it is than be copied.
        """
        lengths = self.lengths[rows]
        exact = self.layers[0][0].dtype in (torch.float32, torch.float64)
        if self.stem is None and len(rows) > (0 if share else len(self.lengths)) and exact:
            # What was read is kept once, as where rows come more than once, and what follows grows apart.
            # (Not in bf16, where scores that are not inside a fused kernel would be rounded.)
            longest = int(self.lengths.max())
            stem = Stem([(k[:, :, :longest], v[:, :, :longest]) for k, v in self.layers], self.lengths, rows)
            empty = [(k[rows, :, :0], v[rows, :, :0]) for k, v in self.layers]
            return Cache(lengths, empty, stem)
        own = lengths if self.stem is None else lengths - self.stem.row_lengths()[rows]
        longest = int(own.max()) if len(rows) else 0
        layers = [(k[rows, :, :longest], v[rows, :, :longest]) for k, v in self.layers]
        return Cache(lengths, layers, None if self.stem is None else self.stem.select(rows))


class Stem:
    """Beginnings that several rows of a cache share: row b goes on from beginning ``owner[b]``."""

    def __init__(self, layers: list[Layer], lengths: Tensor, owner: Tensor) -> None:
        self.layers, self.lengths, self.owner = layers, lengths, owner
        used, place, sizes = owner.unique(return_inverse=True, return_counts=True)
        # Rows of one beginning attend to it together: table (P, G) has the rows of each beginning, filled up
        # with its last one; slot (B,) says where a row stands in it.
        rank = torch.empty_like(owner)
        order = place.argsort(stable=True)
        first = sizes.cumsum(0) - sizes
        rank[order] = torch.arange(len(owner), device=owner.device) - first.repeat_interleave(sizes)
        widest = int(sizes.max())
        columns = torch.arange(widest, device=owner.device).minimum(sizes[:, None] - 1)
        self.table = order[first[:, None] + columns]
        self.slot = place * widest + rank
        self.used = None if len(used) == len(lengths) else used
        lengths = lengths[used]
        even = int(lengths.min()) == layers[0][0].shape[2]
        places = torch.arange(layers[0][0].shape[2], device=owner.device)
        self.mask = None if even else (places < lengths[:, None])[:, None, None]  # (P, 1, 1, S)

    def row_lengths(self) -> Tensor:  # (B,)
        return self.lengths[self.owner]

    def select(self, rows: Tensor) -> Stem:
        return Stem(self.layers, self.lengths, self.owner[rows])

    def attend(self, layer: int, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """:func:`partial_attention` of every row, (B, H, T, K), over its beginning."""
        keys, values = self.layers[layer]
        if self.used is not None:
            keys, values = keys[self.used], values[self.used]
        p, g = self.table.shape
        _, h, t, d = q.shape
        grouped = q[self.table].transpose(1, 2).reshape(p, h, g * t, d)
        parts = partial_attention(grouped, keys, values, self.mask)
        return tuple(  # type: ignore[return-value]
            y.view(p, h, g, t, -1).transpose(1, 2).reshape(p * g, h, t, -1)[self.slot] for y in parts
        )


def partial_attention(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over a part of the keys, to be joined with other parts.

    (largest score, sum of exp(score − largest), values weighted by them): (…, 1), (…, 1), (…, K).
    """
    scores = (q * q.shape[-1] ** -0.5) @ keys.mT
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return top, weights.sum(-1, keepdim=True), weights @ values


class Past:
    """The attention of one layer over what was read before and the new tokens, whose keys and values it keeps
    in ``layer`` for the next read."""

    def __init__(self, number: int, layer: Layer | None, reading: Reading | None) -> None:
        self.number, self.layer, self.reading = number, layer, reading

    def attend(self, q: Tensor, k: Tensor, v: Tensor, columns: Tensor | None = None) -> Tensor:
        """(B, H, Q, K) of queries at ``columns`` (B, Q) of the new tokens (B, H, T, K); None = one each."""
        r = self.reading
        if self.layer is None:
            self.layer = (k, v.contiguous())  # v alone, not the memory of q and k beside it
            return causal(q, k, v, columns)
        keys, values = self.layer = (r.append(self.layer[0], k), r.append(self.layer[1], v))
        keys, values = keys[:, :, : r.width], values[:, :, : r.width]
        if not q.shape[2]:
            return q
        mask = r.mask_at(columns)
        if r.stem is None:
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        top, total, y = r.stem.attend(self.number, q)
        own_top, own_total, own = partial_attention(q, keys, values, mask)
        highest = torch.maximum(top, own_top)
        scale, own_scale = (top - highest).exp_(), (own_top - highest).exp_()
        return (y * scale + own * own_scale) / (total * scale + own_total * own_scale)


class Reading:
    """Where the new tokens of a read stand, the same in all layers."""

    ROOM = 64  # tokens; for reading on one by one without copying what was read each time

    def __init__(self, cache: Cache, t: int) -> None:
        self.stem = cache.stem
        own = cache.lengths if self.stem is None else cache.lengths - self.stem.row_lengths()
        longest = int(own.max())
        even = int(own.min()) == longest
        device = own.device
        self.start = longest if even else None
        place = own[:, None] + torch.arange(t, device=device)  # (B, T): where the new keys go
        self.place = place[:, None, :, None]
        self.width = longest + t
        # Key j is seen by the tokens at places j and after; none = all keys are seen.
        seen = self.place[: 1 if even else None]
        self.mask = None if even and t == 1 else torch.arange(self.width, device=device) <= seen
        room = cache.layers[0][0].shape[2]
        self.in_place = self.width <= room and not cache.room_taken
        if self.in_place:
            cache.room_taken = True
        self.room = self.width + (self.ROOM if t == 1 else 0)

    def mask_at(self, columns: Tensor | None) -> Tensor | None:
        """Which keys the new tokens at ``columns`` (B, Q) see: (B, 1, Q, S); None = all of them."""
        if columns is None or self.mask is None:
            return self.mask
        rows = torch.arange(len(columns), device=columns.device)[:, None]
        return self.mask.expand(len(columns), -1, -1, -1)[rows, 0, columns][:, None]

    def append(self, old: Tensor, new: Tensor) -> Tensor:
        if not self.in_place:
            have = min(old.shape[2], self.width)
            if have == 0:
                return new
            grown = new.new_empty(*new.shape[:2], self.room, new.shape[3])
            grown[:, :, :have] = old[:, :, :have]
            grown[:, :, have:] = 0  # even what is masked must be finite
            old = grown
        if self.start is not None:
            old[:, :, self.start : self.width] = new
            return old
        return old.scatter_(2, self.place.expand_as(new), new)
