"""Captions as alt-text has them: good ones, other languages, file names, furniture, spam.

Every function draws from the `random.Random` it is given and from nothing else; the phrases are in
`phrases.yaml`. A :class:`Caption` carries the truth about itself, which the build stores apart from the pool.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from pools.image_text.sources import Item, slug

PHRASES = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text("utf-8"))

# What a caption can be. `english` is the only kind a perfect filter keeps, and only when it is not swapped.
SHARES = {
    "english": 0.605,
    "other_language": 0.12,
    "file_name": 0.105,
    "boilerplate": 0.10,
    "spam": 0.03,
    "markup": 0.04,
}


@dataclass(frozen=True)
class Caption:
    text: str
    kind: str
    language: str  # ISO 639-1, or "zxx" where there is no language
    informative: bool  # does it say what its own picture shows?


def draw(item: Item, rng: random.Random, dictionary: dict[str, dict[str, str]]) -> Caption:
    """One caption for the picture, its kind drawn with :data:`SHARES`.

    `dictionary` (English name -> language -> name) translates names of items that bring no translation.
    """
    [kind] = rng.choices(list(SHARES), list(SHARES.values()))
    if kind == "other_language":
        return other_language(item, rng, dictionary)
    kinds = {
        "english": english,
        "file_name": file_name,
        "boilerplate": boilerplate,
        "spam": spam,
        "markup": markup,
    }
    return kinds[kind](item, rng)


def article(words: str) -> str:
    """`owl` -> `an owl`."""
    return f"an {words}" if words[:1].lower() in "aeiou" else f"a {words}"


def title_case(text: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


def _fields(item: Item) -> dict[str, str]:
    """What the English phrases can name."""
    group = (item.group or item.kind).replace("-", " & " if item.kind in ("emoji", "person") else " ")
    subgroup = item.subgroup.replace("-", " ") or group
    lower = {"label": item.label, "group": group, "subgroup": subgroup}
    upper = {key.capitalize(): title_case(value) for key, value in lower.items()}
    return lower | upper | {"a": article(item.label), "tone": item.tone}


def english(item: Item, rng: random.Random) -> Caption:
    """A true English caption: the bare name, name with keywords, or a sentence as web pages have."""
    phrases, tags = PHRASES["english"], list(item.tags)
    fields = _fields(item)
    # "a drawing of Peru" is not the flag
    general = _fields(replace(item, label=f"{item.label} flag")) if item.kind == "flag" else fields
    rng.shuffle(tags)
    roll = rng.random()
    if item.kind == "person" and roll < 0.7:
        text = rng.choice(phrases["person"]).format_map(fields)
    elif roll < 0.22:
        name = f"flag of {item.label}" if item.kind == "flag" and rng.random() < 0.5 else item.label
        text = rng.choice((name, name, title_case(name), name.lower(), f"{name}."))
    elif roll < 0.42 and tags:
        text = rng.choice((", ", ", ", " ", " - ", " / ")).join([item.label, *tags[: rng.randint(1, 4)]])
        text = text if rng.random() < 0.8 else title_case(text)
    elif roll < 0.47 and len(tags) > 1:
        text = ", ".join(tags[: rng.randint(2, 5)])
    elif roll < 0.55 and tags:
        joint = rng.choice(("with", "and", "also"))
        text = f"{rng.choice(phrases['any']).format_map(general)}, {joint} {tags[0]}"
    elif roll < 0.80:
        text = rng.choice(phrases[item.kind]).format_map(fields)
    else:
        text = rng.choice(phrases["any"]).format_map(general)
    return Caption(text, "english", "en", True)


def other_language(item: Item, rng: random.Random, dictionary: dict[str, dict[str, str]]) -> Caption:
    """A true caption in another language; clip-art without a translation keeps its English name in a foreign
    sentence, as translated shop pages do."""
    language = rng.choice(sorted(PHRASES["other_language"]))
    phrases = PHRASES["other_language"][language]
    if language in item.translations:
        name, tags = item.translations[language]
        name = name.split(": ")[-1] if item.kind == "flag" else name
        if tags and rng.random() < 0.3:
            name = ", ".join([name, *rng.sample(tags, min(len(tags), rng.randint(1, 3)))])
    else:
        name = dictionary.get(item.label.lower(), {}).get(language, item.label)
    text = rng.choice(phrases).format(n=name)
    if text == item.label:  # spelt as in English: only a sentence shows the language
        text = phrases[2].format(n=name)
    return Caption(text, "other_language", language, True)


def file_name(item: Item, rng: random.Random) -> Caption:
    """Seven in ten say nothing; the rest carry the name of the thing."""
    extension = rng.choice(("png", "png", "jpg", "gif", "svg", "webp", "PNG", "JPG"))
    telling = rng.random() < 0.3
    n, stem = rng.randrange(10_000), slug(item.label) or "item"
    emoji_code = f"u{item.concept.split('-')[0].lower()}"
    name = rng.choice(PHRASES["file_name"]["telling" if telling else "opaque"]).format(
        n=n,
        small=n % 100,
        digit=n % 10,
        month=n % 12 + 1,
        day=n % 28 + 1,
        wide=rng.choice((32, 48, 64, 72, 128, 150, 256, 300, 512)),
        digest=f"{rng.getrandbits(64):016x}",
        code=emoji_code if item.kind in ("emoji", "person") else f"asset-{n}",
        stem=stem,
        stem_=stem.replace("-", "_"),
    )
    return Caption(f"{name}.{extension}", "file_name", "zxx", telling)


def boilerplate(item: Item, rng: random.Random) -> Caption:
    """Page furniture; by Zipf's law few texts make up most of it, so that caption frequency can find them."""
    phrases = PHRASES["boilerplate"]
    text, language = rng.choices(phrases, [1 / (rank + 1.5) for rank in range(len(phrases))])[0]
    text = text.format(n=rng.randrange(1, 50))
    if rng.random() < 0.15:
        text = rng.choice((text.upper(), title_case(text), f"{text} "))
    return Caption(text, "boilerplate", language, False)


def spam(item: Item, rng: random.Random) -> Caption:
    """Good English about something that is not in the picture: no rule on form finds it."""
    a, b, c = rng.sample(PHRASES["spam"]["nouns"], 3)
    phrase = rng.choice(PHRASES["spam"]["frames"])
    text = phrase.format(a=a, b=b, c=c, n=rng.randrange(100, 99_999), p=rng.randrange(5, 90))
    return Caption(text, "spam", "en", False)


def markup(item: Item, rng: random.Random) -> Caption:
    """A true caption spoiled on its way: the character itself, a short code, a cut, entities, an address."""
    name = english(item, rng).text
    roll = rng.random()
    if roll < 0.25 and item.kind in ("emoji", "person", "flag"):
        characters = "".join(chr(int(point, 16)) for point in item.concept.split("-"))
        return Caption(characters, "markup", "zxx", False)
    if roll < 0.4:
        return Caption(f":{slug(item.label).replace('-', '_')}:", "markup", "zxx", True)
    if roll < 0.6:
        cut = max(3, rng.randint(len(name) // 4, len(name) // 2))
        return Caption(f"{name[:cut].rstrip()}...", "markup", "en", False)
    if roll < 0.8:
        text = f"&lt;b&gt;{name}&lt;/b&gt;&nbsp;&quot;{rng.randrange(100)}&quot;"
        return Caption(text, "markup", "en", True)
    address = f"https://img{rng.randrange(9)}.example/{rng.getrandbits(32):08x}"
    return Caption(f"{address} {name}" if rng.random() < 0.5 else address, "markup", "zxx", False)


def clean(item: Item) -> tuple[str, ...]:
    """What a careful person would write, plainest first: name, name with keywords, sentences."""
    name = item.label
    if item.kind == "flag":
        name = f"flag of {item.label}"
        sentences = (f"the national flag of {item.label}", f"{item.label} flag")
    else:
        if item.kind == "person":
            name = f"{item.label}, {item.tone} skin tone"
        noun = {"clipart": "drawing", "icon": "icon"}.get(item.kind, "emoji")
        sentences = (f"a picture of {article(name)}", f"{name} {noun}")
    shelf = f"{_fields(item)['group']}: {name}"
    return tuple(dict.fromkeys((name, ", ".join([name, *item.tags[:3]]), *sentences, shelf)))
