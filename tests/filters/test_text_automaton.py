"""The compiled automaton against plain Python, over random Unicode and hand-made borders."""

from __future__ import annotations

import time
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.text import automaton, codepoints, lowercase
from filters.text.automaton import compile_patterns

# ------------------------------------------------------------------------------------------------- oracle


def fold(text: str, delete: str, case: str) -> str:
    text = "".join(char for char in text if char not in delete)
    if case == "ascii":
        return "".join(char.lower() if char.isascii() else char for char in text)
    return lowercase.lower(text) if case == "unicode" else text


def of_a_word(char: str) -> bool:
    kind = codepoints.load()[char]
    return bool(kind & codepoints.SOLID) or kind & codepoints.KIND == codepoints.WORD


def oracle(text: str, patterns: list[str], delete: str, case: str, boundary: str) -> tuple[int, str | None]:
    """(different patterns found, the normalised one that ends first, the longest of several)."""
    text = fold(text, delete, case)
    found = []
    for pattern in dict.fromkeys(fold(p, delete, case) for p in patterns):
        for at in range(len(text) - len(pattern) + 1):
            end = at + len(pattern)
            if text[at:end] != pattern:
                continue
            alone = not (at and of_a_word(text[at - 1])) and not (end < len(text) and of_a_word(text[end]))
            if boundary == "none" or alone:
                found.append((end, -len(pattern.encode()), pattern))
                break
    return len(found), min(found)[2] if found else None


LETTERS = ["a", "b", "A", "B", "-", ".", "_", " ", "1", "é", "É", "ß", "Σ", "σ", "İ", "i", "Ⱥ", "ⱥ"]
LETTERS += ["中", "文", "ก็", "\u0301", "K", "😀", "я", "Я", "\x00", "%"]
TEXT = st.one_of(st.lists(st.sampled_from(LETTERS), max_size=40).map("".join), st.text(max_size=30))
PATTERN = st.one_of(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=5).map("".join), st.text(min_size=1, max_size=4)
)


def agree(texts, patterns, delete, case, boundary):
    patterns = [p for p in patterns if fold(p, delete, case)]
    hits = compile_patterns(patterns, delete=delete, case=case, boundary=boundary).find(pa.array(texts))
    for row, text in enumerate(texts):
        count, first = oracle(text, patterns, delete, case, boundary)
        word = hits.word()[row].as_py()
        assert hits.counts[0, row] == count, (text, patterns)
        assert (None if word is None else fold(word, delete, case)) == first, (text, patterns)


options = {
    "texts": st.lists(TEXT, min_size=1, max_size=6),
    "patterns": st.lists(PATTERN, max_size=12),
    "delete": st.sampled_from(["", "-.", "1 "]),
    "case": st.sampled_from(automaton.CASES),
    "boundary": st.sampled_from(automaton.BOUNDARIES),
}


@settings(max_examples=200, deadline=None)
@given(**options)
def test_matches_the_oracle(texts, patterns, delete, case, boundary):
    agree(texts, patterns, delete, case, boundary)


@settings(max_examples=150, deadline=None)
@given(cells=st.sampled_from([4, 64]), **options)
def test_deep_states_outside_the_dense_rows_match_too(cells, texts, patterns, delete, case, boundary):
    whole, automaton.DENSE_CELLS = automaton.DENSE_CELLS, cells
    try:
        agree(texts, patterns, delete, case, boundary)
    finally:
        automaton.DENSE_CELLS = whole


# ------------------------------------------------------------------------------------------------ borders


def find(text: str | list, *lists, **kwargs):
    return compile_patterns(*lists, **kwargs).find(pa.array([text] if isinstance(text, str) else text))


def test_several_lists_share_a_pass_and_count_apart():
    hits = find(["poker bonus", "poker poker", "bonus", "", None], ["poker", "x"], ["Bonus", "poker"])
    assert hits.counts.tolist() == [[1, 1, 0, 0, 0], [2, 1, 1, 0, 0]]
    assert hits.word(0).to_pylist() == ["poker", "poker", None, None, None]
    assert hits.word(1).to_pylist() == ["poker", "poker", "Bonus", None, None]


def test_the_first_hit_is_the_one_that_ends_first_and_the_longest_of_those():
    assert find("ushers", ["he", "she", "hers"]).word().to_pylist() == ["she"]
    assert find("abcd", ["abcd", "bc"]).word().to_pylist() == ["bc"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sex", 1),
        ("Sex!", 1),
        ("essex", 0),
        ("sexy", 0),
        ("sex_", 0),
        ("_sex", 0),
        ("sex1", 0),
        ("(sex)", 1),
        ("ésex", 0),
        ("sexé", 0),
        ("sex\u0301", 0),  # a mark belongs to the letter before it
        ("中sex文", 0),
        ("、sex。", 1),
        ("essex sex", 1),
    ],
)
def test_boundaries(text, expected):
    assert find(text, ["sex"], boundary="unicode").counts.tolist() == [[expected]]


def test_a_pattern_of_several_words_and_of_signs_stands_alone():
    hits = find(
        ["a hot  date", "a hot date.", "shot date", "c++", "ac++", "c++x"],
        ["hot date", "c++"],
        boundary="unicode",
    )
    assert hits.counts.tolist() == [[0, 1, 0, 1, 0, 0]]


def test_deletion_joins_what_it_parts_and_boundaries_look_past_it():
    assert find("p.o-r.n", ["por-n"], delete="-.").counts.tolist() == [[1]]
    assert find(["x-porn", "porn-", "porn- x"], ["porn"], delete="-", boundary="unicode").counts.tolist() == [
        [0, 1, 1]
    ]


def test_case_of_other_scripts():
    assert find("ПОРНО", ["порно"]).counts.tolist() == [[1]]
    assert find("ПОРНО", ["порно"], case="ascii").counts.tolist() == [[0]]
    assert find(["Aé", "aé", "aÉ"], ["AÉ"], case="keep").counts.tolist() == [[0, 0, 0]]
    assert find("Ⱥ", ["ⱥ"]).counts.tolist() == [[1]]  # two bytes become three


def test_malformed_utf8_is_read_byte_by_byte():
    raw = pa.array([b"\xff\xfeporn\xe4", b"\xc3porn", b"\xf0\x9f\x98"], pa.binary())
    assert compile_patterns(["porn"]).find(raw).counts.tolist() == [[1, 1, 0]]


def test_slices_nulls_and_wide_columns():
    column = pa.array(["x", "porn", None, "a porn"], pa.large_string())
    assert compile_patterns(["porn"]).find(column.slice(1)).counts.tolist() == [[1, 0, 1]]
    chunked = pa.chunked_array([["porn"], ["x"]])
    assert compile_patterns(["porn"]).find(chunked).counts.tolist() == [[1, 0]]
    with pytest.raises(TypeError, match="this one is int64"):
        compile_patterns(["porn"]).find(pa.array([1]))


def test_no_patterns_find_nothing():
    hits = find(["a", ""], [], [])
    assert hits.counts.tolist() == [[0, 0], [0, 0]] and hits.word().to_pylist() == [None, None]


def test_patterns_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"'\.-' is empty once '-\.' is taken out"):
        compile_patterns(["a", ".-"], delete="-.")
    with pytest.raises(ValueError, match="empty string"):
        compile_patterns([""])
    with pytest.raises(ValueError, match="case='lower'"):
        compile_patterns(["a"], case="lower")
    with pytest.raises(ValueError, match="boundary='ascii'"):
        compile_patterns(["a"], boundary="ascii")
    for delete in ("–", "a"):
        with pytest.raises(ValueError, match="only ASCII characters that are not letters"):
            compile_patterns(["a"], delete=delete)


def test_a_hundred_thousand_patterns():
    rng = np.random.default_rng(0)
    letters = [chr(cp) for cp in (*range(97, 123), *range(0x430, 0x450))]
    patterns = ["".join(rng.choice(letters, n)) for n in rng.integers(6, 14, 100_000)]
    start = time.process_time()
    built = compile_patterns(patterns)
    spent = time.process_time() - start
    assert built.n_states > built.n_dense  # rows for the shallow states only
    assert spent < 20  # about half a second; a build that is not linear would take minutes
    sample = rng.choice(len(patterns), 200)
    texts = [f"{patterns[i][:4]} {patterns[i].upper()} {patterns[i][1:-1]}" for i in sample]
    hits = built.find(pa.array(texts))
    contained = [set() for _ in texts]
    for length in range(6, 14):
        same = {p for p in patterns if len(p) == length}
        for found, text in zip(contained, (t.lower() for t in texts), strict=True):
            found |= {text[i : i + length] for i in range(len(text) - length + 1)} & same
    assert hits.counts[0].tolist() == [len(found) for found in contained]


# -------------------------------------------------------------------------------------------- lower case


def test_lower_case_table_is_the_simple_mapping():
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip(f"the table is of Unicode 14.0.0, this Python's is {unicodedata.unidata_version}")
    rest = [chr(cp) for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]
    for char in rest:
        low = char.lower()
        assert lowercase.lower(char) == (low if len(low) == 1 else "i"), hex(ord(char))


def test_lower_case_is_that_of_arrow_on_common_scripts():
    text = "ABCÀÉÎÕÜŸŐĦŁŘΑΒΓΣΩАБВЯЂЏԱԲႠႡⰀⰁⱣꙀꚀＡＺ𐐀𝐀ẞSSİI"
    assert lowercase.lower(text) == pc.utf8_lower(pa.scalar(text)).as_py()
