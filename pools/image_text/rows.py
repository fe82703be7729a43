"""From pictures to rows of a pool: which caption each one carries, what spoils it, where it appears again."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from PIL import Image

from pools.image_text import captions, render, sources
from pools.image_text.captions import Caption
from pools.image_text.sources import Item

SEED = 7
QUALITY = 62  # of the WebP files
SWAPPED = 0.34  # of the captions that say something, how many are another row's
NEIGHBOUR = 0.25  # of those, how many come from the next picture of the same page
DUPLICATES = 0.065  # added copies, of the base rows
TINY, BANNER, PLACEHOLDER = 0.015, 0.015, 0.008

# longest side that an address stands for, and how often
WIDTHS = {64: 2, 96: 3, 128: 4, 160: 4, 240: 12, 256: 14, 320: 16, 400: 8, 512: 20, 640: 8, 800: 5, 1024: 4}

Dictionary = dict[str, dict[str, str]]  # English name -> language -> name


@dataclass(frozen=True)
class Picture:
    """An item as it is stored: encoded bytes, size in pixels, thumbnail of what the bytes decode to."""

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
        """Does the caption say what the picture shows, in whatever language?"""
        return self.caption.informative and self.swap is None and self.image_noise != "placeholder"

    @property
    def clean(self) -> bool:
        """Would a perfect filter keep it?"""
        return self.matched and self.caption.kind == "english" and self.image_noise is None


def rng_for(*key: object) -> random.Random:
    """Randomness from names only: adding a source moves nothing else."""
    return random.Random("\x1f".join(map(str, (SEED, *key))))


def share(*key: object) -> float:
    """A number in [0, 1) that belongs to the key: how splits are made."""
    return rng_for("share", *key).random()


def make_uid(*key: object) -> str:
    """32 hex digits that belong to the key."""
    return hashlib.sha256("\x1f".join(map(str, (SEED, *key))).encode()).hexdigest()[:32]


def store(item: Item, image: Image.Image) -> Picture:
    """Shrink and encode."""
    image = render.shrink(image, render.STORED_SIZE)
    data = render.encode(image, QUALITY)
    return Picture(item, data, *image.size, render.thumbnail(render.decode(data)))


def make_rows(pictures: Sequence[Picture], dictionary: Dictionary) -> list[Row]:
    """Rows with captions, swaps, spoiled pictures and copies, sorted by uid.

    `pictures` come in the order of their sources: a caption that slipped comes from the next one.
    """
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


def make_url(item: Item, uid: str, width: int) -> str:
    """An address such as the picture's page would give it; half say what the file is. No host exists."""
    rng = rng_for("url", uid)
    name = sources.slug(item.label) if rng.random() < 0.5 else uid[:10]
    shelf = sources.slug(item.group or item.kind)
    server = rng.choice(("www", "img", "cdn", "static", "media"))
    folder = rng.choice(
        (f"/{shelf}", f"/images/{shelf}", "/wp-content/uploads/2021/05", f"/assets/{width}", "/i")
    )
    extension = rng.choice(("png", "png", "webp", "jpg"))
    return f"https://{server}.{item.source}-{rng.randrange(40)}.example{folder}/{name or 'x'}.{extension}"


def original_size(picture: Picture, rng: random.Random) -> tuple[int, int]:
    """The size that the address stands for; the stored picture is its reduction."""
    [longest] = rng.choices(list(WIDTHS), list(WIDTHS.values()))
    scale = longest / max(picture.width, picture.height)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def spoil(picture: Picture, rng: random.Random) -> tuple[Picture, str | None, tuple[int, int]]:
    """Tiny pictures and banners, in their small shares; otherwise the picture as it is."""
    roll = rng.random()
    if roll < TINY:
        small = store(picture.item, render.shrink(render.decode(picture.image), rng.randrange(14, 31)))
        return small, "tiny", (small.width, small.height)
    if roll < TINY + BANNER and picture.item.kind != "flag":
        wide = store(picture.item, render.banner(render.decode(picture.image), rng))
        return wide, "banner", original_size(wide, rng)
    return picture, None, original_size(picture, rng)


def swap_captions(rows: list[Row]) -> list[Row]:
    """Give a fixed share of the telling captions to pictures that they do not describe, kind by kind."""
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.caption.informative:
            by_kind[row.caption.kind].append(index)
    result = list(rows)

    def take(index: int, donor: int | None, swap: str) -> None:
        if donor is not None:
            taken = rows[donor]
            result[index] = replace(rows[index], caption=taken.caption, swap=swap, swapped_from=taken.uid)

    def other(index: int, candidates: Sequence[int]) -> int | None:
        return next((j for j in candidates if differ(rows[j].picture.item, rows[index].picture.item)), None)

    for kind, members in sorted(by_kind.items()):
        rng = rng_for("swap", kind, len(members))
        chosen = rng.sample(members, round(SWAPPED * len(members)))
        slipped = round(NEIGHBOUR * len(chosen))
        place = {index: position for position, index in enumerate(members)}
        for index in chosen[:slipped]:
            following = members[place[index] + 1 : place[index] + 20]
            source = rows[index].picture.item.source
            take(
                index,
                other(index, [j for j in following if rows[j].picture.item.source == source]),
                "neighbour",
            )
        rest = chosen[slipped:]
        for position, index in enumerate(rest):
            take(index, other(index, rest[position + 1 :] + rest[:position]), "random")
    return result


def differ(a: Item, b: Item) -> bool:
    """Do the two show different things? (A woman's version of the same emoji would be no mismatch.)"""
    return a.concept != b.concept and a.label.lower() != b.label.lower() and a.stem != b.stem


def copies(rows: list[Row], dictionary: Dictionary) -> list[Row]:
    """The same pictures again from other sites: byte for byte, or moved and re-encoded; a few spread far."""
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
            url = make_url(picture.item, uid, size[0])
            made.append(Row(uid, picture, caption, size, url, swap, swapped_from, row.uid, kind))
    return made


def placeholders(rows: list[Row], dictionary: Dictionary) -> list[Row]:
    """Grey squares in place of pictures that were gone, under the captions of the lost ones."""
    made: list[Row] = []
    first: dict[int, str] = {}
    rng = rng_for("placeholders", len(rows))
    for number, index in enumerate(rng.sample(range(len(rows)), round(PLACEHOLDER * len(rows)))):
        which, lost = number % 3, rows[index].picture.item
        item = Item(
            source="placeholder", name=f"missing-{which}", kind="icon", label="missing picture",
            concept="placeholder", stem="placeholder", license="CC0-1.0", author="Winnow",
        )  # fmt: skip
        uid = make_uid("placeholder", number, rows[index].uid)
        size = rng.choice(((48, 48), (150, 150), (300, 300)))
        row = Row(uid, store(item, render.placeholder(which)), captions.draw(lost, rng, dictionary), size,
                  make_url(lost, uid, size[0]), image_noise="placeholder")  # fmt: skip
        if which in first:
            row = replace(row, duplicate_of=first[which], duplicate_kind="exact")
        made.append(row)
        first.setdefault(which, uid)
    return made


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


# ---------------------------------------------------------------------------------------------- tables


def pool_table(rows: Sequence[Row]) -> pa.Table:
    """What a recipe may see."""
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
    """What it may not."""
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


def clean_table(pictures: Sequence[Picture], role: str) -> pa.Table:
    """Rows of the trusted or an evaluation set."""
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


def provenance(items: Sequence[Item]) -> dict[str, list[str]]:
    return {
        "source": [i.source for i in items],
        "source_name": [i.name for i in items],
        "license": [i.license for i in items],
        "author": [i.author for i in items],
    }
