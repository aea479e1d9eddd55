"""TPC-H's lineitem as the benchmarks use it: 16 columns with exact decimals, dates and padded texts."""

from pathlib import Path

import psycopg

COLUMNS = """
    l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber bigint not null,
    l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2),
    l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, l_receiptdate date,
    l_shipinstruct text, l_shipmode text, l_comment text
"""
# one row for each number from 0
ROWS = """
    g / 4 + 1, g * 7919 % 200000 + 1, g * 104729 % 10000 + 1, g % 4 + 1,
    g % 50 + 1, g * 31337 % 9000000 / 100.0 + 900, g % 11 / 100.0, g % 9 / 100.0,
    (array['A', 'N', 'R'])[g % 3 + 1], (array['O', 'F'])[g % 2 + 1],
    date '1992-01-01' + (g % 2500)::int, date '1992-01-15' + (g % 2500)::int, date '1992-01-20' + (g % 2500)::int,
    (array['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[g % 4 + 1],
    (array['AIR', 'FOB', 'MAIL', 'RAIL', 'REG AIR', 'SHIP', 'TRUCK'])[g % 7 + 1],
    'comment ' || substr(md5(g::text), 1, (g % 24 + 8)::int)
"""
# what must have arrived, whatever types a path chose
DIGEST = """
select count(*), sum(l_orderkey::bigint), sum(l_quantity::numeric), sum(l_extendedprice::numeric)::numeric(20,2),
    min(l_shipdate::date), max(l_receiptdate::date), sum(length(l_comment))
from {}
"""
# the contract of the stream, where types matter: a CSV does not know them
CONTRACT = {
    name: {"type": "decimal", "precision": 15, "scale": 2}
    for name in ("l_quantity", "l_extendedprice", "l_discount", "l_tax")
}


def create(dsn: str, table: str, rows: int, *, extra: str = "", extra_value: str = "") -> None:
    """The table, filled. extra: a further column's definition. extra_value: its expression over g."""
    values = f"{ROWS}, {extra_value}" if extra else ROWS
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"create table {table} ({COLUMNS}{', ' + extra if extra else ''})".encode())
        session.execute(f"insert into {table} select {values} from generate_series(0::bigint, {rows} - 1) g".encode())
        session.execute(f"vacuum analyze {table}".encode())
        session.execute("checkpoint")


def export(dsn: str, table: str, folder: Path) -> dict[str, Path]:
    """The table as csv, jsonl and parquet files, written by DuckDB from one COPY."""
    import duckdb

    paths = {form: folder / f"lineitem.{form}" for form in ("csv", "jsonl", "parquet")}
    with psycopg.connect(dsn) as session, paths["csv"].open("wb") as file:
        statement = f"copy (select * from {table}) to stdout (format csv, header)"
        with session.cursor().copy(statement.encode()) as copy:
            for chunk in copy:
                file.write(chunk)
    decimals = ", ".join(f"'{name}': 'decimal(15,2)'" for name in CONTRACT)
    with duckdb.connect() as session:
        session.execute(f"create table lineitem as from read_csv('{paths['csv']}', header=true, types={{{decimals}}})")
        session.execute(f"copy lineitem to '{paths['parquet']}' (format parquet)")
        session.execute(f"copy lineitem to '{paths['jsonl']}' (format json)")
    return paths
