"""What the report and the page say that a transform changed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import curation as c
from curation import funnel
from curation.edits import EXAMPLES, LABELS, Edits, rank

sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
from static_check import check


@c.transform(outputs={"kind": pa.string()})
def without_stones(text: str):
    left = text.replace("stone", "").replace("# ", "")
    return {"text": left, "kind": "with" if left != text else None} if len(left) > 40 else None


@c.score
def n_words(text: str) -> int:
    return len(text.split())


def run(pool, out, *steps):
    return c.run([c.read(str(pool)), *steps, c.write(str(out))], progress=False, workers=1).report


def test_what_a_run_tells(text_pool, tmp_path):
    from support import documents

    report = run(text_pool, tmp_path / "out", without_stones, n_words, c.keep("n_words > 3", reason="short"))
    rows = {r["id"]: r["text"] for r in documents(480)}
    after = {k: t.replace("stone", "").replace("# ", "") for k, t in rows.items()}
    left = {k: t for k, t in after.items() if len(t) > 40}
    changed = {k for k, t in left.items() if t != rows[k]}
    (entry,) = report["edits"]
    assert (entry["step"], entry["name"]) == (1, "without_stones")
    assert (entry["rows"], entry["changed"]) == (len(left), len(changed)) and 0 < len(changed) < len(left)
    assert entry["text_bytes_before"] == sum(len(rows[k].encode()) for k in left)
    assert entry["text_bytes_after"] == sum(len(t.encode()) for t in left.values())
    assert entry["labels"] == {"kind": {"with": len(changed), "(null)": len(left) - len(changed)}}
    for example in entry["examples"]:
        old = rows[example["id"]]
        assert example["id"] in changed and example["chars_before"] == len(old)
        removed = "".join(text for op, text in example["diff"] if op == "-")
        assert "stone" in removed or "# " in removed
        assert sum(len(text) for _, text in example["diff"]) < 2000
    said = " ".join(check((tmp_path / "out" / "funnel.html").read_text(encoding="utf-8")).text)
    assert "What was changed" in said and f"{len(changed)} of {len(left)} texts changed" in said
    assert "by without_stones, step 1" in said


def _batches(n=200):
    rng = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(n)]
    old = [f"text {i} " + "x" * int(rng.integers(0, 50)) for i in range(n)]
    new = [t.replace("x", "") if i % 3 else t for i, t in enumerate(old)]
    kind = [f"k{i % 5}" for i in range(n)]
    before = pa.record_batch({"id": ids, "text": old, "url": [None] * n})
    return before, pa.record_batch({"id": ids, "text": new, "url": [None] * n, "kind": kind})


@pytest.mark.parametrize("step", [1, 7, 64, 200])
def test_how_rows_are_cut_into_batches_changes_nothing(step):
    old, new = _batches()
    whole, cut = Edits(), Edits()
    whole.look(old, new, None)
    for start in range(0, 200, step):
        part = new.slice(start, step)
        cut.look(old.slice(start, step), part, np.arange(part.num_rows, dtype=np.int64))
    assert cut.as_dict() == whole.as_dict()
    texts = zip(old["id"].to_pylist(), old["text"].to_pylist(), new["text"].to_pylist(), strict=True)
    changed = sorted((i for i, a, b in texts if a != b), key=rank)
    assert [e["id"] for e in whole.as_dict()["examples"]] == changed[:EXAMPLES]


@pytest.mark.parametrize("letter", ["x", "é", "𝕏"])
def test_of_long_texts_a_window_is_compared(letter):
    import tracemalloc

    def told(before: str, after: str) -> dict:
        batches = [pa.record_batch({"id": ["a"], "text": [text]}) for text in (before, after)]
        edits = Edits()
        tracemalloc.start()
        edits.look(*batches, None)
        (example,) = edits.as_dict()["examples"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20
        assert (example["chars_before"], example["chars_after"]) == (len(before), len(after))
        return example["diff"]

    many = letter * 3_000_000
    # in the middle, at the start, at the end: what is left out and what is shown are the whole text
    for start, end in ((many, many), ("", many), (many, "")):
        diff = told(f"{start} old words {end}", f"{start} words {end}")
        assert [text for op, text in diff if op == "-"] == ["old "]
        assert not [text for op, text in diff if op == "+"]
        unchanged = [int(text.split()[0].replace(",", "")) for op, text in diff if op == "~"]
        assert sum(unchanged) + sum(len(text) for op, text in diff if op != "~") == len(
            f"{start} old words {end}"
        )
    # changes all over: the first are shown, the rest is said not to be compared
    lines = [f"{letter} line {n}\n" for n in range(200_000)]
    diff = told("".join(lines), "".join(line for n, line in enumerate(lines) if n % 10))
    assert next(text for op, text in diff if op == "-") == lines[0]
    assert not [text for op, text in diff if op == "+"]
    assert [text for op, text in diff if op == "~" and "not compared" in text]
    # nothing in common
    diff = told("a b " * 100_000, "c d " * 100_000)
    assert {op for op, _ in diff} == {"-", "+", "~"}


def test_rows_are_compared_with_the_row_they_came_from():
    old = pa.record_batch({"id": ["a", "b", "c"], "text": ["A one", "B two", "C three"]})
    new = pa.record_batch({"id": ["a/0", "a/1", "c"], "text": ["A one", "A", "C three"]})
    edits = Edits()
    edits.look(old, new, np.array([0, 0, 2]))
    told = edits.as_dict()
    assert (told["rows"], told["changed"]) == (3, 1) and told["examples"][0]["id"] == "a/1"
    assert ["-", " one"] in [list(p) for p in told["examples"][0]["diff"]]


def test_a_column_of_names_is_not_counted():
    old = pa.record_batch({"id": [str(n) for n in range(500)]})
    new = old.append_column("name", pa.array([f"n{n}" for n in range(500)]))
    edits = Edits()
    for start in (0, 250):
        edits.look(old.slice(start, 250), new.slice(start, 250), None)
    assert edits.as_dict()["labels"] == {} and LABELS < 250


def test_a_barriers_summary_rows_count_as_its_cost(text_pool, tmp_path):
    report = run(text_pool, tmp_path / "out", c.dedup_minhash(on="text"))
    import orjson

    done = (tmp_path / "out" / "_winnow" / "done").rglob("*.json")
    spent = sum(orjson.loads(f.read_bytes()).get("scatter_seconds", 0) for f in done)
    step = report["steps"][1]
    assert step["kind"] == "barrier" and spent > 0 and step["seconds"] >= round(spent, 4)


def test_text_of_the_pool_stays_text_in_a_diff():
    nasty = "</script><script>alert(1)</script>\u202e<img src=x>"
    entry = {
        "step": 1, "name": "strip", "rows": 1, "changed": 1, "text_bytes_before": 9, "text_bytes_after": 5,
        "examples": [{"id": "x", "url": "javascript:alert(1)", "chars_before": 9, "chars_after": 5,
                      "diff": [["=", nasty], ["-", nasty], ["~", nasty], ["+", nasty]]}],
        "labels": {"charset": {nasty: 3}},
    }  # fmt: skip
    page = funnel.html({"steps": [], "edits": [entry]})
    said = "".join(check(page).text)
    assert said.count("<script>alert(1)") >= 4 and "<script>alert" not in page
    assert 'href="javascript' not in page and "\u202e" not in page
