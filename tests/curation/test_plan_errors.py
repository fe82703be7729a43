"""Every kind of mistake gives one clear message, and neither a worker nor an output folder comes to be."""

from dataclasses import dataclass

import pyarrow as pa
import pytest

import curation as c


@c.score
def n_words(text: str) -> int:
    return len(text.split())


@c.score
def of_url(link: str) -> int:
    return len(link)


@c.score
def wrong_type(text: int) -> int:
    return text


@c.score(batch=True)
def wrong_array(text: pa.Int64Array) -> pa.Array:
    return text


@c.score(name="text")
def shadow(url: str) -> int:
    return 1


@dataclass(frozen=True)
class Needs(c.Model):
    inputs = ("embedding",)


@c.transform(removes=("id",))
def strip_id(text):
    return {"text": text}


def plain(text):
    return 1


CASES = [
    ("misspelt column in a score", [of_url], "reads column 'link', which no earlier step makes"),
    ("misspelt column in a keep", [n_words, c.keep("n_word > 3", reason="r")], "did you mean 'n_words'"),
    ("keep before its score", [c.keep("n_words > 3", reason="r"), n_words], "no earlier step makes"),
    ("not boolean", [n_words, c.keep("n_words + 1", reason="r")], "not true or false"),
    ("unparsable", [c.keep("text = = 'a'", reason="r")], "cannot be parsed"),
    ("wrong type", [wrong_type], "annotated int, but the column is string"),
    ("wrong array type", [wrong_array], "annotated Int64Array, but the column is string"),
    ("two makers", [n_words, n_words], "already made by step 1"),
    ("a score over a column", [shadow], "already made by the input"),
    ("model input", [Needs()], "reads column 'embedding'"),
    ("class, not a step", [Needs], "call it, Needs"),
    ("plain function", [plain], "put @c.score"),
    ("not a step", [3], "is not a step"),
    ("id removed", [strip_id], "id never changes"),
    ("barrier column", [c.top_fraction("quality", 0.1)], "reads column 'quality'"),
    ("function keep", [c.keep(lambda link: True, reason="r")], "reads column 'link'"),
    ("second read", [c.read("elsewhere")], "second c.read"),
]


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if a worker would start."""

    def refuse(*args, **kwargs):
        raise AssertionError("a worker was started for a plan that cannot work")

    monkeypatch.setattr("curation.driver._Run._executor", refuse)


@pytest.mark.parametrize(("steps", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_mistake_is_named_before_anything_starts(text_pool, tmp_path, no_work, steps, says):
    out = tmp_path / "out"
    with pytest.raises(c.PlanError) as caught:
        c.run([c.read(text_pool), *steps, c.write(out)], progress=False)
    assert says in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (lambda p, o: [], "empty"),
        (lambda p, o: [n_words, c.write(o)], "starts with c.read"),
        (lambda p, o: [c.read(p), n_words], "no c.write"),
        (lambda p, o: [c.read(p), c.write(o), n_words], "write comes last"),
        (lambda p, o: [c.read(p / "absent"), c.write(o)], "absent"),
        (lambda p, o: [c.read(p / "*.warc.gz"), c.write(o)], "warc.gz"),
        (lambda p, o: [c.read(p), c.write(p / "out")], "lies inside the input"),
        (lambda p, o: [c.read(p), c.write(o, removed=p / "gone")], "lies inside the input"),
        (lambda p, o: [c.read(p), c.write(o, columns=["txt"])], "did you mean 'text'"),
    ],
)
def test_shape_of_the_plan(text_pool, tmp_path, no_work, plan, says):
    with pytest.raises(c.PlanError) as caught:
        c.run(plan(text_pool, tmp_path / "out"), progress=False)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scores": "some"}, "kept, all"),
        ({"on": "spark"}, "'local' or 'ray'"),
        ({"on_error": "skip"}, "quarantine"),
    ],
)
def test_options(text_pool, tmp_path, no_work, options, says):
    with pytest.raises(c.PlanError, match=says):
        c.run([c.read(text_pool), c.write(tmp_path / "out")], progress=False, **options)


def test_a_recipe_file_names_the_nearest_right_name(tmp_path):
    def load(steps):
        file = tmp_path / "recipe.yaml"
        file.write_text(f"title: t\nsteps:\n  - read: pool\n{steps}")
        return c.load_plan(file).plan(out="o")

    for steps, says in [
        ("  - curation:kep: {where: a}", "did you mean 'keep'"),
        ("  - top_fractoin: {column: a, fraction: .1}", "did you mean 'top_fraction'"),
        ("  - top_fraction: {colunm: a, fraction: .1}", "did you mean 'column'"),
        ("  - filtres.text:x", "no module 'filtres'"),
        ("  - write: ${place}", "--set place="),
        ("  - [a, b]", "not `name`"),
        ("  - dedup_exact: {no: text}", "has no parameter 'no'"),
    ]:
        with pytest.raises(c.PlanError) as caught:
            load(steps)
        assert says in str(caught.value), steps


def test_every_recipe_of_ours_builds_and_on_is_a_parameter():
    import baselines

    filled = {"pool": "p", "out": "o", "classifier": __file__, "network": None}
    for name in baselines.names():
        recipe = baselines.find(name)
        if recipe.needs != ("network",):
            plan = recipe.plan(**{k: v for k, v in filled.items() if v})
            assert len(plan) == len(recipe.raw_steps) >= 2
    (dedup,) = [
        s for s in baselines.find("text/rules_dedup").plan(pool="p", out="o") if hasattr(s, "scatter")
    ]
    assert dedup.on == "text"
