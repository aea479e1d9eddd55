"""The reference database: airlines, airports and planes in a real PostgreSQL, reached over TCP by password."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

import psycopg
from psycopg import sql

from demo.dataset import REFERENCE

NAME = "demo_source"
"""Of the database and of the role that owns it."""

LOCK = 7_305_188_201  # any number of our own: two starts at once must not race on CREATE ROLE

# sqlite has no boolean, date or decimal here: text, integer and real are all that occurs
TYPES: Mapping[str, sql.SQL] = {
    "TEXT": sql.SQL("text"),
    "INTEGER": sql.SQL("integer"),
    "REAL": sql.SQL("double precision"),
}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: sql.SQL
    is_key: bool


def ensure_reference_database(admin_url: str, host: str, port: int, password: str) -> str:
    """Create role, database and tables where they are missing; what is there is left alone.

    Args:
        admin_url: URL of any database of the server, for a user that may create roles and databases.
        host, port: where the same server listens on TCP.

    Returns:
        The URL of the database for its own role, over TCP.
    """
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("select pg_advisory_lock(%s)", [LOCK])
        _ensure_role(admin, password)
        if admin.execute("select 1 from pg_database where datname = %s", [NAME]).fetchone() is None:
            admin.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(NAME)))
            admin.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(NAME)))
        ssl = "disable" if host in ("127.0.0.1", "::1", "localhost") else "prefer"
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = f"postgresql://{NAME}:{quote(password, safe='')}@{place}/{NAME}?sslmode={ssl}"
        with psycopg.connect(url) as source, closing(_open_sqlite()) as data:
            for (table,) in data.execute("select name from sqlite_master where type = 'table'").fetchall():
                _ensure_table(source, data, table)
    return url


def _open_sqlite() -> sqlite3.Connection:
    return sqlite3.connect(f"{REFERENCE.as_uri()}?mode=ro&immutable=1", uri=True)


def _ensure_role(admin: psycopg.Connection, password: str) -> None:
    exists = admin.execute("select 1 from pg_roles where rolname = %s", [NAME]).fetchone()
    verb = sql.SQL("alter role" if exists else "create role")
    admin.execute(sql.SQL("{} {} login password {}").format(verb, sql.Identifier(NAME), sql.Literal(password)))
    if not exists:
        # without superuser one may only give a database to a role that one belongs to
        admin.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(NAME)))


def _ensure_table(source: psycopg.Connection, data: sqlite3.Connection, table: str) -> None:
    if source.execute("select to_regclass(%s)", [f'public."{table}"']).fetchone() != (None,):
        return
    columns = [Column(row[1], TYPES[row[2]], bool(row[5])) for row in data.execute(f'pragma table_info("{table}")')]
    source.execute(
        sql.SQL("create table {} ({}, primary key ({}))").format(
            sql.Identifier(table),
            sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(column.name), column.type) for column in columns),
            sql.SQL(", ").join(sql.Identifier(column.name) for column in columns if column.is_key),
        )
    )
    with source.cursor().copy(sql.SQL("copy {} from stdin").format(sql.Identifier(table))) as copy:
        for row in data.execute(f'select * from "{table}"'):
            copy.write_row(row)
