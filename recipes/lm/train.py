"""Train a language model of a scale on a folder of shards, with an exact budget.

    python -m recipes.lm.train --scale lm-tiny --data out/ --out models/rules-0 --seed 0

Steps, samples and tokens are those of the scale, whatever the data, the machine or the number of times the
run was stopped. On one CPU thread the result is the same to the last bit each time; a run that was killed
goes on from its last checkpoint with the losses it would have had.

What a run leaves in its folder: ``model.safetensors``, ``config.json`` (scale, shape, seed),
``tokenizer.json``, ``log.jsonl`` (one line a step) and ``result.json`` (:class:`TrainResult`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes import scale as scales
from recipes.lm import data
from recipes.lm.budget import Budget

if TYPE_CHECKING:
    import torch

    from recipes.lm.model import Decoder
    from recipes.lm.optimizer import AdamW

RESULT, CONFIG, MODEL, LOG = "result.json", "config.json", "model.safetensors", "log.jsonl"
CHECKPOINT = "checkpoint"


class TrainingError(RuntimeError):
    """A run that cannot start, go on or end well; the message says why and what to do."""


@dataclass(frozen=True)
class TrainResult:
    """What was trained, on what, and what it cost. ``tokens`` are predicted tokens: steps × batch × T."""

    model: str
    scale: str
    scale_hash: str
    seed: int
    steps: int
    tokens: int
    parameters: int
    seconds: float
    """Wall clock of the training itself, over all attempts of the run."""
    final_loss: float
    """Mean cross-entropy (nats per token) of the last 5 % of the steps."""
    data: str
    data_rows: int
    data_bytes: int
    data_fingerprint: str
    epochs: float
    """How often the text was read."""


def train(
    scale: str | Path | scales.Scale,
    shards_dir: str | Path,
    out_dir: str | Path,
    seed: int = 0,
    *,
    threads: int = 1,
    print_every: int = 1,
    checkpoint_every: int | None = None,
    restart: bool = False,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train ``scale`` on the shards of ``shards_dir``; goes on where an earlier attempt stopped.

    ``seed`` decides the initial weights and the order of the text. ``print_every`` prints every n-th step
    (0 = silent). ``checkpoint_every`` is in steps (default: a fifth of the run); it has no influence on the
    result. ``restart`` forgets what ``out_dir`` holds. ``on_step`` gets each step's log record.

    Raises TrainingError when ``out_dir`` holds another run, or on a loss that is not finite (the rows of the
    batch are then in ``bad_batch.json``); DataError when the shards cannot be read.
    """
    scale = scales.load(scale)
    if scale.track != "text":
        raise TrainingError(f"scale {scale.name!r} is of track {scale.track!r}; this trainer does text")
    with _cpu_threads(threads):
        return _train(
            scale, Path(shards_dir), Path(out_dir), seed, print_every, checkpoint_every, restart, on_step
        )


def _train(
    scale: scales.Scale,
    shards: Path,
    out: Path,
    seed: int,
    print_every: int,
    checkpoint_every: int | None,
    restart: bool,
    on_step: Callable[[dict[str, Any]], None] | None,
) -> TrainResult:
    import torch

    from recipes.lm.model import Decoder, Shape
    from recipes.lm.optimizer import AdamW

    shape, budget = scale.section("model", Shape), scale.section("train", Budget)
    tokenizer = data.load_tokenizer(budget.tokenizer)
    if tokenizer.get_vocab_size() > shape.vocab:
        have = tokenizer.get_vocab_size()
        raise TrainingError(
            f"tokenizer {budget.tokenizer!r} has {have} entries, the model only {shape.vocab}"
        )
    if restart and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    corpus = data.read_corpus(shards)
    identity = {"scale": scale.to_dict(), "scale_hash": scale.hash, "seed": seed, "data": corpus.fingerprint}
    finished = _begin(out, identity)
    if finished:
        return finished
    shutil.copyfile(data.tokenizer_file(budget.tokenizer), out / "tokenizer.json")

    model = Decoder(shape, seed)
    optimizer = AdamW(list(model.parameters()), budget.betas, budget.eps, budget.weight_decay)
    first, position, spent = _load_checkpoint(out, model, optimizer)
    contexts = data.Contexts(
        corpus, tokenizer, shape.context, seed=seed, piece_bytes=budget.piece_bytes, start=position
    )
    checkpoint_every = checkpoint_every or max(1, budget.steps // 5)
    tokens_a_step = budget.batch * shape.context
    records = _truncated_log(out / LOG, first)
    if print_every:
        where = f"from step {first}" if first else f"seed {seed}"
        print(
            f"{scale.name} {scale.hash} | {shape.parameters:,} parameters | {budget.steps} steps × "
            f"{tokens_a_step} tokens | {corpus.rows:,} rows, {corpus.bytes / 1e6:.1f} MB of text | {where}"
        )
    start = time.perf_counter()
    with open(out / LOG, "a", encoding="utf-8") as log:
        for step in range(first, budget.steps):
            began = time.perf_counter()
            batch, row_ids = contexts.take(budget.batch)
            lr = budget.lr_at(step)
            loss, norm = _update(model, optimizer, torch.from_numpy(batch), lr, budget)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                _report_bad_batch(out, step, loss, norm, row_ids, batch)
            now = time.perf_counter()
            record = {
                "step": step + 1,
                "loss": loss,
                "lr": lr,
                "grad_norm": norm,
                "tokens": (step + 1) * tokens_a_step,
                "seconds": round(now - began, 6),
            }
            records.append(record)
            log.write(json.dumps(record) + "\n")
            if on_step:
                on_step(record)
            if print_every and ((step + 1) % print_every == 0 or step + 1 == budget.steps):
                rate = (step + 1 - first) / (now - start)
                print(_progress(record, budget.steps, rate, tokens_a_step), flush=True)
            if (step + 1) % checkpoint_every == 0 and step + 1 < budget.steps:
                log.flush()
                os.fsync(log.fileno())
                _save_checkpoint(out, model, optimizer, step + 1, contexts.position, spent + now - start)
    tail = [r["loss"] for r in records[-max(1, budget.steps // 20) :]]
    result = TrainResult(
        model=str(out),
        scale=scale.name,
        scale_hash=scale.hash,
        seed=seed,
        steps=budget.steps,
        tokens=budget.steps * tokens_a_step,
        parameters=shape.parameters,
        seconds=round(spent + time.perf_counter() - start, 3),
        final_loss=sum(tail) / len(tail),
        data=str(shards),
        data_rows=corpus.rows,
        data_bytes=corpus.bytes,
        data_fingerprint=corpus.fingerprint,
        epochs=contexts.epochs,
    )
    _save_tensors(out / MODEL, model.state_dict(), tied=shape.tied)
    _write_json(out / RESULT, asdict(result))  # last: its presence says that the run is whole
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    return result


def _update(
    model: Decoder, optimizer: AdamW, batch: torch.Tensor, lr: float, budget: Budget
) -> tuple[float, float]:
    """One optimiser step; (cross-entropy in nats per token, gradient norm before clipping)."""
    from recipes.lm.optimizer import clip_gradients

    objective, cross_entropy = model.loss(batch, budget.z_loss)
    objective.backward()
    norm = clip_gradients(optimizer.parameters, budget.clip)
    if math.isfinite(norm):  # a step on such a gradient would ruin the weights that the report is about
        optimizer.step(lr)
    return cross_entropy.item(), norm


def load_model(model_dir: str | Path) -> tuple[Decoder, Any, dict[str, Any]]:
    """A trained model, its tokenizer and its ``config.json``. Reads safetensors and JSON only."""
    from safetensors.torch import load_file

    from recipes.lm.model import Decoder, Shape

    folder = Path(model_dir)
    missing = [name for name in (CONFIG, MODEL, "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise TrainingError(f"{folder}: no {', '.join(missing)} here; is the training finished?")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    model = Decoder(scales.Scale.from_dict(config["scale"]).section("model", Shape))
    _load_state(model, load_file(folder / MODEL))
    return model.eval(), data.load_tokenizer(folder / "tokenizer.json"), config


def _begin(out: Path, identity: dict[str, Any]) -> TrainResult | None:
    """Claim the folder for this run; the stored result if the same run is already finished."""
    path = out / CONFIG
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        differs = [key for key in ("scale_hash", "seed", "data") if held.get(key) != identity[key]]
        if differs:
            what = "; ".join(f"{key} {held.get(key)}, now {identity[key]}" for key in differs)
            raise TrainingError(f"{out} holds another run ({what}); choose another folder or restart")
        if (out / RESULT).exists():
            return TrainResult(**json.loads((out / RESULT).read_text(encoding="utf-8")))
    else:
        _write_json(path, identity)
    return None


def _save_checkpoint(
    out: Path,
    model: Decoder,
    optimizer: AdamW,
    step: int,
    position: data.Position,
    seconds: float,
) -> None:
    """Model, optimiser, position and RNG; renamed into place, so the old one survives a crash."""
    import torch

    new, final = out / f"{CHECKPOINT}.new", out / CHECKPOINT
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"optimizer.{k}": v for k, v in optimizer.state().items()}
    tensors["rng"] = torch.get_rng_state()
    _save_tensors(new / "state.safetensors", tensors, tied=model.shape.tied, prefix="model.")
    _write_json(new / "state.json", {"step": step, "position": asdict(position), "seconds": seconds})
    old = out / f"{CHECKPOINT}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _load_checkpoint(out: Path, model: Decoder, optimizer: AdamW) -> tuple[int, data.Position, float]:
    """(steps done, position, seconds spent); zeros without a checkpoint."""
    import torch
    from safetensors.torch import load_file

    # Killed between the two renames: only the old one is there, and it is whole.
    folder = next((f for f in (out / CHECKPOINT, out / f"{CHECKPOINT}.old") if f.exists()), None)
    if folder is None:
        return 0, data.Position(), 0.0
    meta = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "state.safetensors")
    _load_state(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    optimizer.load_state(
        {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    )
    torch.set_rng_state(tensors["rng"])
    return meta["step"], data.Position(**meta["position"]), meta["seconds"]


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor], *, tied: bool, prefix: str = "") -> None:
    """safetensors refuses two names for one memory, so a tied head is stored once."""
    from safetensors.torch import save_file

    kept = {k: v.contiguous() for k, v in tensors.items() if not (tied and k == f"{prefix}head.weight")}
    partial = path.with_name(path.name + ".partial")
    save_file(kept, partial)
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _load_state(model: Decoder, tensors: dict[str, torch.Tensor]) -> None:
    if model.shape.tied:
        tensors = {**tensors, "head.weight": tensors["embedding.weight"]}
    model.load_state_dict(tensors)


def _truncated_log(path: Path, steps: int) -> list[dict[str, Any]]:
    """The records of the first ``steps`` steps; later ones, of an attempt that died, are cut off."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()[:steps]
    if len(lines) < steps:
        raise TrainingError(
            f"{path} has {len(lines)} lines, but the checkpoint is at step {steps}; restart the run"
        )
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)
    return [json.loads(line) for line in lines]


def _report_bad_batch(out: Path, step: int, loss: float, norm: float, row_ids: list[str], batch: Any) -> None:
    path = out / "bad_batch.json"
    _write_json(
        path,
        {
            "step": step + 1,
            "loss": repr(loss),
            "grad_norm": repr(norm),
            "ids": row_ids,
            "tokens": batch.tolist(),
        },
    )
    raise TrainingError(
        f"step {step + 1}: loss {loss}, gradient norm {norm}; training stopped. The {len(row_ids)} rows of "
        f"the batch are named in {path}. Look at them, or lower the learning rate"
    )


def _progress(record: dict[str, Any], steps: int, steps_a_second: float, tokens_a_step: int) -> str:
    left = round((steps - record["step"]) / steps_a_second)
    return (
        f"step {record['step']:>{len(str(steps))}}/{steps}  loss {record['loss']:.3f}  "
        f"lr {record['lr']:.2e}  {steps_a_second * tokens_a_step / 1e3:.1f}k tokens/s  "
        f"eta {left // 60}:{left % 60:02d}"
    )


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _cpu_threads(n: int):
    """Run with ``n`` CPU threads, then restore. With one, results are the same to the last bit."""
    import torch

    before = torch.get_num_threads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if n == 1 else "true")
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m recipes.lm.train", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale", default="lm-tiny", help=f"a name ({', '.join(scales.names())}) or a YAML file"
    )
    parser.add_argument(
        "--data", required=True, help="folder of shards: parquet or jsonl(.gz|.zst) with id and text"
    )
    parser.add_argument("--out", required=True, help="folder of the run; an unfinished run there is resumed")
    parser.add_argument("--seed", type=int, default=0, help="decides weights and order (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; only 1 repeats to the last bit")
    parser.add_argument(
        "--print-every", type=int, default=1, metavar="N", help="print every N-th step; 0 = none"
    )
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps (default: a fifth of the run)"
    )
    parser.add_argument("--restart", action="store_true", help="forget what the folder of the run holds")
    args = parser.parse_args(argv)
    try:
        result = train(
            args.scale,
            args.data,
            args.out,
            args.seed,
            threads=args.threads,
            print_every=args.print_every,
            checkpoint_every=args.checkpoint_every,
            restart=args.restart,
        )
    except (TrainingError, data.DataError, scales.ScaleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{result.tokens:,} tokens in {result.seconds:.1f} s, {result.epochs:.2f} epochs, "
        f"loss {result.final_loss:.3f} -> {result.model}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
