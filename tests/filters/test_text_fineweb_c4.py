"""FineWeb and C4: the compiled scores against the readable ones, and every rule around its threshold."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.expressions import evaluate
from filters.text.c4 import (
    C4_TYPE,
    c4,
    c4_bad_words,
    c4_bad_words_rules,
    c4_edit,
    c4_lines,
    c4_paragraph,
    c4_paragraph_rules,
    c4_rules,
    c4_scores,
)
from filters.text.fineweb import STOP_CHARS, fineweb, fineweb_rules, fineweb_scores
from filters.text.gopher import gopher_scores
from filters.text.heuristics import heuristics, text_scores


def _load(name: str):
    spec = importlib.util.spec_from_file_location(f"text_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle, oracle_lines = _load("oracle"), _load("oracle_lines")

SPACES = [
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\x0b",
    "\x1c",
    "\x85",
    "\u2028",
    "\xa0",
    "\u3000",
]
MARKS = [".", ".", "!", "?", "...", "..", "…", '."', "'", '"', ".)", "(", ",", "-", "{", "}", "。", "।", "؟"]
CITATIONS = ["[1]", "[]", "[٣]", "[edit]", "[citation needed]", "[", "]", "[[2]]", "[x]", "[citation"]
WORDS = [
    "a",
    "Ab",
    "bc",
    "Mr",
    "Dr",
    "co",
    "U",
    "e",
    "g",
    "3",
    "14",
    "É",
    "é",
    "e\u0301",
    "中",
    "文",
    "ไทย",
    "한국",
    "😀",
]
PHRASES = ["lorem ipsum", "Lorem Ipsum", "javascript", "JavaScript", "java", "script", "terms of use"]
PHRASES += [
    "Privacy Policy",
    "use of coo\u212aies",
    "uses cookies",
    "use cookies",
    "use",
    "of",
    "cookies",
    "policy",
]
TEXT = st.one_of(
    st.lists(st.sampled_from([*SPACES, *MARKS, *CITATIONS, *WORDS, *PHRASES]), max_size=60).map("".join),
    st.lists(st.sampled_from([*WORDS, *WORDS, ". ", "! ", ".", "\n", ' "', " "]), max_size=60).map("".join),
    st.lists(st.sampled_from(["one two three.\n", "a line\n", " \n", "\n", "x."]), max_size=40).map("".join),
    st.text(max_size=80),
)
PARAMETERS = st.fixed_dictionaries(
    {
        "remove_citations": st.booleans(),
        "filter_no_terminal_punct": st.booleans(),
        "min_words_per_line": st.integers(0, 4),
        "max_word_length": st.sampled_from([0, 3, 8, 1000]),
        "filter_javascript": st.booleans(),
        "filter_policy": st.booleans(),
    }
)


def rows(column: pa.StructArray) -> list:
    return column.to_pylist()


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8), PARAMETERS)
def test_c4_matches_the_oracle(texts, parameters):
    column = pa.array(texts, pa.string())
    expected = [oracle_lines.c4(text, **parameters) for text in texts]
    got = rows(c4_scores(column, **parameters)["c4"])
    edited = c4_edit(column, **parameters).to_pylist()
    for text, answer, left, (counts, kept) in zip(texts, got, edited, expected, strict=True):
        assert answer == counts, repr(text)
        assert left == kept, repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8), st.integers(0, 40), st.sampled_from(["unicode", "whitespace"]))
def test_fineweb_matches_the_oracle(texts, short, words):
    split = {"unicode": oracle.unicode_words, "whitespace": str.split}[words]
    got = rows(fineweb_scores(pa.array(texts, pa.string()), words=words, short_line_chars=short)["fineweb"])
    for text, answer in zip(texts, got, strict=True):
        assert answer == oracle_lines.fineweb(text, split(text), short), repr(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_one_call_gives_what_the_separate_calls_give(texts):
    column = pa.array(texts, pa.string())
    together = text_scores(column, words="tokens")
    apart = gopher_scores(column, words="tokens") | fineweb_scores(column, words="tokens") | c4_scores(column)
    assert list(together) == ["gopher", "repetition", "fineweb", "c4"]
    for name, scores in together.items():
        assert scores.equals(apart[name])
        assert scores.type == heuristics.outputs[name]


def test_the_steps_give_what_the_functions_give():
    texts = ["A first line of words. Then [1] more.\nshort\nshort\n\nLorem ipsum it is, dolor.", "", None]
    batch = pa.record_batch({"id": ["a", "b", "c"], "text": pa.array(texts)})
    together = heuristics(words="whitespace")(batch)
    assert together["c4"].equals(c4()(batch)["c4"])
    assert together["fineweb"].equals(fineweb(words="whitespace")(batch)["fineweb"])
    assert together["c4"].to_pylist()[2] is None and together["fineweb"].to_pylist()[2] is None
    from filters.text import line_kernels

    assert tuple(field.name for field in C4_TYPE) == line_kernels.C4


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("", 0),
        ("One sentence only", 1),
        ("One. Two! Three?", 3),
        ('He said "no." Then he left.', 2),
        ("It was 3.14 or 3. Then example.com said so.", 2),
        ("Wait... what", 1),
        ("Wait.... What", 1),
        ("Really?! Yes.", 2),
        ("Mr. Smith met Dr. Jones of J. P. Co. in Mass. today.", 1),
        ("The U.S. law, i.e. the one, at 5 p.m. or so.", 1),
        ("It ended.Then it began.", 2),
        ("see end.now", 1),
        ("Read a.b and c.D now.", 1),
        ("終わり。次の文。", 2),
        ("What (is it?) Here.", 2),
        ("A question?mark inside", 1),
        (". Point first", 2),
        ("Done. — — —", 1),
        ("Ende der 2. Woche", 2),
    ],
)
def test_sentences_by_hand(line, count):
    free = {"filter_no_terminal_punct": False, "min_words_per_line": 0}
    assert c4_scores(pa.array([line]), **free)["c4"].field("n_sentences").to_pylist() == [count]
    assert oracle_lines.sentences(line) == count


def test_c4_lines_by_hand():
    page = "\n".join(
        [
            "  A line that ends well.  ",
            "A line without an end",
            "Cut off like this...",
            "Two words.",
            "Water boils[12] at different heights.[citation needed]",
            "A citation at the end loses it. [3]",
            "Please enable JAVASCRIPT to continue.",
            "By going on you accept our Cookie Policy.",
            "One word is " + "x" * 1001 + " long.",
            'He asked: "Is it so?"',
        ]
    )
    left = "A line that ends well.\nWater boils at different heights.\n" + 'He asked: "Is it so?"'
    assert c4_edit(pa.array([page])).to_pylist() == [left]
    assert rows(c4_scores(pa.array([page]))["c4"]) == [
        {
            "n_lines": 10,
            "n_kept_lines": 3,
            "n_long_word_lines": 1,
            "n_unended_lines": 3,
            "n_few_words_lines": 1,
            "n_javascript_lines": 1,
            "n_policy_lines": 1,
            "n_lorem_ipsum_lines": 0,
            "n_curly_bracket_lines": 0,
            "n_sentences": 3,
            "n_words": 16,
            "n_citations": 3,
            "longest_word": 1001,
        }
    ]


def keeps(rules: list[c.Keep], column: str, scores: pa.Array) -> dict[str, list[bool]]:
    batch = pa.record_batch({column: scores})
    return {rule.reason: evaluate(rule.where, batch).tolist() for rule in rules}


LINE = "word " * 9 + "word"  # 49 code points


def test_fineweb_rules_at_below_and_above():
    def verdicts(texts, **bounds):
        return keeps(
            fineweb_rules(**bounds), "fineweb", fineweb_scores(pa.array(texts), words="whitespace")["fineweb"]
        )

    def punctuated(k, n):
        return "\n".join(f"{LINE} {i}{'.' if i < k else ''}" for i in range(n))

    reason = "fineweb: too few lines end in punctuation"
    texts = [punctuated(k, 25) for k in (2, 3, 4, 0)]  # 0.08, 0.12, 0.16, 0
    assert verdicts(texts)[reason] == [False, True, True, False]
    assert verdicts(texts, line_punct_exclude_zero=True)[reason] == [False, True, True, True]
    assert verdicts(["a b c. ", "a b c.\r\nx y z.\r", "a b c。", "a b c!"])[reason] == [
        False,
        False,
        True,
        True,
    ]

    reason = "fineweb: too many short lines"
    texts = [
        "\n".join([LINE + str(i) for i in range(n)] + ["short"] * k)
        for n, k in ((34, 66), (33, 67), (32, 68))
    ]
    assert verdicts(texts)[reason] == [True, True, False]
    assert verdicts(["x" * 29, "x" * 30, "é" * 30, "x" * 31, " " * 30 + "x"])[reason] == [
        False, False, False, True, True,
    ]  # fmt: skip

    reason = "fineweb: text in repeated lines"  # ten code points of 990, 1000 and 1010
    texts = ["0123456789\n0123456789\n \n" + "y" * n for n in (969, 979, 989)]
    assert verdicts(texts)[reason] == [False, True, True]
    assert verdicts(["a\n \n \nb", "a\n\n\nb", "a\na\n", "a \na"])[reason] == [True, True, False, True]

    reason = "fineweb: too many lines for its words"
    texts = ["w " * 10 + "\n" * n for n in (2, 3, 4)]
    assert verdicts(texts)[reason] == [True, True, False]
    assert verdicts(["", " \n ", "\n", "a"])["fineweb: empty text"] == [False, False, False, True]


def test_stop_characters_end_lines_in_every_script():
    assert len(STOP_CHARS) == len(set(STOP_CHARS)) == 159
    scores = fineweb_scores(pa.array([f"a line{char}" for char in STOP_CHARS + "…\"':;”"]))["fineweb"]
    assert scores.field("line_punct_ratio").to_pylist() == [1.0] * 159 + [0.0] * 6
    only = fineweb_scores(pa.array(["so;", "so."]), stop_chars=";…")["fineweb"]
    assert only.field("line_punct_ratio").to_pylist() == [1.0, 0.0]


def test_c4_rules_at_below_and_above():
    def verdicts(texts, **bounds):
        return keeps(c4_rules(**bounds), "c4", c4_scores(pa.array(texts))["c4"])

    def told(n):
        return "This is a sentence. " * n

    assert verdicts([told(4), told(5), told(6), ""])["c4: too few sentences"] == [False, True, True, False]
    assert verdicts([told(4)], min_num_sentences=4)["c4: too few sentences"] == [True]
    assert "c4: too few sentences" not in verdicts([""], min_num_sentences=0)
    # only lines that stay so far are looked at
    texts = [
        "Lorem Ipsum dolor sit.",
        "Lorem ipsum dolor sit",
        "lorem, ipsum dolor sit.",
        "Say loremlorem ipsums.",
    ]
    assert verdicts(texts)["c4: lorem ipsum"] == [False, True, True, False]
    texts = ["if (a) { b; } and so.", "if (a) { b; } and so", "javascript { is like this."]
    assert verdicts(texts)["c4: curly bracket"] == [False, True, True]
    assert verdicts(["{ lorem ipsum."], filter_lorem_ipsum=False, filter_curly_bracket=False).keys() == {
        "c4: too few sentences"
    }


@pytest.mark.parametrize(
    ("parameters", "line", "stays"),
    [
        ({}, "two words.", False),
        ({}, "now three words.", True),
        ({"min_words_per_line": 2}, "two words.", True),
        ({}, "a b " + "x" * 999 + ".", True),
        ({}, "a b " + "x" * 1000 + ".", False),
        ({}, "a b " + "é" * 999 + ".", True),
        ({"max_word_length": 0}, "a b " + "x" * 1000 + ".", True),
        ({}, "no end of line", False),
        ({"filter_no_terminal_punct": False}, "no end of line", True),
        ({}, "an end of line..", True),
        ({}, "no end of line...", False),
        ({}, "no end of line…", False),
        ({}, "no end of line。", False),
        ({}, "on javascript and so.", False),
        ({"filter_javascript": False}, "on javascript and so.", True),
        ({}, "on java script and so.", True),
        ({}, "our terms of use apply.", False),
        ({}, "the privacy policy applies.", False),
        ({}, "the cookie policy applies.", False),
        ({}, "this site uses cookies.", False),
        ({}, "the use of cookies here.", False),
        ({}, "we use cookies here.", False),
        ({}, "we use  cookies here.", True),
        ({}, "we used cookies here.", True),
        ({"filter_policy": False}, "we use cookies here.", True),
        ({"remove_citations": False}, "as was shown [1].", True),
    ],
)
def test_each_line_rule(parameters, line, stays):
    assert c4_edit(pa.array([line]), **parameters).to_pylist() == [line if stays else ""]
    assert c4_scores(pa.array([line]), **parameters)["c4"].field("n_kept_lines").to_pylist() == [int(stays)]


def test_a_count_of_sentences_from_elsewhere_takes_the_place_of_ours():
    texts = pa.array(["One two three.", None])
    scores = c4_scores(texts, sentences=pa.array([7, 0]))["c4"]
    assert scores.field("n_sentences").to_pylist() == [7, 0] and scores.to_pylist()[1] is None
    with pytest.raises(ValueError, match="1 counts for 2 texts"):
        c4_scores(texts, sentences=pa.array([7]))


def test_columns_of_every_layout_give_the_same():
    texts = ["One two three. Four five six.", "", "nothing stays", None, "Ein Satz [1] mit Beleg."]
    plain = c4_scores(pa.array(texts))["c4"].to_pylist()
    edited = ["One two three. Four five six.", "", "", None, "Ein Satz  mit Beleg."]
    for column in (
        pa.array(texts),
        pa.array(texts, pa.large_string()),
        pa.array(["junk", *texts, "junk"]).slice(1, 5),
        pa.chunked_array([texts[:2], texts[2:]]),
    ):
        assert c4_scores(column)["c4"].to_pylist() == plain
        made = c4_edit(column)
        assert made.to_pylist() == edited
        assert made.type == column.type
        made.validate(full=True)
    assert c4_edit(pa.array([], pa.string())).to_pylist() == []
    assert c4_edit(pa.array([None], pa.string())).to_pylist() == [None]


def test_c4_lines_edits_and_drops_what_it_empties():
    batch = pa.record_batch(
        {
            "id": ["a", "b", "c", "d"],
            "text": pa.array(["One two three.\nmenu", "menu", None, "Only one line here."]),
            "n": [1, 2, 3, 4],
        }
    )
    out, parents = c4_lines()(batch)
    assert parents.tolist() == [0, 3]
    assert out.schema == batch.schema
    assert out.to_pydict() == {
        "id": ["a", "d"],
        "text": ["One two three.", "Only one line here."],
        "n": [1, 4],
    }
    whole, parents = c4_lines(filter_no_terminal_punct=False, min_words_per_line=1)(batch.slice(0, 2))
    assert whole["text"].to_pylist() == ["One two three.\nmenu", "menu"] and parents.tolist() == [0, 1]


def test_malformed_utf8_and_long_lines_are_read_to_their_end():
    broken = pa.array([b"\xff one two.", b"one two caf\xc3", b"[\xe4\xb8] one two.", b"a b \xf0\x9f\x98."])
    assert c4_scores(broken)["c4"].field("n_kept_lines").to_pylist() == [1, 0, 1, 1]
    long = "One two three. " * 100_000
    assert c4_scores(pa.array([long]))["c4"].field("n_sentences").to_pylist() == [100_000]
    assert c4_scores(pa.array(["[" * 50_000 + " a b."]))["c4"].field("n_citations").to_pylist() == [0]
    many = "\u2028".join(["One two three."] * 5000)
    assert c4_edit(pa.array([many])).to_pylist() == ["\n".join(["One two three."] * 5000)]


def test_c4_paragraph_is_the_third_longest_line():
    def page(*lengths):
        return "\n".join("é" * n for n in lengths)

    texts = [page(200, 250, 300), page(199, 250, 300), page(300, 300), page(1, 201, 5, 202, 203), "", None]
    batch = pa.record_batch({"id": list("abcdef"), "text": pa.array(texts)})
    scores = c4_paragraph()(batch)
    assert scores.to_pylist() == [200, 199, 0, 201, 0, None]
    verdict = keeps(c4_paragraph_rules(), "c4_paragraph", scores)
    assert verdict == {"c4: too few paragraphs": [True, False, False, True, False, False]}
    assert c4_paragraph(paragraphs=2)(batch).to_pylist() == [250, 250, 300, 202, 0, None]
    assert c4_paragraph()(batch.slice(0, 0)).to_pylist() == []


def test_bad_words_count_and_draw():
    texts = [
        "a Darn good day",
        "darned",
        "darn, DARN\nheck",
        "what_darn",
        "",
        None,
        "the old hat trick",
        "дарн!",
    ]
    batch = pa.record_batch({"id": list("abcdefgh"), "text": pa.array(texts)})
    step = c4_bad_words(words=("darn", "Heck", "old hat", "дарн", " "))
    step.setup()
    scores = step(batch)
    assert scores.field("n").to_pylist()[:5] == [1, 0, 2, 0, 0]
    assert scores.to_pylist()[5] is None
    assert scores.field("n").to_pylist()[6:] == [1, 1]
    draws = scores.field("draw").to_pylist()
    assert [draw is None for draw in draws] == [False, True, False, True, True, True, False, False]
    assert draws[0] == c.rng("a", "c4_bad_words 0").random()
    # the draw is the row's own
    alone = step(batch.slice(2, 1))
    assert alone.field("draw").to_pylist() == [draws[2]]
    kept = keeps(c4_bad_words_rules(keep_fraction=0.5), "c4_bad_words", scores)["c4: bad words"]
    assert kept == [draws[0] < 0.5, True, draws[2] < 0.5, True, True, False, draws[6] < 0.5, draws[7] < 0.5]
    assert keeps(c4_bad_words_rules(), "c4_bad_words", scores)["c4: bad words"][:3] == [False, True, False]

    inside = c4_bad_words(words=("darn",), separate=False)
    inside.setup()
    assert inside(batch).field("n").to_pylist()[:4] == [1, 1, 1, 1]


def test_bad_words_lists(tmp_path):
    own = c4_bad_words()
    own.setup()
    batch = pa.record_batch({"id": ["a", "b"], "text": ["Utter bollocks, that.", "A fine day."]})
    assert own(batch).field("n").to_pylist() == [1, 0]
    file = tmp_path / "words.txt"
    file.write_text("# mine\nfine day\n")
    listed = c4_bad_words(words=str(file))
    listed.setup()
    assert listed(batch).field("n").to_pylist() == [0, 1]
    before = listed.identity
    file.write_text("utter\n")
    assert c4_bad_words(words=str(file)).identity != before
    empty = c4_bad_words(words=())
    empty.setup()
    assert empty(batch).field("n").to_pylist() == [0, 0]


def test_many_pages_with_bad_words_keep_the_asked_share():
    n = 4000
    batch = pa.record_batch({"id": [f"{i:032x}" for i in range(n)], "text": ["darn it"] * n})
    step = c4_bad_words(words=("darn",), seed=3)
    step.setup()
    kept = keeps(c4_bad_words_rules(keep_fraction=0.1), "c4_bad_words", step(batch))["c4: bad words"]
    assert abs(np.mean(kept) - 0.1) < 0.02
    other = c4_bad_words(words=("darn",), seed=4)
    other.setup()
    assert other(batch).field("draw").to_pylist() != step(batch).field("draw").to_pylist()


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(TypeError, match="string column; this one is int64"):
        c4_scores(pa.array([1]))
    with pytest.raises(TypeError, match="string column; this one is int64"):
        fineweb_scores(pa.array([1]))
    with pytest.raises(ValueError, match="expected one of 'unicode', 'tokens', 'whitespace'"):
        fineweb(words="spacy")
    with pytest.raises(ValueError, match="expected one of 'unicode', 'tokens', 'whitespace'"):
        heuristics(words="spacy")


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory):
    """A third of one shard of the embedded pool, as a pool of its own."""
    from pools import demo_text

    folder = tmp_path_factory.mktemp("pool")
    whole = sorted(demo_text.unpack().rglob("*.warc.gz"))[0].read_bytes()
    cut = whole.find(b"\x1f\x8b\x08", len(whole) // 3)  # at the start of a gzip member
    (folder / "0.warc.gz").write_bytes(whole[:cut])
    return folder


@pytest.mark.parametrize("name", ["gopher", "fineweb", "c4"])
def test_recipes_run_on_the_embedded_pool(name, one_shard, tmp_path):
    import baselines

    recipe = baselines.find(f"text/{name}")
    plan = recipe.plan(pool=str(one_shard), out=str(tmp_path))
    result = c.run(plan, on="local", workers=1, progress=False, funnel=False)
    report = result.report
    rows_in, kept = report["input"]["rows"], report["output"]["rows"]
    assert rows_in > 80
    assert 0.05 * rows_in < kept < 0.9 * rows_in
    dropped = sum(reason["rows"] for reason in report["reasons"])
    assert rows_in == kept + dropped + report["quarantined"]["rows"]
