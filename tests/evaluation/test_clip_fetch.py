"""Sets fetched from a hub on this machine that throttles, cuts, lies and refuses: whole and right, or a named
failure. The real hub is asked nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_web import cut, serve, silent, status
from wds_sets import picture, write_task

from evaluation.clip import fetch as module
from evaluation.clip import hub
from evaluation.clip.aggregate import task
from evaluation.clip.fetch import NotFetched, fetch
from evaluation.clip.set_files import MANIFEST, HubManifest
from evaluation.clip.sets import SetMissing, open_set
from pools.fetch import Policy

QUICK = Policy(wait=0.01, max_wait=0.02, timeout=5.0, tries=3, throttled_tries=3, allow_private=True)
COMMIT, NEWER = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WINNOW_FETCH_PRIVATE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web(monkeypatch):
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.base)
        yield running


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def publish(web, source: str, files: dict[str, bytes], commit=COMMIT, branch="main") -> None:
    """Put a data set on the hub: its API and its files; large ones (tar, zip, parquet) by sha256."""
    entries = [{"type": "directory", "path": "test", "oid": "0" * 40, "size": 0}]
    for path, data in sorted(files.items()):
        entry = {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
        if path.endswith((".tar", ".zip", ".parquet")):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        entries.append(entry)
        web.files[f"/datasets/{source}/resolve/{commit}/{path}"] = data
    name = branch.replace("/", "%2F")
    web.files[f"/api/datasets/{source}/revision/{name}"] = json.dumps({"id": source, "sha": commit}).encode()
    listing = f"/api/datasets/{source}/tree/{commit}?recursive=true"
    web.files[listing] = json.dumps(entries).encode()


def read(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def pets(web, tmp_path):
    """A tiny Oxford Pets on the hub, beside files that its task does not read; the task of its size."""
    tiny = write_task("vtab/pets", tmp_path / "original")
    files = read(tmp_path / "original" / "wds_vtab-pets_test")
    publish(web, tiny.source, {**files, "README.md": b"# Pets", "train/0.tar": b"x", "loader.py": b"1/0"})
    return tiny


def resolve(tiny, path, commit=COMMIT) -> str:
    return f"/datasets/{tiny.source}/resolve/{commit}/{path}"


def test_a_set_arrives_is_recorded_and_opens(web, pets, tmp_path):
    folder = fetch(pets, tmp_path / "sets", policy=QUICK)
    assert folder == tmp_path / "sets" / "wds_vtab-pets_test"
    kept = {n for n in read(folder) if not n.startswith("_")}
    assert kept == {"classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt",
                    "test/0.tar", "test/1.tar"}  # fmt: skip
    manifest = HubManifest.read(folder)
    assert (manifest.source, manifest.revision, manifest.endpoint) == (pets.source, COMMIT, web.base)
    by_path = {f.path: f for f in manifest.files}
    assert by_path["test/0.tar"].sha256 == hashlib.sha256((folder / "test/0.tar").read_bytes()).hexdigest()
    assert by_path["classnames.txt"].blob == blob((folder / "classnames.txt").read_bytes())
    data = open_set(pets, tmp_path / "sets")
    assert sum(len(b.ids) for b in data.batches(5)) == 12
    # the fingerprint of fetched tars is their checksum, and changes with it
    assert data.fingerprint == open_set(pets, tmp_path / "sets").fingerprint


def test_a_second_call_asks_nothing_and_stays_at_its_commit(web, pets, tmp_path):
    folder = fetch(pets, tmp_path, policy=QUICK)
    before = read(folder)
    publish(web, pets.source, {"test/nshards.txt": b"1", "test/0.tar": b"new"}, NEWER)
    web.log.clear()
    assert fetch(pets, tmp_path, policy=QUICK) == folder and web.log == [] and read(folder) == before
    fetch(pets, tmp_path, revision="main", policy=QUICK)
    assert HubManifest.read(folder).revision == NEWER and (folder / "test/0.tar").read_bytes() == b"new"


def test_a_changed_file_is_fetched_again_and_one_put_there_by_hand_is_taken(web, pets, tmp_path):
    folder = fetch(pets, tmp_path, policy=QUICK)
    good = (folder / "test/1.tar").read_bytes()
    (folder / "test/1.tar").write_bytes(good[:-1] + b"x")
    web.log.clear()
    fetch(pets, tmp_path, policy=QUICK)
    assert (folder / "test/1.tar").read_bytes() == good and [m[1] for m in web.log] == [
        resolve(pets, "test/1.tar")
    ]
    # DataComp's own download has no record: what is right is kept
    other = tmp_path / "datacomp" / folder.name
    (other / "test").mkdir(parents=True)
    (other / "test/0.tar").write_bytes((folder / "test/0.tar").read_bytes())
    web.log.clear()
    fetch(pets, tmp_path / "datacomp", policy=QUICK)
    asked = [path for _, path, _ in web.log]
    assert resolve(pets, "test/0.tar") not in asked and resolve(pets, "test/1.tar") in asked


def test_a_set_in_a_folder_of_another_custom_is_left_as_it_is(web, pets, tmp_path):
    (tmp_path / "original" / "wds_vtab-pets_test").rename(tmp_path / "original" / "pets")
    before = read(tmp_path)
    assert fetch(pets, tmp_path / "original", policy=QUICK) == tmp_path / "original" / "pets"
    assert web.log == [] and read(tmp_path) == before


def test_a_set_put_there_by_hand_is_checked_if_the_hub_answers(web, pets, tmp_path):
    tar = tmp_path / "original" / "wds_vtab-pets_test" / "test" / "1.tar"
    good = tar.read_bytes()
    tar.write_bytes(good[:-600])
    listing = f"/api/datasets/{pets.source}/revision/main"
    web.trouble[listing] = [status(500)] * 2
    assert fetch(pets, tmp_path / "original", policy=QUICK) == tar.parents[1] and len(web.gets(listing)) == 2
    assert not (tar.parents[1] / MANIFEST).exists()
    fetch(pets, tmp_path / "original", policy=QUICK)
    assert tar.read_bytes() == good and [p for _, p, _ in web.log if "/resolve/" in p] == [
        resolve(pets, "test/1.tar")
    ]


def test_throttling_faults_and_cuts_are_got_over_by_range(web, pets, tmp_path):
    tar, names = resolve(pets, "test/0.tar"), resolve(pets, "classnames.txt")
    web.trouble[tar] = [status(429, {"Retry-After": "0"}), cut(1000), status(503)]
    web.trouble[names] = [status(500)]
    web.trouble[f"/api/datasets/{pets.source}/revision/main"] = [status(503), status(500)]
    web.trouble[f"/api/datasets/{pets.source}/tree/{COMMIT}?recursive=true"] = [
        lambda h, data, extra: h.answer(200, {}, b"<html>try later")
    ]
    fetch(pets, tmp_path, policy=QUICK)
    assert web.gets(tar) == [None, None, "bytes=1000-", "bytes=1000-"]
    assert sum(len(b.ids) for b in open_set(pets, tmp_path).batches()) == 12


def test_a_fetch_that_ended_early_is_no_set_and_goes_on_where_it_was(web, pets, tmp_path):
    tar = resolve(pets, "test/1.tar")
    web.trouble[tar] = [cut(1500), *[status(500)] * 9]
    with pytest.raises(NotFetched, match="run it again to go on") as caught:
        fetch(pets, tmp_path, policy=QUICK)
    assert caught.value.kind == "timeout" and isinstance(caught.value, SetMissing)
    with pytest.raises(SetMissing, match=r"1\.tar is not there yet: the fetch of djghosh/.* has not ended"):
        open_set(pets, tmp_path)
    web.trouble.clear()
    web.log.clear()
    fetch(pets, tmp_path, policy=QUICK)
    assert web.log == [("GET", tar, "bytes=1500-")]
    assert not [n for n in read(tmp_path) if ".part" in n]


def test_bytes_that_are_not_the_hubs_are_refused(web, pets, tmp_path):
    tar = resolve(pets, "test/0.tar")
    web.files[tar] = bytes(len(web.files[tar]))
    with pytest.raises(NotFetched, match="sha256 is") as caught:
        fetch(pets, tmp_path, policy=QUICK)
    assert caught.value.kind == "checksum" and not (tmp_path / "wds_vtab-pets_test/test/0.tar").exists()
    web.files[tar] = b"short"
    with pytest.raises(NotFetched, match="has 5 bytes, and"):
        fetch(pets, tmp_path, policy=QUICK)
    small = resolve(pets, "classnames.txt")
    web.files[tar] = (tmp_path / "original/wds_vtab-pets_test/test/0.tar").read_bytes()
    web.files[small] = web.files[small].replace(b"thing 0", b"thing X")
    with pytest.raises(NotFetched, match="not those of git's blob"):
        fetch(pets, tmp_path / "b", policy=QUICK)
    assert not (tmp_path / "b/wds_vtab-pets_test/classnames.txt").exists()


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_set_says_what_to_do_and_a_token_opens_it(web, pets, tmp_path, monkeypatch, code):
    seen = []

    def gate(handler, data, extra):
        seen.append(handler.headers.get("Authorization"))
        if seen[-1] == "Bearer secret-word":
            return handler.answer(200, {"ETag": '"x"'}, data)
        return handler.answer(code, {"X-Error-Code": "GatedRepo"})

    names = resolve(pets, "classnames.txt")
    web.trouble[names] = [gate] * 3
    with pytest.raises(
        NotFetched,
        match=r"is gated or private: accept its terms there, and set HF_TOKEN \(HF_TOKEN is not set",
    ):
        fetch(pets, tmp_path, policy=QUICK)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(NotFetched, match="is set, but may not read it") as caught:
        fetch(pets, tmp_path, policy=QUICK)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "secret-word")
    fetch(pets, tmp_path, policy=QUICK)
    assert seen == [None, "Bearer wrong", "Bearer secret-word"]
    assert "secret-word" not in "".join(p.read_text(errors="replace") for p in tmp_path.rglob("_*"))


def test_the_token_stays_with_the_hub_when_a_file_lies_elsewhere(web, pets, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-word")
    tar, seen = resolve(pets, "test/0.tar"), []

    def stored(handler, data, extra):
        seen.append((handler.headers.get("Authorization"), handler.headers.get("Range")))
        handler.answer(200, {"ETag": '"y"'}, data)

    with serve({"/store/0": web.files[tar]}) as store:
        store.trouble["/store/0"] = [stored]
        web.trouble[tar] = [status(302, {"Location": store.url("/store/0")})]
        fetch(pets, tmp_path, policy=QUICK)
    assert seen == [(None, None)]


def test_a_token_is_not_sent_in_the_open(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-word")
    assert hub.headers(Policy()) == {"Authorization": "Bearer secret-word"}
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    assert hub.headers(Policy(allow_private=False)) == {}


def test_what_is_not_there_is_said(web, pets, tmp_path, monkeypatch):
    with pytest.raises(NotFetched, match="was moved, or has no such revision") as caught:
        fetch(pets, tmp_path, revision="v9", policy=QUICK)
    assert caught.value.kind == "gone"
    with pytest.raises(NotFetched, match=r"mnist.*could not be fetched: .*HTTP 404"):
        fetch(task("mnist"), tmp_path, policy=QUICK)
    publish(web, task("cars").source, {"README.md": b"moved"})
    with pytest.raises(NotFetched, match="has no file of an evaluation set"):
        fetch(task("cars"), tmp_path, policy=QUICK)
    web.files[f"/api/datasets/{task('stl10').source}/revision/main"] = b'{"error": "no"}'
    with pytest.raises(NotFetched, match="says no commit"):
        fetch(task("stl10"), tmp_path, policy=QUICK)
    publish(web, task("food101").source, {"test/0.tar": b"x"})
    web.files[f"/api/datasets/{task('food101').source}/tree/{COMMIT}?recursive=true"] = b'["a"]'
    with pytest.raises(NotFetched, match="is no list of files"):
        fetch(task("food101"), tmp_path, policy=QUICK)
    web.trouble[f"/api/datasets/{pets.source}/revision/main"] = [silent]
    with pytest.raises(NotFetched) as caught:
        fetch(pets, tmp_path, policy=replace(QUICK, timeout=0.1, tries=0))
    assert caught.value.kind == "timeout"
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(NotFetched, match=r"HF_ENDPOINT is 'hub.example'"):
        fetch(pets, tmp_path, policy=QUICK)


def test_a_private_address_needs_leave(web, pets, tmp_path):
    with pytest.raises(NotFetched, match="not a public address") as caught:
        fetch(pets, tmp_path, policy=replace(QUICK, allow_private=None))
    assert caught.value.kind == "refused"


def test_paths_of_the_listing_stay_inside_the_folder(web, tmp_path):
    wino = task("misc/winogavil")
    publish(web, wino.source, {"a/../../../evil.zip": b"x", "a.csv": b"cue"})
    with pytest.raises(NotFetched, match=r"'a/../../../evil.zip' is not a path inside the folder"):
        fetch(wino, tmp_path / "a" / "b", policy=QUICK)
    assert not list(tmp_path.rglob("evil.zip"))


def test_no_room_is_said_before_the_first_byte(web, pets, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda p: type("Disk", (), {"free": 10})())
    with pytest.raises(NotFetched, match=r"are free at .*make room"):
        fetch(pets, tmp_path, policy=QUICK)
    assert not any("/resolve/" in path for _, path, _ in web.log)


def test_a_listing_comes_page_by_page(web, pets, tmp_path):
    listing = f"/api/datasets/{pets.source}/tree/{COMMIT}?recursive=true"
    entries = json.loads(web.files.pop(listing))
    pages = [entries[:3], entries[3:5], entries[5:]]
    for number, page in enumerate(pages):
        path = listing if number == 0 else f"{listing}&cursor={number}"
        headers = {"Link": f'<{web.base}{listing}&cursor={number + 1}>; rel="next"'} if number < 2 else {}
        web.trouble[path] = [
            lambda h, d, e, page=page, headers=headers: h.answer(200, headers, json.dumps(page).encode())
        ]
    fetch(pets, tmp_path, policy=QUICK)
    assert open_set(pets, tmp_path).size == 12


@pytest.mark.parametrize("key", ["retrieval/flickr_1k_test_image_text_retrieval", "misc/winogavil"])
def test_tables_with_zips_are_fetched_without_their_programs(web, tmp_path, key):
    tiny = write_task(key, tmp_path / "original")
    files = read(tmp_path / "original" / tiny.source.partition("/")[2])
    publish(web, tiny.source, {**files, "loader.py": b"1/0", ".gitattributes": b"*", "README.md": b"#"})
    folder = fetch(tiny, tmp_path / "sets", policy=QUICK)
    assert {n for n in read(folder) if not n.startswith("_")} == set(files)
    data = open_set(tiny, tmp_path / "sets")
    assert [b.images for b in data.batches()] == [
        b.images for b in open_set(tiny, tmp_path / "original").batches()
    ]


def test_where_only_the_hubs_parquet_can_be_read_it_is_fetched(web, tmp_path):
    tiny = replace(task("retrieval/mscoco_2014_5k_test_image_text_retrieval"), size=4)
    publish(web, tiny.source, {"README.md": b"#", "loader.py": b"1/0"})
    image = pa.array([{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(4)])
    table = pa.table({"image": image, "caption": [[f"a {i}", f"b {i}"] for i in range(4)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    parquet = sink.getvalue().to_pybytes()
    publish(web, tiny.source, {"TEST/test/0000.parquet": parquet}, NEWER, "refs/convert/parquet")
    folder = fetch(tiny, tmp_path, policy=QUICK)
    assert HubManifest.read(folder).revision == NEWER
    assert open_set(tiny, tmp_path).captions == [[f"a {i}", f"b {i}"] for i in range(4)]


def test_a_manifest_that_does_not_parse_is_said(web, pets, tmp_path):
    folder = fetch(pets, tmp_path, policy=QUICK)
    (folder / MANIFEST).write_text('{"source": 3')
    with pytest.raises(ValueError, match=r"_hub\.json does not parse .*remove it and fetch"):
        open_set(pets, tmp_path)
    with pytest.raises(NotFetched, match="does not parse"):
        fetch(pets, tmp_path, policy=QUICK)


def test_the_command_fetches_and_reports_each_failure(web, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WINNOW_FETCH_PRIVATE", "1")
    tiny = write_task("cars", tmp_path / "original")
    publish(web, tiny.source, read(tmp_path / "original" / "wds_cars_test"))
    assert module.main([str(tmp_path / "sets"), "Stanford Cars", "mnist"]) == 1
    out = capsys.readouterr()
    assert out.out == f"cars: {tmp_path / 'sets' / 'wds_cars_test'}\n" and "mnist (MNIST)" in out.err
    assert module.main([str(tmp_path), "nothing"]) == 2 and "no task 'nothing'" in capsys.readouterr().err
