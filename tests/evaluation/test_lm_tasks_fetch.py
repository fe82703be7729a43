"""Task files by URL, from a server on this machine."""

import hashlib
import json
from dataclasses import replace

import pytest
from local_web import serve, status

from evaluation.lm import fetch, gpqa
from evaluation.lm.tasks import Suite, Task, TaskError, load_suite, read_items
from pools.fetch import Policy

QUICK = Policy(tries=2, wait=0.01, max_wait=0.02, timeout=5, file_bytes=10_000, allow_private=True)


def rows(word: str, n: int = 3) -> bytes:
    record = json.dumps({"context": word, "continuation": "b"})
    return (record + "\n").encode() * n


def task(name: str, data: bytes, **settings) -> Task:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return Task(name, "language_modeling", f"{name}/{name}.jsonl", rows=3, blob=blob, **settings)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def web():
    with serve({"/d/one/one.jsonl": rows("1"), "/d/two/two.jsonl": rows("2")}) as running:
        yield running


@pytest.fixture
def suite() -> Suite:
    tasks = (
        task("one", rows("1")),
        task("two", rows("2")),
        replace(task("one", rows("1")), name="one_5shot"),
    )
    return Suite("s", tasks, None)


def test_files_arrive_once_and_are_used_from_then_on(web, suite) -> None:
    seen: list[str] = []
    got = fetch.with_data(suite, base=web.url("/d"), policy=QUICK, on_file=seen.append)
    assert got.unusable == () and seen == ["one/one.jsonl", "two/two.jsonl"]
    assert [len(read_items(t, got.folder)) for t in got.tasks] == [3, 3, 3]
    assert len(web.gets("/d/one/one.jsonl")) == 1
    web.files.clear()
    assert fetch.with_data(suite, base=web.url("/d"), policy=QUICK) == got
    assert len(web.gets("/d/two/two.jsonl")) == 1
    assert sorted(p.name for p in got.folder.rglob("*") if p.is_file()) == ["one.jsonl", "two.jsonl"]


def test_a_data_dir_wins_and_nothing_is_fetched(web, suite, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    got = fetch.with_data(suite, tmp_path / "mine", base=web.url("/d"), policy=QUICK)
    assert got == replace(suite, folder=tmp_path / "mine") and web.log == []
    with pytest.raises(TaskError, match="no such folder of task files"):
        fetch.with_data(suite, tmp_path / "none")
    tiny = load_suite("tiny")
    assert fetch.with_data(tiny, base=web.url("/d")) is tiny


def test_only_the_wanted_files_are_fetched(web, suite) -> None:
    got = fetch.with_data(suite, only=["one_5shot"], base=web.url("/d"), policy=QUICK)
    assert got.unusable == () and {path for _, path, _ in web.log} == {"/d/one/one.jsonl"}


def test_what_cannot_be_had_is_listed_with_its_tasks(web, suite) -> None:
    del web.files["/d/one/one.jsonl"]
    got = fetch.with_data(suite, base=web.url("/d"), policy=QUICK)
    assert [name for name, _ in got.unusable] == ["one", "one_5shot"]
    target = fetch.folder() / "one/one.jsonl"
    assert all("404" in reason and f"may be put at {target}" in reason for _, reason in got.unusable)
    assert (got.folder / "two/two.jsonl").is_file()
    # put there by hand, it is used if it is the original
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(rows("1"))
    assert fetch.with_data(suite, base=web.url("/d"), policy=QUICK).unusable == ()


def test_other_bytes_than_the_originals_are_refused_and_not_kept(web, suite) -> None:
    web.files["/d/one/one.jsonl"] = rows("1", 2)
    got = fetch.with_data(suite, only=["one"], base=web.url("/d"), policy=QUICK)
    ((name, reason),) = got.unusable
    assert name == "one" and "one.jsonl: its bytes are not those of the pinned version" in reason
    assert list(fetch.folder().rglob("*.jsonl")) == []
    web.files["/d/one/one.jsonl"] = rows("1")
    assert fetch.with_data(suite, only=["one"], base=web.url("/d"), policy=QUICK).unusable == ()


def test_a_file_beyond_the_size_limit_is_refused(web, suite) -> None:
    web.files["/d/one/one.jsonl"] = rows("1", 1000)
    got = fetch.with_data(suite, only=["one"], base=web.url("/d"), policy=QUICK)
    assert "10,000" in got.unusable[0][1] or "10000" in got.unusable[0][1]


def test_a_server_that_fails_is_not_asked_for_every_file(web, suite) -> None:
    web.trouble["/d/one/one.jsonl"] = [status(500)] * 20
    got = fetch.with_data(suite, base=web.url("/d"), policy=QUICK)
    assert [name for name, _ in got.unusable] == ["one", "two", "one_5shot"]
    assert "not tried, after" in got.unusable[1][1] and web.gets("/d/two/two.jsonl") == []


def test_dclms_files_come_from_one_commit_and_gpqa_is_not_fetched(web) -> None:
    suite = load_suite("dclm")
    got = fetch.with_data(suite, only=["gpqa_main"], base=web.url("/d"), policy=QUICK)
    ((name, reason),) = got.unusable
    assert name == "gpqa_main" and "gpqa_data/gpqa_main.jsonl" in reason and "data_dir" in reason
    assert web.log == [] and f"/{fetch.COMMIT}/scripts/eval/local_data" in fetch.BASE
    assert fetch.BASE.startswith("https://")


def test_gpqa_from_its_authors_csv(tmp_path, capsys) -> None:
    head = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    lines = "".join(f'{i},"Which, {i}?",right,"w\n1",w2,w3\n' for i in range(3))
    for name in gpqa.FILES:
        (tmp_path / f"{name}.csv").write_text(head + lines)
    assert gpqa.main([str(tmp_path), str(tmp_path / "data")]) == 0
    assert "gpqa_diamond.jsonl: 3 rows" in capsys.readouterr().out
    main, diamond = (next(t for t in load_suite("dclm").tasks if t.name == name) for name in gpqa.FILES)
    items = read_items(replace(main, rows=3), tmp_path / "data")
    # Random(42) shuffles [0, 1, 2, 3] to [2, 1, 3, 0], then [3, 2, 0, 1], then [1, 3, 2, 0]
    assert [item["gold"] for item in items] == [item["choices"].index("right") for item in items]
    assert [item["choices"][0] for item in items] == ["w2", "w3", "w\n1"]
    assert items == read_items(replace(diamond, rows=3), tmp_path / "data")
    assert gpqa.main([str(tmp_path / "none"), str(tmp_path)]) == 1
    (tmp_path / "gpqa_main.csv").write_text(head + "0,Q,,w1,w2,w3\n")
    with pytest.raises(TaskError, match=r"gpqa_main\.csv, row 1: no Correct Answer"):
        gpqa.convert(tmp_path / "gpqa_main.csv", tmp_path / "x.jsonl")
