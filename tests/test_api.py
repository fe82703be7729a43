"""The API that a user meets first: the example of the design, as it stands there."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import curation as c

pytest.importorskip("fasttext", reason="fasttext is not installed")


@c.score
def symbol_ratio(text: str) -> float:
    return (text.count("#") + text.count("…")) / max(1, len(text.split()))


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Array:
    return pc.utf8_length(text)


@dataclass(frozen=True)
class Edu(c.Model):
    path: str
    resources = c.Resources(gpus=1)
    batch_size = 256

    def setup(self):
        with open(self.path) as file:
            object.__setattr__(self, "_words", set(file.read().split()))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        texts = batch.column("text").to_pylist()
        return pa.array(
            [sum(w in self._words for w in t.split()) / len(t.split()) for t in texts], pa.float32()
        )


def test_the_design_example(tmp_path, monkeypatch, capsys):
    from filters.text import gopher_quality, language

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    (tmp_path / "words.txt").write_text("school teacher lesson")
    english = "The teacher gave a lesson at the school number {} and then we went home for the day. " * 6
    french = "Le professeur a donné une leçon à l'école numéro {} et ensuite nous sommes rentrés. " * 6
    with open("pool/a.jsonl", "w", encoding="utf-8") as file:
        import json

        for n in range(60):
            text = (french if n % 3 == 0 else english).format(*[n] * 6)
            text += " nothing" * n + (" #" * 40 if n % 10 == 1 else "")
            file.write(json.dumps({"id": f"r{n:02d}", "text": text}) + "\n")
    plan = [
        c.read("pool/"),
        language(),
        symbol_ratio,
        n_chars,
        gopher_quality(),
        Edu("words.txt"),
        c.keep("language = 'en' and language_score >= .65", reason="language"),
        c.keep("n_chars >= 200 and symbol_ratio <= .1", reason="shape"),
        c.top_fraction("edu", 0.10, reason="quality"),
        c.write("out/", removed="out-removed/"),
    ]
    assert "others leave as 'shape'" in c.explain(plan)
    result = c.run(plan, progress=False)
    assert result.dropped["language"] == 20
    rest = [n for n in range(60) if n % 3 and n % 10 != 1]
    assert result.dropped["shape"] == 40 - len(rest)
    assert result.rows_out == round(len(rest) * 0.10)
    import pyarrow.dataset as ds

    kept = ds.dataset("out/data").to_table()["id"].to_pylist()
    assert kept == [f"r{n:02d}" for n in rest[: len(kept)]]  # the shorter the tail, the denser the words
    removed = ds.dataset("out-removed").to_table()
    assert removed.num_rows + len(kept) == 60
    assert (tmp_path / "out" / "funnel.html").is_file()
