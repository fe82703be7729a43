"""What a run does, against a plain loop; and that nothing about how it runs changes a byte."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import documents, fingerprint, read_rows

import curation as c


@c.score
def symbol_ratio(text: str) -> float:
    return (text.count("#") + text.count("…")) / max(1, len(text.split()))


@c.score(batch=True)
def n_chars(text: pa.StringArray) -> pa.Array:
    return pc.utf8_length(text)


@c.score
def draw(id: str) -> float:
    return c.rng(id, "draw").random()


@dataclass(frozen=True)
class The(c.Model):
    inputs = ("text",)
    outputs = {"the": pa.float32()}
    batch_size = 7

    def __call__(self, batch):
        return pa.array([t.split().count("the") for t in batch.column("text").to_pylist()], pa.float32())


def make_plan(pool, out, **write):
    return [
        c.read(pool),
        symbol_ratio,
        n_chars,
        draw,
        The(),
        c.keep("symbol_ratio <= .3", reason="symbols"),
        c.keep("n_chars >= 60 and draw < .9", reason="shape"),
        c.write(out, **write),
    ]


def quiet(plan, **options):
    return c.run(plan, progress=False, funnel=False, **options)


def test_a_run_does_what_a_plain_loop_does(text_pool, tmp_path):
    result = quiet(make_plan(text_pool, tmp_path / "out", removed=tmp_path / "removed"))
    kept, removed = [], {}
    for row in documents(480):
        row |= {"symbol_ratio": symbol_ratio(row["text"]), "n_chars": len(row["text"])}
        row |= {"draw": draw(row["id"]), "the": float(row["text"].split().count("the"))}
        if row["symbol_ratio"] > 0.3:
            removed[row["id"]] = "symbols"
        elif row["n_chars"] < 60 or row["draw"] >= 0.9:
            removed[row["id"]] = "shape"
        else:
            kept.append(row)
    assert read_rows(tmp_path / "out") == kept
    assert {r["id"]: r["dropped_by"] for r in read_rows(tmp_path / "removed", "0")} == removed
    assert (result.rows_in, result.rows_out, result.quarantined) == (480, len(kept), 0)
    assert result.dropped == {r: list(removed.values()).count(r) for r in ("symbols", "shape")}


def test_side_car_holds_every_row_once_and_all_scores_when_asked(text_pool, tmp_path):
    quiet(make_plan(text_pool, tmp_path / "kept"))
    quiet(make_plan(text_pool, tmp_path / "all"), scores="all")
    some, every = read_rows(tmp_path / "kept", "scores"), read_rows(tmp_path / "all", "scores")
    ids = [d["id"] for d in documents(480)]
    assert [r["id"] for r in some] == ids and [r["id"] for r in every] == ids
    assert all(r["the"] is not None and r["draw"] is not None for r in every)
    assert all((r["the"] is None) == (r["dropped_by"] is not None) for r in some)  # not scored once dropped
    assert [r["dropped_by"] for r in some] == [r["dropped_by"] for r in every]
    assert read_rows(tmp_path / "kept") == read_rows(tmp_path / "all")


def barrier_plan(pool, out):
    return [
        c.read(pool),
        n_chars,
        draw,
        c.dedup_exact(on="text"),
        c.keep("n_chars >= 30", reason="short"),
        c.top_fraction("draw", 0.5, reason="draw"),
        c.shuffle(seed=3, shards=4),
        c.write(out),
    ]


@pytest.mark.parametrize("make", [make_plan, barrier_plan], ids=["simple", "barriers"])
def test_same_bytes_for_any_number_of_workers(text_pool, tmp_path, make):
    prints = []
    for workers in (1, 2, 8):
        out = tmp_path / f"out-{workers}"
        quiet(make(text_pool, out), workers=workers)
        prints.append(fingerprint(out))
    assert len(prints[0]) > 8
    assert prints[0] == prints[1] == prints[2]


@pytest.mark.parametrize("make", [make_plan, barrier_plan], ids=["simple", "barriers"])
def test_same_bytes_on_ray(text_pool, tmp_path, make, ray_session):
    quiet(make(text_pool, tmp_path / "local"), workers=1)
    quiet(make(text_pool, tmp_path / "ray"), on="ray", workers=2)
    assert fingerprint(tmp_path / "local") == fingerprint(tmp_path / "ray")


@dataclass(frozen=True)
class OnActors(The):
    resources = c.Resources(actors=2)


def test_models_on_a_pool_of_actors(text_pool, tmp_path, ray_session):
    prints = []
    for name, on in (("local", "local"), ("ray", "ray")):
        quiet(
            [c.read(text_pool), OnActors(), c.keep("the > 1", reason="the"), c.write(tmp_path / name)], on=on
        )
        prints.append(fingerprint(tmp_path / name))
    assert prints[0] == prints[1]


def test_same_bytes_for_any_hash_seed(text_pool, tmp_path):
    prints = []
    for seed in ("1", "2"):
        out = tmp_path / f"out-{seed}"
        code = (
            "import sys; sys.path[:0] = ['tests', 'tests/curation']; import curation as c;"
            "from test_engine import barrier_plan;"
            f"c.run(barrier_plan({str(text_pool)!r}, {str(out)!r}), progress=False, funnel=False, workers=1)"
        )
        root = Path(__file__).parents[2]
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=root, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        prints.append(fingerprint(out))
    assert prints[0] == prints[1] and prints[0]


def test_same_rows_for_any_batch_size(text_pool, tmp_path, monkeypatch):
    from curation import stage

    quiet(make_plan(text_pool, tmp_path / "large"))
    small = stage.StageSpec.__dataclass_fields__["batch_bytes"]
    monkeypatch.setattr(stage.StageSpec.__init__, "__defaults__", tuple(
        3_000 if d == small.default else d for d in stage.StageSpec.__init__.__defaults__
    ))  # fmt: skip
    quiet(make_plan(text_pool, tmp_path / "small"))
    assert fingerprint(tmp_path / "large") == fingerprint(tmp_path / "small")


# ----------------------------------------------------------------------------------------- resume and change


def test_a_second_run_does_nothing_and_a_changed_step_re_runs_what_depends_on_it(text_pool, tmp_path):
    out = tmp_path / "out"

    def plan(short, fraction):
        return [
            c.read(text_pool),
            n_chars,
            draw,
            c.keep(f"n_chars >= {short}", reason="short"),
            c.dedup_exact(on="text"),
            c.top_fraction("draw", fraction, reason="draw"),
            c.write(out),
        ]

    first = quiet(plan(30, 0.5))
    assert first.resumed == 0
    again = quiet(plan(30, 0.5))
    tasks = sum(1 for _ in (out / "_winnow" / "done").rglob("*.json"))
    assert again.resumed == tasks and again.rows_out == first.rows_out
    changed = quiet(plan(30, 0.25))  # the first stage and the dedup stand; the selection does not
    assert 8 <= changed.resumed < tasks
    done = {p.parent.name.split("-")[0] for p in (out / "_winnow" / "done").rglob("*.json")}
    assert changed.rows_out < first.rows_out and len(read_rows(out)) == changed.rows_out and done
    everything = quiet(plan(31, 0.25))
    assert everything.resumed == 0
    fresh = quiet([*plan(31, 0.25)[:-1], c.write(tmp_path / "fresh")])
    assert fingerprint(out) == fingerprint(tmp_path / "fresh") and fresh.resumed == 0


def test_going_back_to_an_earlier_plan_never_meets_its_overwritten_files(text_pool, tmp_path):
    out = tmp_path / "out"

    def plan(limit):
        return [c.read(text_pool), n_chars, c.keep(f"n_chars >= {limit}", reason="short"), c.write(out)]

    quiet(plan(60))
    before = fingerprint(out)
    quiet(plan(61))
    assert fingerprint(out) != before
    assert quiet(plan(60)).resumed == 0
    assert fingerprint(out) == before


def test_a_shard_that_changed_is_read_again_and_one_that_left_is_gone(text_pool, tmp_path):
    out = tmp_path / "out"
    plan = make_plan(text_pool, out)
    quiet(plan)
    shards = sorted(text_pool.glob("*.parquet"))
    pq.write_table(pq.read_table(shards[0]).slice(5), shards[0])
    shards[-1].unlink()
    again = quiet(plan)
    assert again.resumed == 6 and again.shards == 7
    quiet(make_plan(text_pool, tmp_path / "fresh"))
    assert fingerprint(out) == fingerprint(tmp_path / "fresh")


def test_a_shorter_plan_in_the_folder_of_a_longer_one(text_pool, tmp_path):
    """Both write the same names; what the longer one leaves must go before, not after."""

    def dedup_plan(pool, out):  # its last stage names its shards as make_plan's only stage does
        return [c.read(pool), n_chars, c.dedup_exact(on="text"), c.write(out)]

    out = tmp_path / "out"
    for make in (dedup_plan, make_plan, barrier_plan, make_plan, dedup_plan):
        quiet(make(text_pool, out))
        fresh = tmp_path / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        quiet(make(text_pool, fresh))
        assert fingerprint(out) == fingerprint(fresh) and read_rows(out)


def test_a_shard_that_left_is_gone_from_every_stage(text_pool, tmp_path):
    out = tmp_path / "out"
    quiet(barrier_plan(text_pool, out))
    sorted(text_pool.glob("*.parquet"))[3].unlink()
    quiet(barrier_plan(text_pool, out))
    quiet(barrier_plan(text_pool, tmp_path / "fresh"))
    assert fingerprint(out) == fingerprint(tmp_path / "fresh")


def test_an_output_that_is_missing_or_cut_is_made_again(text_pool, tmp_path):
    out = tmp_path / "out"
    quiet(make_plan(text_pool, out))
    before = fingerprint(out)
    files = sorted((out / "data").iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-10])
    assert quiet(make_plan(text_pool, out)).resumed == 6
    assert fingerprint(out) == before


# -------------------------------------------------------------------------------------- errors and quarantine


@c.score
def fussy(text: str) -> int:
    if text.startswith("river"):
        raise ValueError("no rivers")
    return 1


@c.score(batch=True)
def fussy_batch(text: pa.StringArray) -> pa.Int64Array:
    if any(t.startswith("river") for t in text.to_pylist()):
        raise ValueError("no rivers in a batch")
    return pa.array([1] * len(text), pa.int64())


RIVERS = [d["id"] for d in documents(480) if d["text"].startswith("river")]


@pytest.mark.parametrize("step", [fussy, fussy_batch], ids=["row", "batch"])
def test_a_row_a_step_raises_on_is_quarantined_with_its_id_and_error(text_pool, tmp_path, step):
    import json

    out = tmp_path / "out"
    result = quiet([c.read(text_pool), step, c.write(out)])
    assert RIVERS and result.quarantined == len(RIVERS) and result.rows_out == 480 - len(RIVERS)
    lines = [json.loads(line) for f in sorted((out / "_winnow/bad").rglob("*.jsonl")) for line in f.open()]
    assert [line["id"] for line in lines] == RIVERS
    assert all(line["step"] == step.name and "no rivers" in line["error"] for line in lines)
    assert result.report["quarantined"]["by_error"] == {f"{step.name}: ValueError": len(RIVERS)}


def test_null_on_error_keeps_the_row_and_says_how_often(text_pool, tmp_path):
    result = quiet([c.read(text_pool), fussy, c.write(tmp_path / "out")], on_error="null")
    rows = read_rows(tmp_path / "out")
    assert [r["id"] for r in rows if r["fussy"] is None] == RIVERS
    assert sum(result.report["null_scores"].values()) == len(RIVERS)


def test_raise_on_error_fails_the_run_and_names_the_row(text_pool, tmp_path):
    with pytest.raises(c.RunFailed, match="no rivers") as caught:
        quiet([c.read(text_pool), fussy, c.write(tmp_path / "out")], on_error="raise")
    assert any(river in reason for river in RIVERS for reason in caught.value.failures.values())


@c.score
def broken(text: str) -> int:
    raise KeyError("always")


@c.score
def mostly_broken(text: str) -> int:
    if len(text) % 2:
        raise KeyError("odd")
    return 1


def test_a_step_that_always_fails_is_a_fault_of_the_step_and_stops_the_run(text_pool, tmp_path):
    with pytest.raises(c.RunFailed, match="every one of"):
        quiet([c.read(text_pool), broken, c.write(tmp_path / "out")], error_budget=1.0)


def test_past_the_error_budget_the_shard_fails_and_says_the_mend(text_pool, tmp_path):
    with pytest.raises(c.RunFailed, match=r"more than the budget .* raise error_budget"):
        quiet([c.read(text_pool), mostly_broken, c.write(tmp_path / "out")])
    assert not list((tmp_path / "out" / "data").glob("*")) if (tmp_path / "out" / "data").exists() else True
    assert (
        quiet([c.read(text_pool), mostly_broken, c.write(tmp_path / "out")], error_budget=1.0).quarantined
        > 100
    )


# ------------------------------------------------------------------------------------------------- transforms


@c.transform
def sentences(text):
    words = text.split()
    if len(words) < 10:
        return None
    return [{"text": " ".join(words[i : i + 40])} for i in range(0, len(words), 40)]


def test_fan_out_and_drops_are_counted_and_children_get_their_own_ids(text_pool, tmp_path):
    result = quiet([c.read(text_pool), sentences, n_chars, c.write(tmp_path / "out")])
    rows = read_rows(tmp_path / "out")
    expected, dropped = [], 0
    for doc in documents(480):
        words = doc["text"].split()
        parts = [" ".join(words[i : i + 40]) for i in range(0, len(words), 40)] if len(words) >= 10 else []
        dropped += not parts
        expected += [(doc["id"] if len(parts) == 1 else f"{doc['id']}/{k}", p) for k, p in enumerate(parts)]
    assert [(r["id"], r["text"]) for r in rows] == expected
    assert result.dropped == {"sentences": dropped}
    step = result.report["steps"][1]
    assert 480 + step["added"] - step["dropped"] == result.rows_out == len(expected)


@dataclass(frozen=True)
class Loses(c.Transform):
    """Claims parents that lie outside the batch."""

    def __call__(self, batch):
        return batch, list(range(1, batch.num_rows + 1))


def test_a_transform_cannot_lose_rows_unseen(text_pool, tmp_path):
    with pytest.raises(c.RunFailed, match=r"outside the batch|every one of"):
        quiet([c.read(text_pool), Loses(), c.write(tmp_path / "out")], error_budget=1.0)


def test_duplicate_ids_are_quarantined(tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    rows = [{"id": f"r{i % 7}", "text": f"text {i}"} for i in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), pool / "a.parquet")
    result = quiet([c.read(pool), n_chars, c.write(tmp_path / "out")])
    assert (result.rows_in, result.rows_out, result.quarantined) == (10, 7, 3)
    assert [r["text"] for r in read_rows(tmp_path / "out")] == [f"text {i}" for i in range(7)]


def test_conservation_is_checked_in_production(text_pool, tmp_path, monkeypatch):
    """If the engine itself lost a row, the shard would fail rather than be written."""
    from curation import stage

    honest = stage._ShardRun._end

    def lossy(self, flow):
        out = honest(self, flow)
        return out.slice(1)

    monkeypatch.setattr(stage._ShardRun, "_end", lossy)
    with pytest.raises(c.RunFailed, match="rows do not add up"):
        quiet([c.read(text_pool), c.write(tmp_path / "out")], workers=1)
    assert not list((tmp_path / "out").glob("data/*"))


def test_nested_json_comes_out_as_it_went_in(tmp_path):
    import json

    import zstandard

    pool = tmp_path / "pool"
    pool.mkdir()
    rows = [
        {"id": f"r{i}", "text": f"text {i}", "meta": {"tags": ["a", i], "deep": {"x": None}}}
        for i in range(9)
    ]
    (pool / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    quiet([c.read(pool), n_chars, c.shuffle(seed=2, shards=1), c.write(tmp_path / "out", format="jsonl.zst")])
    (file,) = (tmp_path / "out" / "data").iterdir()
    lines = zstandard.ZstdDecompressor().stream_reader(file.open("rb")).read().splitlines()
    out = sorted((json.loads(line) for line in lines), key=lambda r: r["id"])
    assert out == [r | {"n_chars": len(r["text"])} for r in rows]


def test_a_ray_worker_that_is_killed_is_replaced(text_pool, tmp_path, ray_session):
    marker = tmp_path / "killed"

    @c.score
    def deadly(text: str) -> int:
        import signal

        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(text)

    plan = [c.read(text_pool), deadly, c.keep("deadly > 60", reason="short")]
    result = quiet([*plan, c.write(tmp_path / "ray")], on="ray", workers=2)
    assert marker.exists() and result.rows_in == 480
    quiet([*plan, c.write(tmp_path / "local")], workers=1)
    assert fingerprint(tmp_path / "ray") == fingerprint(tmp_path / "local")
