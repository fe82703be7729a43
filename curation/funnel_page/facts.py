"""A run as its page needs it, and what the steps of its report decide on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.funnel_page.scores import Distribution
from curation.funnel_page.thresholds import Threshold, names_in, thresholds_in


@dataclass(frozen=True)
class Facts:
    """A run as the page needs it: its report, and the distributions of its scores by column."""

    report: Mapping[str, Any]
    shapes: Mapping[str, Distribution]
    place: str = ""

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        return self.report.get("steps") or []

    @property
    def rows_in(self) -> int:
        return (self.report.get("input") or {}).get("rows") or 0

    @property
    def rows_out(self) -> int:
        return (self.report.get("output") or {}).get("rows") or 0

    @property
    def added(self) -> int:
        return sum(s.get("added") or 0 for s in self.steps)

    @property
    def dropped(self) -> int:
        return sum(s.get("dropped") or 0 for s in self.steps)

    @property
    def quarantined(self) -> int:
        return (self.report.get("quarantined") or {}).get("rows") or 0

    @property
    def whole(self) -> int:
        """Rows that ever were: the ones read and the ones that transforms added."""
        return self.rows_in + self.added

    @property
    def reasons(self) -> list[Mapping[str, Any]]:
        """Reasons by falling number of rows."""
        return sorted(
            self.report.get("reasons") or [], key=lambda r: (-(r.get("rows") or 0), r.get("step") or 0)
        )

    def step(self, index: Any) -> Mapping[str, Any]:
        return next((s for s in self.steps if s.get("index") == index), {})


def columns_of(step: Mapping[str, Any]) -> list[str]:
    """Columns that a keep or barrier decides on, as far as the report tells."""
    names = names_in(step.get("where"))
    if step.get("kind") == "barrier":
        names += [v for v in (step.get("params") or {}).values() if isinstance(v, str)]
    names += [n for n in step.get("inputs") or () if isinstance(n, str)]
    return list(dict.fromkeys(names))


def thresholds_of(facts_report: Mapping[str, Any], step: Mapping[str, Any]) -> list[Threshold]:
    """Thresholds of a keep's expression, or the one that a barrier found."""
    marks = thresholds_in(step.get("where"))
    for barrier in facts_report.get("barriers") or ():
        found = (barrier.get("summary") or {}).get("threshold")
        if barrier.get("step") == step.get("index") and isinstance(found, int | float):
            marks += [Threshold(name, ">=", float(found)) for name in columns_of(step)]
    return marks


def told(step: Mapping[str, Any]) -> str:
    """The step in one line, without saying its name twice."""
    if step.get("kind") == "keep" and step.get("where"):
        return str(step["where"])
    told, name = str(step.get("describe") or ""), str(step.get("name") or "")
    if told in (name, step.get("reason")):
        return ""
    told = told.removeprefix(name)
    return told[1:-1] if told.startswith("(") and told.endswith(")") else told.lstrip(": ")
