"""Greedy generation for many prompts at once: each prompt is read once, then one token a step for all rows
that are not done.

A row ends at the end-of-text token, when its text contains one of its stop strings, or after ``new`` tokens.
The rules are those of llm-foundry's generation tasks (DCLM): a prompt that leaves no room for its answer
loses its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from evaluation.lm.devices import Here
    from evaluation.lm.scorer import Progress, Scorer


@dataclass(frozen=True)
class Request:
    """One text to go on from. ``ids`` are not empty; ``new`` tokens at most are added."""

    ids: np.ndarray
    new: int
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationBatch:
    requests: tuple[Request, ...]
    numbers: tuple[int, ...]
    """Places of the requests in the call."""
    end: int
    """Id of the token that ends a text."""

    @property
    def tokens(self) -> int:
        return sum(len(r.ids) + r.new for r in self.requests)


def generate(scorer: Scorer, requests: Sequence[Request], progress: Progress | None = None) -> list[str]:
    """The generated text of each request, up to and with its stop string (the caller cuts).

    Equal to a loop that reads the whole text again for every token, except where the two likeliest tokens
    are equal within float rounding.
    """
    for number, request in enumerate(requests):
        if not len(request.ids) or request.new < 1:
            raise ValueError(
                f"request {number}: {len(request.ids)} tokens to go on from, {request.new} to add"
            )
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids) - requests[i].new)
    work, begin, limits = [], 0, scorer.limits
    while begin < len(order):
        longest = len(requests[order[begin]].ids) + requests[order[begin]].new
        # Steps are bound by reading the weights: rows are nearly free, so caches may fill (twice: a step
        # writes new ones beside the old).
        size = max(1, min(limits.cached // (2 * longest), 4 * limits.tokens // longest))
        some = order[begin : begin + size]
        work.append(GenerationBatch(tuple(requests[i] for i in some), tuple(some), scorer.end))
        begin += size
    texts = [""] * len(requests)
    total, done = sum(batch.tokens for batch in work), 0
    for batch, generated in scorer.runner.map(generate_batch, work):
        for i, ids in zip(batch.numbers, generated, strict=True):
            texts[i] = scorer.tokenizer.decode(ids)
        done += batch.tokens
        if progress:
            progress(done / total)
    return texts


def fit(ids: Sequence[int] | np.ndarray, new: int, context: int) -> np.ndarray:
    """The last tokens of a prompt that leave room for ``new`` more in the context."""
    return np.asarray(ids, dtype=np.int64)[-max(1, context - new) :]


def generate_batch(place: Here, batch: GenerationBatch) -> list[list[int]]:
    """Token ids added to each request, the end-of-text token left out."""
    import torch

    model, tokenizer, requests = place.model, place.tokenizer, batch.requests
    device = model.head.weight.device
    lengths = np.array([len(r.ids) for r in requests], dtype=np.int64)
    ids = np.zeros((len(requests), lengths.max()), dtype=np.int64)
    for b, request in enumerate(requests):
        ids[b, : lengths[b]] = request.ids
    out: list[list[int]] = [[] for _ in requests]
    active = list(range(len(requests)))
    hidden, cache = model.read(torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device))
    last = hidden[torch.arange(len(requests)), torch.from_numpy(lengths - 1).to(device)]
    while True:
        likeliest = model.head(last).float().argmax(1).tolist()
        going = []
        for k, (b, token) in enumerate(zip(active, likeliest, strict=True)):
            if token == batch.end:
                continue
            out[b].append(token)
            if len(out[b]) < requests[b].new and not stopped(tokenizer, out[b], requests[b].stops):
                going.append(k)
        if not going:
            return out
        if len(going) < len(active):
            cache = cache.select(torch.tensor(going, device=device))
            active = [active[k] for k in going]
        new = torch.tensor([[out[b][-1]] for b in active], device=device)
        hidden, cache = model.read(new, torch.ones(len(active), dtype=torch.int64, device=device), cache)
        last = hidden[:, 0]


def stopped(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether the last token completed a stop string. Only the end is decoded: a token has at least one byte,
    so the string lies in as many tokens as it has bytes, and one more for what shares the last token."""
    if not stops:
        return False
    tail = tokenizer.decode(list(ids[-(1 + max(len(stop.encode()) for stop in stops)) :]))
    return any(stop in tail for stop in stops)
