"""Prompts against a second writing of DCLM's rules, and against texts written out by hand."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.lm import prompts
from evaluation.lm.tasks import Task, load_suite, read_items

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data")) / "lm_eval"
DCLM = {task.name: task for task in load_suite("dclm").tasks}
TINY = load_suite("tiny")


class Naive:
    """DCLM's harness as a reader of its rules would write it: one object, all state in it, row after row."""

    def __init__(self, task: Task, rows: list[dict]) -> None:
        self.task, self.rows, self.rng = task, rows, random.Random(1234)
        self.thoughts = any("chain_of_thought" in row for row in rows)

    def shots_of(self, row: int) -> list[int]:
        count = self.task.shots
        if count > len(self.rows) - 1:
            count = len(self.rows) - 1
        picked = set()
        for index in self.rng.sample(list(range(len(self.rows))), count):
            picked.add(index)
        if row not in picked:
            return [*picked]
        picked.remove(row)
        if len(picked) == len(self.rows) - 1:
            return [*picked]
        new = row
        while new == row or new in picked:
            new = self.rng.randrange(len(self.rows))
        picked.add(new)
        return [*picked]

    def answer(self, row: dict) -> str:
        kind = self.task.kind
        if kind == "multiple_choice":
            return row["choices"][row["gold"]]
        if kind == "generation":
            thought = row["chain_of_thought"] + self.task.cot_delimiter if self.thoughts else ""
            return thought + row["answer"]
        return row["continuation"]

    def shown(self, row: dict) -> str:
        question = {"multiple_choice": "query"}.get(self.task.kind, "context")
        text = row["context_options"][row["gold"]] if self.task.kind == "schema" else row[question]
        return f"{self.task.prelimiter}{text}{self.task.delimiter}{self.answer(row)}"

    def __call__(self, row: int) -> list[tuple[str, str, str]]:
        """(preamble, context, answer) of each text that is scored, or of the one that is generated from."""
        task, item = self.task, self.rows[row]
        preamble = ""
        for shot in self.shots_of(row) if task.shots else []:
            preamble = preamble and preamble + "\n"
            preamble += self.shown(self.rows[shot])
        start = ("\n" if preamble else "") + task.prelimiter
        if task.kind == "schema":
            end = task.delimiter.rstrip() if preamble else ""
            return [
                (preamble, start + c + end, _space(item["continuation"])) for c in item["context_options"]
            ]
        question = item["query"] if task.kind == "multiple_choice" else item["context"]
        context = (start + question + task.delimiter).rstrip()
        if task.kind == "generation":
            return [(preamble, context, self.answer(item))]
        answers = item["choices"] if task.kind == "multiple_choice" else [item["continuation"]]
        return [(preamble, context, _space(answer)) for answer in answers]


def _space(answer: str) -> str:
    return answer if answer.startswith(" ") else " " + answer


def compare(task: Task, items: list[dict], limit: int | None = None) -> int:
    got = prompts.item_queries(task, items, limit)
    generated = prompts.generation_prompts(task, items, limit) if task.kind == "generation" else []
    assert len(got) == len(items[:limit])
    groups: dict[object, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item["category"] if task.grouped else None, []).append(i)
    for rows in groups.values():
        naive = Naive(task, [items[i] for i in rows])
        for position, i in enumerate(rows):
            if i >= len(got):
                break
            want = naive(position)
            assert [(q.preamble, q.context) for q in got[i]] == [(p, c) for p, c, _ in want], (task.name, i)
            if task.kind == "generation":
                assert (generated[i].preamble, generated[i].context) == want[0][:2]
                assert got[i][0].answer.endswith(want[0][2])
                assert got[i][0].answer.removesuffix(want[0][2]).isspace()
            else:
                assert [q.answer for q in got[i]] == [a for _, _, a in want], (task.name, i)
    return sum(map(len, got))


@pytest.mark.parametrize("task", [t for t in TINY.tasks if t.kind != "text"], ids=lambda t: t.name)
def test_embedded_tasks(task: Task) -> None:
    items = read_items(task, TINY.folder)
    for shots in (0, 1, 5):
        assert compare(replace(task, shots=shots), items, 40) >= 40


def test_every_task_of_dclm_at_hand() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: set WINNOW_SHARED_DATA to the folder that holds lm_eval/")
    there = [task for task in DCLM.values() if (SHARED / task.file).is_file()]
    assert len(there) == 43
    for task in there:
        assert compare(task, read_items(task, SHARED), 25) >= 25
    for name in ("winograd", "winogrande"):  # zero-shot in DCLM; the rule for shots is another one
        compare(replace(DCLM[name], shots=3), read_items(DCLM[name], SHARED), 25)


TEXT = st.text(alphabet=st.sampled_from("ab \nQ:é"), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_random_tasks(data) -> None:
    kind = data.draw(st.sampled_from(["multiple_choice", "schema", "language_modeling", "generation"]))
    task = Task(
        "t", kind, "t", shots=data.draw(st.integers(0, 6)), delimiter=data.draw(TEXT),
        prelimiter=data.draw(TEXT), cot_delimiter=data.draw(TEXT), grouped=data.draw(st.booleans()),
    )  # fmt: skip
    thoughts = data.draw(st.booleans())
    items = []
    for _ in range(data.draw(st.integers(1, 9))):
        item = {"category": data.draw(st.sampled_from("xy")), "gold": data.draw(st.integers(0, 1))}
        item |= {key: data.draw(TEXT).strip() for key in ("query", "context", "continuation", "answer")}
        item |= {key: [data.draw(TEXT), data.draw(TEXT)] for key in ("choices", "context_options")}
        items.append(item | ({"chain_of_thought": data.draw(TEXT).strip()} if thoughts else {}))
    compare(task, items, data.draw(st.sampled_from([None, 1, 4])))


# ---------------------------------------------------------------- written out by hand


def mc(n: int) -> list[dict]:
    return [{"query": f"Q{i}", "choices": [f"a{i}", f"b{i}"], "gold": i % 2} for i in range(n)]


def test_multiple_choice_by_hand() -> None:
    task = Task("t", "multiple_choice", "t", shots=2, delimiter="\nAnswer: ")
    # Random(1234): sample(range(4), 2) = [3, 0]; row 0 is in it, and choice() draws 0 five times, then 2
    rng = random.Random(1234)
    assert rng.sample(range(4), 2) == [3, 0] and [rng.choice(range(4)) for _ in range(6)] == [0] * 5 + [2]
    first = prompts.item_queries(task, mc(4))[0]
    assert [q.answer for q in first] == [" a0", " b0"]
    assert {q.preamble for q in first} == {"Q2\nAnswer: a2\nQ3\nAnswer: b3"}
    assert {q.context for q in first} == {"\nQ0\nAnswer:"}
    zero = prompts.item_queries(replace(task, shots=0), mc(4))[0]
    assert (zero[0].preamble, zero[0].context) == ("", "Q0\nAnswer:")


def test_schema_by_hand() -> None:
    items = [
        {"context_options": ["The cup", "The jug "], "continuation": "is full", "gold": 0},
        {"context_options": ["He", "She"], "continuation": "left", "gold": 1},
    ]
    task = Task("t", "schema", "t")
    assert prompts.item_queries(task, items)[0] == [
        prompts.Query("", "The cup", " is full"),
        prompts.Query("", "The jug ", " is full"),  # texts of a list are not stripped
    ]
    assert prompts.item_queries(replace(task, shots=1, delimiter=", "), items)[0] == [
        prompts.Query("She, left", "\nThe cup,", " is full"),
        prompts.Query("She, left", "\nThe jug ,", " is full"),
    ]


def test_generation_by_hand() -> None:
    items = [
        {"context": "1+1?", "chain_of_thought": "One and one.", "answer": "2"},
        {"context": "2+2?", "chain_of_thought": "Two and two.", "answer": "4"},
    ]
    task = replace(DCLM["gsm8k_cot"], shots=1)
    prompt = prompts.generation_prompts(task, items)[0]
    assert prompt.preamble == "Q: 2+2?\nA: Let's think step by step. Two and two. #### 4"
    assert prompt.context == "\nQ: 1+1?\nA: Let's think step by step."
    assert (prompt.stops, prompt.answers) == (("\n\n", "Q:", "Q: "), ("2",))
    query = prompts.item_queries(task, items)[0]
    assert query == [prompts.Query(prompt.preamble, prompt.context, " One and one. #### 2")]
    # what the strip takes away is part of the reference answer
    svamp = prompts.item_queries(replace(DCLM["svamp_cot"], shots=0), items)[0][0]
    assert (svamp.context, svamp.answer) == ("Q: 1+1?\nUsing the formula below:", "\nOne and one. #### 2")


def test_generations_may_be_as_long_as_the_longest_accepted_answer(tmp_path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"context": "c", "answer": "x y", "aliases": ["one two three ", "z"]}\n'
        '{"context": "c", "answer": "x"}\n'
    )
    task = Task("t", "generation", "t.jsonl")
    items = read_items(task, tmp_path)
    assert items[0]["responses"] == ["x y", "one two three ", "z"]

    def words(texts):
        return [len(text.split()) for text in texts]

    assert prompts.max_new_tokens(task, items, words) == 3
    assert prompts.max_new_tokens(replace(task, cot_delimiter="####"), items, words) == 13
    assert prompts.max_new_tokens(task, items, lambda texts: [0] * len(texts)) == 1
    (tmp_path / "t.jsonl").write_text('{"context": "c", "answer": "x", "chain_of_thought": " a b c "}\n')
    task = replace(task, cot_delimiter=" #### ")
    assert read_items(task, tmp_path)[0]["responses"] == [" a b c  #### x"]
    assert prompts.max_new_tokens(task, read_items(task, tmp_path), words) == 5 + 10


def test_answers_get_one_leading_space_where_the_tokenizer_wants_it() -> None:
    task = Task("t", "multiple_choice", "t")
    items = [{"query": "q", "choices": ["a", " b", "\nc"], "gold": 0}]
    assert [q.answer for q in prompts.item_queries(task, items)[0]] == [" a", " b", " \nc"]
    bare = prompts.item_queries(task, items, prefix_space=False)[0]
    assert [q.answer for q in bare] == ["a", " b", "\nc"]
    assert prompts.needs_prefix_space(lambda text: [7]) and not prompts.needs_prefix_space(
        lambda text: [1, 7]
    )


def test_leaving_out_a_row_changes_later_prompts_and_a_limit_does_not() -> None:
    task = Task("t", "multiple_choice", "t", shots=2)
    whole = prompts.item_queries(task, mc(30))
    assert prompts.item_queries(task, mc(30), 7) == whole[:7]
    assert prompts.item_queries(task, mc(30)[1:])[0] != whole[1]
    assert prompts.item_queries(task, mc(29))[:7] != whole[:7]


def test_categories_draw_from_themselves_with_generators_of_their_own() -> None:
    items = [{**item, "category": "xy"[i % 2]} for i, item in enumerate(mc(12))]
    task = Task("t", "multiple_choice", "t", shots=2, grouped=True)
    mixed = prompts.item_queries(task, items)
    for part in (0, 1):
        assert mixed[part::2] == prompts.item_queries(replace(task, grouped=False), items[part::2])


@pytest.mark.parametrize("rows, shots", [(1, 3), (2, 5), (4, 3), (4, 10)])
def test_too_few_rows_show_all_the_others(rows: int, shots: int) -> None:
    rng = random.Random(1234)
    for row in range(rows):
        assert sorted(prompts.draw_shots(rng, rows, shots, row)) == [i for i in range(rows) if i != row]
