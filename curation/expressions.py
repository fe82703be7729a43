"""`keep` expressions: SQL boolean expressions over the columns of a batch, evaluated by DuckDB on Arrow.

Only an expression is accepted: one predicate over the row's own columns. Sub-queries, aggregates, windows
and functions that are not a function of the row (random(), now(), …) are refused with a message.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.errors import PlanError, suggest

_VOLATILE = {
    "random", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "now", "current_timestamp",
    "transaction_timestamp", "get_current_timestamp", "current_date", "today", "current_time",
    "get_current_time", "current_localtime", "current_localtimestamp", "nextval", "currval", "txid_current",
    "getvariable", "getenv", "read_text", "read_blob", "rowid",
}  # fmt: skip
_local = threading.local()


def _connection() -> Any:
    con = getattr(_local, "con", None)
    if con is None:
        import duckdb

        con = duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False})
        con.execute("PRAGMA disable_optimizer")  # for one filter over one table it costs more than it saves
        con.execute("SET TimeZone = 'UTC'") if _has_timezone(con) else None
        _local.con = con
    return con


def _has_timezone(con: Any) -> bool:
    rows = con.execute("select 1 from duckdb_settings() where name = 'TimeZone'").fetchall()
    return bool(rows)


@lru_cache(maxsize=1024)
def columns_of(expression: str) -> tuple[str, ...]:
    """Names of the columns an expression reads, in order of appearance. PlanError if it is not one
    deterministic expression."""
    sql = f"SELECT 1 FROM rows WHERE ({expression}\n)"
    reply = json.loads(_connection().execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if reply.get("error"):
        raise PlanError(f"keep expression {expression!r} cannot be parsed: {reply.get('error_message')}")
    statements = reply["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    where = node.get("where_clause")
    if node.get("type") != "SELECT_NODE" or where is None:
        raise PlanError(f"keep expression {expression!r} is not one expression")
    found: dict[str, None] = {}
    _walk(where, expression, found, frozenset())
    return tuple(found)


def _walk(node: Any, expression: str, found: dict[str, None], bound: frozenset[str]) -> None:
    if isinstance(node, list):
        for child in node:
            _walk(child, expression, found, bound)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind == "SUBQUERY":
        raise PlanError(
            f"keep expression {expression!r} holds a sub-query: a keep may read the row's own columns only; "
            "use c.subset(ids) to keep a list of ids"
        )
    if kind == "WINDOW":
        raise PlanError(
            f"keep expression {expression!r} holds a window function, which needs other rows; "
            "use c.top_fraction, c.sample or a dedup for that"
        )
    if kind == "FUNCTION" and str(node.get("function_name", "")).lower() in _VOLATILE:
        raise PlanError(
            f"keep expression {expression!r} calls {node['function_name']}(), whose value is not a function "
            "of the row; use c.sample for random choice"
        )
    if kind == "LAMBDA":
        names = _lambda_parameters(node.get("lhs"))
        _walk(node.get("expr"), expression, found, bound | names)
        return
    if kind == "COLUMN_REF":
        parts = list(node["column_names"])
        if parts[0] == "rows" and len(parts) > 1:
            parts = parts[1:]
        if parts[0].lower() in _VOLATILE:
            raise PlanError(f"keep expression {expression!r} reads {parts[0]}, which is not the row's own")
        if parts[0] not in bound:
            found.setdefault(parts[0], None)
        return
    for child in node.values():
        _walk(child, expression, found, bound)


def _lambda_parameters(lhs: Any) -> frozenset[str]:
    names: set[str] = set()
    stack = [lhs]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("class") == "COLUMN_REF":
                names.add(item["column_names"][0])
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return frozenset(names)


def check(expression: str, schema: dict[str, pa.DataType]) -> None:
    """PlanError unless the expression is boolean over columns of this schema."""
    names = columns_of(expression)
    lower = {name.lower(): name for name in schema}
    for name in names:
        if name.lower() not in lower:
            raise PlanError(
                f"keep expression {expression!r} reads column {name!r}, which no earlier step makes; "
                f"{suggest(name, list(schema))}"
            )
    _check_typed(expression, tuple((lower[name.lower()], schema[lower[name.lower()]]) for name in names))


@lru_cache(maxsize=1024)
def _check_typed(expression: str, used: tuple[tuple[str, pa.DataType], ...]) -> None:
    table = pa.table({name: pa.array([], kind) for name, kind in used} | {"__row": pa.array([], pa.int64())})
    con = _connection()
    con.register("rows", table)
    try:
        con.execute(f"SELECT ({expression}\n) AS verdict FROM rows WHERE ({expression}\n)")
        found = str(con.description[0][1])
    except Exception as error:
        first = str(error).split("\n\n")[0].split("\nLINE")[0]
        types = ", ".join(f"{name}: {kind}" for name, kind in used)
        raise PlanError(f"keep expression {expression!r} is refused: {first} (columns: {types})") from None
    finally:
        con.unregister("rows")
    if found not in ("BOOLEAN", "bool"):
        raise PlanError(f"keep expression {expression!r} gives {found}, not true or false: compare it")


def evaluate(expression: str, batch: pa.RecordBatch) -> np.ndarray:
    """bool[n]: true where the expression is true. Null counts as not true, as in SQL's WHERE."""
    return evaluate_all((expression,), batch)[0]


def evaluate_all(expressions: Sequence[str], batch: pa.RecordBatch) -> list[np.ndarray]:
    """bool[n] of each expression, in one query: a query costs a millisecond or two whatever it asks."""
    lower = {name.lower(): name for name in batch.schema.names}
    used = dict.fromkeys(lower[name.lower()] for e in expressions for name in columns_of(e))
    columns = {name: batch.column(name) for name in used}
    table = pa.table(columns | {"__row": pa.array(np.arange(batch.num_rows, dtype=np.int64))})
    con = _connection()
    # takes the place of the batch before; it holds only the columns that are read
    con.register("rows", table)
    asked = ", ".join(f"coalesce(({e}\n), false) AS __{i}" for i, e in enumerate(expressions))
    answer = con.execute(f"SELECT __row, {asked} FROM rows").fetchnumpy()
    place = np.asarray(answer["__row"], dtype=np.int64)
    kept = []
    for i in range(len(expressions)):
        mask = np.zeros(batch.num_rows, dtype=bool)
        mask[place] = np.asarray(answer[f"__{i}"], dtype=bool)
        kept.append(mask)
    return kept
