"""Errors a user of the engine can meet. Each message says what was found, where, and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class PlanError(ValueError):
    """A plan that cannot work; raised before any worker starts."""


class ShardError(RuntimeError):
    """One shard could not be finished: too many bad rows, or rows that do not add up."""


class RunFailed(RuntimeError):
    """A run that ended with shards missing. `failures` maps shard key to the reason."""

    def __init__(self, message: str, failures: dict[str, str]):
        super().__init__(message)
        self.failures = failures


def suggest(word: str, known: Sequence[str]) -> str:
    """A clause naming the nearest known word, or listing what there is."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(sorted(known))}" if known else "there are none"
