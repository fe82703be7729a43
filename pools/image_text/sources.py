"""Named pictures out of packages: what there is to draw, its name, its licence.

Packages are fetched with their own clients (`npm pack`, `apt-get download`), unpacked under a work folder and
read; nothing is executed from them. An :class:`Item` is one picture with its true name.
"""

from __future__ import annotations

import functools
import html
import json
import re
import subprocess
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NPM_PACKAGES = {
    "iconify": "@iconify/json@2.2.535",
    "emojibase": "emojibase-data@17.0.0",
    "fluent-3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "flag-icons": "flag-icons@7.5.0",
    "spdx": "spdx-license-list@6.12.0",
}
DEBIAN_PACKAGES = {"openclipart": "openclipart-svg"}

LOCALES = ("de", "es", "fr", "it", "pt", "nl", "pl", "sv", "ru", "ja", "ko", "zh", "hi", "vi")
PERMISSIVE = ("Apache-2.0", "MIT", "CC0-1.0", "CC-BY-4.0", "ISC", "Unlicense", "0BSD", "Public-Domain")
TONES = ("none", "light", "medium-light", "medium", "medium-dark", "dark")
TONE_SUFFIX = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone)?$")


@dataclass(frozen=True)
class Item:
    """One picture with its true name.

    `concept` ties drawings of one thing together across styles (an emoji's code points, or a name stem);
    `stem` ties together drawings that may share artwork within a source, so that a split keeps them together.
    """

    source: str
    name: str  # the picture's own name in its source
    kind: str  # emoji | flag | person | clipart | icon
    label: str  # English name
    concept: str
    stem: str
    license: str
    author: str
    tags: tuple[str, ...] = ()
    subgroup: str = ""
    group: str = ""
    tone: str = "none"
    translations: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict, compare=False)
    svg: str | None = field(default=None, compare=False, repr=False)
    file: str | None = field(default=None, compare=False, repr=False)


# ---------------------------------------------------------------------------------------------- packages


def fetch(work: Path) -> dict[str, Path]:
    """Download and unpack every package under `work`; what is already there is kept. name -> folder."""
    folders = {}
    downloads = work / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for name, package in NPM_PACKAGES.items():
        folder = folders[name] = work / name
        if folder.exists():
            continue
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=downloads, check=True, capture_output=True, text=True
        )
        with tarfile.open(downloads / done.stdout.split()[-1]) as archive:
            archive.extractall(folder.with_suffix(".part"), filter="data")
        (folder.with_suffix(".part") / "package").rename(folder)
    for name, package in DEBIAN_PACKAGES.items():
        folder = folders[name] = work / name
        if folder.exists():
            continue
        subprocess.run(["apt-get", "download", package], cwd=downloads, check=True, capture_output=True)
        [archive_path] = downloads.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive_path), str(folder)], check=True)
    return folders


def slug(text: str) -> str:
    """`Hot Dog!` -> `hot-dog`, the way icon sets name files."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("&", " and ")).strip("-")


def code(hexcode: str) -> str:
    """Code points without the variation selector, upper case: the key that all packages agree on."""
    return "-".join(p for p in hexcode.upper().replace("_", "-").split("-") if p != "FE0F")


# ---------------------------------------------------------------------------------------------- emoji names


@dataclass(frozen=True)
class Emoji:
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    tone: str
    base: str  # code of the version without a skin tone
    translations: dict[str, tuple[str, tuple[str, ...]]]


class EmojiNames:
    """Names of every emoji, by code points and by the names that icon sets use."""

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta/groups.json").read_text())
        locales = {}
        for locale in LOCALES:
            rows = json.loads((folder / locale / "data.json").read_text())
            locales[locale] = {code(r["hexcode"]): (r["label"], tuple(r.get("tags", ()))) for r in rows}
        self.by_code: dict[str, Emoji] = {}
        self.by_slug: dict[str, str] = {}
        unicode_names = {}
        for row in json.loads((folder / "en/data.json").read_text()):
            key = code(row["hexcode"])
            group = meta["groups"].get(str(row.get("group")), "")
            subgroup = meta["subgroups"].get(str(row.get("subgroup")), "")
            if not group or group == "component" or row["label"].startswith("regional indicator"):
                continue
            translations = {loc: names[key] for loc, names in locales.items() if key in names}
            label = row["label"].removeprefix("flag: ")
            tags = tuple(t for t in row.get("tags", ()) if t != label)
            self.by_code[key] = Emoji(label, tags, group, subgroup, "none", key, translations)
            self.by_slug.setdefault(slug(label), key)
            for skin in row.get("skins", ()):
                tone = skin["tone"]
                if isinstance(tone, int):  # couples with two tones are left out
                    skin_key = code(skin["hexcode"])
                    self.by_code[skin_key] = Emoji(
                        label, tags, group, subgroup, TONES[tone], key, translations
                    )
            if "-" not in key:
                name = unicodedata.name(chr(int(key, 16)), "")
                unicode_names[slug(name).replace("-", "")] = key
        for preset in ("cldr", "emojibase", "github", "iamcal", "joypixels"):
            for hexcode, names in json.loads((folder / f"en/shortcodes/{preset}.json").read_text()).items():
                if code(hexcode) in self.by_code:
                    for name in [names] if isinstance(names, str) else names:
                        self.by_slug.setdefault(slug(name), code(hexcode))
        self.by_squashed = unicode_names | {k.replace("-", ""): v for k, v in self.by_slug.items()}

    def find(self, name: str) -> str | None:
        """Code of an icon name such as `bowling`, `waving-hand-dark-skin-tone` or `deciduoustree`."""
        name = name.removeprefix("flag-for-flag-").removeprefix("flag-for-")
        match = TONE_SUFFIX.search(name)
        base = self.by_slug.get(name[: match.start()] if match else name)
        if base is None and not match:
            base = self.by_squashed.get(name.replace("-", ""))
        if base is None or not match:
            return base
        for key, emoji in self.by_code.items():
            if emoji.base == base and emoji.tone == match.group(1):
                return key
        return None

    def country(self, alpha2: str) -> str | None:
        """Code of a country's flag from its two-letter code."""
        if not re.fullmatch("[a-z]{2}", alpha2):
            return None
        key = "-".join(f"{0x1F1E6 + ord(c) - ord('a'):X}" for c in alpha2)
        return key if key in self.by_code else None


# ---------------------------------------------------------------------------------------------- pictures


@functools.lru_cache(maxsize=4)
def _icon_set(path: Path) -> dict:
    return json.loads(path.read_text())


def icon_svg(icons: dict, name: str, color: str = "#222") -> str:
    """A stand-alone SVG of one icon of an iconify set."""
    icon = icons["icons"][name]
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    body = icon["body"].replace("currentColor", color)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def _emoji_item(source: str, name: str, key: str, emoji: Emoji, **picture: object) -> Item:
    kind = "flag" if emoji.group == "flags" else "emoji" if emoji.tone == "none" else "person"
    return Item(
        source=source, name=name, kind=kind, label=emoji.label, concept=key, stem=person_stem(emoji.label),
        tags=emoji.tags, subgroup=emoji.subgroup, group=emoji.group, tone=emoji.tone,
        translations=emoji.translations, **picture,
    )  # type: ignore[arg-type]  # fmt: skip


def person_stem(label: str) -> str:
    """One stem for the woman's, man's and neutral version of an emoji: they share most of the drawing."""
    stem = re.sub(r"\b(wo)?m[ae]n\b|\bperson\b|\bpeople\b|\bhealth\b", "", label.split(":")[0])
    return slug(re.sub(r" (facing right|o’clock|thirty)$|-thirty$", "", stem)) or slug(label)


def emoji_style(folders: dict[str, Path], names: EmojiNames, prefix: str) -> Iterator[Item]:
    """All emoji of one iconify set (`noto`, `twemoji`, …), each concept once, with its skin tones."""
    icons = _icon_set(folders["iconify"] / f"json/{prefix}.json")
    spdx, author = icons["info"]["license"]["spdx"], icons["info"]["author"]["name"]
    by_name: dict[str, str] = {}
    for hexcode, name in icons.get("chars", {}).items():
        by_name.setdefault(name, code(hexcode))
    seen = set()
    for name, icon in icons["icons"].items():
        if icon.get("hidden"):
            continue
        key = by_name.get(name)
        if key not in names.by_code:
            key = names.find(name)
        if key is None or key in seen:
            continue
        seen.add(key)
        yield _emoji_item(
            prefix, name, key, names.by_code[key], license=spdx, author=author, svg=icon_svg(icons, name)
        )


def fluent_3d(folders: dict[str, Path], names: EmojiNames) -> Iterator[Item]:
    for path in sorted((folders["fluent-3d"] / "assets").glob("*.webp")):
        key = code(path.stem)
        if key in names.by_code:
            yield _emoji_item(
                "fluent-3d", path.stem, key, names.by_code[key], license="MIT",
                author="Microsoft Corporation", file=str(path),
            )  # fmt: skip


def flag_style(folders: dict[str, Path], names: EmojiNames, prefix: str) -> Iterator[Item]:
    """Country flags of an iconify set whose icons are named by two-letter code."""
    icons = _icon_set(folders["iconify"] / f"json/{prefix}.json")
    spdx, author = icons["info"]["license"]["spdx"], icons["info"]["author"]["name"]
    for name, icon in icons["icons"].items():
        key = names.country(name)
        if key and not icon.get("hidden"):
            emoji = names.by_code[key]
            yield _emoji_item(
                prefix, name, key, emoji, license=spdx, author=author, svg=icon_svg(icons, name)
            )


def flag_icons(folders: dict[str, Path], names: EmojiNames) -> Iterator[Item]:
    """The flag-icons package, 4:3; its `group` is the continent."""
    for row in json.loads((folders["flag-icons"] / "country.json").read_text()):
        key = names.country(row["code"])
        if key is None or not row.get("continent"):
            continue
        emoji = names.by_code[key]
        svg = (folders["flag-icons"] / row["flag_4x3"]).read_text()
        yield Item(
            source="flag-icons", name=row["code"], kind="flag", label=emoji.label, concept=key,
            stem=slug(emoji.label), license="MIT", author="Panayiotis Lipiridis", tags=emoji.tags,
            subgroup="country-flag", group=row["continent"], translations=emoji.translations, svg=svg,
        )  # fmt: skip


# Trade marks and adult drawings: permitted by licence, left out by choice.
LEFT_OUT = re.compile(
    r"(?i)\b(adobe|amazon|android|apple logo|binance|blackberry|debian|dropbox|dvd|facebook|google|instagram|"
    r"kindle|linux|mastercard|microsoft|paypal|pinterest|spotify|steam|stumbleupon|tux|twitter|ubuntu|visa|vlc|"
    r"whatsapp|wikipedia|windows|youtube|bikini|confederate|naked|nazi|nude|pantyhose|sexy?|swastika)\b"
)
SIZE_WORDS = re.compile(r"-(\d+|duo|flat|fill|remix|bold|color|\d+px|r|sp)$")


def icon_style(folders: dict[str, Path], prefix: str) -> Iterator[Item]:
    """Icons whose only text is the name: `cash-payment-bill` -> `cash payment bill`."""
    icons = _icon_set(folders["iconify"] / f"json/{prefix}.json")
    spdx, author = icons["info"]["license"]["spdx"], icons["info"]["author"]["name"]
    category = {name: group for group, members in icons.get("categories", {}).items() for name in members}
    for name, icon in icons["icons"].items():
        if icon.get("hidden"):
            continue
        stem = name
        while SIZE_WORDS.search(stem):
            stem = SIZE_WORDS.sub("", stem)
        label = stem.replace("-", " ")
        if len(label) < 3 or not re.search("[a-z]{3}", label) or LEFT_OUT.search(label):
            continue
        group = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", category.get(name, "")).lower()
        yield Item(
            source=prefix, name=name, kind="icon", label=label, concept=f"icon:{stem}", stem=stem,
            license=spdx, author=author, group=group, tags=tuple(w for w in label.split() if len(w) > 3),
            svg=icon_svg(icons, name),
        )  # fmt: skip


_TITLE = re.compile(r"<cc:Work.*?<dc:title>(.*?)</dc:title>", re.S)
_CREATOR = re.compile(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", re.S)
_KEYWORD = re.compile(r"<rdf:li>(.*?)</rdf:li>", re.S)
SKIPPED_FOLDERS = re.compile(
    r"computer/icons/etiquette|shapes/(jigsaw|flowchart)|special/|logos|stock/generic"
)


VAGUE_TITLE = re.compile(
    r"(?i)clip ?arts?\b|collection|theme|icon ?set|icons$|submission|sibmission|untitled|^page$|various"
)


def openclipart(folders: dict[str, Path], per_folder: int = 150, per_title: int = 3) -> Iterator[Item]:
    """Public-domain clip-art with title and keywords; a title shared by a whole series names nothing: out."""
    root = folders["openclipart"] / "usr/share/openclipart/svg"
    found = []
    for path in sorted(root.rglob("*.svg")):
        relative = path.relative_to(root).as_posix()
        if path.is_symlink() or SKIPPED_FOLDERS.search(relative) or path.stat().st_size > 250_000:
            continue
        text = path.read_text("utf-8", errors="replace")
        if "publicdomain" not in text.lower() or "<image" in text or text.count("<text") > 2:
            continue
        match = _TITLE.search(text)
        title = re.sub(r"\s+", " ", html.unescape(match.group(1) if match else "")).strip(" ._-")
        title = re.sub(r"(?i)\.svg$|\s*#?\d+$|\s+0\d\b", "", title.replace("_", " ")).strip(" ._-")
        if LEFT_OUT.search(title) or LEFT_OUT.search(relative.replace("_", " ")):
            continue
        if 3 <= len(title) <= 70 and re.search("[A-Za-z]{3}", title) and not VAGUE_TITLE.search(title):
            found.append((relative, title, text))
    titles = Counter(title.lower() for _, title, _ in found)
    folder_counts: Counter[str] = Counter()
    for relative, title, text in found:
        folder = relative.rsplit("/", 1)[0]
        if titles[title.lower()] > per_title or folder_counts[folder] >= per_folder:
            continue
        folder_counts[folder] += 1
        creator = _CREATOR.search(text)
        words = dict.fromkeys(html.unescape(k).strip().lower() for k in _KEYWORD.findall(text))
        useless = ("unsorted", "clip art", "clipart", "hash", "icon", "icons", "theme", "svg")
        tags = tuple(w for w in words if re.fullmatch(r"[a-z][a-z '-]{2,24}", w) and w not in useless)
        stem = slug(re.sub(r"\d+", "", title))
        author = html.unescape(re.sub(r"<.*?>", "", creator.group(1) if creator else "")).strip()
        parts = folder.split("/")
        yield Item(
            source="openclipart", name=relative.removesuffix(".svg"), kind="clipart", label=title,
            concept=f"clipart:{stem}", stem=" ".join(stem.split("-")[:2]), license="Public-Domain",
            author=author[:60] or "Open Clip Art Library", tags=tags[:8], group=parts[0].replace("_", " "),
            subgroup=parts[-1].replace("_", " "), svg=text,
        )  # fmt: skip
