"""CLIP evaluation side by side: our runner, and a loop over tasks in the manner of DataComp's evaluator.

    python bench/clip_eval_speed.py                # clip-tiny's model and a small ViT, random weights
    python bench/clip_eval_speed.py --model demo-out/models/…/model
    python bench/clip_eval_speed.py --tasks names,flags

ours   evaluation.clip.run.evaluate on the embedded tasks, no cache
loop   for every task: the model made anew from its checkpoint; class texts encoded a class at a time; the
       task's pictures decoded and encoded in batches of 64; retrieval's captions with their pictures;
       associations instance by instance. It is written here, from the facts of DataComp's evaluator, and has
       the same preprocessing and model code as ours. What differs: what is done how often, and that ours
       leaves the padding of texts out (evaluation.clip.short_texts).

Both sides run in this process on one thread; seconds are CPU seconds. Every decision (the class of each
picture, the picture or caption found first, the candidates chosen) is compared. Ours also computes metrics,
errors and the table of examples in its time; the loop stops at the decisions.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from evaluation.clip import associations  # noqa: E402
from evaluation.clip.embedded import sets as embedded_sets  # noqa: E402
from evaluation.clip.results import Outcome  # noqa: E402
from evaluation.clip.run import evaluate  # noqa: E402
from evaluation.clip.tasks import Task, TaskList, load_tasks  # noqa: E402
from filters.image_text import network  # noqa: E402

BATCH = 64
GOAL = 3.0
SMALL_VIT = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 128, "patch_size": 4, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}


def loop_task(folder: Path, task: Task, rows: list[dict[str, Any]]) -> list[str]:
    """One task as DataComp's evaluator does it; the decisions in the order of our examples."""
    model = network.load(folder)
    rows = [row for row in rows if all(row[column] == value for column, value in task.where.items())]
    if task.kind == "retrieval":
        return loop_retrieval(model, task, rows)
    if task.kind == "winogavil":
        return loop_associations(model, task, rows)
    if task.kind == "attributes":
        parts = task.parts()
        classifiers = {name: classifier(model, part, rows) for name, part in parts.items()}
        features = pictures(model, rows)  # all objectives share one pass, as FairFace's do
        said = []
        for name, (classes, vectors) in classifiers.items():
            there = [i for i, row in enumerate(rows) if row[parts[name].label] is not None]
            said += [classes[c] for c in (100 * features[there] @ vectors.T).argmax(1)]
        return said
    classes, vectors = classifier(model, task, rows)
    return [classes[c] for c in (100 * pictures(model, rows) @ vectors.T).argmax(1)]


def classifier(
    model: network.TwoTower, task: Task, rows: list[dict[str, Any]]
) -> tuple[list[str], np.ndarray]:
    classes = list(task.classes) or sorted({row[task.label] for row in rows})
    vectors = []
    for name in classes:
        names = [name]
        if task.members:
            names = sorted({row[task.members] for row in rows if row[task.label] == name}) or names
        features = model.encode_texts([t.replace("{c}", n) for n in names for t in task.templates])
        mean = features.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    return classes, np.stack(vectors)


def pictures(model: network.TwoTower, rows: list[dict[str, Any]]) -> np.ndarray:
    parts = []
    for start in range(0, len(rows), BATCH):
        images = [row["image"] for row in rows[start : start + BATCH]]
        parts.append(model.encode_pixels(model.pixels.many(images)))
    return np.concatenate(parts)


def loop_retrieval(model: network.TwoTower, task: Task, rows: list[dict[str, Any]]) -> list[str]:
    images, texts, captions = [], [], []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        own = [c for row in batch for c in ([row[task.caption]] if isinstance(row[task.caption], str)
                                            else row[task.caption])]  # fmt: skip
        own = [task.templates[0].replace("{c}", c) for c in own]
        images.append(model.encode_pixels(model.pixels.many([row["image"] for row in batch])))
        texts.append(model.encode_texts(own))
        captions += own
    scores = np.concatenate(images) @ np.concatenate(texts).T
    return [captions[i] for i in scores.argmax(1)] + [rows[i]["id"] for i in scores.argmax(0)]


def loop_associations(model: network.TwoTower, task: Task, rows: list[dict[str, Any]]) -> list[str]:
    rows = [row for row in rows if row[task.cue] is not None]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    said = []
    for instance in associations.draw(task, columns["id"], columns):
        images = model.encode_pixels(model.pixels.many([rows[r]["image"] for r in instance.candidates]))
        cue = model.encode_texts([task.templates[0].replace("{c}", associations.prompt(instance.cue))])[0]
        best = np.argsort(-(images @ cue), kind="stable")[: len(instance.answers)]
        said.append(" ".join(rows[instance.candidates[i]]["id"] for i in sorted(best)))
    return said


def compare(name: str, folder: Path, tasks: TaskList) -> float:
    sets = embedded_sets()
    rows = {key: data.table.to_pylist() for key, data in sets.items()}
    ours: dict[str, list[str]] = {}

    def keep(key: str, outcome: Outcome) -> None:
        ours[key] = outcome.examples["answer"].to_pylist()

    evaluate(folder, TaskList("warm", tasks.tasks[:1], (), ""), sets=sets)  # imports and first-call costs
    start = time.process_time()
    record = evaluate(folder, tasks, sets=sets, on_task=keep, strict=True, threads=1)
    seconds = time.process_time() - start
    print(f"\n{name}: {record['harness']['images_encoded']:,} pictures and "
          f"{record['harness']['texts_encoded']:,} texts encoded by ours")  # fmt: skip
    print(f"{'task':14} {'kind':15} {'loop s':>8} {'decisions':>10} {'different':>10}")
    total, different, decisions = 0.0, 0, 0
    for task in tasks.tasks:
        start = time.process_time()
        said = loop_task(folder, task, rows[task.set])
        took = time.process_time() - start
        other = sum(a != b for a, b in zip(ours[task.key], said, strict=True))
        print(f"{task.key:14} {task.kind:15} {took:8.2f} {len(said):>10,} {other:>10,}", flush=True)
        total, different, decisions = total + took, different + other, decisions + len(said)
    ratio = total / seconds
    print(f"loop {total:.2f} s, ours {seconds:.2f} s: {ratio:.1f}x (goal {GOAL:.0f}x); "
          f"{decisions:,} decisions, {different} different")  # fmt: skip
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, action="append", default=[], help="a model directory")
    parser.add_argument("--tasks", default="", help="only these, with commas")
    args = parser.parse_args()
    torch.set_num_threads(1)
    demo = load_tasks("demo")
    chosen = [t for t in demo.tasks if not args.tasks or t.key in args.tasks.split(",")]
    tasks = TaskList("demo", tuple(chosen), (), "")
    with tempfile.TemporaryDirectory() as folder:
        models = {str(path): path for path in args.model}
        if not models:
            for name, spec in (("clip-tiny", {"small": {}}), ("small ViT", {"open_clip": SMALL_VIT})):
                models[name] = network.save(network.build(spec, seed=0), Path(folder) / name)
        ratios = [compare(name, path, tasks) for name, path in models.items()]
    return 0 if min(ratios) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
