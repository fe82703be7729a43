"""What each process of the two-process test does: ``torchrun --nproc-per-node 2 THIS SCALES PAIRS OUT``."""

import os
import sys

import torch.distributed as dist
from torch.distributed import nn  # noqa: F401 - before there is a group, see recipes.training.world.join

from recipes.clip.train import Machine, TrainingError, train
from recipes.training.world import leave


def main(scales: str, pairs: str, out: str) -> None:
    dist.init_process_group("gloo")
    pids: list[int] = [0, 0]
    dist.all_gather_object(pids, os.getpid())
    main_process = dist.get_rank() == 0
    if main_process:  # one of them prints, so that lines stay whole
        print("pids", *pids, file=sys.stderr, flush=True)
    for name in ("small", "vit", "micro", "sick", "killed"):
        if main_process:
            print(f"run {name}", file=sys.stderr, flush=True)
        scale = f"{scales}/{name if name in ('small', 'sick') else 'vit'}.yaml"
        machine = Machine(device="cpu", micro_batch=3 if name == "micro" else None)
        try:
            train(scale, pairs, f"{out}/{name}", 1, checkpoint_every=4, machine=machine)
        except TrainingError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave(0)
