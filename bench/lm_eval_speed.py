"""Scoring side by side: our harness, a naive loop, and lm-eval's hf backend, on the same prompts and weights.

    python bench/lm_eval_speed.py                       # every task with a file, 4 items each
    python bench/lm_eval_speed.py --items 16 --tasks arc_easy,boolq
    WINNOW_LM_EVAL=/path/to/python python bench/lm_eval_speed.py     # an interpreter that has lm-eval
    python bench/lm_eval_speed.py --device cuda:0 --scale lm-400m-1x --items 200

ours     evaluation.lm.scorer, as the harness uses it: tokenising and planning included
plain    the same without shared beginnings
naive    one forward pass a choice, logits at every position, nothing batched
lm-eval  HFLM._loglikelihood_tokens over the same ids (its sorting, batching, logit cache); the model is our
         decoder in a transformers wrapper
llama    the same over a transformers LlamaForCausalLM of the same size, random weights: what lm-eval costs on
         a model that is transformers' own

Weights are random, shapes those of a scale (default lm-10m) with its context doubled: the little embedded
tokenizer needs more tokens than NeoX's; its ids are the first of the vocabulary. ``--scale light`` is a model
whose head is 17 % of the matrix work, as in lm-400m-1x (dim 256, 8 layers, vocabulary 4096), while the small
scales spend most of theirs there. Texts that do not fit the context are left out.

Each side runs in a process of its own; seconds are CPU seconds of one thread (wall clock on a GPU); memory is
the growth of the process's peak while scoring: ours reads 4096 tokens at once, lm-eval's batch is the largest
(1 to 8 texts) whose logits stay below a gigabyte. A side whose libraries are not there is named and skipped.
The log-probabilities of all sides but llama are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIDES = ("ours", "plain", "naive", "lm-eval", "llama")
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"


def prompts(names: list[str], items: int, scale: str) -> list[Any]:
    """Queries of the first items of each task, from DCLM's files if there, else from the embedded tasks."""
    from evaluation.lm.prompts import item_queries
    from evaluation.lm.tasks import load_suite, read_items
    from recipes.lm.data import load_tokenizer

    tokenizer, longest = load_tokenizer("bpe4096"), shape_of(scale).context
    suite = load_suite("dclm", SHARED) if SHARED.is_dir() else load_suite("tiny")
    assert suite.folder is not None
    found = []
    for task in suite.tasks:
        if names and task.name not in names:
            continue
        if task.kind in ("text", "generation") or not (suite.folder / task.file).is_file():
            continue
        queries = item_queries(task, read_items(task, suite.folder), items)
        texts = [query for group in queries for query in group]
        fitting = [q for q in texts if sum(map(len, ids_of(tokenizer, q, 1 << 30))) <= longest]
        if fitting:
            found.append((task.name, fitting))
    return found


def shape_of(scale: str) -> Any:
    from dataclasses import replace

    from recipes import scale as scales
    from recipes.lm.model import Shape

    if scale == "light":
        return Shape(4096, 256, 8, 4, 4096)
    shape = scales.load(scale).section("model", Shape)
    return replace(shape, context=2 * shape.context)


def model_and_tokenizer(options: argparse.Namespace) -> tuple[Any, Any]:
    import torch

    from recipes.lm.data import load_tokenizer
    from recipes.lm.model import Decoder

    torch.set_num_threads(1)
    model = Decoder(shape_of(options.scale), seed=3).eval().to(options.device)
    return model, load_tokenizer("bpe4096")


def run_ours(options: argparse.Namespace, tasks: list[Any], share: bool) -> tuple[Any, Any]:
    from evaluation.lm.scorer import BATCH_TOKENS, Scorer

    model, tokenizer = model_and_tokenizer(options)
    tokens = BATCH_TOKENS * (1 if options.device == "cpu" else 16)
    scorer = Scorer(model, tokenizer, share=share, batch_tokens=tokens)
    return lambda: [scorer.queries(queries).logprob.tolist() for _, queries in tasks], scorer


def run_naive(options: argparse.Namespace, tasks: list[Any]) -> tuple[Any, Any]:
    import torch

    model, tokenizer = model_and_tokenizer(options)

    def one(query: Any) -> float:
        context, answer = ids_of(tokenizer, query, model.shape.context)
        row = torch.tensor([context + answer], device=options.device)
        with torch.inference_mode():
            lines = model(row[:, :-1])[0].log_softmax(-1)
        return sum(float(lines[len(context) - 1 + k, token]) for k, token in enumerate(answer))

    return lambda: [[one(query) for query in queries] for _, queries in tasks], model


def run_lm_eval(options: argparse.Namespace, tasks: list[Any], llama: bool) -> tuple[Any, Any]:
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = model_and_tokenizer(options)
    shape = model.shape
    if llama:
        config = transformers.LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.dim,
            intermediate_size=shape.ffn_dim,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
        )
        hf: Any = transformers.LlamaForCausalLM(config).eval()
    else:

        class Wrapped(transformers.PreTrainedModel):
            config_class = transformers.PretrainedConfig

            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.decoder = model

            def forward(self, input_ids: Any, **_: Any) -> Any:
                return transformers.modeling_outputs.CausalLMOutput(logits=self.decoder(input_ids))

            def tie_weights(self, *_: Any, **__: Any) -> None:
                """Nothing is shared."""

        hf = Wrapped(transformers.PretrainedConfig())
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    requests = [[ids_of(tokenizer, query, 1 << 30) for query in queries] for _, queries in tasks]
    longest = max(len(context) + len(answer) for rows in requests for context, answer in rows)
    backend = HFLM(
        pretrained=hf.to(options.device),
        tokenizer=fast,
        backend="causal",
        max_length=shape.context,
        batch_size=max(1, min(8, (1 << 30) // (4 * shape.vocab * longest))),
        device=options.device,
    )

    def score() -> list[list[float]]:
        with torch.inference_mode():
            return [
                [
                    value
                    for value, _ in backend._loglikelihood_tokens(
                        [((str(context), str(answer)), context, answer) for context, answer in rows],
                        disable_tqdm=True,
                    )
                ]
                for rows in requests
            ]

    return score, backend


def ids_of(tokenizer: Any, query: Any, longest: int) -> tuple[list[int], list[int]]:
    """(context, answer), the context cut on the left so that both fit."""
    parts = [tokenizer.encode(t, add_special_tokens=False).ids for t in (query.preamble, query.context)]
    answer = tokenizer.encode(query.answer, add_special_tokens=False).ids
    return (parts[0] + parts[1])[-(longest - len(answer)) :], answer


def side(options: argparse.Namespace) -> None:
    tasks = prompts([name for name in options.tasks.split(",") if name], options.items, options.scale)
    run = {
        "ours": lambda: run_ours(options, tasks, True),
        "plain": lambda: run_ours(options, tasks, False),
        "naive": lambda: run_naive(options, tasks),
        "lm-eval": lambda: run_lm_eval(options, tasks, False),
        "llama": lambda: run_lm_eval(options, tasks, True),
    }[options.side]
    score, _keep = run()
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    if options.device != "cpu":
        score()  # the first pass compiles and allocates
    peak, start = _peak(), clock()
    values = score()
    seconds = clock() - start
    result = {"seconds": seconds, "memory": _peak() - peak, "values": values}
    Path(options.out).write_text(json.dumps(result))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=4, help="items of each task (default 4)")
    parser.add_argument("--tasks", default="", help="comma-separated names (default: every one with a file)")
    parser.add_argument("--sides", default=",".join(SIDES), help="comma-separated; the first is compared")
    parser.add_argument("--scale", default="lm-10m", help="whose model: a name, or light (default lm-10m)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options)
        return
    tasks = prompts([name for name in options.tasks.split(",") if name], options.items, options.scale)
    queries = sum(len(q) for _, q in tasks)
    where = "DCLM's files" if SHARED.is_dir() else "the embedded tasks"
    print(f"{len(tasks)} tasks of {where}, {queries} texts, {options.device}, one thread")
    seconds: dict[str, float] = {}
    results: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sides.split(","):
            out = Path(folder) / name
            python = os.environ.get("WINNOW_LM_EVAL", sys.executable)
            command = [python if name in ("lm-eval", "llama") else sys.executable, __file__, *sys.argv[1:]]
            ran = subprocess.run(
                [*command, "--side", name, "--out", str(out)], capture_output=True, text=True, check=False
            )
            if not out.is_file():
                why = (ran.stderr.strip().splitlines() or ["no output"])[-1]
                print(f"{name:8} skipped: {why}")
                continue
            got = json.loads(out.read_text())
            seconds[name], results[name] = got["seconds"], got["values"]
            first = next(iter(seconds))
            apart = (
                "" if name == "llama" else f"   apart by at most {_apart(results[first], got['values']):.1e}"
            )
            print(
                f"{name:8} {got['seconds']:8.2f} s  {queries / got['seconds']:8.1f} texts/s  "
                f"{got['memory'] / 1e6:7.0f} MB  {got['seconds'] / seconds[first]:5.2f} × {first}{apart}",
                flush=True,
            )


def _apart(a: list[list[float]], b: list[list[float]]) -> float:
    return max(abs(x - y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


if __name__ == "__main__":
    main()
