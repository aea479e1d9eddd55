"""Versioned migrations of the `ops` schema: every file in migrations/ runs once, in order, never edited afterwards."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

MIGRATIONS_DIR = Path(__file__).parent / "migrations"
FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """version: 1, 2, 3 without gaps; checksum: sha256 of the file with unix line ends."""

    version: int
    name: str
    sql: str
    checksum: str


def read_migrations(folder: Path = MIGRATIONS_DIR) -> list[Migration]:
    """The folder's migrations in order.

    Raises:
        ConfigError: a file is misnamed, or a version is missing or doubled.
    """
    migrations: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = FILE_NAME.match(path.name)
        if match is None or int(match[1]) != len(migrations) + 1:
            raise ConfigError(
                str(path),
                f"is not the next migration: expected {len(migrations) + 1:04d}_<name>.sql",
                "Rename it; versions count up by one without gaps.",
            )
        sql = path.read_text(encoding="utf-8")
        digest = hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(len(migrations) + 1, match[2], sql, digest))
    return migrations


def migrate(connection: "psycopg.Connection[Any]", migrations: Sequence[Migration]) -> int:
    """Apply what is missing in the connection's open transaction; how many were applied.

    The caller holds the bootstrap's advisory lock.

    Raises:
        ConfigError: an applied migration was edited, or the database is newer than this code.
    """
    connection.execute("create schema if not exists ops")
    connection.execute(
        "create table if not exists ops.migrations ("
        " version integer primary key, name text not null, checksum text not null,"
        " applied_by text not null default current_user, applied_at timestamptz not null default now())"
    )
    applied = connection.execute("select version, name, checksum from ops.migrations order by version").fetchall()
    if len(applied) > len(migrations):
        version, name, _ = applied[len(migrations)]
        raise ConfigError(
            f"warehouse {connection.info.dbname}",
            f"its ops tables are at version {len(applied)} ({version:04d}_{name}), this code knows {len(migrations)}",
            "Update this checkout, or point HEADWATER_WAREHOUSE_URL at another database.",
        )
    for (version, name, checksum), migration in zip(applied, migrations, strict=False):
        if checksum != migration.checksum:
            raise ConfigError(
                f"migrations/{version:04d}_{migration.name}.sql",
                f"was edited after it was applied as {name} to {connection.info.dbname}",
                f"Restore the file, and put the change into {len(migrations) + 1:04d}_<name>.sql.",
            )
    for migration in migrations[len(applied) :]:
        connection.execute(migration.sql.encode(), prepare=False)
        connection.execute(
            "insert into ops.migrations (version, name, checksum) values (%s, %s, %s)",
            (migration.version, migration.name, migration.checksum),
        )
    return len(migrations) - len(applied)
