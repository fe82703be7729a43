"""top_fraction(quantile="streaming") beside the exact one."""

import numpy as np
import pyarrow as pa
import pytest
from barrier_harness import kept, run, split
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c


def pool(scores, texts=None):
    n = len(scores)
    return pa.table(
        {
            "id": [f"r{i:05d}" for i in range(n)],
            "score": pa.array(scores, pa.float64()),
            "text": texts or ["x" * (i % 7 + 1) for i in range(n)],
        }
    )


@pytest.mark.parametrize("by", ["rows", "bytes"])
def test_close_to_the_exact_selection_and_never_above_it(by):
    rng = np.random.default_rng(3)
    table = pool(rng.random(20_000))
    exact, streaming = (
        run(c.top_fraction("score", 0.1, by=by, quantile=q), split(table, 3)) for q in ("exact", "streaming")
    )
    of_exact = {row for row, value in exact[0].items() if value["keep"]}
    of_streaming = {row for row, value in streaming[0].items() if value["keep"]}
    summary = streaming[1].summary
    assert of_streaming <= of_exact and len(of_streaming) == summary["kept"]
    assert len(of_exact) - len(of_streaming) <= summary["rows_in_the_next_bin"] < 20
    lowest = min(
        s
        for s, i in zip(table["score"].to_pylist(), table["id"].to_pylist(), strict=True)
        if i in of_streaming
    )
    assert lowest * (1 - 1 / 4096) <= summary["threshold"] <= lowest


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=True, allow_nan=True)), max_size=80),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_same_rows_however_the_pool_is_cut(scores, fraction, seed):
    table = pool(scores)
    step = c.top_fraction("score", fraction, quantile="streaming")
    whole = kept(step, [table])
    assert kept(step, split(table, 3), seed) == whole
    assert len(whole) <= round(len(scores) * fraction + 0.5)
    values = dict(zip(table["id"].to_pylist(), scores, strict=True))
    real = {k: v for k, v in values.items() if v is not None and v == v}
    if real and (stay := [real[k] for k in whole if k in real]):
        # no row that leaves is better than the worst bin that stays
        assert all(v <= min(stay) or k in whole or v == 0 for k, v in real.items())


def test_equal_scores_stay_or_leave_together():
    table = pool([0.5] * 10 + [0.9] * 5)
    assert len(kept(c.top_fraction("score", rows=9, quantile="streaming"), [table])) == 5
    assert len(kept(c.top_fraction("score", rows=4, quantile="streaming"), [table])) == 0
    assert len(kept(c.top_fraction("score", 1.0, quantile="streaming"), [table])) == 15


def test_wrong_arguments_are_refused():
    with pytest.raises(c.PlanError, match="quantile is 'fast'"):
        c.top_fraction("score", 0.1, quantile="fast")
    with pytest.raises(c.PlanError, match="compat goes with"):
        c.top_fraction("score", 0.1, quantile="streaming", compat="datacomp")


def test_through_the_engine(tmp_path):
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    pq.write_table(pool(rng.random(5000)), tmp_path / "a.parquet")
    plan = [c.read(str(tmp_path / "a.parquet")), c.top_fraction("score", 0.2, quantile="streaming"),
            c.write(str(tmp_path / "out"))]  # fmt: skip
    result = c.run(plan, progress=False)
    assert 990 <= result.rows_out <= 1000 and result.rows_in == 5000
