"""Training views: torchvision's crop for the same box, its rule for boxes, and no trace of who made them."""

import io
import math

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")

from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms.functional import resized_crop as torchvision_crop  # noqa: E402

from filters.image_text.pixels import Pixels, UndecodableImage  # noqa: E402
from recipes.clip.augment import Views, crop_box, draws, resized_crop  # noqa: E402


def photo(width, height, mode="RGB", form="JPEG"):
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)))
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("size", [(512, 384), (64, 300), (224, 224), (31, 7)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_crop_equals_torchvisions_for_the_same_box(size, mode):
    data = photo(*size, mode)
    views = Views(Pixels(size=48), seed=3, batch=8, area=(0.5, 1.0))
    made = views.make([data] * 3, step=5, start=2)
    decoded = Image.open(io.BytesIO(data)).convert("RGB")  # as webdataset's pilrgb decodes
    for row, draw in enumerate(draws(3, 5, 2, 5).tolist()):
        left, top, right, bottom = crop_box(*size, draw, (0.5, 1.0))
        wanted = torchvision_crop(
            decoded, top, left, bottom - top, right - left, [48, 48], InterpolationMode.BICUBIC
        )
        assert np.array_equal(made[row], np.asarray(wanted))


def test_pixels_are_open_clips_when_the_box_is_the_same(monkeypatch):
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    chain = open_clip.image_transform(
        (64, 64), is_train=True, aug_cfg=open_clip.transform.AugmentationCfg(scale=(0.9, 1.0))
    )
    data = photo(300, 200)
    draw = draws(0, 1, 4, 5)[0].tolist()
    left, top, right, bottom = crop_box(300, 200, draw, (0.9, 1.0))
    monkeypatch.setattr(
        transforms.RandomResizedCrop, "get_params", lambda *a: (top, left, bottom - top, right - left)
    )
    wanted = chain(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels = Pixels(size=64)
    made = Views(pixels, 0, 8, (0.9, 1.0)).make([data], 1, 4)
    assert torch.allclose(pixels.normalise(made)[0], wanted, atol=1e-6)


def boxes_by_hand(width, height, draw, area):
    """torchvision's get_params, written a second time, from given draws."""
    for k in range(10):
        a, r, i, j = draw[4 * k : 4 * k + 4]
        target = width * height * (area[0] + (area[1] - area[0]) * a)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * r)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = math.floor(i * (height - h + 1)), math.floor(j * (width - w + 1))
            return left, top, left + w, top + h
    return None


@pytest.mark.parametrize("size", [(640, 480), (300, 300), (100, 90), (1000, 50), (50, 1000)])
def test_box_statistics_follow_torchvision(size):
    width, height = size
    rule = transforms.RandomResizedCrop(8, scale=(0.9, 1.0))
    blank = Image.new("RGB", size)
    torch.manual_seed(0)
    n = 3000
    theirs = np.array([rule.get_params(blank, (0.9, 1.0), (3 / 4, 4 / 3)) for _ in range(n)], float)
    theirs = np.stack([theirs[:, 1], theirs[:, 0], theirs[:, 3], theirs[:, 2]], axis=1)  # left, top, w, h
    found = [crop_box(width, height, d, (0.9, 1.0)) for d in draws(1, 2, 0, n).tolist()]
    ours = np.array([(a, b, c - a, d - b) for a, b, c, d in found], float)
    spread = np.maximum(theirs.std(0), ours.std(0))
    assert (np.abs(theirs.mean(0) - ours.mean(0)) <= 5 * spread * math.sqrt(2 / n) + 1e-9).all()
    for quantile in (0.1, 0.5, 0.9):
        gap = np.abs(np.quantile(theirs, quantile, axis=0) - np.quantile(ours, quantile, axis=0))
        assert (gap <= 0.2 * spread + 1).all()
    for box, draw in zip(found[:200], draws(1, 2, 0, 200).tolist(), strict=True):
        by_hand = boxes_by_hand(width, height, draw, (0.9, 1.0))
        assert by_hand is None or by_hand == box


def test_a_box_that_never_fits_is_the_middle_in_the_nearest_ratio():
    draw = [0.5] * 40
    assert crop_box(1000, 50, draw, (0.9, 1.0)) == (466, 0, 533, 50)
    assert crop_box(50, 1000, draw, (0.9, 1.0)) == (0, 466, 50, 533)
    for size in ((1000, 50), (50, 1000)):
        i, j, h, w = transforms.RandomResizedCrop.get_params(Image.new("L", size), (0.9, 1.0), (3 / 4, 4 / 3))
        assert crop_box(*size, draw, (0.9, 1.0)) == (j, i, j + w, i + h)


def test_draws_belong_to_a_place():
    whole = draws(7, 11, 0, 20)
    assert whole.shape == (20, 40) and (whole >= 0).all() and (whole < 1).all()
    for start, stop in ((0, 1), (3, 20), (19, 20)):
        assert np.array_equal(draws(7, 11, start, stop), whole[start:stop])
    assert (
        len({tuple(row) for row in np.concatenate([whole, draws(7, 12, 0, 20), draws(8, 11, 0, 20)])}) == 60
    )


def test_views_of_parts_are_those_of_the_whole():
    images = [photo(40 + i, 30 + i) for i in range(7)]
    for views in (
        Views(Pixels(size=16), 5, 7, (0.9, 1.0)),
        Views(Pixels(size=16, resize="pad"), 5, 7, None, shift=2, crop=0.8),
    ):
        whole = views.make(images, 9, 0)
        parts = [views.make(images[:3], 9, 0), views.make(images[3:], 9, 3)]
        assert np.array_equal(np.concatenate(parts), whole)
        assert not np.array_equal(views.make(images, 10, 0), whole)


def test_transparent_images_are_laid_on_white_and_can_be_as_datacomp_decodes_them():
    data = photo(30, 30, "RGBA", "PNG")
    draw = draws(0, 0, 0, 1)[0].tolist()
    box = crop_box(30, 30, draw, (0.9, 1.0))
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    dropped = Views(Pixels(size=8, rgb="drop"), 0, 1, (0.9, 1.0)).make([data], 0, 0)[0]
    assert np.array_equal(dropped, resized_crop(plain, box, 8, Image.Resampling.BICUBIC))
    white = Views(Pixels(size=8), 0, 1, (0.9, 1.0)).make([data], 0, 0)[0]
    assert white.mean() > dropped.mean()


def test_an_image_that_does_not_decode_is_named():
    good = photo(20, 20)
    with pytest.raises(UndecodableImage, match="cannot decode an image of 100 bytes") as caught:
        Views(Pixels(size=8), 0, 4, (0.9, 1.0)).make([good, good[:100]], 0, 0)
    assert caught.value.row == 1
