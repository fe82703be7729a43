"""``python -m evaluation.lm MODEL_DIR``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.lm.run import TaskResult, evaluate, table
from evaluation.lm.tasks import TaskError, suites
from recipes.lm.data import DataError
from recipes.lm.train import TrainingError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.lm", description="Evaluate a trained language model."
    )
    parser.add_argument("model", type=Path, help="folder that recipes.lm.train made")
    parser.add_argument(
        "--tasks",
        default=None,
        help=f"a suite ({', '.join(suites())}), a suite's YAML, or 'files': every jsonl in --data-dir "
        "(default: tiny, or files when --data-dir is given)",
    )
    parser.add_argument("--data-dir", type=Path, help="folder of task files, e.g. DCLM's local_data")
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--limit", type=int, help="only the first N items of each task")
    parser.add_argument("--out", type=Path, help="write the result file here (JSON)")
    parser.add_argument("--recipe", default="", help="name of the recipe, for the result file")
    parser.add_argument("--title", default="", help="title of the recipe, for the result file")
    parser.add_argument("--control", action="store_true", help="mark the result as a control")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)

    def show(name: str, task: TaskResult) -> None:
        print(f"{name}: {task.metric} {task.value:.4f} ({task.n} items, {task.seconds:.1f} s)", flush=True)

    try:
        record = evaluate(
            args.model,
            args.tasks or ("files" if args.data_dir else "tiny"),
            args.out,
            data_dir=args.data_dir,
            only=[name for name in args.only.split(",") if name],
            limit=args.limit,
            recipe=args.recipe,
            title=args.title,
            control=args.control,
            threads=args.threads,
            on_task=show,
        )
    except (TaskError, TrainingError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
