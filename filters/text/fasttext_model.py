"""Applying fastText classifiers to Arrow text columns. Training is the business of ``recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def load(path: str) -> Any:
    """A fastText model (.bin or .ftz). Raises FileNotFoundError; ValueError for a file that is no model."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"fastText model {path!r} is not a file")
    try:
        from fasttext.FastText import _FastText
    except ImportError as error:
        raise ImportError("fastText is not installed: pip install fasttext-community") from error
    return _FastText(model_path=str(path))


def one_line(text: pa.Array, max_chars: int = 0) -> pa.Array:
    """First ``max_chars`` code points of each text (0: all), newlines as spaces: a line for fastText."""
    if max_chars > 0:
        text = pc.utf8_slice_codeunits(text, 0, max_chars)
    return pc.replace_substring(text, "\n", " ")


def top_labels(model: Any, lines: list[str | None]) -> tuple[list[str | None], list[float | None]]:
    """Most likely label (without ``__label__``) and its probability; None for null and for blank lines."""
    asked = [row for row, line in enumerate(lines) if line and not line.isspace()]
    labels: list[str | None] = [None] * len(lines)
    scores: list[float | None] = [None] * len(lines)
    if asked:
        found, probabilities = model.predict([lines[row] for row in asked])
        for row, names, values in zip(asked, found, probabilities, strict=True):
            if len(names):
                labels[row] = names[0].removeprefix("__label__")
                scores[row] = min(1.0, float(values[0]))
    return labels, scores


def probabilities(model: Any, lines: list[str], label: str) -> np.ndarray:
    """float64[len(lines)]: probability of ``label`` for each line; fastText's rounding above 1 is cut."""
    if not lines:
        return np.zeros(0)
    found, values = model.predict(lines, k=len(model.get_labels()))
    chances = (
        dict(zip(names, row, strict=True)).get(label, 0.0) for names, row in zip(found, values, strict=True)
    )
    return np.minimum(1.0, np.fromiter(chances, float, len(lines)))
