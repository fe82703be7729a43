"""Weights files: read without running code, checked, and put into a model; the errors say what does not fit.

Read are safetensors and what `torch.load(weights_only=True)` takes: a plain state dict, or a training
checkpoint that holds one (DataComp's and open_clip's `epoch_*.pt`), with or without the prefix of distributed
training.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

HOLDERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's own files carry beside the weights."""
SHOWN = 4
MEND = (
    "convert it to safetensors where you trust its maker: c = torch.load({path!r}, weights_only=False); "
    "w = c.get('state_dict', c) if isinstance(c, dict) else c.state_dict(); "
    "safetensors.torch.save_file(w, 'weights.safetensors')"
)


class ModelError(ValueError):
    """A model cannot be built or loaded; the message says what was found and the mend."""


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU; wrappers opened, prefixes of distributed or compiled modules taken off.

    Raises ModelError for a missing or torn file, for a pickle that holds more than weights (nothing of it is
    run), and for NaN or infinity, naming the tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    found = _safetensors(path) if path.suffix == ".safetensors" else _plain_pickle(path)
    holder = next((key for key in HOLDERS if isinstance(found.get(key), Mapping)), None)
    weights = found[holder] if holder else found
    other = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if not weights or other:
        keys = ", ".join(map(str, list(found)[:8])) or "nothing"
        raise ModelError(
            f"{path}: no weights found; it holds {keys}. Expected tensors by name, or a checkpoint with one "
            f"of {', '.join(HOLDERS)}"
        )
    weights = {_bare(name): value for name, value in weights.items()}
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity; the training that made it failed")
    return weights


def is_openai(weights: Mapping[str, Any]) -> bool:
    """Whether a state dict is one of OpenAI's files, which were trained with quick GELU."""
    return all(name in weights for name in OPENAI_EXTRAS)


def put_into(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Load weights into a module of exactly that architecture; ModelError names the tensors that differ.

    Position embeddings are not resized: a checkpoint for another image size or context is another
    architecture.
    """
    weights = {name: value for name, value in weights.items() if name not in OPENAI_EXTRAS}
    wanted = module.state_dict()
    if "text.token_embedding.weight" in wanted or "text.ln_final.weight" in wanted:
        weights = _text_tower_apart(weights)
    for name in ("logit_scale", "logit_bias"):  # a number or a vector of one, depending on the release
        if name in weights and name in wanted and weights[name].numel() == wanted[name].numel() == 1:
            weights[name] = weights[name].reshape(wanted[name].shape)
    unknown = "text.transformer.embeddings.position_ids"  # a buffer that transformers no longer stores
    if unknown not in wanted:
        weights.pop(unknown, None)
    differing = _differences(weights, wanted)
    if differing:
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise ModelError(
            f"{source}: weights of another architecture; {len(differing)} tensors do not fit, of the model's "
            f"{len(wanted)}: {'; '.join(differing[:SHOWN])}{more}"
        )
    module.load_state_dict(weights)


def identity(module: nn.Module, config: Mapping[str, Any]) -> str:
    """16 hex digits over all weights and a configuration (JSON values): the same model has the same ones,
    wherever it was loaded from."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name, value in sorted(module.state_dict().items()):
        total.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        total.update(flat.view(torch.uint8).numpy())
    return total.hexdigest()[:16]


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({error}); fetch or write it again"
        ) from error


def _plain_pickle(path: Path) -> dict[str, Any]:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if scripted:
            raise ModelError(
                f"{path}: a TorchScript program (the form of OpenAI's downloads), not plain weights. Give "
                'pretrained="openai" to take them from the hub, or convert it to safetensors: '
                f"safetensors.torch.save_file(torch.jit.load({str(path)!r}, 'cpu').state_dict(), "
                "'weights.safetensors')"
            )
    try:
        # mapped, so that the optimizer's state in a training checkpoint is never read into memory
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch writes in bold
        reason = re.split(r"[.:\n](?:\s|$)", plain)[0] or type(error).__name__
        raise ModelError(
            f"{path}: not loadable as plain weights ({reason}); {MEND.format(path=str(path))}"
        ) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds a {type(found).__name__}, not tensors by name")
    return dict(found)


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _text_tower_apart(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip keeps the text tower either in the model or under `text.`; files come in both forms."""
    if "text_projection" not in weights or any(name.startswith("text.") for name in weights):
        return weights
    parts = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
    return {f"text.{name}" if name.startswith(parts) else name: value for name, value in weights.items()}


def _differences(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    shapes = [
        f"{name} is {list(weights[name].shape)} in the file, {list(value.shape)} in the model"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    missing = [
        f"{name} {list(value.shape)} is not in the file"
        for name, value in wanted.items()
        if name not in weights
    ]
    left = [
        f"{name} {list(value.shape)} is not in the model"
        for name, value in weights.items()
        if name not in wanted
    ]
    return shapes + missing + left
