"""Connections of the platform itself, with errors that say what to do."""

import time
from typing import Any

import psycopg
from psycopg import errors

from connectors.errors import AuthError, ConfigError, HeadwaterError, ResourceError, TransientError
from platform_assets.warehouse.address import Address, Login

CONNECT_SECONDS = 10
# a server that is recovering from a crash refuses sessions for a while
PATIENCE_SECONDS = 60.0


def connect(address: Address, login: Login, *, patience: float = PATIENCE_SECONDS) -> "psycopg.Connection[Any]":
    """An autocommit connection; waits for a server that is starting up, up to `patience` seconds.

    Raises:
        AuthError: user or password refused.
        ConfigError: the database is missing or closed to this role.
        ResourceError: too many connections.
        TransientError: no server answers there.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return psycopg.connect(
                address.url(login), autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="headwater"
            )
        except psycopg.OperationalError as error:
            # sqlstate is unknown before the session exists: libpq hands over text alone
            if not _is_starting(error) or time.monotonic() > deadline:
                raise explain(error, address, login) from error
            # the server offers nothing to wait on
            time.sleep(0.1)


def _is_starting(error: psycopg.Error) -> bool:
    return isinstance(error, errors.CannotConnectNow) or "the database system is" in str(error)


def explain(error: psycopg.Error, address: Address, login: Login) -> HeadwaterError:
    """The classified error for a connection that was not made."""
    place = address.socket_dir or f"{address.host}:{address.port}"
    where = f"warehouse {place}/{address.database}"
    said = str(error).strip().splitlines()[-1].rpartition("FATAL:")[2].strip() if str(error).strip() else "no reason"
    if "password authentication failed" in said or "no password supplied" in said or "pg_hba.conf" in said:
        return AuthError(
            where,
            f"user {login.user} was refused: {said}",
            "Correct the user and password in HEADWATER_WAREHOUSE_URL, or HEADWATER_<ROLE>_PASSWORD for a role.",
        )
    if "role" in said and "does not exist" in said:
        return AuthError(where, said, "Correct the user in HEADWATER_WAREHOUSE_URL.")
    if "does not exist" in said or "permission denied for database" in said:
        return ConfigError(where, said, "Correct the database's name in HEADWATER_WAREHOUSE_URL, or create it.")
    if "too many clients" in said or "remaining connection slots" in said:
        return ResourceError(where, said, "Lower max_concurrent_runs in dagster.yaml, or raise max_connections.")
    return TransientError(
        where, f"no answer: {said[-300:]}", "Start the server, or correct host and port in HEADWATER_WAREHOUSE_URL."
    )
