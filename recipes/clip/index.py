"""The index of a training set: where every row lies, without its image. Made once, kept as parquet.

For each shard: the 128-bit key of every row (DataComp's uid; for other ids a hash of them), where its image
and caption lie in a tar (a row of a parquet file needs no more than its number), and a weight column if one
was asked for. A part file covers a few shards, one row group a shard, and is named by a hash of the names,
sizes and etags of these shards: a shard that changed is read again, the others are not. A row costs about
40 bytes on disk and none in memory: only the table of shards (`Index.shards`) is held.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import itertools
import json
import multiprocessing
import os
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation import storage
from curation.formats import row_id
from curation.formats.compression import codec
from curation.formats.wds import IMAGES
from curation.formats.wds import read_header as tar_header
from curation.formats.wds import read_long_name as tar_long_name
from curation.hashing import hash64, hash128
from curation.shards import Shard
from curation.subsets import DTYPE, format_ids, parse_ids
from recipes.clip.data import COPY, DataError

VERSION = 1
MOST_PARTS = 1024
CACHED_ROWS = 2_000_000  # of index rows that are held at a time: about 100 MB
UID = r"^[0-9a-f]{32}$"
BLOCK = 512
TRIES = 5
PAUSE = 0.5  # seconds, doubled from try to try

T = TypeVar("T")

#: One row of a training pair. text_at is a place in the JSON member where `in_json`.
FIELDS = [
    ("high", pa.uint64()),
    ("low", pa.uint64()),
    ("image_at", pa.int64()),
    ("image_size", pa.int32()),
    ("text_at", pa.int64()),
    ("text_size", pa.int32()),
    ("in_json", pa.bool_()),
    ("weight", pa.float64()),
    ("id", pa.string()),
]
SCHEMA = pa.schema(FIELDS)


@dataclass(frozen=True)
class ShardRows:
    """The rows of one shard, in file order; arrays of length n. ids: of rows whose key is a hash, else null.

    image_at … in_json are places in the tar (None for parquet). weight: NaN-free float64, or None.
    """

    keys: np.ndarray  # uint64 [n, 2]
    image_at: np.ndarray | None
    image_size: np.ndarray | None
    text_at: np.ndarray | None
    text_size: np.ndarray | None
    in_json: np.ndarray | None
    weight: np.ndarray | None
    ids: pa.StringArray | None

    def __len__(self) -> int:
        return len(self.keys)

    def names(self, rows: np.ndarray) -> list[str]:
        """Ids of some rows, as text."""
        found = format_ids(np.ascontiguousarray(self.keys[rows]).view(DTYPE).reshape(-1)).to_pylist()
        if self.ids is None:
            return found
        own = self.ids.take(pa.array(rows)).to_pylist()
        return [key if name is None else name for key, name in zip(found, own, strict=True)]


class Index:
    """An index on disk. shards: as listed; rows: int64 [shards]; fingerprint: of keys, captions and sizes."""

    def __init__(self, folder: Path, name: str, shards: Sequence[Shard], table: pa.Table):
        self.shards = list(shards)
        self.rows = table.column("rows").to_numpy()
        self.skipped: list[str] = [text for texts in table.column("skipped").to_pylist() for text in texts]
        self._folder, self._name = folder, name
        self._part = table.column("part").to_pylist()
        self._group = table.column("group").to_numpy()
        total = hashlib.blake2b(digest_size=16)
        for digest in table.column("digest").to_pylist():
            total.update(digest)
        self.fingerprint = total.hexdigest()
        self._held: OrderedDict[int, ShardRows] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    @property
    def bytes(self) -> int:
        return sum(shard.size for shard in self.shards)

    def read(self, shard: int) -> ShardRows:
        """The rows of one shard; the last few that were asked for are held."""
        with self._lock:
            found = self._held.pop(shard, None)
            if found is None:
                found = self._load(shard)
            self._held[shard] = found
            while len(self._held) > 1 and sum(map(len, self._held.values())) > CACHED_ROWS:
                self._held.popitem(last=False)
            return found

    def remembered(self, what: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What `make` finds by reading the whole index, kept beside it under a hash of `what`, so that it is
        read once and not by every process and every start."""
        name = hashlib.blake2b(f"{self._name}\0{what}".encode(), digest_size=12).hexdigest()
        path = self._folder / f"counts-{name}.npz"
        if not path.exists():
            with _locked(path.with_suffix(".lock")):  # its own: what is counted may rest on other counts
                if not path.exists():
                    with storage.atomic_write(str(path)) as file:
                        np.savez(file, **make())  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as found:
            return dict(found)

    def _load(self, shard: int) -> ShardRows:
        if self.rows[shard] == 0:
            table = SCHEMA.empty_table()
        else:
            with pq.ParquetFile(self._folder / self._part[shard]) as file:
                table = file.read_row_group(int(self._group[shard]), use_threads=False)
        keys = np.stack([table.column("high").to_numpy(), table.column("low").to_numpy()], axis=1)
        places: dict[str, np.ndarray | None] = {}
        for name in ("image_at", "image_size", "text_at", "text_size", "in_json", "weight"):
            column = table.column(name)
            places[name] = None if column.null_count == len(column) else column.to_numpy()
        ids = table.column("id")
        return ShardRows(
            keys=keys, ids=None if ids.null_count == len(ids) else ids.combine_chunks(), **places
        )


def open_index(
    shards: Sequence[Shard],
    folder: str | Path,
    *,
    weight: str | None = None,
    workers: int = 1,
    bad: str = "refuse",
) -> Index:
    """The index of `shards`, from `folder` as far as it is there; the rest is made by `workers` processes.

    weight: a column (parquet) or JSON key (tars) to keep as the row's weight. bad: "refuse" raises DataError
    for a row without image or caption, a caption that is not UTF-8, or a damaged tar, naming file and row;
    "skip" leaves such rows out and counts them (`Index.skipped`). Processes that open one folder at the same
    time wait for the one that makes it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(shards) // MOST_PARTS)
    parts = [list(shards[i : i + size]) for i in range(0, len(shards), size)]
    names = [f"part-{_key(part, weight, bad)}.parquet" for part in parts]
    whole = folder / f"shards-{_key([], '/'.join(names), bad)}.parquet"
    if not whole.exists():
        with _locked(folder / ".lock"):
            if not whole.exists():
                _build(folder, whole, list(zip(names, parts, strict=True)), weight, workers, bad)
    return Index(folder, whole.name, shards, pq.read_table(whole))


def count_distinct(keys: Iterable[np.ndarray], in_memory: int = 1 << 23) -> int:
    """Different keys among arrays uint64 [n, 2]. Past `in_memory` keys they go through 256 files by their
    first byte, so that memory holds a 256th of them."""
    held: list[np.ndarray] = []
    keys = iter(keys)
    for array in keys:
        held.append(array)
        if sum(map(len, held)) > in_memory:
            break
    else:
        return _distinct(held)
    with tempfile.TemporaryDirectory(prefix="winnow-keys-") as folder:
        paths = [os.path.join(folder, f"{i:02x}") for i in range(256)]
        for array in itertools.chain(held, keys):
            byte = _mixed(array) >> np.uint64(56)
            order = np.argsort(byte, kind="stable")
            ends = np.searchsorted(byte[order], np.arange(257))
            for i in np.flatnonzero(np.diff(ends)):
                with open(paths[i], "ab") as file:
                    file.write(array[order[ends[i] : ends[i + 1]]].tobytes())
        return sum(
            _distinct([np.fromfile(path, np.uint64).reshape(-1, 2)]) for path in paths if os.path.exists(path)
        )


def _mixed(keys: np.ndarray) -> np.ndarray:
    return (keys[:, 0] ^ keys[:, 1]) * np.uint64(0x9E3779B97F4A7C15)


def _distinct(arrays: list[np.ndarray]) -> int:
    keys = np.concatenate(arrays) if arrays else np.empty((0, 2), np.uint64)
    if not len(keys):
        return 0
    keys = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    return 1 + int((keys[1:] != keys[:-1]).any(axis=1).sum())


# ---------------------------------------------------------------- making


def _key(shards: Sequence[Shard], extra: str | None, bad: str) -> str:
    named = [[s.name, s.url, s.size, s.etag] for s in shards]
    return hashlib.blake2b(orjson.dumps([VERSION, extra, bad, named]), digest_size=12).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    try:
        import fcntl
    except ImportError:  # no such locks here: two makers write the same bytes
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    folder: Path,
    whole: Path,
    parts: list[tuple[str, list[Shard]]],
    weight: str | None,
    workers: int,
    bad: str,
) -> None:
    todo = [(str(folder / name), part, weight, bad) for name, part in parts if not (folder / name).exists()]
    if min(workers, len(todo)) > 1:
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        with ProcessPoolExecutor(
            min(workers, len(todo)), mp_context=multiprocessing.get_context(method)
        ) as pool:
            for _ in pool.map(_build_part, todo, chunksize=1):
                pass
    else:
        for item in todo:
            _build_part(item)
    rows: list[dict[str, Any]] = []
    for name, _ in parts:
        about = json.loads(pq.read_schema(folder / name).metadata[b"shards"])
        rows += [{**shard, "part": name, "digest": bytes.fromhex(shard["digest"])} for shard in about]
    kinds = pa.schema(
        [
            ("name", pa.string()),
            ("rows", pa.int64()),
            ("skipped", pa.list_(pa.string())),
            ("group", pa.int64()),
            ("digest", pa.binary()),
            ("part", pa.string()),
        ]
    )
    with storage.atomic_write(str(whole)) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=kinds), file)


def _build_part(item: tuple[str, list[Shard], str | None, str]) -> None:
    path, shards, weight, bad = item
    tables, about, group = [], [], 0
    for shard in shards:
        table, digest, skipped = index_shard(shard, weight, bad)
        tables.append(table)
        about.append(
            {
                "name": shard.name,
                "rows": table.num_rows,
                "skipped": skipped,
                "group": group,
                "digest": digest.hex(),
            }
        )
        group += table.num_rows > 0
    schema = SCHEMA.with_metadata({"shards": json.dumps(about)})
    with (
        storage.atomic_write(path, sync=False) as file,
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for table in tables:
            if table.num_rows:
                writer.write_table(table.cast(schema), row_group_size=table.num_rows)


def index_shard(
    shard: Shard, weight: str | None = None, bad: str = "refuse"
) -> tuple[pa.Table, bytes, list[str]]:
    """(rows of `SCHEMA`, digest of keys, captions and sizes, what was skipped) of one tar or parquet file."""
    if shard.format not in ("wds", "parquet"):
        raise DataError(f"{shard.url}: the trainer reads tars and parquet, not {shard.format}; convert it")

    def walk() -> Any:
        if shard.format == "wds":
            return _walk_tar(shard, weight, bad == "skip")
        return _walk_parquet(shard, weight)

    try:
        names, captions, places, weights, skipped = with_retries(walk, shard.url)
    except FileNotFoundError:
        raise DataError(f"{shard.url} is missing; fetch it again or leave it out") from None
    names = pc.replace_substring_regex(names, COPY.pattern, "")  # copies of a row carry its uid
    high, low, own = _keys(names)
    _copies_agree(shard, names, high, low, captions)
    digest = hashlib.blake2b(digest_size=16)
    for array in (high, low, captions):
        digest.update(np.ascontiguousarray(array).tobytes())
    columns: list[pa.Array] = [pa.array(high), pa.array(low)]
    for name, kind in FIELDS[2:7]:
        columns.append(pa.nulls(len(names), kind) if places is None else pa.array(places[name], kind))
    sizes = [shard.size] if places is None else places["image_size"]
    digest.update(np.array(sizes, "<i8").tobytes())
    columns.append(_weights(weights, shard, weight, names))
    if weight is not None:
        digest.update(columns[-1].to_numpy().tobytes())
    columns.append(own)
    return pa.Table.from_arrays(columns, schema=SCHEMA), digest.digest(), skipped


def _weights(values: pa.Array | None, shard: Shard, column: str | None, names: pa.Array) -> pa.Array:
    if values is None:
        return pa.nulls(len(names), pa.float64())
    try:
        weights = values.cast(pa.float64())
    except pa.ArrowException as error:
        raise DataError(f"{shard.url}: weight {column} is no number ({error})") from None
    good = np.nan_to_num(weights.to_numpy(zero_copy_only=False), nan=-1.0, posinf=-1.0) >= 0
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"{shard.url}, row {row} (id {names[row]}): weight {column} is {values[row]}; it must be a "
            "finite number >= 0"
        )
    return weights


def _copies_agree(
    shard: Shard, names: pa.Array, high: np.ndarray, low: np.ndarray, captions: np.ndarray
) -> None:
    """Refuse an id that stands in the shard with two captions."""
    order = np.lexsort((low, high))  # stable: copies stay in file order
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    differ = same & (captions[order][1:] != captions[order][:-1])
    if differ.any():
        row = int(order[1:][differ].min())
        raise DataError(
            f"{shard.url}, row {row}: id {names[row]} stands twice with different captions; ids are unique"
        )


def _keys(names: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Two words a row, and the id itself where it is no uid (null where it is)."""
    uid = pc.match_substring_regex(names, UID)
    is_uid = uid.to_numpy(zero_copy_only=False)
    if is_uid.all():
        words = parse_ids(names).view("<u8").reshape(-1, 2)
        return words[:, 0], words[:, 1], pa.nulls(len(names), pa.string())
    high, low = (np.array(half) for half in hash128(names))
    words = parse_ids(names.filter(uid)).view("<u8").reshape(-1, 2)
    high[is_uid], low[is_uid] = words[:, 0], words[:, 1]
    return high, low, pc.if_else(uid, pa.scalar(None, pa.string()), names)


def _walk_parquet(shard: Shard, weight: str | None) -> Any:
    """Ids, hashes of captions and weights of a parquet file; the images are not read."""
    ids: list[pa.Array] = []
    captions: list[np.ndarray] = [np.empty(0, np.uint64)]
    weights: list[pa.Array] = []
    row = 0
    try:
        with storage.open_read(shard.url) as file:
            parquet = pq.ParquetFile(file)
            have = parquet.schema_arrow.names
            source = "id" if "id" in have else "uid" if "uid" in have else None
            wanted = [c for c in (source, "text", weight) if c is not None]
            missing = [c for c in [*wanted, "image"] if c not in have]
            if "image" in have and not _is_bytes(parquet.schema_arrow.field("image").type):
                kind = parquet.schema_arrow.field("image").type
                raise DataError(
                    f"{shard.url}: the column image is {kind}; it must be the files' bytes (binary)"
                )
            if missing:
                raise DataError(
                    f"{shard.url} lacks the column {', '.join(missing)}; it has {', '.join(have)}"
                )
            for batch in parquet.iter_batches(65_536, columns=wanted, use_threads=False):
                text = batch.column("text").cast(pa.string())
                _captions_are_sound(text, shard.url, row)
                captions.append(hash64(text))
                if source is None:
                    found = pa.array([row_id(shard.name, row + i) for i in range(len(text))], pa.string())
                else:
                    found = _ids(batch.column(source), f"{shard.url}, row ", row)
                ids.append(found)
                if weight is not None:
                    weights.append(batch.column(weight))
                row += len(text)
    except (pa.ArrowException, OSError) as error:
        if _may_pass(error, shard.url):
            raise
        raise DataError(f"{shard.url}: not a readable parquet file ({error}); fetch it again") from None
    names = pa.concat_arrays(ids) if ids else pa.array([], pa.string())
    values = None if weight is None else pa.concat_arrays(weights) if weights else pa.array([], pa.float64())
    return names, np.concatenate(captions), None, values, []


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view()


def _ids(column: pa.Array, where: str, row: int) -> pa.Array:
    if column.null_count:
        first = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}{row + first}: null id; filter it out")
    if pa.types.is_binary(column.type) or pa.types.is_fixed_size_binary(column.type):
        return pa.array([value.hex() for value in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def _captions_are_sound(text: pa.Array, url: str, row: int) -> None:
    if text.null_count:
        first = int(np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{url}, row {row + first}: null caption; filter it out")
    try:
        text.validate(full=True)
    except pa.ArrowException:
        for i, value in enumerate(text.cast(pa.binary()).to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{url}, row {row + i}: the caption is not UTF-8 ({error}); re-encode it or filter it out"
                ) from None
        raise


class _Damage(Exception):
    """A tar that cannot be read on from here."""


def _walk_tar(shard: Shard, weight: str | None, skip: bool) -> Any:
    """Ids, hashes of captions, places and weights of a tar's samples, and what was skipped; the images are
    passed over."""
    skipped: list[str] = []
    ids: list[str] = []
    captions: list[int] = []
    weights: list[Any] = []
    places: dict[str, list] = {name: [] for name, _ in FIELDS[2:7]}

    def refuse(message: str) -> None:
        if not skip:
            raise DataError(
                f"{shard.url}: {message}; fetch the shard again, run it through a plan (which quarantines "
                'such rows), or leave them out with bad="skip"'
            )
        skipped.append(f"{shard.name}: {message}")

    with storage.open_read(shard.url) as raw:
        file: Any = gzip.GzipFile(fileobj=raw) if codec(shard.url) == "gz" else raw
        try:
            for key, at, members in _members(file, None if file is not raw else shard.size):
                try:
                    name, text_at, text_size, in_json, value, caption = _sample(members, weight)
                except ValueError as error:
                    refuse(f"row {len(ids)} (sample {key} at byte {at}): {error}")
                    continue
                image_at, image_size = members["image"][:2]
                ids.append(name if name is not None else row_id(shard.name, at))
                weights.append(value)
                captions.append(xxhash.xxh64_intdigest(caption))
                row = (image_at, image_size, text_at, text_size, in_json)
                for column, item in zip(places.values(), row, strict=True):
                    column.append(item)
        except (_Damage, EOFError, zlib.error, OSError) as error:
            if _may_pass(error, shard.url):
                raise
            refuse(f"after row {len(ids) - 1}: {error}")
    values = None if weight is None else _numbers(weights, shard, weight)
    return pa.array(ids, pa.string()), np.array(captions, np.uint64), places, values, skipped


def _numbers(values: list[Any], shard: Shard, weight: str) -> pa.Array:
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{shard.url}, row {row}: weight {weight} is {value!r}; it must be a number >= 0")
    return pa.array(values, pa.float64())


def _members(file: IO[bytes], size: int | None) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(key, offset, members) of every sample: kind → (offset, size, bytes; None for an image)."""
    key, start = "", 0
    members: dict[str, Any] = {}
    at, long_name = 0, None
    while True:
        header = file.read(BLOCK)
        if not header and at == 0:
            return
        if len(header) < BLOCK:
            raise _Damage(f"the tar is cut short at byte {at} (no end of archive)")
        if header[0] == 0 and not header.strip(b"\0"):
            break
        member = tar_header(header)
        if member is None:
            raise _Damage(f"damaged tar header at byte {at}")
        name, length, kind = member
        padded = -(-length // BLOCK) * BLOCK
        data_at = at + BLOCK
        at = data_at + padded
        if size is not None and data_at + length > size:
            raise _Damage(f"the tar is cut short: member {name} ends past its {size} bytes")
        if kind in b"Lx":
            long_name = tar_long_name(_exactly(file, padded)[:length], kind) or long_name
            continue
        name, long_name = long_name or name, None
        if kind not in b"0\0":
            file.seek(padded, 1)
            continue
        folder, _, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        stem, suffix = f"{folder}/{stem}", suffix.lower()
        if suffix in IMAGES:
            suffix = "image"
        if stem != key or suffix in members:
            if members:
                yield key.removeprefix("/"), start, members
            key, start, members = stem, data_at - BLOCK, {}
        if suffix in ("txt", "json"):
            members[suffix] = (data_at, length, _exactly(file, padded)[:length])
        else:
            members[suffix] = (data_at, length, None)
            file.seek(padded, 1)
    if members:
        yield key.removeprefix("/"), start, members


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _Damage("the tar is cut short inside a member")
    return data


def _sample(members: dict[str, Any], weight: str | None) -> tuple[str | None, int, int, bool, Any, bytes]:
    """(id, place and size of the caption's member, whether that is JSON, weight, caption)."""
    if "image" not in members:
        raise ValueError(f"no image ({', '.join('.' + m for m in members)}); images are {', '.join(IMAGES)}")
    meta: dict[str, Any] = {}
    if "json" in members:
        try:
            meta = orjson.loads(members["json"][2])
        except ValueError as error:
            raise ValueError(f".json does not parse ({error})") from None
        if not isinstance(meta, dict):
            raise ValueError(".json is no object")
    uid = meta.get("uid")
    name = None if uid is None else str(uid)
    if "txt" in members:
        at, size, caption = members["txt"]
        try:
            caption.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the caption is not UTF-8 ({error})") from None
        return name, at, size, False, meta.get(weight or ""), caption
    caption = meta.get("caption")
    if not isinstance(caption, str):
        raise ValueError("null caption" if caption is None else f"the caption is {caption!r}, no text")
    at, size, _ = members["json"]
    return name, at, size, True, meta.get(weight or ""), caption.encode()


def count_rows(shards: Sequence[Shard], most: int) -> int:
    """Rows in shards, counted until there are more than `most`; a shard that is broken counts as far as it
    can be read, for its reader says more of it."""
    count = 0
    for shard in shards:
        count += with_retries(functools.partial(_count, shard, most - count), shard.url)
        if count > most:
            break
    return count


def _count(shard: Shard, most: int) -> int:
    count = 0
    try:
        with storage.open_read(shard.url) as raw:
            if shard.format == "parquet":
                return pq.ParquetFile(raw).metadata.num_rows
            if shard.format != "wds":
                return 0
            gz = codec(shard.url) == "gz"
            file: Any = gzip.GzipFile(fileobj=raw) if gz else raw
            for _ in _members(file, None if gz else shard.size):
                count += 1
                if count > most:
                    break
    except (pa.ArrowException, OSError, EOFError, zlib.error, _Damage) as error:
        if _may_pass(error, shard.url) and not isinstance(error, FileNotFoundError):
            raise
    return count


def _may_pass(error: BaseException, url: str) -> bool:
    """Whether a fault is of the way to the file and not of the file: missing, or met on a network."""
    lost = isinstance(error, OSError) and not storage.is_local(url) and not isinstance(error, zlib.error)
    return isinstance(error, FileNotFoundError) or (lost and not isinstance(error, pa.ArrowException))


def with_retries(call: Callable[[], T], url: str) -> T:
    """Again after a fault that may pass; what is missing, refused or damaged is no such fault."""
    for attempt in range(TRIES):
        try:
            return call()
        except (DataError, FileNotFoundError, PermissionError, ValueError, TypeError, LookupError):
            raise
        except Exception as error:
            if attempt == TRIES - 1:
                raise DataError(
                    f"{url} cannot be read, {TRIES} times: {error}; resume when it can"
                ) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError
