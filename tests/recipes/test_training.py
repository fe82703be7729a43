"""What both trainers share: reading ahead, claims, checkpoints, processes that end, statistics over all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.training import checkpoint
from recipes.training.ahead import ahead
from recipes.training.run_folder import TrainingError, claim, truncated_log
from recipes.training.world import World, join, leave

ROOT = Path(__file__).parents[2]
ALONE = World(torch.device("cpu"))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_reading_ahead_changes_neither_order_nor_errors(depth: int) -> None:
    taken = []

    def items(n: int, fails: bool = False):
        for i in range(n):
            taken.append(i)
            yield i
        if fails:
            raise OSError("the disk is gone")

    assert list(ahead(items(7), depth)) == list(range(7))
    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in ahead(items(4, fails=True), depth):
            got.append(item)
    assert got == [0, 1, 2, 3]
    taken.clear()
    reader = ahead(items(100), depth)
    next(reader)
    reader.close()  # and nothing is left to wait for
    assert len(taken) <= 2 + depth


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    claim(tmp_path / "run.json", {"seed": 1, "data": "a", "note": "x"}, ("seed", "data"))
    claim(tmp_path / "run.json", {"seed": 1, "data": "a", "note": "y"}, ("seed", "data"))
    with pytest.raises(TrainingError, match=r"another run \(seed 1, now 2; data a, now b\); choose another"):
        claim(tmp_path / "run.json", {"seed": 2, "data": "b"}, ("seed", "data"))
    assert json.loads((tmp_path / "run.json").read_text())["note"] == "x"


def test_a_log_is_cut_at_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"ste')  # killed in the middle of a line
    assert truncated_log(log, 2) == [{"step": 1}, {"step": 2}]
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
    with pytest.raises(TrainingError, match="2 lines, but the checkpoint is at step 3"):
        truncated_log(log, 3)


def test_a_checkpoint_is_found_whole_wherever_the_writer_was_killed(tmp_path: Path) -> None:
    def state(value: float) -> dict[str, torch.Tensor]:
        return {"w": torch.full((3,), value), "mask": torch.tensor([True, False]), "n": torch.tensor(7)}

    assert checkpoint.load(tmp_path, {}) is None
    checkpoint.save(tmp_path, state(1.0), {"step": 1}, ALONE)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")  # between the two renames
    (tmp_path / "checkpoint.new").mkdir()
    (tmp_path / "checkpoint.new" / "state.safetensors").write_bytes(b"half")
    target = {"w": torch.zeros(3)}
    meta, others = checkpoint.load(tmp_path, target)
    assert meta == {"step": 1} and target["w"].tolist() == [1, 1, 1]
    assert others["mask"].tolist() == [True, False] and others["n"] == 7
    checkpoint.save(tmp_path, state(2.0), {"step": 2}, ALONE)
    assert checkpoint.load(tmp_path, target)[0] == {"step": 2} and target["w"][0] == 2
    checkpoint.remove(tmp_path)
    assert not list(tmp_path.iterdir())


def test_values_of_one_process() -> None:
    assert ALONE.gather("x") == ["x"] and ALONE.on_main(lambda: 3) == 3
    assert ALONE.sum(torch.ones(2)).tolist() == [1, 1]


def test_one_process_leaves_as_python_does(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit) as ended:
        leave(3)
    assert ended.value.code == 3


SCRIPT = """
import gc, os, sys, torch
from recipes.training.world import device, join, leave
with join(device("cpu")) as world:
    from torch.nn.parallel import DistributedDataParallel
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    assert world.gather(world.rank) == [0, 1]
    del model
gc.collect()
print("threads", [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")])
print("not flushed", end="")
leave(4)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed in /proc on Linux only")
def test_no_thread_of_the_process_group_outlives_it() -> None:
    """One that did ended a well-trained process by SIGABRT, at exit, about once in ten runs."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.getsockname()[1]), "WORLD_SIZE": "2"}
    env = os.environ | address | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            env=env | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 4 and out.endswith("not flushed"), err
        assert "threads" in out and "gloo" not in out


def test_batch_statistics_over_all_processes_are_those_of_torch() -> None:
    import torch.distributed as dist

    from recipes.clip.batch_norm import GlobalBatchNorm, over_all_processes

    torch.manual_seed(0)
    theirs, ours = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
    for layer in (theirs[0], ours[0]):
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        over_all_processes(ours)
        assert isinstance(ours[0], GlobalBatchNorm)
        for _ in range(3):
            x = torch.randn(4, 3, 5, 5) * 3 + 1
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            y, z = theirs(a), ours(b)
            (y.square() * y).sum().backward()
            (z.square() * z).sum().backward()
            torch.testing.assert_close(z, y)
            torch.testing.assert_close(b.grad, a.grad, atol=1e-4, rtol=1e-4)
    finally:
        dist.destroy_process_group()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_world_of_one_makes_no_process_group(monkeypatch) -> None:
    import torch.distributed as dist

    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    with join(torch.device("cpu")) as world:
        assert (world.size, world.main, dist.is_initialized()) == (1, True, False)
