"""The compiled scores against the readable ones, over random and hand-made text."""

from __future__ import annotations

import importlib.util
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.text import codepoints
from filters.text.gopher import STOP_WORDS, gopher_scores

_spec = importlib.util.spec_from_file_location("text_oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

# Small alphabets make repeats, breaks and edge marks likely; any code point keeps the decoder honest.
SPACES = [" ", " ", "\n", "\n\n", "\r\n", "\r", "\t", "\x0b", "\x1c", "\x85", "\u2028", "\xa0"]
MARKS = [
    "...",
    "…",
    ".",
    ". .",
    "•",
    "-",
    "- ",
    "#",
    "##",
    "’",
    "'",
    ",",
    "_",
    "\x00",
    "\x07",
    "\u200b",
    "\u00ad",
]
LATIN = ["a", "b", "the", "to", "1", "3.14", "1,000", "don't", "é", "e\u0301", "ß"]
OTHERS = ["中", "文", "かな", "ไทย", "ก็", "हिन्दी", "한국어", "😀", "❤️", "👩\u200d👩\u200d👧"]
TRICKY = st.sampled_from([*SPACES, *MARKS, *LATIN, *OTHERS])
TEXT = st.one_of(
    st.lists(TRICKY, max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "b", "c", "the"]), max_size=80).map(" ".join),
    st.lists(st.sampled_from(["a b c\n", "a b c d e\n\n", " \n", "\n", "x"]), max_size=40).map("".join),
    st.text(max_size=80),
)


def expected(text: str, words: list[str]) -> tuple[dict, dict]:
    return oracle.quality(text, words, STOP_WORDS), oracle.repetition(text, words)


def got(texts: list[str], **options) -> list[tuple[dict, dict]]:
    scores = gopher_scores(pa.array(texts, pa.string()), **options)
    return list(zip(scores["gopher"].to_pylist(), scores["repetition"].to_pylist(), strict=True))


def agree(texts: list[str], answers: list[tuple[dict, dict]], split) -> None:
    for text, (quality, repetition) in zip(texts, answers, strict=True):
        quality_wanted, repetition_wanted = expected(text, split(text))
        assert quality == pytest.approx(quality_wanted, rel=1e-12, abs=0), repr(text)
        assert repetition == pytest.approx(repetition_wanted, rel=1e-12, abs=0), repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_default_words_match_the_oracle(texts):
    agree(texts, got(texts), oracle.unicode_words)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_tokens_match_the_oracle(texts):
    agree(texts, got(texts, words="tokens"), oracle.tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_whitespace_words_match_str_split(texts):
    agree(texts, got(texts, words="whitespace"), str.split)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.data())
def test_given_words_are_used_as_they_are(texts, data):
    word = st.one_of(
        st.sampled_from(["the", "a", "New York", "x\ny", "...", "#"]), st.text(min_size=1, max_size=5)
    )
    words = [data.draw(st.lists(word, max_size=40)) if text else [] for text in texts]
    by_text = dict(zip(texts, words, strict=True))
    texts, words = list(by_text), list(by_text.values())
    answers = got(texts, words=pa.array(words, pa.list_(pa.string())))
    agree(texts, answers, by_text.get)


LONG = "the quick brown fox " * 5000
EDGES = [
    "",
    "\n",
    "\n\n\n",
    " ",
    "word",
    "a",
    "…",
    "...",
    "\r\n\r\n",
    LONG,
    "x" * 100_000,
    "\n" * 100_000,
    "a\n" * 20_000,
]
EDGES += [
    "- a\n- b\n• c\n-",
    "a...\nb…\nc.. .\nd... \n",
    "  a\n\na  \n\n  a",
    "a\n\nb\n\na\n\n \n",
    "中" * 3000,
    "# # #",
]


SPLITS = {"unicode": oracle.unicode_words, "tokens": oracle.tokens, "whitespace": str.split}


@pytest.mark.parametrize("words", SPLITS)
def test_edges(words):
    agree(EDGES, got(EDGES, words=words), SPLITS[words])


def test_some_values_by_hand():
    text = "The cat's 3.14 — the cat's 3.14 -- of 中文\n- to be...\n\n- to be..."
    (quality, repetition) = got([text], words="tokens")[0]
    assert oracle.tokens("cat's 3.14 -- 中文 a.b ไทย") == [
        "cat's",
        "3.14",
        "--",
        "中",
        "文",
        "a",
        ".",
        "b",
        "ไ",
        "ท",
        "ย",
    ]
    assert got([text])[0][0] == {
        "n_words": 13,
        "n_tokens": 13,
        "mean_word_length": 36 / 13,
        "hash_ratio": 0,
        "ellipsis_ratio": 2 / 13,
        "bullet_line_ratio": 0.5,
        "ellipsis_line_ratio": 0.5,
        "alpha_word_ratio": 11 / 13,
        "n_stop_words": 4,
    }
    # The cat's 3.14 — the cat's 3.14 -- of 中 文 | - to be ... | - to be ...
    assert quality["n_tokens"] == 19
    assert quality["n_words"] == 13
    assert quality["n_stop_words"] == 4  # the of to be, not The
    assert quality["bullet_line_ratio"] == 0.5
    assert quality["ellipsis_line_ratio"] == 0.5
    assert quality["ellipsis_ratio"] == 2 / 19
    assert quality["alpha_word_ratio"] == 11 / 19
    assert repetition["dup_line_frac"] == 1 / 3
    assert repetition["dup_line_char_frac"] == 10 / len(text)
    assert repetition["dup_para_frac"] == 0  # the first paragraph has another line before it
    assert repetition["top_2_gram"] == 2 * len("cat's 3.14") / len(text)


def test_columns_of_every_layout_give_the_same():
    texts = ["one two three", "", "the cat and the hat", None, "vier fünf"]
    plain = gopher_scores(pa.array(texts))
    for column in (
        pa.array(texts, pa.large_string()),
        pa.array(texts, pa.string_view()),
        pa.array(texts).dictionary_encode(),
        pa.array(["junk", *texts, "junk"]).slice(1, 5),
        pa.chunked_array([texts[:2], texts[2:]]),
    ):
        for name, scores in gopher_scores(column).items():
            assert scores.to_pylist() == plain[name].to_pylist()
    assert plain["gopher"].to_pylist()[3] is None
    assert gopher_scores(pa.array([], pa.string()))["gopher"].to_pylist() == []


def test_malformed_utf8_is_read_to_its_end_and_no_further():
    broken = pa.array(
        [b"\xff\xfe the", b"caf\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80\x80", b"a" * 5 + b"\xc3\xc3 b"]
    )
    scores = gopher_scores(broken)
    assert scores["repetition"].field("n_chars").to_pylist() == [6, 4, 2, 3, 2, 9]
    assert scores["gopher"].field("n_stop_words").to_pylist() == [1, 0, 0, 0, 0, 0]


def test_small_scratch_arrays_grow():
    # every byte its own token, every byte its own line
    texts = ["a b " * 10, "!?" * 50_000, "a\n" * 50_000, "short text"]
    agree(texts, got(texts, words="tokens"), oracle.tokens)
    agree(texts, got(texts), oracle.unicode_words)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(TypeError, match="string column; this one is int64"):
        gopher_scores(pa.array([1, 2]))
    with pytest.raises(ValueError, match="expected one of 'unicode', 'tokens', 'whitespace'"):
        gopher_scores(pa.array(["a"]), words="spacy")
    with pytest.raises(ValueError, match="1 lists for 2 texts"):
        gopher_scores(pa.array(["a", "b"]), words=pa.array([["a"]]))


def test_the_committed_table_is_what_unicodedata_says():
    made_with = codepoints.TABLE.read_text(encoding="ascii").split("\n", 1)[0]
    if f"Unicode {unicodedata.unidata_version};" not in made_with:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}; the table says: {made_with}")
    table = codepoints.load()
    for first, last, value in codepoints.ranges():
        assert table[first] == table[last] == value


def test_symbols_replaces_what_makes_a_word():
    table = codepoints.load("#a")
    assert not table["a"] & codepoints.SOLID and not table["#"] & codepoints.SOLID
    assert table["•"] & codepoints.SOLID
    scores = gopher_scores(pa.array(["a # • b"]), symbols="#a")["gopher"]
    assert scores.field("n_words").to_pylist() == [2]
    assert np.isclose(scores.field("mean_word_length")[0].as_py(), 1.0)
