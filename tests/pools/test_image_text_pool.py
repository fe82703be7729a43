"""The committed image-text tables: what SOURCES.md says of them must hold."""

import collections
import io
import itertools
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pools import demo_image_text
from pools.image_text import captions, render

DATA = demo_image_text.DATA
ALLOWED = {"Apache-2.0", "MIT", "CC0-1.0", "CC-BY-4.0", "Public-Domain"}


@pytest.fixture(scope="module")
def tables():
    return {
        "pool": demo_image_text.pool(),
        "trusted": demo_image_text.trusted(),
        "evaluation": demo_image_text.evaluation("evaluation"),
        "validation": demo_image_text.evaluation("validation"),
    }


@pytest.fixture(scope="module")
def truth():
    return demo_image_text.truth().to_pylist()


@pytest.fixture(scope="module")
def decoded(tables):
    return {name: [render.decode(i.as_py()) for i in table["image"]] for name, table in tables.items()}


@pytest.fixture(scope="module")
def thumbnails(decoded):
    return {name: np.stack([render.thumbnail(image) for image in images]) for name, images in decoded.items()}


def test_sizes(tables):
    assert tables["pool"].num_rows >= 8_000
    assert tables["trusted"].num_rows >= 2_500
    assert tables["evaluation"].num_rows >= 1_500
    assert tables["validation"].num_rows >= 400
    size = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert size <= 8_800_000, f"{DATA} takes {size:,} bytes; the budget is 8.8 MB"


def test_ids_are_128_bit_hex_and_unique_over_all_tables(tables):
    ids = [i for name, table in tables.items() for i in table["uid" if name == "pool" else "id"].to_pylist()]
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids)
    assert len(set(ids)) == len(ids)
    uids = tables["pool"]["uid"].to_pylist()
    assert uids == sorted(uids)


def test_images_decode_to_their_size(tables, decoded):
    for name, table in tables.items():
        sizes = list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
        assert [image.size for image in decoded[name]] == sizes
        assert max(max(size) for size in sizes) == render.STORED_SIZE
    with Image.open(io.BytesIO(tables["pool"]["image"][0].as_py())) as image:
        assert image.format == "WEBP"


def test_originals_are_no_smaller_and_have_the_same_aspect(tables):
    pool = tables["pool"]
    for width, height, wide, high in zip(
        *(pool[c].to_pylist() for c in ("width", "height", "original_width", "original_height")), strict=True
    ):
        assert wide >= width and high >= height
        assert abs(wide * height - high * width) <= max(wide, high)  # rounding of one pixel


def test_no_picture_is_in_two_sets(tables, thumbnails):
    digests = {name: set(table["sha256"].to_pylist()) for name, table in tables.items()}
    for a, b in itertools.combinations(tables, 2):
        assert not digests[a] & digests[b]
        distance, _ = render.nearest(thumbnails[b], thumbnails[a])
        assert distance.min() >= render.NEAR, f"{a} and {b} share a picture at distance {distance.min():.2f}"


def test_nearest_finds_a_moved_copy():
    """The distance that the disjointness rests on sees the copies that the pool itself makes."""
    import random

    image = Image.effect_mandelbrot((48, 48), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    copy = render.near_copy(image, random.Random(0))
    other = Image.effect_noise((48, 48), 90).convert("RGB")
    bank = np.stack([render.thumbnail(other), render.thumbnail(image)])
    distance, row = render.nearest(render.thumbnail(copy)[None], bank)
    exact = np.sqrt(((render.thumbnail(copy) - bank[1]) ** 2).mean())
    assert row[0] == 1 and distance[0] == pytest.approx(exact, rel=1e-5)
    assert render.nearest(bank, bank)[0].max() < 1e-2


def test_validation_and_evaluation_share_no_class(tables):
    for task in ("emoji", "flag", "person"):
        names = [
            {r["name"] for r in tables[split].select(["task", "name"]).to_pylist() if r["task"] == task}
            for split in ("validation", "evaluation")
        ]
        assert names[0] and names[1] and not names[0] & names[1]


def test_evaluation_tasks_can_be_computed(tables):
    rows = tables["evaluation"].drop_columns(["image"]).to_pylist()
    by_task = {t: [r for r in rows if r["task"] == t] for t in ("emoji", "flag", "person")}
    assert len({r["name"] for r in by_task["emoji"]}) >= 1_000
    assert len({r["name"] for r in by_task["flag"]}) >= 150
    persons = collections.Counter(r["name"] for r in by_task["person"])
    assert set(persons.values()) == {5}, "each person class comes in all five tones"
    groups = {t: collections.Counter(r["group"] for r in members) for t, members in by_task.items()}
    assert len(groups["emoji"]) == 8 and min(groups["emoji"].values()) >= 60
    assert set(groups["flag"]) == {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}
    assert set(groups["person"]) == {"light", "medium-light", "medium", "medium-dark", "dark"}
    assert all(len(r["captions"]) >= 3 and r["captions"][0] for r in rows)
    tasks = demo_image_text.tasks()
    assert all("{c}" in t for task in tasks["tasks"].values() for t in task["templates"])
    assert {r[key] for r in by_task["emoji"] for key in ("group", "subgroup")} <= set(tasks["readable"])


def test_held_out_style_is_nowhere_else(truth, tables):
    assert not {r["source"] for r in truth} & {"twemoji", "flag-icons"}
    assert not set(tables["trusted"]["source"].to_pylist()) & {"twemoji", "flag-icons"}
    held_out = set(tables["evaluation"]["source"].to_pylist()) | set(
        tables["validation"]["source"].to_pylist()
    )
    assert held_out == {"twemoji", "flag-icons"}


def test_trusted_covers_the_domains_of_the_pool(tables):
    kinds = collections.Counter(tables["trusted"]["kind"].to_pylist())
    assert min(kinds[k] for k in ("emoji", "flag", "person", "clipart", "icon")) >= 100


def test_every_sample_has_a_permissive_licence_with_its_text(truth, tables):
    seen = {r["license"] for r in truth}
    for name in ("trusted", "evaluation", "validation"):
        seen |= set(tables[name]["license"].to_pylist())
        assert all(tables[name]["source"].to_pylist()) and all(tables[name]["author"].to_pylist())
    assert seen <= ALLOWED
    assert all(r["source"] and r["author"] for r in truth)
    for spdx in seen - {"Public-Domain"} | {"Unicode-3.0"}:
        assert (DATA / "LICENSES" / f"{spdx}.txt").stat().st_size > 500
    page = (DATA / "SOURCES.md").read_text("utf-8")
    assert all(f"| {source} |" in page for source in {r["source"] for r in truth})


def test_truth_covers_each_uid_and_says_what_sources_md_says(truth, tables):
    pool = tables["pool"]
    assert [r["uid"] for r in truth] == pool["uid"].to_pylist()
    page = (DATA / "SOURCES.md").read_text("utf-8")
    clean, matched = sum(r["clean"] for r in truth), sum(r["matched"] for r in truth)
    assert f"picture unspoiled): {clean:,} (" in page and f"any language: {matched:,} (" in page
    assert 0.33 <= clean / len(truth) <= 0.45
    kinds = collections.Counter(r["caption_kind"] for r in truth)
    assert set(kinds) == set(captions.SHARES)
    for kind, share in captions.SHARES.items():
        assert abs(kinds[kind] / len(truth) - share) < 0.015, kind
    assert len({r["language"] for r in truth if r["caption_kind"] == "other_language"}) >= 8
    for r in truth:
        assert not (r["clean"] and (r["swap"] or r["image_noise"] or r["caption_kind"] != "english"))
        assert (r["swap"] is None) == (r["swapped_from"] is None)


def test_swapped_captions_come_from_another_thing(truth, tables):
    by_uid = {r["uid"]: r for r in truth}
    swapped = [r for r in truth if r["swap"]]
    assert 0.2 <= len(swapped) / len(truth) <= 0.3
    for r in swapped:
        donor = by_uid.get(
            r["swapped_from"]
        )  # a donor may have left the pool for being near the evaluation set
        if donor is not None:
            assert donor["concept"] != r["concept"]
            assert donor["label"].lower() != r["label"].lower()
        assert not r["matched"]


def test_exact_copies_are_all_known(truth, tables):
    """No two rows hold the same bytes without the truth tying them together."""
    root = {r["uid"]: r["duplicate_of"] or r["uid"] for r in truth}

    def find(uid):
        while root.get(uid, uid) != uid:
            uid = root[uid]
        return uid

    first = {}
    for uid, digest in zip(
        tables["pool"]["uid"].to_pylist(), tables["pool"]["sha256"].to_pylist(), strict=True
    ):
        assert find(uid) == find(first.setdefault(digest, uid)), f"{uid} repeats {first[digest]}"
    digest_of = dict(zip(*(tables["pool"][c].to_pylist() for c in ("uid", "sha256")), strict=True))
    kinds = collections.Counter(r["duplicate_kind"] for r in truth)
    assert kinds["exact"] >= 300 and kinds["near"] >= 250
    for r in truth:
        if r["duplicate_kind"] in ("exact", "natural"):
            assert digest_of[r["uid"]] == digest_of[r["duplicate_of"]]
        if r["duplicate_kind"] == "near":
            assert digest_of[r["uid"]] != digest_of[r["duplicate_of"]]


def test_image_noise_is_what_it_says(truth, tables):
    shapes = zip(*(tables["pool"][c].to_pylist() for c in ("original_width", "original_height")), strict=True)
    for r, (width, height) in zip(truth, shapes, strict=True):
        aspect = max(width, height) / min(width, height)
        if r["image_noise"] == "tiny":
            assert max(width, height) <= 30
        if r["image_noise"] == "banner":
            assert aspect >= 2.5
    counts = collections.Counter(r["image_noise"] for r in truth)
    assert min(counts[k] for k in ("tiny", "banner", "placeholder")) >= 50


def test_captions_hold_no_real_host(tables):
    """Addresses are reserved names, so a demo that follows them reaches nobody."""
    for url in tables["pool"]["url"].to_pylist():
        assert re.match(r"https://[a-z]+\.[a-z0-9-]+\.example/", url), url
    for text in tables["pool"]["text"].to_pylist():
        assert "http" not in text or ".example/" in text


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'test'"):
        demo_image_text.evaluation("test")


def test_tables_are_one_row_group_with_pictures_by_dictionary():
    """Exact copies are stored once: 8.8 MB depends on it."""
    column = pq.ParquetFile(DATA / "pool.parquet").metadata.row_group(0)
    image = column.column(column.num_columns - 1)
    assert image.path_in_schema == "image" and "RLE_DICTIONARY" in image.encodings
