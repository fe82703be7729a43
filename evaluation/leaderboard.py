"""The leaderboard: result files of training runs → one static page, with its numbers beside it.

out/index.html                     the page (no outside resource)
out/leaderboard.json|.csv|.md      its numbers: with every seed, a line a recipe, for a README
out/plot-<track>.svg               kept fraction against score, for a README
out/recipes/<table>-<recipe>/…     the funnel and the recipe of each row, copied so that `out` can be moved
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from evaluation.leaderboard_page import exports
from evaluation.leaderboard_page.page import leaderboard_page
from evaluation.leaderboard_page.plot import plot
from evaluation.leaderboard_page.results import Result, read_all
from evaluation.leaderboard_page.standings import Standings, slug, standings

_BASELINES = Path(__file__).resolve().parents[1] / "baselines"  # recipes that ship with Winnow
_SUFFIXES = {"funnel": {".html"}, "recipe": {".yaml", ".yml", ".json", ".py", ".md", ".toml"}}


def build(
    results_dir: str | Path, out_dir: str | Path, title: str = "What curation was worth at a fixed budget"
) -> Path:
    """Read results_dir/**/seed-*.json, write the leaderboard under `out_dir`, return the path of its page.

    Runs are grouped by (track, scale, scale hash); those without a score are named with what they lack. The
    same results give the same bytes. ValueError for a malformed result (naming file and field),
    FileNotFoundError if there is none.
    """
    results_dir, out = Path(results_dir), Path(out_dir)
    ranked, unranked = read_all(results_dir)
    tables = standings(ranked)
    out.mkdir(parents=True, exist_ok=True)
    links = {
        (table.key, row.recipe): _copies(
            results_dir, out, f"{table.key}-{slug(row.recipe)}", row.funnel, row.recipe_file
        )
        for table in tables
        for row in table.rows
    }
    plots = _plot_names(tables)
    for table in tables:
        text = '<?xml version="1.0" encoding="UTF-8"?>\n' + plot(table, standalone=True) + "\n"
        (out / plots[table.key]).write_text(text, encoding="utf-8")
    (out / "leaderboard.json").write_text(exports.as_json(tables, links), encoding="utf-8")
    (out / "leaderboard.csv").write_text(exports.as_csv(tables), encoding="utf-8")
    (out / "leaderboard.md").write_text(exports.as_markdown(tables, plots, unranked), encoding="utf-8")
    index = out / "index.html"
    index.write_text(leaderboard_page(tables, links, title, unranked), encoding="utf-8")
    return index


def _plot_names(tables: Sequence[Standings]) -> dict[str, str]:
    """plot-<track>.svg, with the scale in the name where a track has more than one table."""
    tracks = [table.track for table in tables]
    return {
        t.key: f"plot-{slug(t.track)}.svg" if tracks.count(t.track) == 1 else f"plot-{t.key}.svg"
        for t in tables
    }


def _copies(
    results_dir: Path, out: Path, name: str, funnel: Result | None, recipe: Result | None
) -> dict[str, str | None]:
    """Copies of a row's funnel and recipe under `out`: kind → relative URL, None for a missing one."""
    found: dict[str, str | None] = {}
    for kind, result in (("funnel", funnel), ("recipe", recipe)):
        if result is None:
            continue
        asked = result.funnel if kind == "funnel" else result.recipe_file
        source = _find(results_dir, result.file, str(asked), _SUFFIXES[kind])
        if source is None:
            found[kind] = None
            continue
        target = out / "recipes" / name / f"{kind}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or not target.samefile(source):
            shutil.copyfile(source, target)
        found[kind] = target.relative_to(out).as_posix()
    return found


def _find(results_dir: Path, file: Path, name: str, suffixes: set[str]) -> Path | None:
    """A file that a result names, relative to itself, to the results, to their parent or to here. Results may
    come from others: nothing outside these folders, and nothing of another kind, is copied into a page."""
    roots = [results_dir.resolve().parent, Path.cwd().resolve(), _BASELINES]
    for base in (file.parent, results_dir, results_dir.parent, Path()):
        path = (base / name).resolve()
        if path.suffix in suffixes and path.is_file() and any(path.is_relative_to(root) for root in roots):
            return path
    return None
