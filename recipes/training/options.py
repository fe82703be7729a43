"""The options that both trainers' command lines share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def add_shared(p: argparse.ArgumentParser) -> None:
    """What decides a run beside scale, data and folder, and how the machine carries it out."""
    p.add_argument("--seed", type=int, help="decides weights and order (default: the scale's, else 0)")
    p.add_argument("--print-every", type=int, default=1, metavar="N", help="print every N-th step; 0 = none")
    p.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps (default: the scale's number, evenly spread)"
    )
    p.add_argument(
        "--checkpoint-minutes", type=float, default=30.0, metavar="M", help="and whenever it is M minutes old"
    )
    p.add_argument("--restart", action="store_true", help="forget what the folder of the run holds")
    how = p.add_argument_group("the machine (no influence on the maths)")
    how.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    how.add_argument("--threads", type=int, help="CPU threads; only 1 (default) repeats to the last bit")
    how.add_argument(
        "--micro-batch", type=int, metavar="N", help="contexts or pairs at a time (default: text, by memory; "
        "images, all of a process's share)"
    )  # fmt: skip
    how.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: text, on a GPU)"
    )
    how.add_argument("--on", choices=("here", "ray"), default="here", help="ray: on a cluster, by Ray Train")
    how.add_argument("--processes", type=int, default=1, metavar="N", help="with --on ray")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of either trainer's ``train``; seed, machine and place are the trainer's own."""
    return {
        "print_every": args.print_every,
        "checkpoint_every": args.checkpoint_every,
        "checkpoint_minutes": args.checkpoint_minutes,
        "restart": args.restart,
    }


def words(args: argparse.Namespace, own: Iterable[str] = (), flags: Iterable[str] = ()) -> list[str]:
    """Parsed options as a command line again, for the processes of ``torchrun``: the shared ones, and of a
    trainer's ``own`` and its on-off ``flags``."""
    said: list[str] = []
    for name in ("seed", "print_every", "checkpoint_every", "checkpoint_minutes", "device", "threads",
                 "micro_batch", *own):  # fmt: skip
        if getattr(args, name) is not None:
            said += [_option(name), str(getattr(args, name))]
    said += [_option(name) for name in ("restart", *flags) if getattr(args, name)]
    return said + ([] if args.compile is None else ["--compile" if args.compile else "--no-compile"])


def carry_out(run: Callable[[], Any], errors: tuple[type[Exception], ...], unit: str) -> int:
    """Exit code of a trainer's command. One of ``errors`` is said in a line; what was trained, counted in
    ``unit`` ("tokens", "samples": a field of the result), only by the main process."""
    try:
        result = run()
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", 0)) == 0:
        print(
            f"{getattr(result, unit):,} {unit} in {result.seconds:.1f} s, {result.epochs:.2f} epochs, "
            f"loss {result.final_loss:.3f} -> {result.model}"
        )
    return 0


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
