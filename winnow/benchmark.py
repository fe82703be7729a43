"""`winnow benchmark`: the whole chain of one benchmark entry, from a pool and a recipe to a leaderboard row.

Curate, tokenise and shuffle (text), train under the scale's budget, evaluate, rank: each part resumes where
it stopped, so the same command goes on after anything. Entries of several recipes share one folder and one
leaderboard.

    OUT/<recipe>/run      kept shards, side-car scores, funnel
    OUT/<recipe>/tokens   shuffled contexts (text scales that read whole documents)
    OUT/<recipe>/model-<seed>
    OUT/results/<track>/<recipe>/seed-<n>.json    OUT/leaderboard
"""

from __future__ import annotations

import argparse
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

from winnow.variables import variables

EPILOG = """examples:
  winnow benchmark lm-tiny --pool pool/ --recipe text/rules --out out
  winnow benchmark lm-400m-1x --dry-run --gpus 8
  winnow benchmark lm-400m-1x --pool s3://bucket/pool --recipe text/dclm_baseline --out out --gpus 8 --fetch
  winnow benchmark clip-small --pool commonpool/ --recipe image_text/rules --out out --gpus 4 --fetch

An own recipe is a YAML file. Ended by anything, the same command goes on.
"""


def add(commands: Any) -> None:
    """Add `benchmark` to the sub-parsers of the command line."""
    sub = commands.add_parser(
        "benchmark",
        help="one entry of a benchmark: curate, tokenise, train, evaluate, rank",
        description="One entry of a benchmark: pool and recipe in, leaderboard row out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(run=run)
    sub.add_argument("scale", help="a scale by name (lm-tiny … clip-xlarge) or a YAML file")
    sub.add_argument("--pool", help="where the pool is: folder, glob, URL or listing")
    sub.add_argument("--recipe", help="a recipe file, or one of ours by name, e.g. text/dclm_baseline")
    sub.add_argument("--out", default="benchmark-out", help="folder of everything (default: benchmark-out)")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fill ${NAME}")
    sub.add_argument("--seed", type=int, help="of the training (default: the scale's)")
    sub.add_argument("--dry-run", action="store_true", help="print plan, steps, disk and hours; stop")
    sub.add_argument("--on", default="local", help="where to curate and tokenise: local or ray")
    sub.add_argument("--workers", type=int, help="processes or local Ray CPUs (default: all cores)")
    sub.add_argument("--gpus", type=int, default=1, help="of this machine; 8 = torchrun with 8 processes")
    sub.add_argument("--gpu", default="H100", help="what they are, for the estimate (default: H100)")
    sub.add_argument("--micro-batch", type=int, metavar="N", help="images: pairs at a time on a GPU, where "
                     "its memory does not hold its share of the batch")  # fmt: skip
    sub.add_argument("--checkpoint-activations", action=argparse.BooleanOptionalAction, help="images: a "
                     "third more operations for a small part of the memory (default: on a GPU)")  # fmt: skip
    sub.add_argument("--allow-repeat", action="store_true", help="text: a small set may repeat")
    sub.add_argument("--eval-data", help="folder of DCLM's task files, or of DataComp's evaluation sets")
    sub.add_argument("--fetch", action="store_true", help="fetch the task files by URL")
    sub.add_argument("--tasks", help="text: sets of the 53 tasks, core, extended, light … (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: the row is on the leaderboard (or, dry, the plan is sound)."""
    from recipes import scale as scales
    from winnow import jobs

    scale = scales.load(arguments.scale)
    jobs.check_processes(scale, arguments.gpus)
    out = Path(arguments.out)
    recipe = _recipe(arguments)
    name = Path(recipe.path).stem if recipe else None
    here = out / name if name else out
    print(_plan(arguments, scale, out), flush=True)
    if recipe and arguments.pool:
        values = {**variables(arguments), "out": str(here / "run")}
        steps = recipe.plan(**values)
        if arguments.dry_run:
            import curation as c

            c.explain(steps)
    if arguments.dry_run:
        print(_task_line(arguments, scale))
        return 0
    if recipe is None or not arguments.pool:
        raise ValueError(
            "a benchmark entry needs --pool and --recipe (or --dry-run, to see what it would take)"
        )
    return _entry(arguments, scale, recipe, steps, out, here)


def _entry(arguments: Any, scale: Any, recipe: Any, steps: Any, out: Path, here: Path) -> int:
    import curation as c
    from evaluation.leaderboard import build
    from winnow import jobs

    text = scale.track == "text"
    number, total = count(1), 5 if text else 4
    _say(f"{next(number)}/{total} curate")
    print(c.run(steps, on=arguments.on, workers=arguments.workers), flush=True)
    data = here / "run"
    if text:
        _say(f"{next(number)}/{total} tokenise and shuffle")
        data = _tokenise(arguments, scale, here)
    _say(f"{next(number)}/{total} train")
    if text:
        model = jobs.train_text(scale, data, here / "model", arguments.seed, gpus=arguments.gpus,
                                allow_repeat=arguments.allow_repeat)  # fmt: skip
    else:
        model = jobs.train_clip(scale, data, here / "model", arguments.seed, gpus=arguments.gpus,
                                micro_batch=arguments.micro_batch,
                                checkpoint_activations=arguments.checkpoint_activations)  # fmt: skip
    _say(f"{next(number)}/{total} evaluate")
    name = f"seed-{jobs.seed_of(scale, arguments.seed)}.json"
    result = out / "results" / scale.track / Path(recipe.path).stem / name
    record = jobs.evaluate(
        model, result, recipe=str(arguments.recipe), run_dir=here / "run",
        data_dir=arguments.eval_data, fetch=arguments.fetch, sets=arguments.tasks, show_progress=True,
        workers=None if text else arguments.gpus,
    )  # fmt: skip
    print(jobs.summary(record))
    _say(f"{next(number)}/{total} rank")
    page = build(out / "results", out / "leaderboard")
    print((out / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"result: {result}\nfunnel: {here / 'run' / 'funnel.html'}\nleaderboard: {page}")
    return 1 if record.get("harness", {}).get("failed") else 0


def _tokenise(arguments: Any, scale: Any, here: Path) -> Path:
    """Contexts made of the kept text, or the text itself where the scale reads that."""
    if scale["train"].get("piece_bytes"):
        return here / "run"
    from recipes.lm.tokenise import describe, for_scale, tokenise

    data = here / "tokens"
    shards = tokenise(here / "run", data, **for_scale(scale), allow_repeat=arguments.allow_repeat,
                      workers=arguments.workers, on=arguments.on)  # fmt: skip
    print(describe(shards), flush=True)
    return data


def _recipe(arguments: Any) -> Any:
    if not arguments.recipe:
        return None
    import baselines

    return baselines.find(arguments.recipe)


def _plan(arguments: Any, scale: Any, out: Path) -> str:
    if scale.track == "text":
        from recipes.lm.plan import plan
    else:
        from recipes.clip.plan import plan  # type: ignore[assignment]

    text = str(plan(scale, arguments.gpu, arguments.gpus))
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    return f"{text}\nfree        {shutil.disk_usage(place).free / 1e9:,.1f} GB where {out} is"


def _task_line(arguments: Any, scale: Any) -> str:
    suite = "DCLM's 53" if scale.track == "text" else "DataComp's 40"
    if not (arguments.eval_data or arguments.fetch):
        return f"tasks       the embedded ones; {suite} with --eval-data DIR or --fetch"
    if arguments.fetch:
        return f"tasks       {suite}, fetched by URL when they are needed"
    there, missing = _found(arguments.eval_data, scale)
    named = f"; missing: {', '.join(missing)}" if missing else ""
    return f"tasks       {there} of {suite} in {arguments.eval_data}{named}"


def _found(folder: str, scale: Any) -> tuple[int, list[str]]:
    """How many of the suite's tasks a folder has files for, and the names of the others."""
    if scale.track == "text":
        from evaluation.lm.tasks import load_suite

        tasks = load_suite("dclm").tasks
        missing = [t.name for t in tasks if not (Path(folder) / t.file).is_file()]
    else:
        from evaluation.clip import aggregate
        from evaluation.clip.sets import SetError, SetMissing, open_set

        tasks, missing = aggregate.tasks(), []
        for task in tasks:
            try:
                open_set(task, folder)
            except SetMissing:
                missing.append(task.key)
            except SetError as error:
                missing.append(f"{task.key} (broken: {error})")
    return len(tasks) - len(missing), missing


def _say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)
