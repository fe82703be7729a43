"""Extraction: charsets, media types, drop reasons, several extractors, and pages that try to do harm."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.errors import PlanError
from filters.text import child
from filters.text.charset import decode, mend, mended
from filters.text.extract import Extract, ExtractAll, extract_rules, media_type, risky

PROSE = "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village. "
SHARED = Path(os.environ.get("WINNOW_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))


def pages(*rows: tuple) -> pa.RecordBatch:
    """Rows of (content, HTTP charset, content type)."""
    columns = list(zip(*rows, strict=True))
    return pa.record_batch(
        {
            "id": [str(i) for i in range(len(rows))],
            "content": pa.array(columns[0], pa.binary()),
            "http_charset": pa.array(columns[1], pa.string()),
            "content_type": pa.array(columns[2], pa.string()),
        }
    )


def html_pages(*contents: bytes) -> pa.RecordBatch:
    return pages(*((content, None, "text/html") for content in contents))


def html(body: str, meta: str = "") -> str:
    return f"<html><head>{meta}<title>t</title></head><body><p>{body}</p></body></html>"


# -------------------------------------------------------------------------------------------- what is text


def test_extract_keeps_text_and_says_where_each_row_came_from():
    batch = pages(
        (html("Grüße aus Köln").encode(), "utf-8", "text/html; charset=utf-8"),
        (b"\x89PNG....", None, "image/png"),
        (b"plain words\x00 here", None, "text/plain"),
        (html("no type").encode(), None, None),
        (b"\x00\x01\x02", None, "application/octet-stream"),
        (b"<html><body></body></html>", None, "text/html"),
    )
    out, parents = Extract()(batch)
    assert parents.tolist() == [0, 2, 3]
    assert out.column("text").to_pylist() == ["Grüße aus Köln", "plain words here", "no type"]
    assert [name.split("-")[0] for name in out.column("extractor").to_pylist()] == [
        "resiliparse",
        "plain",
        "resiliparse",
    ]
    assert out.column("extractor")[0].as_py().partition("-")[2][:1].isdigit()  # with the version
    assert out.column("charset").to_pylist() == ["utf-8", "ascii", "ascii"]
    assert out.column("id").to_pylist() == ["0", "2", "3"]
    assert "content" not in out.schema.names
    assert Extract(min_chars=12)(batch)[1].tolist() == [0, 2]
    assert Extract(min_chars=14)(batch)[1].tolist() == [0, 2]  # "Grüße aus Köln" is 14 characters, 17 bytes
    assert Extract(min_chars=15)(batch)[1].tolist() == [2]


def test_main_content_leaves_navigation_out():
    content = (
        "<body><nav><ul><li><a href=/>Home</a></ul></nav><main><p>" + PROSE * 3 + "</p></main></body>"
    ).encode()
    texts = [
        Extract(main_content=on)(html_pages(content))[0].column("text")[0].as_py() for on in (True, False)
    ]
    assert "Home" not in texts[0] and "Home" in texts[1]
    label = Extract(main_content=False)(html_pages(content))[0].column("extractor")[0].as_py()
    assert label.endswith(":all")


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("text/html; charset=x", b"", "html"),
        ("TEXT/HTML", b"", "html"),
        ("application/xhtml+xml", b"", "html"),
        ("text/plain", b"<html>", "plain"),
        (None, b"<!DOCTYPE html><p>", "html"),
        ("", b" no tags", None),
        ("application/xml", b"<?xml version='1.0'?><html>", "html"),
        ("application/xml", b"<?xml version='1.0'?><rss>", None),
        ("application/pdf", b"<html>", None),
    ],
)
def test_media_types(kind, content, expected):
    assert media_type(kind, content) == expected


def test_reasons_of_their_own_instead_of_one(tmp_path):
    rows = {
        "good": ("text/html", html(PROSE)),
        "empty": ("text/html", "<html><body></body></html>"),
        "short": ("text/html", html("too short")),
        "pdf": ("application/pdf", "%PDF"),
    }
    pool(tmp_path, rows)
    plan = [c.read(str(tmp_path / "pool.jsonl")), as_page, Extract(drop=False), extract_rules(min_chars=20)]
    report = c.run([*plan, c.write(str(tmp_path / "out"))], workers=1).report
    assert [e["id"] for e in report["kept_examples"]] == ["good"]
    assert {r["reason"]: r["rows"] for r in report["reasons"] if r["rows"]} == {
        "not HTML": 1,
        "extracted text too short": 2,
    }


@c.transform(outputs={"content": pa.binary(), "http_charset": pa.string()}, name="as_page")
def as_page(page: str, content_type: str) -> dict:
    return {"content": page.encode(), "http_charset": None}


def pool(folder: Path, rows: dict[str, tuple[str, str]]) -> None:
    lines = [json.dumps({"id": i, "content_type": kind, "page": page}) for i, (kind, page) in rows.items()]
    (folder / "pool.jsonl").write_text("\n".join(lines))


def test_extract_in_a_plan_conserves_rows(tmp_path):
    pool(tmp_path, {"one": ("text/html", html("one")), "two": ("application/pdf", html("two"))})
    plan = [c.read(str(tmp_path / "pool.jsonl")), as_page, Extract(), c.write(str(tmp_path / "out"))]
    report = c.run(plan, workers=1).report
    step = next(s for s in report["steps"] if s["name"] == "extract")
    assert (step["rows_in"], step["rows_out"], step["dropped"]) == (2, 1, 1)


def test_a_null_body_is_an_error_of_its_row():
    with pytest.raises(ValueError, match="content is null"):
        Extract()(pages((None, None, "text/html")))


# ------------------------------------------------------------------------------------------------- charsets


@pytest.mark.parametrize(
    ("text", "encoding", "header", "meta", "named"),
    [
        ("Привет, мир и всё такое прочее", "windows-1251", "windows-1251", "", "windows-1251"),
        ("Привет, мир и всё такое прочее", "koi8-r", None, '<meta charset="koi8-r">', "koi8-r"),
        ("Привіт, світе, і ґанок теж", "koi8-u", "KOI8-U", "", "koi8-u"),
        ("日本語のページです。", "shift_jis", None, '<meta content="x; charset=Shift_JIS">', "shift_jis"),
        ("日本語①㈱のページです。ありがとう", "cp932", "x-sjis", "", "shift_jis"),  # NEC's characters
        ("日本語のページです。ありがとう", "euc-jp", "EUC-JP", "", "euc-jp"),
        ("日本語のページです。ありがとう", "iso-2022-jp", "iso-2022-jp", "", "iso-2022-jp"),
        ("中文网页的内容", "gb2312", "gb2312", "", "gb18030"),
        ("朱镕基 𠀀 中文网页", "gb18030", "gbk", "", "gb18030"),
        ("繁體中文網頁的內容", "big5", None, "<meta charset=big5>", "big5"),
        ("똠방각하 펲시콜라 안녕하세요", "cp949", "ks_c_5601-1987", "", "euc-kr"),  # beyond KS X 1001
        ("Ünïcödé – “quoted”", "windows-1252", "iso-8859-1", "", "windows-1252"),
        ("Ünïcödé", "utf-8", "iso-8859-1", '<meta charset="latin1">', "utf-8"),  # a wrong header
        ("Ünïcödé", "utf-16", None, "", "utf-16le"),  # byte-order mark
        ("Ünïcödé 日本語", "utf-16-le", None, "", "utf-16le"),  # NULs alone
        ("Ünïcödé", "utf-16-be", "utf-16", "", "utf-16be"),
        ("Ünïcödé", "utf-8-sig", "windows-1252", "", "utf-8"),
        ("Γειά σου Κόσμε", "iso-8859-7", "no-such", '<meta charset="iso-8859-7">', "iso-8859-7"),
        ("שלום עולם, מה שלומכם", "windows-1255", "windows-1255", "", "windows-1255"),
        ("مرحبا بالعالم كيف الحال", "windows-1256", "cp1256", "", "windows-1256"),
        ("สวัสดีชาวโลก", "tis-620", "TIS-620", "", "windows-874"),
        ("Zażółć gęślą jaźń", "iso-8859-2", None, "<meta charset='ISO-8859-2'>", "iso-8859-2"),
        ("Это страница без указаний о кодировке, но длинная", "windows-1251", None, "", "windows-1251"),
        ("Ünïcödé 12", "windows-1252", "utf-16", "", "windows-1252"),  # a header that cannot be right
    ],
)  # fmt: skip
def test_every_charset_is_decoded(text, encoding, header, meta, named):
    decoded, charset = decode(html(text, meta).encode(encoding), header)
    assert text in decoded
    assert "\ufffd" not in decoded
    assert charset == named


def test_the_xml_declaration_counts():
    page = f'<?xml version="1.0" encoding="windows-1251"?>{html("Привет, мир")}'
    assert decode(page.encode("windows-1251"))[1] == "windows-1251"


def test_damaged_utf8_stays_utf8():
    content = html("Äpfel und Öl kosten fünf Euro " * 5).encode()
    cut = content.replace("ü".encode(), b"\xc3", 1)
    text, charset = decode(cut, "utf-8")
    assert charset == "utf-8"
    assert text.count("\ufffd") == 1 and "Äpfel" in text


def test_one_damaged_character_does_not_change_the_charset():
    content = html("日本語のページです。" * 20, '<meta charset="shift_jis">').encode("shift_jis")
    text, charset = decode(content[:-40] + b"\x81\xff" + content[-40:])
    assert charset == "shift_jis"
    assert text.count("日本語のページです。") >= 19 and 1 <= text.count("\ufffd") <= 3


def test_bytes_that_nothing_explains_are_replaced_not_lost():
    text, charset = decode(b"\x81\x8d ok \xff\xfe" * 3, None)
    assert "ok" in text and charset
    pa.array([mend(text)], pa.string())


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=600), header=st.none() | st.sampled_from(["utf-8", "gbk", "hz", "utf-16", "x"])
)
def test_any_bytes_decode_to_text_that_arrow_takes(content, header):
    text, charset = decode(content, header)
    assert isinstance(charset, str)
    assert pa.array([mended(text)], pa.string()).validate(full=True) is None
    assert mended(text).decode() == mend(text)


def test_mend():
    assert mend("a\x00b") == "ab"
    assert mend("a\ud800b") == "a\ufffdb"
    assert mend("\ud83d\ude00") == "😀"  # a pair that was decoded half by half
    assert mend("fine ✓") == "fine ✓"


def test_real_pages_in_legacy_charsets_are_whole():
    archive = SHARED / "web_pages" / "pages.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}: set WINNOW_SHARED_DATA to read real web pages")
    found: dict[str, int] = {}
    damaged = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member).read() if member.isfile() else b""
            try:
                content.decode()
            except UnicodeDecodeError:
                text, charset = decode(content)
                found[charset] = found.get(charset, 0) + 1
                damaged += text.count("\ufffd")
                assert charset == "utf-8" or "\ufffd" not in text
    # 27 of 1,032 pages that a strict UTF-8 reader loses; the four of them that are UTF-8 are damaged
    assert found == {"windows-1252": 20, "utf-8": 4, "windows-1250": 1, "iso-8859-2": 1, "gb18030": 1}
    assert damaged == 9


# ----------------------------------------------------------------------------------------- several at once


def test_other_extractors_run_in_the_child_and_name_themselves():
    batch = html_pages(html(PROSE * 5).encode(), b"<p>kurz")
    for name in ("trafilatura", "trafilatura:precision", "trafilatura:recall", "justext", "justext:English"):
        pytest.importorskip(name.split(":")[0])
        out, _ = Extract(extractor=name)(batch)
        assert PROSE.strip() in out.column("text")[0].as_py()
        base, _, option = name.partition(":")
        label = out.column("extractor")[0].as_py()
        assert label.startswith(f"{base}-") and label.endswith(option)


def test_a_page_with_an_encoding_declaration_does_not_trouble_lxml():
    pytest.importorskip("trafilatura")
    page = f'<?xml version="1.0" encoding="windows-1251"?>{html("Привет, мир. " * 30)}'.encode("windows-1251")
    for name in ("trafilatura", "justext"):
        out, _ = Extract(extractor=name)(html_pages(page))
        assert "Привет, мир." in out.column("text")[0].as_py(), name


def test_justext_takes_the_stop_words_of_the_pages_language():
    pytest.importorskip("justext")
    german = (
        "Der Wärter schrieb seiner Schwester einen langen Brief über den Sturm und die Boote. Niemand "
        "wusste, wie viele Fischer noch draußen waren, als das Licht erlosch, und keiner sprach davon. "
    )
    batch = html_pages(html(german * 2).encode())
    assert Extract(extractor="justext")(batch)[0].num_rows == 1
    assert Extract(extractor="justext:English")(batch)[0].num_rows == 0


def test_extract_all_gives_a_row_for_each_version():
    pytest.importorskip("trafilatura")
    pytest.importorskip("justext")
    long, short = html(PROSE * 8).encode(), html("Tiny page").encode()
    batch = pages(
        (long, None, "text/html"),
        (b"plain", None, "text/plain"),
        (b"%PDF", None, "application/pdf"),
        (short, None, "text/html"),
    )
    out, parents = ExtractAll(extractors=["resiliparse", "trafilatura", "justext"])(batch)
    rows = [
        (parent, row["page_id"], row["extractor"].split("-")[0], row["extractor_rank"])
        for parent, row in zip(parents.tolist(), out.to_pylist(), strict=True)
    ]
    three = [(0, "0", name, rank) for rank, name in enumerate(("resiliparse", "trafilatura", "justext"))]
    assert rows[:4] == [*three, (1, "1", "plain", 0)]
    assert (3, "3", "resiliparse", 0) in rows and (3, "3", "justext", 2) not in rows
    assert out.column("extract_error").null_count == out.num_rows
    assert {"content", "extract"} & set(out.schema.names) == set()


def test_extract_all_ids_are_unique_and_the_best_version_of_each_page_stays(tmp_path):
    pytest.importorskip("trafilatura")
    pool(tmp_path, {"a": ("text/html", html(PROSE * 8)), "b": ("text/plain", "just words")})
    union = ExtractAll(extractors=("trafilatura", "resiliparse"))
    read = c.read(str(tmp_path / "pool.jsonl"))
    report = c.run([read, as_page, union, c.write(str(tmp_path / "all"))], workers=1).report
    assert sorted(e["id"] for e in report["kept_examples"]) == ["a/0", "a/1", "b"]
    one = c.dedup_exact(on="page_id", priority="extractor_rank", reason="another version")
    report = c.run([read, as_page, union, one, c.write(str(tmp_path / "one"))], workers=1).report
    assert sorted(e["id"] for e in report["kept_examples"]) == ["a/0", "b"]


def test_a_version_that_fails_costs_itself_alone():
    step = ExtractAll(extractors=("child_extractors.hostile:raises", "resiliparse"))
    out, _ = step(html_pages(html(PROSE).encode()))
    assert out.column("extractor_rank").to_pylist() == [1]
    assert out.column("extract_error").to_pylist() == [
        "ExtractorError: child_extractors.hostile:raises: KeyError: 'no such thing'"
    ]
    with pytest.raises(child.ExtractorError, match="KeyError"):
        ExtractAll(extractors=("child_extractors.hostile:raises",))(html_pages(b"<p>x"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Extract(extractor="trafilatur"),
            "'trafilatur'; did you mean 'trafilatura'",
        ),
        (lambda: Extract(extractor="trafilatura:precison"), "no option 'precison'; did you mean 'precision'"),
        (lambda: Extract(extractor="justext:Germn"), "did you mean 'German'"),
        (lambda: Extract(extractor="no_such.module:f"), "no module 'no_such'"),
        (lambda: Extract(extractor="json:nothing.here"), "unknown extractor"),
        (lambda: Extract(extractor="os.path:nothing"), "os.path has no function 'nothing'"),
        (lambda: Extract(deadline=0), "more than 0 seconds"),
        (lambda: Extract(memory=2), "at least 67108864"),
        (lambda: Extract(extractor="trafilatura", main_content=False), "is resiliparse's"),
        (lambda: ExtractAll(extractors=()), "one or more different"),
        (lambda: ExtractAll(extractors=("justext", "justext")), "one or more different"),
    ],
)
def test_wrong_parameters_are_refused_when_the_plan_is_made(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_steps_travel_to_workers():
    for step in (Extract(extractor="trafilatura", deadline=3), ExtractAll(extractors=("resiliparse",))):
        assert pickle.loads(pickle.dumps(step)) == step
        assert pickle.loads(pickle.dumps(step)).identity == step.identity


# ------------------------------------------------------------------------------- pages that try to do harm

BODY = b"<html><body>"
HOSTILE = {
    "nested div": BODY + b"<div>" * 10_000 + b"x",
    "elements in nested div": BODY + b"<div>" * 2_000 + b"<i>x</i>" * 20_000,
    "nested lists": BODY + b"<ol><li>x" * 20_000,
    "unclosed formatting": BODY + b"<p>" + b"".join(b"<b id=%d>" % i for i in range(2_000)) + b"<p>x" * 9_000,
    "attributes": BODY + b"<p " + b"".join(b"a%d=1 " % i for i in range(40_000)) + b">x",
    "large": BODY + b"<p>word</p>\n" * 360_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_are_seen(name):
    assert risky(HOSTILE[name])


@pytest.mark.parametrize("tag", [b"div", b"span", b"b", b"table", b"section", b"blockquote", b"li", b"font"])
def test_ten_thousand_nested_tags_are_extracted_or_quarantined_in_time(tag):
    content = BODY + b"<" + tag + b">" + (b"<" + tag + b">") * 10_000 + b"words"
    started = time.process_time() + os.times().children_user
    out, _ = Extract(deadline=20)(html_pages(content))
    assert out.column("text").to_pylist()[0].strip().endswith("words")
    assert time.process_time() + os.times().children_user - started < 20


def test_a_page_past_its_deadline_costs_one_row_and_one_deadline(tmp_path):
    slow = (BODY + b"<div>" * 60_000 + b"x").decode()  # a minute and more
    rows = {f"good{i}": ("text/html", html(f"{PROSE} {i}")) for i in range(9)}
    pool(tmp_path, {"a": ("text/html", html("a")), "slow": ("text/html", slow), **rows})
    plan = [
        c.read(str(tmp_path / "pool.jsonl")),
        as_page,
        Extract(deadline=0.5),
        c.write(str(tmp_path / "out")),
    ]
    before = os.times().children_user
    result = c.run(plan, workers=1)
    report = result.report
    step = next(s for s in report["steps"] if s["name"] == "extract")
    assert (step["rows_in"], step["rows_out"], step["quarantined"], step["dropped"]) == (11, 10, 1, 0)
    assert report["quarantined"]["by_error"] == {"extract: DeadlineError": 1}
    bad = next((tmp_path / "out" / "_winnow" / "bad").rglob("*.jsonl")).read_text()
    assert "deadline of 0.5 s: resiliparse was ended on this page of 300013 bytes" in bad
    # the engine halves the batch four times to find the row; the page met its deadline once
    assert os.times().children_user - before < 60


def test_the_same_rows_give_the_same_text_whatever_the_batching():
    contents = [html(PROSE * n).encode() for n in range(1, 6)] + [HOSTILE["large"]]
    whole, _ = Extract()(html_pages(*contents))
    apart = [Extract()(html_pages(content))[0].column("text")[0].as_py() for content in contents]
    assert whole.column("text").to_pylist() == apart
    isolated, _ = Extract(isolated=True)(html_pages(*contents))
    assert isolated.column("text").to_pylist() == apart


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", None),
        (b"\xef\xbb\xbf", None),
        (b"\x00" * 100, None),
        (b"<p>a\x00b\r\nc</p>", "ab c"),
        (b"\xef\xbb\xbf<p>bom</p>", "bom"),
        (b"<p>\xed\xa0\x80 lone surrogate</p>", "\ufffd lone"),
        (b"<p>\xed\xa0\xbd\xed\xb8\x80 as two surrogates</p>", "\U0001f600 as"),
        (b"<p>&#xD800; &#0; reference</p>", "reference"),
        (b"<p>" + b"word " * 100, "word"),
        (b"<", "<"),
        (b"<p>unterminated <b attr='", "unterminated"),
    ],
    ids=["empty", "only bom", "only nul", "nul and crlf", "bom", "surrogate", "surrogates", "references",
         "one line", "lone <", "cut"],
)  # fmt: skip
def test_odd_bodies(content, text):
    out, parents = Extract()(html_pages(content))
    assert parents.tolist() == ([] if text is None else [0])
    if text is not None:
        assert text in out.column("text")[0].as_py()
        out.column("text").validate(full=True)


def test_twenty_megabytes_of_html_leave_the_worker_small():
    content = BODY + (b"<p>" + PROSE.encode() + b"</p>\n") * 190_000
    assert len(content) > 20_000_000
    out, _ = Extract(deadline=60)(html_pages(content))
    assert out.column("text")[0].as_py().count("lighthouse") == 190_000


def test_a_line_of_fifty_megabytes_passes():
    out, _ = Extract(deadline=60)(pages((b"word " * 10_000_000, None, "text/plain")))
    assert out.column("text").nbytes >= 50_000_000
    assert out.column("charset").to_pylist() == ["ascii"]


# ------------------------------------------------------------------------------------------------ the recipe


def test_the_union_recipe_keeps_one_good_version_of_each_page(tmp_path):
    pytest.importorskip("trafilatura")
    pytest.importorskip("justext")
    import pyarrow.parquet as pq

    from curation.plan_file import load_plan
    from filters.text.language import find_model

    try:
        find_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))

    prose = (
        "The keeper of the lighthouse wrote to his sister that the storm had taken the boats of the village. "
        "Nobody spoke for a while; then somebody began to count the missing hulls, and others joined in. "
        "By noon there was a list, and beside each name a mother had written where her son was last seen."
    )
    good = f"<html><body><article><p>{prose}</p></article></body></html>"
    # a menu that resiliparse takes for text, and the others do not
    menu = "".join(f"<p># <a href=/{i}>...</a></p>" for i in range(60))
    noisy = f"<html><body><div class=c>{menu}</div><article><p>{prose}</p></article></body></html>"
    table = pa.table(
        {
            "id": ["good", "noisy", "bad"],
            "url": [f"https://example.org/{i}" for i in range(3)],
            "content": pa.array([good.encode(), noisy.encode(), html("Too short").encode()], pa.binary()),
            "http_charset": pa.array([None] * 3, pa.string()),
            "content_type": ["text/html"] * 3,
        }
    )
    pq.write_table(table, tmp_path / "pool.parquet")
    recipe = load_plan(Path(__file__).parents[2] / "baselines" / "text" / "union_extractors.yaml")
    out = tmp_path / "out"
    report = c.run(recipe.plan(pool=str(tmp_path / "pool.parquet"), out=str(out)), workers=1).report
    kept = pq.read_table(next((out / "data").glob("*.parquet"))).to_pylist()
    assert {row["page_id"]: row["extractor_rank"] for row in kept} == {"good": 0, "noisy": 1}
    assert len({row["id"] for row in kept}) == 2
    reasons = {r["reason"]: r["rows"] for r in report["reasons"]}
    assert reasons["another version of the page was kept"] == 3
