"""Ready-made keeps for image-text pairs."""

from __future__ import annotations

from typing import Any

import curation as c


def basic_rules(
    language: str | None = "en",
    min_words: int = 3,
    min_chars: int = 6,
    min_side: int = 200,
    max_aspect: float = 3.0,
    width: str = "picture.width",
    height: str = "picture.height",
) -> list[Any]:
    """DataComp's `basic_filter` (arXiv 2304.14108, §3.2), one keep per rule so that each has its own reason.

    Published values: top language `en`, more than 2 words, more than 5 characters, shorter side ≥ 200 px,
    aspect ratio ≤ 3. Needs `CaptionBasics`, and `ImageBasics` unless width and height name other columns
    (CommonPool metadata: `original_width`, `original_height`). language=None leaves the language rule out;
    otherwise the column `language` is needed (`filters.text.language`).
    """
    rules = []
    if language is not None:
        quoted = language.replace("'", "''")
        rules.append(c.keep(f"language = '{quoted}'", reason="caption language"))
    rules += [
        c.keep(f"caption.n_words >= {min_words:d}", reason="caption words"),
        c.keep(f"caption.n_chars >= {min_chars:d}", reason="caption characters"),
        c.keep(f"least({width}, {height}) >= {min_side:d}", reason="image too small"),
        c.keep(
            f"greatest({width}, {height}) <= {max_aspect:g} * least({width}, {height})", reason="image aspect"
        ),
    ]
    return rules


def caption_rules(min_chars: int = 2, min_ascii: float = 0.9) -> list[Any]:
    """Keeps for captions that somebody wrote about the picture: no file name, boilerplate, sales talk or
    leaked markup; long enough, mostly ASCII.

    The ASCII share stands in for a language identifier, which misjudges captions of one or two words (it
    rejects country names and single nouns). Needs `CaptionBasics`. min_ascii=0 leaves the script rule out.
    """
    rules = [
        c.keep(f"caption.n_chars >= {min_chars:d}", reason="caption too short"),
        c.keep("not caption.file_like", reason="caption is a file name"),
        c.keep("not caption.boilerplate", reason="caption is boilerplate"),
        c.keep("not caption.promotional", reason="caption is sales talk"),
        c.keep("not caption.markup", reason="caption holds markup"),
    ]
    if min_ascii > 0:
        rules.append(c.keep(f"caption.ascii_share >= {min_ascii:g}", reason="caption script"))
    return rules
