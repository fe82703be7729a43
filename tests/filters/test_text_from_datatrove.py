"""datatrove's blocks as steps: decisions, reasons and edits come out; what cannot be a step is refused."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import read_rows

import curation as c
from curation.plan import plan_hash
from curation.plan_file import load_plan
from filters.text.from_datatrove import DatatroveEditingFilter, DatatroveFilter, datatrove

pytest.importorskip("datatrove", reason="datatrove is not installed (winnow-data[peers])")

from datatrove.pipeline.filters import C4ParagraphFilter, LambdaFilter, RegexFilter, SamplerFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter, SymbolLinesFormatter


class TooLoud(BaseFilter):
    """A user's own filter: reasons literal, made up and absent; metadata; state."""

    name = "loud"

    def __init__(self, limit: int = 3, marks: tuple[str, ...] = ("!",)):
        super().__init__()
        self.limit, self.marks = limit, marks

    def filter(self, doc):
        count = sum(doc.text.count(mark) for mark in self.marks)
        if count > 2 * self.limit:
            return False, "very loud"
        if count > self.limit:
            return False, f"{count} marks"
        return not doc.metadata.get("url", "").endswith("/bad")


class Shortener(BaseFilter):
    """Edits what it refuses and what it keeps."""

    def filter(self, doc):
        doc.text = doc.text[:5]
        return len(doc.text) == 5, "tiny"


class InBatches(BaseFilter):
    def __init__(self):
        super().__init__(batch_size=4)
        self.sizes = []

    def filter(self, doc):
        raise AssertionError("filter_batch is there")

    def filter_batch(self, batch):
        self.sizes.append(len(batch))
        return [(len(doc.text) > 3, "few") for doc in batch]


def run(tmp_path, rows, *steps, **options):
    (tmp_path / "pool").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool" / "a.parquet")
    out = tmp_path / "out"
    plan = [c.read(str(tmp_path / "pool")), *steps, c.write(str(out))]
    result = c.run(plan, progress=False, **options)
    return result, read_rows(out), {r["id"]: r for r in read_rows(out, "scores")}


ROWS = [
    {"id": "calm", "text": "a calm text.", "url": "https://e.org/"},
    {"id": "loud", "text": "why!!!!", "url": "https://e.org/"},
    {"id": "very", "text": "why" + "!" * 9, "url": "https://e.org/"},
    {"id": "bad", "text": "calm too", "url": "https://e.org/bad"},
    {"id": "none", "text": "no address", "url": None},
]


def test_verdict_reason_and_keeps(tmp_path):
    steps = datatrove(TooLoud(), metadata=["url"])
    assert isinstance(steps[0], DatatroveFilter) and steps[0].inputs == ("id", "text", "url")
    assert [k.reason for k in steps[1:]] == ["very loud", "too_loud"]
    result, kept, side = run(tmp_path, ROWS, steps)
    assert [r["id"] for r in kept] == ["calm", "none"]
    assert result.dropped == {"very loud": 1, "too_loud": 2}
    assert side["loud"]["too_loud"] == {"kept": False, "reason": "4 marks"}
    assert (
        side["bad"]["too_loud"] == {"kept": False, "reason": None} and side["bad"]["dropped_by"] == "too_loud"
    )
    assert side["calm"]["too_loud"] == {"kept": True, "reason": None}


def test_reasons_and_name_can_be_given(tmp_path):
    steps = datatrove(TooLoud, {"limit": 3}, name="noise", reasons=["4 marks", "it's"])
    assert [k.reason for k in steps[1:]] == ["4 marks", "it's", "noise"]
    result, _, _ = run(tmp_path, ROWS, steps)
    assert result.dropped == {"4 marks": 1, "noise": 1}


def test_a_filter_that_edits_becomes_a_transform(tmp_path):
    steps = datatrove(Shortener())
    assert isinstance(steps[0], DatatroveEditingFilter)
    rows = [{"id": "a", "text": "long enough"}, {"id": "b", "text": "no"}]
    result, kept, side = run(tmp_path, rows, steps)
    assert kept[0]["text"] == "long " and kept[0]["shortener"] == {"kept": True, "reason": None}
    assert side["b"]["dropped_by"] == "tiny"
    assert result.report["reasons"][0]["examples"][0]["text"] == "no"


def test_an_edit_that_was_not_expected_is_an_error_of_the_row(tmp_path):
    def shorten(doc):
        doc.text = doc.text[:3]
        return True

    with pytest.raises(c.RunFailed, match="edits=True"):
        run(tmp_path, ROWS[:2], datatrove(LambdaFilter(shorten)))
    _, kept, _ = run(tmp_path, ROWS[:2], datatrove(LambdaFilter(shorten), edits=True))
    assert [r["text"] for r in kept] == ["a c", "why"]


def test_filter_batch_gets_batches_of_its_size():
    step = datatrove(InBatches())[0]
    step.setup()
    batch = pa.record_batch({"id": [str(n) for n in range(10)], "text": ["x" * n for n in range(10)]})
    assert [v["kept"] for v in step(batch).to_pylist()] == [n > 3 for n in range(10)]
    assert step._block.sizes == [4, 4, 2]


def test_a_document_it_raises_on_is_quarantined(tmp_path):
    rows = [{"id": str(n), "text": "x" * n} for n in range(8)]
    result, kept, _ = run(tmp_path, rows, datatrove(LambdaFilter(lambda doc: 6 // len(doc.text) > 1)))
    assert result.quarantined == 1 and [r["id"] for r in kept] == ["1", "2", "3"]
    assert list(result.report["quarantined"]["by_error"]) == ["lambda_filter: ZeroDivisionError"]


def test_formatters_are_transforms(tmp_path):
    rows = [
        {"id": "a", "text": "write to jane@firm.com or 8.8.8.8"},
        {"id": "b", "text": "write to joe@firm.com\n-----\n*****\nand more"},
    ]
    result, kept, _ = run(
        tmp_path, rows, datatrove(PIIFormatter()), datatrove(SymbolLinesFormatter(replace_char=""))
    )
    assert [s["name"] for s in result.report["steps"]][1:3] == ["pii_formatter", "symbol_lines_formatter"]
    assert kept[0]["text"] == "write to email@example.com or 22.214.171.124"
    assert kept[1]["text"] == "write to email@example.com\nand more"  # the first replacement in each document


def test_a_recipe_names_it(tmp_path):
    (tmp_path / "r.yaml").write_text("""
steps:
  - read: ${pool}
  - filters.text.from_datatrove:datatrove:
      filter: datatrove.pipeline.filters.FineWebQualityFilter
      params: {stop_chars: [".", "!"], short_line_thr: "${limit}"}
      name: fineweb
  - filters.text.from_datatrove:datatrove: GopherQualityFilter
  - write: ${out}
defaults: {limit: 0.5}
""")
    plan = load_plan(tmp_path / "r.yaml").plan(pool="p", out="o")
    step = plan[1][0]
    assert step.name == "fineweb" and step.target.params == {"stop_chars": (".", "!"), "short_line_thr": 0.5}
    told = "fineweb: datatrove FineWebQualityFilter(stop_chars=('.', '!'), short_line_thr=0.5)"
    assert step.describe() == told
    assert plan[2][0].name == "gopher_quality_filter"


def test_identity_tells_what_decides():
    def hashed(*arguments, **named):
        return plan_hash(datatrove(*arguments, **named))

    gopher = "datatrove.pipeline.filters.GopherQualityFilter"
    assert hashed(gopher) == hashed("GopherQualityFilter") == hashed(gopher, {})
    assert hashed(gopher, {"min_doc_words": 5}) != hashed(gopher)
    assert hashed(TooLoud(3)) == hashed(TooLoud(3)) != hashed(TooLoud(4))
    assert hashed(RegexFilter("a+")) != hashed(RegexFilter("a*"))
    assert hashed(RegexFilter("a" * 500)) != hashed(RegexFilter("a" * 499 + "b"))
    assert hashed(LambdaFilter(lambda doc: len(doc.text) > 5)) != hashed(
        LambdaFilter(lambda doc: len(doc.text) > 6)
    )
    used = TooLoud(3)
    list(used.run(iter([])))
    used.stat_update("total")
    assert hashed(used) == hashed(TooLoud(3))  # what it counted is not what it decides


def test_steps_travel():
    step = datatrove(TooLoud(4, ("?",)), metadata=["url"])[0]
    there = pickle.loads(pickle.dumps(step))
    there.setup()
    batch = pa.record_batch({"id": ["a"], "text": ["?" * 5], "url": ["u"]})
    assert there(batch).to_pylist() == [{"kept": False, "reason": "5 marks"}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("GopherQualityFiltr",), "did you mean 'GopherQualityFilter'"),
        (("datatrove.pipeline.filter.X",), "no module 'datatrove.pipeline.filter'"),
        (("GopherQualityFilter", {"min_words": 3}), "did you mean 'min_doc_words'"),
        (("LambdaFilter",), "missing a required argument: 'filter_function'"),
        (("GopherQualityFilter", {"exclusion_writer": 1}), "removed="),
        ((SamplerFilter(0.5),), "c.sample"),
        (("C4BadWordsFilter", {"keep_fraction": 0.1}), "c.sample"),
        (("datatrove.pipeline.extractors.Trafilatura",), "filters.text:extract"),
        (("datatrove.pipeline.readers.JsonlReader",), "neither a datatrove filter nor a formatter"),
        ((BaseFilter,), "abstract"),
        ((TooLoud(), {"limit": 4}), "the instance has its parameters already"),
        ((TooLoud(), None, "a b"), "letters, digits"),
    ],
)
def test_what_cannot_be_a_step_is_refused_before_anything_runs(arguments, says):
    with pytest.raises(c.PlanError) as error:
        datatrove(*arguments)
    assert says in str(error.value)


def test_reasons_that_are_made_up_from_settings():
    steps = datatrove(
        "GopherRepetitionFilter", {"top_n_grams": [[2, 0.2]], "dup_n_grams": [[5, 0.1], [11, 0.1]]}
    )
    assert [k.reason for k in steps[-4:]] == [
        "top_2_gram", "duplicated_5_n_grams", "duplicated_11_n_grams", "gopher_repetition_filter",
    ]  # fmt: skip
    assert [k.reason for k in datatrove(C4ParagraphFilter())[1:]] == ["< 3 paragraphs", "c4_paragraph_filter"]
