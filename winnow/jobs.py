"""What the command line and the demo both do with a run's output: train, evaluate, describe the data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


def data_folder(place: str | Path) -> str | Path:
    """A run's kept shards, or the place itself: a folder, or a URL, which is left as it is."""
    if "://" in str(place):
        return place
    inside = Path(place) / "data"
    return inside if inside.is_dir() else Path(place)


def dataset_facts(
    run_dir: str | Path, result_file: str | Path, recipe_file: str | Path | None
) -> dict[str, Any]:
    """The `dataset` part of a result file: sizes of pool and subset, and links relative to the result."""
    from curation.funnel import read_report

    report, here = read_report(str(run_dir)), Path(result_file).parent
    text = report["input"]["text_bytes"] > 0 and report["output"]["files"][0]["url"].endswith("parquet")
    of, unit = ("text_bytes", "text bytes") if text else ("rows", "rows")
    funnel = Path(run_dir) / "funnel.html"
    return {
        "plan_hash": report["plan_hash"],
        "rows": report["output"]["rows"],
        "rows_pool": report["input"]["rows"],
        "bytes": report["output"]["text_bytes"],
        "bytes_pool": report["input"]["text_bytes"],
        "kept_fraction": report["output"][of] / max(1, report["input"][of]),
        "fraction_of": unit,
        "funnel": os.path.relpath(funnel, here) if funnel.is_file() else None,
        "recipe_file": None if recipe_file is None else os.path.relpath(recipe_file, here),
    }


def train_classifier(
    trusted: str, negatives: str | Path, out: str | Path, seed: int = 0, preset: str = "winnow"
) -> Any:
    """A fastText quality classifier: trusted prose against ordinary pages."""
    from pools import demo_text
    from recipes import fasttext_quality

    positives: Any = demo_text.trusted() if trusted == "demo" else trusted
    settings = replace(fasttext_quality.PRESETS[preset], seed=seed)
    return fasttext_quality.train(positives, data_folder(negatives), out, settings)


def train_network(trusted: str, out: str | Path, seed: int = 0) -> Any:
    """A filter network on a trusted set of pairs."""
    from pools import demo_image_text
    from recipes import filter_network

    pairs: Any = demo_image_text.trusted() if trusted == "demo" else trusted
    return filter_network.train_filter_network(pairs, out, seed=seed)


def seed_of(scale: Any, seed: int | None) -> int:
    """The seed of a run: the one given, else the scale's, else 0."""
    return seed if seed is not None else scale["train"].get("seed") or 0


def train_text(
    scale: Any,
    data: str | Path,
    out: str | Path,
    seed: int | None = None,
    *,
    gpus: int = 1,
    allow_repeat: bool = False,
) -> Path:
    """Train one language model, a line a step; with several GPUs, in as many processes on this machine.
    Returns its folder: `out` with the seed after it, so that several lie side by side."""
    from recipes.lm.train import train as train_lm

    number = seed_of(scale, seed)
    folder = Path(f"{out}-{number}")
    if gpus > 1:
        repeat = ["--allow-repeat"] if allow_repeat else []
        torchrun("recipes.lm.train", gpus, scale, data, folder, ["--seed", str(number), *repeat])
    else:
        train_lm(scale, data, folder, number, allow_repeat=allow_repeat)
    return folder


def train_clip(
    scale: Any, run_dir: str | Path, out: str | Path, seed: int | None = None, *, gpus: int = 1,
    micro_batch: int | None = None, checkpoint_activations: bool | None = None,
) -> Path:  # fmt: skip
    """Train one CLIP model on a run's kept pairs; else as :func:`train_text`. Beside GPUs, every other core
    decodes images: one GPU at ViT-B/32 wants more than a process can decode. There activations are
    checkpointed unless said otherwise, as DataComp does: 4,096 pairs at ViT-B/32 would take 133 GB."""
    from recipes.clip.train import Machine
    from recipes.clip.train import train as train_pairs
    from recipes.training.world import device

    number = seed_of(scale, seed)
    folder = Path(f"{out}-{number}")
    gpu = device().type == "cuda"
    decoders = max(1, (os.cpu_count() or 1) // gpus - 1) if gpu else 0
    if checkpoint_activations is None:
        checkpoint_activations = gpu and "open_clip" in scale["model"]
    if gpus > 1:
        options = ["--seed", str(number), "--workers", str(decoders)]
        options += [] if micro_batch is None else ["--micro-batch", str(micro_batch)]
        options += ["--checkpoint-activations"] * checkpoint_activations
        torchrun("recipes.clip.train", gpus, scale, run_dir, folder, options)
    else:
        machine = Machine(
            micro_batch=micro_batch, checkpoint_activations=checkpoint_activations, workers=decoders
        )
        train_pairs(scale, run_dir, folder, number, machine=machine)
    return folder


def torchrun(
    module: str, processes: int, scale: Any, data: str | Path, out: str | Path, options: list[str]
) -> None:
    """A trainer in so many processes of this machine, one a GPU. RuntimeError when it fails."""
    check_processes(scale, processes)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scale_file = out.with_name(out.name + ".scale.yaml")  # a scale may be one that was changed in Python
    scale_file.write_text(json.dumps(scale.to_dict(), indent=1) + "\n", encoding="utf-8")  # JSON is YAML
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", module, "--scale", str(scale_file), "--data", str(data), "--out", str(out), *options,
    ]  # fmt: skip
    code = subprocess.run(command).returncode
    if code:
        raise RuntimeError(f"training ended with code {code}; the same command goes on where it stopped")


def check_processes(scale: Any, processes: int) -> None:
    """Refuse a number of processes that cannot share a batch evenly, before anything starts."""
    import torch

    from recipes.training.world import World

    unit = "contexts" if scale.track == "text" else "pairs"
    World(torch.device("cpu"), 0, processes).rows(scale["train"]["batch"], unit)


def train(track: str, scale: str, data: str | Path, out: str | Path, seed: int) -> dict[str, Any]:
    """Train one model quietly, on one thread of the CPU; a finished one is not trained again."""
    if track == "text":
        from dataclasses import asdict

        from recipes.lm import train as lm

        cpu = lm.Machine(device="cpu", threads=1)
        return asdict(lm.train(scale, data_folder(data), out, seed, machine=cpu, print_every=0))
    from recipes.clip.train import train as train_pairs

    folder = data_folder(data)
    return train_pairs(scale, folder, out, seed, quiet=True, device="cpu", threads=1).to_dict()


def evaluate(
    model: str | Path,
    out: str | Path,
    recipe: str | None = None,
    run_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    sets: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Evaluate a model on its track's embedded tasks (or on `data_dir`) and write the result file.

    model: the folder of a training run, or for images what else `evaluation.clip.run.evaluate` takes. `sets`:
    of the 53 language tasks; for images "demo", "datacomp" or keys of DataComp's tasks. `more`: `fetch` (task
    files by URL), and what else the track's `evaluate` takes."""
    import baselines

    known = None
    if recipe is not None and ("/" in recipe or Path(recipe).is_file()):
        known = baselines.find(recipe)
    name = Path(known.path).stem if known else recipe or Path(model).name
    facts = dataset_facts(run_dir, out, known.path if known else None) if run_dir is not None else {}
    head = {"recipe": name, "title": known.title if known else name, "control": bool(known and known.control)}
    more = {name: value for name, value in more.items() if value is not None}
    if (Path(model) / "result.json").is_file():
        return _evaluate_lm(Path(model), out, data_dir, sets or "", facts, {**head, **more})
    return _evaluate_clip(model, out, data_dir, sets or "", facts, {**head, **more})


def _evaluate_lm(
    model: Path, out: str | Path, data_dir: Any, sets: str, facts: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    from evaluation.lm.run import evaluate as evaluate_lm

    dclm = sets or more.get("fetch")
    tasks = more.pop("tasks", None) or ("dclm" if dclm else "files" if data_dir else "tiny")
    if tasks != "tiny":  # hours on a large model: finished tasks are kept, and it says where it is
        more = {"cache": model / "evaluated", "show_progress": None, **more}
    return evaluate_lm(
        model, tasks, out, data_dir=data_dir, dataset=facts | _passes(model), sets=sets, **more
    )


def _evaluate_clip(
    model: str | Path, out: str | Path, data_dir: Any, sets: str, facts: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    from evaluation.clip.run import evaluate as evaluate_pairs

    one_set = data_dir is not None and (Path(data_dir) / "classnames.txt").is_file()
    if data_dir is not None and not Path(data_dir).is_dir() and not more.get("fetch"):
        raise FileNotFoundError(f"{data_dir} is no folder: give that of DataComp's sets, or of one set")
    tasks: str | Path = "datacomp" if data_dir or more.get("fetch") else "demo"
    if one_set and not sets:
        tasks, data_dir = Path(data_dir), None
    elif sets in ("demo", "datacomp"):
        tasks = sets
    elif sets:
        tasks, more["only"] = "datacomp", [key.strip() for key in sets.split(",")]
    if tasks == "datacomp":  # 40 sets: finished tasks are kept, and it says where it is
        folder = Path(model) if Path(model).is_dir() else Path(out).with_suffix("")
        more = {"cache": folder / "evaluated", "show_progress": None, **more}
    return evaluate_pairs(model, tasks, out, data_dir=data_dir, dataset=facts, **more)


def _passes(model: Path) -> dict[str, Any]:
    """Passes over the curated text, where the model read contexts that were chosen from it beforehand."""
    trained = json.loads((model / "result.json").read_text(encoding="utf-8"))
    tokens = Path(trained["data"]) / "tokens.json"
    if not tokens.is_file():
        return {}
    sources = json.loads(tokens.read_text(encoding="utf-8"))["sources"]
    chosen, available = (sum(s[key] for s in sources) for key in ("contexts", "available_contexts"))
    return {"epochs": trained["epochs"] * chosen / available} if available else {}


def summary(record: dict[str, Any]) -> str:
    """A result file as lines of text."""
    if record["track"] == "image_text":
        from evaluation.clip.run import table

        return table(record)
    lines = []
    for name, task in record["tasks"].items():
        error = "" if task["stderr"] is None else f" ± {task['stderr']:.4f}"
        lines.append(f"{name:<40}{task['value']:>10.4f}{error}")
    missing = record.get("not_run") or {}
    lines += [f"{name}: not run, {reason}" for name, reason in missing.items()]
    score = record.get("score")
    if score and score["value"] is not None:
        lines.append(f"{score['name']:<40}{score['value']:>10.3f}")
    elif score:
        lines.append(f"{score['name']}: not available, missing {', '.join(score.get('missing', []))}")
    return "\n".join(lines)
