"""What can be said of a caption from its characters alone. All rules are Arrow kernels; no Python per row."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

import curation as c

CAPTION = pa.struct(
    [
        ("n_words", pa.int32()),
        ("n_chars", pa.int32()),
        ("ascii_share", pa.float32()),
        ("file_like", pa.bool_()),
        ("boilerplate", pa.bool_()),
        ("promotional", pa.bool_()),
        ("markup", pa.bool_()),
    ]
)

# A caption that is only a file name, a camera counter, a hash or a code: what a page generator writes into
# `alt` when nobody wrote a text. RE2 syntax, each matched against the whole trimmed caption.
FILE_LIKE = (
    r"[^\s].*\.(jpe?g|jfif|png|gif|webp|svg|bmp|tiff?|ico|heic|avif|pdf|psd|eps)(\?\S*)?",
    r"(img|imag|image|dsc[nf]?|dcim|pic|pict|picture|photo|scan|screen ?shot|screenshot|mvi|vid|p\d{3})"
    r"[-_ .]*\d{3,}[-_ \d()a-z]{0,12}",
    r"(uri|https?|ftp|file|data):\S+",
    r"[0-9a-f]{8,}([-_][0-9a-f]{2,})*",
    r"[\d\s.,_()x×/#:+-]+",
    r"\S*\d\S*_\S*|\S*_\S*\d\S*",
    r"[^\s_]+(_[^\s_]+)+",
    r"[a-z\d]+(-[a-z\d]+)*-\d{3,}[a-z\d]*|\d+(-[a-z\d]+){2,}|[a-z]+\d{3,}[a-z\d]*",
    r"(u\+?|0x)?[0-9a-f]{2,4}\d[0-9a-f]{1,4}",
)

# The caption as a whole is furniture of the page. `_END` lets counters and dots follow.
_END = r"[\s\d:.…!#-]*"
BOILERPLATE_WHOLE = (
    r"(image|photo|picture|pic|img|graphic|icon|logo|banner|thumb(nail)?|avatar|cover|header|background"
    r"|figure|emoji|illustration|clip ?art|drawing|gallery|slide(show)?|video)s?" + _END,
    r"(imagen|imagem|imatge|immagine|bild|afbeelding|obraz(ek)?|bilde|kuva|resim|изображение|картинка|фото"
    r"|画像|写真|图片|圖片|이미지|사진|hình ảnh)" + _END,
    r"(alt( text)?|caption|title|description|untitled|unnamed|no title|null|none|undefined|n/?a|default"
    r"|empty|lorem ipsum.*)" + _END,
    r"(click|tap|hover|press)( (here|to|on|for|image|photo|picture|the|this|it))+.*",
    r"(read|see|view|show|load|learn|find out) (more|all|full|details|larger?|gallery|image|photo|picture"
    r"|post)\b.*",
    r"(previous|next|back|close|open|menu|search|home|share|like|follow( us)?|subscribe|sign (in|up)|log ?in"
    r"|download( now)?|print|play( video)?|loading|spinner|spacer|blank|pixel|divider|bullet)" + _END,
    r"(profile|user|author|product|featured?|main|hero|cover|post|article|page|site|default|related|header"
    r"|footer|sidebar|gallery|category|brand|company|site)( \d+)?( (header|footer|main|cover))?"
    r" (image|photo|picture|pic|logo|icon|avatar|thumbnail|banner)s?" + _END,
    r"(image|photo|picture|slide|figure|page|item|product|gallery( (image|photo|picture))?)"
    r"\s*(no\.?|number|#)?\s*\d+(\s*(of|/)\s*\d+)?" + _END,
    r"image results?( for .*)?",
)

# A phrase that marks furniture wherever it stands.
BOILERPLATE_ANYWHERE = (
    r"\b(no (image|photo|picture) (available|found|yet)|image (not found|unavailable|coming soon|placeholder"
    r"|missing)|placeholder( image)?|coming soon)\b",
    r"\b(all rights reserved|terms (of use|and conditions)|privacy policy|cookie policy)\b",
    r"\bclick( here)?( (on|to)( the)?)? ?(enlarge|zoom|expand|view|see|open|download|image|photo)\b",
    r"\b(share (on|this)|follow us|like us|pin it|tweet this|find us on)\b",
    r"\b(advert(isement)?s?|sponsored( content)?|image (credit|source|courtesy)|photo (credit|courtesy))\b",
)

# Words of a shop or of search-engine spam.
PROMOTIONAL = (
    r"[$€£¥]\s?\d|\b\d+([.,]\d\d)?\s?(usd|eur|gbp)\b|\d\s?% off\b|\bsku[ :#-]*\d",
    r"\b(free (shipping|delivery)|add to (cart|basket|wish ?list)|buy (now|online|it now|cheap)|shop now"
    r"|order (now|online|today)|(best|top|lowest|hot) (price|deal|offer|seller)s?|in stock|out of stock"
    r"|on sale|special offer|limited time|terms apply|coupon|promo(tion)? code|discount|giveaway)\b",
    r"\b(casino|viagra|cialis|payday loans?|web ?hosting|escorts?|crypto trading)\b",
)

# Code that leaked into the text: tags, entities, shortcodes, addresses, template holes.
MARKUP = (
    r"</?[a-z!][^>]*>|&(#\d+|#x[0-9a-f]+|[a-z]{2,8});|https?://|www\.[a-z]",
    r"\{\{|\}\}|\$\{|%[0-9a-f]{2}%[0-9a-f]{2}|\[/[a-z]+\]|\[[a-z]+ [a-z]+=[^\]]*\]",
    r"\b(alt|src|href|class|title|width)=",
)


def _whole(patterns: tuple[str, ...]) -> str:
    return "(?i)^(?:" + "|".join(patterns) + ")$"


def _anywhere(patterns: tuple[str, ...]) -> str:
    return "(?i)(?:" + "|".join(patterns) + ")"


@dataclass(frozen=True)
class CaptionBasics(c.Model):
    """Counts and shape of a caption, as one struct column `caption`.

    n_words: whitespace-separated words (DataComp's count); n_chars: Unicode code points; ascii_share: share
    of code points below U+0080 (1.0 for an empty caption); file_like: the whole caption is a file name,
    counter, hash or URL; boilerplate: furniture of a web page ("click to enlarge", "image 3 of 12");
    promotional: prices and the words of shops and spam; markup: tags, entities or addresses in the text.
    A null caption gives a null struct.
    """

    inputs = ("text",)
    outputs = {"caption": CAPTION}

    def setup(self) -> None:
        pass

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        text = batch.column("text")
        if not pa.types.is_string(text.type):
            text = text.cast(pa.string())
        trimmed = pc.utf8_trim_whitespace(text)
        n_words = pc.if_else(
            pc.equal(trimmed, ""), 0, pc.list_value_length(pc.utf8_split_whitespace(trimmed))
        ).cast(pa.int32())
        n_chars = pc.utf8_length(text)
        other = pc.count_substring_regex(text, r"[^\x00-\x7F]")
        ascii_share = pc.subtract(
            1.0, pc.divide(pc.cast(other, pa.float64()), pc.max_element_wise(n_chars, 1))
        )
        fields = [
            n_words,
            n_chars,
            ascii_share.cast(pa.float32()),
            pc.match_substring_regex(trimmed, _whole(FILE_LIKE)),
            pc.or_(
                pc.match_substring_regex(trimmed, _whole(BOILERPLATE_WHOLE)),
                pc.match_substring_regex(trimmed, _anywhere(BOILERPLATE_ANYWHERE)),
            ),
            pc.match_substring_regex(trimmed, _anywhere(PROMOTIONAL)),
            pc.match_substring_regex(trimmed, _anywhere(MARKUP)),
        ]
        return pa.StructArray.from_arrays(fields, fields=list(CAPTION), mask=pc.is_null(text))


caption_basics = CaptionBasics
