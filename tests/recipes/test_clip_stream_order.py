"""The order of streamed sets, without files: exact counts, no pair twice in a batch, same from any start."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")

from curation.subsets import DTYPE
from recipes.clip.index import ShardRows, count_distinct
from recipes.clip.order import (
    BlockOrder,
    ReplacedOrder,
    SmallOrder,
    check_share,
    in_round,
    lanes_of,
    shape_of,
)
from recipes.clip.sampling import SamplingError
from recipes.clip.selection import Selection, order_of, refuse_unusable


@dataclass
class FakeIndex:
    """Shards of given keys (numbers), in memory."""

    numbers: list[np.ndarray]
    weight: list[np.ndarray] | None = None

    @property
    def shards(self):
        return self.numbers

    def remembered(self, what, make):
        return make()

    def read(self, shard):
        low = self.numbers[shard].astype(np.uint64)
        keys = np.stack([low * np.uint64(0x9E3779B97F4A7C15), low], axis=1)
        weight = None if self.weight is None else self.weight[shard]
        return ShardRows(keys, None, None, None, None, None, weight, None)


def index_of(sizes, **options):
    ends = np.cumsum(sizes)
    return FakeIndex([np.arange(e - s, e) for s, e in zip(sizes, ends, strict=True)], **options)


def subset_of(numbers):
    keys = FakeIndex([np.asarray(numbers)]).read(0).keys
    words = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    return np.ascontiguousarray(words).view(DTYPE).reshape(-1)


def numbers_seen(order, index, first=0, stop=None):
    """Row numbers of each batch: int64 [steps, batch]."""
    stop = order.steps if stop is None else stop
    out = []
    for number in range(order.block_of(first), order.block_of(stop - 1) + 1):
        block = order.block(number)
        assert block.number == number and block.first == order.border(number)[0]
        found = np.empty(block.shard.shape, np.int64)
        for shard in np.unique(block.shard):
            mine = block.shard == shard
            found[mine] = index.numbers[shard][block.row[mine]]
        skip = max(0, first - block.first)
        out.append(found[skip : stop - block.first])
    return np.concatenate(out)


def none_twice(batches):
    ranked = np.sort(batches, axis=1)
    return bool((ranked[:, 1:] != ranked[:, :-1]).all())


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=9),
    batch=st.sampled_from([1, 2, 5, 6, 8, 12]),
    steps=st.integers(1, 90),
    seed=st.integers(0, 3),
)
def test_epochs_are_exact_whatever_the_shards(sizes, batch, steps, seed):
    assume(sum(sizes) >= batch)
    index = index_of(sizes)
    order, facts = order_of("epochs", Selection(index, seed=seed), batch, steps * batch, seed)
    assert isinstance(order, BlockOrder) == (sum(sizes) >= 8 * batch)
    batches = numbers_seen(order, index)
    assert batches.shape == (steps, batch) and none_twice(batches)
    whole = steps * batch // sum(sizes)
    counts = np.bincount(batches.reshape(-1), minlength=sum(sizes))
    assert set(counts.tolist()) <= {whole, whole + 1}
    assert facts["epochs"] == steps * batch / sum(sizes)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=7),
    repeats=st.lists(st.integers(0, 6), min_size=7, max_size=31),
    batch=st.sampled_from([2, 4, 5]),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2),
)
def test_multiplicity_is_exact_over_whole_epochs(sizes, repeats, batch, epochs, seed):
    index = index_of(sizes)
    times = np.resize(repeats, sum(sizes))
    rows, distinct = int(times.sum()), int((times > 0).sum())
    assume(distinct >= 3 * batch)
    # the budget: whole epochs, cut to whole batches by leaving out the last rows' copies
    assume(rows * epochs % batch == 0)
    subset = subset_of(np.repeat(np.arange(sum(sizes)), times))
    selection = Selection(index, subset, seed=seed)
    try:
        order, _ = order_of("epochs", selection, batch, rows * epochs, seed)
        batches = numbers_seen(order, index)
    except SamplingError:
        assert distinct < 8 * batch  # few pairs of great multiplicity: single rows that no swap could mend
        return
    assert none_twice(batches)
    assert np.bincount(batches.reshape(-1), minlength=len(times)).tolist() == (times * epochs).tolist()
    assert selection.missing == 0


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=7),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.7, 3.0]), min_size=5, max_size=40),
    batch=st.sampled_from([2, 4, 5]),
    steps=st.integers(8, 80),
    seed=st.integers(0, 3),
)
def test_weights_are_exact(sizes, weights, batch, steps, seed):
    weight = np.resize(weights, sum(sizes))
    assume((weight > 0).sum() >= 2 * batch)
    index = index_of(sizes, weight=np.split(weight, np.cumsum(sizes)[:-1]))
    selection = Selection(index, by_column=True, samples=steps * batch, seed=seed)
    expected = weight * (steps * batch / weight.sum())
    if np.ceil(expected.max()) > steps or (expected > 0).sum() < batch:
        return
    if selection.summary[1] < batch:
        with pytest.raises(SamplingError, match="cannot fill a batch"):
            refuse_unusable(selection, batch, False, "here")
        return
    refuse_unusable(selection, batch, False, "here")
    order, _ = order_of("weighted", selection, batch, steps * batch, seed)
    batches = numbers_seen(order, index)
    assert batches.shape == (steps, batch) and none_twice(batches)
    counts = np.bincount(batches.reshape(-1), minlength=len(weight))
    assert (counts >= np.floor(expected - 1e-6)).all() and (counts <= np.ceil(expected + 1e-6)).all()


def test_a_weight_that_would_repeat_a_pair_in_a_batch_is_refused():
    weight = np.r_[100.0, np.ones(99)]
    index = index_of([100], weight=[weight])
    selection = Selection(index, by_column=True, samples=80)
    with pytest.raises(
        SamplingError, match=r"seen 4[01] times by its weight, but there are 10 batches.*divide"
    ):
        refuse_unusable(selection, 8, False, "here")


def test_blocks_do_not_depend_on_which_came_before():
    index = index_of([300, 40, 111, 200])
    for kind in ("epochs", "shards_with_replacement"):
        order, _ = order_of(kind, Selection(index), 8, 8 * 200, 5)
        whole = numbers_seen(order, index)
        again, _ = order_of(kind, Selection(index), 8, 8 * 200, 5)
        for first in (0, 1, 63, 64, 150, 199):
            assert np.array_equal(numbers_seen(again, index, first), whole[first:])


def test_seeds_epochs_and_shards_change_the_order():
    index = index_of([100] * 8)
    order, _ = order_of("epochs", Selection(index), 10, 1600, 0)
    batches = numbers_seen(order, index)
    other, _ = order_of("epochs", Selection(index, seed=1), 10, 1600, 1)
    assert not np.array_equal(batches, numbers_seen(other, index))
    assert not np.array_equal(batches[:80], batches[80:])
    # a batch is mixed: from more than one shard, and not in file order
    assert min(len(set(row // 100)) for row in batches) > 1
    assert (np.diff(batches, axis=1) > 0).mean() < 0.7


def test_copies_of_a_row_lie_in_different_passes():
    index = index_of([400] * 5)
    subset = subset_of(np.repeat(np.arange(2000), np.where(np.arange(2000) % 2, 4, 2)))
    order, facts = order_of("epochs", Selection(index, subset), 8, 6000, 0)
    assert facts["passes"] == 4
    stream = numbers_seen(order, index).reshape(-1)
    places = {n: np.flatnonzero(stream == n) for n in range(0, 2000, 97)}
    assert all(np.diff(p).min() > 200 for p in places.values())


def test_copies_in_the_shards_are_one_pair():
    index = FakeIndex([np.array([0, 0, 0, 1, 2]), np.arange(3, 40)])
    selection = Selection(index)
    assert selection.summary[:3] == (42, 40, 3)
    order, _ = order_of("epochs", selection, 6, 42, 0)
    batches = numbers_seen(order, index)
    assert none_twice(batches) and np.bincount(batches.reshape(-1)).tolist() == [3] + [1] * 39


def test_a_lane_reads_neighbouring_rows():
    index = index_of([1000] * 20)
    order = BlockOrder(
        Selection(index).cut(1), Selection(index).occurrences, batch=64, samples=64 * 300, seed=0, depth=16
    )
    assert order.lanes == 64
    block = order.block(3)
    one = {(s, r) for s, r in zip(block.shard[:, 5].tolist(), block.row[:, 5].tolist(), strict=True)}
    assert len(one) == 16 and len({s for s, _ in one}) <= 2
    rows = sorted(r for _, r in one)
    assert rows[-1] - rows[0] == 15 or len({s for s, _ in one}) == 2


def test_shapes():
    assert shape_of(10_000_000, 10_000_000, 1, 4096).depth == 16
    assert shape_of(10_000_000, 10_000_000, 1, 90112).depth == 4
    assert shape_of(7 * 4096, 7 * 4096, 1, 4096) is None
    assert shape_of(12_000_000, 3_000_000, 4, 4096).rounds == 4
    assert shape_of(5_000_000, 3_000_000, 100, 4096).rounds == 13  # 8 copies a pass at most
    assert [lanes_of(b) for b in (1, 96, 1024, 4096, 90112, 1021)] == [1, 96, 512, 512, 512, 1]


def test_processes_that_cut_a_lane_are_refused_with_those_that_do_not():
    check_share((0, 512), 4096, 512)
    with pytest.raises(SamplingError, match=r"cut a lane of 8 in two.*divides 512: 1, 2, 4, 8"):
        check_share((0, 4096 // 3), 4096, 512)
    with pytest.raises(SamplingError, match="need 0 <= start"):
        check_share((5, 5), 10)


def test_rounds_sum_to_the_whole():
    keys = FakeIndex([np.arange(500)]).read(0).keys
    times = np.arange(500) % 9
    parts = [in_round(times, keys, 3, r, 4) for r in range(4)]
    assert np.array_equal(sum(parts), times)
    assert all(((p >= times // 4) & (p <= -(-times // 4))).all() for p in parts)
    ones = [in_round(np.ones(500, np.int64), keys, 3, r, 4).sum() for r in range(4)]
    assert min(ones) > 80


def test_shards_with_replacement_draws_every_shard_alike():
    sizes = [10, 90, 50, 50]
    index = index_of(sizes)
    order, facts = order_of("shards_with_replacement", Selection(index), 32, 32 * 3000, 7)
    assert isinstance(order, ReplacedOrder) and facts["lanes"] == 32
    drawn = np.concatenate([d for d, _ in order._drawn])
    counts = np.bincount(drawn, minlength=4)
    chi2 = ((counts - counts.sum() / 4) ** 2 / (counts.sum() / 4)).sum()
    assert chi2 < 16.3  # 3 degrees of freedom, p = .001
    seen = np.bincount(numbers_seen(order, index).reshape(-1), minlength=200)
    per_row = [seen[:10].mean(), seen[10:100].mean(), seen[100:150].mean()]
    # drawn shards are read whole: their size does not change how often a row is seen
    assert per_row[0] / per_row[1] == pytest.approx(1.0, abs=0.2)
    weights = np.array([3.0, 1.0, 1.0, 1.0])
    order, _ = order_of("shards_with_replacement", Selection(index), 32, 32 * 3000, 7, weights)
    counts = np.bincount(np.concatenate([d for d, _ in order._drawn]), minlength=4)
    assert counts[0] / counts.sum() == pytest.approx(0.5, abs=0.05)


def test_one_epoch_with_replacement_meets_63_percent_of_the_shards():
    index = index_of([100] * 1600)
    order, _ = order_of("shards_with_replacement", Selection(index), 32, 160_000, 1)
    met = len(np.unique(numbers_seen(order, index) // 100)) / 1600
    assert met == pytest.approx(1 - np.exp(-1), abs=0.03)


def test_small_orders_hold_every_pair_once_by_key():
    index = FakeIndex([np.array([5, 3]), np.array([3, 9])])
    order, _ = order_of("epochs", Selection(index), 2, 8, 0)
    assert isinstance(order, SmallOrder)
    assert np.bincount(numbers_seen(order, index).reshape(-1)).tolist() == [0, 0, 0, 4, 0, 2, 0, 0, 0, 2]


def test_distinct_keys_beyond_memory_are_counted_through_files():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 3000, (20, 500, 1), np.uint64).repeat(2, axis=2)
    wanted = len(np.unique(keys[..., 0]))
    assert count_distinct(iter(keys)) == count_distinct(iter(keys), in_memory=700) == wanted
    assert count_distinct(iter([])) == 0


def test_arrow_is_not_needed_for_names_of_uids():
    rows = FakeIndex([np.array([1])]).read(0)
    assert rows.names(np.array([0])) == ["9e3779b97f4a7c150000000000000001"]
    named = ShardRows(rows.keys, None, None, None, None, None, None, pa.array(["cat-1"]))
    assert named.names(np.array([0])) == ["cat-1"]
