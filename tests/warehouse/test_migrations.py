"""Migrations run once, in order, and a database that does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from connectors.errors import ConfigError
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.migrate import Migration, migrate, read_migrations
from tests.support.sql import run


def apply(warehouse: Warehouse, migrations: list[Migration]) -> int:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return migrate(session, migrations)


def test_a_migration_runs_once(warehouse: Warehouse) -> None:
    more = [*read_migrations(), Migration(len(read_migrations()) + 1, "more", "create table ops.more (id int)", "sum")]
    assert apply(warehouse, read_migrations()) == 0
    assert apply(warehouse, more) == 1
    assert apply(warehouse, more) == 0


def test_a_failing_migration_leaves_no_trace(warehouse: Warehouse) -> None:
    broken = Migration(len(read_migrations()) + 1, "broken", "create table ops.more (id int); select 1 / 0", "sum")
    with pytest.raises(psycopg.errors.DivisionByZero):
        apply(warehouse, [*read_migrations(), broken])
    assert run(warehouse.admin_dsn, "select to_regclass('ops.more')::text") == [(None,)]


def test_an_edited_migration_is_refused_by_name(warehouse: Warehouse) -> None:
    first, *others = read_migrations()
    with pytest.raises(ConfigError, match=r"0001_ops\.sql: was edited after it was applied") as refused:
        apply(warehouse, [replace(first, checksum="other"), *others])
    assert len(str(refused.value).splitlines()) <= 6


def test_a_database_newer_than_the_code_is_refused(warehouse: Warehouse) -> None:
    known = len(read_migrations())
    run(warehouse.admin_dsn, f"insert into ops.migrations (version, name, checksum) values ({known + 1}, 'later', '')")
    with pytest.raises(ConfigError, match=f"at version {known + 1} .*_later.*this code knows {known}"):
        apply(warehouse, read_migrations())


@pytest.mark.parametrize("name", ["0002_gap.sql", "1_short.sql", "0001-dash.sql"])
def test_a_misnamed_migration_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not the next migration: expected 0001_<name>\.sql"):
        read_migrations(tmp_path)
