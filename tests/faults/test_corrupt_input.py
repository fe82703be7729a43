"""Damaged files, format by format: every whole record is delivered unchanged, every fault is reported once.

Each test says exactly which rows come out and what is quarantined. The sweeps damage small files at many
places and compare with what the undamaged file holds.
"""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from reading import put, read, written

from curation.formats import FormatError, pool_schema, reader_schema, row_id
from curation.formats import parquet as parquet_module
from curation.shards import list_shards

N = 12
TEXTS = pa.table(
    {
        "id": [f"{i:032x}" for i in range(N)],
        "text": [
            f"row {i} " + " ".join(map(str, random.Random(i).sample(range(10_000), 60))) for i in range(N)
        ],
        "n": list(range(N)),
    }
)
PAGES = pa.table(
    {
        "id": TEXTS["id"],
        "url": [f"http://example.org/{i}" for i in range(N)],
        "date": ["2024-05-18T01:58:10Z"] * N,
        "http_charset": ["utf-8"] * N,
        "content_type": ["text/html"] * N,
        "content": pa.array([t.encode() for t in TEXTS["text"].to_pylist()]),
    }
)
IMAGES = pa.table(
    {
        "id": TEXTS["id"],
        "text": [f"caption {i}" for i in range(N)],
        "image": pa.array([random.Random(i).randbytes(700) for i in range(N)]),
        "width": list(range(N)),
    }
)


def flips(data: bytes, count: int, seed: int = 0, start: int = 0, stop: int | None = None):
    """``count`` copies of ``data`` with one bit changed, and where."""
    rng = random.Random(seed)
    for _ in range(count):
        at = rng.randrange(start, stop or len(data))
        spoiled = bytearray(data)
        spoiled[at] ^= 1 << rng.randrange(8)
        yield at, bytes(spoiled)


def dense(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


# ---------------------------------------------------------------- JSON lines


def cut_points(data: bytes, count: int = 40) -> list[int]:
    return sorted({len(data) * i // count for i in range(1, count)} | {len(data) - 1})


def test_gzip_cut_anywhere_gives_the_lines_before_the_cut_and_one_fault(tmp_path):
    packed = written(TEXTS, "jsonl.gz")
    rows = TEXTS.to_pylist()
    for cut in cut_points(packed):
        whole = zlib.decompressobj(31).decompress(packed[:cut]).count(b"\n")
        found, bads, _ = read(put(tmp_path / "x.jsonl.gz", packed[:cut]), schema=TEXTS.schema)
        assert found == rows[:whole]
        assert [(b.position, b.error) for b in bads] == [
            (0, "truncated gzip member at byte 0; what follows is lost")
        ]


def test_zstd_cut_anywhere_gives_the_lines_before_the_cut_and_one_fault(tmp_path):
    packed = written(TEXTS, "jsonl.zst")
    rows = TEXTS.to_pylist()
    counts = set()
    for cut in cut_points(packed):
        whole = zstandard.ZstdDecompressor().decompressobj().decompress(packed[:cut]).count(b"\n")
        found, bads, _ = read(put(tmp_path / "x.jsonl.zst", packed[:cut]), schema=TEXTS.schema)
        assert found == rows[:whole]
        assert [(b.position, "truncated zstd frame at byte 0" in b.error) for b in bads] == [(0, True)]
        counts.add(whole)
    # and over several blocks and frames
    many = zstandard.ZstdCompressor().compress(b'{"id":"a","text":"b"}\n' * 20_000)
    cut = many + many[: len(many) // 2]
    found, bads, _ = read(put(tmp_path / "x.jsonl.zst", cut))
    assert 20_000 <= len(found) < 40_000
    assert [b.position for b in bads] == [len(many)]


def test_a_second_gzip_member_that_is_damaged_names_its_offset(tmp_path):
    first, second = gzip.compress(b'{"text":"a"}\n'), gzip.compress(b'{"text":"b"}\n')
    spoiled = second[:-8] + bytes(4) + second[-4:]  # a wrong checksum
    rows, bads, _ = read(put(tmp_path / "x.jsonl.gz", first + spoiled))
    assert [r["text"] for r in rows][:1] == ["a"]
    assert [b.position for b in bads] == [len(first)]
    assert "incorrect data check" in bads[0].error
    # zero padding after the last member is no fault
    rows, bads, _ = read(put(tmp_path / "x.jsonl.gz", first + second + bytes(1_000)))
    assert ([r["text"] for r in rows], bads) == (["a", "b"], [])
    # bytes that are no member are
    rows, bads, _ = read(put(tmp_path / "x.jsonl.gz", first + b"garbage"))
    assert ([r["text"] for r in rows], [b.position for b in bads]) == (["a"], [len(first)])


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_no_flipped_bit_of_a_checksummed_stream_goes_unnoticed(tmp_path, suffix):
    packed = written(TEXTS, suffix)
    rows = TEXTS.to_pylist()
    noticed = 0
    for _, spoiled in flips(packed, 150):
        found, bads, _ = read(put(tmp_path / f"x.{suffix}", spoiled), schema=TEXTS.schema)
        assert bads or found == rows
        noticed += bool(bads)
    assert noticed > 100


def test_a_file_that_is_not_what_its_name_says(tmp_path):
    for name in ("x.jsonl.gz", "x.jsonl.zst"):
        rows, bads, _ = read(put(tmp_path / name, b'{"text":"plain"}\n'))
        assert (rows, [b.position for b in bads]) == ([], [0])
    for name in ("x.parquet", "x.tar", "x.warc.gz", "x.warc"):
        rows, bads, _ = read(put(tmp_path / name, b"this is a text file\n" * 100))
        assert (rows, [b.position for b in bads]) == ([], [0]), name


def test_a_line_of_50_mb_is_neither_a_row_nor_held(tmp_path):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as f:
        f.write(b'{"text":"before"}\n{"text":"')
        for _ in range(50):
            f.write(b"x" * 1_000_000)
        f.write(b'"}\n{"text":"after"}\n')
    tracemalloc.start()
    try:
        rows, bads, _ = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [r["text"] for r in rows] == ["before", "after"]
    assert [(b.position, len(b.sample)) for b in bads] == [(18, 1_000)]
    assert "line of 50000011 bytes at byte 18 is over the limit of 33554432" in bads[0].error
    assert peak < 45_000_000
    rows, bads, _ = read(path, max_record_bytes=60_000_000)
    assert ([len(r["text"]) for r in rows], bads) == ([6, 50_000_000, 5], [])


def test_random_bytes_are_lines_that_do_not_parse(tmp_path):
    data = random.Random(7).randbytes(20_000)
    rows, bads, _ = read(put(tmp_path / "x.jsonl", data))
    lines = [line for line in data.split(b"\n") if line.strip()]
    assert rows == []
    assert len(bads) == len(lines)
    assert [data[b.position :][:20].split(b"\n")[0] for b in bads] == [line[:20] for line in lines]


# ---------------------------------------------------------------- parquet


def test_a_cut_parquet_footer_is_one_fault_with_its_bytes(tmp_path):
    packed = written(TEXTS, "parquet")
    for cut in (len(packed) - 1, len(packed) - 8, len(packed) // 2, 12, 4, 1, 0):
        path = put(tmp_path / "x.parquet", packed[:cut])
        rows, bads, _ = read(path, schema=TEXTS.schema)
        assert rows == []
        assert [b.position for b in bads] == [0]
        assert f"all {cut} bytes of x.parquet are lost" in bads[0].error
        (shard,) = list_shards(str(path))
        with pytest.raises(FormatError, match="no readable parquet footer"):
            reader_schema(shard)
        assert len(list_shards(str(path), split_bytes=1)) == 1
    put(tmp_path / "y.parquet", packed)
    assert pool_schema(list_shards(str(tmp_path))) == TEXTS.schema


def test_a_damaged_page_costs_its_row_group_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP_ROWS", 4)
    packed = written(TEXTS, "parquet")
    column = pq.ParquetFile(pa.BufferReader(packed)).metadata.row_group(1).column(1)
    spoiled = bytearray(packed)
    spoiled[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path = put(tmp_path / "x.parquet", bytes(spoiled))
    rows, bads, _ = read(path)
    assert rows == TEXTS.to_pylist()[:4] + TEXTS.to_pylist()[8:]
    assert [(b.position, b.rows) for b in bads] == [(4, 4)]
    assert "damaged row group 1" in bads[0].error
    assert "rows 4 to 7 are lost" in bads[0].error
    # a reader that does not want the damaged column loses nothing
    assert read(path, columns=["n"])[1] == []
    # and the parts of a split file say the same
    parts = [read(s) for s in list_shards(str(path), split_bytes=1)]
    assert [r for found, _, _ in parts for r in found] == rows
    assert [b for _, found, _ in parts for b in found] == bads


def test_no_flipped_bit_of_a_parquet_page_goes_unnoticed(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ROW_GROUP_ROWS", 4)
    packed = written(TEXTS, "parquet")
    footer = len(packed) - 8 - int.from_bytes(packed[-8:-4], "little")
    rows = TEXTS.to_pylist()
    noticed = 0
    for _, spoiled in flips(packed, 200, stop=footer):
        found, bads, _ = read(put(tmp_path / "x.parquet", spoiled))
        assert [r for r in found if r not in rows] == []
        assert len(found) + sum(b.rows for b in bads) == N
        noticed += bool(bads)
    assert noticed > 50
    for _, spoiled in flips(packed, 200, start=footer):  # the footer has no checksum: no crash, no lost row
        found, bads, _ = read(put(tmp_path / "x.parquet", spoiled))
        assert bads or len(found) == N


def test_strings_that_are_not_utf8_are_quarantined_row_by_row(tmp_path):
    values = [b"fine", b"\xff\xfe", "naïve".encode(), b"cut \xc3"]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    text = pa.Array.from_buffers(pa.string(), 4, buffers)
    pq.write_table(pa.table({"text": text, "n": [0, 1, 2, 3]}), tmp_path / "x.parquet")
    rows, bads, _ = read(tmp_path / "x.parquet")
    assert rows == [
        {"id": row_id("x.parquet", 0), "text": "fine", "n": 0},
        {"id": row_id("x.parquet", 2), "text": "naïve", "n": 2},
    ]
    assert [b.position for b in bads] == [1, 3]
    assert all("UTF8" in b.error for b in bads)


# ---------------------------------------------------------------- WARC


def members(packed: bytes) -> list[bytes]:
    out = []
    while packed:
        inflate = zlib.decompressobj(31)
        inflate.decompress(packed)
        out.append(packed[: len(packed) - len(inflate.unused_data)])
        packed = inflate.unused_data
    return out


def test_one_flipped_bit_of_a_warc_costs_at_most_its_record(tmp_path):
    packed = written(PAGES, "warc.gz")
    parts = members(packed)
    starts = np.cumsum([0, *map(len, parts)])
    rows = PAGES.to_pylist()
    lost = 0
    for at, spoiled in flips(packed, 250):
        found, bads, _ = read(put(tmp_path / "x.warc.gz", spoiled))
        member = int(np.searchsorted(starts, at, "right")) - 1
        if bads:
            assert found == rows[:member] + rows[member + 1 :]
            assert [b.position for b in bads] == [starts[member]]
            lost += 1
        else:  # the header's time, flags and system are not data
            assert found == rows
            assert at - starts[member] < 10
    assert lost > 200


def test_a_warc_cut_anywhere_gives_the_records_before_the_cut(tmp_path):
    packed = written(PAGES, "warc.gz")
    starts = np.cumsum([0, *map(len, members(packed))])
    rows = PAGES.to_pylist()
    for cut in [*range(1, len(packed), 37), len(packed) - 1]:
        found, bads, _ = read(put(tmp_path / "x.warc.gz", packed[:cut]))
        whole = int(np.searchsorted(starts, cut, "right")) - 1
        assert found == rows[:whole]
        assert [b.position for b in bads] == ([] if cut in starts else [starts[whole]])


def test_garbage_between_members_is_one_fault_and_reading_resumes(tmp_path):
    parts = members(written(PAGES, "warc.gz"))
    garbage = b"\x1f\x8b\x08" + bytes(range(256)) * 3 + gzip.compress(b"no record") + b"\x1f\x8b"
    data = b"".join(parts[:3]) + garbage + b"".join(parts[3:5]) + b"\x01" * 1_000 + b"".join(parts[5:])
    found, bads, _ = read(put(tmp_path / "x.warc.gz", data))
    assert found == PAGES.to_pylist()
    before = sum(map(len, parts[:3]))
    assert [b.position for b in bads] == [before, before + len(garbage) + sum(map(len, parts[3:5]))]
    # A member is looked for past what is read at once, and a mark on the border of two reads is found.
    for size in (1 << 20, (1 << 20) - 1, (1 << 20) - 2, (1 << 20) + 1, 3 << 20):
        data = parts[0] + b"\x01" * size + parts[1]
        found, bads, _ = read(put(tmp_path / "x.warc.gz", data))
        assert found == PAGES.to_pylist()[:2]
        assert [b.position for b in bads] == [len(parts[0])]


def test_a_member_that_is_no_record_is_one_fault(tmp_path):
    parts = members(written(PAGES, "warc.gz"))
    data = parts[0] + gzip.compress(b"hello") + parts[1]
    found, bads, _ = read(put(tmp_path / "x.warc.gz", data))
    assert found == PAGES.to_pylist()[:2]
    assert [(b.position, b.error) for b in bads] == [
        (len(parts[0]), f"no WARC header at byte {len(parts[0])}")
    ]
    assert bads[0].sample == b"hello"


def test_a_warc_in_one_gzip_member_gives_what_lies_before_the_cut(tmp_path):
    records = [gzip.decompress(part) for part in members(written(PAGES, "warc.gz"))]
    packed = gzip.compress(b"".join(records))
    for cut in (len(packed) // 3, len(packed) // 2, len(packed) - 9):
        inflated = zlib.decompressobj(31).decompress(packed[:cut])
        ends = np.cumsum(list(map(len, records)))
        # a record is believed once its end is seen to lead somewhere: 16 bytes past its blank lines
        sure = int(np.searchsorted(ends - 4 + 16, len(inflated), "right"))
        found, bads, _ = read(put(tmp_path / "x.warc.gz", packed[:cut]))
        assert found == PAGES.to_pylist()[:sure]
        assert [(b.position, "truncated gzip member" in b.error) for b in bads] == [(0, True)]


@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_plain_warcs_resume_at_the_next_header(tmp_path, piece, monkeypatch):
    from curation.formats import warc as warc_module

    monkeypatch.setattr(warc_module, "_OUT", piece)
    records = [gzip.decompress(part) for part in members(written(PAGES, "warc.gz"))][:5]
    rows = PAGES.to_pylist()[:5]
    starts = np.cumsum([0, *map(len, records)])

    def spoil(i: int, record: bytes) -> bytes:
        return b"".join([*records[:i], record, *records[i + 1 :]])

    longer = records[2].replace(b"Content-Length: ", b"Content-Length: 9", 1)
    shorter = records[2].replace(b"Content-Length: ", b"Content-Length: 1\r\nX: ", 1)
    for spoiled in (
        longer,
        shorter,
        b"WARP" + records[2][4:],
        records[2].replace(b"Content-Length", b"Content-Lengxh"),
    ):
        found, bads, _ = read(put(tmp_path / "x.warc", spoil(2, spoiled)))
        assert found == rows[:2] + rows[3:]
        assert [b.position for b in bads] == [starts[2]]
    whole = b"".join(records)
    for cut in range(10, len(whole), 61):
        found, bads, _ = read(put(tmp_path / "x.warc", whole[:cut]))
        ends = starts[1:] - 4  # the blank lines after the last record may be missing
        n = int(np.searchsorted(ends, cut, "right"))
        assert found == rows[:n]
        inside = n < 5 and cut > starts[n]
        assert [b.position for b in bads] == ([starts[n]] if inside else [])


# ---------------------------------------------------------------- WebDataset


def sample_starts(packed: bytes) -> list[int]:
    """Offsets of the first header of every sample, and the end of the last."""
    starts, at, last = [], 0, None
    while packed[at : at + 1] != b"\0":
        name = packed[at : at + 100].split(b".")[0]
        if name != last:
            starts.append(at)
        last = name
        at += 512 + -(-int(packed[at + 124 : at + 135], 8) // 512) * 512
    return [*starts, at]


def test_a_tar_cut_anywhere_gives_the_samples_before_the_cut_and_one_fault(tmp_path):
    packed = written(IMAGES, "wds")
    starts = sample_starts(packed)
    rows = dense(read(put(tmp_path / "x.tar", packed))[0])
    assert len(rows) == N
    paddings = [len(packed[:end]) - len(packed[:end].rstrip(b"\0")) for end in starts[1:]]
    for cut in range(100, starts[-1] + 512, 300):
        found, bads, _ = read(put(tmp_path / "x.tar", packed[:cut]))
        # A sample counts when its last member's data is there (its padding need not be). The first has none
        # before it to compare with, so it counts when the next begins.
        whole = sum(cut >= end - padding for end, padding in zip(starts[1:], paddings, strict=True))
        if cut < starts[1] + 512:
            whole = 0
        assert dense(found) == rows[:whole]
        assert [b.position for b in bads] == [min(cut, starts[whole])]
        assert "tar cut short" in bads[0].error


def test_a_damaged_header_costs_its_sample_alone(tmp_path):
    packed = written(IMAGES, "wds")
    rows = dense(read(put(tmp_path / "x.tar", packed))[0])
    starts = sample_starts(packed)
    for sample in range(2, N):
        headers, at = [], starts[sample]
        while at < starts[sample + 1]:
            headers.append(at)
            at += 512 + -(-int(packed[at + 124 : at + 135], 8) // 512) * 512
        assert len(headers) == 3
        for header in headers:
            spoiled = bytearray(packed)
            spoiled[header + 3] ^= 1
            found, bads, _ = read(put(tmp_path / "x.tar", bytes(spoiled)))
            assert dense(found) == rows[:sample] + rows[sample + 1 :]
            assert [b.position for b in bads] == [starts[sample]]
            assert f"damaged tar header at byte {header}" in bads[0].error


def test_damage_before_any_whole_sample_never_gives_half_a_sample(tmp_path):
    packed = written(IMAGES, "wds")
    rows = dense(read(put(tmp_path / "x.tar", packed))[0])
    starts = sample_starts(packed)
    for header in (0, 512 + 1024, starts[1]):
        spoiled = bytearray(packed)
        spoiled[header + 3] ^= 1
        found, bads, _ = read(put(tmp_path / "x.tar", bytes(spoiled)))
        assert [r for r in dense(found) if r not in rows] == []
        assert len(found) >= N - 2
        assert 1 <= len(bads) <= 2


def test_a_truncated_compressed_tar_is_one_fault(tmp_path):
    packed = gzip.compress(written(IMAGES, "wds"))
    found, bads, _ = read(put(tmp_path / "x.tar.gz", packed[: len(packed) // 2]))
    assert 2 < len(found) < N
    assert len(bads) == 1
    assert "truncated gzip member" in bads[0].error


# ---------------------------------------------------------------- every format


@pytest.mark.parametrize(
    ("table", "format", "suffix"),
    [
        (TEXTS, "parquet", ".parquet"),
        (TEXTS, "jsonl", ".jsonl"),
        (TEXTS, "jsonl.zst", ".jsonl.zst"),
        (PAGES, "warc.gz", ".warc.gz"),
        (IMAGES, "wds", ".tar"),
    ],
)
def test_a_burst_of_damage_is_never_silent_and_never_fatal(tmp_path, table, format, suffix):
    """32 random bytes over a random place: the reader ends in order, and says so when rows are missing."""
    packed = written(table, format)
    rng = random.Random(3)
    path = tmp_path / f"x{suffix}"
    schema = pool_schema(list_shards(str(put(path, packed))))
    for _ in range(80):
        at = rng.randrange(len(packed))
        spoiled = packed[:at] + rng.randbytes(32) + packed[at + 32 :]
        found, bads, _ = read(put(path, spoiled), schema=schema)
        assert bads or len(found) == N
        assert len(found) <= N + 3  # a damaged line may become several
