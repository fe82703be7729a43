"""Sources on files: the same batches whoever reads them, subsets, weights, object stores, bounded memory."""

import gc
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import object_store

torch = pytest.importorskip("torch", reason="torch is not installed")

from clip_pools import SIZE, Settings, numbers, pool, rows, seen, source, uid, write_tar  # noqa: E402

import curation as c  # noqa: E402
from curation.subsets import write_subset  # noqa: E402
from filters.image_text.pixels import Pixels  # noqa: E402
from recipes.clip.data import DataError, load_pairs  # noqa: E402
from recipes.clip.sampling import ExactEpochs, SamplingError  # noqa: E402
from recipes.clip.stream import open_source  # noqa: E402

SIZES = (100, 31, 60)


def test_the_in_memory_case_is_exact_epochs_and_augment(tmp_path):
    from recipes.clip.augment import augment

    pool(tmp_path / "pool", (20, 9))
    settings = Settings(40, 8, shift=2, crop=0.8, resized_crop=None)
    opened = source(tmp_path / "pool", settings, tmp_path, seed=3)
    pairs = load_pairs(tmp_path / "pool", Pixels(size=SIZE))
    assert (opened.rows, opened.distinct_rows, opened.fingerprint) == (29, 29, pairs.fingerprint)
    order = list(ExactEpochs(pairs.repeats, 8, 3).batches(5))
    for batch, wanted in zip(opened.batches(1, 5, (2, 6)), order[1:], strict=True):
        whole = augment(pairs.pixels[wanted], settings, 3, batch.step)
        assert np.array_equal(batch.pixels.numpy(), whole[2:6])
        assert batch.ids == [pairs.ids[i] for i in wanted[2:6]]
        assert batch.tokens.tolist() == numbers([pairs.captions[i] for i in wanted[2:6]]).tolist()
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("form", ["tar", "parquet", "tar.gz"])
@pytest.mark.parametrize("sampling", ["epochs", "shards_with_replacement"])
def test_batches_do_not_depend_on_processes_workers_or_resuming(form, sampling, tmp_path):
    folder = pool(tmp_path / "pool", SIZES, form)
    settings = Settings(8 * 60, 8, sampling=sampling)
    opened = source(folder, settings, tmp_path, seed=1)
    whole = list(opened.batches(0, 60, (0, 8)))
    assert [b.step for b in whole] == list(range(60))
    for processes in (2, 4):
        width = 8 // processes
        parts = [list(opened.batches(0, 60, (p * width, (p + 1) * width))) for p in range(processes)]
        for step, batch in enumerate(whole):
            assert torch.equal(torch.cat([p[step].pixels for p in parts]), batch.pixels)
            assert torch.equal(torch.cat([p[step].tokens for p in parts]), batch.tokens)
            assert [name for p in parts for name in p[step].ids] == batch.ids
    with_workers = source(folder, settings, tmp_path, seed=1, workers=2)
    for first in (0, 37, 59):
        for a, b in zip(with_workers.batches(first, 60, (0, 8)), whole[first:], strict=True):
            assert torch.equal(a.pixels, b.pixels) and torch.equal(a.tokens, b.tokens)
            assert (a.step, a.ids, a.position) == (b.step, b.ids, b.position)
    assert all(b.ids == [uid(n) for n in b.tokens[:, 0].tolist()] for b in whole)


def test_workers_may_be_further_ahead_than_blocks_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.clip.order.BLOCK_ROWS", 8)
    folder, settings = pool(tmp_path / "pool", SIZES), Settings(8 * 21, 8)
    one = source(folder, settings, tmp_path)
    assert one.sampling["depth"] == 4  # jobs in a block; three workers have six under way
    many = list(source(folder, settings, tmp_path, workers=3).batches(0, 21, (0, 8)))
    for a, b in zip(many, one.batches(0, 21, (0, 8)), strict=True):
        assert torch.equal(a.pixels, b.pixels) and a.ids == b.ids


def test_forms_hold_the_same_rows_in_the_same_order(tmp_path):
    settings = Settings(8 * 40, 8)
    found = {}
    for form in ("tar", "parquet", "tar.gz"):
        opened = source(pool(tmp_path / form, SIZES, form), settings, tmp_path)
        assert opened.sampling["order"] == "blocks" and opened.rows == opened.distinct_rows == 191
        found[form] = (
            seen(opened, 40, batch=8),
            torch.stack([b.pixels for b in opened.batches(0, 9, (0, 8))]),
        )
    for order, pixels in found.values():
        assert np.array_equal(order, found["tar"][0]) and torch.equal(pixels, found["tar"][1])


def test_a_step_is_the_same_whatever_is_read_ahead_or_left(tmp_path):
    opened = source(pool(tmp_path / "pool", SIZES), Settings(8 * 60, 8), tmp_path, workers=2)
    stream = opened.batches(0, 60, (0, 8))
    first = [next(stream).ids for _ in range(3)]
    stream.close()  # a trainer that stops leaves nothing running
    assert [b.ids for b in opened.batches(0, 3, (0, 8))] == first


def test_pool_tars_and_a_subset_are_the_resharded_tars(tmp_path):
    """A subset with multiplicity, applied by the loader or by the engine's plan before it."""
    content = rows(0, 191)
    (tmp_path / "pq").mkdir()
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "pq" / "a.parquet")
    folder = pool(tmp_path / "pool", SIZES)
    chosen = [uid(n) for n in range(0, 191, 2)] + [uid(n) for n in range(0, 191, 10)] * 2
    write_subset(tmp_path / "ids.npy", pa.array(chosen))
    c.run(
        [c.read(tmp_path / "pq"), c.subset(tmp_path / "ids.npy"), c.write(tmp_path / "kept", format="wds")],
        progress=False,
        funnel=False,
    )
    wanted = np.bincount([*range(0, 191, 2), *range(0, 191, 10), *range(0, 191, 10)], minlength=191)
    total = int(wanted.sum())
    for resized in (None, (0.9, 1.0)):  # in memory, and read from the shards
        settings = Settings(total * 4, 4, resized_crop=resized)
        pools = source(folder, settings, tmp_path, subset=tmp_path / "ids.npy")
        kept = source(tmp_path / "kept", settings, tmp_path)
        assert pools.rows == kept.rows == total and pools.distinct_rows == kept.distinct_rows == 96
        assert pools.sampling["subset_missing"] == 0
        for opened in (pools, kept):
            batches = seen(opened, total, batch=4)
            assert np.bincount(batches.reshape(-1), minlength=191).tolist() == (4 * wanted).tolist()
            assert all(len(set(row)) == 4 for row in batches.tolist())


def test_a_subset_that_the_pool_lacks_is_counted_and_must_be_allowed(tmp_path):
    folder = pool(tmp_path / "pool", SIZES)
    write_subset(
        tmp_path / "ids.npy", pa.array([uid(n) for n in range(100)] + [uid(n) for n in range(900, 912)])
    )
    for resized in (None, (0.9, 1.0)):
        settings = Settings(80, 8, resized_crop=resized)
        with pytest.raises(DataError, match=r"12 of the subset's 112 uids are not in .*allow_missing"):
            source(folder, settings, tmp_path, subset=tmp_path / "ids.npy")
        opened = source(folder, settings, tmp_path, subset=tmp_path / "ids.npy", allow_missing=True)
        assert opened.rows == 100 and opened.sampling["subset_missing"] == 12


def test_few_rows_are_seen_in_the_order_of_the_in_memory_case(tmp_path):
    """Random crops need the files; the order is still that of rows by id."""
    folder = pool(tmp_path / "pool", (20, 9))
    squares = source(folder, Settings(80, 8, resized_crop=None), tmp_path)
    crops = source(folder, Settings(80, 8), tmp_path)
    assert crops.sampling["order"] == "rows"
    assert np.array_equal(seen(squares, 10, batch=8), seen(crops, 10, batch=8))


def test_weights_by_folder_and_by_column(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_tar(a / "00000000.tar", rows(0, 60))
    write_tar(b / "00000000.tar", rows(60, 180))
    settings = Settings(8 * 90, 8, sampling="weighted")
    for weights in ([2.0, 1.0], {str(a): 2.0, str(b): 1.0}):
        opened = source([a, b], settings, tmp_path, weights=weights)
        counts = np.bincount(seen(opened, 90, batch=8).reshape(-1), minlength=180)
        # 720 samples over 60 · 2 + 120 · 1 = 240 units of weight: 6 and 3 times
        assert counts.tolist() == [6] * 60 + [3] * 120
        assert opened.sampling["kind"] == "weighted" and opened.sampling["seed"] == 0
    for folder in (pool(tmp_path / "tars", (100, 80)), pool(tmp_path / "pq", (100, 80), "parquet")):
        opened = source(folder, settings, tmp_path, weights="quality")
        counts = np.bincount(seen(opened, 90, batch=8).reshape(-1), minlength=180)
        # weights 0, 1, 2 in turn: 720 / 180 = 4 a unit
        assert counts.tolist() == [0, 4, 8] * 60


def test_weights_that_make_no_sense_are_refused(tmp_path):
    folder = pool(tmp_path / "pool", SIZES)
    weighted = Settings(160, 8, sampling="weighted")
    for settings, weights, message in (
        (weighted, None, "sampling: weighted needs weights"),
        (Settings(160, 8), "quality", "sampling: epochs takes no weights"),
        (Settings(160, 8, sampling="nonsense"), None, 'sampling is "nonsense"; use one of epochs, weighted'),
        (Settings(160, 8, sampling="shards_with_replacement"), "quality", 'not the column "quality"'),
        (weighted, [1.0, 2.0], "2 weights for 1 places of data"),
        (weighted, {"elsewhere": 1.0}, "weights for elsewhere; the data are"),
        (weighted, [-1.0], "finite and >= 0"),
        (weighted, [0.0], "the weights sum to 0"),
    ):
        with pytest.raises(SamplingError, match=message):
            source(folder, settings, tmp_path, weights=weights)
    with pytest.raises(DataError, match=r"00000000\.tar, row 0.*weight colour is None"):
        source(folder, weighted, tmp_path, weights="colour")


def test_processes_that_do_not_divide_the_lanes_are_refused(tmp_path):
    opened = source(pool(tmp_path / "pool", (600, 30)), Settings(64 * 20, 64), tmp_path)
    assert opened.sampling["lanes"] == 64
    next(opened.batches(0, 20, (0, 64 // 4)))
    opened._order.lanes = 16
    with pytest.raises(SamplingError, match=r"cut a lane of 4 in two.*divides 16: 1, 2, 4, 8, 16"):
        next(opened.batches(0, 20, (0, 30)))


def test_more_processes_than_datacomps_manner_has_lanes(tmp_path):
    settings = Settings(64 * 4, 64, sampling="shards_with_replacement")
    opened = source(pool(tmp_path / "pool", (60, 30)), settings, tmp_path)
    assert opened.sampling["lanes"] == 32
    whole = seen(opened, 4, batch=64)
    for process in (0, 21, 63):
        assert np.array_equal(seen(opened, 4, share=(process, process + 1)), whole[:, process : process + 1])


def test_a_table_and_pairs(tmp_path):
    table = pa.Table.from_pylist([{**row, "id": row["uid"]} for row in rows(0, 40)])
    memory = source(table, Settings(64, 8, resized_crop=None), tmp_path)
    crops = source(table, Settings(64, 8), tmp_path)
    assert np.array_equal(seen(memory, 8, batch=8), seen(crops, 8, batch=8))
    pairs = load_pairs(table, Pixels(size=SIZE))
    again = source(pairs, Settings(64, 8, resized_crop=None), tmp_path)
    assert np.array_equal(seen(again, 8, batch=8), seen(memory, 8, batch=8))
    with pytest.raises(DataError, match="Pairs hold decoded squares"):
        source(pairs, Settings(64, 8), tmp_path)


def test_decoded_sets_above_the_limit_are_streamed(tmp_path, monkeypatch):
    from recipes.clip import stream

    folder = pool(tmp_path / "pool", SIZES)
    settings = Settings(80, 8, resized_crop=None, shift=1)
    monkeypatch.setattr(stream, "IN_MEMORY", 191 * SIZE * SIZE * 3)
    assert isinstance(source(folder, settings, tmp_path), stream.InMemory)
    monkeypatch.setattr(stream, "IN_MEMORY", 190 * SIZE * SIZE * 3)
    opened = source(folder, settings, tmp_path)
    assert isinstance(opened, stream.Stream)
    batch = next(opened.batches(3, 10, (0, 8)))
    half = next(opened.batches(3, 10, (4, 8)))
    assert torch.equal(batch.pixels[4:], half.pixels)


def test_an_index_is_made_once_and_only_of_what_changed(tmp_path):
    folder = pool(tmp_path / "pool", SIZES)
    settings = Settings(80, 8)
    first = source(folder, settings, tmp_path)
    parts = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "index").glob("part-*")}
    assert len(parts) == 3
    assert source(folder, settings, tmp_path).fingerprint == first.fingerprint
    write_tar(folder / "00000001.tar", rows(500, 531))
    changed = source(folder, settings, tmp_path)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "index").glob("part-*")}
    assert changed.fingerprint != first.fingerprint
    assert parts.items() <= after.items() and len(after) == 4


def test_the_fingerprint_is_of_the_rows_and_not_of_the_place(tmp_path):
    settings = Settings(80, 8)
    one = source(pool(tmp_path / "one", SIZES), settings, tmp_path)
    two = source(pool(tmp_path / "two", SIZES), settings, tmp_path, workers=2)
    assert one.fingerprint == two.fingerprint
    write_subset(tmp_path / "ids.npy", pa.array([uid(n) for n in range(100)]))
    assert (
        one.fingerprint
        != source(tmp_path / "one", settings, tmp_path, subset=tmp_path / "ids.npy").fingerprint
    )


def test_a_datacomp_pool_is_found_by_its_layout(tmp_path):
    folder = pool(tmp_path / "pool" / "shards", SIZES)
    (tmp_path / "pool" / "metadata").mkdir()
    pq.write_table(pa.table({"uid": [uid(0)]}), tmp_path / "pool" / "metadata" / "a.parquet")
    for number in range(3):
        (folder / f"{number:08d}_stats.json").write_text('{"count": 1}')
        pq.write_table(pa.table({"uid": [uid(0)], "status": ["success"]}), folder / f"{number:08d}.parquet")
    assert source(tmp_path / "pool", Settings(80, 8), tmp_path).rows == 191
    (folder / "00000001.tar").unlink()
    with pytest.raises(DataError, match=r"1 tars are missing \(00000001\.tar\)"):
        source(tmp_path / "pool", Settings(80, 8), tmp_path)


def test_ids_that_are_no_uids_stay_as_they_are(tmp_path):
    content = [{**row, "uid": f"cat-{number}"} for number, row in enumerate(rows(0, 90))]
    write_tar(tmp_path / "pool" / "a.tar", content)
    opened = source(tmp_path / "pool", Settings(80, 8), tmp_path)
    batch = next(opened.batches(0, 10, (0, 8)))
    assert batch.ids == [f"cat-{n}" for n in batch.tokens[:, 0].tolist()]


def test_captions_in_the_json_are_read_too(tmp_path):
    import io
    import json
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, row in enumerate(rows(0, 90)):
            meta = json.dumps({"uid": row["uid"], "caption": row["text"]}).encode()
            for suffix, data in (("json", meta), ("jpg", row["image"])):
                info = tarfile.TarInfo(f"{number:012d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    opened = source(tmp_path / "a.tar", Settings(80, 8), tmp_path)
    for batch in opened.batches(0, 10, (0, 8)):
        assert batch.ids == [uid(n) for n in batch.tokens[:, 0].tolist()]


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_memory_is_bounded_whatever_the_pool_weighs(form, tmp_path, monkeypatch):
    """A pool of 40 MB of images, streamed with less than 8 MB of memory."""
    from recipes.clip import order, reading

    monkeypatch.setattr(order, "BLOCK_ROWS", 64)
    monkeypatch.setattr(reading, "REQUEST", 1 << 20)
    heavy = rows(0, 1)[0]["image"] + bytes(52_000)  # a JPEG may be followed by anything
    number = 0
    for shard in range(8):
        content = [{**row, "image": heavy} for row in rows(number, number + 100)]
        number += 100
        if form == "tar":
            write_tar(tmp_path / "pool" / f"{shard:08d}.tar", content)
        else:
            (tmp_path / "pool").mkdir(exist_ok=True)
            pq.write_table(
                pa.Table.from_pylist(content),
                tmp_path / "pool" / f"{shard:08d}.parquet",
                row_group_size=20,
                compression="none",
                use_dictionary=False,
            )
    del content
    size = sum(p.stat().st_size for p in (tmp_path / "pool").iterdir())
    assert size > 40e6
    settings = Settings(800, 8)
    warm = source(pool(tmp_path / "warm", SIZES, form), Settings(80, 8), tmp_path)
    assert seen(warm, 10, batch=8).shape == (10, 8)  # what is imported on first use is not counted
    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        opened = source(tmp_path / "pool", settings, tmp_path)
        seen_numbers = []
        most_arrow = 0
        for batch in opened.batches(0, 100, (0, 8)):
            seen_numbers += batch.tokens[:, 0].tolist()
            most_arrow = max(most_arrow, pa.total_allocated_bytes() - arrow)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(seen_numbers) == list(range(800))
    assert peak < 8e6 and most_arrow < 8e6


def test_spool_files_of_two_blocks_at_most_and_none_when_closed(tmp_path, monkeypatch):
    from recipes.clip import order

    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(order, "BLOCK_ROWS", 64)
    (tmp_path / "spool").mkdir()
    opened = source(pool(tmp_path / "pool", SIZES, "parquet"), Settings(8 * 60, 8), tmp_path)
    for _ in opened.batches(0, 60, (0, 8)):
        assert len(list((tmp_path / "spool").glob("*/*"))) <= 3
    assert not list((tmp_path / "spool").iterdir())


@pytest.fixture
def bucket():
    with object_store("pool") as client:
        yield client


def test_an_object_store_gives_the_same_batches(bucket, tmp_path):
    settings = Settings(8 * 40, 8)
    for form in ("tar", "parquet"):
        folder = pool(tmp_path / form, SIZES, form)
        for file in folder.iterdir():
            bucket.put_object(Bucket="pool", Key=f"{form}/{file.name}", Body=file.read_bytes())
        local = list(source(folder, settings, tmp_path).batches(5, 40, (0, 4)))
        opened = source(f"s3://pool/{form}", settings, tmp_path)
        for a, b in zip(opened.batches(5, 40, (0, 4)), local, strict=True):
            assert torch.equal(a.pixels, b.pixels) and a.ids == b.ids
    with_workers = source("s3://pool/tar", settings, tmp_path, workers=2)
    tars = source(tmp_path / "tar", settings, tmp_path).batches(5, 40, (0, 8))
    for a, b in zip(with_workers.batches(5, 40, (0, 8)), tars, strict=True):
        assert torch.equal(a.pixels, b.pixels)
    body = (tmp_path / "tar" / "00000002.tar").read_bytes()
    stream = opened = source("s3://pool/tar", settings, tmp_path)
    bucket.put_object(Bucket="pool", Key="tar/00000002.tar", Body=body[:-1024] + body[:1024])
    with pytest.raises(DataError, match=r"s3://pool/tar/00000002\.tar changed since its index was made"):
        list(stream.batches(0, 40, (0, 8)))


def test_a_fault_that_passes_is_tried_again_and_one_that_stays_is_named(tmp_path, monkeypatch):
    from recipes.clip import index, reading

    monkeypatch.setattr(index, "PAUSE", 0)
    failures = iter([OSError("connection reset")] * 3 + [None] * 1000)
    original = reading._spool_parquet

    def flaky(*args):
        error = next(failures)
        if error is not None:
            raise error
        return original(*args)

    monkeypatch.setattr(reading, "_spool_parquet", flaky)
    folder = pool(tmp_path / "pool", SIZES, "parquet")
    opened = source(folder, Settings(80, 8), tmp_path)
    assert seen(opened, 10, batch=8).shape == (10, 8)
    failures = iter([OSError("connection reset")] * 1000)
    with pytest.raises(DataError, match=r"\.parquet cannot be read, 5 times: connection reset; resume"):
        list(opened.batches(0, 10, (0, 8)))


def test_an_index_of_a_store_that_falters_is_whole(tmp_path, monkeypatch):
    """Neither a shard's rows nor the choice between memory and stream may depend on the network."""
    import fsspec

    from curation import storage
    from recipes.clip import index

    monkeypatch.setattr(index, "PAUSE", 0)
    store = fsspec.filesystem("memory")
    folder = pool(tmp_path / "pool", SIZES)
    for file in folder.iterdir():
        store.pipe_file(f"/falters/{file.name}", file.read_bytes())
    opening, calls = storage.open_read, iter(range(10_000))

    class Falters:
        def __init__(self, file):
            self.file, self.left = file, 40

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, size=-1):
            self.left -= 1
            if self.left == 0:
                raise ConnectionResetError("connection reset")
            return self.file.read(size)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    def falters(url):
        file = opening(url)
        return Falters(file) if "falters" in url and next(calls) % 2 == 0 else file

    monkeypatch.setattr(storage, "open_read", falters)
    opened = source("memory://falters", Settings(80, 8), tmp_path)
    assert opened.rows == 191
    assert opened.fingerprint == source(folder, Settings(80, 8), tmp_path).fingerprint
    assert index.count_rows(opened._index.shards, 1000) == 191
    assert np.array_equal(
        seen(opened, 10, batch=8), seen(source(folder, Settings(80, 8), tmp_path), 10, batch=8)
    )
    store.rm("/falters", recursive=True)


def test_open_source_is_importable_as_the_trainer_calls_it(tmp_path):
    opened = open_source(
        pool(tmp_path / "pool", SIZES), Pixels(size=SIZE), numbers, Settings(80, 8), 0, index=tmp_path / "i"
    )
    assert "191 pairs (191 distinct) of 191 rows in 3 shards" in opened.about
    assert opened.bytes == sum(p.stat().st_size for p in (tmp_path / "pool").iterdir())
