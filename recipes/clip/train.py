"""Train a CLIP model of a scale with an exact budget on filtered pairs.

    python -m recipes.clip.train --scale clip-tiny --data out/data --out models/rules-0 --seed 0
    torchrun --nproc-per-node 8 -m recipes.clip.train --scale clip-medium --data shards/ --out models/rules
    python -m recipes.clip.train --on ray --processes 16 --scale clip-large --data shards/ --out models/rules

The same loop trains the small CPU model and open_clip's models. Steps = samples / batch, exactly, whatever
the data, the machine, the number of processes, micro-batches and loader workers, or the number of times the
run was stopped. What is seen at a step is a function of (data, scale, seed, step). On one CPU thread the
result is the same to the last bit each time, and a run that was killed goes on from its last checkpoint with
the losses it would have had.

What a run leaves in its folder: see ``recipes.clip.run_folder``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import scale as scales
from recipes.clip.run_folder import MODEL, RESULT, TrainResult, begin, stop_on_bad_batch
from recipes.clip.settings import SAMPLINGS, Settings, check_precision, learning_rate
from recipes.scale import Scale
from recipes.training import options
from recipes.training.run_folder import LOG, PAGE, TrainingError, truncated_log, write_json

if TYPE_CHECKING:
    from recipes.clip.engine import Engine
    from recipes.clip.stream import Batch
    from recipes.training.world import World

__all__ = ["Machine", "Settings", "TrainResult", "TrainingError", "learning_rate", "train"]

AHEAD = 2  # batches that are read while one is in use, beside a GPU


@dataclass(frozen=True)
class Machine:
    """How a run is carried out. Nothing here changes the maths of a scale, but for `precision`."""

    device: str | None = None
    """`cpu` or `cuda`; default: a GPU where there is one."""
    threads: int | None = None
    """CPU threads; default 1 on a CPU (only one repeats to the last bit), torch's own choice beside a GPU."""
    micro_batch: int | None = None
    """Pairs at a time; a process goes through its share of a batch in so many, twice, and the gradient is
    still that of the whole batch. Default: the share at once."""
    checkpoint_activations: bool = False
    """Keep few activations and compute the others again (open_clip's grad checkpointing)."""
    precision: str | None = None
    """`fp32` or `bf16`; default: the scale's. DataComp leaves it open; the result says which was used."""
    workers: int = 0
    """Processes that decode images, for each training process; no influence on what is seen."""
    compile: bool = False
    """torch.compile of both towers."""


def train(
    scale: str | Path | Scale,
    shards: Any,
    out: str | Path,
    seed: int = 0,
    *,
    quiet: bool = False,
    print_every: int = 1,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float = 30.0,
    restart: bool = False,
    subset: Any = None,
    weights: Any = None,
    allow_missing: bool = False,
    bad: str = "refuse",
    threads: int | None = None,
    device: str | None = None,
    machine: Machine | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train the model of `scale` on `shards`; goes on where an earlier attempt stopped.

    shards, subset, weights, allow_missing, bad: as `recipes.clip.stream.open_source` takes them (folder or
    files of WebDataset tars or parquet, a table, or Pairs; ids to keep; how often each is drawn; whether
    some of the ids may be missing; whether bad rows stop the run). seed: of the initial weights,
    the order and the views. quiet: no console; print_every: every n-th step. checkpoint_every: steps
    (default: the scale's number of checkpoints, evenly spread; 0: none), and there is one whenever the last
    is `checkpoint_minutes` old; neither has any influence on the result. restart: forget what `out` holds.
    threads, device: of `machine`, given apart. on_step gets each step's log record. Under `torchrun` every
    process calls this.

    Raises TrainingError when `out` holds another run, when the processes cannot share a batch, or on a loss
    that is not finite (the pairs of the batch are then in `bad_batch.json`); SamplingError when samples are
    no multiple of the batch; DataError when the data cannot be read.
    """
    scale = scales.load(scale)
    if scale.track != "image_text":
        raise TrainingError(f"scale {scale.name!r} is of track {scale.track!r}; this trainer does image_text")
    machine = machine or Machine()
    from recipes.training.world import cpu_threads, join
    from recipes.training.world import device as device_named

    where = device_named(device or machine.device)
    with cpu_threads(threads or machine.threads, where.type == "cpu"), join(where) as world, _own_random():
        chosen = {"subset": subset, "weights": weights, "allow_missing": allow_missing, "bad": bad}
        run = _Run(scale, shards, Path(out), seed, machine, world, chosen)
        every = 0 if quiet else print_every
        return run.go(every, checkpoint_every, checkpoint_minutes, restart, on_step)


class _Run:
    """One run, seen from one of its processes."""

    def __init__(
        self,
        scale: Scale,
        data: Any,
        out: Path,
        seed: int,
        machine: Machine,
        world: World,
        chosen: dict[str, Any],
    ) -> None:
        from recipes.clip.model import build
        from recipes.clip.stream import open_source

        self.scale, self.out, self.seed, self.machine, self.world = scale, out, seed, machine, world
        self.settings = scale.section("train", Settings)
        self.precision = machine.precision or self.settings.precision
        check_precision(self.precision)
        self.steps = self.settings.steps
        self.share = world.rows(self.settings.batch, "pairs")
        values = scale.to_dict()
        self.model = build(values["model"], values.get("pixels"), seed)
        self.source = open_source(
            data,
            self.model.pixels,
            self.model.tokenizer,
            self.settings,
            seed,
            workers=machine.workers,
            **chosen,
        )
        self.identity = {
            "scale_hash": scale.hash,
            "seed": seed,
            "data": self.source.fingerprint,
            "precision": self.precision,
        }

    def go(
        self,
        print_every: int,
        checkpoint_every: int | None,
        checkpoint_minutes: float,
        restart: bool,
        on_step: Callable[[dict[str, Any]], None] | None,
    ) -> TrainResult:
        out, world, settings, steps = self.out, self.world, self.settings, self.steps
        finished = world.on_main(lambda: self._claim(restart))
        if finished:
            return finished
        engine = self._engine()
        first, spent = self._resume(engine)
        last = max(1, steps // 20)
        tail = deque(
            world.on_main(lambda: [r["loss"] for r in truncated_log(out / LOG, first)][-last:]), last
        )
        if checkpoint_every is None:
            checkpoint_every = max(1, steps // settings.checkpoints)
        meter = self._meter()
        if print_every and world.main:
            print(self._title(first), file=sys.stderr, flush=True)
        start = saved = time.perf_counter()
        with (
            open(out / LOG, "a", 1, encoding="utf-8") if world.main else nullcontext() as log,
            closing(self._batches(first)) as batches,  # loader processes end with it, whatever happens
        ):
            for batch, waited in _timed(batches):
                step = batch.step
                lr = learning_rate(step, settings, steps)
                late = time.perf_counter() - saved > 60 * checkpoint_minutes
                done = engine.step(step, batch.pixels, batch.tokens, lr, late)
                if not done.finite:
                    ids = [i for part in world.gather(batch.ids) for i in part]
                    at = (step, lr, done.loss, done.grad_norm, ids)
                    world.on_main(lambda at=at: stop_on_bad_batch(out, *at))
                tail.append(done.loss)
                took = meter.tick()
                if world.main:
                    record = self._record(step, lr, done, engine, took, waited, meter)
                    log.write(json.dumps(record) + "\n")
                    if on_step:
                        on_step(record)
                    if print_every and ((step + 1) % print_every == 0 or step + 1 == steps):
                        print(meter.line(record), file=sys.stderr, flush=True)
                due = checkpoint_every and ((step + 1) % checkpoint_every == 0 or done.late)
                if due and step + 1 < steps:
                    if world.main:
                        log.flush()
                        os.fsync(log.fileno())
                    saved = time.perf_counter()
                    self._save(engine, batch, spent + saved - start)
        return self._finish(engine, sum(tail) / len(tail), spent + time.perf_counter() - start)

    def _claim(self, restart: bool) -> TrainResult | None:
        """Make the folder this run's own; the result, if it is finished already."""
        from recipes.training.checkpoint import refuse_full_disk

        if restart and self.out.exists():
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        scale = {"scale": self.scale.to_dict(), "sampling": self.source.sampling}
        finished = begin(self.out, {**self.identity, **scale})
        if finished is None:
            refuse_full_disk(self.out, sum(p.numel() for p in self.model.module.parameters()))
        return finished

    def _engine(self) -> Engine:
        from recipes.clip.engine import Engine
        from recipes.clip.model import checkpoint_towers

        machine = self.machine
        if machine.checkpoint_activations and not checkpoint_towers(self.model.module):
            raise TrainingError("this model cannot checkpoint activations; leave that out")
        return Engine(
            self.model.module,
            self.model.pixels,
            self.settings,
            self.world,
            self.seed,
            precision=self.precision,
            micro_batch=machine.micro_batch,
            compile=machine.compile,
        )

    def _resume(self, engine: Engine) -> tuple[int, float]:
        """Steps done and seconds spent by earlier attempts."""
        from recipes.training import checkpoint

        found = checkpoint.load(self.out, engine.state())
        if found is None:
            return 0, 0.0
        meta, tensors = found
        engine.load_state(tensors)
        return meta["step"], meta["seconds"]

    def _save(self, engine: Engine, batch: Batch, seconds: float) -> None:
        from recipes.training import checkpoint

        self._refuse_bad_weights(engine, batch.step)
        # There is no random state to keep: order, views and dropout are functions of (seed, step).
        meta = {"step": batch.step + 1, "position": batch.position, "seconds": seconds}
        checkpoint.save(self.out, engine.state(), meta, self.world)

    def _refuse_bad_weights(self, engine: Engine, step: int) -> None:
        """The loss of a step is finite, and its update may still not be: never keep that."""
        if not engine.weights_are_finite():
            raise TrainingError(
                f"step {step + 1}: the update left weights that are not finite; training stopped, and the "
                "last checkpoint is kept. Lower lr, lengthen warmup, or clip the gradient"
            )

    def _batches(self, first: int) -> Generator[Batch, None, None]:
        from recipes.training.ahead import ahead

        batches = self.source.batches(first, self.steps, self.share)
        return ahead(_pinned(batches), AHEAD) if self.world.gpu else (batch for batch in batches)

    def _meter(self) -> Any:
        from recipes.clip.progress import Meter

        flops = 0.0
        if self.world.gpu:
            from recipes.clip.plan import model_shape

            values = self.scale.to_dict()
            flops = model_shape(values["model"], values.get("pixels")).training_flops
        return Meter(self.settings.batch, self.steps, self.world.device, self.world.size, flops)

    def _record(
        self, step: int, lr: float, done: Any, engine: Engine, took: float, waited: float, meter: Any
    ) -> dict[str, Any]:
        record = {
            "step": step + 1,
            "samples": (step + 1) * self.settings.batch,
            "loss": done.loss,
            "lr": lr,
            "logit_scale": round(engine.module.logit_scale.exp().item(), 3),  # type: ignore[operator, union-attr]
            "samples_per_second": round(self.settings.batch / took, 1),
            "data_wait": round(waited / took, 3),
            "seconds": round(took, 6),
        }
        if done.grad_norm is not None:
            record["grad_norm"] = done.grad_norm
        if self.world.gpu:
            record["memory"] = meter.memory
        if meter.mfu is not None:
            record["mfu"] = round(meter.mfu, 4)
        return record

    def _title(self, first: int) -> str:
        batch = self.settings.batch
        return (
            f"{self.scale.name} {self.scale.hash} | {self.steps} steps × {batch} pairs | "
            f"{self.source.about} | {f'from step {first}' if first else f'seed {self.seed}'}\n{self._how()}"
        )

    def _how(self) -> str:
        """For people: what the run is carried out by."""
        import torch

        share, machine = self.share[1] - self.share[0], self.machine
        name = torch.cuda.get_device_name(self.world.device) if self.world.gpu else "CPU process"
        extras = [
            f"{min(machine.micro_batch or share, share)} at a time",
            *["activations checkpointed"] * machine.checkpoint_activations,
            *["compiled"] * machine.compile,
        ]
        return f"{self.world.size} × {name}, {self.precision}: {share} pairs each, {', '.join(extras)}"

    def _finish(self, engine: Engine, loss: float, seconds: float) -> TrainResult:
        self._refuse_bad_weights(engine, self.steps - 1)
        identity = self.identity
        result = TrainResult(
            model=self.out / MODEL,
            scale=self.scale.name,
            rows=self.source.rows,
            distinct_rows=self.source.distinct_rows,
            steps=self.steps,
            samples=self.settings.samples,
            epochs=self.settings.samples / self.source.rows,
            final_loss=loss,
            seconds=seconds,
            official=scales.is_official(self.scale),
            sampling=json.loads(json.dumps(self.source.sampling)),
            machine=self._how(),
            **identity,
        )
        self.world.on_main(lambda: self._write(result))
        return result

    def _write(self, result: TrainResult) -> None:
        from recipes.clip.loss_page import write_page
        from recipes.clip.model import save
        from recipes.training import checkpoint

        about = {"scale": self.scale.to_dict(), "scale_hash": self.scale.hash, "seed": self.seed}
        save(self.model, self.out / MODEL, about)
        write_page(self.out / PAGE, self.out / LOG, result)
        write_json(self.out / RESULT, result.to_dict())  # last: its presence says that the run is whole
        checkpoint.remove(self.out)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        begun = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - begun


def _pinned(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """In memory that a GPU copies from while it computes."""
    from dataclasses import replace

    for batch in batches:
        yield replace(batch, pixels=batch.pixels.pin_memory(), tokens=batch.tokens.pin_memory())


@contextmanager
def _own_random() -> Iterator[None]:
    """torch's generator as it was, afterwards."""
    import torch

    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m recipes.clip.train``."""
    p = argparse.ArgumentParser(prog="python -m recipes.clip.train", description=__doc__.splitlines()[0])
    p.add_argument(
        "--scale", default="clip-tiny", help=f"a name ({', '.join(scales.names())}) or a YAML file"
    )
    p.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="folder or files of tars or parquet; any fsspec URL",
    )
    p.add_argument("--out", required=True, help="folder of the run; an unfinished run there is resumed")
    options.add_shared(p)
    add_own(p)
    return p


def add_own(p: Any) -> None:
    """The options of this trainer alone."""
    p.add_argument("--subset", help="of a pool: a subset file of uids (u8,u8 .npy), with multiplicity")
    p.add_argument("--weights", help="how often each pair is drawn, for sampling: weighted")
    p.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        help="not the scale's, which makes it another scale; DataComp's is shards_with_replacement",
    )
    p.add_argument("--allow-missing", action="store_true", help="the subset may name pairs that are gone")
    p.add_argument("--bad", choices=("refuse", "skip"), default="refuse", help="rows that cannot be read")
    p.add_argument("--precision", choices=("fp32", "bf16"), help="default: the scale's; in the result")
    p.add_argument("--checkpoint-activations", action="store_true", help="less memory for more operations")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode, for each")


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The parsed options as a command line again: for the processes of ``torchrun``."""
    return options.words(
        args,
        ("subset", "weights", "sampling", "bad", "precision", "workers"),
        ("allow_missing", "checkpoint_activations"),
    )


def run(scale: str | Path | Scale, data: Any, out: str | Path, args: argparse.Namespace) -> TrainResult:
    """:func:`train`, here or on Ray, with the options of :func:`parser`."""
    settings: dict[str, Any] = {
        **options.settings(args),
        "subset": args.subset,
        "weights": args.weights,
        "allow_missing": args.allow_missing,
        "bad": args.bad,
        "machine": Machine(
            device=args.device,
            threads=args.threads,
            micro_batch=args.micro_batch,
            checkpoint_activations=args.checkpoint_activations,
            precision=args.precision,
            workers=args.workers,
            compile=bool(args.compile),
        ),
    }
    if args.sampling:
        scale = scales.load(scale).replace(train={"sampling": args.sampling})
    if args.on == "ray":
        return train_on_ray(args.processes, scale, data, out, args.seed or 0, **settings)
    return train(scale, data, out, args.seed or 0, **settings)


def train_on_ray(
    processes: int, scale: Any, data: Any, out: str | Path, seed: int = 0, **settings: Any
) -> TrainResult:
    """:func:`train` in so many processes: see :func:`recipes.training.on_ray.run_on_ray`."""
    from recipes.clip.run_folder import read_result
    from recipes.clip.train import train as by_name  # this module may be running as __main__
    from recipes.training.on_ray import absolute, run_on_ray

    for name in ("subset", "weights"):
        if isinstance(settings.get(name), str | Path):
            settings[name] = absolute(settings[name])
    return read_result(run_on_ray(by_name, processes, scale, data, out, seed, settings))


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    data = args.data[0] if len(args.data) == 1 else args.data
    errors = (TrainingError, ValueError, OSError)
    return options.carry_out(lambda: run(args.scale, data, args.out, args), errors, "samples")


if __name__ == "__main__":
    from recipes.training.world import leave

    leave(main())
