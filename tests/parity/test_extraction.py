"""Extraction scored on gold segments of real pages, beside bare resiliparse and bare trafilatura.

Every seventh page here; bench/extraction.py has all of them, and docs/extraction.md the table.
"""

from __future__ import annotations

import pyarrow as pa
import pytest
from gold import Confusion, GoldPage, gold_pages

from filters.text.extract import Extract, ExtractAll


@pytest.fixture(scope="module")
def pages() -> list[GoldPage]:
    found = list(gold_pages(every=7))
    if not found:
        pytest.skip("no web_pages with gold_segments.json: set WINNOW_SHARED_DATA to the shared data")
    return found


def score(pages: list[GoldPage], text_of) -> Confusion:
    confusion = Confusion()
    for page in pages:
        confusion.add(page, text_of(page.content))
    return confusion


def ours(step: Extract):
    def text_of(content: bytes) -> str | None:
        batch = pa.record_batch(
            {
                "id": ["x"],
                "content": pa.array([content], pa.binary()),
                "http_charset": pa.array([None], pa.string()),
                "content_type": ["text/html"],
            }
        )
        out, _ = step(batch)
        return out.column("text")[0].as_py() if out.num_rows else None

    return text_of


def resiliparse(decode):
    from resiliparse.extract.html2text import extract_plain_text

    def text_of(content: bytes) -> str | None:
        try:
            return extract_plain_text(decode(content), main_content=True)
        except UnicodeDecodeError:
            return None

    return text_of


def test_the_default_is_at_least_bare_resiliparse_and_loses_no_page(pages):
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    winnow = score(pages, ours(Extract()))
    strict = score(pages, resiliparse(bytes.decode))
    detected = score(pages, resiliparse(lambda content: bytes_to_str(content, detect_encoding(content))))
    assert winnow.f1 >= strict.f1 and winnow.f1 >= detected.f1 - 1e-9
    assert winnow.recall >= strict.recall and winnow.accuracy >= strict.accuracy
    assert winnow.lost <= detected.lost < strict.lost
    assert winnow.f1 > 0.75 and winnow.recall > 0.85, winnow


def test_trafilatura_in_the_child_is_trafilatura(pages):
    trafilatura = pytest.importorskip("trafilatura")
    some = pages[::4]
    bare = score(some, lambda content: trafilatura.extract(content, include_comments=False))
    step = score(some, ours(Extract(extractor="trafilatura")))
    assert step.f1 >= bare.f1 - 0.005 and step.lost <= bare.lost
    assert step.f1 > score(some, ours(Extract())).f1  # what it costs its time for


def test_all_extractors_in_one_pass_are_each_by_itself(pages):
    pytest.importorskip("trafilatura")
    pytest.importorskip("justext")
    names = ("resiliparse", "trafilatura", "justext")
    union = ExtractAll(extractors=names)
    for page in pages[::20]:
        batch = pa.record_batch(
            {
                "id": ["x"],
                "content": pa.array([page.content], pa.binary()),
                "http_charset": pa.array([None], pa.string()),
                "content_type": ["text/html"],
            }
        )
        together = {row["extractor_rank"]: row["text"] for row in union(batch)[0].to_pylist()}
        apart = {rank: ours(Extract(extractor=name))(page.content) for rank, name in enumerate(names)}
        assert together == {rank: text for rank, text in apart.items() if text}
