"""Tiny evaluation sets in the layouts of DataComp's 40 tasks, pictures of a few pixels, for tests.

``write_suite(folder)`` writes one set of every kind and returns the benchmark tasks that fit them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.clip.aggregate import BenchmarkTask, task

SUITE = ("cifar10", "vtab/pets", "wilds/iwildcam", "wilds/camelyon17", "wilds/fmow", "fairness/dollar_street",
         "fairness/geode", "fairness/fairface", "fairness/utkface",
         "retrieval/flickr_1k_test_image_text_retrieval", "misc/winogavil")  # fmt: skip
FACES = {
    "race": ("Black", "White", "Indian", "Asian"),
    "gender": ("male", "female"),
    "age": ("child", "adult", "old"),
    "toxic": tuple(f"word {i}" for i in range(20)),
}
FACE_TEMPLATES = ("a photo of a {c} person", "a face of a {c} person")


def picture(number: int, size: int = 8, format: str = "png") -> bytes:
    """An encoded picture that depends on its number alone."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, {"jpg": "jpeg"}.get(format, format), **_lossless(format))
    return out.getvalue()


def _lossless(format: str) -> dict[str, Any]:
    return {"lossless": True} if format == "webp" else {}


def npy(values: Sequence[float] | np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(values))
    return out.getvalue()


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of these members, in order, as the published ones are: fixed dates, no folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write_wds(
    folder: Path,
    examples: Sequence[Mapping[str, Any]],
    classes: Sequence[str] = (),
    templates: Sequence[str] = ("a photo of a {c}",),
    shards: int = 2,
    format: str = "png",
) -> Path:
    """A WebDataset evaluation set. An example: label (int), and where wanted image (bytes), metadata
    (numbers), captions (texts), key; they are dealt to the shards in order. Without classes the text files
    are left out (retrieval)."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    if classes:
        (folder / "classnames.txt").write_text("".join(f"{c}\n" for c in classes), encoding="utf-8")
        text = "".join(f"{t}\n" for t in templates)
        (folder / "zeroshot_classification_templates.txt").write_text(text, encoding="utf-8")
    (folder / "test" / "nshards.txt").write_text(str(shards))
    for shard, numbers in enumerate(np.array_split(np.arange(len(examples)), shards)):
        members = []
        for i in numbers.tolist():
            example, key = examples[i], examples[i].get("key", f"s{i:07d}")
            image = example.get("image")
            members.append((f"{key}.{format}", picture(i, format=format) if image is None else image))
            if "label" in example:
                members.append((f"{key}.cls", str(example["label"]).encode()))
            if "captions" in example:
                members.append((f"{key}.txt", "\n".join(example["captions"]).encode()))
            if "metadata" in example:
                members.append((f"{key}.npy", npy(example["metadata"])))
        (folder / "test" / f"{shard}.tar").write_bytes(tar_bytes(members))
    return folder


def write_retrieval(folder: Path, images: int = 6, captions: int = 5, archive: str = "images_test") -> Path:
    """The layout of the hub's retrieval sets: a CSV with file names and captions, and a zip of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "test.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "raw", "split"])
        for i in range(images):
            rows.writerow(
                [f"{i}.jpg", json.dumps([f"picture {i}, told {k}" for k in range(captions)]), "test"]
            )
    with zipfile.ZipFile(folder / f"{archive}.zip", "w") as pack:
        for i in range(images):
            pack.writestr(f"{archive}/{i}.jpg", picture(i, format="jpg"))
    return folder


def write_winogavil(folder: Path, instances: Sequence[tuple[str, int, int]] = ()) -> Path:
    """WinoGAViL as a CSV of associations and a zip of pictures. An instance: cue, candidates, associations.

    Instance i has the pictures i, i+1, … of 14; its first candidates are the associated ones."""
    folder.mkdir(parents=True, exist_ok=True)
    instances = instances or [("owl", 5, 2), ("Storm", 6, 3), ("ice", 10, 4), ("market", 12, 6)]
    names = [f"thing{i}" for i in range(14)]
    with (folder / "winogavil.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["cue", "candidates", "associations", "num_associations"])
        for i, (cue, candidates, true) in enumerate(instances):
            own = [names[(i + k) % len(names)] for k in range(candidates)]
            rows.writerow([cue, str(own), str(own[:true]), true])
    with zipfile.ZipFile(folder / "winogavil_images.zip", "w") as pack:
        for i, name in enumerate(names):
            pack.writestr(f"winogavil_images/{name}.jpg", picture(100 + i, format="jpg"))
    return folder


def face_lines() -> tuple[list[str], list[str]]:
    """Class names and templates of a face set: every line begins with its objective."""
    classes = [f"{objective}:{name}" for objective, names in FACES.items() for name in names]
    return classes, [f"{objective}:{template}" for objective in FACES for template in FACE_TEMPLATES]


def write_task(key: str, folder: Path, size: int = 12, classes: int = 6) -> BenchmarkTask:
    """A tiny set for one of the 40 tasks, below ``folder`` under its hub name; returns the task of that size.

    Labels go round the classes. iWildCam: location 0…2; Camelyon17: hospital 2; FMoW: region 0…5 with one
    picture of "Other" (5); Dollar Street: income 0…3; GeoDE: region 0…5; faces: age, gender, race, white?
    """
    full = task(key)
    name = full.source.partition("/")[2]
    if full.kind == "retrieval":
        write_retrieval(folder / name, images=size)
        return dataclasses.replace(full, size=size)
    if full.kind == "winogavil":
        write_winogavil(folder / name)
        return dataclasses.replace(full, size=4)
    if full.kind == "fairness" and full.metric is None:
        lines, templates = face_lines()
        rows = [{"label": 0, "metadata": (i % 3, i % 2, i % 4, int(i % 4 != 1))} for i in range(size)]
        write_wds(folder / name, rows, lines, templates)
        return dataclasses.replace(full, size=size)
    labels = [i % classes for i in range(size)]
    metadata = {
        "wilds/iwildcam": lambda i: (i % 3, i, 2013, 6, 1, 12, 30, 0, labels[i]),
        "wilds/camelyon17": lambda i: (2, i % 2 + 20, labels[i]),
        "wilds/fmow": lambda i: (5 if i == size - 1 else i % 5, 14, labels[i]),
        "fairness/dollar_street": lambda i: (i % 4, i % 3, i % 4),
        "fairness/geode": lambda i: (i % 6, i % 7),
    }.get(key)
    rows = [{"label": labels[i]} | ({"metadata": metadata(i)} if metadata else {}) for i in range(size)]
    write_wds(folder / name, rows, [f"thing {c}" for c in range(classes)])
    return dataclasses.replace(full, size=size, classes=classes)


def write_suite(folder: Path, keys: Sequence[str] = SUITE, size: int = 12) -> list[BenchmarkTask]:
    """Tiny sets of these tasks, and the tasks."""
    return [write_task(key, folder, size, classes=2 if key == "wilds/camelyon17" else 6) for key in keys]
