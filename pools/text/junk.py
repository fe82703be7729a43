"""Generated pages: the junk that a crawl is full of, and mirrors of real pages.

All words here are ours (Apache-2.0, like the project), except that word salad and mirrors are made out of
real pages and keep the licence of the page they were made from. Copies follow a heavy tail: most campaigns
have a few pages, a few have dozens, as on the web, so removing near-duplicates changes what is left.
Everything is drawn from one `random.Random`, so the same seed gives the same pages.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from pools.text.sources import Page

OURS = "generated"
OUR_LICENCE = "Apache-2.0"

_BANK = yaml.safe_load(Path(__file__).with_name("junk.yaml").read_text(encoding="utf-8"))
CITIES: list[str] = _BANK["cities"].split()
SERVICES: dict[str, tuple[str, str, str]] = {word: tuple(row) for word, row in _BANK["services"].items()}
_SALES: list[str] = _BANK["sales"].split()
_DOORWAY: list[str] = _BANK["doorway"]
_COMMENTS: list[str] = _BANK["comments"]
_POLICY: dict[str, str] = _BANK["policies"]

_SKELETON = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{title}">
<link rel="stylesheet" href="/wp-content/themes/{theme}/style.css">
<script async src="https://ads.{host}/tag.js"></script></head>
<body class="home page {theme}">
<div id="top"><ul class="menu"><li><a href="/">Home</a></li><li><a href="/about">About Us</a></li>
<li><a href="/services">Services</a></li><li><a href="/blog">Blog</a></li>
<li><a href="/contact">Contact</a></li></ul></div>
<div id="content"><h1>{title}</h1>
{body}
</div>
<div id="sidebar"><h3>Recent Posts</h3><ul>{links}</ul></div>
<div id="footer"><p>&copy; {host} All rights reserved. <a href="/privacy-policy">Privacy Policy</a> |
<a href="/terms-of-use">Terms</a></p></div></body></html>
"""

_MIRROR = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">
<html><head><meta http-equiv="Content-Type" content="text/html; charset=utf-8">
<title>{title} - {host}</title></head>
<body bgcolor="#ffffff"><table width="100%"><tr><td><a href="/">{host}</a></td><td align="right">
<form action="/search"><input name="q"><input type="submit" value="Search docs"></form></td></tr></table><hr>
<div class="document" role="main">
{body}
</div><hr><p><small>Mirrored by {host}. This copy may be out of date.
Page served in 0.{ms} seconds.</small></p>
</body></html>
"""

_HOSTS = ("best-{}-4u", "{}-deals24", "cheap-{}-online", "my{}hub", "{}{}", "top10-{}", "{}-expert")
_THEMES = ("astra", "divi", "hello-world", "twentyten", "profit-press")
_WORD = re.compile(r"[A-Za-z]+")


def copies(rng: random.Random, most: int, tail: float = 1.1) -> int:
    """How many copies: 1 in about half of the cases, rarely as many as `most` (a Pareto tail)."""
    return min(most, int(rng.paretovariate(tail)))


def _page(rng: random.Random, kind: str, host: str, path: str, title: str, body: str, family: str,
          licence: str = OUR_LICENCE, source: str = OURS) -> Page:  # fmt: skip
    links = "".join(
        f'<li><a href="/{s}-{c.lower()}">{s.replace("-", " ")} {c}</a></li>'
        for s, c in zip(rng.sample(sorted(SERVICES), 4), rng.sample(CITIES, 4), strict=True)
    )
    theme = rng.choice(_THEMES)
    text = _SKELETON.format(title=html.escape(title), host=host, theme=theme, body=body, links=links)
    return Page(f"https://{host}/{path}", text.encode(), kind, source, licence, "en", family)


def _paragraphs(sentences: Iterable[str], rng: random.Random) -> str:
    out, now = [], []
    for sentence in sentences:
        now.append(sentence)
        if len(now) >= rng.randint(3, 6):
            out.append(" ".join(now))
            now = []
    return "\n".join(f"<p>{html.escape(p, quote=False)}</p>" for p in [*out, " ".join(now)] if p)


def _spam_host(rng: random.Random, word: str) -> str:
    if rng.random() < 0.4:  # not every spammer says so in the host name
        name = f"{rng.choice(CITIES).lower()}-{rng.choice(('times', 'guide', 'blog', 'home', 'world'))}"
        return f"www.{name}{rng.randint(2, 9)}.example"
    pattern = rng.choice(_HOSTS)
    return pattern.format(word, rng.randint(1, 99)) + rng.choice((".shop", ".biz", ".info", "")) + ".example"


def doorways(rng: random.Random, count: int, most: int = 60) -> Iterator[Page]:
    """Doorway pages: one sales text per campaign, repeated with another city in five places."""
    made, campaign = 0, 0
    while made < count:
        word = rng.choice(sorted(SERVICES))
        a, b, c = SERVICES[word]
        host, family = _spam_host(rng, word), f"doorway:{campaign}"
        body = rng.sample(_DOORWAY, rng.randint(24, 34))
        price = rng.randint(3, 90) * 5
        seed = rng.random()
        folder = rng.choice((word, "areas", "locations"))
        for city in rng.sample(CITIES, min(copies(rng, most, 0.55) + 1, count - made)):
            texts = [s.format(a=a, b=b, c=c, city=city, price=price) for s in body]
            layout = random.Random(seed)  # the same paragraphs and links on every page of a campaign
            title = f"{a.title()} in {city} - Call Now"
            phone = f"<p>Call today: 555-01{rng.randint(10, 99)}, {city}</p>"
            text = _paragraphs(texts, layout) + phone
            yield _page(layout, "spam_doorway", host, f"{folder}/{city.lower()}.html", title, text, family)
            made += 1
        campaign += 1


def keyword_stuffing(rng: random.Random, count: int) -> Iterator[Page]:
    """Pages that are lists of search phrases, some repeated on sister hosts with one list changed."""
    made, campaign = 0, 0
    while made < count:
        word = rng.choice(sorted(SERVICES))
        a, b, c = SERVICES[word]
        own = [a, b, c, *rng.sample(_SALES, 30)]
        lists = []
        for _ in range(rng.randint(8, 16)):
            phrases = [" ".join(rng.choices(own, k=rng.randint(2, 5))) for _ in range(rng.randint(10, 24))]
            lists.append(", ".join(phrases))
        for _ in range(min(copies(rng, 12), count - made)):
            shown = list(lists)
            shown[rng.randrange(len(shown))] = ", ".join(rng.choices(own, k=40))
            body = "\n".join(f"<p>{p}</p>" for p in shown)
            title = " | ".join(rng.choices(own, k=4))
            slug = "-".join(rng.choices(_SALES, k=3))
            path = f"{word}/{slug}-{rng.randint(1, 999)}.html" if rng.random() < 0.6 else f"node/{made}"
            yield _page(
                rng, "spam_keywords", _spam_host(rng, word), path, title, body, f"keywords:{campaign}"
            )
            made += 1
        campaign += 1


def word_salad(rng: random.Random, count: int, originals: list[tuple[Page, str]]) -> Iterator[Page]:
    """Shuffled real prose with ad words in it: right letters, right stop words, no meaning.

    `originals` are pool pages with their text; a salad keeps the licence of the page it was made from.
    """
    made = 0
    for index, (page, text) in enumerate(originals):
        if made >= count:
            break
        words = _WORD.findall(text)[:900]
        rng.shuffle(words)
        for at in rng.sample(range(len(words)), len(words) // 12):
            words[at] = rng.choice(_SALES)
        sentences, at = [], 0
        while at < len(words):
            size = rng.randint(7, 22)
            sentences.append(" ".join(words[at : at + size]).capitalize() + ".")
            at += size
        for _ in range(min(copies(rng, 10, 1.5), count - made)):
            word = rng.choice(sorted(SERVICES))
            shown = list(sentences)
            for at in rng.sample(range(len(shown)), max(1, len(shown) // 25)):
                shown[at] = f"{SERVICES[word][0].capitalize()} " + " ".join(rng.choices(_SALES, k=9)) + "."
            title = " ".join(rng.sample(words[:200], 5)).title()
            path = (
                f"?p={rng.randint(100, 99999)}" if rng.random() < 0.6 else f"{rng.choice(_SALES)}/{made}.html"
            )
            layout = random.Random(index)
            body, family = _paragraphs(shown, layout), f"salad:{index}"
            yield _page(
                rng, "spam_salad", _spam_host(rng, word), path, title, body, family,
                page.licence, f"generated from {page.source}",
            )  # fmt: skip
            made += 1


def comments(rng: random.Random, count: int) -> Iterator[Page]:
    """Guest books full of compliments and links."""
    for made in range(count):
        posts = []
        said = rng.sample(_COMMENTS, 2 * rng.randint(6, 9))
        for sentence, more in zip(said[::2], said[1::2], strict=True):
            word = rng.choice(sorted(SERVICES))
            text = f"{sentence} {more}".format(city=rng.choice(CITIES), a=SERVICES[word][0])
            name = f"{rng.choice(_SALES)} {SERVICES[word][0]}"
            posts.append(
                f'<div class="comment"><p><a rel="nofollow" href="https://{_spam_host(rng, word)}/">'
                f"{name}</a> wrote:</p><p>{text}</p></div>"
            )
        club = rng.choice(("family", "gardening", "choir", "chess-club"))
        host = f"{rng.choice(CITIES).lower()}-{club}.example"
        yield _page(
            rng,
            "spam_comments",
            host,
            f"guestbook/?page={made}",
            "Guestbook",
            "\n".join(posts),
            f"comments:{made}",
        )


def listings(rng: random.Random, count: int) -> Iterator[Page]:
    """Shop pages: products and prices, the same shelf again in another order."""
    made, shop = 0, 0
    things, adjectives = _BANK["products"].split(), _BANK["adjectives"].split()
    while made < count:
        host = f"{rng.choice(CITIES).lower()}-{rng.choice(('outlet', 'store', 'bargains'))}{shop}.example"
        shelf = [
            (f"{rng.choice(adjectives)} {rng.choice(adjectives)} {rng.choice(things)}", rng.randint(5, 400))
            for _ in range(rng.randint(16, 40))
        ]
        for order in range(min(copies(rng, 14, 0.8), count - made)):
            rng.shuffle(shelf)
            items = "".join(
                f'<div class="product"><h2><a href="/p/{n.lower().replace(" ", "-")}">{n}</a></h2>'
                f"<p>{n} now only ${p}.99 instead of ${p * 2}.99. Rated by {p * 7 % 900} customers. "
                f"In stock, free shipping.</p><button>Add to cart</button></div>\n"
                for n, p in shelf
            )
            path = f"shop/?orderby={order}&per_page={len(shelf)}"
            yield _page(rng, "spam_listing", host, path, "Shop all products - Sale", items, f"shop:{shop}")
            made += 1
        shop += 1


def parked(rng: random.Random, count: int) -> Iterator[Page]:
    """Parked domains: the same two sentences everywhere."""
    for made in range(count):
        word = rng.choice(sorted(SERVICES))
        host = f"{word}{made}.example"
        body = (
            f"<p>The domain {host} is for sale. Click here to make an offer to its owner.</p>"
            "<p>This page was generated by the owner using a free parking service. Related searches:</p><ul>"
            + "".join(f"<li>{w}</li>" for w in SERVICES[word])
            + "</ul>"
        )
        yield _page(rng, "spam_parked", host, "", f"{host} is for sale", body, "parked")


def policies(rng: random.Random, count: int) -> Iterator[Page]:
    """Privacy policies, terms, cookie notices: good English, the same on every site."""
    for _ in range(count):
        name = rng.choice(sorted(_POLICY))
        site = (
            f"{rng.choice(CITIES)} {rng.choice(('Online', 'Media', 'Travel', 'Sports', 'Kitchen', 'News'))}"
        )
        host = f"www.{site.lower().replace(' ', '-')}.example"
        month = rng.choice(("March", "May", "June", "October"))
        date = f"{rng.randint(1, 28)} {month} {rng.randint(2018, 2024)}"
        text = _POLICY[name].format(site=site, host=host, date=date)
        sentences = re.split(r"(?<=[.?!]) ", text)
        if rng.random() < 0.3:
            sentences.pop(rng.randrange(1, len(sentences) - 1))
        title = name.replace("-", " ").title()
        body = _paragraphs(sentences, random.Random(name))
        yield _page(
            rng, "boilerplate", host, f"{name}?v={rng.randint(1, 10**6)}", title, body, f"policy:{name}"
        )


def mirrors(rng: random.Random, page: Page, text: str, count: int) -> Iterator[Page]:
    """`count` copies of a real page on other hosts: another template, one paragraph in thirty lost."""
    blocks = [b.strip() for b in re.split(r"\n\s*\n", text) if b.strip()]
    kind = "mirror" if page.kind == "prose" else page.kind
    for _ in range(count):
        shown = [b for b in blocks if rng.random() > 0.03] or blocks
        body = "\n".join(f"<p>{html.escape(b, quote=False)}</p>" for b in shown)
        first = rng.choice(("docs", "mirror", "man", "manuals", "ftp", "kb"))
        owner = rng.choice(("lug", "university", "hosting", "essex", "cs"))  # essex: no reason to filter
        host = f"{first}.{rng.choice(CITIES).lower()}-{owner}.example"
        title = html.escape(blocks[0].splitlines()[0][:80])
        source = _MIRROR.format(title=title, host=host, body=body, ms=rng.randint(100, 999))
        path = re.sub(r"^https?://", "", page.url)
        yield replace(
            page, url=f"http://{host}/{path}", html=source.encode(), kind=kind, copy_of=page.url,
            charset="utf-8", header_charset="utf-8",
        )  # fmt: skip


def same_page_again(rng: random.Random, page: Page, count: int) -> Iterator[Page]:
    """`count` byte-identical copies of a page under other addresses: tracking parameters, plain http."""
    kind = "mirror" if page.kind == "prose" else page.kind
    for number in range(count):
        url = page.url + rng.choice(("?highlight=", "?utm_source=feed", "?print=1", "?sid="))
        yield replace(page, url=f"{url}&n={number}{rng.randint(100, 999)}", kind=kind, copy_of=page.url)
