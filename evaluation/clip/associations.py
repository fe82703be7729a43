"""WinoGAViL-like instances from any labelled set: a cue, and pictures some of which belong to it.

WinoGAViL (Bitton et al., 2022) shows 5, 6, 10 or 12 candidate pictures and a cue, and asks for as many as are
associated. Its cues were written by players; here a cue is what several pictures of the set have in common
(the value of a column), and half of the wrong candidates come from the cue's own neighbourhood, so that the
broad kind of a picture is not enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb
from typing import Any

import numpy as np

from evaluation.clip.tasks import WINOGAVIL_METRICS, Task, TaskError

SIZES = (5, 6, 10, 12)
# answers per instance: two or three of few candidates, two to five of many, as in the published set
MOST_ANSWERS = {5: 3, 6: 3, 10: 5, 12: 5}


@dataclass(frozen=True)
class Instance:
    """cue: text; candidates: rows of the set, in the order shown; answers: those among them that belong."""

    cue: str
    candidates: tuple[int, ...]
    answers: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.answers) < len(self.candidates) or not set(self.answers) <= set(self.candidates):
            raise TaskError(f"cue {self.cue!r}: the answers must be some, and not all, of the candidates")


def prompt(cue: str) -> str:
    """What a model reads: "A goat", "An ape" (WinoGAViL's rule: lower case, the vowel decides)."""
    lowered = cue.lower()
    return f"{'An' if lowered[:1] in 'aeiou' else 'A'} {lowered}"


def draw(
    task: Task, ids: Sequence[str], columns: Mapping[str, Sequence[Any]], seed: int = 0
) -> list[Instance]:
    """`task.instances` instances of each size, from the rows that the task uses.

    ids and columns: those rows; one whose cue is null takes no part, neither as an answer nor as a wrong
    candidate. A cue needs two pictures; cues take turns, so that rare ones count as much as frequent ones.
    What is drawn depends on the seed, the cues and the ids alone: not on the order of the rows, and on no
    library's random generator.
    """
    cues = list(columns[task.cue])
    near = columns[task.near] if task.near else [None] * len(ids)
    members: dict[str, list[int]] = {}
    for row, cue in enumerate(cues):
        if cue is not None:
            members.setdefault(cue, []).append(row)
    usable = sorted(cue for cue, rows in members.items() if len(rows) >= 2)
    if len(usable) < 2:
        raise TaskError(
            f"task {task.key}: {len(usable)} values of {task.cue} have two pictures; two are needed"
        )
    others = {cue: [r for r, own in enumerate(cues) if own not in (cue, None)] for cue in usable}
    neighbours = {cue: {near[r] for r in members[cue]} for cue in usable} if task.near else {}
    keys = np.array([_hash(seed, i) for i in ids], np.uint64)

    def shuffled(rows: Sequence[int], *salt: Any) -> list[int]:
        order = np.argsort(_mix(keys[np.array(rows, np.int64)] ^ np.uint64(_hash(*salt))), kind="stable")
        return [rows[i] for i in order.tolist()]

    drawn = []
    waiting: list[str] = []
    for size in SIZES:
        for turn in range(task.instances):
            if not waiting:  # every cue once before any comes again
                waiting = sorted(usable, key=lambda cue: _hash(seed, size, turn, cue))
            cue = waiting.pop()
            own = shuffled(members[cue], size, turn, "answers")
            count = 2 + _hash(seed, size, turn, "count") % (min(MOST_ANSWERS[size], len(own)) - 1)
            hard = [row for row in others[cue] if near[row] in neighbours[cue]] if task.near else []
            wrong = shuffled(hard, size, turn, "hard")[: (size - count) // 2] if hard else []
            taken = set(wrong)
            more = (row for row in shuffled(others[cue], size, turn, "any") if row not in taken)
            wrong += islice(more, size - count - len(wrong))
            if len(wrong) < size - count:
                raise TaskError(f"task {task.key}: {size} candidates are more than the set has for {cue!r}")
            shown = shuffled(own[:count] + wrong, size, turn, "shown")
            drawn.append(Instance(cue, tuple(shown), tuple(sorted(own[:count]))))
    return drawn


def chance(instances: Sequence[Instance]) -> float:
    """Mean Jaccard index of choosing the right number of candidates at random (hypergeometric)."""
    total = 0.0
    for instance in instances:
        size, answers = len(instance.candidates), len(instance.answers)
        ways = comb(size, answers)
        total += sum(
            comb(answers, hits) * comb(size - answers, answers - hits) / ways * hits / (2 * answers - hits)
            for hits in range(answers + 1)
        )
    return total / len(instances)


def chances(instances: Sequence[Instance]) -> dict[str, float]:
    """``chance`` of each metric of ``tasks.WINOGAVIL_METRICS``: instances with more candidates are harder. A
    slice without an instance is not there."""
    found = {}
    for metric in WINOGAVIL_METRICS:
        sizes = [int(size) for size in metric.removeprefix("jaccard_score_").split("-") if size.isdigit()]
        slice_ = [i for i in instances if not sizes or min(sizes) <= len(i.candidates) <= max(sizes)]
        if slice_:
            found[metric] = chance(slice_)
    return found


def _hash(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's last step: neighbouring numbers become unrelated ones. uint64 [n] → uint64 [n]."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
