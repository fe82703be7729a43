"""Text: extraction, language, Gopher rules, URL words, quality classifiers.

    from filters.text import extract, gopher, gopher_quality_rules, language, language_rules

The steps are loaded here, not on first use: so ``filters.text.language`` is always the step and never the
module of that name. Nothing heavy comes with them: numba, resiliparse and fastText are imported where used.
"""

from filters.text.extract import Extract, extract
from filters.text.gopher import (
    Gopher,
    GopherQuality,
    GopherRepetition,
    gopher,
    gopher_quality,
    gopher_quality_rules,
    gopher_repetition,
    gopher_repetition_rules,
    gopher_scores,
)
from filters.text.language import Language, language, language_rules
from filters.text.quality import FastTextQuality, fasttext_quality
from filters.text.simple import n_bytes, n_chars, n_lines
from filters.text.url import UrlWords, url_rules, url_words

__all__ = [
    "Extract",
    "FastTextQuality",
    "Gopher",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "UrlWords",
    "extract",
    "fasttext_quality",
    "gopher",
    "gopher_quality",
    "gopher_quality_rules",
    "gopher_repetition",
    "gopher_repetition_rules",
    "gopher_scores",
    "language",
    "language_rules",
    "n_bytes",
    "n_chars",
    "n_lines",
    "url_rules",
    "url_words",
]
