"""What Sling said and how it ended, as one of the platform's error classes."""

import re
import signal
from collections.abc import Sequence

from connectors.errors import (
    AuthError,
    ConfigError,
    HeadwaterError,
    RateLimited,
    Reaction,
    ResourceError,
    SourceError,
    TransientError,
)

_MAX_REASON = 400


_AUTH = Reaction(AuthError, "Check the user and password behind connector.connection, and what the role may read.")
_CONFIG = Reaction(ConfigError, "Correct the stream's object, columns, where or sql in the source file.")
_PLACE = Reaction(ConfigError, "Correct connector.connection: its scheme, database and options.")
_AGAIN = Reaction(TransientError, "Check that the source runs and is reachable; the next attempt reads again.")
_BUSY = Reaction(TransientError, "The source is busy; the next attempt may find it free.")
_DUCKDB = Reaction(ConfigError, "Sling reads this format through DuckDB, which it downloads each time: use kind files.")
_SOURCE = Reaction(SourceError, "Look at the rows there, or try the query with the source's own client.")

# the first phrase found in Sling's words decides; what a person types comes before what a network does
PHRASES: tuple[tuple[str, Reaction], ...] = (
    (r"duckdb.*(unable to reach|could not|no such host)|unable to reach url.*duckdb", _DUCKDB),
    (r"password authentication failed|authentication failed|access denied|login failed|no pg_hba\.conf entry", _AUTH),
    (r"permission denied|not authorized|unauthorized|forbidden|invalid credentials|accessdenied|signaturedoes", _AUTH),
    (r"role \"[^\"]*\" (does not exist|is not permitted)", _AUTH),
    (r"too many requests|rate limit|slow ?down", Reaction(RateLimited, "Lower the schedule or the source's load.")),
    (r"too many (clients|connections)|remaining connection slots|deadlock|database is locked|lock timeout", _BUSY),
    (r"database \"[^\"]*\" does not exist|unknown database|invalid connection name|unsupported connection", _PLACE),
    (r"ssl is not enabled|certificate|x509|unable to open database file|could not parse|invalid url", _PLACE),
    (r"did not find any columns|no such (table|column)|does not exist|doesn't exist|unknown column", _CONFIG),
    (r"no such file or directory|no files? found|syntax error|invalid object name|invalid identifier", _CONFIG),
    (r"unknown transform|transform named", _CONFIG),
    (r"statement timeout|query cancel", Reaction(ResourceError, "Read less at once: a cursor, partitions or order.")),
    (r"no space left|out of memory|disk full", Reaction(ResourceError, "Free memory or disk, or read less at once.")),
    (r"connection refused|connection reset|broken pipe|unexpected eof|i/o timeout|timed? ?out|no such host", _AGAIN),
    (r"network is unreachable|no route to host|terminating connection|server closed|bad connection|\beof\b", _AGAIN),
    (r"the database system is (starting up|shutting down|in recovery)|temporarily unavailable", _AGAIN),
)  # fmt: skip
_NOISE = re.compile(
    r"^(fatal:|~ failure running replication|-{5,}|goroutine \d|created by |github\.com/|/home/|\t|panic\(|execution )"
    r"|Sling CLI \||^Sling Replication"
)


def failure(where: str, doing: str, lines: Sequence[str], return_code: int) -> HeadwaterError:
    """The error of a process that failed. lines: what it wrote to stderr, without colours and times.

    return_code: as of subprocess; negative is the number of the signal that ended it.
    """
    if return_code < 0:
        name = signal.Signals(-return_code).name
        return TransientError(
            where,
            f"Sling was ended by {name} while {doing}",
            "Look for the kernel's out-of-memory killer or a restart; the next attempt reads again.",
        )
    reason = _reason(lines)
    lower = reason.lower()
    if "panic:" in lower:
        return SourceError(
            where,
            f"Sling crashed while {doing}: {reason}",
            "A value it cannot represent; cast it to text in sql, or leave the column out with select.",
        )
    found = next((reaction for phrase, reaction in PHRASES if re.search(phrase, lower)), _SOURCE)
    return found.error(where, f"Sling failed while {doing}: {reason}", found.hint)


def _reason(lines: Sequence[str]) -> str:
    """The last words that say why, most specific first."""
    panic = next((line for line in lines if line.startswith("panic:")), None)
    if panic is not None:
        return panic[:_MAX_REASON]
    start = next((index for index, line in enumerate(lines) if line.startswith("fatal:")), 0)
    told = [line.strip().removeprefix("~ ") for line in lines[start:] if line.strip() and not _NOISE.search(line)]
    unique = list(dict.fromkeys(told))
    return "; ".join(reversed(unique[-3:]))[:_MAX_REASON] or "it gave no reason"
