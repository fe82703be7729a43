"""From log-probabilities to a task's figures, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import stats
from evaluation.lm.scorer import Scores
from evaluation.lm.tasks import CHOICE_KINDS, Task

LN2 = math.log(2)


@dataclass(frozen=True)
class Figure:
    value: float
    stderr: float


@dataclass(frozen=True)
class ItemScores:
    """Per item of a task: ``correct`` (DCLM's decision), ``probability`` of the right answer among the
    choices (NaN where there are none), ``bits`` and ``bytes`` of the right answer."""

    correct: np.ndarray
    probability: np.ndarray
    bits: np.ndarray
    bytes: np.ndarray


def item_scores(
    task: Task, items: Sequence[dict[str, Any]], counts: Sequence[int], scores: Scores
) -> ItemScores:
    """``counts[i]`` queries belong to item i, in order.

    Multiple choice and schema: the choice with the smallest mean cross-entropy per token, the first of equal
    ones. Language modelling: every token of the answer is the likeliest. ``probability`` is the softmax of
    the whole answers' log-probabilities: what a reader would bet who knew that one of them is right.
    """
    n = len(counts)
    correct, probability = np.zeros(n), np.full(n, math.nan)
    bits, size = np.zeros(n), np.zeros(n)
    at = 0
    for i, (item, count) in enumerate(zip(items[:n], counts, strict=True)):
        logprob, tokens = scores.logprob[at : at + count], scores.tokens[at : at + count]
        if task.kind in CHOICE_KINDS:
            gold = item["gold"]
            correct[i] = int(np.argmax(logprob / np.maximum(tokens, 1))) == gold
            odds = np.exp(logprob - logprob.max())
            probability[i] = odds[gold] / odds.sum()
            answer = item["continuation"] if task.kind == "schema" else item["choices"][gold]
            bits[i] = -logprob[gold] / LN2
        else:
            correct[i] = scores.greedy[at]
            answer = item["continuation"]
            bits[i] = -logprob[0] / LN2
        size[i] = len(answer.encode())
        at += count
    return ItemScores(correct, probability, bits, size)


def task_metrics(task: Task, items: Sequence[dict[str, Any]], scores: ItemScores) -> dict[str, Figure]:
    """Every figure that the kind of the task has. ``grouped`` tasks: the plain mean over categories."""
    per_item = {"accuracy": scores.correct}
    if task.kind in CHOICE_KINDS:
        per_item["choice_probability"] = scores.probability
    else:
        per_item["bits_per_answer"] = scores.bits
    figures = {}
    for name, values in per_item.items():
        if task.grouped:
            groups: dict[str, list[float]] = {}
            for item, value in zip(items, values, strict=False):
                groups.setdefault(str(item.get("category")), []).append(value)
            means = [stats.mean_and_stderr(v) for v in groups.values()]
            figures[name] = Figure(
                float(np.mean([m for m, _ in means])), stats.mean_of_independent([e for _, e in means])
            )
        else:
            figures[name] = Figure(*stats.mean_and_stderr(values))
    if scores.bytes.sum():
        figures["bits_per_byte"] = Figure(*stats.ratio_and_stderr(scores.bits, scores.bytes))
    return figures


def text_metrics(texts: Sequence[str], logprob: np.ndarray) -> dict[str, Figure]:
    """Bits per byte over whole documents; documents, not tokens, are the independent units."""
    size = [len(text.encode()) for text in texts]
    return {"bits_per_byte": Figure(*stats.ratio_and_stderr(-logprob / LN2, size))}


def centered(value: float, chance: float) -> float:
    """0 at chance, 1 at perfection (DCLM's centring)."""
    return (value - chance) / (1 - chance)
