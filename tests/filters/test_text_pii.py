"""Personal data: borders by hand, plain Python over random text, datatrove's formatter on real pages."""

from __future__ import annotations

import ipaddress
import os
import pickle
import random
import re
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from filters.text.buffers import utf8
from filters.text.pii import (
    _NETWORKS,
    EMAILS,
    FINEWEB_IPS,
    IPS,
    IPV6S,
    PHONES,
    MaskPii,
    PiiCounts,
    find_pii,
    phone_at,
)

MARKS = {
    "email_replacement": "<E>",
    "ip_replacement": "<4>",
    "ipv6_replacement": "<6>",
    "phone_replacement": "<P>",
}


def mask(texts, **options) -> list[str | None]:
    column = pa.array([texts] if isinstance(texts, str) else texts, pa.string())
    out = MaskPii(**(MARKS | options))(pa.record_batch({"text": column}))["text"].to_pylist()
    return out[0] if isinstance(texts, str) else out


# ------------------------------------------------------------------------------------------------ e-mail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to a.b+c@mail.example.org.", "write to <E>."),
        ("<a@b.example>, (c@d.example)", "<<E>>, (<E>)"),
        ("a@b", "a@b"),
        ("a@b.c", "<E>"),
        ("@b.example", "@b.example"),
        ("a @b.example", "a @b.example"),
        ("a.@b.example", "a.@b.example"),
        (".a@b.example", ".<E>"),
        ("a..b@c.example", "a..<E>"),
        ("a@-b.example", "a@-b.example"),
        ("a@b-.example", "a@b-.example"),
        ("a@b.example-", "<E>-"),
        ("a@b..example", "a@b..example"),
        ("a@b@c.example", "a@<E>"),
        ("--a@b.example", "--<E>"),
        ("a@b.example@c.example", "<E>@c.example"),
        ("a@[8.8.8.8] a@[8.8.8]", "<E> a@[8.8.8]"),
        ("A_B@C.EXAMPLE\nx@y.example", "<E>\n<E>"),
        ("mailto:a@b.example?subject=x", "mailto:<E>?subject=x"),
        ("邮箱a@b.example谢谢", "邮箱<E>谢谢"),
        ("jörg.müller@köln.example", "<E>"),
        ("почта: иван@пример.рф", "почта: иван@пример.рф"),  # not an address of this rule
        ("x×a@b.example", "x×<E>"),
        ("it's not@home.", "it's not@home."),
    ],
)
def test_email(text, expected):
    assert mask(text) == expected


ATOMS = [
    "a",
    "B",
    "1",
    ".",
    "..",
    "@",
    "-",
    "_",
    "+",
    "'",
    " ",
    "com",
    "x.y",
    "é",
    "中",
    "я",
    "\n",
    "[",
    "1.2.3.4",
    "]",
]
EMAIL_TEXT = st.lists(st.sampled_from(ATOMS), max_size=25).map("".join)


def email_oracle(text: str) -> str:
    """The rule by regular expressions: each '@' in turn, the leftmost start that a local part can have."""
    latin = "À-ÖØ-öø-ɏ"
    atom = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{latin}-]"
    label = rf"[A-Za-z0-9{latin}](?:[A-Za-z0-9{latin}-]*[A-Za-z0-9{latin}])?"
    last = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    start = rf"(?:\b|(?<=[^\x00-\x7f{latin}])(?=[A-Za-z0-9_{latin}]))"
    local = rf"{start}{atom}+(?:\.{atom}+)*"
    return re.sub(rf"{local}@(?:(?:{label}\.)+{last}|\[1\.2\.3\.4\])", "<E>", text)


@settings(max_examples=200, deadline=None)
@given(st.lists(EMAIL_TEXT, min_size=1, max_size=8))
def test_email_matches_a_regular_expression(texts):
    assert mask(texts, ips=False, phones=False) == [email_oracle(text) for text in texts]


# ---------------------------------------------------------------------------------------------------- ip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 8.8.8.8:53, 8.8.4.4/24.", "from <4>:53, <4>/24."),
        ("10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1", "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1"),
        ("172.15.255.255 172.32.0.0", "<4> <4>"),
        ("127.0.0.1 169.254.1.1 0.0.0.0 255.255.255.255", "127.0.0.1 169.254.1.1 0.0.0.0 255.255.255.255"),
        ("100.63.255.255 100.64.0.0 100.127.255.255 100.128.0.0", "<4> 100.64.0.0 100.127.255.255 <4>"),
        ("224.0.0.1 239.255.255.255 240.0.0.0", "<4> <4> 240.0.0.0"),
        ("256.1.1.1 1.1.1.256 1.1.1", "256.1.1.1 1.1.1.256 1.1.1"),
        ("01.1.1.1 1.1.1.01 1.1.1.0", "01.1.1.1 1.1.1.01 <4>"),
        ("version 1.2.3.4.5 and v1.2.3.4 and 1.2.3.4beta", "version 1.2.3.4.5 and v1.2.3.4 and 1.2.3.4beta"),
        ("ends 1.2.3.4. Next", "ends <4>. Next"),
        ("地址8.8.8.8。", "地址<4>。"),
        ("[2a00:1450:4001:81b::200e]:443", "[<6>]:443"),
        ("2A00:1450:4001:081B:0000:0000:0000:200E.", "<6>."),
        ("2607:f8b0::1: down", "<6>: down"),
        ("2001:db8::1 fe80::1 ::1 fc00::1 2001::1", "2001:db8::1 fe80::1 ::1 fc00::1 2001::1"),
        ("at 2023:10:05 and 20:15:30", "at 2023:10:05 and 20:15:30"),
        ("std2a00::b x2a00::1 2a00::1z", "std2a00::b x2a00::1 2a00::1z"),
        ("2a00::8.8.8.8", "<6>"),
    ],
)
def test_ip(text, expected):
    assert mask(text) == expected


def test_public_is_what_ipaddress_calls_global():
    ends = sorted({int(end) + step for end in _NETWORKS.ravel() for step in (-1, 0, 1)})
    ends = [end for end in ends if 0 <= end < 1 << 32]
    # newer Pythons exempt two addresses of 192.0.0.0/24; 192.0.0.8 … were global in older ones
    ends = [end for end in ends if not 0xC0000000 <= end <= 0xC00000FF]
    texts = [str(ipaddress.IPv4Address(end)) for end in ends]
    got = mask(texts)
    assert [masked == "<4>" for masked in got] == [ipaddress.ip_address(text).is_global for text in texts]
    assert len(texts) > 20


# ------------------------------------------------------------------------------------------------- phone

PHONE_NUMBERS = [
    "+49 30 284447-42",
    "+49 (0)89 1234-567",
    "+4915208649244",
    "+1 (212) 555-0123",
    "+33 1 23 45 67 89",
    "+86 138 1234 5678",
    "+592-225-8491",
    "+44\u00a020\u00a07946\u00a00958",
    "(212) 555-0123",
    "(212)555-0123",
    "212-555-0123",
    "212.555.0123",
    "1-800-555-0123",
    "1 (800) 555-0123",
    "020 7946 0958",
    "(020) 7946 0958",
    "01.23.45.67.89",
    "01 23 45 67 89",
    "089/1234567",
    "069 / 920 77 00",
    "0800 - 50 40 602",
    "03-1234-5678",
    "090-1234-5678",
    "0631-3692150",
    "02382 59743",
    "138 1234 5678",
    "138-1234-5678",
]
NO_PHONE_NUMBERS = [
    "2023-01-05 12:30:45",
    "05.01.2023",
    "01-02-2003 04",
    "01 02 2003 12",
    "05/2003 12 30",
    "05.2003 1234",
    "12/31/1999",
    "ISBN 978-0-306-40615-7",
    "ISBN 0-306-40615-2",
    "ISBN 0306406152",
    "ISSN 03-1234-5678",
    "$1,234,567.89",
    "$212-555-0123",
    "1.234.567,89 €",
    "1 234 567 890",
    "100,000,000 and 250,000,000",
    "+3.25 4.50 6.75",
    "+1234567",  # seven digits
    "+1234567890123456",  # sixteen
    "+0123456789",
    "212-555-01234",
    "212-555-012",
    "112-555-0123",
    "212-155-0123",
    "212.555-0123",
    "x212-555-0123",
    "1234-212-555-0123",
    "212-555-0123-4567",
    "0123456789",
    "0.123 456 789",
    "00 123 456 789",
    "02 123-456.78",
    "01 234 567",  # eight digits
    "0123 4567 8901",  # twelve
    "020 7946 0958 1",
    "128 1234 5678",
    "138 12345678",
    "v1.138-1234-5678",
    "10:00-12:00, 14:00-18:30",
    "3.14159 26535 89793",
    "４９ ３０ ２８４４４７",
]


@pytest.mark.parametrize("number", PHONE_NUMBERS)
def test_phone(number):
    for around in ("{}", "Tel.: {}.", "call {}, or", "({})", "电话{}。", "tel:{}\n", "a\u00a0{}\u00a0b"):
        if around == "({})" and "(" in number:
            continue
        assert mask(around.format(number), ips=False) == around.format("<P>")


@pytest.mark.parametrize("text", NO_PHONE_NUMBERS)
def test_no_phone(text):
    assert mask(text) == text
    assert mask(f"on {text} he") == f"on {text} he"


PIECES = [
    "0",
    "00",
    "01",
    "1",
    "12",
    "2",
    "212",
    "555",
    "0123",
    "7946",
    "19",
    "20",
    "2003",
    "138",
    "89793",
    "+",
    "+49",
]
PIECES += [
    " ",
    " ",
    "-",
    ".",
    "/",
    "(",
    ")",
    "\u00a0",
    ", ",
    "$",
    "a",
    "中",
    "\n",
    "ISBN ",
    ":",
    "020 7946 0958",
    "(212) ",
]


@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), min_size=1, max_size=6))
def test_the_compiled_search_overlooks_no_number(texts):
    expected = []
    for row, text in enumerate(texts):
        raw, at = text.encode(), 0
        while at < len(raw):
            stop = phone_at(raw, at)
            if stop:
                expected.append((row, raw[at:stop]))
            at = max(at + 1, stop)
    column = utf8(pa.array(texts, pa.string()))
    places = find_pii(column, emails=False, ips=False)
    assert [(row, column.data[a:z].tobytes()) for row, a, z, _ in zip(*places, strict=True)] == expected


# ------------------------------------------------------------------------------------------------- steps

MIXED = [
    "a@b.example and c@d.example; 8.8.8.8; +49 30 284447-42",
    None,
    "",
    "nothing here",
    "e@f.example 2a00:1450::1 10.0.0.1 212-555-0123",
]
COUNTS = [
    {"email": 2, "ip": 1, "phone": 1},
    None,
    {"email": 0, "ip": 0, "phone": 0},
    {"email": 0, "ip": 0, "phone": 0},
    {"email": 1, "ip": 1, "phone": 1},
]


def batch(texts=MIXED, kind=None) -> pa.RecordBatch:
    ids = [str(i) for i in range(len(texts))]
    return pa.record_batch({"id": ids, "text": pa.array(texts, kind or pa.string()), "n": range(len(texts))})


def test_mask_pii_replaces_and_counts():
    out = MaskPii()(batch())
    assert out["text"].to_pylist() == [
        f"{EMAILS[0]} and {EMAILS[1]}; {IPS[0]}; {PHONES[0]}",
        None,
        "",
        "nothing here",
        f"{EMAILS[0]} {IPV6S[0]} 10.0.0.1 {PHONES[0]}",
    ]
    assert out["pii"].to_pylist() == COUNTS
    assert out["id"].to_pylist() == batch()["id"].to_pylist() and out["n"].to_pylist() == [0, 1, 2, 3, 4]
    out.validate(full=True)


def test_pii_counts_leaves_the_text_alone():
    assert PiiCounts()(batch()).to_pylist() == COUNTS


@pytest.mark.parametrize("off", ["emails", "ips", "phones"])
def test_each_kind_can_be_switched_off(off):
    out = MaskPii(**{off: False})(batch())
    name = off[:-1]
    assert [row and row[name] for row in out["pii"].to_pylist()] == [0, None, 0, 0, 0]
    kept = {"emails": "a@b.example", "ips": "8.8.8.8", "phones": "+49 30 284447-42"}
    for kind, text in kept.items():
        assert (text in out["text"][0].as_py()) == (kind == off)


def test_replacements_take_turns_and_start_anew_in_each_row():
    texts = ["a@b.example " * 3, "a@b.example"]
    assert mask(texts, email_replacement=("1", "2")) == ["1 2 1 ", "1"]
    assert mask("8.8.8.8 x", ip_replacement="") == " x"
    whole = MaskPii()(batch()).to_pylist()
    parts = [row for i in range(len(MIXED)) for row in MaskPii()(batch().slice(i, 1)).to_pylist()]
    assert parts == whole


def test_masking_twice_changes_nothing_more():
    once = MaskPii(email_replacement="email@example.com", phone_replacement="<phone>")(batch())
    assert (
        MaskPii(email_replacement="email@example.com", phone_replacement="<phone>")(once)["text"]
        == once["text"]
    )


def test_overlaps_go_to_email_then_ip_then_phone():
    assert mask("212-555-0123@b.example") == "<E>"
    assert mask("a@[8.8.8.8]") == "<E>"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()])
def test_the_column_keeps_its_type(kind):
    out = MaskPii(**MARKS)(batch(kind=kind))
    assert out["text"].type == kind and out["text"][4].as_py() == "<E> <6> 10.0.0.1 <P>"


def test_a_batch_without_personal_data_is_not_copied():
    before = batch(["nothing", "here"])
    after = MaskPii()(before)
    assert after["text"].buffers()[2].address == before["text"].buffers()[2].address


def test_many_places_in_one_row_and_in_many():
    texts = ["a@b.example 8.8.8.8 212-555-0123 " * 4000, "x", "a@b.example " * 5000]
    assert mask(texts) == ["<E> <4> <P> " * 4000, "x", "<E> " * 5000]
    assert mask(["a@b.example"] * 10_000) == ["<E>"] * 10_000


def test_time_grows_with_the_text_and_not_faster():
    hard = [
        "a." * 300_000 + "@",
        "@" * 300_000,
        "a@" * 200_000,
        "1 2 3 4 5 6 7 8 9 0 " * 40_000,
        "+1" * 200_000,
    ]
    hard += [
        "2001:" * 100_000,
        "1.1.1." * 100_000,
        "a@" + "b." * 300_000,
        "01 23 " * 100_000,
        "(020) " * 60_000,
    ]
    start = time.process_time()
    MaskPii()(batch(hard))
    assert time.process_time() - start < 20  # a fraction of a second; a quadratic search would take hours


def test_malformed_utf8_is_survived():
    raw = pa.array([b"\xff\xc3 a@b.example \xe4", b"\xf0\x9fa@b.example\xc3"], pa.binary())
    places = find_pii(utf8(raw))
    assert places.kind.tolist() == [0, 0]


def test_replacements_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"email_replacement=\(\): a string or several"):
        MaskPii(email_replacement=())
    with pytest.raises(ValueError, match="phone_replacement=None"):
        MaskPii(phone_replacement=None)
    assert MaskPii(email_replacement=["a", "b"]).identity == MaskPii(email_replacement=("a", "b")).identity
    assert MaskPii(phones=False).identity != MaskPii().identity
    assert pickle.loads(pickle.dumps(MaskPii(**MARKS))) == MaskPii(**MARKS)


def test_both_steps_run_in_a_plan(tmp_path):
    (tmp_path / "pool.jsonl").write_text('{"id": "1", "text": "a@b.example"}\n{"id": "2", "text": "x"}\n')
    rule = c.keep("pii_counts.email = 0 or pii.email = 1", reason="personal data")
    plan = [
        c.read(str(tmp_path / "pool.jsonl")),
        PiiCounts(),
        MaskPii(),
        rule,
        c.write(str(tmp_path / "out")),
    ]
    c.run(plan, on="local")
    import pyarrow.parquet as pq

    (shard,) = (tmp_path / "out" / "data").glob("*.parquet")
    assert pq.read_table(shard)["text"].to_pylist() == [EMAILS[0], "x"]


# ------------------------------------------------------------------------------------------------- parity


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip(
        "datatrove.pipeline.formatters.pii", reason="datatrove is not installed"
    ).PIIFormatter


def test_made_up_pages_come_out_as_from_datatrove(peer):
    rng = random.Random(0)
    words = ["the", "page", "of", "a", "site,", "with", "text.", "more:", "(see)", '"this"', "/", "that", "-"]
    words += ["and", "3.14", "or", "1,000;", "'x'", "=", "<b>"]
    atoms = ["info", "first.last", "a_b", "x+y", "o'neil", "-dash", ".dot", "A1"]
    hosts = [
        "site.example",
        "mail.co.uk",
        "x-y.org",
        "bad-.org",
        "nodot",
        "[8.8.8.8]",
        "a.b.c.d",
        "end.example.",
    ]
    texts = []
    for _ in range(300):
        parts = []
        for _ in range(rng.randint(1, 30)):
            kind = rng.random()
            if kind < 0.15:
                parts.append(f"{rng.choice(atoms)}@{rng.choice(hosts)}")
            elif kind < 0.3:
                parts.append(
                    ".".join(
                        str(rng.choice([0, 1, 8, 10, 100, 127, 172, 192, 168, 255, 256])) for _ in range(4)
                    )
                )
            else:
                parts.append(rng.choice(words))
        texts.append(rng.choice([" ", "\n", " \t"]).join(parts))
    # datatrove finds 25.1.1.1 within 256.1.1.1 and within 1.1.1.256: here the whole stands alone or stays
    texts = [re.sub(r"\b256\b", "255", text) for text in texts]
    texts = [text.replace("192.0.0.", "192.0.1.") for text in texts]  # Python versions differ on 192.0.0.0/24
    ours = MaskPii(phones=False, ip_replacement=FINEWEB_IPS)(batch(texts))["text"].to_pylist()
    assert ours == [peer().format(text) for text in texts]
    assert sum(a != b for a, b in zip(ours, texts, strict=True)) > 200


# What we do otherwise, on purpose: (why, is it this?) of a line before and after both.
EXPLAINED = {
    "part of a longer number is no IPv4 address": lambda line: re.search(
        r"[\w.]\d*(?:\d+\.){3}\d+|(?:\d+\.){3}\d+[\w.]", line
    ),
    "IPv6": lambda line: re.search(r"\b[23][0-9a-fA-F]{3}:[0-9a-fA-F:]*:", line),
    "letters past ASCII in or before an address": lambda line: re.search(
        r"[^\x00-\x7f][\w.\-]*@|@[\w.\-]*[^\x00-\x7f]", line
    ),
}


def test_real_pages_come_out_as_from_datatrove_line_by_line(peer):
    """HTML as it is: harder than text, full of version numbers, addresses in attributes and SVG paths."""
    shared = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    place = shared / "web_pages" / "pages.tar.xz"
    if not place.is_file():
        pytest.skip(f"no {place}: set WINNOW_SHARED_DATA to the folder that holds web_pages/")
    lines = []
    with tarfile.open(place) as tar:
        for i, member in enumerate(tar):
            if member.isfile() and i % 12 == 0:
                html = tar.extractfile(member).read().decode("utf-8", "replace")
                lines += [line for line in html.split("\n") if len(line) < 5000]
    ours = MaskPii(phones=False, ip_replacement=FINEWEB_IPS)(batch(lines))["text"].to_pylist()
    theirs = [peer().format(line) for line in lines]
    odd = [line for line, a, b in zip(lines, ours, theirs, strict=True) if a != b]
    unexplained = [line for line in odd if not any(is_this(line) for is_this in EXPLAINED.values())]
    assert not unexplained
    masked = sum(line != b for line, b in zip(lines, theirs, strict=True))
    assert masked > 50 and len(odd) < 0.005 * len(lines)
