"""Where pictures and texts are encoded: in this process, or in one process for each of several devices.

``Encoders.encode`` maps batches to features, in order. What a batch holds does not depend on who encodes it,
so neither do the features: two processes give what one gives. Reading and decoding of the next batch happen
while one is encoded.
"""

from __future__ import annotations

import os
import queue
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

AHEAD = 2
"""Batches that are read and decoded, or on their way to a process, while one is encoded."""


class EncodeError(ValueError):
    """What a model cannot encode, or encodes to no usable features; the message says which row."""


class BadRow(EncodeError):
    """One row of a batch: ``row`` counts from the batch's first."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row, self.message = row, message

    def __str__(self) -> str:
        return f"row {self.row}: {self.message}"


class ProcessDied(RuntimeError):
    """An encoding process is gone; nothing can be said of the model or the set."""


@dataclass(frozen=True)
class How:
    """precision: a ``TwoTower``'s, "fp32" or "amp" (fp16 autocast on a GPU). drop_alpha: pictures become RGB
    before they are resized, as DataComp's loader of tars has it, where the model's own transform would make
    them RGB afterwards."""

    precision: str = "fp32"
    drop_alpha: bool = False


@dataclass(frozen=True)
class About:
    """What there is to know of a model. identity: hash of weights and configuration, None where it has none;
    amp: what the precision "amp" means on its device; source: where its weights came from."""

    identity: str | None
    device: str
    amp: str
    source: str


class Encoders(Protocol):
    name: str
    about: About
    processes: int

    def encode(
        self, kind: str, batches: Iterable[Sequence[Any]], how: How
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(rows of the batch, features float32 [rows, d]) of every batch, in order. kind: "images" (encoded
        files) or "texts". BadRow names the row within the batch that is due next."""

    def close(self) -> None: ...


class Here:
    """In this process. ``tower``: a ``TwoTower``, or what has its ``encode_images`` and ``encode_texts``."""

    processes = 1

    def __init__(self, tower: Any, name: str = "model", threads: int = 1) -> None:
        from evaluation.clip.short_texts import trimmed

        self.about, self.name = _about(tower), name
        self.tower = trimmed(tower)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None

    def encode(
        self, kind: str, batches: Iterable[Sequence[Any]], how: How
    ) -> Iterator[tuple[int, np.ndarray]]:
        left = iter(batches)

        def read() -> tuple[int, Any] | None:
            batch = next(left, None)
            return None if batch is None else self.prepare(kind, batch, how)

        for n, prepared in self.ahead(read):
            yield n, self.features(kind, n, prepared, how)

    def ahead(self, read: Callable[[], Any]) -> Iterator[Any]:
        """What ``read`` gives until it gives None, called in a thread while the last is worked on."""
        waiting: deque[Future] = deque(self._reader.submit(read) for _ in range(AHEAD))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(self._reader.submit(read))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:  # the source is not read any more once this generator is gone
                if not future.cancelled():
                    future.exception()

    def prepare(self, kind: str, batch: Sequence[Any], how: How) -> tuple[int, Any]:
        """Decode pictures, where the tower takes pixels."""
        if kind != "images" or not hasattr(self.tower, "encode_pixels"):
            return len(batch), list(batch)
        from filters.image_text.pixels import UndecodableImage

        pixels = self.tower.pixels
        if how.drop_alpha and pixels.rgb == "last":
            pixels = replace(pixels, rgb="drop")
        try:
            return len(batch), pixels.many(batch, self._decoders.map if self._decoders else map)
        except UndecodableImage as error:
            raise BadRow(error.row, error.reason) from error

    def features(self, kind: str, n: int, prepared: Any, how: How) -> np.ndarray:
        """float32 [n, d], finite. Raises BadRow, EncodeError."""
        pixels = kind == "images" and hasattr(self.tower, "encode_pixels")
        encode = getattr(self.tower, "encode_pixels" if pixels else f"encode_{kind}")
        more = {} if how.precision == "fp32" else {"precision": how.precision}
        found = np.asarray(encode(prepared, **more))
        if found.ndim != 2 or len(found) != n:
            raise EncodeError(f"the model gives features of shape {found.shape} for {n} {kind}")
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise BadRow(row, "the model's features are not finite (NaN or infinity)")
        return found.astype(np.float32, copy=False)

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)
        if self._decoders:
            self._decoders.shutdown(cancel_futures=True)


class Pool:
    """One process a device, each with its own copy of the model; they live until ``close``.

    load: a function of this module's caller that can be pickled; load(device) → tower, called once in each.
    """

    def __init__(
        self,
        load: Callable[[str], Any],
        devices: Sequence[str],
        name: str = "model",
        threads: int = 1,
    ) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.name, self.processes = name, len(devices)
        self._tasks, self._results = context.Queue(), context.Queue()
        self._stream = 0
        self._workers = [
            context.Process(
                target=_work, args=(load, device, threads, self._tasks, self._results), daemon=True
            )
            for device in devices
        ]
        for worker in self._workers:
            worker.start()
        try:
            said = [self._next() for _ in self._workers]
            for _, _, error in said:
                if error is not None:
                    raise error
        except BaseException:
            self.close()
            raise
        self.about: About = said[0][1]

    def encode(
        self, kind: str, batches: Iterable[Sequence[Any]], how: How
    ) -> Iterator[tuple[int, np.ndarray]]:
        self._stream += 1  # what an interrupted stream left in the queues is known by its number
        sizes: dict[int, int] = {}
        done: dict[int, Any] = {}
        sent = given = 0
        left = iter(batches)
        more = True
        while True:
            while more and sent - given - len(done) < (1 + AHEAD) * self.processes:
                batch = next(left, None)
                if batch is None:
                    more = False
                    break
                sizes[sent] = len(batch)
                self._tasks.put((self._stream, sent, kind, list(batch), how))
                sent += 1
            if given == sent:
                return
            while given not in done:
                (stream, number), features, error = self._next()
                if stream == self._stream:
                    done[number] = features, error
            features, error = done.pop(given)
            if error is not None:
                raise error
            yield sizes.pop(given), features
            given += 1

    def _next(self) -> Any:
        while True:
            try:
                return self._results.get(timeout=1.0)
            except queue.Empty:
                for worker in self._workers:
                    if not worker.is_alive():
                        raise ProcessDied(
                            f"the encoding process {worker.pid} ended with code {worker.exitcode}; if memory "
                            "ran out, use fewer workers. Finished tasks are kept: the same command goes on"
                        ) from None

    def close(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        for one in (self._tasks, self._results):
            one.cancel_join_thread()
            one.close()


def _work(load: Callable[[str], Any], device: str, threads: int, tasks: Any, results: Any) -> None:
    parent = os.getppid()
    try:
        tower = load(device)
        import torch

        torch.set_num_threads(threads)
        here = Here(tower, threads=threads)
    except Exception as error:
        results.put((None, None, _plain(error)))
        return
    results.put((None, here.about, None))

    def read() -> Any:
        while True:
            try:
                stream, number, kind, batch, how = tasks.get(timeout=5.0)
            except queue.Empty:
                if os.getppid() != parent:  # killed: it could not send word, and nobody reads the results
                    os._exit(1)
                continue
            try:
                return (stream, number), kind, here.prepare(kind, batch, how), how
            except Exception as error:
                return (stream, number), kind, error, how

    for place, kind, prepared, how in here.ahead(read):
        try:
            if isinstance(prepared, Exception):
                raise prepared
            results.put((place, here.features(kind, *prepared, how), None))
        except Exception as error:
            results.put((place, None, _plain(error)))


def _plain(error: Exception) -> Exception:
    """An error that can be sent: those of this module as they are, others with their trace."""
    if isinstance(error, BadRow) or type(error) in (EncodeError, ValueError):
        return error
    if isinstance(error, ValueError):
        return EncodeError(str(error))
    return RuntimeError("".join(traceback.format_exception(error)))


def _about(tower: Any) -> About:
    arithmetic = getattr(tower, "arithmetic", lambda precision: precision)
    return About(
        identity=getattr(tower, "identity", None),
        device=str(getattr(tower, "device", "cpu")),
        amp=arithmetic("amp"),
        source=getattr(tower, "source", ""),
    )


def places(device: str | None, workers: int) -> list[str]:
    """The devices of ``workers`` processes: GPUs from the one named on, or the CPU again and again.

    device: None = the GPU where there is one, "cpu", "cuda", "cuda:1", or several with commas, which say
    themselves how many.
    """
    from recipes.training.world import device as decide

    if workers < 1:
        raise ValueError(f"workers is {workers}; it is a number of processes, 1 or more")
    if device and "," in device:
        return [part.strip() for part in device.split(",") if part.strip()]
    chosen = decide(device or None)
    if chosen.type != "cuda":
        return [str(chosen)] * workers
    import torch

    first, there = chosen.index or 0, torch.cuda.device_count()
    if first + workers > there:
        raise ValueError(f"{workers} workers from GPU {first} on, but there are {there} GPUs")
    return [f"cuda:{first + i}" for i in range(workers)]
