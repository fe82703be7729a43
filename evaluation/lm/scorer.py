"""Log-probabilities of answers under our decoder: sorted by length, batched, head only where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.lm.prompts import Query

if TYPE_CHECKING:
    from recipes.lm.model import Decoder

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Scores:
    """Per query: ``logprob`` of the whole answer (nats), ``tokens`` in it, ``greedy`` = every token of it is
    the likeliest one. ``truncated`` counts queries that did not fit the context and lost their beginning."""

    logprob: np.ndarray
    tokens: np.ndarray
    greedy: np.ndarray
    truncated: int


class Scorer:
    """A model with its tokenizer, ready to score. ``progress`` is called with (done, total) queries."""

    def __init__(self, model: Decoder, tokenizer: Any) -> None:
        from recipes.lm.train_tokenizer import END_OF_TEXT

        self.model, self.tokenizer = model, tokenizer
        self.context = model.shape.context
        self.end = tokenizer.token_to_id(END_OF_TEXT)

    @classmethod
    def load(cls, model_dir: str | Path) -> Scorer:
        from recipes.lm.train import load_model

        model, tokenizer, _ = load_model(model_dir)
        return cls(model, tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def queries(self, queries: Sequence[Query]) -> Scores:
        """Score every query. A query without any context is read after the end-of-text token."""
        parts = {text: 0 for q in queries for text in (q.preamble, q.context, q.answer)}
        ids = dict(zip(parts, self.encode(list(parts)), strict=True))
        rows, answers, truncated = [], [], 0
        for q in queries:
            context, answer = ids[q.preamble] + ids[q.context], ids[q.answer]
            row = (context or [self.end]) + answer
            truncated += len(row) > self.context
            row = row[-self.context :]
            rows.append(row)
            answers.append(min(len(answer), len(row) - 1))
        logprob, greedy = self._score(rows, answers)
        return Scores(logprob, np.array(answers), greedy, truncated)

    def text(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probability (nats) of each whole text, read in windows of the context's length.

        The first window begins with the end-of-text token, every later one with the last token of the one
        before, so that each token is predicted exactly once.
        """
        rows, owner = [], []
        for number, ids in enumerate(self.encode(texts)):
            stream = [self.end, *ids]
            for i in range(0, len(stream) - 1, self.context):
                rows.append(stream[i : i + self.context + 1])
                owner.append(number)
        logprob, _ = self._score(rows, [len(row) - 1 for row in rows])
        return np.bincount(owner, weights=logprob, minlength=len(texts))

    def _score(self, rows: list[list[int]], answers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Sum of log-probabilities of the last ``answers[i]`` tokens of each row; whether all are argmax."""
        import torch

        logprob, greedy = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        begin = 0
        with torch.inference_mode():
            while begin < len(order):
                end = begin + 1
                while end < len(order) and (end + 1 - begin) * len(rows[order[end]]) <= BATCH_TOKENS:
                    end += 1
                batch = order[begin:end]
                width = len(rows[batch[-1]])
                # Padding stands after the text, where causal attention cannot see it.
                ids = np.zeros((len(batch), width), dtype=np.int64)
                wanted = np.zeros((len(batch), width - 1), dtype=bool)
                for k, i in enumerate(batch):
                    n = len(rows[i])
                    ids[k, :n] = rows[i]
                    wanted[k, n - 1 - answers[i] : n - 1] = True
                tensor, mask = torch.from_numpy(ids), torch.from_numpy(wanted)
                hidden = self.model.hidden(tensor[:, :-1])[mask]  # (answer tokens, D)
                target = tensor[:, 1:][mask]
                value, top = self._head(hidden, target)
                lengths = [answers[i] for i in batch]
                starts = np.cumsum([0, *lengths[:-1]])
                logprob[batch] = np.add.reduceat(value, starts)
                greedy[batch] = np.logical_and.reduceat(top, starts)
                begin = end
        return logprob, greedy

    def _head(self, hidden: Any, target: Any, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Per position: log-probability of the target, and whether it is the likeliest token."""
        import torch

        values, tops = [], []
        for i in range(0, len(hidden), block):
            logits = self.model.head(hidden[i : i + block]).float()
            chosen = logits.gather(1, target[i : i + block, None])[:, 0]
            values.append(chosen - logits.logsumexp(1))
            tops.append(logits.argmax(1) == target[i : i + block])
        return torch.cat(values).double().numpy(), torch.cat(tops).numpy()
