"""Readable references of FineWeb's ratios and C4's line rules. Plain Python strings, no speed."""

from __future__ import annotations

import re

from filters.text import codepoints as cp
from filters.text.c4 import ABBREVIATIONS, POLICY_PHRASES
from filters.text.fineweb import STOP_CHARS

TABLE = cp.load()
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")


def fineweb(text: str, words: list[str], short_line_chars: int = 30) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    n = max(1, len(lines))
    return {
        "n_lines": len(lines),
        "line_punct_ratio": sum(line.endswith(tuple(STOP_CHARS)) for line in lines) / n,
        "short_line_ratio": sum(len(line) <= short_line_chars for line in lines) / n,
        "char_dup_ratio": repeated / max(1, len(text.replace("\n", ""))),
        "newline_ratio": text.count("\n") / max(1, len(words)),
    }


def c4(
    text: str,
    remove_citations: bool = True,
    filter_no_terminal_punct: bool = True,
    min_words_per_line: int = 3,
    max_word_length: int = 1000,
    filter_javascript: bool = True,
    filter_policy: bool = True,
) -> tuple[dict[str, int], str]:
    """(every number of the score, the text that is left)."""
    counts = dict.fromkeys(
        (
            "n_lines", "n_kept_lines", "n_long_word_lines", "n_unended_lines", "n_few_words_lines",
            "n_javascript_lines", "n_policy_lines", "n_lorem_ipsum_lines", "n_curly_bracket_lines",
            "n_sentences", "n_words", "n_citations", "longest_word",
        ),
        0,
    )  # fmt: skip
    kept = []
    for line in text.splitlines():
        counts["n_lines"] += 1
        line = line.strip()
        words = line.split()
        longest = max(map(len, words), default=0)
        counts["longest_word"] = max(counts["longest_word"], longest)
        if max_word_length > 0 and longest > max_word_length:
            counts["n_long_word_lines"] += 1
            continue
        if remove_citations:
            line, cited = CITATION.subn("", line)
            counts["n_citations"] += cited
        if filter_no_terminal_punct and (
            not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        ):
            counts["n_unended_lines"] += 1
            continue
        if len(words) < min_words_per_line:
            counts["n_few_words_lines"] += 1
            continue
        lower = line.lower()
        counts["n_lorem_ipsum_lines"] += "lorem ipsum" in lower
        if filter_javascript and "javascript" in lower:
            counts["n_javascript_lines"] += 1
            continue
        counts["n_curly_bracket_lines"] += "{" in line
        if filter_policy and any(phrase in lower for phrase in POLICY_PHRASES):
            counts["n_policy_lines"] += 1
            continue
        counts["n_kept_lines"] += 1
        counts["n_words"] += len(words)
        counts["n_sentences"] += sentences(line)
        kept.append(line)
    return counts, "\n".join(kept).strip()


def sentences(line: str) -> int:
    """One, and one more at each word that follows an end; the rule of filters/text/c4.py."""
    if not line.strip():
        return 0
    count, word, gap = 1, "", ""
    for char in line:
        kind = TABLE[char] & cp.KIND
        if kind == cp.WORD and word and not gap:
            word += char
        elif kind in (cp.WORD, cp.SINGLE):
            count += ends(word, gap, char)
            word, gap = char, ""
        elif kind == cp.EXTEND and word and not gap:
            word += char
        else:
            gap += char
    return count


def ends(word: str, gap: str, first: str) -> bool:
    """Does a sentence end in ``gap``, between ``word`` and the next word, which starts with ``first``?"""
    if any(char in STOP_CHARS and char not in ".!?" for char in gap):
        return True
    letters = [char for char in word if TABLE[char] & cp.KIND != cp.EXTEND]
    if gap == "." and letters and not_upper(letters[-1]) and TABLE[first] & cp.UPPER:
        return not (len(letters) == 1 or word in ABBREVIATIONS.split())
    before = word
    pieces = re.split("[" + "".join(SPACES) + "]", gap)
    for piece in pieces[:-1]:
        standing = False
        for at, char in enumerate(piece):
            if char == "." and piece[at - 1 : at] == ".":
                standing = False
            elif char == ".":
                after_word = at == 0 and before != ""
                lone = after_word and len(letters) == 1 and bool(TABLE[letters[0]] & cp.ALPHA)
                standing = standing or not (lone or (after_word and before in ABBREVIATIONS.split()))
            elif char in "!?":
                standing = True
        if standing:
            return True
        before = ""
    return False


def not_upper(char: str) -> bool:
    return bool(TABLE[char] & cp.ALPHA) and not TABLE[char] & cp.UPPER


SPACES = [re.escape(chr(code)) for code in range(0x3001) if chr(code).isspace()]
