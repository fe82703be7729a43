import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from recipes.lm import data

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "looked",
    "at",
    "every",
    "dog",
    "along",
    "quiet",
    "rivers",
]


def documents(n: int = 60) -> dict[str, str]:
    rng = np.random.default_rng(5)
    texts = {f"doc-{i}": " ".join(rng.choice(WORDS, rng.integers(3, 900))) + f" {i}." for i in range(n)}
    texts["doc-greek"] = "Καλημέρα κόσμε " * 400
    texts["doc-nospace"] = "é" * 5000
    return texts


def write_parquet(folder, rows, parts: int):
    folder.mkdir(parents=True)
    for i in range(parts):
        part = rows[i::parts]
        table = pa.table({"id": [r[0] for r in part], "text": [r[1] for r in part], "url": ["u"] * len(part)})
        pq.write_table(table, folder / f"{i:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return data.load_tokenizer("bpe4096")


@pytest.fixture
def folder(tmp_path):
    return write_parquet(tmp_path / "data", list(documents().items()), 3)


def stream(folder, tokenizer, **kwargs) -> data.Contexts:
    return data.Contexts(data.read_corpus(folder), tokenizer, 32, **{"seed": 1, "piece_bytes": 512, **kwargs})


def test_order_depends_on_rows_and_seed_only(tmp_path, folder, tokenizer) -> None:
    rows = list(documents().items())
    other = write_parquet(tmp_path / "other", rows[::-1], 7)
    a, ids = stream(folder, tokenizer).take(200)
    b, ids_b = stream(other, tokenizer).take(200)
    assert (a == b).all() and ids == ids_b
    assert data.read_corpus(folder).fingerprint == data.read_corpus(other).fingerprint
    assert not (stream(folder, tokenizer, seed=2).take(200)[0] == a).all()


def test_one_epoch_is_every_document_once(folder, tokenizer) -> None:
    contexts = stream(folder, tokenizer)
    pieces = [contexts.text(p) for p in range(len(contexts._row))]
    for row, (row_id, text) in enumerate(
        zip(contexts.corpus.ids.to_pylist(), contexts.corpus.text.to_pylist(), strict=True)
    ):
        mine = [p for p, r in zip(pieces, contexts._row, strict=True) if r == row]
        assert "".join(mine) == text, row_id
        assert len(mine) == max(1, -(-len(text.encode()) // 512))
        assert all(len(p.encode()) <= 512 + 129 for p in mine)
    tokens = sum(len(tokenizer.encode(p).ids) + 1 for p in pieces)
    taken = np.concatenate([contexts.take(1)[0].ravel() for _ in range(tokens // 33)])
    assert (taken == 0).sum() == pytest.approx(len(pieces), abs=2)
    assert contexts.epochs == pytest.approx(1.0, abs=33 / tokens * 3)
    contexts.take(2)
    assert contexts.position.epoch == 1
    assert contexts.epochs > 1.0


@pytest.mark.parametrize("steps", [1, 7, 40, 333])
def test_resuming_gives_the_same_contexts(folder, tokenizer, steps: int) -> None:
    whole = stream(folder, tokenizer)
    whole.take(steps)
    again = stream(folder, tokenizer, start=whole.position)
    assert again.epochs == pytest.approx(whole.epochs)
    assert (whole.take(300)[0] == again.take(300)[0]).all()
    assert whole.position == again.position


def test_batching_does_not_change_the_stream(folder, tokenizer) -> None:
    a, b = stream(folder, tokenizer), stream(folder, tokenizer)
    assert (a.take(12)[0] == np.concatenate([b.take(n)[0] for n in (1, 4, 5, 2)])).all()


def test_a_page_cannot_write_the_end_of_text_token(tmp_path, tokenizer) -> None:
    folder = write_parquet(tmp_path / "d", [("a", "before <|endoftext|> after " * 200)], 1)
    batch, _ = stream(folder, tokenizer, piece_bytes=10**6).take(20)
    assert (batch == 0).sum() == 0


def test_copies_of_a_row_are_spread(tmp_path, tokenizer) -> None:
    rows = [(f"d{i}", f"text number {i} " * 5) for i in range(50)] + [("d7", "text number 7 " * 5)] * 3
    contexts = stream(write_parquet(tmp_path / "d", rows, 2), tokenizer)
    ids = contexts.corpus.ids.to_pylist()
    places = [i for i, p in enumerate(contexts.order(0)) if ids[contexts._row[p]] == "d7"]
    assert len(places) == 4
    assert max(np.diff(places)) > 1


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_jsonl_equals_parquet(tmp_path, folder, tokenizer, suffix: str) -> None:
    text = "".join(
        json.dumps({"id": i, "text": t, "more": 1}) + "\n" for i, t in documents().items()
    ).encode()
    (tmp_path / "j").mkdir()
    if suffix == ".jsonl.zst":  # two frames, as appending writers leave
        packed = zstandard.compress(text[:1000]) + zstandard.compress(text[1000:])
    else:
        packed = gzip.compress(text) if suffix == ".jsonl.gz" else text
    (tmp_path / "j" / f"0{suffix}").write_bytes(packed)
    assert data.read_corpus(tmp_path / "j").fingerprint == data.read_corpus(folder).fingerprint


def test_run_directory_reads_data_only(tmp_path) -> None:
    write_parquet(tmp_path / "run" / "data", [("a", "x")], 1)
    write_parquet(tmp_path / "run" / "scores" / "0", [("b", "y")], 1)
    assert data.read_corpus(tmp_path / "run").ids.to_pylist() == ["a"]


def test_bad_shards_are_named(tmp_path) -> None:
    with pytest.raises(data.DataError, match="no such folder"):
        data.read_corpus(tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="no shard here"):
        data.read_corpus(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "body": ["x"]}), tmp_path / "0.parquet")
    with pytest.raises(data.DataError, match=r"0\.parquet: no column text; its columns are \['id', 'body'\]"):
        data.read_corpus(tmp_path)
    (tmp_path / "0.parquet").unlink()
    (tmp_path / "0.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": "b"}\n')
    with pytest.raises(data.DataError, match=r"0\.jsonl, line 2"):
        data.read_corpus(tmp_path)
    (tmp_path / "0.jsonl").write_text('{"id": "a", "text": ""}\n{"id": "b", "text": null}\n')
    with pytest.raises(data.DataError, match="no text"):
        data.read_corpus(tmp_path)
    with pytest.raises(data.DataError, match="known: bpe4096"):
        data.load_tokenizer("bpe5000")


def test_the_committed_tokenizer_is_what_the_script_trains(tmp_path, capsys) -> None:
    from recipes.lm import train_tokenizer

    train_tokenizer.main(["--out", str(tmp_path / "t.json")])
    assert (tmp_path / "t.json").read_bytes() == (train_tokenizer.DATA / "bpe4096.json").read_bytes()


def test_the_tokenizer_gives_back_every_text(tokenizer) -> None:
    text = "naïve café\n\tΚαλημέρα — 日本語 \x00 <|endoftext|> 🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("end", ["<|end_of_text|>", "</s>", "<eos>"])
def test_a_tokenizer_may_call_the_end_of_a_text_by_another_name(end, tmp_path):
    import json

    from recipes.lm import encode
    from recipes.lm.data import tokenizer_file

    content = tokenizer_file("bpe4096").read_text(encoding="utf-8").replace("<|endoftext|>", end)
    (tmp_path / "own.json").write_text(content, encoding="utf-8")
    encoder = encode.load(tmp_path / "own.json")
    assert encoder.end == json.loads(content)["model"]["vocab"][end]
