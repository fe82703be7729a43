import random
import sys
import unicodedata

import pyarrow as pa
import pytest
from barrier_harness import kept, run, split
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.barriers import dedup_exact
from curation.barriers._unicode import LIMIT, kind_of, lower_of, tables
from curation.errors import PlanError


def normalized(text: str, how: str | None) -> str:
    """The oracle of normalisation, on Python strings."""
    if how is None:
        return text
    text = "".join(lower_of(c) for c in text)
    if how == "ccnet":
        text = "".join(
            "0" if unicodedata.category(c) == "Nd" else c for c in text if unicodedata.category(c)[0] != "P"
        )
    return " ".join(text.split())


def oracle(rows: list[dict], how: str | None = None, reverse: bool = False) -> dict[str, dict]:
    groups: dict[object, list[dict]] = {}
    for row in rows:
        key = ("row", row["id"]) if row["text"] is None else ("text", normalized(row["text"], how))
        groups.setdefault(key, []).append(row)

    def rank(row):
        p = row.get("p")
        missing = p is None or p != p
        return (missing, 0 if missing else -p if reverse else p, row["id"])

    out = {}
    for group in groups.values():
        best = min(group, key=rank)["id"]
        for row in group:
            out[row["id"]] = {"keep": row["id"] == best, "exact_cluster": best, "exact_size": len(group)}
    return out


TEXTS = st.one_of(st.none(), st.text("aA 1.,\n", max_size=4), st.text(max_size=2))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.one_of(st.none(), st.sampled_from([0.0, 1.5, float("nan")]))), max_size=60),
    st.sampled_from([None, "whitespace", "ccnet"]),
    st.sampled_from([None, "p", "-p"]),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
def test_decisions_are_those_of_a_dict(rows, how, priority, n, seed):
    rows = [
        {"id": f"{(7 * i) % 61:02d}", "text": t, "p": p if priority else None}
        for i, (t, p) in enumerate(rows)
    ]
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("p", pa.float64())])
    shards = split(pa.Table.from_pylist(rows, schema), n)
    barrier = dedup_exact(normalize=how, priority=priority, partitions=3)
    expected = oracle(rows, how, priority == "-p")
    for chosen in (None, seed):
        out, decision = run(barrier, shards, chosen)
        assert out == expected
    sizes = [r["exact_size"] for r in expected.values() if r["keep"] and r["exact_size"] > 1]
    assert decision.summary["clusters"] == len(sizes)
    assert decision.summary["largest"] == max(sizes, default=1)
    assert decision.summary["removed"] == sum(sizes) - len(sizes)
    assert decision.summary["sizes"] == {str(s): sizes.count(s) for s in sorted(set(sizes))}


def test_result_does_not_depend_on_partitions():
    order = random.Random(3)
    rows = [{"id": f"r{i}", "text": str(order.randrange(300))} for i in range(1000)]
    shards = split(pa.Table.from_pylist(rows), 5)
    first = run(dedup_exact(partitions=1), shards)[0]
    assert run(dedup_exact(partitions=64), shards, seed=1)[0] == first == oracle(rows)


def test_images_and_numbers_are_compared_too():
    table = pa.table(
        {
            "id": ["b", "a", "c", "d"],
            "image": pa.array([b"\xff\xd8", b"\xff\xd8", b"\xff", None]),
            "phash": pa.array([5, 6, 5, None], pa.uint64()),
            "info": pa.array([{"sha": "x"}, {"sha": "y"}, {"sha": "y"}, {"sha": None}]),
        }
    )
    assert kept(dedup_exact("image"), [table]) == {"a", "c", "d"}
    assert kept(dedup_exact("phash"), [table]) == {"b", "a", "d"}
    assert kept(dedup_exact("info.sha"), [table]) == {"a", "b", "d"}
    with pytest.raises(TypeError, match=r"column 'image' is binary.*use normalize=None"):
        dedup_exact("image", normalize="ccnet").scatter(table.to_batches()[0])


def test_equal_ids_in_two_shards_still_leave_one():
    shard = pa.table({"id": ["a", "b"], "text": ["x", "x"]})
    barrier = dedup_exact()
    parts = [barrier.scatter(shard.to_batches()[0])] * 2
    part = pa.concat_tables(
        t.append_column("shard", pa.array([n, n], pa.int32())).rename_columns(
            ["partition", "row", "hash", "hash2", "id", "shard"]
        )
        for n, t in enumerate(parts)
    )
    decided = barrier.reduce(part)
    assert sum(decided.column("keep").to_pylist()) == 1
    assert decided.filter(decided.column("keep")).select(["shard", "row"]).to_pylist() == [
        {"shard": 0, "row": 0}
    ]


def test_an_empty_pool():
    barrier = dedup_exact()
    out, decision = run(
        barrier, [pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})]
    )
    assert out == {}
    assert decision.summary == {"clusters": 0, "removed": 0, "largest": 1, "sizes": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize": "nfc"}, "it is None, 'whitespace' or 'ccnet'"),
        ({"on": ""}, r"dedup_exact\(on='text'\)"),
        ({"partitions": 0}, "1 or more"),
        ({"priority": "-"}, "a column or '-column'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(PlanError, match=message):
        dedup_exact(**arguments)


def test_inputs_are_columns_not_fields():
    assert dedup_exact("meta.url", priority="-edu").inputs == ("meta", "edu")
    assert list(dedup_exact(prefix="url").outputs) == ["url_cluster", "url_size"]


def test_unicode_tables_say_what_unicodedata_says():
    lower, kind = tables()
    for code in range(LIMIT):
        if not 0xD800 <= code <= 0xDFFF:
            char = chr(code)
            assert (lower[code], kind[code]) == (ord(lower_of(char)), kind_of(char)), hex(code)
    spaces = {code for code in range(sys.maxunicode + 1) if chr(code).isspace()}
    assert max(spaces) < LIMIT
