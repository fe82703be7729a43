"""The standings as JSON (every seed), CSV (a line a recipe) and Markdown (for a README)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from curation.html import count, visible
from evaluation.leaderboard_page import words
from evaluation.leaderboard_page.results import Unranked
from evaluation.leaderboard_page.standings import Row, Standings, known
from evaluation.leaderboard_page.words import bounds, decimals, fixed
from evaluation.stats import Interval

Links = Mapping[tuple[str, str], Mapping[str, str | None]]


def as_json(tables: Sequence[Standings], links: Links) -> str:
    """Everything on the page, and each seed's score."""
    value = [
        {
            "track": table.track,
            "scale": table.scale,
            "scale_hash": table.scale_hash,
            "official": table.official,
            "score": {"name": table.score_name, "higher_is_better": table.higher_is_better},
            "interval": "95 % Student t over seeds; differences: Welch, positive is better",
            "verdict": words.verdict(table),
            "rows": [_row(table, row, links) for row in table.rows],
        }
        for table in tables
    ]
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(table: Standings, row: Row, links: Links) -> dict[str, Any]:
    found = links.get((table.key, row.recipe), {})
    return {
        "rank": row.rank,
        "recipe": row.recipe,
        "title": row.title,
        "control": row.control,
        "kept_fraction": row.kept_fraction,
        "fraction_of": row.fraction_of,
        "rows": row.rows,
        "rows_pool": row.rows_pool,
        "epochs": row.epochs,
        "score": _interval(row.score),
        "seeds": dict(zip(map(str, row.seeds), row.scores, strict=True)),
        "against_no_filter": _interval(row.gain),
        "against_random": _interval(row.gain_random),
        "random_control": row.against_random,
        "beats_both_outside_interval": row.beats,
        "tied_with_first": row.tied,
        "tasks": {
            key: {
                "title": cell.task.title,
                "metric": cell.task.metric,
                "chance": cell.task.chance,
                "in_score": cell.task.in_score,
                "higher_is_better": cell.task.higher_is_better,
            }
            | (_interval(cell.value) or {})
            for key, cell in row.tasks.items()
        },
        "seconds": row.seconds,
        "plan_hashes": list(row.plan_hashes),
        "funnel": found.get("funnel"),
        "recipe_file": found.get("recipe"),
    }


def _interval(value: Interval | None) -> dict[str, Any] | None:
    if value is None:
        return None
    low, high = (value.low, value.high) if known(value) else (None, None)
    return {"mean": value.mean, "low": low, "high": high, "n": value.n}


def as_csv(tables: Sequence[Standings]) -> str:
    """One line a recipe; tasks of all tables as columns `<task>`, `_low`, `_high`; empty where unknown."""
    keys = list(dict.fromkeys(task.key for table in tables for task in table.tasks))
    fixed_heads = [
        "track", "scale", "scale_hash", "rank", "recipe", "title", "control", "kept_fraction", "rows",
        "epochs", "seeds", "score", "score_low", "score_high", "against_no_filter", "against_no_filter_low",
        "against_no_filter_high", "against_random", "against_random_low", "against_random_high",
        "beats_both_outside_interval", "seconds",
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fixed_heads + [f"{key}{end}" for key in keys for end in ("", "_low", "_high")])
    for table in tables:
        for row in table.rows:
            about = [table.track, table.scale, table.scale_hash, row.rank, row.recipe, row.title]
            data = [
                row.control or "",
                _known(row.kept_fraction),
                row.rows,
                _known(row.epochs),
                len(row.seeds),
            ]
            scores = _numbers(row.score) + _numbers(row.gain) + _numbers(row.gain_random)
            end = ["" if row.beats is None else str(row.beats).lower(), _known(row.seconds)]
            for key in keys:
                end += _numbers(row.tasks[key].value if key in row.tasks else None)
            writer.writerow([*about, *data, *scores, *end])
    return out.getvalue()


def _known(value: float | None) -> Any:
    return "" if value is None else value


def _numbers(value: Interval | None) -> list[Any]:
    if value is None:
        return ["", "", ""]
    return [v if math.isfinite(v) else "" for v in (value.mean, value.low, value.high)]


def as_markdown(
    tables: Sequence[Standings], plots: Mapping[str, str], unranked: Sequence[Unranked] = ()
) -> str:
    """A heading, the verdict, the table and the plot of every track and scale; then what is not ranked."""
    parts = []
    for table in tables:
        places = decimals(row.score for row in table.rows)
        score = _cell(table.score_name)
        heads = ["#", "recipe", score, "against no filter", "beats both controls", "kept", "rows", "epochs"]
        lines = [f"| {' | '.join(heads)} |", "|--:|:--|--:|--:|:--|--:|--:|--:|"]
        for row in table.rows:
            cells = [
                str(row.rank),
                f"*{_cell(row.title)}* (control)" if row.control else _cell(row.title),
                f"{fixed(row.score.mean, places)} {bounds(row.score, places)}",
                f"{fixed(row.gain.mean, places, True)} {bounds(row.gain, places, True)}" if row.gain else "",
                "" if row.control else words.beats(row),
                words.percent(row),
                count(row.rows),
                "" if row.epochs is None else f"{row.epochs:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        seeds = min(len(row.seeds) for row in table.rows)
        head = f"### {_cell(words.track_title(table))}, {_cell(table.scale_title)}"
        note = f"Means over {seeds} or more seeds with 95 % t intervals; differences by Welch."
        image = f"![{score} against kept fraction]({plots[table.key]})" if table.key in plots else ""
        parts += [p for p in (head, _cell(words.verdict(table)), "\n".join(lines), note, image) if p]
    if unranked:
        lines = [f"- {_cell(r.title)}, {_cell(r.scale)}, seed {r.seed}: {words.lacking(r)}" for r in unranked]
        parts += ["### Not ranked", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Text that stays one cell and no markup."""
    text = visible(" ".join(text.split()))
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, "\\" + mark)
    return text
