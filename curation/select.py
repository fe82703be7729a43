"""Choose ids from stored scores: a new threshold costs a query, not a run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curation import storage
from curation.errors import PlanError


def side_cars(run: str | Path) -> list[str]:
    """Side-car parquet files of a run, stage by stage. FileNotFoundError if it has none."""
    root = str(run)
    for place in (storage.join(root, "scores"), root):
        try:
            found = [f.url for f in storage.list_files(place, (".parquet",))]
        except FileNotFoundError:
            continue
        if found:
            return found
    raise FileNotFoundError(f"{root} holds no side-car scores: the plan had no score step, or has not run")


def scores_table(run: str | Path) -> pa.Table:
    """All scores of a run as one table by id, in input order: columns of later stages are joined on;
    `dropped_by` says which reason removed the row, null if it was kept."""
    import pyarrow.parquet as pq

    stages: dict[str, list[pa.Table]] = {}
    for url in side_cars(run):
        with storage.open_read(url) as file:
            stages.setdefault(url.rsplit("/", 2)[-2], []).append(pq.read_table(file))
    tables = [pa.concat_tables(stages[name]) for name in sorted(stages, key=lambda n: (len(n), n))]
    table = tables[0]
    import duckdb

    con = duckdb.connect(":memory:", config={"threads": 1})
    for later in tables[1:]:
        con.register("a", table.append_column("__row", pa.array(range(table.num_rows))))
        con.register("b", later)
        new = [n for n in later.column_names if n not in table.column_names]
        columns = ", ".join(["a.* exclude (dropped_by, __row)", *(f'b."{n}"' for n in new)])
        sql = (
            f"select {columns}, coalesce(a.dropped_by, b.dropped_by) as dropped_by "
            "from a left join b using (id) order by a.__row"
        )
        table = con.sql(sql).to_arrow_table()
        con.unregister("a")
        con.unregister("b")
    return table


def select_ids(run: str | Path, where: str = "true", top: str | None = None) -> list[str]:
    """Ids whose stored scores meet an SQL condition; `top="column:fraction"` keeps the best share of those
    (ties by id). The condition may read every score column and `dropped_by`. PlanError if it cannot."""
    import duckdb

    table = scores_table(run)
    con = duckdb.connect(":memory:", config={"threads": 1})
    con.register("scores", table.append_column("__row", pa.array(range(table.num_rows))))
    try:
        chosen = con.sql(f"select * from scores where ({where}\n)").to_arrow_table()
    except duckdb.Error as error:
        names = ", ".join(table.column_names)
        raise PlanError(f"--where {where!r}: {str(error).splitlines()[0]} (columns: {names})") from None
    con.register("chosen", chosen)
    if top is None:
        return [r[0] for r in con.execute("select id from chosen order by __row").fetchall()]
    column, _, share = top.rpartition(":")
    try:
        fraction = float(share)
    except ValueError:
        fraction = -1
    if not column or not 0 < fraction <= 1:
        raise PlanError(f"--top {top!r}: it is COLUMN:FRACTION with 0 < FRACTION ≤ 1, e.g. quality:0.1")
    count = round(chosen.num_rows * fraction)
    try:
        best = f"select * from chosen where {column} is not null order by {column} desc, id limit {count}"
        return [r[0] for r in con.execute(f"select id from ({best}) order by __row").fetchall()]
    except duckdb.Error as error:
        raise PlanError(f"--top {top!r}: {str(error).splitlines()[0]}") from None


def write_ids(ids: list[str], path: str | Path) -> None:
    """Ids as a DataComp subset (.npy; ids must be 32 hex) or as parquet with one column `id`."""
    place = str(path)
    if place.endswith(".npy"):
        from curation.subsets import write_subset

        write_subset(place, pa.array(ids, pa.string()))
    elif place.endswith(".parquet"):
        import pyarrow.parquet as pq

        with storage.atomic_write(place) as file:
            pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), file)
    else:
        raise PlanError(f"{place}: ids are written as .npy (DataComp subset) or .parquet")
