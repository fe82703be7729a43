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

# The caption as a whole is furniture of the page.
BOILERPLATE_WHOLE = (
    r"(image|photo|picture|pic|img|graphic|icon|logo|banner|thumb(nail)?|avatar|cover|header|background"
    r"|figure)[\s\d:.#-]*",
    r"(alt( text)?|caption|title|description|untitled|unnamed|no title|null|none|undefined|n/?a|default"
    r"|empty)[\s\d:.#-]*",
    r"(click|tap|hover|press)( (here|to|on|for|image|photo|picture|the|this|it))+.*",
    r"(read|see|view|show|load|learn|find out) (more|all|full|details|larger?|gallery|image|photo|picture"
    r"|post)\b.*",
    r"(previous|next|back|close|open|menu|search|home|share|like|follow( us)?|subscribe|sign (in|up)|log ?in"
    r"|download( now)?|print|play( video)?|loading|spinner|spacer|blank|pixel|divider|bullet|arrow)[\s.…!]*",
    r"(profile|user|author|product|featured?|main|hero|cover|post|article|page|site|default)"
    r" (image|photo|picture|pic|logo|icon|avatar|thumbnail)s?[\s\d:.#-]*",
    r"(image|photo|picture|slide|figure|page|item|product|gallery( image)?)\s*(no\.?|number|#)?\s*\d+"
    r"(\s*(of|/)\s*\d+)?",
)

# A phrase that marks furniture wherever it stands.
BOILERPLATE_ANYWHERE = (
    r"\b(no (image|photo|picture) (available|found|yet)|image (not found|unavailable|coming soon|placeholder"
    r"|missing)|placeholder( image)?|coming soon)\b",
    r"\b(all rights reserved|terms (of use|and conditions)|privacy policy|cookie policy)\b",
    r"\bclick( here)?( (on|to)( the)?)? ?(enlarge|zoom|expand|view|see|open|download|image|photo)\b",
    r"\b(free shipping|add to (cart|basket|wish ?list)|buy (now|online|it now)|best price|in stock"
    r"|out of stock|on sale|special offer)\b|\d% off\b",
    r"\b(share (on|this)|follow us|like us|pin it|tweet this|find us on)\b",
    r"\b(advert(isement)?s?|sponsored( content)?|image (credit|source|courtesy)|photo (credit|courtesy))\b",
    r"\b(stock (photo|image|vector|illustration)s?|royalty[- ]free|download (free|this|png|svg|vector))\b",
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
    counter, hash or URL; boilerplate: furniture of a web page ("click to enlarge", "image 3 of 12").
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
        ]
        return pa.StructArray.from_arrays(fields, fields=list(CAPTION), mask=pc.is_null(text))


caption_basics = CaptionBasics
