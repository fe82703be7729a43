"""Evaluate a two-tower model: one load for all tasks, every picture and every text encoded once.

    record = evaluate("out/model-0", "datacomp", "result.json", data_dir="eval_sets", cache="kept")

Precision. DataComp's evaluator mixes: class texts under fp16 autocast, pictures and logits of classification,
WILDS and fairness in fp32, retrieval and WinoGAViL wholly under autocast. On a GPU that is the default here
for its tasks ("compat"), since published scores were made so; beside each value stands ``corrected``, with
everything in fp32 and without the faults of the rules (FMoW's region "Other", WinoGAViL's order of equals);
for retrieval and WinoGAViL that is a second pass over their few thousand pictures. A CPU has no fp16
autocast: everything is fp32 there, and the result says so. "fp32" asks for that on a GPU too. Task lists of
Winnow's own are always in fp32.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from evaluation.clip.answers import Answers
from evaluation.clip.devices import EncodeError, Encoders, Here, How, Pool, places
from evaluation.clip.encode import Encoded, Features
from evaluation.clip.examples import EvalSet, SetMissing
from evaluation.clip.results import (
    HARNESS,
    Outcome,
    TaskCache,
    code_hash,
    outcome_of,
    without_nan,
    write_datacomp_jsonl,
    write_table,
)
from evaluation.clip.suites import BenchmarkSuite, Outcomes, Question, TableSuite, suite
from evaluation.clip.tasks import TaskError, TaskList
from evaluation.lm.results import Progress
from recipes.clip.run_folder import RESULT, read_result
from recipes.training.run_folder import write_json

PRECISIONS = ("compat", "fp32")
FEW = 4  # tasks without a set that are still named one by one
CONFIG = "config.json"
UNKNOWN_SIZE = 10_000
"""Pictures of a set that does not say how many, for the ETA."""


def evaluate(
    model: Any,
    tasks: str | Path | TaskList | TableSuite | BenchmarkSuite = "demo",
    out: str | Path | None = None,
    *,
    pretrained: str | Path | None = None,
    data_dir: str | Path | None = None,
    fetch: bool = False,
    only: Sequence[str] = (),
    sets: Mapping[str, EvalSet] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    workers: int = 1,
    threads: int | None = None,
    precision: str | None = None,
    recipe: str = "",
    title: str = "",
    control: bool = False,
    dataset: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    jsonl: str | Path | None = None,
    strict: bool = False,
    on_task: Callable[[str, Outcome], None] | None = None,
    show_progress: bool | None = False,
) -> dict[str, Any]:
    """Evaluate a model and return its result (written to ``out`` if given, with the examples beside it as
    ``<stem>.examples.parquet``: one row per example and task, from which every number can be made again).

    model: a model directory, the folder of a training run, what else ``filters.image_text.network.load``
    takes (open_clip's names with ``pretrained``: a tag or a checkpoint file), or a loaded ``TwoTower``.
    tasks: "demo" or another list of evaluation/data/clip, its YAML, "datacomp" (40 tasks, sets below
    ``data_dir``; ``fetch``: have what is missing from the hub), the folder of one set, or one of ``suites``.
    only: keys (or display names) of the tasks to run. sets: name → set, instead of the embedded ones.
    cache: folder where finished tasks are kept and looked up, so that a run that was killed goes on.
    device, workers: see ``devices.places``; threads: of each process, None = one on a CPU (so that every
    machine gives the same bits), all cores beside a GPU. precision: "compat" or "fp32", see above; None =
    "compat" where there is an autocast.
    dataset: adds to what the training run says about the data; about: replaces parts of the result's head
    (scale, seed, train, …). jsonl: also write DataComp's ``eval_results.jsonl``.

    A set that is missing or broken costs its own tasks: they are in ``not_run``, and there is no average;
    those broken, or on which the model fails, are in ``harness.failed`` too. strict: raise at the first.
    Raises TaskError for an unusable list or combination, ModelError for a model.
    """
    began = time.perf_counter()
    asked = suite(tasks)
    place, trained = _trained(model)
    with _encoders(model if place is None else place, pretrained, device, workers, threads) as encoders:
        amp = _amp(precision, asked, encoders)
        questions = asked.questions(
            only, data_dir=data_dir, fetch=fetch, sets=sets, amp=amp, show_progress=show_progress
        )
        kept = TaskCache(cache, _identity(encoders, amp)) if cache else None
        features = Features(encoders)
        outcomes = run(
            features, questions, cache=kept, strict=strict, on_task=on_task, show_progress=show_progress
        )
    name = recipe or (encoders.name if place is None else Path(str(model)).name)
    record = {
        "track": "image_text",
        **trained,
        "recipe": name,
        "title": title or name,
        "control": control,
        **(about or {}),
        "task_list": asked.name,
        **asked.report(outcomes),
        "not_run": outcomes.not_run,
        "eval_seconds": round(time.perf_counter() - began, 3),
        "versions": {**versions(), **(about or {}).get("versions", {})},
        "precision": _precision_record(amp, encoders),
        "harness": {
            "version": HARNESS,
            "code": code_hash(),
            "model": encoders.about.identity,
            "weights": encoders.about.source,
            "device": encoders.about.device,
            "processes": encoders.processes,
            "images_encoded": features.images_encoded,
            "texts_encoded": features.texts_encoded,
            "failed": list(outcomes.failed),
        },
    }
    if dataset:
        record["dataset"] = {**record.get("dataset", {}), **dataset}
    record = without_nan(record)
    if out is not None:
        write_result(Path(out), record, outcomes)
    if jsonl is not None:
        write_datacomp_jsonl(record, jsonl)
    return record


def run(
    features: Features,
    questions: Sequence[Question],
    *,
    cache: TaskCache | None = None,
    strict: bool = False,
    on_task: Callable[[str, Outcome], None] | None = None,
    show_progress: bool | None = False,
) -> Outcomes:
    """Ask every question, set by set. Each finished one is kept in ``cache`` at once, and those found there
    are not asked again; a set all of whose questions are found there is not encoded."""
    done: dict[str, Outcome] = {}
    not_run: dict[str, str] = {}
    failed: list[str] = []
    by_set: dict[str, list[Question]] = {}
    for question in questions:
        by_set.setdefault(question.data, []).append(question)
    weight = {own[0].key: float(own[0].size or UNKNOWN_SIZE) for own in by_set.values()}
    progress = Progress({q.key: weight.get(q.key, 0.0) for q in questions}, show=show_progress)

    def give_up(question: Question, reason: Exception) -> None:
        if strict:
            raise reason
        not_run[question.key] = str(reason) or type(reason).__name__
        if not isinstance(reason, SetMissing):
            failed.append(question.key)
        progress.end(cached=True)

    def finish(question: Question, outcome: Outcome, *, cached: bool) -> None:
        done[question.key] = outcome
        progress.end(cached=cached)
        if on_task:
            on_task(question.key, outcome)

    coming = [own[0].shared for own in by_set.values()]
    for own in by_set.values():
        shared = coming.pop(0)
        try:
            progress.begin(own[0].key)
            data = own[0].open()
            fingerprint = data.fingerprint if cache else getattr(data, "fingerprint", "")
        except (ValueError, OSError) as error:
            for question in own:
                progress.begin(question.key)
                give_up(question, error)
            continue
        encoded: dict[How, Encoded] = {}
        for question in own:
            progress.begin(question.key)
            found = cache.get(question.key, question.definition, fingerprint) if cache else None
            if found is not None:
                finish(question, found, cached=True)
                continue
            try:
                outcome = _ask(features, question, data, fingerprint, encoded, progress)
            except (ValueError, OSError) as error:
                give_up(question, error)
                continue
            if cache:
                cache.put(question.key, question.definition, outcome)
            finish(question, outcome, cached=False)
        if shared is not None and shared not in coming:
            features.forget(shared)
    progress.close()
    order = [question.key for question in questions]
    return Outcomes({key: done[key] for key in order if key in done}, not_run, tuple(failed))


def _ask(
    features: Features,
    question: Question,
    data: Any,
    fingerprint: str,
    encoded: dict[How, Encoded],
    progress: Progress,
) -> Outcome:
    """One question; what is not encoded yet of its set is encoded first."""
    start = time.perf_counter()
    size = getattr(data, "size", None)

    def pictures(how: How) -> Encoded:
        if how not in encoded:
            progress.items = size or 0
            report = (lambda done: progress.update(min(1.0, done / size))) if size else None
            encoded[how] = features.images(data, how, shared=question.shared, report=report)
        return encoded[how]

    def answers(images: How, texts: How) -> Answers:
        own = pictures(images)
        given = partial(features.texts, how=texts, width=own.features.shape[1], what=question.data)
        try:
            return question.ask(data, own, given)
        except (TaskError, EncodeError):
            raise
        except ValueError as error:
            raise TaskError(f"task {question.key}, set {question.data}: {error}") from error

    found = answers(question.images, question.texts)
    if question.metric is not None and question.metric not in found.measures:
        raise TaskError(f"task {question.key}: its set gives no {question.metric}")
    corrected = found.corrected
    if question.mended is not None and question.metric is not None:
        mended = answers(replace(question.images, precision=question.mended.precision), question.mended)
        corrected = mended.corrected or mended.measures[question.metric]
    return outcome_of(question.key, found, corrected, round(time.perf_counter() - start, 3), fingerprint)


@contextmanager
def _encoders(
    model: Any, pretrained: str | Path | None, device: str | None, workers: int, threads: int | None
) -> Iterator[Encoders]:
    import torch

    if isinstance(model, str | Path):
        devices = places(device, workers)
    elif workers > 1:
        raise TaskError(f"{workers} workers load the model themselves: give its folder or name")
    else:
        devices = [device or str(getattr(model, "device", "cpu"))]
    if threads is None:
        gpu = not devices[0].startswith("cpu")
        threads = max(1, (os.cpu_count() or 1) // len(devices)) if gpu else 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    encoders: Encoders
    try:
        if isinstance(model, str | Path):
            name = str(model) if pretrained is None else f"{model} ({pretrained})"
            if len(devices) > 1:
                encoders = Pool(partial(_load, str(model), pretrained), devices, name, threads)
            else:
                encoders = Here(_load(str(model), pretrained, devices[0]), name, threads)
        else:
            if device is not None and hasattr(model, "to"):
                model.to(devices[0])
            encoders = Here(model, getattr(model, "source", "model"), threads)
        try:
            yield encoders
        finally:
            encoders.close()
    finally:
        torch.set_num_threads(before)


def _load(model: str, pretrained: str | Path | None, device: str) -> Any:
    from filters.image_text import network

    return network.load(model, pretrained, device=device)


def _amp(precision: str | None, asked: TableSuite | BenchmarkSuite, encoders: Encoders) -> bool:
    """Whether the mix of precisions is to be used."""
    if precision not in (None, *PRECISIONS):
        raise TaskError(f"precision is {precision!r}; use {' or '.join(PRECISIONS)}")
    there = encoders.about.amp != "fp32"
    if precision == "compat" and not there:
        raise TaskError(
            f"precision compat needs fp16 autocast, which {encoders.about.device} has not; leave it out to "
            "evaluate in fp32, and the result says so"
        )
    return there and precision != "fp32" and isinstance(asked, BenchmarkSuite)


def _identity(encoders: Encoders, amp: bool) -> dict[str, Any]:
    if encoders.about.identity is None:
        raise TaskError(
            "a model without weights of its own has no identity, and so no cache; leave cache out"
        )
    return {"model": encoders.about.identity, "precision": encoders.about.amp if amp else "fp32"}


def _precision_record(amp: bool, encoders: Encoders) -> dict[str, str]:
    if not amp:
        return {"mode": "fp32", "class_texts": "fp32", "images": "fp32", "retrieval_and_winogavil": "fp32"}
    how = encoders.about.amp
    return {"mode": "compat", "class_texts": how, "images": "fp32", "retrieval_and_winogavil": how,
            "corrected": "fp32"}  # fmt: skip


def _trained(model: Any) -> tuple[str | Path | None, dict[str, Any]]:
    """Where the model is to be loaded from (None: it is loaded already), and what its training says."""
    unknown: dict[str, Any] = {"scale": "none", "scale_hash": "none", "official": False, "seed": 0}
    if not isinstance(model, str | Path):
        return None, unknown
    if (Path(model) / RESULT).is_file():
        trained = read_result(Path(model))
        return trained.model, {
            "scale": trained.scale,
            "scale_hash": trained.scale_hash,
            "official": trained.official,
            "seed": trained.seed,
            "dataset": {"rows": trained.rows, "epochs": trained.epochs, "fingerprint": trained.data},
            "train": {
                "steps": trained.steps,
                "tokens_or_samples": trained.samples,
                "seconds": trained.seconds,
                "final_loss": trained.final_loss,
                "precision": trained.precision,
                "sampling": trained.sampling,
            },
        }
    if (Path(model) / CONFIG).is_file():  # the model directory alone knows its scale, where we trained it
        config = json.loads((Path(model) / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config.get("scale"), dict):
            known = {
                "scale": config["scale"].get("name"),
                **{k: config.get(k) for k in ("scale_hash", "seed")},
            }
            return model, {**unknown, **{k: v for k, v in known.items() if v is not None}}
    return model, unknown


def versions() -> dict[str, str]:
    """Versions that a result can depend on."""
    import numpy as np
    import PIL
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def write_result(path: Path, record: dict[str, Any], outcomes: Outcomes) -> None:
    """The result, after the examples beside it; each whole or not at all."""
    if outcomes.done:
        side = path.with_name(path.stem + ".examples.parquet")
        record["examples"] = side.name
        write_table(side, pa.concat_tables([outcome.examples for outcome in outcomes.done.values()]))
    write_json(path, record)


def table(record: Mapping[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{'task':50} {'metric':24} {'value':>8} {'stderr':>7} {'chance':>7} {'n':>7}  corrected"]
    for name, task in record["tasks"].items():
        chance = "" if task["chance"] is None else f"{task['chance']:.3f}"
        stderr = "" if task["stderr"] is None else f"{task['stderr']:.4f}"
        mended = f"{task['corrected']['value']:9.4f}" if task.get("corrected") else ""
        value = f"{task['metric']:24} {task['value']:8.4f} {stderr:>7} {chance:>7} {task['n']:>7}"
        lines.append(f"{name:50} {value}  {mended}".rstrip())
    lines += [
        f"{name}: reported, {len(own['metrics'])} figures" for name, own in record.get("reports", {}).items()
    ]
    lines += _not_run(record)
    if "averages" in record:
        lines += averages_table(record["averages"], record.get("averages_corrected"))
    score = record.get("score")
    if score and score["value"] is not None:
        lines.append(f"{score['name']}: {score['value']:.2f} ± {score['stderr']:.2f}")
    elif score:
        lines.append(f"{score['name']}: {_missing(score['missing'])}")
    return "\n".join(lines)


def _not_run(record: Mapping[str, Any]) -> list[str]:
    """A line for each task that failed; those whose set is not there in one, where they are many."""
    failed = record["harness"]["failed"]
    gone = [name for name in record["not_run"] if name not in failed]
    shown = failed if len(gone) > FEW else list(record["not_run"])
    lines = [f"{name}: not run, {record['not_run'][name]}" for name in shown]
    if len(gone) > FEW:
        lines.append(
            f"{len(gone)} tasks not run, because their sets are not there (--fetch has them; the "
            f"result file says where each was looked for): {', '.join(gone[:FEW])} …"
        )
    return lines


def _missing(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return f"not available, missing {shown}"


def averages_table(averages: Mapping[str, Any], corrected: Mapping[str, Any] | None = None) -> list[str]:
    """Lines with the five numbers and the others that ``aggregate.sets`` has."""
    lines = [f"{'average':12} {'tasks':>5} {'value':>8} {'stderr':>7}  {'95 % interval':18} corrected"]
    for name, average in averages.items():
        if average["value"] is None:
            lines.append(f"{name:12} {average['tasks']:>5} {_missing(average['missing'])}")
            continue
        stderr = "" if average["stderr"] is None else f"{average['stderr']:.4f}"
        low, high = average["low"], average["high"]
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        mended = corrected[name]["value"] if corrected else None
        line = f"{name:12} {average['tasks']:>5} {average['value']:8.4f} {stderr:>7}  {interval:18}"
        lines.append(f"{line} {'' if mended is None else f'{mended:.4f}'}".rstrip())
    return lines
