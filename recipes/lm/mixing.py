"""Several sources in one set of contexts: by epochs of each, or by their shares of the whole.

A mix is a YAML file:

    sources:
      web:  {path: out/web, weight: 0.8}       # shares of the contexts …
      wiki: {path: out/wiki, weight: 0.2}

    sources:
      web:  {path: out/web}                    # … or how often every context of a source is read (1)
      wiki: {path: out/wiki, epochs: 2.269}

or one folder whose shards are told apart by parts of their names (``contains``), as RedPajama's are:

    path: redpajama
    sources:
      wikipedia: {contains: [wikipedia], epochs: 2.269}

2.269 epochs are two copies of every context and a third of 26.9 % of them, chosen by their hash. Counts are
exact: contexts x epochs, rounded; shares of a budget by largest remainder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from recipes.lm.tokens import TokensError

REDPAJAMA = {
    "common_crawl": 0.9233,
    "c4": 1.037,
    "github": 0.9229,
    "wikipedia": 2.269,
    "book": 2.094,
    "arxiv": 1.080,
    "stackexchange": 1.21,
}
"""Epochs of RedPajama's parts as DCLM's RedPajama runs sampled them (ray_processing, rpj sampling file)."""


@dataclass(frozen=True)
class Source:
    """Shards that are counted together. ``epochs`` and ``weight`` are not given at once."""

    name: str
    path: str
    epochs: float | None = None
    weight: float | None = None
    contains: tuple[str, ...] = field(default=())
    """Only the shards whose path under ``path`` has one of these in it; all where empty."""

    def __post_init__(self) -> None:
        for what, value in (("epochs", self.epochs), ("weight", self.weight)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TokensError(f"source {self.name!r}: {what} is {value}; it is a number above 0")
        if self.epochs is not None and self.weight is not None:
            raise TokensError(f"source {self.name!r} has epochs and a weight: give one of them")


@dataclass(frozen=True)
class Share:
    """What is written and what is promised: contexts of each source, and the budget in all."""

    counts: tuple[int, ...]
    budget: int


def load(path: str | Path) -> list[Source]:
    """The sources of a mix file. Raises TokensError that names what is wrong."""
    import yaml

    from recipes.scale import yaml_loader  # a YAML loader that refuses a key given twice

    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml_loader())
    except FileNotFoundError:
        raise TokensError(f"{path}: no such mix file") from None
    except yaml.YAMLError as error:
        raise TokensError(f"{path}: {error}") from None
    entries = values.get("sources") if isinstance(values, dict) else None
    if not isinstance(entries, Mapping) or not entries:
        raise TokensError(f"{path}: expected a mapping `sources` of name to path, epochs or weight, contains")
    return [_source(path, str(name), entry, values.get("path")) for name, entry in entries.items()]


def _source(file: str | Path, name: str, entry: Any, common: Any) -> Source:
    if not isinstance(entry, Mapping):
        raise TokensError(
            f"{file}: source {name!r} is {entry!r}; expected a mapping such as {{path: out/web}}"
        )
    unknown = sorted(set(entry) - {"path", "epochs", "weight", "contains"})
    if unknown:
        raise TokensError(f"{file}: source {name!r} has unknown {', '.join(map(str, unknown))}")
    place = entry.get("path", common)
    if not place:
        raise TokensError(f"{file}: source {name!r} has no path, nor has the file as a whole")
    contains = entry.get("contains", ())
    contains = (contains,) if isinstance(contains, str) else tuple(map(str, contains))
    for what in ("epochs", "weight"):
        if entry.get(what) is not None and not isinstance(entry[what], int | float):
            raise TokensError(f"{file}: source {name!r}: {what} is {entry[what]!r}; it is a number")
    return Source(name, str(place), entry.get("epochs"), entry.get("weight"), contains)


def by_name(path: str, epochs: Mapping[str, float]) -> list[Source]:
    """One folder, its shards told apart by a part of their names: ``by_name("rpj", REDPAJAMA)``."""
    return [Source(name, path, epochs=value, contains=(name,)) for name, value in epochs.items()]


def check(sources: Sequence[Source]) -> None:
    """Raises TokensError unless all sources are given in one way and under different names."""
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise TokensError(f"sources named twice: {', '.join(twice)}" if twice else "no source is given")
    weighted = [source.name for source in sources if source.weight is not None]
    if weighted and len(weighted) < len(sources):
        others = sorted(set(names) - set(weighted))
        raise TokensError(
            f"{', '.join(weighted)} have weights and {', '.join(others)} have none: "
            "give every source a weight, or every source epochs"
        )


def share(
    sources: Sequence[Source],
    available: Sequence[int],
    *,
    contexts: int | None = None,
    epochs: float | None = None,
    allow_repeat: bool = False,
) -> Share:
    """How many contexts of each source are written.

    available: contexts that each source has once.
    contexts: the exact number wanted; default: all there are (with weights: as many as can be had at these
        weights with no context of any source twice).
    epochs: wanted as a multiple of what there is, instead.

    Raises TokensError when more are wanted than there are, with the epochs that would be, unless
    ``allow_repeat`` or ``epochs`` ask for repeats.
    """
    check(sources)
    for source, have in zip(sources, available, strict=True):
        if not have:
            raise TokensError(
                f"source {source.name!r} has no whole context: {source.path} is too little text"
            )
    weighted = sources[0].weight is not None
    if weighted:
        weights = [Fraction(str(source.weight)) for source in sources]
        weights = [w / sum(weights) for w in weights]
        full = min(int(have / w) for have, w in zip(available, weights, strict=True))
    else:
        counts = [
            round(Fraction(str(1 if s.epochs is None else s.epochs)) * n)
            for s, n in zip(sources, available, strict=True)
        ]
        full = sum(counts)
        weights = [Fraction(count, full) for count in counts] if full else []
    if not full:
        raise TokensError("these epochs or weights leave no whole context: there is too little text")
    if epochs is not None:
        if contexts is not None:
            raise TokensError("a budget and epochs at once: give one of them")
        contexts, allow_repeat = round(Fraction(str(epochs)) * full), True
    budget = full if contexts is None else contexts
    if budget < 1:
        raise TokensError(f"a budget of {budget} contexts: ask for one at least")
    if budget > full and not allow_repeat:
        raise TokensError(_too_many(sources, available, weights, budget, full, weighted))
    if weighted:  # a source may be read several times before others are through: its copies are written
        return Share(tuple(apportion(weights, budget)), budget)
    stored = min(budget, full)  # further epochs of the whole are the reader's: nothing is written twice
    return Share(tuple(counts if stored == full else apportion(weights, stored)), budget)


def _too_many(
    sources: Sequence[Source], available: Sequence[int], weights: list[Fraction], budget: int, full: int,
    weighted: bool,
) -> str:  # fmt: skip
    mend = "ask for fewer, curate more, or allow it with epochs=… or allow_repeat=True (--allow-repeat)"
    if weighted:
        each = ", ".join(
            f"{s.name} {float(w * budget / have):.3g}"
            for s, w, have in zip(sources, weights, available, strict=True)
        )
        return (
            f"{budget:,} contexts at these weights would read some of them again, epochs: {each}; without "
            f"repeats there are {full:,}; {mend}"
        )
    return (
        f"{budget:,} contexts were asked for and there are {full:,}: that would be "
        f"{budget / full:.4g} epochs; {mend}"
    )


def apportion(weights: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers in these shares (which add up to 1) that add up to ``total``: largest remainder."""
    exact = [weight * total for weight in weights]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
