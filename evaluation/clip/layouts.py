"""Where the set of a task may lie below a folder of evaluation sets."""

from __future__ import annotations

from pathlib import Path

from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.examples import SetMissing
from evaluation.clip.hub_table import HF_CACHE, SUFFIXES
from evaluation.clip.set_files import MANIFEST

OTHER_NAMES = {
    "retrieval/flickr_1k_test_image_text_retrieval": ("wds_flickr30k", "wds_flickr30k_test", "flickr30k"),
    "retrieval/mscoco_2014_5k_test_image_text_retrieval": (
        "wds_mscoco_captions", "wds_mscoco_captions_test", "mscoco_captions",
    ),
}  # fmt: skip


def home(task: BenchmarkTask, data_dir: str | Path) -> Path:
    """Where a set that is fetched goes: the name of its data set on the hub, as DataComp has it."""
    return Path(data_dir) / task.source.partition("/")[2]


def candidates(task: BenchmarkTask, data_dir: str | Path) -> list[Path]:
    """Folders to look in, in order: DataComp's names, the key with "-" for "/" or as a path, CLIP_benchmark's
    names, the cache of the ``datasets`` library, and ``data_dir`` itself when it has one of these names."""
    root, bare = Path(data_dir), task.key.partition("/")[2] or task.key
    dashed = task.key.replace("/", "-")
    names = [task.source.partition("/")[2], f"wds_{dashed}_test", f"wds_{dashed}", dashed, task.key]
    names += [f"wds_{bare}_test", f"wds_{bare}", bare, *OTHER_NAMES.get(task.key, ())]
    found = [root / name for name in dict.fromkeys(names)]
    found.append(root / HF_CACHE / task.source.replace("/", "___"))
    return [root, *found] if root.name in names else found


def find(task: BenchmarkTask, data_dir: str | Path) -> Path:
    """The folder of a task's set: the first of ``candidates`` that looks like one, else the first that is not
    empty. SetMissing says what was tried."""
    root, tried = Path(data_dir), candidates(task, data_dir)
    full = [p for p in tried if p.is_dir() and any(not q.name.startswith(".") for q in p.iterdir())]
    if full:
        return next((p for p in full if _looks_right(task, p)), full[0])
    shown = ", ".join(str(p.relative_to(root)) for p in tried if p != root)
    absent = "" if root.is_dir() else ", which is no folder"
    raise SetMissing(
        f"{task.key} ({task.name}): no set in {root}{absent}; looked for {shown}. "
        f"Fetch it ({task.source} on the hub), or give the folder that has it"
    )


def _looks_right(task: BenchmarkTask, folder: Path) -> bool:
    if (folder / MANIFEST).is_file() or (folder / "test" / "nshards.txt").is_file():
        return True
    if task.kind not in ("retrieval", "winogavil"):
        return False
    return any(p.suffix in SUFFIXES for p in folder.rglob("*"))
