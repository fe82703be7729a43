"""The child process for extraction: deadlines, exceptions, crashes, memory, and its end with its worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.text import child

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def ask(name: str, page: bytes = b"page", deadline: float = 20, memory: int = GIB) -> str:
    return child.extract(f"child_extractors.hostile:{name}", page, None, deadline, memory)[0].decode()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int, within: float) -> bool:
    """Waits for the process to end, by the kernel's own notice."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within)[0])
    finally:
        os.close(handle)


def test_one_child_serves_page_after_page():
    assert ask("good") == "PAGE"
    first = child.pid()
    assert ask("pid") == str(first)
    assert child.extract("resiliparse", "<p>Grüße".encode("cp1252"), "latin1", 5, GIB) == (
        "Grüße".encode(),
        "windows-1252",
    )
    assert child.extract("resiliparse", b"<p>as it is", None, 5, GIB, html=False) == (b"<p>as it is", "ascii")
    assert child.pid() == first
    assert ask("none") == ""
    assert ask("surrogates") == "a\ufffdbc"


def test_an_exception_comes_back_at_once_and_the_child_stays():
    ask("good")
    before, started = child.pid(), time.monotonic()
    for _ in range(40):  # datatrove's sandbox waits out its time limit for each
        with pytest.raises(
            child.ExtractorError, match=r"^child_extractors\.hostile:raises: KeyError: 'no such"
        ):
            ask("raises", deadline=60)
    assert time.monotonic() - started < 30
    assert child.pid() == before
    with pytest.raises(child.ExtractorError, match="SystemExit: bye"):
        ask("exits")
    assert ask("good") == "PAGE"


@pytest.mark.parametrize("name", ["spins", "spins_in_c"])
def test_a_page_past_its_deadline_ends_the_child_and_only_it(name):
    ask("good")
    before = child.pid()
    expected = f"deadline of 0.2 s: child_extractors.hostile:{name} was ended on this page of 4 bytes"
    with pytest.raises(child.DeadlineError, match=re.escape(expected)):
        ask(name, deadline=0.2)
    assert gone(before, 5)
    assert ask("good") == "PAGE"
    assert child.pid() != before


def test_a_page_that_sleeps_is_ended_by_the_clock():
    started = time.monotonic()
    with pytest.raises(child.DeadlineError, match="10 times that went by"):
        ask("sleeps", deadline=0.05)
    assert time.monotonic() - started < 30


def test_a_child_that_is_stopped_does_not_hang_its_worker(monkeypatch):
    monkeypatch.setattr(child, "_IMPORT_SECONDS", 0.2)
    ask("good")
    before = child.pid()
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(child.DeadlineError, match="no answer came"):
        ask("good", deadline=0.01)
    assert gone(before, 5)


def test_a_crash_is_the_pages_and_says_how():
    with pytest.raises(child.ChildDiedError, match="child process died of SIGSEGV on this page of 4 bytes"):
        ask("crashes")
    assert ask("good") == "PAGE"


def test_memory_is_limited_for_each_page():
    with pytest.raises(child.ExtractorError, match="MemoryError: the page needs more than 200 MiB"):
        ask("grows", b"400000000", memory=200 << 20)
    assert ask("good", memory=200 << 20) == "PAGE"


def test_a_child_that_has_grown_is_replaced():
    pids = {ask("grows", b"300000000", memory=2 * GIB) for _ in range(3)}
    last = ask("pid")
    assert len(pids) == 1 and last not in pids  # the third page took it past the size that it retires at


def test_what_an_extractor_prints_does_not_reach_the_pipe():
    assert ask("prints") == "printed"
    assert ask("good") == "PAGE"


def test_a_child_that_died_between_two_pages_costs_no_page():
    ask("good")
    before = child.pid()
    os.kill(before, signal.SIGKILL)
    assert gone(before, 5)
    assert ask("good") == "PAGE"


def test_a_large_page_goes_there_and_back():
    page = b"word " * 2_000_000
    assert child.extract("resiliparse", page, None, 30, 2 * GIB, html=False)[0] == page


def test_threads_take_turns():
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ask("good", f"page {n}".encode())))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [f"PAGE {n}" for n in range(8)]


def _ask_pid(queue) -> None:
    queue.put((os.getpid(), child.pid(), ask("pid")))


def test_a_fork_gets_its_own_child_and_leaves_that_of_its_parent():
    ours = ask("pid")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_ask_pid, args=(queue,))
    worker.start()
    forked, inherited, theirs = queue.get(timeout=60)
    worker.join(60)
    assert forked == worker.pid and inherited is None and theirs != ours
    assert gone(int(theirs), 15)
    assert ask("pid") == ours


WORKER = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from filters.text import child
child.extract("child_extractors.hostile:good", b"page", None, 20, 1 << 30)
print(child.pid(), flush=True)
{then}
"""


@pytest.mark.parametrize(
    "then",
    ["sys.stdin.read()", "child.extract('child_extractors.hostile:spins', b'', None, 2, 1 << 30)"],
    ids=["idle", "in the middle of a page"],
)
def test_a_worker_that_is_killed_leaves_no_orphan(then):
    code = WORKER.format(root=str(ROOT), tests=str(Path(__file__).parent), then=then)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        orphan = int(worker.stdout.readline())
        assert alive(orphan)
        worker.kill()
        worker.wait()
        assert gone(orphan, 30)


def test_a_worker_that_ends_takes_its_child_along():
    code = WORKER.format(root=str(ROOT), tests=str(Path(__file__).parent), then="")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert gone(int(done.stdout), 10)


@pytest.mark.parametrize("on", ["local", "ray"])
def test_in_worker_processes_of_either_executor(on, tmp_path, request):
    pytest.importorskip("trafilatura")
    if on == "ray":
        request.getfixturevalue("ray_session")
    import curation as c
    from filters.text.extract import Extract

    page = "<html><body><article><p>" + "The keeper wrote to his sister of the storm. " * 9 + "</p></article>"
    (tmp_path / "pool").mkdir()
    for shard in range(3):
        table = {
            "id": [f"{shard}-{i}" for i in range(4)],
            "content": pa.array([page.encode()] * 4, pa.binary()),
            "http_charset": pa.array([None] * 4, pa.string()),
            "content_type": ["text/html"] * 4,
        }
        pq.write_table(pa.table(table), tmp_path / "pool" / f"{shard}.parquet")
    plan = [c.read(str(tmp_path / "pool")), Extract(extractor="trafilatura"), c.write(str(tmp_path / "out"))]
    report = c.run(plan, on=on, workers=2).report
    assert (report["output"]["rows"], report["quarantined"]["rows"]) == (12, 0)


def test_the_child_of_a_large_worker_does_not_retire_at_every_page():
    """getrusage's peak is inherited by what a process starts."""
    script = """
import numpy as np
from filters.text import child
ballast = np.ones(1 << 27)  # 1 GB, touched
pids = set()
for _ in range(3):
    child.extract("resiliparse", b"<p>text</p>", None, 10.0, 2 << 30)
    pids.add(child.pid())
print(len(pids), None in pids)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "False"], done.stdout + done.stderr
