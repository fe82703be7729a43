"""What a training run leaves in its folder, and the claim it lays to it.

``config.json`` (scale, seed, fingerprint of the data) is there from the start and says whose folder it is;
``log.jsonl`` has one line a step; ``result.json`` comes last and says that the run is whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import scale as scales
from recipes.lm import data
from recipes.training.run_folder import (
    BAD_BATCH,
    LOG,
    PAGE,
    TrainingError,
    claim,
    truncated_log,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np

    from recipes.lm.model import Decoder

__all__ = [
    "BAD_BATCH",
    "CONFIG",
    "LOG",
    "MODEL",
    "PAGE",
    "RESULT",
    "TOKENIZER",
    "TrainResult",
    "TrainingError",
    "begin",
    "load_model",
    "stop_on_bad_batch",
    "truncated_log",
    "write_json",
]

RESULT, CONFIG, MODEL, TOKENIZER = "result.json", "config.json", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class TrainResult:
    """What was trained, on what, and what it cost. ``tokens`` are predicted tokens: steps × batch × T."""

    model: str
    scale: str
    scale_hash: str
    seed: int
    steps: int
    tokens: int
    parameters: int
    seconds: float
    """Wall clock of the training itself, over all attempts of the run."""
    final_loss: float
    """Mean cross-entropy (nats per token) of the last 5 % of the steps."""
    data: str
    data_rows: int
    """Rows of text; contexts, where the data are tokens that do not say what they were made of."""
    data_bytes: int
    """Bytes of text, or of token ids."""
    data_fingerprint: str
    epochs: float
    """How often the data were read."""
    machine: str = ""
    """What the last attempt was carried out by, for people."""


def begin(out: Path, identity: dict[str, Any]) -> TrainResult | None:
    """Claim the folder for this run; the stored result if the same run is already finished."""
    claim(out / CONFIG, identity, ("scale_hash", "seed", "data"))
    if (out / RESULT).exists():
        return TrainResult(**json.loads((out / RESULT).read_text(encoding="utf-8")))
    return None


def load_model(model_dir: str | Path) -> tuple[Decoder, Any, dict[str, Any]]:
    """A trained model, its tokenizer and its ``config.json``. Reads safetensors and JSON only."""
    from safetensors.torch import load_file

    from recipes.lm.model import Decoder, Shape

    folder = Path(model_dir)
    missing = [name for name in (CONFIG, MODEL, TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise TrainingError(f"{folder}: no {', '.join(missing)} here; is the training finished?")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    model = Decoder(scales.Scale.from_dict(config["scale"]).section("model", Shape))
    tensors = load_file(folder / MODEL)
    if model.shape.tied:  # one memory, stored under one name
        tensors["head.weight"] = tensors["embedding.weight"]
    model.load_state_dict(tensors)
    return model.eval(), data.load_tokenizer(folder / TOKENIZER), config


def stop_on_bad_batch(
    out: Path, step: int, loss: float, norm: float, names: list[str], contexts: np.ndarray
) -> None:
    """Save the batch of step ``step`` (0, 1, …) whose loss is not finite, and raise TrainingError."""
    path = out / BAD_BATCH
    write_json(
        path,
        {
            "step": step + 1,
            "loss": repr(loss),
            "grad_norm": repr(norm),
            "ids": names,
            "tokens": contexts.tolist(),
        },
    )
    raise TrainingError(
        f"step {step + 1}: loss {loss}, gradient norm {norm}; training stopped. The {len(names)} rows of "
        f"the batch are named in {path}. Look at them, or lower the learning rate"
    )
