"""Evaluate a trained model: ``python -m evaluation.lm MODEL_DIR [--tasks tiny] [--data-dir DIR]``."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation import stats
from evaluation.lm import metrics
from evaluation.lm.prompts import item_queries
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

GENERATION = "generation tasks need the text generator of the full language harness, which comes with issue 4"


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
    """Figures of every task that could be run, and the names of those that could not, with the reason."""

    suite: str
    tasks: dict[str, TaskResult]
    not_run: dict[str, str]
    score: dict[str, Any] | None
    seconds: float


def run_suite(
    scorer: Scorer,
    suite: Suite,
    *,
    only: Sequence[str] = (),
    limit: int | None = None,
    on_task: Callable[[str, TaskResult], None] | None = None,
) -> SuiteResult:
    """Score the tasks of a suite (those named in ``only``, if given), the first ``limit`` items of each."""
    if suite.folder is None:
        raise TaskError(
            f"suite {suite.name!r} has no data of its own: give the folder of its task files (data_dir)"
        )
    unknown = sorted(set(only) - {task.name for task in suite.tasks})
    if unknown:
        have = ", ".join(task.name for task in suite.tasks)
        raise TaskError(f"no task {', '.join(unknown)} in suite {suite.name!r}; it has {have}")
    start = time.perf_counter()
    done: dict[str, TaskResult] = {}
    not_run: dict[str, str] = {} if only else dict(suite.unusable)
    for task in suite.tasks:
        if only and task.name not in only:
            continue
        if task.kind == "generation":
            not_run[task.name] = GENERATION
        elif not (suite.folder / task.file).is_file():
            not_run[task.name] = f"no file {task.file} in {suite.folder}"
        else:
            done[task.name] = run_task(scorer, task, suite.folder, limit)
            if on_task:
                on_task(task.name, done[task.name])
    return SuiteResult(suite.name, done, not_run, suite_score(suite, done), time.perf_counter() - start)


def run_task(scorer: Scorer, task: Task, folder: Path, limit: int | None = None) -> TaskResult:
    start = time.perf_counter()
    items = read_items(task, folder)
    truncated = 0
    if task.kind == "text":
        items = items[:limit]
        texts = [item["text"] for item in items]
        figures = metrics.text_metrics(texts, scorer.text(texts))
    else:
        queries = item_queries(task, items, limit)
        items = items[: len(queries)]
        scores = scorer.queries([query for group in queries for query in group])
        truncated = scores.truncated
        figures = metrics.task_metrics(
            task, items, metrics.item_scores(task, items, [len(group) for group in queries], scores)
        )
    if task.metric not in figures:
        raise TaskError(f"task {task.name!r} ({task.kind}) has no {task.metric}; it has {', '.join(figures)}")
    return TaskResult(
        title=task.title or task.name,
        metric=task.metric,
        value=figures[task.metric].value,
        stderr=figures[task.metric].stderr,
        n=len(items),
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
    only: Sequence[str] = (),
    limit: int | None = None,
    recipe: str = "",
    title: str = "",
    control: bool = False,
    dataset: dict[str, Any] | None = None,
    threads: int = 1,
    on_task: Callable[[str, TaskResult], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model of ``recipes.lm.train`` and return its result file (written to ``out`` if given).

    ``tasks``: a suite by name (``tiny``, ``dclm``), a suite YAML, or ``files`` for every jsonl in
    ``data_dir``. ``dataset`` overrides or adds to what the training run and the plan's report say about the
    data, e.g. ``funnel`` and ``recipe_file``. Raises TaskError on unusable tasks, naming file and line.
    """
    import torch

    from recipes.lm.train import load_model

    before = torch.get_num_threads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    torch.set_num_threads(threads)
    try:
        suite = infer_suite(data_dir or "") if str(tasks) == "files" else load_suite(tasks, data_dir)
        model, tokenizer, _ = load_model(model_dir)
        result = run_suite(Scorer(model, tokenizer), suite, only=only, limit=limit, on_task=on_task)
    finally:
        torch.set_num_threads(before)
    trained = json.loads((Path(model_dir) / "result.json").read_text(encoding="utf-8"))
    record = {
        "track": "text",
        "scale": trained["scale"],
        "scale_hash": trained["scale_hash"],
        "recipe": recipe or Path(trained["data"]).name,
        "title": title or recipe or Path(trained["data"]).name,
        "seed": trained["seed"],
        "control": control,
        "dataset": {**_dataset(trained), **(dataset or {})},
        "suite": result.suite,
        "tasks": {name: asdict(task) for name, task in result.tasks.items()},
        "not_run": result.not_run,
        "score": result.score,
        "train": {
            "steps": trained["steps"],
            "tokens_or_samples": trained["tokens"],
            "seconds": trained["seconds"],
            "final_loss": trained["final_loss"],
            "parameters": trained["parameters"],
        },
        "eval_seconds": round(result.seconds, 3),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    record = _without_nan(record)
    if out is not None:
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return record


def _dataset(trained: dict[str, Any]) -> dict[str, Any]:
    """What was trained on: counted by the trainer; pool sizes from the report of the plan that made it."""
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
    return "\n".join(lines)


__all__ = ["CHOICE_KINDS", "SuiteResult", "TaskResult", "evaluate", "run_suite", "run_task", "table"]
