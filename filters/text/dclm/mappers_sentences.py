"""Sentences: counted by a compiled rule of ours, or cut by the packages that DCLM uses, when installed.

The rule (``rules``): a sentence ends at a run of ``. ! ? …`` and any closing quotes and brackets after it,
where white space follows; and at ``。！？`` whatever follows. One full stop does not end it when a lower-case
letter comes next ("e.g. this") or when it follows a single capital letter ("J. Smith"). The end of the text
ends the last one. A newline by itself ends nothing, as in NLTK's Punkt, which C4 uses. Marks alone are no
sentence.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from curation.errors import PlanError
from filters.text.buffers import utf8

TOKENIZERS = ("rules", "nltk", "blingfire")
_CLOSING = "\"')]»\u2019\u201d"
_WIDE = "。！？"
_MARKS = ".!?…"


def count_sentences(text: pa.Array, tokenizer: str = "rules", language: str | None = None) -> np.ndarray:
    """Sentences of each row: int64."""
    if tokenizer == "rules":
        from filters.text.dclm import classes
        from filters.text.dclm import mappers_kernels as kernels

        column, table = utf8(text), classes.load()
        out = np.empty(len(text), np.int64)
        kernels.sentences(column.data, column.offsets, table.pages, table.classes, out)
        return out
    split = splitter(tokenizer, language)
    return np.array([len(split(page)) if page else 0 for page in text.to_pylist()], np.int64)


def require_tokenizer(tokenizer: str, language: str | None = None) -> None:
    """PlanError unless the package behind a tokenizer is installed, and its data."""
    if tokenizer != "rules" and importlib.util.find_spec(tokenizer) is None:
        raise PlanError(
            f"sentences by {tokenizer!r} need the package {tokenizer}, which is not installed: install it, "
            "or take our own rule (tokenizer: rules; for a DCLM YAML: --set compat=none)"
        )
    if tokenizer == "nltk":
        try:
            splitter(tokenizer, language)
        except LookupError:
            raise PlanError(
                "sentences by 'nltk' in English need its model, which is not here: python -m nltk.downloader "
                "punkt_tab, or take our own rule (tokenizer: rules; for a DCLM YAML: --set compat=none)"
            ) from None


@functools.cache
def splitter(tokenizer: str, language: str | None = None) -> Callable[[str], list[str]]:
    """text → its sentences, stripped, without empty ones."""
    if tokenizer == "rules":
        return split_sentences
    if tokenizer == "blingfire":
        import blingfire

        def by_blingfire(text: str) -> list[str]:
            _, spans = blingfire.text_to_sentences_and_offsets(text)
            return [part for start, end in spans if (part := text[start:end].strip())]

        return by_blingfire
    from nltk.tokenize import PunktTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    english = language in ("en", "english")
    punkt = PunktTokenizer("english") if english else PunktSentenceTokenizer()

    def by_punkt(text: str) -> list[str]:
        return [part for start, end in punkt.span_tokenize(text) if (part := text[start:end].strip())]

    return by_punkt


def split_sentences(text: str) -> list[str]:
    """The rule above in plain Python; ``count_sentences`` counts what this returns."""
    cuts: list[int] = []
    solid = mark = dot = spaced = capital = False
    letters = before = 0
    for at, char in enumerate(text):
        if char.isspace():
            spaced, letters = mark, 0
            continue
        if mark and spaced:
            lower = char.isalpha() and not char.isupper() and char < "\u2000"
            if not (dot and (lower or (before == 1 and capital))):
                cuts.append(at)
                solid = False
            mark = spaced = False
        if char in _WIDE:
            if solid or mark:
                cuts.append(at + 1)
            mark = spaced = solid = False
            letters = 0
            continue
        if char in _MARKS:
            dot = char == "." and not mark
            if not mark:
                before = letters
            mark, letters = solid, 0
        elif mark and char not in _CLOSING:
            mark = False
        if char not in _MARKS and char not in _CLOSING:
            solid = True
            letters += 1
            capital = char.isupper()
    cuts += [len(text)] if solid else []
    pieces = [text[a:b].strip() for a, b in zip([0, *cuts], cuts, strict=False)]
    return [piece for piece in pieces if piece]
