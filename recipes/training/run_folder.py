"""A run's folder: the claim a run lays to it, its log, and files that are whole or not there.

Each trainer decides what it leaves there. Common to both: a file that says whose folder it is, from the
start; ``log.jsonl`` with one line a step; and a result file that comes last and says that the run is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LOG, PAGE, BAD_BATCH = "log.jsonl", "loss.html", "bad_batch.json"


class TrainingError(RuntimeError):
    """A run that cannot start, go on or end well; the message says why and what to do."""


def claim(path: Path, identity: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Make the folder of ``path`` (a JSON file in it) the run's own, or find that it is.

    ``keys`` are what must agree. Raises TrainingError for a folder that holds another run.
    """
    if not path.exists():
        write_json(path, identity)
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    differs = [key for key in keys if held.get(key) != identity[key]]
    if differs:
        what = "; ".join(f"{key} {held.get(key)}, now {identity[key]}" for key in differs)
        raise TrainingError(
            f"{path.parent} holds another run ({what}); choose another folder, or start it anew (--restart)"
        )


def truncated_log(path: Path, steps: int) -> list[dict[str, Any]]:
    """The records of the first ``steps`` steps; later ones, of an attempt that died, are cut off."""
    if not path.exists():
        lines = []
    else:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:steps]
    if len(lines) < steps:
        raise TrainingError(
            f"{path} has {len(lines)} lines, but the checkpoint is at step {steps}; restart the run"
        )
    if path.exists():
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        partial.replace(path)
    return [json.loads(line) for line in lines]


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, and on the disk when this returns; several processes may write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
