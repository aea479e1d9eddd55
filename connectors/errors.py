"""The error tree: each class says what happens next.

HeadwaterError
├── ConfigError       stop; the author edits a file or a setting
├── AuthError         stop; an operator rotates a credential
├── RateLimited       wait retry_after seconds, then retry
├── TransientError    wait, then retry
├── SourceError       the source misbehaves; a retry rarely helps
├── ContractError     this stream stops; the last good data stays
│   └── RecordError   one record is quarantined; the sync goes on below the limit
├── ResourceError     memory, disk or time ran out; only this stream ends
├── LoaderError       the warehouse refused or dropped the load
└── Cancelled         somebody asked the sync to stop

A message says where, what was measured and what to do next, in at most six lines.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

FailureClass = Literal[
    "config", "auth", "rate_limited", "transient", "source", "contract", "resource", "loader", "cancelled"
]

MAX_LINES = 6


class HeadwaterError(Exception):
    """Root of every error this platform raises on purpose.

    Args:
        where: the place, e.g. `stripe.charges` or `defs/ingest/x/defs.yaml: streams[0].write`.
        what: the measurement, e.g. `HTTP 429 on page 14 after 5 attempts in 73 s`.
        hint: the next step, an imperative sentence.

    sync_id: the row of `ops.syncs` that records the failure, once a sync has one.
    """

    failure_class: ClassVar[FailureClass]
    exit_code: ClassVar[int]
    is_retryable: ClassVar[bool] = False
    sync_id: str | None = None

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__(where, what, hint)
        self.where = where
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        if self.hint:
            text = f"{text}\n{self.hint}"
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > MAX_LINES:
            lines = [*lines[: MAX_LINES - 2], f"... {len(lines) - MAX_LINES + 1} more lines", lines[-1]]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled past the constructor: a subclass may ask for more than the three texts."""
        return _blank, (type(self), self.args), vars(self)


def _blank(kind: "type[HeadwaterError]", words: tuple[object, ...]) -> "HeadwaterError":
    return kind.__new__(kind, *words)


class ConfigError(HeadwaterError):
    """The author edits a file or a setting; nothing was read."""

    failure_class = "config"
    exit_code = 3


class AuthError(HeadwaterError):
    """A credential was refused; an operator rotates it."""

    failure_class = "auth"
    exit_code = 4


class _WaitError(HeadwaterError):
    """A retry helps after a pause.

    retry_after: seconds until the source will answer again; None when it did not say.
    """

    is_retryable = True

    def __init__(self, where: str, what: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(where, what, hint)
        self.retry_after = retry_after


class RateLimited(_WaitError):
    """The source asked for a pause longer than the stream may wait."""

    failure_class = "rate_limited"
    exit_code = 5


class TransientError(_WaitError):
    """The network or the source failed in a way that usually passes."""

    failure_class = "transient"
    exit_code = 6


class SourceError(HeadwaterError):
    """The source answered something it must not answer."""

    failure_class = "source"
    exit_code = 7


class ContractError(HeadwaterError):
    """The data breaks its contract: this stream stops, the last good data stays."""

    failure_class = "contract"
    exit_code = 8


class RecordError(ContractError):
    """One record breaks its contract: it is quarantined, the sync goes on below the limit."""


class ResourceError(HeadwaterError):
    """Memory, disk or time ran out; only this stream ends."""

    failure_class = "resource"
    exit_code = 9


class LoaderError(HeadwaterError):
    """The warehouse refused the load or the connection to it was lost."""

    failure_class = "loader"
    exit_code = 10
    is_retryable = True


class Cancelled(HeadwaterError):
    """Somebody asked the sync to stop; what was sealed is published."""

    failure_class = "cancelled"
    exit_code = 11


def exit_codes() -> Mapping[str, int]:
    """Exit code by failure class, of every class of the tree that has one."""
    found: dict[str, int] = {}
    waiting: list[type[HeadwaterError]] = [HeadwaterError]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if "exit_code" in vars(kind):
            found[kind.failure_class] = kind.exit_code
    return found


def merged(errors: Iterable[HeadwaterError]) -> list[HeadwaterError]:
    """Each cause once: the errors of streams that failed alike as one that names all of them."""
    alike: dict[tuple[type, str, str], list[HeadwaterError]] = {}
    for error in errors:
        alike.setdefault((type(error), error.what, error.hint), []).append(error)
    found: list[HeadwaterError] = []
    for first, *others in alike.values():
        one = copy.copy(first)
        one.where = ", ".join(dict.fromkeys([first.where, *(other.where for other in others)]))
        found.append(one)
    return found


ErrorClass = Callable[[str, str, str], HeadwaterError]
"""Makes an error of where, what and hint."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a phrase or code of others means here."""

    error: ErrorClass
    hint: str
