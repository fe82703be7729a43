"""Features that are made once: every picture of a set, every distinct text of all tasks.

``Features`` stands between the tasks and the model. It names the set and the example in every error.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.clip.devices import BadRow, EncodeError, Encoders, How
from evaluation.clip.examples import Examples
from evaluation.clip.tasks import TaskError

BATCH, TEXT_BATCH = 512, 256
"""Rows that are sent to a model together. The model may cut them further; features do not depend on who
encodes a batch, and hardly on its size (the last bits of a matrix product)."""
NORM = 1e-12
FP32 = How()

Texts = Callable[[Sequence[str]], np.ndarray]
"""Texts → float32 [n, d] of length 1."""


@dataclass(frozen=True)
class Encoded:
    """A set after the image tower: features float32 [n, d] of length 1, and the set's other columns.

    half: the features came out of a half-precision tower, and so do products of them (fp16 autocast).
    """

    ids: list[str]
    features: np.ndarray
    columns: dict[str, list[Any]]
    half: bool = False

    def where(self, conditions: Mapping[str, Any], task: str) -> Encoded:
        """The rows for which every column has the value wanted."""
        if not conditions:
            return self
        keep = np.ones(len(self.ids), bool)
        for column, value in conditions.items():
            keep &= np.array([v == value for v in self.column(column, task)])
        if not keep.any():
            raise TaskError(f"task {task}: no row with {dict(conditions)}")
        return self.rows(np.flatnonzero(keep))

    def rows(self, rows: np.ndarray) -> Encoded:
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Encoded([self.ids[i] for i in rows], self.features[rows], columns, self.half)

    def column(self, name: str, task: str) -> list[Any]:
        if name not in self.columns:
            raise TaskError(
                f"task {task}: the set has no column {name}; it has {', '.join(sorted(self.columns))}"
            )
        return self.columns[name]


class Features:
    """What one model makes of sets and texts.

    ``images_encoded`` and ``texts_encoded`` count what went through the towers.
    """

    def __init__(self, encoders: Encoders) -> None:
        self.encoders = encoders
        self.images_encoded = self.texts_encoded = 0
        self._texts: dict[str, dict[str, np.ndarray]] = {}
        self._images: dict[tuple[str, How], dict[bytes, np.ndarray]] = {}

    def images(
        self,
        data: Any,
        how: How = FP32,
        *,
        shared: str | None = None,
        report: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Every picture of a set (``name``, ``batches``) through the image tower, once.

        shared: name of the pictures, where another set has the same in files of its own (CLEVR's two tasks):
        what has been seen under that name, byte for byte, is not encoded again. report: told how many
        pictures are done. Errors name model, set and example.
        """
        ids: list[str] = []
        columns: dict[str, list[Any]] = {}
        due: deque[Sequence[str]] = deque()
        known = None if shared is None else self._images.setdefault((shared, how), {})
        order: list[bytes] = []
        parts: list[np.ndarray] = []
        done = 0
        stream = self.encoders.encode("images", self._read(data, ids, columns, due, known, order), how)
        try:
            for n, features in stream:
                batch = due.popleft()
                self._width(parts[0].shape[1] if parts else None, features, data.name, batch[0])
                parts.append(features)
                done += n
                self.images_encoded += n
                if report:
                    report(done)
        except BadRow as error:
            raise EncodeError(f"{self._who(data.name)}, {due[0][error.row]}: {error.message}") from error
        except EncodeError as error:
            raise EncodeError(f"{self._who(data.name)}: {error}") from error
        if not ids:
            raise EncodeError(f"{self._who(data.name)}: the set has no examples")
        features = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
        if known is not None:
            fresh = iter(features)
            for digest in order:
                if digest not in known:
                    known[digest] = next(fresh)
            features = np.stack([known[digest] for digest in order])
        return Encoded(
            ids, features, columns, half=how.precision != "fp32" and self.encoders.about.amp != "fp32"
        )

    def _read(
        self,
        data: Any,
        ids: list[str],
        columns: dict[str, list[Any]],
        due: deque[Sequence[str]],
        known: dict[bytes, np.ndarray] | None,
        order: list[bytes],
    ) -> Iterator[Sequence[bytes]]:
        """Batches of images that have to be encoded, in order; what is read beside goes into the lists."""
        seen = set() if known is None else set(known)
        batch: Examples
        for batch in data.batches(BATCH):
            ids.extend(batch.ids)
            for name, values in batch.columns.items():
                columns.setdefault(name, []).extend(values)
            if known is None:
                due.append(batch.ids)
                yield batch.images
                continue
            digests = [hashlib.blake2b(image, digest_size=16).digest() for image in batch.images]
            order.extend(digests)
            fresh = []
            for row, digest in enumerate(digests):
                if digest not in seen:
                    seen.add(digest)
                    fresh.append(row)
            if fresh:
                due.append([batch.ids[row] for row in fresh])
                yield [batch.images[row] for row in fresh]

    def forget(self, shared: str) -> None:
        """Pictures of that name will not come again."""
        for key in [key for key in self._images if key[0] == shared]:
            del self._images[key]

    def texts(
        self, texts: Sequence[str], how: How = FP32, width: int | None = None, what: str = "the tasks"
    ) -> np.ndarray:
        """float32 [n, d] of length 1; a text that any task has asked for before is not encoded again.

        width: features of images it must match; what: whose texts, for errors.
        """
        known = self._texts.setdefault(how.precision, {})
        # texts of like length together: a batch is as long as its longest
        missing = sorted({text for text in texts if text not in known}, key=lambda text: (len(text), text))
        batches = [missing[i : i + TEXT_BATCH] for i in range(0, len(missing), TEXT_BATCH)]
        start = 0
        try:
            for n, features in self.encoders.encode("texts", batches, how):
                known.update(zip(missing[start : start + n], features, strict=True))
                start += n
        except BadRow as error:
            raise EncodeError(
                f"{self._who(what)}, text {missing[start + error.row]!r}: {error.message}"
            ) from error
        except EncodeError as error:
            raise EncodeError(f"{self._who(what)}: {error}") from error
        self.texts_encoded += len(missing)
        found = [known[text] for text in texts]
        for row, vector in enumerate(found):
            if width is not None and len(vector) != width:
                raise EncodeError(
                    f"{self._who(what)}: pictures have {width} features, the text {texts[row]!r} has "
                    f"{len(vector)}: the towers do not belong together"
                )
        return np.stack(found)

    def _width(self, before: int | None, features: np.ndarray, name: str, example: str) -> None:
        if features.shape[1] == 0 or before not in (None, features.shape[1]):
            raise EncodeError(
                f"{self._who(name)}, {example}: {features.shape[1]} features"
                + (f", and {before} before it" if before else "; the image tower gives nothing")
            )

    def _who(self, name: str) -> str:
        return f"model {self.encoders.name}, set {name}"


def class_vectors(texts: Texts, names: Sequence[Sequence[str]], templates: Sequence[str]) -> np.ndarray:
    """One vector per class, float32 [classes, d] of length 1: every template with every name of the class,
    each of length 1, their mean, length 1 again. "{c}" stands for the name."""
    prompts = [[t.replace("{c}", name) for name in own for t in templates] for own in names]
    unique = sorted({p for own in prompts for p in own})
    at = {prompt: row for row, prompt in enumerate(unique)}
    vectors = texts(unique)
    means = np.stack([vectors[[at[p] for p in own]].mean(0) for own in prompts])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), NORM)
