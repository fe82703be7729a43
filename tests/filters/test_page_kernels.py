"""The look at a page's bytes against plain counting."""

import random

import numpy as np
import pytest

from filters.text.page_kernels import tags

WINDOW = 64  # words


def expected(page: bytes) -> tuple[int, int, bool]:
    """By the rule: `<` in all but the last word; of those, the ones before `/`; windows of 512 bytes."""
    words = len(page) // 8 - 1
    seen = page[: 8 * words]
    pairs = sum(page[i : i + 2] == b"</" for i in range(len(seen)))
    windows = [seen[i : i + 8 * WINDOW] for i in range(0, len(seen), 8 * WINDOW)]
    return seen.count(b"<"), pairs, any(len(w) == 8 * WINDOW and b">" not in w for w in windows)


@pytest.mark.parametrize(
    "alphabet", [b"</>a", b"</ab", b"<<<<", b"//<<", bytes(range(256)), b">" + b"a" * 600]
)
@pytest.mark.parametrize("size", [8, 9, 16, 23, 511, 520, 1024, 5000, 70_000])
def test_tags_are_counted_as_by_hand(alphabet, size):
    page = bytes(random.Random(size).choices(alphabet, k=size))
    assert tags(np.frombuffer(page, np.uint64, size >> 3), WINDOW) == expected(page)
    lying = memoryview(b"x" + page)[1:]  # at an address that is no multiple of eight
    assert tags(np.frombuffer(lying, np.uint64, size >> 3), WINDOW) == expected(page)
