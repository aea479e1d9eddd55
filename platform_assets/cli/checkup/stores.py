"""The warehouse and Dagster's storage: reachable, right password, right version, bootstrapped."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from connectors.errors import ConfigError, HeadwaterError
from platform_assets.cli.checkup.finding import Finding, ok, problem
from platform_assets.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from platform_assets.warehouse.address import Address, Login

PATIENCE_SECONDS = 10.0
SILENT = "2 minutes"
"""A sync without a heartbeat for so long has died: a living one beats every few seconds."""


def check_warehouse(settings: Settings) -> Iterator[Finding]:
    """The server and what stands in it. Starts nothing: an embedded server that is down is as it should be."""
    from platform_assets.warehouse.address import parse_url
    from platform_assets.warehouse.ensure import DAGSTER_DATABASE, DATABASE
    from platform_assets.warehouse.server import EmbeddedServer

    if settings.warehouse_url is not None:
        try:
            address, login = parse_url(settings.warehouse_url)
        except ValueError as error:
            hint = "Write it as postgresql://user:password@host:5432/database."
            yield problem("warehouse", ConfigError("HEADWATER_WAREHOUSE_URL", f"is wrong: {error}", hint))
            return
    else:
        server = EmbeddedServer(settings.home)
        known, admin = server.address(DATABASE), server.known_admin()
        if known is None or admin is None:
            yield ok("warehouse", f"embedded PostgreSQL 18, made by the first run in {settings.home}")
            return
        if not server.is_running():
            yield ok("warehouse", "embedded PostgreSQL 18, stopped; it starts when it is needed")
            return
        address, login = known, admin
    try:
        if (unmade := _unmade(address, login)) is not None:
            yield unmade
            return
        yield from _look_inside(address, login)
    except HeadwaterError as error:
        yield problem("warehouse", error)
        return
    yield from _check_roles(settings, address)
    yield from _check_dagster(settings, replace(address, database=DAGSTER_DATABASE), login)


def _unmade(address: "Address", login: "Login") -> Finding | None:
    """What is to say of a database that the first run has to make; None when it is there."""
    from platform_assets.warehouse.connect import connect

    try:
        session = connect(replace(address, database="postgres"), login, patience=PATIENCE_SECONDS)
    except ConfigError:
        return None  # this server has no such database for us, so the warehouse's own must be there
    with session:
        row = session.execute(
            "select exists (select from pg_database where datname = %s), rolsuper or (rolcreatedb and rolcreaterole)"
            " from pg_roles where rolname = current_user",
            (address.database,),
        ).fetchone()
    if row is None or row[0]:
        return None
    place = f"{address.host}:{address.port}"
    if row[1]:
        return ok("warehouse", f"{place} answers; its database {address.database} is made by the first run")
    what = f"there is no database {address.database}, and user {login.user} may not make one"
    return problem("warehouse", ConfigError(place, what, "Give the user CREATEROLE and CREATEDB, or another user."))


def _look_inside(address: "Address", login: "Login") -> Iterator[Finding]:
    from platform_assets.warehouse.bootstrap import MINIMUM_VERSION
    from platform_assets.warehouse.connect import connect

    place = f"{address.host}:{address.port}/{address.database}"
    with connect(address, login, patience=PATIENCE_SECONDS) as session:
        version = session.info.server_version
        if version < MINIMUM_VERSION:
            yield problem(
                "warehouse",
                ConfigError(
                    place,
                    f"is PostgreSQL {version // 10000}; 14 or newer is needed",
                    "Upgrade that server, or remove HEADWATER_WAREHOUSE_URL to use the embedded one.",
                ),
            )
            return
        yield ok("warehouse", f"PostgreSQL {version // 10000}.{version % 10000} answers at {place}")
        yield from _check_ops(session, place)


def _check_ops(session: "psycopg.Connection[Any]", place: str) -> Iterator[Finding]:
    from platform_assets.warehouse.migrate import read_migrations

    if session.execute("select to_regclass('ops.migrations')").fetchone() == (None,):
        yield ok("ops tables", "none yet; the first run makes schemas, roles and tables")
        return
    applied = session.execute("select version, name, checksum from ops.migrations order by version").fetchall()
    known = read_migrations()
    if len(applied) > len(known):
        what = f"its ops tables are at version {len(applied)}, this code knows {len(known)}"
        yield problem("ops tables", ConfigError(place, what, "Update this checkout, or use another database."))
        return
    for (version, name, checksum), migration in zip(applied, known, strict=False):
        if checksum != migration.checksum:
            where = f"migrations/{version:04d}_{name}.sql"
            hint = f"Restore the file, and put the change into {len(known) + 1:04d}_<name>.sql."
            yield problem("ops tables", ConfigError(where, f"was edited after it was applied to {place}", hint))
            return
    pending = len(known) - len(applied)
    note = f"; {pending} newer, applied by the next run" if pending else ""
    yield ok("ops tables", f"version {len(applied)}{note}")
    if pending:
        return
    silent = session.execute(
        "select string_agg(source || '.' || stream, ', ' order by source, stream), count(*) from ops.syncs"
        " where status = 'running' and heartbeat_at < now() - %s::interval",
        (SILENT,),
    ).fetchone()
    if silent is not None and silent[1]:
        yield ok("syncs", f"{silent[1]} died without an end ({silent[0]}); the next sync of the stream settles it")
    else:
        yield ok("syncs", "none has died without an end")


def _check_roles(settings: Settings, address: "Address") -> Iterator[Finding]:
    """Every role whose password this machine knows gets in with it; a role that is not made yet has none."""
    from platform_assets.warehouse.address import ROLES, Login, role_name
    from platform_assets.warehouse.connect import connect
    from platform_assets.warehouse.passwords import SECRETS_FILE, read_private

    generated = read_private(settings.home / SECRETS_FILE)
    logins = [
        Login(role_name(role), settings.passwords.get(role) or str(generated.get(role_name(role), "")))
        for role in ROLES
    ]
    known = [login for login in logins if login.password]
    try:
        for login in known:
            connect(address, login, patience=PATIENCE_SECONDS).close()
    except HeadwaterError as error:
        yield problem("roles", error)
        return
    if known:
        yield ok("roles", f"let in: {', '.join(login.user for login in known)}")


def _check_dagster(settings: Settings, beside: "Address", login: "Login") -> Iterator[Finding]:
    from platform_assets.warehouse.address import parse_url
    from platform_assets.warehouse.connect import connect

    try:
        if settings.dagster_url is None:
            with connect(replace(beside, database="postgres"), login, patience=PATIENCE_SECONDS) as session:
                found = session.execute("select 1 from pg_database where datname = %s", (beside.database,)).fetchone()
            if found is None:
                yield ok("dagster storage", "its database is made by the first run")
                return
            address, user = beside, login
        else:
            address, user = parse_url(settings.dagster_url)
        with connect(address, user, patience=PATIENCE_SECONDS):
            yield ok("dagster storage", f"answers at {address.host}:{address.port}/{address.database}")
    except HeadwaterError as error:
        yield problem("dagster storage", error)
    except ValueError as error:
        yield problem("dagster storage", ConfigError("HEADWATER_DAGSTER_URL", f"is wrong: {error}", "Correct it."))
