"""GPQA's two task files from the CSV files of its authors' archive.

    python -m evaluation.lm.gpqa DATASET_FOLDER DATA_DIR     # DATA_DIR/gpqa_data/gpqa_{main,diamond}.jsonl

The authors publish the questions only in an encrypted archive, so that they do not get into training data,
and ask that they are not put on the web in plain text: nothing is fetched here. The order of the choices is
DCLM's: one ``Random(42)`` a file, running on from question to question, shuffles the four.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from pathlib import Path

from evaluation.lm.tasks import TaskError

FILES = ("gpqa_main", "gpqa_diamond")
COLUMNS = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def convert(source: Path, target: Path) -> int:
    """One CSV to one task file; returns its rows. Raises TaskError naming file, row and missing column."""
    if not source.is_file():
        raise TaskError(f"{source}: no such file; unpack the archive's dataset folder there")
    rng, lines = random.Random(42), []
    with open(source, encoding="utf-8", newline="") as text:
        for number, row in enumerate(csv.DictReader(text), 1):
            missing = [name for name in COLUMNS if not row.get(name)]
            if missing:
                raise TaskError(f"{source}, row {number}: no {', '.join(missing)}")
            order = list(range(4))
            rng.shuffle(order)
            choices = [row[COLUMNS[1 + k]] for k in order]
            lines.append(
                json.dumps({"query": row["Question"], "choices": choices, "gold": order.index(0)}) + "\n"
            )
    if not lines:
        raise TaskError(f"{source}: no rows")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with gpqa_main.csv and gpqa_diamond.csv")
    parser.add_argument("data_dir", type=Path, help="folder of task files")
    args = parser.parse_args(argv)
    try:
        for name in FILES:
            target = args.data_dir / "gpqa_data" / f"{name}.jsonl"
            print(f"{target}: {convert(args.source / f'{name}.csv', target):,} rows")
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
