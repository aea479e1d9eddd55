"""What a foreign program said and how it ended, as one of the platform's error classes."""

import re
import signal
from collections.abc import Sequence

from connectors.errors import (
    AuthError,
    ConfigError,
    ContractError,
    ErrorClass,
    HeadwaterError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.process.child import Ending

MAX_STATE_BYTES = 1 << 20
_MAX_REASON = 400
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127

_BUSY = r"\b429\b|too many requests|rate.?limit|quota exceeded|slow ?down"
_REFUSED = (
    r"\b40[13]\b|unauthori[sz]ed|forbidden|permission denied|password authentication failed|authentication failed|"
    r"access denied|login failed|no pg_hba|invalid.{0,20}(credential|token|api.?key)|expired.{0,20}token"
)
_NOT_WHOLE = r"no module named|importerror|pkg_resources|command not found"
_WRONG = (
    r"config(uration)? (is )?(missing|invalid|validation)|missing required|is a required property|configvalidation|"
    r"unrecognized arguments|invalid.{0,30}config|"
    r"database \"[^\"]*\" does not exist|unknown database|unknown column|no such (table|column)"
)
_FULL = r"\bmemoryerror|no space left|out of memory|disk full"
_NETWORK = (
    r"connection ?(refused|reset|aborted|error)|broken pipe|timed? ?out|name or service not known|no such host|"
    r"unreachable|connection to server|temporar(y|ily)|\b50[0234]\b|server closed the connection|could not connect|"
    r"max retries"
)
# the first phrase found in the program's last words decides; what a person types comes before what a network does
PHRASES: tuple[tuple[str, ErrorClass, str], ...] = (
    (_BUSY, RateLimited, "Lower the schedule, or ask for less at once."),
    (_REFUSED, AuthError, "Check the credentials behind connector.config, and what they may read."),
    (_NOT_WHOLE, ConfigError, "The program's own environment is not whole; install it again."),
    (_WRONG, ConfigError, "Correct connector.config or the stream's settings in the source file."),
    (_FULL, ResourceError, "Free memory or disk, or read less at once."),
    (_NETWORK, TransientError, "Check that the source runs and is reachable; the next attempt reads again."),
    ("no such file or directory", ConfigError, "Correct the paths in connector.config."),
)
_FRAME = re.compile(r'^\s*(File "|Traceback|During handling|The above exception|\^+$|~+)|^\s{4,}')
_RAISED = re.compile(r"\b[A-Za-z_][\w.]*(Error|Exception|Failure|Exit|Warning|Interrupt)\b")


def failure(where: str, ending: Ending) -> HeadwaterError | None:
    """The error of a process that failed; None when it ended with 0."""
    if ending.code == 0:
        return None
    doing = ending.doing
    if ending.code < 0:
        return TransientError(
            where,
            f"ended by {signal_name(-ending.code)} while {doing}",
            "Look for the kernel's out-of-memory killer or a restart; the next attempt reads again.",
        )
    reason = reason_of(ending.lines)
    if ending.code in (_NOT_FOUND, _NOT_EXECUTABLE):
        return ConfigError(where, f"the program cannot be run while {doing}: {reason}", "Correct connector.executable.")
    error, hint = classified(reason)
    return error(where, f"exit code {ending.code} while {doing}: {reason}", hint)


def refuse_large_state(where: str, size_bytes: int) -> None:
    """Raises ContractError before what is sealed depends on a state that cannot be kept."""
    if size_bytes > MAX_STATE_BYTES:
        raise ContractError(
            where,
            f"a state of {size_bytes:,} bytes, limit {MAX_STATE_BYTES:,}",
            "Select fewer streams, or ask the source for fewer partitions; the last state stays as it was.",
        )


def classified(reason: str) -> tuple[ErrorClass, str]:
    """Class and next step by the words of a reason; SourceError when they say nothing known."""
    lower = reason.lower()
    for phrase, error, hint in PHRASES:
        if re.search(phrase, lower):
            return error, hint
    return SourceError, "Read the run's log; what was sealed before is published."


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reason_of(lines: Sequence[str]) -> str:
    """The words that say why: the last raised exception, else the last lines."""
    told = [line.strip() for line in lines if line.strip() and not _FRAME.search(line)]
    raised = [line for line in told if _RAISED.search(line)]
    chosen = raised[-1:] or told[-3:]
    return "; ".join(dict.fromkeys(chosen))[-_MAX_REASON:] or "it gave no reason"
