"""Where the set of a task may lie below a folder of evaluation sets."""

from __future__ import annotations

from pathlib import Path

from evaluation.clip.aggregate import BenchmarkTask
from evaluation.clip.examples import SetMissing

HF_CACHE = "hf_cache"
"""Where DataComp's download_evalsets.py lets the ``datasets`` library put the sets that are no tars."""
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
    hub = task.source.partition("/")[2]
    dashed = task.key.replace("/", "-")
    names = [
        hub,
        f"wds_{dashed}_test",
        f"wds_{dashed}",
        dashed,
        task.key,
        f"wds_{bare}_test",
        f"wds_{bare}",
        bare,
    ]
    names += OTHER_NAMES.get(task.key, ())
    found = [root / name for name in dict.fromkeys(names)]
    found.append(root / HF_CACHE / task.source.replace("/", "___"))
    if root.name in names:
        found.insert(0, root)
    return found


def find(task: BenchmarkTask, data_dir: str | Path) -> Path:
    """The first of ``candidates`` that is a folder with something in it. SetMissing says what was tried."""
    tried = candidates(task, data_dir)
    for folder in tried:
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            return folder
    root = Path(data_dir)
    shown = ", ".join(str(p.relative_to(root)) for p in tried if p != root)
    raise SetMissing(
        f"{task.key} ({task.name}): no set in {root}{'' if root.is_dir() else ', which is no folder'}; looked "
        f"for {shown}. Fetch it ({task.source} on the hub), or give the folder that has it"
    )
