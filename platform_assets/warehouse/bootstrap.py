"""Databases, roles, schemas, privileges and `ops` tables: made when missing, left alone when right.

Idempotent and race-free: everything runs under one advisory lock. Works for a superuser, and for an administrator
that has only CREATEROLE and CREATEDB.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

from connectors.errors import AuthError, ConfigError, LoaderError, ResourceError
from platform_assets.warehouse.address import ADMIN, ROLES, Address, Login
from platform_assets.warehouse.connect import connect
from platform_assets.warehouse.migrate import migrate, read_migrations
from platform_assets.warehouse.passwords import read_private, write_private

log = logging.getLogger(__name__)

MINIMUM_VERSION = 140000
LOCK_KEY = int.from_bytes(hashlib.sha256(b"headwater bootstrap").digest()[:8], "big", signed=True)
PRIVILEGES_FILE = Path(__file__).parent / "privileges.sql"
STAMP_FILE = "bootstrapped.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall stand.

    owns_server: the embedded server, whose roles' passwords may be set anew.
    dagster_database: name of Dagster's database on the same server; None when it is elsewhere.
    """

    address: Address
    logins: Mapping[str, Login] = field(repr=False)
    owns_server: bool
    dagster_database: str | None
    home: Path


def is_bootstrapped(plan: Plan) -> bool:
    """Whether the server answers and stands as this code and these passwords want it; one short session.

    Raises:
        AuthError: the administrator's password was refused.
    """
    if read_private(plan.home / STAMP_FILE).get(_place(plan)) != _local_stamp(plan):
        return False
    try:
        with psycopg.connect(plan.address.url(plan.logins[ADMIN]), autocommit=True, connect_timeout=10) as session:
            row = session.execute("select obj_description(to_regnamespace('ops'), 'pg_namespace')").fetchone()
    except psycopg.OperationalError:
        # not running, or refused: the long way says which
        return False
    return row is not None and row[0] == _comment()


def bootstrap(plan: Plan) -> None:
    """Make what is missing.

    Raises:
        ConfigError: the server is too old, a privilege is missing, or its ops tables do not fit this code.
        AuthError: a role exists with another password on a server that is not ours.
        ResourceError: the server's disk is full.
        LoaderError: anything else that the server refused.
    """
    with _maintenance(plan) as session:
        _refuse_old_server(session)
        try:
            # a session lock in one database that every bootstrap of this server uses, for roles belong to the whole
            # server; the end of the session frees it
            session.execute("select pg_advisory_lock(%s)", (LOCK_KEY,))
            applied = _make(session, plan)
        except errors.InsufficientPrivilege as error:
            raise _lacking(plan, str(error).splitlines()[0]) from error
        except errors.DiskFull as error:
            raise ResourceError(
                f"warehouse {_place(plan)}", f"the server's disk is full: {error}", "Free some space there."
            ) from error
        except psycopg.Error as error:
            raise LoaderError(
                f"warehouse {_place(plan)}",
                f"the bootstrap failed: {error}",
                "Run this again, then `headwater doctor`.",
            ) from error
    stamps = read_private(plan.home / STAMP_FILE)
    write_private(plan.home / STAMP_FILE, stamps | {_place(plan): _local_stamp(plan)})
    log.info("warehouse bootstrapped place=%s migrations=%d", _place(plan), applied)


def _make(session: "psycopg.Connection[Any]", plan: Plan) -> int:
    """Everything that is missing, under the lock; how many migrations were applied."""
    for role in ROLES:
        _ensure_role(session, plan, plan.logins[role])
    for database in filter(None, (plan.address.database, plan.dagster_database)):
        _ensure_database(session, database)
    if plan.dagster_database is not None:
        _close_database(session, plan.dagster_database)
    with connect(plan.address, plan.logins[ADMIN]) as warehouse, warehouse.transaction():
        applied = migrate(warehouse, read_migrations())
        warehouse.execute(PRIVILEGES_FILE.read_bytes(), prepare=False)
        # granting without the right to grant is only a warning in PostgreSQL
        row = warehouse.execute(
            "select has_database_privilege(%s, current_database(), 'create')", (plan.logins["loader"].user,)
        ).fetchone()
        if row is None or not row[0]:
            raise _lacking(plan, "the role loader cannot be given `create` on the database")
        warehouse.execute(sql.SQL("comment on schema ops is {}").format(sql.Literal(_comment())))
    return applied


def _lacking(plan: Plan, what: str) -> ConfigError:
    return ConfigError(
        f"warehouse {_place(plan)}",
        f"user {plan.logins[ADMIN].user} may not do this: {what}",
        "Give the user of HEADWATER_WAREHOUSE_URL CREATEROLE and CREATEDB, and make it the database's owner.",
    )


def _maintenance(plan: Plan) -> "psycopg.Connection[Any]":
    """A session in `postgres`, or in the warehouse's own database when the server has no such database for us."""
    try:
        return connect(replace(plan.address, database="postgres"), plan.logins[ADMIN])
    except ConfigError:
        return connect(plan.address, plan.logins[ADMIN])


def _refuse_old_server(session: "psycopg.Connection[Any]") -> None:
    version = session.info.server_version
    if version < MINIMUM_VERSION:
        raise ConfigError(
            f"warehouse {session.info.host}:{session.info.port}",
            f"PostgreSQL {version // 10000} is too old: 14 or newer is needed",
            "Upgrade that server, or remove HEADWATER_WAREHOUSE_URL to use the embedded one.",
        )


def _ensure_role(session: "psycopg.Connection[Any]", plan: Plan, login: Login) -> None:
    name = sql.Identifier(login.user)
    exists = session.execute("select 1 from pg_roles where rolname = %s", (login.user,)).fetchone()
    if not exists:
        session.execute(sql.SQL("create role {} login noinherit password {}").format(name, sql.Literal(login.password)))
    elif not _lets_in(plan, login):
        if not plan.owns_server:
            raise AuthError(
                f"warehouse {_place(plan)}",
                f"role {login.user} exists with another password than this home's",
                f"Set HEADWATER_{login.user.removeprefix('headwater_').upper()}_PASSWORD, or give the role that of "
                f"{plan.home / 'secrets.json'}.",
            )
        session.execute(sql.SQL("alter role {} password {}").format(name, sql.Literal(login.password)))
    # creating schemas for a role, and swapping its tables, needs membership
    row = session.execute("select pg_has_role(current_user, %s, 'usage')", (login.user,)).fetchone()
    if row is None or not row[0]:
        session.execute(sql.SQL("grant {} to current_user").format(name))


def _lets_in(plan: Plan, login: Login) -> bool:
    """Whether the server takes the password; a database that is closed to the role or missing counts as taken."""
    try:
        connect(replace(plan.address, database="postgres"), login).close()
    except AuthError:
        return False
    except ConfigError:
        return True
    return True


def _ensure_database(session: "psycopg.Connection[Any]", name: str) -> None:
    if session.execute("select 1 from pg_database where datname = %s", (name,)).fetchone():
        return
    session.execute(sql.SQL("create database {} encoding 'UTF8' template template0").format(sql.Identifier(name)))


def _close_database(session: "psycopg.Connection[Any]", name: str) -> None:
    """Dagster's database is its owner's alone."""
    row = session.execute(
        "select pg_has_role(current_user, datdba, 'usage') from pg_database where datname = %s", (name,)
    ).fetchone()
    if row is not None and row[0]:
        session.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))


def _place(plan: Plan) -> str:
    address = plan.address
    return f"{address.socket_dir or address.host}:{address.port}/{address.database}"


def _comment() -> str:
    """What the schema `ops` says of itself: changes with every migration and every privilege."""
    digest = hashlib.sha256(PRIVILEGES_FILE.read_bytes())
    for migration in read_migrations():
        digest.update(migration.checksum.encode())
    return f"Headwater, bootstrapped as {digest.hexdigest()[:16]}"


def _local_stamp(plan: Plan) -> str:
    """What this home last applied: a digest of code and passwords (the generated ones have 192 bits)."""
    digest = hashlib.sha256(_comment().encode())
    for name in sorted(plan.logins):
        digest.update(f"\0{plan.logins[name].user}\0{plan.logins[name].password}".encode())
    return digest.hexdigest()
