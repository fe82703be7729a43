"""Header parsing against Pillow, and images that must be refused."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from filters.image_text import ImageBasics, ImageError
from filters.image_text.images import read_header
from filters.image_text.pixels import Pixels


def encode(width, height, kind, **options):
    rng = np.random.default_rng(width * 1000 + height)
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


CASES = [("png", {}), ("jpeg", {}), ("jpeg", {"progressive": True}), ("webp", {}),
         ("webp", {"lossless": True}), ("gif", {}), ("bmp", {}), ("tiff", {})]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (37, 5), (300, 260)])
def test_header_equals_pillow(kind, options, width, height):
    data = encode(width, height, kind, **options)
    assert read_header(data) == (kind, width, height)


def test_webp_with_extended_header():
    out = io.BytesIO()
    Image.new("RGBA", (70, 9), (255, 0, 0, 40)).save(out, "webp", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    assert out.getvalue()[12:16] == b"VP8X"
    assert read_header(out.getvalue()) == ("webp", 70, 9)


@pytest.mark.parametrize(("kind", "options"), CASES[:5])
def test_cut_short_is_refused_everywhere(kind, options):
    data = encode(64, 48, kind, **options)
    for length in [*range(0, 60), len(data) // 2, len(data) - 20]:
        with pytest.raises(ImageError):
            read_header(data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"hello world, not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9"]
)
def test_no_image(data):
    with pytest.raises(ImageError):
        read_header(data)


def batch(*images):
    return pa.record_batch({"image": pa.array(images, pa.binary())})


def test_struct_of_a_batch():
    found = ImageBasics()(batch(encode(40, 10, "png"), encode(8, 24, "webp"))).to_pylist()
    assert found == [
        {"width": 40, "height": 10, "aspect": 4.0, "format": "png"},
        {"width": 8, "height": 24, "aspect": 3.0, "format": "webp"},
    ]


def test_bad_row_raises_and_names_the_row():
    with pytest.raises(ImageError, match="row 1 of the batch: webp is cut short"):
        ImageBasics()(batch(encode(8, 8, "png"), encode(40, 40, "webp")[:-9]))
    with pytest.raises(ImageError, match="row 0 of the batch: the image is null"):
        ImageBasics()(batch(None))


def test_damage_behind_a_healthy_header_needs_decode():
    data = bytearray(encode(64, 64, "png"))
    data[len(data) // 2] ^= 0xFF
    assert ImageBasics()(batch(bytes(data))).to_pylist()[0]["width"] == 64
    with pytest.raises(ImageError, match="does not decode"):
        ImageBasics(decode=True)(batch(bytes(data)))


def test_decompression_bomb_is_refused_by_its_header():
    with pytest.raises(ImageError, match="exceed max_pixels"):
        ImageBasics(max_pixels=1000)(batch(encode(64, 64, "png")))


def test_transparent_is_laid_on_white_and_padding_is_white():
    out = io.BytesIO()
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(out, "png")
    assert (Pixels(size=8, resize="pad").one(out.getvalue()) == 255).all()
    red = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(red, "png")
    padded = Pixels(size=8, resize="pad").one(red.getvalue())
    assert (padded[:2] == 255).all() and (padded[-2:] == 255).all()
    assert (padded[2:-2] == [255, 0, 0]).all()
    assert (Pixels(size=8, resize="crop").one(red.getvalue()) == [255, 0, 0]).all()


def test_crop_agrees_with_open_clip_preprocessing():
    pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    data = encode(61, 47, "png")
    ours = Pixels(size=32, resize="crop")
    theirs = image_transform(32, is_train=False, mean=ours.mean, std=ours.std)
    expected = theirs(Image.open(io.BytesIO(data))).numpy()
    np.testing.assert_allclose(ours.normalise(ours.many([data]))[0].numpy(), expected, atol=1e-5)
