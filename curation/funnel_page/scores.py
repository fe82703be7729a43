"""Distributions of scores, read from the side-cars of a run with DuckDB: one scan of a stage for its numbers.

A row counts as kept, as removed by the rules that read this score, or as removed by another rule. For runs of
up to `JOIN_ROWS` rows a row's end is looked up in the later stages too; above that only its own stage is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from curation import storage

BINS = 40
LABELS = 8  # values shown of a column of labels; the rest is summed
JOIN_ROWS = 20_000_000

_REALS = ("FLOAT", "DOUBLE", "DECIMAL")
_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
)


@dataclass(frozen=True)
class Bars:
    """Rows of one bin or label: kept, removed by a rule that reads the column, removed by another."""

    kept: int = 0
    by_rule: int = 0
    elsewhere: int = 0

    @property
    def rows(self) -> int:
        return self.kept + self.by_rule + self.elsewhere


@dataclass(frozen=True)
class Distribution:
    """One score column. Numbers: `bins[i]` covers [edge(i), edge(i + 1)), the first and last also hold what
    lies `below` and `above`; `log` bins are equal in the logarithm. Labels: by falling number of rows."""

    column: str
    stage: str
    rows: int  # rows with a value
    nulls: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    start: float = 0.0
    width: float = 1.0
    log: bool = False
    bins: tuple[Bars, ...] = ()
    below: int = 0
    above: int = 0
    labels: Mapping[str, Bars] = field(default_factory=dict)
    joined: bool = True

    def edge(self, i: int) -> float:
        """Where bin i begins."""
        at = self.start + i * self.width
        return 10.0**at if self.log else at

    def place(self, value: float) -> float:
        """Where a value lies between the left end (0) and the right end (1) of the drawn range."""
        if self.log:
            value = math.log10(value) if value > 0 else -math.inf
        return (value - self.start) / (self.width * max(1, len(self.bins)))


def distributions(
    run_dir: str, rules: Mapping[str, Iterable[str]], marks: Mapping[str, Iterable[float]] | None = None
) -> list[Distribution]:
    """Every number, boolean and label column of the side-cars under run_dir/scores, in the order of stages.

    `rules`: column → reasons of the keeps that read it. `marks`: column → thresholds, which the drawn range
    should show. An empty list when the run has no side-cars.
    """
    stages = _stages(run_dir)
    if not stages:
        return []
    con = _connect(run_dir)
    try:
        total = sum(_count(con, files) for files in stages.values())
        names = list(stages)
        found = []
        for i, name in enumerate(names):
            later = [stages[n] for n in names[i + 1 :]] if total <= JOIN_ROWS else []
            con.execute("SET threads = 1" if total <= JOIN_ROWS else "RESET threads")
            joined = i == len(names) - 1 or total <= JOIN_ROWS
            found += _of_stage(con, name, stages[name], later, rules, marks or {}, joined)
        return found
    finally:
        con.close()


def _stages(run_dir: str) -> dict[str, list[str]]:
    """Stage folder → side-car files, by number of stage."""
    root = storage.join(run_dir, "scores")
    try:
        files = storage.list_files(root, suffixes=[".parquet"])
    except FileNotFoundError:
        return {}
    stages: dict[str, list[str]] = {}
    for file in files:
        stages.setdefault(file.name.split("/")[0] if "/" in file.name else "", []).append(file.url)
    return dict(sorted(stages.items(), key=lambda item: (_natural(item[0]), item[0])))


def _natural(name: str) -> int:
    digits = "".join(ch for ch in name if ch.isdigit())
    return int(digits) if digits else -1


def _connect(run_dir: str) -> Any:
    import duckdb

    con = duckdb.connect(":memory:")
    con.execute("SET TimeZone = 'UTC'") if con.execute(
        "select 1 from duckdb_settings() where name = 'TimeZone'"
    ).fetchall() else None
    con.execute("SET enable_progress_bar = false")
    if not storage.is_local(run_dir):
        import fsspec

        con.register_filesystem(fsspec.core.url_to_fs(run_dir)[0])
    return con


def _scan(files: list[str]) -> str:
    quoted = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
    return f"read_parquet([{quoted}], union_by_name = true, hive_partitioning = false)"


def _count(con: Any, files: list[str]) -> int:
    return con.execute(f"SELECT count(*) FROM {_scan(files)}").fetchone()[0]


def _of_stage(
    con: Any,
    name: str,
    files: list[str],
    later: list[list[str]],
    rules: Mapping[str, Iterable[str]],
    marks: Mapping[str, Iterable[float]],
    joined: bool,
) -> list[Distribution]:
    kinds = con.execute(f"DESCRIBE SELECT * FROM {_scan(files)}").fetchall()
    columns: list[tuple[str, str, str]] = []  # shown name, SQL, whole|real|label
    for row in kinds:
        if row[0] not in ("id", "dropped_by"):
            columns += _flat(row[0], _quote(row[0]), row[1])
    if not columns or "dropped_by" not in {row[0] for row in kinds}:
        return []
    fate = ["r0.dropped_by"]
    joins = ""
    for i, more in enumerate(later, 1):
        ends = f"SELECT id, any_value(dropped_by) AS gone FROM {_scan(more)} GROUP BY id"
        joins += f" LEFT JOIN ({ends}) s{i} USING (id)"
        fate.append(f"s{i}.gone")
    con.execute(
        "CREATE OR REPLACE TEMP VIEW rows_of AS SELECT r0.* EXCLUDE (dropped_by), "
        f"coalesce({', '.join(fate)}) AS fate_of_row FROM {_scan(files)} r0{joins}"
    )
    numbers = [c for c in columns if c[2] != "label"]
    made = {d.column: d for d in _histograms(con, name, numbers, rules, marks, joined)}
    for shown, sql, kind in columns:
        if kind == "label":
            made[shown] = _labels(con, name, shown, sql, rules, joined)
    return [made[c[0]] for c in columns if made[c[0]].rows or made[c[0]].nulls]


def _flat(shown: str, sql: str, kind: str) -> list[tuple[str, str, str]]:
    """A column as numbers and labels; the fields of a struct one by one; lists and binary left out."""
    if kind.startswith("STRUCT(") and kind.endswith(")"):
        out = []
        for field_name, field_kind in _fields(kind[7:-1]):
            out += _flat(f"{shown}.{field_name}", f"{sql}.{_quote(field_name)}", field_kind)
        return out
    if kind.split("(")[0] in _NUMBERS and not kind.endswith("]"):
        return [(shown, sql, "real" if kind.split("(")[0] in _REALS else "whole")]
    if kind in ("VARCHAR", "BOOLEAN"):
        return [(shown, sql, "label")]
    return []


def _fields(inside: str) -> list[tuple[str, str]]:
    """The fields of DuckDB's STRUCT(a INTEGER, "b c" STRUCT(…)): name and type."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, ch in enumerate(inside):
        if ch == '"':
            quoted = not quoted
        elif not quoted and ch in "(,)":
            depth += {"(": 1, ")": -1, ",": 0}[ch]
            if ch == "," and depth == 0:
                parts.append(inside[start:i])
                start = i + 1
    out = []
    for part in [*parts, inside[start:]]:
        part = part.strip()
        if part.startswith('"'):
            end = part.replace('""', "\0\0").index('"', 1)
            out.append((part[1:end].replace('""', '"'), part[end + 1 :].strip()))
        else:
            head, _, kind = part.partition(" ")
            out.append((head, kind.strip()))
    return out


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _classes(shown: str, rules: Mapping[str, Iterable[str]]) -> tuple[str, str, str]:
    """SQL conditions of kept, removed by a rule that reads the column, removed by another."""
    mine = ", ".join("'" + r.replace("'", "''") + "'" for r in rules.get(shown, ()))
    if not mine:
        return "fate_of_row IS NULL", "false", "fate_of_row IS NOT NULL"
    return "fate_of_row IS NULL", f"fate_of_row IN ({mine})", f"fate_of_row NOT IN ({mine})"


def _histograms(
    con: Any,
    stage: str,
    columns: list[tuple[str, str, str]],
    rules: Mapping[str, Iterable[str]],
    marks: Mapping[str, Iterable[float]],
    joined: bool,
) -> list[Distribution]:
    if not columns:
        return []
    asked = []
    for _, sql, _ in columns:
        x = f"CASE WHEN isfinite(CAST({sql} AS DOUBLE)) THEN CAST({sql} AS DOUBLE) END"
        asked.append(
            f"count({x}), count(*) - count({x}), min({x}), max({x}), avg({x}), "
            f"approx_quantile({x}, [0.002, 0.5, 0.998])"
        )
    facts = con.execute(f"SELECT {', '.join(asked)} FROM rows_of").fetchone()
    facts = [facts[i : i + 6] for i in range(0, len(facts), 6)]
    plans = [
        _range(fact, c[2] == "whole", marks.get(c[0], ())) if fact[0] else None
        for c, fact in zip(columns, facts, strict=True)
    ]
    asked = []
    for (shown, sql, _), plan in zip(columns, plans, strict=True):
        if plan is None:
            continue
        start, width, bins, log = plan
        x = f"CAST({sql} AS DOUBLE)"
        at = f"CASE WHEN {x} > 0 THEN log10({x}) ELSE -1e9 END" if log else x
        where = f"floor(({at} - {start!r}) / {width!r} + 1e-9)"
        for condition in _classes(shown, rules):
            asked.append(
                f"histogram(CAST(greatest(-1, least({bins}, {where})) AS INTEGER)) "
                f"FILTER (WHERE isfinite({x}) AND {condition})"
            )
    answers = iter(con.execute(f"SELECT {', '.join(asked)} FROM rows_of").fetchone()) if asked else iter(())
    found = []
    for (shown, _, _), fact, plan in zip(columns, facts, plans, strict=True):
        if plan is None:
            found.append(Distribution(shown, stage, 0, fact[1], joined=joined))
            continue
        start, width, bins, log = plan
        counts = [next(answers) or {} for _ in range(3)]
        low, high = (sum(c.get(edge, 0) for c in counts) for edge in (-1, bins))
        for c in counts:
            c[0] = c.get(0, 0) + c.pop(-1, 0)
            c[bins - 1] = c.get(bins - 1, 0) + c.pop(bins, 0)
        bars = tuple(Bars(*(c.get(i, 0) for c in counts)) for i in range(bins))
        found.append(
            Distribution(
                shown,
                stage,
                rows=fact[0],
                nulls=fact[1],
                minimum=fact[2],
                maximum=fact[3],
                mean=fact[4],
                start=start,
                width=width,
                log=log,
                bins=bars,
                below=low,
                above=high,
                joined=joined,
            )
        )
    return found


def _range(fact: tuple[Any, ...], whole: bool, marks: Iterable[float]) -> tuple[float, float, int, bool]:
    """(start, width, bins, log): round numbers that cover the middle 99.6 % and the thresholds near it. What
    lies far outside would leave the rest one bar wide, so it is counted into the outer bins; a long tail of
    positive numbers (lengths, counts) is drawn by its logarithm."""
    _, _, minimum, maximum, _, (low, median, high) = fact
    marks = list(marks)
    if minimum >= 0 and high > max(100, 20 * median) and median > 0 and all(m > 0 for m in marks):
        low = max(minimum, low, 1.0 if whole else high / 1e5)
        for mark in marks:
            low, high = min(low, mark), max(high, mark)
        width = max(0.02, _round_up(math.log10(high / low) / BINS))
        start = math.floor(math.log10(low) / width + 1e-9) * width
        return start, width, max(1, math.floor((math.log10(high) - start) / width + 1e-9) + 1), True
    span = high - low
    low = minimum if low - minimum <= 0.25 * span else low
    high = maximum if maximum - high <= 0.25 * span else high
    for mark in marks:
        if minimum == maximum or minimum <= mark <= maximum or low - span <= mark <= high + span:
            low, high = min(low, mark), max(high, mark)
    if high <= low:
        step = 1.0 if whole else max(abs(low), 1.0) / 10
        low, high = low - 2 * step, low + 2 * step
    width = _round_up((high - low) / BINS)
    if whole:
        width = max(1.0, math.ceil(width))
    start = math.floor(low / width + 1e-9) * width
    bins = max(1, math.floor((high - start) / width + 1e-9) + 1)
    if not whole and bins > 1 and abs(start + (bins - 1) * width - high) < 1e-9 * max(1.0, abs(high)):
        bins -= 1  # the maximum itself belongs to the last bin: a score of exactly 1 is no bin of its own
    return start, width, bins, False


def _round_up(width: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if width <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(float(f"{m * power:.12g}") for m in (1, 2, 2.5, 5, 10) if m * power >= width * (1 - 1e-9))


def _labels(
    con: Any, stage: str, shown: str, sql: str, rules: Mapping[str, Iterable[str]], joined: bool
) -> Distribution:
    rows, different = con.execute(
        f"SELECT count({sql}), approx_count_distinct({sql}) FROM rows_of"
    ).fetchone()
    if different > max(50, rows / 4):  # names of rows rather than labels of them
        return Distribution(shown, stage, 0, 0, joined=joined)
    kept, mine, others = _classes(shown, rules)
    rows = con.execute(
        f"SELECT CAST({sql} AS VARCHAR) AS label, count(*) FILTER (WHERE {kept}), "
        f"count(*) FILTER (WHERE {mine}), count(*) FILTER (WHERE {others}) "
        "FROM rows_of GROUP BY label ORDER BY count(*) DESC, label"
    ).fetchall()
    nulls = sum(sum(r[1:]) for r in rows if r[0] is None)
    rows = [r for r in rows if r[0] is not None]
    labels = {r[0][:60]: Bars(*r[1:]) for r in rows[:LABELS]}
    rest = rows[LABELS:]
    if rest:
        labels[f"{len(rest):,} others"] = Bars(*(sum(r[i] for r in rest) for i in (1, 2, 3)))
    return Distribution(shown, stage, sum(sum(r[1:]) for r in rows), nulls, labels=labels, joined=joined)
