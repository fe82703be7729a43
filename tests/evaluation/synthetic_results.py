"""Made-up result files for tests of the leaderboard: invented numbers in the shape of real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = {  # recipe: title, control, kept fraction, bits per byte, accuracy, score of three seeds
    "no-filter": ("No filter", True, 1.0, 2.273, 0.39, (20.1, 22.9, 21.2)),
    "random": ("Random, same size", True, 0.15, 2.280, 0.40, (21.4, 20.2, 22.6)),
    "rules": ("English + rules", False, 0.41, 2.143, 0.55, (28.9, 29.6, 28.4)),
    "rules-dedup": ("English + rules + near-duplicate removal", False, 0.37, 2.157, 0.53, (28.3, 29.0, 28.8)),
    "fasttext": ("Rules + dedup + fastText quality", False, 0.15, 2.118, 0.68, (33.6, 34.2, 33.1)),
}
IMAGE_TEXT = {
    "no-filter": ("No filter", True, 1.0, None, 0.10, (8.1, 8.9, 7.9)),
    "random": ("Random, same size", True, 0.30, None, 0.11, (9.4, 10.2, 9.8)),
    "rules": ("Caption and image rules", False, 0.62, None, 0.13, (11.6, 10.4, 11.0)),
    "filter-network": ("Filter network, top 30 %", False, 0.30, None, 0.21, (19.4, 20.8, 19.5)),
    "rules-network": ("Rules + filter network", False, 0.30, None, 0.205, (19.3, 20.3, 19.5)),
}


def write(root: Path, seeds: int = 3) -> Path:
    """results/<track>/<recipe>/seed-<n>.json of both tracks; returns root/results."""
    for track, recipes, scale in (("text", TEXT, "lm-tiny"), ("image_text", IMAGE_TEXT, "clip-tiny")):
        for recipe, (title, control, kept, bpb, accuracy, scores) in recipes.items():
            for seed in range(seeds):
                value = result(track, scale, recipe, title, control, kept, bpb, accuracy, scores[seed], seed)
                save(root / "results" / track / recipe / f"seed-{seed}.json", value)
    return root / "results"


def result(
    track: str, scale: str, recipe: str, title: str, control: bool, kept: float, bpb: float | None,
    accuracy: float, score: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """One result file's content; every field of the contract."""
    wobble = (0.01, -0.012, 0.004, 0.007, -0.003)[seed % 5]
    tasks: dict[str, Any] = {
        "order": task("Word order, 4 ways", "accuracy", accuracy + wobble, 200, 0.25, True, True),
        "cloze": task("Last word, 4 ways", "accuracy", 0.7 * accuracy + 0.1 - wobble, 300, 0.25, True, True),
    }
    if bpb is not None:
        tasks["heldout_bpb"] = task("Held-out prose", "bits_per_byte", bpb + wobble, 92, None, False, False)
    rows_pool = 2700 if track == "text" else 11365
    return {
        "track": track, "scale": scale, "scale_hash": f"{scale}-0123456789abcdef", "recipe": recipe,
        "title": title, "seed": seed, "control": control,
        "dataset": {
            "plan_hash": f"{abs(hash_of(recipe)):016x}", "rows": round(kept * rows_pool),
            "rows_pool": rows_pool,
            "bytes": round(kept * 16_500_000), "bytes_pool": 16_500_000, "kept_fraction": kept,
            "fraction_of": "text bytes" if track == "text" else "rows", "epochs": round(0.05 / kept, 3),
            "funnel": None, "recipe_file": None,
        },
        "tasks": tasks,
        "score": {"name": "Core (tiny)" if track == "text" else "Average", "value": score, "stderr": 0.4,
                  "higher_is_better": True},
        "train": {"steps": 750, "tokens_or_samples": 384000, "seconds": 21.0 + seed, "final_loss": 4.1},
        "eval_seconds": 3.0,
        "versions": {"python": "3.11.7", "torch": "2.4.0"},
    }  # fmt: skip


def task(
    title: str, metric: str, value: float, n: int, chance: Any, higher: bool, scored: bool
) -> dict[str, Any]:
    return {"title": title, "metric": metric, "value": value, "stderr": 0.01, "n": n, "chance": chance,
            "higher_is_better": higher, "in_score": scored}  # fmt: skip


def hash_of(text: str) -> int:
    """The same number in every process."""
    return int.from_bytes(text.encode()[:7].ljust(7), "big")


def save(path: Path, value: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
