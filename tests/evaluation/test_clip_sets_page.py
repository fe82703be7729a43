"""The table of docs/clip-tasks.md is the data file's: ``python tests/evaluation/test_clip_sets_page.py``."""

from __future__ import annotations

from pathlib import Path

from evaluation.clip.aggregate import BenchmarkTask, sets, tasks

PAGE = Path(__file__).parents[2] / "docs" / "clip-tasks.md"
HEAD = """| # | task | name | kind | main metric | group | images | classes | chance | data set on the hub |
|--|--|--|--|--|--|--|--|--|--|"""


def row(number: int, task: BenchmarkTask) -> str:
    metric = task.metric or "none: reported only"
    if task.corrected is not None:
        metric += " ‡"
    kind = "faces" if task.kind == "fairness" and task.metric is None else task.kind
    size = f"{task.size:,}" + (" instances" if kind == "winogavil" else "")
    name = task.name + (" †" if task.in_average and not task.clean else "")
    group = task.group if task.in_average else "–"
    chance = "–" if task.chance is None else f"{task.chance:.4f}"
    cells = [number, task.key, name, kind, metric, group, size, task.classes or "–", chance, task.source]
    return "| " + " | ".join(str(c) for c in cells) + " |"


def table() -> str:
    return "\n".join([HEAD, *(row(number, task) for number, task in enumerate(tasks(), 1))])


def test_the_page_has_the_table_of_the_data_file():
    assert table() in PAGE.read_text(encoding="utf-8")


def test_the_numbers_that_the_page_says():
    members = sets()
    assert {name: len(keys) for name, keys in members.items()} == {
        "imagenet": 1, "shifts": 6, "vtab": 13, "retrieval": 3, "average": 38, "clean": 33,
    }  # fmt: skip
    assert (
        len({t.source for t in tasks()}) == 40
        and sum(t.group == "other" and t.in_average for t in tasks()) == 15
    )


if __name__ == "__main__":
    print(table())
