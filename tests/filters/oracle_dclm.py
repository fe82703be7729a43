"""Readable references of what filters/text/dclm computes. Plain Python strings, no speed."""

from __future__ import annotations

import math
import re
from collections import Counter

from filters.text.dclm import classes as k
from filters.text.dclm.edits import read_tlds

TABLE = k.load()
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
BULLETS = ("●", "•", "*", "-")
ELLIPSES = ("...", ". . .", "…")
SYMBOLS = ("#", *ELLIPSES)


# --------------------------------------------------------------------------------------------------- scores


def fasttext_words(text: str) -> list[str]:
    """As fastText's reader cuts them; those that begin alphanumeric."""
    return [w for w in re.split(r"[ \n\r\t\v\f\0]+", text) if w and w[0].isalnum()]


def solid_segments(text: str, between: str) -> list[str]:
    return [part.strip() for part in text.split(between) if part.strip()]


def scores(text: str) -> dict[str, float]:
    tokens, lines = text.split(), solid_segments(text, "\n")
    n, n_lines = max(1, len(tokens)), max(1, len(lines))
    symbols = sum(text.count(symbol) for symbol in SYMBOLS)
    stops = [t.lower() for t in tokens if t.lower() in STOP_WORDS]
    return {
        "n_chars": len(text),
        "n_words": len(fasttext_words(text)),
        "n_tokens": len(tokens),
        "n_lines": len(lines),
        "n_symbols": symbols,
        "n_stop_words": len(stops),
        "n_unique_stop_words": len(set(stops)),
        "mean_word_length": sum(map(len, tokens)) / n,
        "symbol_ratio": symbols / n,
        "bullet_line_ratio": sum(line.startswith(BULLETS) for line in lines) / n_lines,
        "ellipsis_line_ratio": sum(line.endswith(ELLIPSES) for line in lines) / n_lines,
        "non_alpha_word_ratio": sum(not any(map(str.isalpha, t)) for t in tokens) / n,
    }


# ----------------------------------------------------------------------------------------------- repetition


def break_class(char: str) -> int:
    return TABLE[char] & k.BREAK_CLASS


def segments(text: str) -> list[str]:
    """Word segments by the rules of UAX #29, one border at a time (white space is cut everywhere)."""
    out: list[str] = []
    for i, char in enumerate(text):
        if i and not parted(text, i):
            out[-1] += char
        else:
            out.append(char)
    return out


def parted(text: str, i: int) -> bool:
    """Is there a border between text[i - 1] and text[i]?"""
    letters, quotes = (k.ALETTER, k.HEBREW), (k.MIDNUMLET, k.SINGLE_QUOTE)
    if text[i - 1].isspace() or text[i].isspace():
        return True
    if text[i - 1] == "\u200d" and TABLE[text[i]] & k.PICTOGRAPH:  # WB3c
        return False
    if break_class(text[i]) == k.EXTEND:  # WB4
        return False
    # from here on, marks and joiners do not count
    left = [c for c in re.split(r"\s", text[:i])[-1] if break_class(c) != k.EXTEND]
    right = [c for c in re.split(r"\s", text[i:])[0] if break_class(c) != k.EXTEND]
    if not left:
        return True
    before, after = break_class(left[-1]), break_class(right[0])
    before2 = break_class(left[-2]) if len(left) > 1 else k.OTHER
    after2 = break_class(right[1]) if len(right) > 1 else k.OTHER
    joined = (
        (before in letters and after in letters)  # WB5
        or (before in letters and after in (k.MIDLETTER, *quotes) and after2 in letters)  # WB6
        or (before2 in letters and before in (k.MIDLETTER, *quotes) and after in letters)  # WB7
        or (before == k.HEBREW and after == k.SINGLE_QUOTE)  # WB7a
        or (before == k.HEBREW and after == k.DOUBLE_QUOTE and after2 == k.HEBREW)  # WB7b
        or (before2 == k.HEBREW and before == k.DOUBLE_QUOTE and after == k.HEBREW)  # WB7c
        or (before in (*letters, k.NUMERIC) and after in (*letters, k.NUMERIC))  # WB8-10
        or (before2 == k.NUMERIC and before in (k.MIDNUM, *quotes) and after == k.NUMERIC)  # WB11
        or (before == k.NUMERIC and after in (k.MIDNUM, *quotes) and after2 == k.NUMERIC)  # WB12
        or (before == k.KATAKANA and after == k.KATAKANA)  # WB13
        or (before in (*letters, k.NUMERIC, k.KATAKANA, k.EXTENDNUMLET) and after == k.EXTENDNUMLET)
        or (before == k.EXTENDNUMLET and after in (*letters, k.NUMERIC, k.KATAKANA))
    )
    return not joined


def words(text: str) -> list[str]:
    return [segment for segment in segments(text) if segment[0].isalnum()]


def repeated_share(units: list[str]) -> tuple[float, float]:
    """Of units, and of their characters, in units that are there more than once; every copy counts."""
    counts = Counter(units)
    if len(units) < 2:
        return 0.0, 0.0
    repeated = [unit for unit in units if counts[unit] > 1]
    return len(repeated) / len(units), sum(map(len, repeated)) / sum(map(len, units))


def top_share(tokens: list[str], n: int) -> float:
    counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    most = max(counts.values(), default=1)
    if most == 1:
        return 0.0
    longest = max(sum(map(len, gram)) for gram, count in counts.items() if count == most)
    return most * longest / sum(map(len, tokens))


def covered_share(tokens: list[str], n: int) -> float:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    counts = Counter(grams)
    covered = {i + j for i, gram in enumerate(grams) if counts[gram] > 1 for j in range(n)}
    return sum(len(tokens[i]) for i in covered) / max(1, sum(map(len, tokens)))


def repetition(text: str) -> dict[str, float]:
    lines, paragraphs, tokens = solid_segments(text, "\n"), solid_segments(text, "\n\n"), words(text)
    by_line, by_paragraph = repeated_share(lines), repeated_share(paragraphs)
    return {
        "n_lines": len(lines),
        "n_paragraphs": len(paragraphs),
        "n_words": len(tokens),
        "dup_line_frac": by_line[0],
        "dup_para_frac": by_paragraph[0],
        "dup_line_char_frac": by_line[1],
        "dup_para_char_frac": by_paragraph[1],
        **{f"top_{n}_gram": top_share(tokens, n) for n in (2, 3, 4)},
        **{f"dup_{n}_gram": covered_share(tokens, n) for n in (5, 6, 7, 8, 9, 10)},
    }


# ----------------------------------------------------------------------------------------------------- URLs

PLAIN, WORDLIKE = (frozenset(part) for part in read_tlds())
_ANY_CASE = re.compile("|".join(map(re.escape, sorted(PLAIN | WORDLIKE))), re.IGNORECASE)
_AS_WRITTEN = "|".join(re.escape(name) for name in sorted(PLAIN | WORDLIKE, key=len, reverse=True))
_NAMED = re.compile(
    r"\s{0,10}(?:(?:https?|ftp)://)?[A-Za-z0-9_@:%.+~#=-]{1,256}\."
    rf"(?:{_AS_WRITTEN})\b[A-Za-z0-9_()@:%+.~#?&/=-]*"
)
_OCTET = r"[0-2]?[0-9]{1,2}"
_NUMBERED = re.compile(
    rf"\s{{0,10}}\b(?:(?:https?|ftp)://)?(?:{_OCTET}\.){{3}}{_OCTET}[A-Za-z0-9_()@:%+.~#?&/=-]*"
)


def without_urls_dclm(text: str) -> str:
    if _ANY_CASE.match(text):
        text = _NAMED.sub("", text)
    return _NUMBERED.sub("", text)


_REST = "[A-Za-z0-9@:%._+~#=()?&/-]"
_PIECE = re.compile(rf"(?i:https?|ftp)://{_REST}+|[A-Za-z0-9_.@%+~-]+")
_TAIL = re.compile(rf"[/:]{_REST}*|[?#]{_REST}+")


def closed(piece: str) -> str:
    """A URL without the marks that close its sentence."""
    while piece and (piece[-1] in ".:?" or (piece[-1] == ")" and piece.count(")") > piece.count("("))):
        piece = piece[:-1]
    return piece


def is_host(name: str, path: bool) -> bool:
    octets = name.split(".")
    if len(octets) == 4 and all(re.fullmatch("[0-9]{1,3}", o) and int(o) <= 255 for o in octets):
        return True
    before, point, last = name.rpartition(".")
    if not point or not before or not re.match("[A-Za-z0-9]", before[-1]):
        return False
    if last not in (last.lower(), last.upper()):
        return False
    if last.lower() in PLAIN:
        return True
    return last.lower() in WORDLIKE and (path or "@" in before or bool(re.match(r"(?i)www\..", name)))


def without_urls(text: str) -> str:
    """Winnow's rule, read from left to right."""
    out = ""
    i = 0
    while i < len(text):
        found = _PIECE.match(text, i)
        if not found:
            out += text[i]
            i += 1
            continue
        piece = found.group()
        if "://" in piece:
            scheme, _, rest = piece.partition("://")
            kept = closed(rest)
            if kept:
                out = out.rstrip(" \t")
                i += len(scheme) + 3 + len(kept)
            else:
                out += scheme
                i += len(scheme)
            continue
        first = re.search("[A-Za-z0-9]", piece)
        name = piece.strip("-_.@%+~")
        start = i + (first.start() if first else 0)
        stop = start + len(name)
        path = bool(re.match("/[A-Za-z0-9]", text[stop : stop + 2]))
        if (
            name
            and not out.endswith("/")
            and re.search(r"[A-Za-z0-9]\.[A-Za-z0-9]", name)
            and is_host(name, path)
        ):
            out = (out + text[i:start]).rstrip(" \t")
            tail = _TAIL.match(text, stop)
            if tail:
                stop += len(closed(tail.group()))
            i = stop
        else:
            scheme = re.search(r"(?i)(?:https?|ftp)$", piece)
            if scheme and scheme.start() and text.startswith("://", found.end()):
                piece = piece[: scheme.start()]  # a scheme begins within the run: read on from there
            out += piece
            i += len(piece)
    return out


def squeezed(text: str, most: int) -> str:
    return re.sub("\n" * (most + 1) + "+", "\n" * most, text)


# ---------------------------------------------------------------------------------------------------- lines

_COUNTED = (
    "likes shares comments retweets reposts quotes bookmarks upvotes downvotes downloads views followers"
)
_COUNTER = re.compile(rf"\W*\d[\d.,]*[kmb]?\s+(?:{_COUNTED.replace(' ', '|')})\W*")


def uppercase_lines(text: str, most: float) -> str:
    kept = [line for line in text.split("\n") if not line or sum(map(str.isupper, line)) / len(line) <= most]
    return "\n".join(kept).strip()


def numeric_lines(text: str, most: float) -> str:
    kept = [line for line in text.split("\n") if not line or sum(map(str.isdigit, line)) / len(line) <= most]
    return "\n".join(kept).strip()


def counter_lines(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not _COUNTER.fullmatch(line.lower())).strip()


def length_lines(text: str, least: float, most: float = math.inf) -> str:
    return "\n".join(line for line in text.split("\n") if not line or least <= len(line.split()) <= most)


def substring_lines(
    text: str, banned: list[str], place: str, most: int | None, only: bool, wild: bool, case: bool = False
) -> str:
    either = "|".join(b if wild else re.escape(b) for b in banned)
    shape = {"any": rf"\s?(?:{either})", "prefix": rf"^(?:{either})\s?", "suffix": rf"\s?(?:{either})$"}[
        place
    ]
    pattern = re.compile(shape, 0 if case else re.IGNORECASE)
    kept = []
    for line in text.split("\n"):
        if line and (most is None or len(line.split()) <= most):
            if only:
                line = pattern.sub("", line)
                if not line.strip():
                    continue
            elif pattern.search(line):
                continue
        kept.append(line)
    return "\n".join(kept).strip()


def refinedweb_lines(text: str, compat: str | None = None) -> str:
    """Steps 18 to 22, one after the other; a page that is empty stays so."""
    short = {"most": 10, "only": True, "wild": compat == "dclm"}
    for edit in (
        lambda t: uppercase_lines(t, 0.5),
        lambda t: numeric_lines(t, 0.999999),
        counter_lines,
        lambda t: length_lines(t, 2),
        lambda t: substring_lines(t, ["items in cart"], "any", **short),
        lambda t: substring_lines(t, ["Read more..."], "suffix", **short),
        lambda t: substring_lines(t, ["Sign-in"], "prefix", **short),
    ):
        text = edit(text)
    return text
