"""A trainer on a Ray cluster: Ray Train starts the processes and joins them, the rest is the same run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recipes import scale as scales
from recipes.training.run_folder import TrainingError


def run_on_ray(
    train: Callable[..., Any],
    workers: int,
    scale: Any,
    data: Any,
    out: str | Path,
    seed: int | None,
    settings: Mapping[str, Any],
) -> Path:
    """``train(scale, data, out, seed, **settings)`` in ``workers`` processes of a Ray cluster: the one that
    RAY_ADDRESS names, or one started here. The folder of the run.

    One GPU each where the cluster has any, unless ``settings["machine"]`` says cpu. ``out``, and ``data``
    unless it is a URL, must be places that every node sees. Raises TrainingError when Ray Train is not
    installed or a worker failed.
    """
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise TrainingError(f"--on ray needs Ray Train: pip install 'ray[train]' ({error})") from error
    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS decides whether to join a cluster
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers + 1, "include_dashboard": False}
        ray.init(log_to_driver=True, configure_logging=False, **here)
    folder = Path(out).resolve()
    files = folder.with_name(f".{folder.name}-ray")  # what Ray Train itself wants to keep
    try:
        device = settings["machine"].device if settings.get("machine") else None
        gpus = device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "train": train,
                "arguments": (scales.load(scale), absolute(data), str(folder), seed),
                "settings": dict(settings),
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(name=folder.name, storage_path=str(files)),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise TrainingError(_reason(error)) from error
        return folder
    finally:
        shutil.rmtree(files, ignore_errors=True)
        if started:
            ray.shutdown()


def _worker(config: dict[str, Any]) -> None:
    config["train"](*config["arguments"], **config["settings"])


def absolute(data: Any) -> Any:
    """Places as workers find them, who do not run in this process's folder; URLs as they are."""
    if isinstance(data, list | tuple):
        return [absolute(place) for place in data]
    return data if "://" in str(data) else str(Path(data).resolve())


def _reason(error: BaseException) -> str:
    """What the first worker to fail said, without the way it came."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    rank, failure = next(iter(sorted(failures.items())))
    lines = [line for line in str(failure).splitlines() if line.strip()]
    said = lines[-1].removeprefix(f"{TrainingError.__module__}.{TrainingError.__name__}: ")
    return f"worker {rank}: {said}"
