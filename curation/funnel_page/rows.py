"""A row of the pool as an example: picture, text, where it is from, its scores."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from curation.html import Html, el, figure, link

_IMAGES = {"png", "jpeg", "jpg", "webp", "gif", "avif", "bmp"}
_TEXT = 600  # characters of an example that are shown


def example(row: Mapping[str, Any], read: Sequence[str] = ()) -> Html:
    """One row: image if there is one, text, where it is from, its scores; those in `read` stand out."""
    text = row.get("text")
    scores = _flat(row.get("scores") or {})
    url = row.get("url")
    return el(
        "li",
        _image(row),
        el(
            "div",
            el("p", _clip(text), class_="text", dir="auto")
            if text
            else el("p", "(no text)" if text is None else "(empty text)", class_="muted text"),
            el(
                "p",
                el("code", row.get("id")),
                [el("br"), link(url, str(url))] if url else None,
                class_="from",
            ),
            el("dl", [_chip(k, v, k in read) for k, v in scores.items()], class_="chips") if scores else None,
        ),
        class_="example",
    )


def _clip(text: Any) -> str:
    text = " \n".join(line.strip() for line in str(text).splitlines() if line.strip())
    return text if len(text) <= _TEXT else text[:_TEXT].rstrip() + " …"


def _chip(name: str, value: Any, read: bool) -> Html:
    return el("div", el("dt", name), el("dd", figure(value)), class_="read" if read else None)


def _flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Struct scores as a.b, nulls left out."""
    out: dict[str, Any] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            out[f"{prefix}{key}"] = value
    return out


def _image(row: Mapping[str, Any]) -> Html | None:
    """The row's picture as a data URI: raster formats only, and only if it is valid base64."""
    data, kind = row.get("image"), str(row.get("image_type") or "").lower().removeprefix("image/")
    if not isinstance(data, str) or kind not in _IMAGES:
        return None
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    caption = str(row.get("text") or "")[:120]
    alt = f"Image captioned: {caption}" if caption else "Image"
    return el("img", src=f"data:image/{kind};base64,{data}", alt=alt, loading="lazy")
