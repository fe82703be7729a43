"""The manifest: files are the only truth about what a run has done.

    out/data/…                                 kept rows
    out/scores/<stage>/…                       side-car scores
    out/_winnow/done/<stage>-<hash>/<key>.json one record a finished task, written last
    out/_winnow/bad/<stage>/<key>.jsonl        quarantined records
    out/_winnow/work/<stage>/…                 rows and summaries between stages
    out/_winnow/stages/<stage>.json            which hash that stage's files belong to

A task's record is written after its outputs are in place, so a record that exists is a task that is done.
Any attempt may run twice: the same bytes go to the same names.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from curation import storage

Record = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Paths and records of one run directory (local or any fsspec URL)."""

    root: str

    def path(self, *parts: str) -> str:
        return storage.join(self.root, *parts)

    @property
    def tmp(self) -> str | None:
        """Where unfinished local files live: on the same file system, removed at the next start."""
        return self.path("_winnow", "tmp") if storage.is_local(self.root) else None

    def done_dir(self, stage: str, stage_hash: str) -> str:
        return self.path("_winnow", "done", f"{stage}-{stage_hash[:16]}")

    def write_json(self, value: Any, *parts: str, indent: bool = False) -> None:
        options = orjson.OPT_SORT_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
        data = orjson.dumps(value, option=options) + b"\n"
        # Not synced: a record that a power cut left empty or cut is not JSON, and its task runs again.
        storage.write_bytes(self.path(*parts), data, self.tmp, sync=False)

    def read_json(self, *parts: str) -> Any:
        """The value, or None where there is no such file or it is not JSON (an interrupted copy)."""
        url = self.path(*parts)
        try:
            return orjson.loads(storage.read_bytes(url))
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None

    def record_done(self, record: Record) -> None:
        self.write_json(record, "_winnow", "done", f"{record['stage']}-{record['stage_hash'][:16]}",
                        f"{record['key']}.json")  # fmt: skip

    def done(self, stage: str, stage_hash: str) -> dict[str, Record]:
        """Key → record of the finished tasks of a stage whose outputs are all still there, whole."""
        names = _files(self.done_dir(stage, stage_hash))

        def load(info: storage.FileInfo) -> Record | None:
            try:
                return orjson.loads(storage.read_bytes(info.url))
            except (orjson.JSONDecodeError, FileNotFoundError):
                return None

        if not names:
            return {}
        with ThreadPoolExecutor(8) as pool:
            records = [r for r in pool.map(load, names) if r is not None]
        sizes = self._sizes({o["url"].rsplit("/", 1)[0] for r in records for o in r["outputs"]})
        return {r["key"]: r for r in records if all(sizes.get(o["url"]) == o["bytes"] for o in r["outputs"])}

    def _sizes(self, folders: set[str]) -> dict[str, int]:
        """Relative path → size of every file in some folders of the run."""
        found: dict[str, int] = {}
        for folder in sorted(folders):
            for info in _files(self.path(*folder.split("/"))):
                found[f"{folder}/{info.name}"] = info.size
        return found

    def begin_stage(self, stage: str, stage_hash: str) -> None:
        """Retire what another plan left for this stage, so that no old record can vouch for a new file."""
        before = self.read_json("_winnow", "stages", f"{stage}.json")
        if before is not None and before["hash"] != stage_hash:
            self.forget(stage, before["hash"])
        if before is None or before["hash"] != stage_hash:
            self.write_json({"hash": stage_hash}, "_winnow", "stages", f"{stage}.json")

    def forget(self, stage: str, stage_hash: str) -> None:
        """Remove a stage's records first, then the outputs they name."""
        folder = self.done_dir(stage, stage_hash)
        outputs = []
        for info in _files(folder):
            try:
                outputs += [o["url"] for o in orjson.loads(storage.read_bytes(info.url))["outputs"]]
            except (orjson.JSONDecodeError, FileNotFoundError):
                pass
            storage.remove(info.url)
        for url in outputs:
            storage.remove(self.path(*url.split("/")))

    def forget_task(self, record: Record) -> None:
        """Remove one task's record, then its outputs."""
        folder = self.done_dir(record["stage"], record["stage_hash"])
        storage.remove(storage.join(folder, f"{record['key']}.json"))
        for output in record["outputs"]:
            storage.remove(self.path(*output["url"].split("/")))

    def stages(self) -> dict[str, str]:
        """Stage → hash, as the run directory has them now."""
        found = {}
        for info in _files(self.path("_winnow", "stages")):
            value = self.read_json("_winnow", "stages", info.name)
            if value:
                found[info.name.removesuffix(".json")] = value["hash"]
        return found

    def remove_work(self) -> None:
        """Remove the rows and summaries between stages; a later run starts over."""
        for info in _files(self.path("_winnow", "work")):
            storage.remove(info.url)

    def clear_tmp(self) -> None:
        """Remove what killed attempts left behind."""
        if self.tmp is not None:
            shutil.rmtree(storage.local_path(self.tmp), ignore_errors=True)


def _files(folder: str) -> list[storage.FileInfo]:
    """Files of a folder; none where it does not exist yet."""
    try:
        return storage.list_files(folder)
    except FileNotFoundError:
        return []
