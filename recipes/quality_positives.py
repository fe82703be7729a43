"""Positives of DCLM's quality classifier from their public sources: rows `id`, `text` to train on.

    python -m recipes.quality_positives openhermes openhermes2_5.json --out positives/openhermes.jsonl
    python -m recipes.quality_positives eli5 eli5.jsonl --out positives/eli5.jsonl --most 100000
    winnow train-filter fasttext --preset dclm --trusted positives/ --negatives out/pool-sample --out model/

The rules are those the paper and its appendix give (Li et al. 2024, arXiv 2406.11794): instruction and
response of OpenHermes-2.5; posts of r/ExplainLikeImFive with their best answer. How turns were joined is not
published; here an empty line parts them. Sources are read as JSON lines or one JSON array; a row that lacks a
field is an error that names the row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

Row = Mapping[str, Any]

MIN_POST_SCORE, MIN_ANSWER_SCORE, MIN_ANSWERS = 3, 5, 3


def openhermes(row: Row) -> str | None:
    """Text of one OpenHermes-2.5 conversation: what was asked and answered, without the system prompt."""
    turns = [turn["value"].strip() for turn in row["conversations"] if turn["from"] in ("human", "gpt")]
    return "\n\n".join(turn for turn in turns if turn) or None


def eli5(row: Row) -> str | None:
    """Text of one r/ExplainLikeImFive post and its best answer, or None when it is not good enough.

    The post has a score of 3 or more and three answers or more, its best answer a score of 5 or more; of
    equally good answers the longest counts. ``row``: `title`, `selftext`, `score` and
    `answers: {text: [...], score: [...]}`.
    """
    answers = list(zip(row["answers"]["score"], row["answers"]["text"], strict=True))
    if row["score"] < MIN_POST_SCORE or len(answers) < MIN_ANSWERS:
        return None
    score, best = max(answers, key=lambda answer: (answer[0], len(answer[1])))
    if score < MIN_ANSWER_SCORE:
        return None
    post = "\n".join(part for part in (row["title"].strip(), (row.get("selftext") or "").strip()) if part)
    return f"{post}\n\n{best.strip()}"


SOURCES: Mapping[str, Callable[[Row], str | None]] = {"openhermes": openhermes, "eli5": eli5}


def convert(rows: Iterable[Row], source: str) -> Iterator[dict[str, str]]:
    """Rows `id`, `text` of a source, without those it does not count. ValueError: a row lacks a field."""
    to_text = SOURCES[source]
    for number, row in enumerate(rows):
        try:
            text = to_text(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{source} row {number}: {type(error).__name__}: {error}") from error
        if text is not None:
            yield {"id": f"{source}-{number}", "text": text}


def read(path: Path) -> Iterator[Row]:
    """Objects of a JSON lines file, or of a file that is one array."""
    with path.open(encoding="utf-8") as file:
        if file.read(1) == "[":
            file.seek(0)
            yield from json.load(file)
            return
        file.seek(0)
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error


def _order(row: Row) -> tuple[int, str]:
    return xxhash.xxh3_64_intdigest(row["text"].encode("utf-8", "replace")), row["id"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.quality_positives", description=__doc__.splitlines()[0]
    )
    parser.add_argument("source", choices=sorted(SOURCES))
    parser.add_argument("file", type=Path, help="the source, as JSON lines or one JSON array")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl file to write")
    parser.add_argument(
        "--most", type=int, default=100_000, help="a sample of so many, by a hash (default 100000; 0: all)"
    )
    args = parser.parse_args(argv)
    try:
        rows = list(convert(read(args.file), args.source))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = len(rows)
    if args.most:
        rows.sort(
            key=lambda row: (xxhash.xxh3_64_intdigest(row["text"].encode("utf-8", "replace")), row["id"])
        )
        rows = rows[: args.most]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{args.out}: {len(rows)} of {found} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
