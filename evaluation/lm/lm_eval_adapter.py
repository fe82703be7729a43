"""Our checkpoints in lm-eval (EleutherAI's lm-evaluation-harness, ``pip install lm-eval``).

    python -m evaluation.lm.lm_eval_adapter run --model winnow --model_args folder=models/rules-0 --tasks piqa

is lm-eval's own command line with ``winnow`` among its models; ``folder`` is a model folder of
``recipes.lm.train`` or ``recipes.lm.open_lm``. From Python::

    lm_eval.simple_evaluate(WinnowLM("models/rules-0"), tasks=["piqa"])

Prompts, tokenisation at the border of context and answer, and metrics are lm-eval's, so figures are those of
its other models and not those of ``evaluation.lm``, which follows DCLM. Batches, shared beginnings and the
cache of keys and values are those of our scorer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from evaluation.lm.generate import Request, fit, generate
from evaluation.lm.scorer import Scorer

try:
    import lm_eval.models  # noqa: F401  (fills the registry, which registering first would prevent)
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ImportError(f"this module is for users of lm-eval: pip install lm-eval ({error})") from error

MAX_NEW = 256  # tokens generated where a task does not say; lm-eval's own default


@register_model("winnow")
class WinnowLM(TemplateLM):
    """A model folder as lm-eval's model ``winnow``.

    ``device`` (lm-eval's ``--device``): ``cpu``, ``cuda:0`` …; CUDA, where there is none, gives way to the
    best there is, because lm-eval asks for it unless told otherwise. ``precision``: ``fp32`` or ``bf16``.
    ``batch_tokens`` bounds a batch; lm-eval's ``batch_size`` is not used, because batches are made by tokens
    and do not change figures. Special tokens spelled out in a prompt are read as plain text, as in training.
    """

    def __init__(
        self,
        folder: str,
        device: str | None = None,
        precision: str = "fp32",
        batch_tokens: int | None = None,
        threads: int = 1,
        batch_size: Any = None,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        self.folder = str(folder)
        self.scorer = Scorer.load(
            folder,
            devices=[device] if device and there(device) else [],
            precision=precision,
            batch_tokens=None if batch_tokens is None else int(batch_tokens),
            threads=int(threads),
        )
        self._encoded = lru_cache(1 << 16)(lambda text: tuple(self.scorer.encode([text])[0]))

    @property
    def eot_token_id(self) -> int:
        return self.scorer.end

    @property
    def max_length(self) -> int:
        return self.scorer.context

    @property
    def max_gen_toks(self) -> int:
        return min(MAX_NEW, self.max_length // 2)

    @property
    def tokenizer_name(self) -> str:
        return self.folder

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return list(self._encoded(string))

    def tok_decode(self, tokens: list[int], **_: Any) -> str:
        return self.scorer.tokenizer.decode(list(tokens), skip_special_tokens=False)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        for (_context, answer), _ids, ids in requests:
            if not 0 < len(ids) <= self.max_length:
                raise ValueError(
                    f"answer {answer[:40]!r} has {len(ids)} tokens; the model's context is {self.max_length}"
                )
        found = self._score([(context, answer) for _, context, answer in requests], disable_tqdm)
        for (texts, _context, _answer), result in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, result)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, in lm-eval's windows: the last has a full context."""
        parts, owner = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                parts.append(make_disjoint_window(window))
                owner.append(number)
        totals = [0.0] * len(requests)
        for number, (logprob, _) in zip(owner, self._score(parts, disable_tqdm), strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, cut before the first stop string or the end of the text."""
        asked = []
        stops = []
        for request in requests:
            context, settings = request.args
            wanted = normalize_gen_kwargs(settings, self.max_gen_toks)
            if wanted["do_sample"]:
                raise ValueError(f"generation here is greedy; the task asks for sampling: {settings}")
            new = wanted["max_gen_toks"]
            if not 0 < new < self.max_length:
                raise ValueError(
                    f"max_gen_toks={new} leaves no room for a prompt: the model's context is "
                    f"{self.max_length}; lower it with --gen_kwargs max_gen_toks=…"
                )
            ids = self.tok_encode(context) or [self.prefix_token_id]
            stops.append([stop for stop in wanted["until"] if stop])
            asked.append(Request(fit(ids, new, self.max_length), new, tuple(stops[-1])))
        texts = self._with_progress(disable_tqdm, lambda progress: generate(self.scorer, asked, progress))
        cut = [postprocess_generated_text(t, stop, None) for t, stop in zip(texts, stops, strict=True)]
        for request, text in zip(requests, cut, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return cut

    def _score(self, parts: list[tuple[list[int], list[int]]], quiet: bool) -> list[tuple[float, bool]]:
        """(log-probability, all greedy) of each answer after its context; what does not fit is cut from the
        context's beginning. The last token is only predicted, so one more than the context fits."""
        rows, counts = [], []
        for context, answer in parts:
            row = np.array([*context, *answer][-(self.max_length + 1) :], dtype=np.int64)
            rows.append(row)
            counts.append(min(len(answer), len(row) - 1))
        logprob, greedy = self._with_progress(quiet, lambda p: self.scorer.score(rows, counts, p))
        return list(zip(logprob.tolist(), greedy.tolist(), strict=True))

    def _with_progress(self, quiet: bool, work: Callable[[Callable[[float], None]], Any]) -> Any:
        from tqdm import tqdm

        bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        with tqdm(total=1.0, desc="winnow", disable=quiet, bar_format=bar_format) as bar:

            def progress(share: float) -> None:
                bar.n = share
                bar.refresh()

            return work(progress)


def there(device: str) -> bool:
    """Can this machine compute on it? lm-eval's command line asks for ``cuda:0`` unless told otherwise."""
    import torch

    found = not device.startswith("cuda") or torch.cuda.is_available()
    if not found:
        logging.getLogger(__name__).warning("no %s here; using the best device there is", device)
    return found


def main() -> None:
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
