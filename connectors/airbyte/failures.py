"""What a source says went wrong, as the platform's classes. Its `failure_type` is a hint; its words weigh more."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from connectors.errors import AuthError, ConfigError, HeadwaterError, RateLimited, SourceError, TransientError
from connectors.process import failures
from connectors.process.child import Ending
from connectors.secrets import mask

_MAX_REASON = 400
_BY_TYPE = {
    "config_error": (ConfigError, "Correct connector.config or the stream's settings in the source file."),
    "transient_error": (TransientError, "The source expects this to pass; the next attempt reads again."),
}
_NOT_STARTED = (125, 126, 127)
_ENGINES_WORDS = ("docker: ", "Error: ")
_NO_ENGINE = re.compile(
    r"cannot connect to (the docker daemon|podman)|error during connect|(docker|podman)\.sock", re.IGNORECASE
)


class ErrorTrace(msgspec.Struct, frozen=True):
    """`error` of a trace."""

    message: str | None = None
    internal_message: str | None = None
    failure_type: str | None = None
    stream_descriptor: dict[str, Any] | None = None


def of_trace(where: str, trace: ErrorTrace, secrets: Sequence[str]) -> HeadwaterError:
    """The error of an error trace; at most six lines, without its stack."""
    told = mask(" ".join((trace.message or "it gave no reason").split()), secrets)
    inner = mask(" ".join((trace.internal_message or "").split()), secrets)
    error, hint = by_words(f"{told} {inner}", trace.failure_type)
    reason = told if inner in told else f"{told} ({inner})"
    return error(where, f"the source reports: {reason[:_MAX_REASON]}", hint)


def of_status(where: str, message: str, secrets: Sequence[str]) -> HeadwaterError:
    """The error of a failed connection check."""
    message = mask(message, secrets)
    error, hint = by_words(message, "config_error")
    return error(where, f"the check failed: {' '.join(message.split())[:_MAX_REASON] or 'it gave no reason'}", hint)


def by_words(text: str, failure_type: str | None) -> tuple[failures.ErrorClass, str]:
    error, hint = failures.classified(text)
    # of what the author could have typed the source knows more than its words tell
    heeded = (AuthError, RateLimited, TransientError) if failure_type == "config_error" else None
    if error is not SourceError and (heeded is None or error in heeded):
        return error, hint
    return _BY_TYPE.get(failure_type or "", (SourceError, hint if error is SourceError else "Read the run's log."))


def of_ending(where: str, ending: Ending, told: list[str]) -> HeadwaterError | None:
    """told: lines of level ERROR and FATAL that the source logged on stdout; most sources say nothing on stderr."""
    if _NO_ENGINE.search(" ".join(ending.lines)) and ending.code > 0:
        what = f"the container engine does not answer: {failures.reason_of(ending.lines)}"
        return ConfigError(where, what, "Start its daemon, or run the source from its package.")
    told_by_engine = [line for line in ending.lines if line.startswith(_ENGINES_WORDS)]
    if ending.code in _NOT_STARTED and told_by_engine:
        what = f"the image cannot be run: {told_by_engine[-1][:_MAX_REASON]}"
        if failures.classified(told_by_engine[-1])[0] is TransientError:
            return TransientError(where, what, "Check that its registry is reachable, or fetch the image beforehand.")
        return ConfigError(where, what, "Correct connector.image, or log the engine in to its registry.")
    return failures.failure(where, replace(ending, lines=[*ending.lines, *told]))
