"""Evaluate a trained model: ``python -m evaluation.lm MODEL_DIR [--tasks tiny] [--data-dir DIR]``."""

from __future__ import annotations

import json
import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation import stats
from evaluation.lm import aggregate, answers, metrics, prompts
from evaluation.lm.generate import Request, fit, generate
from evaluation.lm.results import HARNESS, Progress, TaskCache, code_hash, model_hash
from evaluation.lm.scorer import Scorer
from evaluation.lm.tasks import (
    CHOICE_KINDS,
    Suite,
    Task,
    TaskError,
    file_hash,
    infer_suite,
    load_suite,
    read_items,
)
from recipes.lm.run_folder import CONFIG, RESULT, write_json

GENERATION_WEIGHT = 4.0
"""How much longer a byte of a generation task takes than one that is only read: a guess for the first ETA."""


class CannotRun(TaskError):
    """A sound task that this model cannot be asked; the message says why."""


@dataclass(frozen=True)
class TaskResult:
    """One task's figures; ``value`` and ``stderr`` are those of ``metric``."""

    title: str
    metric: str
    value: float
    stderr: float
    n: int
    chance: float | None
    higher_is_better: bool
    in_score: bool
    kind: str
    shots: int
    truncated: int
    file_hash: str
    seconds: float
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class SuiteResult:
    """Figures of every task that could be run, and the names of those that could not, with the reason;
    ``failed`` are those among them whose file is broken."""

    suite: str
    tasks: dict[str, TaskResult]
    not_run: dict[str, str]
    failed: tuple[str, ...]
    score: dict[str, Any] | None
    seconds: float


def run_suite(
    scorer: Scorer,
    suite: Suite,
    *,
    only: Sequence[str] = (),
    limit: int | None = None,
    on_task: Callable[[str, TaskResult], None] | None = None,
    cache: TaskCache | None = None,
    show_progress: bool | None = False,
) -> SuiteResult:
    """Score the tasks of a suite (those named in ``only``, if given), the first ``limit`` items of each.

    Tasks found in ``cache`` are not run again; each finished one is stored there at once. A file that cannot
    be used costs its own task only: the error is in ``not_run``.
    """
    if suite.folder is None:
        raise TaskError(
            f"suite {suite.name!r} has no data of its own: give the folder of its task files (data_dir), "
            "or have them fetched (--fetch)"
        )
    unknown = sorted(set(only) - {task.name for task in suite.tasks})
    if unknown:
        have = ", ".join(task.name for task in suite.tasks)
        raise TaskError(f"no task {', '.join(unknown)} in suite {suite.name!r}; it has {have}")
    start = time.perf_counter()
    done: dict[str, TaskResult] = {}
    not_run = {name: reason for name, reason in suite.unusable if not only or name in only}
    failed: list[str] = []
    todo = []
    for task in suite.tasks:
        if task.name in not_run or (only and task.name not in only):
            continue
        if (suite.folder / task.file).is_file():
            todo.append(task)
        else:
            not_run[task.name] = f"no file {task.file} in {suite.folder}"
    progress = Progress({task.name: _weight(task, suite.folder) for task in todo}, show=show_progress)
    for task in todo:
        data = file_hash(suite.folder / task.file)
        kept = cache.get(task, data) if cache else None
        progress.begin(task.name)
        try:
            result = TaskResult(**kept) if kept else run_task(scorer, task, suite.folder, limit, progress)
        except TaskError as error:
            not_run[task.name] = str(error)
            if not isinstance(error, CannotRun):
                failed.append(task.name)
            progress.end(cached=True)
            continue
        if cache and not kept:
            cache.put(task, data, asdict(result))
        done[task.name] = result
        progress.end(cached=bool(kept))
        if on_task:
            on_task(task.name, result)
    progress.close()
    seconds = time.perf_counter() - start
    return SuiteResult(suite.name, done, not_run, tuple(failed), suite_score(suite, done), seconds)


def run_task(
    scorer: Scorer, task: Task, folder: Path, limit: int | None = None, progress: Progress | None = None
) -> TaskResult:
    """Every figure of one task, over the first ``limit`` items (all, if None)."""
    start = time.perf_counter()
    items = read_items(task, folder)
    some = items[:limit]
    truncated = 0
    if progress:
        progress.items = len(some)
    report = progress.update if progress else None
    if task.kind == "text":
        texts = [item["text"] for item in some]
        figures = metrics.text_metrics(texts, scorer.text(texts, report))
    else:
        spaced = prompts.needs_prefix_space(lambda text: scorer.encode([text])[0])
        queries = prompts.item_queries(task, items, limit, prefix_space=spaced)
        decisions = None
        if task.kind == "generation":
            decisions, truncated = _generate(scorer, task, items, limit, report)
            report = None
        scores = scorer.queries([query for group in queries for query in group], report)
        truncated += scores.truncated
        counts = [len(group) for group in queries]
        judged = metrics.item_scores(task, some, counts, scores, decisions)
        figures = metrics.task_metrics(task, some, judged)
    if task.metric not in figures:
        raise TaskError(f"task {task.name!r} ({task.kind}) has no {task.metric}; it has {', '.join(figures)}")
    return TaskResult(
        title=task.title or task.name,
        metric=task.metric,
        value=figures[task.metric].value,
        stderr=figures[task.metric].stderr,
        n=len(some),
        chance=task.chance,
        higher_is_better=task.higher_is_better,
        in_score=task.in_score,
        kind=task.kind,
        shots=task.shots,
        truncated=truncated,
        file_hash=file_hash(folder / task.file),
        seconds=round(time.perf_counter() - start, 3),
        metrics={name: asdict(figure) for name, figure in figures.items()},
    )


def _generate(
    scorer: Scorer,
    task: Task,
    items: Sequence[dict[str, Any]],
    limit: int | None,
    report: Callable[[float], None] | None,
) -> tuple[list[answers.Decision], int]:
    """A decision an item, and how many prompts lost their beginning."""
    new = prompts.max_new_tokens(task, items, lambda texts: [len(ids) for ids in scorer.encode(texts)])
    if new >= scorer.context:
        raise CannotRun(f"answers may be {new:,} tokens long, but the model's context is {scorer.context:,}")
    asked = prompts.generation_prompts(task, items, limit)
    parts = {text: 0 for p in asked for text in (p.preamble, p.context)}
    ids = dict(zip(parts, scorer.encode(list(parts)), strict=True))
    whole = [ids[p.preamble] + ids[p.context] or [scorer.end] for p in asked]
    requests = [
        Request(fit(prompt, new, scorer.context), new, p.stops)
        for prompt, p in zip(whole, asked, strict=True)
    ]
    texts = generate(scorer, requests, report)
    decisions = [answers.decide(task, item, text) for item, text in zip(items, texts, strict=False)]
    return decisions, sum(len(r.ids) < len(prompt) for r, prompt in zip(requests, whole, strict=True))


def _weight(task: Task, folder: Path) -> float:
    """About how much a task makes the model read: its file, and the shots before each item of it."""
    size = (folder / task.file).stat().st_size * (1 + task.shots)
    return size * (GENERATION_WEIGHT if task.kind == "generation" else 1.0)


def suite_score(suite: Suite, done: dict[str, TaskResult]) -> dict[str, Any] | None:
    """100 × the mean over the ``in_score`` tasks of their figure, centred on chance (0 = knows nothing,
    100 = perfect). A missing task makes the value null and is named: it is never averaged over."""
    members = [task for task in suite.tasks if task.in_score]
    if not members:
        return None
    missing = [task.name for task in members if task.name not in done]
    score: dict[str, Any] = {"name": suite.score, "value": None, "stderr": None, "higher_is_better": True}
    if missing:
        return {**score, "missing": missing}
    chances = [task.chance or 0.0 for task in members]
    values = [metrics.centered(done[t.name].value, c) for t, c in zip(members, chances, strict=True)]
    errors = [done[t.name].stderr / (1 - c) for t, c in zip(members, chances, strict=True)]
    score["value"] = 100 * sum(values) / len(values)
    score["stderr"] = 100 * stats.mean_of_independent(errors)
    return score


def evaluate(
    model_dir: str | Path,
    tasks: str | Path = "tiny",
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    fetch: bool = False,
    sets: str = "",
    only: Sequence[str] = (),
    limit: int | None = None,
    recipe: str = "",
    title: str = "",
    control: bool = False,
    dataset: dict[str, Any] | None = None,
    threads: int = 1,
    devices: Sequence[str] = (),
    precision: str = "fp32",
    batch_tokens: int | None = None,
    cache: str | Path | None = None,
    convention: str = aggregate.CURRENT,
    dclm_json: str | Path | None = None,
    show_progress: bool | None = False,
    on_task: Callable[[str, TaskResult], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model of ``recipes.lm.train`` and return its result file (written to ``out`` if given).

    ``tasks``: a suite by name (``tiny``, ``dclm``), a suite YAML, or ``files`` for every jsonl in
    ``data_dir``. ``fetch``: have DCLM's files by URL where no ``data_dir`` is given. ``sets`` narrows
    ``dclm`` to a named set (``core``, ``light``, …; several with commas).
    ``cache``: a folder where finished tasks are kept and looked up, so that a run that was killed goes on.
    ``devices``, ``precision``, ``batch_tokens``: see ``Scorer.load``. ``convention``: the chance levels of
    the score. ``dclm_json``: also write the figures in the shape of DCLM's evaluation files.
    ``dataset`` overrides or adds to what the training run and the plan's report say about the data, e.g.
    ``funnel`` and ``recipe_file``. Raises TaskError on unusable suites, naming file and line.
    """
    import torch

    before = torch.get_num_threads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    suite = infer_suite(data_dir or "") if str(tasks) == "files" else load_suite(tasks, data_dir)
    only = list(dict.fromkeys([*only, *_members(sets)]))
    if fetch:
        from evaluation.lm.fetch import with_data

        suite = with_data(suite, data_dir, only)
    torch.set_num_threads(threads)
    try:
        scorer = Scorer.load(
            model_dir, devices=devices, precision=precision, batch_tokens=batch_tokens, threads=threads
        )
        model = model_hash(model_dir)
        kept = TaskCache(cache, model, {"limit": limit, "precision": precision}) if cache else None
        try:
            result = run_suite(
                scorer,
                suite,
                only=only,
                limit=limit,
                on_task=on_task,
                cache=kept,
                show_progress=show_progress,
            )
        finally:
            scorer.close()
    finally:
        torch.set_num_threads(before)
    trained, official = _trained(Path(model_dir))
    averages = _aggregates(suite, result, convention) if limit is None else None
    record = {
        "track": "text",
        "scale": trained["scale"],
        "scale_hash": trained["scale_hash"],
        "official": official,
        "recipe": recipe or Path(trained["data"] or model_dir).name,
        "title": title or recipe or Path(trained["data"] or model_dir).name,
        "seed": trained["seed"],
        "control": control,
        "dataset": {**_dataset(trained), **(dataset or {})},
        "suite": result.suite,
        "tasks": {name: asdict(task) for name, task in result.tasks.items()},
        "not_run": result.not_run,
        "score": result.score or (averages and averages["score"]),
        "train": {
            "steps": trained["steps"],
            "tokens_or_samples": trained["tokens"],
            "seconds": trained["seconds"],
            "final_loss": trained["final_loss"],
            "parameters": trained["parameters"],
        },
        "eval_seconds": round(result.seconds, 3),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "harness": {
            "version": HARNESS,
            "code": code_hash(),
            "model": model,
            "precision": precision,
            "limit": limit,
            "failed": list(result.failed),
        },
    }
    if averages:
        record["aggregates"] = averages["aggregates"]
    record = _without_nan(record)
    if out is not None:
        write_json(Path(out), record)
    if dclm_json is not None:
        write_json(Path(dclm_json), _without_nan(dclm_record(record, convention)))
    return record


def _trained(model_dir: Path) -> tuple[dict[str, Any], bool]:
    """What the trainer said of a model, and whether its scale is one of ours, unchanged. Of a model that was
    trained elsewhere and imported only its scale is known."""
    from recipes import scale as scales

    config = json.loads((model_dir / CONFIG).read_text(encoding="utf-8"))
    scale = scales.Scale.from_dict(config["scale"])
    file = model_dir / RESULT
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8")), scales.is_official(scale)
    unknown = ("steps", "tokens", "seconds", "final_loss", "data_rows", "data_bytes", "epochs",
               "data_fingerprint", "seed", "data")  # fmt: skip
    known = {"scale": scale.name, "scale_hash": scale.hash, "parameters": config.get("parameters")}
    return dict.fromkeys(unknown) | known, False


def _members(sets: str) -> list[str]:
    """Tasks of the named sets, separated by commas."""
    known = aggregate.sets()
    names = [name.strip() for name in sets.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise TaskError(f"no set {', '.join(wrong)}; there are {', '.join(known)}")
    return [task for name in names for task in known[name]]


def _aggregates(suite: Suite, result: SuiteResult, convention: str) -> dict[str, Any] | None:
    """Core, Extended and the other sets of DCLM's tasks, each under every convention of chance levels, from
    DCLM's decisions and from the corrected ones; None for a suite with none of these tasks.

    A set with a member missing has no value and names what is missing.
    """
    whole = {task.name for task in suite.tasks if not task.partial}
    known = set(aggregate.baselines())
    mine = {name: task for name, task in result.tasks.items() if name in known and name in whole}
    if suite.name != "dclm" and not mine:
        return None

    def averages(figure: str, version: str) -> dict[str, Any]:
        values = {n: (t.metrics[figure]["value"], t.metrics[figure]["stderr"]) for n, t in mine.items()}
        return {name: asdict(average) for name, average in aggregate.averages(values, version).items()}

    figures = {
        "convention": convention,
        "compat": {version: averages("accuracy", version) for version in aggregate.conventions()},
        "corrected": {
            version: averages("accuracy_corrected", version) for version in aggregate.conventions()
        },
    }
    core = figures["compat"][convention]["core"]
    score: dict[str, Any] = {
        "name": f"Core ({convention})",
        "value": None if core["value"] is None else 100 * core["value"],
        "stderr": None if core["stderr"] is None else 100 * core["stderr"],
        "higher_is_better": True,
    }
    if core["missing"]:
        score["missing"] = list(core["missing"])
    return {"aggregates": figures, "score": score}


def dclm_record(record: Mapping[str, Any], convention: str = aggregate.CURRENT) -> dict[str, Any]:
    """A result in the shape of DCLM's evaluation files: ``eval_metrics.icl`` and the aggregates beside it.

    Figures are those of DCLM's rules (``compat``). A task that was not run is not there, and the aggregates
    say so as DCLM's do.
    """
    known = aggregate.baselines()
    icl = {
        name: task["metrics"]["accuracy"]["value"]
        for name, task in record["tasks"].items()
        if "accuracy" in task["metrics"] and name in known
    }
    identity = f"{record['harness']['model']} {record['harness']['code']} {sorted(icl.items())}"
    return {
        "name": record["recipe"],
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
        "model": record["scale"],
        "creation_date": time.strftime("%Y_%m_%d-%H_%M_%S"),
        "eval_metrics": {"icl": icl},
        **aggregate.aggregates(icl, convention),
    }


def _dataset(trained: dict[str, Any]) -> dict[str, Any]:
    """What was trained on: counted by the trainer; pool sizes from the report of the plan that made it."""
    if trained["data"] is None:
        return {}
    folder = Path(trained["data"])
    report_file = folder / "_winnow" / "report.json"
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else {}
    pool = report.get("input", {})
    bytes_pool = pool.get("text_bytes")
    return {
        "plan_hash": report.get("plan_hash"),
        "rows": trained["data_rows"],
        "rows_pool": pool.get("rows"),
        "bytes": trained["data_bytes"],
        "bytes_pool": bytes_pool,
        "kept_fraction": trained["data_bytes"] / bytes_pool if bytes_pool else None,
        "fraction_of": "text bytes",
        "epochs": trained["epochs"],
        "fingerprint": trained["data_fingerprint"],
        "funnel": None,
        "recipe_file": None,
    }


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a standard error that one item cannot have becomes null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(record: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{'task':32} {'metric':20} {'value':>9} {'stderr':>8} {'chance':>7} {'n':>6}"]
    for name, task in record["tasks"].items():
        chance = "" if task["chance"] is None else f"{task['chance']:.3f}"
        stderr = "" if task["stderr"] is None else f"{task['stderr']:.4f}"
        lines.append(
            f"{name:32} {task['metric']:20} {task['value']:9.4f} {stderr:>8} {chance:>7} {task['n']:>6}"
        )
    lines += [f"{name}: not run, {reason}" for name, reason in record["not_run"].items()]
    score = record["score"]
    if score and score["value"] is not None:
        lines.append(f"{score['name']}: {score['value']:.2f} ± {score['stderr']:.2f}")
    elif score:
        lines.append(f"{score['name']}: not available, missing {', '.join(score['missing'])}")
    if "aggregates" in record:
        convention = record["aggregates"]["convention"]
        for name, average in record["aggregates"]["compat"][convention].items():
            if average["value"] is not None:
                corrected = record["aggregates"]["corrected"][convention][name]["value"]
                lines.append(
                    f"{name} ({convention}, {average['tasks']} tasks): {100 * average['value']:.2f}, "
                    f"corrected {100 * corrected:.2f}"
                )
    return "\n".join(lines)


__all__ = ["CHOICE_KINDS", "SuiteResult", "TaskResult", "evaluate", "run_suite", "run_task", "table"]
