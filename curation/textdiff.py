"""What an edit did to a text, small enough to look at: removed, added, and a little of what stands around it.

`pieces` is the one form; a terminal, a page and JSON show it each in its way. The work is bounded whatever
the texts are: what both begin and end with is skipped first, and only a window of what differs is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher

from curation.html import Html, el, visible

SAME, REMOVED, ADDED, GAP = "=", "-", "+", "~"
Piece = tuple[str, str]  # (SAME | REMOVED | ADDED, text), or (GAP, what was left out, in words)

_WINDOW = 2000  # lines, or words of a line, that are compared on either side
_CONTEXT = 60  # characters shown before and after a change
_CLIP = 240  # characters shown of either end of a long change
_TOKEN = re.compile(r"\n|[^\S\n]+|\w+|[^\w\s]")


def pieces(before: str, after: str, limit: int = 2000) -> list[Piece]:
    """The way from `before` to `after` as pieces in reading order, about `limit` characters in all; [] when
    the two are equal. Joined, the SAME and REMOVED pieces are `before` and the SAME and ADDED ones `after`,
    wherever no GAP stands."""
    if before == after:
        return []
    return _bounded(_clipped(_merged(_lines(before, after))), limit)


def _lines(before: str, after: str) -> Iterator[Piece]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for tag, one, other in _blocks(old, new):
        removed, added = "".join(one), "".join(other)
        if tag == SAME:
            yield SAME, removed
        elif tag == GAP:
            yield GAP, f"the rest of {len(removed):,} → {len(added):,} characters is not compared"
        elif removed and added:
            yield from _words(removed, added)
        else:
            yield (REMOVED, removed) if removed else (ADDED, added)


def _words(before: str, after: str) -> Iterator[Piece]:
    """Two texts that took each other's place: by words if they have enough in common, else as wholes."""
    found: list[Piece] = []
    same = 0
    for tag, one, other in _blocks(_TOKEN.findall(before), _TOKEN.findall(after)):
        removed, added = "".join(one), "".join(other)
        if tag == SAME:
            same += len(removed.strip())
            found.append((SAME, removed))
        elif tag == GAP:
            found.append((GAP, f"the rest of {len(removed):,} → {len(added):,} characters is not compared"))
        else:
            found += [(op, text) for op, text in ((REMOVED, removed), (ADDED, added)) if text]
    if same * 3 < min(len(before.strip()), len(after.strip())):
        yield from ((REMOVED, before), (ADDED, after))
    else:
        yield from found


def _blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """(SAME | REMOVED, items of old, items of new), and at most one GAP for what lies past the window."""
    head = 0
    shortest = min(len(old), len(new))
    while head < shortest and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shortest - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if head:
        yield SAME, old[:head], new[:head]
    a, b = old[head : len(old) - tail], new[head : len(new) - tail]
    first_a, first_b = a[:_WINDOW], b[:_WINDOW]
    rest = len(a) > _WINDOW or len(b) > _WINDOW
    codes = SequenceMatcher(None, first_a, first_b).get_opcodes()
    if rest and codes and codes[-1][0] != "equal":
        *codes, (_, i, _, j, _) = codes  # what ends at the window's edge may go on behind it
    else:
        i, j = len(first_a), len(first_b)
    for tag, i1, i2, j1, j2 in codes:
        yield (SAME if tag == "equal" else REMOVED), first_a[i1:i2], first_b[j1:j2]
    if rest:
        yield GAP, a[i:], b[j:]
    if tail:
        yield SAME, old[len(old) - tail :], new[len(new) - tail :]


def _merged(found: Iterator[Piece]) -> list[Piece]:
    """Neighbouring changes as one: spaces between two changed words do not make four pieces of it."""
    out: list[Piece] = []
    removed = added = ""

    def flush() -> None:
        nonlocal removed, added
        out.extend((op, text) for op, text in ((REMOVED, removed), (ADDED, added)) if text)
        removed = added = ""

    items = list(found)
    for n, (op, text) in enumerate(items):
        between = (removed or added) and n + 1 < len(items) and items[n + 1][0] in (REMOVED, ADDED)
        if op == SAME and between and text.isspace() and "\n" not in text and removed and added:
            removed, added = removed + text, added + text
        elif op == REMOVED:
            removed += text
        elif op == ADDED:
            added += text
        else:
            flush()
            if op == SAME and out and out[-1][0] == SAME:
                out[-1] = (SAME, out[-1][1] + text)
            else:
                out.append((op, text))
    flush()
    return out


def _clipped(found: list[Piece]) -> list[Piece]:
    """Long stretches with their middle left out, and said to be."""
    out: list[Piece] = []
    for n, (op, text) in enumerate(found):
        if op == SAME:
            before, after = n > 0, n + 1 < len(found)
            head = _CONTEXT if before else 0
            tail = _CONTEXT if after else 0
            word = "unchanged"
        else:
            head = tail = _CLIP
            word = "more added" if op == ADDED else "more removed"
        left = len(text) - head - tail
        if op == GAP or left < 40:
            out.append((op, text))
            continue
        if head:
            out.append((op, text[:head]))
        out.append((GAP, f"{left:,} characters {word}"))
        if tail:
            out.append((op, text[-tail:]))
    return out


def _bounded(found: list[Piece], limit: int) -> list[Piece]:
    size = 0
    for n, (op, text) in enumerate(found):
        size += len(text)
        if size > limit and n and op != GAP:
            changes = sum(op in (REMOVED, ADDED) for op, _ in found[n:])
            return [*found[:n], (GAP, f"{changes} more changes")] if changes else found
    return found


# ------------------------------------------------------------------------------------------------- showing

_RED, _GREEN, _DIM, _END = "\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


def as_text(found: Sequence[Piece], colour: bool = False, indent: str = "") -> str:
    """Pieces for a terminal: red and green with `colour`, else [-removed-] and {+added+}. Whole lines that
    went or came stand on lines of their own, with a sign in front."""
    marks = {REMOVED: ("[-", "-]"), ADDED: ("{+", "+}"), SAME: ("", ""), GAP: ("⋯ ", " ⋯")}
    colours = {REMOVED: _RED, ADDED: _GREEN, GAP: _DIM}
    lines: list[str] = [""]
    signs: list[str] = [" "]

    def fresh() -> None:
        if lines[-1]:
            lines.append("")
            signs.append(" ")

    for op, text in found:
        text = visible(text.replace("\r\n", "\n")) if op != GAP else text
        whole = op in (REMOVED, ADDED) and text.endswith("\n") and not lines[-1]
        if op == GAP:
            fresh()
            lines[-1] = _coloured(f"⋯ {text} ⋯", _DIM if colour else "")
            fresh()
        elif whole:
            for line in text[:-1].split("\n"):
                lines[-1] = _coloured(line or " ", colours[op] if colour else "")
                signs[-1] = op
                lines.append("")
                signs.append(" ")
        else:
            first, last = marks[op] if not colour else ("", "")
            for number, line in enumerate(text.split("\n")):
                if number:
                    lines.append("")
                    signs.append(" ")
                mark = f"{first}{line}{last}" if line else ""
                lines[-1] += _coloured(mark, colours.get(op, "") if colour else "")
    shown = [f"{indent}{sign} {line}".rstrip() for sign, line in zip(signs, lines, strict=True) if line]
    return "\n".join(shown)


def _coloured(text: str, colour: str) -> str:
    return f"{colour}{text}{_END}" if colour and text else text


def as_html(found: Iterable[Sequence[str]]) -> Html:
    """Pieces as an element for a page: <del>, <ins>, and what was left out in words."""
    names = {REMOVED: "del", ADDED: "ins"}

    def piece(op: str, text: str) -> Html:
        if op == GAP:
            return el("span", f"⋯ {text} ⋯", class_="gap")
        if op in names and not text.strip():  # nothing that could be struck out
            text = text.replace("\n", "↵\n").replace("\t", "→\t").replace(" ", "·")
        return el(names.get(op, "span"), text)

    return el("p", [piece(op, text) for op, text in found], class_="diff", dir="auto")
