"""The table of the 53 tasks against DCLM's metadata and the files; files that are not what they should be."""

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.lm.aggregate import baselines
from evaluation.lm.tasks import (
    Task,
    TaskError,
    blob_id,
    infer_suite,
    load_suite,
    read_items,
    task_hash,
)

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data"))
DCLM = load_suite("dclm").tasks
TYPES = {
    "multiple choice": "multiple_choice",
    "schema": "schema",
    "language modeling": "language_modeling",
    "question answering": "generation",
}


def metadata(version: str) -> list[dict[str, str]]:
    path = SHARED / "published" / f"dclm_task_metadata_{version}.csv"
    if not path.is_file():
        pytest.skip(f"no {path}: set WINNOW_SHARED_DATA to the folder that holds published/")
    with open(path, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_field_that_dclms_metadata_has() -> None:
    rows = metadata("v2")
    assert [row["Eval Task"] for row in rows] == [task.name for task in DCLM]
    for row, task in zip(rows, DCLM, strict=True):
        assert (row["Task Category"], TYPES[row["Task Type"]], int(row["#shots"])) == (
            task.category,
            task.kind,
            task.shots,
        )
        # the metadata repeats arc_easy's number of rows for arc_challenge
        assert task.rows == (1172 if task.name == "arc_challenge" else int(row["#datapoints"])), task.name
    for version in ("v1", "v2"):
        ours = baselines(version)
        for row in metadata(version):
            assert ours[row["Eval Task"]] == pytest.approx(float(row["Random baseline"]) / 100, abs=1e-12)


def test_fields_that_only_dclms_yaml_has() -> None:
    by_delimiter: dict[str, set[str]] = {}
    for task in DCLM:
        by_delimiter.setdefault(task.delimiter, set()).add(task.name)
    assert by_delimiter.pop(" ") and by_delimiter == {
        "Answer: ": {"mmlu_zeroshot"},
        "\nAnswer: ": {
            "jeopardy", "arc_easy", "arc_challenge", "mmlu_fewshot", "piqa", "logi_qa", "boolq", "gpqa_main",
            "gpqa_diamond",
        },
        "\nA: Let's think step by step. ": {"gsm8k_cot", "agi_eval_sat_math_cot", "aqua_cot"},
        "\nUsing the formula below:\n": {"svamp_cot"},
    }  # fmt: skip
    assert {t.name for t in DCLM if t.grouped} == {"mmlu_zeroshot", "jeopardy", "mmlu_fewshot", "bbq"}
    for task in DCLM:
        thinks = task.name.endswith("_cot")
        assert (task.prelimiter, task.cot_delimiter) == (("Q: ", " #### ") if thinks else ("", "")), task.name
        assert task.stops == (("\n\n", "Q:", "Q: ") if thinks else ())
        assert task.answers == ("math" if thinks else "text")
    assert Counter(t.category for t in DCLM if t.core) == {
        "language understanding": 6, "symbolic problem solving": 5, "world knowledge": 4,
        "commonsense reasoning": 4, "reading comprehension": 3,
    }  # fmt: skip
    assert {t.name for t in DCLM if not t.blob} == {"gpqa_main", "gpqa_diamond"}


def test_the_table_in_the_documentation_is_this_one() -> None:
    page = (ROOT / "docs" / "language-tasks.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ") and "jsonl |" in line
    ]
    kinds = {"choice": "multiple_choice", "LM": "language_modeling"}
    levels = [baselines(version) for version in ("v0", "v1", "v2")]
    assert len(rows) == len(DCLM)
    for number, (row, task) in enumerate(zip(rows, DCLM, strict=True), 1):
        cells = [cell.strip() for cell in row]
        chance = [float(x) / 100 for x in cells[7].split(" / ")]
        assert (int(cells[0]), cells[1]) == (number, task.name + (" ‡" if task.grouped else ""))
        assert kinds.get(cells[2], cells[2]) == task.kind
        assert (cells[3], cells[4], cells[5]) == (str(task.shots), f"{task.rows:,}", task.category)
        assert (cells[6] == "yes", cells[8]) == (task.core, task.file)
        assert chance * (1 if len(chance) == 3 else 3) == pytest.approx([v[task.name] for v in levels])


def test_the_files_at_hand_are_the_originals() -> None:
    folder = SHARED / "lm_eval"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set WINNOW_SHARED_DATA to the folder that holds lm_eval/")
    files = {task.file: task for task in DCLM}
    there = {file: task for file, task in files.items() if (folder / file).is_file()}
    assert len(there) == 43 and len(files) == 51
    assert [file for file, task in there.items() if blob_id(folder / file) != task.blob] == []
    assert [file for file, task in there.items() if len(read_items(task, folder)) != task.rows] == []


# ---------------------------------------------------------------- files that are not what they should be


def written(folder: Path, *records: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"context": "c"}, r"needs answer \(str\), found None"),
        ({"context": "c", "answer": 18}, r"needs answer \(str\), found 18"),
        ({"context": "c", "answer": "a", "aliases": "b"}, "aliases is a list of texts, found 'b'"),
        (
            {"context": "c", "answer": "a", "aliases": ["b", 1]},
            r"aliases is a list of texts, found \['b', 1\]",
        ),
        ({"context": "c", "answer": "a", "chain_of_thought": 3}, "chain_of_thought is a text, found 3"),
        ({"context": "c", "answer": "a", "chain_of_thought": "x"}, "some have none"),
    ],
)
def test_a_malformed_generation_record_is_named(tmp_path, bad: dict, message: str) -> None:
    written(tmp_path, {"context": "c", "answer": "a", "aliases": ["b"]}, bad)
    with pytest.raises(TaskError, match=rf"t\.jsonl, line 2: .*{message}"):
        read_items(Task("t", "generation", "t.jsonl"), tmp_path)


@pytest.mark.parametrize(
    "kind, bad, message",
    [
        ("schema", {"context_options": ["a", "b"], "continuation": "c", "gold": -1}, "gold is -1"),
        ("schema", {"context_options": ["a", "b"], "continuation": "c", "gold": True}, r"needs gold \(int\)"),
        ("schema", {"context_options": ["a"], "continuation": "c", "gold": 0}, "at least two texts"),
        ("language_modeling", {"context": "c", "continuation": ["d"]}, r"needs continuation \(str\)"),
        ("text", {"id": "1"}, r"needs text \(str\)"),
    ],
)
def test_a_malformed_record_of_every_other_kind_is_named(tmp_path, kind: str, bad: dict, message) -> None:
    written(tmp_path, bad)
    with pytest.raises(TaskError, match=rf"t\.jsonl, line 1: .*{message}"):
        read_items(Task("t", kind, "t.jsonl"), tmp_path)


def test_a_record_of_a_grouped_task_without_its_category_is_named(tmp_path) -> None:
    good = {"context": "c", "continuation": "d", "category": "x"}
    written(tmp_path, good, {"context": "c", "continuation": "d"})
    with pytest.raises(TaskError, match=r"line 2: language_modeling needs category \(str\), found None"):
        read_items(Task("t", "language_modeling", "t.jsonl", grouped=True), tmp_path)


def test_text_fields_are_stripped_and_texts_in_lists_are_not(tmp_path) -> None:
    written(tmp_path, {"query": " q\n", "choices": [" a", "b "], "gold": 0})
    assert read_items(Task("t", "multiple_choice", "t.jsonl"), tmp_path) == [
        {"query": "q", "choices": [" a", "b "], "gold": 0}
    ]


def test_a_file_that_was_cut_short_is_an_error_that_names_it(tmp_path) -> None:
    path = written(tmp_path, *[{"context": "c", "continuation": "d"}] * 3)
    task = Task("t", "language_modeling", "t.jsonl", rows=4)
    with pytest.raises(TaskError, match=r"t\.jsonl: 3 records, but t has 4: the file was cut short"):
        read_items(task, tmp_path)
    assert len(read_items(replace(task, rows=3), tmp_path)) == 3
    # the original's bytes are right whatever a table says of their number
    assert len(read_items(replace(task, blob=blob_id(path)), tmp_path)) == 3


def test_a_folders_short_file_of_dclms_is_no_task_of_dclms(tmp_path) -> None:
    written(tmp_path / "commonsense_reasoning").rename(tmp_path / "commonsense_reasoning" / "copa.jsonl")
    rows = '{"query": "Q", "choices": ["a", "b"], "gold": 1}\n' * 12
    (tmp_path / "commonsense_reasoning" / "copa.jsonl").write_text(rows)
    (copa,) = infer_suite(tmp_path).tasks
    assert (copa.name, copa.title, copa.partial, copa.core) == ("copa", "copa, 12 of 100 rows", True, False)
    assert len(read_items(copa, tmp_path)) == 12
    with pytest.raises(TaskError, match=r"copa\.jsonl: 12 records, but copa has 100"):
        read_items(next(t for t in load_suite("dclm", tmp_path).tasks if t.name == "copa"), tmp_path)


def test_gits_id_of_a_file(tmp_path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_the_hash_of_a_task_is_of_what_decides_its_scores(tmp_path) -> None:
    written(tmp_path, {"context": "c", "continuation": "d"})
    task = Task("t", "language_modeling", "t.jsonl")
    hashes = {task_hash(t, tmp_path) for t in (task, replace(task, shots=1), replace(task, delimiter="\n"))}
    assert len(hashes) == 3
    assert task_hash(replace(task, title="T", chance=0.5, rows=1), tmp_path) == task_hash(task, tmp_path)
    before = task_hash(task, tmp_path)
    written(tmp_path, {"context": "c", "continuation": "e"})
    assert task_hash(task, tmp_path) != before


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("shots", -1, "shots is -1"),
        ("shots", "3", "shots is '3'"),
        ("stops", "Q:", "stops is 'Q:'; use a list"),
        ("stops", [""], "non-empty texts"),
        ("answers", "numbers", "answers is 'numbers'; use one of text, math"),
    ],
)
def test_a_task_with_a_bad_setting_is_refused(field: str, value, message: str) -> None:
    with pytest.raises(TaskError, match=rf"task 't': .*{message}"):
        Task("t", "generation", "t", **{field: value})
