"""The page: verdicts first, then for every track and scale the table, the plot, the tasks, the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curation.html import Html, asset, count, duration, el, figure, join, page
from evaluation.leaderboard_page import words
from evaluation.leaderboard_page.plot import plot
from evaluation.leaderboard_page.results import Unranked
from evaluation.leaderboard_page.standings import Row, Standings, TaskCell, known, slug
from evaluation.leaderboard_page.words import bounds, decimals, fixed
from evaluation.stats import Interval

_HERE = Path(__file__).parent
Links = Mapping[tuple[str, str], Mapping[str, str | None]]


def leaderboard_page(
    tables: Sequence[Standings], links: Links, title: str, unranked: Sequence[Unranked] = ()
) -> str:
    """The whole document. `links`: (table key, recipe) → {"funnel": relative URL or None, "recipe": …}; a key
    that is there with None was named by the result but not found."""
    return page(
        title,
        el("a", "Skip to the first table", href=f"#{tables[0].key}", class_="skip") if tables else None,
        el(
            "header",
            el("p", "Winnow leaderboard", class_="over"),
            el("h1", title),
            el("div", [_card(table) for table in tables], class_="cards"),
        ),
        el("main", [_section(table, links) for table in tables], _unranked(unranked), _notes()),
        el(
            "footer",
            "The numbers of this page: ",
            join(
                el("a", "leaderboard.json", href="leaderboard.json"),
                " (every seed), ",
                el("a", "leaderboard.csv", href="leaderboard.csv"),
                ", ",
                el("a", "leaderboard.md", href="leaderboard.md"),
                ".",
            ),
            class_="foot",
        ),
        css=asset(_HERE / "leaderboard.css") + asset(_HERE / "plot.css"),
        script=asset(_HERE / "leaderboard.js"),
        description="What curation was worth at a fixed training budget",
    )


def _unranked(runs: Sequence[Unranked]) -> Html | None:
    """Runs without a score: named, with what is missing, and never averaged over."""
    if not runs:
        return None
    items = [
        el("li", el("b", run.title), f", {run.scale}, seed {run.seed}: {words.lacking(run)}") for run in runs
    ]
    return el("section", el("h2", "Not ranked", id="not-ranked"), el("ul", items))


def _card(table: Standings) -> Html:
    """Who won, by how much, with what certainty."""
    row = words.winner(table)
    heading = el(
        "p", el("a", f"{words.track_title(table)}, {table.scale_title}", href=f"#{table.key}"), class_="over"
    )
    if row is None:
        return el("section", heading, el("p", words.verdict(table)), class_="card")
    places = decimals(r.score for r in table.rows)
    lines = []
    for gain, name in ((row.gain, "no filter"), (row.gain_random, "random, same size")):
        if gain is not None:
            value = el("b", fixed(gain.mean, places, True))
            lines.append(
                [el("dt", f"against {name}"), el("dd", value, el("span", bounds(gain, places, True)))]
            )
    lines.append([el("dt", "beats both outside the interval"), el("dd", _answer(row))])
    seeds = f"{bounds(row.score, places)}, {len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
    shown = [el("b", fixed(row.score.mean, places)), el("span", seeds)]
    return el(
        "section",
        heading,
        el("h2", row.title, class_="plain"),
        el("p", f"is the best recipe, {words.keeping(row)}.", class_="muted"),
        el("dl", el("dt", table.score_name), el("dd", shown), lines, class_="sums"),
        class_="card",
    )


def _answer(row: Row) -> Html:
    text = words.beats(row)
    return el("b", text, class_="yes" if text == "yes" else None)


# ---------------------------------------------------------------------------------------- one track and scale


def _section(table: Standings, links: Links) -> Html:
    ties = words.ties(table)
    return el(
        "section",
        el("h2", f"{words.track_title(table)}, {table.scale_title}", id=table.key),
        el(
            "p",
            "Scale ",
            el("code", table.scale_hash[:16], class_="hash"),
            f", {_seeds(table)}",
            class_="over",
        ),
        el("p", ties) if ties else None,
        el("div", _board(table, links), class_="scroll", tabindex=0, role="region", aria_label="Standings"),
        el(
            "figure",
            el("figcaption", _caption(table), class_="muted"),
            el("div", plot(table), class_="scroll"),
            class_="drawing",
        ),
        _tasks(table),
        _runs(table),
    )


def _caption(table: Standings) -> str:
    level = any(row.control == "no-filter" for row in table.rows)
    dashed = ", dashed line and band: level of no filter" if level else ""
    bars = "Bars: 95 % t intervals over seeds"
    return f"What was kept against what it was worth. {bars}; squares: controls{dashed}."


def _seeds(table: Standings) -> str:
    numbers = sorted({len(row.seeds) for row in table.rows})
    said = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{said} seed{'' if numbers == [1] else 's'} a recipe"


def _board(table: Standings, links: Links) -> Html:
    places = decimals(row.score for row in table.rows)
    arrow = "higher is better" if table.higher_is_better else "lower is better"
    heads = [
        el("th", "#", scope="col", class_="rank", data_sort="up"),
        el("th", "Recipe", scope="col", data_sort="up"),
        _head(table.score_name, arrow, "down" if table.higher_is_better else "up"),
        _head("Against no filter", "difference", "down"),
        _head("Against random", "of the same size", "down"),
        _head("Beats both", "outside the interval"),
        _head("Kept", f"of {table.rows[0].fraction_of}", "down"),
        _head("Rows", "", "down"),
        _head("Epochs", "", "down"),
        _head("Time", "a seed", "up"),
    ]
    first = words.winner(table)
    return el(
        "table",
        el("caption", f"Standings of {words.track_title(table)}, {table.scale_title}", class_="hide"),
        el("thead", el("tr", heads)),
        el("tbody", [_row(table, row, places, links, row is first) for row in table.rows]),
        class_="board",
    )


def _head(text: str, note: str = "", sort: str | None = None) -> Html:
    return el("th", text, el("small", note) if note else None, scope="col", class_="n", data_sort=sort)


def _row(table: Standings, row: Row, places: int, links: Links, first: bool) -> Html:
    tied = el("span", " ≈", title="Not separable from the first row") if row.tied else None
    kind = el("small", words.CONTROLS[row.control]) if row.control else None
    classes = " ".join(c for c, on in (("control", row.control), ("first", first)) if on)
    of_pool = el("small", f"of {count(row.rows_pool)}", class_="muted") if row.rows_pool else None
    return el(
        "tr",
        el("td", row.rank, tied, class_="rank", data_value=row.rank),
        el(
            "th",
            row.title,
            kind,
            _look(links.get((table.key, row.recipe), {})),
            scope="row",
            data_value=row.title,
        ),
        _estimate(row.score, places, note=f"{len(row.seeds)} seeds" if not known(row.score) else None),
        _estimate(row.gain, places, signed=True),
        _estimate(row.gain_random, places, signed=True),
        el("td", _answer(row), class_="n"),
        el("td", words.percent(row), class_="n", data_value=row.kept_fraction),
        el("td", count(row.rows), of_pool, class_="n", data_value=row.rows),
        el(
            "td",
            figure(round(row.epochs, 2)) if row.epochs is not None else "–",
            class_="n",
            data_value=row.epochs,
        ),
        el("td", duration(row.seconds), class_="n", data_value=row.seconds),
        class_=classes or None,
        id=f"{table.key}-{slug(row.recipe)}",
    )


def _estimate(value: Interval | None, places: int, signed: bool = False, note: str | None = None) -> Html:
    if value is None:
        return el("td", "–", class_="n")
    shown = bounds(value, places, signed)
    return el(
        "td",
        el("span", fixed(value.mean, places, signed), class_="strong"),
        el("span", f"{shown}, {note}" if note else shown, class_="range"),
        class_="n",
        data_value=repr(value.mean),
    )


def _look(found: Mapping[str, str | None]) -> Html | None:
    """Links to what was removed and to the recipe."""
    parts = []
    for name, url in found.items():
        missing = el(
            "span", f"{name} not found", class_="warn", title="Named by the result file, but not there"
        )
        parts.append(el("a", name, href=url) if url else missing)
    return el("small", parts, class_="links") if parts else None


# --------------------------------------------------------------------------------------------- tasks and runs


def _tasks(table: Standings) -> Html | None:
    """Tasks down, recipes across: a long task list stays readable, and a column is a recipe."""
    if not table.tasks:
        return None
    heads = [
        el("th", "Task", scope="col"),
        _head("Chance"),
        *(_head(row.title, "control" if row.control else "") for row in table.rows),
    ]
    rows = []
    for task in table.tasks:
        cells = [row.tasks.get(task.key) for row in table.rows]
        places = decimals(c.value for c in cells if c)
        means = [c.value.mean for c in cells if c]
        best = max(means) if task.higher_is_better else min(means)
        better = "higher" if task.higher_is_better else "lower"
        about = f"{task.metric.replace('_', ' ')}, {better} is better" + (
            f", {count(task.n)} items" if task.n else ""
        )
        rows.append(
            el(
                "tr",
                el(
                    "th",
                    task.title,
                    el("small", about + ("" if task.in_score else "; not in the score")),
                    scope="row",
                ),
                el("td", "–" if task.chance is None else fixed(task.chance, places), class_="n muted"),
                [_task_cell(cell, places, best) for cell in cells],
            )
        )
    return join(
        el("h3", "Each task"),
        el("p", "Mean over seeds and 95 % t interval; the best mean of a task in bold.", class_="over"),
        el(
            "div",
            el(
                "table",
                el("caption", "Every task by recipe", class_="hide"),
                el("thead", el("tr", heads)),
                el("tbody", rows),
                class_="tasks",
            ),
            class_="scroll",
            tabindex=0,
            role="region",
            aria_label="Tasks",
        ),
    )


def _task_cell(cell: TaskCell | None, places: int, best: float) -> Html:
    if cell is None:
        return el("td", "–", class_="n")
    return el(
        "td",
        fixed(cell.value.mean, places),
        el("span", bounds(cell.value, places), class_="range"),
        class_="n best" if cell.value.mean == best else "n",
    )


def _runs(table: Standings) -> Html:
    """What the means are made of: every seed's score, the plan of the data, and the versions."""
    rows = [
        el(
            "tr",
            el("th", row.title, scope="row"),
            el(
                "td", ", ".join(f"{seed}: {figure(v)}" for seed, v in zip(row.seeds, row.scores, strict=True))
            ),
            el("td", el("code", ", ".join(h[:12] for h in row.plan_hashes) or "–")),
        )
        for row in table.rows
    ]
    heads = [el("th", name, scope="col") for name in ("Recipe", "Score of each seed", "Plan of the data")]
    versions = ", ".join(f"{k} {v}" for k, v in table.versions.items())
    return el(
        "details",
        el("summary", "Every seed"),
        el("div", el("table", el("thead", el("tr", heads)), el("tbody", rows)), class_="scroll"),
        el(
            "p",
            f"Scale hash {table.scale_hash}. First run made with {versions}." if versions else None,
            class_="over",
        ),
        class_="more",
    )


def _notes() -> Html:
    return el(
        "section",
        el("h2", "How to read this", id="notes"),
        el("ul", [el("li", note) for note in words.NOTES], class_="notes"),
    )
