"""Print the tables of docs/parity.md: every page whole, every disagreement named or counted.

python tests/parity/table.py                    # all pages, about four minutes of one core
python tests/parity/table.py --every 3 --max-chars 4000     # what the test does
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from parity.compare import FAMILIES, Comparison, Peer, compare  # noqa: E402
from parity.pages import Page, load  # noqa: E402

CUTS = {"its words": "given its words and sentences", "tokens": '"tokens"', "unicode": '"unicode" (default)'}

# Why decisions differ where the words do: (how ours were cut, rule that one of the two applied) → reason.
ALPHA = {
    ("tokens", "ours"): "spaCy leaves 5:11, 1/2, @name or f(x) whole where each mark is a word of ours: "
    "the share of words with a letter lies near 0.8, just below it only for us",
    ("tokens", "theirs"): "spaCy cuts __name__ into name and four marks, and :: into two, which are one word "
    "of ours: the share of words with a letter lies near 0.8, just below it only for spaCy",
    (
        "unicode",
        "theirs",
    ): "a punctuation mark is a word of spaCy's and none of ours: its share of words with a "
    "letter falls below 0.8 on text of many marks",
    (
        "unicode",
        "ours",
    ): "numbers beside letters are cut otherwise: the share of words with a letter is near 0.8",
}
NGRAMS = {
    "tokens": "n-grams over other words: marks inside a word (URLs, paths, code) are words of ours, "
    "and Chinese or Japanese is cut by character, where spaCy's English sees one word a run",
    "unicode": "n-grams over other words: ours hold no punctuation, Chinese or Japanese is cut by character",
}
LIST = (
    "newlines over words: Chinese and Japanese are one word a run to spaCy's English, one a character to us"
)
MARKS = "newlines over words: punctuation marks, words of spaCy's, are none of ours"
FEW = "spaCy leaves a.b.c or f(x) whole, several words of ours: just under 50 words, or too long ones, to it"
STOP = "youtu.be is one word of spaCy's and two of ours, and the second is a stop word"


def why(cut: str, theirs: str | None, ours: str | None) -> str:
    """The reason of a class of disagreements, from the rule that one side applied."""
    rule = theirs or ours or ""
    if rule == "gopher_below_alpha_threshold":
        return ALPHA[cut, "theirs" if theirs else "ours"]
    if "gram" in rule:
        return NGRAMS[cut]
    if rule == "list_ratio":
        return LIST if theirs else MARKS
    return STOP if rule == "gopher_enough_stop_words" else FEW


def _kind(rule: str | None) -> str | None:
    """n-grams of all lengths are one kind of rule."""
    if rule and "gram" in rule:
        return "top n-gram" if "top" in rule else "repeated n-grams"
    return rule


def show(pages: list[Page], result: Comparison) -> None:
    sources = Counter(page.source for page in pages)
    size = sum(len(page.text.encode()) for page in pages) / 1e6
    print(
        f"{len(pages):,} pages ({', '.join(f'{n:,} {name}' for name, n in sources.items())}), {size:.1f} MB\n"
    )

    print(f"| decisions that agree | {' | '.join(CUTS.values())} |\n|--|{'--:|' * len(CUTS)}")
    for family in FAMILIES:
        cells = []
        for cut in CUTS:
            n = len(pages) - len(result.disagreements(family, cut))
            cells.append(f"{n:,} ({result.agreement(family, cut):.2%})")
        print(f"| {family} | {' | '.join(cells)} |")
    same = sum(theirs == ours for theirs, ours in result.edited)
    print(
        f"\nText after C4's line edits: the same on {same:,} of {len(result.edited):,} pages that C4 keeps."
    )
    same = sum(result.same_reasons(family) == 1 for family in FAMILIES)
    print(f"Reasons, given its words: the same on every page in {same} of {len(FAMILIES)} families.\n")

    print("Disagreements given its words:\n")
    rows = [(family, i) for family in FAMILIES for i in result.disagreements(family)]
    if rows:
        print("| page | family | datatrove | winnow |\n|--|--|--|--|")
    else:
        print("none.")
    for family, i in rows:
        theirs, ours = result.theirs[i][family], result.ours["its words"][i][family]
        print(f"| {pages[i].source}: {pages[i].name} | {family} | {theirs or 'keeps'} | {ours or 'keeps'} |")

    print("\nDisagreements with words of our own, by rule (datatrove's name of it):\n")
    print("| words | family | pages | datatrove | winnow | why |\n|--|--|--:|--|--|--|")
    for cut in list(CUTS)[1:]:
        for family in FAMILIES:
            counts: Counter = Counter()
            for i in result.disagreements(family, cut):
                theirs, ours = result.theirs[i][family], result.ours[cut][i][family]
                counts[(_kind(theirs), _kind(ours), why(cut, theirs, ours))] += 1
            for (theirs, ours, reason), n in counts.most_common():
                print(f"| {cut} | {family} | {n} | {theirs or 'keeps'} | {ours or 'keeps'} | {reason} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="each N-th page of the embedded pool")
    parser.add_argument("--max-chars", type=int, default=None, help="cut longer pages")
    options = parser.parse_args()
    try:
        peer = Peer()
    except ImportError as error:
        sys.exit(f"tests/parity/table.py needs datatrove and spaCy: {error}")
    pages = load("web_pages", max_chars=options.max_chars) + load("warc", max_chars=options.max_chars)
    if not pages:
        print("web_pages and commoncrawl_sample are not there (WINNOW_SHARED_DATA): pool only\n")
    pages += load("pool", every=options.every, max_chars=options.max_chars)
    show(pages, compare([page.text for page in pages], peer))


if __name__ == "__main__":
    main()
