"""Captions as alt-text has them: good ones, other languages, file names, furniture, spam.

Every function draws from the `random.Random` it is given and from nothing else. A :class:`Caption` carries the
truth about itself; the builder stores that apart from the pool.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pools.image_text.sources import Item, slug

# What a caption can be. `english` is the only kind a perfect filter keeps, and only when it is not swapped.
KINDS = ("english", "other_language", "file_name", "boilerplate", "spam", "markup")
SHARES = {"english": 0.605, "other_language": 0.12, "file_name": 0.105, "boilerplate": 0.10, "spam": 0.03,
          "markup": 0.04}  # fmt: skip


@dataclass(frozen=True)
class Caption:
    text: str
    kind: str
    language: str  # ISO 639-1, or "zxx" where there is no language
    informative: bool  # does it say what its own picture shows?


def article(words: str) -> str:
    if words.split(" ")[0].lower() in ("the", "a", "an", "two", "three"):
        return words
    return f"an {words}" if words[:1].lower() in "aeiou" else f"a {words}"


def title_case(text: str) -> str:
    return " ".join(w[:1].upper() + w[1:] for w in text.split(" "))


# ------------------------------------------------------------------------------------------------- English

FRAMES = {
    "any": (
        "a picture of {a}", "an illustration of {a}", "picture showing {a}", "{Label} illustration", "small {label} image",
        "drawing of {a}", "cartoon {label}", "{Label} vector graphic", "{label} on a white background",
        "{Label} - free download", "{Label} | Picture Library", "{Label} sticker", "cute {label}", "simple {label} graphic",
        "{label}, colour drawing", "{label} (illustration)", "Image of {label}", "{Label} PNG", "close-up of {label}",
        "how to draw {a}", "Picture: {label}", "{label} for kids", "this is {a}", "{Label} – stock illustration",
    ),
    "emoji": (
        "{label} emoji", "{Label} Emoji", "emoji of {a}", "the {label} emoji", "{Label} emoji meaning and copy",
        "{label} symbol", "{Label} emoji sticker", "{group} emoji: {label}", "{label} ({subgroup})",
        "{Group} › {Subgroup} › {label}", "{Label} – {group}",
    ),
    "person": (
        "{label}, {tone} skin tone", "{label}: {tone} skin tone", "{Label} emoji, {tone} skin", "emoji of {a}, {tone} skin tone",
        "{label} with {tone} skin", "{group} emoji: {label}, {tone} skin tone",
    ),
    "flag": (
        "flag of {label}", "{label} flag", "Flag of {label}", "the national flag of {label}", "{label} country flag",
        "Flag: {label}", "{label} flag icon", "small flag of {label}", "{label} – flags of the world",
        "travel to {label}", "map and flag of {label}", "{label} national team", "language: {label}",
    ),
    "clipart": (
        "{label} clip art", "{Label} Clipart", "free {label} clipart", "clip art of {a}", "{label} - public domain vector",
        "{Group}: {label}", "{Label} ({group} clip art)", "{label} vector drawing", "line art of {a}",
    ),
    "icon": (
        "{label} icon", "{Label} Icon", "icon of {a}", "{label} symbol", "icon: {label}", "{Group} icon – {label}",
        "{label} pictogram", "{Label} icon, {group}", "flat icon showing {label}",
    ),
}  # fmt: skip


def _words(item: Item) -> dict[str, str]:
    subgroup = item.subgroup.replace("-", " ")
    group = (item.group or item.kind).replace("-", " & " if item.kind in ("emoji", "person") else " ")
    return {
        "label": item.label, "Label": title_case(item.label), "a": article(item.label), "tone": item.tone,
        "group": group, "Group": title_case(group), "subgroup": subgroup or group,
        "Subgroup": title_case(subgroup or group),
    }  # fmt: skip


def english(item: Item, rng: random.Random) -> Caption:
    """A true English caption: the bare name, name with keywords, or a sentence as web pages have."""
    words, tags = _words(item), list(item.tags)
    rng.shuffle(tags)
    roll = rng.random()
    if item.kind == "person" and roll < 0.7:
        text = rng.choice(FRAMES["person"]).format_map(words)
    elif roll < 0.22:
        name = f"flag of {item.label}" if item.kind == "flag" and rng.random() < 0.5 else item.label
        text = rng.choice((name, name, title_case(name), name.lower(), f"{name}."))
    elif roll < 0.42 and tags:
        joined = rng.choice((", ", ", ", " ", " - ", " / ")).join([item.label, *tags[: rng.randint(1, 4)]])
        text = joined if rng.random() < 0.8 else title_case(joined)
    elif roll < 0.47 and len(tags) > 1:
        text = ", ".join(tags[: rng.randint(2, 5)])
    elif roll < 0.55 and tags:
        text = (
            f"{rng.choice(FRAMES['any']).format_map(words)}, {rng.choice(('with', 'and', 'also'))} {tags[0]}"
        )
    elif roll < 0.80:
        text = rng.choice(FRAMES[item.kind if item.kind in FRAMES else "any"]).format_map(words)
    else:
        text = rng.choice(FRAMES["any"]).format_map(words)
    return Caption(text, "english", "en", True)


# ------------------------------------------------------------------------------------------------- other languages

FOREIGN_FRAMES = {
    "de": ("{n}", "{n}", "Bild: {n}", "{n} zum Ausdrucken", "Kostenloses Bild mit {n}", "{n} Symbol", "Malvorlage {n}"),
    "es": ("{n}", "{n}", "imagen de {n}", "dibujo de {n}", "{n} para colorear", "descargar {n} gratis", "icono de {n}"),
    "fr": ("{n}", "{n}", "image de {n}", "dessin de {n}", "{n} à imprimer", "icône {n} gratuite", "illustration : {n}"),
    "it": ("{n}", "{n}", "immagine di {n}", "disegno di {n}", "{n} da colorare", "icona {n} gratis"),
    "pt": ("{n}", "{n}", "imagem de {n}", "desenho de {n}", "{n} para imprimir", "ícone de {n} grátis"),
    "nl": ("{n}", "{n}", "afbeelding van {n}", "tekening van {n}", "{n} kleurplaat", "gratis pictogram {n}"),
    "pl": ("{n}", "{n}", "obrazek: {n}", "rysunek {n}", "{n} do druku", "darmowa ikona {n}"),
    "sv": ("{n}", "{n}", "bild på {n}", "teckning av {n}", "{n} att skriva ut", "gratis ikon {n}"),
    "ru": ("{n}", "{n}", "картинка {n}", "рисунок: {n}", "{n} скачать бесплатно", "значок {n}"),
    "ja": ("{n}", "{n}", "{n}のイラスト", "{n}の画像", "無料素材 {n}", "{n}アイコン"),
    "ko": ("{n}", "{n}", "{n} 그림", "{n} 이미지", "{n} 아이콘 무료 다운로드"),
    "zh": ("{n}", "{n}", "{n}图片", "{n}的插图", "免费下载 {n}", "{n}图标"),
    "hi": ("{n}", "{n}", "{n} का चित्र", "{n} की तस्वीर", "{n} आइकन"),
    "vi": ("{n}", "{n}", "hình ảnh {n}", "tranh vẽ {n}", "biểu tượng {n} miễn phí"),
}  # fmt: skip


def other_language(item: Item, rng: random.Random, dictionary: dict[str, dict[str, str]]) -> Caption:
    """A true caption in another language; clip-art without a translation keeps its English name in a foreign
    sentence, as translated shop pages do."""
    language = rng.choice(sorted(FOREIGN_FRAMES))
    if language in item.translations:
        name, tags = item.translations[language]
        name = name.split(": ")[-1] if item.kind == "flag" else name
        if tags and rng.random() < 0.3:
            name = ", ".join([name, *rng.sample(tags, min(len(tags), rng.randint(1, 3)))])
    else:
        name = dictionary.get(item.label.lower(), {}).get(language, item.label)
    text = rng.choice(FOREIGN_FRAMES[language]).format(n=name)
    if text == item.label:
        text = FOREIGN_FRAMES[language][2].format(n=name)
    return Caption(text, "other_language", language, True)


# ------------------------------------------------------------------------------------------------- noise


def file_name(item: Item, rng: random.Random) -> Caption:
    """Seven in ten say nothing; the rest carry the name of the thing."""
    ext = rng.choice(("png", "png", "jpg", "gif", "svg", "webp", "PNG", "JPG"))
    n, wide = rng.randrange(10000), rng.choice((32, 48, 64, 72, 128, 150, 256, 300, 512))
    if rng.random() < 0.3:
        stem = slug(item.label) or "item"
        name = rng.choice(
            (
                f"{stem}",
                f"{stem}-{wide}x{wide}",
                f"icon_{stem.replace('-', '_')}",
                f"{stem}@2x",
                f"{stem}-{n % 10}",
            )
        )
        return Caption(f"{name}.{ext}", "file_name", "zxx", True)
    digest = f"{rng.getrandbits(64):016x}"
    names = (
        f"IMG_{n:04d}", f"DSC{n:05d}", f"image{n % 100}", f"{digest[:8]}", f"{digest}", f"screenshot-2021-{n % 12 + 1:02d}-{n % 28 + 1:02d}",
        f"u{item.concept.split('-')[0].lower()}" if item.kind in ("emoji", "person") else f"asset-{n}", f"pic_{n}_{wide}",
        f"untitled-{n % 30}", f"{n}", f"thumb_{digest[:6]}_{wide}", f"cropped-logo-{wide}x{wide}", f"sprite_{n % 400}", f"wp-{n}-{wide}",
    )  # fmt: skip
    return Caption(f"{rng.choice(names)}.{ext}", "file_name", "zxx", False)


# (text, language): the first ones are drawn far more often than the last (Zipf)
BOILERPLATE = (
    ("image", "en"), ("icon", "en"), ("logo", "en"), ("click to enlarge", "en"), ("emoji", "en"), ("thumbnail", "en"),
    ("picture", "en"), ("Image may contain: one or more items", "en"), ("no alt text provided for this image", "en"), ("home", "en"),
    ("product image", "en"), ("loading...", "en"), ("avatar", "en"), ("Image result", "en"), ("photo", "en"), ("banner", "en"),
    ("See the source image", "en"), ("featured image", "en"), ("Previous page", "en"), ("Next", "en"), ("user profile picture", "en"),
    ("Share on social media", "en"), ("Vorschaubild", "de"), ("imagen", "es"), ("Bild vergrößern", "de"), ("image en cours de chargement", "fr"),
    ("clipart", "en"), ("bullet", "en"), ("spacer", "en"), ("Add to cart", "en"), ("View larger image", "en"), ("read more", "en"),
    ("Open in new window", "en"), ("placeholder", "en"), ("Photo of the day", "en"), ("advertisement", "en"), ("画像", "ja"), ("图片", "zh"),
    ("Sign up for our newsletter", "en"), ("изображение", "ru"), ("Image number {n}", "en"), ("Slide {n} of 12", "en"),
    ("Figure {n}", "en"), ("gallery photo {n}", "en"), ("Uploaded by user{n}", "en"), ("Item {n} in this collection", "en"),
    ("Page {n} header picture", "en"), ("the image shows our product in the gallery, view {n}", "en"), ("Category icon for the menu", "en"),
    ("A small decorative picture next to the text", "en"), ("rating: {n} out of 50", "en"), ("posted {n} days ago by admin", "en"),
)  # fmt: skip
_ZIPF = [1 / (rank + 1.5) for rank in range(len(BOILERPLATE))]


def boilerplate(item: Item, rng: random.Random) -> Caption:
    """Page furniture; few texts make up most of it, so that caption frequency can find them."""
    text, language = rng.choices(BOILERPLATE, _ZIPF)[0]
    text = text.format(n=rng.randrange(1, 50))
    if rng.random() < 0.15:
        text = rng.choice((text.upper(), title_case(text), f"{text} "))
    return Caption(text, "boilerplate", language, False)


_SPAM_NOUNS = ("watches", "sunglasses", "phone cases", "sneakers", "perfume", "loans", "printers", "handbags", "vitamins",
               "mattresses", "web hosting", "car insurance", "wedding dresses", "coupon codes", "wallpapers", "ringtones")  # fmt: skip
_SPAM_FRAMES = (
    "buy cheap {a} online, free shipping on {b} and {c}", "best {a} {n} - top deals on {b}", "{a} {b} {c} sale outlet store {n}",
    "Up to {p}% off {a}! Shop {b} today", "{a} near me, {b} reviews, {c} discount", "SKU {n} – {a} – ${p}.99 – in stock",
    "win a pair of {a} in our {b} contest, terms apply", "order {a} before midnight and save ${p} on {b}",
)  # fmt: skip


def spam(item: Item, rng: random.Random) -> Caption:
    """Good English about something that is not in the picture: no rule on form finds it."""
    a, b, c = rng.sample(_SPAM_NOUNS, 3)
    text = rng.choice(_SPAM_FRAMES).format(a=a, b=b, c=c, n=rng.randrange(100, 99999), p=rng.randrange(5, 90))
    return Caption(text, "spam", "en", False)


def markup(item: Item, rng: random.Random) -> Caption:
    """A true caption spoiled on its way: entities, tags, a cut, the short code or the character itself."""
    name = english(item, rng).text
    roll = rng.random()
    if roll < 0.25 and item.kind in ("emoji", "person", "flag"):
        characters = "".join(chr(int(p, 16)) for p in item.concept.split("-"))
        return Caption(characters, "markup", "zxx", False)
    if roll < 0.4:
        return Caption(f":{slug(item.label).replace('-', '_')}:", "markup", "zxx", True)
    if roll < 0.6:
        return Caption(
            name[: max(3, rng.randint(len(name) // 4, len(name) // 2))].rstrip() + "...",
            "markup",
            "en",
            False,
        )
    if roll < 0.8:
        return Caption(
            f"&lt;b&gt;{name}&lt;/b&gt;&nbsp;&quot;{rng.randrange(100)}&quot;", "markup", "en", True
        )
    where = f"https://img{rng.randrange(9)}.example/{rng.getrandbits(32):08x}"
    return Caption(f"{where} {name}" if rng.random() < 0.5 else where, "markup", "zxx", False)


def draw(item: Item, rng: random.Random, dictionary: dict[str, dict[str, str]]) -> Caption:
    """One caption for the picture, its kind drawn with :data:`SHARES`."""
    [kind] = rng.choices(list(SHARES), list(SHARES.values()))
    if kind == "other_language":
        return other_language(item, rng, dictionary)
    return {
        "english": english,
        "file_name": file_name,
        "boilerplate": boilerplate,
        "spam": spam,
        "markup": markup,
    }[kind](item, rng)


def clean(item: Item) -> tuple[str, ...]:
    """The captions a careful person would write: name, name with keywords, short sentences. First = plainest."""
    noun = {"emoji": "emoji", "person": "emoji", "flag": "flag", "clipart": "drawing", "icon": "icon"}[
        item.kind
    ]
    name = f"flag of {item.label}" if item.kind == "flag" else item.label
    if item.kind == "person":
        name = f"{item.label}, {item.tone} skin tone"
    tagged = ", ".join([name, *item.tags[:3]])
    sentence = (
        f"a picture of {article(name)}" if item.kind != "flag" else f"the national flag of {item.label}"
    )
    group = item.group.replace("-", " & ") if item.kind in ("emoji", "person") else item.group
    shelf = f"{group or noun}: {name}"
    return tuple(
        dict.fromkeys(
            (name, tagged, sentence, f"{name} {noun}" if item.kind != "flag" else f"{item.label} flag", shelf)
        )
    )
