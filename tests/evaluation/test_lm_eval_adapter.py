"""Our model folders in lm-eval: every request type beside direct scoring, and a whole task run by lm-eval."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install lm-eval)")

from evaluation.lm.lm_eval_adapter import WinnowLM
from recipes.lm import data
from recipes.lm.model import Decoder, Shape
from recipes.lm.train import load_model

CONTEXT = 48
SHAPE = {"vocab": 4096, "dim": 32, "layers": 2, "heads": 2, "context": CONTEXT, "ffn_multiple": 32}
TEXTS = [
    "The river froze in January and nobody crossed it until March.",
    "A short text.",
    "Salt, pepper and a little oil: " * 30,
    "Ein zweiter Satz, längst vergessen. 数字 und Zeichen.",
]
PAIRS = [
    ("The cat sat on the", " mat"),
    ("The cat sat on the", " moon and sang of milk and honey"),
    ("Trailing spaces go to the answer:   ", "so"),
    ("", "An answer without any context"),
    ("One two three four five six seven. " * 20, "eight nine"),  # longer than the context
    ("Exactly", " one"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm-eval") / "model"
    path.mkdir()
    model = Decoder(Shape(**SHAPE), 3)
    with torch.no_grad():  # sharper than at the start, so that greedy choices are clear
        model.head.weight.mul_(8)
    save_file(model.state_dict(), path / "model.safetensors")
    scale = {"name": "toy", "track": "text", "model": SHAPE}
    (path / "config.json").write_text(json.dumps({"scale": scale, "scale_hash": "0", "seed": 0, "data": ""}))
    shutil.copyfile(data.tokenizer_file("bpe4096"), path / "tokenizer.json")
    return path


@pytest.fixture(scope="module")
def lm(folder: Path) -> WinnowLM:
    return WinnowLM(str(folder), device="cpu", batch_tokens=256)


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=a) for a in arguments]


class Naive:
    """One row at a time, the whole context read again for every token."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer, _ = load_model(folder)
        self.end = self.tokenizer.token_to_id("<|endoftext|>")

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.inference_mode()
    def logprobs(self, ids: list[int]) -> torch.Tensor:
        return self.model(torch.tensor([ids[-CONTEXT:]]))[0].double().log_softmax(-1)

    def answer(self, context: list[int], answer: list[int]) -> tuple[float, bool]:
        total, greedy = 0.0, True
        row = (context + answer)[-(CONTEXT + 1) :]
        table = self.logprobs(row[:-1])[-len(answer) :]
        for values, token in zip(table, answer, strict=True):
            total += values[token].item()
            greedy &= values.argmax().item() == token
        return total, greedy

    def go_on(self, ids: list[int], new: int, stops: list[str]) -> str:
        out: list[int] = []
        while len(out) < new:
            token = int(self.logprobs(ids + out)[-1].argmax())
            if token == self.end:
                break
            out.append(token)
            if any(stop in self.tokenizer.decode(out) for stop in stops):
                break
        text = self.tokenizer.decode(out)
        for stop in stops:
            text = text.split(stop)[0]
        return text


@pytest.fixture(scope="module")
def naive(folder: Path) -> Naive:
    return Naive(folder)


def test_loglikelihood_equals_direct_scoring(lm: WinnowLM, naive: Naive) -> None:
    got = lm.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    for (context, answer), (logprob, greedy) in zip(PAIRS, got, strict=True):
        if context:
            # lm-eval: spaces at the end of the context belong to the answer; the border is where the
            # context's own tokens end in the joined text.
            kept = context.rstrip()
            whole = naive.encode(context + answer)
            context_ids = naive.encode(kept)
            answer_ids = whole[len(context_ids) :]
        else:
            context_ids, answer_ids = [naive.end], naive.encode(answer)
        expected, all_greedy = naive.answer(context_ids, answer_ids)
        assert logprob == pytest.approx(expected, rel=1e-5, abs=1e-4), (context, answer)
        assert greedy == all_greedy


def test_a_greedy_answer_is_called_greedy(lm: WinnowLM, naive: Naive) -> None:
    found = 0
    for start in ("The cat", "Once upon", "In 1984", "Water"):
        ids = naive.encode(start)
        token = int(naive.logprobs(ids)[-1].argmax())
        text = start + naive.tokenizer.decode([token])
        if naive.encode(text) == [*ids, token]:  # the joined text has the same tokens
            found += 1
            answer = text[len(start) :]
            assert lm.loglikelihood(requests((start, answer)), disable_tqdm=True)[0][1] is True
            other = answer + " zebra"
            assert lm.loglikelihood(requests((start, other)), disable_tqdm=True)[0][1] is False
    assert found


def test_rolling_loglikelihood_predicts_every_token_once(lm: WinnowLM, naive: Naive) -> None:
    got = lm.loglikelihood_rolling(requests(*[(text,) for text in TEXTS], ("",)), disable_tqdm=True)
    assert got[-1] == 0.0
    for text, total in zip(TEXTS, got, strict=False):
        ids, expected, at = naive.encode(text), 0.0, 0
        while at < len(ids):
            window = ids[at : at + CONTEXT]
            # The first window begins with end-of-text; later ones have as much context as fits.
            before = [naive.end] if at == 0 else ids[: at + len(window)][-(CONTEXT + 1) : -len(window)]
            expected += naive.answer(before, window)[0]
            at += len(window)
        assert total == pytest.approx(expected, rel=1e-5), text[:20]
        assert total < -len(ids)


def test_generation_equals_direct_generation(lm: WinnowLM, naive: Naive) -> None:
    asked = []
    for context in (*TEXTS, ""):
        for stops in ([], ["e"], [" the", "\n"]):
            asked.append((context, {"until": stops, "max_gen_toks": 12, "do_sample": False}))
    got = lm.generate_until(requests(*asked), disable_tqdm=True)
    for (context, settings), text in zip(asked, got, strict=True):
        ids = (naive.encode(context) or [naive.end])[-(CONTEXT - 12) :]
        assert text == naive.go_on(ids, 12, settings["until"]), (context[:20], settings)
    assert len(set(got)) > 5


def test_what_cannot_be_done_is_refused(lm: WinnowLM) -> None:
    with pytest.raises(ValueError, match="the task asks for sampling"):
        lm.generate_until(requests(("a", {"do_sample": True, "temperature": 0.7})), disable_tqdm=True)
    with pytest.raises(ValueError, match="max_gen_toks=48 leaves no room for a prompt"):
        lm.generate_until(requests(("a", {"max_gen_toks": CONTEXT})), disable_tqdm=True)
    with pytest.raises(ValueError, match=r"has \d+ tokens; the model's context is 48"):
        lm.loglikelihood(requests(("a", " far too long" * 50)), disable_tqdm=True)


def test_lm_eval_runs_a_task_of_its_own_on_it(
    folder: Path, naive: Naive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: lm-eval builds the model by its registered name, the prompts, and the accuracy."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    questions = [
        {"question": f"Pick number {i}.", "options": ["red apples", "blue", f"the {i}"], "gold": i % 3}
        for i in range(12)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in questions))
    task = {
        "task": "toy_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    results = lm_eval.simple_evaluate(
        model="winnow",
        model_args=f"folder={folder},device=cpu,batch_tokens=256",
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),  # lm-eval's own tasks take 20 s to list
        bootstrap_iters=0,
        log_samples=False,
    )["results"]["toy_choice"]
    right = 0
    for q in questions:
        prompt = f"{q['question']}\nAnswer:"
        start = naive.encode(prompt)
        scores = []
        for option in q["options"]:
            scores.append(naive.answer(start, naive.encode(f"{prompt} {option}")[len(start) :])[0])
        right += max(range(3), key=lambda i: scores[i]) == q["gold"]
    assert results["acc,none"] == pytest.approx(right / len(questions))
    assert not math.isnan(results["acc_norm,none"])
