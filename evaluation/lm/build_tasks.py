"""Build the embedded language tasks from held-out pages.

    python -m evaluation.lm.build_tasks                                # evaluation/data/lm/tiny/*.jsonl
    python -m evaluation.lm.build_tasks --split validation --out DIR   # for fixing settings

Every item comes from prose that neither the pool nor the trusted slice contains. Which sentence makes which
item, and how it is disturbed, depends on a seed of (split, task) alone, so the script writes the same bytes
each time. The files are committed: a score must not change because a package did.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.lm.tasks import DATA

FUNCTION_WORDS = "of to in for with on by from at as into and or that which when if".split()  # noqa: SIM905
ITEMS = {
    "word_order": 200,
    "word_swap": 200,
    "cloze": 250,
    "cloze_choice": 250,
    "continuation": 150,
    "function_word": 250,
}
PROSE_BYTES = 1_100  # of each held-out page


@dataclass(frozen=True)
class Sentence:
    page: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def sentences(pages: Sequence[dict[str, Any]], low: int, high: int) -> list[Sentence]:
    """Plain sentences of ``low`` to ``high`` words: capital, letters and commas, full stop; no repeats."""
    plain = re.compile(r"[A-Z][A-Za-z]*(?:,? [A-Za-z][A-Za-z'-]*)+\.")
    found: dict[str, Sentence] = {}
    for number, page in enumerate(pages):
        for paragraph in page["text"].split("\n\n"):
            for text in re.split(r"(?<=[.!?])\s+", paragraph):
                words = tuple(text.split())
                if low <= len(words) <= high and plain.fullmatch(" ".join(words)):
                    found.setdefault(" ".join(words), Sentence(number, words))
    return list(found.values())


def heldout_prose(pages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first paragraphs of each page, for bits per byte."""
    for page in pages:
        text = ""
        for paragraph in page["text"].split("\n\n"):
            if text and len((text + paragraph).encode()) > PROSE_BYTES:
                break
            text += ("\n\n" if text else "") + paragraph
        yield {"id": page["id"], "text": text}


def word_order(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The rest of a sentence after its first three words, against three shuffles of the words between."""
    for s in _shuffled(sentences(pages, 9, 20), rng):
        start, middle, last = s.words[:3], list(s.words[3:-1]), s.words[-1:]
        if len(set(middle)) < 4:
            continue
        yield _choice(
            " ".join(start), (*middle, *last), lambda m=middle, e=last: (*_permuted(m, rng), *e), rng
        )


def word_swap(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The rest of a sentence after its first three words, against three with two neighbours swapped."""
    for s in _shuffled(sentences(pages, 10, 20), rng):
        rest = s.words[3:]
        if len(set(rest)) < 6:
            continue

        def swapped(rest: tuple[str, ...] = rest) -> tuple[str, ...]:
            i = rng.randrange(len(rest) - 2)
            return (*rest[:i], rest[i + 1], rest[i], *rest[i + 2 :])

        yield _choice(" ".join(s.words[:3]), rest, swapped, rng)


def cloze(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The last word of a sentence (LAMBADA's format)."""
    for s in _shuffled(_cloze_sentences(pages), rng):
        yield {"context": " ".join(s.words[:-1]), "continuation": s.words[-1].rstrip(".")}


def cloze_choice(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The last word of a sentence against three last words of other pages, of about the same length."""
    pool = _cloze_sentences(pages)
    for s in _shuffled(pool, rng):
        word = s.words[-1].rstrip(".")
        others = sorted(
            {
                t.words[-1].rstrip(".")
                for t in pool
                if t.page != s.page and abs(len(t.words[-1]) - len(s.words[-1])) <= 1
            }
            - set(s.words)
            - {word}
        )
        if len(others) >= 3:
            yield _placed(" ".join(s.words[:-1]), word, rng.sample(others, 3), rng)


def continuation(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The second half of a sentence against three second halves from other pages, equally many words."""
    pool = sentences(pages, 12, 24)
    for s in _shuffled(pool, rng):
        half = len(s.words) // 2
        rest = s.words[half:]
        others = sorted(
            {
                " ".join(t.words[-len(rest) :])
                for t in pool
                if t.page != s.page and len(t.words) >= len(rest) + 4
            }
        )
        if len(others) >= 3:
            yield _placed(" ".join(s.words[:half]), " ".join(rest), rng.sample(others, 3), rng)


def function_word(pages: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Schema: after which of two function words is the same continuation likelier? (Winograd's format)"""
    for s in _shuffled(sentences(pages, 9, 22), rng):
        places = [i for i, w in enumerate(s.words) if w in FUNCTION_WORDS and 3 <= i <= len(s.words) - 4]
        if not places:
            continue
        at = rng.choice(places)
        start, right, rest = s.words[:at], s.words[at], s.words[at + 1 :]
        wrong = rng.choice([w for w in FUNCTION_WORDS if w != right])
        gold = rng.randrange(2)
        options = [" ".join((*start, word)) for word in ((right, wrong) if gold == 0 else (wrong, right))]
        yield {"context_options": options, "continuation": " ".join(rest), "gold": gold}


TASKS: dict[str, Callable[[Sequence[dict[str, Any]], random.Random], Iterator[dict[str, Any]]]] = {
    f.__name__: f for f in (word_order, word_swap, cloze, cloze_choice, continuation, function_word)
}


def build(pages: Sequence[dict[str, Any]], split: str, out: Path) -> dict[str, int]:
    """Write every task file; returns items per file. ``pages``: rows ``id, text``, in a fixed order."""
    out.mkdir(parents=True, exist_ok=True)
    counts = {"heldout_prose": _write(out / "heldout_prose.jsonl", heldout_prose(pages))}
    for name, make in TASKS.items():
        items = []
        for item in make(pages, random.Random(f"{split}:{name}")):
            items.append(item)
            if len(items) == ITEMS[name]:
                break
        counts[name] = _write(out / f"{name}.jsonl", items)
    return counts


def _cloze_sentences(pages: Sequence[dict[str, Any]]) -> list[Sentence]:
    return [s for s in sentences(pages, 8, 20) if re.fullmatch(r"[a-z]{4,}\.", s.words[-1])]


def _choice(
    query: str, real: tuple[str, ...], disturb: Callable[[], tuple[str, ...]], rng: random.Random
) -> dict[str, Any]:
    """An item of the real text and three different disturbed ones."""
    wrong: dict[tuple[str, ...], None] = {}
    while len(wrong) < 3:
        candidate = disturb()
        if candidate != real:
            wrong[candidate] = None
    return _placed(query, " ".join(real), [" ".join(w) for w in wrong], rng)


def _placed(query: str, right: str, wrong: Sequence[str], rng: random.Random) -> dict[str, Any]:
    gold = rng.randrange(len(wrong) + 1)
    return {"query": query, "choices": [*wrong[:gold], right, *wrong[gold:]], "gold": gold}


def _permuted(words: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(words, len(words))


def _shuffled(items: Sequence[Sentence], rng: random.Random) -> list[Sentence]:
    return rng.sample(items, len(items))


def _write(path: Path, items: Any) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    return count


def main(argv: list[str] | None = None) -> None:
    from pools import demo_text

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=demo_text.SPLITS, default="evaluation")
    parser.add_argument("--out", type=Path, default=DATA / "tiny")
    args = parser.parse_args(argv)
    pages = sorted(demo_text.heldout(args.split), key=lambda row: row["id"])
    for name, count in build(pages, args.split, args.out).items():
        size = (args.out / f"{name}.jsonl").stat().st_size
        print(f"{name}: {count} items, {size:,} bytes")


if __name__ == "__main__":
    main()
