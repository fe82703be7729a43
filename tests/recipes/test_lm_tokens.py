"""Token shards, tars, orders of epochs, and the check of them."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import xxhash

from recipes.lm import tars, validate
from recipes.lm.tokens import (
    TokensError,
    TokenShards,
    dtype_for,
    epoch_order,
    open_tokens,
    reading_order,
)

LENGTH = 9


def contexts(n: int, vocab: int = 300, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(1, vocab, (n, LENGTH))
    rows[:, 4] = 0  # every context has an end of text
    return rows


def write_shards(folder, rows: np.ndarray, per_shard: int = 10, vocab: int = 300, **more):
    """A folder of token shards by hand, as its description says."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype_for(vocab)).newbyteorder("<")
    shards = []
    for number, low in enumerate(range(0, len(rows), per_shard)):
        data = rows[low : low + per_shard].astype(dtype).tobytes()
        (folder / f"shard-{number:05d}.bin").write_bytes(data)
        shards.append(
            {
                "file": f"shard-{number:05d}.bin",
                "contexts": len(rows[low : low + per_shard]),
                "xxh3": xxhash.xxh3_128_hexdigest(data),
            }
        )
    info = {
        "format": "winnow-tokens/1",
        "length": LENGTH,
        "dtype": dtype_for(vocab),
        "vocab": vocab,
        "end": 0,
        "tokenizer": "t",
        "tokenizer_hash": "h",
        "contexts": len(rows),
        "tokens": rows.size,
        "budget": len(rows),
        "shards": shards,
        **more,
    }
    (folder / "tokens.json").write_text(json.dumps(info))
    return TokenShards.open(folder)


def write_tars(folder, shards: list[list], suffix: str = ".json.gz", newline: bool = True):
    """Tars as a plain script writes them; a row is a list of whatever."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, rows in enumerate(shards):
        with tarfile.open(folder / f"shard_{number:08d}.tar", "w") as tar:
            for i, row in enumerate(rows):
                data = json.dumps([v if isinstance(v, float) else int(v) for v in row]).encode()
                data = gzip.compress(data) if suffix.endswith(".gz") else data
                member = tarfile.TarInfo(f"{number}-{i}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        lines.append(json.dumps({"shard": f"shard_{number:08d}", "num_sequences": len(rows)}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n" * newline)
    return folder / "manifest.jsonl"


# ---------------------------------------------------------------- token shards


@pytest.mark.parametrize("vocab", [300, 70_000])
def test_rows_come_back_by_number(tmp_path, vocab):
    rows = contexts(37, vocab)
    shards = write_shards(tmp_path / "t", rows, vocab=vocab)
    assert (len(shards), shards.length, shards.vocab) == (37, LENGTH, vocab)
    asked = np.array([36, 0, 10, 9, 10, 20])
    got = shards.rows(asked)
    assert got.dtype == np.int64 and np.array_equal(got, rows[asked])
    assert shards.place(36) == ("shard-00003.bin", 6)
    assert shards.rows(np.array([], np.int64)).shape == (0, LENGTH)
    assert isinstance(open_tokens(tmp_path / "t"), TokenShards)
    with pytest.raises(TokensError, match=r"context 37 of 37"):
        shards.rows(np.array([37]))


def test_fingerprint_sees_every_token_and_its_place(tmp_path):
    rows = contexts(20)
    one = write_shards(tmp_path / "a", rows).fingerprint
    assert one == write_shards(tmp_path / "b", rows).fingerprint
    assert one != write_shards(tmp_path / "c", rows[::-1]).fingerprint


def test_damage_is_named(tmp_path):
    rows = contexts(20)
    write_shards(tmp_path / "cut", rows)
    path = tmp_path / "cut" / "shard-00001.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TokensError, match=r"shard-00001\.bin: 177 bytes where 10 contexts .* have 180"):
        TokenShards.open(tmp_path / "cut")
    path.unlink()
    with pytest.raises(TokensError, match=r"shard-00001\.bin: missing"):
        TokenShards.open(tmp_path / "cut")
    with pytest.raises(TokensError, match=r"no tokens\.json"):
        TokenShards.open(tmp_path)
    rows = contexts(20, 200)
    rows[13, 2] = 299
    shards = write_shards(tmp_path / "ids", rows, vocab=300)
    object.__setattr__(shards, "info", {**shards.info, "vocab": 299})
    with pytest.raises(
        TokensError, match=r"shard-00001\.bin, context 3, token 2: id 299 with a vocabulary of"
    ):
        shards.rows(np.arange(20))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100, 4097])
def test_epochs_are_permutations(n):
    everything = np.arange(n)
    assert np.array_equal(epoch_order(n, 5, 0, everything), everything)
    orders = {(seed, e): epoch_order(n, seed, e, everything) for seed in (0, 1) for e in (1, 2)}
    for order in orders.values():
        assert np.array_equal(np.sort(order), everything)
    if n >= 64:
        assert len({o.tobytes() for o in orders.values()}) == 4
        some = np.array([n - 1, 3, 40])  # any part of an epoch, without the rest
        assert np.array_equal(epoch_order(n, 1, 2, some), orders[1, 2][some])
    with pytest.raises(TokensError, match="position"):
        epoch_order(n, 0, 1, np.array([n]))


def test_epochs_leave_no_order_behind():
    """Neighbours of an epoch are no neighbours before, and places are even (chi-square, 99.99 %)."""
    n = 1 << 14
    order = epoch_order(n, 3, 1, np.arange(n))
    assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 20  # 2 are expected
    table = np.bincount(order // (n // 16) * 16 + np.arange(n) // (n // 16), minlength=256)
    chi = ((table - n / 256) ** 2 / (n / 256)).sum()
    assert chi < 310


def test_reading_order_reads_every_context_once_an_epoch():
    order = reading_order(50, 9, np.arange(175))
    assert np.array_equal(order[:50], np.arange(50))
    for epoch in range(3):
        assert sorted(order[epoch * 50 : epoch * 50 + 50]) == list(range(50))
    assert np.array_equal(reading_order(50, 9, np.array([170, 60])), order[[170, 60]])


# ---------------------------------------------------------------- tars


def test_tars_hold_what_the_shards_hold(tmp_path):
    rows = contexts(37)
    shards = write_shards(tmp_path / "t", rows)
    got = tars.export(shards, tmp_path / "w", shard_contexts=16, progress=False)
    assert (len(got), got.length, got.vocab, got.tokenizer_hash) == (37, LENGTH, 300, "h")
    assert np.array_equal(got.rows(np.array([36, 0, 17, 16])), rows[[36, 0, 17, 16]])
    assert got.place(17) == ("shard_00000001.tar", 1)
    text = (tmp_path / "w" / "manifest.jsonl").read_text()
    # as open_lm reads it: what follows the last end of line is dropped
    seen = [json.loads(line) for line in text.split("\n")[:-1]]
    assert seen == [{"shard": f"shard_{i:08d}", "num_sequences": n} for i, n in enumerate([16, 16, 5])]
    plain = []
    for entry in seen:
        with tarfile.open(tmp_path / "w" / f"{entry['shard']}.tar") as tar:
            for member in tar:
                assert member.name.endswith(".json.gz")
                plain.append(json.loads(gzip.decompress(tar.extractfile(member).read())))
    assert np.array_equal(np.array(plain), rows)
    assert list(validate.problems(tmp_path / "w")) == []
    with pytest.raises(TokensError, match=r"tokenizer of 300 ids, and the model has a vocabulary of 299"):
        open_tokens(tmp_path / "w", vocab=299)
    again = tars.export(shards, tmp_path / "again", shard_contexts=16, progress=False)
    assert again.fingerprint == got.fingerprint
    for path in (tmp_path / "w").glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_tars_have_further_epochs_written_out(tmp_path):
    rows = contexts(20)
    shards = write_shards(tmp_path / "t", rows, budget=50)
    got = tars.export(shards, tmp_path / "w", shard_contexts=16, seed=4, progress=False)
    assert np.array_equal(got.rows(np.arange(50)), rows[reading_order(20, 4, np.arange(50))])


@pytest.mark.parametrize("suffix", [".json.gz", ".json", ".txt"])
@pytest.mark.parametrize("newline", [True, False])
def test_tars_of_others(tmp_path, suffix, newline):
    rows = contexts(12)
    manifest = write_tars(tmp_path, [rows[:7], rows[7:]], suffix, newline)
    got = tars.TarContexts.open(manifest, vocab=300)
    assert (len(got), got.length) == (12, LENGTH)
    assert np.array_equal(got.rows(np.arange(12)), rows)
    found = list(validate.problems(tmp_path, vocab=300))
    assert len(found) == (0 if newline else 1)
    if not newline:
        assert "open_lm would never train on shard_00000001.tar" in found[0]


def test_odd_ids_are_errors_or_read_as_open_lm_does(tmp_path):
    rows = contexts(4).tolist()
    rows[1][3], rows[2][5], rows[3][6] = -1, 7.5, 300
    write_tars(tmp_path, [rows])
    plain = tars.TarContexts.open(tmp_path, vocab=300)
    with pytest.raises(
        TokensError, match=r"shard_00000000\.tar, member 0-1\.json\.gz, token 3: id -1 .*compat"
    ):
        plain.rows(np.array([1]))
    with pytest.raises(TokensError, match=r"member 0-2.*token 5: 7\.5 is no whole number"):
        plain.rows(np.array([2]))
    compat = tars.TarContexts.open(tmp_path, vocab=300, compat="open_lm")
    assert compat.rows(np.array([1]))[0, 3] == 299 and compat.rows(np.array([2]))[0, 5] == 0
    with pytest.raises(TokensError, match=r"member 0-3.*token 6: id 300 with a vocabulary of 300"):
        compat.rows(np.array([3]))
    assert len(list(validate.problems(tmp_path, vocab=300))) == 3
    assert len(list(validate.problems(tmp_path, vocab=300, compat="open_lm"))) == 1
    assert compat.fingerprint != plain.fingerprint


def test_a_tar_cut_short_is_named(tmp_path):
    write_tars(tmp_path, [contexts(9), contexts(9, seed=1)])
    path = tmp_path / "shard_00000001.tar"
    whole = path.read_bytes()
    for size, what in (
        (512 * 9 + 100, "cut short in member|not a whole tar"),
        (512 * 8, "8 says 9|cut short"),
    ):
        path.write_bytes(whole[:size])
        got = tars.TarContexts.open(tmp_path, vocab=300)
        assert got.rows(np.array([3])).shape == (1, LENGTH)
        with pytest.raises(TokensError, match=rf"shard_00000001\.tar: .*({what})"):
            got.rows(np.array([12]))
        assert any("shard_00000001.tar" in p for p in validate.problems(tmp_path, vocab=300))
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(TokensError, match=r"shard_00000001\.tar: not a whole tar"):
        tars.TarContexts.open(tmp_path, vocab=300).rows(np.array([12]))


def test_a_manifest_that_disagrees(tmp_path):
    rows = contexts(9)
    manifest = write_tars(tmp_path, [rows, rows])
    manifest.write_text(manifest.read_text().replace('"num_sequences": 9', '"num_sequences": 8', 1))
    with pytest.raises(TokensError, match=r"shard_00000000\.tar: 9 contexts and manifest\.jsonl says 8"):
        tars.TarContexts.open(manifest, vocab=300).rows(np.array([0]))
    manifest.write_text('{"shard": "shard_00000000", "num_sequences": 9}\n')
    (found,) = validate.problems(manifest, vocab=300)
    assert "shard_00000001.tar: not listed" in found
    for text, what in (
        ('{"shard": "shard_00000007", "num_sequences": 9}\n', r"line 1: shard_00000007\.tar is not there"),
        ('{"shard": "../x", "num_sequences": 9}\n', "names no tar"),
        ('{"shrd": "x"}\n', "line 1: expected shard and num_sequences"),
        ("\n", "no shard is listed"),
    ):
        manifest.write_text(text)
        with pytest.raises(TokensError, match=what):
            tars.TarContexts.open(manifest)
        assert len(list(validate.problems(manifest))) == 1


# ---------------------------------------------------------------- the check


def test_validate_token_shards(tmp_path, capsys):
    rows = contexts(30)
    folder = tmp_path / "t"
    write_shards(folder, rows)
    assert validate.main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith("30 contexts, 270 tokens, ids up to ")
    assert validate.main([str(folder), "--vocab", "200"]) == 1
    error = capsys.readouterr().err
    assert "the tokenizer has 300 ids, the model a vocabulary of 200" in error
    assert "shard-00000.bin, context" in error
    path = folder / "shard-00002.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-2] + b"\x01\x00")
    (found,) = validate.problems(folder)
    assert "shard-00002.bin: its bytes are not those that were written" in found
    path.write_bytes(good[:-2])
    assert any("178 bytes where 10 contexts have 180" in p for p in validate.problems(folder))
    path.write_bytes(good[:10] + b"\xff\xff" + good[12:])
    assert any("shard-00002.bin, context 0, token 5: id 65535" in p for p in validate.problems(folder))
    path.write_bytes(good)
    (folder / "shard-00009.bin").write_bytes(good)
    (found,) = validate.problems(folder)
    assert "shard-00009.bin: not listed" in found
    rows[rows == 0] = 1
    write_shards(tmp_path / "endless", rows)
    (found,) = validate.problems(tmp_path / "endless")
    assert "no context holds an end of text" in found
