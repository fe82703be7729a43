"""Pools of everything that a crawl, a careless export or an attacker puts into web pages and JSON lines.

    pool = warc_pool(folder)      # WARC shards; pool.bad lists what the reader has to quarantine, and where
    pool = text_pool(folder)      # JSON lines of the same text, already extracted

Each page is known by its id (`Page.name`), so that a test can say what became of it. Everything is made by
rule, nothing is drawn by chance: the same bytes every time.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20

# One sentence each in 20 scripts (the first article of the declaration of human rights, or its like).
SCRIPTS = {
    "latin": "All human beings are born free and equal in dignity and rights.",
    "cyrillic": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "armenian": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։",
    "georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
    "hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "devanagari": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "bengali": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "tamil": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "telugu": "ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు.",
    "kannada": "ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ.",
    "malayalam": "മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും സ്വാതന്ത്ര്യത്തോടുംകൂടി ജനിച്ചവരാണ്.",
    "gujarati": "પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.",
    "gurmukhi": "ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ, ਸ਼ਾਨ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।",
    "sinhala": "සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත.",
    "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "khmer": "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងភាពស្មើៗគ្នាក្នុងសិទ្ធិនិងសេចក្តីថ្លៃថ្នូរ។",
    "amharic": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "han": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神互相对待。",
    "kana": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "hangul": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}
EMOJI = "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇺🇳 1️⃣ ❤️‍🔥 🧑🏿‍🚀 ☺︎ "
MARKS = "\u202eright to left\u202c \u200f\u061c\u2067isolated\u2069 \u200d\u200b\ufeff soft\u00adhyphen "
BREAKS = "one\u2028two\u2029three\x85four\x0bfive\x0csix\rseven\r\neight\x1cnine\x1dten\x1eeleven"
ZALGO = "Z" + "\u0301\u0327\u0489" * 3000

URLS = {
    "url-null": None,
    "url-empty": "",
    "url-no-host": "http://",
    "url-only-marks": "://?#",
    "url-ipv6": "http://[2001:db8::1]:8080/a?b#c",
    "url-broken-ipv6": "http://[2001:db8::1/a",
    "url-ipv4": "http://192.0.2.7/index.html",
    "url-userinfo": "https://user:p%40ss:word@@host.example:99999/a",
    "url-script": "javascript:alert('x')",
    "url-spaces": "http://exa mple .org/a b?c d",
    "url-dots": "http://....../..//../",
    "url-idn": "http://bücher.example/straße?q=ü#ﬀ",
    "url-percent": "http://example.org/%zz%00%ff%",
    "url-script-mixed": "http://пример.испытание/" + "ж" * 3000,
    "url-long": "http://example.org/" + "a-b." * (900_000 // 4),
    "url-long-host": "http://" + "a." * 100_000 + "example/",
}


@dataclass(frozen=True)
class Page:
    """A page: its id, HTML, URL ("own": one that no other page has), and what the server says of it."""

    name: str
    body: bytes
    url: str | None = "own"
    content_type: str | None = "text/html"


@dataclass(frozen=True)
class Bad:
    """A record that the reader has to quarantine: shard, byte offset (or row), part of the message."""

    shard: str
    position: int | str
    error: str


@dataclass
class Pool:
    """A folder of shards; ``names`` are the ids of the rows that enter the steps, ``bad`` what does not."""

    folder: Path
    names: list[str] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)


def prose(count: int) -> list[str]:
    """``count`` ordinary English pages, each a text of its own."""
    return _trusted()[:count]


@functools.cache
def _trusted() -> list[str]:
    from pools import demo_text

    return [row["text"] for row in demo_text.trusted()]


def texts() -> dict[str, str]:
    """Name → text: small and strange ones that any text column may hold."""
    made = {f"script-{name}": f"{sentence} " * 8 for name, sentence in SCRIPTS.items()}
    made |= {
        "all-scripts": "\n\n".join(SCRIPTS.values()),
        "emoji": EMOJI * 80,
        "marks": MARKS * 80,
        "breaks": f"{BREAKS}\n" * 40,
        "zalgo": ZALGO,
        "punctuation": "?!.,;:-–—…«»“”()[]{}<>@#$%^&*_+=|\\/~`'\" " * 60,
        "dots": "." * 20_000,
        "digits": "0123456789 " * 500,
        "blank": " \t\n\u00a0\u3000\u2003 \n\n\t ",
        "nul": "a\0b \0\0 c\0\n" * 200,
        "controls": "".join(map(chr, [*range(1, 32), *range(127, 160)])) * 40,
        "replacement": "caf\ufffd \ufffd\ufffd " * 200,
        "noncharacters": "\uffff \ufdd0 \U0010ffff \U0001fffe " * 200,
        "bom-inside": "\ufeffa word \ufeff and another. " * 100,
        "one-character": "x",
        "one-line": "The same words are said again and again. " * 400,
        "bullets": "• an item of a list\n" * 300,
        "crlf": "A line of the text that ends as on Windows.\r\n" * 100,
        "cr": "A line of the text that ends as on old machines.\r" * 100,
    }
    return made


def large_texts() -> dict[str, str]:
    """Name → text: those that ask how time and memory grow."""
    return {
        "one-word": "x" * (5 * MIB),
        "newlines": "a\n" * 300_000,
        "blank-newlines": "\n" * 300_000,
        "distinct-words": " ".join(map(_word, range(2_000_000))),
        "same-word": "spam " * 1_000_000,
        "same-line": "The very same line, over and over again.\n" * 100_000,
    }


def _word(number: int) -> str:
    """A different pronounceable word for each number: base 105, a syllable a digit."""
    out = ""
    while True:
        number, digit = divmod(number, 105)
        out += "bcdfghjklmnpqrstvwxyz"[digit // 5] + "aeiou"[digit % 5]
        if not number:
            return out


def html(text: str, head: str = "") -> str:
    """A page with ``text`` as its main content, a paragraph a line."""
    shown = text.replace("&", "&amp;").replace("<", "&lt;")
    body = "".join(f"<p>{line}</p>\n" for line in shown.split("\n\n"))
    start = f"<!doctype html><html><head>{head}<title>A page</title></head>"
    return f"{start}<body><main>{body}</main></body></html>"


def small_pages() -> list[Page]:
    """Strange pages of ordinary size."""
    pages = [Page(f"ordinary-{n}", html(text).encode()) for n, text in enumerate(prose(20))]
    pages += [Page(f"text-{name}", html(text).encode()) for name, text in texts().items()]
    pages += [Page(name, html(prose(1)[0] + name).encode(), url) for name, url in URLS.items()]
    english = html("\n\n".join(prose(2))).encode()
    accents, twos = html("Über naïve Café. " * 50), html("Encoded by twos. " * 50)

    def typed(charset: str) -> str:
        return f"text/html; charset={charset}"

    pages += [
        Page("plain-text", "\n".join(prose(3)).encode(), content_type="text/plain"),
        Page("plain-nul", b"a\0b " * 500, content_type="text/plain; charset=utf-8"),
        Page("empty-body", b""),
        Page("blank-body", b" \r\n\t \n"),
        Page("no-type", english, content_type=None),
        Page("pdf", b"%PDF-1.7\n" + bytes(range(256)) * 20, content_type="application/pdf"),
        Page("image-as-html", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200),
        Page("nul-in-tags", english.replace(b"<p>", b"<\0p>\0")),
        Page("nul-everywhere", english.replace(b" ", b"\0")),
        Page("surrogate-bytes", english.replace(b" the ", b" \xed\xa0\x80 ")),
        Page("surrogate-references", english.replace(b" the ", b" &#xD800;&#55296;&#x110000;&#0; ")),
        Page("invalid-utf8", english.replace(b" the ", b" \xff\xfe\xc3( "), content_type=typed("utf-8")),
        Page("latin-1", accents.encode("latin-1"), content_type=typed("latin1")),
        Page("utf-16", twos.encode("utf-16")),
        Page("utf-16-without-mark", twos.encode("utf-16-le")),
        Page("utf-8-mark", b"\xef\xbb\xbf" + english),
        Page("unknown-charset", english, content_type=typed("x-klingon-\xff")),
        Page("lying-charset", accents.encode("latin-1"), content_type=typed("utf-16")),
        Page("crlf", english.replace(b"\n", b"\r\n")),
        Page("cr", english.replace(b"\n", b"\r")),
        Page("no-end", english[: len(english) // 2]),
        Page("open-comment", english.replace(b"<p>", b"<!--", 1)),
        Page("open-attribute", english.replace(b"<p>", b'<p class="', 1)),
        Page("open-script", english.replace(b"<p>", b"<script>", 1)),
        Page("random", _noise(30_000)),
    ]  # fmt: skip
    return pages


def _noise(size: int) -> bytes:
    """Bytes without order: a linear congruence."""
    state, out = 1, bytearray()
    for _ in range(size):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(state >> 16 & 255)
    return bytes(out)


def nested(tag: str, depth: int = 10_000) -> bytes:
    """A text below ``depth`` open tags, and all of them closed."""
    return b"<html><body>" + f"<{tag}>".encode() * depth + b"deep text" + f"</{tag}>".encode() * depth


NESTED = ("div", "b", "a", "ul", "span", "blockquote", "font", "article", "table", "p")


def large_pages() -> list[Page]:
    """Pages that are large, deep or wide: each may cost its own row, and no other."""
    pages = [Page(f"nested-{tag}", nested(tag)) for tag in NESTED]
    pages += [
        Page("nested-list", b"<html><body>" + b"<ul><li>" * 10_000 + b"deep text"),
        Page("nested-cells", b"<html><body>" + b"<table><tr><td>" * 10_000 + b"deep text"),
        Page("unclosed", b"<html><body>" + b"<b><i><font>text " * 10_000),
        Page("attributes", b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(20_000)) + b">text"),
        Page("references", b"<html><body><p>" + b"&amp;&lt;&#x1F600;" * 100_000),
        Page("html-20-mb", html("\n\n".join(prose(20)) + "\n\n").encode() * (20 * MIB // 120_000)),
        Page("html-20-mb-one-paragraph", html("many words in a paragraph " * (20 * MIB // 26)).encode()),
    ]
    pages += [Page(f"large-{name}", html(text).encode()) for name, text in large_texts().items()]
    return pages


def record(page: Page, kind: str = "response") -> bytes:
    """One WARC record, not compressed."""
    said = "" if page.content_type is None else f"Content-Type: {page.content_type}\r\n"
    answer = f"HTTP/1.1 200 OK\r\n{said}Content-Length: {len(page.body)}\r\n\r\n"
    block = answer.encode("latin-1") + page.body if kind == "response" else page.body
    target = "" if page.url is None else f"WARC-Target-URI: {_url(page.name, page.url)}\r\n"
    content = "application/http; msgtype=response" if kind == "response" else "application/warc-fields"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n{target}"
        f"Winnow-Id: {page.name}\r\nContent-Type: {content}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def member(data: bytes) -> bytes:
    """One gzip member without a time."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def ordinary(prefix: str, count: int = 6) -> list[Page]:
    return [Page(f"{prefix}-{n}", html(text).encode()) for n, text in enumerate(prose(40)[20 : 20 + count])]


def warc_pool(folder: Path) -> Pool:
    """Shards of pages, and of every kind of damage to a WARC."""
    folder.mkdir(parents=True)
    pool = Pool(folder)

    def shard(name: str, pages: list[Page], data: bytes | None = None) -> None:
        (folder / name).write_bytes(b"".join(map(member, map(record, pages))) if data is None else data)
        pool.names += [page.name for page in pages]

    shard("strange.warc.gz", small_pages())
    shard("large.warc.gz", large_pages())

    pages = ordinary("cut")
    packed = [member(record(page)) for page in pages]
    shard("cut.warc.gz", pages[:-1], b"".join(packed)[: -len(packed[-1]) // 2])
    pool.bad.append(Bad("cut.warc.gz", sum(map(len, packed[:-1])), "truncated gzip member"))

    pages = ordinary("flipped")
    packed = [member(record(page)) for page in pages]
    spoiled = bytearray(packed[2])
    spoiled[len(spoiled) // 2] ^= 0x55
    shard("flipped.warc.gz", pages[:2] + pages[3:], b"".join([*packed[:2], bytes(spoiled), *packed[3:]]))
    pool.bad.append(Bad("flipped.warc.gz", len(packed[0] + packed[1]), "corrupt gzip member"))

    shard("empty.warc.gz", [], b"")
    shard("empty-member.warc.gz", [], member(b""))
    shard("empty.warc", [], b"")
    others = [
        record(Page(k, b"software: test\r\n"), k) for k in ("warcinfo", "request", "metadata", "revisit")
    ]
    shard("no-response.warc.gz", [], b"".join(map(member, others)))
    text = b"<html><body>This is no WARC file</body></html>\n" * 50
    shard("no-warc.warc", [], text)
    pool.bad.append(Bad("no-warc.warc", 0, "no WARC header"))
    shard("no-gzip.warc.gz", [], text)
    pool.bad.append(Bad("no-gzip.warc.gz", 0, "corrupt gzip member"))

    pages = ordinary("plain")
    shard("plain.warc", pages, b"".join(map(record, pages)))

    # the second and the third record have ids that the shard has had
    pages = ordinary("twice", 3)
    shard("twice.warc.gz", pages, b"".join(member(record(p)) for p in [*pages, pages[0], pages[2]]))
    pool.bad += [Bad("twice.warc.gz", f"row {n}", "duplicate id") for n in (3, 4)]

    # a record over the limit, an URL over the limit of a header, an answer that is no HTTP, a broken length
    pages = ordinary("between", 4)
    first, second, third, fourth = (member(record(page)) for page in pages)
    huge = member(record(Page("huge", bytes(70 * MIB))))
    address = member(record(Page("address", b"x", "http://example.org/" + "u" * (2 * MIB))))
    strange = member(record(Page("strange", b"x")).replace(b"HTTP/1.1 200 OK", b"GET / HTTP/1.1 "))
    shard("limits.warc.gz", pages, first + huge + second + address + third + strange + fourth)
    at = len(first)
    pool.bad.append(Bad("limits.warc.gz", at, "over the limit of 67108864"))
    at += len(huge + second)
    pool.bad.append(Bad("limits.warc.gz", at, "record header without an end"))
    at += len(address + third)
    pool.bad.append(Bad("limits.warc.gz", at, "a response without an HTTP status line"))
    return pool


def line(name: str, text: object, url: str | None = "own") -> bytes:
    """One JSON line, in UTF-8."""
    row = {"id": name, "url": _url(name, url), "text": text}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _url(name: str, url: str | None) -> str | None:
    return f"http://example.org/{name}.html" if url == "own" else url


def text_pool(folder: Path) -> Pool:
    """Shards of JSON lines: the strange texts, and every kind of damage."""
    folder.mkdir(parents=True)
    pool = Pool(folder)

    def shard(name: str, names: list[str], data: bytes) -> None:
        (folder / name).write_bytes(data)
        pool.names += names

    def lines(rows: dict[str, str]) -> bytes:
        return b"".join(line(name, text) for name, text in rows.items())

    plain = prose(40)
    good = {f"ordinary-{n}": text for n, text in enumerate(plain[:20])}
    odd = {f"text-{name}": text for name, text in texts().items()}
    addresses = {name: line(name, f"{plain[0]} {name}", url) for name, url in URLS.items()}
    addresses["url-2-mb"] = line("url-2-mb", plain[1], "http://example.org/" + "long/" * (2 * MIB // 5))
    nothing = {"text-null": line("text-null", None), "text-empty": line("text-empty", "")}
    shard(
        "strange.jsonl",
        [*good, *odd, *addresses, *nothing],
        lines(good) + lines(odd) + b"".join([*addresses.values(), *nothing.values()]),
    )
    big = large_texts()
    big["20-mb"] = ("many words in a line " * MIB)[: 20 * MIB]
    shard("large.jsonl.gz", list(big), gzip.compress(lines(big), 1, mtime=0))

    def some(prefix: str, count: int = 6) -> dict[str, str]:
        return {f"{prefix}-{n}": text for n, text in enumerate(plain[20 : 20 + count])}

    rows = some("long", 2)
    before = lines(rows)
    shard("long.jsonl", list(rows), before + line("50-mb", "x" * (50 * MIB)) + b"\n \r\n")
    pool.bad.append(Bad("long.jsonl", len(before), "over the limit of 33554432"))

    rows = some("damaged", 40)
    data = lines(rows)
    wrong = {
        b'{"id": "w0", "text": "lone \\ud800 surrogate"}\n': "surrogate",
        b'{"id": "w1", "text": "surrogate \xed\xa0\x80 in bytes"}\n': "",
        b'{"id": "w2", "text": "not \xff\xfe UTF-8"}\n': "",
        b'{"id": "w3", "text": "cut \xc3"}\n': "",
        b'{"id": "w4", "text": "a raw \0 in a string"}\n': "",
        b'{"id": "w5", "text": "a tab\tin a string"}\n': "",
        b'{"id": "w6", "text": "no end\n': "",
        b'{"id": "w7", "text": "two"} {"id": "w8"}\n': "",
        b"[1, 2]\n": "a JSON array, not an object",
        b"null\n": "a JSON null, not an object",
        b"[" * 5_000 + b"\n": "",
        b'{"id": "w9", "text": NaN}\n': "",
        b'{"id": "w10", "text": 17}\n': "text",
        b'{"id": "w11", "text": {"a": ["b"]}}\n': "text",
        b"\0\0\0\0\n": "",
        "{“id”: “w12”}\n".encode(): "",
    }
    for number, (spoiled, error) in enumerate(wrong.items()):
        pool.bad.append(Bad("damaged.jsonl", len(data), error))
        data += spoiled
        if number % 5 == 0:
            data += line(f"between-{number}", f"{number} {plain[0]}")
            pool.names.append(f"between-{number}")
    shard("damaged.jsonl", list(rows), data)

    rows = some("mark")
    shard("mark.jsonl", list(rows), b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n"))
    rows = some("cr-only", 3)
    shard("cr-only.jsonl", [], lines(rows).replace(b"\n", b"\r"))
    pool.bad.append(Bad("cr-only.jsonl", 0, ""))
    shard("empty.jsonl", [], b"")
    shard("only-mark.jsonl", [], b"\xef\xbb\xbf")
    shard("blank.jsonl", [], b"\n\r\n  \n\t\n")
    shard("empty.jsonl.gz", [], gzip.compress(b"", mtime=0))
    shard("nothing.jsonl.gz", [], b"")

    rows = some("twice", 3)
    shard("twice.jsonl", list(rows), b"no row\n" + lines(rows) + line("twice-1", "an id once more"))
    pool.bad.append(Bad("twice.jsonl", 0, ""))
    pool.bad.append(Bad("twice.jsonl", "row 3", "duplicate id"))  # the fourth that could be read

    rows = some("cut-before", 2)
    first, second = gzip.compress(lines(rows), mtime=0), gzip.compress(lines(some("cut-after")), mtime=0)
    shard("cut.jsonl.gz", list(rows), first + second[:40])
    pool.bad.append(Bad("cut.jsonl.gz", len(first), "truncated gzip member"))
    shard("no-gzip.jsonl.gz", [], lines(rows))
    pool.bad.append(Bad("no-gzip.jsonl.gz", 0, "corrupt gzip member"))
    return pool
