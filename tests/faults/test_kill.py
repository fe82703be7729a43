"""kill -9 of a worker, and of the driver, at random moments: after resuming, the bytes are those of a run
that nobody disturbed, and nothing half-written is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import fingerprint, write_text_pool

SCRIPT = Path(__file__).with_name("workload.py")
MOMENTS = 20


def start(pool: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(SCRIPT), str(pool), str(out), "2"], stderr=subprocess.PIPE)


def workers_of(pid: int) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(pid).children() if p.is_running()]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    pool = write_text_pool(folder / "pool", shards=10, rows=120)
    began = time.monotonic()
    process = start(pool, folder / "out")
    assert process.wait() == 0, process.stderr.read().decode()
    return pool, fingerprint(folder / "out"), time.monotonic() - began


@pytest.mark.timeout(600)
def test_killed_at_twenty_random_moments_and_resumed(undisturbed, tmp_path):
    pool, expected, seconds = undisturbed
    assert len(expected) > 20
    rng = random.Random(20)
    hits, late = {"driver": 0, "worker": 0, "late": 0}, 0
    for moment in range(3 * MOMENTS):
        out = tmp_path / f"out-{moment}"
        victim = ("driver", "worker")[moment % 2]
        if hits[victim] == MOMENTS // 2:
            continue
        process = start(pool, out)
        time.sleep(rng.uniform(0.25, 0.95) * seconds)
        if victim == "driver":
            hits["driver" if process.poll() is None else "late"] += 1
            orphans = workers_of(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            _, alive = psutil.wait_procs(orphans, timeout=10)
            assert not alive, "workers outlived their driver"
            process = start(pool, out)
        else:
            while not (targets := workers_of(process.pid)) and process.poll() is None:
                time.sleep(0.005)  # not there yet
            if targets and process.poll() is None:
                os.kill(rng.choice(targets).pid, signal.SIGKILL)
                hits["worker"] += 1
            else:
                hits["late"] += 1
        assert process.wait() == 0, process.stderr.read().decode()
        assert fingerprint(out) == expected, f"moment {moment}: {victim}"
        assert not list(out.rglob(".tmp-*"))
        if hits["late"] > late:  # the machine is less busy than when the run was timed
            late, seconds = hits["late"], 0.8 * seconds
    assert hits["driver"] == hits["worker"] == MOMENTS // 2, hits


def test_a_worker_that_always_dies_fails_the_run_and_says_so(tmp_path):
    import curation as c

    pool = write_text_pool(tmp_path / "pool", shards=3, rows=30)
    here = os.getpid()

    @c.score
    def deadly(text: str) -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), 9)
        return 1

    with pytest.raises(c.RunFailed, match="died"):
        c.run([c.read(pool), deadly, c.write(tmp_path / "out")], workers=2, progress=False, funnel=False)
    assert not list((tmp_path / "out").glob("data/*"))
