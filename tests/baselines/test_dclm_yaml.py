"""DCLM's YAML files, run unchanged: all functions, a user's own, errors, decisions beside our own steps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import read_rows

import baselines
import curation as c
from baselines import dclm_yaml
from curation.plan import flatten

HERE = Path(__file__).parent / "dclm"
FILES = {name: HERE / f"{name}.yaml" for name in ("refinedweb_order", "c4_order", "every_function")}
PACKAGES = {"ken_lm_perplexity_enricher"}  # asks for kenlm and sentencepiece


def write(tmp_path: Path, steps: str, name: str = "theirs.yaml") -> Path:
    body = "".join(f"    {line}\n" for line in steps.strip("\n").splitlines())
    file = tmp_path / name
    file.write_text(f"- source: cc\n  steps:\n{body}")
    return file


def pool_of(tmp_path: Path, rows: list[dict]) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(file: Path, pool: Path, out: Path, **variables):
    plan = baselines.find(file).plan(pool=str(pool), out=str(out), **variables)
    return c.run(plan, workers=1, progress=False)


# ------------------------------------------------------------------------------------------------- every name


def test_the_files_cover_every_function():
    named = {
        step["func"]
        for file in FILES.values()
        for block in dclm_yaml.load(file).sources.values()
        for step in block
        if step != "commit"
    }
    assert named | PACKAGES == set(dclm_yaml.NAMES)


@pytest.mark.parametrize("compat", ["dclm", None])
@pytest.mark.parametrize("source", ["text", "code", "arxiv", "stackexchange"])
def test_every_function_becomes_steps(source, compat):
    recipe = dclm_yaml.load(FILES["every_function"], compat=compat)
    steps = recipe.steps(source)
    functions = [s["func"] for s in recipe.sources[source] if s != "commit"]
    # each removal is named after a function of the file, and those that remove appear in its order
    reasons = [s.reason for s in steps if s.kind == "keep"]
    assert set(reasons) <= set(functions)
    filters = [f for f in functions if f.endswith(("_filter", "_filters"))]
    assert list(dict.fromkeys(reasons)) == list(dict.fromkeys(filters))
    transforms = [s.name for s in steps if s.kind == "transform"]
    assert [t for t in transforms if t != "exact_dedup"] == [
        f for f in functions if f.endswith(("_modifier", "_splitter", "_formatter", "within_page_dedup"))
    ]


def test_steps_are_data_equal_and_hashed_alike():
    from curation.plan import plan_hash

    for file in FILES.values():
        one, two = (dclm_yaml.load(file) for _ in range(2))
        for source in one.sources:
            assert plan_hash(one.steps(source)) == plan_hash(two.steps(source))
    recipe = dclm_yaml.load(FILES["refinedweb_order"])
    assert plan_hash(recipe.steps()) != plan_hash(recipe.steps(compat=None))


def test_parameters_arrive(tmp_path):
    recipe = dclm_yaml.load(FILES["every_function"])
    where = {s.reason: s.where for s in recipe.steps("text") if s.kind == "keep"}
    assert where["line_length_filter"] == "line_length_filter <= 100"
    assert where["alphanumeric_char_ratio_filter"] == "alphanumeric_char_ratio_filter >= 0.3"
    assert where["alphabetic_characters_to_tokens_filter"] == "alphabetic_characters_to_tokens_filter >= 1.5"
    assert where["quality_filter"] == "score <= 3.0"
    assert where["language_filter"] == "language_filter > 0.5"
    assert where["stop_word_filter"] == "dclm.n_unique_stop_words >= 2"
    assert where["repetition_filter"] == "dclm_repetition_lower.dup_line_frac <= 0.25"
    assert "words_before - word_removal_ratio_filter" in where["word_removal_ratio_filter"]
    mended = {s.reason: s.where for s in recipe.steps("text", compat=None) if s.kind == "keep"}
    assert mended["language_filter"] == "language_filter >= 0.5"
    assert mended["alphanumeric_char_ratio_filter"] == "alphanumeric_char_ratio_filter >= 0.3"
    (dedup,) = [s for s in recipe.steps("text") if s.name == "dedup_exact"]
    assert (dedup.on, dedup.reason) == ("exact_dedup_2_key", "exact_dedup")


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("- func: page_lenght_filter", "did you mean 'page_length_filter'"),
        ("- func: page_length_filter\n  min_lenght: 5", "'min_lenght'; did you mean 'min_length'"),
        ("- func: page_length_filter", "length_type"),
        ("- func: page_length_filter\n  length_type: words", "did you mean 'word'"),
        ("- page_length_filter", "neither `commit` nor a mapping"),
        ("- func: url_substring_filter\n  banlist_from_fname: nowhere.txt", "no file 'nowhere.txt' beside"),
        ("- func: language_filter\n  keep_languages: [no]", "quote 'no'"),
        ("- func: exact_dedup\n  normalize: normalise_url", "did you mean 'normalize_url'"),
        ("- func: split_lines_modifier\n- func: stop_word_filter", "join_lines_modifier first"),
        ("- func: word_removal_ratio_filter", "prev_word_count_key is missing"),
        ("- func: repetition_filter\n  granularity: 12\n  max_fraction: .1", "'all' for n = 5 to 10"),
        ("- func: stop_word_filter\n  _aggregate: {n: percentile}", "did you mean 'percentiles'"),
        ("- func: stop_word_filter\n  _aggregate: {n: {type: histogram, transform: t}}", "are: threshold_"),
        ("- func: user.none.f", "no file user/none.py beside"),
        ("- func: user.mine.first_word", "did you mean 'first_words'"),
        ("- func: user.mine.share_of\n  words: a", "unexpected keyword argument 'words'"),
        ("- commit", "no step to run"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_runs(tmp_path, steps, says):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine.py").write_text((HERE / "user" / "mine.py").read_text())
    with pytest.raises(c.PlanError) as caught:
        dclm_yaml.load(write(tmp_path, steps)).steps()
    assert says in str(caught.value)


def test_a_missing_package_is_said_with_the_other_way():
    import importlib.util

    for package, steps, says in [
        (
            "langdetect",
            "- func: detect_lang_whole_page_enricher\n  model: langdetect\n  seed: 0",
            "model: fasttext",
        ),
        (
            "nltk",
            "- func: page_length_filter\n  length_type: sentence\n  tokenizer: nltk",
            "--set compat=none",
        ),
        ("kenlm", "- func: ken_lm_perplexity_enricher", "package kenlm"),
    ]:
        if importlib.util.find_spec(package) is not None:
            continue
        import tempfile

        with tempfile.TemporaryDirectory() as folder, pytest.raises(c.PlanError) as caught:
            dclm_yaml.load(write(Path(folder), steps)).steps()
        assert says in str(caught.value)


def test_mended_rules_need_no_sentence_package(tmp_path):
    file = write(
        tmp_path,
        "- func: page_length_filter\n  length_type: sentence\n  tokenizer: nltk\n  tokenizer_lang: english",
    )
    score, _ = dclm_yaml.load(file, compat=None).steps()
    assert score.tokenizer == "rules"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- source: a\n  step: []", "a list `steps`"),
        ("- source: a\n  steps: []\n  wait: 1", "did you mean 'weight'"),
        ("- source: a\n  steps: [commit]\n- source: a\n  steps: [commit]", "there twice"),
        ("steps: []", "a list of blocks"),
        ("- [", "is not YAML"),
    ],
)
def test_files_that_are_no_dclm_yaml(tmp_path, text, says):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(c.PlanError) as caught:
        dclm_yaml.load(file)
    assert says in str(caught.value)


def test_find_tells_the_two_kinds_of_files_apart(tmp_path):
    assert isinstance(baselines.find(FILES["c4_order"]), dclm_yaml.DclmRecipe)
    assert not isinstance(baselines.find("text/rules"), dclm_yaml.DclmRecipe)
    with pytest.raises(c.PlanError, match="is not YAML"):
        broken = tmp_path / "broken.yaml"
        broken.write_text("- [")
        baselines.find(broken)
    recipe = baselines.find(FILES["every_function"])
    assert recipe.variables == ("pool", "out") and recipe.name == "every_function"
    with pytest.raises(c.PlanError, match="several sources; say --set source="):
        recipe.plan(pool="p", out="o")
    with pytest.raises(c.PlanError, match="did you mean 'code'"):
        recipe.plan(pool="p", out="o", source="cod")
    with pytest.raises(c.PlanError, match=r"needs \$\{out\}"):
        recipe.plan(pool="p", source="code")
    with pytest.raises(c.PlanError, match="did you mean 'source'"):
        recipe.plan(pool="p", out="o", sorce="code")
    with pytest.raises(c.PlanError, match="'dclm'"):
        recipe.plan(pool="p", out="o", source="code", compat="dlcm")
    steps = recipe.plan(pool="p", out="o", source="code", compat="none", extract=False)
    assert [s.name for s in steps[1:-1]] == ["starcoder_v2_repo_splitter", "starcoder_v2_format_modifier"]


def test_files_are_found_from_dclm_s_root(tmp_path, monkeypatch):
    lists = tmp_path / "baselines" / "mappers" / "banlists"
    lists.mkdir(parents=True)
    (lists / "strict.txt").write_text("casino\n")
    configs = tmp_path / "baselines" / "baselines_configs"
    configs.mkdir()
    step = "- func: url_substring_filter\n  banlist_from_fname: baselines/mappers/banlists/strict.txt"
    score, _ = dclm_yaml.load(write(configs, step)).steps()
    assert score.banlist == ("casino",)
    models = tmp_path / "baselines/mappers/enrichers/quality_prediction_enrichment_models"
    models.mkdir(parents=True)
    (models / "model.bin").write_text("x")
    (score,) = dclm_yaml.load(
        write(configs, "- func: classify_fasttext_hq_prob_enricher\n  model_filename: model.bin")
    ).steps()
    assert Path(score.model_filename) == models / "model.bin"
    score, keep = dclm_yaml.load(
        write(configs, "- func: quality_filter\n  key: a\n- func: quality_filter\n  key: a")
    ).steps()
    assert score == keep


# --------------------------------------------------------------------------------------------- own functions


def test_a_users_functions_run_as_they_are(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine.py").write_text((HERE / "user" / "mine.py").read_text())
    steps = """
- func: move_url_modifier
- func: user.mine.by_sentence
- func: user.mine.share_of
  word: blue
- func: quality_filter
  key: share
  threshold: 0.25
- func: user.mine.first_words
  n: 2
"""
    meta = {"WARC-Target-URI": "http://a.org/", "n": [1, 2]}
    rows = [
        {"id": "a", "text": "so blue. the sky. very blue it was", "metadata": meta},
        {"id": "b", "text": "", "metadata": meta},
        {"id": "c", "text": "none of it", "metadata": meta},
    ]
    result = run(write(tmp_path, steps), pool_of(tmp_path, rows), tmp_path / "out")
    out = read_rows(tmp_path / "out")
    assert [(r["id"], r["text"], r["url"]) for r in out] == [
        ("a/0", "so blue", "http://a.org/"),
        ("a/2", "very blue", "http://a.org/"),
    ]
    assert json.loads(out[0]["metadata"]) == {**meta, "seen": True}
    assert result.dropped == {"quality_filter": 2}
    report = json.loads((tmp_path / "out/_winnow/report.json").read_text())
    assert report["quarantined"]["rows"] == 1  # an empty text divides by zero: seen, not lost


def test_a_users_function_that_says_too_little(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "mine.py").write_text((HERE / "user" / "mine.py").read_text())
    rows = [{"id": str(n), "text": "a b"} for n in range(3)]
    pool = pool_of(tmp_path, rows)
    with pytest.raises(c.RunFailed, match=r"_outputs: \{surprise: double\}"):
        run(
            write(tmp_path, "- func: user.mine.forgets_to_say"),
            pool,
            tmp_path / "o1",
        )
    said = write(tmp_path, "- func: user.mine.forgets_to_say\n  _outputs: {surprise: int}")
    run(said, pool, tmp_path / "o2")
    assert [r["surprise"] for r in read_rows(tmp_path / "o2")] == [1, 1, 1]
    with pytest.raises(c.RunFailed, match="a mapper returns a list of pages"):
        run(write(tmp_path, "- func: user.mine.no_list"), pool, tmp_path / "o3")


def test_a_users_function_is_its_code_not_its_place(tmp_path):
    from curation.plan import plan_hash

    hashes = []
    for folder, body in (
        ("a", "def f(page):\n    return [page]\n"),
        ("b", "def f(page):\n    return [page]\n"),
        ("c", "def f(page):\n    return []\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(body)
        hashes.append(plan_hash(dclm_yaml.load(write(tmp_path / folder, "- func: mine.f")).steps()))
    assert hashes[0] == hashes[1] != hashes[2]


# ------------------------------------------------------------------------------------------------ decisions


@pytest.fixture(scope="module")
def pages_pool(tmp_path_factory) -> Path:
    """A thousand and more pages of the embedded pool as DCLM's raw jsonl: text and metadata."""
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    from filters.text import extract
    from pools import demo_text

    folder = tmp_path_factory.mktemp("dclm")
    warcs = sorted(Path(demo_text.unpack()).glob("*.warc.gz"))[:3]
    c.run([c.read([str(w) for w in warcs]), extract(), c.write(folder / "text")], workers=1, progress=False)
    pool = folder / "pool"
    pool.mkdir()
    for number, file in enumerate(sorted((folder / "text" / "data").iterdir())):
        with open(pool / f"{number}.jsonl", "w") as out:
            for row in pq.read_table(file, columns=["id", "url", "text"]).to_pylist():
                page = {"id": row["id"], "text": row["text"], "metadata": {"WARC-Target-URI": row["url"]}}
                out.write(json.dumps(page) + "\n")
    return pool


def kept_texts(out: Path) -> dict[str, str]:
    return {row["id"]: row["text"] for row in read_rows(out)}


@pytest.mark.parametrize("compat", ["dclm", None])
def test_the_baseline_s_order_decides_as_our_own_steps(pages_pool, tmp_path, compat):
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    from filters.text.dclm.edits import RemoveUrls, SqueezeNewlines
    from filters.text.dclm.lines import RefinedWebLines, words_removed_rule
    from filters.text.dclm.mappers import url_substring_filter
    from filters.text.dclm.pages import move_url_modifier
    from filters.text.dclm.repetition import DclmRepetition, dclm_repetition_rules
    from filters.text.dclm.scores import DclmScores, dclm_rules
    from filters.text.dclm.whole_page import DclmLanguage, dclm_language_rules

    lists = HERE / "lists"
    ours = [
        c.read(pages_pool),
        move_url_modifier(),
        url_substring_filter(
            None, lists / "domains.txt", ["www"], exact_domain_match=True, compat=compat, column="u1"
        ),
        url_substring_filter(None, lists / "strict.txt", ["-", "."], compat=compat, column="u2"),
        url_substring_filter(None, lists / "hard.txt", match_substrings=False, compat=compat, column="u3"),
        url_substring_filter(
            None, lists / "soft.txt", (), 2, match_substrings=False, compat=compat, column="u4"
        ),
        RemoveUrls(compat),
        SqueezeNewlines(),
        DclmLanguage(max_chars=0, compat=compat),
        dclm_language_rules(compat=compat),
        DclmScores(),
        dclm_rules(),
        DclmRepetition(),
        dclm_repetition_rules(),
        RefinedWebLines(compat=compat),
        words_removed_rule(),
        c.write(tmp_path / "ours"),
    ]
    wanted = c.run(ours, workers=1, progress=False)
    got = run(FILES["refinedweb_order"], pages_pool, tmp_path / "theirs", compat=compat or "none")
    assert kept_texts(tmp_path / "theirs") == kept_texts(tmp_path / "ours")
    assert got.rows_in == wanted.rows_in > 1000 and 300 < got.rows_out == wanted.rows_out
    # and each page leaves at the same place of the order
    names = {
        "language": "language_filter",
        "dclm repetition": "massive_web_repetition_filters",
        "dclm: too few words": "page_length_filter",
        "dclm: too many words removed": "word_removal_ratio_filter",
        "dclm: too few stop words": "stop_word_filter",
        "dclm: too many words without": "alphabetic_word_ratio_filter",
        "url_substring_filter": "url_substring_filter",
    }
    moved: Counter[str] = Counter()
    for reason, rows in wanted.dropped.items():
        moved[next((new for old, new in names.items() if reason.startswith(old)), reason)] += rows
    assert {n: got.dropped.get(n, 0) for n in names.values()} == {n: moved[n] for n in names.values()}


def test_aggregates_of_a_run(pages_pool, tmp_path):
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    recipe = baselines.find(FILES["refinedweb_order"])
    result = run(FILES["refinedweb_order"], pages_pool, tmp_path / "out")
    found = dclm_yaml.aggregates(recipe, tmp_path / "out")
    languages, words = found["language_id_whole_page_fasttext"], found["previous_word_count"]
    reached = result.rows_in - result.dropped.get("url_substring_filter", 0)
    assert sum(languages.values()) == reached
    after = reached - result.dropped["language_filter"]
    assert abs(languages["en"] - after) <= 3  # at the threshold: one is >, the other >=
    assert 50 <= words["min"] <= words["median"] <= words["p99"] <= words["max"] and words["mean"] > 50


def test_c4_s_order_runs_through_both_dedups(pages_pool, tmp_path):
    pytest.importorskip("fasttext", reason="fasttext is not installed")
    result = run(FILES["c4_order"], pages_pool, tmp_path / "out")
    texts = kept_texts(tmp_path / "out")
    assert result.rows_out == len(texts) > 300
    lines = Counter(
        line.strip().lower() for text in texts.values() for line in text.split("\n") if line.strip()
    )
    assert lines.most_common(1)[0][1] == 1  # no line is anywhere twice
    assert all(
        line.rstrip()[-1] in '.!?"…' for text in texts.values() for line in text.split("\n") if line.strip()
    )
    assert not any(
        "javascript" in t.lower() or "{" in t or "lorem ipsum" in t.lower() for t in texts.values()
    )
    assert result.dropped["exact_dedup"] > 0 and result.dropped["page_length_filter"] > 0


def test_a_warc_pool_is_extracted_first(tmp_path):
    pytest.importorskip("resiliparse", reason="resiliparse is not installed")
    from pools import demo_text

    pool = sorted(Path(demo_text.unpack()).glob("*.warc.gz"))[0]
    file = write(
        tmp_path,
        "- func: move_url_modifier\n- func: page_length_filter\n  length_type: char\n  min_length: 500",
    )
    plan = flatten(baselines.find(file).plan(pool=str(pool), out="o"))
    assert [s.name for s in plan[:3]] == ["read", "extract", "move_url_modifier"]
    text = "- func: page_length_filter\n  length_type: char"
    plain = baselines.find(write(tmp_path, text)).plan(pool=str(tmp_path / "nothing"), out="o")
    assert [s.name for s in flatten(plain)][1] == "page_length"


def test_our_recipe_of_c4_builds():
    recipe = baselines.find("text/dclm_c4")
    steps = flatten(recipe.plan(pool="p", out="o"))
    assert [s.kind for s in steps].count("barrier") == 2
    assert pa.types.is_list(
        steps[[s.name for s in steps].index("split_lines_modifier")].output_types({})["text"]
    )


def test_the_page_for_users_places_every_function():
    page = (Path(__file__).parents[2] / "docs" / "from-dclm.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("|") and "`filters.text.dclm." in line]
    for function in dclm_yaml.NAMES:
        (row,) = [line for line in table if f"`{function}`" in line]
        module = row.split("`filters.text.dclm.")[1].split("`")[0]
        found = __import__(f"filters.text.dclm.{module}", fromlist=[module])
        assert callable(getattr(found, function)), (function, module)
