"""A transformer's grade of a text: FineWeb-Edu's classifier, or any like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

import curation as c

FINEWEB_EDU = "HuggingFaceFW/fineweb-edu-classifier"


@dataclass(frozen=True)
class TransformerScore(c.Model):
    """The grade that a sequence classifier with one output gives: a float32 column named ``output``.

    ``path``: a folder as ``save_pretrained`` writes it, or a model's name on the Hugging Face hub (fetched on
    first use). The text is cut at ``max_tokens``. FineWeb-Edu (Penedo et al. 2024, arXiv 2406.17557) keeps
    pages whose grade of educational value, 0 … 5, rounds to 3 or more: see `edu_rules`.

    The grade is rounded to ``decimals``, because the last bits of a matrix product depend on how many texts
    were graded together and on the machine. Blank text is graded like any other; null gives null.

    Raises ImportError without transformers, ValueError for a model that has more than one output. Only
    safetensors weights are read.
    """

    path: str = FINEWEB_EDU
    max_tokens: int = 512
    output: str = "edu"
    gpus: float = 0
    texts_at_once: int = 32
    decimals: int = 3
    inputs = ("text",)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.output: pa.float32()}

    @property
    def resources(self) -> c.Resources:  # type: ignore[override]
        return c.Resources(gpus=self.gpus)

    def setup(self) -> None:
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise ImportError(
                f"transformer_score needs transformers ({error}): winnow-data[models]"
            ) from error
        model: Any = AutoModelForSequenceClassification.from_pretrained(self.path, use_safetensors=True)
        if model.config.num_labels != 1:
            raise ValueError(
                f"{self.path} has {model.config.num_labels} outputs; transformer_score reads models "
                "with one, a grade"
            )
        device = "cuda" if self.gpus else "cpu"
        object.__setattr__(self, "_model", model.eval().to(device))
        object.__setattr__(self, "_tokenizer", AutoTokenizer.from_pretrained(self.path))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        import torch

        text = batch.column("text")
        rows = np.flatnonzero(np.asarray(text.is_valid()))
        # long texts together: padding is what a batch wastes
        sizes = np.asarray(pa.compute.binary_length(text).fill_null(0))
        rows = rows[np.argsort(sizes[rows], kind="stable")]
        grades = np.zeros(len(text), np.float32)
        for start in range(0, len(rows), self.texts_at_once):
            chosen = rows[start : start + self.texts_at_once]
            encoded = self._tokenizer(  # type: ignore[attr-defined]
                text.take(pa.array(chosen)).to_pylist(), truncation=True, max_length=self.max_tokens,
                padding=True, return_tensors="pt",
            ).to(self._model.device)  # type: ignore[attr-defined]  # fmt: skip
            with torch.inference_mode():
                grades[chosen] = self._model(**encoded).logits[:, 0].float().cpu().numpy()  # type: ignore[attr-defined]
        return pa.array(np.round(grades, self.decimals), pa.float32(), mask=np.asarray(text.is_null()))


transformer_score = TransformerScore


def edu_rules(minimum: int = 3, column: str = "edu") -> list[c.Keep]:
    """FineWeb-Edu's decision: the grade, rounded as in Python (2.5 to 2), is at least ``minimum``, 1 … 5."""
    return [c.keep(f"round_even({column}, 0) >= {minimum!r}", reason="educational value")]
