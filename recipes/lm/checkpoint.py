"""Checkpoints: model, optimiser, position in the data, RNG and step, whole or not at all.

A checkpoint is written beside the one before it and renamed into place, so that one survives a kill or a
full disk. Tensors are stored whole and in fp32 whatever the number of processes, one after the other, so
that writing needs the memory of one tensor and any number of processes can go on from it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from recipes.lm.distributed import World, fill, whole
from recipes.lm.model import Decoder
from recipes.lm.optimizer import AdamW
from recipes.lm.run_folder import TrainingError, write_json

FOLDER, STATE, META = "checkpoint", "state.safetensors", "state.json"

# names of the safetensors format
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class Resume:
    """Where to go on: steps done, the source's position after them, seconds spent so far."""

    step: int = 0
    position: Mapping[str, Any] | None = None
    seconds: float = 0.0


def save(
    out: Path,
    model: Decoder,
    optimizer: AdamW,
    world: World,
    resume: Resume,
) -> None:
    """Write the state after ``resume.step`` steps. Every process must call it; the main one writes.

    Raises TrainingError, everywhere, when it cannot be written; the checkpoint before is still there then.
    """
    new, final, old = out / f"{FOLDER}.new", out / FOLDER, out / f"{FOLDER}.old"
    tensors = {f"model.{k}": v for k, v in _kept(model).items()}
    tensors |= {f"optimizer.{k}": v for k, v in optimizer.state().items()}
    tensors["rng"] = torch.get_rng_state()
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
            meta = {"step": resume.step, "position": resume.position, "seconds": resume.seconds}
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
                f"{out}: the checkpoint of step {resume.step} could not be written "
                f"({error.strerror or error}); {kept}. Make room and run the same command again"
            ) from error

    world.on_main(finish)


def load(out: Path, model: Decoder, optimizer: AdamW) -> Resume:
    """Fill model and optimiser from the checkpoint; the start of a run without one."""
    from safetensors import safe_open

    # Killed between the two renames: only the old one is there, and it is whole.
    folder = next((f for f in (out / FOLDER, out / f"{FOLDER}.old") if f.exists()), None)
    if folder is None:
        return Resume()
    meta = _meta(folder)
    targets = {f"model.{k}": v for k, v in _kept(model).items()}
    targets |= {f"optimizer.{k}": v for k, v in optimizer.state().items() if k != "steps"}
    with safe_open(folder / STATE, framework="pt") as file:
        for name, target in targets.items():
            fill(target, file.get_tensor(name))
        optimizer.resume(int(file.get_tensor("optimizer.steps")))
        torch.set_rng_state(file.get_tensor("rng"))
    return Resume(meta["step"], meta["position"], meta["seconds"])


def remove(out: Path) -> None:
    """Drop the checkpoints of a finished run."""
    for name in (FOLDER, f"{FOLDER}.old", f"{FOLDER}.new"):
        shutil.rmtree(out / name, ignore_errors=True)


def bytes_needed(parameters: int) -> int:
    """Disk of two checkpoints, one replacing the other: weights and two running means in fp32 each."""
    return 2 * 12 * parameters


def save_model(path: Path, model: Decoder, world: World) -> None:
    """The weights alone, as ``model.safetensors``. Every process must call it."""
    save_tensors(path, _kept(model), world)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], world: World, problem: OSError | None = None
) -> None:
    """A safetensors file, tensor by tensor; sharded ones are put together on the way, by all processes.

    Raises OSError in the main process, and only after the last tensor: the others are in the middle of
    exchanging them. ``problem`` is one from before, with which nothing is written.
    """
    # The order and the padding of the format's own writer: larger elements first, then by name.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    partial = path.with_name(path.name + ".partial")
    file: BinaryIO | None = None
    try:
        if world.main and problem is None:
            try:
                file = open(partial, "wb")  # noqa: SIM115 - closed below, after every process has had its say
                file.write(_header({name: tensors[name] for name in names}))
            except OSError as error:
                problem = error
        for name in names:
            tensor = whole(tensors[name])
            if file is not None and problem is None:
                try:
                    _write(file, tensor)
                except OSError as error:
                    problem = error
        if file is not None and problem is None:
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                problem = error
    finally:
        if file is not None:
            _close(file)
    if problem is not None:
        partial.unlink(missing_ok=True)
        raise problem
    if world.main:
        partial.replace(path)


def _write(file: BinaryIO, tensor: Tensor) -> None:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    file.write(memoryview(data.numpy()))


def _close(file: BinaryIO) -> None:
    try:
        file.close()
    except OSError:  # what could not be flushed is reported already
        pass


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """Length of the JSON (8 bytes), then name -> dtype, shape and place, padded to 8 bytes."""
    entries, at = {}, 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * tensor.element_size()
        entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _kept(model: Decoder) -> dict[str, Tensor]:
    """The model's tensors, a tied head once."""
    state = model.state_dict()
    if model.shape.tied:
        del state["head.weight"]
    return state


def _meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / META).read_text(encoding="utf-8"))


def _sync_folder(folder: Path) -> None:
    """Renames reach the disk with their folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
