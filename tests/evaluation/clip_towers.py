"""Towers for tests: their features are a function of the bytes or the text alone, and they count."""

from __future__ import annotations

import hashlib
import os
from collections import Counter

import numpy as np


def die(device: str) -> None:
    """A process that is gone before it has a model."""
    os._exit(7)


class HashedTower:
    """features(thing) → a vector that only depends on the thing. ``ties``: one of few unit vectors, so that
    cosines are exactly 0 or 1 and most candidates are equal; else dense random directions.

    amp: as on a GPU; features asked for with precision "amp" are rounded to half precision.
    """

    def __init__(self, ties: bool = False, width: int = 16, amp: bool = False, salt: str = "") -> None:
        self.ties, self.width, self.amp, self.salt = ties, width, amp, salt
        self.images: Counter = Counter()
        self.texts: Counter = Counter()
        self.precisions: set[tuple[str, str]] = set()
        self.identity = f"{ties}-{width}-{salt}"
        self.device = "cuda:0" if amp else "cpu"

    def arithmetic(self, precision: str) -> str:
        return "fp16 autocast" if precision == "amp" and self.amp else "fp32"

    def encode_images(self, images, precision="fp32"):
        self.images.update((image, precision) for image in images)
        return self._features("images", images, precision)

    def encode_texts(self, texts, precision="fp32"):
        self.texts.update((text, precision) for text in texts)
        return self._features("texts", [text.encode() for text in texts], precision)

    def _features(self, kind, things, precision):
        self.precisions.add((kind, precision))
        out = np.stack([self.vector(kind, thing) for thing in things])
        if precision == "amp" and self.amp:
            out = out.astype(np.float16).astype(np.float32)
        return out

    def vector(self, kind: str, thing: bytes) -> np.ndarray:
        digest = hashlib.sha256(self.salt.encode() + thing).digest()
        if self.ties:
            return np.eye(self.width, dtype=np.float32)[digest[0] % min(4, self.width)]
        vector = np.random.default_rng(list(digest)).normal(size=self.width)
        return (vector / np.linalg.norm(vector)).astype(np.float32)
