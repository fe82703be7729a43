"""Tasks are data: a suite is a YAML list of tasks, a task's items are a jsonl file in DCLM's record formats.

| kind | record |
|--|--|
| ``multiple_choice`` | ``{query, choices: [..], gold}`` |
| ``schema`` | ``{context_options: [..], continuation, gold}`` |
| ``language_modeling`` | ``{context, continuation}`` |
| ``text`` | ``{id, text}``: bits per byte of whole documents (ours, not one of DCLM's) |
| ``generation`` | ``{context, answer, aliases?: [..], chain_of_thought?}`` |

Settings, chance levels, sets and the expected rows of DCLM's 53 tasks are ``evaluation/data/lm/dclm.yaml``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "lm"
KINDS = ("multiple_choice", "schema", "language_modeling", "text", "generation")
CHOICE_KINDS = ("multiple_choice", "schema")
ANSWERS = ("text", "math")
FIELDS: dict[str, dict[str, type]] = {
    "multiple_choice": {"query": str, "choices": list, "gold": int},
    "schema": {"context_options": list, "continuation": str, "gold": int},
    "language_modeling": {"context": str, "continuation": str},
    "text": {"text": str},
    "generation": {"context": str, "answer": str},
}


class TaskError(ValueError):
    """A suite or task file that cannot be used; the message names the file, the row and the mend."""


@dataclass(frozen=True)
class Task:
    """One task of a suite."""

    name: str
    kind: str
    file: str
    """Path of the jsonl, relative to the suite's data folder."""
    title: str = ""
    shots: int = 0
    delimiter: str = " "
    """Continuation delimiter: stands between a context and its answer in the prompt."""
    chance: float | None = None
    """Expected value of a model that knows nothing (of ``metric``), 0..1."""
    metric: str = "accuracy"
    """The figure shown for the task: accuracy, choice_probability, bits_per_byte or bits_per_answer."""
    in_score: bool = False
    category: str = ""
    core: bool = False
    """Member of DCLM's Core (low-variance) set."""
    grouped: bool = False
    """The score is the mean over the ``category`` of the records; shots come from the same category."""
    prelimiter: str = ""
    """Stands before every question, also those of the shots."""
    cot_delimiter: str = ""
    """Stands between a chain of thought and its answer, in the shots and in what is generated."""
    stops: tuple[str, ...] = ()
    """A generation ends before the first of these."""
    answers: str = "text"
    """How a corrected decision reads an answer: as ``text`` or as ``math`` (see ``answers.decide``)."""
    rows: int | None = None
    """Records that the file has; a file with fewer is refused."""
    blob: str = ""
    """Git's id of the file's bytes, where the original is known."""
    partial: bool = False
    """The file is known to have fewer rows than the original (only in suites inferred from a folder)."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"task {self.name!r}: kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if self.answers not in ANSWERS:
            raise TaskError(
                f"task {self.name!r}: answers is {self.answers!r}; use one of {', '.join(ANSWERS)}"
            )
        if not isinstance(self.shots, int) or self.shots < 0:
            raise TaskError(f"task {self.name!r}: shots is {self.shots!r}; use a whole number, 0 or more")
        if isinstance(self.stops, str) or not all(isinstance(s, str) and s for s in self.stops):
            raise TaskError(f"task {self.name!r}: stops is {self.stops!r}; use a list of non-empty texts")
        object.__setattr__(self, "stops", tuple(self.stops))

    @property
    def higher_is_better(self) -> bool:
        return self.metric in ("accuracy", "choice_probability")


@dataclass(frozen=True)
class Suite:
    """Tasks with their data folder and the aggregate over them."""

    name: str
    tasks: tuple[Task, ...]
    folder: Path | None
    score: str = ""
    """Name of the aggregate; empty when the suite has none."""
    unusable: tuple[tuple[str, str], ...] = ()
    """(name, reason) of files that are no task of a known kind; listed with every result."""


def suites() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.yaml"))


def load_suite(name_or_path: str | Path, data_dir: str | Path | None = None) -> Suite:
    """A suite by the name of a YAML file in ``evaluation/data/lm`` or by path.

    The items come from ``data_dir``, or else from the folder beside the YAML with the same name.
    """
    import yaml

    path = DATA / f"{name_or_path}.yaml"
    path = path if path.is_file() else Path(name_or_path)
    if not path.is_file():
        raise TaskError(f"no suite {str(name_or_path)!r}; known: {', '.join(suites())}, or a YAML file")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        files = values.get("files", {})
        tasks = tuple(
            Task(**{**values.get("defaults", {}), **files.get(task.get("file"), {}), **task})
            for task in values["tasks"]
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise TaskError(f"{path}: {error}") from error
    beside = path.with_suffix("")
    folder = Path(data_dir) if data_dir else beside if beside.is_dir() else None
    return Suite(values.get("suite", path.stem), tasks, folder, values.get("score", ""))


def infer_suite(data_dir: str | Path) -> Suite:
    """Every jsonl below ``data_dir`` as a task: with DCLM's settings where the path is one of DCLM's 53
    tasks', else zero-shot with the kind told from the first record.

    A file of DCLM's with fewer rows than the original makes a task that is marked ``partial``: it is scored,
    but is not DCLM's task.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise TaskError(f"{root}: no such folder of task files")
    known: dict[str, list[Task]] = {}
    for task in load_suite("dclm").tasks:
        known.setdefault(task.file, []).append(task)
    tasks: list[Task] = []
    unusable: list[tuple[str, str]] = []
    for path in sorted(root.rglob("*.jsonl")):
        file = path.relative_to(root).as_posix()
        try:
            tasks += [_as_found(task, path) for task in known.get(file, [])] or [
                Task(path.stem, _kind_of(path), file, title=path.stem)
            ]
        except TaskError as error:
            unusable.append((path.stem, str(error)))
    if not tasks and not unusable:
        raise TaskError(f"{root}: no .jsonl file here")
    return Suite("files", tuple(tasks), root, unusable=tuple(unusable))


def read_items(task: Task, folder: Path) -> list[dict[str, Any]]:
    """The checked records of a task, text fields stripped (DCLM's rule: texts in lists stay as they are).

    Records of a generation task get ``responses``: every accepted answer as it stands in the file, with the
    chain of thought and its delimiter before it. Raises TaskError naming file, line and field of a malformed
    record, or the file that has fewer records than ``task.rows``.
    """
    path = folder / task.file
    items: list[dict[str, Any]] = []
    thoughts: bool | None = None
    for number, record in _records(path):
        where = f"{path}, line {number}"
        _check(task, record, where)
        if task.kind == "generation":
            thoughts = "chain_of_thought" in record if thoughts is None else thoughts
            if thoughts != ("chain_of_thought" in record):
                raise TaskError(f"{where}: some records have a chain_of_thought and some have none")
            start = record["chain_of_thought"] + task.cot_delimiter if thoughts else ""
            accepted = dict.fromkeys([record["answer"], *record.get("aliases", [])])
            items.append({**_stripped(record), "responses": [start + answer for answer in accepted]})
        else:
            items.append(_stripped(record) if task.kind != "text" else record)
    if not items:
        raise TaskError(f"{path}: no records")
    if task.rows and len(items) < task.rows and not (task.blob and blob_id(path) == task.blob):
        raise TaskError(
            f"{path}: {len(items):,} records, but {task.name} has {task.rows:,}: the file was cut short; "
            "fetch it again, or see which rows are missing"
        )
    return items


def _check(task: Task, record: dict[str, Any], where: str) -> None:
    fields = FIELDS[task.kind] | ({"category": str} if task.grouped else {})
    for field, kind in fields.items():
        if not isinstance(record.get(field), kind) or isinstance(record.get(field), bool):
            raise TaskError(
                f"{where}: {task.kind} needs {field} ({kind.__name__}), found {record.get(field)!r}"
            )
    if task.kind in CHOICE_KINDS:
        options = record["choices" if task.kind == "multiple_choice" else "context_options"]
        if len(options) < 2 or not all(isinstance(option, str) for option in options):
            raise TaskError(f"{where}: expected at least two texts to choose from, found {options!r}")
        if not 0 <= record["gold"] < len(options):
            raise TaskError(f"{where}: gold is {record['gold']}, but there are {len(options)} options")
    if task.kind == "generation":
        aliases = record.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise TaskError(f"{where}: aliases is a list of texts, found {aliases!r}")
        if not isinstance(record.get("chain_of_thought", ""), str):
            raise TaskError(f"{where}: chain_of_thought is a text, found {record['chain_of_thought']!r}")


def blob_id(path: Path) -> str:
    """Git's id of a file's bytes: how the originals of DCLM's task files are known."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def task_hash(task: Task, folder: Path) -> str:
    """16 hex digits over everything that decides a task's scores: its settings and its file's bytes."""
    settings = {k: v for k, v in asdict(task).items() if k not in _SHOWN_ONLY}
    text = json.dumps([settings, file_hash(folder / task.file)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_SHOWN_ONLY = ("title", "file", "chance", "in_score", "category", "core", "rows", "blob", "partial")


def file_hash(path: Path) -> str:
    """16 hex digits of the SHA-256 of a task file: stored with each result."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import orjson

    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise TaskError(f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(record, dict):
                raise TaskError(f"{path}, line {number}: expected an object, found {type(record).__name__}")
            yield number, record


def _as_found(task: Task, path: Path) -> Task:
    """A known task on a file that may have fewer rows than the original."""
    if task.rows is None:
        return task
    with open(path, "rb") as lines:
        found = sum(1 for line in lines if line.strip())
    if found >= task.rows or (task.blob and blob_id(path) == task.blob):
        return task
    return replace(
        task, title=f"{task.name}, {found:,} of {task.rows:,} rows", rows=None, core=False, partial=True
    )


def _kind_of(path: Path) -> str:
    number, record = next(_records(path), (0, {}))
    for kind in ("multiple_choice", "schema", "language_modeling", "generation", "text"):
        if all(field in record for field in FIELDS[kind]):
            return kind
    raise TaskError(
        f"{path}, line {number}: fields {sorted(record)} fit none of the kinds {', '.join(KINDS)}"
    )


def _stripped(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.strip() if isinstance(value, str) else value for key, value in record.items()}
