"""The page of a CLIP run: loss, learning rate, temperature and speed over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.html import count
from recipes.clip.run_folder import TrainResult
from recipes.training import loss_page
from recipes.training.loss_page import curve, short
from recipes.training.progress import duration


def write_page(path: Path, log: Path, result: TrainResult) -> None:
    """Write the page of a finished run."""
    loss_page.write(path, render(loss_page.read_log(log), result))


def render(records: Sequence[dict[str, Any]], result: TrainResult) -> str:
    """The whole document; ``records`` are the lines of the log."""
    steps = [r["step"] for r in records]
    wait = sum(r["data_wait"] * r["seconds"] for r in records) / max(sum(r["seconds"] for r in records), 1e-9)
    rate = result.samples / max(result.seconds, 1e-9)
    facts = {
        "final loss": (f"{result.final_loss:.3f}", "nats, last 5 % of the steps"),
        "steps": (count(result.steps), f"{count(result.samples)} samples"),
        "pairs": (count(result.distinct_rows), f"{result.epochs:.2f} epochs"),
        "waiting for data": (f"{wait:.1%}", "of the time"),
        "time": (duration(result.seconds), f"{count(rate)} samples/s, {result.precision}"),
    }

    def of(key: str, factor: float = 1.0) -> list[float]:
        return [factor * r[key] for r in records]

    curves = [
        curve("Loss, nats", steps, of("loss"), lambda v: f"{v:.2f}", 300),
        curve("Learning rate", steps, of("lr"), lambda v: f"{v:g}", 130, 0.0),
        curve("Logit scale", steps, of("logit_scale"), lambda v: f"{v:g}", 130, 0.0),
        curve("Samples a second", steps, of("samples_per_second"), short, 130, 0.0),
        curve("Waiting for data, per cent", steps, of("data_wait", 100), lambda v: f"{v:g} %", 130, 0.0),
    ]
    if any("mfu" in r for r in records):
        mfu = [100 * r.get("mfu", 0.0) for r in records]
        curves.append(curve("MFU, per cent of the peak", steps, mfu, lambda v: f"{v:.0f} %", 130, 0.0))
    name = result.model.parent.name
    return loss_page.render(name, result, result.data, f"{count(result.rows)} pairs", facts, curves)
