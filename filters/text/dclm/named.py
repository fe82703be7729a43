"""DCLM's page filters under DCLM's own names and parameters, as keeps over score columns.

Each reads struct column ``column``, made by ``dclm_scores(output=column)`` (for repetition:
``dclm_repetition``, for words removed: ``refinedweb_lines`` or ``word_counter_enricher``) from the text as it
is at that point of the plan. A transform that comes between needs another column:
``dclm_scores(output="dclm_2")``. Every bound is inclusive, as DCLM's are.
"""

from __future__ import annotations

import math

import curation as c
from filters.text.dclm.repetition import dclm_repetition_rules


def page_length_filter(
    length_type: str,
    min_length: float = 1,
    max_length: float = math.inf,
    ignore_punctuation: bool = False,
    model: str = "fasttext",
    column: str = "dclm",
) -> list[c.Keep]:
    """Pages with ``min_length`` to ``max_length`` units: "char", "line" (blank ones aside), or "word": of
    fastText's reader, first character alphanumeric (``ignore_punctuation=True``), or of ``str.split``
    (``model="split"``). ValueError for units that the scores do not hold (sentences, paragraphs)."""
    fields = {
        ("char", False): "n_chars",
        ("line", False): "n_lines",
        ("word", True): "n_words",
    }
    field = fields.get((length_type, ignore_punctuation))
    if length_type == "word" and model == "split" and not ignore_punctuation:
        field = "n_tokens"
    elif length_type == "word" and model != "fasttext":
        field = None
    if field is None:
        raise ValueError(
            f"page_length_filter(length_type={length_type!r}, model={model!r}, ignore_punctuation="
            f"{ignore_punctuation}): counted are 'char', 'line', 'word' of fastText without punctuation, and "
            "'word' of model 'split' with it"
        )
    unit = {"char": "characters", "line": "lines", "word": "words"}[length_type]
    rules = [c.keep(f"{column}.{field} >= {min_length!r}", reason=f"dclm: too few {unit}")]
    if max_length != math.inf:
        rules.append(c.keep(f"{column}.{field} <= {max_length!r}", reason=f"dclm: too many {unit}"))
    return rules


def word_length_filter(
    min_length: float = 0, max_length: float = math.inf, column: str = "dclm"
) -> list[c.Keep]:
    """Mean length of white-space words. A page without words leaves."""
    some = f"{column}.n_tokens > 0 and " if min_length <= 0 else ""
    rules = [
        c.keep(f"{some}{column}.mean_word_length >= {min_length!r}", reason="dclm: words too short"),
    ]
    if max_length != math.inf:
        rules.append(c.keep(f"{column}.mean_word_length <= {max_length!r}", reason="dclm: words too long"))
    return rules


def symbol_ratio_filter(max_symbol_to_word_ratio: float = 0.1, column: str = "dclm") -> list[c.Keep]:
    """'#', '...', '. . .' and '…' per white-space word. A page without words leaves."""
    where = f"{column}.n_tokens > 0 and {column}.symbol_ratio <= {max_symbol_to_word_ratio!r}"
    return [c.keep(where, reason="dclm: too many symbols")]


def bullet_count_filter(max_bullet_start_ratio: float = 0.9, column: str = "dclm") -> list[c.Keep]:
    """Share of lines that begin with a bullet."""
    where = f"{column}.bullet_line_ratio <= {max_bullet_start_ratio!r}"
    return [c.keep(where, reason="dclm: too many bullet lines")]


def ellipsis_count_filter(max_ellipsis_end_ratio: float = 0.3, column: str = "dclm") -> list[c.Keep]:
    """Share of lines that end in an ellipsis."""
    where = f"{column}.ellipsis_line_ratio <= {max_ellipsis_end_ratio!r}"
    return [c.keep(where, reason="dclm: too many cut lines")]


def alphabetic_word_ratio_filter(max_ratio: float = 0.2, column: str = "dclm") -> list[c.Keep]:
    """Share of white-space words without a letter. A page without words leaves."""
    where = f"{column}.n_tokens > 0 and {column}.non_alpha_word_ratio <= {max_ratio!r}"
    return [c.keep(where, reason="dclm: too many words without a letter")]


def stop_word_filter(
    count_unique: bool = False, min_stop_word: int = 2, column: str = "dclm"
) -> list[c.Keep]:
    """At least so many stop words, or (``count_unique``) different ones."""
    field = "n_unique_stop_words" if count_unique else "n_stop_words"
    return [c.keep(f"{column}.{field} >= {min_stop_word!r}", reason="dclm: too few stop words")]


def massive_web_repetition_filters(
    skip_paragraph: bool = False, column: str = "dclm_repetition"
) -> list[c.Keep]:
    """All repetition rules, at the published bounds; column made by ``dclm_repetition``."""
    return dclm_repetition_rules(skip_paragraph=skip_paragraph, column=column)


def repetition_filter(
    granularity: str | int,
    max_fraction: float,
    count_characters: bool = True,
    ngram_char_ratio: str | None = None,
    column: str = "dclm_repetition",
) -> list[c.Keep]:
    """One repetition rule: "line", "paragraph" or an n; column made by ``dclm_repetition``.

    ValueError for what is not counted: "most_common" past n = 4, "all" below 5.
    """
    if granularity in ("line", "paragraph"):
        field = {"line": "dup_line", "paragraph": "dup_para"}[str(granularity)]
        field += "_char_frac" if count_characters else "_frac"
    elif granularity in (2, 3, 4) and ngram_char_ratio in (None, "most_common"):
        field = f"top_{granularity}_gram"
    elif granularity in (5, 6, 7, 8, 9, 10) and ngram_char_ratio in (None, "all"):
        field = f"dup_{granularity}_gram"
    else:
        raise ValueError(
            f"repetition_filter(granularity={granularity!r}, ngram_char_ratio={ngram_char_ratio!r}): counted "
            "are 'line', 'paragraph', 'most_common' for n = 2 to 4 and 'all' for n = 5 to 10"
        )
    return [
        c.keep(f"{column}.n_lines > 0", reason="dclm repetition: empty page"),
        c.keep(f"{column}.{field} <= {max_fraction!r}", reason=f"dclm repetition: {field}"),
    ]


def word_removal_ratio_filter(
    prev_word_count_key: str = "line_edits.words_before",
    new_word_count_key: str = "line_edits.words_after",
    max_removed_ratio: float = 0.05,
) -> list[c.Keep]:
    """Pages that lost at most this share of their words between two counts (columns or struct fields)."""
    before, after = prev_word_count_key, new_word_count_key
    # a page without words before gives null here, and leaves, as DCLM has it
    where = f"({before} - {after}) / nullif({before}, 0) <= {max_removed_ratio!r}"
    return [c.keep(where, reason="dclm: too many words removed")]
