"""Small image-text pools on disk, and what a source gives, for the tests of the CLIP trainer's data."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from filters.image_text.pixels import Pixels
from recipes.clip.stream import open_source

SIZE = 8


@dataclass(frozen=True)
class Settings:
    samples: int
    batch: int
    shift: int = 0
    crop: float = 1.0
    resized_crop: tuple[float, float] | None = (0.9, 1.0)
    sampling: str = "epochs"


def uid(number: int) -> str:
    return hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest()


def jpeg(number: int, size: tuple[int, int] = (20, 16)) -> bytes:
    out = io.BytesIO()
    colour = (number * 37 % 256, number * 91 % 256, number * 13 % 256)
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


def rows(start: int, stop: int) -> list[dict]:
    return [
        {"uid": uid(i), "text": f"{i} é", "image": jpeg(i), "quality": float(i % 3)}
        for i in range(start, stop)
    ]


def write_tar(path: Path, content: list[dict], mode: str = "w") -> Path:
    """A DataComp shard: 12-digit keys, members .jpg .txt .json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
        for number, row in enumerate(content):
            meta = {"uid": row["uid"], "caption": None, "quality": row.get("quality"), "status": "success"}
            members = {"jpg": row["image"], "txt": row["text"], "json": json.dumps(meta)}
            for suffix, data in members.items():
                if data is None:
                    continue
                data = data.encode() if isinstance(data, str) else data
                info = tarfile.TarInfo(f"{path.stem.split('.')[0]}{number:04d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def pool(folder: Path, sizes=(30, 7, 19), form: str = "tar") -> Path:
    """Shards of consecutive rows 0, 1, 2, …"""
    start = 0
    for shard, size in enumerate(sizes):
        content = rows(start, start + size)
        if form == "parquet":
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(content), folder / f"{shard:08d}.parquet", row_group_size=5)
        else:
            write_tar(folder / f"{shard:08d}.{form}", content, "w:gz" if form == "tar.gz" else "w")
        start += size
    return folder


def numbers(texts) -> torch.Tensor:
    """A tokeniser: the number that a caption of `rows` begins with."""
    return torch.tensor([[int(text.split()[0])] for text in texts])


def source(data, settings, tmp_path, seed=0, **options):
    options.setdefault("index", tmp_path / "index")
    return open_source(data, Pixels(size=SIZE), numbers, settings, seed, **options)


def seen(opened, steps, first=0, share=None, batch=None) -> np.ndarray:
    """Row numbers of each batch, by caption: int64 [steps - first, n]."""
    share = share or (0, batch)
    return np.stack([b.tokens[:, 0].numpy() for b in opened.batches(first, steps, share)])
