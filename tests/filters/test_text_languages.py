"""The language table, limits by row, stop words by row."""

import pyarrow as pa
import pytest
import yaml

import curation as c
from filters.text import fit_languages, gopher_scores, languages
from filters.text.languages import OTHERS, gopher_multilingual, language_limits, load, multilingual_rules

PAGES = {
    "en": "That is the question to which the committee and the members have turned with all of their care. ",
    "de": "Der Wärter schrieb seiner Schwester, dass der Sturm die Boote und das Dach mit sich nahm. ",
    "zh": "这是我们在山上看见的一条河，人们不知道它从什么地方来，也不知道它到什么地方去。",
    "ja": "これは私が山の上で見た川で、人はそれがどこから来たのかを知らない。",
    "th": "นี่คือแม่น้ำที่เราเห็นบนภูเขาและไม่มีใครรู้ว่ามันมาจากที่ไหน ",
    "ta": "இந்த ஆறு மலையிலிருந்து வருகிறது என்று மக்கள் சொல்கிறார்கள், ஒரு மனிதனும் அறியவில்லை. ",
}


def batch_of(texts, codes):
    return pa.record_batch(
        {"id": [str(i) for i in range(len(texts))], "text": texts, "language": pa.array(codes, pa.string())}
    )


def test_table_is_what_the_limits_come_from():
    table = load()
    assert len(table) > 120
    english = table["en"]
    assert (english.min_words, english.max_words) == (50, 100_000)
    assert (english.min_word_length, english.max_word_length, english.min_stop_words) == (3, 10, 2)
    raw = yaml.safe_load(languages.TABLE.read_text(encoding="utf-8"))
    assert table["fi"].max_word_length == round(10 * raw["fi"]["word_length"], 2) > 14
    assert table["zh"].min_word_length < 1 < table["zh"].max_word_length
    assert all(isinstance(word, str) and word for row in table.values() for word in row.stop_words)
    assert all(row.known and len(row.stop_words) >= 8 for row in table.values())


def test_limits_of_each_row_and_of_unknown_languages():
    batch = batch_of(["x"] * 4, ["fi", "en", "tlh", None])
    limits = language_limits()(batch).to_pylist()
    assert limits[0]["max_word_length"] == load()["fi"].max_word_length and limits[1]["max_word_length"] == 10
    for unknown in limits[2:]:
        assert not unknown["known"] and unknown["min_stop_words"] == 0
        assert unknown["min_words"] == OTHERS.min_words and unknown["min_word_length"] == 0
    assert language_limits()(batch.slice(0, 0)).type == languages.LIMITS


def test_stop_words_are_those_of_the_row():
    texts = [text * 2 for text in PAGES.values()] + [PAGES["en"], PAGES["en"], None]
    codes = [*PAGES, "de", None, "en"]
    got = gopher_multilingual()(batch_of(texts, codes)).to_pylist()
    for text, code, row in zip(texts, codes, got, strict=True):
        words = load()[code].stop_words if code else ()
        alone = gopher_scores(pa.array([text], pa.string()), stop_words=words, repetition=False)
        assert row == alone["gopher"].to_pylist()[0]
    assert all(row["n_stop_words"] >= 2 for row, _ in zip(got, PAGES, strict=False))  # but Thai's, letters
    assert got[len(PAGES)]["n_stop_words"] == 0  # English text, German stop words
    assert gopher_multilingual()(batch_of([], [])).type == gopher_multilingual.outputs["gopher"]


def test_rules_compare_each_row_with_its_own_limits():
    # 70 words: enough in English, too few in Chinese (a character is a word there)
    texts = [
        "Words that have to be long enough and of a length, with care. " * 6,
        "这是我们在山上看见的河。" * 6,
    ]
    batch = batch_of(texts, ["en", "zh"])
    batch = batch.append_column("language_score", pa.array([0.9, 0.9]))
    batch = batch.append_column("limits", language_limits()(batch))
    batch = batch.append_column("gopher", gopher_multilingual()(batch))
    from curation.expressions import evaluate

    failed = {
        rule.reason: (~evaluate(rule.where, batch)).nonzero()[0].tolist() for rule in multilingual_rules()
    }
    failed = {reason: rows for reason, rows in failed.items() if rows}
    assert failed == {"gopher: too few words": [1]}


def test_own_table(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("en: {min_words: 5, stop_words: [and]}\nxx: {words: 2, language_score: .4}\n")
    table = load(str(path))
    assert table["en"].min_words == 5 and table["en"].stop_words == ("and",)
    assert (table["xx"].min_words, table["xx"].language_score, table["xx"].min_stop_words) == (100, 0.4, 0)
    before = language_limits(table=str(path)).identity
    path.write_text("en: {min_words: 6}\n")
    assert language_limits(table=str(path)).identity != before
    path.write_text("en: {min_word: 6}\n")
    load.cache_clear()
    with pytest.raises(ValueError, match=r"en: unknown key 'min_word'; did you mean 'min_words'"):
        load(str(path))


def test_fit_says_how_a_language_differs_from_english():
    table = fit_languages.fit(
        [("en", "one two three four"), ("xx", "onetwo threefour"), ("zh", "一二三四五六七八"), ("en", "no")],
        own={"xx": ["and"]},
    )
    assert table["en"]["words"] == table["en"]["word_length"] == 1
    assert table["xx"] == {"words": 0.5, "word_length": 2.0, "stop_words": ["and"]}  # 7.5 against 3.75
    assert table["zh"]["words"] == 2 and table["zh"]["stop_words"][0] == "一"


def test_pages_of_many_languages_pass_where_english_limits_drop_them():
    """The declaration's pages in the embedded pool: every one is prose, in 100 languages."""
    from filters.text import extract, gopher_quality, gopher_quality_rules
    from pools import demo_text

    truth = demo_text.truth()
    wanted = [
        row for row in truth.to_pylist() if row["source"].startswith("udhr") and row["language"] in load()
    ]
    urls = {row["url"]: row["language"] for row in wanted}
    rows = []
    from curation.formats import read_batches
    from curation.shards import list_shards

    for shard in list_shards(str(demo_text.unpack())):
        for batch in read_batches(shard, bad=print):
            rows += [row for row in batch.to_pylist() if row["url"] in urls]
    batch, _ = extract()(pa.RecordBatch.from_pylist(rows))
    codes = pa.array([urls[url] for url in batch.column("url").to_pylist()])
    batch = batch.append_column("language", codes).append_column(
        "language_score", pa.array([1.0] * len(codes))
    )
    batch = batch.append_column("limits", language_limits()(batch))
    own = batch.append_column("gopher", gopher_multilingual()(batch))
    english = batch.append_column("gopher", gopher_quality()(batch)["gopher"])
    from curation.expressions import evaluate

    def kept(batch, rules):
        import numpy as np

        return int(np.all([evaluate(rule.where, batch) for rule in rules], axis=0).sum())

    n = batch.num_rows
    assert n >= 60
    assert kept(own, multilingual_rules()) >= 0.95 * n
    assert kept(english, gopher_quality_rules()) <= 0.2 * n


def test_recipe_runs(tmp_path):
    import baselines
    from pools import demo_text

    shard = sorted(demo_text.unpack().glob("*.gz"))[0]
    plan = baselines.find("text/multilingual").plan(pool=str(shard), out=str(tmp_path / "out"))
    result = c.run(plan, progress=False)
    assert result.rows_in > 300 and 0.2 < result.rows_out / result.rows_in < 0.9
