"""What a CLIP run leaves in its folder.

``run.json`` (scale, seed, fingerprint of the data, precision) is there from the start and says whose folder
it is; ``log.jsonl`` has one line a step; ``model/`` is the trained model; ``loss.html`` shows the curves;
``train.json`` comes last and says that the run is whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recipes.training.run_folder import BAD_BATCH, TrainingError, claim, write_json

RUN, RESULT, MODEL = "run.json", "train.json", "model"
IDENTITY = ("scale_hash", "seed", "data", "precision")


@dataclass(frozen=True)
class TrainResult:
    """What one run left. model: directory for `filters.image_text.network.load`; rows: pairs with
    multiplicity; epochs: samples / rows; final_loss: mean over the last twentieth of the steps; seconds: of
    training alone, over all attempts."""

    model: Path
    scale: str
    scale_hash: str
    seed: int
    rows: int
    distinct_rows: int
    steps: int
    samples: int
    epochs: float
    final_loss: float
    seconds: float
    data: str
    """Fingerprint of what was read."""
    precision: str = "fp32"
    official: bool = False
    """The scale is one that comes with Winnow, unchanged."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """How pairs were drawn: what the source says of itself."""
    machine: str = ""
    """What the last attempt was carried out by, for people."""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": self.model.name}


def begin(out: Path, identity: dict[str, Any]) -> TrainResult | None:
    """Claim the folder for this run; the stored result if the same run is already finished."""
    claim(out / RUN, identity, IDENTITY)
    return read_result(out) if (out / RESULT).is_file() else None


def read_result(out: Path) -> TrainResult:
    """The result of a finished run."""
    values = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return TrainResult(**{**values, "model": out / values["model"]})


def stop_on_bad_batch(
    out: Path, step: int, lr: float, loss: float, norm: float | None, ids: list[str]
) -> None:
    """Name the pairs of step ``step`` (0, 1, …) whose loss is not finite, and raise TrainingError."""
    path = out / BAD_BATCH
    said = {"step": step + 1, "loss": repr(loss), "grad_norm": repr(norm), "lr": lr, "ids": ids}
    write_json(path, said)
    raise TrainingError(
        f"step {step + 1}: loss {loss}{'' if norm is None else f', gradient norm {norm}'} (lr {lr:.3g}); "
        f"training stopped, and the last checkpoint is kept. The {len(ids)} pairs of the batch are named in "
        f"{path}. Look at them, lower lr or lengthen warmup"
    )
