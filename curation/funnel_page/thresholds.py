"""The numbers that a keep compares a score with, read from its expression, to be drawn in the histogram."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from curation.html import figure

_TOKEN = re.compile(
    r"""(?P<string>'(?:[^']|'')*')
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>(?:[^\W\d]\w*|"(?:[^"]|"")*")(?:\s*\.\s*(?:[^\W\d]\w*|"(?:[^"]|"")*"))*)
      | (?P<op><=|>=|<>|!=|==|<|>|=)
      | (?P<other>\S)""",
    re.VERBOSE,
)
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "="}
_WORDS = {"and", "or", "not", "between", "is", "null", "in", "case", "when", "then", "else", "end", "like"}


@dataclass(frozen=True)
class Threshold:
    """`column op value`, as it stands in the keep (a `not` before it is not looked at)."""

    column: str
    op: str
    value: float

    @property
    def label(self) -> str:
        sign = {"<=": "≤", ">=": "≥"}.get(self.op, self.op)
        return f"{sign} {figure(self.value)}"


def names_in(where: str | None) -> list[str]:
    """Columns that an expression names (struct fields as a.b), in order, without repeats."""
    return list(dict.fromkeys(t[1] for t in _tokens(where or "") if t[0] == "name"))


def thresholds_in(where: str | None) -> list[Threshold]:
    """Simple comparisons `column op number`, `number op column` and `column between a and b`. A column that
    is part of a sum or inside a function is not the score itself and is left out."""
    tokens = _tokens(where or "")
    found = []
    for i, (kind, value) in enumerate(tokens):
        before, after = _at(tokens, i - 1), _at(tokens, i + 1)
        if kind == "op" and value in _FLIP:
            left, right = before, after
            if left[0] == "name" and right[0] == "number" and _alone(tokens, i - 1, i + 1):
                found.append(Threshold(left[1], value, float(right[1])))
            elif left[0] == "number" and right[0] == "name" and _alone(tokens, i - 1, i + 1):
                found.append(Threshold(right[1], _FLIP[value], float(left[1])))
        elif kind == "word" and value == "between" and before[0] == "name" and _alone(tokens, i - 1, i + 3):
            low, join, high = after, _at(tokens, i + 2), _at(tokens, i + 3)
            if low[0] == high[0] == "number" and join == ("word", "and"):
                found.append(Threshold(before[1], ">=", float(low[1])))
                found.append(Threshold(before[1], "<=", float(high[1])))
    return list(dict.fromkeys(found))


def _tokens(where: str) -> list[tuple[str, str]]:
    """(kind, text) of an expression: signs are joined to the number they belong to."""
    out: list[tuple[str, str]] = []
    for match in _TOKEN.finditer(where):
        kind, text = str(match.lastgroup), match.group()
        if kind == "name" and text.lower() in _WORDS:
            kind, text = "word", text.lower()
        elif kind == "name":
            parts = re.findall(r'"(?:[^"]|"")*"|[^\W\d]\w*', text)
            text = ".".join(p[1:-1].replace('""', '"') if p.startswith('"') else p for p in parts)
            if where[match.end() :].lstrip().startswith("("):
                kind = "call"
        elif kind == "op" and text == "==":
            text = "="
        elif kind == "number" and out and out[-1][1] in "+-":
            sign_of = _at(out, len(out) - 2)
            if sign_of[0] not in ("name", "number", "call") and sign_of[1] != ")":
                text = out.pop()[1] + text
        out.append((kind, text))
    return out


def _at(tokens: list[tuple[str, str]], i: int) -> tuple[str, str]:
    return tokens[i] if 0 <= i < len(tokens) else ("end", "")


def _alone(tokens: list[Any], first: int, last: int) -> bool:
    """No arithmetic touches the comparison from outside."""
    return _at(tokens, first - 1)[1] not in {*"+-*/%^|", "::"} and _at(tokens, last + 1)[1] not in {
        *"+-*/%^|:["
    }
