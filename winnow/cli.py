"""The `winnow` command: one thin program over all rooms. Each sub-command is a few lines over the API."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winnow.variables import variables

EPILOG = """examples:
  winnow pool demo-text pool/                 unpack the embedded text pool
  winnow explain text/rules --pool pool/      what the recipe would do, checked against the pool
  winnow run text/rules --pool pool/ --out out/rules
  winnow funnel out/rules                     what was removed, and why
  winnow select out/rules --where "language_score >= .9" --out ids.parquet
  winnow train lm-tiny out/rules model/ && winnow eval model/ --out results/text/rules/seed-0.json
  winnow leaderboard results/ board/
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0: done; 1: the run failed; 2: the command or the plan is wrong."""
    from curation.errors import PlanError, RunFailed

    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except PlanError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"winnow: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FileNotFoundError, ValueError, RuntimeError, OSError) as error:
        print(f"winnow: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nwinnow: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    import curation
    from recipes.clip import train as train_clip
    from recipes.lm import tokenise, validate
    from recipes.lm import train as train_lm
    from recipes.training import options
    from winnow import benchmark, explain, pool

    top = argparse.ArgumentParser(
        prog="winnow",
        description="Curate pretraining data, and measure what the curation was worth.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"winnow {curation.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    sub = command("run", _run, "run a recipe on a pool")
    sub.add_argument(
        "recipe", help="a recipe file, or one of ours by name, e.g. text/rules (see `winnow recipes`)"
    )
    sub.add_argument("--pool", help="where the pool is: folder, glob, URL or listing (fills ${pool})")
    sub.add_argument("--out", help="where the output goes (fills ${out})")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fill another ${NAME}")
    sub.add_argument(
        "--on", default="local", help="local or ray; RAY_ADDRESS names a cluster (default: local)"
    )
    sub.add_argument("--workers", type=int, help="processes or local Ray CPUs (default: all cores)")
    sub.add_argument("--scores", choices=["kept", "all"], default="kept",
                     help="all: score every row, also those an earlier keep removed")  # fmt: skip
    sub.add_argument("--on-error", choices=["quarantine", "raise", "null"], default="quarantine")
    sub.add_argument("--error-budget", type=float, default=0.05, metavar="SHARE",
                     help="share of a shard's rows that may be bad (default: 0.05)")  # fmt: skip
    sub.add_argument("--quiet", action="store_true", help="no progress lines")

    explain.add(commands)

    sub = command("recipes", _recipes, "list the recipes that come with winnow")
    sub.add_argument("track", nargs="?", choices=["text", "image_text"])

    sub = command("funnel", _funnel, "show what a run removed and why, and write its page")
    sub.add_argument("run_dir", metavar="RUN", help="the folder a run wrote to")
    sub.add_argument("--out", help="where to write the page (default: RUN/funnel.html)")

    pool.add(commands)

    sub = command("select", _select, "choose ids from stored scores, without running anything again")
    sub.add_argument("run_dir", metavar="RUN", help="a run's folder, or a folder of side-car parquet files")
    sub.add_argument("--where", default="true", help="SQL condition over the score columns and dropped_by")
    sub.add_argument("--top", metavar="COLUMN:FRACTION", help="of those, the best share by a score")
    sub.add_argument("--out", required=True, help="ids.npy (DataComp subset, for 32-hex ids) or ids.parquet")

    sub = command("reshard", _reshard, "rewrite a pool as shards of an exact number of rows")
    sub.add_argument("pool")
    sub.add_argument("out")
    sub.add_argument("--rows", type=int, default=10_000, help="rows per shard (default: 10000)")
    sub.add_argument("--subset", help="keep only the ids of a DataComp .npy subset, with multiplicity")
    sub.add_argument("--format", default=None, choices=["parquet", "jsonl.zst", "jsonl.gz", "wds", "warc.gz"])
    sub.add_argument("--on", default="local")
    sub.add_argument("--workers", type=int)

    sub = command("tokenise", tokenise.run, "turn a run's output into shuffled training contexts")
    tokenise.add_arguments(sub)

    sub = command("check-tokens", validate.run, "check token shards or tars before a run trusts them")
    validate.add_arguments(sub)

    sub = command("train", _train, "train a model on a run's output under a scale's fixed budget")
    sub.add_argument("scale", help="a scale by name (lm-tiny … clip-xlarge) or a YAML file")
    sub.add_argument("data", help="a run's folder, a folder of shards, or tokens of `winnow tokenise`")
    sub.add_argument("out", help="where the model goes; an unfinished run there is continued")
    sub.add_argument("--gpus", type=int, default=1, help="of this machine; 8 = torchrun with 8 processes")
    options.add_shared(sub)
    train_lm.add_own(sub.add_argument_group("text"))
    train_clip.add_own(sub.add_argument_group("images with captions"))

    benchmark.add(commands)

    sub = command(
        "train-filter", _train_filter, "train a filter: a fastText quality classifier, or a filter network"
    )
    sub.add_argument("kind", choices=["fasttext", "network"])
    sub.add_argument(
        "--trusted", required=True, help="`demo`, or positives: jsonl/parquet of text, or trusted pairs"
    )
    sub.add_argument("--negatives", help="fasttext: a run's folder or shards of ordinary pages")
    sub.add_argument("--preset", choices=["winnow", "dclm"], default="winnow",
                     help="fasttext: settings; dclm has those of DCLM's classifier")  # fmt: skip
    sub.add_argument("--out", required=True)
    sub.add_argument("--seed", type=int, default=0)

    sub = command("eval", _eval, "evaluate a trained model and write its result file")
    sub.add_argument("model", help="the folder that `winnow train` wrote; for images also a model directory, "
                     "an open_clip name with --pretrained, or hf-hub:owner/name")  # fmt: skip
    sub.add_argument("--out", required=True, help="result file, e.g. results/text/rules/seed-0.json")
    sub.add_argument(
        "--recipe", help="name of the recipe that made the data (a name of ours fills in the rest)"
    )
    sub.add_argument(
        "--data-dir", help="a folder of task files (DCLM jsonl; DataComp's sets, or one of them)"
    )
    sub.add_argument("--run", dest="run_dir", help="the curation run, for kept fraction and funnel link")
    sub.add_argument("--fetch", action="store_true", help="fetch what is missing of the task files by URL")
    sub.add_argument("--tasks", dest="sets", metavar="SET",
                     help="text: sets of DCLM's 53 tasks: core, extended, light, medium …; "
                          "images: demo, datacomp, or keys of DataComp's 40 with commas")  # fmt: skip
    sub.add_argument("--pretrained", help="images: a tag of the open_clip name, or a checkpoint file")
    sub.add_argument("--precision", choices=["compat", "fp32"],
                     help="images: DataComp's mix (default on a GPU), or everything in fp32")  # fmt: skip
    sub.add_argument("--device", help="images: cpu, cuda, cuda:1, or several with commas")
    sub.add_argument("--processes", type=int, help="images: one a GPU, or so many on the CPU")
    sub.add_argument("--jsonl", help="images: also write DataComp's eval_results.jsonl here")

    sub = command("leaderboard", _leaderboard, "build the leaderboard page from result files")
    sub.add_argument("results", help="folder of results/<track>/<recipe>/seed-<n>.json")
    sub.add_argument("out", help="folder for index.html, leaderboard.json, .csv and .md")

    sub = command("demo", _demo, "the whole chain, both tracks, on the embedded pools")
    sub.add_argument("--out", default="demo-out", help="folder for everything it makes (default: demo-out)")
    sub.add_argument("--on", default="ray", choices=["ray", "local"])
    sub.add_argument("--seeds", type=int, default=3, help="training seeds per recipe (default: 3)")
    sub.add_argument("--track", choices=["text", "image_text"], help="only one track")
    return top


def _run(arguments: argparse.Namespace) -> None:
    import baselines
    import curation as c

    plan = baselines.find(arguments.recipe).plan(**variables(arguments))
    result = c.run(
        plan,
        on=arguments.on,
        workers=arguments.workers,
        scores=arguments.scores,
        on_error=arguments.on_error,
        error_budget=arguments.error_budget,
        progress=not arguments.quiet,
    )
    print(result)
    if result.funnel:
        print(f"funnel: {result.funnel}")


def _recipes(arguments: argparse.Namespace) -> None:
    import baselines

    for name in baselines.names(arguments.track):
        recipe = baselines.find(name)
        needs = f"  (needs --set {', '.join(n + '=…' for n in recipe.needs)})" if recipe.needs else ""
        print(f"{name:<32}{recipe.title}{needs}\n{'':<32}{recipe.description}")


def _funnel(arguments: argparse.Namespace) -> None:
    from curation.funnel import read_report, render, table

    print(table(read_report(arguments.run_dir)))
    print(f"page: {render(arguments.run_dir, arguments.out)}")


def _select(arguments: argparse.Namespace) -> None:
    from curation.select import select_ids, write_ids

    ids = select_ids(arguments.run_dir, arguments.where, arguments.top)
    write_ids(ids, arguments.out)
    print(f"{len(ids):,} ids → {arguments.out}")


def _reshard(arguments: argparse.Namespace) -> None:
    import curation as c
    from curation.shards import list_shards

    kind = arguments.format or {"warc": "warc.gz"}.get(
        list_shards(arguments.pool)[0].format, list_shards(arguments.pool)[0].format
    )
    kind = "jsonl.zst" if kind == "jsonl" else kind
    steps: list[Any] = [c.read(arguments.pool)]
    if arguments.subset:
        steps.append(c.subset(arguments.subset))
    plan = [*steps, c.reshard(rows=arguments.rows), c.write(arguments.out, format=kind)]
    print(c.run(plan, on=arguments.on, workers=arguments.workers))


def _train(arguments: argparse.Namespace) -> None:
    from recipes import scale as scales
    from recipes.clip import train as train_clip
    from recipes.lm import train as train_lm
    from winnow.jobs import data_folder, torchrun

    scale = scales.load(arguments.scale)
    trainer: Any = train_lm if scale.track == "text" else train_clip
    data = data_folder(arguments.data)
    if arguments.gpus > 1:
        words = trainer.as_arguments(arguments)
        torchrun(trainer.__name__, arguments.gpus, scale, data, arguments.out, words)
    else:
        done = trainer.run(scale, data, arguments.out, arguments)
        print(f"{done.scale}, seed {done.seed}: {done.steps:,} steps, {done.epochs:.2f} epochs, loss "
              f"{done.final_loss:.3f} -> {arguments.out}")  # fmt: skip


def _train_filter(arguments: argparse.Namespace) -> None:
    from winnow import jobs

    if arguments.kind == "fasttext":
        if not arguments.negatives:
            raise ValueError("fasttext needs --negatives: a run's folder or shards of ordinary pages")
        print(
            jobs.train_classifier(
                arguments.trusted, arguments.negatives, arguments.out, arguments.seed, arguments.preset
            )
        )
    else:
        print(jobs.train_network(arguments.trusted, arguments.out, arguments.seed))


def _eval(arguments: argparse.Namespace) -> int:
    from winnow import jobs

    record = jobs.evaluate(
        arguments.model,
        arguments.out,
        recipe=arguments.recipe,
        run_dir=arguments.run_dir,
        data_dir=arguments.data_dir,
        sets=arguments.sets,
        fetch=arguments.fetch or None,
        pretrained=arguments.pretrained,
        precision=arguments.precision,
        device=arguments.device,
        workers=arguments.processes,
        jsonl=arguments.jsonl,
    )
    print(jobs.summary(record))
    print(f"result: {arguments.out}")
    if not record["tasks"] and not record.get("reports"):
        print("winnow: no task was evaluated", file=sys.stderr)
        return 1
    return 1 if record.get("harness", {}).get("failed") else 0


def _leaderboard(arguments: argparse.Namespace) -> None:
    from evaluation.leaderboard import build

    page = build(arguments.results, arguments.out)
    print((Path(arguments.out) / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"page: {page}")


def _demo(arguments: argparse.Namespace) -> None:
    from winnow.demo import run_demo

    tracks = (arguments.track,) if arguments.track else ("text", "image_text")
    run_demo(Path(arguments.out), on=arguments.on, seeds=arguments.seeds, tracks=tracks)


if __name__ == "__main__":
    sys.exit(main())
