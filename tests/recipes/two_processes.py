"""Two processes of a trainer, watched from outside and killed in the middle of their last run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def killed_at(command: list[str], step: int) -> list[str]:
    """Run a command that prints ``pids A B``, ``run NAME`` and steps; kill both processes by SIGKILL once the
    run called ``killed`` prints this step. Returns the lines said until then."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    pids, run, said = [], "", []
    for line in both.stdout:
        said.append(line)
        pids = [int(pid) for pid in line.split()[1:]] if line.startswith("pids") else pids
        run = line.split()[1] if line.startswith("run") else run
        if run == "killed" and line.startswith(f"step {step:>2}"):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            break
    both.communicate(timeout=60)
    assert len(pids) == 2 and run == "killed", "".join(said)
    return said
