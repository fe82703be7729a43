"""The main job from end to end, on the embedded pools: pool → scores → keep → shards → fixed-budget
training → tasks → leaderboard, for text and for image-text. Interrupted, it goes on where it stopped."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALES = {"text": "lm-tiny", "image_text": "clip-tiny"}


@dataclass(frozen=True)
class Arm:
    """One recipe of the demo, and the variables it is filled with."""

    track: str
    recipe: str
    variables: tuple[tuple[str, Any], ...] = ()


def run_demo(out: Path, on: str, seeds: int, tracks: tuple[str, ...]) -> Path:
    """Run everything into `out` and return the leaderboard page."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two trainings side by side, one thread each
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WINNOW_CACHE", str(out.resolve() / "cache"))
    out.mkdir(parents=True, exist_ok=True)
    clock = time.perf_counter()
    workers = min(os.cpu_count() or 1, 8)
    if on == "ray":
        from curation.executors.ray import start

        _say(f"starting Ray with {workers} CPUs on this machine")
        start(workers)
    runs = {}
    for track in tracks:
        for arm in _arms(track, out, on, workers):
            runs[arm] = _curate(arm, out, on, workers)
    _say(
        f"curation done after {time.perf_counter() - clock:.0f} s; "
        f"training {len(runs)} subsets, {seeds} seeds each"
    )
    _train_all(runs, out, on, workers, seeds)
    page = _leaderboard(out)
    if on == "ray":
        import ray

        ray.shutdown()
    _say(f"done in {time.perf_counter() - clock:.0f} s")
    return page


def _arms(track: str, out: Path, on: str, workers: int) -> Any:
    """The recipes of a track, in order; filters are trained on the way, when their inputs are there."""
    from winnow import jobs

    if track == "text":
        yield Arm("text", "text/no_filter")
        classifier = out / "filters" / "fasttext"
        if not (classifier / "report.json").is_file():
            _say("training the fastText quality classifier: trusted prose against pages of the pool")
            report = jobs.train_classifier("demo", out / "runs/text/no_filter", classifier)
            _say(f"  held-out AUC {report.auc:.3f}")
        yield from (Arm("text", f"text/{name}") for name in ("rules", "rules_dedup"))
        yield Arm("text", "text/fasttext", (("classifier", str(classifier / "model.bin")),))
        yield Arm("text", "text/random")
        return
    _say("training the filter network on the trusted pairs")
    network, report = jobs.train_network("demo", out / "filters" / "network")  # a trained one is only checked
    _say(f"  matched against shuffled captions, held out: AUC {report.auc:.3f}")
    path = (("network", str(network)),)
    yield from (
        Arm("image_text", f"image_text/{name}") for name in ("no_filter", "random", "rules", "rules_dedup")
    )
    yield from (
        Arm("image_text", f"image_text/{name}", path) for name in ("filter_network", "rules_filter_network")
    )


def _curate(arm: Arm, out: Path, on: str, workers: int) -> Path:
    import baselines
    import curation as c
    from pools import demo_image_text, demo_text

    recipe = baselines.find(arm.recipe)
    pool = (demo_text if arm.track == "text" else demo_image_text).unpack()
    place = pool if arm.track == "text" else pool / "shards" / "*.tar"
    target = out / "runs" / arm.recipe
    _say(f"{arm.track}: {recipe.title}")
    plan = recipe.plan(pool=str(place), out=str(target), **dict(arm.variables))
    _say(f"  {c.run(plan, on=on, workers=workers)}")
    return target


def _train_all(runs: dict[Arm, Path], out: Path, on: str, workers: int, seeds: int) -> None:
    """Every (recipe, seed) as one task on the same executor that curated."""
    tasks = [(arm, run, seed) for seed in range(seeds) for arm, run in runs.items()]
    executor: Any
    if on == "ray":
        from curation.executors.ray import RayExecutor

        executor = RayExecutor(workers)
    else:
        from curation.executors.local import LocalExecutor

        executor = LocalExecutor(workers)
    names, done = {}, 0
    for arm, run, seed in tasks:
        ticket = executor.submit(train_and_evaluate, (arm.track, arm.recipe, str(run), str(out), seed))
        names[ticket] = f"{arm.recipe} seed {seed}"
    try:
        while done < len(tasks):
            for reply in executor.wait(10.0):
                done += 1
                if reply.kind != "ok":
                    raise RuntimeError(f"{names[reply.ticket]}: {reply.error}\n{reply.trace}")
                _say(f"[{done}/{len(tasks)}] {names[reply.ticket]:<38} {reply.value}")
    finally:
        executor.close()


def train_and_evaluate(track: str, recipe: str, run: str, out: str, seed: int) -> str:
    """Train one model on a run's output and evaluate it; returns a line about it."""
    from winnow import jobs

    model = Path(out) / "models" / recipe / f"seed-{seed}"
    result = Path(out) / "results" / recipe / f"seed-{seed}.json"
    jobs.train(track, SCALES[track], run, model, seed)
    record = jobs.evaluate(model, result, recipe=recipe, run_dir=run)
    score = record["score"]
    return f"{score['name']} {score['value']:.2f}, trained in {record['train']['seconds']:.1f} s"


def _leaderboard(out: Path) -> Path:
    from evaluation.leaderboard import build

    page = Path(build(out / "results", out / "leaderboard"))
    print("\n" + (out / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"leaderboard: {page}")
    for recipe in sorted((out / "runs").glob("*/*")):
        print(f"funnel:      {recipe / 'funnel.html'}")
    return page


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
