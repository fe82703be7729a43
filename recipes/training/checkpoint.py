"""Checkpoints: a run's tensors and its place, whole or not at all.

A checkpoint is written beside the one before it and renamed into place, so that one survives a kill or a
full disk. Nothing in it is pickled: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from recipes.training.run_folder import TrainingError, write_json
from recipes.training.tensors import fill, save_tensors
from recipes.training.world import World

FOLDER, STATE, META = "checkpoint", "state.safetensors", "state.json"


def save(out: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], world: World) -> None:
    """Write the state after ``meta["step"]`` steps. Every process must call it; the main one writes.

    Raises TrainingError, everywhere, when it cannot be written; the checkpoint before is still there then.
    """
    new, final, old = out / f"{FOLDER}.new", out / FOLDER, out / f"{FOLDER}.old"
    problem: OSError | None = None
    if world.main:
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
        except OSError as error:
            problem = error
    try:
        save_tensors(new / STATE, tensors, world, problem)
    except OSError as error:
        problem = error

    def finish() -> None:
        try:
            if problem is not None:
                raise problem
            write_json(new / META, meta)
            shutil.rmtree(old, ignore_errors=True)
            if final.exists():
                final.rename(old)
            new.rename(final)
            _sync_folder(out)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)  # its space may be what is missing
            left = next((f for f in (final, old) if f.exists()), None)
            kept = f"the one of step {_meta(left)['step']} is kept" if left else "there is none before it"
            raise TrainingError(
                f"{out}: the checkpoint of step {meta['step']} could not be written "
                f"({error.strerror or error}); {kept}. Make room and run the same command again"
            ) from error

    world.on_main(finish)


def load(out: Path, targets: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Fill ``targets`` by name from the checkpoint; (what it says beside them, its other tensors).

    None without a checkpoint. Sharded targets take their part: all processes must ask.
    """
    from safetensors import SafetensorError, safe_open

    # Killed between the two renames: only the old one is there, and it is whole.
    folder = next((f for f in (out / FOLDER, out / f"{FOLDER}.old") if f.exists()), None)
    if folder is None:
        return None
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            for name, target in targets.items():
                fill(target, file.get_tensor(name))
            others = {name: file.get_tensor(name) for name in sorted(set(file.keys()) - set(targets))}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{folder / STATE} cannot be read ({error}); restart the run") from error
    return _meta(folder), others


def remove(out: Path) -> None:
    """Drop the checkpoints of a finished run."""
    for name in (FOLDER, f"{FOLDER}.old", f"{FOLDER}.new"):
        shutil.rmtree(out / name, ignore_errors=True)


def refuse_full_disk(out: Path, parameters: int) -> None:
    """TrainingError where two checkpoints, one replacing the other, cannot fit."""
    need, free = bytes_needed(parameters), shutil.disk_usage(out).free
    if free < need:
        raise TrainingError(
            f"{out}: {free / 1e6:,.1f} MB free, two checkpoints (one replaces the other) need "
            f"{need / 1e6:,.1f} MB; make room or choose another disk"
        )


def bytes_needed(parameters: int) -> int:
    """Disk of two checkpoints, one replacing the other: weights and two running means in fp32 each."""
    return 2 * 12 * parameters


def _meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / META).read_text(encoding="utf-8"))


def _sync_folder(folder: Path) -> None:
    """Renames reach the disk with their folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
