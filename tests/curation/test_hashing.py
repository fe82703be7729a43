import datetime

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import hashing

SEEDS = st.integers(0, 2**64 - 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=150))), SEEDS, st.integers(0, 5))
def test_hash64_is_xxh64(rows, seed, skip):
    expected = [0 if r is None else xxhash.xxh64_intdigest(r, seed=seed) for r in rows[skip:]]
    for kind in (pa.binary(), pa.large_binary()):
        assert hashing.hash64(pa.array(rows, kind)[skip:], seed).tolist() == expected
    first, second = hashing.hash128(pa.array(rows, pa.binary())[skip:], seed)
    assert first.tolist() == expected
    other = seed ^ hashing.SECOND_SEED
    assert second.tolist() == [0 if r is None else xxhash.xxh64_intdigest(r, seed=other) for r in rows[skip:]]


@pytest.mark.parametrize("size", range(0, 100))
def test_hash64_at_every_length(size):
    row = bytes(range(size))
    assert hashing.hash64(pa.array([row]), 7).tolist() == [xxhash.xxh64_intdigest(row, seed=7)]


def test_hash64_of_text_layouts():
    words = ["α", None, "", "naïve text, longer than twelve bytes", "α"]
    expected = [0 if w is None else xxhash.xxh64_intdigest(w.encode()) for w in words]
    plain = pa.array(words)
    layouts = [
        plain,
        plain.cast(pa.large_string()),
        plain.cast(pa.string_view()),
        plain.dictionary_encode(),
        pa.chunked_array([plain[:2], plain[2:]]),
    ]
    for column in layouts:
        assert hashing.hash64(column).tolist() == expected


def test_hash64_of_fixed_width_columns():
    eight = [xxhash.xxh64_intdigest(v.to_bytes(8, "little", signed=True)) for v in (-1, 0, 5)]
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        assert hashing.hash64(pa.array([9, -1, 0, 5], kind)[1:]).tolist() == eight
    big = 2**64 - 1
    assert hashing.hash64(pa.array([big], pa.uint64())).tolist() == [
        xxhash.xxh64_intdigest(big.to_bytes(8, "little"))
    ]
    assert hashing.hash64(pa.array([True, False])).tolist() == [
        xxhash.xxh64_intdigest((v).to_bytes(8, "little")) for v in (1, 0)
    ]
    days = pa.array([datetime.date(1970, 1, 6)])
    assert hashing.hash64(days).tolist() == eight[2:]
    fixed = pa.array([b"abc", b"xyz", None], pa.binary(3))[1:]
    assert hashing.hash64(fixed).tolist() == [xxhash.xxh64_intdigest(b"xyz"), 0]


def test_hash64_of_nothing():
    assert hashing.hash64(pa.array([], pa.string())).tolist() == []
    assert hashing.hash64(pa.array([None, None])).tolist() == [0, 0]
    assert hashing.hash64(pa.chunked_array([], pa.string())).tolist() == []


def test_columns_without_a_byte_form_are_refused():
    with pytest.raises(TypeError, match=r"column of type double.*cast it to string"):
        hashing.hash64(pa.array([1.5]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text()), st.text())
def test_uniform_agrees_with_its_scalar_twin(ids, salt):
    draws = hashing.uniform(pa.array(ids, pa.string()), salt)
    assert draws.tolist() == [hashing.uniform_of(i, salt) for i in ids]


def test_uniform_is_uniform_and_salted():
    ids = pa.array([str(i) for i in range(100_000)])
    a, b = hashing.uniform(ids, "a"), hashing.uniform(ids, "b")
    assert a.min() >= 0 and a.max() < 1
    counts = np.histogram(a, 100, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees: 1e-4 quantile
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert hashing.uniform_of("0", "a") == pytest.approx(a[0], abs=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text("abc", max_size=4), max_size=30), max_size=8))
def test_duplicate_ids_are_those_of_a_set(batches):
    seen: set[str] = set()
    ids = hashing.DuplicateIds()
    for batch in batches:
        expected = []
        for row in batch:
            expected.append(row in seen)
            seen.add(row)
        assert ids.add(pa.array(batch, pa.string())).tolist() == expected
    assert len(ids) == len(seen)


def test_duplicate_ids_grow_and_keep_what_they_hold():
    ids = hashing.DuplicateIds()
    column = pa.array([f"{i:032x}" for i in range(50_000)])
    for start in range(0, 50_000, 700):
        assert not ids.add(column[start : start + 700]).any()
    assert ids.add(column).all() and len(ids) == 50_000
    assert not ids.add(pa.array(["", "x"])).any()


def test_a_key_of_zeros_is_a_key_like_others():
    ids = hashing.DuplicateIds()
    zero = np.zeros(1, np.uint64)
    assert ids.add_hashes(zero, zero).tolist() == [False]
    assert ids.add_hashes(zero, zero).tolist() == [True]


def test_a_missing_id_is_named():
    with pytest.raises(ValueError, match="row 1 has no id"):
        hashing.DuplicateIds().add(pa.array(["a", None]))
