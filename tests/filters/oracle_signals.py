"""Readable references of what filters/text/signal_kernels.py computes. Plain Python strings, no speed."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter

BULLETS = tuple(
    chr(cp) for cp in (0x2022, 0x2023, 0x25B6, 0x25C0, 0x25E6, 0x25A0, 0x25A1, 0x25AA, 0x25AB, 0x2013)
)


# ------------------------------------------------------------------------------------------- RedPajama-V2


def normalise(text: str) -> str:
    without = "".join(char for char in text if char not in string.punctuation)
    return unicodedata.normalize("NFD", " ".join(without.lower().split()))


def lines_of(text: str) -> list[str]:
    """With their newline; no empty last one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def ratio(above: float, below: float, nothing: float | None = None) -> float | None:
    return above / below if below else nothing


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def redpajama(text: str, stop_words: tuple[str, ...], bad_words: tuple[str, ...] | None = None) -> dict:
    normal = normalise(text)
    words = normal.split()
    raw = re.findall(r"\w+|[^\w\s]+", text)
    lines = lines_of(text)
    size = sum(map(len, words))
    counts = Counter(words)
    out = {
        "ccnet_length": len(text),
        "ccnet_nlines": len(text.split("\n")) if text else 0,
        "rps_doc_curly_bracket": ratio(text.count("{") + text.count("}"), len(text), 0),
        "rps_doc_frac_all_caps_words": ratio(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_frac_lines_end_with_ellipsis": ratio(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "rps_doc_frac_no_alph_words": ratio(sum(not re.search("[a-zA-Z]", word) for word in raw), len(raw)),
        "rps_doc_lorem_ipsum": ratio(normal.count("lorem ipsum"), len(normal), 0),
        "rps_doc_mean_word_length": ratio(size, len(words)),
        "rps_doc_stop_word_fraction": sum(word in stop_words for word in raw) / len(raw) if words else 0,
        "rps_doc_symbol_to_word_ratio": ratio(sum(map(text.count, ("#", "...", "…"))), len(raw)),
        "rps_doc_frac_unique_words": ratio(len(counts), len(words)),
        "rps_doc_unigram_entropy": -sum(x / len(words) * math.log(x / len(words)) for x in counts.values())
        if words
        else None,
        "rps_doc_word_count": len(words),
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
    }
    for n in (5, 6, 7, 8, 9, 10):
        grams = ngrams(words, n)
        often = Counter(grams)
        covered = {j for i, gram in enumerate(grams) if often[gram] > 1 for j in range(i, i + n)}
        out[f"rps_doc_frac_chars_dupe_{n}grams"] = ratio(sum(len(words[j]) for j in covered), size, 0)
    for n in (2, 3, 4):
        gram, count = next(iter(Counter(ngrams(words, n)).most_common(1)), ((), 0))
        out[f"rps_doc_frac_chars_top_{n}gram"] = sum(map(len, gram)) * count / size if count > 1 else 0
    phrases = {tuple(normalise(phrase).split()) for phrase in bad_words or ()} - {()}
    out["rps_doc_ldnoobw_words"] = (
        None if bad_words is None else sum(ngrams(words, len(phrase)).count(phrase) for phrase in phrases)
    )
    return out


def redpajama_lines(text: str) -> dict[str, list[float]]:
    raw = lines_of(text)
    normal = list(map(normalise, raw))
    signals = {
        "rps_lines_ending_with_terminal_punctution_mark": [
            line.rstrip().endswith((".", "!", "?", "”")) for line in raw
        ],
        "rps_lines_javascript_counts": [line.split().count("javascript") for line in normal],
        "rps_lines_num_words": [len(line.split()) for line in normal],
        "rps_lines_numerical_chars_fraction": [
            ratio(sum(map(str.isnumeric, line)), len(line), 0) for line in normal
        ],
        "rps_lines_start_with_bulletpoint": [line.lstrip().startswith(BULLETS) for line in raw],
        "rps_lines_uppercase_letter_fraction": [sum(map(str.isupper, line)) / len(line) for line in raw],
    }
    return {name: list(map(float, values)) for name, values in signals.items()}
