"""Log-probabilities of answers under our decoder: shared beginnings read once, batches by length, the last
block and the head only where an answer is predicted, any number of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.lm import batches as batching
from evaluation.lm.prompts import Query

if TYPE_CHECKING:
    from evaluation.lm.devices import Here, Runner
    from recipes.lm.model import Decoder

BATCH_TOKENS = 4096
"""Tokens of one read on a CPU; a GPU wants more (``Scorer.load`` asks for 16 times as many)."""
HEAD_STATES = 256
"""Positions that the head is applied to at once on a CPU, (16 times as many on a GPU): bounds the logits."""

Progress = Callable[[float], None]
"""Called with the share of the work of the call that is done, 0..1."""


@dataclass(frozen=True)
class Scores:
    """Per query: ``logprob`` of the whole answer (nats), ``tokens`` in it, ``greedy`` = every token of it is
    the likeliest one. ``truncated`` counts queries that did not fit the context and lost their beginning."""

    logprob: np.ndarray
    tokens: np.ndarray
    greedy: np.ndarray
    truncated: int


class Scorer:
    """A model with its tokenizer, ready to score.

    ``runner`` says where batches run (default: here, on the model's device); ``limits`` bound one batch;
    ``share=False`` reads every text whole, from its first token (the plain path, for tests and timings).
    """

    def __init__(
        self,
        model: Decoder | None,
        tokenizer: Any,
        *,
        runner: Runner | None = None,
        context: int | None = None,
        batch_tokens: int | None = None,
        cached: int | None = None,
        share: bool = True,
    ) -> None:
        from evaluation.lm.devices import Here
        from recipes.lm.train_tokenizer import end_of_text

        if runner is None:
            assert model is not None, "a scorer needs a model or a runner that has one"
            runner = Here(model, tokenizer)
        self.model, self.tokenizer, self.runner = model, tokenizer, runner
        self.context = context if context is not None else model.shape.context  # type: ignore[union-attr]
        self.end = end_of_text(tokenizer)
        self.batch_tokens, self.cached, self.share = batch_tokens, cached, share

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        *,
        devices: Sequence[str] = (),
        precision: str = "fp32",
        batch_tokens: int | None = None,
        threads: int = 1,
    ) -> Scorer:
        """A trained model on ``devices`` (``cpu``, ``cuda:0``, …; default: the machine's best one).

        With several, each gets a process and batches are dealt out among them; the figures are the same.
        ``precision``: ``fp32`` (DCLM's) or ``bf16``.
        """
        from evaluation.lm.devices import Here, Pool, best_device
        from recipes.lm.train import load_model

        devices = list(devices) or [best_device()]
        model, tokenizer, _ = load_model(model_dir)
        if batch_tokens is None and devices[0] != "cpu":
            batch_tokens = 16 * BATCH_TOKENS
        context, cached = model.shape.context, cached_positions(model.shape, devices[0])
        if len(devices) == 1:
            runner: Runner = Here(model, tokenizer, devices[0], precision)
        else:
            model, runner = None, Pool(model_dir, devices, precision, threads)
        return cls(model, tokenizer, runner=runner, context=context, batch_tokens=batch_tokens, cached=cached)

    def close(self) -> None:
        self.runner.close()

    @property
    def limits(self) -> batching.Limits:
        tokens = self.batch_tokens or BATCH_TOKENS
        return batching.Limits(tokens, self.cached or 16 * tokens)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def queries(self, queries: Sequence[Query], progress: Progress | None = None) -> Scores:
        """Score every query. A query without any context is read after the end-of-text token."""
        parts = {text: 0 for q in queries for text in (q.preamble, q.context, q.answer)}
        ids = {
            text: np.array(i, dtype=np.int64) for text, i in zip(parts, self.encode(list(parts)), strict=True)
        }
        end = np.array([self.end], dtype=np.int64)
        rows, answers, truncated = [], [], 0
        for q in queries:
            preamble, context, answer = ids[q.preamble], ids[q.context], ids[q.answer]
            if not len(preamble) + len(context):
                context = end
            row = np.concatenate([preamble, context, answer])
            truncated += len(row) > self.context
            row = row[-self.context :]
            rows.append(row)
            answers.append(min(len(answer), len(row) - 1))
        logprob, greedy = self.score(rows, answers, progress)
        return Scores(logprob, np.array(answers), greedy, truncated)

    def text(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Log-probability (nats) of each whole text, read in windows of the context's length.

        The first window begins with the end-of-text token, every later one with the last token of the one
        before, so that each token is predicted exactly once.
        """
        rows, owner = [], []
        for number, ids in enumerate(self.encode(texts)):
            stream = np.array([self.end, *ids], dtype=np.int64)
            for i in range(0, len(stream) - 1, self.context):
                rows.append(stream[i : i + self.context + 1])
                owner.append(number)
        logprob, _ = self.score(rows, [len(row) - 1 for row in rows], progress)
        return np.bincount(owner, weights=logprob, minlength=len(texts))

    def score(
        self, rows: list[np.ndarray], answers: list[int], progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sum of log-probabilities of the last ``answers[i]`` tokens of each row; whether all are argmax."""
        logprob, greedy = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        gain = batching.MERGE_GAIN if self.share else 1 << 60
        work = batching.plan(rows, answers, self.limits, gain)
        total, done = sum(batch.tokens for batch in work), 0
        for batch, (value, top) in self.runner.map(score_batch, work):
            owner = np.repeat(np.arange(len(batch.rows)), batch.counts)
            logprob[batch.rows] = np.bincount(owner, weights=value, minlength=len(batch.rows))
            greedy[batch.rows] = np.bincount(owner, weights=~top, minlength=len(batch.rows)) == 0
            done += batch.tokens
            if progress:
                progress(done / total)
        return logprob, greedy


def score_batch(place: Here, batch: batching.Batch) -> tuple[np.ndarray, np.ndarray]:
    """Per scored token of the batch: its log-probability (float64 of a float32), and whether it is the
    likeliest token."""
    import torch

    model = place.model
    device = model.head.weight.device

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    # Padding stands after the text, where causal attention cannot see it.
    ids, at = tensor(batch.ids), tensor(batch.states[0])
    if batch.rests:
        hidden, cache = model.read(ids, tensor(batch.lengths), at=at)
    else:
        hidden, cache = model.hidden(ids, at), None
    states = [hidden]
    for rest, take in zip(batch.rests, batch.states[1:], strict=True):
        part = cache.select(tensor(rest.owner), share=True)
        hidden, _ = model.read(tensor(rest.ids), tensor(rest.lengths), part, tensor(take))
        states.append(hidden)
    value, top = _head(model, torch.cat(states), tensor(batch.source), tensor(batch.target))
    return value.double().cpu().numpy(), top.cpu().numpy()


def _head(model: Decoder, states: Any, source: Any, target: Any) -> tuple[Any, Any]:
    """Vocabulary projection in blocks of states: log-probability of ``target[m]`` at state ``source[m]``, and
    whether it is the argmax. Each state is projected once, whatever the number of targets."""
    import torch

    block = HEAD_STATES * (1 if states.device.type == "cpu" else 16)
    value = torch.empty(len(source), dtype=torch.float32, device=states.device)
    top = torch.empty(len(source), dtype=torch.bool, device=states.device)
    order = torch.argsort(source, stable=True)
    edges = torch.searchsorted(
        source[order], torch.arange(0, len(states) + block, block, device=states.device)
    )
    for k, i in enumerate(range(0, len(states), block)):
        logits = model.head(states[i : i + block]).float()
        mine = order[edges[k] : edges[k + 1]]
        row, wanted = source[mine] - i, target[mine]
        value[mine] = logits[row, wanted] - logits.logsumexp(1)[row]
        top[mine] = logits.argmax(1)[row] == wanted
    return value, top


def cached_positions(shape: Any, device: str) -> int:
    """Positions whose keys and values fit the part of the memory that caches may take: a quarter of what is
    free on a GPU, 1 GiB on a CPU."""
    free = 4 << 30
    if device.startswith("cuda"):
        import torch

        free = torch.cuda.mem_get_info(device)[0]
    return max(1, free // 4 // (8 * shape.layers * shape.dim))  # 2 × 4 bytes (fp32) a value
