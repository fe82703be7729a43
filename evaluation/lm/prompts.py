"""From a record to prompts, exactly as DCLM's harness (llm-foundry 0.9) builds them.

A prompt has up to three parts, tokenised apart and joined as ids, so that no merge crosses a border: the
preamble (all shots), the context of the item, the answer. Rules reproduced:

* shots come from one ``Random(1234)`` shared along the whole file in row order, so leaving out a row changes
  the prompts of all later rows (cutting the file short does not);
* the context is right-stripped, the answer gets a leading space;
* a schema's context options get the continuation delimiter only when there are shots.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.lm.tasks import Task

SHOT_SEED = 1234
EXAMPLE_DELIMITER = "\n"


@dataclass(frozen=True)
class Query:
    """One text to score: the log-probability of ``answer`` after ``preamble`` and ``context``."""

    preamble: str
    context: str
    answer: str
    """With its leading space."""


def draw_shots(rng: random.Random, rows: int, shots: int, row: int) -> list[int]:
    """The rows shown before ``row``: drawn without it; the order is that of a Python set of the numbers."""
    drawn = set(rng.sample(range(rows), min(shots, rows)))
    if row in drawn:
        drawn.remove(row)
        if len(drawn) < rows - 1:
            while True:
                other = rng.choice(range(rows))
                if other != row and other not in drawn:
                    break
            drawn.add(other)
    return list(drawn)


def item_queries(task: Task, items: Sequence[dict[str, Any]], limit: int | None = None) -> list[list[Query]]:
    """For each item its queries: one per choice, or one for a language-modelling item.

    ``limit`` keeps the first items only; their prompts are those of the full run.
    """
    groups: list[list[int]] = [list(range(len(items)))]
    if task.grouped:  # shots come from the same category, each with a generator of its own
        by_category: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            by_category.setdefault(str(item.get("category")), []).append(i)
        groups = list(by_category.values())
    queries: list[list[Query]] = [[] for _ in items]
    for rows in groups:
        rng = random.Random(SHOT_SEED)
        for position, row in enumerate(rows):
            if limit is not None and row >= limit:
                break
            shots = draw_shots(rng, len(rows), task.shots, position) if task.shots else []
            preamble = ""
            for shot in shots:
                preamble += _shot(task, items[rows[shot]], first=not preamble)
            queries[row] = _queries(task, items[row], preamble)
    return queries[:limit]


def _shot(task: Task, item: dict[str, Any], first: bool) -> str:
    if task.kind == "multiple_choice":
        context, answer = item["query"], item["choices"][item["gold"]]
    elif task.kind == "schema":
        context, answer = item["context_options"][item["gold"]], item["continuation"]
    else:
        context, answer = item["context"], item["continuation"]
    return ("" if first else EXAMPLE_DELIMITER) + context + task.delimiter + answer


def _queries(task: Task, item: dict[str, Any], preamble: str) -> list[Query]:
    lead = EXAMPLE_DELIMITER if preamble else ""
    if task.kind == "schema":
        tail = task.delimiter.rstrip() if preamble else ""
        contexts = [(lead + option + tail).rstrip() for option in item["context_options"]]
        return [Query(preamble, context, " " + item["continuation"]) for context in contexts]
    context = item["query"] if task.kind == "multiple_choice" else item["context"]
    context = (lead + context + task.delimiter).rstrip()
    answers = item["choices"] if task.kind == "multiple_choice" else [item["continuation"]]
    return [Query(preamble, context, " " + answer) for answer in answers]
