"""The evaluation sets by URL at run time: whole, checked, resumed, of one recorded version of the hub.

    folder = fetch(aggregate.task("vtab/pets"), "eval_sets")

Beside the files lies ``_hub.json``: the data set, its commit, and every file with size and checksum. A set
that has one is asked for at that commit again, whatever the hub's newest is; give ``revision`` for another.

    python -m evaluation.clip.fetch eval_sets vtab/pets wilds/fmow        # or all of them: --all
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from evaluation.clip import aggregate, hub
from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.examples import SetError, SetMissing
from evaluation.clip.hub_table import SUFFIXES
from evaluation.clip.layouts import home
from evaluation.clip.set_files import MANIFEST, HubFile, HubManifest
from evaluation.clip.sets import open_set
from evaluation.clip.wds_set import CLASSES, TEMPLATES, WdsSet
from pools.fetch import FetchFailed, Item, Policy, Progress, fetch_all
from pools.fetch_manifest import Fetched, Manifest, sha256_of
from pools.public_http import FetchError

CONVERTED = "refs/convert/parquet"
"""The branch where the hub itself writes a data set as Parquet, when it has been able to read it."""


class NotFetched(SetMissing):
    """A set did not arrive; ``kind`` is one of ``pools.fetch.KINDS``. What arrived stays, to go on from."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def fetch(
    task: BenchmarkTask,
    data_dir: str | Path,
    *,
    revision: str | None = None,
    policy: Policy | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """The folder of a task's set below ``data_dir``, every file of it fetched and checked.

    revision: branch, tag or commit; default: the commit that the folder's manifest names, else ``main``.
    Nothing is asked of the network when the manifest's files are all there, nor when the set lies below
    ``data_dir`` in a folder of another custom, which is left as it is. One that was put there by hand is
    checked against the hub, if that answers. NotFetched says why and what to do; OSError when it cannot be
    written.
    """
    policy = policy or Policy()
    folder = home(task, data_dir)
    there = _there(task, data_dir) if revision is None else None
    if there not in (None, folder):
        return there
    try:
        manifest = HubManifest.read(folder)
        if manifest is None or revision not in (None, manifest.revision):
            # what opens already is worth one more question, not a long wait
            asking = policy if there is None else replace(policy, tries=min(1, policy.tries))
            try:
                manifest = _listed(task, revision or "main", asking)
            except FetchError:
                if there is None:
                    raise
                return there
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / MANIFEST, manifest.to_json())
        missing = _missing(manifest, folder)
        _room_for(missing, task, folder)
        sent = hub.headers(policy)
        items = [Item(_url(manifest, f), f.path, f.size, f.sha256, headers=sent) for f in missing]
        fetch_all(items, folder, policy=policy, on_progress=on_progress)
        for file in missing:
            _check_blob(file, folder, manifest)
    except FetchFailed as error:
        first = error.report.failed[0]
        raise NotFetched(first.kind, _explained(task, first, str(error))) from error
    except FetchError as error:
        raise NotFetched(error.kind, _explained(task, error, str(error))) from error
    except ValueError as error:
        raise NotFetched("refused", f"{task.key}: {error}") from error
    return folder


def _there(task: BenchmarkTask, data_dir: str | Path) -> Path | None:
    """The folder of a set that opens, whoever put it there."""
    try:
        data = open_set(task, data_dir)
        if isinstance(data, WdsSet):
            _ = data.shards
        return data.directory
    except SetError:
        return None


def needed(task: BenchmarkTask, files: Sequence[HubFile]) -> list[HubFile]:
    """Those of a data set's files that its task reads: class names, templates and the test tars; or tables
    and pictures."""
    if task.kind not in ("retrieval", "winogavil"):
        texts = (CLASSES, TEMPLATES, "dataset_type.txt", "test/nshards.txt")
        return [f for f in files if f.path in texts or re.fullmatch(r"test/\d+\.tar", f.path)]
    if any(f.path == "test/nshards.txt" for f in files):
        return [f for f in files if f.path.startswith("test/") or f.path == "dataset_type.txt"]
    wanted = [f for f in files if f.path.endswith((*SUFFIXES, ".zip")) and not f.path.startswith(".")]
    # what the hub converted in part it names so
    tables = [f for f in wanted if f.path.endswith(".parquet") and "partial" not in f.path]
    if any(f.path.endswith(".zip") for f in wanted):
        return [f for f in wanted if not f.path.endswith(".parquet")]  # pictures as they were published
    lists = [f for f in wanted if not f.path.endswith(".parquet")]
    return [f for f in tables if "test" in f.path.lower()] or tables or lists


def _listed(task: BenchmarkTask, revision: str, policy: Policy) -> HubManifest:
    """What the hub has of a task's set at a revision, or in its own conversion to Parquet."""
    found: list[HubFile] = []
    for name in (revision, CONVERTED) if task.kind in ("retrieval", "winogavil") else (revision,):
        commit = hub.commit(task.source, name, policy)
        found = needed(task, hub.files(task.source, commit, policy))
        if any(f.path.endswith((".tar", *SUFFIXES)) for f in found):
            return HubManifest(task.source, commit, hub.endpoint(), tuple(found))
    raise FetchError("gone", f"{hub.endpoint()}/datasets/{task.source}", "has no file of an evaluation set")


def _url(manifest: HubManifest, file: HubFile) -> str:
    return hub.file_url(manifest.source, manifest.revision, file.path)


def _missing(manifest: HubManifest, folder: Path) -> list[HubFile]:
    """The files that are not there as the manifest has them; one put there by hand is taken if its checksum
    holds, and is then known."""
    records = Manifest(folder)
    missing = []
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            missing.append(file)
            continue
        known = records.records.get(file.path)
        unchanged = known is not None and known.mtime_ns == path.stat().st_mtime_ns
        sha256 = known.sha256 if known is not None and unchanged else sha256_of(path)
        if (file.sha256 or sha256) != sha256 or not _is_blob(file, path):
            missing.append(file)
        elif not unchanged:
            when = datetime.now(timezone.utc).isoformat(timespec="seconds")
            url = _url(manifest, file)
            records.add(Fetched(file.path, url, file.size, sha256, None, path.stat().st_mtime_ns, when))
    return missing


def _is_blob(file: HubFile, path: Path) -> bool:
    """Whether a small file is the one that git knows by this id; True of a large one, which has a sha256."""
    if file.blob is None:
        return True
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == file.blob


def _check_blob(file: HubFile, folder: Path, manifest: HubManifest) -> None:
    if not _is_blob(file, folder / file.path):
        (folder / file.path).unlink()
        raise FetchError(
            "checksum", _url(manifest, file), f"its bytes are not those of git's blob {file.blob}"
        )


def _room_for(files: Sequence[HubFile], task: BenchmarkTask, folder: Path) -> None:
    size, free = sum(f.size for f in files), shutil.disk_usage(folder).free
    if size > free:
        raise FetchError(
            "limit",
            task.source,
            f"{size / 1e9:,.1f} GB are to come and {free / 1e9:,.1f} GB are free at {folder}",
        )


def _explained(task: BenchmarkTask, error: FetchError, message: str) -> str:
    """The failure with what mends it."""
    page = f"{hub.endpoint()}/datasets/{task.source}"
    if error.kind == "refused" and ("HTTP 401" in error.message or "HTTP 403" in error.message):
        has = "HF_TOKEN is set, but may not read it" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
        mend = f"{page} is gated or private: accept its terms there, and set HF_TOKEN ({has})"
    elif error.kind == "gone":
        mend = f"{page} was moved, or has no such revision: HF_ENDPOINT may name a mirror"
    elif error.kind == "limit":
        mend = "make room, or give another folder"
    else:
        mend = "run it again to go on from here; HF_ENDPOINT may name a mirror"
    return f"{task.key} ({task.name}) could not be fetched: {message}; {mend}"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.clip.fetch", description="Fetch evaluation sets of DataComp's tasks."
    )
    parser.add_argument("data_dir", help="folder of evaluation sets")
    parser.add_argument("tasks", nargs="*", help='tasks by key or name, as vtab/pets or "Oxford-IIIT Pet"')
    parser.add_argument("--all", action="store_true", help="all 40 tasks")
    parser.add_argument("--revision", help="branch, tag or commit (default: the manifest's, else main)")
    a = parser.parse_args(argv)
    try:
        tasks = list(aggregate.tasks()) if a.all else [aggregate.task(name) for name in a.tasks]
    except aggregate.AggregateError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 2
    if not tasks:
        parser.error("name tasks, or --all")
    failed = 0
    for task in tasks:
        try:
            folder = fetch(task, a.data_dir, revision=a.revision)
            print(f"{task.key}: {folder}")
        except (NotFetched, OSError) as error:
            failed += 1
            print(f"{task.key}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
