"""Build the embedded image-text pool from packages, or a larger one for benchmarks.

    python -m pools.build_image_text --work build/image-text                     # pools/data/image_text/
    python -m pools.build_image_text --work … --large ~/.cache/winnow/large     # 60,000 pairs as shards

Needs `npm`, `apt-get` and `dpkg-deb` on the path and the Python packages `numpy`, `pillow`, `pyarrow`,
`pyyaml` and `resvg-py`; using the pool needs neither a client nor `resvg-py`. Same seed and same package
versions give the same rows.

The order of decisions is the point: the evaluation set is fixed first, the pool gives up every picture near
one of it (as CommonPool did with its evaluation sets), and the trusted set gives up what is near either.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pools.demo_image_text import DATA, with_sha256, write_metadata, write_shard
from pools.image_text import render, sources
from pools.image_text.rows import (
    DUPLICATES,
    PLACEHOLDER,
    QUALITY,
    SEED,
    Picture,
    Row,
    clean_table,
    make_rows,
    make_uid,
    pool_table,
    rng_for,
    share,
    store,
    truth_table,
)
from pools.image_text.sources import EmojiNames, Item

POOL_TONES = {"light": 0.42, "medium-light": 0.25, "medium": 0.16, "medium-dark": 0.1, "dark": 0.07}
BACKGROUNDS = (
    (255, 250, 240),
    (230, 240, 255),
    (235, 235, 235),
    (255, 235, 238),
    (232, 245, 233),
    (40, 44, 52),
)


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
    kept = drop_near_thumbnails(pictures, np.stack([p.thumbnail for p in others]), at)
    return kept, len(pictures) - len(kept)


def drop_near_thumbnails(
    pictures: list[Picture], others: np.ndarray, at: float = render.NEAR
) -> list[Picture]:
    distance, _ = render.nearest(np.stack([p.thumbnail for p in pictures]), others)
    return [p for p, d in zip(pictures, distance, strict=True) if d >= at]


def embedded_thumbnails() -> np.ndarray:
    """Thumbnails of the committed evaluation and trusted pictures, for the larger pool to keep off."""
    images = [
        pq.read_table(DATA / f"{name}.parquet", columns=["image"])["image"]
        for name in ("evaluation", "trusted")
    ]
    return np.stack([render.thumbnail(render.decode(image.as_py())) for column in images for image in column])


def drop_look_alikes(pictures: list[Picture], at: float = 2.0) -> list[Picture]:
    """Keep the first of pictures that look the same (territories' flags): a class must be tellable."""
    kept: list[Picture] = []
    for picture in pictures:
        if (
            not kept
            or np.sqrt(((np.stack([k.thumbnail for k in kept]) - picture.thumbnail) ** 2).mean(1)).min() >= at
        ):
            kept.append(picture)
    return kept


# ------------------------------------------------------------------------------------------ which goes where


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
    flags = list(sources.flag_icons(folders, names))
    return [("emoji", i) for i in emoji] + [("person", i) for i in persons] + [("flag", i) for i in flags]


def pool_persons(items: Iterable[Item]) -> list[Item]:
    """A few drawings with a skin tone, light ones far more often, as collections on the web have it."""
    return [i for i in items if share("tone", i.source, i.concept) < 0.55 * POOL_TONES[i.tone] * 0.5]


TRUSTED_SHARE = {"openclipart": 0.42, "streamline-ultimate-color": 0.4, "streamline-freehand-color": 0.7,
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


def write(table: pa.Table, path: Path) -> None:
    """One row group; pictures by dictionary, so that exact copies are stored once."""
    pq.write_table(
        table, path, compression="zstd", compression_level=19, row_group_size=len(table),
        use_dictionary=True, dictionary_pagesize_limit=64 << 20, write_statistics=False,
        data_page_version="2.0",
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
    "subgroup": {
        "templates": ["{c}", "{c} emoji", "a picture of {c}"],
        "classes": "subgroup", "groups": "group",
    },
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


# ------------------------------------------------------------------------------------------ the two builds


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
        "pool": len(rows), "trusted": len(trusted),
        "evaluation": len(evaluation), "validation": len(validation),
        "removed": {"validation near evaluation": near_validation,
                    "pool near evaluation": near_pool + len(late),
                    "trusted near pool": near_trusted_pool, "trusted near evaluation": near_trusted_eval},
        "not drawn": sum(failures.values()), "failures": dict(failures.most_common(8)),
    }  # fmt: skip
    (out / "SOURCES.md").write_text(
        sources_page(rows, trusted, held_out, validation, summary["removed"]), "utf-8"
    )
    return summary


PACKAGE_OF = {
    "fluent-3d": "@lobehub/fluent-emoji-3d",
    "flag-icons": "flag-icons",
    "openclipart": "openclipart-svg (Debian)",
    "placeholder": "drawn by the build",
}


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
        f"| {source} | {PACKAGE_OF.get(source, '@iconify/json')} | {author} | {spdx} "
        f"| {c['pool'] or ''} | {c['trusted'] or ''} | {c['evaluation'] or ''} |"
        for (source, author, spdx), c in sorted(counts.items())
    )

    def percent(number: int) -> str:
        return f"{number:,} ({100 * number / len(rows):.1f} %)"

    def tally(values: Iterable[str | None]) -> str:
        return ", ".join(
            f"{value} {percent(n)}" for value, n in Counter(v for v in values if v).most_common()
        )

    page = Path(sources.__file__).with_name("sources_page.md").read_text("utf-8")
    languages = Counter(r.caption.language for r in rows if r.caption.kind == "other_language")
    return page.format(
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


def near_indices(rows: Sequence[Row], others: Sequence[Picture]) -> list[int]:
    distance, _ = render.nearest(
        np.stack([r.picture.thumbnail for r in rows]), np.stack([p.thumbnail for p in others])
    )
    return [int(i) for i in np.flatnonzero(distance < render.NEAR)]


SKIPPED_CATEGORIES = ("Logos",)


def large_items(folders: dict[str, Path], names: EmojiNames) -> list[Item]:
    """Every permissively licensed picture of the icon collection, and clip-art, in a fixed random order."""
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
    rng = rng_for("ink", item.source, item.name)
    return f"#{rng.randrange(20, 190):02x}{rng.randrange(20, 190):02x}{rng.randrange(20, 190):02x}"


def build_large(work: Path, out: Path, rows_wanted: int, per_shard: int = 10_000) -> dict:
    """`rows_wanted` pairs as WebDataset shards with metadata, truth in truth/; one shard in memory."""
    folders = sources.fetch(work)
    names = EmojiNames(folders["emojibase"])
    dictionary = dictionary_from(names)
    failures: Counter = Counter()
    base = round(per_shard / (1 + DUPLICATES) / (1 + PLACEHOLDER)) - 1
    items = large_items(folders, names)
    held_out = embedded_thumbnails()
    total = index = 0
    for start in range(0, len(items), base):
        if total >= rows_wanted:
            break
        began = time.time()
        chunk = items[start : start + min(base, rows_wanted - total)]
        chunk.sort(key=lambda i: (i.source, i.name))
        rows = make_rows(drop_near_thumbnails(draw_all(chunk, False, failures, ink), held_out), dictionary)
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
