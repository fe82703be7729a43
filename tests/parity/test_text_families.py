"""C4 and FineWeb decisions against datatrove's own filters; then all four families on real pages.

Cutting a page into words by spaCy costs a thousand times what our scores do, so the pages are cut after
``MAX_CHARS`` and the embedded pool gives every third one. ``python tests/parity/table.py`` compares all of
them whole, and prints the table of docs/parity.md.
"""

from __future__ import annotations

import pyarrow as pa
import pytest
from parity.compare import FAMILIES, Peer, compare
from parity.pages import SHARED, load

from filters.text.c4 import c4_bad_words, c4_paragraph, c4_paragraph_rules

MAX_CHARS = 4000
MIN_PAGES = 2000


@pytest.fixture(scope="module")
def peer() -> Peer:
    pytest.importorskip("spacy", reason="datatrove cuts English words by spaCy, which is not installed")
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    return Peer()


PROSE = (
    "The keeper wrote to his sister.\nThe storm had taken every boat of the village, he said.\n"
    'Nobody spoke for a long while; then somebody said: "Let us count."\nBy noon there was a list. '
    "Beside each name stood a place."
)
HAND_MADE = {
    "prose": PROSE,
    "few sentences": "There are only two sentences here. This one is the last.",
    "abbreviations": "Mr. Smith met Dr. Jones at 5 p.m. on a Sunday.\n" * 2,
    "unended": PROSE.replace(".\n", "\n"),
    "ellipses": PROSE.replace(".\n", "...\n"),
    "lorem ipsum": PROSE + "\nLorem IPSUM dolor sit amet.",
    "lorem ipsum in a line that goes": PROSE + "\nLorem IPSUM dolor sit amet",
    "curly": PROSE + "\nif (a) { b() } else.",
    "curly in a line of javascript": PROSE + "\njavascript: if (a) { b() } else.",
    "policy": PROSE + "\nRead our Privacy Policy before you go on.",
    "citations": PROSE.replace(".\n", "[12].\n").replace("boat", "boat[citation needed]"),
    "citation at the end": PROSE.replace(".\n", ". [12]\n"),
    "long word": PROSE + "\nA word " + "x" * 1001 + " is long.",
    "odd breaks": PROSE.replace("\n", "\u2028").replace(" By", "\x85By"),
    "windows lines": PROSE.replace("\n", "\r\n"),
    "list": "\n".join(f"item number {i}" for i in range(30)),
    "short lines": "\n".join(f"Number {i} is short." for i in range(30)),
    "repeated line": (PROSE + "\n") * 2 + PROSE.upper(),
    "ends of other scripts": "一行目です。\n二行目です。\nयह एक वाक्य है।\nهل هذا سؤال؟\n" + PROSE,
    "spaces at line ends": PROSE.replace("\n", " \n").replace("place.", "place. "),
    "blank lines": PROSE.replace("\n", "\n \n\t\n\n"),
    "many newlines": "Three short words.\n\n\n\n" * 10,
}


def test_hand_made_texts_get_the_same_reasons_and_the_same_edits(peer):
    result = compare(list(HAND_MADE.values()), peer)
    for family in ("c4", "fineweb"):
        expected = {name: row[family] for name, row in zip(HAND_MADE, result.theirs, strict=True)}
        got = {name: row[family] for name, row in zip(HAND_MADE, result.ours["its words"], strict=True)}
        assert got == expected
        assert len(set(expected.values())) >= 4  # the texts do exercise the rules
    assert len(result.edited) >= 10
    for theirs, ours in result.edited:
        assert ours == theirs


def test_paragraphs_get_the_same_decisions():
    filters = pytest.importorskip(
        "datatrove.pipeline.filters.c4_filters", reason="datatrove is not installed"
    )
    from curation.expressions import evaluate

    texts = [
        "\n".join("x" * n for n in lengths) for lengths in ((200, 200, 200), (199, 300, 300), (300, 300))
    ]
    texts += ["\n".join("x" * n for n in (10, 250, 0, 250, 201, 1)), ""]
    rule = filters.C4ParagraphFilter()
    batch = pa.record_batch({"text": texts})
    scored = pa.record_batch({"c4_paragraph": c4_paragraph()(batch)})
    (keep,) = c4_paragraph_rules()
    assert evaluate(keep.where, scored).tolist() == [rule.paragraph_filter(text) for text in texts]


def test_bad_words_get_the_same_decisions(monkeypatch, tmp_path):
    filters = pytest.importorskip(
        "datatrove.pipeline.filters.c4_filters", reason="datatrove is not installed"
    )
    from datatrove.data import Document

    words = ("darn", "old hat", "naïve", "c++")
    file = tmp_path / "words.txt"
    file.write_text("\n".join(words), encoding="utf-8")
    monkeypatch.setattr(filters, "cached_asset_path_or_download", lambda *_, **__: str(file))
    rule = filters.C4BadWordsFilter()
    texts = [
        "a darn day",
        "darned",
        "Darn!",
        "it is old hat",
        "bold hat",
        "so naïve.",
        "c++",
        "c+++",
        "_darn",
        "",
    ]
    step = c4_bad_words(words=words)
    step.setup()
    counts = step(pa.record_batch({"id": [str(i) for i in range(len(texts))], "text": texts})).field("n")
    theirs = [rule.filter(Document(text=text, id="")) is True for text in texts]
    assert [n == 0 for n in counts.to_pylist()] == theirs


@pytest.fixture(scope="module")
def real(peer):
    """(pages, comparison) of at least ``MIN_PAGES`` real pages; without the shared data all from the pool."""
    shared = load("web_pages", max_chars=MAX_CHARS) + load("warc", max_chars=MAX_CHARS)
    pages = shared + load("pool", every=3 if shared else 1, max_chars=MAX_CHARS if shared else 2000)
    return pages, compare([page.text for page in pages], peer)


@pytest.mark.parametrize("family", FAMILIES)
def test_real_pages_get_the_same_decisions(real, family):
    pages, result = real
    assert len(pages) >= MIN_PAGES
    reasons = {row[family] for row in result.theirs}
    assert None in reasons and len(reasons) > 2  # pages are kept, and dropped for more than one reason
    wrong = [(pages[i].source, pages[i].name) for i in result.disagreements(family)]
    assert result.agreement(family) >= 0.995, f"{len(wrong)} of {len(pages)} differ: {wrong[:20]}"
    assert result.same_reasons(family) >= 0.995


def test_real_pages_are_edited_alike(real):
    _, result = real
    assert len(result.edited) > 1000
    assert [pair for pair in result.edited if pair[0] != pair[1]] == []


def test_our_own_sentences_decide_like_its_own(real):
    _, result = real
    assert result.agreement("c4", "tokens") >= 0.995


def test_pages_beside_the_pool_were_there():
    sources = [SHARED / "web_pages" / "pages.tar.xz", SHARED / "commoncrawl_sample"]
    missing = [path.name for path in sources if not path.exists()]
    if missing:
        pytest.skip(
            f"not there, so only pool pages were compared: {', '.join(missing)}; set WINNOW_SHARED_DATA"
        )
    assert {page.source for name in ("web_pages", "warc") for page in load(name, every=20)} == {
        "web_pages",
        "warc",
    }
