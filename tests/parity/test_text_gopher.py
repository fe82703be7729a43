"""Gopher decisions against datatrove's own filters, given the words that datatrove cuts."""

from __future__ import annotations

import re

import pytest
from parity.compare import Comparison, Peer, compare

GOPHER = ("gopher quality", "gopher repetition")


@pytest.fixture(scope="module")
def peer() -> Peer:
    pytest.importorskip("spacy", reason="datatrove cuts English words by spaCy, which is not installed")
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    return Peer()


def reasons(result: Comparison) -> tuple[list[tuple], list[tuple]]:
    """(theirs, ours): the first reason of each family per text, None for kept."""
    return tuple(
        [tuple(row[family] for family in GOPHER) for row in rows]
        for rows in (result.theirs, result.ours["its words"])
    )


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
    expected, got = reasons(compare(list(EMBEDDED.values()), peer))
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
    expected, got = reasons(compare(texts, peer))
    assert got == expected
    assert len({reason for row in expected for reason in row}) >= 8


# real pages: tests/parity/test_text_families.py, where all four families share the words
