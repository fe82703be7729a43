"""Is a generated text the answer? DCLM's rule to the letter, and a corrected one beside it.

**compat** (llm-foundry 0.9): cut at the first stop string (all of them joined into one regular expression,
unescaped), keep what follows the last chain-of-thought delimiter, normalise (lower case; ASCII punctuation
and ``‘ ’ ´ ` `` to spaces; the words a, an, the dropped; white space squeezed); correct when that
**starts with** any accepted answer, normalised alike. So "180" passes for 18, "3.5" for 3, 5 for -5, and
anything where an accepted answer normalises to nothing.

**corrected**: the answer is the first line of that text. Correct when it **equals** an accepted answer after
a normalisation that keeps the signs, decimal points and values of numbers. Where the accepted answer is a
number (of a ``math`` task: also a fraction or with a currency or per cent sign), the number that the answer
begins with decides, by value: "18 dollars", "18." and "18.0" are 18; "180", "-18" and "18 - 4" are not. In
``math`` tasks other answers are compared as formulas, without white space and dollar signs, every operator
kept. An answer that is empty, or nothing but articles and punctuation, matches only itself.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from evaluation.lm.tasks import Task

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DASHES = str.maketrans(dict.fromkeys("−‒–", "-"))
# digits with or without thousands separators, or a bare decimal fraction
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_IN_TEXT = re.compile(rf"(?<![\w.])[-+]?{_DIGITS}(?![\w])(?!\.\d)")
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?P<money>[$€£]?)(?P<minus>-?)"
    rf"(?:\\[dt]?frac{{(?P<top>{_DIGITS})}}{{(?P<bottom>{_DIGITS})}}|(?P<value>{_DIGITS})(?:/(?P<over>{_DIGITS}))?)"
    r"(?P<percent> ?%)?"
)
_AFTER = re.compile(r"$|[.,;:!?)]*(?:\s+(?![-+*/^=<>√×÷(\\])|\s*$)")


@dataclass(frozen=True)
class Decision:
    """``compat`` and ``corrected``: is it right by DCLM's rule, by ours; ``answer``: what was compared."""

    compat: bool
    corrected: bool
    answer: str


def decide(task: Task, item: dict[str, Any], generated: str) -> Decision:
    """Decide on what a model wrote after the prompt of ``item``; ``generated`` may run on past a stop."""
    accepted = [item["answer"], *item.get("aliases", [])]
    answer = final_answer(task, generated)
    said = normalise(answer)
    first_line = answer.strip().split("\n", 1)[0].strip()
    return Decision(
        compat=any(said.startswith(normalise(a)) for a in accepted),
        corrected=any(_same(first_line, a, task.answers == "math") for a in accepted),
        answer=answer,
    )


def final_answer(task: Task, generated: str) -> str:
    """What is left of a generation: up to the first stop, after the last chain-of-thought delimiter."""
    if task.stops:
        generated = re.split("|".join(task.stops), generated)[0]
    return generated.split(task.cot_delimiter)[-1] if task.cot_delimiter else generated


def normalise(text: str) -> str:
    """DCLM's normalisation, that of TriviaQA's own evaluation."""
    return " ".join(_ARTICLES.sub(" ", text.replace("_", " ").lower().translate(_PUNCTUATION)).split())


def careful(text: str) -> str:
    """``normalise``, but numbers keep sign and decimal point and are written in one way (1,000.0 → 1000)."""
    text = text.lower().translate(_DASHES)
    parts, at = [], 0
    for match in _IN_TEXT.finditer(text):
        parts += [normalise(text[at : match.start()]), _written(_value(match[0]))]
        at = match.end()
    return " ".join(part for part in [*parts, normalise(text[at:])] if part)


def number_at_start(text: str) -> Fraction | None:
    """The number that an answer begins with, or None where it begins with something else or with a formula.

    A sign, a currency sign, thousands separators, a fraction and a per cent sign (which does not change the
    value) may be part of it; after it comes the end, punctuation, or a space and no operator.
    """
    text = _bare(text)
    match = _NUMBER.match(text)
    if match is None or not _AFTER.match(text[match.end() :]):
        return None
    top = _value(match["top"] or match["value"])
    bottom = _value(match["bottom"] or match["over"] or "1")
    if not bottom:
        return None
    return top / bottom * (-1 if "-" in match["sign"] + match["minus"] else 1)


def formula(text: str) -> str:
    """A formula without what does not change it: white space, dollar signs, a final full stop."""
    text = text.strip().translate(_DASHES).lower().rstrip(".")
    text = re.sub(r"\\[,;:! ]|\\left(?=[(\[{|])|\\right(?=[)\]}|])|\$", "", text)
    return re.sub(r"\s+|(?<=\d),(?=\d{3}(?!\d))", "", text)


def accepts_anything(item: dict[str, Any]) -> bool:
    """Whether DCLM's rule takes every text for right: some accepted answer normalises to nothing."""
    return not all(normalise(answer) for answer in _accepted(item))


def _accepted(item: dict[str, Any]) -> Iterable[str]:
    return [item["answer"], *item.get("aliases", [])]


def _same(said: str, accepted: str, math: bool) -> bool:
    if not said.strip() or not accepted.strip():
        return False
    wanted = number_at_start(accepted) if _whole_number(accepted, math) else None
    if wanted is not None:
        found = number_at_start(said) if math else _lone_number(said)
        return found == wanted
    if math:
        return formula(said) == formula(accepted) != ""
    ours, theirs = careful(said), careful(accepted)
    if not theirs:  # nothing but articles and punctuation: only the same text will do
        return said.strip().lower() == accepted.strip().lower()
    return ours == theirs


def _whole_number(text: str, math: bool) -> bool:
    """Whether an accepted answer is a number and nothing else."""
    if math:
        return _NUMBER.fullmatch(_bare(text)) is not None
    return _IN_TEXT.fullmatch(text.strip().translate(_DASHES)) is not None


def _bare(text: str) -> str:
    """Without dollar signs at the ends, be they LaTeX's or money's."""
    return text.strip().translate(_DASHES).replace("\\%", "%").replace("\\$", "$").strip("$").strip()


def _lone_number(text: str) -> Fraction | None:
    """The number that a text is, but for final punctuation."""
    text = text.strip().translate(_DASHES).rstrip(".,;:!?")
    return _value(text) if _IN_TEXT.fullmatch(text) else None


def _value(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").removeprefix("+"))


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    # decimal fractions end: shift until whole
    places, scaled = 0, value
    while scaled.denominator != 1:
        places, scaled = places + 1, scaled * 10
    digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + digits[:-places] + "." + digits[-places:]
