"""DCLM's enrichers that ask a model: language of a page or of its sentences, quality, perplexity; and
``language_filter``, which reads the first.

Languages are one column named ``<key_prefix>_<model>``: a list of {language, probability}, the best first.
The same column in pages that DCLM has enriched already, a JSON object such as {"en": 0.98}, is read too.
"""

from __future__ import annotations

import importlib.util
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from curation.errors import PlanError
from filters.text import fasttext_model
from filters.text.dclm.mappers import Overwrite, compat_of, one_of, quoted
from filters.text.dclm.mappers_sentences import TOKENIZERS, require_tokenizer, splitter
from filters.text.language import find_model

MODELS = ("fasttext", "langdetect")
LANGUAGES_TYPE = pa.list_(pa.struct([("language", pa.string()), ("probability", pa.float64())]))
SENTENCES_TYPE = pa.list_(
    pa.struct(
        [
            ("language", pa.string()),
            ("average_probability", pa.float64()),
            ("number_of_sentences", pa.int64()),
        ]
    )
)
_NOTHING = string.punctuation + " \n"

Found = list[tuple[str, float]]
Detect = Callable[[pa.Array], list[Found]]


def _detector(model: str, path: str | None, seed: int | None, newline: str = " ") -> Detect:
    """texts → for each its (language, probability), the best first; empty where nothing is found: for null
    and for nothing but blanks and ASCII punctuation, too. ``newline``: what fastText reads for one."""
    if model == "langdetect":
        return _by_langdetect(seed)
    loaded = fasttext_model.load(find_model(path))

    def by_fasttext(texts: pa.Array) -> list[Found]:
        top = loaded.top(texts, newline=newline)
        pairs = zip(top.labels.to_pylist(), top.probabilities.to_pylist(), _says_nothing(texts), strict=True)
        return [[] if label is None or nothing else [(label, chance)] for label, chance, nothing in pairs]

    return by_fasttext


def _by_langdetect(seed: int | None) -> Detect:
    import langdetect
    from langdetect.lang_detect_exception import LangDetectException

    def languages(text: str) -> Found:
        if seed is not None:
            langdetect.DetectorFactory.seed = seed
        try:
            return [(found.lang, found.prob) for found in langdetect.detect_langs(text)]
        except LangDetectException:  # a text without letters
            return []

    def by_langdetect(texts: pa.Array) -> list[Found]:
        pairs = zip(texts.to_pylist(), _says_nothing(texts), strict=True)
        return [[] if nothing else languages(text) for text, nothing in pairs]

    return by_langdetect


def _says_nothing(texts: pa.Array) -> np.ndarray:
    trimmed = pc.utf8_trim(texts.fill_null(""), characters=_NOTHING)
    return np.asarray(pc.equal(pc.binary_length(trimmed), 0))


def _require(model: str, seed: int | None = None) -> None:
    one_of("model", model, MODELS)
    if model == "langdetect" and importlib.util.find_spec("langdetect") is None:
        raise PlanError(
            "language by 'langdetect' needs the package langdetect, which is not installed: install it, or "
            "take model: fasttext (and key: language_id_whole_page_fasttext in language_filter)"
        )
    if model == "fasttext" and seed is not None:
        raise PlanError(
            "detect_lang_whole_page_enricher: fastText draws nothing, so that a seed means nothing"
        )


@dataclass(frozen=True)
class PageLanguages(c.Model):
    """Languages of the whole page; see ``detect_lang_whole_page_enricher``."""

    model: str
    column: str
    seed: int | None = None
    path: str | None = None
    compat: str | None = None
    inputs = ("text",)
    uses = fasttext_model.MODULES

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: LANGUAGES_TYPE}

    def setup(self) -> None:
        newline = "" if self.compat == "dclm" else " "
        object.__setattr__(self, "_detect", _detector(self.model, self.path, self.seed, newline))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        pages = [
            [{"language": language, "probability": probability} for language, probability in found]
            for found in self._detect(text)  # type: ignore[attr-defined]
        ]
        return pa.array(pages, LANGUAGES_TYPE, mask=np.asarray(text.is_null()))


def detect_lang_whole_page_enricher(
    model: str,
    key_prefix: str = "language_id_whole_page",
    overwrite: bool = False,
    seed: int | None = None,
    *,
    path: str | None = None,
    compat: str | None = None,
) -> Any:
    """Column ``<key_prefix>_<model>``: the page's languages. ``fasttext`` (lid.176; ``path`` names the
    file) gives the best one, ``langdetect`` (to be installed) several; ``seed`` is langdetect's. A page of
    nothing but blanks and ASCII punctuation has none.

    Newlines are spaces to fastText; DCLM deletes them, which glues the last word of a line to the first of
    the next: only with ``compat="dclm"``.
    """
    _require(model, seed)
    step = PageLanguages(model, f"{key_prefix}_{model}", seed, path, compat_of(compat))
    return Overwrite(step) if overwrite else step


@dataclass(frozen=True)
class SentenceLanguages(c.Model):
    """Languages of the page's sentences; see ``detect_lang_paragraph_enricher``."""

    model: str
    tokenizer: str
    column: str
    path: str | None = None
    inputs = ("text",)
    uses = (*fasttext_model.MODULES, "filters.text.dclm.mappers_sentences")

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: SENTENCES_TYPE}

    def setup(self) -> None:
        object.__setattr__(self, "_detect", _detector(self.model, self.path, None))
        object.__setattr__(self, "_split", splitter(self.tokenizer))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        sentences = [[] if page is None else self._split(page) for page in text.to_pylist()]  # type: ignore[attr-defined]
        flat = pa.array([sentence for page in sentences for sentence in page], pa.string())
        found = iter(self._detect(flat))  # type: ignore[attr-defined]
        pages = [_by_language([next(found) for _ in page]) for page in sentences]
        return pa.array(pages, SENTENCES_TYPE, mask=np.asarray(text.is_null()))


def _by_language(sentences: list[Found]) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for sentence in sentences:
        for language, probability in sentence:
            found.setdefault(language, []).append(probability)
    ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"language": language, "average_probability": sum(p) / len(p), "number_of_sentences": len(p)}
        for language, p in ranked
    ]


def detect_lang_paragraph_enricher(
    model: str,
    tokenizer: str = "rules",
    key_prefix: str = "language_id_paragraph",
    overwrite: bool = False,
    *,
    path: str | None = None,
) -> Any:
    """Column ``<key_prefix>_<model>``: for each language found in a sentence the mean probability and the
    number of sentences, the commonest first. ``tokenizer`` cuts sentences: ``rules`` (ours), ``nltk`` or
    ``blingfire``, which must be installed. (A newline inside a sentence is a space to fastText; DCLM loses
    such pages to an error.)"""
    _require(model)
    one_of("tokenizer", tokenizer, TOKENIZERS)
    require_tokenizer(tokenizer)
    step = SentenceLanguages(model, tokenizer, f"{key_prefix}_{model}", path)
    return Overwrite(step) if overwrite else step


@dataclass(frozen=True)
class LanguageProbability(c.Model):
    """Highest probability among ``keep_languages`` in column ``key``: a float64 column, 0 where there is
    none. ``key`` holds lists of {language, probability}, maps, structs, or JSON text of an object, language
    → number."""

    keep_languages: tuple[str, ...]
    key: str
    column: str = "language_filter"

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.key,)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        found = batch.column(self.key)
        best = np.zeros(len(found))
        if found.type == LANGUAGES_TYPE:
            entries = pc.list_flatten(found)
            rows = np.asarray(pc.list_parent_indices(found))
            wanted = pc.is_in(pc.struct_field(entries, "language"), value_set=pa.array(self.keep_languages))
            chances = np.where(np.asarray(wanted), np.asarray(pc.struct_field(entries, "probability")), 0)
            np.maximum.at(best, rows, chances)
        else:
            for row, value in enumerate(found.to_pylist()):
                chances_of = _as_dict(value)
                best[row] = max((float(chances_of.get(name) or 0) for name in self.keep_languages), default=0)
        return pa.array(best, mask=np.asarray(found.is_null()))


def _as_dict(value: Any) -> dict[str, Any]:
    value = orjson.loads(value) if isinstance(value, str) else value
    value = dict(value) if isinstance(value, list) else value or {}
    if not isinstance(value, dict):
        raise TypeError(f"languages are read from an object such as {{'en': 0.98}}; this is {value!r}")
    return value


def language_filter(
    keep_languages: Sequence[str],
    key: str = "language_id_whole_page_langdetect",
    threshold: float = 0.0,
    *,
    compat: str | None = None,
    column: str = "language_filter",
    reason: str = "language_filter",
) -> list[Any]:
    """Keep pages in one of ``keep_languages`` by column ``key`` with a probability of at least
    ``threshold``; for DCLM it must be more (``compat="dclm"``), and so it must here where the threshold is
    0. A page that has none of the languages is dropped."""
    if isinstance(keep_languages, str) or not all(isinstance(name, str) for name in keep_languages):
        raise PlanError(
            f"language_filter: keep_languages={keep_languages!r} is no list of codes such as [en, de]; quote "
            "'no', which YAML takes for false"
        )
    sign = ">" if compat_of(compat) or threshold == 0 else ">="
    score = LanguageProbability(tuple(keep_languages), key, column)
    return [score, c.keep(f"{quoted(column)} {sign} {float(threshold)!r}", reason=reason)]


# -------------------------------------------------------------------------------------- quality, perplexity

_WHITE_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace())  # what str.strip takes off
_LINE_ENDS = "[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]"  # of str.splitlines; "\r\n" makes one gap or two


@dataclass(frozen=True)
class HighQuality(c.Model):
    """Probability of a fastText classifier; see ``classify_fasttext_hq_prob_enricher``."""

    model_filename: str
    column: str = "fasttext_hq_prob"
    inputs = ("text",)
    uses = (*fasttext_model.MODULES, "filters.text.dclm.mappers")

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def setup(self) -> None:
        object.__setattr__(self, "_model", fasttext_model.load(self.model_filename))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = pc.utf8_trim(batch.column("text"), characters=_WHITE_SPACE)
        top = self._model.top(pc.replace_substring_regex(text, _LINE_ENDS, " "))  # type: ignore[attr-defined]
        chances = np.asarray(top.probabilities.fill_null(0)).astype(np.float64)
        negative = np.asarray(pc.equal(top.labels, "cc").fill_null(False))
        known = np.asarray(top.labels.is_valid())
        return pa.array(np.where(negative, 1 - chances, chances), mask=~known)


def classify_fasttext_hq_prob_enricher(
    model_filename: str = "model.bin", key: str = "fasttext_hq_prob", overwrite: bool = False
) -> Any:
    """Column ``key``: the probability of the classifier's best label, or one minus it where that label is
    ``__label__cc``, the negative one. The text is read as one line. Null for blank text, which no quality
    filter keeps. For a classifier of your own, ``filters.text:fasttext_quality`` says which label it asks
    for."""
    step = HighQuality(str(model_filename), key)
    return Overwrite(step) if overwrite else step


# CCNet's normalisation before its language models (Wenzek et al. 2020): what stands for what.
_FROM = "，。、„”“«»１」「《》´∶：？！（）；～’━〈〉【】％►"
_TO = ",.," + 10 * '"' + "'::?!();~'-<>[]%-"
_PUNCTUATION = str.maketrans(
    dict(zip(_FROM, _TO, strict=True))
    | {"–": "-", "—": " - ", "．": ". ", "…": "..."}
    | dict.fromkeys(map(chr, (*range(32), *range(127, 160))))
)


@dataclass(frozen=True)
class Perplexity(c.Model):
    """Perplexity under a KenLM model; see ``ken_lm_perplexity_enricher``."""

    model: str
    tokenizer: str
    column: str = "kenlm_perplexity"
    inputs = ("text",)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {self.column: pa.float64()}

    def setup(self) -> None:
        import kenlm
        import sentencepiece

        pieces = sentencepiece.SentencePieceProcessor()
        pieces.load(self.tokenizer)
        object.__setattr__(self, "_model", kenlm.Model(self.model))
        object.__setattr__(self, "_pieces", pieces)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array(
            [None if p is None else self._perplexity(p) for p in batch.column("text").to_pylist()], "double"
        )

    def _perplexity(self, page: str) -> float:
        line = "".join("0" if char.isdecimal() else char for char in page.strip()).translate(_PUNCTUATION)
        line = " ".join(self._pieces.encode_as_pieces(line))  # type: ignore[attr-defined]
        score = self._model.score(line)  # type: ignore[attr-defined]
        return round(10.0 ** (-score / (len(line.split()) + 1)), 1)


def ken_lm_perplexity_enricher(
    key: str = "kenlm_perplexity",
    overwrite: bool = False,
    *,
    model: str = "en.arpa.bin",
    tokenizer: str = "en.sp.model",
) -> Any:
    """Column ``key``: perplexity of the page under CCNet's 5-gram model of English Wikipedia, to one
    decimal: the files ``model`` (KenLM) and ``tokenizer`` (SentencePiece), which CCNet publishes. Text is
    normalised as CCNet does: digits as 0, punctuation as ASCII, control characters (newlines too) out.
    Needs the packages kenlm and sentencepiece: PlanError says which is missing."""
    for package in ("kenlm", "sentencepiece"):
        if importlib.util.find_spec(package) is None:
            raise PlanError(f"ken_lm_perplexity_enricher needs the package {package}, which is not installed")
    step = Perplexity(model, tokenizer, key)
    return Overwrite(step) if overwrite else step
