"""Gopher decisions against datatrove's own filters, given the words that datatrove cuts."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from curation.expressions import evaluate
from filters.text import gopher_quality_rules, gopher_repetition_rules, gopher_scores
from filters.text.extract import decode, mend

ROOT = Path(__file__).resolve().parents[2]

# our reason → datatrove's
REASONS = {
    "gopher: too few words": "gopher_short_doc",
    "gopher: too many words": "gopher_long_doc",
    "gopher: words too short": "gopher_below_avg_threshold",
    "gopher: words too long": "gopher_above_avg_threshold",
    "gopher: too many hashes": "gopher_too_many_hashes",
    "gopher: too many ellipses": "gopher_too_many_ellipsis",
    "gopher: too many bullet lines": "gopher_too_many_bullets",
    "gopher: too many cut lines": "gopher_too_many_end_ellipsis",
    "gopher: too few words with a letter": "gopher_below_alpha_threshold",
    "gopher: too few stop words": "gopher_enough_stop_words",
    "empty text": "empty",
    "repetition: repeated paragraphs": "dup_para_frac",
    "repetition: text in repeated paragraphs": "dup_para_char_frac",
    "repetition: repeated lines": "dup_line_frac",
    "repetition: text in repeated lines": "dup_line_char_frac",
    **{f"repetition: top {n}-gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"repetition: repeated {n}-grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
}


@pytest.fixture(scope="module")
def peer():
    """(quality filter, repetition filter, word split, its punctuation) of datatrove."""
    pytest.importorskip("spacy", reason="datatrove cuts English words by spaCy, which is not installed")
    filters = pytest.importorskip("datatrove.pipeline.filters", reason="datatrove is not installed")
    text = pytest.importorskip("datatrove.utils.text")
    return (
        filters.GopherQualityFilter(),
        filters.GopherRepetitionFilter(),
        text.split_into_words,
        "".join(sorted(text.PUNCTUATION_SET)),
    )


def decide(texts: list[str], peer) -> tuple[list, list]:
    """(theirs, ours): the first reason of each family per text, None for kept."""
    from datatrove.data import Document

    theirs, words = [], []
    for text in texts:
        verdicts = [rule.filter(Document(text=text, id="")) for rule in peer[:2]]
        theirs.append(tuple(None if verdict is True else verdict[1] for verdict in verdicts))
        words.append(peer[2](text))  # cached by datatrove for the last few texts
    scores = gopher_scores(pa.array(texts), words=pa.array(words, pa.list_(pa.string())), symbols=peer[3])
    batch = pa.record_batch(scores)
    columns = []
    for rules in (gopher_quality_rules(), gopher_repetition_rules()):
        first: list[str | None] = [None] * len(texts)
        for rule in rules:
            for row in (~evaluate(rule.where, batch)).nonzero()[0]:
                first[row] = first[row] or REASONS[rule.reason]
        columns.append(first)
    return theirs, list(zip(*columns, strict=True))


PROSE = (
    "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village. "
    "Nobody spoke for a long while; then somebody began to count the missing hulls, and others joined in. "
    "By noon there was a list, and beside each name a mother had written where her son was last seen."
)
EMBEDDED = {
    "prose": PROSE,
    "short": "Only a few words of text.",
    "lines": "\n".join(["- first point to be made", "• second point of that"] * 12),
    "ellipses": "\n".join(f"{PROSE[i : i + 60]}..." for i in range(0, 240, 20)),
    "hashes": PROSE + " #tag" * 25,
    "numbers": PROSE + " 12 34 56 78" * 15,
    "no stop words": "Bears cats dogs birds fishes horses rabbits foxes wolves snakes " * 8,
    "short words": "a b c of to it is he we me " * 12 + "the of and",
    "long words": "incomprehensibilities internationalization counterrevolutionaries the of and to be " * 12,
    "paragraphs": f"{PROSE}\n\n" * 4,
    "repeated line": f"{PROSE}\n" + "Share this page with your friends\n" * 8 + PROSE.upper(),
    "top gram": PROSE + " very good" * 30,
    "long repeat": f"{PROSE} So it went on. {PROSE[100:]} And then it ended. {PROSE[100:]}",
    "german": "Der Wärter schrieb seiner Schwester einen langen Brief über den Sturm und die Boote. " * 2,
    "windows lines": PROSE.replace(". ", ".\r\n\r\n"),
}


def test_embedded_texts_get_the_same_reasons(peer):
    texts = list(EMBEDDED.values())
    expected, got = decide(texts, peer)
    assert dict(zip(EMBEDDED, got, strict=True)) == dict(zip(EMBEDDED, expected, strict=True))
    assert len({reason for row in expected for reason in row}) >= 12  # the texts do exercise the rules


def test_random_repetitive_texts_get_the_same_reasons(peer):
    import random

    rng = random.Random(0)
    vocabulary = re.findall(r"\w+", PROSE)
    texts = []
    for _ in range(150):
        few = rng.sample(vocabulary, rng.choice([5, 12, 40]))
        lines = [" ".join(rng.choices(few, k=rng.randint(1, 14))) for _ in range(rng.randint(2, 12))]
        lines += rng.choices(lines, k=rng.randint(0, 4))
        texts.append("".join(line + rng.choice(["\n", "\n\n", ". ", "...\n", "\n\n\n"]) for line in lines))
    expected, got = decide(texts, peer)
    assert got == expected
    assert len({reason for row in expected for reason in row}) >= 8


def _web_pages() -> list[str]:
    shared = Path(os.environ.get("WINNOW_SHARED_DATA", ROOT.parent / "shared" / "data"))
    archive = shared / "web_pages" / "pages.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is not there; set WINNOW_SHARED_DATA to the folder that has web_pages/")
    extract = pytest.importorskip("resiliparse.extract.html2text").extract_plain_text
    texts = []
    with tarfile.open(archive) as pages:
        for member in pages:
            if member.isfile():
                content = io.BytesIO(pages.extractfile(member).read()).getvalue()
                texts.append(mend(extract(decode(content)[0], main_content=True)))
    return texts


def test_real_pages_get_the_same_decisions(peer):
    texts = _web_pages()
    assert len(texts) >= 1000
    expected, got = decide(texts, peer)
    for family, name in enumerate(("quality", "repetition")):
        same = sum((e[family] is None) == (g[family] is None) for e, g in zip(expected, got, strict=True))
        assert same / len(texts) >= 0.995, f"{name}: {same} of {len(texts)} decisions agree"
