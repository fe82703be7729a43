"""Every published text recipe over pools of nasty pages: each row is accounted for, nothing hangs, and what
is written can be read.

The pools (`nasty_pages`) hold damaged shards, records over every limit, pages of 20 MB, 10,000 nested tags,
words of 5 MB, texts in 20 scripts and of no script, and URLs that are none.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nasty_pages
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
from support import fingerprint

import baselines
import curation as c
from curation.plan import flatten, kind_of
from curation.plan_file import Recipe

pytestmark = pytest.mark.timeout(120)
RECIPES = [name.removeprefix("text/") for name in baselines.names("text")]
# those that have a meaning for text that is extracted already
OF_TEXT = [name for name in RECIPES if "extract_all" not in str(baselines.find(f"text/{name}").raw_steps)]


@pytest.fixture(scope="module")
def warc(tmp_path_factory) -> nasty_pages.Pool:
    return nasty_pages.warc_pool(tmp_path_factory.mktemp("nasty") / "warc")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> nasty_pages.Pool:
    return nasty_pages.text_pool(tmp_path_factory.mktemp("nasty") / "text")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str], str]:
    """Model by the name of a recipe's variable, made when the first recipe asks for it."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def made(name: str) -> str:
        if name == "classifier":
            return tiny_models.classifier(folder / name, nasty_pages.prose(60))
        return tiny_models.bert(folder / name)

    return made


@pytest.fixture(scope="module")
def remembered():
    """The child process extracts each page once for all recipes: the same answer, or the same exception."""
    from filters.text import child

    answers: dict[Any, Any] = {}
    real = child.extract

    def extract(*asked: Any, **named: Any) -> Any:
        key = (asked, tuple(named.items()))
        if key not in answers:
            try:
                answers[key] = real(*asked, **named)
            except (child.DeadlineError, child.ChildDiedError, child.ExtractorError) as error:
                answers[key] = error
        if isinstance(answers[key], Exception):
            raise answers[key].with_traceback(None)
        return answers[key]

    patch = pytest.MonkeyPatch()
    patch.setattr(child, "extract", extract)
    yield
    patch.undo()
    child.close()


def plan(recipe: Recipe, pool: Path, out: Path, models: Callable[[str], str]) -> list[Any]:
    known = {name: models(name) for name in ("classifier", "model") if name in recipe.variables}
    return recipe.plan(pool=str(pool), out=str(out), **known)


def is_extraction(step: Any) -> bool:
    return (step if isinstance(step, str) else next(iter(step))).endswith(":extract")


def for_text(recipe: Recipe) -> Recipe:
    """The recipe without its extraction."""
    steps = tuple(step for step in recipe.raw_steps if not is_extraction(step))
    assert len(steps) == len(recipe.raw_steps) - 1
    return dataclasses.replace(recipe, raw_steps=steps)


def run(
    name: str, kind: str, pool: Path, out: Path, models: Callable[[str], str], **options: Any
) -> c.Result:
    recipe = baselines.find(f"text/{name}")
    if kind == "text":
        recipe = for_text(recipe)
    steps = plan(recipe, pool, out, models)
    return c.run(steps, **{"workers": 1, "progress": False, "error_budget": 1.0} | options)


def tables(folder: Path) -> list[pa.Table]:
    found = [pq.read_table(file) for file in sorted(folder.rglob("*.parquet"))]
    for table in found:
        table.validate(full=True)  # among others, that text is UTF-8
    return found


def page_of(row_id: str) -> str:
    """The page that a row comes from; where a step makes several of one, they are <id>/<number>."""
    return row_id.rsplit("/", 1)[0]


def check(result: c.Result, out: Path, pool: nasty_pages.Pool) -> None:
    """Each row that went in is in the data, in the quarantine, or was dropped for a reason; once."""
    report = json.loads((out / "_winnow" / "report.json").read_text())
    steps = report["steps"]
    for step in steps:
        assert step["rows_in"] + step["added"] == step["rows_out"] + step["dropped"] + step["quarantined"], (
            step
        )
    if not any(step["quarantined"] for step in steps if step["kind"] == "score"):
        # scores are put off until a keep asks for them, so they count rows of where they ran
        for before, after in pairwise(step for step in steps if step["kind"] != "score"):
            assert before["rows_out"] == after["rows_in"], (before, after)
    dropped = sum(reason["rows"] for reason in report["reasons"])
    added = sum(step["added"] for step in steps)
    assert report["input"]["rows"] == result.rows_in == len(pool.names) + len(pool.bad)
    assert dropped == sum(step["dropped"] for step in steps)
    assert result.rows_in + added == result.rows_out + dropped + result.quarantined
    assert (report["output"]["rows"], report["quarantined"]["rows"]) == (result.rows_out, result.quarantined)

    # what the reader could not take: exactly the records that are damaged, each with its place
    lines = [json.loads(row) for f in (out / "_winnow" / "bad").rglob("*.jsonl") for row in f.open()]
    assert len(lines) == result.quarantined
    found = {
        (Path(row["source"]).name, row["position"]): row["error"] for row in lines if row["step"] == "read"
    }
    expected = {(bad.shard, bad.position): bad.error for bad in pool.bad}
    assert found.keys() == expected.keys()
    assert all(expected[place] in error for place, error in found.items()), found
    # what a step could not take: with its source and id
    by_step = [row for row in lines if row["step"] != "read"]
    assert all(row["error"] and row["source"] and page_of(row["id"]) in pool.names for row in by_step)

    data = tables(out / "data")
    kept = [row_id for table in data for row_id in table["id"].to_pylist()]
    assert len(kept) == len(set(kept)) == result.rows_out
    assert all(table["text"].null_count == 0 or "text-null" in table["id"].to_pylist() for table in data)
    leaving = Counter(
        (row_id, why)
        for table in tables(out / "scores")
        for row_id, why in zip(table["id"].to_pylist(), table["dropped_by"].to_pylist(), strict=True)
        if why is not None
    )
    gone = {row_id for row_id, _ in leaving}
    bad = {row["id"] for row in by_step}
    assert len(leaving) == dropped
    assert not gone & set(kept) and not gone & bad and not bad & set(kept)
    assert {page_of(row_id) for row_id in [*kept, *gone, *bad]} == set(pool.names)
    reasons = Counter()
    for (_, why), rows in leaving.items():
        reasons[why] += rows
    assert reasons == Counter(result.dropped)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "warc") for name in RECIPES), *((name, "text") for name in OF_TEXT)]
)
def test_every_row_is_accounted_for(name, kind, tmp_path, request, models, remembered):
    pool = request.getfixturevalue(kind)
    result = run(name, kind, pool.folder, tmp_path / "out", models)
    check(result, tmp_path / "out", pool)
    # examples are small, however large the pages and however long their lists of scores
    assert 10_000 < Path(result.funnel).stat().st_size < 1_000_000
    assert (tmp_path / "out" / "_winnow" / "report.json").stat().st_size < 1_000_000
    if kind == "text":  # no score and no rule raises on any text or URL
        assert result.quarantined == len(pool.bad)


@pytest.mark.parametrize("name", [n for n in OF_TEXT if not baselines.find(f"text/{n}").control])
def test_ordinary_pages_do_not_notice_their_neighbours(name, tmp_path, text, models):
    """Before anything looks at the whole pool, a page's scores and its verdict are its own."""
    alone = tmp_path / "alone"
    alone.mkdir()
    rows = [nasty_pages.line(f"ordinary-{n}", page) for n, page in enumerate(nasty_pages.prose(20))]
    (alone / "strange.jsonl").write_bytes(b"".join(rows))
    together = tmp_path / "together"
    together.mkdir()
    (together / "strange.jsonl").write_bytes((text.folder / "strange.jsonl").read_bytes())

    def verdicts(pool: Path) -> list[dict[str, Any]]:
        recipe = for_text(baselines.find(f"text/{name}"))
        steps = plan(recipe, pool, tmp_path / f"out-{pool.name}", models)
        own = []
        for step in flatten(steps[:-1]):
            if kind_of(step) == "barrier":
                break
            own.append(step)
        c.run([*own, steps[-1]], workers=1, progress=False, funnel=False, error_budget=1.0)
        found = [row for t in tables(tmp_path / f"out-{pool.name}" / "scores") for row in t.to_pylist()]
        return [row for row in found if row["id"].startswith("ordinary-")]

    assert verdicts(alone) == verdicts(together)


@pytest.mark.timeout(300)  # two runs, and the second extracts every large page anew
@pytest.mark.parametrize("name", ["dclm_baseline", "fineweb"])
def test_neither_batches_nor_workers_change_a_byte(name, tmp_path, warc, models, remembered, monkeypatch):
    from curation import stage

    run(name, "warc", warc.folder, tmp_path / "one", models)
    whole = stage.StageSpec.__dataclass_fields__["batch_bytes"].default
    small = tuple(64 << 10 if d is whole else d for d in stage.StageSpec.__init__.__defaults__)
    monkeypatch.setattr(stage.StageSpec.__init__, "__defaults__", small)
    result = run(name, "warc", warc.folder, tmp_path / "two", models, workers=2)
    assert result.report["workers"] == 2
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
