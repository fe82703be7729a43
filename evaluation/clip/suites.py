"""The lists of tasks that can be run, as questions for the runner and as parts of a result.

``TableSuite``: a task list over table sets (the embedded tasks). ``BenchmarkSuite``: DataComp's tasks, or one
folder with a set in their layout.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.clip import aggregate, benchmark_tasks, table_tasks
from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.answers import Answers, figure
from evaluation.clip.devices import How
from evaluation.clip.encode import FP32, Encoded
from evaluation.clip.examples import EvalSet, SetError
from evaluation.clip.metrics import Measure, mean_of
from evaluation.clip.results import Outcome, averages_record
from evaluation.clip.sets import WdsSet, open_set
from evaluation.clip.tasks import Task, TaskError, TaskList, load_tasks

BENCHMARK = "datacomp"
AMP = How("amp")
UNDER_AUTOCAST = ("retrieval", "winogavil")
"""Kinds whose pictures DataComp encodes under autocast, and transforms as they are in their files; those of
the others come out of tars as RGB."""
CLASSES_FILE = "classnames.txt"


@dataclass(frozen=True)
class Question:
    """One task as the runner sees it.

    data: name of its set; open: opens the set; ask: (set, encoded, texts) → Answers; metric: the main one;
    definition: what its figures depend on besides set, model and code. images, texts: how both are encoded;
    mended: how the texts, and as precisely the pictures, are encoded for the corrected value (None: there is
    none but the one that Answers may have). shared: name of its pictures, where another set has the same.
    """

    key: str
    data: str
    open: Callable[[], EvalSet]
    ask: Callable[[Any, Encoded, Callable[[Sequence[str]], Any]], Answers]
    metric: str | None
    definition: str
    size: int | None = None
    images: How = FP32
    texts: How = FP32
    mended: How | None = None
    shared: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """Figures of every task that could be run, and those that could not, with the reason; ``failed`` are
    those among them whose set is there and broken, or on which the model fails."""

    done: dict[str, Outcome]
    not_run: dict[str, str]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class TableSuite:
    """A task list; each of its metrics is a line of the result, some are in the score."""

    tasks: TaskList

    @property
    def name(self) -> str:
        return self.tasks.name

    def questions(
        self, only: Sequence[str] = (), *, sets: Mapping[str, EvalSet] | None = None, **_: Any
    ) -> list[Question]:
        """``sets``: name → set, for every set that a task names; the embedded ones, if not given. Task lists
        are asked in fp32 on every device."""
        wanted = narrowed([t.key for t in self.tasks.tasks], {}, only, self.name)
        if sets is None:
            from evaluation.clip import embedded

            sets = embedded.sets()
        chosen = [task for task in self.tasks.tasks if task.key in wanted]
        missing = sorted({task.set for task in chosen} - set(sets))
        if missing:
            raise TaskError(f"{self.name}: the set {', '.join(missing)} was not given")
        return [
            Question(
                key=task.key,
                data=task.set,
                open=partial(sets.__getitem__, task.set),
                ask=partial(_ask_table, task),
                metric=task.metrics[0],
                definition=json.dumps(asdict(task), sort_keys=True),
                size=getattr(sets[task.set], "size", None),
            )
            for task in chosen
        ]

    def report(self, outcomes: Outcomes) -> dict[str, Any]:
        """``tasks`` ("<task>_<metric>" → figures) and ``score``."""
        entries: dict[str, Any] = {}
        measured: dict[str, tuple[Measure, list[str]]] = {}
        for task in self.tasks.tasks:
            outcome = outcomes.done.get(task.key)
            if outcome is None:
                continue
            answers = outcome.answers
            for metric, measure in answers.measures.items():
                key = f"{task.key}_{metric}"
                measured[key] = (measure, [f"{task.set}/{i}" for i in answers.ids])
                entries[key] = {
                    "title": table_tasks.title(task, metric),
                    "metric": metric,
                    **figure(measure),
                    "chance": task.chance if task.chance is not None else answers.chance[metric],
                    "higher_is_better": True,
                    "in_score": key in self.tasks.score,
                }
                if metric in answers.groups:
                    entries[key]["groups"] = {g: figure(m) for g, m in answers.groups[metric].items()}
        report: dict[str, Any] = {"tasks": entries}
        if self.tasks.score:
            missing = [key for key in self.tasks.score if key not in measured]
            value, stderr = (None, None) if missing else mean_of([measured[key] for key in self.tasks.score])
            report["score"] = score(self.tasks.score_name, value, stderr, missing)
        return report


def _ask_table(task: Task, data: Any, encoded: Encoded, texts: Callable[[Sequence[str]], Any]) -> Answers:
    return table_tasks.answer(task, encoded, texts)


@dataclass(frozen=True)
class BenchmarkSuite:
    """DataComp's tasks (all of them, or others of their kinds); each has one line in the result.

    folder: where the set of the only task lies, instead of below a ``data_dir``. whole: the averages of the
    38 are given.
    """

    name: str
    tasks: tuple[BenchmarkTask, ...]
    folder: Path | None = None
    whole: bool = True

    def questions(
        self,
        only: Sequence[str] = (),
        *,
        data_dir: str | Path | None = None,
        fetch: bool = False,
        amp: bool = False,
        show_progress: bool | None = False,
        **_: Any,
    ) -> list[Question]:
        """``amp``: with DataComp's mix of precisions, and the corrected values beside."""
        wanted = narrowed([t.key for t in self.tasks], {t.name: t.key for t in self.tasks}, only, self.name)
        if self.folder is None and data_dir is None:
            if not fetch:
                raise TaskError(
                    f"the sets of {self.name} are not part of Winnow: give the folder that has them "
                    "(--data-dir), or have them fetched (--fetch)"
                )
            data_dir = sets_folder()
        questions = []
        for task in self.tasks:
            if task.key not in wanted:
                continue
            under = task.kind in UNDER_AUTOCAST
            questions.append(
                Question(
                    key=task.key,
                    data=task.key,
                    open=partial(self._open, task, data_dir, fetch, show_progress),
                    ask=partial(benchmark_tasks.answer, task),
                    metric=task.metric,
                    definition=json.dumps(asdict(task), sort_keys=True),
                    size=task.size or None,
                    images=How("amp" if amp and under else "fp32", drop_alpha=not under),
                    texts=AMP if amp else FP32,
                    mended=FP32 if amp and task.metric is not None else None,
                    shared=task.images,
                )
            )
        return questions

    def _open(
        self, task: BenchmarkTask, data_dir: str | Path | None, fetch: bool, show: bool | None
    ) -> EvalSet:
        if self.folder is not None:
            return _open_folder(task, self.folder)
        assert data_dir is not None
        if fetch:
            from evaluation.clip.fetch import fetch as have

            if show or (show is None and sys.stderr.isatty()):
                print(f"{task.key}: looking whether {task.source} is there whole", file=sys.stderr)
            have(task, data_dir)
        return open_set(task, data_dir)

    def report(self, outcomes: Outcomes) -> dict[str, Any]:
        """``tasks`` (key → main metric, all metrics, groups, corrected), ``reports`` (tasks without a main
        metric), ``averages``, ``averages_corrected`` and ``score``."""
        entries: dict[str, Any] = {}
        reports: dict[str, Any] = {}
        for task in self.tasks:
            outcome = outcomes.done.get(task.key)
            if outcome is not None:
                (reports if task.metric is None else entries)[task.key] = _entry(task, outcome)
        report: dict[str, Any] = {"tasks": entries}
        if reports:
            report["reports"] = reports
        if not self.whole:
            return report
        compat, mended = {}, {}
        for key in entries:
            outcome, metric = outcomes.done[key], entries[key]["metric"]
            compat[key] = outcome.answers.measures[metric]
            mended[key] = outcome.corrected or compat[key]
        averages = aggregate.averages(compat)
        report["averages"] = averages_record(averages)
        report["averages_corrected"] = averages_record(aggregate.averages(mended))
        of = averages["average"]
        report["score"] = score(f"average of {of.tasks}", of.value, of.stderr, list(of.missing))
        return report


def _entry(task: BenchmarkTask, outcome: Outcome) -> dict[str, Any]:
    answers = outcome.answers
    entry: dict[str, Any] = {"title": task.name, "kind": task.kind, "group": task.group}
    if task.metric is not None:
        entry |= {
            "metric": task.metric,
            **figure(answers.measures[task.metric]),
            "chance": task.chance,
            "higher_is_better": True,
            "in_score": task.in_average,
        }
    if outcome.corrected is not None:
        name = task.corrected.metric if task.corrected else task.metric
        entry["corrected"] = {"metric": name, **figure(outcome.corrected)}
    entry["metrics"] = {name: figure(measure) for name, measure in answers.measures.items()}
    if answers.groups:
        entry["groups"] = {
            metric: {group: figure(measure) for group, measure in own.items()}
            for metric, own in answers.groups.items()
        }
    return {**entry, "set": outcome.fingerprint, "seconds": outcome.seconds}


def score(name: str, value: float | None, stderr: float | None, missing: Sequence[str]) -> dict[str, Any]:
    """The score of a result: × 100; without a value it names what is missing."""
    found: dict[str, Any] = {
        "name": name,
        "value": None if value is None else 100 * value,
        "stderr": None if stderr is None else 100 * stderr,
        "higher_is_better": True,
    }
    return {**found, "missing": list(missing)} if missing else found


def suite(tasks: str | Path | TaskList | TableSuite | BenchmarkSuite) -> TableSuite | BenchmarkSuite:
    """By name ("demo", "datacomp"), YAML file, or folder of one set; a task list or suite is taken as it is.
    TaskError for what is none of these."""
    if isinstance(tasks, TableSuite | BenchmarkSuite):
        return tasks
    if isinstance(tasks, TaskList):
        return TableSuite(tasks)
    if str(tasks) == BENCHMARK:
        return BenchmarkSuite(BENCHMARK, aggregate.tasks())
    if not Path(tasks).is_dir():
        return TableSuite(load_tasks(tasks))
    folder = Path(tasks).resolve()
    hub = {task.source.partition("/")[2]: task for task in aggregate.tasks()}
    task = hub.get(folder.name)
    if task is None:
        if not (folder / CLASSES_FILE).is_file():
            raise TaskError(
                f"{folder} is no evaluation set: it has no {CLASSES_FILE}, and its name is that of none of "
                "DataComp's. A folder of many sets is a data_dir, for the tasks datacomp"
            )
        task = BenchmarkTask(
            key=folder.name, name=folder.name, kind="classification", metric="acc1", group="other", size=0,
            classes=None, chance=None, templates=None, source="", in_average=False, clean=False,
        )  # fmt: skip
    return BenchmarkSuite(folder.name, (replace(task, images=None),), folder, whole=False)


def _open_folder(task: BenchmarkTask, folder: Path) -> EvalSet:
    if task.source:
        return open_set(task, folder)
    if not (folder / CLASSES_FILE).is_file():
        raise SetError(f"{folder} is not an evaluation set: {CLASSES_FILE} is missing")
    return WdsSet(task.key, folder)


def narrowed(
    keys: Sequence[str], other_names: Mapping[str, str], only: Sequence[str], name: str
) -> Sequence[str]:
    """The keys in ``only`` (all, if there are none there), which may use other names for them."""
    wanted = {other_names.get(label, label) for label in only}
    unknown = sorted(wanted - set(keys))
    if unknown:
        raise TaskError(f"no task {', '.join(unknown)} in {name!r}; it has {', '.join(keys)}")
    return [key for key in keys if not wanted or key in wanted]


def sets_folder() -> Path:
    """Where fetched sets lie when no folder is given: below WINNOW_CACHE."""
    root = os.environ.get("WINNOW_CACHE") or str(Path.home() / ".cache" / "winnow")
    return Path(root).expanduser() / "clip-tasks"
