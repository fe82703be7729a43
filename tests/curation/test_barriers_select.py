import json
import math
import random

import pyarrow as pa
import pytest
import xxhash
from barrier_harness import kept, run, split
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import hashing
from curation.barriers import sample, top_fraction
from curation.barriers.select import LAST, rank_keys, score_of
from curation.errors import PlanError


def tie(row_id: str) -> int:
    return xxhash.xxh64_intdigest(row_id.encode(), seed=hashing.salt_seed("tie"))


def ranking(rows: list[dict]) -> list[dict]:
    """The oracle's order: highest score first, then the hash of the id; rows without a score last."""

    def key(row):
        score = row["s"]
        missing = score is None or math.isnan(score)
        return (missing, 0 if missing else -score, tie(row["id"]))

    return sorted(rows, key=key)


def filled(ranked: list[dict], budget: int) -> list[dict]:
    taken, total = [], 0
    for row in ranked:
        total += len(row["text"].encode())
        if total > budget:
            break
        taken.append(row)
    return taken


SCORES = st.one_of(
    st.none(),
    st.floats(allow_subnormal=True),
    st.sampled_from([0.0, -0.0, 1.0, 0.5]),
)
ROWS = st.lists(st.tuples(SCORES, st.text("aé", max_size=5)), max_size=50)
SCHEMA = pa.schema([("id", pa.string()), ("s", pa.float64()), ("text", pa.string())])


def as_rows(pairs) -> list[dict]:
    return [{"id": f"row {i}", "s": s, "text": t} for i, (s, t) in enumerate(pairs)]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0]), st.integers(1, 4), st.integers(0, 10**6))
def test_exactly_the_best_rows_stay(pairs, fraction, n, seed):
    rows = as_rows(pairs)
    shards = split(pa.Table.from_pylist(rows, SCHEMA), n)
    wanted = math.floor(len(rows) * round(fraction * 100) / 100 + 0.5)
    barrier = top_fraction("s", fraction, partitions=4)
    expected = {r["id"] for r in ranking(rows)[:wanted]}
    assert kept(barrier, shards) == expected
    assert kept(barrier, shards, seed) == expected
    summary = run(barrier, shards, seed)[1].summary
    assert (summary["kept"], summary["of"]) == (wanted, len(rows))
    scores = [r["s"] for r in ranking(rows)[:wanted] if r["s"] is not None and not math.isnan(r["s"])]
    assert summary["threshold"] == (min(scores) if scores else None)
    assert json.loads(json.dumps(summary)) == summary


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 120), st.integers(1, 4), st.integers(0, 10**6))
def test_a_byte_budget_is_filled_from_the_top(pairs, budget, n, seed):
    rows = as_rows(pairs)
    shards = split(pa.Table.from_pylist(rows, SCHEMA), n)
    barrier = top_fraction("s", bytes=budget, partitions=3)
    expected = filled(ranking(rows), budget)
    assert kept(barrier, shards) == kept(barrier, shards, seed) == {r["id"] for r in expected}
    summary = run(barrier, shards)[1].summary
    assert summary["bytes"] == sum(len(r["text"].encode()) for r in expected) <= budget
    assert summary["of_bytes"] == sum(len(r["text"].encode()) for r in rows)


def test_fraction_of_bytes_and_of_the_pool():
    order = random.Random(0)
    rows = as_rows((order.random(), "x" * order.randrange(40)) for _ in range(500))
    shards = split(pa.Table.from_pylist(rows, SCHEMA), 3)
    total = sum(len(r["text"]) for r in rows)
    by_bytes = top_fraction("s", 0.25, by="bytes")
    assert kept(by_bytes, shards) == {r["id"] for r in filled(ranking(rows), math.floor(total / 4))}
    of_pool = top_fraction("s", 0.1, of="pool")
    expected = {r["id"] for r in ranking(rows)[:200]}
    assert kept(of_pool, shards, pool_rows=2000) == expected
    assert len(kept(of_pool, shards, pool_rows=20_000)) == 500  # the budget exceeds what is left
    bytes_of_pool = top_fraction("s", 0.1, by="bytes", of="pool")
    assert kept(bytes_of_pool, shards, pool_bytes=10_000) == {r["id"] for r in filled(ranking(rows), 1000)}
    with pytest.raises(ValueError, match="pool's rows are not known; use of='input'"):
        kept(of_pool, shards)


def test_bytes_column_and_struct_field():
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "q": pa.array([{"s": 4}, {"s": 3}, {"s": 2}, {"s": 1}]),
            "size": pa.array([10, None, 10, 10], pa.uint32()),
        }
    )
    barrier = top_fraction("q.s", bytes=20, bytes_column="size")
    assert barrier.inputs == ("q", "size")
    assert kept(barrier, [table]) == {"a", "b", "c"}
    negative = table.set_column(2, "size", pa.array([10, -1, 10, 10]))
    with pytest.raises(ValueError, match="'size' holds -1"):
        kept(barrier, [negative])


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_datacomp_keeps_what_scores_at_least_the_threshold(fraction):
    order = random.Random(1)
    rows = as_rows((order.randrange(12) / 10, "") for _ in range(203))
    scores = sorted((r["s"] for r in rows), reverse=True)
    at = int(len(rows) * fraction)
    threshold = scores[at] if at < len(rows) else -math.inf
    barrier = top_fraction("s", fraction, compat="datacomp")
    shards = split(pa.Table.from_pylist(rows, SCHEMA), 4)
    assert kept(barrier, shards, seed=2) == {r["id"] for r in rows if r["s"] >= threshold}


def test_a_selection_says_what_it_did():
    rows = as_rows((i / 10, "xx") for i in range(10))
    summary = run(top_fraction("s", 0.25), [pa.Table.from_pylist(rows, SCHEMA)])[1].summary
    cut = summary.pop("cut")
    assert cut == [f"{int(rank_keys(pa.array([0.7]), 's')[0]):016x}", f"{tie('row 7'):016x}"]
    assert summary == {"kept": 3, "of": 10, "fraction": 0.3, "threshold": 0.7}


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.int8(), pa.uint64(), pa.bool_()])
def test_any_number_ranks(kind):
    scores = pa.array([1, 0, 1, None], pa.int8()).cast(pa.float32()).cast(kind)
    table = pa.table({"id": ["a", "b", "c", "d"], "s": scores})
    assert kept(top_fraction("s", 0.5), [table]) == {"a", "c"}
    assert kept(top_fraction("s", rows=3), [table]) == {"a", "b", "c"}


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"'s'.*only numbers can be ranked"):
        rank_keys(pa.array(["x"]), "s")
    with pytest.raises(pa.ArrowInvalid):  # 2^53 + 1 would tie with its neighbour
        rank_keys(pa.array([2**53 + 1]), "s")


def test_zeros_of_both_signs_tie():
    assert len(set(rank_keys(pa.array([0.0, -0.0]), "s").tolist())) == 1
    low, zero, high = rank_keys(pa.array([-5e-324, 0.0, 5e-324]), "s").tolist()
    assert high < zero < low


@given(st.floats(allow_nan=False))
def test_rank_keys_decode(score):
    (key,) = rank_keys(pa.array([score]), "s").tolist()
    assert key < LAST and score_of(key) == score


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 80), st.integers(0, 90), st.integers(0, 9), st.integers(1, 4))
def test_a_sample_is_the_smallest_draws(n, rows, seed, shards):
    table = pa.table({"id": [f"{i:x}" for i in range(n)]})
    drawn = sorted(
        table.column("id").to_pylist(),
        key=lambda i: xxhash.xxh64_intdigest(i.encode(), seed=hashing.salt_seed(f"sample/{seed}")),
    )
    barrier = sample(rows=rows, seed=seed, partitions=3)
    assert kept(barrier, split(table, shards)) == set(drawn[:rows])
    assert kept(barrier, split(table, shards), seed=seed) == set(drawn[:rows])


def test_samples_nest_and_differ_by_seed():
    table = pa.table({"id": [str(i) for i in range(2000)]})
    ten, twenty = kept(sample(fraction=0.1), [table]), kept(sample(fraction=0.2), [table])
    assert len(ten) == 200 and len(twenty) == 400 and ten < twenty
    other = kept(sample(fraction=0.1, seed=1), [table])
    assert 5 < len(ten & other) < 45  # 20 expected
    assert sample(rows=3).inputs == () and sample(bytes=3).inputs == ("text",)


def test_a_random_sample_by_bytes():
    table = pa.table({"id": [str(i) for i in range(100)], "text": ["four"] * 100})
    assert len(kept(sample(bytes=43), [table])) == 10
    assert len(kept(sample(fraction=0.5, by="bytes"), [table])) == 50


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: top_fraction("s"), "exactly one of fraction=, rows=, bytes=; it got none"),
        (lambda: top_fraction("s", 0.1, rows=3), "it got fraction, rows"),
        (lambda: top_fraction("s", 10), "between 0 and 1 .ten per cent is 0.1"),
        (lambda: top_fraction("s", 0.1, by="tokens"), "it is 'rows' or 'bytes'"),
        (lambda: top_fraction("s", 0.1, of="shard"), "it is 'input' or 'pool'"),
        (lambda: top_fraction("s", 0.1, by="bytes", compat="datacomp"), "goes with a fraction of rows"),
        (lambda: top_fraction("s", 0.1, compat="dclm"), "it is None or 'datacomp'"),
        (lambda: top_fraction("s", 0.1, bytes_column="n"), "goes with by='bytes'"),
        (lambda: top_fraction("", 0.1), "needs a column"),
        (lambda: sample(rows=-1), "a whole number from 0"),
        (lambda: sample(rows=1.5), "a whole number from 0"),
        (lambda: sample(rows=1, by="bytes"), "does not go with"),
        (lambda: sample(fraction=0.1, partitions=0), "1 or more"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(PlanError, match=message):
        make()
