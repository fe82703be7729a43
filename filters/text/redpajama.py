"""RedPajama-V2's quality signals: annotate every page, decide later.

Source: Weber et al. 2024, "RedPajama: an Open Dataset for Training Large Language Models" (arXiv
2411.12372), and the table of signals published with the dataset; columns carry the published names (one of
which is misspelt there: ``punctution``). What the table leaves open is as in the pipeline that made the
dataset:

* *words as written* are runs of letters, numbers and ``_``, and runs of anything else but white space (a
  comma is a word, and ``don't`` is three);
* *normalised* words: ASCII punctuation removed, lower case, Unicode normal form D, cut at white space.
  Lengths are in code points of that form: "é" counts two;
* a line ends with its newline, which is one of its characters; a last line that is empty is none;
* the published values are rounded to eight decimals, ours are not.

See docs/signals.md for each signal, and for those that need a model.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from filters.text import normal_forms
from filters.text.buffers import SHARED, utf8
from filters.text.columns import one_array
from filters.text.sources import identity_with

# SMART (Salton 1971; printed in Lewis et al. 2004, "RCV1", JMLR 5, appendix 11), without what the word split
# can never produce: entries with an apostrophe.
SMART = """
a able about above according accordingly across actually after afterwards again against all allow allows
almost alone along already also although always am among amongst an and another any anybody anyhow anyone
anything anyway anyways anywhere apart appear appreciate appropriate are around as aside ask asking
associated at available away awfully b be became because become becomes becoming been before beforehand
behind being believe below beside besides best better between beyond both brief but by c came can cannot
cant cause causes certain certainly changes clearly co com come comes concerning consequently consider
considering contain containing contains corresponding could course currently d definitely described despite
did different do does doing done down downwards during e each edu eg eight either else elsewhere enough
entirely especially et etc even ever every everybody everyone everything everywhere ex exactly example
except f far few fifth first five followed following follows for former formerly forth four from further
furthermore g get gets getting given gives go goes going gone got gotten greetings h had happens hardly has
have having he hello help hence her here hereafter hereby herein hereupon hers herself hi him himself his
hither hopefully how howbeit however i ie if ignored immediate in inasmuch inc indeed indicate indicated
indicates inner insofar instead into inward is it its itself j just k keep keeps kept know known knows l
last lately later latter latterly least less lest let like liked likely little look looking looks ltd m
mainly many may maybe me mean meanwhile merely might more moreover most mostly much must my myself n name
namely nd near nearly necessary need needs neither never nevertheless new next nine no nobody non none noone
nor normally not nothing novel now nowhere o obviously of off often oh ok okay old on once one ones only
onto or other others otherwise ought our ours ourselves out outside over overall own p particular
particularly per perhaps placed please plus possible presumably probably provides q que quite qv r rather rd
re really reasonably regarding regardless regards relatively respectively right s said same saw say saying
says second secondly see seeing seem seemed seeming seems seen self selves sensible sent serious seriously
seven several shall she should since six so some somebody somehow someone something sometime sometimes
somewhat somewhere soon sorry specified specify specifying still sub such sup sure t take taken tell tends
th than thank thanks thanx that thats the their theirs them themselves then thence there thereafter thereby
therefore therein theres thereupon these they think third this thorough thoroughly those though three
through throughout thru thus to together too took toward towards tried tries truly try trying twice two u un
under unfortunately unless unlikely until unto up upon us use used useful uses using usually uucp v value
various very via viz vs w want wants was way we welcome well went were what whatever when whence whenever
where whereafter whereas whereby wherein whereupon wherever whether which while whither who whoever whole
whom whose why will willing wish with within without wonder would x y yes yet you your yours yourself
yourselves z zero
"""
STOP_WORDS = tuple(SMART.split())

_HOST = r"^(?:[a-z][a-z0-9+.\-]*:)?//(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"

DOCUMENT: dict[str, pa.DataType] = {
    "ccnet_length": pa.int64(),
    "ccnet_nlines": pa.int64(),
    "rps_doc_curly_bracket": pa.float64(),
    "rps_doc_frac_all_caps_words": pa.float64(),
    "rps_doc_frac_lines_end_with_ellipsis": pa.float64(),
    "rps_doc_frac_no_alph_words": pa.float64(),
    "rps_doc_lorem_ipsum": pa.float64(),
    "rps_doc_mean_word_length": pa.float64(),
    "rps_doc_stop_word_fraction": pa.float64(),
    "rps_doc_symbol_to_word_ratio": pa.float64(),
    "rps_doc_frac_unique_words": pa.float64(),
    "rps_doc_unigram_entropy": pa.float64(),
    "rps_doc_word_count": pa.int64(),
    "rps_doc_num_sentences": pa.int64(),
    **{f"rps_doc_frac_chars_dupe_{n}grams": pa.float64() for n in (5, 6, 7, 8, 9, 10)},
    **{f"rps_doc_frac_chars_top_{n}gram": pa.float64() for n in (2, 3, 4)},
    "rps_doc_ldnoobw_words": pa.int64(),
}
LINES = (
    "rps_lines_ending_with_terminal_punctution_mark",
    "rps_lines_javascript_counts",
    "rps_lines_num_words",
    "rps_lines_numerical_chars_fraction",
    "rps_lines_start_with_bulletpoint",
    "rps_lines_uppercase_letter_fraction",
)


@dataclass(frozen=True)
class RedpajamaSignals(c.Model):
    """Score every signal that needs no model.

    Columns ``rps_doc_*``, ``ccnet_length`` and ``ccnet_nlines``, the mean over lines of each line signal
    (``rps_lines_*_mean``), and with ``lines`` the line signals themselves as list<float> columns
    (``rps_lines_*``, one entry a line).

    ``stop_words``: compared as written ("The" is not "the"). ``bad_words``: words and phrases whose
    occurrences ``rps_doc_ldnoobw_words`` counts; they are normalised as the text is. None (no list is
    shipped): the column is null. Each is a tuple or a file with an entry a line.

    Null where there is nothing to divide by (no word, no line), but 0 where the dataset has 0 then (curly
    bracket, lorem ipsum, stop words, n-grams). A null text gives nulls.
    Raises ValueError for a phrase of more than 64 words.
    """

    lines: bool = False
    stop_words: str | tuple[str, ...] = STOP_WORDS
    bad_words: str | tuple[str, ...] | None = None
    inputs = ("text",)
    uses = (*normal_forms.USES, "filters.text.signal_kernels", *SHARED)
    identity = identity_with(normal_forms.content)

    @property
    def outputs(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        per_line = {name: pa.list_(pa.float32()) for name in LINES} if self.lines else {}
        return {**DOCUMENT, **{f"{name}_mean": pa.float64() for name in LINES}, **per_line}

    def setup(self) -> None:
        stop_words = _entries(self.stop_words, "stop_words")
        bad_words = () if self.bad_words is None else _entries(self.bad_words, "bad_words")
        object.__setattr__(self, "_stops", stop_table(stop_words))
        object.__setattr__(self, "_phrases", _phrase_tables(bad_words))

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        text = one_array(batch.column("text"))
        if not hasattr(self, "_stops"):
            self.setup()
        return _signals(text, self.lines, self._stops, self._phrases, self.bad_words is not None)


redpajama_signals = RedpajamaSignals


def _entries(given: str | tuple[str, ...], name: str) -> tuple[str, ...]:
    if isinstance(given, str):
        if not Path(given).is_file():
            raise FileNotFoundError(f"{name}: {given!r} is no file; give one with an entry a line, or a list")
        lines = Path(given).read_text(encoding="utf-8").splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(given)


def stop_table(words: tuple[str, ...]) -> tuple[np.ndarray, np.uint64]:
    """Table of hashes of words as written, and the shift from hash to slot."""
    from filters.text.hash_kernels import hash_of, word_table

    return word_table([hash_of(word) for word in words])


def _phrase_tables(phrases: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tables of the first words of phrases and of the phrases: see ``signal_kernels.signals``."""
    from filters.text import signal_kernels as kernels
    from filters.text.hash_kernels import chain_of, word_table

    if not phrases:
        return np.zeros((1, 2), np.uint64), np.zeros(1, np.uint64)
    column = utf8(pa.array(phrases, pa.string()))
    hashes, offsets = kernels.phrase_words(column.data, column.offsets, *normal_forms.load())
    lengths: dict[int, int] = {}  # of the phrases that begin with a word
    whole = []
    for phrase, first, stop in zip(phrases, offsets[:-1], offsets[1:], strict=True):
        if first == stop:
            continue  # nothing but punctuation
        if stop - first > 64:
            raise ValueError(f"bad_words: {phrase[:60]!r}… has {stop - first} words; 64 are the most")
        lengths[int(hashes[first])] = lengths.get(int(hashes[first]), 0) | 1 << int(stop - first - 1)
        whole.append(chain_of(hashes[first:stop]))
    heads, _ = word_table(np.array(list(lengths), np.uint64))
    bits = np.array([lengths.get(int(head), 0) for head in heads], np.uint64)
    return np.column_stack([heads, bits]), word_table(whole)[0]


def _signals(
    text: pa.Array,
    want_lines: bool,
    stops: tuple[np.ndarray, np.uint64],
    phrases: tuple[np.ndarray, np.ndarray],
    want_bad: bool,
) -> dict[str, pa.Array]:
    from filters.text import signal_kernels as k

    column = utf8(text)
    n = len(text)
    line_offsets = k.count_lines(column.data, column.offsets) if want_lines else np.zeros(n + 1, np.int64)
    lines = np.zeros((line_offsets[-1], 6), np.float32)
    sums = np.empty((n, 6))
    counts = np.empty((n, k.COUNTS), np.int64)
    repetition = np.empty((n, len(k.REPETITION)))
    bad = np.empty(n, np.int64)
    k.signals(
        column.data, column.offsets, *normal_forms.load(), *stops, *phrases, lines, line_offsets, sums,
        counts, repetition, bad,
    )  # fmt: skip
    null = np.asarray(text.is_null()) if text.null_count else np.zeros(n, bool)
    made: dict[str, pa.Array] = {}

    def put(name: str, values: np.ndarray, missing: np.ndarray = null) -> None:
        made[name] = pa.array(values, DOCUMENT.get(name, pa.float64()), mask=missing | null)

    count = counts.T
    chars, words, raw, n_lines = count[k.N_CHARS], count[k.N_WORDS], count[k.N_RAW], count[k.N_LINES]
    no_word, no_raw, no_line = words == 0, raw == 0, n_lines == 0
    normalised = count[k.WORD_CHARS] + np.maximum(words - 1, 0)
    put("ccnet_length", chars)
    put("ccnet_nlines", np.where(chars == 0, 0, count[k.N_NEWLINES] + 1))
    put("rps_doc_curly_bracket", _ratio(count[k.N_CURLY], chars))
    put("rps_doc_frac_all_caps_words", _ratio(count[k.N_CAPITALS], raw), no_raw)
    put("rps_doc_frac_lines_end_with_ellipsis", _ratio(count[k.N_ELLIPSIS], n_lines), no_line)
    put("rps_doc_frac_no_alph_words", _ratio(count[k.N_NO_LETTER], raw), no_raw)
    put("rps_doc_lorem_ipsum", _ratio(count[k.N_LOREM], normalised))
    put("rps_doc_mean_word_length", _ratio(count[k.WORD_CHARS], words), no_word)
    put("rps_doc_stop_word_fraction", np.where(no_word, 0, _ratio(count[k.N_STOP], raw)))
    put("rps_doc_symbol_to_word_ratio", _ratio(count[k.N_SYMBOLS], raw), no_raw)
    put("rps_doc_frac_unique_words", repetition[:, 0], no_word)
    put("rps_doc_unigram_entropy", repetition[:, 1], no_word)
    put("rps_doc_word_count", words)
    put("rps_doc_num_sentences", count[k.N_SENTENCES])
    for i, name in enumerate(k.REPETITION[2:], 2):
        put(f"rps_doc_{name}", repetition[:, i])
    put("rps_doc_ldnoobw_words", bad, null if want_bad else np.ones(n, bool))
    for i, name in enumerate(LINES):
        put(f"{name}_mean", _ratio(sums[:, i], n_lines), no_line)
    if want_lines:
        offsets = pa.array(line_offsets.astype(np.int32), mask=np.append(null, False)) if null.any() else None
        for i, name in enumerate(LINES):
            values = pa.array(np.ascontiguousarray(lines[:, i]))
            made[name] = pa.ListArray.from_arrays(offsets or pa.array(line_offsets.astype(np.int32)), values)
    return made


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 over nothing."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below != 0)


@c.score(batch=True)
def ccnet_language_score(language_score: pa.FloatArray) -> pa.FloatArray:
    """The score of ``filters.text:language`` under its published name (the dataset has that of fastText's
    lid.176 on the whole page: ``language: {max_chars: 0}``)."""
    return language_score


# CCNet's replacements for punctuation, after which its models were trained
_PUNCTUATION = str.maketrans(
    dict(zip("，。、∶：？！（）；–～━〈〉【】％►", ",.,::?!();-~-<>[]%-", strict=True))
    | dict.fromkeys("„”“«»」「《》", '"')
    | dict.fromkeys("´’", "'")
    | {"—": " - ", "．": ". ", "…": "..."}
)
_CONTROL = dict.fromkeys([*range(32), *range(127, 160)])


def ccnet_normalize(text: str) -> str:
    """Text as CCNet's language models read it: lower case, no accents, every digit a 0, plain punctuation, no
    control characters. Newlines are control characters, so the words around one are joined, as there."""
    plain = unicodedata.normalize("NFD", text.strip().lower())
    plain = "".join(char for char in plain if unicodedata.category(char) != "Mn")
    return re.sub(r"\d", "0", plain).translate(_PUNCTUATION).translate(_CONTROL)


@dataclass(frozen=True)
class CcnetPerplexity(c.Model):
    """Perplexity of the page under a KenLM model: float64 column ``ccnet_perplexity``, null for empty text.

    Source: Wenzek et al. 2020, "CCNet" (arXiv 1911.00359): the page, normalised (`ccnet_normalize`) and cut
    by a SentencePiece model, is scored as one sentence; 10 ^ (−log10 p / (pieces + 1)). CCNet rounds to one
    decimal, and puts pages below the 30th and 60th percentile of its language into *head* and *middle*.

    ``model``: a KenLM file (ARPA or binary). ``sentencepiece``: the model file that goes with it; None: words
    by white space. Needs the packages kenlm and sentencepiece. Python reads each page: a few MB/s.
    """

    model: str
    sentencepiece: str | None = None
    inputs = ("text",)
    outputs = {"ccnet_perplexity": pa.float64()}

    def setup(self) -> None:
        for name in ("model", "sentencepiece"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"ccnet_perplexity: {name} {path!r} is not a file")
        try:
            import kenlm

            if self.sentencepiece is not None:
                from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ImportError(
                f"ccnet_perplexity needs the package {error.name}: pip install kenlm sentencepiece"
            ) from None
        object.__setattr__(self, "_model", kenlm.Model(str(self.model)))
        cut = None
        if self.sentencepiece is not None:
            processor = SentencePieceProcessor(model_file=str(self.sentencepiece))
            cut = processor.encode_as_pieces
        object.__setattr__(self, "_cut", cut or str.split)

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        values: list[float | None] = []
        for text in batch.column("text").to_pylist():
            if not text or not text.strip():
                values.append(None)
                continue
            pieces = self._cut(ccnet_normalize(text))
            values.append(10.0 ** (-self._model.score(" ".join(pieces)) / (len(pieces) + 1)))
        return pa.array(values, pa.float64())


ccnet_perplexity = CcnetPerplexity


@dataclass(frozen=True)
class Ut1Blacklist(c.Model):
    """Number of the categories that the UT1 lists give to a page's host, as ``rps_doc_ut1_blacklist``; null
    for a host on no list.

    ``path``: a folder of UT1 lists (``<category>/domains``, one host a line), in which a number stands for a
    set of categories, counted from 0 in the order of the sorted sets; or a JSON file host → number, as the
    dataset's own pipeline writes it. The host is looked up as it stands in the URL, lower-cased, without user
    and port; a list entry does not cover its subdomains.
    """

    path: str
    inputs = ("url",)
    outputs = {"rps_doc_ut1_blacklist": pa.int32()}

    @property
    def identity(self) -> Any:
        hosts, numbers = ut1_numbers(self.path)
        return [super().identity, _pairs_digest(hosts, numbers)]

    def setup(self) -> None:
        hosts, numbers = ut1_numbers(self.path)
        object.__setattr__(self, "_hosts", pa.array(hosts, pa.string()))
        object.__setattr__(self, "_numbers", pa.array(numbers, pa.int32()))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        host = pc.struct_field(pc.extract_regex(pc.utf8_lower(batch.column("url")), _HOST), "host")
        return self._numbers.take(pc.index_in(host, value_set=self._hosts))


ut1_blacklist = Ut1Blacklist


def _pairs_digest(hosts: list[str], numbers: list[int]) -> str:
    """Content of the lists, for the identity of the step that reads them."""
    lines = "\n".join(f"{host} {number}" for host, number in zip(hosts, numbers, strict=True))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def ut1_numbers(path: str) -> tuple[list[str], list[int]]:
    """Hosts and the numbers of their categories: see `Ut1Blacklist`. FileNotFoundError if there are none."""
    place = Path(path)
    if place.is_file():
        pairs = sorted(
            (str(host).lower(), int(number)) for host, number in json.loads(place.read_text()).items()
        )
    else:
        categories: dict[str, set[str]] = {}
        for file in sorted(place.glob("*/domains")):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            for host in (line.strip().lower() for line in lines if line.strip() and line[0] != "#"):
                categories.setdefault(host, set()).add(file.parent.name)
        if not categories:
            raise FileNotFoundError(f"ut1_blacklist: {path!r} has no <category>/domains, and is no JSON file")
        numbers = {kind: i for i, kind in enumerate(sorted({tuple(sorted(k)) for k in categories.values()}))}
        pairs = sorted((host, numbers[tuple(sorted(kinds))]) for host, kinds in categories.items())
    return [host for host, _ in pairs], [number for _, number in pairs]


def redpajama_gopher_rules(
    min_words: int = 50,
    max_words: int = 10_000,
    min_mean_word_length: float = 3,
    max_mean_word_length: float = 10,
    max_symbol_ratio: float = 0.1,
    max_bullet_lines: float = 0.9,
    max_ellipsis_lines: float = 0.3,
    max_no_alph_words: float = 0.2,
    top_n_grams: tuple[float, ...] = (0.20, 0.18, 0.16),
    dupe_n_grams: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
) -> list[c.Keep]:
    """Gopher's rules over the signals, as the dataset's card begins to write them; every bound is inclusive.

    The card stops after the top 2-gram; the rest are Gopher's own bounds on the signals that the dataset made
    for them. ``max_words`` is the card's (Gopher: 100,000). Not the same decisions as
    ``gopher_quality_rules``: words are cut otherwise, and duplicate n-grams count their first copy too.
    """
    top = [
        c.keep(f"rps_doc_frac_chars_top_{n}gram <= {bound!r}", reason=f"redpajama: top {n}-gram")
        for n, bound in zip((2, 3, 4), top_n_grams, strict=False)
    ]
    dupe = [
        c.keep(f"rps_doc_frac_chars_dupe_{n}grams <= {bound!r}", reason=f"redpajama: repeated {n}-grams")
        for n, bound in zip((5, 6, 7, 8, 9, 10), dupe_n_grams, strict=False)
    ]
    mean = "rps_doc_mean_word_length"
    return [
        c.keep(f"rps_doc_word_count >= {min_words!r}", reason="redpajama: too few words"),
        c.keep(f"rps_doc_word_count <= {max_words!r}", reason="redpajama: too many words"),
        c.keep(f"{mean} >= {min_mean_word_length!r}", reason="redpajama: words too short"),
        c.keep(f"{mean} <= {max_mean_word_length!r}", reason="redpajama: words too long"),
        c.keep(f"rps_doc_symbol_to_word_ratio <= {max_symbol_ratio!r}", reason="redpajama: too many symbols"),
        c.keep(
            f"rps_lines_start_with_bulletpoint_mean <= {max_bullet_lines!r}",
            reason="redpajama: too many bullet lines",
        ),
        c.keep(
            f"rps_doc_frac_lines_end_with_ellipsis <= {max_ellipsis_lines!r}",
            reason="redpajama: too many cut lines",
        ),
        c.keep(
            f"rps_doc_frac_no_alph_words <= {max_no_alph_words!r}",
            reason="redpajama: too many words without a letter",
        ),
        *top,
        *dupe,
    ]


def redpajama_c4_rules(min_sentences: int = 5, bad_words: bool = False) -> list[c.Keep]:
    """C4's whole-page rules over the signals: no "lorem ipsum", no curly bracket, at least ``min_sentences``,
    and with ``bad_words`` no listed word (needs ``redpajama_signals(bad_words=…)``). C4's line edits need
    line signals or ``filters.text``'s C4 steps."""
    rules = [
        c.keep("rps_doc_lorem_ipsum = 0", reason="redpajama: lorem ipsum"),
        c.keep("rps_doc_curly_bracket = 0", reason="redpajama: curly bracket"),
        c.keep(f"rps_doc_num_sentences >= {min_sentences!r}", reason="redpajama: too few sentences"),
    ]
    if bad_words:
        rules.append(c.keep("rps_doc_ldnoobw_words = 0", reason="redpajama: bad words"))
    return rules


def redpajama_rules() -> list[c.Keep]:
    """Both families with their published bounds."""
    return [*redpajama_gopher_rules(), *redpajama_c4_rules()]
