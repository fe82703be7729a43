"""The data of DCLM's tasks by URL at run time: the files of llm-foundry's ``scripts/eval/local_data``.

They come from one pinned commit, are checked byte for byte (git's blob ids in ``dclm.yaml``), and are kept
below ``WINNOW_CACHE``. A file that cannot be had is a reason in ``Suite.unusable``, never a task that is
averaged over.
GPQA is not fetched: docs/language-tasks.md says how to make its files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from evaluation.lm.tasks import Suite, TaskError, blob_id
from pools.fetch import Policy, cached
from pools.public_http import FetchError

COMMIT = "e2d68f62e4b00bd4e25358e9829b27045e9b77e3"
BASE = f"https://raw.githubusercontent.com/mosaicml/llm-foundry/{COMMIT}/scripts/eval/local_data"
LARGEST = 256 << 20
"""Bytes of one file, at most; the largest of them (bbq) is a few tens of megabytes."""
NOT_FETCHED = (
    "not fetched: its authors ask that the questions are not put on the open web; "
    "docs/language-tasks.md says how to make {file} from their archive, then give its folder as data_dir"
)
GIVE_UP = ("unreachable", "timeout", "skipped")


def folder() -> Path:
    """Where fetched task files lie; files put here by hand are used if their bytes are the originals'."""
    root = os.environ.get("WINNOW_CACHE") or str(Path.home() / ".cache" / "winnow")
    return Path(root).expanduser() / "lm-tasks" / COMMIT[:12]


def with_data(
    suite: Suite,
    data_dir: str | Path | None = None,
    only: Collection[str] = (),
    *,
    base: str = BASE,
    policy: Policy | None = None,
    on_file: Callable[[str], None] | None = None,
) -> Suite:
    """The suite with a folder of its files: ``data_dir`` where given, nothing is fetched then; its own folder
    where it has one; else the files of its tasks (of those named in ``only``), fetched from ``base``.

    A task whose file could not be had, or whose bytes are not the original's, is in ``unusable`` with the
    reason. After a first file that nobody answers for, the others are not tried.
    """
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise TaskError(f"{data_dir}: no such folder of task files")
        return replace(suite, folder=Path(data_dir))
    if suite.folder is not None:
        return suite
    reasons: dict[str, str] = {}
    away = ""
    for task in suite.tasks:
        if (only and task.name not in only) or task.file in reasons:
            continue
        target = folder() / task.file
        if not task.blob:
            if not target.is_file():
                reasons[task.file] = NOT_FETCHED.format(file=task.file)
            continue
        if target.is_file() and blob_id(target) == task.blob:
            continue
        if away:
            reasons[task.file] = f"not tried, after {away}; it may be put at {target}"
            continue
        try:
            _fetch(f"{base}/{task.file}", target, task.blob, policy)
            if on_file:
                on_file(task.file)
        except FetchError as error:
            reasons[task.file] = f"could not be fetched: {error} (it may be put at {target})"
            away = str(error) if error.kind in GIVE_UP else ""
        except TaskError as error:
            reasons[task.file] = str(error)
    unusable = [(t.name, reasons[t.file]) for t in suite.tasks if t.file in reasons]
    wanted = [(name, reason) for name, reason in unusable if not only or name in only]
    return replace(suite, folder=folder(), unusable=(*suite.unusable, *wanted))


def _fetch(url: str, target: Path, blob: str, policy: Policy | None) -> None:
    """One file to ``target``, whole and right or not at all."""
    try:
        found = cached(url, policy=policy or Policy(file_bytes=LARGEST, tries=3))
    except FetchError as error:
        raise FetchError(error.kind, url, error.message.split(" (or put it at")[0]) from error
    if (have := blob_id(found)) != blob:
        found.unlink()
        raise TaskError(
            f"{url}: its bytes are not those of the pinned version (blob {have[:12]}, not {blob[:12]})"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.copyfile(found, partial)
    os.replace(partial, target)
