"""Readable references of what filters/text/signal_kernels.py computes. Plain Python strings, no speed.

    python tests/filters/oracle_signals.py out/

compares the two, and their speeds, on the pages under `out/` (parquet files with a column text).
"""

from __future__ import annotations

import math
import re
import statistics
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


# -------------------------------------------------------------------------------------------------- dolma


def dolma_gopher(text: str, required: tuple[str, ...], blank_lines: bool) -> dict:
    words = text.split()
    lines = [line for line in text.split("\n") if blank_lines or line.strip()]
    n = max(len(words), 1)
    size = max(sum(map(len, words)), 1)
    copies = [line for line in lines if lines.count(line) > 1]
    out = {
        "character_count": len(text),
        "word_count": len(words),
        "median_word_length": statistics.median(map(len, words)) if words else 0,
        "symbol_to_word_ratio": sum("#" in word or "…" in word for word in words) / n,
        "fraction_of_words_with_alpha_character": sum(any(map(str.isalpha, word)) for word in words) / n,
        "required_word_count": sum(word in required for word in words),
        "fraction_of_lines_starting_with_bullet_point": sum(line[:1] in ("*", "-") for line in lines if line)
        / max(len(lines), 1),
        "fraction_of_lines_ending_with_ellipsis": sum(line.endswith("…") for line in lines)
        / max(len(lines), 1),
        "fraction_of_duplicate_lines": len(copies) / max(len(lines), 1) if text else 0,
        "fraction_of_characters_in_duplicate_lines": sum(map(len, copies)) / size,
    }
    for k in (2, 3, 4):
        gram, count = next(iter(Counter(ngrams(words, k)).most_common(1)), ((), 0))
        out[f"fraction_of_characters_in_most_common_{k}grams"] = count * sum(map(len, gram)) / size
    for k in (5, 6, 7, 8, 9, 10):
        grams = ngrams(words, k)
        often = Counter(grams)
        whole = sum(len(word) for gram in grams for word in gram)
        repeated = sum(len(word) for gram in grams if often[gram] > 1 for word in gram)
        out[f"fraction_of_characters_in_duplicate_{k}grams"] = repeated / max(whole, 1)
    return out


def dolma_c4(text: str) -> dict:
    lines = [line.lower().strip() for line in text.split("\n")]
    return {
        "line_count": len(lines),
        "lines_with_no_ending_punctuation": sum(not line.endswith((".", "?", "!", '"')) for line in lines),
        "lines_with_too_few_words": sum(len(line.split()) < 3 for line in lines),
        "has_javascript": "javascript" in text.lower(),
        "has_javascript_word": "javascript" in text.lower().split(),
        "has_lorem_ipsum": "lorem ipsum" in text.lower(),
        "has_curly_brace": "{" in text,
    }


def dolma_lengths(text: str) -> dict:
    paragraphs = [line for line in text.split("\n") if line.strip()]
    return {
        "bytes": len(text.encode()),
        "characters": len(text),
        "characters_stripped": len(text.strip()),
        "words": len(text.split()),
        "tokens": len(re.findall(r"\w+|[^\w\s]+", text)),
        "paragraphs": len(paragraphs),
        "symbol_paragraphs": sum(not any(map(str.isalnum, line)) for line in paragraphs),
    }


def no_punctuation(text: str) -> str:
    pieces = re.findall(r"[^\n]*\n|[^\n]+", text)
    return "".join(piece for piece in pieces if piece.rstrip().endswith((".", "?", "!", '"')))


def repetitions(text: str, across_lines: bool) -> dict:
    parts = [text] if across_lines else text.split("\n")
    spans = [match for part in parts for match in re.finditer(r"(.+?)(\s?\1){3,}", part)]
    sizes = [len(match[0]) for match in spans]
    return {
        "count": len(spans),
        "doc_max_score_repetition": max((match[0].count(match[1]) for match in spans), default=0),
        "doc_max_length_repetition": max(sizes, default=0),
        "doc_frac_repetition": sum(sizes) / max(len(text), 1),
    }


def main() -> None:
    import sys
    import time
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    from filters.text.redpajama import STOP_WORDS, redpajama_signals

    files = [f for f in sorted(Path(sys.argv[1]).rglob("*.parquet")) if "text" in pq.read_schema(f).names]
    pages = pa.concat_tables([pq.read_table(file, columns=["text"]) for file in files]).combine_chunks()
    batch = pages.to_batches()[0]
    texts = batch.column("text").to_pylist()
    size = sum(len(text.encode()) for text in texts) / 1e6
    step = redpajama_signals(lines=True)
    step.setup()
    step(batch)
    spent = []
    for _ in range(5):
        start = time.process_time()
        made = step(batch)
        spent.append(time.process_time() - start)
    start = time.process_time()
    stops = frozenset(STOP_WORDS)
    wanted = [redpajama(text, stops) | redpajama_lines(text) for text in texts]
    slow = time.process_time() - start
    different = 0
    for name in wanted[0]:
        for got, value in zip(made[name].to_pylist(), (row[name] for row in wanted), strict=True):
            if isinstance(value, list):
                pairs = zip(got, value, strict=True)
                near = all(math.isclose(*pair, rel_tol=1e-6) for pair in pairs)
            else:
                near = got == value or math.isclose(got, value, rel_tol=1e-11, abs_tol=1e-12)
            different += not near
    print(f"{len(texts)} pages, {size:.2f} MB, {len(wanted[0])} signals a page: {different} differ")
    fast = min(spent)
    print(f"compiled {size / fast:.0f} MB/s, plain Python {size / slow:.2f} MB/s: {slow / fast:.0f} times")


if __name__ == "__main__":
    main()
