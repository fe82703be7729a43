"""The batched scorer and the prompt builder against a naive harness written from DCLM's rules again."""

import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.lm import metrics, prompts
from evaluation.lm.run import run_suite, run_task
from evaluation.lm.scorer import Scorer, Scores
from evaluation.lm.tasks import Suite, Task, infer_suite, load_suite, read_items
from recipes.lm.data import load_tokenizer
from recipes.lm.model import Decoder, Shape

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"


@pytest.fixture(scope="module")
def scorer():
    torch.set_num_threads(1)
    model = Decoder(Shape(4096, 32, 2, 2, 128, tied=True, ffn_multiple=32), seed=5).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(3)  # an untrained model is nearly uniform: make it opinionated
    return Scorer(model, load_tokenizer("bpe4096"))


def naive_logprobs(scorer: Scorer, context: list[int], answer: list[int]) -> tuple[list[float], bool]:
    """One forward pass per text, nothing batched: log-probability of each answer token; all argmax?"""
    row = ((context or [scorer.end]) + answer)[-scorer.context :]
    kept = min(len(answer), len(row) - 1)
    with torch.no_grad():
        logits = scorer.model(torch.tensor([row[:-1]]))[0].double()
    values, greedy = [], True
    for at in range(len(row) - kept, len(row)):
        line = logits[at - 1]
        values.append(float(line[row[at]] - torch.log(torch.exp(line).sum())))
        greedy &= int(line.argmax()) == row[at]
    return values, greedy


def naive_task(scorer: Scorer, task: Task, folder: Path, limit: int) -> list[dict]:
    """DCLM's harness as one loop: prompts by hand, a forward pass a choice, decisions by hand."""

    def ids(text: str) -> list[int]:
        return scorer.tokenizer.encode(text, add_special_tokens=False).ids

    items = read_items(task, folder)
    rng = random.Random(1234)
    out = []
    for row, item in enumerate(items[:limit]):
        preamble = ""
        if task.shots:
            chosen = set(rng.sample(range(len(items)), task.shots))
            if row in chosen:
                chosen.discard(row)
                pick = rng.choice(range(len(items)))
                while pick == row or pick in chosen:
                    pick = rng.choice(range(len(items)))
                chosen.add(pick)
            for shot in chosen:
                other = items[shot]
                if task.kind == "multiple_choice":
                    text = other["query"] + task.delimiter + other["choices"][other["gold"]]
                elif task.kind == "schema":
                    text = other["context_options"][other["gold"]] + task.delimiter + other["continuation"]
                else:
                    text = other["context"] + task.delimiter + other["continuation"]
                preamble += ("\n" if preamble else "") + text
        start = "\n" if preamble else ""
        if task.kind == "schema":
            end = task.delimiter.rstrip() if preamble else ""
            pairs = [((start + c + end).rstrip(), item["continuation"]) for c in item["context_options"]]
        elif task.kind == "multiple_choice":
            pairs = [((start + item["query"] + task.delimiter).rstrip(), c) for c in item["choices"]]
        else:
            pairs = [((start + item["context"] + task.delimiter).rstrip(), item["continuation"])]
        scored = [naive_logprobs(scorer, ids(preamble) + ids(c), ids(" " + a)) for c, a in pairs]
        sums = [sum(values) for values, _ in scored]
        if task.kind == "language_modeling":
            out.append({"correct": scored[0][1], "bits": -sums[0] / math.log(2), "probability": math.nan})
            continue
        losses = [-total / len(values) for total, (values, _) in zip(sums, scored, strict=True)]
        best = min(range(len(losses)), key=lambda i: losses[i])  # the first of equal ones
        odds = [math.exp(total - max(sums)) for total in sums]
        gold = item["gold"]
        out.append(
            {
                "correct": best == gold,
                "probability": odds[gold] / sum(odds),
                "bits": -sums[gold] / math.log(2),
                "margin": sorted(losses)[1] - min(losses),
            }
        )
    return out


def compare(scorer: Scorer, task: Task, folder: Path, limit: int) -> None:
    items = read_items(task, folder)
    queries = prompts.item_queries(task, items, limit)
    scores = scorer.queries([q for group in queries for q in group])
    got = metrics.item_scores(task, items, [len(group) for group in queries], scores)
    expected = naive_task(scorer, task, folder, limit)
    assert len(expected) == len(got.correct) == min(limit, len(items))
    for i, want in enumerate(expected):
        if want.get("margin", 1) > 1e-5:  # a tie in exact arithmetic may fall either way in float32
            assert bool(got.correct[i]) == want["correct"], (task.name, i)
        assert got.bits[i] == pytest.approx(want["bits"], rel=1e-4), (task.name, i)
        assert got.probability[i] == pytest.approx(want["probability"], rel=1e-3, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    "task", [t for t in load_suite("tiny").tasks if t.kind != "text"], ids=lambda t: t.name
)
def test_embedded_tasks_equal_the_naive_harness(scorer, task: Task) -> None:
    compare(scorer, task, load_suite("tiny").folder, limit=12)


@pytest.mark.parametrize(
    "name", ["copa", "winograd", "winogrande", "arc_easy", "boolq", "lambada_openai", "bigbench_qa_wikidata"]
)
def test_dclms_own_files_equal_the_naive_harness(scorer, name: str) -> None:
    task = next(t for t in load_suite("dclm").tasks if t.name == name)
    if not (SHARED / task.file).is_file():
        pytest.skip(f"no {SHARED / task.file}: set WINNOW_SHARED_DATA to the folder that holds lm_eval/")
    compare(scorer, task, SHARED, limit=6)


def test_held_out_bits_equal_the_naive_sum(scorer) -> None:
    texts = [item["text"] for item in read_items(load_suite("tiny").tasks[0], load_suite("tiny").folder)][:2]
    texts.append("One short line.")
    got = scorer.text(texts)
    for text, value in zip(texts, got, strict=True):
        ids, total = [scorer.end, *scorer.tokenizer.encode(text).ids], 0.0
        for i in range(0, len(ids) - 1, 128):
            window = ids[i : i + 129]
            with torch.no_grad():
                logits = scorer.model(torch.tensor([window[:-1]]))[0].double().log_softmax(-1)
            total += sum(float(logits[k, window[k + 1]]) for k in range(len(window) - 1))
        assert value == pytest.approx(total, rel=1e-5)
    figure = metrics.text_metrics(texts, got)["bits_per_byte"]
    assert figure.value == pytest.approx(-sum(got) / math.log(2) / sum(len(t.encode()) for t in texts))


def test_batching_and_order_do_not_matter(scorer, monkeypatch) -> None:
    task = load_suite("tiny").tasks[1]
    items = read_items(task, load_suite("tiny").folder)
    queries = [q for group in prompts.item_queries(task, items, 20) for q in group]
    whole = scorer.queries(queries)
    monkeypatch.setattr("evaluation.lm.scorer.BATCH_TOKENS", 1)
    single = scorer.queries(queries[::-1])
    np.testing.assert_allclose(whole.logprob, single.logprob[::-1], rtol=1e-5)
    assert (whole.greedy == single.greedy[::-1]).all()


def test_shots_are_drawn_from_one_generator_in_row_order() -> None:
    rng = random.Random(1234)
    drawn = [prompts.draw_shots(rng, 8, 3, row) for row in range(8)]
    assert drawn == [[1, 6, 7], [0, 5, 6], [0, 1, 3], [0, 6, 7], [2, 5, 7], [0, 1, 7], [0, 1, 7], [0, 1, 4]]
    assert all(row not in shots and len(set(shots)) == 3 for row, shots in enumerate(drawn))
    assert prompts.draw_shots(random.Random(0), 2, 5, 0) == [1]


def test_a_limit_leaves_the_prompts_of_the_first_rows_alone() -> None:
    task = Task("t", "multiple_choice", "t.jsonl", shots=2)
    items = [{"query": f"q{i}", "choices": ["a", "b"], "gold": i % 2} for i in range(9)]
    assert prompts.item_queries(task, items, 4) == prompts.item_queries(task, items)[:4]


def test_prompt_borders() -> None:
    items = [{"query": f"Q{i}", "choices": ["yes", "no"], "gold": 0} for i in range(2)]
    task = Task("t", "multiple_choice", "t", shots=1, delimiter="\nAnswer: ")
    assert prompts.item_queries(task, items)[0][1] == prompts.Query("Q1\nAnswer: yes", "\nQ0\nAnswer:", " no")
    schema = [{"context_options": ["A a", "A b"], "continuation": "went.", "gold": 1}] * 2
    zero = prompts.item_queries(Task("s", "schema", "s", delimiter=": "), schema)[0]
    assert zero[0] == prompts.Query("", "A a", " went.")
    one = prompts.item_queries(Task("s", "schema", "s", shots=1, delimiter=": "), schema)[0]
    assert one[0] == prompts.Query("A b: went.", "\nA a:", " went.")


def test_categories_have_their_own_shots_and_equal_weight() -> None:
    task = Task("t", "multiple_choice", "t", shots=1, grouped=True)
    items = [
        {"query": f"{c}{i}", "choices": ["x", "y"], "gold": 0, "category": c} for i in range(4) for c in "ab"
    ] + [{"query": "a9", "choices": ["x", "y"], "gold": 0, "category": "a"}]
    for item, group in zip(items, prompts.item_queries(task, items), strict=True):
        assert group[0].preamble[0] == item["category"]
    correct = np.array([item["category"] == "a" for item in items], dtype=float)
    scores = metrics.ItemScores(correct, correct, correct, np.ones(9))
    assert metrics.task_metrics(task, items, scores)["accuracy"].value == 0.5


def test_ties_go_to_the_first_choice() -> None:
    task = Task("t", "multiple_choice", "t")
    items = [{"query": "q", "choices": ["a", "b"], "gold": gold} for gold in (0, 1)]
    scores = Scores(np.full(4, -2.0), np.full(4, 1), np.zeros(4, bool), 0)
    got = metrics.item_scores(task, items, [2, 2], scores)
    assert got.correct.tolist() == [1, 0] and got.probability.tolist() == [0.5, 0.5]


def test_length_normalisation_decides_accuracy_and_the_sum_decides_probability() -> None:
    task = Task("t", "multiple_choice", "t")
    items = [{"query": "q", "choices": ["long", "short"], "gold": 0}]
    scores = Scores(np.array([-4.0, -2.0]), np.array([4, 1]), np.zeros(2, bool), 0)
    got = metrics.item_scores(task, items, [2], scores)
    assert got.correct[0] == 1
    assert got.probability[0] == pytest.approx(math.exp(-4) / (math.exp(-4) + math.exp(-2)))


def test_long_contexts_lose_their_beginning(scorer) -> None:
    long = prompts.Query("", "word " * 500, " answer here")
    short = prompts.Query("", " ".join(["word"] * 400), " answer here")
    scores = scorer.queries([long, short])
    assert scores.truncated == 2
    assert scores.tokens[0] == len(scorer.encode([" answer here"])[0])
    endless = scorer.queries([prompts.Query("", "a", " answer" * 400)])
    assert endless.tokens[0] == 127


def test_a_missing_or_unsupported_task_is_listed_and_never_averaged(scorer) -> None:
    suite = load_suite("dclm", load_suite("tiny").folder)
    result = run_suite(scorer, suite, only=["gsm8k_cot", "copa"])
    assert set(result.not_run) == {"gsm8k_cot", "copa"} and not result.tasks
    assert "gsm8k.jsonl" in result.not_run["gsm8k_cot"] and "copa.jsonl" in result.not_run["copa"]
    tiny = load_suite("tiny")
    part = run_suite(scorer, tiny, only=["word_swap"], limit=3)
    assert part.score["value"] is None and "word_order" in part.score["missing"]


def test_a_folder_of_files_uses_dclms_settings_where_it_knows_them(tmp_path, scorer) -> None:
    (tmp_path / "commonsense_reasoning").mkdir()
    rows = '{"query": "Q", "choices": ["a", "b"], "gold": 1}\n' * 12
    (tmp_path / "commonsense_reasoning" / "piqa.jsonl").write_text(rows)
    (tmp_path / "code.jsonl").write_text('{"prompt": "def f():", "test": "assert f()"}\n')
    (tmp_path / "mine.jsonl").write_text('{"context": "The cat sat on the", "continuation": "mat"}\n')
    suite = infer_suite(tmp_path)
    assert [(t.name, t.kind, t.shots) for t in suite.tasks] == [
        ("piqa", "multiple_choice", 10),
        ("mine", "language_modeling", 0),
    ]
    one = run_task(scorer, suite.tasks[1], tmp_path)
    assert "fit none of the kinds" in run_suite(scorer, suite, limit=1).not_run["code"]
    assert one.n == 1 and math.isnan(one.stderr)


def test_score_is_the_mean_of_centred_figures(scorer) -> None:
    tiny = load_suite("tiny")
    result = run_suite(scorer, tiny, limit=8)
    members = [t for t in tiny.tasks if t.in_score]
    expected = [(result.tasks[t.name].value - t.chance) / (1 - t.chance) for t in members]
    assert result.score["value"] == pytest.approx(100 * sum(expected) / len(expected))
    assert isinstance(tiny, Suite) and len(members) >= 4
