"""What each process of the two-process test does: ``torchrun --nproc-per-node 2 THIS SCALE TOKENS OUT``."""

import os
import sys

import torch.distributed as dist

from recipes.lm.train import Machine, train


def main(scale: str, tokens: str, out: str) -> None:
    dist.init_process_group("gloo")
    pids: list[int] = [0, 0]
    dist.all_gather_object(pids, os.getpid())
    main_process = dist.get_rank() == 0
    if main_process:  # one of them prints, so that lines stay whole
        print("pids", *pids, flush=True)
    for name, parallel in (("ddp", "ddp"), ("fsdp", "fsdp"), ("killed", "fsdp")):
        machine = Machine(device="cpu", parallel=parallel, micro_batch=2)
        if main_process:
            print(f"run {name}", flush=True)
        train(scale, tokens, f"{out}/{name}", 1, checkpoint_every=4, machine=machine)


if __name__ == "__main__":
    main(*sys.argv[1:])
