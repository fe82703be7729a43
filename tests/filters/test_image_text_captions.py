"""Caption basics: against a plain-Python oracle, and what counts as a file name or as boilerplate."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.image_text import CaptionBasics


def basics(*captions):
    batch = pa.record_batch({"text": pa.array(captions, pa.string())})
    return CaptionBasics()(batch).to_pylist()


# The white space of Python's str.split() and of Arrow's utf8_split_whitespace agree on everything but
# U+001C..U+001F, which Arrow does not take for space; captions hold none of them.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x1c\x1d\x1e\x1f")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(characters, max_size=40), min_size=1, max_size=8))
def test_counts_equal_plain_python(captions):
    for caption, found in zip(captions, basics(*captions), strict=True):
        assert found["n_words"] == len(caption.split())
        assert found["n_chars"] == len(caption)
        ascii_count = sum(ord(ch) < 128 for ch in caption)
        assert found["ascii_share"] == pytest.approx(ascii_count / max(1, len(caption)) if caption else 1.0)


def test_null_caption_is_null_and_neighbours_are_not_moved():
    first, null, last = basics("a dog", None, "two words here")
    assert null is None
    assert (first["n_words"], last["n_words"]) == (2, 3)


@pytest.mark.parametrize(
    "caption",
    ["IMG_0012.jpg", "DSC01234", "photo (3).jpeg", "a nice dog.png", "3f2504e04f8911d39a0c0305e82c3301",
     "1f600", "1920x1080", "https://example.com/a/b", "emoji_u1f600", "product-88213", "banner_top_left",
     "20190302_112233", "screenshot 2021-03-04"],
)  # fmt: skip
def test_file_names(caption):
    assert basics(caption)[0]["file_like"]


@pytest.mark.parametrize(
    "caption",
    ["a dog on a mat", "thinking face", "t-shirt", "COVID-19", "flag: France", "2nd place medal", "7-eleven",
     "B-52 bomber", "café", "Mr. Smith 1984", "jack-o-lantern", "Face", "feed", "猫", "", "decade", "e-mail",
     "version 2.0 of the map", "cute cat stock photo", "drawing of a cat", "a next-generation icon set",
     "AT&T tower", "3 < 5", "50 cent on stage", "a shop in Paris", "[left] and right"],
)  # fmt: skip
def test_real_captions_are_neither(caption):
    found = basics(caption)[0]
    assert not found["file_like"]
    assert not (found["boilerplate"] or found["promotional"] or found["markup"])


@pytest.mark.parametrize(
    "caption",
    ["Click to enlarge", "image 3 of 12", "untitled", "logo", "Photo 12",
     "thumbnail", "Image not found", "product image", "No image available", "read more", "alt text",
     "Share on Facebook", "imagen", "画像 3", "loading...", "Page 1 header picture", "Image result for cats"],
)  # fmt: skip
def test_boilerplate(caption):
    assert basics(caption)[0]["boilerplate"]


@pytest.mark.parametrize(
    "caption", ["logo of a bank on a wall", "share of the cake", "a click beetle", "next door"]
)
def test_words_of_boilerplate_inside_a_caption_are_no_boilerplate(caption):
    assert not basics(caption)[0]["boilerplate"]


@pytest.mark.parametrize(
    "caption",
    ["Free shipping on all orders", "20% off today", "handbags – $83.99", "SKU 53315 blue",
     "best price for shoes", "win a pair of shoes, terms apply", "order sunglasses now and save €44"],
)  # fmt: skip
def test_promotional(caption):
    assert basics(caption)[0]["promotional"]


@pytest.mark.parametrize(
    "caption",
    ["&lt;b&gt;a dog&lt;/b&gt;", "<img src=x>", "see https://example.com now", "{{ product.name }}",
     "fish&nbsp;soup", '[caption id="3"] a dog', "dog &#8211; cat"],
)  # fmt: skip
def test_markup(caption):
    assert basics(caption)[0]["markup"]
