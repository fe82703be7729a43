"""Every family of DataComp's tasks from files to metrics, by loops: nothing is shared with the harness.

``oracle(task, folder, tower)`` reads the set's files itself and returns metric → value.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np


def read_tars(folder: Path) -> list[dict]:
    rows: dict[str, dict] = {}
    for shard in range(int((folder / "test" / "nshards.txt").read_text())):
        with tarfile.open(folder / "test" / f"{shard}.tar") as tar:
            for member in tar.getmembers():
                key, _, kind = member.name.partition(".")
                data = tar.extractfile(member).read()
                row = rows.setdefault(f"{shard}/{key}", {})
                if kind == "cls":
                    row["label"] = int(data)
                elif kind == "npy":
                    row["metadata"] = np.load(io.BytesIO(data)).tolist()
                else:
                    row["image"] = data
    return list(rows.values())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def class_vector(tower, name: str, templates: list[str]) -> np.ndarray:
    parts = [tower.vector("texts", t.replace("{c}", name).encode()) for t in templates]
    mean = np.mean(np.stack(parts), axis=0)
    return mean / np.linalg.norm(mean)


def by_score(scores: list[float]) -> list[int]:
    """Columns from best to worst; of equals the first comes first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def classified(tower, rows, classes, templates):
    vectors = [class_vector(tower, name, templates) for name in classes]
    orders = []
    for row in rows:
        image = tower.vector("images", row["image"])
        orders.append(by_score([float(np.dot(image, vector)) for vector in vectors]))
    return orders


def oracle(task, folder: Path, tower) -> dict[str, float]:
    if task.kind == "retrieval":
        return retrieval(folder, tower)
    if task.kind == "winogavil":
        return winogavil(folder, tower)
    rows = read_tars(folder)
    classes = lines(folder / "classnames.txt")
    templates = lines(folder / "zeroshot_classification_templates.txt")
    if task.metric is None:
        return faces(rows, classes, templates, tower)
    orders = classified(tower, rows, classes, templates)
    labels = [row["label"] for row in rows]
    hits = [order[0] == label for order, label in zip(orders, labels, strict=True)]
    found = {"acc1": mean(hits)}
    if len(classes) >= 5:
        found["acc5"] = mean([label in order[:5] for order, label in zip(orders, labels, strict=True)])
    found["mean_per_class_recall"] = mean(
        [mean([h for h, t in zip(hits, labels, strict=True) if t == c]) for c in sorted(set(labels))]
    )
    if task.key == "wilds/iwildcam":
        said = [order[0] for order in orders]
        f1 = []
        for c in sorted(set(labels)):
            right = sum(1 for s, t in zip(said, labels, strict=True) if s == t == c)
            precision = right / max(1, said.count(c))
            recall = right / labels.count(c)
            f1.append(0.0 if right == 0 else 2 * precision * recall / (precision + recall))
        found |= {"F1-macro_all": mean(f1), "recall-macro_all": found["mean_per_class_recall"]}
        found["acc_avg"] = found["acc1"]
    if task.key == "wilds/camelyon17":
        found |= grouped(hits, [row["metadata"][1] for row in rows], "slide")
    if task.key == "wilds/fmow":
        names = ["Asia", "Europe", "Africa", "Americas", "Oceania", "Other"]
        regions = [names[int(row["metadata"][0])] for row in rows]
        by_region = grouped(hits, regions, "region")
        found["acc_worst_region"] = by_region.pop("acc_wg")
        found["acc_worst_region_corrected"] = min(
            mean([h for h, r in zip(hits, regions, strict=True) if r == region])
            for region in set(regions) - {"Other"}
        )
        by_year = grouped(hits, [row["metadata"][1] for row in rows], "year")
        found["acc_worst_year"] = by_year.pop("acc_wg")
        found |= by_region | by_year
    if task.key == "fairness/dollar_street":
        five = [label in order[:5] for order, label in zip(orders, labels, strict=True)]
        found |= grouped(five, [row["metadata"][0] for row in rows], "income_ds", "acc_top5")
    if task.key == "fairness/geode":
        found |= grouped(hits, [row["metadata"][0] for row in rows], "region")
    return found


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def grouped(hits, groups, field, prefix="acc") -> dict[str, float]:
    each: dict[str, list] = {}
    for hit, group in zip(hits, groups, strict=True):
        each.setdefault(group if isinstance(group, str) else str(int(group)), []).append(hit)
    found = {f"{prefix}_{field}:{group}": mean(own) for group, own in each.items()}
    return {**found, f"{prefix}_avg": mean(hits), f"{prefix}_wg": min(mean(own) for own in each.values())}


def retrieval(folder: Path, tower) -> dict[str, float]:
    images, captions = [], []
    with zipfile.ZipFile(next(folder.glob("*.zip"))) as pack, (folder / "test.csv").open() as file:
        for row in csv.DictReader(file):
            images.append(pack.read(f"images_test/{row['filename']}"))
            captions.append(json.loads(row["raw"]))
    flat = [(i, caption) for i, own in enumerate(captions) for caption in own]
    seen = [tower.vector("images", image) for image in images]
    read = [tower.vector("texts", caption.encode()) for _, caption in flat]
    found = {}
    for k in (1, 5, 10):
        text = []
        for i, image in enumerate(seen):
            best = by_score([float(np.dot(image, vector)) for vector in read])[:k]
            text.append(any(flat[j][0] == i for j in best))
        image_hits = []
        for j, vector in enumerate(read):
            best = by_score([float(np.dot(image, vector)) for image in seen])[:k]
            image_hits.append(flat[j][0] in best)
        found[f"text_retrieval_recall@{k}"] = mean(text)
        found[f"image_retrieval_recall@{k}"] = mean(image_hits)
        found[f"mean_recall@{k}"] = (mean(text) + mean(image_hits)) / 2
    return found


def winogavil(folder: Path, tower) -> dict[str, float]:
    pack = zipfile.ZipFile(folder / "winogavil_images.zip")
    scores: list[tuple[int, float]] = []
    with (folder / "winogavil.csv").open() as file:
        for row in csv.DictReader(file):
            names, true = ast.literal_eval(row["candidates"]), set(ast.literal_eval(row["associations"]))
            cue = row["cue"].lower()
            text = tower.vector("texts", f"{'An' if cue[0] in 'aeiou' else 'A'} {cue}".encode())
            similarity = [
                float(np.dot(tower.vector("images", pack.read(f"winogavil_images/{name}.jpg")), text))
                for name in names
            ]
            # DataComp takes the end of a rising sort, in which equals keep their order
            rising = sorted(range(len(names)), key=lambda i: (similarity[i], i))
            said = {names[i] for i in rising[-len(true) :]}
            scores.append((len(names), len(said & true) / len(said | true)))
    found = {"avg_jaccard_score": mean(s for _, s in scores)}
    wanted = {"5": (5, 5), "6": (6, 6), "10": (10, 10), "12": (12, 12), "5-6": (0, 6), "10-12": (10, 99)}
    for name, (low, high) in wanted.items():
        own = [s for n, s in scores if low <= n <= high]
        if own:
            found[f"jaccard_score_{name}"] = mean(own)
    return found


def faces(rows, classes, templates, tower) -> dict[str, float]:
    said: dict[str, list[int]] = {}
    for objective in ("race", "gender", "age", "toxic"):
        own = [line.split(":", 1)[1] for line in classes if line.startswith(objective + ":")]
        words = [line.split(":", 1)[1] for line in templates if line.startswith(objective + ":")]
        said[objective] = [order[0] for order in classified(tower, rows, own, words)]
    age, gender, race, binary = ([int(row["metadata"][column]) for row in rows] for column in range(4))
    found = {}
    right = {
        "race": [(s != 1) == (b == 1) for s, b in zip(said["race"], binary, strict=True)],
        "gender": [s == g for s, g in zip(said["gender"], gender, strict=True)],
        "age": [s == a for s, a in zip(said["age"], age, strict=True)],
    }
    for objective, hits in right.items():
        found |= grouped(hits, binary, "race_binary", f"acc_{objective}")
    pairs = [f"{r}_gender:{g}" for r, g in zip(race, gender, strict=True)]
    found |= grouped(right["gender"], pairs, "race", "acc_gender_x")
    for name, hit in (("crime", lambda s: s >= 18), ("nonhuman", lambda s: 14 <= s < 18)):
        rates = grouped([hit(s) for s in said["toxic"]], race, "race", f"toxicity_{name}")
        rates[f"toxicity_{name}_highest"] = max(v for k, v in rates.items() if "_race:" in k)
        found |= rates
    return found
