"""Every rule of dclm_baseline_refinedweb.yaml, below, at and above its threshold, by hand-made pages."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

import curation as c
from curation.expressions import evaluate
from curation.plan_file import load_plan
from filters.text import dclm
from filters.text.dclm.edits import remove_urls_from
from filters.text.dclm.lines import COUNTED, edit_lines
from filters.text.dclm.repetition import score_dclm_repetition
from filters.text.dclm.scores import score_dclm

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("dclm_baseline", "dclm_baseline_fasttext", "refinedweb")


def failed(rules: list[c.Keep], **columns) -> set[str]:
    """Reasons of the rules that would drop the one row."""
    batch = pa.record_batch(columns)
    return {rule.reason for rule in rules if not evaluate(rule.where, batch)[0]}


def filler(chars: int) -> list[str]:
    """Different words with exactly so many characters (16 or more)."""
    names = (f"w{i:04d}xyz" for i in count())
    words = [next(names) for _ in range(chars // 8 - 1)]
    return [*words, next(names) + "q" * (chars - 8 * (chars // 8))]


# ------------------------------------------------------------------------------------------ steps 9 to 15

LINE = "some words of text"


def with_lines(marked: int, of: int, mark) -> str:
    return "\n".join(mark(LINE) if i < marked else LINE for i in range(of))


PAGE_CASES = [
    # (reason, page, is it dropped for that reason)
    ("dclm: too few words", "word " * 49, True),
    ("dclm: too few words", "word " * 50, False),
    ("dclm: too few words", "word " * 51, False),
    ("dclm: too few words", "word " * 49 + " — ... (word) [word]", True),  # first character not alphanumeric
    ("dclm: too many words", "word " * 99_999, False),
    ("dclm: too many words", "word " * 100_000, False),
    ("dclm: too many words", "word " * 100_001, True),
    ("dclm: words too short", "abc abc ab", True),
    ("dclm: words too short", "abc abc abc", False),
    ("dclm: words too short", "abc abc abcd", False),
    ("dclm: words too short", "", True),
    ("dclm: words too long", "abcdefghij abcdefghi", False),
    ("dclm: words too long", "abcdefghij abcdefghij", False),
    ("dclm: words too long", "abcdefghij abcdefghijk", True),
    *(
        case
        for symbol in ("#", "...", ". . .", "…")
        for case in (
            ("dclm: too many symbols", "w " * (9 - len(symbol.split())) + symbol, True),
            ("dclm: too many symbols", "w " * (10 - len(symbol.split())) + symbol, False),
            ("dclm: too many symbols", "w " * (11 - len(symbol.split())) + symbol, False),
        )
    ),
    ("dclm: too many symbols", "w " * 20 + "###", True),  # each counts, wherever it stands
    ("dclm: too many symbols", "w " * 19 + "......", False),  # two of them in 20 words
    ("dclm: too many symbols", "w " * 18 + "......", True),
    *(
        case
        for bullet in "●•*-"
        for case in (
            ("dclm: too many bullet lines", with_lines(8, 10, lambda line, b=bullet: b + line), False),
            ("dclm: too many bullet lines", with_lines(9, 10, lambda line, b=bullet: b + line), False),
            ("dclm: too many bullet lines", with_lines(10, 10, lambda line, b=bullet: f"  {b} {line}"), True),
        )
    ),
    ("dclm: too many bullet lines", with_lines(9, 10, lambda line: "- " + line) + "\n\n\n", False),
    *(
        case
        for end in ("...", ". . .", "…")
        for case in (
            ("dclm: too many cut lines", with_lines(2, 10, lambda line, e=end: line + e), False),
            ("dclm: too many cut lines", with_lines(3, 10, lambda line, e=end: line + e), False),
            ("dclm: too many cut lines", with_lines(4, 10, lambda line, e=end: f"{line} {e} "), True),
        )
    ),
    ("dclm: too many words without a letter", "word " * 9 + "1", False),
    ("dclm: too many words without a letter", "word " * 8 + "1 --", False),
    ("dclm: too many words without a letter", "word " * 7 + "1 -- 3.14", True),
    ("dclm: too many words without a letter", "", True),
    ("dclm: too few stop words", "cats have wings", True),
    ("dclm: too few stop words", "The cats HAVE wings", False),
    ("dclm: too few stop words", "the cats of the house", False),
    ("dclm: too few stop words", "the, the. (the) the", True),  # whole white-space words only
]


@pytest.mark.parametrize(("reason", "page", "dropped"), PAGE_CASES)
def test_page_rules(reason, page, dropped):
    assert (reason in failed(dclm.dclm_rules(), dclm=score_dclm(pa.array([page])))) == dropped


def test_stop_words_may_be_counted_once_each():
    page = score_dclm(pa.array(["the cats of the house", "the cat the dog"]))
    assert failed(dclm.stop_word_filter(count_unique=True), dclm=page[:1]) == set()
    assert failed(dclm.stop_word_filter(count_unique=True), dclm=page[1:]) == {"dclm: too few stop words"}
    assert failed(dclm.stop_word_filter(), dclm=page[1:]) == set()


# ------------------------------------------------------------------------------------------------- step 16


def repeated(page: str) -> set[str]:
    reasons = failed(dclm.dclm_repetition_rules(), dclm_repetition=score_dclm_repetition(pa.array([page])))
    return {reason.removeprefix("dclm repetition: ") for reason in reasons}


@pytest.mark.parametrize(("unit", "between"), [("lines", "\n"), ("paragraphs", "\n\n")])
def test_repeated_units(unit, between):
    def page(copies: int, of: int) -> str:
        words = filler(8 * of)
        return between.join([*words[copies:], *["x"] * copies])  # short, so that only their number counts

    assert repeated(page(2, 10)) == set()
    assert repeated(page(3, 10)) == set()  # all copies count: 3 of 10, at the threshold
    assert repeated(page(4, 10)) == {f"repeated {unit}"} | (
        {"repeated lines"} if unit == "paragraphs" else set()
    )
    assert repeated(page(31, 100)) >= {f"repeated {unit}"}


@pytest.mark.parametrize(("unit", "between"), [("lines", "\n"), ("paragraphs", "\n\n")])
def test_text_in_repeated_units(unit, between):
    def page(copies: int, others: int) -> str:
        return between.join([*filler(others), "c" * copies, "c" * copies])

    reason = f"text in repeated {unit}"
    assert reason not in repeated(page(10, 81))
    assert reason not in repeated(page(10, 80))  # 20 of 100
    assert reason in repeated(page(10, 79))
    assert reason not in repeated(f"{between}  \t{between}".join(page(10, 80).split(between)))  # blank ones


def test_what_is_too_small_to_repeat():
    assert repeated("one line of one word " * 1 + "only") == set()
    assert repeated("same") == set()
    assert repeated("  \n\n ") == {"empty page"}
    assert repeated("") == {"empty page"}


TOP = {2: 20, 3: 18, 4: 16}
COVERED = {5: 15, 6: 14, 7: 13, 8: 12, 9: 11, 10: 10}


@pytest.mark.parametrize(("n", "percent"), (TOP | COVERED).items())
def test_repeated_n_grams(n, percent):
    # two copies of n words of ``percent`` letters, in 200 n letters: at the threshold
    gram = [chr(ord("a") + i) * percent for i in range(n)]
    reason = f"top {n}-gram" if n in TOP else f"repeated {n}-grams"

    def page(letters: int) -> str:
        words = filler(letters - 2 * n * percent)
        half = len(words) // 2
        return " ".join([*gram, *words[:half], *gram, *words[half:]])

    assert reason not in repeated(page(200 * n + 1))
    assert reason not in repeated(page(200 * n))
    assert reason in repeated(page(200 * n - 1))
    marked = page(200 * n).replace(" ", " , — ")  # neither white space nor punctuation counts
    assert reason not in repeated(marked)
    assert reason in repeated(page(200 * n - 1).replace(" ", ", "))


def test_of_equally_frequent_n_grams_the_longest_counts():
    scores = score_dclm_repetition(pa.array(["a b 1 a b 2 cccc dddd 3 cccc dddd 4", "a b c"])).to_pylist()
    assert scores[0]["top_2_gram"] == 2 * 8 / 24
    assert scores[1]["top_2_gram"] == 0  # nothing repeats


def test_positions_under_repeated_n_grams_count_once():
    scores = score_dclm_repetition(pa.array(["a b c d e f a b c d e f x", "aa " * 9 + "b"])).to_pylist()
    assert scores[0]["dup_5_gram"] == 12 / 13
    assert scores[0]["dup_6_gram"] == 12 / 13
    assert scores[0]["dup_7_gram"] == 0
    assert scores[1]["dup_5_gram"] == 18 / 19


# ------------------------------------------------------------------------------------------- steps 18 to 22


def edited(line: str, compat: str | None = None) -> str:
    """A line between two others, after all edits."""
    text, _ = edit_lines(
        pa.array([f"above it\n{line}\nbelow it"]), dclm.refinedweb_lines(compat=compat).instructions()
    )
    above, *between, below = text[0].as_py().split("\n")
    assert (above, below) == ("above it", "below it")
    return "\n".join(between) if between else "(gone)"


LINE_CASES = {
    "ABCD abcde": "ABCD abcde",
    "ABCDE abcd": "ABCDE abcd",  # 5 of 10
    "ABCDEF abc": "(gone)",
    "ÀÉ à": "ÀÉ à",  # Unicode, 2 of 4
    "ÀÉ Ò": "(gone)",
    "12345": "(gone)",
    "١٢": "(gone)",
    "1234 5": "1234 5",
    "1234a b": "1234a b",
    "": "",
    "word": "(gone)",
    "two words": "two words",
    **{f"3 {name}": "(gone)" for name in COUNTED},
    "1,234 Likes": "(gone)",
    "* 1.2K  views *": "(gone)",
    "12m followers!": "(gone)",
    "3 likes today": "3 likes today",
    "about 3 likes": "about 3 likes",
    "3likes here": "3likes here",
    "some likes": "some likes",
    "three 3 items in cart": "three 3",
    "Items In Cart: 2 of them": ": 2 of them",
    "items in cart": "(gone)",
    "a b c d e f g items in cart": "a b c d e f g",  # 10 words
    "a b c d e f g h items in cart": "a b c d e f g h items in cart",
    "the story Read more...": "the story",
    "the story read MORE...": "the story",
    "Read more... of the story": "Read more... of the story",
    "a b c d e f g h Read more...": "a b c d e f g h",
    "a b c d e f g h i Read more...": "a b c d e f g h i Read more...",
    "Sign-in to go on": "to go on",
    "to go on Sign-in": "to go on Sign-in",
    "Sign-in a b c d e f g h i": "a b c d e f g h i",
    "Sign-in a b c d e f g h i j": "Sign-in a b c d e f g h i j",
}


@pytest.mark.parametrize("line", LINE_CASES)
def test_line_rules(line):
    assert edited(line) == edited(line, "dclm") == LINE_CASES[line]


def words_removed(before: int, removed: int) -> set[str]:
    """Drop ``removed`` words in one-word lines from a page of ``before``."""
    page = " ".join(["word"] * (before - removed)) + "\nword" * removed
    out, _ = dclm.refinedweb_lines()(pa.record_batch({"id": ["a"], "text": [page]}))
    assert out["line_edits"].to_pylist()[0]["words_after"] == before - removed
    return failed(dclm.words_removed_rule(), line_edits=out["line_edits"])


def test_words_removed():
    assert words_removed(100, 4) == set()
    assert words_removed(100, 5) == set()
    assert words_removed(100, 6) == {"dclm: too many words removed"}
    nothing, _ = dclm.refinedweb_lines()(pa.record_batch({"id": ["a"], "text": ["- -\n- -"]}))
    assert failed(dclm.words_removed_rule(), line_edits=nothing["line_edits"]) == {
        "dclm: too many words removed"
    }


# ------------------------------------------------------ odd rules: the mended one, and DCLM's to the letter


def test_points_of_read_more():
    assert edited("the story Read more!!!") == "the story Read more!!!"
    assert edited("the story Read more!!!", "dclm") == "the story"


def test_urls_are_looked_for_everywhere_or_after_a_lucky_start():
    pages = pa.array(["9 lives at www.cats.com today", "Coming to www.cats.com today"])
    assert remove_urls_from(pages).to_pylist() == ["9 lives at today", "Coming to today"]
    kept = ["9 lives at www.cats.com today", "Coming to today"]  # "Co" spells .co
    assert remove_urls_from(pages, "dclm").to_pylist() == kept


def test_line_breaks_before_urls_stay_or_go():
    page = pa.array(["it is here\nhttp://a.com\nand there"])  # "it" spells .it
    assert remove_urls_from(page).to_pylist() == ["it is here\n\nand there"]
    assert remove_urls_from(page, "dclm").to_pylist() == ["it is here\nand there"]


@pytest.mark.parametrize("compat", [None, "dclm"])
def test_language_joins_lines(compat):
    """By default newlines are spaces and 2,000 characters are read; DCLM deletes them and reads the page."""
    from filters.text import fasttext_model
    from filters.text.language import find_model

    model = fasttext_model.load(find_model())
    page = "der Sturm\nund das\nBoot\n" * 100 + "the end of the story " * 60
    step = dclm.dclm_language(compat=compat)
    step.setup()
    got = step(pa.record_batch({"text": [page]}))
    read = {None: page.replace("\n", " ")[:2000], "dclm": page.replace("\n", "")}
    expected = {key: model.top(pa.array([text])).probabilities[0].as_py() for key, text in read.items()}
    assert expected[None] != pytest.approx(expected["dclm"], abs=1e-3)  # it makes a difference here
    assert got["language_score"][0].as_py() == pytest.approx(expected[compat], abs=1e-6)


@pytest.mark.parametrize(
    ("compat", "score", "dropped"),
    [(None, 0.64, True), (None, 0.65, False), (None, 0.66, False),
     ("dclm", 0.64, True), ("dclm", 0.65, True), ("dclm", 0.66, False)],
)  # fmt: skip
def test_language_at_its_threshold(compat, score, dropped):
    rules = dclm.dclm_language_rules(compat=compat)
    assert (failed(rules, language=["en"], language_score=[score]) == {"language: uncertain"}) == dropped
    assert failed(rules, language=["de"], language_score=[0.9]) == {"language"}


# ------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("compat", [None, "dclm"])
def test_recipes_are_plans_in_the_published_order(name, compat):
    recipe = load_plan(ROOT / "baselines" / "text" / f"{name}.yaml")
    steps = recipe.plan(pool="pool", out="out", classifier="model.bin", compat=compat)
    flat = [s for step in steps for s in (step if isinstance(step, list) else [step])]
    order = [
        "url_words", "extract", "remove_urls", "squeeze_newlines", "dclm_language", "keep language",
        "dclm_scores", "keep dclm: too few words", "keep dclm: words too short",
        "keep dclm: too many symbols", "keep dclm: too many bullet lines", "keep dclm: too many cut lines",
        "keep dclm: too many words without a letter", "keep dclm: too few stop words", "dclm_repetition",
        "keep dclm repetition: repeated lines", "refinedweb_lines", "keep dclm: too many words removed",
    ]  # fmt: skip
    names = [getattr(s, "name", "") for s in flat]
    assert [n for n in names if n in order] == order
    ours = [s for s in flat if type(s).__module__.startswith("filters.text.dclm") and hasattr(s, "compat")]
    assert [s.compat for s in ours] == [compat] * 3
    strict = any("language_score > 0.65" in (getattr(s, "where", None) or "") for s in flat)
    assert strict == (compat == "dclm")


def test_refinedweb_leaves_out_sixteen_sites():
    plan = load_plan(ROOT / "baselines" / "text" / "refinedweb.yaml").plan(pool="pool", out="out")
    step = plan[1]
    step.setup()
    urls = ["https://en.wikipedia.org/wiki/A", "http://www.arxiv.org/abs/1", "https://example.org/"]
    answer = step(pa.record_batch({"url": urls}))
    answer = answer["url_words"] if isinstance(answer, dict) else answer
    assert [row["domain"] for row in answer.to_pylist()] == [True, True, False]
    assert len(step.domains) == 16


def test_dclm_baseline_runs_on_pages_of_the_embedded_pool(tmp_path):
    from pools import demo_text

    try:
        folder = Path(demo_text.unpack())
    except FileNotFoundError as error:
        pytest.skip(f"no embedded pool here: {error}")
    shard = sorted(folder.glob("*.warc.gz"))[0]
    plan = load_plan(ROOT / "baselines" / "text" / "dclm_baseline.yaml").plan(
        pool=str(shard), out=str(tmp_path / "out")
    )
    result = c.run(plan, workers=1)
    report = result.report
    reasons = {row["reason"] for row in report["reasons"]}
    assert 20 <= report["output"]["rows"] < report["input"]["rows"]
    assert {"language", "dclm: too few words", "dclm repetition: repeated 5-grams"} <= reasons
