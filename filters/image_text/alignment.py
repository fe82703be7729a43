"""Image-text alignment: the cosine of a two-tower model, one number per pair."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import curation as c
from curation.identity import class_identity

# Rows go through the network in blocks of one fixed shape (the last one padded): matrix kernels may order
# their sums by shape, and a score must not depend on how the engine cut its batches.
BLOCK = 64


def digest(path: str | Path) -> str:
    """SHA-256 over the files of a model directory that decide its scores, or of one weights file."""
    path = Path(path)
    files = [path] if path.is_file() else [path / "config.json", path / "model.safetensors"]
    total = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{path} is not a model directory: {file.name} is missing")
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def cosines(model: Any, images: list[bytes], captions: list[str]) -> np.ndarray:
    """Cosine of each image with its own caption, float32 [n], the same for every batching.

    model: filters.image_text.network.TwoTower. Raises ValueError naming the row of an unreadable image.
    """
    import torch

    pixels = model.pixels.many(images)
    out = np.empty(len(images), np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the split of a sum over threads changes its last bits
    try:
        for start in range(0, len(images), BLOCK):
            block = pixels[start : start + BLOCK]
            texts = captions[start : start + BLOCK]
            n = len(block)
            if n < BLOCK:
                block = np.concatenate([block, np.zeros((BLOCK - n, *block.shape[1:]), np.uint8)])
                texts = texts + [""] * (BLOCK - n)
            image = model.encode_pixels(block, BLOCK)
            text = model.encode_texts(texts, BLOCK)
            out[start : start + n] = np.einsum("nd,nd->n", image, text)[:n]
    finally:
        torch.set_num_threads(threads)
    return out


def _columns(batch: pa.RecordBatch) -> tuple[list[bytes], list[str]]:
    images = batch.column("image").to_pylist()
    captions = batch.column("text").to_pylist()
    for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
        if image is None or caption is None:
            raise ValueError(f"row {row} of the batch has a null {'image' if image is None else 'caption'}")
    return images, captions


@dataclass(frozen=True)
class FilterNetwork(c.Model):
    """Alignment of image and caption by a filter network (Data Filtering Networks, arXiv 2309.17425).

    path: a model directory from `recipes.filter_network`. Output `alignment`: cosine, float32 in -1..1.
    weights: SHA-256 of the directory; filled in when left empty, so that the step's identity changes with the
    weights and not only with the path.
    """

    path: str
    weights: str = ""

    inputs = ("image", "text")
    outputs = {"alignment": pa.float32()}

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if not self.weights:
            object.__setattr__(self, "weights", digest(self.path))

    @property
    def identity(self) -> Any:
        # the weights are what counts, not the folder they lie in
        return [self.name, class_identity(type(self)), self.weights]

    def setup(self) -> None:
        from filters.image_text import network

        found = digest(self.path)
        if found != self.weights:
            raise ValueError(
                f"{self.path} holds weights {found[:12]}, the plan was made for {self.weights[:12]}; "
                "make the plan again"
            )
        object.__setattr__(self, "_model", network.load(self.path))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array(cosines(self._model, *_columns(batch)), pa.float32())  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ClipScore(c.Model):
    """CLIP score of a pair by an open_clip model: cosine, float32 in -1..1, column `clip_score`.

    model: an open_clip name ("ViT-B-32"), or a model directory; pretrained: a tag that open_clip knows
    (downloaded when first used) or a checkpoint file.
    """

    model: str
    pretrained: str | None = None

    inputs = ("image", "text")
    outputs = {"clip_score": pa.float32()}

    def setup(self) -> None:
        from filters.image_text import network

        object.__setattr__(self, "_model", network.load(self.model, self.pretrained))

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        return pa.array(cosines(self._model, *_columns(batch)), pa.float32())  # type: ignore[attr-defined]


filter_network = FilterNetwork
clip_score = ClipScore
