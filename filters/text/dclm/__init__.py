"""DCLM's rules (Li et al. 2024, arXiv 2406.11794), and RefinedWeb's that they reproduce.

Compiled: page scores (``scores``), repetition (``repetition``), whole-text edits (``edits``), line edits
(``lines``); page filters under DCLM's names (``named``); language as DCLM reads it (``whole_page``). The
rarer mappers: ``mappers``, ``pages``, ``code``.

Where DCLM's published behaviour is odd, the default is the mended rule and ``compat="dclm"`` the published
one. Nothing heavy is imported here.
"""

from filters.text.dclm.edits import (
    RemoveUrls,
    SqueezeNewlines,
    newline_removal_modifier,
    remove_urls,
    squeeze_newlines,
    url_removal_modifier,
)
from filters.text.dclm.lines import (
    RefinedWebLines,
    counter_line_modifier,
    line_length_modifier,
    numeric_ratio_line_modifier,
    refinedweb_lines,
    substring_line_modifier,
    uppercase_ratio_line_modifier,
    words_removed_rule,
)
from filters.text.dclm.mappers import word_counter_enricher
from filters.text.dclm.named import (
    alphabetic_word_ratio_filter,
    bullet_count_filter,
    ellipsis_count_filter,
    massive_web_repetition_filters,
    page_length_filter,
    repetition_filter,
    stop_word_filter,
    symbol_ratio_filter,
    word_length_filter,
    word_removal_ratio_filter,
)
from filters.text.dclm.repetition import DclmRepetition, dclm_repetition, dclm_repetition_rules
from filters.text.dclm.scores import DclmScores, dclm_rules, dclm_scores
from filters.text.dclm.whole_page import DclmLanguage, dclm_language, dclm_language_rules

# The rarer mappers export here, below this line, from filters.text.dclm.mappers and filters.text.dclm.code.

__all__ = [
    "DclmLanguage",
    "DclmRepetition",
    "DclmScores",
    "RefinedWebLines",
    "RemoveUrls",
    "SqueezeNewlines",
    "alphabetic_word_ratio_filter",
    "bullet_count_filter",
    "counter_line_modifier",
    "dclm_language",
    "dclm_language_rules",
    "dclm_repetition",
    "dclm_repetition_rules",
    "dclm_rules",
    "dclm_scores",
    "ellipsis_count_filter",
    "line_length_modifier",
    "massive_web_repetition_filters",
    "newline_removal_modifier",
    "numeric_ratio_line_modifier",
    "page_length_filter",
    "refinedweb_lines",
    "remove_urls",
    "repetition_filter",
    "squeeze_newlines",
    "stop_word_filter",
    "substring_line_modifier",
    "symbol_ratio_filter",
    "uppercase_ratio_line_modifier",
    "url_removal_modifier",
    "word_counter_enricher",
    "word_length_filter",
    "word_removal_ratio_filter",
    "words_removed_rule",
]
