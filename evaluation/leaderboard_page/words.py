"""Numbers and statements of the leaderboard as text: one wording for the page and the Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from evaluation.leaderboard_page.results import Unranked
from evaluation.leaderboard_page.standings import SEEDS, Row, Standings, known
from evaluation.stats import Interval

TRACKS = {"text": "Text", "image_text": "Image-text"}
CONTROLS = {"no-filter": "control: nothing removed", "random": "control: random rows", "other": "control"}


def track_title(table: Standings) -> str:
    return TRACKS.get(table.track, table.track)


def decimals(intervals: Iterable[Interval | None]) -> int:
    """Decimals that show two digits of the typical half width of these intervals, one number for a column."""
    halves = sorted((i.high - i.low) / 2 for i in intervals if i is not None and known(i) and i.high > i.low)
    if not halves:
        return 2
    return min(5, max(0, 1 - math.floor(math.log10(halves[len(halves) // 2]))))


def fixed(value: float, places: int, signed: bool = False) -> str:
    """A number with so many decimals and a true minus sign; zero has no sign."""
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def bounds(interval: Interval, places: int, signed: bool = False) -> str:
    """[low, high], or n/a."""
    if not known(interval):
        return "n/a"
    return f"[{fixed(interval.low, places, signed)}, {fixed(interval.high, places, signed)}]"


def beats(row: Row) -> str:
    """Whether a recipe beats both controls outside the interval: yes, no, n/a; a control is –."""
    if row.control:
        return "–"
    return "n/a" if row.beats is None else ("yes" if row.beats else "no")


def winner(table: Standings) -> Row | None:
    """The best recipe that is no control."""
    return next((row for row in table.rows if not row.control), None)


def verdict(table: Standings) -> str:
    """What the table says about its best recipe, in plain words."""
    row = winner(table)
    if row is None:
        return "Only controls have been run."
    places = decimals(r.score for r in table.rows)
    said = [f"{row.title} is the best recipe: {table.score_name} {fixed(row.score.mean, places)}"]
    if known(row.score):
        said[0] += f" {bounds(row.score, places)}"
    seeds = f"{len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
    said[0] += f" over {seeds}, {keeping(row)}."
    for gain, name in ((row.gain, "no filter"), (row.gain_random, "random rows of the same size")):
        if gain is not None:
            said.append(f"{fixed(gain.mean, places, True)} {bounds(gain, places, True)} against {name}.")
    if row.beats is None:
        said.append(f"No claim is made: that takes both controls and {SEEDS} seeds of each.")
    else:
        said.append(f"Beats no-filter and random-same-size outside the interval: {beats(row)}.")
    return " ".join(said)


def ties(table: Standings) -> str | None:
    """Recipes that cannot be told from the first."""
    names = [row.title for row in table.rows if row.tied]
    if not names:
        return None
    return f"Not separable from {table.rows[0].title} at this number of seeds: {_list(names)}."


def percent(row: Row) -> str:
    """The kept fraction."""
    if row.kept_fraction is None:
        return "–"
    value = 100 * row.kept_fraction
    if value == 0 or value >= 0.95:
        return f"{value:.1f} %"
    return f"{value:.2g} %"


def keeping(row: Row) -> str:
    """What part of the pool a recipe kept, as the end of a sentence."""
    return "on data of its own" if row.kept_fraction is None else f"keeping {percent(row)} of the pool"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


NOTES = (
    "Every row of a table was trained with the same model, budget and hyper-parameters; only the data "
    "differ. Runs whose scale has another hash are in another table.",
    "Intervals are 95 % Student t intervals of the mean over training seeds. They hold the spread of "
    "training, not that of the evaluation items, which are the same for every row.",
    "Differences are Welch's (unpaired, unequal variances), positive where the recipe is better; the random "
    "control is the one nearest in kept fraction. “Yes” means that both differences lie above zero with "
    "their whole interval. Each interval stands for itself: no correction for the number of recipes.",
    f"With fewer than {SEEDS} seeds, or seeds that do not differ at all, the interval is n/a and nothing is "
    "claimed.",
    "≈ marks a recipe whose difference to the first row includes zero: their order is not settled.",
)


def lacking(run: Unranked) -> str:
    """Why a run has no place."""
    if not run.missing:
        return "a model from elsewhere, not trained at one of the scales"
    return (
        f"no {run.score_name}, because {len(run.missing)} of its tasks were not run: {', '.join(run.missing)}"
    )
