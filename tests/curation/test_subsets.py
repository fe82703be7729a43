import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import subsets
from curation.apply import apply_step, ready
from curation.barriers import subset
from curation.errors import PlanError

UIDS = st.lists(st.integers(0, 7).map(lambda i: f"{(i % 4) << 126 | i * 3 << 62 | i // 2:032x}"), max_size=30)


def reference(uids) -> np.ndarray:
    """DataComp's own construction."""
    return np.sort(np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], np.dtype("u8,u8")))


@settings(max_examples=40, deadline=None)
@given(uids=UIDS)
def test_files_are_numpys_own(tmp_path_factory, uids):
    folder = tmp_path_factory.mktemp("subset")
    np.save(folder / "theirs.npy", reference(uids))
    assert subsets.write_subset(folder / "ours.npy", uids) == len(uids)
    assert (folder / "ours.npy").read_bytes() == (folder / "theirs.npy").read_bytes()
    subsets.write_subset(folder / "ours.bin", pa.array(uids, pa.string()))
    assert (folder / "ours.bin").read_bytes() == reference(uids).tobytes()
    for name in ("ours.npy", "ours.bin"):
        back = subsets.read_subset(folder / name)
        assert back.dtype == np.dtype("u8,u8")
        assert subsets.format_ids(back).to_pylist() == sorted(uids)


@settings(max_examples=80, deadline=None)
@given(UIDS, UIDS, UIDS)
def test_algebra_is_that_of_counters(first, second, asked):
    a, b = subsets.parse_ids(pa.array(first, pa.string())), reference(second)
    x, y = Counter(first), Counter(second)
    for name, expected in {
        "union": x | y,
        "intersection": x & y,
        "difference": x - y,
        "add": x + y,
    }.items():
        assert subsets.format_ids(getattr(subsets, name)(a, b)).to_pylist() == sorted(expected.elements())
    column = pa.array(asked, pa.string())
    assert subsets.multiplicity(b, column).tolist() == [y[u] for u in asked]
    assert subsets.contains(b, column).tolist() == [u in y for u in asked]


def test_many_ids_are_found():
    order = random.Random(0)
    uids = [f"{order.getrandbits(128):032x}" for _ in range(20_000)]
    held = subsets.union(uids[:10_000], [])
    found = subsets.contains(held, pa.array(uids).cast(pa.large_string())[5000:15_000])
    assert found.tolist() == [True] * 5000 + [False] * 5000
    upper = pa.array([uids[0].upper()])
    assert subsets.contains(held, upper).tolist() == [True]


@pytest.mark.parametrize("bad", ["", "00", "g" * 32, "0" * 31 + "é", "0" * 33, "-" + "0" * 31])
def test_an_id_that_is_no_uid_is_named(bad):
    with pytest.raises(ValueError, match=r"row 1: id .* is not a DataComp uid"):
        subsets.parse_ids(pa.array(["0" * 32, bad]))


def test_other_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="row 0 has no id"):
        subsets.parse_ids(pa.array([None, "0" * 32]))
    with pytest.raises(TypeError, match="ids are int64"):
        subsets.parse_ids(pa.array([1]))
    with pytest.raises(TypeError, match="is no subset"):
        subsets.union(np.zeros(3), [])
    np.save(tmp_path / "floats.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"floats.npy: an array of float64 with shape \(3,\)"):
        subsets.read_subset(tmp_path / "floats.npy")
    np.save(tmp_path / "big.npy", np.zeros(3, ">u8,>u8"))
    with pytest.raises(ValueError, match=r"big.npy: an array of"):
        subsets.read_subset(tmp_path / "big.npy")
    np.save(tmp_path / "unsorted.npy", reference(["0" * 32, "f" * 32])[::-1])
    with pytest.raises(ValueError, match=r"unsorted.npy: entry 1 is smaller"):
        subsets.read_subset(tmp_path / "unsorted.npy")
    (tmp_path / "short.bin").write_bytes(b"0" * 17)
    with pytest.raises(ValueError, match=r"17 bytes are no whole number"):
        subsets.read_subset(tmp_path / "short.bin")
    np.save(tmp_path / "object.npy", np.array([{}], object))
    with pytest.raises(ValueError, match="Python objects"):
        subsets.read_subset(tmp_path / "object.npy")


def test_the_step_keeps_and_repeats(tmp_path):
    uids = [f"{i:032x}" for i in range(5)]
    subsets.write_subset(tmp_path / "ids.npy", [uids[3], uids[1], uids[3], "f" * 32])
    step = subset(tmp_path / "ids.npy", reason="chosen")
    assert step.name == "chosen" and step.reason == "chosen"
    batch = pa.record_batch({"id": uids, "n": [0, 1, 2, 3, 4]})
    outcome = apply_step(ready(step), batch)
    assert outcome.batch.to_pydict() == {"id": [uids[1], f"{uids[3]}/0", f"{uids[3]}/1"], "n": [1, 3, 3]}
    assert outcome.dropped.tolist() == [0, 2, 4] and not outcome.errors
    with pytest.raises(PlanError, match=r"subset\('ids.npy'\)"):
        subset("")


def test_the_steps_identity_is_the_files_content(tmp_path):
    subsets.write_subset(tmp_path / "a.npy", ["0" * 32])
    subsets.write_subset(tmp_path / "b.npy", ["0" * 32])
    assert subset(tmp_path / "a.npy").identity == subset(tmp_path / "b.npy").identity
    subsets.write_subset(tmp_path / "b.npy", ["1" * 32])
    assert subset(tmp_path / "a.npy").identity != subset(tmp_path / "b.npy").identity
