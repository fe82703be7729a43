import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes import fasttext_quality as quality

ROOT = Path(__file__).parents[2]
SMALL = quality.Settings(dim=8, epochs=5, buckets=1000, chunk_words=40)
GOOD = [
    "The parser reads one line of the file and then builds a tree",
    "Each node of the tree knows its children",
]
BAD = ["cheap pills casino bonus click here now", "home login cart menu sale sale best price online"]


def documents(sentences: list[str], n: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    return [
        {"id": f"{seed}-{i}", "text": "\n".join(rng.choice(sentences, rng.integers(5, 30)))} for i in range(n)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("quality")
    report = quality.train(documents(GOOD, 60, 1), documents(BAD + GOOD[:1], 90, 2), out, SMALL)
    return out, report


def test_it_learns_and_reports_on_held_out_documents(trained) -> None:
    out, report = trained
    assert report.auc > 0.95 and report.accuracy > 0.8
    assert report.documents == {quality.HQ: 54, quality.LQ: 81}
    assert report.heldout_documents == {quality.HQ: 6, quality.LQ: 9}
    assert report.chunks[quality.HQ] == report.chunks[quality.LQ]
    written = json.loads((out / "report.json").read_text())
    assert written["auc"] == report.auc and written["settings"]["chunk_words"] == 40
    import fasttext

    model = fasttext.load_model(str(out / "model.bin"))
    assert sorted(model.get_labels()) == [quality.HQ, quality.LQ]
    assert not list(out.glob("partial*")) and not list(out.glob("tmp*"))


def test_same_input_gives_the_same_bytes_whatever_the_row_order_and_process(trained, tmp_path) -> None:
    out, report = trained
    good, bad = documents(GOOD, 60, 1)[::-1], documents(BAD + GOOD[:1], 90, 2)
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(d) + "\n" for d in good))
    (tmp_path / "bad").mkdir()
    pq.write_table(pa.Table.from_pylist(bad[40:]), tmp_path / "bad" / "a.parquet")
    pq.write_table(pa.Table.from_pylist(bad[:40]), tmp_path / "bad" / "b.parquet")
    command = [sys.executable, "-m", "recipes.fasttext_quality", "--positives", str(tmp_path / "good.jsonl")]
    command += ["--negatives", str(tmp_path / "bad"), "--out", str(tmp_path / "model")]
    command += ["--dim", "8", "--epochs", "5", "--buckets", "1000", "--chunk-words", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "held-out AUC" in done.stdout
    assert (tmp_path / "model" / "model.bin").read_bytes() == (out / "model.bin").read_bytes()
    assert json.loads((tmp_path / "model" / "report.json").read_text())["model_hash"] == report.model_hash


def test_another_seed_gives_another_model(trained, tmp_path) -> None:
    from dataclasses import replace

    _, report = trained
    other = quality.train(
        documents(GOOD, 60, 1), documents(BAD + GOOD[:1], 90, 2), tmp_path, replace(SMALL, seed=9)
    )
    assert other.model_hash != report.model_hash


def test_chunks_are_even_and_a_page_cannot_label_itself() -> None:
    text = " ".join(f"w{i}" for i in range(310))
    chunks = quality.chunk_text(text, 150)
    assert [len(c.split()) for c in chunks] == [155, 155] and " ".join(chunks) == text
    assert quality.chunk_text("a\nb\tc", 0) == ["a b c"]
    assert quality.chunk_text(" \n", 150) == []
    assert quality.chunk_text("good __label__hq text", 150) == ["good text"]


def test_auc_equals_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40) / 5, rng.integers(0, 6, 30) / 5 - 0.1 * rng.integers(0, 2, 30)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert quality.auc(a, b) == pytest.approx(np.mean(pairs))
    assert quality.auc(np.array([1.0]), np.array([0.0])) == 1.0


def test_too_little_text_is_refused(tmp_path) -> None:
    with pytest.raises(quality.ClassifierError, match="__label__hq: 3 documents"):
        quality.train(documents(GOOD, 3, 1), documents(BAD, 50, 2), tmp_path, SMALL)


def test_dclm_preset_is_what_was_published():
    s = quality.PRESETS["dclm"]
    assert (s.ngrams, s.dim, s.epochs, s.lr, s.min_count, s.chunk_words) == (2, 100, 5, 0.1, 1, 0)
    assert s.max_chunks == 200_000 and s.buckets == 2_000_000
