"""Scoring against a reference that shares nothing with it: DCLM's rules written down again as plain loops.

The reference reads task files, draws shots, builds prompts and tokenises their parts by itself, then makes
one forward pass for each choice, unbatched, in float32. Every decision and every log-probability must agree.
"""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from evaluation.lm import metrics, prompts
from evaluation.lm.scorer import Scorer
from evaluation.lm.tasks import DATA, load_suite, read_items
from recipes.lm.data import load_tokenizer
from recipes.lm.model import Decoder, Shape

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"
CONTEXT = 1024
TIE = 1e-5
"""Mean cross-entropies nearer than this are a tie in float32: either choice is right."""
ITEMS = 8

# fmt: off
TASKS = [
    "arc_easy", "arc_challenge", "copa", "siqa", "commonsense_qa", "piqa", "openbook_qa",
    "bigbench_novel_concepts", "bigbench_strange_stories", "bigbench_strategy_qa",
    "bigbench_misconceptions", "lambada_openai", "winograd", "winogrande", "bigbench_conlang_translation",
    "bigbench_language_identification", "bigbench_conceptual_combinations", "bigbench_qa_wikidata",
    "bigbench_dyck_languages", "agi_eval_lsat_ar", "bigbench_cs_algorithms", "jeopardy",
    "bigbench_operators", "simple_arithmetic_nospaces", "math_qa", "boolq", "winogender_mc_female",
    "enterprise_pii_classification", "bigbench_understanding_fables",
]
# fmt: on


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    model = Decoder(Shape(4096, 64, 2, 4, CONTEXT, ffn_multiple=64), seed=11).eval()
    with torch.no_grad():
        model.head.weight.mul_(4)  # an untrained model is nearly uniform: make it opinionated
    return model


@pytest.fixture(scope="module")
def scorer(model):
    return Scorer(model, load_tokenizer("bpe4096"))


class Reference:
    """A task of a suite's YAML, by hand."""

    def __init__(self, settings: dict, folder: Path) -> None:
        self.kind, self.shots = settings["kind"], settings.get("shots", 0)
        self.delimiter = settings.get("delimiter", " ")
        self.by_category = settings.get("grouped", False)
        lines = (folder / settings["file"]).read_bytes().split(b"\n")
        self.items = [self.strip(json.loads(line)) for line in lines if line.strip()]

    def strip(self, item: dict) -> dict:
        """Text fields are stripped, texts in lists are not (llm-foundry's rule)."""
        return {k: v.strip() if isinstance(v, str) else v for k, v in item.items()}

    def solved(self, item: dict) -> str:
        if self.kind == "multiple_choice":
            return item["query"] + self.delimiter + item["choices"][item["gold"]]
        if self.kind == "schema":
            return item["context_options"][item["gold"]] + self.delimiter + item["continuation"]
        return item["context"] + self.delimiter + item["continuation"]

    def texts(self, limit: int) -> list[list[tuple[str, str, str]]]:
        """(preamble, context, answer) of each choice of the first items."""
        out: dict[int, list[tuple[str, str, str]]] = {}
        names = [str(item.get("category")) if self.by_category else "" for item in self.items]
        for name in dict.fromkeys(names):
            partition = [i for i, other in enumerate(names) if other == name]
            rng = random.Random(1234)
            for position, number in enumerate(partition):
                shown: set[int] = set()
                if self.shots:
                    shown = set(rng.sample(range(len(partition)), self.shots))
                    if position in shown:
                        shown.remove(position)
                        new = position
                        while new == position or new in shown:
                            new = rng.choice(range(len(partition)))
                        shown.add(new)
                if number < limit:
                    before = "\n".join(self.solved(self.items[partition[k]]) for k in shown)
                    out[number] = self.choices(self.items[number], before)
        return [out[i] for i in range(min(limit, len(self.items)))]

    def choices(self, item: dict, before: str) -> list[tuple[str, str, str]]:
        newline = "\n" if before else ""
        if self.kind == "schema":
            between = self.delimiter.rstrip() if before else ""
            options = [newline + text + between for text in item["context_options"]]
            return [(before, option, self.spaced(item["continuation"])) for option in options]
        if self.kind == "multiple_choice":
            context, answers = item["query"], item["choices"]
        else:
            context, answers = item["context"], [item["continuation"]]
        return [(before, (newline + context + self.delimiter).rstrip(), self.spaced(a)) for a in answers]

    def spaced(self, answer: str) -> str:
        return answer if answer[:1] == " " else " " + answer


def forward(model, tokenizer, text: tuple[str, str, str]) -> tuple[float, int, bool]:
    """(log-probability of the answer, its tokens, all argmax?) by one pass over one text."""
    before, context, answer = (tokenizer.encode(part, add_special_tokens=False).ids for part in text)
    ids = ((before + context) or [tokenizer.token_to_id("<|endoftext|>")]) + answer
    ids = ids[-CONTEXT:]
    n = min(len(answer), len(ids) - 1)
    with torch.no_grad():
        logits = model.head(model.hidden(torch.tensor([ids[:-1]]))[0, -n:])
    lines, wanted = logits.log_softmax(-1), ids[-n:]
    total = sum(float(lines[k, token]) for k, token in enumerate(wanted))
    return total, n, all(int(lines[k].argmax()) == token for k, token in enumerate(wanted))


def check(model, scorer: Scorer, name: str, suite_file: Path, folder: Path, limit: int) -> int:
    settings = next(t for t in yaml.safe_load(suite_file.read_text())["tasks"] if t["name"] == name)
    reference = Reference(settings, folder)
    wanted = reference.texts(limit)
    task = next(t for t in load_suite(suite_file).tasks if t.name == name)
    items = read_items(task, folder)
    queries = prompts.item_queries(task, items, limit)
    assert [[(q.preamble, q.context, q.answer) for q in group] for group in queries] == wanted

    flat = [q for group in queries for q in group]
    scores = scorer.queries(flat)
    plain = Scorer(model, scorer.tokenizer, share=False).queries(flat)
    np.testing.assert_allclose(scores.logprob, plain.logprob, rtol=1e-5, atol=1e-4)
    decided = metrics.item_scores(task, items, [len(group) for group in queries], scores)
    decided_plain = metrics.item_scores(task, items, [len(group) for group in queries], plain)
    at = 0
    for i, texts in enumerate(wanted):
        expected = [forward(model, scorer.tokenizer, text) for text in texts]
        here = slice(at, at + len(texts))
        at += len(texts)
        np.testing.assert_allclose(scores.logprob[here], [e[0] for e in expected], rtol=1e-5, atol=1e-4)
        assert scores.tokens[here].tolist() == [e[1] for e in expected]
        assert scores.greedy[here].tolist() == plain.greedy[here].tolist() == [e[2] for e in expected]
        if reference.kind == "language_modeling":
            assert decided.correct[i] == expected[0][2]
            continue
        losses = [-total / n for total, n, _ in expected]
        if sorted(losses)[1] - min(losses) > TIE:
            right = losses.index(min(losses)) == reference.items[i]["gold"]
            assert decided.correct[i] == decided_plain.correct[i] == right, (name, i, losses)
    return len(wanted)


@pytest.mark.parametrize("name", [t.name for t in load_suite("tiny").tasks if t.kind != "text"])
def test_embedded_tasks(model, scorer, name: str) -> None:
    assert check(model, scorer, name, DATA / "tiny.yaml", DATA / "tiny", 24) == 24


def test_the_list_has_at_least_twenty_tasks_of_every_kind() -> None:
    known = {t.name: t.kind for t in load_suite("dclm").tasks}
    assert len(TASKS) >= 20 and len(set(TASKS)) == len(TASKS)
    assert {known[name] for name in TASKS} == {"multiple_choice", "schema", "language_modeling"}


@pytest.mark.parametrize("name", TASKS)
def test_dclms_tasks(model, scorer, name: str) -> None:
    file = next(t.file for t in load_suite("dclm").tasks if t.name == name)
    if not (SHARED / file).is_file():
        pytest.skip(f"no {SHARED / file}: set WINNOW_SHARED_DATA to the folder that holds lm_eval/")
    assert check(model, scorer, name, DATA / "dclm.yaml", SHARED, ITEMS) == ITEMS


def test_the_likeliest_continuation_is_found_likeliest(model, scorer) -> None:
    """A random model never guesses real answers: give it its own, and its own with another last token."""
    queries, expected = [], []
    items = read_items(load_suite("tiny").tasks[-1], DATA / "tiny")
    for item in items[:40]:
        ids = scorer.encode([item["context"]])[0]
        own = list(ids)
        for _ in range(3):
            with torch.no_grad():
                own.append(int(model(torch.tensor([own]))[0, -1].argmax()))
        answer = scorer.tokenizer.decode(own[len(ids) :])
        if scorer.encode([answer])[0] != own[len(ids) :]:
            continue  # these tokens are no text's tokenisation
        queries += [
            prompts.Query("", item["context"], answer),
            prompts.Query("", item["context"], answer + " not"),
        ]
        expected += [True, False]
    assert len(expected) >= 20
    assert scorer.queries(queries).greedy.tolist() == expected


def test_sharing_reads_fewer_tokens_and_never_more(scorer) -> None:
    from evaluation.lm.batches import MERGE_GAIN, Limits, plan

    for task in load_suite("tiny").tasks:
        if task.kind == "text":
            continue
        queries = [q for g in prompts.item_queries(task, read_items(task, DATA / "tiny"), 50) for q in g]
        parts = [scorer.encode([q.preamble, q.context, q.answer]) for q in queries]
        rows = [np.concatenate(p) for p in parts]
        answers = [len(p[2]) for p in parts]
        shared, plain = (
            sum(
                b.lengths.sum() + sum(r.lengths.sum() for r in b.rests)
                for b in plan(rows, answers, Limits(), g)
            )
            for g in (MERGE_GAIN, 1 << 60)
        )
        assert plain == sum(len(row) - 1 for row in rows)
        assert shared < 0.7 * plain if task.shots else shared <= plain


def test_half_precision_is_near(model, scorer) -> None:
    from evaluation.lm.devices import Here

    task = load_suite("tiny").tasks[1]
    queries = [q for g in prompts.item_queries(task, read_items(task, DATA / "tiny"), 8) for q in g]
    half = Scorer(model, scorer.tokenizer, runner=Here(model, scorer.tokenizer, precision="bf16"))
    a, b = scorer.queries(queries).logprob, half.queries(queries).logprob
    assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()
    with pytest.raises(ValueError, match="precision is 'fp8'; use fp32 or bf16"):
        Here(model, scorer.tokenizer, precision="fp8")
    assert not math.isnan(b.sum())
