"""Reading pairs for CLIP training: decode and crop beside open_clip's transform; the index; waiting for data.

    python bench/clip_data.py

decode and crop   JPEGs of 512 x 342 pixels to 224 px training views (random resized crop of 90 to 100 % of
                  the area, bicubic, normalised): ours, and the transform of open_clip's trainer, one by one
index             one pass over the tars of a pool, before the first run on it, imports included
waiting           a small vision transformer trained from tars that do not fit in memory, decoded by one
                  worker process: the share of the steps spent waiting, from the trainer's log (a CPU computes
                  slowly: this says that nothing stands between loader and model, not that a GPU is fed)

The photographs are the two that scikit-learn carries, cut at random places. CPU seconds of one thread but for
the last, which needs both cores.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from filters.image_text.pixels import Pixels  # noqa: E402
from recipes import scale as scales  # noqa: E402
from recipes.clip import stream  # noqa: E402
from recipes.clip.augment import Views  # noqa: E402
from recipes.clip.settings import Settings  # noqa: E402
from recipes.clip.train import Machine, train  # noqa: E402

torch.set_num_threads(1)
TURNS = 3
SMALL_VIT = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 128, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def photographs(n: int, seed: int = 0) -> list[bytes]:
    """JPEGs of 512 x 342, quality 95."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    out = []
    for i in range(n):
        image = sources[i % len(sources)]
        width = int(rng.integers(320, image.width + 1))
        height = width * 342 // 512
        left = int(rng.integers(0, image.width - width + 1))
        top = int(rng.integers(0, image.height - height + 1))
        part = image.crop((left, top, left + width, top + height)).resize(
            (512, 342), Image.Resampling.BICUBIC
        )
        buffer = io.BytesIO()
        part.save(buffer, "JPEG", quality=95)
        out.append(buffer.getvalue())
    return out


def pool(folder: Path, images: list[bytes], shards: int, rows: int) -> None:
    """WebDataset tars in the downloader's layout."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:08d}.tar", "w") as tar:
            for row in range(rows):
                number = shard * rows + row
                uid = f"{number:032x}"
                members = {
                    "jpg": images[number % len(images)],
                    "txt": f"a photo, number {number}".encode(),
                    "json": json.dumps({"uid": uid}).encode(),
                }
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{shard:08d}{row:04d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def decode_and_crop(images: list[bytes]) -> None:
    import open_clip

    pixels = Pixels(rgb="drop")
    views = Views(pixels, 0, len(images), area=(0.9, 1.0))
    theirs = open_clip.image_transform(224, is_train=True, mean=pixels.mean, std=pixels.std)

    def ours() -> torch.Tensor:
        return pixels.normalise(torch.from_numpy(views.make(images, 0, 0)))

    def chain() -> torch.Tensor:
        return torch.stack([theirs(Image.open(io.BytesIO(data)).convert("RGB")) for data in images])

    seconds: dict[str, list[float]] = {"ours": [], "open_clip": []}
    for _ in range(TURNS):
        for name, work in (("ours", ours), ("open_clip", chain)):
            begun = time.process_time()
            result = work()
            seconds[name].append(time.process_time() - begun)
            assert result.shape == (len(images), 3, 224, 224)
    rates = {name: len(images) / statistics.median(values) for name, values in seconds.items()}
    print(
        f"decode and crop, {sum(map(len, images)) / len(images) / 1e3:.0f} kB a JPEG: "
        f"{rates['ours']:.0f} images/s, "
        f"open_clip's transform {rates['open_clip']:.0f}: {rates['ours'] / rates['open_clip']:.2f}x"
    )


def main() -> None:
    images = photographs(256)
    decode_and_crop(images)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pool(folder / "pool", images, shards=8, rows=1000)
        os.environ["WINNOW_CACHE"] = str(folder / "cache")
        stream.IN_MEMORY = 0  # as a pool that is larger than memory would be read
        settings = {"samples": 2560, "batch": 128, "lr": 1e-3, "warmup": 2, "resized_crop": [0.9, 1.0]}
        scale = scales.Scale(
            "small-vit", "image_text", {"model": {"open_clip": SMALL_VIT}, "train": settings}
        )
        begun = time.process_time()
        stream.open_source(
            str(folder / "pool"), Pixels(), lambda texts: torch.zeros(len(texts), 77, dtype=torch.long),
            scale.section("train", Settings), 0,
        )  # fmt: skip
        took = time.process_time() - begun
        size = sum(f.stat().st_size for f in (folder / "pool").iterdir())
        print(f"index: 8,000 pairs in {size / 1e9:.2f} GB of tars, {took:.2f} s, {8000 / took:,.0f} pairs/s")
        train(scale, str(folder / "pool"), folder / "run", quiet=True, machine=Machine(workers=1))
        log = [json.loads(line) for line in (folder / "run" / "log.jsonl").open()][3:]
        rate = statistics.median(r["samples_per_second"] for r in log)
        wait = sum(r["data_wait"] * r["seconds"] for r in log) / sum(r["seconds"] for r in log)
        print(f"streamed training of a small ViT: {rate:,.0f} samples/s, {wait:.1%} of it waiting for data")


if __name__ == "__main__":
    main()
