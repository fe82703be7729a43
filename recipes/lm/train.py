"""Train a language model of a scale with an exact budget, on text shards or on tokens that lie ready.

    python -m recipes.lm.train --scale lm-tiny --data out/ --out models/rules-0 --seed 0
    torchrun --nproc-per-node 8 -m recipes.lm.train --scale lm-400m-1x --data tokens/ --out models/dclm
    python -m recipes.lm.train --on ray --processes 16 --scale lm-1b-1x --data tokens/ --out models/dclm

Steps, samples and tokens are those of the scale, whatever the data, the machine, the number of processes and
micro-batches or the number of times the run was stopped. On one CPU thread the result is the same to the last
bit each time; a run that was killed goes on from its last checkpoint with the losses it would have had.

What a run leaves in its folder: ``model.safetensors``, ``config.json`` (scale, shape, seed),
``tokenizer.json``, ``log.jsonl`` (one line a step), ``loss.html`` and ``result.json``
(:class:`~recipes.lm.run_folder.TrainResult`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import scale as scales
from recipes.lm import data
from recipes.lm.budget import Budget
from recipes.lm.run_folder import (
    LOG,
    MODEL,
    PAGE,
    RESULT,
    TOKENIZER,
    TrainingError,
    TrainResult,
    begin,
    load_model,
    stop_on_bad_batch,
    truncated_log,
    write_json,
)
from recipes.training import options

if TYPE_CHECKING:
    import torch

    from recipes.lm.distributed import Parallel
    from recipes.lm.model import Shape
    from recipes.lm.optimizer import AdamW
    from recipes.training.world import World

__all__ = ["Budget", "Machine", "TrainResult", "TrainingError", "load_model", "train"]

CPU_ACTIVATIONS = 1 << 30  # bytes; fixed, so that two machines cut a batch alike
GPU_ACTIVATIONS = 0.6  # of what is free once the weights and their state lie there


@dataclass(frozen=True)
class Machine:
    """How a run is carried out. Nothing here changes the maths of a scale."""

    device: str | None = None
    """``cpu`` or ``cuda``; default: a GPU where there is one."""
    threads: int | None = None
    """CPU threads; default 1 on a CPU (only one repeats to the last bit), torch's own choice beside a GPU."""
    parallel: str = "auto"
    """``ddp``: whole weights in each process, ``fsdp``: sharded, ``none``, or ``auto``: sharded where the
    weights and their state would fill a quarter of a GPU, and for bf16_pure."""
    micro_batch: int | None = None
    """Contexts at a time; a process goes through its share of a batch in so many, adding up the gradients.
    Default: the most that memory is likely to hold."""
    compile: bool | None = None
    """torch.compile of the blocks; default: on a GPU."""


def train(
    scale: str | Path | scales.Scale,
    shards_dir: str | Path,
    out_dir: str | Path,
    seed: int | None = None,
    *,
    threads: int | None = None,
    print_every: int = 1,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float = 30.0,
    restart: bool = False,
    allow_repeat: bool = False,
    compat: str | None = None,
    machine: Machine | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train ``scale`` on ``shards_dir``; goes on where an earlier attempt stopped.

    ``shards_dir`` holds text shards, or token shards (``tokens.json``), or tars with a ``manifest.jsonl``.
    ``seed`` decides the initial weights and the order of the text (default: the scale's, else 0; tokens that
    lie ready are read in the order they lie in). ``print_every`` prints every n-th step (0 = silent).
    ``checkpoint_every`` is in steps (default: the scale's number of checkpoints, evenly spread), and there is
    one whenever the last is ``checkpoint_minutes`` old; neither has any influence on the result. ``restart``
    forgets what ``out_dir`` holds. ``allow_repeat`` lets a budget read tokens more than once (text shards
    always repeat). ``compat="open_lm"`` reads the ids of tars as open_lm does (negative ones modulo the
    vocabulary). ``on_step`` gets each step's log record. Under ``torchrun`` every process calls this.

    Raises TrainingError when ``out_dir`` holds another run, when the data do not fit the scale or are too
    few, or on a loss that is not finite (the rows of the batch are then in ``bad_batch.json``); DataError or
    TokensError when the data cannot be read.
    """
    scale = scales.load(scale)
    if scale.track != "text":
        raise TrainingError(f"scale {scale.name!r} is of track {scale.track!r}; this trainer does text")
    machine = machine or Machine()
    from recipes.training.world import cpu_threads, device, join

    where = device(machine.device)
    with cpu_threads(threads or machine.threads, where.type == "cpu"), join(where) as world:
        run = _Run(scale, Path(shards_dir), Path(out_dir), seed, machine, world, allow_repeat, compat)
        return run.go(print_every, checkpoint_every, checkpoint_minutes, restart, on_step)


class _Run:
    """One run, seen from one of its processes."""

    def __init__(
        self,
        scale: scales.Scale,
        path: Path,
        out: Path,
        seed: int | None,
        machine: Machine,
        world: World,
        allow_repeat: bool,
        compat: str | None,
    ) -> None:
        from recipes.lm.distributed import choose
        from recipes.lm.model import Shape
        from recipes.lm.sources import open_source

        self.scale, self.path, self.out, self.machine, self.world = scale, path, out, machine, world
        self.shape, self.budget = scale.section("model", Shape), scale.section("train", Budget)
        self.seed = seed if seed is not None else self.budget.seed or 0
        self.rows = world.rows(self.budget.batch)
        self.kind = choose(machine.parallel, self.budget.precision, self.shape.parameters, world)
        self.source = open_source(path, self.shape, self.budget, self.seed, allow_repeat, compat)

    def go(
        self,
        print_every: int,
        checkpoint_every: int | None,
        checkpoint_minutes: float,
        restart: bool,
        on_step: Callable[[dict[str, Any]], None] | None,
    ) -> TrainResult:
        from recipes.lm import checkpoint
        from recipes.lm.progress import Meter
        from recipes.lm.sources import batches

        scale, budget, shape, out, world = self.scale, self.budget, self.shape, self.out, self.world
        finished = world.on_main(lambda: self._claim(restart))
        if finished:
            return finished
        engine = self._engine()
        resume = checkpoint.load(out, engine.parallel.model, engine.optimizer)
        self.source.seek(resume.position)
        first, spent = resume.step, resume.seconds
        last = max(1, budget.steps // 20)
        tail = deque(
            world.on_main(lambda: [r["loss"] for r in truncated_log(out / LOG, first)][-last:]), last
        )
        checkpoint_every = checkpoint_every or max(1, budget.steps // budget.checkpoints)
        meter = Meter(shape, budget.batch, budget.steps, world.device, world.size)
        if print_every and world.main:
            print(self._title(engine, first), flush=True)
        start = saved = time.perf_counter()
        gpu = world.device.type == "cuda"
        with open(out / LOG, "a", 1, encoding="utf-8") if world.main else nullcontext() as log:
            for step, batch in enumerate(batches(self.source, first, budget.steps, self.rows, gpu), first):
                lr = budget.lr_at(step)
                late = time.perf_counter() - saved > 60 * checkpoint_minutes
                loss, norm, late = engine.step(batch.contexts, lr, late)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    world.on_main(
                        lambda b=batch, at=(step, loss, norm): stop_on_bad_batch(out, *at, *b.whole())
                    )
                seconds = meter.tick()
                tail.append(loss)
                if world.main:
                    record = {
                        "step": step + 1,
                        "loss": loss,
                        "lr": lr,
                        "grad_norm": norm,
                        "tokens": (step + 1) * meter.a_step,
                        "seconds": round(seconds, 6),
                    }
                    if meter.mfu is not None:
                        record |= {"mfu": round(meter.mfu, 4), "memory": meter.memory}
                    log.write(json.dumps(record) + "\n")
                    if on_step:
                        on_step(record)
                    if print_every and ((step + 1) % print_every == 0 or step + 1 == budget.steps):
                        print(meter.line(record), flush=True)
                if ((step + 1) % checkpoint_every == 0 or late) and step + 1 < budget.steps:
                    if world.main:
                        log.flush()
                        os.fsync(log.fileno())
                    saved = time.perf_counter()
                    state = checkpoint.Resume(step + 1, batch.position, spent + saved - start)
                    checkpoint.save(out, engine.parallel.model, engine.optimizer, world, state)
        result = TrainResult(
            model=str(out),
            scale=scale.name,
            scale_hash=scale.hash,
            seed=self.seed,
            steps=budget.steps,
            tokens=budget.steps * meter.a_step,
            parameters=shape.parameters,
            seconds=round(spent + time.perf_counter() - start, 3),
            final_loss=sum(tail) / len(tail),
            data=str(self.path),
            data_rows=self.source.rows,
            data_bytes=self.source.bytes,
            data_fingerprint=self.source.fingerprint,
            epochs=self.source.epochs(),
            machine=self._machine(engine),
        )
        checkpoint.save_model(out / MODEL, engine.parallel.model, world)
        world.on_main(lambda: self._finish(result))
        return result

    def _claim(self, restart: bool) -> TrainResult | None:
        """Make the folder this run's own; the result, if it is finished already."""
        from recipes.training.checkpoint import refuse_full_disk

        out, scale = self.out, self.scale
        if restart and out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        identity = {
            "scale": scale.to_dict(),
            "scale_hash": scale.hash,
            "seed": self.seed,
            "data": self.source.fingerprint,
        }
        finished = begin(out, identity)
        if finished:
            return finished
        refuse_full_disk(out, self.shape.parameters)
        shutil.copyfile(self.source.tokenizer, out / TOKENIZER)
        return None

    def _engine(self) -> Engine:
        from recipes.lm.distributed import wrap
        from recipes.lm.model import Decoder
        from recipes.lm.optimizer import AdamW

        budget, world = self.budget, self.world
        gpu = world.device.type == "cuda"
        model = Decoder(self.shape, self.seed)
        if gpu:
            model = model.to(world.device)
        if gpu if self.machine.compile is None else self.machine.compile:
            for block in model.blocks:
                block.compile()
        parallel = wrap(model, budget.z_loss, budget.precision, self.kind, world)
        # after wrapping: sharding replaces the parameters
        optimizer = AdamW(list(model.parameters()), budget.betas, budget.eps, budget.weight_decay, fused=gpu)
        share = self.rows[1] - self.rows[0]
        micro = self.machine.micro_batch or _micro_batch(
            self.shape, share, budget.precision, world, parallel.sharded
        )
        return Engine(budget, parallel, optimizer, world, min(micro, share))

    def _title(self, engine: Engine, first: int) -> str:
        budget, world = self.budget, self.world
        per_step = budget.batch * self.shape.context
        title = (
            f"{self.scale.name} {self.scale.hash} | {self.shape.parameters:,} parameters | "
            f"{budget.steps} steps × {per_step} tokens | {self.source.about} | "
            f"{f'from step {first}' if first else f'seed {self.seed}'}"
        )
        if world.size > 1 or world.device.type != "cpu" or engine.micro < self.rows[1] - self.rows[0]:
            title += f"\n{self._machine(engine)}"
        return title

    def _machine(self, engine: Engine) -> str:
        """For people: what the run is carried out by."""
        import torch

        world, share = self.world, self.rows[1] - self.rows[0]
        gpu = world.device.type == "cuda"
        name = torch.cuda.get_device_name(world.device) if gpu else "CPU process"
        return (
            f"{world.size} × {name}, parallel {engine.parallel.kind}, {self.budget.precision}: "
            f"{share} contexts each, {engine.micro} at a time"
        )

    def _finish(self, result: TrainResult) -> None:
        from recipes.lm import checkpoint
        from recipes.lm.loss_page import write_page

        write_page(self.out / PAGE, self.out / LOG, result)
        write_json(self.out / RESULT, asdict(result))  # last: its presence says that the run is whole
        checkpoint.remove(self.out)


@dataclass
class Engine:
    """One optimiser step: forward and backward over micro-batches, clipping, update."""

    budget: Budget
    parallel: Parallel
    optimizer: AdamW
    world: World
    micro: int

    def step(self, contexts: Any, lr: float, late: bool = False) -> tuple[float, float, bool]:
        """This process's rows of a batch, (rows, T+1) -> cross-entropy in nats per token over the whole
        batch, gradient norm before clipping, and whether the main process said ``late``.

        Without an update where loss or norm is not finite: it would ruin the weights the report is about.
        """
        import torch

        from recipes.lm.optimizer import clip_gradients

        try:
            loss, norm, late = self._agree(*self._gradients(self._on_device(contexts)), late)
        except torch.cuda.OutOfMemoryError as error:
            raise TrainingError(
                f"out of GPU memory with {self.micro} contexts at a time; give a smaller micro-batch "
                f"({max(1, self.micro // 2)}, say): {str(error).splitlines()[0]}"
            ) from error
        if math.isfinite(loss) and math.isfinite(norm):
            clip_gradients(self.optimizer.parameters, self.budget.clip, norm)
            self.optimizer.step(lr)
        return loss, norm, late

    def _gradients(self, contexts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the mean over the whole batch; (this process's cross-entropy, gradient norm)."""
        import torch

        from recipes.lm.optimizer import gradient_norm

        parts = contexts.split(self.micro)
        mixed = self.budget.precision == "bf16"
        total = None
        for i, part in enumerate(parts):
            with nullcontext() if i + 1 == len(parts) else self.parallel.keep_local():
                with torch.autocast(contexts.device.type, torch.bfloat16) if mixed else nullcontext():
                    objective, cross_entropy = self.parallel.module(part)
                if len(parts) > 1:
                    share = len(part) / len(contexts)
                    objective, cross_entropy = objective * share, cross_entropy * share
                objective.backward()
            total = cross_entropy if total is None else total + cross_entropy
        return total.detach(), gradient_norm(self.optimizer.parameters)

    def _agree(self, loss: torch.Tensor, norm: torch.Tensor, late: bool) -> tuple[float, float, bool]:
        """Loss and norm of the whole batch, the same numbers in every process; one exchange, one wait."""
        import torch

        if self.world.size == 1:
            loss, norm = torch.stack((loss.float(), norm.float())).tolist()
            return loss, norm, late
        squares = norm.square() if self.parallel.sharded else norm.square() / self.world.size
        said = torch.tensor(float(late and self.world.main), device=loss.device)
        loss, square, said = self.world.sum(torch.stack((loss.float(), squares.float(), said))).tolist()
        return loss / self.world.size, math.sqrt(square) if square >= 0 else square, said > 0

    def _on_device(self, contexts: Any) -> torch.Tensor:
        import torch

        ids = torch.from_numpy(contexts)
        if self.world.device.type == "cuda":
            ids = ids.pin_memory().to(self.world.device, non_blocking=True)
        return ids


def _micro_batch(shape: Shape, share: int, precision: str, world: World, sharded: bool) -> int:
    """The largest divisor of a process's share whose activations are likely to fit."""
    import torch

    # about 30 numbers a position, layer and unit of width are kept for the backward pass; half in bf16
    context = shape.context * shape.layers * shape.dim * (120 if precision == "fp32" else 60)
    room: float = CPU_ACTIVATIONS
    if world.device.type == "cuda":
        # weights and the optimiser's state lie there; gradients and copies in bf16 come
        torch.cuda.empty_cache()
        later = 8 * shape.parameters / (world.size if sharded else 1)
        room = GPU_ACTIVATIONS * (torch.cuda.mem_get_info(world.device)[0] - later)
    most = max(1, int(room // context))
    return max(n for n in range(1, min(most, share) + 1) if share % n == 0)


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m recipes.lm.train``."""
    p = argparse.ArgumentParser(prog="python -m recipes.lm.train", description=__doc__.splitlines()[0])
    p.add_argument("--scale", default="lm-tiny", help=f"a name ({', '.join(scales.names())}) or a YAML file")
    p.add_argument(
        "--data",
        required=True,
        help="folder of text shards (parquet or jsonl(.gz|.zst) with id and text), of token shards "
        "(tokens.json), or of tars with a manifest.jsonl",
    )
    p.add_argument("--out", required=True, help="folder of the run; an unfinished run there is resumed")
    options.add_shared(p)
    add_own(p)
    return p


def add_own(p: Any) -> None:
    """The options of this trainer alone."""
    p.add_argument(
        "--allow-repeat", action="store_true", help="read tokens more than once where they are few"
    )
    p.add_argument("--compat", choices=("open_lm",), help="read the ids of tars as open_lm does")
    p.add_argument(
        "--parallel", choices=("auto", "none", "ddp", "fsdp"), default="auto", help="weights whole or sharded"
    )


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The parsed options as a command line again: for the processes of ``torchrun``."""
    return options.words(args, ("compat", "parallel"), ("allow_repeat",))


def run(scale: str | Path | scales.Scale, data_dir: Any, out: Any, args: argparse.Namespace) -> TrainResult:
    """:func:`train`, here or on Ray, with the options of :func:`parser`."""
    settings: dict[str, Any] = {
        **options.settings(args),
        "allow_repeat": args.allow_repeat,
        "compat": args.compat,
        "machine": Machine(args.device, args.threads, args.parallel, args.micro_batch, args.compile),
    }
    if args.on == "ray":
        from recipes.lm.on_ray import train_on_ray

        return train_on_ray(args.processes, scale, data_dir, out, args.seed, **settings)
    return train(scale, data_dir, out, args.seed, **settings)


def main(argv: list[str] | None = None) -> int:
    from recipes.lm.tokens import TokensError

    args = parser().parse_args(argv)
    errors = (TrainingError, TokensError, data.DataError, scales.ScaleError, OSError)
    return options.carry_out(lambda: run(args.scale, args.data, args.out, args), errors, "tokens")


if __name__ == "__main__":
    from recipes.training.world import leave

    leave(main())
