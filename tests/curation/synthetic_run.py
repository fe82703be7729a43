"""A made-up run directory for tests of the funnel page: plausible in shape, invented in every number.

The rows are drawn at random and pushed through the same rules that the report tells of, so that report and
side-cars agree; texts include what a page must survive: markup, quotes, right-to-left, emoji, controls.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NASTY = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"> & 'quotes' \"double\" &amp; &lt;b&gt;",
    "ראשית, טקסט מימין לשמאל (v2.0) עם English בתוכו — ‏\u202eдальше\u202c конец",
    "Emoji family 👩‍👩‍👧‍👦, flag 🇯🇵, skin 👍🏽, and ends with a NUL\x00, a bell\x07 and an escape\x1b[31m",
    "-->]]></style><svg onload=alert(1)> javascript:alert(1)",
    "zero\u200bwidth, byte order \ufeff mark, C1 \x85 control, DEL \x7f",
    "averylongword" * 40,
)
PROSE = (
    "The planner considers every way to join the two tables and keeps the cheapest plan for each set of "
    "relations. When the number of relations exceeds a limit, a genetic search takes its place."
)
WORDS = "Home | News | Login | Sitemap | Next » | Previous « | Copyright | All rights reserved | Terms"


def write(root: Path, rows: int = 2700, seed: int = 0, nasty: bool = True) -> dict[str, Any]:
    """A text run with two scored stages, a dedup and a top fraction under `root`; returns its report."""
    rng = np.random.default_rng(seed)
    ids = [f"{i:016x}" for i in rng.integers(0, 2**62, rows)]
    language = rng.choice(
        ["en", "fr", "de", "ja", "es", "ru", "ko", "he", "pl", "sv"],
        rows,
        p=[0.55, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04, 0.02, 0.02, 0.01],
    )
    certainty = np.clip(rng.beta(9, 1.4, rows), 0, 1)
    words = np.exp(rng.normal(5.6, 1.3, rows)).astype(np.int64)
    symbols = np.clip(rng.gamma(1.2, 0.02, rows), 0, 1)
    edu = np.clip(rng.normal(0.45, 0.18, rows), 0, 1).astype(np.float32)
    cluster = np.where(rng.random(rows) < 0.12, rng.integers(0, rows // 25 + 1, rows), -1)

    fate = np.full(rows, None, dtype=object)
    steps: list[dict[str, Any]] = [_step("read", "read", rows, rows, 0.42, describe="read: pool/*.warc.gz")]
    steps[0] |= {"rows_in": rows + 3, "quarantined": 3}
    reasons: list[dict[str, Any]] = []

    def score(name: str, seconds: float, told: str) -> None:
        alive = int((fate == None).sum())  # noqa: E711
        steps.append(_step("score", name, alive, alive, seconds, describe=told))

    def keep(reason: str, where: str, mask: np.ndarray, seconds: float, texts: list[str]) -> None:
        alive = fate == None  # noqa: E711
        gone = alive & ~mask
        fate[gone] = reason
        steps.append(
            _step(
                "keep",
                f"keep {reason}",
                int(alive.sum()),
                int((alive & mask).sum()),
                seconds,
                reason=reason,
                where=where,
                describe=f"keep where {where}",
            )
        )
        reasons.append(_reason(reason, len(steps) - 1, np.flatnonzero(gone), texts))

    def _reason(reason: str, step: int, gone: np.ndarray, texts: list[str]) -> dict[str, Any]:
        shown = [example(int(i), texts[n % len(texts)]) for n, i in enumerate(gone[:6])]
        return {
            "reason": reason,
            "step": step,
            "rows": len(gone),
            "text_bytes": int(words[gone].sum() * 6),
            "examples": shown,
        }

    def example(i: int, text: str) -> dict[str, Any]:
        return {
            "id": ids[i],
            "url": f"https://example.org/docs/{i}?a=1&b=<2>\"'",
            "text": text[:300],
            "scores": {
                "language": str(language[i]),
                "language_score": round(float(certainty[i]), 4),
                "gopher": {"n_words": int(words[i]), "symbol_ratio": float(symbols[i])},
            },
        }

    texts = list(NASTY) if nasty else [PROSE]
    score("language", 2.0, "language of the first 2,000 characters (lid.176)")
    keep(
        "language",
        "language = 'en' and language_score >= .65",
        (language == "en") & (certainty >= 0.65),
        0.02,
        [
            "Les droits de l’homme sont universels.",
            "すべての人間は、生まれながらにして自由である。",
            *texts[:3],
        ],
    )
    score("gopher", 1.1, "Gopher quality statistics")
    keep(
        "too short or too long",
        "gopher.n_words between 50 and 2500",
        (words >= 50) & (words <= 2500),
        0.01,
        [WORDS, *texts[3:5]],
    )
    keep("symbols", "gopher.symbol_ratio <= 0.05", symbols <= 0.05, 0.01, [*texts[4:], "#### … #### …"])
    first = fate.copy()
    alive = np.flatnonzero(fate == None)  # noqa: E711
    seen: set[int] = set()
    copies = [i for i in alive if cluster[i] >= 0 and (cluster[i] in seen or seen.add(cluster[i]))]  # type: ignore[func-returns-value]
    fate[copies] = "near duplicate"
    steps.append(
        _step(
            "barrier",
            "dedup_minhash",
            len(alive),
            len(alive) - len(copies),
            1.9,
            params={"on": "text", "ngram": 5, "bands": 14, "rows": 8, "seed": 1},
            describe="MinHash near duplicates, 14 × 8, 5-grams of words",
            reason="near duplicate",
        )
    )
    reasons.append(_reason("near duplicate", len(steps) - 1, np.array(copies, dtype=int), [PROSE]))
    sizes = np.unique([cluster[i] for i in alive if cluster[i] >= 0], return_counts=True)[1]
    size_counts = {str(k): int((sizes == k).sum()) for k in np.unique(sizes) if k > 1}
    dedup = len(steps) - 1
    score("edu", 3.5, "educational value, fastText")
    second = np.flatnonzero(first == None)  # noqa: E711
    fate_after_dedup = fate.copy()
    alive = np.flatnonzero(fate == None)  # noqa: E711
    order = alive[np.argsort(-edu[alive], kind="stable")]
    chosen = order[: max(1, len(order) // 3)] if len(order) else order
    threshold = float(edu[chosen[-1]]) if len(chosen) else 0.0
    worst = np.setdiff1d(alive, chosen)
    fate[worst] = "quality"
    steps.append(
        _step(
            "barrier",
            "top_fraction",
            len(alive),
            len(chosen),
            0.03,
            params={"column": "edu", "fraction": 0.333, "by": "rows"},
            describe="the best third of rows by edu",
            reason="quality",
        )
    )
    reasons.append(_reason("quality", len(steps) - 1, worst, [WORDS, PROSE]))
    steps.append(_step("write", "write", len(chosen), len(chosen), 0.3, describe="write: parquet"))
    for index, step in enumerate(steps):
        step["index"] = index

    _side_car(
        root / "scores" / "stage-0",
        ids,
        np.arange(rows),
        first,
        {
            "language": pa.array(language, pa.string()),
            "language_score": pa.array(certainty, pa.float64()),
            "gopher": pa.StructArray.from_arrays(
                [pa.array(words), pa.array(symbols)], ["n_words", "symbol_ratio"]
            ),
        },
    )
    _side_car(
        root / "scores" / "stage-1",
        ids,
        second,
        fate_after_dedup,
        {
            "edu": pa.array(
                [None if fate_after_dedup[i] else float(edu[i]) for i in range(rows)], pa.float32()
            ),
            "near_duplicate": pa.array([f is not None for f in fate_after_dedup], pa.bool_()),
        },
    )
    _side_car(root / "scores" / "stage-2", ids, alive, fate, {})

    text_in, text_out = int(words.sum() * 6), int(words[chosen].sum() * 6)
    report = {
        "winnow": "0.1.0",
        "plan_hash": "5f0c1d2e3b4a5968",
        "started": "2025-01-01T12:00:00+00:00",
        "seconds": 12.3,
        "on": "ray",
        "workers": 2,
        "input": {
            "url": "pool/<text>/*.warc.gz",
            "shards": 8,
            "bytes": 12_500_000,
            "rows": rows + 3,
            "text_bytes": text_in,
        },
        "output": {"rows": len(chosen), "bytes": text_out // 3, "text_bytes": text_out, "shards": 8},
        "quarantined": {
            "rows": 3,
            "by_error": {
                "read: truncated gzip member <at the end>": 2,
                "read: record is longer than 50 MB": 1,
            },
        },
        "steps": steps,
        "reasons": reasons,
        "kept_examples": [example(int(i), PROSE) for i in chosen[:4]],
        "barriers": [
            {
                "step": dedup,
                "kind": "dedup_minhash",
                "summary": {
                    "clusters": len(sizes),
                    "largest": int(sizes.max(initial=0)),
                    "sizes": size_counts,
                },
            },
            {
                "step": dedup + 2,
                "kind": "top_fraction",
                "summary": {
                    "threshold": threshold,
                    "asked": 0.333,
                    "realised": len(chosen) / max(1, len(alive)),
                },
            },
        ],
        "peak_memory_bytes": 512_000_000,
        "versions": {"python": "3.11.7", "pyarrow": "21.0.0", "duckdb": "1.3.0"},
    }
    _report(root, report)
    return report


def write_images(root: Path, rows: int = 60) -> dict[str, Any]:
    """An image-text run without side-cars: its examples carry pictures."""
    captions = [
        "a red bicycle against a wall",
        "IMG_20190412_0031.jpg",
        "buy now best price <b>free</b>",
        NASTY[0],
        "",
    ]
    shown = [
        {
            "id": f"{i:032x}",
            "url": f"http://example.org/{i}.webp",
            "text": captions[i % 5],
            "image_type": "png",
            "image": picture(i),
            "scores": {"align": 0.1 + i / 50},
        }
        for i in range(5)
    ]
    half = rows // 2
    steps = [
        _step("read", "read", rows, rows, 0.1),
        _step("keep", "keep caption", rows, half, 0.01, reason="caption", where="n_words >= 3"),
    ]
    for index, step in enumerate(steps):
        step["index"] = index
    report = {
        "winnow": "0.1.0",
        "plan_hash": "ab" * 16,
        "started": "2025-01-01T12:00:00+00:00",
        "seconds": 0.2,
        "on": "local",
        "workers": 1,
        "input": {"url": "pairs/", "shards": 1, "bytes": 90_000, "rows": rows},
        "output": {"rows": half, "bytes": 45_000, "shards": 1},
        "quarantined": {"rows": 0, "by_error": {}},
        "steps": steps,
        "reasons": [{"reason": "caption", "step": 1, "rows": rows - half, "examples": shown}],
        "kept_examples": shown[:2],
        "barriers": [],
        "peak_memory_bytes": 1000,
        "versions": {"python": "3.11.7"},
    }
    _report(root, report)
    return report


def write_empty(root: Path) -> dict[str, Any]:
    """A run that read nothing: one step, no scores, no reasons."""
    report = {
        "winnow": "0.1.0",
        "plan_hash": "00",
        "started": "2025-01-01T12:00:00+00:00",
        "seconds": 0.0,
        "on": "local",
        "workers": 1,
        "input": {"url": "empty/", "shards": 0, "bytes": 0, "rows": 0},
        "output": {"rows": 0, "bytes": 0, "shards": 0},
        "quarantined": {"rows": 0, "by_error": {}},
        "steps": [_step("read", "read", 0, 0, 0.0)],
        "reasons": [],
        "kept_examples": [],
        "barriers": [],
        "peak_memory_bytes": 0,
        "versions": {},
    }
    _report(root, report)
    return report


def picture(i: int) -> str:
    """A small PNG as base64, drawn with zlib alone."""
    import struct
    import zlib

    side = 48
    y, x = np.mgrid[:side, :side]
    wheel = ((x - 24) ** 2 + (y - 24) ** 2 < (8 + 3 * i) ** 2)[..., None]
    pixels = np.where(wheel, [200, 60 + 30 * i, 40], [235, 238, 240]).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    out = io.BytesIO(b"")
    out.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ):
        out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return base64.b64encode(out.getvalue()).decode()


def _step(kind: str, name: str, came: int, left: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "index": 0,
        "name": name,
        "kind": kind,
        "params": {},
        "describe": name,
        "rows_in": came,
        "rows_out": left,
        "added": 0,
        "dropped": 0 if kind == "read" else came - left,
        "quarantined": 0,
        "seconds": seconds,
        "reason": None,
        "where": None,
    } | more


def _side_car(folder: Path, ids: list[str], rows: Any, fate: np.ndarray, scores: dict[str, pa.Array]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": pa.array(ids)} | scores | {"dropped_by": pa.array(list(fate), pa.string())}).take(
        pa.array(rows, pa.int64())
    )
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), folder / "part-0.parquet")
    pq.write_table(table.slice(half), folder / "part-1.parquet")


def _report(root: Path, report: dict[str, Any]) -> None:
    (root / "_winnow").mkdir(parents=True, exist_ok=True)
    (root / "_winnow" / "report.json").write_text(json.dumps(report), encoding="utf-8")
