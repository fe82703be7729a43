"""FineWeb quality: four ratios over lines, every one kept, and the published rules as ready-made keeps.

Source: Penedo et al. 2024, "The FineWeb Datasets" (arXiv 2406.17557), section 3.6; the exact quantities are
those of datatrove's filter of that name (0.10), the code behind the data set. A line here is what stands
between two ``\\n``; lines of white space alone do not count.

``line_punct_ratio``  lines whose last character is a stop character. Nothing is stripped: "Done. " does not
                      end well, nor does a line before ``\\r\\n``.
``short_line_ratio``  lines of at most ``short_line_chars`` code points.
``char_dup_ratio``    code points of lines that repeat an earlier one, over those of the text without ``\\n``.
``newline_ratio``     ``\\n`` over words (as cut; ``n_tokens`` of Gopher's scores), with at least one word.
``n_lines``           lines that are not blank; 0 is an empty page, and all its ratios are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

import curation as c
from filters.text.scan import FINEWEB_TYPE, check_words, scan_scores, source_of_rules
from filters.text.sources import identity_with

# Sentence-ending punctuation of 159 code points over all scripts, as hexadecimal ranges: the Unicode
# property Sentence_Terminal and a few marks of Khmer, Samaritan, Balinese … that datatrove 0.10 adds to it.
_STOP_RANGES = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 "
    "17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F "
    "203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F "
    "A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 "
    "1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 "
    "11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 "
    "16E98 1BC9F 1DA88"
)
STOP_CHARS = "".join(
    chr(cp)
    for first, _, last in (entry.partition("-") for entry in _STOP_RANGES.split())
    for cp in range(int(first, 16), int(last or first, 16) + 1)
)


def fineweb_scores(
    text: pa.Array | pa.ChunkedArray,
    *,
    words: str | pa.ListArray = "unicode",
    stop_chars: str = STOP_CHARS,
    short_line_chars: int = 30,
) -> dict[str, pa.StructArray]:
    """Score a string column: ``{"fineweb": …}``, one struct a row; null text gives null.

    ``words``: how words are cut, as in ``gopher_scores``; only ``newline_ratio`` depends on it.
    ``stop_chars``: characters a line may end with, each by itself.

    Raises TypeError for a column that is not text, ValueError for an unknown ``words``.
    """
    return scan_scores(
        text, ("fineweb",), words=words, stop_chars=stop_chars, short_line_chars=short_line_chars
    )


@dataclass(frozen=True)
class FineWeb(c.Model):
    """Score a page's lines: struct column ``fineweb`` (see the module for its fields)."""

    words: str = "unicode"
    stop_chars: str = STOP_CHARS
    short_line_chars: int = 30
    inputs = ("text",)
    outputs = {"fineweb": FINEWEB_TYPE}
    identity = identity_with(source_of_rules)

    def __post_init__(self) -> None:
        check_words(self.words)

    def __call__(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return dict(fineweb_scores(batch.column("text"), **self.parameters()))


fineweb = FineWeb


def fineweb_rules(
    min_line_punct: float = 0.12,
    max_short_lines: float = 0.67,
    max_char_dup: float = 0.01,
    max_newlines: float = 0.3,
    line_punct_exclude_zero: bool = False,
) -> list[c.Keep]:
    """The published rules over column ``fineweb``; every bound is inclusive.

    ``line_punct_exclude_zero``: a page without a single line that ends well passes that rule (for languages
    and registers that do not punctuate).
    """
    punctuated = f"fineweb.line_punct_ratio >= {min_line_punct!r}"
    if line_punct_exclude_zero:
        punctuated += " or fineweb.line_punct_ratio = 0"
    return [
        c.keep("fineweb.n_lines > 0", reason="fineweb: empty text"),
        c.keep(punctuated, reason="fineweb: too few lines end in punctuation"),
        c.keep(f"fineweb.short_line_ratio <= {max_short_lines!r}", reason="fineweb: too many short lines"),
        c.keep(f"fineweb.char_dup_ratio <= {max_char_dup!r}", reason="fineweb: text in repeated lines"),
        c.keep(f"fineweb.newline_ratio <= {max_newlines!r}", reason="fineweb: too many lines for its words"),
    ]
