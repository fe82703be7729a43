"""The page of a language model's run: loss, learning rate and speed over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.html import count
from recipes.lm.run_folder import TrainResult
from recipes.training import loss_page
from recipes.training.loss_page import curve, short
from recipes.training.progress import duration


def write_page(path: Path, log: Path, result: TrainResult) -> None:
    """Write the page of a finished run."""
    loss_page.write(path, render(loss_page.read_log(log), result))


def render(records: Sequence[dict[str, Any]], result: TrainResult) -> str:
    """The whole document; ``records`` are the lines of the log."""
    steps = [r["step"] for r in records]
    tokens_a_step = result.tokens / result.steps
    speed = [tokens_a_step / max(r["seconds"], 1e-9) for r in records]
    facts = {
        "final loss": (f"{result.final_loss:.3f}", "nats a token, last 5 % of the steps"),
        "steps": (count(result.steps), f"{count(result.tokens)} tokens"),
        "parameters": (count(result.parameters), None),
        "epochs": (f"{result.epochs:.2f}", None),
        "time": (duration(result.seconds), f"{count(result.tokens / max(result.seconds, 1e-9))} tokens/s"),
    }
    curves = [
        curve("Loss, nats a token", steps, [r["loss"] for r in records], lambda v: f"{v:.2f}", 300),
        curve("Learning rate", steps, [r["lr"] for r in records], lambda v: f"{v:g}", 130, 0.0),
        curve("Tokens a second", steps, speed, short, 130, 0.0),
    ]
    if any("mfu" in r for r in records):
        mfu = [100 * r.get("mfu", 0.0) for r in records]
        curves.append(curve("MFU, per cent of the peak", steps, mfu, lambda v: f"{v:.0f} %", 130, 0.0))
    name = Path(result.model).name
    return loss_page.render(name, result, result.data_fingerprint, result.data, facts, curves)
