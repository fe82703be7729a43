"""What survives a crash: the figures of every finished task, under a key that changes with whatever they
depend on; and the line that says how far a run is.

A key is a hash of the model (weights, configuration, tokenizer), the task (its definition and its file), the
settings (limit, precision) and the code that decides figures. A file of another key is never read, so a
cache may be shared by all models and kept for ever.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from evaluation.lm.tasks import Task
from recipes.lm.run_folder import write_json

HARNESS = "2"
"""Version of the scoring rules; the code's own hash (:func:`code_hash`) is part of every key besides."""
CODE = ("answers", "batches", "generate", "metrics", "prompts", "run", "scorer", "tasks")


def model_hash(model_dir: str | Path) -> str:
    """16 hex digits over weights, configuration and tokenizer of a trained model."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        digest.update(name.encode())
        with open(Path(model_dir) / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest() if sys.version_info >= (3, 11)
                          else _sha256(file))  # fmt: skip
    return digest.hexdigest()[:16]


def code_hash() -> str:
    """Hash of the modules that decide a figure, the model's among them."""
    import recipes.lm

    here, model = Path(__file__).parent, Path(recipes.lm.__file__).parent
    files = [here / f"{name}.py" for name in CODE] + [model / "model.py", model / "cache.py"]
    digest = hashlib.sha256(HARNESS.encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


class TaskCache:
    """A folder of finished tasks, one small JSON file each, written whole or not at all."""

    def __init__(self, folder: str | Path, model: str, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.identity = {"model": model, "settings": dict(settings), "code": code_hash()}

    def path(self, task: Task, data: str) -> Path:
        """Where the figures of ``task`` on the file with hash ``data`` are kept."""
        key = json.dumps({**self.identity, "task": asdict(task), "data": data}, sort_keys=True)
        return self.folder / f"{task.name}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"

    def get(self, task: Task, data: str) -> dict[str, Any] | None:
        """The stored figures, or None. A file that a dying disk cut short counts as none."""
        try:
            return json.loads(self.path(task, data).read_text(encoding="utf-8"))["result"]
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return None

    def put(self, task: Task, data: str, result: Mapping[str, Any]) -> None:
        path = self.path(task, data)
        write_json(path, {"task": task.name, "data": data, **self.identity, "result": dict(result)})


class Progress:
    """``arc_easy  3/53 tasks  310 items/s  eta 12:40`` on stderr.

    On a terminal one line that is written over; elsewhere a line a task. ``show``: None = on terminals only.
    The ETA weighs tasks by the bytes they make the model read and learns the speed as it goes.
    """

    def __init__(self, work: Mapping[str, float], *, show: bool | None = None, stream: TextIO | None = None):
        self.work, self.stream = dict(work), stream or sys.stderr
        self.live = self.stream.isatty()
        self.show = self.live if show is None else show
        self.start = time.monotonic()
        self.total, self.spent, self.done, self.drawn = sum(self.work.values()), 0.0, 0, 0.0
        self.name, self.items, self.began = "", 0, self.start

    def begin(self, name: str) -> None:
        """``items`` is set by the task once its file is read."""
        self.name, self.items, self.began = name, 0, time.monotonic()
        self.update(0.0)

    def update(self, share: float) -> None:
        """``share`` of the current task is done."""
        now = time.monotonic()
        if self.show and self.live and (now - self.drawn > 0.2 or share in (0.0, 1.0)):
            self.drawn = now
            self._write(self.line(share), end="\r")

    def end(self, *, cached: bool = False) -> None:
        """The current task is done; a ``cached`` one took no time, so it teaches nothing about the speed."""
        self.done += 1
        weight = self.work.pop(self.name, 0.0)
        if cached:
            self.total -= weight
        else:
            self.spent += weight
        if self.show and not self.live:
            self._write(self.line(None) + ("  (kept)" if cached else ""), end="\n")

    def close(self) -> None:
        if self.show and self.live:
            self._write("", end="\r")

    def line(self, share: float | None) -> str:
        """``share`` None: between two tasks."""
        now = time.monotonic()
        count = f"{self.done}/{self.done + len(self.work)} tasks"
        done = self.items * (1.0 if share is None else share)
        speed = f"  {done / max(now - self.began, 1e-9):,.0f} items/s" if done else ""
        read = self.spent + (0.0 if share is None else share * self.work.get(self.name, 0.0))
        left = self.total - read
        eta = f"  eta {_clock((now - self.start) * left / read)}" if read else ""
        return f"{self.name}  {count}{speed}{eta}"

    def _write(self, text: str, end: str) -> None:
        self.stream.write(("\x1b[2K" if self.live else "") + text + end)
        self.stream.flush()


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


def _sha256(file: Any) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()
