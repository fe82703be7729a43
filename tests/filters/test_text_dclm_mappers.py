"""DCLM's mappers: each rule at, below and above its threshold; the compiled measures against plain Python."""

from __future__ import annotations

import json
import math
import re
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.apply import apply_step, ready, verdict
from curation.plan import flatten
from filters.text.dclm import (
    code,
    mappers,
    mappers_dedup,
    mappers_kernels,
    mappers_lines,
    mappers_models,
    pages,
)
from filters.text.dclm.mappers_aggregate import histogram, percentiles, threshold_transform
from filters.text.dclm.mappers_sentences import count_sentences, split_sentences


def run(steps, rows):
    """Rows (dicts, or texts) through steps: the rows that stay, errors raised."""
    rows = [{"text": row} if isinstance(row, str) or row is None else row for row in rows]
    batch = pa.RecordBatch.from_pylist([{"id": str(n), **row} for n, row in enumerate(rows)])
    for step in flatten([steps]):
        if step.kind == "keep":
            kept, errors = verdict(step, batch)
            batch = batch.filter(pa.array(np.asarray(kept)))
        else:
            outcome = apply_step(ready(step), batch)
            batch, errors = outcome.batch, outcome.errors
        assert not errors, errors[0].error
    return batch.to_pylist()


def kept(steps, rows):
    """Which of the rows stay, by their place."""
    return [int(row["id"]) for row in run(steps, rows)]


def texts(steps, rows):
    return [row["text"] for row in run(steps, rows)]


# -------------------------------------------------------------------------------------------------- oracle


def measured(text: str) -> dict:
    lines = text.splitlines()
    words, tokens = text.split(), [t for t in re.split("[ \n\r\t\v\f\0]", text) if t]
    return {
        "n_chars": len(text),
        "n_alnum": sum(ch.isalnum() for ch in text),
        "n_alpha": sum(ch.isalpha() for ch in text),
        "n_newlines": text.count("\n"),
        "n_lines": len(lines),
        "longest_line": max(map(len, lines), default=0),
        "line_chars": sum(map(len, lines)),
        "n_words": len(words),
        "n_alnum_words": sum(w[0].isalnum() for w in words),
        "longest_word": max(map(len, words), default=0),
        "n_tokens": len(tokens),
        "n_alnum_tokens": sum(t[0].isalnum() for t in tokens),
        "n_space_tokens": sum(t[0].isspace() for t in tokens),
        "n_solid_tokens": sum(bool(t.strip()) for t in tokens),
        "longest_token": max(map(len, tokens), default=0),
    }


TRICKY = st.sampled_from(
    ["\n", "\n\n", "\r\n", "\r", " ", "\t", "\v", "\x1c", "\x85", "\u2028", "\xa0", "\0", "a", "Z", "7", "²",
     "Ⅷ", "é", "e\u0301", "中", "。", "！", ".", "...", "…", "!", "?", '"', "'", ")", "»", "’", "- ",
     "Mr. Fox", "J. ", "e.g. this", "The end. Next", "😀", "\u3000", "_"]
)  # fmt: skip
TEXT = st.one_of(st.lists(TRICKY, max_size=40).map("".join), st.text(max_size=40))


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_measures_match_plain_python(pages_):
    found = mappers.measures(pa.array(pages_, pa.string()))
    assert set(found) == set(mappers_kernels.MEASURES)
    for row, text in enumerate(pages_):
        assert {name: int(values[row]) for name, values in found.items()} == measured(text), repr(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from(["\n", "\n\n", ". "]))
def test_segments_match_plain_python(pages_, separator):
    column = pa.array(pages_, pa.string())
    solid = [sum(bool(part.strip()) for part in text.split(separator)) for text in pages_]
    assert mappers.segment_counts(column, separator).tolist() == solid
    every = [len(text.split(separator)) for text in pages_]
    assert mappers.segment_counts(column, separator, remove_empty=False).tolist() == every


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_sentences_match_plain_python(pages_):
    assert count_sentences(pa.array(pages_, pa.string())).tolist() == [
        len(split_sentences(t)) for t in pages_
    ]


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_fasttext_words_are_those_of_fasttext(text):
    fasttext = pytest.importorskip("fasttext", reason="fasttext is not installed")
    text = text.replace("\0", " ")  # a C string ends there
    tokens = fasttext.FastText.tokenize(text)
    column = pa.array([text], pa.string())
    for punctuation, blanks in ((True, True), (True, False), (False, True), (False, False)):
        if punctuation:
            words = [t for t in tokens if t[0].isalnum() or (not blanks and t[0].isspace())]
        else:
            words = [t for t in tokens if not blanks or t.strip()]
        count = mappers.word_counts(column, "fasttext", punctuation, blanks, compat="dclm")
        assert count.tolist() == [len(words)], (text, punctuation, blanks)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text("aBİIıΣσς ßẞÉK", max_size=8), st.text(max_size=8)), max_size=5))
def test_lower_case_is_python_s(values):
    column = pa.array(values, pa.string())
    assert mappers.lower(column).to_pylist() == [None if v is None else v.lower() for v in values]


def test_every_code_point_is_alphanumeric_as_in_python():
    import unicodedata

    from filters.text import codepoints

    made_with = codepoints.TABLE.read_text(encoding="ascii").split("\n", 1)[0]
    if f"Unicode {unicodedata.unidata_version};" not in made_with:
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}; the table says: {made_with}")
    chars = [chr(cp) for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]
    found = mappers.measures(pa.array(chars, pa.string()))
    assert [chars[i] for i in np.flatnonzero(found["n_alnum"] != [ch.isalnum() for ch in chars])] == []
    assert [chars[i] for i in np.flatnonzero(found["n_alpha"] != [ch.isalpha() for ch in chars])] == []


# ------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    ("unit", "pages_"),
    [
        ("char", ["", "a", "éé", "ééé", "éééé", "ééééé"]),
        ("word", ["", "a", "a b", "a b\nc", "a b c d", "a b c d e"]),
        ("sentence", ["", "A.", "A b. C d.", "A b. C! D?", "A. B. C. D e. F", "A b. C d. E f. G h. I j."]),
        ("line", ["", "a", "a\nb\n", "a\n \nb\nc", "a\nb\nc\nd", "a\nb\nc\nd\ne"]),
        ("paragraph", ["", "a", "a\n\nb", "a\n\nb\n\n\n\nc\nc", "a\n\nb\n\nc\n\nd", "a\n\nb\n\nc\n\nd\n\ne"]),
    ],
)
def test_page_length_is_inclusive_at_both_ends(unit, pages_):
    lengths = [row["page_length_filter"] for row in run([mappers.PageLength(unit)], pages_)]
    wanted = [0, 1, 2, 3, 4, 5]
    if unit == "sentence":
        wanted = [0, 1, 2, 3, 2, 5]  # single capitals are initials
    assert lengths == wanted
    assert kept(mappers.scored_page_length_filter(unit, 2, 4), pages_) == [2, 3, 4]
    assert kept(mappers.scored_page_length_filter(unit), pages_) == [1, 2, 3, 4, 5]  # one at least
    assert kept(mappers.scored_page_length_filter(unit, 0), [*pages_, None]) == [0, 1, 2, 3, 4, 5]


def test_words_of_each_model():
    def words(text, **options):
        options = {"model": "fasttext", "ignore_punctuation": False} | options
        (row,) = run([mappers.PageLength("word", column="n", **options)], [text])
        return row["n"]

    text = "don't — stop\u00a0it, now\n- 3.14 *bold*"
    assert words(text, model="split") == 8
    assert words(text, model="split", ignore_punctuation=True) == 5  # don't stop it, now 3.14
    assert words(text) == 7  # no-break space does not part
    assert words(text, ignore_punctuation=True) == 4
    assert words(text, compat="dclm") == 8  # the newline is a token there
    assert words(text, compat="dclm", ignore_punctuation=True) == 4
    assert words(text, model="uniseg", ignore_punctuation=True) == 6  # don't stop it now 3.14 bold
    with pytest.raises(c.PlanError, match="without punctuation"):
        mappers.scored_page_length_filter("word", model="uniseg")


def test_sentences_by_hand():
    assert split_sentences('He said "Go!" and left. Mr. J. Smith, e.g. him, came... Then?\nYes. no') == [
        'He said "Go!"',
        "and left.",
        "Mr.",
        "J. Smith, e.g. him, came...",
        "Then?",
        "Yes. no",
    ]
    assert split_sentences("你好。再见！ 谁") == ["你好。", "再见！", "谁"]
    assert split_sentences("one line\nanother line") == ["one line\nanother line"]
    assert split_sentences("... . !") == []


def test_sentences_by_a_package_that_is_missing_or_there(monkeypatch):
    import importlib.util

    if importlib.util.find_spec("blingfire") is None:
        with pytest.raises(c.PlanError, match="blingfire, which is not installed"):
            mappers.scored_page_length_filter("sentence", 3, compat="dclm")
    fake = types.ModuleType("blingfire")
    fake.__spec__ = importlib.util.spec_from_loader("blingfire", None)
    fake.text_to_sentences_and_offsets = lambda text: (
        "",
        [(m.start(), m.end()) for m in re.finditer("[^|]+", text)],
    )
    monkeypatch.setitem(sys.modules, "blingfire", fake)
    assert kept(
        mappers.scored_page_length_filter("sentence", 3, compat="dclm"), ["a|b", "a|b|c", "a|b| "]
    ) == [1]


@pytest.mark.parametrize("name", ["length_type", "model", "tokenizer"])
def test_unknown_units_name_the_nearest(name):
    with pytest.raises(c.PlanError, match="did you mean"):
        mappers.scored_page_length_filter(
            **{
                "length_type": "word",
                name: {"length_type": "words", "model": "fastext", "tokenizer": "nltkk"}[name],
            }
        )


def test_line_length():
    pages_ = ["a" * 10 + "\nb", "a" * 11, "", "a\r\nbb\u2028" + "c" * 10, "\n"]
    assert kept(mappers.line_length_filter("max", 10), pages_) == [0, 3, 4]
    pages_ = ["aa\nbbbb", "aa\nbbbbb", "a\n\n\n", ""]  # means 3, 3.5, 1/3
    assert kept(mappers.line_length_filter("avg", 3), pages_) == [0, 2]
    with pytest.raises(c.PlanError, match="max, avg"):
        mappers.line_length_filter("mean")


def test_alphanumeric_ratio_is_a_minimum():
    pages_ = ["a...", "a....", "ab..", "", "²!!!"]
    assert kept(mappers.alphanumeric_char_ratio_filter(), pages_) == [0, 2, 4]
    assert kept(mappers.alphanumeric_char_ratio_filter(0.5), pages_) == [2]
    assert kept(mappers.alphanumeric_char_ratio_filter(max_alnum_ratio=0.5, compat="dclm"), pages_) == [2]
    with pytest.raises(c.PlanError, match="acts as a minimum: say min_alnum_ratio"):
        mappers.alphanumeric_char_ratio_filter(max_alnum_ratio=0.5)


# ---------------------------------------------------------------------------------------------- substrings


def test_substrings_anywhere():
    pages_ = ["Lorem IPSUM dolor", "lorem  ipsum", "nothing", "{", ""]
    assert kept(mappers.substring_filter("lorem ipsum"), pages_) == [1, 2, 3, 4]
    assert kept(mappers.substring_filter("lorem ipsum", case_sensitive=True), pages_) == [0, 1, 2, 3, 4]
    assert kept(mappers.substring_filter(["{", "nothing"]), pages_) == [0, 1, 4]
    assert kept(mappers.substring_filter([]), [*pages_, None]) == [0, 1, 2, 3, 4]


def test_substrings_as_words_and_at_the_ends():
    pages_ = ["the hell", "shell", "hell's", "hello", "x hell_"]
    assert kept(mappers.substring_filter("hell", exact_word=True), pages_) == [1, 3, 4]
    ends = ["ad: x", "x ad:", "Ad:", "x ad:\n", "x ad: "]
    assert kept(mappers.substring_filter("ad:", location="prefix"), ends) == [1, 3, 4]
    assert kept(mappers.substring_filter("ad:", location="suffix"), ends) == [0, 4]
    word = ["ad x", "adx", "x ad", "bad"]
    assert kept(mappers.substring_filter("ad", location="prefix", exact_word=True), word) == [1, 2, 3]
    assert kept(mappers.substring_filter("ad", location="suffix", exact_word=True), word) == [0, 1, 3]
    with pytest.raises(c.PlanError, match="any, prefix, suffix"):
        mappers.substring_filter("a", location="middle")


def test_a_list_is_text_and_for_dclm_a_pattern(tmp_path):
    pages_ = ["Read more...", "Read more!!!", "a|b", "b"]
    assert kept(mappers.substring_filter("read more..."), pages_) == [1, 2, 3]
    assert kept(mappers.substring_filter("read more...", compat="dclm"), pages_) == [2, 3]
    assert kept(mappers.substring_filter("a|b", compat="dclm"), pages_) == []
    assert kept(mappers.substring_filter("{", compat="dclm"), ["a{", "a"]) == [1]  # '{' alone is itself
    assert not mappers.Substrings(("{", "lorem ipsum"), compat="dclm").patterned
    with pytest.raises(c.PlanError, match="no regular expression"):
        mappers.substring_filter("(", compat="dclm")
    file = tmp_path / "list.txt"
    file.write_text("Foo\n\nbar\nfoo bar\n")
    assert kept(mappers.substring_filter("b", banlist_from_fname=file), ["a foo", "b", "FOOBAR"]) == [1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abAB {", min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.text("abAB {\n_", max_size=12), min_size=1, max_size=6),
    st.sampled_from(["any", "prefix", "suffix"]),
    st.booleans(),
)
def test_substrings_match_python_in(entries, pages_, location, case_sensitive):
    fold = (lambda t: t) if case_sensitive else str.lower
    test = {
        "any": lambda t, e: e in t,
        "prefix": lambda t, e: t.startswith(e),
        "suffix": lambda t, e: t.endswith(e) or t.endswith(e + "\n"),
    }[location]
    wanted = [i for i, t in enumerate(pages_) if not any(test(fold(t), fold(e)) for e in entries)]
    for compat in (None, "dclm"):
        rules = mappers.substring_filter(entries, None, location, case_sensitive, compat=compat)
        assert kept(rules, pages_) == wanted


def urls(*values):
    return [{"url": value} for value in values]


def test_url_domains():
    rows = urls(
        "http://www.bad.com/x",
        "https://bad.com",
        "http://sub.bad.com",
        "http://u@bad.com:80/",
        "//BAD.com",
        None,
    )
    rule = {"banlist": ["bad.com"], "exact_domain_match": True, "ignore_chars": ["www"]}
    assert kept(mappers.url_substring_filter(**rule), rows) == [2, 5]
    # there 'www' leaves '.bad.com', and user and port stay
    assert kept(mappers.url_substring_filter(**rule, compat="dclm"), rows) == [0, 2, 3, 5]


def test_url_substrings():
    rows = urls(
        "http://free-spins.com", "http://f.r.e.e.com/SPINS", "http://ok.com/essex", "http://ok.com/a_sex_b"
    )
    strict = {"banlist": ["freespins"], "ignore_chars": ["-", "."]}
    assert kept(mappers.url_substring_filter(**strict), rows) == [1, 2, 3]
    assert kept(mappers.url_substring_filter(**strict, compat="dclm"), rows) == [1, 2, 3]
    dashed = {"banlist": ["free-spins"], "ignore_chars": ["-", "."]}
    assert kept(mappers.url_substring_filter(**dashed), rows) == [1, 2, 3]
    assert kept(mappers.url_substring_filter(**dashed, compat="dclm"), rows) == [0, 1, 2, 3]
    assert kept(mappers.url_substring_filter("sex"), rows) == [0, 1]
    assert kept(mappers.url_substring_filter("spins", case_sensitive=True), rows) == [1, 2, 3]


@pytest.mark.parametrize("compat", [None, "dclm"])
def test_url_words_and_how_many(compat):
    rows = urls(
        "a.com/web-cam", "a.com/webcam-bet", "a.com/bet/bet", "a.com/webcams/bet2", "a.com/Bet/WEBCAM/x"
    )
    rule = {"banlist": ["webcam", "bet"], "match_substrings": False, "compat": compat}
    assert kept(mappers.url_substring_filter(**rule, num_banned_substrs=2), rows) == [0, 2, 3]
    assert kept(mappers.url_substring_filter(**rule), rows) == [0, 3]


def test_overlapping_url_words_count_each_and_for_dclm_once():
    rows = urls("a.com/abcd")
    rule = {"banlist": ["abc", "bcd"], "num_banned_substrs": 2}
    assert kept(mappers.url_substring_filter(**rule), rows) == []
    assert kept(mappers.url_substring_filter(**rule, compat="dclm"), rows) == [0]


def test_url_lists_that_cannot_be(tmp_path):
    with pytest.raises(c.PlanError, match="runs code when read"):
        mappers.url_substring_filter(banlist_from_fname="list.pkl")
    with pytest.raises(c.PlanError, match="no file"):
        mappers.url_substring_filter(banlist_from_fname=tmp_path / "none.txt")
    with pytest.raises(c.PlanError, match="needs banlist"):
        mappers.url_substring_filter()
    with pytest.raises(c.PlanError, match="quote it in the YAML"):
        mappers.url_substring_filter([False])
    with pytest.raises(c.PlanError, match="drop every page"):
        mappers.url_substring_filter("a", num_banned_substrs=0)


# ------------------------------------------------------------------------------------- sampling, thresholds


def test_sampling_depends_on_the_id_alone():
    rows = [{"id": f"row-{n}"} for n in range(2000)]
    chosen = [row["id"] for row in run(mappers.random_sampling_filter(0.25), rows)]
    assert 430 < len(chosen) < 570
    assert chosen == [row["id"] for row in run(mappers.random_sampling_filter(0.25), rows)]
    half = [row["id"] for row in run(mappers.random_sampling_filter(0.25), rows[::2])]
    assert half == [i for i in chosen if int(i[4:]) % 2 == 0]
    other = [row["id"] for row in run(mappers.random_sampling_filter(0.25, seed=1), rows)]
    assert 0.15 < len(set(chosen) & set(other)) / len(chosen) < 0.35
    assert len(run(mappers.random_sampling_filter(1), rows)) == 2000
    assert run(mappers.random_sampling_filter(0), rows) == []
    with pytest.raises(c.PlanError, match="between 0 and 1"):
        mappers.random_sampling_filter(10)


def test_quality_filter_is_inclusive():
    rows = [{"q": 0.5}, {"q": 0.49}, {"q": 0.51}, {"q": None}]
    assert kept(mappers.quality_filter("q", 0.5), rows) == [0, 2]
    assert kept(mappers.quality_filter("q", 0.5, lower_better=True), rows) == [0, 1]
    assert kept(mappers.quality_filter("q", 0.5, key_must_exist=False), rows) == [0, 2]


@pytest.mark.parametrize("shape", ["json", "list", "map"])
def test_language_filter(shape):
    found = [{"en": 0.65}, {"en": 0.66}, {"fr": 0.9, "en": 0.1}, {}, None, {"de": 0.7}]
    if shape == "json":
        column = pa.array([None if f is None else json.dumps(f) for f in found])
    elif shape == "list":
        column = pa.array(
            [None if f is None else [{"language": k, "probability": v} for k, v in f.items()] for f in found],
            mappers_models.LANGUAGES_TYPE,
        )
    else:
        column = pa.array(
            [None if f is None else list(f.items()) for f in found], pa.map_(pa.string(), pa.float64())
        )
    batch = pa.record_batch({"id": list("012345"), "lid": column})

    def kept_ids(**options):
        score, keep = mappers_models.language_filter(["en", "de"], "lid", **options)
        scored = apply_step(score, batch).batch
        return np.flatnonzero(verdict(keep, scored)[0]).tolist()

    assert kept_ids(threshold=0.65) == [0, 1, 5]
    assert kept_ids(threshold=0.65, compat="dclm") == [1, 5]
    assert kept_ids() == [0, 1, 2, 5]
    for wrong in ("en", [False]):
        with pytest.raises(c.PlanError, match="no list of codes"):
            mappers_models.language_filter(wrong)


def test_languages_of_page_and_sentences():
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    english = "The keeper of the lighthouse wrote to his sister about the storm and the boats of the village."
    french = "Le gardien du phare a écrit à sa sœur au sujet de la tempête et des bateaux du village."
    step = mappers_models.detect_lang_whole_page_enricher("fasttext")
    rows = run([step], [english, french, " ?! ", None])
    found = [row["language_id_whole_page_fasttext"] for row in rows]
    assert found[0][0]["language"] == "en" and found[0][0]["probability"] > 0.8
    assert found[1][0]["language"] == "fr" and found[2:] == [[], None]
    step = mappers_models.detect_lang_paragraph_enricher("fasttext")
    (row,) = run([step], [f"{english} {english}\n{french}"])
    first, second = row["language_id_paragraph_fasttext"]
    assert (first["language"], first["number_of_sentences"]) == ("en", 2)
    assert (second["language"], second["number_of_sentences"]) == ("fr", 1)
    glued = "the\n" * 30
    lines = [mappers_models.detect_lang_whole_page_enricher("fasttext", compat=how) for how in (None, "dclm")]
    mended, as_is = (run([s], [glued])[0]["language_id_whole_page_fasttext"] for s in lines)
    assert mended != as_is  # there the lines are one word
    with pytest.raises(c.PlanError, match="a seed means nothing"):
        mappers_models.detect_lang_whole_page_enricher("fasttext", seed=1)
    with pytest.raises(c.PlanError, match="did you mean 'fasttext'"):
        mappers_models.detect_lang_whole_page_enricher("fastext")


def test_optional_packages_are_asked_for_before_anything_runs(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    for make, package in (
        (lambda: mappers_models.detect_lang_whole_page_enricher("langdetect"), "langdetect"),
        (lambda: mappers_models.detect_lang_paragraph_enricher("fasttext", "nltk"), "nltk"),
        (mappers_models.ken_lm_perplexity_enricher, "kenlm"),
        (code.alphabetic_characters_to_tokens_filter, "tokenizers"),
        (lambda: mappers_dedup.exact_dedup(normalize="ccnet_dedup_normalizer"), "unidecode"),
    ):
        with pytest.raises(c.PlanError, match=package):
            make()


def test_perplexity_with_the_model_s_own_arithmetic():
    step = mappers_models.Perplexity("m", "t")
    object.__setattr__(step, "_pieces", types.SimpleNamespace(encode_as_pieces=lambda line: list(line)))
    seen = []
    model = types.SimpleNamespace(score=lambda line: seen.append(line) or -float(len(line.split()) + 1) * 2)
    object.__setattr__(step, "_model", model)
    batch = pa.record_batch({"text": pa.array([" a1«b»\n—", None])})
    assert step(batch).to_pylist() == [100.0, None]
    assert seen == ['a 0 " b "   -  ']


def test_hq_probability(tmp_path):
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    from fasttext import FastText

    file = tmp_path / "train.txt"
    good, bad = "river stone light paper", "casino bonus click buy"
    file.write_text(f"__label__hq {good}\n__label__cc {bad}\n" * 50)
    model = FastText.train_supervised(
        str(file), epoch=20, lr=0.5, dim=4, minCount=1, thread=1, verbose=0, seed=1
    )
    model.save_model(str(tmp_path / "m.bin"))
    step = mappers_models.classify_fasttext_hq_prob_enricher(str(tmp_path / "m.bin"), key="q")
    high, low, blank = (row["q"] for row in run([step], [f" river\nstone\n{good}", bad, " "]))
    assert high > 0.9 and low < 0.1 and blank is None


# -------------------------------------------------------------------------------------------------- counters


def test_counters_and_overwriting():
    steps = [mappers.line_counter_enricher(), mappers.word_counter_enricher()]
    (row,) = run(steps, ["Hello - there\n\nand all\n"])
    assert (row["num_lines"], row["word_count"]) == (2, 4)
    (row,) = run([mappers.line_counter_enricher("\n\n", False, key="n")], ["a\n\nb\n\n"])
    assert row["n"] == 3
    again = mappers.word_counter_enricher(overwrite=True, ignore_punctuation=False, model="split")
    (row,) = run([mappers.word_counter_enricher(), again], ["Hello - there"])
    assert row["word_count"] == 3 and again.kind == "transform"
    with pytest.raises(c.PlanError, match="plain string"):
        mappers.line_counter_enricher(r"\s+")


# ---------------------------------------------------------------------------------------------------- lines


def test_punctuation_lines():
    text = 'A.\nb\nc!  \n\nd?\n"e"\nf...\ng…\nh,\ni\u2019\nj.\u00a0'
    assert texts(mappers_lines.punctuation_line_modifier(), [text]) == [
        'A.\nc!  \n\nd?\n"e"\nf...\ng…\nj.\u00a0'
    ]
    strict = mappers_lines.punctuation_line_modifier(remove_ellipses=True)
    assert texts(strict, [text]) == ['A.\nc!  \n\nd?\n"e"\nj.\u00a0']
    assert kept(strict, ["no mark", "a.", None, "", "\n"]) == [1, 4]


def test_word_length_lines():
    pages_ = ["aaaa b\nbbbbb\n", "bbbbb", "a\u00a0bbb"]
    assert texts(mappers_lines.word_length_modifier(4, "split"), pages_) == ["aaaa b\n", "a\u00a0bbb"]
    assert texts(mappers_lines.word_length_modifier(4), pages_) == ["aaaa b\n"]
    assert texts(mappers_lines.word_length_modifier(), ["a" * 1000 + "\n" + "b" * 1001]) == ["a" * 1000]
    with pytest.raises(c.PlanError, match="not measured"):
        mappers_lines.word_length_modifier(model="uniseg")


def test_citations():
    text = "Fact[1], fact[], [edit]so[citation needed] [12a] [Edit] [٣]"
    assert texts(mappers_lines.citation_removal_modifier(), [text, "[1]"]) == ["Fact, fact, so [12a] [Edit] "]


def test_repeats_within_a_page():
    text = "a\nB\n\nb \n\nA\na\nc"
    assert texts(mappers_lines.within_page_dedup(), [text, None]) == ["a\nB\n\n\nc", None]
    assert texts(mappers_lines.within_page_dedup(normalize=False), [text]) == ["a\nB\n\nb \n\nA\nc"]
    text = "a\nb\n\nc\n\nA\nb\n\nc"
    assert texts(mappers_lines.within_page_dedup("paragraph"), [text]) == ["a\nb\n\nc"]
    with pytest.raises(c.PlanError, match="line, paragraph"):
        mappers_lines.within_page_dedup("word")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("aB \n", max_size=20), min_size=1, max_size=5), st.booleans())
def test_repeats_within_a_page_match_plain_python(pages_, normalize):
    def oracle(text):
        seen, out = set(), []
        for line in text.split("\n"):
            key = line.strip().lower() if normalize else line
            if not key or key not in seen:
                out.append(line)
            seen.add(key)
        return "\n".join(out)

    assert texts(mappers_lines.within_page_dedup("line", normalize), pages_) == [oracle(t) for t in pages_]


def test_split_and_join():
    split, join = mappers_lines.split_lines_modifier(), mappers_lines.join_lines_modifier("|")
    assert texts(split, ["a\n\nb", "", "c"]) == [["a", "", "b"], ["c"]]
    assert texts([split, split, join, join], ["a\n\nb", "", "c"]) == ["a||b", "c"]
    empty = [{"text": ["a"]}, {"text": []}]
    assert kept(join, empty) == [0]


# ---------------------------------------------------------------------------------------------- pages, keys


def test_url_from_metadata():
    rows = [{"metadata": json.dumps({"WARC-Target-URI": "http://a.org/"})}]
    assert run(pages.move_url_modifier(), rows)[0]["url"] == "http://a.org/"
    assert run(pages.move_url_modifier(), [{"url": "x"}]) == [{"id": "0", "url": "x"}]
    outcome = apply_step(
        pages.move_url_modifier(), pa.RecordBatch.from_pylist([{"id": "0", "metadata": "{}"}])
    )
    assert "no WARC-Target-URI" in outcome.errors[0].error
    with pytest.raises(c.PlanError, match="neither 'metadata'"):
        pages.move_url_modifier().output_types({"id": pa.string()})


def test_key_names():
    rename = pages.key_name_modifier()
    assert run(rename, [{"content": "a"}]) == [{"id": "0", "content": None, "text": "a"}]
    rows = [{"content": "a", "text": "b"}, {"content": "a", "text": None}, {"content": None, "text": "b"}]
    assert [(r["content"], r["text"]) for r in run(rename, rows)] == [("a", "b"), (None, "a"), (None, "b")]
    over = pages.key_name_modifier(allow_overwrite=True)
    assert [(r["content"], r["text"]) for r in run(over, rows)] == [(None, "a"), (None, "a"), (None, "b")]
    assert run(rename, [{"other": "a"}]) == [{"id": "0", "other": "a"}]


def test_html_by_justext():
    pytest.importorskip("justext", reason="jusText is not installed")
    step = pages.html_content_extraction_modifier()
    assert texts(step, ["<p>One &amp; two</p><p>Three</p>", "<p></p>", ""]) == ["One & two\n\nThree"]


def question(**more):
    return {"question": json.dumps({"text": "<p>Why?</p>"}), **more}


def test_stackexchange():
    pytest.importorskip("lxml", reason="lxml is not installed")
    answers = [{"text": "low", "score": 1}, {"text": "none"}, {"text": "<ol><li>high</li></ol>", "score": 5}]
    rows = [
        question(answers=json.dumps(answers)),
        question(answers=None),
        {"question": None, "answers": "[]"},
    ]
    (first, *_) = run(pages.stackexchange_list_modifier(), rows[:2])
    assert json.loads(first["answers"])[2]["text"] == "\n\n*high"
    (first,) = run(pages.stackexchange_list_modifier(compat="dclm"), rows[:1])
    assert json.loads(first["answers"])[2]["text"] == "\n*\n*high"
    steps = [
        pages.stackexchange_list_modifier(),
        pages.stackexchange_html_extraction_modifier(),
        pages.stackexchange_answer_sort_modifier(),
        pages.stackexchange_qa_formatter(remove_qa=True),
    ]
    out = run(steps[2:], rows)
    assert [r["text"] for r in out] == [
        "Q: <p>Why?</p>\nA: <ol><li>high</li></ol>\nA: low\nA: none",
        "Q: <p>Why?</p>",
    ]
    assert [(r["question"], r["answers"]) for r in out] == [(None, None)] * 2
    assert run(steps, rows[:1])[0]["text"] == "Q: Why?\nA: \n\n*high\nA: low\nA: none"
    (up,) = run(pages.stackexchange_answer_sort_modifier(descending=False), rows[:1])
    assert [a["text"] for a in json.loads(up["answers"])][:2] == ["none", "low"]
    assert pages.markup_text("<p>a<script>x()</script> &lt;b</p><!-- c -->") == "a <b"


def test_json_that_nobody_touched_is_written_as_it_was():
    odd = '{"text":  "x",\n "n": 1.0}'
    (row,) = run(
        pages.stackexchange_answer_sort_modifier(), [{"question": odd, "answers": '[ {"text":"a"} ]'}]
    )
    assert (row["question"], row["answers"]) == (odd, '[ {"text":"a"} ]')


def test_a_column_that_is_not_declared_is_refused():
    step = pages.PageMapper(f"{__name__}:_adds_a_column")
    object.__setattr__(step, "_mapper", lambda page: [{**page, "new": 1}])
    outcome = apply_step(step, pa.RecordBatch.from_pylist([{"id": "0", "text": "a"}]))
    assert "_outputs: {new: double}" in outcome.errors[0].error
    step = pages.PageMapper("m:f", adds=(("new", "int"),))
    object.__setattr__(step, "_mapper", lambda page: [{**page, "new": 1}] * 2)
    assert run([], []) == []
    outcome = apply_step(step, pa.RecordBatch.from_pylist([{"id": "0", "text": "a"}]))
    assert outcome.batch.to_pylist() == [{"id": f"0/{k}", "text": "a", "new": 1} for k in (0, 1)]
    with pytest.raises(c.PlanError, match="did you mean 'double'"):
        pages.PageMapper("m:f", adds=(("new", "doubel"),))


# ------------------------------------------------------------------------------------------------------ code


def test_github_extensions():
    rows = [{"filename": name} for name in ("a.py", "b.PY", "Makefile", "x.C", "c.pyc", None, "")]
    assert kept(code.github_extension_filter(), rows) == [0, 2, 3]
    assert kept(code.github_extension_filter(allowed_extensions=[".pyc"]), rows) == [4]
    assert len(set(code.GITHUB_EXTENSIONS)) == len(code.GITHUB_EXTENSIONS) == 66


def test_letters_per_token(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    model = tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pages_ = ["abc 1", "abcd 1", "ab 1", "", "12 34"]  # 1.5, 2, 1
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert kept(code.alphabetic_characters_to_tokens_filter(str(place)), pages_) == [0, 1]
    name = str(tmp_path)
    assert kept(code.alphabetic_characters_to_tokens_filter(name, max_ratio=2, compat="dclm"), pages_) == [1]
    with pytest.raises(c.PlanError, match="say min_ratio"):
        code.alphabetic_characters_to_tokens_filter(name, max_ratio=2)


FILES = [{"filename": f"f{n}.py", "text": f"x = {n}"} for n in range(5)]


def test_repositories_are_cut():
    rows = [{"files": json.dumps(FILES), "text": "whole"}, {"files": json.dumps(FILES[:2]), "text": "small"}]
    out = run(code.starcoder_v2_repo_splitter(max_files=2), rows)
    assert [r["id"] for r in out] == ["0/0", "0/1", "0/2", "1"]
    assert [len(json.loads(r["files"])) for r in out] == [2, 2, 1, 2]
    assert [r["text"] for r in out] == [None, None, None, "small"]
    out = run(code.starcoder_v2_repo_splitter(max_files=4, delete_content=False), rows)
    assert [r["text"] for r in out] == ["whole", "whole", "small"]
    nested = [{"files": FILES, "text": "w"}]  # a parquet pool may hold real lists
    assert [len(r["files"]) for r in run(code.starcoder_v2_repo_splitter(3), nested)] == [3, 2]
    with pytest.raises(c.PlanError, match="1 or more"):
        code.starcoder_v2_repo_splitter(0)


def test_repositories_become_text():
    row = {"files": json.dumps(FILES[:2]), "repo_name": "me/it"}
    never, always = code.starcoder_v2_format_modifier(0), code.starcoder_v2_format_modifier(1)
    assert texts(never, [row]) == ["<file_sep>x = 0<file_sep>x = 1"]
    assert texts(always, [row]) == ["<repo_name>me/it<file_sep>f0.py\nx = 0<file_sep>f1.py\nx = 1"]
    assert texts(code.starcoder_v2_format_modifier(0, False), [row]) == ["x = 0\n\nx = 1"]
    many = [{"id": f"r{n}", **row} for n in range(300)]
    out = texts(code.starcoder_v2_format_modifier(0.5), many)
    assert out == texts(code.starcoder_v2_format_modifier(0.5), many)
    assert 110 < sum(t.startswith("<repo_name>") for t in out) < 190
    with pytest.raises(c.PlanError, match="not in 0"):
        code.starcoder_v2_format_modifier(2)


def test_arxiv_appendix():
    pages_ = [
        r"a \bibliography{x} b",
        r"a \appendix b",
        r"a \begin{references} b",
        r"a \begin{thebibliography}",
        "a",
    ]
    assert texts(code.arxiv_appendix_modifier(), pages_) == ["a ", "a ", "a ", "a ", "a"]
    assert texts(code.arxiv_appendix_modifier(), [r"\appendix b"]) == []


def test_arxiv_comments():
    text = "% whole\na % end\n50\\% stays\nb%\n\\begin{comment}x\ny\\end{comment}c\\\\% gone"
    assert texts(code.arxiv_comment_modifier(), [text]) == [
        "a \n50\\% stays\nb\n\\begin{comment}x\ny\\end{comment}c\\\\"
    ]
    assert texts(code.arxiv_comment_modifier(remove_multiline=True), [text]) == ["a \n50\\% stays\nb\nc\\\\"]
    as_is = code.arxiv_comment_modifier(compat="dclm")
    assert texts(as_is, ["a % end\n50\\% stays\nb%\nc"]) == ["a\n50\\% stays\nb%\nc"]
    assert texts(code.arxiv_comment_modifier(), ["% only"]) == []


def test_arxiv_macros():
    text = "\\newcommand{\\R}{\\mathbb{R}}\n\\newcommand*{\\e}{é\\1}\n\\def\\x {y}\nin \\R, \\e; \\x. \\Rest"
    (out,) = texts(code.arxiv_macro_modifier(), [text])
    assert out.endswith("\nin \\mathbb{R}, é\\1; y. \\Rest")
    assert texts(code.arxiv_macro_modifier(), ["no macro"]) == ["no macro"]


def test_arxiv_sections():
    pages_ = [
        "pre\n\\section*{A} b",
        "\\subsubsection[s]{A}",
        "pre \\paragraph{x} y",
        "none",
        "\\sectional{x}",
    ]
    strip = code.arxiv_section_strip_modifier()
    assert texts(strip, pages_) == ["\\section*{A} b", "\\subsubsection[s]{A}", "\\paragraph{x} y"]
    pages_.append("p \\paragraph{x}\\subparagraph{y} z")
    as_is = code.arxiv_section_strip_modifier(compat="dclm")
    assert texts(as_is, pages_) == [
        "\\section*{A} b",
        "\\subsubsection[s]{A}",
        "\\paragraph{x}\\subparagraph{y} z",
    ]


# ----------------------------------------------------------------------------------------------------- dedup


def test_normalizers():
    def one(name, value):
        return mappers_dedup.NORMALIZERS[name](pa.array([value, None], pa.string())).to_pylist()

    assert one("normalize_url", "https://www.a.org/b/?utm_x=1") == ["a.org/b", None]
    assert one("normalize_url", "http://a.org/b?ref=z&c") == ["a.org/b", None]
    assert one("normalize_url", "http://a.org/b?page=2") == ["a.org/b?page=2", None]
    assert one("normalize_whitespace_and_lowercase", "\u00a0 A b\t") == ["a b", None]
    assert one("normalize_timestamps", "1970-01-02T00:00:01Z") == [86401.0, None]
    assert one("normalize_timestamps", "yesterday") == [-1.0, None]
    assert one("hash_text", "a") == ["0cc175b9c0f1b6a831c399e269772661", None]


def dedup(tmp_path, rows, steps, shards=2):
    import pyarrow.parquet as pq

    pool = tmp_path / "pool"
    pool.mkdir()
    for shard in range(shards):
        pq.write_table(pa.Table.from_pylist(rows[shard::shards]), pool / f"{shard}.parquet")
    result = c.run([c.read(pool), steps, c.write(tmp_path / "out")], workers=1, progress=False)
    kept_rows = [r for f in sorted((tmp_path / "out/data").iterdir()) for r in pq.read_table(f).to_pylist()]
    return result, {r["id"]: r for r in kept_rows}


def test_exact_dedup_by_key_and_selection(tmp_path):
    rows = [
        {"id": "a", "url": "http://x.org/", "n": 1.0},
        {"id": "b", "url": "https://www.x.org", "n": 3.0},
        {"id": "c", "url": "http://x.org?ref=1", "n": 2.0},
        {"id": "d", "url": "http://y.org", "n": 0.0},
    ]
    steps = [
        mappers_dedup.exact_dedup("url", "normalize_url", "n", selection_reverse=True),
    ]
    result, out = dedup(tmp_path, rows, steps)
    assert sorted(out) == ["b", "d"] and result.dropped == {"exact_dedup": 2}


def test_one_of_equal_lines_in_the_whole_pool_stays(tmp_path):
    rows = [
        {"id": "a", "url": "u3", "text": "Shared line\nonly a\nonly a"},
        {"id": "b", "url": "u1", "text": "shared LINE \nonly b"},
        {"id": "c", "url": "u2", "text": " shared line"},
        {"id": "d", "url": "u4", "text": "alone"},
    ]
    steps = [
        mappers_lines.split_lines_modifier(),
        mappers_dedup.exact_dedup("text", "normalize_whitespace_and_lowercase", "url", units=True),
        mappers_lines.join_lines_modifier(),
    ]
    result, out = dedup(tmp_path, rows, steps)
    assert {i: r["text"] for i, r in out.items()} == {
        "a": "only a",
        "b": "shared LINE \nonly b",
        "d": "alone",
    }
    assert result.dropped == {"exact_dedup": 1}
    assert "exact_dedup_repeats" not in out["a"]
    report = json.loads((tmp_path / "out/_winnow/report.json").read_text())
    assert report["barriers"][0]["summary"] == {"units_removed": 3, "pages_touched": 2}


def test_dedup_refuses_what_it_cannot_do():
    with pytest.raises(c.PlanError, match="did you mean 'normalize_url'"):
        mappers_dedup.exact_dedup("url", "normalise_url")
    with pytest.raises(c.PlanError, match="only text is cut"):
        mappers_dedup.exact_dedup("url", units=True)


# ----------------------------------------------------------------------------------------------- aggregators


def test_aggregators():
    assert percentiles([1, 2, 3, 4, 100]) == {
        "min": 1, "p25": 2, "median": 3, "p75": 4, "p90": 100, "p95": 100, "p99": 100, "max": 100, "mean": 22,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no values"):
        percentiles([])
    assert histogram(["a", "b", "a"]) == {"a": 2, "b": 1}
    counts = histogram([0.0, 10.0, 10.0])
    assert counts[0.0] == 1 and counts[9.0] == 2 and len(counts) == 10
    assert threshold_transform({"en": 0.7, "fr": 0.3}, 0.7) == "en"
    assert threshold_transform({"en": 0.69}, 0.7) == "unknown"
    assert threshold_transform({}, 0.7, "none") == "none"


def test_bounds_without_end():
    (keep,) = mappers.between("x", -math.inf, math.inf, "r")
    assert keep.where == "x is not null"
