"""The embedded image-text pool, ready to curate, with its trusted, evaluation and truth tables.

>>> from pools import demo_image_text
>>> folder = demo_image_text.unpack()          # WebDataset tars and metadata in DataComp's layout
>>> truth = demo_image_text.truth()            # what each row really is; never an input of a recipe

What is in it, how it was made and under which licences: `pools/data/image_text/SOURCES.md`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data" / "image_text"
LAYOUT = 1  # raise it when the unpacked bytes change for the same data

# CommonPool's nine metadata columns. The two CLIP scores are null: no CLIP model has seen this pool. `sha256`
# is that of the committed image bytes (CommonPool's is that of the file before the downloader shrank it).
METADATA_SCHEMA = pa.schema(
    [
        ("uid", pa.string()), ("url", pa.string()), ("text", pa.string()), ("original_width", pa.int64()),
        ("original_height", pa.int64()), ("clip_b32_similarity_score", pa.float32()),
        ("clip_l14_similarity_score", pa.float32()), ("face_bboxes", pa.list_(pa.list_(pa.float64()))),
        ("sha256", pa.string()),
    ]
)  # fmt: skip


def pool() -> pa.Table:
    """The committed pool: uid, url, text, original_width, original_height, width, height, sha256, image."""
    return with_sha256(pq.read_table(DATA / "pool.parquet"))


def truth() -> pa.Table:
    """One row per uid of the pool, what it really is: for judging filters, never for filtering.

    - `clean`: a fitting English caption on an unspoiled picture; `matched`: the caption says what the picture
      shows, in any language; `language`; `caption_kind`;
    - `swap` (null | random | neighbour) and `swapped_from` (uid);
    - `duplicate_of` (uid) and `duplicate_kind` (null | exact | near | natural);
    - `image_noise` (null | tiny | banner | placeholder);
    - where the picture is from: `source`, `source_name`, `license`, `author`, `label`, `concept`,
      `group`, `tone`.
    """
    return pq.read_table(DATA / "truth.parquet")


def trusted() -> pa.Table:
    """Clean pairs for filter networks: id, image, text (the plainest caption), captions (all true ones), …

    Shares no picture with the pool or the evaluation set, neither exactly nor nearly, and covers the pool's
    domains (emoji, flags, clip-art, icons) in other styles or with other drawings.
    """
    return with_sha256(pq.read_table(DATA / "trusted.parquet"))


def evaluation(split: str = "evaluation") -> pa.Table:
    """Labelled pictures in styles that pool and trusted set never show.

    `split` is "validation" (settings are fixed on it) or "evaluation" (reported). The two share no concept.
    Columns: id, image, width, height, sha256, task (emoji | flag | person), name (class), captions (list),
    subgroup, group (emoji: of eight; flag: continent; person: skin tone), source, source_name, license,
    author, sha256.
    """
    table = pq.read_table(DATA / "evaluation.parquet")
    if split not in ("validation", "evaluation"):
        raise ValueError(f"split is {split!r}; it must be 'validation' or 'evaluation'")
    return with_sha256(table.filter(pc.equal(table["split"], split)).drop_columns(["split"]))


def with_sha256(table: pa.Table) -> pa.Table:
    """Add `sha256` (hex of the image bytes). Not stored: digests do not compress, and 14 ms compute them."""
    digests = pa.array([hashlib.sha256(image.as_py()).hexdigest() for image in table["image"]], pa.string())
    return table.append_column("sha256", digests)


def tasks() -> dict:
    """Prompt templates per task ("{c}" is the class name) and readable names of subgroups and groups."""
    return json.loads((DATA / "tasks.json").read_text("utf-8"))


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """`cache_dir`, else $WINNOW_CACHE, else ~/.cache/winnow."""
    return Path(cache_dir or os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow").expanduser()


def unpack(cache_dir: str | os.PathLike | None = None, shards: int = 8) -> Path:
    """Expand the pool into DataComp's layout below the cache folder and return that folder.

    ::

        shards/00000000.tar       members KEY.webp, KEY.txt, KEY.json; KEY = 8 digits of shard, 4 of row
        shards/00000000.parquet   the shard's rows with key and status
        shards/00000000_stats.json
        metadata/HASH.parquet     CommonPool's nine columns, all rows in shard order

    Same bytes every time; done once, kept under a name that carries the data's hash; safe to call from many
    processes at once (each writes aside, the first rename wins).
    """
    digest = hashlib.sha256((DATA / "pool.parquet").read_bytes()).hexdigest()
    target = cache_folder(cache_dir) / "pools" / f"image_text-{digest[:12]}-{shards}-v{LAYOUT}"
    if target.is_dir():
        return target
    table = pool()
    if not 1 <= shards <= table.num_rows:
        raise ValueError(f"shards={shards}: the pool of {table.num_rows} rows can be cut into 1 to that many")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".image_text-", dir=target.parent))
    try:
        bounds = [round(i * table.num_rows / shards) for i in range(shards + 1)]
        for index in range(shards):
            write_shard(aside, index, table.slice(bounds[index], bounds[index + 1] - bounds[index]))
        write_metadata(aside, digest[:32], table)
        os.chmod(aside, 0o755)
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def write_metadata(folder: Path, stem: str, table: pa.Table) -> None:
    """`metadata/STEM.parquet` with CommonPool's columns, rows in the order of `table`."""
    rows = table.num_rows
    columns = {name: table[name] for name in table.column_names}
    columns["clip_b32_similarity_score"] = columns["clip_l14_similarity_score"] = pa.nulls(rows, pa.float32())
    columns["face_bboxes"] = pa.array([[]] * rows, METADATA_SCHEMA.field("face_bboxes").type)
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    metadata = pa.table({name: columns[name] for name in METADATA_SCHEMA.names}, schema=METADATA_SCHEMA)
    pq.write_table(metadata, folder / "metadata" / f"{stem}.parquet", compression="zstd")


def write_shard(folder: Path, index: int, table: pa.Table) -> None:
    """One WebDataset tar with its parquet and statistics, as the image downloader leaves them."""
    if table.num_rows > 10_000:
        raise ValueError(
            f"shard {index} has {table.num_rows} rows; a key has four digits for the row: cut it smaller"
        )
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    keys = [f"{index:08d}{row:04d}" for row in range(table.num_rows)]
    rows = table.drop_columns(["image"]).to_pylist()
    with tarfile.open(shards / f"{index:08d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, row, image in zip(keys, rows, table["image"], strict=True):
            record = {
                "uid": row["uid"], "url": row["url"], "caption": row["text"], "key": key, "status": "success",
                "error_message": None, "width": row["width"], "height": row["height"],
                "original_width": row["original_width"], "original_height": row["original_height"],
                "exif": "{}", "sha256": row["sha256"], "face_bboxes": [],
            }  # fmt: skip
            _add(tar, f"{key}.webp", image.as_py())
            _add(tar, f"{key}.txt", row["text"].encode("utf-8"))
            _add(tar, f"{key}.json", json.dumps(record, ensure_ascii=False).encode("utf-8"))
    beside = table.drop_columns(["image", "text"]).append_column("caption", table["text"])
    beside = beside.append_column("key", pa.array(keys))
    beside = beside.append_column("status", pa.array(["success"] * len(keys)))
    beside = beside.append_column("error_message", pa.nulls(len(keys), pa.string()))
    pq.write_table(beside, shards / f"{index:08d}.parquet", compression="zstd")
    stats = {"count": len(keys), "successes": len(keys), "failed_to_download": 0, "failed_to_resize": 0,
             "status_dict": {"success": len(keys)}}  # fmt: skip
    (shards / f"{index:08d}_stats.json").write_text(json.dumps(stats, indent=1) + "\n")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its owner and time stay zero: same rows, same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
