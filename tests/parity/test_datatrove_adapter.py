"""datatrove's filters as our steps against datatrove run bare: same rows, same reasons, same text."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import read_rows

import curation as c
from curation.select import scores_table
from filters.text.from_datatrove import datatrove

pytest.importorskip("datatrove", reason="datatrove is not installed (winnow-data[peers])")
pytest.importorskip("spacy", reason="datatrove cuts English words by spaCy, which is not installed")

from datatrove.data import Document
from datatrove.pipeline import filters as theirs
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.formatters import SymbolLinesFormatter

PAGES = 100


def mostly_letters(doc):
    return sum(ch.isalpha() for ch in doc.text) > 0.6 * len(doc.text)


BLOCKS = {
    "gopher quality": lambda: theirs.GopherQualityFilter(),
    "gopher repetition": lambda: theirs.GopherRepetitionFilter(),
    "c4": lambda: theirs.C4QualityFilter(),
    "c4 by sentences": lambda: theirs.C4QualityFilter(split_paragraph=False, filter_no_terminal_punct=False),
    "c4 paragraphs": lambda: theirs.C4ParagraphFilter(),
    "fineweb": lambda: theirs.FineWebQualityFilter(line_punct_exclude_zero=True),
    "lambda": lambda: theirs.LambdaFilter(mostly_letters),
    "regex": lambda: theirs.RegexFilter(r"(?i)guestbook|table|click"),
}


@pytest.fixture(scope="module")
def texts():
    """Main texts of real pages, several languages among them: the embedded pool's first shard."""
    from curation.formats import read_batches
    from curation.shards import list_shards
    from filters.text.extract import extract
    from pools import demo_text

    shard = list_shards(str(demo_text.unpack()))[0]
    batch = next(iter(read_batches(shard, bad=lambda bad: None))).slice(0, PAGES)
    made, _ = extract()(batch)
    rows = made.select(["id", "text"]).to_pylist()
    assert len(rows) > PAGES * 0.9
    # the edges that pages seldom have
    odd = ["x", "…", "\n\n", "one\rline\u2028other\x85third", "lorem ipsum dolor sit amet. " * 9, "{ } " * 50]
    return rows + [{"id": f"odd-{n}", "text": text} for n, text in enumerate(odd)]


@pytest.fixture(scope="module")
def pool(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for shard in range(2):
        pq.write_table(pa.Table.from_pylist(texts[shard::2]), folder / f"{shard}.parquet")
    return str(folder)


def bare(block, rows):
    """id → (kept, reason, text afterwards), or the error, as datatrove alone decides."""
    found = {}
    for row in rows:
        doc = Document(text=row["text"], id=row["id"])
        try:
            kept, reason = get_filter_result(block.filter(doc))
        except Exception as error:
            found[row["id"]] = type(error).__name__
            continue
        found[row["id"]] = (True, None, doc.text) if kept else (False, reason, None)
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_a_filter_decides_as_it_does_bare(name, texts, pool, tmp_path):
    expected = bare(BLOCKS[name](), texts)
    steps = datatrove(BLOCKS[name]())
    out = str(tmp_path / "out")
    c.run([c.read(pool), steps, c.write(out)], progress=False, workers=1, error_budget=1.0)
    text = {r["id"]: r["text"] for r in read_rows(out)}
    reasons = {r["id"]: r["dropped_by"] for r in scores_table(out).to_pylist()}
    label = steps[0].name
    got = {}
    for row in texts:
        if row["id"] not in reasons:
            got[row["id"]] = "quarantined"
        elif row["id"] in text:
            got[row["id"]] = (True, None, text[row["id"]])
        else:
            reason = reasons[row["id"]]
            got[row["id"]] = (False, None if reason == label else reason, None)
    raised = {k for k, v in expected.items() if isinstance(v, str)}
    assert {k for k, v in got.items() if v == "quarantined"} == raised
    assert {k: v for k, v in got.items() if k not in raised} == {
        k: v for k, v in expected.items() if k not in raised
    }
    outcomes = {v[:2] for v in expected.values() if not isinstance(v, str)}
    assert len(outcomes) >= (2 if re.search("lambda|regex|paragraph", name) else 3), outcomes


def test_a_chain_leaves_what_datatroves_chain_leaves(texts, pool, tmp_path):
    rows = [row for row in texts if not row["id"].startswith("odd")][:60]
    docs = iter([Document(text=row["text"], id=row["id"]) for row in rows])
    for block in (SymbolLinesFormatter(), theirs.GopherQualityFilter(), theirs.C4QualityFilter()):
        docs = block.run(docs)
    expected = {doc.id: doc.text for doc in docs}
    out, ids = str(tmp_path / "out"), {row["id"] for row in rows}
    chain = [datatrove(n) for n in ("SymbolLinesFormatter", "GopherQualityFilter", "C4QualityFilter")]
    mine = c.keep(lambda id: id in ids, reason="not looked at")
    c.run([c.read(pool), mine, *chain, c.write(out)], progress=False, workers=1, error_budget=1.0)
    got = {r["id"]: r["text"] for r in read_rows(out)}
    assert got == expected and 0 < len(got) < len(rows)
