"""``python -m evaluation.lm MODEL_DIR``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.lm.aggregate import CURRENT, conventions, sets
from evaluation.lm.devices import PRECISIONS, all_devices
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
        "(default: dclm with --set, files with --data-dir, else tiny)",
    )
    parser.add_argument(
        "--set", dest="sets", default="", metavar="NAME", help=f"only the tasks of: {', '.join(sets())}"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of task files, e.g. DCLM's local_data")
    parser.add_argument(
        "--fetch", action="store_true", help="have DCLM's task files by URL, kept in WINNOW_CACHE"
    )
    parser.add_argument("--only", default="", help="comma-separated task names")
    parser.add_argument("--limit", type=int, help="only the first N items of each task")
    parser.add_argument("--out", type=Path, help="write the result file here (JSON)")
    parser.add_argument("--dclm-json", type=Path, help="also write the figures in the shape of DCLM's files")
    parser.add_argument(
        "--baselines",
        default=CURRENT,
        choices=conventions(),
        help="chance levels of the score (all are stored; default: the current ones)",
    )
    parser.add_argument("--recipe", default="", help="name of the recipe, for the result file")
    parser.add_argument("--title", default="", help="title of the recipe, for the result file")
    parser.add_argument("--control", action="store_true", help="mark the result as a control")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument(
        "--device", default="", help="cpu, cuda:0, several with commas, or all (default: the best one)"
    )
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="DCLM evaluates in fp32")
    parser.add_argument(
        "--batch-tokens", type=int, metavar="N", help="tokens read at once; lower = less memory"
    )
    parser.add_argument(
        "--cache", type=Path, help="finished tasks are kept and looked up here (default: MODEL/evaluated)"
    )
    parser.add_argument("--no-cache", action="store_true", help="run every task, keep none")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="show it (default: on terminals)"
    )
    args = parser.parse_args(argv)

    def show(name: str, task: TaskResult) -> None:
        print(f"{name}: {task.metric} {task.value:.4f} ({task.n} items, {task.seconds:.1f} s)", flush=True)

    try:
        record = evaluate(
            args.model,
            args.tasks or ("dclm" if args.sets else "files" if args.data_dir else "tiny"),
            args.out,
            data_dir=args.data_dir,
            fetch=args.fetch,
            sets=args.sets,
            only=[name for name in args.only.split(",") if name],
            limit=args.limit,
            recipe=args.recipe,
            title=args.title,
            control=args.control,
            threads=args.threads,
            devices=all_devices() if args.device == "all" else [d for d in args.device.split(",") if d],
            precision=args.precision,
            batch_tokens=args.batch_tokens,
            cache=None if args.no_cache else args.cache or args.model / "evaluated",
            convention=args.baselines,
            dclm_json=args.dclm_json,
            show_progress=args.progress,
            on_task=show,
        )
    except (TaskError, TrainingError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(record))
    for name in record["harness"]["failed"]:
        print(f"error: {record['not_run'][name]}", file=sys.stderr)
    return 1 if record["harness"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
