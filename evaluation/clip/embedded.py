"""The evaluation sets that ship with Winnow, by the names that evaluation/data/clip/demo.yaml gives them.

``demo``: the embedded pool's evaluation pictures (pools.demo_image_text.evaluation), with columns that their
tasks need beside. ``digits``: handwritten digits. Sizes, sources, licences: evaluation/data/clip/README.md.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.clip.sets import TableSet
from evaluation.clip.tasks import DATA

DIGITS = DATA / "digits.parquet"
# The digits lie in the order in which they were collected, several from one writer: the halves are two
# stretches and not a random draw, so that they share one writer at most.
DIGITS_VALIDATION = 797
DIGIT_PIXELS = 32  # each of the 8 × 8 points is drawn as 4 × 4, so that a small picture is not blurred away


def sets(split: str = "evaluation") -> dict[str, TableSet]:
    """Every set of the task list "demo". split: "evaluation" is reported, settings are fixed on "validation";
    no picture is in both, and in ``demo`` no concept either."""
    from pools import demo_image_text

    pictures = demo_image_text.evaluation(split)
    return {"demo": TableSet("demo", with_words(pictures)), "digits": TableSet("digits", digits(split))}


def with_words(pictures: pa.Table) -> pa.Table:
    """Adds three columns: ``kind``, the subgroup in words; ``cue``, the word for its pictures in association
    tasks (null: none tells them from all others); ``shows``, of pictures with a skin tone, person or limb."""
    import yaml

    words = yaml.safe_load((DATA / "kinds.yaml").read_text(encoding="utf-8"))
    subgroups = pictures["subgroup"].to_pylist()
    unnamed = sorted(set(subgroups) - set(words["kinds"]))
    if unnamed:
        raise ValueError(f"{DATA / 'kinds.yaml'} has no words for the subgroup {unnamed[0]}")
    shows = [
        None if task != "person" else "limb" if subgroup.startswith(("hand", "body")) else "person"
        for task, subgroup in zip(pictures["task"].to_pylist(), subgroups, strict=True)
    ]
    columns = {
        "kind": [words["kinds"][subgroup] for subgroup in subgroups],
        "cue": [words["cues"].get(subgroup) for subgroup in subgroups],
        "shows": shows,
    }
    for name, values in columns.items():
        pictures = pictures.append_column(name, pa.array(values, pa.string()))
    return pictures


def digits(split: str) -> pa.Table:
    """Handwritten digits: id, image (PNG, 32 × 32, dark ink on white), label (int 0..9)."""
    if split not in ("validation", "evaluation"):
        raise ValueError(f"split is {split!r}; it must be 'validation' or 'evaluation'")
    table = pq.read_table(DIGITS)
    rows = range(DIGITS_VALIDATION) if split == "validation" else range(DIGITS_VALIDATION, table.num_rows)
    table = table.slice(rows.start, len(rows))
    return pa.table(
        {
            "id": [f"digit-{row:04d}" for row in rows],
            "image": pa.array([_png(pixels) for pixels in table["pixels"].to_pylist()], pa.binary()),
            "label": table["label"].cast(pa.int64()),
        }
    )


def _png(pixels: bytes) -> bytes:
    from PIL import Image

    grey = bytes(255 - round(value * 255 / 16) for value in pixels)
    picture = Image.frombytes("L", (8, 8), grey).resize(
        (DIGIT_PIXELS, DIGIT_PIXELS), Image.Resampling.NEAREST
    )
    out = io.BytesIO()
    picture.convert("RGB").save(out, "PNG")
    return out.getvalue()
