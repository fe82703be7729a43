"""DCLM's compiled scores and edits against the readable ones, over random and hand-made text."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.apply import apply_step
from filters.text import dclm
from filters.text.dclm import classes, lines, named
from filters.text.dclm.edits import RemoveUrls, read_tlds, remove_urls_from, squeeze_newlines_in, tld_table
from filters.text.dclm.repetition import score_dclm_repetition
from filters.text.dclm.scores import SCORES, score_dclm

_spec = importlib.util.spec_from_file_location("oracle_dclm", Path(__file__).with_name("oracle_dclm.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

SPACES = [" ", " ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\u2028", "\xa0", "\u3000"]
MARKS = ["...", "…", ". . .", ".", "•", "●", "- ", "*", "#", "’", "'", '"', ",", ":", "_", "\x00", "\u200b"]
WORDS = [
    "a",
    "b",
    "the",
    "The",
    "TO",
    "1",
    "3.14",
    "1,000",
    "don't",
    "é",
    "e\u0301",
    "ß",
    "²",
    "a²",
    "A",
    "②",
]
OTHERS = [
    "中",
    "文",
    "カナ",
    "ー",
    "ไทย",
    "हिन्दी",
    "한국",
    "שלום",
    'ש"ס',
    "ש'",
    "😀",
    "❤️",
    "ℹ",
    "\u200dℹ",
    "🇩🇪",
]
TRICKY = st.sampled_from([*SPACES, *MARKS, *WORDS, *OTHERS])
TEXT = st.one_of(
    st.lists(TRICKY, max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "bb", "ccc", "the"]), max_size=80).map(" ".join),
    st.lists(
        st.sampled_from(["a b c\n", " a b c \n", "a b c d e\n\n", " \n", "\n", "x", "\t\n\n"]), max_size=40
    ).map("".join),
    st.text(max_size=80),
)
LONG = [
    "the quick brown fox " * 3000,
    "x" * 50_000,
    "\n" * 50_000,
    "a\n" * 20_000,
    "a²" * 20_000,
    "中" * 9000,
]
EDGES = [
    "",
    "\n",
    " ",
    "a",
    ".",
    "...",
    ". . .",
    ". . . . .",
    "…",
    "- a\n-",
    "a\n\na",
    "a \n\n\n a",
    "\0a\0\0b",
    "#",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_scores_match_the_oracle(texts):
    for text, row in zip(texts, score_dclm(pa.array(texts)).to_pylist(), strict=True):
        assert row == pytest.approx(oracle.scores(text), rel=1e-12, abs=0), repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_repetition_matches_the_oracle(texts):
    for text, row in zip(texts, score_dclm_repetition(pa.array(texts)).to_pylist(), strict=True):
        assert row == pytest.approx(oracle.repetition(text), rel=1e-12, abs=0), repr(text)


def test_edges_and_long_texts_match_the_oracle():
    texts = EDGES + LONG
    assert score_dclm(pa.array(texts)).to_pylist() == [pytest.approx(oracle.scores(t)) for t in texts]
    texts = EDGES + [text[:1500] for text in LONG]
    assert score_dclm_repetition(pa.array(texts)).to_pylist() == [
        pytest.approx(oracle.repetition(t)) for t in texts
    ]


def test_the_oracles_words_are_what_a_segmenter_cuts():
    regex = pytest.importorskip("regex", reason="the package regex knows UAX #29; it is not installed")
    texts = [
        "e.g. don't x:y 3.14, 1;2 a_b _a Foo's’ 中文 カタカナa a1ア",
        "ש\"ס ש' a\u200db ❤\u200dℹx e\u0301",
        "v1.2.3-rc",
    ]
    for text in texts:
        theirs = [s for s in regex.split(r"(?wV1)\b", text) if s and s[0].isalnum()]
        assert oracle.words(text) == theirs


def test_words_are_counted_as_fasttext_reads_them():
    fasttext = pytest.importorskip("fasttext", reason="fasttext-community is not installed")
    texts = [
        "a b\n\nc,d\x0be\x00f\u3000g\x85 <x> \u2028z é (no) 9",
        "\0\0a\0 \0b",
        "one\xa0two three\x1cfour",
    ]
    theirs = [sum(w[0].isalnum() for w in fasttext.FastText.tokenize(text)) for text in texts]
    assert score_dclm(pa.array(texts)).field("n_words").to_pylist() == theirs == [7, 2, 2]


def test_flags_are_what_str_says():
    import unicodedata

    from filters.text import codepoints

    made_with = codepoints.TABLE.read_text(encoding="ascii").split("\n", 1)[0]
    if f"Unicode {unicodedata.unidata_version};" not in made_with:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}; the table says: {made_with}")
    table = classes.load()
    for cp in range(0x110000):
        char, flags = chr(cp), int(table[cp])
        said = (
            char.isspace(),
            char.isalnum(),
            char.isalpha(),
            char.isupper(),
            char.isdigit(),
            char.isdecimal(),
        )
        ours = (classes.SPACE, classes.ALNUM, classes.ALPHA, classes.UPPER, classes.DIGIT, classes.DECIMAL)
        assert tuple(bool(flags & flag) for flag in ours) == said, hex(cp)


def test_names_of_fields_are_those_of_the_kernels():
    from filters.text.dclm import edit_kernels, kernels

    assert kernels.SCORES == SCORES
    assert tuple(f.name for f in score_dclm_repetition(pa.array(["a"])).type) == kernels.REPETITION
    assert edit_kernels.STATS == lines.LINE_EDITS


# ----------------------------------------------------------------------------------------------------- URLs

URL_PARTS = [
    "http://", "https://", "ftp://", "HTTP://", "www.", "foo", "bar-x", ".com", ".org", ".co.uk",
    ".so", ".So", ".COM", ".md", ".рф", ".xn--p1ai", "@", "/", ":80", "?q=1", "#a", ".", "..", " ", "  ",
    "\n", "\t", " " * 11, "1", "10", "256", "1.2.3.4", "255.255.255.255", "0.0.",
    "v", "(", ")", ",", "é", "中",
    "_", "-", "the ", "~",
]  # fmt: skip
URL_TEXT = st.lists(st.sampled_from(URL_PARTS), max_size=24).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(URL_TEXT, min_size=1, max_size=10))
def test_urls_go_as_the_oracle_says(texts):
    texts += [f"com {text}" for text in texts]  # begins with a top-level domain: both passes of DCLM's rule
    table = tld_table()
    for compat, expected in ((None, oracle.without_urls), ("dclm", oracle.without_urls_dclm)):
        got = remove_urls_from(pa.array(texts), compat, table).to_pylist()
        assert got == [expected(text) for text in texts]


def test_a_long_run_is_a_name_only_near_its_point():
    for n in (255, 256, 257, 300):
        for text in ("com " + "a" * n + ".com tail", "com " + "a" * n + ".com" + "b" * n + ".org?x y"):
            assert remove_urls_from(pa.array([text]), "dclm").to_pylist() == [oracle.without_urls_dclm(text)]


# what goes and what stays by our own rule
URL_CASES = {
    "see http://foo.com/x?y=1. And": "see. And",
    "(www.bar.co.uk) and Foo.COM:80/x": "() and",
    "mail me@x.org, or a.b@c.so": "mail, or",
    "end.So README.md come to me.so I": "end.So README.md come to me.so I",
    "bit.ly/2x youtu.be/a www.me.so": "",
    "http://localhost:8080/a HTTPS://X": "",
    "10.1.1.1:80/x 1.2.3.256 1.2.3": " 1.2.3.256 1.2.3",
    "src/main.rs a/index.info": "src/main.rs a/index.info",
    "line\nhttp://a.com\nline": "line\n\nline",
    "请看example.com网站": "请看网站",
    "http:// and https://": "http:// and https://",
    "foo.com-based index.com.html": "foo.com-based index.com.html",
    "www.foo.com.": ".",
    "see a.com, b.org; and no others": "see,; and no others",
}


@pytest.mark.parametrize("text", URL_CASES)
def test_urls_by_hand(text):
    assert remove_urls_from(pa.array([text])).to_pylist() == [URL_CASES[text]] == [oracle.without_urls(text)]


def test_dclm_looks_for_names_only_after_a_lucky_start():
    text = "9 pages of http://a.com here, and 1.2.3.4"
    assert remove_urls_from(pa.array([text]), "dclm").to_pylist() == ["9 pages of http://a.com here, and"]
    assert remove_urls_from(pa.array(["The " + text]), "dclm").to_pylist() == ["The 9 pages of here, and"]
    assert remove_urls_from(pa.array([text])).to_pylist() == ["9 pages of here, and"]
    # and it joins lines
    assert remove_urls_from(pa.array(["To x\nhttp://a.com\ny"]), "dclm").to_pylist() == ["To x\ny"]


def test_a_list_of_your_own(tmp_path):
    (tmp_path / "tlds.txt").write_text("# mine\nzzz\n", encoding="utf-8")
    assert read_tlds(tmp_path / "tlds.txt") == (("zzz",), ())
    table = tld_table(str(tmp_path / "tlds.txt"))
    assert remove_urls_from(pa.array(["a.com b.zzz"]), None, table).to_pylist() == ["a.com"]
    (tmp_path / "none.txt").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no top-level domain in this list"):
        tld_table(tmp_path / "none.txt")
    plain, wordlike = read_tlds()
    assert (
        not set(plain) & set(wordlike) and {"com", "de", "рф"} <= set(plain) and {"so", "md"} <= set(wordlike)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("a\n \r", max_size=30), max_size=5), st.integers(0, 3))
def test_newlines_are_squeezed(texts, most):
    got = squeeze_newlines_in(pa.array(texts, pa.string()), most).to_pylist()
    assert got == [oracle.squeezed(text, most) for text in texts]


# ---------------------------------------------------------------------------------------------------- lines

LINE_PARTS = [
    "\n", "\n", "\n\n", " ", "\t", "\xa0", "\u3000", "Hello there", "HELLO", "HELLO there", "123", "4 5",
    "١٢", "²", "a", "B", "one two", "3 likes", "(1.2k views)", "1,000K  Followers!", "5 liKes",
    "items in cart", "2 ITEMS in Cart now", "ıtemS İn cart", "Read more...", "read more!!!",
    "Sign-in", "sign-in now",
    "SIGN-IN", "…", "é", "a b c d e f g h i",
    "  ", "\0",
]  # fmt: skip
LINE_TEXT = st.one_of(st.lists(st.sampled_from(LINE_PARTS), max_size=24).map("".join), TEXT)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE_TEXT, min_size=1, max_size=8), st.sampled_from([None, "dclm"]))
def test_lines_are_edited_as_the_oracle_says(texts, compat):
    step = dclm.refinedweb_lines(compat=compat)
    got, stats = lines.edit_lines(pa.array(texts), step.instructions())
    for text, after, row in zip(texts, got.to_pylist(), stats.tolist(), strict=True):
        assert after == oracle.refinedweb_lines(text, compat), repr(text)
        counted = dict(zip(lines.LINE_EDITS, row, strict=True))
        assert counted["n_lines"] == text.count("\n") + 1
        assert counted["words_before"] == len(oracle.fasttext_words(text))
        assert counted["words_after"] == len(oracle.fasttext_words(after)), repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINE_TEXT, min_size=1, max_size=6), st.data())
def test_each_modifier_alone(texts, data):
    ratio = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.999999, 1.0]))
    least, most = data.draw(st.sampled_from([0, 1, 2, 3])), data.draw(st.sampled_from([1, 3, math.inf]))
    banned = data.draw(
        st.sampled_from([["sign-in"], ["more...", "a"], ["items", "items in cart"], ["."], [" a"]])
    )
    place = data.draw(st.sampled_from(["any", "prefix", "suffix"]))
    bound = data.draw(st.sampled_from([None, 0, 3, 10]))
    only, wild, case = data.draw(st.booleans()), data.draw(st.booleans()), data.draw(st.booleans())
    pairs = [
        (dclm.uppercase_ratio_line_modifier(ratio), lambda t: oracle.uppercase_lines(t, ratio)),
        (dclm.numeric_ratio_line_modifier(ratio), lambda t: oracle.numeric_lines(t, ratio)),
        (dclm.counter_line_modifier(), oracle.counter_lines),
        (dclm.line_length_modifier(least, most), lambda t: oracle.length_lines(t, least, most)),
        (
            dclm.substring_line_modifier(banned, case, place, bound, only, "dclm" if wild else None),
            lambda t: oracle.substring_lines(t, banned, place, bound, only, wild, case),
        ),
    ]
    for step, expected in pairs:
        got, _ = lines.edit_lines(pa.array(texts), [step.instruction])
        assert got.to_pylist() == [expected(text) for text in texts], step


def test_what_each_rule_removed_is_told():
    page = "  HELLO\n123\nHi there all\n3 likes\none\n\n5 items in cart now\nRead this Read more...\n"
    page += "Sign-in\nSign-in now"
    step = dclm.refinedweb_lines()
    batch = pa.record_batch({"id": ["a", "b", "c"], "text": pa.array([page, None, "OK\n12"])})
    out, parents = step(batch)
    assert parents.tolist() == [0, 1]
    assert out["text"].to_pylist() == ["Hi there all\n\n5 now\nRead this\nnow", None]
    assert out["line_edits"].to_pylist() == [
        {"n_lines": 10, "uppercase": 1, "numeric": 1, "counter": 1, "short": 2, "emptied": 0, "edited": 3,
         "words_before": 20, "words_after": 8},
        None,
    ]  # fmt: skip
    outcome = apply_step(step, batch)  # as the engine sees it
    assert outcome.batch.num_rows == 2


# ------------------------------------------------------------------------------------------ steps and columns


def test_columns_of_every_layout_give_the_same():
    texts = ["one two three", "", "the cat http://a.com and the hat", None, "vier fünf"]
    plain = [
        score_dclm(pa.array(texts)),
        score_dclm_repetition(pa.array(texts)),
        remove_urls_from(pa.array(texts)),
    ]
    for column in (
        pa.array(texts, pa.large_string()),
        pa.array(texts).dictionary_encode(),
        pa.array(["junk", *texts, "junk"]).slice(1, 5),
        pa.chunked_array([texts[:2], texts[2:]]),
    ):
        made = [score_dclm(column), score_dclm_repetition(column), remove_urls_from(column)]
        assert [m.to_pylist() for m in made] == [p.to_pylist() for p in plain]
    assert plain[0].to_pylist()[3] is None and plain[2].to_pylist()[3] is None
    assert remove_urls_from(pa.array([], pa.string())).to_pylist() == []


def test_a_page_left_empty_is_dropped_and_a_null_one_is_not():
    batch = pa.record_batch({"id": ["a", "b", "c"], "text": ["http://a.com", None, "x"]})
    step = RemoveUrls()
    step.setup()
    out, parents = step(batch)
    assert out["id"].to_pylist() == ["b", "c"] and parents.tolist() == [1, 2]
    assert dclm.squeeze_newlines(0)(pa.record_batch({"id": ["a"], "text": ["\n"]}))["text"].to_pylist() == [
        ""
    ]


def test_malformed_utf8_is_read_to_its_end_and_no_further():
    broken = pa.array(
        [b"\xff\xfe the", b"caf\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\x80\n\x80", b"a.com\xc3"]
    )
    assert score_dclm(broken).field("n_chars").to_pylist() == [6, 4, 2, 3, 3, 6]
    assert score_dclm_repetition(broken).field("n_lines").to_pylist() == [1, 1, 1, 1, 2, 1]
    for compat in (None, "dclm"):
        remove_urls_from(broken, compat)
    lines.edit_lines(broken, dclm.refinedweb_lines().instructions())


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(TypeError, match="string column; this one is int64"):
        score_dclm(pa.array([1]))
    with pytest.raises(ValueError, match=r"expected None .* or 'dclm'"):
        dclm.remove_urls(compat="dolma")
    with pytest.raises(ValueError, match=r"expected None .* or 'dclm'"):
        dclm.dclm_language_rules(compat="x")
    with pytest.raises(ValueError, match="one of 'any', 'prefix', 'suffix'"):
        dclm.substring_line_modifier("a", location="middle")
    with pytest.raises(ValueError, match="only the point is reproduced"):
        dclm.substring_line_modifier("a|b", compat="dclm")
    with pytest.raises(ValueError, match="give case_sensitive=True"):
        dclm.substring_line_modifier("Añadir")
    with pytest.raises(ValueError, match="counted are 'char', 'line', 'word'"):
        dclm.page_length_filter("sentence")
    with pytest.raises(ValueError, match="counted are 'line', 'paragraph'"):
        dclm.repetition_filter(2, 0.5, ngram_char_ratio="all")
    with pytest.raises(ValueError, match="one to eight ASCII letters"):
        dclm.dclm_scores(stop_words=("der", "für"))


def test_every_step_is_named_and_has_an_identity_that_its_parameters_change():
    steps = [
        dclm.dclm_scores(), dclm.dclm_scores(output="again"), dclm.dclm_repetition(), dclm.remove_urls(),
        dclm.remove_urls("dclm"), dclm.squeeze_newlines(), dclm.squeeze_newlines(1), dclm.refinedweb_lines(),
        dclm.refinedweb_lines(compat="dclm"), dclm.counter_line_modifier(), dclm.line_length_modifier(2),
        dclm.line_length_modifier(3), dclm.word_counter_enricher("n"), dclm.dclm_language(),
        dclm.dclm_language(compat="dclm"),
    ]  # fmt: skip
    assert len({json.dumps(step.identity, default=str) for step in steps}) == len(steps)
    assert [s.name for s in steps[7:11]] == [
        "refinedweb_lines", "refinedweb_lines", "counter_line_modifier", "line_length_modifier",
    ]  # fmt: skip
    batch = pa.record_batch({"id": ["a"], "text": ["one two, (three) 4"]})
    assert dclm.word_counter_enricher("n")(batch)["n"].to_pylist() == [3]
    assert list(dclm.dclm_scores(output="again")(batch)) == ["again"]


def test_nothing_heavy_is_imported_with_the_package():
    import subprocess

    code = "import sys, filters.text.dclm; assert not {'numba', 'fasttext', 'regex'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist():
    for name in dclm.__all__:
        assert getattr(dclm, name).__doc__, name
    assert named.word_removal_ratio_filter()[0].reason == "dclm: too many words removed"
