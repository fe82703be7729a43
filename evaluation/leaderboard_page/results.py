"""Result files of training runs: read, checked field by field, one value each.

A bad file is an error that names the file and the field; a leaderboard never leaves a run out silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task's result in one run, in the metric's own unit; `chance` is None where there is none."""

    key: str
    title: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    chance: float | None
    higher_is_better: bool
    in_score: bool


@dataclass(frozen=True)
class Result:
    """One training run: one seed of one recipe at one scale."""

    file: Path
    track: str
    scale: str
    scale_hash: str
    recipe: str
    title: str
    seed: int
    control: bool
    plan_hash: str | None
    rows: int
    rows_pool: int | None
    kept_fraction: float | None  # None: what it was cut from is not known
    fraction_of: str
    epochs: float | None
    funnel: str | None
    recipe_file: str | None
    tasks: Mapping[str, Task]
    score_name: str
    score: float
    score_stderr: float | None
    higher_is_better: bool
    train_seconds: float | None
    eval_seconds: float | None
    versions: Mapping[str, str]
    official: bool = True  # the scale is one that comes with Winnow, unchanged


UNTRAINED = "none"  # the scale of a result whose model is from elsewhere


@dataclass(frozen=True)
class Unranked:
    """A run that has no place: its score has no value, because tasks that belong to it are missing, or the
    model was not trained at one of the scales (then `missing` is empty)."""

    file: Path
    track: str
    scale: str
    title: str
    seed: int
    score_name: str
    missing: tuple[str, ...]


def read_results(results_dir: str | Path) -> list[Result]:
    """Every results_dir/**/seed-*.json, in order of path. ValueError for a malformed or doubled one,
    FileNotFoundError if there is none."""
    return read_all(results_dir)[0]


def read_all(results_dir: str | Path) -> tuple[list[Result], list[Unranked]]:
    """`read_results`, and the runs that cannot be ranked."""
    root = Path(results_dir)
    files = sorted(root.rglob("seed-*.json"))
    if not files:
        raise FileNotFoundError(f"{root} holds no result file (<track>/<recipe>/seed-<n>.json): train first")
    found = [read_result(file) for file in files]
    results = [r for r in found if isinstance(r, Result)]
    unranked = [r for r in found if isinstance(r, Unranked)]
    seen: dict[tuple[Any, ...], Path] = {}
    for r in results:
        key = (r.track, r.scale, r.scale_hash, r.recipe, r.seed)
        if key in seen:
            raise ValueError(
                f"{r.file} and {seen[key]} are both seed {r.seed} of recipe {r.recipe!r} at scale {r.scale}: "
                "a run counts once; remove one of them"
            )
        seen[key] = r.file
    _same_score(results)
    return results, unranked


def _same_score(results: list[Result]) -> None:
    """Runs that share a table must mean the same by their score."""
    first: dict[tuple[str, str, str], Result] = {}
    for r in results:
        head = first.setdefault((r.track, r.scale, r.scale_hash), r)
        for name in ("score_name", "higher_is_better"):
            if getattr(r, name) != getattr(head, name):
                field = {"score_name": "score.name"}.get(name, f"score.{name}")
                raise ValueError(
                    f"{r.file}: {field} is {getattr(r, name)!r}, but {head.file} of the same scale says "
                    f"{getattr(head, name)!r}: evaluate both with the same task list"
                )


def read_result(file: str | Path) -> Result | Unranked:
    """One result file. ValueError naming file and field if it does not hold what a result must."""
    file = Path(file)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({error}): evaluate the run again") from error
    top = _Fields(file, "", raw)
    data, score, train = top.group("dataset"), top.group("score"), top.group("train", {})
    tasks = top.group("tasks")
    missing = score.values.get("missing")
    untrained = top.values.get("scale") == UNTRAINED
    if untrained or (score.values.get("value") is None and isinstance(missing, list) and missing):
        return Unranked(
            file,
            top.text("track"),
            top.text("scale"),
            top.text("title", top.text("recipe")),
            top.whole("seed"),
            score.text("name"),
            tuple(map(str, missing or ())),
        )
    return Result(
        file=file,
        track=top.text("track"),
        scale=top.text("scale"),
        scale_hash=top.text("scale_hash"),
        recipe=top.text("recipe"),
        title=top.text("title", top.text("recipe")),
        seed=top.whole("seed"),
        control=top.flag("control", False),
        plan_hash=data.text("plan_hash", None),
        rows=data.whole("rows"),
        rows_pool=data.whole("rows_pool", None),
        kept_fraction=data.number("kept_fraction", None, at_least=0, at_most=1),
        fraction_of=data.text("fraction_of", "rows"),
        epochs=data.number("epochs", None, at_least=0),
        funnel=data.text("funnel", None),
        recipe_file=data.text("recipe_file", None),
        tasks={key: _task(key, tasks.group(key)) for key in tasks.values},
        score_name=score.text("name"),
        score=score.number("value"),
        score_stderr=score.number("stderr", None, at_least=0),
        higher_is_better=score.flag("higher_is_better", True),
        train_seconds=train.number("seconds", None, at_least=0),
        eval_seconds=top.number("eval_seconds", None, at_least=0),
        versions={k: str(v) for k, v in top.group("versions", {}).values.items()},
        official=top.flag("official", True),
    )


def _task(key: str, fields: _Fields) -> Task:
    return Task(
        key=key,
        title=fields.text("title", key),
        metric=fields.text("metric"),
        value=fields.number("value"),
        stderr=fields.number("stderr", None, at_least=0),
        n=fields.whole("n", None),
        chance=fields.number("chance", None),
        higher_is_better=fields.flag("higher_is_better", True),
        in_score=fields.flag("in_score", False),
    )


_REQUIRED: Any = object()


class _Fields:
    """Typed access to a JSON object that knows where it is in which file."""

    def __init__(self, file: Path, path: str, values: Any):
        if not isinstance(values, dict):
            raise ValueError(
                f"{file}: {path.rstrip('.') or 'the file'} should be an object, found {_said(values)}"
            )
        self.file, self.path, self.values = file, path, values

    def _get(self, name: str, default: Any, wanted: str, fits: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            if default is _REQUIRED:
                found = "null" if name in self.values else "nothing"
                raise ValueError(f"{self.file}: {self.path}{name} should be {wanted}, found {found}")
            return default
        if not fits(value):
            raise ValueError(f"{self.file}: {self.path}{name} should be {wanted}, found {_said(value)}")
        return value

    def group(self, name: str, default: Any = _REQUIRED) -> _Fields:
        value = self.values.get(name)
        if value is None and default is not _REQUIRED:
            value = default
        return _Fields(self.file, f"{self.path}{name}.", value)

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._get(name, default, "a text", lambda v: isinstance(v, str) and bool(v))

    def flag(self, name: str, default: Any = _REQUIRED) -> Any:
        return self._get(name, default, "true or false", lambda v: isinstance(v, bool))

    def whole(self, name: str, default: Any = _REQUIRED) -> Any:
        def fits(v: Any) -> bool:
            return isinstance(v, int) and not isinstance(v, bool) and v >= 0

        return self._get(name, default, "a whole number >= 0", fits)

    def number(
        self, name: str, default: Any = _REQUIRED, *, at_least: float = -math.inf, at_most: float = math.inf
    ) -> Any:
        wanted = "a finite number"
        if at_least > -math.inf:
            wanted += f" >= {at_least}"
        if at_most < math.inf:
            wanted += f" and <= {at_most}"

        def fits(v: Any) -> bool:
            real = isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
            return real and at_least <= v <= at_most

        value = self._get(name, default, wanted, fits)
        return value if value is None else float(value)


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
