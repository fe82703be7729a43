"""The driver's loop, against an executor made of lists: order, limits, retries, second copies."""

from types import SimpleNamespace

import pytest

from curation.driver import Options, TaskLoop
from curation.errors import RunFailed
from curation.executors import Reply


class Script:
    """Answers each attempt as `answers[key]` says, in the order of submission; remembers what happened."""

    def __init__(self, answers, slots=2):
        self.answers, self.slots = answers, slots
        self.submitted, self.waiting, self.most, self.abandoned = [], [], 0, 0

    def submit(self, function, arguments):
        key, attempt = arguments
        self.submitted.append(key)
        self.waiting.append((len(self.submitted) - 1, key, attempt))
        self.most = max(self.most, len(self.waiting))
        return len(self.submitted) - 1

    def wait(self, timeout):
        for place, (ticket, key, attempt) in enumerate(self.waiting):
            answer = self.answers.get(key, ["ok"])[min(attempt, len(self.answers.get(key, ["ok"]))) - 1]
            if answer == "silent":
                continue
            del self.waiting[place]
            value = {"key": key, "attempt": attempt, "rows_out": 1, "seconds": 0.0, "peak_memory_bytes": 1}
            return [Reply(ticket, answer, value if answer == "ok" else None, "it broke", f"File x, {key}")]
        return []

    def abandon(self):
        self.abandoned += 1


def loop(keys, script, **options):
    progress = SimpleNamespace(done=lambda *a: None, event=lambda *a, **k: None, tick=lambda *a: None)
    jobs = {key: (print, (key,)) for key in keys}
    return TaskLoop(script, jobs, Options(**options), progress).run(list(keys))


def test_tasks_start_in_the_given_order_with_a_bounded_number_in_flight():
    script = Script({})
    done = loop("abcdefgh", script)
    assert "".join(script.submitted) == "abcdefgh" and sorted(done) == list("abcdefgh")
    assert script.most == 4  # twice the slots


def test_a_lost_task_is_tried_again_up_to_three_times():
    assert loop("ab", Script({"a": ["lost", "lost", "ok"]}))["a"]["attempt"] == 3
    with pytest.raises(RunFailed, match="1 of 2 tasks are not done") as caught:
        loop("ab", Script({"a": ["lost"]}))
    assert list(caught.value.failures) == ["a"]


def test_a_task_that_raised_is_not_tried_again_and_the_others_go_on():
    script = Script({"a": ["failed"]})
    with pytest.raises(RunFailed) as caught:
        loop("abcd", script)
    assert script.submitted.count("a") == 1 and "d" in script.submitted
    assert caught.value.failures == {"a": "it broke"}


def test_the_same_fault_three_times_stops_the_run():
    script = Script({key: ["failed"] for key in "abcdefghij"})
    script.wait = _same_trace(script.wait)
    with pytest.raises(RunFailed) as caught:
        loop("abcdefghij", script)
    assert len(script.submitted) < 10
    assert "not started" in caught.value.failures["j"]


def _same_trace(wait):
    def patched(timeout):
        return [Reply(r.ticket, r.kind, r.value, r.error, "  File filter.py, line 3") for r in wait(timeout)]

    return patched


def test_a_straggler_gets_a_second_copy_and_the_first_answer_counts():
    script = Script({"d": ["silent", "ok"]})
    done = loop("abcd", script, straggler_seconds=0.0)
    assert script.submitted.count("d") == 2 and done["d"]["attempt"] == 2
    assert script.abandoned == 1  # the copy that never answered is not waited for


def test_the_largest_shards_go_first(tmp_path, monkeypatch):
    from support import write_text_pool

    import curation as c
    from curation.executors import local

    order = []
    honest = local.InlineExecutor.submit

    def noted(self, function, arguments):
        order.append(arguments[1].size)
        return honest(self, function, arguments)

    monkeypatch.setattr(local.InlineExecutor, "submit", noted)
    pool = write_text_pool(tmp_path / "pool")
    c.run([c.read(pool), c.write(tmp_path / "out")], workers=1, progress=False, funnel=False)
    assert len(order) == 8 and order == sorted(order, reverse=True)
