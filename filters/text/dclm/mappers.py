"""DCLM's filters under DCLM's own names and parameters: each is a score that stays, and a keep with the
name as its reason.

    from filters.text.dclm.mappers import scored_page_length_filter
    plan = [..., scored_page_length_filter("sentence", min_length=3), ...]

Source: DCLM (Li et al. 2024, arXiv 2406.11794) and the behaviour of its released pipeline. Rules that are
odd there are mended here; ``compat="dclm"`` reproduces them, and each docstring says what differs. The
rules of the baseline itself (word counts, symbols, bullets, stop words, repetition, line edits) are
compiled in ``filters.text.dclm``; this module holds the others.

``column`` names the score's column and ``reason`` the reason of removal; a filter that a plan uses twice
needs two columns. A null text passes no filter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.errors import PlanError, suggest
from curation.hashing import uniform
from filters.text.buffers import SHARED, utf8
from filters.text.dclm.mappers_sentences import TOKENIZERS, count_sentences, require_tokenizer
from filters.text.dclm.scores import score_dclm

LENGTH_TYPES = ("char", "word", "sentence", "line", "paragraph")
WORD_MODELS = ("fasttext", "split", "uniseg")
LOCATIONS = ("any", "prefix", "suffix")
SPACE = " \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
SPACE += "\u2028\u2029\u202f\u205f\u3000"
"""What Python calls white space (``str.isspace``)."""

_SEPARATORS = {"line": "\n", "paragraph": "\n\n"}
_MEASURING = (
    "filters.text.dclm.mappers_kernels",
    "filters.text.dclm.kernels",
    "filters.text.dclm.scores",
    "filters.text.dclm.classes",
    "filters.text.dclm.mappers_sentences",
    "filters.text.codepoints",
    *SHARED,
)
_REGEX = re.compile(r"[.^$*+?\[\]()|\\]|\{\d*,?\d*\}")
_NOT_WORD = r"[^\pL\pN_]"


def measures(text: pa.Array) -> dict[str, np.ndarray]:
    """Every number of ``mappers_kernels.MEASURES``, int64 per row."""
    from filters.text.dclm import classes
    from filters.text.dclm import mappers_kernels as kernels

    column, table = utf8(text), classes.load()
    out = np.empty((len(text), len(kernels.MEASURES)), np.int64)
    kernels.measure(column.data, column.offsets, table.pages, table.classes, out)
    return dict(zip(kernels.MEASURES, out.T, strict=True))


def word_counts(
    text: pa.Array,
    model: str,
    ignore_punctuation: bool,
    ignore_whitespace: bool = True,
    compat: str | None = None,
) -> np.ndarray:
    """Words of each row, int64; the rule is in ``scored_page_length_filter``."""
    if model == "uniseg":
        from filters.text.dclm import classes, kernels

        column, table = utf8(text), classes.load()
        out = np.empty((len(text), len(kernels.REPETITION)))
        kernels.repetition(column.data, column.offsets, table.pages, table.classes, out)
        return out[:, kernels.REPETITION.index("n_words")].astype(np.int64)
    if model == "fasttext" and ignore_punctuation and ignore_whitespace:
        return np.asarray(score_dclm(text).field("n_words"))
    found = measures(text)
    if model == "split":
        return found["n_alnum_words"] if ignore_punctuation else found["n_words"]
    ends = found["n_newlines"] if compat == "dclm" else 0
    if ignore_punctuation:
        return found["n_alnum_tokens"] + (0 if ignore_whitespace else found["n_space_tokens"])
    return (found["n_solid_tokens"] if ignore_whitespace else found["n_tokens"]) + ends


def segment_counts(text: pa.Array, separator: str, remove_empty: bool = True) -> np.ndarray:
    """Pieces of each row between ``separator``, int64; ``remove_empty``: only those not all white space."""
    from filters.text.dclm import classes
    from filters.text.dclm import mappers_kernels as kernels

    column, table = utf8(text), classes.load()
    out = np.empty(len(text), np.int64)
    bytes_ = np.frombuffer(separator.encode(), np.uint8)
    kernels.segments(column.data, column.offsets, table.pages, table.classes, bytes_, remove_empty, out)
    return out


@dataclass(frozen=True)
class PageLength(c.Model):
    """Length of the text in some unit, as ``scored_page_length_filter`` says: int64 column ``column``."""

    length_type: str
    ignore_punctuation: bool = False
    ignore_whitespace: bool = True
    model: str = "fasttext"
    remove_empty: bool = True
    tokenizer: str = "rules"
    tokenizer_lang: str | None = None
    separator: str | None = None
    compat: str | None = None
    column: str = "page_length_filter"
    inputs = ("text",)
    uses = _MEASURING

    def __post_init__(self) -> None:
        one_of("length_type", self.length_type, LENGTH_TYPES)
        one_of("model", self.model, WORD_MODELS)
        one_of("tokenizer", self.tokenizer, TOKENIZERS)
        bare = self.ignore_punctuation and self.ignore_whitespace
        if self.length_type == "word" and self.model == "uniseg" and not bare:
            raise PlanError(
                "words of model 'uniseg' are counted without punctuation and white space only: "
                "say ignore_punctuation: true, or take model 'fasttext' or 'split'"
            )
        if self.length_type == "sentence":
            require_tokenizer(self.tokenizer, self.tokenizer_lang)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.int64()}

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        text = batch.column("text")
        return {self.column: pa.array(self._counts(text), pa.int64(), mask=np.asarray(text.is_null()))}

    def _counts(self, text: pa.Array) -> np.ndarray:
        if self.length_type == "char":
            return np.asarray(pc.fill_null(pc.utf8_length(text), 0)).astype(np.int64)
        if self.length_type == "word":
            flags = self.ignore_punctuation, self.ignore_whitespace
            return word_counts(text, self.model, *flags, compat=self.compat)
        if self.length_type == "sentence":
            return count_sentences(text, self.tokenizer, self.tokenizer_lang)
        return segment_counts(text, self.separator or _SEPARATORS[self.length_type], self.remove_empty)


def scored_page_length_filter(
    length_type: str,
    min_length: float = 1,
    max_length: float = math.inf,
    *,
    ignore_punctuation: bool = False,
    ignore_whitespace: bool = True,
    model: str = "fasttext",
    remove_empty: bool = True,
    tokenizer: str | None = None,
    tokenizer_lang: str | None = None,
    compat: str | None = None,
    column: str = "page_length_filter",
    reason: str = "page_length_filter",
) -> list[Any]:
    """Keep pages of ``min_length`` to ``max_length`` units, both inclusive, by a score of its own.

    All that DCLM's page_length_filter does. ``filters.text.dclm.page_length_filter`` is the keep alone, over
    the counts that ``dclm_scores`` has made already: characters, lines, words.

    ``length_type``: ``char`` (code points); ``word``; ``sentence``; ``line`` and ``paragraph`` (pieces
    between one or two newlines; ``remove_empty``: only those with something but white space).

    Words are cut by ``model``: ``fasttext`` (at ASCII white space and NUL), ``split`` (as ``str.split``) or
    ``uniseg`` (Unicode word boundaries, UAX #29; without punctuation only). ``ignore_punctuation`` counts
    only words that begin with a letter or digit. DCLM's fastText reader also gives one token for each
    newline, and counts it where punctuation counts: here only with ``compat="dclm"``.

    Sentences are cut by ``tokenizer``: ``rules`` (ours, compiled; see ``mappers_sentences``), ``nltk`` or
    ``blingfire``, which must be installed. None is ``rules``, with ``compat="dclm"`` DCLM's own default,
    ``blingfire``.
    """
    if tokenizer is None:
        tokenizer = "blingfire" if compat == "dclm" and length_type == "sentence" else "rules"
    score = PageLength(
        length_type, ignore_punctuation, ignore_whitespace, model, remove_empty, tokenizer, tokenizer_lang,
        None, compat_of(compat), column,
    )  # fmt: skip
    return [score, *between(column, min_length, max_length, reason)]


def line_counter_enricher(
    paragraph_end: str = "\n", remove_empty: bool = True, key: str = "num_lines", overwrite: bool = False
) -> Any:
    """Column ``key``: pieces of the text between ``paragraph_end`` (a plain string; DCLM reads a regular
    expression), without the blank ones if ``remove_empty``. ``overwrite``: the column may be there
    already."""
    if not paragraph_end or _REGEX.search(paragraph_end):
        raise PlanError(
            f"line_counter_enricher: paragraph_end={paragraph_end!r} must be a plain string, not a pattern"
        )
    step = PageLength("line", remove_empty=remove_empty, separator=paragraph_end, column=key)
    return Overwrite(step) if overwrite else step


def word_counter_enricher(
    key: str = "word_count",
    overwrite: bool = False,
    ignore_punctuation: bool = True,
    ignore_whitespace: bool = True,
    model: str = "fasttext",
    compat: str | None = None,
) -> Any:
    """Column ``key``: words of the text; how they are cut is said in ``scored_page_length_filter``."""
    step = PageLength(
        "word", ignore_punctuation, ignore_whitespace, model, compat=compat_of(compat), column=key
    )
    return Overwrite(step) if overwrite else step


@dataclass(frozen=True)
class Overwrite(c.Transform):
    """A score whose column may be there already: then it is replaced. (A score by itself never does that.)"""

    score: Any

    @property
    def name(self) -> str:
        return self.score.name

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.score.inputs

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return self.score.outputs

    @property
    def identity(self) -> Any:
        return ["overwrite", self.score.identity]

    def setup(self) -> None:
        self.score.setup()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        made = self.score(batch)
        if not isinstance(made, dict):
            made = {next(iter(self.outputs)): made}
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return pa.RecordBatch.from_pydict(columns | made)


# --------------------------------------------------------------------------------------------------- lines


@dataclass(frozen=True)
class LineLength(c.Model):
    """Longest or mean line of the text in code points, lines as ``str.splitlines`` cuts them: a float64
    column; null for an empty text."""

    length_type: str = "max"
    column: str = "line_length_filter"
    inputs = ("text",)
    uses = _MEASURING

    def __post_init__(self) -> None:
        one_of("length_type", self.length_type, ("max", "avg"))

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        found = measures(batch.column("text"))
        lines = found["n_lines"]
        mean = found["line_chars"] / np.maximum(lines, 1)
        return pa.array(found["longest_line"] if self.length_type == "max" else mean, mask=lines == 0).cast(
            "double"
        )


def line_length_filter(
    length_type: str = "max",
    max_length: float = 1000,
    *,
    column: str = "line_length_filter",
    reason: str = "line_length_filter",
) -> list[Any]:
    """Keep pages whose longest (``max``) or mean (``avg``) line has at most ``max_length`` characters.
    Lines as ``str.splitlines`` cuts them; an empty page is dropped. RedPajama's rule for GitHub: max 1000,
    avg 100."""
    return [LineLength(length_type, column), *between(column, -math.inf, max_length, reason)]


@dataclass(frozen=True)
class AlnumRatio(c.Model):
    """Share of the text's characters that are letters or digits (``str.isalnum``): float64; null if empty."""

    column: str = "alphanumeric_char_ratio_filter"
    inputs = ("text",)
    uses = _MEASURING

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        found = measures(batch.column("text"))
        n = found["n_chars"]
        return pa.array(found["n_alnum"] / np.maximum(n, 1), mask=n == 0)


def alphanumeric_char_ratio_filter(
    min_alnum_ratio: float | None = None,
    *,
    max_alnum_ratio: float | None = None,
    compat: str | None = None,
    column: str = "alphanumeric_char_ratio_filter",
    reason: str = "alphanumeric_char_ratio_filter",
) -> list[Any]:
    """Keep pages of which at least ``min_alnum_ratio`` (0.25, inclusive) of the characters are alphanumeric.

    DCLM calls the bound ``max_alnum_ratio``, though it acts as a minimum there too. That name is taken only
    with ``compat="dclm"``. An empty page is dropped.
    """
    bound = least(
        "alphanumeric_char_ratio_filter", "alnum_ratio", min_alnum_ratio, max_alnum_ratio, compat, 0.25
    )
    return [AlnumRatio(column), *between(column, bound, math.inf, reason)]


@dataclass(frozen=True)
class LowercaseRepetition(c.Model):
    """The scores of ``dclm_repetition`` over the lower-cased text
    (``repetition_filter(ignore_case=True)``)."""

    output: str = "dclm_repetition_lower"
    inputs = ("text",)
    uses = (*_MEASURING, "filters.text.dclm.repetition")

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        from filters.text.dclm.repetition import REPETITION_TYPE

        return {self.output: REPETITION_TYPE}

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        from filters.text.dclm.repetition import score_dclm_repetition

        return {self.output: score_dclm_repetition(lower(batch.column("text")))}


# ---------------------------------------------------------------------------------------------- substrings


@dataclass(frozen=True)
class Substrings(c.Model):
    """Is a string of the list in the text: a boolean column. See ``substring_filter``."""

    banlist: tuple[str, ...]
    location: str = "any"
    case_sensitive: bool = False
    exact_word: bool = False
    compat: str | None = None
    column: str = "substring_filter"
    inputs = ("text",)
    uses = (
        "filters.text.automaton",
        "filters.text.automaton_kernels",
        "filters.text.codepoints",
        "filters.text.lowercase",
        *SHARED,
    )

    def __post_init__(self) -> None:
        one_of("location", self.location, LOCATIONS)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.bool_()}

    @property
    def patterned(self) -> bool:
        """Whether DCLM's unescaped list means something else than its strings."""
        return self.compat == "dclm" and any(map(_REGEX.search, self.banlist))

    def setup(self) -> None:
        state: dict[str, Any] = {"_regex": None, "_automaton": None}
        if self.patterned:
            body = f"(?:{'|'.join(self.banlist if self.case_sensitive else map(str.lower, self.banlist))})"
            body = rf"\b{body}\b" if self.exact_word else body
            ends = {"any": "{}", "prefix": "^{}", "suffix": "{}$"}[self.location]
            state["_regex"] = re.compile(ends.replace("{}", body))
        elif self.banlist and self.location == "any":
            from filters.text.automaton import compile_patterns

            state["_automaton"] = compile_patterns(
                self.banlist,
                case="keep" if self.case_sensitive else "unicode",
                boundary="unicode" if self.exact_word else "none",
            )
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        null = np.asarray(text.is_null())
        if not self.banlist:
            return pa.array(np.zeros(len(text), bool), mask=null)
        if self._regex is not None:  # type: ignore[attr-defined]
            search = self._regex.search  # type: ignore[attr-defined]
            fold = (lambda t: t) if self.case_sensitive else str.lower
            return pa.array(
                [None if t is None else search(fold(t)) is not None for t in text.to_pylist()], pa.bool_()
            )
        if self._automaton is not None:  # type: ignore[attr-defined]
            return pa.array(self._automaton.find(text).counts[0] > 0, mask=null)  # type: ignore[attr-defined]
        fold_all = (lambda t: t) if self.case_sensitive else lower
        body = "|".join(
            map(re2_escape, self.banlist if self.case_sensitive else map(str.lower, self.banlist))
        )
        if self.location == "prefix":
            pattern = f"^(?:{body})" + (f"(?:$|{_NOT_WORD})" if self.exact_word else "")
        else:
            pattern = (f"(?:^|{_NOT_WORD})" if self.exact_word else "") + f"(?:{body})\\n?$"
        return pc.match_substring_regex(fold_all(text), f"(?s){pattern}")


def substring_filter(
    banlist: str | Sequence[str] | None = None,
    banlist_from_fname: str | Path | None = None,
    location: str = "any",
    case_sensitive: bool = False,
    exact_word: bool = False,
    *,
    compat: str | None = None,
    column: str = "substring_filter",
    reason: str = "substring_filter",
) -> list[Any]:
    """Drop pages that hold a string of the list ``any``where, as ``prefix`` or as ``suffix`` of the page.

    ``banlist_from_fname``: a file, one string a line; it goes before ``banlist``. ``exact_word``: only
    where the string stands alone, without a letter, digit or '_' right beside it. Upper and lower case are
    the same unless ``case_sensitive``. DCLM joins the list into a regular expression as it stands ("Read
    more..." also finds "Read more!!!"): here a string is a string, with ``compat="dclm"`` a pattern.
    """
    entries = entries_of("substring_filter", banlist, banlist_from_fname)
    step = Substrings(entries, location, case_sensitive, exact_word, compat_of(compat), column)
    if step.patterned:
        try:
            re.compile("|".join(entries))
        except re.error as error:
            raise PlanError(f"substring_filter: the list is no regular expression ({error})") from None
    return [step, c.keep(f"not {quoted(column)}", reason=reason)]


@dataclass(frozen=True)
class UrlSubstrings(c.Model):
    """How many different strings of the list are in the URL: an int32 column, 0 without a URL. See
    ``url_substring_filter``."""

    banlist: tuple[str, ...]
    ignore_chars: tuple[str, ...] = ()
    exact_domain_match: bool = False
    match_substrings: bool = True
    case_sensitive: bool = False
    compat: str | None = None
    column: str = "url_substring_filter"
    inputs = ("url",)
    uses = Substrings.uses

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.int32()}

    def setup(self) -> None:
        entries = list(self.banlist)
        mended = self.compat != "dclm"
        if mended and not self.exact_domain_match:
            entries = [self._bare(entry) for entry in entries]
        if not self.case_sensitive:
            entries = [entry.lower() for entry in entries]
        entries = list(dict.fromkeys(filter(None, entries)))
        state: dict[str, Any] = {"_domains": None, "_automaton": None, "_regex": None}
        if self.exact_domain_match:
            state["_domains"] = pa.array(entries, pa.string())
        elif entries:
            from filters.text.automaton import compile_patterns

            state["_automaton"] = compile_patterns(
                entries,
                case="keep",  # both sides are lower-cased before
                boundary="none" if self.match_substrings or not mended else "unicode",
            )
            if not mended:
                # longest first: of several strings that begin at one place, the longest is taken
                body = "|".join(map(re.escape, sorted(entries, key=len, reverse=True)))
                body = f"(?:{body})" if self.match_substrings else rf"\b(?:{body})\b"
                state["_regex"] = re.compile(body, 0 if self.case_sensitive else re.IGNORECASE)
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def _bare(self, entry: str) -> str:
        for char in self.ignore_chars:
            entry = entry.replace(char, "")
        return entry

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        url = batch.column("url")
        if self._domains is not None:  # type: ignore[attr-defined]
            listed = pc.is_in(self._hosts(url), value_set=self._domains)  # type: ignore[attr-defined]
            return pc.fill_null(listed, False).cast(pa.int32())
        if self._automaton is None:  # type: ignore[attr-defined]
            return pa.array(np.zeros(len(url), np.int32))
        url = url if self.case_sensitive else pc.utf8_lower(url)
        for char in self.ignore_chars:
            url = pc.replace_substring(url, char, "")
        counts = np.array(self._automaton.find(url).counts[0], np.int32)  # type: ignore[attr-defined]
        if self._regex is not None:  # type: ignore[attr-defined]
            rows = np.flatnonzero(counts)
            for row, text in zip(rows, url.take(pa.array(rows)).to_pylist(), strict=True):
                counts[row] = len(set(self._regex.findall(text)))  # type: ignore[attr-defined]
        return pa.array(counts, pa.int32())

    def _hosts(self, url: pa.Array) -> pa.Array:
        """The part of the URL that is compared with the list of domains."""
        netloc = pc.struct_field(
            pc.extract_regex(url, r"^(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//(?P<host>[^/?#]*)"), "host"
        )
        if not self.case_sensitive:
            netloc = pc.utf8_lower(netloc)
        if self.compat == "dclm":
            for char in self.ignore_chars:
                netloc = pc.replace_substring(netloc, char, "")
            return netloc
        host = pc.replace_substring_regex(netloc, r"^[^@]*@", "")
        host = pc.replace_substring_regex(host, r":\d*$", "")
        if "www" in self.ignore_chars or "www." in self.ignore_chars:
            host = pc.replace_substring_regex(host, r"^www\.", "")
        for char in self.ignore_chars:
            if char not in ("www", "www."):
                host = pc.replace_substring(host, char, "")
        return host


def url_substring_filter(
    banlist: str | Sequence[str] | None = None,
    banlist_from_fname: str | Path | None = None,
    ignore_chars: Sequence[str] = (),
    num_banned_substrs: int = 1,
    exact_domain_match: bool = False,
    match_substrings: bool = True,
    case_sensitive: bool = False,
    *,
    compat: str | None = None,
    column: str = "url_substring_filter",
    reason: str = "url_substring_filter",
) -> list[Any]:
    """Drop pages whose URL holds at least ``num_banned_substrs`` different strings of the list.

    ``exact_domain_match``: the URL's host is on the list (an entry does not cover its subdomains), and the
    other rules do not matter. ``match_substrings: false``: a string counts only where it stands alone,
    between characters other than letters, digits and '_'. ``ignore_chars``: strings taken out of the URL
    first. A page without a URL stays. Lists are text files, one entry a line; a pickle is refused, for
    reading one runs code.

    Mended; ``compat="dclm"`` reproduces: (1) ``ignore_chars: ['www']`` turns ``www.site.com`` into
    ``.site.com``, which no list holds: here a leading ``www.`` is left out, and so are user name and port;
    (2) ignored characters stay in the entries, so that ``free-spins`` is never found: here they are taken
    out of both; (3) strings are counted one after the other, so that overlapping ones count once: here each
    counts.
    """
    name = "url_substring_filter"
    if num_banned_substrs < 1:
        raise PlanError(
            f"{name}: num_banned_substrs={num_banned_substrs} would drop every page; it is 1 or more"
        )
    ignored = (ignore_chars,) if isinstance(ignore_chars, str) else tuple(ignore_chars or ())
    entries = entries_of(name, banlist, banlist_from_fname)
    step = UrlSubstrings(
        entries, ignored, exact_domain_match, match_substrings, case_sensitive, compat_of(compat), column
    )
    most = 1 if exact_domain_match else num_banned_substrs
    return [step, c.keep(f"{quoted(column)} < {most}", reason=reason)]


# ------------------------------------------------------------------------------------------------ metadata


@dataclass(frozen=True)
class Draw(c.Model):
    """A number from [0, 1) for each row, from its id and ``seed`` alone: a float64 column."""

    seed: int = 0
    column: str = "random_sampling_filter"
    inputs = ("id",)
    uses = ("curation.hashing",)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array(uniform(batch.column("id"), f"random_sampling_filter/{self.seed}"))


def random_sampling_filter(
    keep_probability: float = 0.1,
    *,
    seed: int = 0,
    column: str = "random_sampling_filter",
    reason: str = "random_sampling_filter",
) -> list[Any]:
    """Keep each page with probability ``keep_probability``. DCLM draws without a seed, so that no two runs
    keep the same pages; here the draw comes from the row's id and ``seed``, whatever the workers and
    batches."""
    if not 0 <= keep_probability <= 1:
        raise PlanError(f"random_sampling_filter: keep_probability={keep_probability} is not between 0 and 1")
    return [Draw(seed, column), c.keep(f"{quoted(column)} < {keep_probability!r}", reason=reason)]


def quality_filter(
    key: str = "fasttext_hq_prob",
    threshold: float = 0.0,
    lower_better: bool = False,
    key_must_exist: bool = True,
    *,
    reason: str = "quality_filter",
) -> list[Any]:
    """Keep pages whose column ``key`` is at least ``threshold``, or with ``lower_better`` at most; inclusive.

    A page without a value is dropped either way. (DCLM counts it as an error with ``key_must_exist``, and
    drops it just so.) A plan in which no step makes ``key`` is refused before it runs.
    """
    return [c.keep(f"{quoted(key)} {'<=' if lower_better else '>='} {float(threshold)!r}", reason=reason)]


# ------------------------------------------------------------------------------------------------- helpers


def between(column: str, low: float, high: float, reason: str) -> list[c.Keep]:
    """One keep for both bounds, inclusive; an infinite bound only asks that there is a value."""
    name = quoted(column)
    bounds = [f"{name} >= {low!r}"] if low > -math.inf else []
    bounds += [f"{name} <= {high!r}"] if high < math.inf else []
    return [c.keep(" and ".join(bounds) or f"{name} is not null", reason=reason)]


def lower(text: pa.Array) -> pa.Array:
    """``str.lower`` of a string column: Arrow's, but for the two letters that Python lower-cases by more than
    themselves, 'İ' (to two characters) and 'Σ' (at the end of a word)."""
    out = pc.utf8_lower(text)
    odd = np.flatnonzero(np.asarray(pc.fill_null(pc.match_substring_regex(text, "[İΣ]"), False)))
    if not len(odd):
        return out
    mask = np.zeros(len(text), bool)
    mask[odd] = True
    mended = [page.lower() for page in text.take(pa.array(odd)).to_pylist()]
    return pc.replace_with_mask(out, pa.array(mask), pa.array(mended, out.type))


def quoted(column: str) -> str:
    """A column name as SQL reads it."""
    return column if re.fullmatch(r"[a-z_][a-z0-9_]*", column) else '"' + column.replace('"', '""') + '"'


def re2_escape(text: str) -> str:
    """A literal for RE2."""
    return re.sub(r"([.^$*+?\[\](){}|\\])", r"\\\1", text)


def one_of(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise PlanError(f"{name}={value!r}: {suggest(str(value), known)} (known: {', '.join(known)})")


def compat_of(compat: str | None) -> str | None:
    """None or "dclm"; PlanError for anything else."""
    if compat not in (None, "dclm"):
        raise PlanError(f"compat={compat!r}: it is None (rules mended) or 'dclm' (DCLM's rules as they are)")
    return compat


def least(
    name: str, what: str, low: float | None, high: float | None, compat: str | None, default: float
) -> float:
    """The minimum that DCLM calls a maximum."""
    if compat_of(compat) is None and high is not None:
        raise PlanError(f"{name}: DCLM's max_{what} acts as a minimum: say min_{what}, or compat='dclm'")
    if low is not None and high is not None:
        raise PlanError(f"{name}: min_{what} and max_{what} are the same bound; give one")
    return next(value for value in (low, high, default) if value is not None)


def entries_of(
    name: str, banlist: str | Sequence[str] | None, file: str | Path | None, keep_blank: bool = False
) -> tuple[str, ...]:
    """The strings of a ban-list: lines of ``file``, which goes first, or those given. Blank ones are left
    out: they would be found in every text."""
    if file is not None:
        path = Path(file)
        if path.suffix in (".pkl", ".pickle"):
            raise PlanError(
                f"{name}: {file} is a pickle, which runs code when read; give a text file, one entry a line"
            )
        if not path.is_file():
            raise PlanError(f"{name}: there is no file {str(file)!r} with the ban-list")
        lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    elif banlist is None:
        raise PlanError(f"{name} needs banlist (strings) or banlist_from_fname (a text file, one a line)")
    else:
        lines = [banlist] if isinstance(banlist, str) else list(banlist)
    for entry in lines:
        if not isinstance(entry, str):
            raise PlanError(f"{name}: the ban-list holds {entry!r}, which is no string: quote it in the YAML")
    return tuple(dict.fromkeys(entry for entry in lines if entry))
