"""Pixels against open_clip's evaluation transform: equal to the last uint8, over sizes and image modes."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from filters.image_text.pixels import Pixels, UndecodableImage

SIZES = [(16, 16), (17, 31), (31, 17), (64, 5), (5, 64), (33, 32), (32, 33), (100, 99), (223, 97), (1, 9)]
MODES = ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "PA in P", "I;16"]


def picture(mode, size, seed=0):
    """A photo-like image: smooth, with some noise; encoded in a file format that keeps the mode."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([np.sin(x / 5 + i) + np.cos(y / (3 + i)) for i in range(4)], -1)
    pixels = np.clip(60 * smooth + 128 + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    rgba = Image.fromarray(pixels, "RGBA")
    out = io.BytesIO()
    if mode == "CMYK":
        rgba.convert("RGB").convert("CMYK").save(out, "jpeg", quality=92)
    elif mode == "PA in P":
        rgba.convert("RGB").quantize(16).save(out, "png", transparency=3)
    elif mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(out, "png")
    elif mode == "P":
        rgba.convert("RGB").quantize(40).save(out, "png")
    elif mode == "LA":
        rgba.convert("LA").save(out, "png")
    else:
        rgba.convert(mode).save(out, "png")
    return out.getvalue()


def theirs(data, size, resize_mode="shortest", interpolation="bicubic", fill=0, first=None):
    open_clip = pytest.importorskip("open_clip")
    transform = open_clip.image_transform(
        size, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3,
        resize_mode=resize_mode, interpolation=interpolation, fill_color=fill,
    )  # fmt: skip
    image = Image.open(io.BytesIO(data))
    tensor = transform(image if first is None else image.convert(first))
    return (tensor.permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_equals_open_clips_transform(mode, resize_mode):
    for seed, size in enumerate(SIZES):
        if resize_mode == "longest" and min(size) * 32 < max(size):
            continue  # open_clip rounds the shorter side to nothing and fails
        data = picture(mode, size, seed)
        for interpolation in ("bicubic", "bilinear"):
            settings = {
                "size": 32, "resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 9
            }  # fmt: skip
            pixels = Pixels.from_open_clip(settings)
            expected = theirs(data, 32, resize_mode, interpolation, 9)
            np.testing.assert_array_equal(pixels.one(data), expected, err_msg=f"{size} {settings}")


@pytest.mark.parametrize("mode", MODES)
def test_dropping_alpha_equals_open_clips_transform_after_a_loader_that_decodes_to_rgb(mode):
    pixels = Pixels(size=32, rgb="drop")
    for seed, size in enumerate(SIZES):
        data = picture(mode, size, seed)
        np.testing.assert_array_equal(pixels.one(data), theirs(data, 32, first="RGB"), err_msg=str(size))


def test_the_three_ways_to_rgb_agree_on_plain_images_and_differ_on_others():
    def of(data):
        return [Pixels(size=24, rgb=way).one(data) for way in ("white", "drop", "last")]

    for mode in ("RGB", "L"):
        white, drop, last = of(picture(mode, (50, 41)))
        assert (white == drop).all() and (drop == last).all()
    white, drop, last = of(picture("RGBA", (50, 41)))
    assert (white != drop).any() and (drop != last).any()
    _, drop, last = of(picture("P", (50, 41)))
    assert (drop != last).any()  # Pillow resizes a palette by nearest neighbours


def test_exif_does_not_rotate():
    image = Image.open(io.BytesIO(picture("RGB", (60, 40))))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    out = io.BytesIO()
    image.save(out, "jpeg", exif=exif, quality=90)
    plain = io.BytesIO()
    image.save(plain, "jpeg", quality=90)
    pixels = Pixels(size=32)
    np.testing.assert_array_equal(pixels.one(out.getvalue()), pixels.one(plain.getvalue()))
    np.testing.assert_array_equal(pixels.one(out.getvalue()), theirs(out.getvalue(), 32))


def test_normalise_equals_open_clips():
    torch = pytest.importorskip("torch")
    open_clip = pytest.importorskip("open_clip")
    data = picture("RGB", (50, 41))
    pixels = Pixels.from_open_clip({"size": 32})
    expected = open_clip.image_transform(32, is_train=False)(Image.open(io.BytesIO(data)))
    found = pixels.normalise(torch.from_numpy(pixels.one(data)[None].copy()))[0]
    assert (found - expected).abs().max() < 2e-6


def test_padding_takes_the_fill():
    data = picture("RGB", (20, 10))
    assert (Pixels(size=8, resize="pad").one(data)[0] == 255).all()
    assert (Pixels(size=8, resize="pad", fill=7).one(data)[0] == 7).all()


def test_stored_settings_are_those_of_before_until_a_new_one_is_used():
    assert list(Pixels(size=32, resize="pad").to_dict()) == ["size", "resize", "mean", "std"]
    for pixels in (Pixels.from_open_clip({"size": [48, 48], "mean": 0.5}), Pixels(fill=0, rgb="drop")):
        assert Pixels(**pixels.to_dict()) == pixels
    assert Pixels.from_open_clip({"size": [48, 48], "mean": 0.5}).mean == (0.5, 0.5, 0.5)
    assert dataclasses.asdict(Pixels.from_open_clip({}))["size"] == 224


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": [32, 48]}, "only square"),
        ({"resize_mode": "fit"}, 'resize_mode is "fit"'),
        ({"interpolation": "nearest"}, 'interpolation is "nearest"; use one of "bicubic", "bilinear"'),
        ({"mean": [0.5, 0.5]}, "mean has 2 values"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_settings_that_are_not_supported_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Pixels.from_open_clip(settings)


def test_an_error_knows_its_row_and_travels():
    import pickle

    with pytest.raises(UndecodableImage, match="row 1: cannot decode an image of 3 bytes") as caught:
        Pixels(size=8).many([picture("RGB", (9, 9)), b"abc"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.row, str(again)) == (1, str(caught.value))


def test_equals_open_clips_transform_on_the_photos_that_ship_with_the_project():
    pq = pytest.importorskip("pyarrow.parquet")
    file = Path(__file__).parents[2] / "pools" / "data" / "image_text" / "evaluation.parquet"
    images = pq.read_table(file, columns=["image"])["image"].to_pylist()[::40]
    assert len(images) > 50
    pixels = Pixels.from_open_clip({"size": 96})
    for row, data in enumerate(images):
        np.testing.assert_array_equal(pixels.one(data), theirs(data, 96), err_msg=f"row {40 * row}")
