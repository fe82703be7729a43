"""Where batches run: here, or in one process for each of several devices.

A runner maps ``function(place, batch)`` over batches; a place has ``model`` and ``tokenizer``. What a batch
holds does not depend on the runner, so neither do the figures: two devices give what one gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from recipes.lm.model import Decoder

PRECISIONS = ("fp32", "bf16")


class Runner(Protocol):
    def map(self, function: Callable[[Here, Any], Any], batches: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """(batch, result) of every batch, in the order in which they are done."""

    def close(self) -> None: ...


class Here:
    """In this process, on one device."""

    def __init__(
        self, model: Decoder, tokenizer: Any, device: str | None = None, precision: str = "fp32"
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; use {' or '.join(PRECISIONS)}")
        self.model = model if device is None else model.to(device)
        self.tokenizer, self.precision = tokenizer, precision

    def run(self, function: Callable[[Here, Any], Any], batch: Any) -> Any:
        import torch

        kind = self.model.head.weight.device.type
        half = torch.autocast(kind, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with torch.inference_mode(), half:
            return function(self, batch)

    def map(self, function: Callable[[Here, Any], Any], batches: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for batch in batches:
            yield batch, self.run(function, batch)

    def close(self) -> None:
        pass


class Pool:
    """One process a device, each with its own copy of the model; they live until ``close``."""

    def __init__(
        self, model_dir: str | Path, devices: Sequence[str], precision: str, threads: int = 1
    ) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        names = context.Queue()
        for device in devices:
            names.put(device)
        self.size = len(devices)
        self.executor = ProcessPoolExecutor(
            self.size,
            mp_context=context,
            initializer=_start_worker,
            initargs=(str(model_dir), names, precision, threads),
        )

    def map(self, function: Callable[[Here, Any], Any], batches: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        left, running = iter(batches), {}
        while True:
            for batch in left:
                running[self.executor.submit(_run_in_worker, function, batch)] = batch
                if len(running) >= 2 * self.size:
                    break
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


_worker: Here | None = None


def _start_worker(model_dir: str, names: Any, precision: str, threads: int) -> None:
    global _worker
    import torch

    from recipes.lm.train import load_model

    torch.set_num_threads(threads)
    model, tokenizer, _ = load_model(model_dir)
    _worker = Here(model, tokenizer, names.get(), precision)


def _run_in_worker(function: Callable[[Here, Any], Any], batch: Any) -> Any:
    assert _worker is not None
    return _worker.run(function, batch)


def best_device() -> str:
    """The device that the trainer would use on this machine."""
    try:
        from recipes.lm.distributed import device
    except ImportError:
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return str(device())


def all_devices() -> list[str]:
    """Every GPU of the machine, or the CPU."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
