"""Evaluation sets of every kind on disk: read whole and typed, and every fault named by file and row."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from wds_sets import (
    FACES,
    SUITE,
    face_lines,
    npy,
    picture,
    tar_bytes,
    write_retrieval,
    write_suite,
    write_task,
    write_wds,
    write_winogavil,
)

from evaluation.clip.aggregate import task, tasks
from evaluation.clip.sets import (
    FaceSet,
    Instance,
    RetrievalSet,
    SetError,
    SetMissing,
    TableSet,
    WdsSet,
    WinogavilSet,
    open_set,
)
from evaluation.clip.tar_samples import samples

SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"


def rows(data, size=5):
    """(ids, images, columns) of a whole set."""
    ids, images, columns = [], [], {}
    for batch in data.batches(size):
        assert 0 < len(batch.ids) <= size and len(batch.ids) == len(batch.images)
        assert all(len(v) == len(batch.ids) for v in batch.columns.values())
        ids += batch.ids
        images += batch.images
        for name, values in batch.columns.items():
            columns.setdefault(name, []).extend(values)
    return ids, images, columns


def fault(data, size=5) -> str:
    with pytest.raises(SetError) as caught:
        rows(data, size)
    return str(caught.value)


# ---------------------------------------------------------------- every kind, whole


def test_every_task_has_a_set_of_its_kind(tmp_path):
    kinds = {}
    for key in [t.key for t in tasks()]:
        tiny = write_task(key, tmp_path)
        data = open_set(tiny, tmp_path)
        kinds[key] = type(data)
        ids, _, columns = rows(data)
        assert len(ids) == len(set(ids)) == data.size, key
        assert all(i.startswith(f"{key}/") for i in ids)
        assert set(tiny.metadata) <= set(columns)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    assert kinds["fairness/utkface"] is FaceSet and kinds["misc/winogavil"] is WinogavilSet
    assert sum(k is WdsSet for k in kinds.values()) == 35
    assert sum(k is RetrievalSet for k in kinds.values()) == 2


@pytest.mark.parametrize("format", ["png", "jpg", "jpeg", "webp"])
def test_images_come_as_they_are_and_labels_as_numbers(tmp_path, format):
    examples = [{"label": i % 3} for i in range(7)]
    data = WdsSet("toy", write_wds(tmp_path, examples, ["a", "b", "c"], format=format), 7, 3)
    ids, images, columns = rows(data, 3)
    assert images == [picture(i, format=format) for i in range(7)]
    assert columns == {"label": [0, 1, 2, 0, 1, 2, 0], "metadata": [None] * 7}
    assert ids[:1] + ids[-1:] == ["toy/0/s0000000", "toy/1/s0000006"]
    if format != "webp":
        assert Image.open(io.BytesIO(images[3])).size == (8, 8)


def test_metadata_has_its_columns_typed(tmp_path):
    geode = write_task("fairness/geode", tmp_path)
    _, _, columns = rows(open_set(geode, tmp_path))
    assert columns["region"] == [i % 6 for i in range(12)] and columns["country"][:3] == [0, 1, 2]
    assert columns["metadata"][7] == [1, 0] and all(type(v) is int for v in columns["region"])
    street = task("fairness/dollar_street")
    examples = [{"label": 0, "metadata": np.array([[3.0, np.nan, 2.5]], np.float32)}]
    write_wds(tmp_path / "wds_dollar_street_test", examples, ["a"], shards=1)
    _, _, columns = rows(open_set(replace(street, size=1, classes=1), tmp_path))
    assert columns["income_ds"] == [3] and columns["region"] == [2.5] and np.isnan(columns["income_meta"][0])


def test_faces_have_objectives_with_names_and_templates_of_their_own(tmp_path):
    data = open_set(write_task("fairness/fairface", tmp_path), tmp_path)
    assert isinstance(data, FaceSet)
    assert data.objectives == {name: list(values) for name, values in FACES.items()}
    assert data.objective_templates["age"] == ["a photo of a {c} person", "a face of a {c} person"]
    _, _, columns = rows(data)
    assert columns["gender"] == [0, 1] * 6 and columns["race_binary"][:4] == [1, 0, 1, 1]
    assert "label" not in columns


def test_faces_in_the_published_order(tmp_path):
    """The published class names: 9 ages, 2 genders, 7 races, 21 toxic; 14 to 17 of those are not human."""
    races = ["black", "white", "indian", "latino/hispanic", "middle eastern", "southeast asian", "east asian"]
    toxic = [f"{race} {who}" for race in races for who in ("man", "woman")]
    toxic += ["animal", "gorilla", "chimpanzee", "orangutan", "thief", "criminal", "suspicious person"]
    ages = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"]
    names = {"age": ages, "gender": ["man", "woman"], "race": races, "toxic": toxic}
    lines = [f"{objective}:{name}" for objective, values in names.items() for name in values]
    templates = [
        "age:a photo of a person {c} years old",
        "gender:a photo of a {c}",
        "race:a {c} person",
        "toxic:{c}",
    ]
    examples = [{"label": 0, "metadata": (8, 1, 6, 1)}]
    folder = write_wds(tmp_path / "wds_utkface_test", examples, lines, templates, shards=1)
    assert (folder / "classnames.txt").stat().st_size == 648  # as on the hub
    data = open_set(replace(task("fairness/utkface"), size=1), tmp_path)
    assert data.objectives == names and data.objectives["toxic"][14:18] == toxic[14:18]
    assert rows(data)[2]["age"] == [8]


def test_a_set_can_be_read_again_and_sent_to_another_process(tmp_path):
    for tiny in write_suite(tmp_path):
        data = open_set(tiny, tmp_path)
        first = rows(data)
        other = pickle.loads(pickle.dumps(data))
        assert rows(data, 12) == first == rows(other) and other.fingerprint == data.fingerprint


def test_a_table_set_knows_its_size_and_changes_its_fingerprint():
    table = pa.table({"id": ["a", "b"], "image": [b"1", b"2"], "label": [0, 1]})
    data = TableSet("t", table)
    assert data.size == 2 and len(data.fingerprint) == 32
    assert TableSet("t", pa.concat_tables([table[:1], table[1:]])).fingerprint == data.fingerprint
    other = table.set_column(2, "label", pa.array([1, 1]))
    assert TableSet("t", other).fingerprint != data.fingerprint


# ---------------------------------------------------------------- where it lies


@pytest.mark.parametrize(
    "name", ["wds_vtab-pets_test", "wds_vtab-pets", "vtab-pets", "vtab/pets", "wds_pets_test", "pets"]
)
def test_folders_of_every_custom_are_found(tmp_path, name):
    tiny = write_task("vtab/pets", tmp_path / "a")
    shutil.copytree(tmp_path / "a" / "wds_vtab-pets_test", tmp_path / "b" / name)
    assert open_set(tiny, tmp_path / "b").directory == tmp_path / "b" / name
    if "/" not in name:
        assert open_set(tiny, tmp_path / "b" / name).directory == tmp_path / "b" / name


def test_a_folder_that_only_has_the_name_does_not_hide_a_set(tmp_path):
    tiny = write_task("vtab/pets", tmp_path)
    (tmp_path / "wds_vtab-pets_test").rename(tmp_path / "pets")
    (tmp_path / "vtab-pets").mkdir()
    (tmp_path / "vtab-pets" / "notes.txt").write_text("x")
    (tmp_path / "wds_vtab-pets_test").mkdir()
    assert open_set(tiny, tmp_path).directory.name == "pets"


def test_a_missing_set_says_what_was_tried(tmp_path):
    with pytest.raises(SetMissing) as caught:
        open_set(task("fairness/geode"), tmp_path)
    said = str(caught.value)
    for name in ("wds_geode_test", "fairness-geode", "fairness/geode", "hf_cache/djghosh___wds_geode_test"):
        assert f" {name}," in said or f" {name}." in said
    assert "GeoDE" in said and "djghosh/wds_geode_test on the hub" in said
    with pytest.raises(SetMissing, match="which is no folder"):
        open_set(task("fairness/geode"), tmp_path / "none")


def test_the_wrong_kind_of_folder_is_said(tmp_path):
    for key in ("mnist", FLICKR, "misc/winogavil"):
        folder = tmp_path / task(key).source.partition("/")[2]
        folder.mkdir()
        (folder / "readme.csv").write_text("a,b\n1,2\n")
        with pytest.raises(SetError, match="is not"):
            open_set(task(key), tmp_path)


# ---------------------------------------------------------------- fingerprints


def test_the_fingerprint_sees_every_change_and_no_copy(tmp_path):
    tiny = write_task("vtab/pets", tmp_path)
    folder = tmp_path / "wds_vtab-pets_test"
    first = open_set(tiny, tmp_path).fingerprint
    shutil.copytree(folder, tmp_path / "copy" / "vtab" / "pets")
    assert open_set(tiny, tmp_path / "copy").fingerprint == first
    seen = {first}
    tar = folder / "test" / "0.tar"
    for path, data in (
        (folder / "classnames.txt", (folder / "classnames.txt").read_bytes().replace(b"thing 1", b"thing X")),
        (folder / "zeroshot_classification_templates.txt", b"{c}\n"),
        (tar, tar.read_bytes().replace(b"s0000001.cls", b"s0000009.cls")),
    ):
        path.write_bytes(data)
        seen.add(open_set(tiny, tmp_path).fingerprint)
    assert len(seen) == 4


def test_the_fingerprint_reads_little_of_large_tars(tmp_path):
    folder = write_wds(tmp_path / "a", [{"label": 0}], ["a"], shards=1)
    with (folder / "test" / "0.tar").open("ab") as file:
        file.truncate(1 << 33)  # 8 GiB of holes
    assert WdsSet("x", folder).fingerprint  # would run out of time if it read them


# ---------------------------------------------------------------- faults of tar sets


@pytest.fixture
def toy(tmp_path):
    examples = [{"label": i % 3, "metadata": (i, i % 2)} for i in range(6)]
    return write_wds(tmp_path / "toy", examples, ["a", "b", "c"], shards=2)


def opened(folder, **kwargs):
    return WdsSet(
        "toy", folder, **{"size": 6, "n_classes": 3, "metadata": ("x", "y"), "required": ("y",), **kwargs}
    )


def test_a_tar_cut_at_any_byte_is_never_read_as_whole(toy):
    tar = toy / "test" / "1.tar"
    whole = tar.read_bytes()
    end = len(whole) - len(whole.rstrip(b"\0"))
    good = rows(opened(toy))[1]
    for at in [*range(0, 2600, 97), *range(512, len(whole) - end, 512), len(whole) - end]:
        tar.write_bytes(whole[:at])
        said = fault(opened(toy))
        assert str(tar) in said or str(toy) in said, at
        assert "fetch the" in said, at
        # without a declared size it is no less damaged
        assert "1.tar" in fault(opened(toy, size=None)), at
    tar.write_bytes(whole)
    assert rows(opened(toy))[1] == good


def test_a_flipped_bit_in_any_header_is_found(toy):
    tar = toy / "test" / "0.tar"
    whole = tar.read_bytes()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    assert len(headers) == 9
    rng = random.Random(3)
    for header in headers:
        for at in rng.sample(range(header, header + 500), 12):
            broken = bytearray(whole)
            broken[at] ^= 1 << rng.randrange(7)
            tar.write_bytes(broken)
            if at - header in (148, 154, 155):  # a digit that may be blank, and two blanks, of the checksum
                continue
            said = fault(opened(toy, size=None))
            assert "0.tar is damaged" in said or "expected" in said or "no ." in said, at


def test_missing_and_unbelievable_shards(toy):
    (toy / "test" / "1.tar").unlink()
    assert "1.tar is missing (1 of 2 shards); fetch the set again" in fault(opened(toy))
    for text in ("two", "", "0", "-1", "1.5", "9" * 40, "²"):
        (toy / "test" / "nshards.txt").write_text(text, encoding="utf-8")
        assert "nshards.txt" in fault(opened(toy))
    (toy / "test" / "nshards.txt").write_text("1\n")
    (toy / "test" / "0.tar").write_bytes(b"")
    assert "0.tar holds no sample" in fault(opened(toy))
    (toy / "test" / "0.tar").write_bytes(b"<html>not found</html>" * 100)
    assert "0.tar is damaged after sample none" in fault(opened(toy))


def test_a_set_shorter_or_longer_than_declared(toy):
    assert "holds 6 examples, expected 7: it is cut short" in fault(opened(toy, size=7))
    said = fault(opened(toy, size=4), size=1)
    assert "1.tar, sample s0000004" in said and "more examples than the 4 expected" in said


def test_wrong_class_counts_and_labels_out_of_range(toy):
    with pytest.raises(SetError, match=r"classnames\.txt names 3 classes.*toy has 4"):
        opened(toy, n_classes=4)
    with pytest.raises(SetError, match=r"names 3 classes.*has 6"):
        open_set(replace(task("cifar10"), classes=6), _renamed(toy, "wds_cifar10_test"))


def _renamed(folder: Path, name: str) -> Path:
    return folder.rename(folder.parent / name).parent


@pytest.mark.parametrize(
    "members, said",
    [
        ([("a.png", b"x"), ("a.cls", b"3")], "sample a: label 3 is outside the 3 classes of classnames.txt"),
        ([("a.png", b"x"), ("a.cls", b"-1")], "sample a: label -1 is outside"),
        ([("a.png", b"x"), ("a.cls", b"one")], ".cls holds b'one', expected a class number"),
        ([("a.png", b"x"), ("a.cls", b"")], ".cls holds b''"),
        ([("a.png", b"x"), ("a.cls", b"\xff")], ".cls holds"),
        ([("a.cls", b"1")], "sample a: no image member (.webp, .jpg, .jpeg, .png), it has .cls"),
        ([("a.png", b"x")], "sample a: no .cls member, it has .png"),
        ([("a.png", b""), ("a.cls", b"1")], "its image is an empty file"),
        ([(f"{key}.{end}", b"1") for key in "aba" for end in ("png", "cls")], "sample a comes twice"),
        ([("a.png", b"x"), ("a.png", b"x"), ("a.cls", b"1")], "sample a"),
    ],
)  # fmt: skip
def test_samples_that_are_wrong(toy, members, said):
    (toy / "test" / "1.tar").write_bytes(tar_bytes(members))
    found = fault(opened(toy, size=None, metadata=(), required=()))
    assert said in found and "1.tar" in found


@pytest.mark.parametrize(
    "vector, said",
    [
        (npy([1, 2, 3]), ".npy has 3 values, and toy has 2 columns (x, y)"),
        (npy([1]), ".npy has 1 values"),
        (npy([0.0, np.nan]), "metadata y is nan, expected a whole number"),
        (npy([0.0, np.inf]), "metadata y is inf"),
        (npy([0.0, 1.5]), "metadata y is 1.5"),
        (npy(np.zeros((2, 2))), ".npy has shape (2, 2), expected one row"),
        (npy(np.array(["a", "b"])), ".npy holds <U1, expected numbers"),
        (b"\x93NUMPY", ".npy does not load without pickle"),
        (b"", ".npy does not load without pickle"),
        (pickle.dumps([1, 2]), ".npy does not load without pickle"),
        (None, "no .npy member"),
    ],
)
def test_metadata_that_is_wrong(toy, vector, said):
    members = [("a.png", b"x"), ("a.cls", b"1")] + ([] if vector is None else [("a.npy", vector)])
    (toy / "test" / "1.tar").write_bytes(tar_bytes(members))
    found = fault(opened(toy, size=None))
    assert said in found and "1.tar, sample a" in found


def test_a_pickled_array_is_never_loaded(toy):
    out = io.BytesIO()
    np.save(out, np.array([print], dtype=object), allow_pickle=True)
    (toy / "test" / "1.tar").write_bytes(
        tar_bytes([("a.png", b"x"), ("a.cls", b"1"), ("a.npy", out.getvalue())])
    )
    assert "does not load without pickle" in fault(opened(toy, size=None))


def test_text_files_that_are_wrong(toy):
    templates, names = toy / "zeroshot_classification_templates.txt", toy / "classnames.txt"
    templates.write_text("a {c}\na photo\n")
    with pytest.raises(SetError, match=r"line 2: template 'a photo' lacks \"\{c\}\""):
        opened(toy)
    templates.write_text(" \n\n")
    with pytest.raises(SetError, match=r"templates\.txt is empty"):
        opened(toy)
    templates.write_text("{c}\n\n  {c}!  \n")
    assert opened(toy).templates == ["{c}", "{c}!"]
    names.write_bytes(b"caf\xe9\n")
    with pytest.raises(SetError, match="is not UTF-8 text"):
        opened(toy)
    names.unlink()
    with pytest.raises(SetError, match=r"classnames\.txt is missing"):
        opened(toy)


def test_lines_of_faces_that_are_wrong(tmp_path):
    lines, templates = face_lines()
    tiny = replace(task("fairness/fairface"), size=1)

    def written(lines, templates, metadata=(0, 0, 0, 0)):
        folder = tmp_path / "wds_fairface_test"
        write_wds(folder, [{"label": 0, "metadata": metadata}], lines, templates, shards=1)
        return tmp_path

    with pytest.raises(SetError, match=r"classnames\.txt, line 1: 'Black' is not \"objective:name\""):
        open_set(tiny, written(["Black", *lines], templates))
    with pytest.raises(SetError, match='has no line of the objective "toxic"'):
        open_set(tiny, written([n for n in lines if not n.startswith("toxic")], templates))
    with pytest.raises(SetError, match=r"templates\.txt has no line of the objective \"age\""):
        open_set(tiny, written(lines, [t for t in templates if not t.startswith("age")]))
    with pytest.raises(SetError, match=r"line 3 of age: template 'x' lacks"):
        open_set(tiny, written(lines, [*templates, "age:x"]))
    data = open_set(tiny, written(lines, templates, (3, 0, 0, 0)))
    assert "age is 3, outside the 3 of classnames.txt" in fault(data)
    data = open_set(tiny, written(lines, templates, (0, -1, 0, 0)))
    assert "gender is -1, outside the 2" in fault(data)


def test_memory_stays_that_of_a_batch(tmp_path):
    rng = np.random.default_rng(0)
    examples = [{"label": 0, "image": rng.bytes(100_000)} for _ in range(200)]
    data = WdsSet("big", write_wds(tmp_path, examples, ["a"], shards=2), 200)
    del examples
    tracemalloc.start()
    assert sum(len(b.ids) for b in data.batches(8)) == 200
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6  # of 20 MB


def test_long_names_in_tars_are_read(tmp_path):
    import tarfile

    path, name = tmp_path / "0.tar", "x" * 180
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path, "w", format=format) as tar:
            for suffix in ("png", "cls"):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = 1
                tar.addfile(member, io.BytesIO(b"1"))
        (sample,) = samples(path)
        assert sample.key == name and set(sample.members) == {"png", "cls"}


# ---------------------------------------------------------------- retrieval


def captions(n, k=5):
    return [[f"picture {i}, told {j}" for j in range(k)] for i in range(n)]


def test_retrieval_of_a_table_and_a_zip(tmp_path):
    data = RetrievalSet("r", write_retrieval(tmp_path / "r"), 6)
    ids, images, columns = rows(data, 4)
    assert columns == {"caption": captions(6)} and data.captions == captions(6)
    assert images == [picture(i, format="jpg") for i in range(6)] and ids[2] == "r/2.jpg"


def test_retrieval_of_an_unpacked_zip_and_a_split_column(tmp_path):
    folder = write_retrieval(tmp_path / "r")
    with zipfile.ZipFile(folder / "images_test.zip") as pack:
        pack.extractall(folder / "images")
    (folder / "images_test.zip").unlink()
    text = (folder / "test.csv").read_text().replace("5.jpg", "5.jpg")
    (folder / "test.csv").write_text(text + 'extra.jpg,"[""x""]",train\n')
    data = RetrievalSet("r", folder, 6)
    assert rows(data)[1] == [picture(i, format="jpg") for i in range(6)]


def test_retrieval_of_tars_as_clip_benchmark_has_them(tmp_path):
    examples = [{"captions": captions(6)[i]} for i in range(6)]
    write_wds(tmp_path / "wds_flickr30k", examples, format="jpg", shards=2)
    data = open_set(replace(task(FLICKR), size=6), tmp_path)
    ids, images, columns = rows(data)
    assert columns["caption"] == captions(6) == data.captions and ids[5] == f"{FLICKR}/1/s0000005"
    assert images[0] == picture(0, format="jpg")


def image_structs(n, path="{}.jpg"):
    return pa.array([{"bytes": picture(i), "path": path.format(i)} for i in range(n)])


def test_retrieval_of_parquet(tmp_path):
    folder = tmp_path / "flickr_1k_test_image_text_retrieval" / "TEST" / "test"
    folder.mkdir(parents=True)
    table = pa.table(
        {"image": image_structs(6), "caption": captions(6), "filename": [f"{i}.jpg" for i in range(6)]}
    )
    pq.write_table(table[:4], folder / "0000.parquet", row_group_size=2)
    pq.write_table(table[4:], folder / "0001.parquet")
    data = open_set(replace(task(FLICKR), size=6), tmp_path)
    ids, images, columns = rows(data)
    assert (ids[5], columns["caption"]) == (f"{FLICKR}/5.jpg", captions(6))
    assert images == [picture(i) for i in range(6)]
    (folder / "0001.parquet").write_bytes((folder / "0001.parquet").read_bytes()[:-100])
    assert "0001.parquet does not read" in fault(open_set(replace(task(FLICKR), size=6), tmp_path))


def arrow_cache(root: Path, name: str, table: pa.Table) -> Path:
    folder = root / "hf_cache" / f"nlphuji___{name}" / "TEST" / "1.1.0" / "0123abcd"
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / f"{name}-test.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=3)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_retrieval_of_datacomps_own_download_also_when_it_was_moved(tmp_path):
    name = FLICKR.partition("/")[2]
    unpacked = tmp_path / "a" / "hf_cache" / "downloads" / "extracted" / "77" / "images"
    unpacked.mkdir(parents=True)
    for i in range(6):
        (unpacked / f"{i}.jpg").write_bytes(picture(i, format="jpg"))
    image = pa.array([{"bytes": None, "path": str(unpacked / f"{i}.jpg")} for i in range(6)],
                     pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    arrow_cache(tmp_path / "a", name, pa.table({"image": image, "caption": captions(6)}))
    tiny = replace(task(FLICKR), size=6)
    assert rows(open_set(tiny, tmp_path / "a"))[1] == [picture(i, format="jpg") for i in range(6)]
    (tmp_path / "a").rename(tmp_path / "b")
    data = open_set(tiny, tmp_path / "b")
    assert rows(data)[1] == [picture(i, format="jpg") for i in range(6)] and data.captions == captions(6)
    (tmp_path / "b/hf_cache/downloads/extracted/77/images/3.jpg").unlink()
    assert "row 4: there is no picture" in fault(data)


def test_captions_of_one_text_of_lists_and_of_json_files(tmp_path):
    folder = tmp_path / "r"
    write_retrieval(folder, 2)
    for text in ("one", "['a', \"b's\"]", '["a", "b\'s"]'):
        quoted = text.replace('"', '""')
        (folder / "test.csv").write_text(f'filename,caption\n0.jpg,"{quoted}"\n')
        assert RetrievalSet("r", folder, 1).captions == [["one"] if text == "one" else ["a", "b's"]]
    (folder / "test.csv").unlink()
    karpathy = {"images": [{"filename": f"{i}.jpg", "split": s, "sentences": [{"raw": "x"}, {"raw": "y"}]}
                           for i, s in ((0, "test"), (1, "train"))], "dataset": "flickr"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(karpathy))
    assert RetrievalSet("r", folder, 1).captions == [["x", "y"]]
    (folder / "dataset.json").rename(folder / "rows.jsonl")
    (folder / "rows.jsonl").write_text('{"image": "1.jpg", "caption": ["z"]}\n')
    assert rows(RetrievalSet("r", folder, 1))[1] == [picture(1, format="jpg")]


def test_retrieval_sets_that_are_wrong(tmp_path):
    folder = write_retrieval(tmp_path / "r")
    data = RetrievalSet("r", folder, 7)
    assert "holds 6 images, expected 7: it is cut short" in fault(data)
    assert "more images than the 5 expected, from r/5.jpg on" in fault(RetrievalSet("r", folder, 5), 1)
    table, good = folder / "test.csv", (folder / "test.csv").read_text()
    for text, said in (
        (good.replace("3.jpg", "x.jpg", 1), "row 4: there is no picture 'x.jpg'"),
        (good.replace('"[""picture 2', '"[picture 2', 1), "row 3: raw does not parse as a list"),
        (good.replace("picture 2, told 1", " "), "row 3: caption 2 of 5 is empty"),
        (good + "9.jpg\n", "row 7: raw is 'None', expected texts"),
        (good + '9.jpg,"[]",test\n', "row 7: raw is '[]', expected texts"),
        (good + '9.jpg,"[""a', "test.csv does not read"),
    ):
        table.write_text(text)
        assert said in fault(RetrievalSet("r", folder)), said
    table.write_text(good)
    pack = folder / "images_test.zip"
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) // 2])
    assert "images_test.zip is not a whole zip" in fault(RetrievalSet("r", folder))
    at = whole.index(picture(4, format="jpg")) + 200
    pack.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    said = fault(RetrievalSet("r", folder), 1)
    assert "row 5" in said and "member images_test/4.jpg, does not read (Bad CRC-32" in said
    tars = write_wds(tmp_path / "t", [{"captions": [" "]}], format="jpg", shards=1)
    assert "0.tar, sample s0000000: .txt has no caption" in fault(RetrievalSet("t", tars))
    write_wds(tmp_path / "t", [{"label": 1}], format="jpg", shards=1)
    assert "no .txt member" in fault(RetrievalSet("t", tars))


def test_two_pictures_of_one_name_are_told_apart_by_their_folder_or_refused(tmp_path):
    folder = write_retrieval(tmp_path / "r", 1)
    with zipfile.ZipFile(folder / "images_test.zip", "w") as pack:
        pack.writestr("a/0.jpg", b"first")
        pack.writestr("b/0.jpg", b"second")
        pack.writestr("__MACOSX/b/._0.jpg", b"rubbish")
    assert "is a/0.jpg and b/0.jpg" in fault(RetrievalSet("r", folder))
    text = (folder / "test.csv").read_text()
    (folder / "test.csv").write_text(text.replace("0.jpg", "b/0.jpg"))
    assert rows(RetrievalSet("r", folder))[1] == [b"second"]


# ---------------------------------------------------------------- WinoGAViL


def test_winogavil_has_each_picture_once(tmp_path):
    data = WinogavilSet("w", write_winogavil(tmp_path / "w"), 4)
    ids, images, columns = rows(data)
    assert columns == {} and len(ids) == data.size == 14 and ids[0] == "w/thing0"
    assert images == [picture(100 + i, format="jpg") for i in range(14)]
    assert data.instances[1] == Instance("1", "Storm", (1, 2, 3, 4, 5, 6), (1, 2, 3))
    assert [len(i.candidates) for i in data.instances] == [5, 6, 10, 12]


def test_winogavil_as_published(tmp_path):
    """The columns and quoting of the published table; names with a space; pictures shown twice."""
    (tmp_path / "winogavil_dataset.csv").write_text(
        "candidates,cue,associations,score_fool_the_ai,num_associations,num_candidates,ID\n"
        '"[""tea party"", ""ash"", ""owl"", ""elk"", ""bee""]",dishes,"[""owl"", ""tea party""]",67,2,5,71\n'
        '"[""bee"", ""ash"", ""fox"", ""elk"", ""owl"", ""ant""]",wood,"[""ash""]",0,1,6,72\n'
    )
    with zipfile.ZipFile(tmp_path / "winogavil_images.zip", "w") as pack:
        for name in ("tea party", "ash", "owl", "elk", "bee", "fox", "ant"):
            pack.writestr(f"winogavil_images/{name}.jpg", name)
    data = WinogavilSet("w", tmp_path, 2)
    assert data.instances == [
        Instance("71", "dishes", (0, 1, 2, 3, 4), (2, 0)),
        Instance("72", "wood", (4, 1, 5, 3, 2, 6), (1,)),
    ]
    assert (
        [i.decode() for i in rows(data)[1]]
        == data.names
        == ["tea party", "ash", "owl", "elk", "bee", "fox", "ant"]
    )


def test_winogavil_with_pictures_inside(tmp_path):
    expected = WinogavilSet("w", write_winogavil(tmp_path / "csv"))
    names = expected.names
    images = dict(zip(names, rows(expected)[1], strict=True))
    struct = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    shown = [[names[i] for i in instance.candidates] for instance in expected.instances]
    table = pa.table(
        {
            "cue": [i.cue for i in expected.instances],
            "candidates": shown,
            "associations": [[names[r] for r in i.associations] for i in expected.instances],
            "candidate_images": pa.array(
                [[{"bytes": images[n], "path": f"{n}.jpg"} for n in own] for own in shown], struct
            ),
        }
    )
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "0000.parquet")
    arrow_cache(tmp_path / "cache", "winogavil", table)
    tiny = replace(task("misc/winogavil"), size=4)
    for data in (WinogavilSet("w", tmp_path / "parquet", 4), open_set(tiny, tmp_path / "cache")):
        assert data.instances == expected.instances and data.names == names
        assert rows(data)[1] == rows(expected)[1]
    short = table.set_column(3, "candidate_images", pa.array([[]] * 4, struct))
    pq.write_table(short, tmp_path / "parquet" / "0000.parquet")
    assert "row 1: 5 candidates and 0 images" in fault(WinogavilSet("w", tmp_path / "parquet"))


def test_winogavil_sets_that_are_wrong(tmp_path):
    folder = write_winogavil(tmp_path / "w")
    table, good = folder / "winogavil.csv", (folder / "winogavil.csv").read_text()
    for text, said in (
        (good.replace("owl,", " ,", 1), "row 1: the cue is empty"),
        (
            good.replace("'thing2', 'thing3']", "'thing2', 'other']", 1),
            "row 2: association 'other' is not among",
        ),
        (
            good.replace("'thing0', 'thing1'", "'thing0', 'thing0'", 1),
            "row 1: candidates name 'thing0' twice",
        ),
        (good.replace("\"['thing0', 'thing1']\"", "[]", 1), "row 1: associations is '[]', expected texts"),
    ):
        table.write_text(text)
        with pytest.raises(SetError, match=r"winogavil\.csv") as caught:
            _ = WinogavilSet("w", folder, 4).instances
        assert said in str(caught.value)
    table.write_text(good)
    with pytest.raises(SetError, match="holds 4 instances, expected 5"):
        _ = WinogavilSet("w", folder, 5).instances
    with zipfile.ZipFile(folder / "winogavil_images.zip", "w") as pack:
        pack.writestr("winogavil_images/thing0.jpg", b"x")
    assert "there is no picture 'thing1'" in fault(WinogavilSet("w", folder, 4))


# ---------------------------------------------------------------- random sets, and the real one


def test_suite_of_every_kind_is_what_it_says(tmp_path):
    suite = write_suite(tmp_path, size=13)
    assert [t.key for t in suite] == list(SUITE)
    for tiny in suite:
        data = open_set(tiny, tmp_path)
        assert all(Image.open(io.BytesIO(i)).size == (8, 8) for i in rows(data)[1])


def test_cifar10_as_it_is_published():
    folder = SHARED / "wds_cifar10_test"
    if not folder.is_dir():
        pytest.skip(f"the shared data folder has no wds_cifar10_test ({SHARED})")
    data = open_set(task("cifar10"), SHARED)
    assert data.directory == folder and data.size == 10_000
    assert data.classes[0] == "airplane" and data.templates[0] == "a photo of a {c}"
    counts, seen = np.zeros(10, int), set()
    for batch in data.batches(1000):
        counts += np.bincount(batch.columns["label"], minlength=10)
        seen.update(batch.ids)
        assert all(i.startswith(b"\xff\xd8") for i in batch.images)
    assert counts.tolist() == [1000] * 10 and len(seen) == 10_000
    assert len(data.fingerprint) == 32
