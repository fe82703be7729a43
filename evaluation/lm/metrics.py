"""From log-probabilities to a task's figures, each with its standard error.

| figure | kinds | what it is |
|--|--|--|
| ``accuracy`` | all but text | DCLM's decision (``compat``): the published scores |
| ``accuracy_corrected`` | all but text | the same decision with its broken rules mended, see below |
| ``choice_probability`` | choices | softmax over the choices of log p(choice) |
| ``choice_probability_per_token`` | choices | 〃 of log p(choice) / its tokens: what accuracy is decided on |
| ``choice_probability_per_byte`` | choices | 〃 of log p(choice) / its bytes: the same for every tokenizer |
| ``bits_per_byte`` | all | −log2 p(right answer) summed over the items / its bytes |
| ``bits_per_answer`` | LM, generation | −log2 p(right answer), the mean over the items |

The three probabilities are of the *right* choice, and the mean over items: at chance where the model knows
nothing, 1 where it is sure of every answer, and moving long before an accuracy leaves chance. A schema's
choices are its contexts; its answer is the continuation, the same after each of them.

Corrected: choices that tie for the best share the item (DCLM gives it to the first, which rewards a model
that says nothing where the right choice is always the first, as in bigbench_novel_concepts and
bigbench_strange_stories), and a choice with the very text of the right one is right. Generation:
``evaluation.lm.answers``. Language modelling has no broken rule: the two figures are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import stats
from evaluation.lm.answers import Decision
from evaluation.lm.scorer import Scores
from evaluation.lm.tasks import CHOICE_KINDS, Task

LN2 = math.log(2)
TIE = 1e-6
"""Nats per token within which two choices are the same: what float32 sums leave open."""


@dataclass(frozen=True)
class Figure:
    value: float
    stderr: float


@dataclass(frozen=True)
class ItemScores:
    """Per item of a task: ``correct`` (DCLM's decision), ``probability`` of the right answer among the
    choices (NaN where there are none), ``bits`` and ``bytes`` of the right answer; beside ``correct`` the
    ``corrected`` one (0..1), and ``probability`` from log-probabilities ``per_token`` and ``per_byte``."""

    correct: np.ndarray
    probability: np.ndarray
    bits: np.ndarray
    bytes: np.ndarray
    corrected: np.ndarray | None = None
    per_token: np.ndarray | None = None
    per_byte: np.ndarray | None = None


def item_scores(
    task: Task,
    items: Sequence[dict[str, Any]],
    counts: Sequence[int],
    scores: Scores,
    decisions: Sequence[Decision] | None = None,
) -> ItemScores:
    """``counts[i]`` queries belong to item i, in order (``prompts.item_queries``).

    Multiple choice and schema: the choice with the smallest mean cross-entropy per token, the first of equal
    ones. Language modelling: every token of the answer is the likeliest. Generation: ``decisions``, one an
    item; the queries are the reference answers.
    """
    n = len(counts)
    if (decisions is None) == (task.kind == "generation") or (decisions is not None and len(decisions) != n):
        have = "none" if decisions is None else str(len(decisions))
        raise ValueError(f"task {task.name!r} ({task.kind}), {n} items: got {have} decisions on texts")
    correct, corrected = np.zeros(n), np.zeros(n)
    probability, per_token, per_byte = (np.full(n, math.nan) for _ in range(3))
    bits, size = np.zeros(n), np.zeros(n)
    at = 0
    for i, (item, count) in enumerate(zip(items[:n], counts, strict=True)):
        logprob, tokens = scores.logprob[at : at + count], scores.tokens[at : at + count]
        gold = item["gold"] if task.kind in CHOICE_KINDS else 0
        if task.kind in CHOICE_KINDS:
            texts = item["choices"] if task.kind == "multiple_choice" else item["context_options"]
            answers = texts if task.kind == "multiple_choice" else [item["continuation"]] * count
            mean = logprob / np.maximum(tokens, 1)
            correct[i] = int(np.argmax(mean)) == gold
            best = np.flatnonzero(mean >= mean.max() - TIE)
            corrected[i] = np.mean([texts[k] == texts[gold] for k in best])
            probability[i] = _share(logprob, gold)
            per_token[i] = _share(mean, gold)
            per_byte[i] = _share(logprob / np.maximum([len(a.encode()) for a in answers], 1), gold)
            answer = answers[gold]
        elif task.kind == "generation":
            correct[i], corrected[i] = decisions[i].compat, decisions[i].corrected
            answer = item["responses"][0]
        else:
            correct[i] = corrected[i] = scores.greedy[at]
            answer = item["continuation"]
        bits[i] = -logprob[gold] / LN2
        size[i] = len(answer.encode())
        at += count
    return ItemScores(correct, probability, bits, size, corrected, per_token, per_byte)


def _share(weights: np.ndarray, gold: int) -> float:
    """Softmax at ``gold``."""
    odds = np.exp(weights - weights.max())
    return float(odds[gold] / odds.sum())


def task_metrics(task: Task, items: Sequence[dict[str, Any]], scores: ItemScores) -> dict[str, Figure]:
    """Every figure that the kind of the task has. ``grouped`` tasks: the plain mean over categories."""
    per_item = {"accuracy": scores.correct, "accuracy_corrected": scores.corrected}
    if task.kind in CHOICE_KINDS:
        per_item["choice_probability"] = scores.probability
        per_item["choice_probability_per_token"] = scores.per_token
        per_item["choice_probability_per_byte"] = scores.per_byte
    else:
        per_item["bits_per_answer"] = scores.bits
    figures = {}
    for name, values in per_item.items():
        if values is None:
            continue
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
