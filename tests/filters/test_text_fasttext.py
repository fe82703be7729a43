"""fastText without the library gives what the library gives. Models of every kind are trained here."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.text import fasttext_file, fasttext_model
from filters.text.fasttext_model import Model
from filters.text.language import find_model

fasttext = pytest.importorskip("fasttext", reason="fasttext is not installed: nothing to compare with")

# name → settings of training; of quantisation, if any
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "softmax": ({"dim": 10}, None),
    "softmax, two-grams": ({"dim": 16, "wordNgrams": 2, "bucket": 3000}, None),
    "softmax, three-grams and subwords": (
        {"dim": 32, "wordNgrams": 3, "bucket": 4096, "minn": 1, "maxn": 3},
        None,
    ),
    "softmax, subwords, one bucket": ({"dim": 7, "minn": 2, "maxn": 2, "bucket": 1}, None),
    "tree": ({"dim": 12, "loss": "hs"}, None),
    "tree, subwords": ({"dim": 16, "loss": "hs", "minn": 2, "maxn": 4, "bucket": 2000}, None),
    "negative sampling": ({"dim": 20, "loss": "ns", "wordNgrams": 2, "bucket": 1000}, None),
    "one against all": ({"dim": 10, "loss": "ova"}, None),
    "one against all, subwords": ({"dim": 17, "loss": "ova", "minn": 3, "maxn": 6, "bucket": 999}, None),
    "quantised": ({"dim": 10, "wordNgrams": 2, "bucket": 1000}, {}),
    "quantised, norms": ({"dim": 11, "wordNgrams": 2, "bucket": 1000}, {"qnorm": True, "dsub": 3}),
    "quantised, output too": (
        {"dim": 16, "wordNgrams": 2, "bucket": 1000},
        {"qnorm": True, "qout": True},
    ),
    "quantised, pruned": (
        {"dim": 16, "wordNgrams": 2, "bucket": 2000, "minn": 2, "maxn": 3},
        {"qnorm": True, "cutoff": 600, "retrain": True},
    ),
    "quantised, pruned tree": (
        {"dim": 16, "loss": "hs", "minn": 2, "maxn": 4, "bucket": 2000},
        {"cutoff": 700, "retrain": False},
    ),
    "quantised, pruned to words": ({"dim": 12, "minn": 0, "maxn": 0}, {"cutoff": 260, "qnorm": True}),
}
SCRIPTS = ("abcdefghijklmnop", "абвгдежзик", "αβγδεζηθ", "漢字仮名交文章", "ابتثجحخ", "กขคฆง", "éüßøł")
LABELS = [f"__label__{name}" for name in "abcdefghij"]


def vocabulary() -> list[list[str]]:
    """Words of each label."""
    rng = np.random.default_rng(5)
    return [
        ["".join(rng.choice(list(SCRIPTS[k % len(SCRIPTS)]), rng.integers(1, 9))) for _ in range(80)]
        for k in range(len(LABELS))
    ]


ALL_WORDS = [word for words in vocabulary() for word in words]


class Trained(NamedTuple):
    path: str
    theirs: Any
    ours: Model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(6)
    lines, many = [], []
    for _ in range(90):
        for k, words in enumerate(vocabulary()):
            if rng.random() < 0.5 + k / 20:  # no two labels as often: their order makes the tree
                lines.append(f"{LABELS[k]} {' '.join(rng.choice(words, rng.integers(1, 9)))}")
    for k, word in enumerate(ALL_WORDS[:300]):
        many += [f"__label__{k} {word} {' '.join(rng.choice(ALL_WORDS, 2))}"] * 3
    corpora = {name: folder / f"{name}.txt" for name in ("few labels", "many labels")}
    for corpus, text in zip(corpora.values(), (lines, many), strict=True):
        corpus.write_text("\n".join(text) + "\n", encoding="utf-8")
    common = {"epoch": 5, "lr": 0.5, "thread": 1, "verbose": 0, "minCount": 1, "seed": 3}
    trained = {}
    for number, (name, (train, quantise)) in enumerate(KINDS.items()):
        corpus = corpora["many labels" if "output" in name else "few labels"]
        model = fasttext.train_supervised(str(corpus), **common, **train)
        if quantise is not None:
            options = {"epoch": 1, "lr": 0.1} if quantise.get("retrain") else {}
            model.quantize(input=str(corpus), thread=1, verbose=0, **quantise, **options)
        path = str(folder / f"{number}.model")
        model.save_model(path)
        trained[name] = Trained(path, fasttext.FastText._FastText(model_path=path), fasttext_model.load(path))
    return trained


def compare(model: Trained, lines: list[str]) -> None:
    """Labels and probabilities of lines without newlines, ours against the library's."""
    loss = fasttext_file.read(model.path).loss
    exact = fasttext_file.read(model.path).maxn == 0
    # a table of sigmoids: the last bit of a sum can choose the entry beside
    tolerance = 1e-4 if exact or loss in (fasttext_file.HS, fasttext_file.SOFTMAX) else 8e-3
    top = model.ours.top(pa.array(lines, pa.string()))
    labels, chances = top.labels.to_pylist(), top.probabilities.to_pylist()
    asked = model.theirs.labels[: len(LABELS)]
    each = {label: model.ours.probability(pa.array(lines, pa.string()), label) for label in asked}
    found, values = model.theirs.predict(lines, k=len(model.theirs.labels)) if lines else ([], [])
    if exact and lines:  # the same operations in the same order: even of equals the same one
        first = [
            names[0].removeprefix("__label__") if names else None for names in model.theirs.predict(lines)[0]
        ]
        assert [a for a in labels if a] == [b for a, b in zip(labels, first, strict=True) if a]
    for row, (line, names, theirs) in enumerate(zip(lines, found, values, strict=True)):
        known = dict(zip(names, theirs.tolist(), strict=True))
        if not line or line.isspace() or not known:
            assert labels[row] is None and chances[row] is None
            assert not any(values[row] for values in each.values())
            continue
        best = max(known.values())
        ours = known.get(f"__label__{labels[row]}", 0.0)
        assert ours == pytest.approx(best, abs=tolerance), (line, names, labels[row])
        if tolerance == 1e-4 and ours < best:
            assert best - ours < 1e-6, (line, names, labels[row])  # a tie
        assert chances[row] == pytest.approx(min(1, best), abs=tolerance), line
        for label, values in each.items():
            assert values[row] == pytest.approx(min(1, known.get(label, 0.0)), abs=tolerance), (line, label)


WORD = st.one_of(
    st.sampled_from(ALL_WORDS),
    st.sampled_from(ALL_WORDS),
    st.text(max_size=6),
    st.sampled_from(
        ["</s>", "__label__", "__label__a", "__label__zz", "__label_", "<", ">", "\0", "\x1f", "\xa0"]
    ),
    st.text(SCRIPTS[0] + SCRIPTS[3], min_size=28, max_size=70),
)
GAP = st.sampled_from([" ", " ", " ", "  ", "\t", "\r", "\v", "\f", "\0", "\x85", "\u3000", ""])
LINE = st.lists(st.tuples(WORD, GAP), max_size=40).map(
    lambda parts: "".join(word + gap for word, gap in parts).replace("\n", " ")
)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(lines=st.lists(LINE, max_size=12))
def test_every_kind_of_model_on_any_text(models, name, lines):
    compare(models[name], lines)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_on_its_own_words(models, name):
    rng = np.random.default_rng(7)
    lines = [" ".join(rng.choice(ALL_WORDS, rng.integers(1, 200))) for _ in range(100)]
    lines += [" ".join(rng.choice(words, rng.integers(1, 20))) for words in vocabulary() for _ in range(6)]
    lines += [
        "",
        " ",
        "\u3000\x85",
        "\0",
        "</s>",
        "x </s> " + lines[0],
        "__label__a " + lines[1],
        f"{ALL_WORDS[0]} __label__unknown {ALL_WORDS[1]} __label__ {ALL_WORDS[2]}",
        "漢字" * 900,
    ]
    lines += ["q" * n for n in (31, 32, 33, 63, 64, 65)] + ["a" * 31 + " b", "a" * 32 + " b", "é" * 16 + " b"]
    compare(models[name], lines)
    found = set(models[name].ours.top(pa.array(lines)).labels.to_pylist())
    assert len(found) >= (2 if "one bucket" in name else 5)


# -------------------------------------------------------------------------------- nothing but the text counts


def texts_of(seed: int, n: int) -> list[str]:
    rng = np.random.default_rng(seed)
    gaps = [" ", "\n", "\n\n", "  ", "\t"]
    return [
        "".join(word + rng.choice(gaps) for word in rng.choice(ALL_WORDS, rng.integers(0, 120)))
        for _ in range(n)
    ]


SOME = ("softmax, three-grams and subwords", "tree, subwords", "quantised, pruned", "softmax, two-grams")


@pytest.mark.parametrize("name", SOME)
def test_neither_memo_nor_neighbours_nor_place_count(models, name):
    texts, path = texts_of(1, 200), models[name].path
    column = pa.array(texts)
    whole = models[name].ours.top(column)
    small = Model(fasttext_file.read(path), memo_bytes=1)
    assert small.top(column) == whole and small.top(column) == whole
    backwards = small.top(pa.array(texts[::-1]))
    assert backwards.labels.to_pylist() == whole.labels.to_pylist()[::-1]
    assert backwards.probabilities.to_pylist() == whole.probabilities.to_pylist()[::-1]
    label = LABELS[0]
    chances = small.probability(column, label)
    for at, n in ((0, 1), (7, 13), (199, 1)):
        assert small.top(column.slice(at, n)).probabilities == whole.probabilities.slice(at, n)
        assert np.array_equal(small.probability(column.slice(at, n), label), chances[at : at + n])
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        assert models[name].ours.top(column.cast(kind)) == whole
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda at: small.top(column.slice(at, 50)), (0, 50, 100, 150)))
    assert pa.concat_arrays([part.probabilities for part in parts]) == whole.probabilities


@pytest.mark.parametrize("name", SOME[1:])
def test_bytes_after_the_last_text_are_not_needed(models, name):
    for text in texts_of(2, 60):
        data = text.encode()
        tight = pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(struct.pack("<2i", 0, len(data))), pa.py_buffer(data)]
        )
        roomy = pa.array([text, "x" * 100]).slice(0, 1)
        assert models[name].ours.top(tight) == models[name].ours.top(roomy)
        assert models[name].ours.probability(tight, LABELS[1]) == models[name].ours.probability(
            roomy, LABELS[1]
        )


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("quantised")])
def test_a_large_quantised_matrix_stays_coded_and_says_the_same(models, name):
    coded = Model(fasttext_file.read(models[name].path), unfolded_bytes=0)
    assert len(coded._input.rows) == 0 and len(coded._input.codes) > 0
    column = pa.array(texts_of(3, 100))
    assert coded.top(column) == models[name].ours.top(column)


def test_dense_matrices_are_mapped(models):
    model = models["softmax, two-grams"].ours
    assert np.shares_memory(model._input.rows, model._file.data)
    assert isinstance(model._file.data.base, np.memmap) or isinstance(model._file.data, np.memmap)


# ------------------------------------------------------------------------------------- what is read of a text


@pytest.mark.parametrize("max_chars", [0, 1, 5, 31, 32, 33, 64, 200])
def test_first_characters_and_newlines(models, max_chars):
    texts = [*texts_of(4, 150), "𝄞" * 40, "é" * 64, "", "\n", " \n ", "a" * 33, "漢\n字" * 30]
    for name in ("tree, subwords", "softmax, two-grams"):
        model = models[name].ours
        for newline in (" ", ""):
            lines = [(t[:max_chars] if max_chars else t).replace("\n", newline) for t in texts]
            got, wanted = model.top(pa.array(texts), max_chars, newline), model.top(pa.array(lines))
            assert got[:2] == wanted[:2]
            assert got.cut.to_pylist() == [bool(max_chars) and len(t) > max_chars for t in texts]
    with pytest.raises(ValueError, match="expected a space or nothing"):
        model.top(pa.array(["a"]), newline="\t")


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(LINE, max_size=6), n=st.integers(1, 6))
def test_chunks_of_words(models, texts, n):
    model = models["softmax, three-grams and subwords"].ours
    got = model.probability(pa.array(texts, pa.string()), LABELS[2], chunk_words=n)
    for text, chance in zip(texts, got, strict=True):
        words = text.split()
        chunks = [" ".join(words[i : i + n]) for i in range(0, len(words), n)]
        each = model.probability(pa.array(chunks, pa.string()), LABELS[2])
        assert chance == pytest.approx(each.mean() if chunks else 0.0, rel=1e-12)


def test_null_and_blank(models):
    model = models["softmax"].ours
    column = pa.array([None, "", " \n\u3000", ALL_WORDS[0]])
    top = model.top(column)
    assert (
        top.labels.is_null().to_pylist()
        == [True, True, True, False]
        == top.probabilities.is_null().to_pylist()
    )
    assert top.cut.to_pylist() == [None, False, False, False]
    assert (model.probability(column, LABELS[0]) > 0).tolist() == [False, False, False, True]
    assert model.top(pa.array([], pa.string())).labels.to_pylist() == []
    with pytest.raises(ValueError, match=r"\.model: no label 'a'; the model has __label__a"):
        model.probability(column, "a")
    with pytest.raises(TypeError, match="read a string column"):
        model.top(pa.array([1]))


def test_a_tree_of_one_label(tmp_path):
    (tmp_path / "corpus.txt").write_text("__label__only some words of text\n" * 20)
    theirs = fasttext.train_supervised(
        str(tmp_path / "corpus.txt"), loss="hs", dim=4, minCount=1, thread=1, verbose=0
    )
    theirs.save_model(str(tmp_path / "m.bin"))
    ours = fasttext_model.load(str(tmp_path / "m.bin")).top(pa.array(["words of", "unknown"]))
    assert ours.labels.to_pylist() == ["only", "only"]
    assert ours.probabilities.to_pylist() == [
        min(1, theirs.predict(t)[1][0]) for t in ("words of", "unknown")
    ]


# ---------------------------------------------------------------------------------------------------- lid.176


def test_languages_of_real_pages(tmp_path):
    """An eighth of the embedded pool, first 2,000 characters and whole."""
    try:
        path = find_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    pytest.importorskip("resiliparse", reason="resiliparse is not installed: no text to read")
    import curation as c
    from filters.text.extract import extract
    from pools import demo_text

    shard = sorted(demo_text.unpack().glob("*.warc.gz"))[0]
    c.run([c.read(str(shard)), extract(), c.write(tmp_path)], workers=1, progress=False, funnel=False)
    texts = pq.read_table(tmp_path / "data", columns=["text"])["text"].to_pylist()
    theirs, ours = fasttext.FastText._FastText(model_path=path), fasttext_model.load(path)
    assert len(texts) > 250
    for max_chars in (2000, 0):
        top = ours.top(pa.array(texts), max_chars)
        lines = [(text[:max_chars] if max_chars else text).replace("\n", " ") for text in texts]
        found, values = theirs.predict(lines)
        rows = [row for row, line in enumerate(lines) if line.strip()]
        assert [top.labels[row].as_py() for row in rows] == [found[row][0][9:] for row in rows]
        wanted = [min(1, float(values[row][0])) for row in rows]
        assert [top.probabilities[row].as_py() for row in rows] == pytest.approx(wanted, abs=2e-5)


# ------------------------------------------------------------------------------------------------ wrong files


def test_a_file_cut_short_anywhere_is_refused(models, tmp_path):
    for name in ("softmax, two-grams", "quantised, pruned", "tree, subwords", "quantised, output too"):
        whole = Path(models[name].path).read_bytes()
        rng = np.random.default_rng(8)
        cuts = {0, 3, 8, 60, 70, 90, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()}
        path = tmp_path / "cut.bin"
        for cut in cuts:
            path.unlink(missing_ok=True)
            path.write_bytes(whole[:cut])
            with pytest.raises(ValueError, match=r"cut\.bin: (cut short|not a fastText model)"):
                fasttext_model.load(str(path))


def test_wrong_files_say_what_is_wrong(models, tmp_path):
    whole = Path(models["quantised, pruned"].path).read_bytes()
    path = tmp_path / "wrong.ftz"

    def refuse(data: bytes, message: str) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"wrong\.ftz: " + message):
            fasttext_model.load(str(path))

    def changed(at: int, value: int, kind: str = "<i") -> bytes:
        return whole[:at] + struct.pack(kind, value) + whole[at + struct.calcsize(kind) :]

    refuse(b"PK\3\4" + bytes(100), "not a fastText model")
    refuse(changed(4, 13), "fastText file format 13; 11 and 12 can be read")
    refuse(changed(8, 0), r"damaged settings \(dim 0\)")
    refuse(changed(8 + 4 * 6, 9), r"damaged settings \(loss 9\)")
    refuse(changed(8 + 4 * 7, 1), r"word vectors \(cbow\), not a classifier")
    refuse(changed(8 + 4 * 7, 7), r"damaged settings \(model 7\)")
    refuse(changed(8 + 4 * 8, 0), "damaged settings .n-grams without buckets.")
    refuse(changed(64, 10**9), r"damaged dictionary \(1000000000 entries")
    refuse(changed(8, 18), "damaged: the input matrix is .* the settings ask for")
    words = struct.unpack_from("<i", whole, 68)[0]
    file = fasttext_file.read(models["quantised, pruned"].path)
    kind = int(file.starts[1]) - 1  # the type of the first entry
    refuse(changed(kind, 1, "<b"), f"damaged dictionary: entry 0 of {words + 10} is neither")
    pruned = whole.index(file.kept.tobytes())
    refuse(changed(pruned, -5), "damaged: the list of n-grams kept")
    refuse(changed(pruned + 4, 10**6), "damaged: the list of n-grams kept")
    end = pruned + 8 * len(file.kept)
    refuse(changed(end, 2, "<b"), "the mark of a quantised input matrix is 2 at byte")
    refuse(changed(end, 0, "<b"), "pruned but not quantised")
    refuse(changed(end + 2, -1, "<q"), "damaged: the input matrix would be -1 x 16")
    refuse(changed(end + 18, 5), "damaged|cut short")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        fasttext_model.load(str(tmp_path / "none.bin"))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        fasttext_model.load(str(tmp_path))


def test_word_vectors_are_refused(tmp_path):
    (tmp_path / "corpus.txt").write_text("some words of text\n" * 50)
    model = fasttext.train_unsupervised(str(tmp_path / "corpus.txt"), dim=4, minCount=1, thread=1, verbose=0)
    model.save_model(str(tmp_path / "vectors.bin"))
    with pytest.raises(ValueError, match=r"vectors\.bin: word vectors \(skipgram\), not a classifier"):
        fasttext_model.load(str(tmp_path / "vectors.bin"))
