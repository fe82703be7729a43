"""Apply a fastText quality classifier, as in DCLM (Li et al. 2024, arXiv 2406.11794, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import curation as c
from filters.text import fasttext_model

DCLM_CLASSIFIER = (
    "https://huggingface.co/mlfoundations/fasttext-oh-eli5/resolve/main/"
    "openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin"
)
"""OpenHermes-2.5 and r/ExplainLikeImFive against a RefinedWeb reproduction, word two-grams: about 2.4 GB."""


@dataclass(frozen=True)
class FastTextQuality(c.Model):
    """Probability that a text is of the ``positive`` label: one float64 column named ``output``.

    ``path``: a fastText classifier (.bin or .ftz; ``recipes`` trains one), or the URL of one, fetched
    once and kept (``sha256``: which one you mean). ``chunk_words``: None reads the whole text
    as one line (DCLM); a number cuts it into chunks of so many white-space words, and takes their mean.
    Newlines count as spaces. Blank text scores 0, null scores null.

    DCLM's own classifier is `DCLM_CLASSIFIER`; its published threshold is .018112, which kept the top tenth
    of DCLM's pool. On another pool take the tenth itself: ``top_fraction(quality, .1)``.

    Raises FileNotFoundError, or ValueError when the model has no such label.
    """

    path: str
    positive: str = "__label__hq"
    chunk_words: int | None = None
    output: str = "quality"
    sha256: str | None = None
    inputs = ("text",)
    uses = fasttext_model.MODULES

    def __post_init__(self) -> None:
        if self.chunk_words is not None and self.chunk_words < 1:
            raise ValueError(f"chunk_words={self.chunk_words}: expected None or a positive number of words")

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.output: pa.float64()}

    def setup(self) -> None:
        path = self.path
        if "://" in path or self.sha256 is not None:
            from pools import fetch

            path = str(fetch.cached(path, sha256=self.sha256))
        model = fasttext_model.load(path)
        if self.positive not in model.labels:
            raise ValueError(
                f"{self.path}: no label {self.positive!r}; the model has {', '.join(sorted(model.labels))}"
            )
        object.__setattr__(self, "_model", model)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        scores = self._model.probability(text, self.positive, self.chunk_words)  # type: ignore[attr-defined]
        return pa.array(scores, mask=np.asarray(text.is_null()))


fasttext_quality = FastTextQuality
