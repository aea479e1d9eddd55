"""What went wrong at a database, as one of the platform's error classes."""

import errno
from typing import TYPE_CHECKING

from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    HeadwaterError,
    Reaction,
    ResourceError,
    SourceError,
    TransientError,
)

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError


_AUTH = Reaction(AuthError, "Check the user and password behind connector.url, and what the role may read.")
_ROLE = Reaction(AuthError, "There: alter role ... replication")
_CONFIG = Reaction(ConfigError, "Correct the stream's table, columns or where in the source file.")
_AGAIN = Reaction(TransientError, "The next attempt goes on after the last sealed window.")
_BUSY = Reaction(TransientError, "The next attempt may find it free; or lower the number of parallel syncs.")
_TIMEOUT = Reaction(
    ResourceError, "Raise connector.statement_timeout, or read less at once with keyset: {rows: 100000} or a cursor."
)
_SPACE = Reaction(ResourceError, "The source ran out of memory or disk; read less at once with keyset, or free some.")
_SOURCE = Reaction(SourceError, "The source could not produce this value or row; look at it there.")

# SQLSTATE codes and classes of PostgreSQL (appendix A of its manual); the longest prefix wins
STATES: dict[str, Reaction] = {
    "08": _AGAIN,
    "22": _SOURCE,
    "25006": _CONFIG,
    "28": _AUTH,
    "3D000": Reaction(ConfigError, "Correct the database name in connector.url."),
    "40": Reaction(TransientError, "The read met the source's own work; on a standby set hot_standby_feedback."),
    "42": _CONFIG,
    "42501": Reaction(AuthError, "Grant the role select on the table and usage on its schema."),
    "53": _SPACE,
    "53300": _BUSY,
    "55": _BUSY,
    "57": _AGAIN,
    "57014": _TIMEOUT,
    "58": _SOURCE,
    "XX": _SOURCE,
}  # fmt: skip

# a refused connection carries no SQLSTATE: its words decide
PHRASES: tuple[tuple[str, Reaction], ...] = (
    ("password authentication failed", _AUTH),
    ("no password supplied", _AUTH),
    ("no pg_hba.conf entry", _AUTH),
    ("peer authentication failed", _AUTH),
    ("ident authentication failed", _AUTH),
    ("certificate authentication failed", _AUTH),
    ("is not permitted to log in", _AUTH),
    ("to start wal sender", _ROLE),
    ("to start walsender", _ROLE),
    ("max_wal_senders", Reaction(TransientError, "Raise max_wal_senders there, or lower the parallel syncs.")),
    ("permission denied", _AUTH),
    ("access denied", _AUTH),
    ('role "', _AUTH),
    ('database "', STATES["3D000"]),
    ("unknown database", STATES["3D000"]),
    ("too many clients", _BUSY),
    ("too many connections", _BUSY),
    ("invalid connection option", Reaction(ConfigError, "Correct the options of connector.url.")),
    ("servname not supported", Reaction(ConfigError, "Correct the port in connector.url.")),
    ("invalid uri", Reaction(ConfigError, "Correct connector.url.")),
    ("missing \"=\"", Reaction(ConfigError, "connector.url must be a URL such as postgresql://user@host/database.")),
)  # fmt: skip
_UNREACHED = Reaction(TransientError, "Check that the server runs and that connector.url names its host and port.")


def connect_failure(where: str, error: Exception, place: str) -> HeadwaterError:
    """A connection that was never opened. `place` is the server without credentials."""
    text = str(error).strip()
    lower = text.lower()
    state = getattr(error, "sqlstate", None)
    reaction = _by_state(state) if state else None
    reaction = reaction or next((found for phrase, found in PHRASES if phrase in lower), _UNREACHED)
    return reaction.error(where, f"cannot connect to {place}: {_last_line(text)}", reaction.hint)


def query_failure(where: str, error: Exception, sqlstate: str | None, doing: str) -> HeadwaterError:
    """A statement that failed; without an SQLSTATE the connection was lost."""
    text = _first_line(str(error)) or type(error).__name__
    if sqlstate is None:
        return TransientError(where, f"the connection was lost while {doing}: {text}", _AGAIN.hint)
    reaction = _by_state(sqlstate) or _SOURCE
    if sqlstate == "57014" and "timeout" not in text.lower():
        return TransientError(where, f"the source cancelled the query while {doing}: {text}", _AGAIN.hint)
    return reaction.error(where, f"{text} (SQLSTATE {sqlstate}) while {doing}", reaction.hint)


def disk_failure(where: str, error: OSError) -> HeadwaterError:
    """A part file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            where, f"no disk space left for part files: {error.strerror}", "Free disk, or lower part_mb."
        )
    return ResourceError(where, f"a part file could not be written: {error}", "Check the working folder's disk.")


def cancelled(where: str, rows: int) -> Cancelled:
    return Cancelled(where, f"stopped after {rows:,} rows were read", "What was sealed before stays; sync again.")


def _by_state(state: str) -> Reaction | None:
    return next((STATES[state[:size]] for size in (5, 2) if state[:size] in STATES), None)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _last_line(text: str) -> str:
    """libpq reports an attempt a line; the last one names the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


# MySQL's and MariaDB's error numbers
_NUMBERS: dict[int, Reaction] = {
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1698), _AUTH),
    **dict.fromkeys((1049,), STATES["3D000"]),
    **dict.fromkeys((1054, 1064, 1146), _CONFIG),
    **dict.fromkeys((1040, 1203, 1205, 1213, 1226), _BUSY),
    **dict.fromkeys((1021, 1037, 1038, 1041, 1114), _SPACE),
    **dict.fromkeys((1969, 3024), _TIMEOUT),
    **dict.fromkeys((1053, 1158, 1159, 1160, 1161, 1317, 1927, 2002, 2003, 2005, 2006, 2013, 2055), _AGAIN),
}
_DRIVER_PHRASES: tuple[tuple[str, Reaction], ...] = (
    ("database is locked", _BUSY),
    ("no such table", _CONFIG),
    ("no such column", _CONFIG),
    ("syntax error", _CONFIG),
    ("file is not a database", Reaction(ConfigError, "connector.url names a file that is no SQLite database.")),
    ("malformed", _SOURCE),
    ("disk i/o error", _SOURCE),
)


def driver_failure(where: str, error: "DBAPIError", doing: str) -> HeadwaterError:
    """An error of a DBAPI driver behind SQLAlchemy."""
    original = error.orig or error
    text = _first_line(str(original)) or type(original).__name__
    number = original.args[0] if original.args and isinstance(original.args[0], int) else None
    if number is not None and len(original.args) > 1:
        text = f"{_first_line(str(original.args[1]))} (error {number})"
    reaction = _NUMBERS.get(number) if number is not None else None
    lower = text.lower()
    reaction = reaction or next((found for phrase, found in _DRIVER_PHRASES if phrase in lower), None)
    if reaction is None:
        by_class = {"ProgrammingError": _CONFIG, "InterfaceError": _AGAIN, "OperationalError": _AGAIN}
        reaction = _AGAIN if error.connection_invalidated else by_class.get(type(error).__name__, _SOURCE)
    return reaction.error(where, f"{text} while {doing}", reaction.hint)
