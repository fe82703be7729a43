"""How rows are made from pictures: on drawn squares, without any package."""

import collections
import random
from dataclasses import replace

import pytest
from PIL import Image

from pools.image_text import captions, render, rows, sources
from pools.image_text.sources import Item


def make_item(number, source="set-a", kind="emoji", **changes):
    item = Item(
        source=source,
        name=f"thing-{number}",
        kind=kind,
        label=f"thing{number} name",
        concept=f"{0x1F400 + number:X}",
        stem=f"thing{number}",
        license="MIT",
        author="A. Painter",
        tags=("alpha", "beta", "gamma"),
        subgroup="animal-bird",
        group="animals-nature",
        translations={"de": (f"Ding {number}", ("eins",)), "ja": (f"物{number}", ())},
    )
    return replace(item, **changes)


def make_picture(number, **changes):
    rng = random.Random(number)
    image = Image.new("RGB", (60, 60))
    image.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(3600)])
    return rows.store(make_item(number, **changes), image.resize((60, 60)))


@pytest.fixture(scope="module")
def made():
    pictures = [make_picture(n, source="set-a" if n < 300 else "set-b") for n in range(500)]
    return pictures, rows.make_rows(pictures, {})


def test_same_pictures_same_rows(made):
    pictures, first = made
    again = rows.make_rows(pictures, {})
    assert rows.pool_table(first).equals(rows.pool_table(again))
    assert rows.truth_table(first).equals(rows.truth_table(again))


def test_shares(made):
    pictures, result = made
    base = [r for r in result if r.duplicate_kind not in ("exact", "near") and r.image_noise != "placeholder"]
    assert len(base) == len(pictures)
    telling = [r for r in base if r.caption.informative]
    swapped = [r for r in telling if r.swap]
    assert abs(len(swapped) / len(telling) - rows.SWAPPED) < 0.05
    assert sum(r.duplicate_kind in ("exact", "near") and r.image_noise is None for r in result) == round(
        rows.DUPLICATES * len(pictures)
    )
    assert sum(r.image_noise == "placeholder" for r in result) == 4


def test_neighbours_come_from_just_behind_in_the_same_source(made):
    pictures, result = made
    place = {rows.make_uid(p.item.source, p.item.name, 0): n for n, p in enumerate(pictures)}
    slipped = [r for r in result if r.swap == "neighbour" and r.uid in place]
    assert len(slipped) >= 10
    for r in slipped:
        assert 0 < place[r.swapped_from] - place[r.uid] < 60
        assert pictures[place[r.swapped_from]].item.source == r.picture.item.source


def test_a_gender_version_is_no_mismatch():
    man, woman = (
        make_item(n, stem="running", label=f"{who} running") for n, who in enumerate(("man", "woman"))
    )
    assert not rows.differ(man, woman)
    assert rows.differ(man, make_item(7))
    assert sources.person_stem("man running") == sources.person_stem("woman running") == "running"


def test_captions_tell_the_truth_about_themselves():
    item, rng = make_item(1), random.Random(3)
    seen = collections.Counter()
    for _ in range(3000):
        caption = captions.draw(item, rng, {})
        seen[caption.kind] += 1
        if caption.kind == "english":
            assert caption.informative and caption.language == "en"
            assert any(word in caption.text.lower() for word in ("thing1", "alpha", "beta", "gamma"))
        if caption.kind in ("boilerplate", "spam"):
            assert not caption.informative and "thing1" not in caption.text
        if caption.kind == "file_name":
            assert caption.informative == ("thing1" in caption.text)
            assert caption.text.rsplit(".", 1)[1].lower() in ("png", "jpg", "gif", "svg", "webp")
        if caption.kind == "other_language":
            assert caption.text != item.label
            if caption.language == "ja":
                assert "物1" in caption.text
    for kind, share in captions.SHARES.items():
        assert abs(seen[kind] / 3000 - share) < 0.03


def test_clean_captions_differ_and_start_with_the_name():
    assert captions.clean(make_item(1))[:2] == ("thing1 name", "thing1 name, alpha, beta, gamma")
    flag = captions.clean(make_item(2, kind="flag", label="Peru", tags=("PE",)))
    assert flag[0] == "flag of Peru" and len(set(flag)) == len(flag) == 5


def test_emoji_names_agree_across_packages():
    assert sources.slug("Jack-O’-Lantern & more") == "jack-o-lantern-and-more"
    assert sources.code("1f3f3-fe0f-200d-1f308") == "1F3F3-200D-1F308"


@pytest.mark.parametrize("which", range(3))
def test_placeholders_are_not_blank(which):
    render.check_not_blank(render.placeholder(which))


def test_trim_finds_the_drawing_on_its_page():
    page = Image.new("RGB", (300, 400), "white")
    page.paste((200, 0, 0), (100, 50, 200, 130))
    trimmed = render.trim(page)
    assert trimmed.size == (100 + 2 * 16, 80 + 2 * 16)  # a margin of 4 % of the longer side of the page
    with pytest.raises(render.CannotDraw):
        render.trim(Image.new("RGB", (300, 400), "white"))


def test_banner_is_extreme_either_way():
    image = make_picture(0)
    shapes = [render.banner(render.decode(image.image), random.Random(n)).size for n in range(40)]
    assert all(width / height >= 3 for width, height in shapes)
    assert any(height < 20 for _, height in shapes) and any(width > 100 for width, _ in shapes)


def test_ink_is_a_colour_and_belongs_to_the_icon():
    from pools.build_image_text import ink

    colours = [ink(make_item(n, kind="icon")) for n in range(50)]
    assert colours == [ink(make_item(n, kind="icon")) for n in range(50)]
    channels = [(c[1:3], c[3:5], c[5:7]) for c in colours]
    assert sum(len(set(three)) > 1 for three in channels) > 40, (
        "greys only: the three channels are drawn alike"
    )
