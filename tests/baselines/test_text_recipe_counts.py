"""Every text recipe on 211 real pages: how many it keeps and why the others leave, and what a typing error in
it gets for an answer.

The numbers are not right or wrong by themselves. They are here so that a change of behaviour is seen, and
is meant: whoever changes a rule changes its line, and says why in the commit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml

import baselines
import curation as c
from curation.plan_file import Recipe, load_plan

RECIPES = [name.removeprefix("text/") for name in baselines.names("text")]

# recipe: (rows in, kept, the three most frequent reasons)
EXPECTED: dict[str, tuple[int, int, dict[str, int]]] = {
    "no_filter": (211, 211, {}),
    "random": (211, 33, {"not sampled": 178}),
    "rules": (211, 133, {"language": 35, "language: uncertain": 11, "gopher: too few stop words": 8}),
    "rules_dedup": (211, 104, {"language": 35, "near duplicate": 29, "language: uncertain": 11}),
    "fasttext": (211, 29, {"quality": 75, "language": 35, "near duplicate": 29}),
    "dclm_baseline": (211, 91, {"language": 35, "seen before": 26, "language: uncertain": 11}),
    "multilingual": (
        211, 128, {"near duplicate": 29, "language: uncertain": 15, "gopher: too few stop words": 10},
    ),
    "dclm_baseline_fasttext": (211, 9, {"quality": 82, "language": 35, "seen before": 26}),
    "refinedweb": (211, 88, {"language": 35, "near duplicate": 29, "language: uncertain": 11}),
    "gopher": (211, 114, {"language": 35, "near duplicate": 20, "gopher: too few stop words": 11}),
    "fineweb": (211, 49, {"gopher: too few words with a letter": 60, "language": 35, "near duplicate": 27}),
    "c4": (211, 135, {"c4: too few sentences": 31, "language": 24, "c4: curly bracket": 11}),
    "fineweb_edu": (
        211, 5, {"gopher: too few words with a letter": 60, "educational value": 44, "language": 35},
    ),
    "dclm_c4": (211, 139, {"language_filter": 32, "substring_line_modifier": 14, "curly bracket": 9}),
    # a model with random weights finds nothing educational
    "fineweb_edu_transformer": (
        211, 0, {"gopher: too few words with a letter": 60, "educational value": 49, "language": 35},
    ),
    # one row for each extractor at first, so a reason may count more rows than there are pages
    "union_extractors": (
        211, 140, {"another version of the page was kept": 242, "language": 91, "language: uncertain": 27},
    ),
    "dolma": (211, 102, {"language": 35, "dolma: near duplicate": 29, "dolma gopher: repeated lines": 11}),
    "redpajama_signals": (211, 211, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """One of 16 shards of the embedded pool."""
    from pools import demo_text

    folder = demo_text.unpack(tmp_path_factory.mktemp("pool"), shards=16)
    for shard in sorted(folder.iterdir())[1:]:
        shard.unlink()
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str], str]:
    """Model by the name of a recipe's variable, made when the first recipe asks for it."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def made(name: str) -> str:
        if name == "classifier":
            from pools import demo_text

            return tiny_models.classifier(folder / name, [row["text"] for row in demo_text.trusted()[:80]])
        return tiny_models.bert(folder / name)

    return made


def given(recipe: Recipe, models: Callable[[str], str]) -> dict[str, str]:
    return {name: models(name) for name in ("classifier", "model") if name in recipe.variables}


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_keeps_and_why_the_rest_leaves(name, pool, models, tmp_path):
    recipe = baselines.find(f"text/{name}")
    plan = recipe.plan(pool=str(pool), out=str(tmp_path / "out"), **given(recipe, models))
    result = c.run(plan, workers=1, progress=False, funnel=False, error_budget=0)
    reasons = dict(sorted(result.dropped.items(), key=lambda item: (-item[1], item[0]))[:3])
    found = (result.rows_in, result.rows_out, reasons)
    assert found == EXPECTED.get(name), f'EXPECTED needs\n    "{name}": {found!r},'
    assert result.quarantined == 0
    if name == "redpajama_signals":
        extracted = result.rows_in - result.dropped.get("extract", 0)
        assert result.rows_out == extracted and set(result.dropped) <= {"extract"}


# ------------------------------------------------------------------------------------------- typing errors


def copies(name: str) -> Iterator[tuple[str, list[Any], str]]:
    """(what is misspelt, the recipe's steps with it, the right name)."""
    steps = list(baselines.find(f"text/{name}").raw_steps)
    for number, step in enumerate(steps):
        maker, params = next(iter(step.items())) if isinstance(step, dict) else (step, None)
        before, after = steps[:number], steps[number + 1 :]
        right = maker.rpartition(":")[2]
        yield f"step {maker}", [*before, {maker + maker[-1]: params}, *after], right
        for key in params if isinstance(params, dict) else ():
            misspelt = {k + k[-1] if k == key else k: v for k, v in params.items()}
            yield f"parameter {key} of {maker}", [*before, {maker: misspelt}, *after], key
    yield (
        "column text",
        [*steps[:-1], {"keep": {"where": "txet is not null", "reason": "r"}}, steps[-1]],
        "text",
    )
    yield "column url", [*steps[:-1], {"dedup_exact": {"on": "ulr"}}, steps[-1]], "url"


@pytest.mark.parametrize("name", RECIPES)
def test_a_typing_error_is_refused_before_anything_starts(name, pool, models, tmp_path, monkeypatch):
    from curation import driver

    def started(*_: Any) -> None:
        raise AssertionError("a worker was asked for")

    monkeypatch.setattr(driver._Run, "_executor", started)
    recipe = baselines.find(f"text/{name}")
    variables = given(recipe, models)
    number = 0
    for what, steps, right in copies(name):
        file = tmp_path / "copy.yaml"
        file.write_text(yaml.safe_dump({"defaults": dict(recipe.defaults), "steps": steps}, sort_keys=False))
        with pytest.raises(c.PlanError) as refused:
            c.run(
                load_plan(file).plan(pool=str(pool), out=str(tmp_path / "out"), **variables), progress=False
            )
        assert f"did you mean {right!r}" in str(refused.value), what
        assert not (tmp_path / "out").exists(), what
        number += 1
    assert number >= 5
