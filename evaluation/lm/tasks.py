"""Tasks are data: a suite is a YAML list of tasks, a task's items are a jsonl file in DCLM's record formats.

| kind | record |
|--|--|
| ``multiple_choice`` | ``{query, choices: [..], gold}`` |
| ``schema`` | ``{context_options: [..], continuation, gold}`` |
| ``language_modeling`` | ``{context, continuation}`` |
| ``text`` | ``{id, text}``: bits per byte of whole documents (ours, not one of DCLM's) |
| ``generation`` | ``{context, answer, ...}``: known, not scored yet |
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "lm"
KINDS = ("multiple_choice", "schema", "language_modeling", "text", "generation")
CHOICE_KINDS = ("multiple_choice", "schema")
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"task {self.name!r}: kind is {self.kind!r}; use one of {', '.join(KINDS)}")

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
        tasks = tuple(Task(**{**values.get("defaults", {}), **task}) for task in values["tasks"])
    except (TypeError, KeyError) as error:
        raise TaskError(f"{path}: {error}") from error
    beside = path.with_suffix("")
    folder = Path(data_dir) if data_dir else beside if beside.is_dir() else None
    return Suite(values.get("suite", path.stem), tasks, folder, values.get("score", ""))


def infer_suite(data_dir: str | Path) -> Suite:
    """Every jsonl below ``data_dir`` as a task: with DCLM's settings where the path is one of DCLM's 53
    tasks', else zero-shot with the kind told from the first record."""
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
            tasks += known.get(file) or [Task(path.stem, _kind_of(path), file, title=path.stem)]
        except TaskError as error:
            unusable.append((path.stem, str(error)))
    if not tasks and not unusable:
        raise TaskError(f"{root}: no .jsonl file here")
    return Suite("files", tuple(tasks), root, unusable=tuple(unusable))


def read_items(task: Task, folder: Path) -> list[dict[str, Any]]:
    """The checked records of a task, with text fields stripped (DCLM's rule)."""
    path = folder / task.file
    items = []
    for number, record in _records(path):
        where = f"{path}, line {number}"
        for field, kind in FIELDS[task.kind].items():
            if not isinstance(record.get(field), kind) or isinstance(record.get(field), bool):
                raise TaskError(
                    f"{where}: {task.kind} needs {field} ({kind.__name__}), found {record.get(field)!r}"
                )
        options = record.get("choices" if task.kind == "multiple_choice" else "context_options")
        if task.kind in CHOICE_KINDS:
            if len(options) < 2 or not all(isinstance(option, str) for option in options):
                raise TaskError(f"{where}: expected at least two texts to choose from, found {options!r}")
            if not 0 <= record["gold"] < len(options):
                raise TaskError(f"{where}: gold is {record['gold']}, but there are {len(options)} options")
        items.append(_stripped(record) if task.kind != "text" else record)
    if not items:
        raise TaskError(f"{path}: no records")
    return items


def file_hash(path: Path) -> str:
    """16 hex digits of the SHA-256 of a task file: stored with each result."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _records(path: Path):
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


def _kind_of(path: Path) -> str:
    number, record = next(_records(path), (0, {}))
    for kind in ("multiple_choice", "schema", "language_modeling", "generation", "text"):
        if all(field in record for field in FIELDS[kind]):
            return kind
    raise TaskError(
        f"{path}, line {number}: fields {sorted(record)} fit none of the kinds {', '.join(KINDS)}"
    )


def _stripped(record: Mapping[str, Any]) -> dict[str, Any]:
    def strip(value: Any) -> Any:
        if isinstance(value, str):
            return value.strip()
        return [strip(v) for v in value] if isinstance(value, list) else value

    return {key: strip(value) for key, value in record.items()}
