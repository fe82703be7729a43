"""Language of the page as DCLM reads it (step 8 of dclm_baseline_refinedweb.yaml)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

import curation as c
from filters.text import fasttext_model
from filters.text.dclm.edits import check_compat
from filters.text.language import find_model, language_rules


@dataclass(frozen=True)
class DclmLanguage(c.Model):
    """Most likely language by lid.176: ``language`` and ``language_score``, as ``filters.text:language``.

    Default: the first ``max_chars`` code points (0: all), newlines read as spaces. ``compat="dclm"``: the
    whole page, newlines deleted, so that the last word of a line and the first of the next become one.
    ``path``: the model; see ``filters.text.language.find_model``. Blank text and null give null twice.
    """

    max_chars: int = 2000
    path: str | None = None
    compat: str | None = None
    inputs = ("text",)
    outputs = {"language": pa.string(), "language_score": pa.float32()}
    uses = fasttext_model.MODULES

    def __post_init__(self) -> None:
        check_compat(self.compat)

    def setup(self) -> None:
        object.__setattr__(self, "_model", fasttext_model.load(find_model(self.path)))

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        chars, newline = (0, "") if self.compat else (self.max_chars, " ")
        found = self._model.top(batch.column("text"), chars, newline)  # type: ignore[attr-defined]
        return {"language": found.labels, "language_score": found.probabilities}


dclm_language = DclmLanguage


def dclm_language_rules(
    keep: Sequence[str] = ("en",), threshold: float = 0.65, compat: str | None = None
) -> list[c.Keep]:
    """Keep pages in one of these languages with at least (``compat="dclm"``: more than) this probability."""
    check_compat(compat)
    named, certain = language_rules(keep, threshold)
    if compat:
        certain = c.keep(f"language_score > {threshold!r}", reason=certain.reason)
    return [named, certain]
