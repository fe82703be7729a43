"""Our decisions beside those of lm-eval's hf backend, on tasks where its prompts are made identical.

Runs where lm-eval is installed, or where WINNOW_LM_EVAL names an interpreter that has it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.lm import prompts
from evaluation.lm.scorer import Scorer
from evaluation.lm.tasks import load_suite, read_items
from recipes.lm.data import load_tokenizer
from recipes.lm.model import Decoder, Shape

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"
PYTHON = os.environ.get("WINNOW_LM_EVAL", sys.executable)
SHAPE = {"vocab": 4096, "dim": 64, "layers": 2, "heads": 4, "context": 2048, "ffn_multiple": 64}
ITEMS = 20

# lm-eval itself: its task class, its tokenising of context and answer together, its order and batches.
LM_EVAL = """
import json, sys
import torch, transformers
import lm_eval
from lm_eval.models.huggingface import HFLM
from recipes.lm.data import load_tokenizer
from recipes.lm.model import Decoder, Shape

folder, shape, names = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3].split(",")
torch.set_num_threads(1)

class Wrapped(transformers.PreTrainedModel):
    config_class = transformers.PretrainedConfig
    def __init__(self, config):
        super().__init__(config)
        self.decoder = Decoder(Shape(**shape), seed=11).eval()
        with torch.no_grad():
            self.decoder.head.weight.mul_(4)
    def forward(self, input_ids, **_):
        return transformers.modeling_outputs.CausalLMOutput(logits=self.decoder(input_ids))
    def tie_weights(self, *_, **__):
        pass

tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=load_tokenizer("bpe4096"), eos_token="<|endoftext|>"
)
model = HFLM(
    pretrained=Wrapped(transformers.PretrainedConfig()), tokenizer=tokenizer, backend="causal",
    max_length=shape["context"], batch_size=3, device="cpu",
)
tasks = [
    {
        "task": name, "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{folder}/{name}.jsonl"}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}", "target_delimiter": " ",
        "num_fewshot": 0, "metric_list": [{"metric": "acc"}],
    }
    for name in names
]
got = lm_eval.simple_evaluate(model, tasks=tasks, log_samples=True, bootstrap_iters=0)
out = {
    name: [
        {"logprob": [float(r[0]) for r in s["filtered_resps"]], "acc": s["acc"]}
        for s in sorted(got["samples"][name], key=lambda s: s["doc_id"])
    ]
    for name in names
}
open(f"{folder}/out.json", "w").write(json.dumps(out))
"""


def has_lm_eval() -> bool:
    probe = (
        "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ('lm_eval', 'transformers'))))"
    )
    return subprocess.run([PYTHON, "-c", probe], check=False).returncode == 0


def test_decisions_equal_lm_evals_where_its_prompts_are_ours(tmp_path) -> None:
    if not has_lm_eval():
        pytest.skip("no lm-eval here: set WINNOW_LM_EVAL to an interpreter that has it")
    torch.set_num_threads(1)
    model = Decoder(Shape(**SHAPE), seed=11).eval()
    with torch.no_grad():
        model.head.weight.mul_(4)
    scorer = Scorer(model, load_tokenizer("bpe4096"))
    wanted = {}
    suites = [load_suite("tiny"), load_suite("dclm", SHARED)]
    names = ["word_order", "cloze_choice_2shot", "copa", "openbook_qa", "piqa", "arc_easy", "siqa"]
    for suite in suites:
        for task in suite.tasks:
            if task.name not in names or not (suite.folder / task.file).is_file():
                continue
            items = read_items(task, suite.folder)
            groups = prompts.item_queries(task, items, ITEMS)
            rows, kept = [], []
            for item, group in zip(items, groups, strict=False):
                prompt = group[0].preamble + group[0].context
                # lm-eval reads context and answer as one text: its ids must be ours, or the prompt is another
                apart = [sum(scorer.encode([q.preamble, q.context, q.answer]), []) for q in group]  # noqa: RUF017
                joined = scorer.encode([prompt + q.answer for q in group])
                if joined == apart and max(map(len, joined)) <= SHAPE["context"]:
                    rows.append({"prompt": prompt, "choices": item["choices"], "gold": item["gold"]})
                    kept.append(group)
            assert len(kept) >= 0.7 * len(groups), (task.name, len(kept))
            (tmp_path / f"{task.name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            wanted[task.name] = (kept, rows)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [PYTHON, "-c", LM_EVAL, str(tmp_path), json.dumps(SHAPE), ",".join(wanted)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    theirs = json.loads((tmp_path / "out.json").read_text())
    compared = 0
    for name, (groups, rows) in wanted.items():
        scores = scorer.queries([query for group in groups for query in group])
        at = 0
        for group, row, their in zip(groups, rows, theirs[name], strict=True):
            logprob, tokens = scores.logprob[at : at + len(group)], scores.tokens[at : at + len(group)]
            at += len(group)
            np.testing.assert_allclose(logprob, their["logprob"], rtol=1e-5, atol=1e-4)
            for ours, other in (
                (logprob, np.array(their["logprob"])),
                (logprob / tokens, their["logprob"] / tokens),
            ):
                if np.sort(ours)[-1] - np.sort(ours)[-2] > 1e-4:
                    assert ours.argmax() == other.argmax(), (name, row)
            if np.sort(logprob)[-1] - np.sort(logprob)[-2] > 1e-4:
                assert (logprob.argmax() == row["gold"]) == bool(their["acc"])
            compared += 1
    assert compared >= 2 * 0.7 * ITEMS
