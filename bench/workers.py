"""Two workers against one, and against what the machine itself allows: two processes that share nothing.

    python bench/workers.py                          # the embedded WARC pool, three rounds
    python bench/workers.py --copies 4 --rounds 5    # longer runs, steadier numbers

The plan is the recipe text/dclm_baseline without what looks at the whole pool. Each run is a process of its
own and is timed from the first step to the report, so two workers pay for their own start. `apart` gives each
half of the shards to a process with one worker, both at once: where that is less than twice as fast as one,
cores are shared (hyper-threads, neighbours, memory) and no scheduler could do better. The best of the rounds
counts; the target is a ratio of 1.8, or nine tenths of `apart` on a machine that does not allow 1.8. CPU
seconds (the least of the rounds, workers and extraction children included) say what the second worker costs
also where neighbours make the clock useless; `busy` is the share of their time that workers had a shard in
hand (the rest is their start and waiting for the driver).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TARGET = 1.8
QUIET = 0.5  # load average of others, below which the machine counts as quiet


def plan_of(pool: str, out: str) -> list[Any]:
    """text/dclm_baseline without barriers."""
    import baselines
    from curation.plan import flatten, kind_of

    steps = flatten(baselines.find("text/dclm_baseline").plan(pool=pool, out=out))
    return [step for step in steps if kind_of(step) != "barrier"]


def spread(copies: int, folder: Path) -> tuple[Path, list[Path]]:
    """A folder with so many copies of the pool's eight shards, and two with half of the shards each."""
    from pools import demo_text

    whole, halves = folder / "whole", [folder / "half-0", folder / "half-1"]
    for place in (whole, *halves):
        place.mkdir()
    shards = sorted(demo_text.unpack(shards=8).iterdir())
    for copy in range(copies):
        for number, shard in enumerate(shards):
            name = f"{copy}-{shard.name}"
            (whole / name).symlink_to(shard)
            (halves[number % 2] / name).symlink_to(shard)
    return whole, halves


def start(pool: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", str(pool), str(out), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a run says of itself, and the CPU seconds of it and of all it started."""
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"a run ended with status {process.returncode}")
    return json.loads(said.splitlines()[-1]) | {"cpu": used.ru_utime + used.ru_stime}


def child(pool: str, out: str, workers: int) -> None:
    import curation as c

    result = c.run(plan_of(pool, out), workers=workers, progress=False, funnel=False, error_budget=1.0)
    records = Path(out, "_winnow", "done").rglob("*.json")
    busy = sum(json.loads(record.read_bytes())["seconds"] for record in records)
    told = {"seconds": result.seconds, "rows": result.rows_in, "kept": result.rows_out}
    print(json.dumps(told | {"busy": busy / (workers * result.seconds)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=2, help="of the pool, one after the other")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1], int(options.child[2]))
        return
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.2f} before the first run")
    if load > QUIET:
        print("the machine is not quiet: others take part of its cores, and the ratios are too low")
    times: dict[str, list[float]] = {"one worker": [], "two workers": [], "apart": []}
    cpu: dict[str, list[float]] = {name: [] for name in times}
    busy: dict[str, list[float]] = {name: [] for name in times}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, halves = spread(options.copies, folder)
        finish(start(halves[0], folder / "warm", 1))  # compiles kernels, fills the page cache
        for number in range(options.rounds):
            one = finish(start(whole, folder / f"one-{number}", 1))
            two = finish(start(whole, folder / f"two-{number}", 2))
            both = [start(half, folder / f"apart-{number}-{half.name}", 1) for half in halves]
            apart = [finish(process) for process in both]
            if not one["rows"] == two["rows"] == sum(half["rows"] for half in apart):
                sys.exit("the runs did not read the same pages")
            for name, runs in zip(times, ([one], [two], apart), strict=True):
                times[name].append(max(run["seconds"] for run in runs))
                cpu[name].append(sum(run["cpu"] for run in runs))
                busy[name].append(min(run["busy"] for run in runs))
    rows = one["rows"]
    print(f"{rows:,} pages, {one['kept']:,} kept; best of {options.rounds} rounds")
    print(f"{'':>12} {'seconds':>8} {'pages/s':>8} {'ratio':>6} {'CPU s':>6} {'busy':>5}   every round")
    best = {name: min(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        every = " ".join(f"{value:.1f}" for value in seconds)
        ratio = best["one worker"] / best[name]
        print(
            f"{name:>12} {best[name]:>8.1f} {rows / best[name]:>8.0f} {ratio:>6.2f} {min(cpu[name]):>6.1f} "
            f"{max(busy[name]):>5.0%}   {every}"
        )
    ratio, ceiling = (best["one worker"] / best[name] for name in ("two workers", "apart"))
    print(f"two workers: {ratio:.2f} of {TARGET} asked for, {ratio / ceiling:.0%} of what the machine allows")
    print(f"load average {os.getloadavg()[0]:.2f} after the last run (two of it are the bench's own)")


if __name__ == "__main__":
    main()
