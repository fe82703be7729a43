"""dolma's taggers, where their numbers differ from those of the papers they follow.

Source: Soldaini et al. 2024, "Dolma: an Open Corpus of Three Trillion Tokens" (arXiv 2402.00159), and the
taggers of its toolkit (``gopher_v1``, ``c4_v1``, ``c4_v2``, ``bytes_length_v1``, ``char_length_*``,
``whitespace_tokenizer_v1``, ``uniseg_length_*``, ``not_alphanum_paragraph_v1``, ``repetitions_v1``,
``paragraph_repetitions_v1``, ``random_number_v1``). Scores have the toolkit's names; each docstring says what
is different from the rule as first published. Lines are ``text.split("\\n")``, words ``text.split()``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import curation as c
from curation.apply import replace_columns
from filters.text import normal_forms
from filters.text.buffers import SHARED, utf8
from filters.text.columns import one_array, strings, struct_array, struct_type
from filters.text.gopher import STOP_WORDS
from filters.text.sources import identity_with

GOPHER_TYPE = struct_type(
    (
        "character_count", "word_count", "median_word_length", "symbol_to_word_ratio",
        "fraction_of_words_with_alpha_character", "required_word_count",
        "fraction_of_lines_starting_with_bullet_point", "fraction_of_lines_ending_with_ellipsis",
        "fraction_of_duplicate_lines", "fraction_of_characters_in_duplicate_lines",
        *(f"fraction_of_characters_in_most_common_{n}grams" for n in (2, 3, 4)),
        *(f"fraction_of_characters_in_duplicate_{n}grams" for n in (5, 6, 7, 8, 9, 10)),
    ),
    whole=("character_count", "word_count", "required_word_count"),
)  # fmt: skip
_LINE_COUNTS = ("line_count", "lines_with_no_ending_punctuation", "lines_with_too_few_words")
_FOUND = ("has_javascript", "has_javascript_word", "has_lorem_ipsum", "has_curly_brace")
C4_TYPE = struct_type((*_LINE_COUNTS, *_FOUND), whole=_LINE_COUNTS, flags=_FOUND)
_LENGTHS = (
    "bytes", "characters", "characters_stripped", "words", "tokens", "paragraphs", "symbol_paragraphs",
)  # fmt: skip
LENGTHS_TYPE = struct_type(_LENGTHS, whole=_LENGTHS)
_SPANS = ("count", "doc_max_score_repetition", "doc_max_length_repetition")
REPETITIONS_TYPE = struct_type((*_SPANS, "doc_frac_repetition"), whole=_SPANS)
_USES = (*normal_forms.USES, "filters.text.signal_kernels", *SHARED)


def _counts(
    text: pa.Array, required: tuple[str, ...] = (), blank_lines: bool = False, repetition: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """int64[DOLMA_COUNTS, n] and, if wanted, float64[12, n]: see ``signal_kernels``."""
    from filters.text import signal_kernels as kernels
    from filters.text.redpajama import stop_table

    column, table = utf8(text), normal_forms.load()
    n = len(text)
    counts = np.empty((n, kernels.DOLMA_COUNTS), np.int64)
    repeated = np.empty((n if repetition else 0, len(kernels.DOLMA_REPETITION)))
    kernels.dolma(
        column.data, column.offsets, table.pages, table.flags, *stop_table(required), blank_lines,
        repetition, counts, repeated,
    )  # fmt: skip
    return counts.T, repeated.T


@dataclass(frozen=True)
class DolmaGopher(c.Model):
    """Score what ``gopher_v1`` scores: struct column ``dolma_gopher``. (The toolkit has no ``gopher_v2``.)

    Unlike Gopher's paper, and unlike ``filters.text:gopher``:

    * the *median* word length, not the mean;
    * the symbol ratio counts words that hold a ``#`` or ``…``; three full stops are no ellipsis;
    * required words count each time they occur; Gopher asks for different ones;
    * a bullet is ``*`` or ``-`` as the very first character of a line ("•" and indented ones are none); a cut
      line ends with ``…`` and nothing after it;
    * a duplicate line counts with its first copy, and its characters are a share of those *in words*, so that
      the score can pass 1;
    * top n-grams need not repeat (in a page of three words one bigram is most of it); characters are those of
      words, without blanks;
    * duplicate n-grams: of the characters of all overlapping n-grams, the share of those that occur more than
      once, so a word weighs up to n times.

    A page of fewer than n words scores 0 for n (the toolkit leaves the attribute out, with the same effect).

    Blank lines are passed over: Dolma's pages come from CCNet, which leaves none. ``compat="dolma"`` counts
    them as the toolkit does, as lines and as duplicates of each other; on text that keeps a blank line
    between its paragraphs that alone fails most pages.
    """

    required_words: tuple[str, ...] = STOP_WORDS
    compat: str | None = None
    inputs = ("text",)
    outputs = {"dolma_gopher": GOPHER_TYPE}
    uses = (*_USES, "filters.text.redpajama")
    identity = identity_with(normal_forms.content)

    def __post_init__(self) -> None:
        if self.compat not in (None, "dolma"):
            raise ValueError(f"dolma_gopher: compat is {self.compat!r}; it is None or 'dolma'")

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        from filters.text import signal_kernels as k

        text = one_array(batch.column("text"))
        counts, repeated = _counts(text, tuple(self.required_words), self.compat == "dolma", repetition=True)
        words, lines = np.maximum(counts[k.D_WORDS], 1), np.maximum(counts[k.D_UNITS], 1)
        blank = counts[k.D_CHARS] == 0  # an empty page has no line either
        columns = [
            counts[k.D_CHARS],
            counts[k.D_WORDS],
            repeated[0],
            counts[k.D_SYMBOL] / words,
            counts[k.D_ALPHA] / words,
            counts[k.D_REQUIRED],
            np.where(blank, 0, counts[k.D_BULLET] / lines),
            np.where(blank, 0, counts[k.D_ELLIPSIS] / lines),
            *repeated[1:],
        ]
        return {"dolma_gopher": struct_array(columns, GOPHER_TYPE, text)}


dolma_gopher = DolmaGopher


def dolma_gopher_rules(
    min_words: int = 50,
    max_words: int = 100_000,
    min_median_word_length: float = 3,
    max_median_word_length: float = 10,
    max_symbol_ratio: float = 0.1,
    min_alpha_words: float = 0.8,
    min_required_words: int = 2,
    max_bullet_lines: float = 0.9,
    max_ellipsis_lines: float = 0.3,
    max_duplicate_lines: float = 0.3,
    max_duplicate_line_chars: float = 0.3,
    most_common_ngrams: tuple[float, ...] = (0.20, 0.18, 0.16),
    duplicate_ngrams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
) -> list[c.Keep]:
    """The exclusions of the toolkit's mixer files for Common Crawl (v1.5), over ``dolma_gopher``; every bound
    is inclusive. One differs from Gopher's table: characters in duplicate lines, .3 where Gopher has .2.

    ``most_common_ngrams=()`` leaves those rules out, as the v1.5 mixer did by accident: it asks for
    ``…_2gram`` where the tagger writes ``…_2grams``, and a missing attribute excludes nothing.
    """
    s = "dolma_gopher."
    median, lines = s + "median_word_length", s + "fraction_of_lines_"
    rules = [
        (f"{s}word_count >= {min_words!r}", "too few words"),
        (f"{s}word_count <= {max_words!r}", "too many words"),
        (f"{median} >= {min_median_word_length!r}", "words too short"),
        (f"{median} <= {max_median_word_length!r}", "words too long"),
        (f"{s}symbol_to_word_ratio <= {max_symbol_ratio!r}", "too many symbols"),
        (f"{s}fraction_of_words_with_alpha_character >= {min_alpha_words!r}", "too few words with a letter"),
        (f"{s}required_word_count >= {min_required_words!r}", "too few stop words"),
        (f"{lines}starting_with_bullet_point <= {max_bullet_lines!r}", "too many bullet lines"),
        (f"{lines}ending_with_ellipsis <= {max_ellipsis_lines!r}", "too many cut lines"),
        (f"{s}fraction_of_duplicate_lines <= {max_duplicate_lines!r}", "repeated lines"),
        (
            f"{s}fraction_of_characters_in_duplicate_lines <= {max_duplicate_line_chars!r}",
            "text in repeated lines",
        ),
    ]
    for n, bound in zip((2, 3, 4), most_common_ngrams, strict=False):
        rules.append((f"{s}fraction_of_characters_in_most_common_{n}grams <= {bound!r}", f"top {n}-gram"))
    for n, bound in zip((5, 6, 7, 8, 9, 10), duplicate_ngrams, strict=False):
        rules.append((f"{s}fraction_of_characters_in_duplicate_{n}grams <= {bound!r}", f"repeated {n}-grams"))
    return [c.keep(where, reason=f"dolma gopher: {reason}") for where, reason in rules]


@dataclass(frozen=True)
class DolmaC4(c.Model):
    """Score what ``c4_v1`` and ``c4_v2`` score, bad words aside: struct column ``dolma_c4``.

    Unlike C4's paper: lines are counted, not removed; the end marks are ``. ? ! "`` (so are C4's own), white
    space after them aside; a line of fewer than three words is short (C4 as published: five); there is no
    cookie or policy rule and no count of sentences.
    ``has_javascript`` is ``c4_v2``'s: the string anywhere, also inside a word; ``has_javascript_word`` is
    ``c4_v1``'s: a word, cut by white space, that is nothing else. For bad words see ``redpajama_signals``.
    """

    inputs = ("text",)
    outputs = {"dolma_c4": C4_TYPE}
    uses = (*_USES, "filters.text.redpajama")
    identity = identity_with(normal_forms.content)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        from filters.text import signal_kernels as k

        text = one_array(batch.column("text"))
        counts, _ = _counts(text)
        found = counts[[k.D_JAVASCRIPT, k.D_JAVASCRIPT_WORDS, k.D_LOREM, k.D_CURLY]] > 0
        columns = [counts[k.D_LINES], counts[k.D_NO_PUNCTUATION], counts[k.D_FEW_WORDS], *found]
        return {"dolma_c4": struct_array(columns, C4_TYPE, text)}


dolma_c4 = DolmaC4


@dataclass(frozen=True)
class DolmaNoPunctuation(c.Transform):
    """Remove the lines that do not end with ``. ? ! "`` (white space aside): the paper's "C4 NoPunc", the one
    C4 rule that Dolma's web pages go through.

    Blank lines end with nothing and leave too, so paragraphs come to stand line by line. A page of which no
    line is left is dropped, with this step's name as the reason.
    """

    inputs = ("text",)
    outputs = {"text": pa.string()}
    uses = _USES
    identity = identity_with(normal_forms.content)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        from filters.text import signal_kernels as kernels

        text = one_array(batch.column("text"))
        column, table = utf8(text), normal_forms.load()
        data = np.empty(int(column.offsets[-1] - column.offsets[0]), np.uint8)
        offsets = np.zeros(len(text) + 1, np.int64)
        kernels.punctuated_lines(column.data, column.offsets, table.pages, table.flags, data, offsets)
        parents = np.flatnonzero(np.diff(offsets))
        left = strings(data, offsets, text, text.type)
        return replace_columns(batch, text=left).take(pa.array(parents)), parents


dolma_no_punctuation = DolmaNoPunctuation


@dataclass(frozen=True)
class DolmaLengths(c.Model):
    """Score the length taggers and ``not_alphanum_paragraph_v1``: struct column ``dolma_lengths``.

    ``bytes``, ``characters`` and ``characters_stripped`` (outer white space aside) as there; ``words`` are
    ``str.split``'s. ``tokens`` are runs of ``\\w`` and runs of other marks: ``whitespace_tokenizer_v1``
    reports the pieces *between* them, one more. (``\\w`` is Python's: letters, numbers and ``_``; that of the
    toolkit also takes combining marks, and no fractions or superscripts.) For its Unicode words (UAX 29) use
    ``gopher.n_tokens`` of ``gopher(words="tokens")``: 1.8 % more on the embedded pool (one page in twenty is
    off by 8 % or more), because a run of one mark is one token there.
    ``paragraphs``: lines that are not blank; ``symbol_paragraphs``: those without any letter or number. The
    toolkit's ``all_punct`` asks for no ASCII letter or digit, and for nothing but punctuation, white space
    and some emoji blocks: a line "∞" is one of ours and none of its.
    """

    inputs = ("text",)
    outputs = {"dolma_lengths": LENGTHS_TYPE}
    uses = (*_USES, "filters.text.redpajama")
    identity = identity_with(normal_forms.content)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        from filters.text import signal_kernels as k

        text = one_array(batch.column("text"))
        counts, _ = _counts(text)
        rows = (k.D_CHARS, k.D_STRIPPED, k.D_WORDS, k.D_TOKENS, k.D_PARAGRAPHS, k.D_SYMBOL_PARAGRAPHS)
        return {
            "dolma_lengths": struct_array(
                [np.diff(utf8(text).offsets), *counts[list(rows)]], LENGTHS_TYPE, text
            )
        }


dolma_lengths = DolmaLengths


@dataclass(frozen=True)
class DolmaRepetitions(c.Model):
    """Score runs of one unit, four copies or more, with at most one white-space character between copies:
    struct column ``dolma_repetitions``.

    ``count`` of such spans, most copies in one (``doc_max_score_repetition``), characters of the longest
    (``doc_max_length_repetition``), share of the page's characters in them (``doc_frac_repetition``). The
    spans are those of the regular expression ``(.+?)(\\s?\\1){3,}``: leftmost, shortest unit first.

    ``across_lines``: a span may run over a line's end (``repetitions_v1``); else it may not
    (``paragraph_repetitions_v1``). Unlike there, a unit is at most ``max_unit`` bytes long: an unbounded one
    takes time quadratic in the length of a line.
    """

    max_unit: int = 64
    across_lines: bool = False
    inputs = ("text",)
    outputs = {"dolma_repetitions": REPETITIONS_TYPE}
    uses = _USES
    identity = identity_with(normal_forms.content)

    def __post_init__(self) -> None:
        if self.max_unit < 1:
            raise ValueError(f"dolma_repetitions: max_unit is {self.max_unit}; it must be 1 or more")

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        import pyarrow.compute as pc

        from filters.text import signal_kernels as kernels

        text = one_array(batch.column("text"))
        column, table = utf8(text), normal_forms.load()
        counts = np.empty((len(text), 4), np.int64)
        kernels.repetitions(
            column.data, column.offsets, table.pages, table.flags, self.max_unit, self.across_lines, counts
        )
        size = np.maximum(np.asarray(pc.fill_null(pc.utf8_length(text), 0)), 1)
        columns = [*counts.T[:3], counts[:, 3] / size]
        return {"dolma_repetitions": struct_array(columns, REPETITIONS_TYPE, text)}


dolma_repetitions = DolmaRepetitions


@dataclass(frozen=True)
class DolmaRandomNumber(c.Model):
    """A random number in [0, 1) per row: float64 column ``random``.

    Unlike ``random_number_v1``, whose seed is the process id, the number depends on the row's id and ``seed``
    alone: the same on every machine, in every order.
    """

    seed: int = 1
    inputs = ("id",)
    outputs = {"random": pa.float64()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        step = f"dolma_random_number:{self.seed}"
        return pa.array([c.rng(row, step).random() for row in batch.column("id").to_pylist()], pa.float64())


dolma_random_number = DolmaRandomNumber
