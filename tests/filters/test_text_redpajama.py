"""RedPajama-V2 signals: compiled against readable, and by hand."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.expressions import evaluate
from filters.text import normal_forms
from filters.text import redpajama as rp

_spec = importlib.util.spec_from_file_location(
    "oracle_signals", Path(__file__).with_name("oracle_signals.py")
)
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

BAD = ("darn", "Blast it", "a b a", "d'arn", "...", "crème", "한국")
SPACES = [" ", " ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\u2028", "\xa0"]
MARKS = [
    ".",
    "...",
    "..",
    "…",
    "!",
    "?",
    "”",
    '"',
    "#",
    "{",
    "}",
    "_",
    "'",
    "-",
    "–",
    "•",
    "▶",
    ",",
    "\x07",
    "\u200b",
]
WORDS = [
    "a",
    "b",
    "the",
    "The",
    "I",
    "USA",
    "lorem",
    "ipsum",
    "Lorem ipsum",
    "JavaScript",
    "javascript",
    "darn",
]
WORDS += ["blast it", "1", "2024", "½", "Ⅷ", "x1", "don't"]
FORMS = [
    "É",
    "e\u0301",
    "é",
    "e\u0323\u0301",
    "e\u0301\u0323",
    "ệ",
    "ǅ",
    "ﬁ",
    "İ",
    "ı",
    "ß",
    "ẞ",
    "Σ",
    "ΑΣ",
    "ς",
    "Ω",
]
FORMS += [
    "\u0301",
    "\u0345",
    "\u00ad",
    "ª",
    "中",
    "三",
    "한국",
    "\u1112\u1161\u11ab",
    "हिन्दी",
    "😀",
    "\ufeff",
    "crème",
]
TRICKY = st.sampled_from([*SPACES, *MARKS, *WORDS, *FORMS])
TEXT = st.one_of(
    st.lists(TRICKY, max_size=60).map("".join),
    st.lists(st.sampled_from([*WORDS, *FORMS]), max_size=60).map(" ".join),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=80).map(" ".join),
    st.text(max_size=60),
)


def score(texts, **options):
    step = rp.redpajama_signals(**options)
    step.setup()
    made = step(pa.record_batch({"text": pa.array(texts, pa.string())}))
    assert {name: array.type for name, array in made.items()} == step.outputs
    return made


def rows(made):
    names = list(made)
    return [
        dict(zip(names, row, strict=True)) for row in zip(*(made[n].to_pylist() for n in names), strict=True)
    ]


def agree(texts):
    got = rows(score(texts, lines=True, bad_words=BAD))
    for text, row in zip(texts, got, strict=True):
        wanted = oracle.redpajama(text, rp.STOP_WORDS, BAD)
        lines = oracle.redpajama_lines(text)
        wanted |= {f"{n}_mean": sum(v) / len(v) if v else None for n, v in lines.items()}
        for name, value in wanted.items():
            near = value if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)
            assert row[name] == near, (name, text)
        for name, values in lines.items():
            assert row[name] == pytest.approx(values, rel=1e-6), (name, text)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_signals_match_the_oracle(texts):
    agree(texts)


def test_every_code_point_alone_and_inside_a_word():
    assigned = [cp for cp in range(0x110000) if not 0xD800 <= cp <= 0xDFFF]
    if not normal_forms.TABLE.read_text(encoding="ascii").startswith(
        f"# Unicode {unicodedata.unidata_version};"
    ):
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}, the table another")
    for first in range(0, len(assigned), 20_000):
        part = assigned[first : first + 20_000]
        text = " ".join(f"{chr(cp)} a{chr(cp)}Σ" for cp in part)
        row = rows(score([text]))[0]
        words = oracle.normalise(text).split()
        raw = oracle.re.findall(r"\w+|[^\w\s]+", text)
        assert row["rps_doc_word_count"] == len(words)
        assert row["rps_doc_mean_word_length"] == pytest.approx(sum(map(len, words)) / len(words), rel=1e-14)
        assert row["rps_doc_frac_unique_words"] == pytest.approx(len(set(words)) / len(words), rel=1e-14)
        assert row["rps_doc_frac_all_caps_words"] == pytest.approx(
            sum(map(str.isupper, raw)) / len(raw), rel=1e-14
        )


LONG = "the quick brown fox jumps " * 3000
EDGES = [
    "",
    "\n",
    " ",
    "a",
    ".",
    "...",
    "…",
    "{",
    "\n\n\n",
    "\r\n\r\n",
    LONG,
    "x" * 50_000,
    "é" * 20_000,
    "\n" * 20_000,
]
EDGES += ["a\n" * 5000, "a " * 9000, "\u0301" * 500, "a" + "\u0323\u0301" * 300, "Σ" * 300, "3 14\n" * 50]
EDGES += [
    "lorem ipsumlorem ipsum",
    "xlorem ipsumx",
    "lorem\u0301 ipsum",
    "lore.m  \n IP'SUM",
    "lorem lorem ipsum",
]
EDGES += [
    "... .. . ...",
    "a.. .\nb...\nc… \nd....",
    "• a\n  – b\n- c",
    "¿Qué? ¡Sí! “Ja.”\nNo",
    "!?a!?b",
    ". a . b",
]


def test_edges():
    agree(EDGES)


def test_values_by_hand():
    text = 'The {cat} sat... ON the Mat!\n• 42 cats; JavaScript\n\nLorem   ipsum "dolor".\n'
    row = rows(score([text], lines=True, bad_words=("cat", "lorem ipsum dolor")))[0]
    # as written: The { cat } sat ... ON the Mat ! • 42 cats ; JavaScript Lorem ipsum " dolor ".
    # normalised: the cat sat on the mat | • 42 cats javascript | | lorem ipsum dolor
    assert row["rps_doc_word_count"] == 13
    assert row["rps_doc_mean_word_length"] == (17 + 17 + 15) / 13
    assert row["rps_doc_curly_bracket"] == 2 / len(text)
    assert row["rps_doc_symbol_to_word_ratio"] == 1 / 20
    assert row["rps_doc_frac_no_alph_words"] == 9 / 20 - 0 / 20
    assert row["rps_doc_frac_all_caps_words"] == 1 / 20
    assert row["rps_doc_stop_word_fraction"] == 1 / 20  # "the"; neither "The" nor "ON" is as written
    assert row["rps_doc_frac_unique_words"] == 12 / 13
    assert row["rps_doc_num_sentences"] == 3
    assert row["rps_doc_lorem_ipsum"] == 1 / (17 + 17 + 15 + 12)
    assert row["rps_doc_ldnoobw_words"] == 2
    assert row["rps_doc_frac_lines_end_with_ellipsis"] == 0
    assert row["rps_lines_ending_with_terminal_punctution_mark"] == [1, 0, 0, 1]
    assert row["rps_lines_javascript_counts"] == [0, 1, 0, 0]
    assert row["rps_lines_num_words"] == [6, 4, 0, 3]
    assert row["rps_lines_start_with_bulletpoint"] == [0, 1, 0, 0]
    assert row["rps_lines_numerical_chars_fraction"] == pytest.approx([0, 2 / 20, 0, 0])
    assert row["ccnet_nlines"] == 5 and row["ccnet_length"] == len(text)


def test_nulls_layouts_and_batches_change_nothing():
    texts = ["One two.\n• Three", None, "", "four 4\n"]
    whole = rows(score(texts, lines=True))
    assert set(whole[1].values()) == {None}
    assert whole[2]["rps_doc_word_count"] == 0 and whole[2]["rps_doc_mean_word_length"] is None
    assert whole[2]["rps_lines_num_words"] == [] and whole[2]["rps_doc_lorem_ipsum"] == 0
    step = rp.redpajama_signals(lines=True)
    for column in (
        pa.array(texts, pa.large_string()),
        pa.array(texts).dictionary_encode(),
        pa.array(["junk\n", *texts, "junk"]).slice(1, 4),
    ):
        assert rows(step(pa.record_batch({"text": column}))) == whole
    for text, row in zip(texts, whole, strict=True):
        assert rows(score([text], lines=True)) == [row]
    assert score([])["rps_doc_word_count"].to_pylist() == []
    broken = pa.array([b"\xff\xfe the", b"caf\xc3", b"\xf0\x9f\x98"])
    assert step(pa.record_batch({"text": broken}))["ccnet_length"].to_pylist() == [6, 4, 3]


def test_published_names():
    names = {*rp.DOCUMENT, *rp.LINES, *rp.Ut1Blacklist.outputs, rp.ccnet_language_score.name}
    doc = {name for name in names if name.startswith("rps_doc_")}
    assert len(doc) == 23 and len(rp.LINES) == 6 and len(names) == 32
    assert "rps_lines_ending_with_terminal_punctution_mark" in names  # spelt as published


def test_bad_words_and_stop_words_come_from_files_too(tmp_path):
    listed = tmp_path / "bad.txt"
    listed.write_text("Darn!\n\nblast it\n...\n", encoding="utf-8")
    texts = ["darn DARN d.a.r.n darned", "blast\nIT, blast", ""]
    assert score(texts, bad_words=str(listed))["rps_doc_ldnoobw_words"].to_pylist() == [3, 1, 0]
    assert score(texts, bad_words=())["rps_doc_ldnoobw_words"].to_pylist() == [0, 0, 0]
    assert score(texts)["rps_doc_ldnoobw_words"].to_pylist() == [None, None, None]
    stops = score(["darn it. It"], stop_words=("it",))["rps_doc_stop_word_fraction"].to_pylist()
    assert stops == [1 / 4]
    with pytest.raises(FileNotFoundError, match=r"bad_words: 'nowhere.txt' is no file"):
        score(["a"], bad_words="nowhere.txt")
    with pytest.raises(ValueError, match="has 65 words; 64 are the most"):
        score(["a"], bad_words=("a " * 65,))
    before = rp.redpajama_signals(bad_words=str(listed)).identity
    listed.write_text("other\n", encoding="utf-8")
    assert rp.redpajama_signals(bad_words=str(listed)).identity != before


def kept(rules, **columns):
    batch = pa.record_batch({name: [value] for name, value in columns.items()})
    return [rule.reason for rule in rules if not evaluate(rule.where, batch)[0]]


GOOD = {
    "rps_doc_word_count": 50,
    "rps_doc_mean_word_length": 3.0,
    "rps_doc_symbol_to_word_ratio": 0.1,
    "rps_lines_start_with_bulletpoint_mean": 0.9,
    "rps_doc_frac_lines_end_with_ellipsis": 0.3,
    "rps_doc_frac_no_alph_words": 0.2,
    "rps_doc_frac_chars_top_2gram": 0.20,
    "rps_doc_frac_chars_top_3gram": 0.18,
    "rps_doc_frac_chars_top_4gram": 0.16,
    **{f"rps_doc_frac_chars_dupe_{n}grams": (20 - n) / 100 for n in range(5, 11)},
    "rps_doc_lorem_ipsum": 0.0,
    "rps_doc_curly_bracket": 0.0,
    "rps_doc_num_sentences": 5,
    "rps_doc_ldnoobw_words": 0,
}


def test_rules_at_and_past_each_bound():
    rules = [*rp.redpajama_gopher_rules(), *rp.redpajama_c4_rules(bad_words=True)]
    assert kept(rules, **GOOD) == []
    assert kept(rules, **{**GOOD, "rps_doc_word_count": 10_000, "rps_doc_mean_word_length": 10.0}) == []
    lower = {"rps_doc_word_count", "rps_doc_mean_word_length", "rps_doc_num_sentences"}
    reasons = set()
    for name, value in GOOD.items():
        step = 1 if isinstance(value, int) else 1e-9
        gone = kept(rules, **{**GOOD, name: value - step if name in lower else value + step})
        assert len(gone) == 1, name
        reasons |= set(gone)
    for name, value in {"rps_doc_word_count": 10_001, "rps_doc_mean_word_length": 10 + 1e-9}.items():
        reasons |= set(kept(rules, **{**GOOD, name: value}))
    assert reasons == {rule.reason for rule in rules}
    assert kept(rp.redpajama_rules(), **{**GOOD, "rps_doc_num_sentences": 4}) == [
        "redpajama: too few sentences"
    ]


def test_ut1_hosts(tmp_path):
    for category, hosts in {"adult": "a.example\nB.example\n", "games": "b.example\n# c.example\n"}.items():
        (tmp_path / "ut1" / category).mkdir(parents=True)
        (tmp_path / "ut1" / category / "domains").write_text(hosts)
    urls = ["http://a.example/x", "https://me@B.example:80/", "http://www.a.example/", "junk", None]
    step = rp.ut1_blacklist(str(tmp_path / "ut1"))
    step.setup()
    assert step(pa.record_batch({"url": urls})).to_pylist() == [0, 1, None, None, None]
    made = tmp_path / "map.json"
    made.write_text(json.dumps({"a.example": 7}))
    step = rp.ut1_blacklist(str(made))
    step.setup()
    assert step(pa.record_batch({"url": urls})).to_pylist() == [7, None, None, None, None]
    with pytest.raises(FileNotFoundError, match="has no <category>/domains"):
        rp.ut1_blacklist(str(tmp_path / "none")).setup()


def test_ccnet_normal_form():
    assert rp.ccnet_normalize(" Él dijo: «42 ¡Sí!»… ") == 'el dijo: "00 ¡si!"...'
    assert rp.ccnet_normalize("one\ntwo\tthree") == "onetwothree"  # as CCNet does
    assert rp.ccnet_normalize("１２（ａ）—b") == "00(ａ) - b"


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.30103
-0.60206\t</s>
-1.0\t<unk>
-0.30103\tthe\t-0.30103
-0.90309\tcat

\\2-grams:
-0.1\t<s> the
-0.2\tthe cat

\\end\\
"""


def test_perplexity_of_a_small_model(tmp_path):
    pytest.importorskip("kenlm", reason="the package kenlm is not installed")
    (tmp_path / "small.arpa").write_text(ARPA)
    step = rp.ccnet_perplexity(str(tmp_path / "small.arpa"))
    step.setup()
    got = step(pa.record_batch({"text": ["The cat", "", None, "the", " \n"]})).to_pylist()
    # <s> the: .1, the cat: .2, </s> after cat: .60206; over three tokens
    assert got[0] == pytest.approx(10 ** (0.90206 / 3), rel=1e-5)
    assert got[1:3] == [None, None] and got[4] is None
    # </s> after "the" backs off: .30103 + .60206
    assert got[3] == pytest.approx(10 ** ((0.1 + 0.90309) / 2), rel=1e-5)
    with pytest.raises(FileNotFoundError, match="model 'none' is not a file"):
        rp.ccnet_perplexity("none").setup()


def test_perplexity_over_sentence_pieces(tmp_path):
    pytest.importorskip("kenlm", reason="the package kenlm is not installed")
    library = pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 50)
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sp"), vocab_size=16, model_type="char"
    )
    (tmp_path / "small.arpa").write_text(ARPA)
    step = rp.ccnet_perplexity(str(tmp_path / "small.arpa"), str(tmp_path / "sp.model"))
    step.setup()
    got = step(pa.record_batch({"text": ["cat"]})).to_pylist()
    # four pieces that the model does not know, ▁ c a t, the first after a back-off; then </s>
    assert got == [pytest.approx(10 ** ((0.30103 + 4 * 1.0 + 0.60206) / 5), rel=1e-5)]


def test_a_run_keeps_every_row_and_every_signal(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a", "b"], "text": ["One two three.", ""]}), tmp_path / "in.parquet")
    out = tmp_path / "out"
    c.run(
        [c.read(tmp_path / "in.parquet"), rp.redpajama_signals(lines=True), c.write(out)],
        on="local",
        workers=1,
    )
    table = pq.read_table(next((out / "data").glob("*.parquet")))
    assert table["id"].to_pylist() == ["a", "b"]
    assert table["rps_doc_word_count"].to_pylist() == [3, 0]
    assert table["rps_lines_num_words"].to_pylist() == [[3.0], []]
