"""Shingles and signatures against a plain-Python oracle, and the statistics that the method promises."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.barriers._unicode import LIMIT, UNSPACED, WORD, kind_of, lower_of
from curation.barriers.minhash import (
    band_buckets,
    collision_probability,
    permutations,
    signatures,
)

M64, M32 = 2**64 - 1, 2**32 - 1
P1, P2, P3, P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5


def mix(h: int) -> int:
    h = ((h ^ h >> 33) * P2) & M64
    h = ((h ^ h >> 29) * P3) & M64
    return h ^ h >> 32


def words_of(text: str) -> list[str]:
    words, open_word = [], ""
    for char in text:
        flags = kind_of(char) if ord(char) < LIMIT else WORD | UNSPACED
        if flags & WORD and not flags & UNSPACED:
            open_word += lower_of(char)
            continue
        if open_word:
            words.append(open_word)
            open_word = ""
        if flags & WORD:
            words.append(char)
    return [*words, open_word] if open_word else words


def word_hash(word: str) -> int:
    h = P5
    for char in word:
        h = ((h ^ ord(char)) * P2) & M64
    return mix(h)


def shingles_of(text: str, ngram: int) -> list[int]:
    hashes = [word_hash(w) for w in words_of(text)]

    def rolled(part):
        h = 0
        for value in part:
            h = (h * P1 + value) & M64
        return h

    if 0 < len(hashes) < ngram:
        return [mix(rolled(hashes) ^ (len(hashes) * P3 & M64))]
    return [mix(rolled(hashes[i : i + ngram])) for i in range(len(hashes) - ngram + 1)]


def signature_of(text: str, ngram: int, a, b) -> list[int]:
    shingles = [(s >> 32, s & M32) for s in shingles_of(text, ngram)]
    return [
        min(((x * high + y * low) & M32 for high, low in shingles), default=M32)
        for x, y in zip(a, b, strict=True)
    ]


TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["One", "two", "Ünd", "3", "日本語", "ไทย", "naïve", "Ⅷ", "𠀀", "ẞ"])).map(
        " ".join
    ),
    st.text("aB .\n日", max_size=60),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), TEXT), max_size=5), st.integers(1, 6), st.integers(0, 3))
@example(["one two three four five", "a b c d", "", "...", "İstanbul ΑΣ", None], 5, 0)
def test_signatures_are_those_of_the_oracle(texts, ngram, skip):
    column = pa.array(texts, pa.string())[skip:]
    made, words = signatures(column, ngram, n=6, seed=3)
    a, b = (p.tolist() for p in permutations(6, 3))
    for row, text in enumerate(texts[skip:]):
        assert words[row] == len(words_of(text or ""))
        if text is not None:
            assert made[row].tolist() == signature_of(text, ngram, a, b)


def test_documents_longer_than_a_block_are_signed_whole():
    order = random.Random(0)
    text = " ".join(f"w{order.randrange(10**6)}" for _ in range(5000))
    made, words = signatures(pa.array([text]), 5, n=4)
    assert words.tolist() == [5000]
    assert made[0].tolist() == signature_of(text, 5, *(p.tolist() for p in permutations(4, 1)))


def test_text_layout_and_case_do_not_matter():
    texts = ["The QUICK brown fox — jumps over", "the quick, brown; FOX jumps\n\nover!"]
    made, _ = signatures(pa.array(texts), 3)
    assert (made[0] == made[1]).all()
    wide, _ = signatures(pa.array(["x", *texts, None]).cast(pa.large_string())[1:3], 3)
    assert (wide == made).all()


def test_ill_formed_utf8_stays_within_its_row():
    raw = [b"ok word", b"cut \xe6\x97", b"\xf0\x9f", b"\xff\xfe\x80 a", b"tail"]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int32)
    column = pa.StringArray.from_buffers(
        len(raw), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(raw))
    )
    made, words = signatures(column, 2, n=8)
    assert words.tolist() == [2, 1, 0, 1, 1]
    for row in (0, 4):
        alone, _ = signatures(pa.array([raw[row].decode()]), 2, n=8)
        assert (made[row] == alone[0]).all()


def test_buckets_tell_bands_apart():
    same = np.full((1, 8), 7, np.uint32)
    assert len(set(band_buckets(same, 4, 2)[0].tolist())) == 4
    assert band_buckets(same, 4, 2).tolist() == band_buckets(np.vstack([same, same]), 4, 2)[1:].tolist()


# ---------------------------------------------------------------------------------------------- statistics

PAIRS, SIZE = 1500, 120


def pairs(similarity: float, seed: int) -> tuple[pa.Array, pa.Array, float]:
    """Texts of distinct words whose word sets have about this Jaccard similarity, and the exact one."""
    order = random.Random(seed)
    shared = round(2 * SIZE * similarity / (1 + similarity))
    first, second = [], []
    for _ in range(PAIRS):
        names = [f"{order.getrandbits(40):x}q" for _ in range(2 * SIZE - shared)]
        first.append(" ".join(names[:SIZE]))
        second.append(" ".join(names[SIZE - shared :]))
    return pa.array(first), pa.array(second), shared / (2 * SIZE - shared)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0])
def test_collisions_are_as_frequent_as_promised(similarity):
    first, second, exact = pairs(similarity, seed=int(100 * similarity))
    one, _ = signatures(first, 1)
    two, _ = signatures(second, 1)
    found = (band_buckets(one, 14, 8) == band_buckets(two, 14, 8)).any(axis=1).mean()
    expected = collision_probability(exact, 14, 8)
    sigma = (expected * (1 - expected) / PAIRS) ** 0.5
    assert abs(found - expected) <= 3 * sigma + 1e-12, f"{found} against {expected} ± {sigma}"


@pytest.mark.parametrize("similarity", [0.3, 0.7])
def test_places_of_a_signature_are_independent(similarity):
    first, second, exact = pairs(similarity, seed=5)
    one, _ = signatures(first, 1)
    two, _ = signatures(second, 1)
    matches = (one == two).sum(axis=1)
    mean, variance = 112 * exact, 112 * exact * (1 - exact)
    # J is that of a finite set: minima of one pair are drawn without bias but share their set
    assert abs(matches.mean() - mean) < 4 * (variance / PAIRS) ** 0.5
    assert 0.85 < matches.var() / variance < 1.15
    assert abs((one == two).mean(axis=0) - exact).max() < 5 * (exact * (1 - exact) / PAIRS) ** 0.5


def test_collision_probability_is_the_formula():
    assert collision_probability(0.8, 14, 8) == pytest.approx(0.924, abs=5e-4)  # datatrove's own figure
    assert collision_probability(1.0, 1, 1) == 1 and collision_probability(0.0, 5, 5) == 0
