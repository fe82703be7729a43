"""Text: extraction, language, quality rules of every published recipe, classifiers, URLs, personal data.

    from filters.text import extract, gopher, gopher_quality_rules, language, language_rules

DCLM's rules under their own names are in ``filters.text.dclm``, any datatrove filter is ``datatrove``.

The steps are loaded here, not on first use: so ``filters.text.language`` is always the step and never the
module of that name. Nothing heavy comes with them: numba, resiliparse, torch are imported where used.
"""

from filters.text.c4 import (
    C4BadWords,
    C4Lines,
    C4Paragraph,
    C4Score,
    c4,
    c4_bad_words,
    c4_bad_words_rules,
    c4_lines,
    c4_paragraph,
    c4_paragraph_rules,
    c4_rules,
    c4_scores,
)
from filters.text.dolma import (
    DolmaC4,
    DolmaGopher,
    DolmaLengths,
    DolmaNoPunctuation,
    DolmaRandomNumber,
    DolmaRepetitions,
    dolma_c4,
    dolma_gopher,
    dolma_gopher_rules,
    dolma_lengths,
    dolma_no_punctuation,
    dolma_random_number,
    dolma_repetitions,
)
from filters.text.extract import Extract, ExtractAll, extract, extract_all, extract_rules
from filters.text.fineweb import FineWeb, fineweb, fineweb_rules, fineweb_scores
from filters.text.from_datatrove import datatrove
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
from filters.text.heuristics import Heuristics, heuristics, text_scores
from filters.text.language import Language, language, language_rules
from filters.text.languages import (
    GopherMultilingual,
    LanguageLimits,
    gopher_multilingual,
    language_limits,
    multilingual_rules,
)
from filters.text.pii import MaskPii, PiiCounts, mask_pii, pii_counts
from filters.text.quality import DCLM_CLASSIFIER, FastTextQuality, fasttext_quality
from filters.text.redpajama import (
    CcnetPerplexity,
    RedpajamaSignals,
    Ut1Blacklist,
    ccnet_language_score,
    ccnet_perplexity,
    redpajama_c4_rules,
    redpajama_gopher_rules,
    redpajama_rules,
    redpajama_signals,
    ut1_blacklist,
)
from filters.text.simple import n_bytes, n_chars, n_lines
from filters.text.tokens import NTokens, NTokensEstimate, n_tokens, n_tokens_estimate
from filters.text.transformer import TransformerScore, edu_rules, transformer_score
from filters.text.url import UrlBlocklist, UrlWords, url_blocklist, url_blocklist_rules, url_rules, url_words
from filters.text.url_ut1 import UrlCategories, url_categories, url_category_rules

__all__ = [
    "DCLM_CLASSIFIER",
    "C4BadWords",
    "C4Lines",
    "C4Paragraph",
    "C4Score",
    "CcnetPerplexity",
    "DolmaC4",
    "DolmaGopher",
    "DolmaLengths",
    "DolmaNoPunctuation",
    "DolmaRandomNumber",
    "DolmaRepetitions",
    "Extract",
    "ExtractAll",
    "FastTextQuality",
    "FineWeb",
    "Gopher",
    "GopherMultilingual",
    "GopherQuality",
    "GopherRepetition",
    "Heuristics",
    "Language",
    "LanguageLimits",
    "MaskPii",
    "NTokens",
    "NTokensEstimate",
    "PiiCounts",
    "RedpajamaSignals",
    "TransformerScore",
    "UrlBlocklist",
    "UrlCategories",
    "UrlWords",
    "Ut1Blacklist",
    "c4",
    "c4_bad_words",
    "c4_bad_words_rules",
    "c4_lines",
    "c4_paragraph",
    "c4_paragraph_rules",
    "c4_rules",
    "c4_scores",
    "ccnet_language_score",
    "ccnet_perplexity",
    "datatrove",
    "dolma_c4",
    "dolma_gopher",
    "dolma_gopher_rules",
    "dolma_lengths",
    "dolma_no_punctuation",
    "dolma_random_number",
    "dolma_repetitions",
    "edu_rules",
    "extract",
    "extract_all",
    "extract_rules",
    "fasttext_quality",
    "fineweb",
    "fineweb_rules",
    "fineweb_scores",
    "gopher",
    "gopher_multilingual",
    "gopher_quality",
    "gopher_quality_rules",
    "gopher_repetition",
    "gopher_repetition_rules",
    "gopher_scores",
    "heuristics",
    "language",
    "language_limits",
    "language_rules",
    "mask_pii",
    "multilingual_rules",
    "n_bytes",
    "n_chars",
    "n_lines",
    "n_tokens",
    "n_tokens_estimate",
    "pii_counts",
    "redpajama_c4_rules",
    "redpajama_gopher_rules",
    "redpajama_rules",
    "redpajama_signals",
    "text_scores",
    "transformer_score",
    "url_blocklist",
    "url_blocklist_rules",
    "url_categories",
    "url_category_rules",
    "url_rules",
    "url_words",
    "ut1_blacklist",
]
