"""dolma's taggers: compiled against readable, and by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.expressions import evaluate
from filters.text import dolma
from filters.text.gopher import STOP_WORDS

_spec = importlib.util.spec_from_file_location(
    "oracle_signals", Path(__file__).with_name("oracle_signals.py")
)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

PIECES = [
    " ",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\x85",
    "\u2028",
    "\xa0",
    ".",
    "...",
    "…",
    "!",
    "?",
    '"',
    "#",
    "{",
    "*",
]
PIECES += [
    "- ",
    "•",
    "_",
    "a",
    "b",
    "the",
    "The",
    "to",
    "JavaScript",
    "javascript",
    "lorem ipsum",
    "Lorem",
    "ipsum",
]
PIECES += ["é", "e\u0301", "½", "中", "😀", "İ", "ſ", "1", "x1"]
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "b", "c", "the"]), max_size=80).map(" ".join),
    st.lists(st.sampled_from(["a b c\n", "a b c d e\n", " \n", "\n", "x"]), max_size=40).map("".join),
    st.text(max_size=60),
)
STEPS = {
    "mended": (dolma.dolma_gopher(), lambda text: oracle.dolma_gopher(text, STOP_WORDS, False)),
    "compat": (dolma.dolma_gopher(compat="dolma"), lambda text: oracle.dolma_gopher(text, STOP_WORDS, True)),
    "dolma_c4": (dolma.dolma_c4(), oracle.dolma_c4),
    "dolma_lengths": (dolma.dolma_lengths(), oracle.dolma_lengths),
}


def score(step, texts):
    made = step(pa.record_batch({"text": pa.array(texts, pa.string())}))
    ((name, column),) = made.items()
    assert {name: column.type} == step.outputs
    return column.to_pylist()


def agree(texts):
    for step, reference in STEPS.values():
        for text, got in zip(texts, score(step, texts), strict=True):
            assert got == pytest.approx(reference(text), rel=1e-12, abs=0), repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_scores_match_the_oracle(texts):
    agree(texts)


EDGES = [
    "",
    "\n",
    " ",
    "a",
    "…",
    "…\n",
    "*",
    "-\n-\n-",
    "a\n" * 300,
    "a b " * 700,
    "!?" * 3000,
    "x" * 9000,
    "\n" * 900,
]
EDGES += [
    "javascriptjavascript x",
    "jjavascript",
    "xjavascript javascript",
    "JAVASCRIPT",
    "lorem  ipsum",
    "lorem\nipsum",
]
EDGES += ["lorem lorem ipsum", "one two three four five six seven eight nine ten", "a b c d e " * 3]


def test_edges():
    agree(EDGES)


def test_gopher_by_hand():
    text = "- the cat sat…\n* the #cat sat\n - the cat sat … \nx…\n\n\n"
    got = score(dolma.dolma_gopher(compat="dolma"), [text])[0]
    assert got["word_count"] == 14 and got["character_count"] == len(text)
    assert got["median_word_length"] == 3
    assert got["symbol_to_word_ratio"] == 4 / 14  # sat… #cat … x…
    assert got["required_word_count"] == 3  # each "the"
    assert got["fraction_of_lines_starting_with_bullet_point"] == 2 / 7  # not the indented one
    assert got["fraction_of_lines_ending_with_ellipsis"] == 2 / 7  # not where a blank follows
    assert got["fraction_of_duplicate_lines"] == 3 / 7  # the empty ones, the first too
    assert got["fraction_of_characters_in_duplicate_lines"] == 0
    assert got["fraction_of_characters_in_most_common_2grams"] == pytest.approx(2 * 4 / 35)  # "- the"
    mended = score(dolma.dolma_gopher(), [text])[0]
    assert mended["fraction_of_lines_starting_with_bullet_point"] == 2 / 4
    assert mended["fraction_of_duplicate_lines"] == 0
    with pytest.raises(ValueError, match="compat is 'dclm'; it is None or 'dolma'"):
        dolma.dolma_gopher(compat="dclm")


GOOD = {
    "character_count": 300,
    "word_count": 50,
    "median_word_length": 3.0,
    "symbol_to_word_ratio": 0.1,
    "fraction_of_words_with_alpha_character": 0.8,
    "required_word_count": 2,
    "fraction_of_lines_starting_with_bullet_point": 0.9,
    "fraction_of_lines_ending_with_ellipsis": 0.3,
    "fraction_of_duplicate_lines": 0.3,
    "fraction_of_characters_in_duplicate_lines": 0.3,
    "fraction_of_characters_in_most_common_2grams": 0.20,
    "fraction_of_characters_in_most_common_3grams": 0.18,
    "fraction_of_characters_in_most_common_4grams": 0.16,
    **{f"fraction_of_characters_in_duplicate_{n}grams": (20 - n) / 100 for n in range(5, 11)},
}
LOWER = {"word_count", "median_word_length", "fraction_of_words_with_alpha_character", "required_word_count"}


def dropped(rules, **fields):
    batch = pa.record_batch({"dolma_gopher": pa.array([fields], dolma.GOPHER_TYPE)})
    return [rule.reason for rule in rules if not evaluate(rule.where, batch)[0]]


def test_gopher_rules_at_and_past_each_bound():
    rules = dolma.dolma_gopher_rules()
    assert dropped(rules, **GOOD) == []
    assert dropped(rules, **{**GOOD, "word_count": 100_000, "median_word_length": 10.0}) == []
    reasons = set()
    for name, value in GOOD.items():
        if name == "character_count":
            continue
        step = 1 if isinstance(value, int) else 1e-9
        gone = dropped(rules, **{**GOOD, name: value - step if name in LOWER else value + step})
        assert len(gone) == 1, name
        reasons |= set(gone)
    for name, value in {"word_count": 100_001, "median_word_length": 10.5}.items():
        reasons |= set(dropped(rules, **{**GOOD, name: value}))
    assert reasons == {rule.reason for rule in rules}
    assert len(dolma.dolma_gopher_rules(most_common_ngrams=())) == len(rules) - 3


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=8))
def test_lines_without_end_mark_leave(texts):
    batch = pa.record_batch({"id": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    kept, parents = dolma.dolma_no_punctuation()(batch)
    wanted = {str(i): left for i, text in enumerate(texts) if (left := oracle.no_punctuation(text))}
    assert dict(zip(kept["id"].to_pylist(), kept["text"].to_pylist(), strict=True)) == wanted
    assert [str(i) for i in parents] == list(wanted)
    assert kept.schema == batch.schema


def test_no_punctuation_by_hand():
    text = 'Home | About\n\nIt rained. \nDid it?\nYes!\nHe said "no"\nRead more…\nThe end: fin;\nLast.'
    batch = pa.record_batch({"id": ["a", "b", "c"], "text": ["x", text, None]})
    kept, parents = dolma.dolma_no_punctuation()(batch)
    assert kept["text"].to_pylist() == ['It rained. \nDid it?\nYes!\nHe said "no"\nLast.']
    assert parents.tolist() == [1]


UNITS = st.lists(
    st.sampled_from(["a", "b", "ab", " ", " ", "-", "é", "\n", "\u2003", "\t"]), max_size=24
).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(UNITS, st.text(max_size=30)), min_size=1, max_size=6), st.booleans())
def test_repetitions_match_the_regular_expression(texts, across_lines):
    got = score(dolma.dolma_repetitions(across_lines=across_lines), texts)
    for text, row in zip(texts, got, strict=True):
        assert row == pytest.approx(oracle.repetitions(text, across_lines), abs=1e-12), repr(text)


def test_repetitions_by_hand():
    step = dolma.dolma_repetitions()
    texts = [
        "blah blah blah blah",
        "blah blah blah",
        "MMMMMMMMMM x",
        "ab ab\nab ab",
        None,
        "",
        "x\nbass " * 1,
    ]
    got = score(step, texts)
    assert got[0] == {"count": 1, "doc_max_score_repetition": 4, "doc_max_length_repetition": 19,
                      "doc_frac_repetition": 1.0}  # fmt: skip
    assert got[1]["count"] == 0
    assert got[2]["doc_max_score_repetition"] == 10 and got[2]["doc_frac_repetition"] == 10 / 12
    assert got[3]["count"] == 0 and score(dolma.dolma_repetitions(across_lines=True), texts)[3]["count"] == 1
    assert got[4] is None and got[5]["doc_frac_repetition"] == 0
    long = "abcdefgh" * 4
    assert score(dolma.dolma_repetitions(max_unit=8), [long])[0]["count"] == 1
    assert score(dolma.dolma_repetitions(max_unit=7), [long])[0]["count"] == 0
    with pytest.raises(ValueError, match="max_unit is 0"):
        dolma.dolma_repetitions(max_unit=0)


def test_nulls_and_layouts():
    texts = ["the cat sat.\n- x…", None, ""]
    for step, _ in STEPS.values():
        plain = score(step, texts)
        assert plain[1] is None
        sliced = step(pa.record_batch({"text": pa.array(["junk", *texts]).slice(1)}))
        large = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
        assert next(iter(sliced.values())).to_pylist() == next(iter(large.values())).to_pylist() == plain


def test_random_numbers_hang_on_id_and_seed_alone():
    ids = [f"{i:04d}" for i in range(2000)]
    first = dolma.dolma_random_number()(pa.record_batch({"id": ids})).to_pylist()
    assert dolma.dolma_random_number()(pa.record_batch({"id": ids[::-1]})).to_pylist() == first[::-1]
    assert dolma.dolma_random_number(seed=2)(pa.record_batch({"id": ids})).to_pylist() != first
    assert all(0 <= x < 1 for x in first) and abs(sum(first) / 2000 - 0.5) < 0.03


STORIES = (
    "The keeper of the lighthouse wrote to his sister that a storm had taken most of the boats. Nobody in "
    "the village spoke for a long while; then somebody began to count the missing hulls, and others joined. "
    "By noon there was a list, and beside each name a mother had written where her son was last seen.",
    "Bread needs four things to rise: flour with some strength, water that is warm, salt, and time. Mix them "
    "in a wide bowl, cover it, and have patience. After two hours the dough will be soft and full of air. "
    "Fold it with wet hands, let it rest again, and bake in an oven as hot as yours can be made. Write to "
    "baker@example.net.",
)


def test_the_recipe_runs(tmp_path):
    import pyarrow.parquet as pq

    import baselines

    page, other = (
        f"<html><body><article><p>{text}</p><p>Share this</p></article></body>" for text in STORIES
    )
    rows = {
        "id": ["1", "2", "3", "4"],
        "url": ["http://a.example/1", "http://a.example/1", "http://a.example/2", "http://a.example/3"],
        "http_charset": ["utf-8"] * 4,
        "content_type": ["text/html"] * 4,
        "content": [text.encode() for text in (page, page + " ", page, other)],
    }
    pool = tmp_path / "pool.parquet"
    pq.write_table(pa.table({**rows, "content": pa.array(rows["content"], pa.binary())}), pool)
    plan = baselines.find("text/dolma").plan(pool=str(pool), out=str(tmp_path / "out"))
    result = c.run(plan, on="local", workers=1)
    table = pq.read_table(next((tmp_path / "out" / "data").glob("*.parquet")))
    reasons = {entry["reason"]: entry["rows"] for entry in result.report["reasons"]}
    assert reasons["dolma: duplicate url"] == 1 and reasons["dolma: duplicate page"] == 1
    assert table["id"].to_pylist() == ["1", "4"]
    assert "Share this" not in table["text"][0].as_py()
    assert "Write to  |||EMAIL_ADDRESS||| ." in table["text"][1].as_py()
