"""OpenHermes and ELI5 rows to positives, by the published rules."""

import json

import pytest

from recipes.quality_positives import convert, eli5, main, openhermes


def post(score=3, answers=((5, "Best."), (2, "x"), (1, "y")), **more):
    texts = {"score": [s for s, _ in answers], "text": [t for _, t in answers]}
    return {"title": "ELI5: why?", "selftext": "", "score": score, "answers": texts} | more


def test_openhermes_is_question_and_answer():
    turns = [("system", "You are."), ("human", " Why? "), ("gpt", "Because."), ("human", ""), ("gpt", "So.")]
    row = {"conversations": [{"from": who, "value": value} for who, value in turns]}
    assert openhermes(row) == "Why?\n\nBecause.\n\nSo."
    assert openhermes({"conversations": []}) is None


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (post(), True),
        (post(score=2), False),
        (post(score=4), True),
        (post(answers=((5, "a"), (1, "b"))), False),  # two answers
        (post(answers=((4, "a"), (1, "b"), (0, "c"))), False),
        (post(answers=((6, "a"), (1, "b"), (0, "c"))), True),
    ],
)
def test_eli5_rules_at_below_and_above(row, kept):
    assert (eli5(row) is not None) == kept


def test_eli5_text_is_the_post_and_its_best_answer():
    assert eli5(post(selftext=" More. ")) == "ELI5: why?\nMore.\n\nBest."
    tied = post(answers=((7, "short"), (7, "the longer one"), (1, "x")))
    assert eli5(tied) == "ELI5: why?\n\nthe longer one"


def test_a_row_without_a_field_is_named():
    with pytest.raises(ValueError, match="eli5 row 1: KeyError: 'answers'"):
        list(convert([post(), {"title": "x", "score": 5}], "eli5"))


def test_command_reads_lines_and_arrays_and_samples(tmp_path, capsys):
    rows = [post(title=f"Post {i}") for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "b.json"):
        out = tmp_path / f"{name}.out.jsonl"
        assert main(["eli5", str(tmp_path / name), "--out", str(out), "--most", "5"]) == 0
    first, second = (
        sorted((tmp_path / f"{n}.out.jsonl").read_text().splitlines()) for n in ("a.jsonl", "b.json")
    )
    assert first == second and len(first) == 5
    assert "5 of 20 texts" in capsys.readouterr().out
    (tmp_path / "c.jsonl").write_text('{"title"\n')
    assert main(["eli5", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "d.jsonl")]) == 1
    assert "line 1" in capsys.readouterr().err
