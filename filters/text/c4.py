"""C4 (Colossal Clean Crawled Corpus): its line edits, the scores its decisions need, and its other filters.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (arXiv 1910.10683), section 2.2; where
the paper leaves a choice open it is that of the reference code in TensorFlow Datasets, as datatrove 0.10
follows it. A page is cut by ``str.splitlines``; every line is stripped and then, in this order,

1. left out when one of its words has more than ``max_word_length`` code points (0: no bound);
2. freed of citations: ``[12]``, ``[]``, ``[edit]``, ``[citation needed]`` (``remove_citations``);
3. left out unless it ends in ``.``, ``?``, ``!``, ``"`` or ``'``, or when it ends in ``...``
   (``filter_no_terminal_punct``); a citation that leaves white space at the end leaves the line unended;
4. left out with fewer than ``min_words_per_line`` words (of ``str.split``, citations counted);
5. looked at for "lorem ipsum", in any case: the page goes, not the line (a rule over the score);
6. left out when it says "javascript" (``filter_javascript``);
7. looked at for ``{``: the page goes (a rule over the score);
8. left out when it holds a policy phrase, in any case: terms of use, privacy policy, cookie policy, uses
   cookies, use of cookies, use cookies (``filter_policy``).

What remains is joined by ``\\n`` and stripped. ``C4Score`` counts all that and changes nothing, ``C4Lines``
makes the edit, ``c4_rules`` decides: give the first two the same parameters.

Sentences are counted line by line, by one rule close to datatrove's splitter (spaCy's sentencizer; measured
in docs/parity.md). A line holds one sentence, and one more at each word that follows an *end*:

* a ``.``, ``!`` or ``?`` before white space, other punctuation allowed in between (``end." Next``); a
  point also straight between a lower-case and an upper-case letter (``end.Next``);
* but no point that is doubled (``...``) or follows a single letter (``J. Smith``, ``U.S. law``, ``e.g. so``)
  or an English abbreviation (``Mr. Smith``; see ``ABBREVIATIONS``);
* a sentence mark of another script (``。``, ``।``, ``؟`` …) whatever follows.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import curation as c
from filters.text.buffers import Utf8, utf8
from filters.text.columns import one_array, strings, struct_array
from filters.text.fineweb import STOP_CHARS
from filters.text.scan import classes, source_of_rules
from filters.text.sources import identity_with
from filters.text.url import LISTS, read_list

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
ABBREVIATIONS = (
    "Adm Bros Co Corp Dr Gen Gov Inc Jr Ltd Messrs Mr Mrs Ms Mt Prof Rep Rev Sen St co vs "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec "
    "Ala Ariz Ark Calif Colo Conn Del Fla Ga Ill Ind Kan Ky La Mass Md Mich Minn Miss Mo Mont Neb Nev "
    "Okla Ore Pa Tenn Va Wash Wis"
)
C4_TYPE = pa.struct(
    [
        (name, pa.int64())
        for name in (
            "n_lines",
            "n_kept_lines",
            "n_long_word_lines",
            "n_unended_lines",
            "n_few_words_lines",
            "n_javascript_lines",
            "n_policy_lines",
            "n_lorem_ipsum_lines",
            "n_curly_bracket_lines",
            "n_sentences",
            "n_words",
            "n_citations",
            "longest_word",
        )
    ]
)


def c4_scores(
    text: pa.Array | pa.ChunkedArray,
    *,
    sentences: pa.Array | None = None,
    remove_citations: bool = True,
    filter_no_terminal_punct: bool = True,
    min_words_per_line: int = 3,
    max_word_length: int = 1000,
    filter_javascript: bool = True,
    filter_policy: bool = True,
) -> dict[str, pa.StructArray]:
    """Score a string column as C4 would leave it: ``{"c4": …}``, one struct a row; null text gives null.

    ``sentences``: integers that take the place of ``n_sentences``, one a row, where another tool counts them.
    Raises TypeError for a column that is not text, ValueError when there is not one count a text.
    """
    text = one_array(text)
    counts, _ = _run(
        utf8(text), False, remove_citations, filter_no_terminal_punct, min_words_per_line, max_word_length,
        filter_javascript, filter_policy,
    )  # fmt: skip
    if sentences is not None:
        if len(sentences) != len(text):
            raise ValueError(f"sentences: {len(sentences)} counts for {len(text)} texts; one each is needed")
        counts[:, C4_TYPE.get_field_index("n_sentences")] = sentences.to_numpy(zero_copy_only=False)
    return {"c4": struct_array(counts.T, C4_TYPE, text)}


def c4_edit(
    text: pa.Array | pa.ChunkedArray,
    *,
    remove_citations: bool = True,
    filter_no_terminal_punct: bool = True,
    min_words_per_line: int = 3,
    max_word_length: int = 1000,
    filter_javascript: bool = True,
    filter_policy: bool = True,
) -> pa.Array:
    """The column with C4's line edits made; null stays null, a page without a kept line becomes empty."""
    text = one_array(text)
    _, edited = _run(
        utf8(text), True, remove_citations, filter_no_terminal_punct, min_words_per_line, max_word_length,
        filter_javascript, filter_policy,
    )  # fmt: skip
    return strings(edited.data, edited.offsets, text, text.type)


def _run(
    column: Utf8,
    write: bool,
    remove_citations: bool,
    need_ending: bool,
    min_words: int,
    max_word_length: int,
    drop_javascript: bool,
    drop_policy: bool,
) -> tuple[np.ndarray, Utf8]:
    """(the numbers of every document, the edited texts if ``write``)."""
    from filters.text import line_kernels

    table = classes(None, STOP_CHARS)
    n = len(column.offsets) - 1
    counts = np.zeros((n, len(line_kernels.C4)), np.int64)
    out = np.empty(int(column.offsets[-1] - column.offsets[0]) if write else 0, np.uint8)
    out_offsets = np.zeros(n + 1, np.int64)
    line_kernels.c4(
        column.data, column.offsets, table.pages, table.classes, *_automaton(), _abbreviations(),
        np.frombuffer(b"[edit]", np.uint8), np.frombuffer(b"[citation needed]", np.uint8),
        remove_citations, need_ending, min_words, max_word_length, drop_javascript, drop_policy,
        counts, out, out_offsets,
    )  # fmt: skip
    return counts, Utf8(out[: out_offsets[-1]], out_offsets)


@functools.cache
def _automaton() -> tuple[np.ndarray, int, np.ndarray]:
    """Aho-Corasick over lower-cased ASCII: (moves, first state that has found something, what each found)."""
    from filters.text import line_kernels

    phrases = {"lorem ipsum": line_kernels.FOUND_LOREM, "javascript": line_kernels.FOUND_JAVASCRIPT}
    phrases |= dict.fromkeys(POLICY_PHRASES, line_kernels.FOUND_POLICY)
    tree: list[dict[int, int]] = [{}]
    found = [0]
    for phrase, bit in phrases.items():
        state = 0
        for byte in phrase.encode("ascii"):
            if byte not in tree[state]:
                tree[state][byte] = len(tree)
                tree.append({})
                found.append(0)
            state = tree[state][byte]
        found[state] |= bit
    moves = np.zeros((len(tree), 128), np.int64)
    back = [0] * len(tree)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for byte in range(128):
            child = tree[state].get(byte)
            fallback = int(moves[back[state], byte]) if state else 0
            moves[state, byte] = fallback if child is None else child
            if child is not None:
                back[child] = fallback
                found[child] |= found[fallback]
                queue.append(child)
    for upper in range(ord("A"), ord("Z") + 1):
        moves[:, upper] = moves[:, upper + 32]
    # states that have found something get the highest numbers: one comparison a byte finds them
    order = np.argsort(np.array(found) != 0, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return (
        place[moves[order]].astype(np.uint8).ravel(),
        int(np.count_nonzero(np.array(found) == 0)),
        np.array(found, np.int64)[order],
    )


@functools.cache
def _abbreviations() -> np.ndarray:
    return np.array(
        [int.from_bytes(word.encode("ascii"), "big") for word in ABBREVIATIONS.split()], np.uint64
    )


@dataclass(frozen=True)
class C4Score(c.Model):
    """What C4 would find on a page: struct column ``c4``; the text is left as it is.

    Lines are counted where they fail first; sentences and words are those of the lines that would stay. See
    the module for the rules and the parameters.
    """

    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_javascript: bool = True
    filter_policy: bool = True
    inputs = ("text",)
    outputs = {"c4": C4_TYPE}
    identity = identity_with(source_of_rules)

    @property
    def name(self) -> str:
        return "c4"

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return dict(c4_scores(batch.column("text"), **self.parameters()))


@dataclass(frozen=True)
class C4Lines(c.Transform):
    """Make C4's line edits in ``text``; see the module for the rules and the parameters.

    A page of which no line is left is dropped, with ``c4_lines`` as the reason. Pages are not judged here:
    that is ``c4_rules`` over ``C4Score``, before this step.
    """

    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_javascript: bool = True
    filter_policy: bool = True
    inputs = ("text",)
    identity = identity_with(source_of_rules)

    @property
    def name(self) -> str:
        return "c4_lines"

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        edited = c4_edit(batch.column("text"), **self.parameters())
        left = np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(edited), 0), False))
        at = batch.schema.get_field_index("text")
        batch = batch.set_column(at, batch.schema.field("text"), edited)
        return (batch if len(left) == len(batch) else batch.take(pa.array(left))), left


c4 = C4Score
c4_lines = C4Lines


def c4_rules(
    min_num_sentences: int = 5, filter_lorem_ipsum: bool = True, filter_curly_bracket: bool = True
) -> list[c.Keep]:
    """C4's decisions on pages, over column ``c4``; ``min_num_sentences`` is inclusive, 0 asks for none."""
    rules = []
    if filter_lorem_ipsum:
        rules.append(c.keep("c4.n_lorem_ipsum_lines = 0", reason="c4: lorem ipsum"))
    if filter_curly_bracket:
        rules.append(c.keep("c4.n_curly_bracket_lines = 0", reason="c4: curly bracket"))
    if min_num_sentences > 0:
        rules.append(c.keep(f"c4.n_sentences >= {min_num_sentences!r}", reason="c4: too few sentences"))
    return rules


@dataclass(frozen=True)
class C4Paragraph(c.Model):
    """Length of the ``paragraphs``-th longest line (between ``\\n``) in code points: column ``c4_paragraph``.

    0 when there are fewer lines. The filter of mC4 (Xue et al. 2021, arXiv 2010.11934), which keeps pages
    with at least three lines of 200 characters.
    """

    paragraphs: int = 3
    inputs = ("text",)
    outputs = {"c4_paragraph": pa.int64()}

    @property
    def name(self) -> str:
        return "c4_paragraph"

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        lines = pc.split_pattern(text, "\n")
        lengths = np.asarray(pc.utf8_length(pc.list_flatten(lines))).astype(np.int64)
        pages = np.asarray(pc.list_parent_indices(lines))
        # by page, longest first; then the k-th of each page stands k places after the page's first
        ranked = lengths[np.lexsort((-lengths, pages))]
        counts = np.bincount(pages, minlength=len(text))
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(text) else counts
        enough = counts >= self.paragraphs
        out = np.zeros(len(text), np.int64)
        out[enough] = ranked[first[enough] + self.paragraphs - 1]
        return pa.array(out, pa.int64(), mask=np.asarray(text.is_null()))


c4_paragraph = C4Paragraph


def c4_paragraph_rules(min_chars: int = 200) -> list[c.Keep]:
    """mC4's rule over ``c4_paragraph``: enough lines of at least ``min_chars`` code points."""
    return [c.keep(f"c4_paragraph >= {min_chars!r}", reason="c4: too few paragraphs")]


BAD_WORDS_TYPE = pa.struct([("n", pa.int32()), ("draw", pa.float64())])


@dataclass(frozen=True)
class C4BadWords(c.Model):
    """Count listed bad words: struct column ``c4_bad_words`` (``n``, and ``draw`` for a page that has any).

    ``words``: a file (one entry a line, ``#`` for comments), a tuple of entries, or None: the built-in list
    ``lists/bad_words_en.txt``, Winnow's own, short and mild. C4 itself used the 400 English entries of the
    public "List of Dirty, Naughty, Obscene and Otherwise Bad Words": fetch that file and name it here.
    ``separate``: an entry counts only between characters other than letters, digits and ``_``; set False for
    languages written without spaces (Japanese, Thai, Chinese). Upper and lower case are the same. ``n``
    counts different entries, left to right without overlap.

    ``draw`` is uniform in [0, 1) and depends on the row's id and ``seed`` alone, so that
    ``c4_bad_words_rules`` keeps the same share of such pages whatever the workers and the order.
    """

    words: str | tuple[str, ...] | None = None
    separate: bool = True
    seed: int = 0
    inputs = ("id", "text")
    outputs = {"c4_bad_words": BAD_WORDS_TYPE}

    @property
    def name(self) -> str:
        return "c4_bad_words"

    @property
    def identity(self) -> Any:
        return [super().identity, list(self._entries()) if self.words is None else None]

    def _entries(self) -> tuple[str, ...]:
        if self.words is None:
            return read_list(LISTS / "bad_words_en.txt")
        if isinstance(self.words, str):
            return read_list(self.words)
        return tuple(sorted({word.strip().lower() for word in self.words if word.strip()}))

    def setup(self) -> None:
        any_of = "|".join(map(re.escape, sorted(self._entries(), key=len, reverse=True)))
        # Arrow's automaton finds the few pages worth a closer look
        quick, close = any_of, any_of
        if self.separate and any_of:
            quick = rf"(?:^|[^\pL\pN_])(?:{any_of})(?:$|[^\pL\pN_])"
            close = rf"(?<!\w)(?:{any_of})(?!\w)"
        object.__setattr__(self, "_quick", quick)
        object.__setattr__(self, "_close", re.compile(close))

    def __call__(self, batch: pa.RecordBatch) -> pa.StructArray:
        text = batch.column("text")
        n = np.zeros(len(text), np.int32)
        draw = np.full(len(text), np.nan)
        if self._quick:
            lower = pc.utf8_lower(text)
            rows = np.flatnonzero(pc.fill_null(pc.match_substring_regex(lower, self._quick), False))
            suspects = zip(
                rows,
                batch.column("id").take(pa.array(rows)).to_pylist(),
                lower.take(pa.array(rows)).to_pylist(),
                strict=True,
            )
            for row, row_id, page in suspects:
                n[row] = max(1, len({match.group() for match in self._close.finditer(page)}))
                draw[row] = c.rng(row_id, f"{self.name} {self.seed}").random()
        columns = [pa.array(n), pa.array(draw, mask=np.isnan(draw))]
        return pa.StructArray.from_arrays(columns, fields=list(BAD_WORDS_TYPE), mask=text.is_null())


c4_bad_words = C4BadWords


def c4_bad_words_rules(keep_fraction: float = 0.0) -> list[c.Keep]:
    """Pages without a bad word, and ``keep_fraction`` of those with one (by their ``draw``)."""
    return [
        c.keep(
            f"c4_bad_words.n = 0 or c4_bad_words.draw < {keep_fraction!r}",
            reason="c4: bad words",
        )
    ]
