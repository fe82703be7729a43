"""The job that turns a curated set into training contexts, against a plain program that does the same."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tokenizers import Tokenizer

from curation.errors import RunFailed
from recipes.lm import mixing, shuffle, tokenise
from recipes.lm.mixing import Source
from recipes.lm.shuffle import Stream, keys_of
from recipes.lm.tokens import TokensError, TokenShards, is_tokens
from recipes.lm.train_tokenizer import DATA

T = 32
END = 0
SENTENCE = "the cat sat on a mat and looked at every dog along quiet rivers of Ünïcode 東京 <|endoftext|>"
WORDS = SENTENCE.split()


def texts(n: int, seed: int) -> list[str | None]:
    rng = np.random.default_rng(seed)
    out = [" ".join(rng.choice(WORDS, rng.integers(1, 200))) + f" {i}." for i in range(n)]
    out[n // 3], out[n // 2] = "", None
    return out


def write_pool(folder: Path, shards: int = 4, rows: int = 24, first: int = 0, name: str = "part") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + shards):
        column = texts(rows + 3 * i, i)
        ids = [f"{i}-{j % (rows - 2)}" for j in range(len(column))]  # some ids are there twice
        pq.write_table(
            pa.table({"id": ids, "text": column}), folder / f"{name}-{i:03d}.parquet", row_group_size=9
        )
    return folder


def write_more(out: Path) -> Path:
    write_pool(out / "web", shards=3)
    write_pool(out / "wiki", shards=2, rows=9, first=5, name="wiki")
    return out


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool") / "data")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return write_more(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(DATA / "bpe4096.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def job(data, out, **options) -> TokenShards:
    defaults = {"tokenizer": "bpe4096", "context": T, "shard_contexts": 40, "progress": False}
    return tokenise.tokenise(data, out, **{**defaults, **options})


def everything(shards: TokenShards) -> list[tuple[int, ...]]:
    return [tuple(row) for row in shards.rows(np.arange(len(shards))).tolist()]


def files_of(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path(out).iterdir()) if p.is_file()}


def encoded(plain: Tokenizer, path: Path) -> list[int]:
    ids = []
    for text in pq.read_table(path)["text"].to_pylist():
        if text:
            ids += [*plain.encode(text, add_special_tokens=False).ids, END]
    return ids


def packed(plain, folder: Path, source: str = "data") -> list[tuple[Stream, list[tuple[int, ...]]]]:
    """Streams of contexts, tails joined last, by a plain loop; and how many tokens there are."""
    out, tails = [], []
    for path in sorted(folder.glob("*.parquet")):
        ids = encoded(plain, path)
        whole = len(ids) // (T + 1)
        rows = [tuple(ids[i * (T + 1) : (i + 1) * (T + 1)]) for i in range(whole)]
        out.append((Stream("", source, path.name, whole), rows))
        tails += ids[whole * (T + 1) :]
    whole = len(tails) // (T + 1)
    rows = [tuple(tails[i * (T + 1) : (i + 1) * (T + 1)]) for i in range(whole)]
    out.append((Stream("", source, "\0tails", whole), rows))
    return out


def shuffled(streams, seed: int = 0) -> list[tuple[int, ...]]:
    """All contexts in the order of their keys."""
    keyed = [
        (int(key), row)
        for stream, rows in streams
        for key, row in zip(keys_of(stream, seed, np.arange(len(rows))), rows, strict=True)
    ]
    return [row for _, row in sorted(keyed, key=lambda kr: kr[0])]


# ---------------------------------------------------------------- what is written


def test_contexts_are_those_of_a_plain_loop(pool, plain, tmp_path):
    shards = job(pool, tmp_path / "out", seed=3)
    assert everything(shards) == shuffled(packed(plain, pool), 3)
    total = sum(len(encoded(plain, path)) for path in pool.glob("*.parquet"))
    info = shards.info
    assert info["document_tokens"] == total
    assert len(shards) == total // (T + 1) and info["tokens"] == len(shards) * (T + 1)
    assert info["left_over_tokens"] == total % (T + 1)
    assert sum(s["contexts"] for s in info["shards"]) == info["contexts"] == info["budget"]
    rows = sum(pq.read_metadata(path).num_rows for path in pool.glob("*.parquet"))
    assert (info["documents"], info["empty_documents"]) == (rows - 8, 8)
    assert not list((tmp_path / "out" / "_winnow" / "work").rglob("*.*"))


def test_order_is_a_fair_shuffle(pool, tmp_path):
    one, other = (job(pool, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert everything(one) != everything(other)
    assert sorted(everything(one)) == sorted(everything(other))
    assert one.fingerprint != other.fingerprint


def test_nothing_but_rows_and_seed_matters(pool, tmp_path, monkeypatch):
    want = files_of(job(pool, tmp_path / "a").folder)
    assert files_of(job(pool, tmp_path / "b", workers=2).folder) == want
    monkeypatch.setattr(tokenise, "BATCH_BYTES", 700)
    monkeypatch.setattr(shuffle, "PIECE_BYTES", 200)
    monkeypatch.setattr(shuffle.Scatter.__init__, "__defaults__", (1000,))
    assert files_of(job(pool, tmp_path / "c").folder) == want
    monkeypatch.undo()
    one = job(pool, tmp_path / "d", shard_contexts=7)  # other files, the same order
    assert everything(one) == everything(TokenShards.open(tmp_path / "a"))


def test_hash_seed_does_not_matter(pool, tmp_path):
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "recipes.lm.tokenise", str(pool), str(tmp_path / seed), "--quiet"]
        command += [
            "--tokenizer",
            "bpe4096",
            "--context",
            str(T),
            "--workers",
            "1",
            "--tars",
            str(tmp_path / f"w{seed}"),
        ]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "contexts of 33" in done.stdout and "tars" in done.stdout
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert files_of(tmp_path / "w1") == files_of(tmp_path / "w2")


def test_ray_writes_the_same(pool, tmp_path, ray_session):
    want = files_of(job(pool, tmp_path / "a").folder)
    assert files_of(job(pool, tmp_path / "b", on="ray").folder) == want


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines(pool, plain, tmp_path, suffix):
    folder = tmp_path / "pool" / "data"
    folder.mkdir(parents=True)
    for path in pool.glob("*.parquet"):
        data = b"\n".join(json.dumps(row).encode() for row in pq.read_table(path).to_pylist())
        packer = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(Path(suffix).suffix)
        (folder / f"{path.stem}{suffix}").write_bytes(packer(data) if packer else data)
    got = job(tmp_path / "pool", tmp_path / "out")
    want = [row for _, rows in packed(plain, pool) for row in rows]
    assert sorted(everything(got)) == sorted(want)


def test_dclm_pads_the_end_of_every_file(pool, plain, tmp_path):
    shards = job(pool, tmp_path / "out", compat="dclm", pad=4095)
    want = []
    for path in sorted(pool.glob("*.parquet")):
        ids = []
        for text in pq.read_table(path)["text"].to_pylist():  # an empty document still has its end
            ids += [*plain.encode(text or "", add_special_tokens=False).ids, END]
        while len(ids) % (T + 1):
            ids.append(4095)
        want += [tuple(ids[i : i + T + 1]) for i in range(0, len(ids), T + 1)]
    assert sorted(everything(shards)) == sorted(want)
    assert shards.info["pad_tokens"] == sum(row.count(4095) for row in want) > 0
    assert shards.info["left_over_tokens"] == 0
    with pytest.raises(TokensError, match=r"padding id 50256 is outside the 4,096 ids"):
        job(pool, tmp_path / "other", compat="dclm")
    with pytest.raises(TokensError, match=r"pad=4096: not one of"):
        job(pool, tmp_path / "other", compat="dclm", pad=4096)


# ---------------------------------------------------------------- budgets and mixes


def test_an_exact_budget_is_a_sample(pool, plain, tmp_path):
    rows = [row for _, own in packed(plain, pool) for row in own]
    shards = job(pool, tmp_path / "a", contexts=77)
    assert len(shards) == shards.budget == 77
    got = everything(shards)
    left = list(rows)
    for row in got:
        left.remove(row)  # each is one of the set's, and none is there more often
    assert len(job(pool, tmp_path / "b", tokens=77 * T - T + 1)) == 77
    whole = job(pool, tmp_path / "c", contexts=len(rows))
    assert len(whole) == len(rows)


def test_more_than_there_is_says_how_many_epochs(pool, plain, tmp_path):
    n = sum(len(own) for _, own in packed(plain, pool))
    with pytest.raises(
        TokensError, match=rf"{2 * n:,} contexts were asked for and there are {n:,}: .* 2 epochs"
    ):
        job(pool, tmp_path / "a", contexts=2 * n)
    with pytest.raises(TokensError, match=r"1\.5 epochs|1\.50\d epochs"):
        job(pool, tmp_path / "a", tokens=int(1.5 * n) * T)
    assert not is_tokens(tmp_path / "a")
    shards = job(pool, tmp_path / "a", contexts=2 * n + 1, allow_repeat=True)
    assert (len(shards), shards.budget) == (n, 2 * n + 1)  # further epochs are the reader's
    assert job(pool, tmp_path / "b", epochs=2.5).budget == round(2.5 * n)
    assert len(job(pool, tmp_path / "c", epochs=0.5)) == round(0.5 * n)
    for wrong in ({"contexts": 3, "tokens": 9}, {"contexts": 0}, {"epochs": 1, "contexts": 3}):
        with pytest.raises(TokensError, match=r"budget"):
            job(pool, tmp_path / "d", **wrong)


def counts_of(shards: TokenShards, streams) -> dict[tuple[int, ...], int]:
    got: dict[tuple[int, ...], int] = {}
    for row in everything(shards):
        got[row] = got.get(row, 0) + 1
    return {row: got.get(row, 0) for _, rows in streams for row in rows}


def test_epochs_of_sources_are_exact(two, plain, tmp_path):
    web, wiki = packed(plain, two / "web", "web"), packed(plain, two / "wiki", "wiki")
    n_web, n_wiki = (sum(len(rows) for _, rows in own) for own in (web, wiki))
    sources = [Source("web", str(two / "web")), Source("wiki", str(two / "wiki"), epochs=2.269)]
    shards = job(sources, tmp_path / "a")
    wanted = round(2.269 * n_wiki)
    assert [s["contexts"] for s in shards.info["sources"]] == [n_web, wanted]
    assert len(shards) == n_web + wanted
    copies = counts_of(shards, wiki)
    assert len(copies) == n_wiki  # contexts here are all different, so copies can be told
    assert sorted(set(copies.values())) == [2, 3]
    assert sum(v == 3 for v in copies.values()) == wanted - 2 * n_wiki
    # the third copies are those with the lowest hashes
    hashed = []
    for stream, rows in wiki:
        hashed += zip(shuffle.picks(stream, 0, np.arange(len(rows))).tolist(), rows, strict=True)
    lowest = {row for _, row in sorted(hashed)[: wanted - 2 * n_wiki]}
    assert {row for row, n in copies.items() if n == 3} == lowest
    assert set(counts_of(shards, web).values()) == {1}
    # a budget keeps the proportions
    half = job(sources, tmp_path / "b", contexts=60)
    a, b = (s["contexts"] for s in half.info["sources"])
    assert a + b == 60 and abs(a - 60 * n_web / (n_web + wanted)) < 1


def test_weights_are_shares_of_the_budget(two, plain, tmp_path):
    n_wiki = sum(len(rows) for _, rows in packed(plain, two / "wiki"))
    sources = [Source("web", str(two / "web"), weight=3), Source("wiki", str(two / "wiki"), weight=1)]
    shards = job(sources, tmp_path / "a", contexts=21)
    assert [s["contexts"] for s in shards.info["sources"]] == [16, 5]  # 15.75 and 5.25
    sources = [Source("web", str(two / "web"), weight=0.1), Source("wiki", str(two / "wiki"), weight=0.9)]
    k = n_wiki // 2
    with pytest.raises(TokensError, match=r"epochs: web 0\.\d+, wiki 4\.\d"):
        job(sources, tmp_path / "b", contexts=10 * k)
    shards = job(sources, tmp_path / "b", contexts=10 * k, allow_repeat=True)
    assert [s["contexts"] for s in shards.info["sources"]] == [k, 9 * k]
    assert len(shards) == shards.budget == 10 * k
    whole = job(sources, tmp_path / "c")
    assert whole.info["sources"][1]["contexts"] == n_wiki


def test_mix_files(two, tmp_path):
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        f"path: {two}\nsources:\n  web: {{contains: web/}}\n  wiki: {{contains: [wiki/], epochs: 2}}\n"
    )
    sources = mixing.load(mix)
    assert sources[1] == Source("wiki", str(two), epochs=2, contains=("wiki/",))
    shards = job(sources, tmp_path / "a")
    web, wiki = shards.info["sources"]
    assert (web["shards"], wiki["shards"]) == (3, 2)
    assert (web["epochs"], wiki["epochs"]) == (1, 2)
    assert [s.epochs for s in mixing.by_name("rpj", mixing.REDPAJAMA)][3] == 2.269
    for text, what in (
        ("sources: {a: {path: x, epoch: 2}}", "source 'a' has unknown epoch"),
        ("sources: {a: {epochs: 2}}", "source 'a' has no path"),
        ("sources: {a: {path: x, epochs: 2, weight: 1}}", "epochs and a weight"),
        ("sources: {a: {path: x, weight: -1}}", "weight is -1"),
        ("sources: {a: {path: x, weight: much}}", "weight is 'much'"),
        ("sources: [a]", "expected a mapping `sources`"),
        ("sources: {a: 3}", "source 'a' is 3"),
    ):
        mix.write_text(text)
        with pytest.raises(TokensError, match=what):
            mixing.load(mix)
    with pytest.raises(TokensError, match="no such mix file"):
        mixing.load(tmp_path / "none.yaml")
    with pytest.raises(TokensError, match=r"wiki-005\.parquet and 1 more belong to no source"):
        job([Source("web", str(two), contains=("web/",))], tmp_path / "b")
    with pytest.raises(TokensError, match=r"belongs to the sources 'a' and 'b'"):
        job(
            [Source("a", str(two), contains=("part",)), Source("b", str(two), contains=("web", "wiki"))],
            tmp_path / "b",
        )
    with pytest.raises(TokensError, match=r"source 'x': no shard of .* has \('nothing',\)"):
        job([Source("x", str(two), contains=("nothing",))], tmp_path / "b")
    with pytest.raises(TokensError, match="a have weights and b have none"):
        job([Source("a", "x", weight=1), Source("b", "y")], tmp_path / "b")


def test_ties_of_hashes_are_broken_by_place(monkeypatch):
    """All hashes equal: the first contexts in order are chosen, and counts stay exact."""
    streams = [Stream("", "s", name, n) for name, n in (("a", 5), ("b", 0), ("c", 4))]
    monkeypatch.setattr(shuffle, "picks", lambda stream, seed, numbers: np.full(len(numbers), 7, np.uint64))
    got = shuffle.choose(streams, 0, 9 + 7)
    assert [(c.whole, c.limit, c.ties) for c in got] == [(1, 7, 5), (1, 7, 0), (1, 7, 2)]


def test_ranks_are_those_of_a_sorted_list():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**64, n, dtype=np.uint64) for n in (0, 1, 700, 33)]
    parts.append(np.full(20, parts[2][5]))  # ties
    values = np.sort(np.concatenate(parts))
    for rank, (value, below) in enumerate(shuffle.ranks(lambda: parts, range(len(values)), len(values))):
        assert value == values[rank] and below == np.searchsorted(values, values[rank])


def test_keys_leave_no_order_behind():
    """Neighbours in a stream are far apart in the whole, and streams are dealt evenly over it."""
    streams = [Stream("", "s", f"part-{i}", 4000) for i in range(4)]
    keys = np.concatenate([keys_of(s, 0, np.arange(4000)) for s in streams])
    order = np.argsort(keys)
    assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 12  # 2 are expected
    table = np.bincount(order // 4000 * 16 + np.arange(16_000) // 1000, minlength=64)
    assert ((table - 250) ** 2 / 250).sum() < 110  # chi-square, 45 degrees of freedom
    other = np.argsort(np.concatenate([keys_of(s, 0, np.arange(4000), copy=1) for s in streams]))
    assert abs(np.corrcoef(order, other)[0, 1]) < 0.04


def test_memory_is_that_of_a_run_and_a_shard(tmp_path):
    """Scatter and gather 48 MB of contexts in runs of 1 MB and shards of 2 MB."""
    import tracemalloc

    n, length = 12_000, 2049
    file = tmp_path / "stream.ids"
    rows = (np.arange(n, dtype="<u2")[:, None] + np.zeros(length, "<u2")).astype("<u2")
    file.write_bytes(rows.tobytes())
    stream = Stream("stream.ids", "s", "stream", n)
    tracemalloc.start()
    task = shuffle.Scatter(str(tmp_path), "h", "0", stream, shuffle.Copies(), 0, length, "uint16", 1 << 20)
    record = shuffle.scatter(task)
    runs = [shuffle.Runs(**{**record["runs"], "sizes": tuple(record["runs"]["sizes"])})]
    assert len(runs[0].sizes) == 48
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [record["runs"]]}))
    got = []
    for number, (first, last, skip, count) in enumerate(shuffle.boundaries(str(tmp_path), runs, 500)):
        shuffle.gather(
            shuffle.Gather(str(tmp_path), "h", str(number), f"./{number}.bin", "runs.json", first, last, skip,
                           count, length, "uint16", 1 << 16)
        )  # fmt: skip
        got += np.fromfile(tmp_path / f"{number}.bin", "<u2").reshape(-1, length)[:, 7].tolist()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == np.argsort(keys_of(stream, 0, np.arange(n))).tolist()
    assert peak < 16 << 20


# ---------------------------------------------------------------- interruptions


def test_killed_and_resumed(tmp_path):
    """kill -9 in every stage, again and again: the same bytes as one that was never killed."""
    pool = write_pool(tmp_path / "pool", shards=12, rows=60)
    want = files_of(job(pool, tmp_path / "whole", shard_contexts=20).folder)
    code = (
        "import sys; from recipes.lm.tokenise import tokenise; "
        "tokenise(sys.argv[1], sys.argv[2], tokenizer='bpe4096', shard_contexts=20, progress=False, "
        f"context={T})"
    )
    out, rng, killed_in = tmp_path / "out", random.Random(4), set()
    records = len(list((tmp_path / "whole").rglob("done/*/*.json")))
    points = [rng.randint(1, 11), rng.randint(13, 20), *rng.sample(range(26, records // 2), 2)]
    for target in sorted(points):
        process = subprocess.Popen([sys.executable, "-c", code, str(pool), str(out)])
        # unlike Path.rglob, glob passes over a folder that the job removes meanwhile
        while process.poll() is None and len(glob(f"{out}/**/done/*/*.json", recursive=True)) < target:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not is_tokens(out)
        done = [p.parent.name[:2] for p in out.rglob("done/*/*.json")]
        killed_in.add(max(done, default="1-"))
    assert killed_in >= {"1-", "3-"}
    assert files_of(job(pool, out, shard_contexts=20).folder) == want


@pytest.mark.parametrize("write", range(0, 40, 5))
def test_a_full_disk_leaves_nothing_half(two, tmp_path, monkeypatch, write):
    from curation.outputs import HashingFile

    want = files_of(job(two / "wiki", tmp_path / "whole").folder)
    honest, count = HashingFile.write, 0

    def full(self, data):
        nonlocal count
        count += 1
        if count > write:
            raise OSError(28, "No space left on device")
        return honest(self, data)

    monkeypatch.setattr(HashingFile, "write", full)
    try:
        job(two / "wiki", tmp_path / "out")
    except (RunFailed, OSError) as error:
        assert "No space left on device" in str(error)
        assert not is_tokens(tmp_path / "out")
        for path in (tmp_path / "out").glob("shard-*"):
            assert path.read_bytes() == want[path.name]
    monkeypatch.undo()
    assert files_of(job(two / "wiki", tmp_path / "out").folder) == want


def test_done_is_done_and_other_jobs_are_not_overwritten(two, tmp_path):
    first = job(two / "wiki", tmp_path / "out")
    stamp = (tmp_path / "out" / "shard-00000.bin").stat().st_mtime_ns
    assert job(two / "wiki", tmp_path / "out").fingerprint == first.fingerprint
    assert (tmp_path / "out" / "shard-00000.bin").stat().st_mtime_ns == stamp
    with pytest.raises(TokensError, match="finished tokens of another job"):
        job(two / "wiki", tmp_path / "out", seed=1)
    other = job(two / "wiki", tmp_path / "out", seed=1, shard_contexts=1000, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").glob("shard-*")) == ["shard-00000.bin"]
    assert sorted(everything(other)) == sorted(everything(job(two / "wiki", tmp_path / "out2")))
    (tmp_path / "run" / "_winnow").mkdir(parents=True)
    (tmp_path / "run" / "_winnow" / "plan.json").write_text("{}")
    with pytest.raises(TokensError, match="output of a curation run"):
        job(two / "wiki", tmp_path / "run")


def test_kept_streams_serve_another_seed(two, tmp_path, monkeypatch):
    job(two / "wiki", tmp_path / "out", keep_work=True)
    want = files_of(job(two / "wiki", tmp_path / "fresh", seed=1).folder)
    monkeypatch.setattr(tokenise, "read_texts", None)  # nothing is tokenised again
    assert files_of(job(two / "wiki", tmp_path / "out", seed=1, overwrite=True).folder) == want


# ---------------------------------------------------------------- bad input


def test_vocabulary_of_the_model(two, tmp_path):
    with pytest.raises(TokensError, match=r"tokenizer has 4,096 ids and the model a vocabulary of 4,000"):
        job(two / "wiki", tmp_path / "out", vocab=4000)
    assert len(job(two / "wiki", tmp_path / "out", vocab=4096))


def test_bad_shards_are_named(tmp_path):
    pool = write_pool(tmp_path / "pool", shards=2)
    bad = pool / "bad.jsonl"
    for content, what in (
        (b'{"id": "a", "text": "b"}\n{"id": \n', r"bad\.jsonl, line 2: expected a record with text"),
        (b'{"id": "a"}\n', r"bad\.jsonl, line 1: expected a record with text"),
        (b'{"id": "a", "text": 5}\n', r"bad\.jsonl, line 1: text is int, not text"),
    ):
        bad.write_bytes(content)
        with pytest.raises(RunFailed, match=what):
            job(pool, tmp_path / "out")
    bad.unlink()
    for suffix, data in (
        ("zst", zstandard.ZstdCompressor().compress(b'{"id": "a", "text": "b"}\n' * 9999)[:-20]),
        ("gz", gzip.compress(b'{"id": "a", "text": "b"}\n' * 9999)[:-20]),
    ):
        path = pool / f"bad.jsonl.{suffix}"
        path.write_bytes(data)
        with pytest.raises(
            RunFailed, match=rf"bad\.jsonl\.{suffix}: cannot be read, damaged or cut short \(byte 0\)"
        ):
            job(pool, tmp_path / "out")
        path.unlink()
    path = pool / "part-001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(RunFailed, match=r"part-001\.parquet: cannot be read, damaged or cut short"):
        job(pool, tmp_path / "out")
    pq.write_table(pa.table({"id": ["a"], "body": ["b"]}), path)
    with pytest.raises(
        RunFailed, match=r"part-001\.parquet: no column text; its columns are \['id', 'body'\]"
    ):
        job(pool, tmp_path / "out")
    path.write_bytes(whole)
    assert len(job(pool, tmp_path / "out"))


def test_too_little_text(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"], "text": ["a few words"]}), folder / "a.parquet")
    with pytest.raises(TokensError, match=r"no whole context: .* too little text"):
        job(folder, tmp_path / "out")
    assert tokenise.main([str(folder), str(tmp_path / "out"), "--tokenizer", "bpe4096", "--quiet"]) == 1


def test_scale_on_the_command_line(pool, tmp_path, capsys):
    options = tokenise.for_scale("lm-tiny")
    assert options == {"tokenizer": "bpe4096", "context": 128, "vocab": 4096, "contexts": 3000}
    common = [str(pool), str(tmp_path / "out"), "--scale", "lm-tiny", "--quiet", "--workers", "1"]
    assert tokenise.main(common) == 1
    assert "3,000 contexts were asked for and there are" in capsys.readouterr().err
    assert tokenise.main([*common, "--allow-repeat"]) == 0
    assert "budget 3,000 contexts: " in capsys.readouterr().out
    assert TokenShards.open(tmp_path / "out").length == 129
