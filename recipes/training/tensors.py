"""Tensors to and from safetensors files, one after the other, whether they lie whole or sharded.

A file holds tensors whole whatever the number of processes; writing it needs the memory of one tensor, and
any number of processes can read it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from recipes.training.world import World

# names of the safetensors format
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all processes must ask); a plain one is its own."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole value into a tensor; into this process's part, where it is sharded."""
    if hasattr(tensor, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(tensor.device)
        value = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(value)


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
