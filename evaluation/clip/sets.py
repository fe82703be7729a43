"""Evaluation sets: a table in memory, or the published sets of DataComp's tasks on disk, batch by batch.

task = aggregate.task("vtab/pets")
data = open_set(task, "eval_sets")        # after fetch(task, "eval_sets"), or DataComp's own download
for examples in data.batches(512): ...
"""

from __future__ import annotations

from pathlib import Path

from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.examples import EvalSet, Examples, SetError, SetMissing, TableSet
from evaluation.clip.layouts import find
from evaluation.clip.retrieval_set import RetrievalSet
from evaluation.clip.wds_set import FaceSet, WdsSet
from evaluation.clip.winogavil_set import Instance, WinogavilSet

__all__ = ["EvalSet", "Examples", "FaceSet", "Instance", "RetrievalSet", "SetError", "SetMissing", "TableSet",
           "WdsSet", "WinogavilSet", "open_set"]  # fmt: skip


def open_set(task: BenchmarkTask, data_dir: str | Path) -> WdsSet | FaceSet | RetrievalSet | WinogavilSet:
    """The set of a task below ``data_dir``: a WdsSet (classification, WILDS, fairness), a FaceSet (FairFace,
    UTKFace), a RetrievalSet or a WinogavilSet. Nothing but small text files is read yet.

    SetMissing says where it was looked for; SetError names the file that is wrong.
    """
    folder = find(task, data_dir)
    if task.kind == "retrieval":
        return RetrievalSet(task.key, folder, task.size)
    if task.kind == "winogavil":
        return WinogavilSet(task.key, folder, task.size)
    if task.kind == "fairness" and task.metric is None:
        return FaceSet(task.key, folder, task.size, None, task.metadata, task.metadata)
    required = () if task.group_by is None else (task.group_by,)
    return WdsSet(task.key, folder, task.size, task.classes, task.metadata, required)
