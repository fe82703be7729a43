"""Run DataComp's own evaluation code on small sets and print its metrics as JSON.

A program of its own, because DataComp needs other versions of packages than Winnow:
``python datacomp_peer.py CHECKOUT JOB`` with those on PYTHONPATH. JOB is a JSON file: model (name), config,
checkpoint, data_root, tasks (key → size), rows (data set on the hub → its rows: this stands in for the
``datasets`` library, and for nothing else of DataComp's).
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any


def stand_in(rows: dict[str, list[dict[str, Any]]]) -> types.ModuleType:
    """The one call of ``datasets`` that DataComp makes."""
    from PIL import Image

    def load_dataset(name: str, split: str, cache_dir: str | None = None) -> list[dict[str, Any]]:
        def opened(row: dict[str, Any]) -> dict[str, Any]:
            row = dict(row)
            if "image" in row:
                row["image"] = Image.open(row["image"])
            if "candidate_images" in row:
                row["candidate_images"] = [Image.open(path) for path in row["candidate_images"]]
            return row

        return [opened(row) for row in rows[name]]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    return module


def main(checkout: str, job_file: str) -> None:
    import numpy as np
    import open_clip
    import torch

    job = json.loads(Path(job_file).read_text())
    torch.set_num_threads(1)
    sys.modules["datasets"] = stand_in(job["rows"])
    sys.path.insert(0, checkout)
    open_clip.add_model_config(Path(job["config"]))
    from clip_benchmark.metrics import zeroshot_classification
    from eval_utils.main import evaluate_model

    # Its accuracy() calls float() on an array of one number, which NumPy refuses from 2.4 on
    zeroshot_classification.float = lambda value: float(np.asarray(value, np.float64).sum())
    # Its loaders read in several processes, whose order is none; the labels and metadata are read apart
    loader = torch.utils.data.DataLoader

    def in_order(*args: Any, **kwargs: Any) -> Any:
        return loader(*args, **{**kwargs, "num_workers": 0})

    torch.utils.data.DataLoader = in_order  # type: ignore[misc, assignment]
    info = {"scale_config": {"model": job["model"]}, "checkpoint": job["checkpoint"]}
    found = {}
    for key, size in job["tasks"].items():
        metrics = evaluate_model(key, info, job["data_root"], size)
        metrics = metrics[0] if isinstance(metrics, tuple) else metrics
        found[key] = {name: None if v is None else float(v) for name, v in metrics.items()}
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
