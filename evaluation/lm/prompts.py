"""From a record to prompts, exactly as DCLM's harness (llm-foundry 0.9) builds them.

A prompt has up to three parts, tokenised apart and joined as ids, so that no merge crosses a border: the
preamble (all shots), the context of the item, the answer. Rules reproduced:

* a shot is example delimiter (but for the first) + prelimiter + question + continuation delimiter + answer;
  the answer of a generation task with chains of thought is thought + its delimiter + answer;
* shots come from one ``Random(1234)`` shared along the whole file in row order, so leaving out a row changes
  the prompts of all later rows (cutting the file short does not, as long as shots are drawn from the whole
  file); a grouped task is one such file per category;
* the item's own context is right-stripped, which takes the delimiter's last space away, and the answer gets a
  leading space unless it has one (or the tokenizer is of SentencePiece's kind, see ``prefix_space``);
* a schema's context options get the delimiter, without its last space, only when there are shots; they are
  not stripped;
* a generation may be as long as the longest accepted answer of the file, chain of thought and all, and ten
  tokens more where there is a chain-of-thought delimiter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.lm.tasks import CHOICE_KINDS, Task

SHOT_SEED = 1234
EXAMPLE_DELIMITER = "\n"
THOUGHT_MARGIN = 10
"""Tokens that a generation may be longer than the longest accepted answer, where there are thoughts."""


@dataclass(frozen=True)
class Query:
    """One text to score: the log-probability of ``answer`` after ``preamble`` and ``context``."""

    preamble: str
    context: str
    answer: str
    """With its leading space."""


@dataclass(frozen=True)
class GenerationPrompt:
    """One text to continue, greedily, until one of ``stops`` appears, the end-of-text token comes or
    ``max_new_tokens`` are made. ``preamble`` and ``context`` are tokenised apart."""

    preamble: str
    context: str
    stops: tuple[str, ...]
    answers: tuple[str, ...]
    """Every accepted answer: the record's and its aliases."""


def draw_shots(rng: random.Random, rows: int, shots: int, row: int) -> list[int]:
    """The rows shown before ``row``: drawn without it; the order is that of a Python set of the numbers.

    With too few rows for ``shots`` all the others are shown.
    """
    drawn = set(rng.sample(range(rows), min(shots, rows - 1)))
    if row in drawn:
        drawn.remove(row)
        if len(drawn) < rows - 1:
            while True:
                other = rng.choice(range(rows))
                if other != row and other not in drawn:
                    break
            drawn.add(other)
    return list(drawn)


def item_queries(
    task: Task, items: Sequence[dict[str, Any]], limit: int | None = None, *, prefix_space: bool = True
) -> list[list[Query]]:
    """For each item its queries: one per choice, or one for the right answer of any other item.

    The query of a generation task is its reference answer, with its chain of thought, after the same prompt:
    no part of DCLM's decision, but of bits per byte. ``limit`` keeps the first items only; their prompts are
    those of the full run. ``prefix_space``: see ``needs_prefix_space``.
    """
    return [
        list(_queries(task, items[row], preamble, prefix_space))
        for row, preamble in enumerate(preambles(task, items, limit))
    ]


def generation_prompts(
    task: Task, items: Sequence[dict[str, Any]], limit: int | None = None
) -> list[GenerationPrompt]:
    """For each item of a generation task the prompt to continue."""
    prompts = []
    for item, preamble in zip(items, preambles(task, items, limit), strict=False):
        context = (_lead(task, preamble) + item["context"] + task.delimiter).rstrip()
        answers = tuple(dict.fromkeys([item["answer"], *item.get("aliases", [])]))
        prompts.append(GenerationPrompt(preamble, context, task.stops, answers))
    return prompts


def max_new_tokens(
    task: Task, items: Sequence[dict[str, Any]], count: Callable[[Sequence[str]], Sequence[int]]
) -> int:
    """The longest that a generation of this task may be. ``count`` gives the tokens of each of many texts.

    ``items`` are those of the whole file, also when only some are run. DCLM cuts a prompt to the context
    less this many tokens.
    """
    texts = list(dict.fromkeys(text for item in items for text in item["responses"]))
    return max(1, max(count(texts)) + (THOUGHT_MARGIN if task.cot_delimiter else 0))


def needs_prefix_space(encode: Callable[[str], Sequence[int]]) -> bool:
    """Whether answers get a leading space: where `` a`` is one token, as in GPT-2's kind of tokenizer."""
    return len(encode(" a")) == 1


def preambles(task: Task, items: Sequence[dict[str, Any]], limit: int | None = None) -> list[str]:
    """The shots of each item as one text, empty for a zero-shot task."""
    rows = len(items) if limit is None else min(limit, len(items))
    if not task.shots:
        return [""] * rows
    groups: list[list[int]] = [list(range(len(items)))]
    if task.grouped:
        by_category: dict[str, list[int]] = {}
        for i, item in enumerate(items):
            by_category.setdefault(str(item.get("category")), []).append(i)
        groups = list(by_category.values())
    texts = [""] * rows
    for group in groups:
        rng = random.Random(SHOT_SEED)
        for position, row in enumerate(group):
            if row >= rows:
                break
            for shot in draw_shots(rng, len(group), task.shots, position):
                texts[row] += _shot(task, items[group[shot]], texts[row])
    return texts


def _shot(task: Task, item: dict[str, Any], before: str) -> str:
    if task.kind == "multiple_choice":
        context, answer = item["query"], item["choices"][item["gold"]]
    elif task.kind == "schema":
        context, answer = item["context_options"][item["gold"]], item["continuation"]
    elif task.kind == "generation":
        context, answer = item["context"], _reference(task, item)
    else:
        context, answer = item["context"], item["continuation"]
    return _lead(task, before) + context + task.delimiter + answer


def _queries(task: Task, item: dict[str, Any], preamble: str, prefix_space: bool) -> Iterator[Query]:
    lead = _lead(task, preamble)

    def spaced(answer: str) -> str:
        return " " + answer if prefix_space and not answer.startswith(" ") else answer

    if task.kind == "schema":
        tail = task.delimiter.rstrip() if preamble else ""
        for option in item["context_options"]:
            yield Query(preamble, lead + option + tail, spaced(item["continuation"]))
        return
    question = item["query"] if task.kind == "multiple_choice" else item["context"]
    full = lead + question + task.delimiter
    context = full.rstrip()
    if task.kind == "generation":
        # what the strip took away stands before the answer, so that it is what the shots show
        yield Query(preamble, context, (full[len(context) :] or " ") + _reference(task, item))
        return
    for answer in item["choices"] if task.kind in CHOICE_KINDS else [item["continuation"]]:
        yield Query(preamble, context, spaced(answer))


def _reference(task: Task, item: dict[str, Any]) -> str:
    """The answer of a generation task as a shot shows it."""
    if "chain_of_thought" in item:
        return item["chain_of_thought"] + task.cot_delimiter + item["answer"]
    return item["answer"]


def _lead(task: Task, before: str) -> str:
    return (EXAMPLE_DELIMITER if before else "") + task.prelimiter
