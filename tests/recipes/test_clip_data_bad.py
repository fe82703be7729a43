"""Bad input to the CLIP trainer's data: faults are named with file and row, nothing is left out silently."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from clip_pools import Settings, jpeg, pool, rows, seen, source, uid, write_tar  # noqa: E402

from recipes.clip.data import DataError  # noqa: E402
from recipes.clip.sampling import SamplingError  # noqa: E402

FEW = Settings(80, 8)
BOTH = pytest.mark.parametrize("form", ["tar", "parquet"])


def refused(data, tmp_path, message, kind=DataError, **options):
    with pytest.raises(kind, match=message):
        opened = source(data, FEW, tmp_path, **options)
        list(opened.batches(0, 10, (0, 8)))


def broken_pool(tmp_path, form, change):
    """A pool whose second shard has row 4 changed."""
    folder = pool(tmp_path / "pool", (60, 30), form)
    content = rows(60, 90)
    content[4] = {**content[4], **change}
    if form == "tar":
        write_tar(folder / "00000001.tar", content)
    else:
        pq.write_table(pa.Table.from_pylist(content), folder / "00000001.parquet")
    return folder


def test_nothing_there(tmp_path):
    refused(tmp_path / "nowhere", tmp_path, "no shards to train on.*nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "no shards")
    write_tar(tmp_path / "void" / "a.tar", [])
    refused(tmp_path / "void", tmp_path, "no image-text pairs in .*void")


def test_a_named_tar_that_is_missing(tmp_path):
    folder = pool(tmp_path / "pool")
    refused([folder / "00000000.tar", folder / "00000009.tar"], tmp_path, r"00000009\.tar")


def test_a_resharded_set_that_lost_a_tar(tmp_path):
    folder = pool(tmp_path / "pool")
    meta = {"output_shard_count": 4, "output_shard_format": "{:08d}.tar"}
    (folder / "meta.json").write_text(json.dumps(meta))
    refused(folder, tmp_path, r"1 tars are missing \(00000003\.tar\)")


@BOTH
def test_a_caption_that_is_null(form, tmp_path):
    folder = broken_pool(tmp_path, form, {"text": None})
    refused(folder, tmp_path, rf"00000001\.{form}.*row 4.*null caption")


def test_a_caption_that_is_not_utf8(tmp_path):
    folder = broken_pool(tmp_path, "tar", {"text": "café".encode("latin-1")})
    refused(folder, tmp_path, r"00000001\.tar: row 4 \(sample 000000010004 at byte \d+\).*not UTF-8")
    data = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.array([0, 3, 7, 10], np.int32)), pa.py_buffer(b"onecaf\xe9two")
    )
    table = pa.table({"uid": [uid(i) for i in range(3)], "text": data, "image": [jpeg(i) for i in range(3)]})
    pq.write_table(table, tmp_path / "latin.parquet")
    refused(tmp_path / "latin.parquet", tmp_path, r"latin\.parquet, row 1: the caption is not UTF-8")


@BOTH
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_named_when_it_is_read(form, workers, tmp_path):
    folder = broken_pool(tmp_path, form, {"image": b"\xff\xd8 no image"})
    message = rf"00000001\.{form}, row 4 \(id {uid(64)}\): cannot decode an image of 11 bytes.*ImageBasics"
    refused(folder, tmp_path, message, workers=workers)


@BOTH
def test_an_image_that_is_null(form, tmp_path):
    folder = broken_pool(tmp_path, form, {"image": None})
    refused(folder, tmp_path, rf"00000001\.{form}.*row 4.*(no image|null image)")


def test_a_cut_tar(tmp_path):
    folder = pool(tmp_path / "pool", (60, 30))
    data = (folder / "00000001.tar").read_bytes()
    (folder / "00000001.tar").write_bytes(data[: 1536 * 9 + 700])
    refused(folder, tmp_path, r"00000001\.tar: after row \d+: the tar is cut short")
    zipped = pool(tmp_path / "zipped", (60, 30), "tar.gz")
    data = (zipped / "00000001.tar.gz").read_bytes()
    (zipped / "00000001.tar.gz").write_bytes(data[: len(data) // 2])
    refused(zipped, tmp_path, r"00000001\.tar\.gz: after row \d+: .*fetch the shard again")


def test_a_damaged_tar_header(tmp_path):
    folder = pool(tmp_path / "pool", (60, 30))
    data = bytearray((folder / "00000001.tar").read_bytes())
    with tarfile.open(folder / "00000001.tar") as tar:
        at = tar.getmembers()[30].offset
    data[at + 3] ^= 0x55
    (folder / "00000001.tar").write_bytes(data)
    refused(folder, tmp_path, rf"00000001\.tar: after row 8: damaged tar header at byte {at}")


def test_a_file_that_is_no_parquet(tmp_path):
    folder = pool(tmp_path / "pool", (60, 30), "parquet")
    (folder / "00000001.parquet").write_bytes(b"PAR1 not really PAR1")
    refused(folder, tmp_path, r"00000001\.parquet: not a readable parquet file")


def test_columns_that_are_missing(tmp_path):
    pq.write_table(pa.table({"uid": [uid(1)], "caption": ["x"], "image": [b""]}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", tmp_path, r"a\.parquet lacks the column text; it has uid, caption, image")


def test_images_that_are_no_bytes(tmp_path):
    images = [{"bytes": jpeg(1), "path": "1.jpg"}]
    pq.write_table(pa.table({"uid": [uid(1)], "text": ["x"], "image": images}), tmp_path / "a.parquet")
    refused(
        tmp_path / "a.parquet", tmp_path, r"a\.parquet: the column image is struct.*must be the files' bytes"
    )


def test_other_formats(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    refused(tmp_path / "a.jsonl", tmp_path, r"a\.jsonl: the trainer reads tars and parquet, not jsonl")


def test_broken_rows_can_be_left_out_and_are_counted(tmp_path):
    folder = broken_pool(tmp_path, "tar", {"text": None})
    opened = source(folder, FEW, tmp_path, bad="skip")
    assert opened.rows == 89 and opened.sampling["skipped"] == 1
    assert "1 broken rows left out" in opened.about
    assert "row 4 (sample 000000010004" in opened.sampling["skipped_examples"][0]
    assert 64 not in seen(opened, 10, batch=8)
    # an index made so is not taken for a whole one
    refused(folder, tmp_path, "null caption")


def test_too_few_for_a_batch(tmp_path):
    folder = pool(tmp_path / "pool", (4, 3))
    refused(folder, tmp_path, "7 distinct pairs cannot fill a batch of 8", kind=SamplingError)


@BOTH
def test_a_shard_that_changed_or_went_since_the_index_was_made(form, tmp_path):
    folder = pool(tmp_path / "pool", (60, 30), form)
    opened = source(folder, FEW, tmp_path)
    shard = folder / f"00000001.{form}"
    data = shard.read_bytes()
    shard.write_bytes(data + bytes(512))
    with pytest.raises(DataError, match=rf"00000001\.{form} changed since its index was made.*bring the old"):
        list(opened.batches(0, 10, (0, 8)))
    shard.unlink()
    with pytest.raises(DataError, match=rf"00000001\.{form} is gone since the training began"):
        list(opened.batches(0, 10, (0, 8)))


def test_a_subset_that_cannot_be_read(tmp_path):
    folder = pool(tmp_path / "pool")
    (tmp_path / "odd.bin").write_bytes(b"123")
    refused(folder, tmp_path, "the subset cannot be read: .*16-byte", subset=tmp_path / "odd.bin")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 2)))
    refused(folder, tmp_path, "the subset cannot be read: .*u8,u8", subset=tmp_path / "wrong.npy")
    refused(folder, tmp_path, "the subset cannot be read", subset=tmp_path / "none.npy")


def test_two_captions_of_one_uid(tmp_path):
    content = rows(0, 60)
    content[7] = {**content[3], "text": "another caption"}
    for form in ("tar", "parquet"):
        folder = tmp_path / form
        folder.mkdir()
        if form == "tar":
            write_tar(folder / "a.tar", content)
        else:
            pq.write_table(pa.Table.from_pylist(content), folder / "a.parquet")
        refused(folder, tmp_path, rf"a\.{form}, row 7: id {uid(3)} stands twice with different captions")


def test_a_tokeniser_that_fails_is_not_blamed_on_the_data(tmp_path):
    from filters.image_text.pixels import Pixels
    from recipes.clip.stream import open_source

    def broken(texts):
        raise RuntimeError("no vocabulary")

    for workers in (0, 2):
        opened = open_source(
            pool(tmp_path / "pool"), Pixels(size=8), broken, FEW, 0, workers=workers, index=tmp_path / "i"
        )
        with pytest.raises(RuntimeError, match="no vocabulary"):
            next(opened.batches(0, 10, (0, 8)))


def test_members_that_are_not_of_a_pair_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("very" * 40)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, row in enumerate(rows(0, 20)):
            stem = "very" * 40 + f"/{number:06d}"
            meta = json.dumps({"uid": row["uid"]}).encode()
            for suffix, data in (
                ("JPG", row["image"]),
                ("cls", b"3"),
                ("txt", row["text"].encode()),
                ("json", meta),
            ):
                info = tarfile.TarInfo(f"{stem}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    opened = source(tmp_path / "a.tar", FEW, tmp_path)
    assert sorted(set(seen(opened, 10, batch=8).reshape(-1).tolist())) == list(range(20))
