"""URL words, domain and URL lists, UT1 categories: borders by hand, and plain Python over random URLs."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import re
import tarfile

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation as c
from curation.expressions import evaluate
from filters.text import lowercase, url_lists
from filters.text.url import (
    LISTS,
    UrlBlocklist,
    UrlWords,
    read_list,
    url_blocklist_rules,
    url_rules,
)
from filters.text.url_lists import url_hosts
from filters.text.url_ut1 import CATEGORIES, UrlCategories, url_category_rules

# ------------------------------------------------------------------------------------------------ oracles


def host_oracle(url: str) -> tuple[str, str, bool]:
    """(host in lower case, path and query and fragment, whether it stood in brackets)."""
    url = url.lstrip("".join(map(chr, range(33))))
    scheme = re.match(r"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?[/\\]{2}", url)
    rest = url[scheme.end() :] if scheme else url
    authority = re.match(r"[^/\\?#]*", rest).group()
    path = rest[len(authority) :]
    if scheme and "@" in authority:
        authority = authority.rpartition("@")[2]
    if authority.startswith("["):
        return lowercase.lower(authority[1:].partition("]")[0]), path, True
    host = re.match(r"[^:\x00-\x20]*", authority).group().rstrip(".")
    return lowercase.lower(host), path, False


def listed_oracle(url: str, domains: set[str], match: str) -> bool:
    host, _, brackets = host_oracle(url)
    if match == "exact":
        return host in domains or (host[4:] in domains if host.startswith("www.") and host[4:] else False)
    last = host.rpartition(".")[2]
    if brackets or (last.isascii() and last.isdigit()) or not last:
        return host in domains
    labels = host.split(".")
    return any(".".join(labels[i:]) in domains for i in range(len(labels)))


HOST = st.lists(
    st.sampled_from(
        ["a", "b", "com", "bad", "www", "WWW", "xn--p1ai", "пример", "РФ", "1", "22", "例え", ""]
    ),
    max_size=5,
).map(".".join)
URL = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["http://", "HTTPS://", "//", "", "ftp://", "x:", " http://", "http:\\\\", "a.b:"]),
    st.sampled_from(["", "", "", "user@", "u:p@", "u@v@"]),
    st.one_of(HOST, st.sampled_from(["[::1]", "[2001:DB8::1]", "[::1", "1.2.3.4", "::1"])),
    st.sampled_from(["", "", ":80", ":", ".", "..", " "]),
    st.sampled_from(["", "/", "/a/b?c=d#e", "?q", "#f", "\\x", "/a@b", "/%D0%BF", "/я"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(URL, st.text(max_size=20)), min_size=1, max_size=8))
def test_hosts_match_the_oracle(urls):
    expected = [host_oracle(url)[0] or None for url in urls]
    assert url_hosts(pa.array(urls, pa.string())).to_pylist() == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(URL, min_size=1, max_size=8),
    st.lists(HOST.filter(lambda host: host.strip(".")), max_size=6),
    st.sampled_from(["exact", "subdomains"]),
)
def test_domain_lists_match_the_oracle(urls, hosts, match):
    table = url_lists.domain_table(tuple(hosts), match)
    domains = {lowercase.lower(host).removeprefix(".").rstrip(".") for host in hosts}
    found, hit = table.find(pa.array(urls, pa.string()))
    for url, lists, entry in zip(urls, found, hit.to_pylist(), strict=True):
        assert bool(lists) == listed_oracle(url, domains, match), (url, domains)
        assert (entry in domains) if lists else entry is None


# -------------------------------------------------------------------------------------------------- words


def rows(step, urls) -> list:
    step.setup()
    out = step(pa.record_batch({"url": pa.array(urls, pa.string())}))
    assert out.type == step.outputs[step.name]
    return [None if row is None else tuple(row.values()) for row in out.to_pylist()]


def test_url_words():
    cases = {
        "https://www.bad.example/x": (0, 0, 0, True, "bad.example"),
        "//user@BAD.example:8080/": (0, 0, 0, True, "bad.example"),
        "https://m.bad.example/": (0, 0, 0, False, None),
        "http://best.por-nhub.com/": (1, 0, 0, False, "pornhub"),  # '-' and '.' do not hide a strict string
        "https://a.example/XXX/1": (0, 1, 0, False, "xxx"),
        "https://a.example/middlesex/essex": (0, 0, 0, False, None),
        "https://a.example/casino/casino": (0, 0, 1, False, "casino"),  # one word twice is one word
        "https://a.example/casino/bonus?x=poker": (0, 0, 3, False, "casino"),
        "https://a.example/casino/xxx": (0, 1, 1, False, "xxx"),  # the hit follows the order of the rules
        "https://a.example/%20xxx": (
            0,
            0,
            0,
            False,
            None,
        ),  # percent-encoding is not undone: the word is 20xxx
        "https://a.example/%2Fxxx%2F": (0, 0, 0, False, None),
        "https://a.example/страница-xxx-.html": (0, 1, 0, False, "xxx"),
        "https://a.example/яxxx": (0, 0, 0, False, None),  # letters of any script join a word
        "not a url": (0, 0, 0, False, None),
        "": (0, 0, 0, False, None),
        None: None,
    }
    assert rows(UrlWords(domains=("bad.example",)), list(cases)) == list(cases.values())


def old_words(url: str, strict, hard, soft) -> tuple[int, int, int]:
    """The rule in plain Python."""
    url = lowercase.lower(url)
    bare = url.replace("-", "").replace(".", "")
    words = set(re.split(r"[^a-z0-9_]+", url))
    return (
        sum(entry in bare for entry in {s.replace("-", "").replace(".", "") for s in strict}),
        len(words & set(hard)),
        len(words & set(soft)),
    )


def test_words_of_the_built_in_lists_match_plain_python():
    lists = [read_list(LISTS / f"url_{name}.txt") for name in ("strict", "hard", "soft")]
    rng = random.Random(0)
    pieces = [*lists[0], *lists[1], *lists[2], "the", "page", "1", "index.html", "%20"]
    urls = []
    for _ in range(2000):
        chosen = rng.choices(pieces, k=rng.randint(1, 8))
        url = "".join(piece + rng.choice(["/", "-", "_", ".", "?", "", "+"]) for piece in chosen)
        urls.append("https://www.site.example/" + (url.upper() if rng.random() < 0.3 else url))
    got = rows(UrlWords(), urls)
    assert [row[:3] for row in got] == [old_words(url, *lists) for url in urls]
    assert sum(row[0] > 0 for row in got) > 100 and sum(row[2] > 1 for row in got) > 100


def test_thresholds_of_the_rules():
    urls = [
        "https://ok.example/",
        "https://ok.example/casino",
        "https://ok.example/casino/poker",
        "https://ok.example/xxx",
        "https://pornhub.ok.example/",
        "https://bad.example/",
        None,
    ]
    step = UrlWords(domains=("bad.example",))
    step.setup()
    batch = pa.record_batch({"url": pa.array(urls, pa.string())})
    scored = pa.record_batch({"url_words": step(batch)})
    kept = {rule.reason: evaluate(rule.where, scored).tolist() for rule in url_rules()}
    assert kept == {
        "url: domain list": [True, True, True, True, True, False, False],
        "url: strict word": [True, True, True, True, False, True, False],
        "url: hard word": [True, True, True, False, True, True, False],
        "url: soft words": [True, True, False, True, True, True, False],
    }


def test_lists_can_be_replaced_by_files_urls_and_tuples(tmp_path):
    own = tmp_path / "hard.txt"
    own.write_text("# mine\nWidget\n\n gadget\nслово\n")
    assert read_list(own) == ("gadget", "widget", "слово")
    expected = [(0, 1, 0, False, "widget"), (0, 1, 0, False, "слово")]
    urls = ["https://x.example/widget/porn", "https://x.example/Слово"]
    assert rows(UrlWords(strict=(), hard=str(own), soft=()), urls) == expected
    assert rows(UrlWords(strict=(), hard=own, soft=()), urls) == expected
    assert rows(UrlWords(strict=[], hard=["widget", "слово"], soft=[]), urls) == expected
    with fsspec.open("memory://lists/hard.txt.gz", "wb") as file:
        file.write(gzip.compress(own.read_bytes()))
    assert rows(UrlWords(strict=(), hard="memory://lists/hard.txt.gz", soft=()), urls) == expected


def test_what_is_on_the_lists_is_identity_and_where_they_lie_is_not(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("gadget\n")
    two.write_text("gadget\n")
    assert UrlWords(hard=str(one)).identity == UrlWords(hard=str(two)).identity
    before = UrlWords(hard=str(one)).identity
    one.write_text("gadgets\n")
    assert UrlWords(hard=str(one)).identity != before
    assert UrlWords(domains=("a.example",)).identity != UrlWords(domains=("b.example",)).identity
    assert UrlWords(match="subdomains").identity != UrlWords().identity
    built_in = url_lists.fingerprint(str(LISTS / "url_strict.txt"))
    assert built_in in str(UrlWords().identity)


def test_words_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="'two words' is not one word"):
        UrlWords(hard=("two words",)).setup()
    with pytest.raises(ValueError, match=r"'-\.' is empty"):
        UrlWords(strict=("-.",)).setup()
    with pytest.raises(ValueError, match="match='suffix'"):
        UrlWords(match="suffix")
    with pytest.raises(FileNotFoundError, match=r"list '.*no\.txt' is not there"):
        _ = UrlWords(hard="no.txt").identity


def test_words_travel_to_workers_as_parameters():
    step = UrlWords(domains=("bad.example",), match="subdomains")
    step.setup()
    copy = pickle.loads(pickle.dumps(step))
    assert copy == step and not hasattr(copy, "_strict")
    assert rows(copy, ["https://m.bad.example"]) == [(0, 0, 0, True, "bad.example")]


# -------------------------------------------------------------------------------------------------- lists


SUBDOMAINS = {
    "https://bad.example/": True,
    "https://www.bad.example/": True,
    "https://a.b.BAD.Example.:8443/x": True,
    "https://notbad.example/": False,
    "https://bad.example.org/": False,
    "https://example/": False,
    "https://user:pw@bad.example": True,
    "https://bad.example@good.example/": False,
    "https://good.example/?u=https://bad.example/": False,
    "https://good.example#@bad.example": False,
    "https://1.2.3.4/": True,
    "https://9.1.2.3.4/": False,
    "http://[2001:DB8::1]:80/": True,
    "http://[2001:db8::2]/": False,
    "https://СЛОВО.рф/": True,
    "https://м.слово.рф/": True,
    "https://xn--b1amarbhc.xn--p1ai/": False,  # punycode is another spelling: list both
    "https://xn--e1afmkfd.xn--p1ai/": True,
    "bad.example/path": True,
    "mailto:me@bad.example": False,
    "https:///": False,
    "": False,
}
LISTED = ("Bad.example", "1.2.3.4", "[2001:db8::1]", "слово.рф", "*.xn--e1afmkfd.xn--p1ai.")


def test_a_domain_covers_its_subdomains():
    got = rows(UrlBlocklist(domains=LISTED), [*SUBDOMAINS, None])
    assert dict(zip(SUBDOMAINS, [row and row[0] for row in got], strict=False)) == SUBDOMAINS
    assert got[0] == (True, False, "bad.example") and got[4] == (False, False, None) and got[-1] is None


def test_exact_hosts_aside_from_www():
    exact = UrlBlocklist(domains=(*LISTED, "www.whole.example"), match="exact")
    expected = {
        "https://bad.example/": True,
        "https://WWW.bad.example/": True,
        "https://m.bad.example/": False,
        "https://www.www.bad.example/": False,
        "https://whole.example/": False,
        "https://www.whole.example/": True,
        "https://м.слово.рф/": False,
        "https://1.2.3.4:80": True,
    }
    got = rows(exact, list(expected))
    assert dict(zip(expected, [row[0] for row in got], strict=True)) == expected


def test_exact_urls():
    listed = (
        "https://Site.example/Page?id=1",
        "www.other.example/a/",
        "третий.рф/путь",
        "http://root.example",
    )
    expected = {
        "http://www.site.example:80/Page?id=1#top": "site.example/Page?id=1",
        "http://site.example/page?id=1": None,  # case counts in a path
        "http://site.example/Page?id=12": None,
        "http://site.example/Page": None,
        "https://other.example/a": "other.example/a",
        "https://other.example/a/b": None,
        "https://m.other.example/a": None,
        "https://Третий.РФ/путь/": "третий.рф/путь",
        "https://root.example/": "root.example",
        "https://root.example/x": None,
        "/a": None,
    }
    got = rows(UrlBlocklist(urls=listed), list(expected))
    assert {url: row[2] for url, row in zip(expected, got, strict=True)} == expected
    assert [row[:2] for row in got] == [(False, hit is not None) for hit in expected.values()]


def test_list_files_of_every_dress(tmp_path):
    text = "# block list\r\n\r\n  bad.example \r\n.dotted.example\r\n# not.example\r\nlast.example"
    plain, packed = tmp_path / "list.txt", tmp_path / "list.txt.gz"
    plain.write_bytes(text.encode())
    packed.write_bytes(gzip.compress(text.encode()))
    hosts = ["bad.example", "a.dotted.example", "not.example", "last.example"]
    urls = [f"http://{host}/" for host in hosts]
    for place in (plain, packed):
        assert [row[0] for row in rows(UrlBlocklist(domains=place), urls)] == [True, True, False, True]


def test_a_list_longer_than_a_block_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(url_lists, "BLOCK", 64)
    hosts = [f"host{i}.example{'x' * (i % 90)}.com" for i in range(500)]
    (tmp_path / "hosts").write_text("\n".join(hosts))
    table = url_lists.domain_table(str(tmp_path / "hosts"), "exact")
    assert table.n_entries == 500
    found, hit = table.find(pa.array([f"http://{host}/" for host in hosts]))
    assert found.all() and hit.to_pylist() == hosts


def test_lines_that_are_no_hosts(tmp_path):
    many = tmp_path / "hosts"
    many.write_text("\n".join([*(f"h{i}.example" for i in range(300)), "0.0.0.0 tracker.example"]))
    with pytest.warns(UserWarning, match=r"1 of 301 lines are no host names.*'0\.0\.0\.0 tracker\.example'"):
        url_lists.domain_table(str(many), "exact")
    wrong = tmp_path / "adblock"
    wrong.write_text("||a.example^\n||b.example^\nc.example/path\n")
    with pytest.raises(ValueError, match=r"3 of 3 lines are no host names, the first of them '\|\|a"):
        url_lists.domain_table(str(wrong), "exact")
    with pytest.raises(ValueError, match="1 of 1 lines"):
        UrlBlocklist(domains=("https://a.example/x",)).setup()


def test_a_block_list_needs_a_list():
    with pytest.raises(ValueError, match=r"no list.*docs/url-lists\.md"):
        UrlBlocklist()


def test_large_tables_find_all_and_nothing_else():
    hosts = tuple(f"h{i}.example" for i in range(100_000))
    table = url_lists.domain_table(hosts, "subdomains")
    assert table.n_entries == len(hosts) and len(table.keys) * 0.7 >= len(hosts)
    found, _ = table.find(pa.array([f"https://www.{host}/" for host in hosts]))
    assert found.all()
    found, hit = table.find(pa.array([f"https://x{i}.example/" for i in range(100_000)]))
    assert not found.any() and hit.null_count == len(hit)


def test_slices_of_a_column():
    url = pa.array(["https://a.example/", "https://bad.example/", None], pa.large_string()).slice(1)
    step = UrlBlocklist(domains=("bad.example",))
    step.setup()
    out = step(pa.record_batch({"url": url}))
    assert out.to_pylist() == [{"domain": True, "url": False, "hit": "bad.example"}, None]


# --------------------------------------------------------------------------------------------- categories

UT1 = {
    "adult/domains": "porn.example\nshared.example\n",
    "adult/urls": "Host.example/Adult\nhost.example/x?id=1\n",
    "gambling/domains": "bets.example\nshared.example\n",
    "phishing/urls": "www.evil.example/login\n",
    "arjel/domains": "",
}
NAMES = ("adult", "gambling", "phishing", "arjel")
EXPECTED = {
    "https://www.porn.example/a": ((True, False, False, False), "porn.example"),
    "https://cdn.shared.example/": ((True, True, False, False), "shared.example"),
    "https://host.example/adult/more": ((True, False, False, False), "host.example/adult"),
    "https://www.HOST.example/ADULT?x": ((True, False, False, False), "host.example/adult"),
    "https://host.example/adults": ((False, False, False, False), None),
    "https://host.example/x?id=1&page=2": ((True, False, False, False), "host.example/x?id=1"),
    "https://host.example/": ((False, False, False, False), None),
    "http://evil.example/login/": ((False, False, True, False), "evil.example/login"),
    "https://fine.example/": ((False, False, False, False), None),
    None: None,
}


def archive(files: dict[str, str], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return out.getvalue()


def lay_out(kind: str, root) -> str:
    """The same lists in one of the layouts; what to pass as ``lists``."""
    if kind == "folders":
        for name, text in UT1.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    elif kind == "packed files":
        for name, text in UT1.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / (name + ".gz")).write_bytes(gzip.compress(text.encode()))
    elif kind == "archive per category":
        for category in NAMES:
            files = {name: text for name, text in UT1.items() if name.startswith(category)}
            (root / f"{category}.tar.gz").write_bytes(archive({**files, f"{category}/usage": "black\n"}))
    elif kind == "one archive in a folder":
        (root / "blacklists.tar.gz").write_bytes(archive({f"blacklists/{n}": t for n, t in UT1.items()}))
    elif kind == "one archive":
        (root / "all.tar.gz").write_bytes(archive({f"./blacklists/{n}": t for n, t in UT1.items()}))
        return str(root / "all.tar.gz")
    elif kind == "memory":
        for name, text in UT1.items():
            with fsspec.open(f"memory://ut1/{name}", "w") as file:
                file.write(text)
        return "memory://ut1"
    return str(root)


@pytest.mark.parametrize(
    "kind",
    ["folders", "packed files", "archive per category", "one archive in a folder", "one archive", "memory"],
)
def test_categories_in_every_layout(kind, tmp_path):
    step = UrlCategories(categories=NAMES, lists=lay_out(kind, tmp_path))
    assert step.identity == UrlCategories(NAMES, step.lists).identity
    step = pickle.loads(pickle.dumps(step))
    got = rows(step, list(EXPECTED))
    assert [row and (row[:-1], row[-1]) for row in got] == list(EXPECTED.values())


def test_category_rules_name_the_category(tmp_path):
    step = UrlCategories(categories=NAMES, lists=lay_out("folders", tmp_path))
    step.setup()
    out = step(pa.record_batch({"url": pa.array(list(EXPECTED), pa.string())}))
    batch = pa.record_batch({"url_categories": out})
    rules = url_category_rules(NAMES)
    assert [rule.reason for rule in rules] == [f"url: {name}" for name in NAMES]
    dropped = [(~evaluate(rule.where, batch)).tolist() for rule in rules]
    wanted = [[row is None or row[0][i] for row in EXPECTED.values()] for i in range(len(NAMES))]
    assert dropped == wanted


def test_the_ten_categories_of_the_published_configuration():
    assert len(CATEGORIES) == 10 and [rule.reason for rule in url_category_rules()][:2] == [
        "url: adult",
        "url: phishing",
    ]


def test_second_names_inside_an_archive(tmp_path):
    place = tmp_path / "b.tar.gz"
    place.write_bytes(archive({"blacklists/adult/domains": "porn.example\n"}, {"blacklists/porn": "adult"}))
    assert rows(UrlCategories(("porn", "adult"), str(place)), ["http://porn.example"]) == [
        (True, True, "porn.example")
    ]


def test_category_contents_are_identity(tmp_path):
    step = UrlCategories(categories=("adult",), lists=lay_out("folders", tmp_path))
    before = step.identity
    (tmp_path / "adult" / "domains").write_text("other.example\n")
    assert step.identity != before


def test_missing_and_broken_lists_say_the_mend(tmp_path):
    with pytest.raises(ValueError, match=r"no lists; get the lists from .*lists="):
        UrlCategories()
    lists = lay_out("folders", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'malware' is not in .*malware\.tar\.gz.*lists="):
        _ = UrlCategories(("adult", "malware"), lists).identity
    with pytest.raises(FileNotFoundError, match="is not there"):
        UrlCategories(("adult",), str(tmp_path / "no.tar.gz")).setup()
    with pytest.raises(ValueError, match="different names"):
        UrlCategories(("adult", "adult"), lists)
    with pytest.raises(ValueError, match="a list of names"):
        UrlCategories("adult", lists)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive({"adult/domains": "\n".join(f"h{i}.example" for i in range(9999))})[:300])
    with pytest.raises(ValueError, match="not a whole tar archive"):
        UrlCategories(("adult",), str(cut)).setup()
    (tmp_path / "some.tar.gz").write_bytes(archive({"adult/domains": "a.example\n"}))
    with pytest.raises(FileNotFoundError, match="'chat' is not in"):
        UrlCategories(("adult", "chat"), str(tmp_path / "some.tar.gz")).setup()


# --------------------------------------------------------------------------------------------- whole plans


def test_every_step_runs_in_a_plan(tmp_path):
    urls = [
        "https://ok.example/",
        "https://bad.example/",
        "https://cdn.shared.example/",
        "https://ok.example/xxx",
    ]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(f'{{"id": "{i}", "text": "t", "url": "{url}"}}\n' for i, url in enumerate(urls)))
    (tmp_path / "ut1").mkdir()
    steps = [
        [UrlWords(), url_rules()],
        [UrlBlocklist(domains=("bad.example",)), url_blocklist_rules()],
        [UrlCategories(NAMES, lay_out("folders", tmp_path / "ut1")), url_category_rules(NAMES)],
    ]
    c.run([c.read(str(pool)), *steps, c.write(str(tmp_path / "out"))], on="local")
    import json

    report = json.loads((tmp_path / "out" / "_winnow" / "report.json").read_text())
    dropped = {reason["reason"]: reason["rows"] for reason in report["reasons"] if reason["rows"]}
    assert dropped == {"url: hard word": 1, "url: blocked domain": 1, "url: adult": 1}
    assert report["output"]["rows"] == 1
