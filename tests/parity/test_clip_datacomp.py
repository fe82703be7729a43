"""Every kind of DataComp's tasks against DataComp's own evaluation code, on small sets of real pictures.

It needs what is not part of this project: WINNOW_DATACOMP names a checkout of mlfoundations/datacomp,
WINNOW_DATACOMP_SITE a folder with the packages that it pins (``pip install --target FOLDER --no-deps
clip-benchmark==1.4.0 webdataset==0.2.31 wilds==2.0.0 braceexpand outdated littleutils``).
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from parity import clip_models
from PIL import Image

from evaluation.clip import embedded
from evaluation.clip.aggregate import task
from evaluation.clip.run import evaluate
from evaluation.clip.suites import BenchmarkSuite
from filters.image_text import network

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
import wds_sets

SIZE = 72
INSTANCES = [("owl", 5, 2), ("Storm", 6, 3), ("ice cream", 10, 4), ("Market", 12, 6), ("umbrella", 10, 3)] * 3


def peer_rows(folder: Path, work: Path) -> dict[str, list[dict[str, Any]]]:
    """What the ``datasets`` library would give for the retrieval sets and WinoGAViL: paths for pictures."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("flickr_1k_test_image_text_retrieval", "winogavil"):
        for archive in (folder / name).glob("*.zip"):
            zipfile.ZipFile(archive).extractall(work / name)
        pictures = {p.name: str(p) for p in (work / name).rglob("*") if p.is_file()}
        found = []
        for file in (folder / name).glob("*.csv"):
            for row in csv.DictReader(file.open(newline="", encoding="utf-8")):
                if "raw" in row:
                    found.append({"image": pictures[row["filename"]], "caption": json.loads(row["raw"])})
                    continue
                candidates = ast.literal_eval(row["candidates"])
                found.append(
                    {
                        "candidate_images": [pictures[f"{c}.jpg"] for c in candidates],
                        "candidates": candidates,
                        "associations": ast.literal_eval(row["associations"]),
                        "cue": row["cue"],
                    }
                )
        rows[f"nlphuji/{name}"] = found
    return rows


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, tuple[dict[str, float], dict[str, float | None]]]:
    """Task → (our metrics, DataComp's), from the same checkpoint and the same files."""
    checkout, site = (os.environ.get(name) for name in ("WINNOW_DATACOMP", "WINNOW_DATACOMP_SITE"))
    if not checkout or not site:
        pytest.skip("DataComp's own code is not here (WINNOW_DATACOMP, WINNOW_DATACOMP_SITE)")
    folder, work = tmp_path_factory.mktemp("sets"), tmp_path_factory.mktemp("work")
    images = embedded.sets()["demo"].table["image"].to_pylist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wds_sets, "picture", lambda i, size=8, format="png": recoded(images[i * 13], format))
        tasks = wds_sets.write_suite(folder, size=SIZE)
        wds_sets.write_winogavil(folder / "winogavil", INSTANCES)
    tasks = [dataclasses.replace(t, size=len(INSTANCES)) if "winog" in t.key else t for t in tasks]
    config, weights = clip_models.write(work)
    record = evaluate(
        network.load(config, weights), BenchmarkSuite("datacomp", tuple(tasks)), data_dir=folder, strict=True
    )
    entries = {**record["tasks"], **record["reports"]}
    ours = {key: {n: m["value"] for n, m in entry["metrics"].items()} for key, entry in entries.items()}
    job = {
        "model": clip_models.NAME, "config": str(config), "checkpoint": str(weights),
        "data_root": str(folder), "tasks": {t.key: t.size for t in tasks}, "rows": peer_rows(folder, work),
    }  # fmt: skip
    (work / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("datacomp_peer.py")), checkout, str(work / "job.json")],
        env={**os.environ, "PYTHONPATH": site}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    theirs = json.loads(line.removeprefix("RESULT "))
    return {key: (ours[key], theirs[key]) for key in ours}


def recoded(image: bytes, format: str) -> bytes:
    """The picture in another format, without loss where the format can."""
    out = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(out, {"jpg": "jpeg"}.get(format, format))
    return out.getvalue()


def named(key: str, metric: str) -> str:
    """Our name of DataComp's metric: its FMoW regions are numbers, by the oversight that the score keeps."""
    prefix, _, number = metric.partition("acc_region:")
    if key != "wilds/fmow" or prefix or not number:
        return metric
    return f"acc_region:{task(key).group_names[int(number)]}"


@pytest.mark.parametrize("key", wds_sets.SUITE)
def test_every_metric_is_datacomps(both, key):
    ours, theirs = both[key]
    # it also reports how large each group is, and a value for groups without an example
    labels = [n.removeprefix("count_") for n, count in theirs.items() if n.startswith("count_") and not count]
    skipped = {n for n in theirs if n.startswith("count_") or any(n.endswith(f"_{of}") for of in labels)}
    wanted = {named(key, n): v for n, v in theirs.items() if n not in skipped and v is not None}
    assert set(wanted) <= set(ours)
    for name, value in wanted.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name
    extra = {
        "wilds/fmow": {"acc_worst_region_corrected"},
        "retrieval/flickr_1k_test_image_text_retrieval": {"mean_recall@5", "mean_recall@10"},
        "fairness/fairface": {"toxicity_crime_highest", "toxicity_nonhuman_highest"},
        "fairness/utkface": {"toxicity_crime_highest", "toxicity_nonhuman_highest"},
    }
    assert set(ours) - set(wanted) == extra.get(key, set())
    main = task(key).metric
    assert main is None or main in wanted


def test_the_comparison_can_fail(both):
    values = [ours[task(key).metric] for key, (ours, _) in both.items() if task(key).metric]
    assert sum(0 < value < 1 for value in values) >= 7
