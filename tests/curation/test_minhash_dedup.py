"""The decision from scatter to apply, against clusters found by comparing every pair in plain Python."""

import random

import numpy as np
import pyarrow as pa
import pytest
from barrier_harness import kept, run, split
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.barriers import _text_kernels as kernels
from curation.barriers import dedup_minhash
from curation.barriers.minhash import _sketches, band_buckets, signatures
from curation.errors import PlanError

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("p", pa.int64())])


def edited(n: int, copies: int, seed: int, edits=(0, 1, 3, 10, 40)) -> list[dict]:
    """Texts of 80 words and copies of them with a few words changed."""
    order = random.Random(seed)
    rows = []
    for _ in range(n):
        base = [f"w{order.randrange(400)}" for _ in range(80)]
        for _ in range(1 + order.randrange(copies + 1)):
            words = list(base)
            for place in order.sample(range(80), order.choice(edits)):
                words[place] = f"x{order.randrange(10**6)}"
            rows.append(" ".join(words))
    order.shuffle(rows)
    return [{"id": f"{(i * 37) % 1009:04d}", "text": t, "p": order.randrange(3)} for i, t in enumerate(rows)]


def oracle(rows: list[dict], barrier, places: dict[str, int], joined) -> dict[str, dict]:
    """Connected components over every pair for which `joined(i, j)`."""
    parent = list(range(len(rows)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(len(rows)):
        for j in range(i):
            if joined(i, j):
                parent[root(i)] = root(j)
    groups: dict[int, list[dict]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(root(i), []).append(row)
    out = {}
    for group in groups.values():
        best = min(group, key=lambda r: (r["p"] * places[barrier.priority or ""], r["id"]))["id"]
        for row in group:
            out[row["id"]] = {"keep": row["id"] == best, "dedup_cluster": best, "dedup_size": len(group)}
    return out


PLACES = {"": 0, "p": 1, "-p": -1}


@pytest.mark.parametrize("priority", [None, "p", "-p"])
@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_are_the_components_of_shared_buckets(priority, seed):
    rows = edited(40, 4, seed)
    barrier = dedup_minhash(ngram=2, bands=10, rows=4, priority=priority, seed=seed, partitions=5)
    signed, _ = signatures(pa.array([r["text"] for r in rows]), 2, 40, seed)
    buckets = band_buckets(signed, 10, 4)
    expected = oracle(rows, barrier, PLACES, lambda i, j: (buckets[i] == buckets[j]).any())
    shards = split(pa.Table.from_pylist(rows, SCHEMA), 4)
    for chosen in (None, 1, 2):
        out, decision = run(barrier, shards, chosen)
        assert out == expected
    sizes = [r["dedup_size"] for r in expected.values() if r["keep"] and r["dedup_size"] > 1]
    assert len(sizes) > 10
    summary = decision.summary
    assert (summary["clusters"], summary["largest"]) == (len(sizes), max(sizes))
    assert summary["sizes"] == {str(s): sizes.count(s) for s in sorted(set(sizes))}
    assert summary["pairs"] >= summary["removed"] == sum(sizes) - len(sizes)


def test_neither_partitions_nor_shards_change_the_outcome():
    rows = edited(60, 3, 9)
    table = pa.Table.from_pylist(rows, SCHEMA)
    first = run(dedup_minhash(partitions=1), [table])
    for partitions, n in ((7, 3), (64, 5)):
        again = run(dedup_minhash(partitions=partitions), split(table, n), seed=n)
        assert again[0] == first[0] and again[1].summary == first[1].summary


def test_verification_lets_only_similar_pairs_join():
    rows = edited(60, 4, 3, edits=(0, 5, 25, 40))
    table = pa.Table.from_pylist(rows, SCHEMA)
    loose = {"ngram": 1, "bands": 40, "rows": 2}
    bare = run(dedup_minhash(**loose), [table])[1].summary
    barrier = dedup_minhash(**loose, verify=0.6)
    out, decision = run(barrier, split(table, 3), seed=1)
    assert out == run(barrier, [table])[0]
    assert decision.summary["removed"] < bare["removed"]
    # every removed row is similar to some row of its cluster
    signed, _ = signatures(table.column("text").combine_chunks(), 1, 80, 1)
    by_id = {row["id"]: i for i, row in enumerate(rows)}
    groups: dict[str, list[int]] = {}
    for row_id, row in out.items():
        groups.setdefault(row["dedup_cluster"], []).append(by_id[row_id])
    for group in groups.values():
        for i in group:
            best = max((np.mean(signed[i] == signed[j]) for j in group if j != i), default=1.0)
            assert best > 0.55
    # and exact copies stay together whatever the threshold
    texts: dict[str, set[str]] = {}
    for row in rows:
        texts.setdefault(row["text"], set()).add(out[row["id"]]["dedup_cluster"])
    assert all(len(clusters) == 1 for clusters in texts.values())


@pytest.mark.parametrize(("agree", "joined"), [(60, False), (61, True), (112, True), (8, False)])
def test_the_shared_band_proves_nothing(agree, joined):
    """verify=.5: of 104 places outside the band 52.2 agree at J = .5 (.2 by chance): 8 + 53 are needed."""
    sketches = np.zeros((2, 112), np.uint8)
    sketches[1, agree:] = 1
    part = pa.table(
        {
            "bucket": pa.array([5, 5], pa.uint64()),
            "id": ["a", "b"],
            "sketch": pa.array([row.tobytes() for row in sketches], pa.binary(112)),
            "shard": pa.array([0, 1], pa.int32()),
            "row": pa.array([3, 4], pa.int64()),
        }
    )
    reduced = dedup_minhash(verify=0.5).reduce(part)
    assert sorted(reduced.column("id").to_pylist()) == (["a", "b"] if joined else [])


def test_verified_pairs_within_a_bucket_are_those_of_a_loop():
    order = np.random.RandomState(0)
    base = order.randint(0, 256, (5, 32))
    sketches = base[order.randint(0, 5, 60)].astype(np.uint8)
    sketches[order.rand(60, 32) < 0.2] = 255
    starts = np.array([0, 1, 25, 25, 60])
    expected = []
    for first, last in zip(starts[:-1], starts[1:], strict=True):  # noqa: RUF007
        leaders: list[int] = []
        for i in range(first, last):
            near = [j for j in leaders if (sketches[i] == sketches[j]).sum() >= 20]
            expected += [(i, j) for j in near]
            if not near:
                leaders.append(i)
    member, leader = np.empty(100, np.int64), np.empty(100, np.int64)
    n = kernels.similar_pairs(sketches, starts, 20, member, leader)
    assert list(zip(member[:n].tolist(), leader[:n].tolist(), strict=True)) == expected
    assert kernels.similar_pairs(sketches, starts, 20, member[:3], leader[:3]) == n  # says how much room


def test_sketches_differ_by_chance_once_in_256():
    order = np.random.RandomState(1)
    small = order.randint(0, 10**6, (2, 200_000)).astype(np.uint32)  # minima are small numbers
    same = (_sketches(small[0]) == _sketches(small[1])).mean()
    assert abs(same - 1 / 256) < 5 * (1 / 256 / 200_000) ** 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60), st.randoms()
)
def test_components_are_those_of_a_search(n, edges, order):
    edges = [(a % n, b % n) for a, b in edges]
    seen: dict[int, int] = {}
    for start in range(n):
        stack = [start]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen[node] = start
                stack += [b for a, b in edges if a == node] + [a for a, b in edges if b == node]
    order.shuffle(edges)
    first = np.array([a for a, _ in edges], np.int64)
    second = np.array([b for _, b in edges], np.int64)
    assert kernels.components(n, first, second).tolist() == [seen[i] for i in range(n)]


def test_rows_without_words_are_left_alone():
    rows = [
        {"id": str(i), "text": t, "p": 0} for i, t in enumerate(["", None, "…!", "", None, "one", "One!"])
    ]
    table = pa.Table.from_pylist(rows, SCHEMA)
    assert kept(dedup_minhash(), [table]) == {"0", "1", "2", "3", "4", "5"}
    empty = run(dedup_minhash(), [table.slice(0, 5)])[1]
    assert empty.summary == {"clusters": 0, "removed": 0, "largest": 1, "sizes": {}, "pairs": 0}
    for verify in (None, 0.5):
        assert kept(dedup_minhash(verify=verify), [table.slice(5)]) == {"5"}
        assert kept(dedup_minhash(verify=verify), [table.slice(4, 2)]) == {
            "4",
            "5",
        }  # no two rows share a bucket


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": 0}, "bands is 0"),
        ({"ngram": 2.5}, "ngram is 2.5"),
        ({"verify": 1.5}, "verify is 1.5"),
        ({"verify": 0.7, "bands": 1}, "needs 2 bands or more"),
        ({"on": None}, "needs a text column"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(PlanError, match=message):
        dedup_minhash(**arguments)


def test_only_text_is_signed():
    with pytest.raises(TypeError, match=r"on='n'.*the column is int64; it must be text"):
        dedup_minhash("n").scatter(pa.record_batch({"id": ["a"], "n": [1]}))
