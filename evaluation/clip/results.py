"""What survives a crash, and what is exchanged with others: the cache of finished tasks, and DataComp's
``eval_results.jsonl``.

A cache entry is one parquet file: the examples of a task, with its figures in the file's metadata. Its key is
a hash of the model, the task, the set's fingerprint, the precision and the code that decides figures. A file
of another key is never read, so a cache may be shared by all models and kept for ever.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.clip import aggregate
from evaluation.clip.answers import Answers, examples_table, figure
from evaluation.clip.metrics import Measure

HARNESS = "1"
"""Version of the rules; the code's own hash is part of every key besides."""
CODE = (
    "answers", "associations", "benchmark_tasks", "devices", "embedded", "encode", "examples", "faces",
    "hub_table", "metric_families", "metrics", "pictures", "results", "retrieval_set", "run", "short_texts",
    "suites", "table_tasks", "tar_samples", "tasks", "wds_set", "winogavil_set",
)  # fmt: skip
MODEL_CODE = ("network", "open_clip_models", "pixels", "small")


class ResultError(ValueError):
    """A file of results that cannot be used; the message names file and line."""


def code_hash() -> str:
    """16 hex digits over the modules that decide a figure, the model's among them."""
    import filters.image_text

    here, model = Path(__file__).parent, Path(str(filters.image_text.__file__)).parent
    digest = hashlib.sha256(HARNESS.encode())
    for path in [*(here / f"{name}.py" for name in CODE), *(model / f"{name}.py" for name in MODEL_CODE)]:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """One finished task. answers: its figures. corrected: the main metric under the mended rules, where they
    differ. seconds: that it took; fingerprint: of its set."""

    answers: Answers
    corrected: Measure | None
    examples: pa.Table
    seconds: float
    fingerprint: str


class TaskCache:
    """A folder of finished tasks, one file each, written whole or not at all."""

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.identity = {**identity, "code": code_hash()}

    def path(self, key: str, definition: str, fingerprint: str) -> Path:
        """Where the figures of a task on the set of that fingerprint are kept."""
        whole = json.dumps([self.identity, definition, fingerprint], sort_keys=True)
        name = key.replace("/", "-")
        return self.folder / f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:20]}.parquet"

    def get(self, key: str, definition: str, fingerprint: str) -> Outcome | None:
        """What was kept, or None. A file that a dying disk cut short counts as none."""
        path = self.path(key, definition, fingerprint)
        try:
            with open(path, "rb") as file:
                table = pq.read_table(pa.BufferReader(file.read()))
            figures = json.loads(table.schema.metadata[b"winnow"])
            with np.load(io.BytesIO(table.schema.metadata[b"influences"]), allow_pickle=False) as stored:
                influences = dict(stored)
            answers = Answers(
                measures={n: _measure(m, influences.get(n)) for n, m in figures["measures"].items()},
                chance=figures["chance"],
                ids=table["id"][: figures["ids"]].to_pylist(),
                groups={
                    name: {group: _measure(m) for group, m in own.items()}
                    for name, own in figures["groups"].items()
                },
            )
            kept = figures["corrected"]
            corrected = None if kept is None else _measure(kept, influences.get("corrected of it"))
            return Outcome(
                answers, corrected, table.replace_schema_metadata(None), figures["seconds"], fingerprint
            )
        except (FileNotFoundError, pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, definition: str, outcome: Outcome) -> None:
        answers = outcome.answers
        measures = dict(answers.measures)
        if outcome.corrected is not None:
            measures["corrected of it"] = outcome.corrected
        influences = io.BytesIO()
        np.savez_compressed(
            influences, **{n: m.influence for n, m in measures.items() if m.influence is not None}
        )
        figures = {
            "task": key,
            **self.identity,
            "set": outcome.fingerprint,
            "measures": {name: figure(measure) for name, measure in answers.measures.items()},
            "corrected": None if outcome.corrected is None else figure(outcome.corrected),
            "chance": answers.chance,
            "ids": len(answers.ids),
            "groups": {n: {g: figure(m) for g, m in own.items()} for n, own in answers.groups.items()},
            "seconds": outcome.seconds,
        }
        metadata = {b"winnow": json.dumps(figures).encode(), b"influences": influences.getvalue()}
        path = self.path(key, definition, outcome.fingerprint)
        write_table(path, outcome.examples.replace_schema_metadata(metadata))


def outcome_of(
    key: str, answers: Answers, corrected: Measure | None, seconds: float, fingerprint: str
) -> Outcome:
    """The examples of ``answers`` move into the table."""
    table = examples_table(key, answers.examples)
    answers.examples = {}
    return Outcome(answers, corrected, table, seconds, fingerprint)


def _measure(values: Mapping[str, Any], influence: np.ndarray | None = None) -> Measure:
    return Measure(values["value"], values["stderr"], values["n"], influence)


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet, whole or not at all, and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


# ---- DataComp's result file ----------------------------------------------------------------------


@dataclass(frozen=True)
class DataCompResults:
    """An ``eval_results.jsonl``. scores: task key → main metric; metrics: task key → all of them; problems:
    lines that were left out, and why."""

    scores: dict[str, float]
    metrics: dict[str, dict[str, Any]]
    problems: tuple[str, ...]


def write_datacomp_jsonl(result: Mapping[str, Any], path: str | Path) -> Path:
    """The tasks of a result of ``run.evaluate(…, "datacomp")`` as DataComp's evaluator writes them: a line a
    task, metric names and numbered groups as there. Only its own (compat) values."""
    path = Path(path)
    lines = []
    everything = {**result["tasks"], **result.get("reports", {})}
    for task in aggregate.tasks():
        if task.key not in everything:
            continue
        left_out = task.corrected.metric if task.corrected else None
        numbers = {
            f"{task.group_by}:{name}": f"{task.group_by}:{i}" for i, name in enumerate(task.group_names)
        }
        values: dict[str, Any] = {"acc5": None} if task.kind in ("classification", "wilds") else {}
        for name, measure in everything[task.key]["metrics"].items():
            if name != left_out:
                head, _, group = name.partition("_")
                values[f"{head}_{numbers[group]}" if group in numbers else name] = measure["value"]
        values["main_metric"] = None if task.metric is None else everything[task.key]["value"]
        lines.append(json.dumps({"key": task.key, "dataset": task.name, "metrics": values}))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)
    return path


def read_datacomp_jsonl(path: str | Path) -> DataCompResults:
    """Read an ``eval_results.jsonl`` of DataComp's evaluator, anybody's.

    A crash in the middle of a write leaves a broken line, mostly the last: such lines, and those of unknown
    tasks or without a number, are left out and told in ``problems``. Raises ResultError for a file that is
    not there, has no usable line, or has two different values for a task.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ResultError(f"{path} is not there") from None
    scores: dict[str, float] = {}
    metrics: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}" + (" (the last)" if number == len(lines) else "")
        try:
            entry = json.loads(line)
            label, values = entry.get("key") or entry["dataset"], entry["metrics"]
            main = values.get("main_metric")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{where}: no result ({error}): a write was broken off; evaluate that task again")
            continue
        try:
            task = aggregate.task(label)
        except aggregate.AggregateError:
            problems.append(f"{where}: {label!r} is none of DataComp's tasks")
            continue
        if task.metric is not None:
            if not _number(main):
                problems.append(f"{where}: main_metric of {task.key} is {main!r}, not a number from 0 to 1")
                continue
            if task.key in scores and scores[task.key] != main:
                raise ResultError(
                    f"{where}: {task.key} is {main}, and an earlier line says {scores[task.key]}: results of "
                    "two models in one file; keep those of one"
                )
            scores[task.key] = float(main)
        metrics[task.key] = values
    if not metrics:
        raise ResultError(f"{path} holds no result of DataComp's tasks" + "".join(f"; {p}" for p in problems))
    return DataCompResults(scores, metrics, tuple(problems))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def averages_record(averages: Mapping[str, aggregate.Average]) -> dict[str, Any]:
    """The averages as JSON."""
    return {name: {**asdict(average), "missing": list(average.missing)} for name, average in averages.items()}


def without_nan(value: Any) -> Any:
    """JSON has no NaN: a standard error that is not known becomes null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
