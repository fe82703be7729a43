"""Readable references of what filters/text/kernels.py computes. Plain Python strings, no speed."""

from __future__ import annotations

import re
from collections import Counter

from filters.text import codepoints as cp

TABLE = cp.load()


def kind(char: str) -> int:
    return TABLE[char] & cp.KIND


def is_(char: str, flag: int) -> bool:
    return bool(TABLE[char] & flag)


def unicode_words(text: str) -> list[str]:
    """The default word split: tokens that hold a letter, mark or number."""
    return [token for token in tokens(text) if any(is_(char, cp.SOLID) for char in token)]


def tokens(text: str) -> list[str]:
    """Words and runs of one symbol, as documented in filters/text/codepoints.py."""
    words: list[str] = []
    i = 0
    while i < len(text):
        first = text[i]
        if kind(first) == cp.SEPARATOR:
            i += 1
            continue
        j = i + 1
        if kind(first) in (cp.WORD, cp.EXTEND):
            while j < len(text):
                inside = 0 < j < len(text) - 1 and (
                    (
                        text[j] in "'’"
                        and is_(text[j - 1], cp.ALPHA)
                        and is_(text[j + 1], cp.ALPHA)
                        and kind(text[j + 1]) == cp.WORD
                    )
                    or (text[j] in ".," and is_(text[j - 1], cp.DIGIT) and is_(text[j + 1], cp.DIGIT))
                )
                if kind(text[j]) not in (cp.WORD, cp.EXTEND) and not inside:
                    break
                j += 1
        else:
            while j < len(text) and kind(first) == cp.OTHER and text[j] == first:
                j += 1
            while j < len(text) and kind(text[j]) == cp.EXTEND:
                j += 1
        words.append(text[i:j])
        i = j
    return words


def quality(text: str, words: list[str], stop_words: tuple[str, ...]) -> dict[str, float]:
    real = [w for w in words if any(is_(char, cp.SOLID) for char in w)]
    lines = text.splitlines()
    n_ellipses = text.count("...") + text.count("…")
    return {
        "n_words": len(real),
        "n_tokens": len(words),
        "mean_word_length": sum(map(len, real)) / max(1, len(real)),
        "hash_ratio": text.count("#") / len(words) if words else 0.0,
        "ellipsis_ratio": n_ellipses / len(words) if words else 0.0,
        "bullet_line_ratio": sum(line.lstrip().startswith(("•", "-")) for line in lines) / max(1, len(lines)),
        "ellipsis_line_ratio": sum(line.rstrip().endswith(("...", "…")) for line in lines)
        / max(1, len(lines)),
        "alpha_word_ratio": sum(any(map(str.isalpha, w)) for w in words) / max(1, len(words)),
        "n_stop_words": len(set(stop_words) & set(words)),
    }


def later_copies(units: list[str]) -> tuple[int, int]:
    """How many units repeat an earlier one, and the characters in those."""
    seen: set[str] = set()
    copies = []
    for unit in units:
        if unit in seen:
            copies.append(unit)
        seen.add(unit)
    return len(copies), sum(map(len, copies))


def top_gram(words: list[str], n: int) -> int:
    """Characters (joining spaces included) of the most frequent n-gram times its count; the earlier wins."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(" ".join(gram)) * count


def repeated_grams(words: list[str], n: int) -> int:
    """Characters of n-grams already met on a walk that steps over what it counts."""
    met: set[tuple[str, ...]] = set()
    total = i = 0
    while i + n <= len(words):
        gram = tuple(words[i : i + n])
        if gram in met:
            total += sum(map(len, gram))
            i += n
        else:
            met.add(gram)
            i += 1
    return total


def repetition(text: str, words: list[str]) -> dict[str, float]:
    size = max(1, len(text))
    paragraphs = re.split(r"\n{2,}", text.strip())
    lines = re.split(r"\n+", text)
    n_paragraphs, paragraph_chars = later_copies(paragraphs)
    n_lines, line_chars = later_copies(lines)
    return {
        "n_chars": len(text),
        "dup_para_frac": n_paragraphs / len(paragraphs),
        "dup_para_char_frac": paragraph_chars / size,
        "dup_line_frac": n_lines / len(lines),
        "dup_line_char_frac": line_chars / size,
        **{f"top_{n}_gram": top_gram(words, n) / size for n in (2, 3, 4)},
        **{f"dup_{n}_gram": repeated_grams(words, n) / size for n in (5, 6, 7, 8, 9, 10)},
    }
