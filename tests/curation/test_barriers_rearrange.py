import numpy as np
import pyarrow as pa
import pytest

from curation import barriers
from curation.barriers import Totals, reshard, shuffle
from curation.errors import PlanError
from curation.identity import class_identity

IDS = pa.array([f"id-{i}" for i in range(10_000)])


def place(barrier, order=None, batch=997):
    """{id: (shard, key)}, with the ids cut into batches, perhaps in another order."""
    ids = IDS if order is None else IDS.take(pa.array(order))
    totals = Totals(rows=(4000, 0, 6000), bytes=10)
    n_out = barrier.layout(totals)
    out = {}
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        shard, key = barrier.assign(part, start, totals, n_out)
        assert shard.dtype == np.int32 and key.dtype == np.uint64
        assert shard.min() >= 0 and shard.max() < n_out
        out |= dict(zip(part.to_pylist(), zip(shard.tolist(), key.tolist(), strict=True), strict=True))
    return out


def test_a_shuffle_depends_on_ids_and_seed_alone():
    first = place(shuffle(seed=1, shards=8))
    backwards = place(shuffle(seed=1, shards=8), order=np.arange(len(IDS))[::-1].copy(), batch=100)
    assert first == backwards
    other = place(shuffle(seed=2, shards=8))
    moved = sum(first[i][0] != other[i][0] for i in first)
    assert abs(moved / len(first) - 7 / 8) < 0.02


def test_a_shuffle_is_even_and_its_order_has_nothing_to_do_with_its_shards():
    placed = place(shuffle(shards=8))
    shard = np.array([s for s, _ in placed.values()])
    key = np.array([k for _, k in placed.values()], dtype=np.float64)
    assert np.bincount(shard, minlength=8).min() > 1250 - 4 * 33
    assert abs(np.corrcoef(shard, key)[0, 1]) < 0.04
    assert abs(np.corrcoef(np.arange(len(key)), key)[0, 1]) < 0.04
    assert len(set(key)) == len(key)


def test_shuffled_shards_hold_about_128_mb():
    assert shuffle().layout(Totals((5,), bytes=0)) == 1
    assert shuffle().layout(Totals((5,), bytes=128 << 20)) == 1
    assert shuffle().layout(Totals((5,), bytes=(128 << 20) + 1)) == 2
    assert shuffle(shards=7).layout(Totals((5,), bytes=1)) == 7


def test_reshard_cuts_in_order():
    placed = place(reshard(rows=1500), batch=777)
    ranked = sorted(placed, key=placed.__getitem__)
    assert ranked == IDS.to_pylist()
    sizes = np.bincount([s for s, _ in placed.values()])
    assert sizes.tolist() == [1500] * 6 + [1000]
    assert reshard(10).layout(Totals(())) == 1
    assert reshard(10).layout(Totals((10, 10))) == 2


def test_mistakes_are_named():
    with pytest.raises(PlanError, match="shards is 0"):
        shuffle(shards=0)
    with pytest.raises(PlanError, match="rows is 0"):
        reshard(rows=0)


def test_every_module_a_barrier_works_with_is_part_of_its_identity():
    steps = [
        barriers.dedup_exact(),
        barriers.dedup_minhash(),
        barriers.top_fraction("s", 0.1),
        barriers.sample(rows=1),
        shuffle(),
        reshard(),
        barriers.subset("ids.npy"),
    ]
    for step in steps:
        sources = dict(class_identity(type(step))[1])
        assert type(step).__module__ in sources and all(sources.values()), sources
    named = {name for step in steps for name in getattr(step, "uses", ())}
    kernels = ("curation._hash_kernels", "curation.barriers._text_kernels", "curation.barriers._unicode")
    assert named.issuperset(kernels)
