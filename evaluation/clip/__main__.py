"""``python -m evaluation.clip evaluate MODEL``, ``… aggregate FILE``: see ``--help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.clip import aggregate

EPILOG = """examples:
  python -m evaluation.clip evaluate out/model-0
  python -m evaluation.clip evaluate out/model-0 --tasks datacomp --data-dir eval_sets --out result.json
  python -m evaluation.clip evaluate ViT-B-32 --pretrained datacomp_xl_s13b_b90k --tasks datacomp --fetch
  python -m evaluation.clip evaluate ViT-B-32 --pretrained epoch_5.pt --tasks eval_sets/wds_cifar10_test
  python -m evaluation.clip aggregate eval_results.jsonl
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.clip",
        description="Zero-shot evaluation of image-text models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_evaluate(commands)
    of = commands.add_parser("aggregate", help="DataComp's five numbers from an eval_results.jsonl")
    of.add_argument("file", type=Path, help="eval_results.jsonl of DataComp's evaluator, or ours (--jsonl)")
    of.set_defaults(run=_aggregate)
    args = parser.parse_args(argv)
    from evaluation.clip.devices import ProcessDied
    from recipes.training.run_folder import TrainingError

    try:
        return args.run(args)
    except (ValueError, OSError, ProcessDied, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _add_evaluate(commands) -> None:  # type: ignore[no-untyped-def]
    sub = commands.add_parser("evaluate", help="evaluate a model")
    sub.set_defaults(run=_evaluate)
    sub.add_argument(
        "model",
        help="folder of a training run, a model directory, an open_clip name, hf-hub:owner/name, or an "
        "open_clip configuration (JSON)",
    )
    sub.add_argument("--pretrained", help="for an open_clip name: a tag, or a checkpoint file")
    sub.add_argument(
        "--tasks",
        default="demo",
        help="demo (the embedded tasks), datacomp (DataComp's 40), a task list's YAML, or the folder of one "
        "WebDataset evaluation set (default: demo)",
    )
    sub.add_argument("--data-dir", type=Path, help="folder with DataComp's evaluation sets")
    sub.add_argument("--fetch", action="store_true", help="have missing sets from the hub")
    sub.add_argument("--only", default="", help="comma-separated task keys or names")
    sub.add_argument("--out", type=Path, help="write the result file here (JSON), examples beside it")
    sub.add_argument("--jsonl", type=Path, help="also write DataComp's eval_results.jsonl here")
    sub.add_argument(
        "--cache", type=Path, help="folder where finished tasks are kept and looked up; share it freely"
    )
    sub.add_argument("--device", help="cpu, cuda, cuda:1, or several with commas (default: the best one)")
    sub.add_argument("--workers", type=int, default=1, help="processes: one a GPU, or so many on the CPU")
    sub.add_argument("--threads", type=int, help="of each process (default: 1 on a CPU, all beside a GPU)")
    sub.add_argument(
        "--precision",
        choices=("compat", "fp32"),
        help="compat: DataComp's mix, on a GPU (the default there); fp32: everything in fp32",
    )
    sub.add_argument("--recipe", default="", help="name of the recipe, for the result file")
    sub.add_argument("--title", default="", help="title of the recipe, for the result file")
    sub.add_argument("--control", action="store_true", help="mark the result as a control")
    sub.add_argument(
        "--allow-failures", action="store_true", help="exit with 0 although tasks failed (they are named)"
    )
    sub.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="show it (default: on terminals)"
    )


def _evaluate(args: argparse.Namespace) -> int:
    from evaluation.clip.results import Outcome
    from evaluation.clip.run import evaluate, table

    def show(key: str, outcome: Outcome) -> None:
        print(f"{key}: done ({len(outcome.examples):,} rows, {outcome.seconds:.1f} s)", flush=True)

    record = evaluate(
        args.model,
        args.tasks,
        args.out,
        pretrained=args.pretrained,
        data_dir=args.data_dir,
        fetch=args.fetch,
        only=[label.strip() for label in args.only.split(",") if label.strip()],
        cache=args.cache,
        device=args.device,
        workers=args.workers,
        threads=args.threads,
        precision=args.precision,
        recipe=args.recipe,
        title=args.title,
        control=args.control,
        jsonl=args.jsonl,
        on_task=show,
        show_progress=args.progress,
    )
    print(table(record))
    failed = record["harness"]["failed"]
    for name in failed:
        print(f"error: {name}: {record['not_run'][name]}", file=sys.stderr)
    return 1 if failed and not args.allow_failures else 0


def _aggregate(args: argparse.Namespace) -> int:
    """Exit code 0: the average of 38 is there."""
    from evaluation.clip.results import averages_record, read_datacomp_jsonl
    from evaluation.clip.run import averages_table

    found = read_datacomp_jsonl(args.file)
    of = {task.key: task for task in aggregate.tasks()}
    # how many examples were right is known, which were is not: so there are no errors to give
    averages = aggregate.averages({key: (value, None) for key, value in found.scores.items()})
    for key, value in found.scores.items():
        print(f"{key:50} {of[key].metric:24} {value:8.4f}")
    print("\n".join(averages_table(averages_record(averages))))
    for problem in found.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 0 if averages["average"].value is not None else 1


if __name__ == "__main__":
    sys.exit(main())
