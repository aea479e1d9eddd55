"""What an isolated sync and its parent tell each other: the order, the answer, and errors on their way across."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from connectors.contract import Window
from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    ContractError,
    HeadwaterError,
    LoaderError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.sync.audit import AuditFailedError
from connectors.sync.result import SyncResult, Trigger, Verdict

MB = 2**20
BEAT_SECONDS = 0.5
"""So often a child says that it lives."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the child is told. source: the source file's attributes, with this stream alone. path: where modules are."""

    source: dict[str, Any]
    trigger: Trigger
    run_id: str | None
    window: Window | None
    dsn: str
    memory_mb: int | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified error on its way to the parent. trace: what lies behind it."""

    failure_class: str
    where: str
    what: str
    hint: str
    retry_after: float | None
    sync_id: str | None
    verdicts: tuple[Verdict, ...] | None
    trace: str


_MENDED_BY_A_PAUSE = {kind.failure_class: kind for kind in (RateLimited, TransientError)}
_OTHERS: dict[str, type[HeadwaterError]] = {
    kind.failure_class: kind
    for kind in (ConfigError, AuthError, SourceError, ContractError, ResourceError, LoaderError, Cancelled)
}
ORDER, FAILURE, RESULT = TypeAdapter(Order), TypeAdapter(Failure), TypeAdapter(SyncResult)


def failure_of(error: HeadwaterError) -> Failure:
    """The error as it crosses; `error_of` is its inverse."""
    cause = error.__cause__ or error.__context__
    verdicts: Sequence[Verdict] | None = getattr(error, "verdicts", None)
    return Failure(
        failure_class=error.failure_class,
        where=error.where,
        what=error.what,
        hint=error.hint,
        retry_after=getattr(error, "retry_after", None),
        sync_id=error.sync_id,
        verdicts=tuple(verdicts) if verdicts is not None else None,
        trace="".join(traceback.format_exception(cause)) if cause else "",
    )


def error_of(failure: Failure) -> HeadwaterError:
    where, what, hint = failure.where, failure.what, failure.hint
    error: HeadwaterError
    if failure.verdicts is not None:
        error = AuditFailedError(where, what, hint, failure.verdicts)
    elif (kind := _MENDED_BY_A_PAUSE.get(failure.failure_class)) is not None:
        error = kind(where, what, hint, retry_after=failure.retry_after)
    else:
        error = _OTHERS[failure.failure_class](where, what, hint)
    error.sync_id = failure.sync_id
    return error


def room(limit: int) -> int:
    """Bytes that end a child which its own watchdog did not: address space that is only reserved counts here."""
    return 2 * limit + 512 * MB
