"""Figures of a task from hand-made log-probabilities."""

import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.lm import metrics
from evaluation.lm.answers import Decision
from evaluation.lm.scorer import Scores
from evaluation.lm.tasks import Task

CHOICE = Task("t", "multiple_choice", "t")


def scored(logprob, tokens=None, greedy=None) -> Scores:
    n = len(logprob)
    return Scores(
        np.array(logprob, float),
        np.array([1] * n if tokens is None else tokens),
        np.array([False] * n if greedy is None else greedy),
        0,
    )


def item(choices: list[str], gold: int) -> dict:
    return {"query": "q", "choices": choices, "gold": gold}


def softmax(values: list[float], at: int) -> float:
    return math.exp(values[at]) / sum(map(math.exp, values))


def test_three_probabilities_of_the_right_choice() -> None:
    items = [item(["ab", "abcdef"], 1)]
    got = metrics.item_scores(CHOICE, items, [2], scored([-2.0, -5.0], [1, 4]))
    assert got.probability[0] == pytest.approx(softmax([-2, -5], 1))
    assert got.per_token[0] == pytest.approx(softmax([-2, -1.25], 1))
    assert got.per_byte[0] == pytest.approx(softmax([-1, -5 / 6], 1))
    assert (got.correct[0], got.corrected[0]) == (1, 1)
    assert (got.bits[0], got.bytes[0]) == (pytest.approx(5 / math.log(2)), 6)


def test_a_schema_has_one_answer_after_each_context() -> None:
    items = [{"context_options": ["a", "bbb"], "continuation": "née", "gold": 0}]
    got = metrics.item_scores(replace(CHOICE, kind="schema"), items, [2], scored([-3.0, -6.0], [2, 2]))
    assert got.per_byte[0] == pytest.approx(softmax([-3 / 4, -6 / 4], 0)) and got.bytes[0] == 4
    assert got.per_token[0] == pytest.approx(softmax([-1.5, -3], 0))


def test_a_model_that_says_nothing_gets_chance_and_not_the_first_choice() -> None:
    """bigbench_novel_concepts and bigbench_strange_stories: the right choice is always the first."""
    items = [item(["a", "b", "c", "d"], 0)] * 8
    got = metrics.item_scores(CHOICE, items, [4] * 8, scored([-7.3] * 32, [3] * 32))
    figures = metrics.task_metrics(CHOICE, items, got)
    assert figures["accuracy"].value == 1 and figures["accuracy_corrected"].value == 0.25
    assert figures["choice_probability"].value == pytest.approx(0.25)


def test_ties_share_and_the_same_text_twice_is_no_tie() -> None:
    items = [item(["a", "b", "c"], 1), item(["x", "y", "x"], 2), item(["a", "b", "c"], 2)]
    got = metrics.item_scores(CHOICE, items, [3, 3, 3], scored([-1, -1, -2, -1, -3, -1, -1, -1.00001, -2]))
    assert got.correct.tolist() == [0, 0, 0]
    assert got.corrected.tolist() == [0.5, 1, 0]


def test_rounding_does_not_break_a_tie() -> None:
    third = -0.1 - 0.2  # -0.30000000000000004
    got = metrics.item_scores(CHOICE, [item(["a", "b"], 1)], [2], scored([-0.3, third]))
    assert (got.correct[0], got.corrected[0]) == (0, 0.5)


def test_language_modelling_has_no_rule_to_correct() -> None:
    task = replace(CHOICE, kind="language_modeling")
    items = [{"context": "c", "continuation": "dé"}, {"context": "c", "continuation": "d"}]
    got = metrics.item_scores(task, items, [1, 1], scored([-1.0, -3.0], greedy=[True, False]))
    figures = metrics.task_metrics(task, items, got)
    assert figures["accuracy"].value == figures["accuracy_corrected"].value == 0.5
    assert figures["accuracy"].stderr == pytest.approx(0.5)
    assert figures["bits_per_byte"].value == pytest.approx(4 / math.log(2) / 4)
    assert figures["bits_per_answer"].value == pytest.approx(2 / math.log(2))
    assert not any(name.startswith("choice") for name in figures)


def test_generation_has_decisions_and_the_bits_of_its_reference_answer() -> None:
    task = replace(CHOICE, kind="generation")
    items = [
        {"context": "c", "answer": "18", "responses": ["6 + 12 #### 18"]},
        {"context": "c", "answer": "3", "responses": ["1 + 2 #### 3", "1 + 2 #### three"]},
    ]
    decisions = [Decision(True, False, "180"), Decision(True, True, "3")]
    got = metrics.item_scores(task, items, [1, 1], scored([-14.0, -12.0]), decisions)
    figures = metrics.task_metrics(task, items, got)
    assert (figures["accuracy"].value, figures["accuracy_corrected"].value) == (1.0, 0.5)
    assert figures["bits_per_byte"].value == pytest.approx(26 / math.log(2) / (14 + 12))
    for wrong in (None, decisions[:1]):
        with pytest.raises(ValueError, match=r"2 items: got (none|1) decisions"):
            metrics.item_scores(task, items, [1, 1], scored([-14.0, -12.0]), wrong)
    with pytest.raises(ValueError, match="got 1 decisions"):
        metrics.item_scores(CHOICE, [item(["a", "b"], 0)], [2], scored([-1, -2]), decisions[:1])


def test_grouped_tasks_weigh_their_categories_alike() -> None:
    task = replace(CHOICE, grouped=True)
    items = [{**item(["a", "b"], 0), "category": c} for c in "xxxxyy"]
    # category x: right 3 of 4; y: none of 2
    logprob = [-1, -2] * 3 + [-2, -1] * 3
    figures = metrics.task_metrics(task, items, metrics.item_scores(task, items, [2] * 6, scored(logprob)))
    assert figures["accuracy"].value == pytest.approx((0.75 + 0) / 2)
    assert figures["accuracy"].stderr == pytest.approx(0.25 / 2)  # x: sd .5 of 4; y: 0
