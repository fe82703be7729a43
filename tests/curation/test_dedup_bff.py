"""Seen-before deduplication against the same algorithm in plain Python, and the word split it stands on.

The oracle keeps n-grams as tuples of words in a set; the compiled pass keeps 64-bit hashes of them, in a set
or a Bloom filter.
"""

import json
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from barrier_harness import run, split
from hypothesis import given, settings
from hypothesis import strategies as st
from support import fingerprint, read_rows, write_text_pool

import curation as c
from curation.barriers import _bff_kernels as kernels
from curation.barriers import _word_break as wb
from curation.barriers.bff import bloom_size
from curation.errors import PlanError

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"id": [f"{i:04d}" for i in range(len(texts))], "text": texts}, schema=SCHEMA)


# ------------------------------------------------------------------------------------------------------ words


def class_of(char: str) -> int:
    pages, classes = wb.tables()
    return int(classes[int(pages[ord(char) >> 8]) << 8 | ord(char) & 255])


def words(text: str) -> list[str]:
    """UAX #29, rule by rule; white space is left out."""
    letters = (wb.ALETTER, wb.HEBREW)
    mids = {
        letters: (wb.MIDLETTER, wb.MIDNUMLET, wb.SINGLE_QUOTE),
        (wb.NUMERIC,): (wb.MIDNUM, wb.MIDNUMLET, wb.SINGLE_QUOTE),
    }
    out: list[str] = []
    for chunk in "".join(" " if class_of(char) & wb.SPACE else char for char in text).split(" "):
        # characters with what WB4 makes part of them: (class, text, ends in a joiner, pictograph)
        units: list[list] = []
        for char in chunk:
            kind = class_of(char) & wb.CLASS
            if kind == wb.EXTEND and units:
                units[-1][1] += char
                units[-1][2] = char == "\u200d"
            else:
                units.append([kind, char, char == "\u200d", bool(class_of(char) & wb.PICTOGRAPH)])

        def joined(i: int, units=units) -> bool:
            (a, _, joiner, _), (b, _, _, picture) = units[i - 1], units[i]
            before = units[i - 2][0] if i > 1 else None
            after = units[i + 1][0] if i + 1 < len(units) else None
            if joiner and picture:  # WB3c
                return True
            word = (*letters, wb.NUMERIC)
            if a in word and b in word:  # WB5, 8, 9, 10
                return True
            for ends, middle in mids.items():  # WB6, 7, 11, 12
                if (a in ends and b in middle and after in ends) or (
                    before in ends and a in middle and b in ends
                ):
                    return True
            if a == wb.HEBREW and b == wb.SINGLE_QUOTE:  # WB7a
                return True
            if (a, b, after) == (wb.HEBREW, wb.DOUBLE_QUOTE, wb.HEBREW) or (before, a, b) == (
                wb.HEBREW,
                wb.DOUBLE_QUOTE,
                wb.HEBREW,
            ):  # WB7b, 7c
                return True
            if a == b == wb.KATAKANA:  # WB13
                return True
            connected = (*word, wb.KATAKANA, wb.EXTENDNUMLET)
            if (a in connected and b == wb.EXTENDNUMLET) or (a == wb.EXTENDNUMLET and b in connected):
                return True  # WB13a, 13b
            flags = 0
            while i - 1 - flags >= 0 and units[i - 1 - flags][0] == wb.REGIONAL:
                flags += 1
            return b == wb.REGIONAL and flags % 2 == 1  # WB15, 16

        for i, unit in enumerate(units):
            if i and joined(i):
                out[-1] += unit[1]
            else:
                out.append(unit[1])
    return out


def word_hashes(text: str) -> list[int]:
    return kernels.shingle(pa.array([text]), 1, 1, False, 0)[0].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.14, or 1,000.50.", ["It's", "3.14", ",", "or", "1,000.50", "."]),
        ("a_b c-d e.g. 'x'", ["a_b", "c", "-", "d", "e.g", ".", "'", "x", "'"]),
        ("“Straße” naïve nai\u0308ve", ["“", "Straße", "”", "naïve", "nai\u0308ve"]),
        ("漢字かなカタカナ한국", ["漢", "字", "か", "な", "カタカナ", "한국"]),
        ("צה\"ל ג'", ['צה"ל', "ג'"]),
        ("🇩🇪🇫🇷🇪 👩‍🚀!", ["🇩🇪", "🇫🇷", "🇪", "👩‍🚀", "!"]),
        ("don\u2019t a:b 1:2 1;2 a;b", ["don\u2019t", "a:b", "1", ":", "2", "1;2", "a", ";", "b"]),
        ("...\t\u3000\u00a0x\x1cy", [".", ".", ".", "x", "\x1c", "y"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("", []),
    ],
)
def test_words_are_those_of_uax_29(text, expected):
    assert words(text) == expected
    found = word_hashes(text)
    assert [expected.index(w) for w in expected] == [found.index(h) for h in found]


ALPHABET = (
    "abZ19'.,:;_\"- \u0301\u200d\u05d0\u05d1\u30a2\u3042漢é🇦🇧👩🚀\u2764\ufe0f\u0e01\u00ad\u2019\u00b7\uff0e"
    "\u0661\n\r\u00a0\u3000!\x1c\x00\u1100\uac00\u203f\u2028"
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from(ALPHABET), max_size=12) | st.text(max_size=30), min_size=1))
def test_words_are_those_of_the_oracle_in_any_text(texts):
    texts = [t.encode("utf-8", "ignore").decode() for t in texts]
    hashes, _, _, _, counts = kernels.shingle(pa.array(texts, pa.string()), 1, 1, False, 7)
    expected = [words(text) for text in texts]
    assert counts.tolist() == [len(w) for w in expected]
    flat = [w for ws in expected for w in ws]
    known: dict[str, int] = {}
    for word, value in zip(flat, hashes.tolist(), strict=True):
        assert known.setdefault(word, value) == value  # equal words, equal hashes
    assert len(set(known.values())) == len(known)  # and different, different


# ------------------------------------------------------------------------------------------------ the oracle


def oracle(texts: list[str | None], longest=13, shortest=13, threshold=0.8, mode="old-both") -> list[dict]:
    known: set[tuple[str, ...]] = set()
    out = []
    for text in texts:
        pieces = [text or ""]
        if mode != "document":
            head, *rest = (text or "").split("\n")
            pieces = [head, *("\n" + line for line in rest)]
        left, total, contained = [], 0, 0
        for piece in pieces:
            tokens = words(piece)
            ngrams = [tuple(tokens[i : i + longest]) for i in range(len(tokens) - longest + 1)]
            if not ngrams and len(tokens) >= shortest:
                ngrams = [tuple(tokens)]
            seen = sum(ngram in known for ngram in ngrams)
            total, contained = total + len(ngrams), contained + seen
            if not (ngrams and seen / len(ngrams) > threshold):
                left.append(piece)
                known.update(ngrams)
        after = "".join(left)
        keep = after == (text or "") or bool(words(after))
        if mode != "paragraph" and total and contained / total > threshold:
            keep = False
        size = len((text or "").encode())
        out.append(
            {
                "keep": keep,
                "bff_contained": contained / total if total else 0.0,
                "bff_removed": size - len(after.encode()) if keep else size,
                "text": None if text is None else after if keep else text,
            }
        )
    return out


LINES = st.lists(st.sampled_from(["a", "b", "c.", "dé", "  "]), max_size=7).map(" ".join)
TEXTS = st.none() | st.lists(LINES, max_size=6).map("\n".join)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(TEXTS, max_size=14), st.integers(1, 4), st.integers(0, 3),
    st.sampled_from([0, 0.3, 0.5, 0.8, 1]), st.sampled_from(["old-both", "paragraph", "document"]),
    st.integers(0, 9),
)  # fmt: skip
def test_the_exact_pass_is_the_oracles(texts, shortest, more, threshold, mode, seed):
    longest = shortest + more
    expected = oracle(texts, longest, shortest, threshold, mode)
    barrier = c.dedup_bff(
        mode=mode, min_ngram=shortest, max_ngram=longest, threshold=threshold, filter="exact", seed=seed
    )
    shards = split(table(texts), 3)
    for cut in (None, seed):  # whole shards in order; random batches, arriving in random order
        out, decision = run(barrier, shards, cut)
        assert [out[f"{i:04d}"] for i in range(len(texts))] == expected
    summary = decision.summary
    assert summary["rows_dropped"] == sum(not row["keep"] for row in expected)
    assert summary["bytes_removed"] == sum(row["bff_removed"] for row in expected)
    assert summary["rows_shortened"] == sum(row["keep"] and row["bff_removed"] > 0 for row in expected)
    assert summary["ngrams_contained"] <= summary["ngrams"]


def test_a_bloom_filter_without_false_positives_decides_like_a_set():
    order = random.Random(4)
    base = [" ".join(order.choices([f"w{i}" for i in range(40)], k=order.randint(1, 60))) for _ in range(60)]
    texts = ["\n".join(order.choices(base, k=order.randint(1, 5))) for _ in range(150)]
    exact, _ = run(c.dedup_bff(filter="exact"), split(table(texts), 4))
    bloom, decision = run(c.dedup_bff(fp_rate=1e-9), split(table(texts), 4), 1)
    assert bloom == exact
    assert {row["keep"] for row in exact.values()} == {True, False}
    assert decision.summary["rows_shortened"] > 5 and decision.summary["expected_false_positives"] == 0


# --------------------------------------------------------------------------------------- rules, made by hand


def line(n: int, name: str = "w") -> str:
    return " ".join(f"{name}{i}" for i in range(n))


def spliced(known: int, total: int, rest: str = "z", n: int = 3) -> str:
    """A line of `total` n-grams of which the first `known` are those of `line(…)`."""
    assert known <= total
    if known == 0:
        return line(total + n - 1, rest)
    return " ".join(line(known + n - 1).split() + [f"{rest}{i}" for i in range(total - known)])


def decided(first: str, second: str, **options) -> dict:
    options = {"min_ngram": 3, "max_ngram": 3, "filter": "exact"} | options
    return run(c.dedup_bff(**options), [table([first, second])])[0]["0001"]


@pytest.mark.parametrize(("known", "removed"), [(7, False), (8, False), (9, True), (10, True)])
def test_a_span_goes_above_the_threshold_not_at_it(known, removed):
    other = line(40, "q")
    row = decided(line(30), f"{other}\n{spliced(known, 10)}")
    assert row["keep"] and row["bff_contained"] == known / 48
    assert row["text"] == (other if removed else f"{other}\n{spliced(known, 10)}")


@pytest.mark.parametrize(("known", "dropped"), [(31, False), (32, False), (33, True)])
def test_a_row_goes_above_the_threshold_not_at_it(known, dropped):
    """40 n-grams in two spans, neither of which the span rule removes below 33 of 40."""
    text = f"{spliced(known // 2, 20)}\n{spliced(known - known // 2, 20, 'y')}"
    whole = decided(line(30), text, mode="old-both")
    assert whole["keep"] is not dropped and whole["bff_contained"] == known / 40
    spans_only = decided(line(30), text, mode="paragraph")
    assert spans_only["keep"]
    assert spans_only["text"] == (spliced(16, 20) if dropped else text)


def test_removed_spans_teach_nothing_and_kept_ones_do_even_in_a_dropped_row():
    again = f"{line(12)} new"  # 10 of 11 n-grams known: removed, "w10 w11 new" stays unknown
    texts = [line(12), again, "w10 w11 new", f"{line(12)}\n{line(3, 'k')}\n{again}", line(3, "k")]
    out, _ = run(c.dedup_bff(min_ngram=3, max_ngram=3, filter="exact"), [table(texts)])
    keep = [out[f"{i:04d}"]["keep"] for i in range(5)]
    # row 3: 21 of 22 n-grams known, dropped; its line k0 k1 k2 was learnt, so row 4 goes
    assert keep == [True, False, True, False, False]


def test_a_repeat_within_one_text_goes():
    out, _ = run(c.dedup_bff(), [table([f"{line(20)}\nshort\n{line(20)}\n{line(20, 'y')}"])])
    assert out["0000"]["text"] == f"{line(20)}\nshort\n{line(20, 'y')}" and out["0000"]["keep"]
    out, _ = run(c.dedup_bff(mode="document"), [table([f"{line(20)}\n{line(20)}"])])
    assert out["0000"]["bff_removed"] == 0 and out["0000"]["keep"]
    # all n-grams of a line are looked up before any of them is added
    out, _ = run(c.dedup_bff(min_ngram=1, max_ngram=1), [table(["a a a a a a"])])
    assert out["0000"]["keep"] and out["0000"]["bff_contained"] == 0


def test_short_spans():
    texts = ["a b c", "a b c", "a b", "a b", "a b c d", "a b c d"]
    keeps = lambda **o: [r["keep"] for r in run(c.dedup_bff(filter="exact", **o), [table(texts)])[0].values()]  # noqa: E731
    assert keeps(min_ngram=4, max_ngram=4) == [True, True, True, True, True, False]
    assert keeps(min_ngram=3, max_ngram=4) == [True, False, True, True, True, False]
    assert keeps(min_ngram=2, max_ngram=9) == [True, False, True, False, True, False]
    assert keeps(min_ngram=13, max_ngram=13) == [True] * 6


def test_rows_without_ngrams_are_left_alone_and_blank_remains_are_not():
    texts = ["", None, "  \n\n", "…", "", f"\n\n{line(13)}\n \n", f"\n{line(13)}\n\t\n\n"]
    out, decision = run(c.dedup_bff(mode="paragraph"), [table(texts)])
    rows = [out[f"{i:04d}"] for i in range(7)]
    assert [r["text"] for r in rows] == texts
    assert [r["keep"] for r in rows] == [True] * 6 + [False]  # its only line with words went
    assert decision.summary["spans_removed"] == 1 and decision.summary["rows_dropped"] == 1
    empty, decision = run(c.dedup_bff(), [table(["", None])])
    assert all(r["keep"] for r in empty.values()) and decision.summary["ngrams"] == 0


def test_cut_texts_keep_their_type_their_nulls_and_every_other_byte():
    kind = pa.schema([("id", pa.string()), ("text", pa.large_string())])
    texts = ["x", f"é\n{line(13)}\n漢", None, f"é\n{line(13)}\n漢\n{line(13)}\n", ""]
    rows = pa.table({"id": list("abcde"), "text": texts}, schema=kind).slice(1)
    out, _ = run(c.dedup_bff(mode="paragraph"), [rows])
    assert [r["text"] for r in out.values()] == [texts[1], None, "é\n漢\n", ""]


# ----------------------------------------------------------------------------------------------------- filter


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 1 << 14, 50_000, 1 << 17])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_false_positive_rate_is_what_was_asked_for(n, rate):
    bits, hashers = bloom_size(n, rate)
    fill = 1 - (1 - 1 / bits) ** (hashers * n)
    assert fill**hashers <= rate
    if n >= 1000:
        assert hashers == {0.01: 7, 0.1: 4}[rate] and bits / n == pytest.approx(
            {0.01: 9.59, 0.1: 4.81}[rate], abs=0.1
        )
    order = np.random.default_rng(n)
    filled = np.zeros(-(-bits // 64), np.uint64)
    members = order.integers(0, 2**64, n, dtype=np.uint64)
    state = fed(members, filled, bits, hashers)
    assert state[0] == sum(bin(int(word)).count("1") for word in filled)  # bits counted as they were set
    if n >= 1000:
        assert state[0] == pytest.approx(bits * fill, rel=0.02)
    assert looked_up(members, filled, bits, hashers) == n
    others = order.integers(0, 2**64, 100_000, dtype=np.uint64)
    if n >= 1000:
        assert rate / 2 < looked_up(others, filled, bits, hashers) / 100_000 < 2 * rate


@pytest.mark.parametrize("bits", [1 << 12, 1 << 16, 1 << 20, 1 << 21])
def test_sizes_that_are_powers_of_two_are_as_good_and_so_are_numbers_in_a_row(bits):
    n, hashers = bits // 10, 7
    fill = 1 - (1 - 1 / bits) ** (hashers * n)
    for members in (
        np.random.default_rng(bits).integers(0, 2**64, 2 * n + 100_000, dtype=np.uint64),
        kernels_mixed(np.arange(2 * n + 100_000)),
    ):
        filled = np.zeros(bits // 64, np.uint64)
        state = fed(members[:n], filled, bits, hashers)
        assert state[0] == pytest.approx(bits * fill, rel=0.03)
        found = looked_up(members[n : n + 100_000], filled, bits, hashers)
        assert found / 100_000 == pytest.approx(fill**hashers, rel=0.25)


def kernels_mixed(numbers: np.ndarray) -> np.ndarray:
    from curation.hashing import hash64

    return hash64(pa.array(numbers))


def pass_over(hashes: np.ndarray, filled, bits: int, hashers: int, threshold: float):
    """Every hash as a row of one span of one n-gram."""
    n = len(hashes)
    one, size = np.ones(n, np.int64), np.ones(n, np.int32)
    state, contained = np.zeros(5), np.empty(n, np.int64)
    kernels.deduplicate(
        hashes, one, one, size, size, filled, np.uint64(bits), hashers, threshold, True, state, contained,
        np.empty(n, np.int64), np.empty(n, np.bool_), np.empty(2 * n, np.int32), np.empty(n, np.int64),
    )  # fmt: skip
    return state, contained


def fed(hashes, filled, bits, hashers):
    return pass_over(hashes, filled, bits, hashers, 2.0)[0]  # nothing is above this threshold: all are added


def looked_up(hashes, filled, bits, hashers) -> int:
    return int(pass_over(hashes, filled.copy(), bits, hashers, -1.0)[1].sum())  # all are: none is added


def test_the_summary_estimates_the_false_positives_there_were():
    order = np.random.default_rng(3)
    hashes = order.integers(0, 2**64, 200_000, dtype=np.uint64)  # all different
    bits, hashers = bloom_size(len(hashes), 0.05)
    state, contained = pass_over(hashes, np.zeros(-(-bits // 64), np.uint64), bits, hashers, 2.0)
    assert state[2] == pytest.approx(contained.sum(), rel=0.1) and contained.sum() > 500


def test_seeds_change_false_positives_and_nothing_else():
    order = random.Random(0)
    texts = [" ".join(order.choices([f"w{i}" for i in range(300)], k=60)) for _ in range(400)]
    shares = []
    for seed in (0, 1):
        out, decision = run(c.dedup_bff(min_ngram=2, max_ngram=2, fp_rate=0.3, seed=seed), [table(texts)])
        shares.append([row["bff_contained"] for row in out.values()])
        assert 0.001 < decision.summary["fp_rate_at_end"] < 0.3
    assert shares[0] != shares[1] and np.mean(shares[0]) == pytest.approx(np.mean(shares[1]), rel=0.05)
    exact = [
        run(c.dedup_bff(min_ngram=2, max_ngram=2, filter="exact", seed=s), [table(texts)])[0] for s in (0, 1)
    ]
    assert exact[0] == exact[1]


def test_a_filter_larger_than_memory_is_refused_with_the_mend(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"total": 100})())
    with pytest.raises(MemoryError, match=r"within more groups of shards \(groups=2\)"):
        run(c.dedup_bff(), [table([line(600)])])


# ----------------------------------------------------------------------------------------------------- groups


def test_groups_know_only_their_own_shards():
    shards = [table([line(20)]).set_column(0, "id", pa.array([name])) for name in "abcdef"]
    keep = lambda g: [r["keep"] for r in run(c.dedup_bff(groups=g), shards, 1)[0].values()]  # noqa: E731
    assert keep(None) == keep(1) == [True, False, False, False, False, False]
    assert keep(2) == [True, True, False, False, False, False]
    assert keep(4) == [True, True, True, True, False, False]
    assert keep(100) == [True] * 6
    summary = run(c.dedup_bff(groups=4), shards)[1].summary
    assert summary["groups"] == 4 and summary["rows_dropped"] == 2


# --------------------------------------------------------------------------------------------- in the engine


def plan(pool, out, **options):
    return [
        c.read(pool),
        c.dedup_bff(min_ngram=5, max_ngram=5, **options),
        c.write(out, removed=f"{out}-removed"),
    ]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = write_text_pool(tmp_path_factory.mktemp("bff") / "pool", shards=6, rows=80)
    order = random.Random(2)
    for file in sorted(folder.glob("*.parquet")):
        rows = pq.read_table(file).to_pylist()
        for row in rows:  # lines in place of one long line, some of them common to many rows
            tokens = row["text"].split()
            lines = [" ".join(tokens[i : i + 12]) for i in range(0, len(tokens), 12)]
            row["text"] = "\n".join([*lines, *(line(9, f"common{order.randrange(5)}-") for _ in range(2))])
        pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


def test_a_run_decides_like_the_oracle_whatever_the_workers(pool, tmp_path):
    result = c.run(plan(pool, tmp_path / "one", filter="exact"), workers=1, progress=False)
    again = c.run(plan(pool, tmp_path / "two", filter="exact"), workers=2, progress=False)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    rows = [r for f in sorted(pool.glob("*.parquet")) for r in pq.read_table(f).to_pylist()]
    expected = oracle([r["text"] for r in rows], 5, 5)
    kept = {r["id"]: r for r in read_rows(tmp_path / "one")}
    assert set(kept) == {r["id"] for r, e in zip(rows, expected, strict=True) if e["keep"]}
    scores = {r["id"]: r for r in read_rows(tmp_path / "one", "scores/1")}
    assert len(scores) == len(rows) and "text" not in scores[rows[0]["id"]]
    for row, e in zip(rows, expected, strict=True):
        assert not e["keep"] or kept[row["id"]]["text"] == e["text"]
        for column in ("bff_contained", "bff_removed"):
            assert scores[row["id"]][column] == e[column]
    # dropped rows leave with the text they came with
    before = {r["id"]: r["text"] for r in rows}
    gone = read_rows(f"{tmp_path / 'one'}-removed", "1")
    assert gone and all(r["text"] == before[r["id"]] and r["dropped_by"] == "seen before" for r in gone)
    # the report: conservation, bytes, what was edited
    report = json.loads((tmp_path / "one/_winnow/report.json").read_text())
    step = report["steps"][1]
    assert step["rows_in"] == len(rows) == step["rows_out"] + step["dropped"] == 480
    assert result.dropped == again.dropped == {"seen before": step["dropped"]}
    edits = next(e for e in report["edits"] if e["step"] == 1)
    summary = report["barriers"][0]["summary"]
    assert edits["changed"] == summary["rows_shortened"] > 50 and edits["examples"]
    cut = edits["text_bytes_before"] - edits["text_bytes_after"]
    assert summary["bytes_removed"] == cut + report["reasons"][0]["text_bytes"]
    assert report["output"]["text_bytes"] == edits["text_bytes_after"]


def test_groups_in_a_run_are_shards_by_number(pool, tmp_path):
    c.run(plan(pool, tmp_path / "out", groups=2), workers=2, progress=False, funnel=False)
    parts = sorted(p.name for p in (tmp_path / "out/_winnow/work/0-barrier").glob("part-*"))
    assert parts == ["part-00000.arrow", "part-00001.arrow"]
    half = tmp_path / "half"
    half.mkdir()
    for file in sorted(pool.glob("*.parquet"))[1::2]:
        shutil.copy(file, half)
    c.run(plan(half, tmp_path / "alone"), workers=1, progress=False, funnel=False)
    chosen = {f.name for f in half.glob("*.parquet")}
    alone = {r["id"]: r["text"] for r in read_rows(tmp_path / "alone")}
    ids = {r["id"] for f in chosen for r in pq.read_table(pool / f).to_pylist()}
    together = {r["id"]: r["text"] for r in read_rows(tmp_path / "out") if r["id"] in ids}
    assert alone == together and len(alone) < len(ids)


def test_a_run_that_died_in_the_pass_resumes_with_the_same_bytes(pool, tmp_path, monkeypatch):
    c.run(plan(pool, tmp_path / "whole"), workers=1, progress=False, funnel=False)
    broken = lambda *_: (_ for _ in ()).throw(OSError("the machine went away"))  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "deduplicate", broken)
        with pytest.raises(c.RunFailed, match="the machine went away"):
            c.run(plan(pool, tmp_path / "out"), workers=1, progress=False, funnel=False)
    resumed = c.run(plan(pool, tmp_path / "out"), workers=1, progress=False, funnel=False)
    assert resumed.resumed == 6  # the shards' words and hashes are not made again
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "whole")


def test_in_a_recipe_it_goes_by_its_name(pool, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "title: t\nsteps: [read: '${pool}', dedup_bff: {min_ngram: 5, max_ngram: 5}, write: '${out}']\n"
    )
    step = c.load_plan(file).plan(pool=str(pool), out=str(tmp_path / "out"))[1]
    assert step == c.dedup_bff(min_ngram=5, max_ngram=5)
    file.write_text(file.read_text().replace("max_ngram", "max_ngrams"))
    with pytest.raises(PlanError, match="no parameter 'max_ngrams'"):
        c.load_plan(file).plan(pool=str(pool), out=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "DCLM used 'old-both'"),
        ({"filter": "set"}, "'bloom' or 'exact'"),
        ({"min_ngram": 0}, "min_ngram is 0"),
        ({"min_ngram": 14}, "min_ngram is 14 and max_ngram 13"),
        ({"groups": 0}, "groups is 0"),
        ({"threshold": 80}, "threshold is 80"),
        ({"fp_rate": 0}, "fp_rate is 0"),
        ({"on": "page.text"}, "a column, not a field"),
        ({"on": ""}, "needs a text column"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(PlanError, match=message):
        c.dedup_bff(**arguments)


def test_only_text_is_read():
    with pytest.raises(TypeError, match=r"on='n'.*the column is int64; it must be text"):
        c.dedup_bff("n").scatter(pa.record_batch({"id": ["a"], "n": [1]}))
