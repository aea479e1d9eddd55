"""Any exception that ends a sync to the class that says what happens next."""

import errno

import psycopg

from connectors.errors import (
    Cancelled,
    ConfigError,
    ContractError,
    HeadwaterError,
    LoaderError,
    ResourceError,
    SourceError,
)
from connectors.sync.lease import Stop
from connectors.sync.result import SyncRequest

_FULL = (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory, psycopg.errors.ProgramLimitExceeded)

_TRY_AGAIN = "Nothing of this window was published; run it again."


def classify(error: BaseException, request: SyncRequest, stop: Stop) -> HeadwaterError:
    """The error itself when it is classified, the cause inside dlt's wrapping, or a class by its type."""
    if stop.is_asked() and stop.reason is not None:
        return stop.reason
    found = _innermost(error)
    label = request.label
    if isinstance(found, HeadwaterError):
        return found
    text = str(found).strip() or type(found).__name__
    if isinstance(found, KeyboardInterrupt | SystemExit | GeneratorExit) or not isinstance(found, Exception):
        return Cancelled(label, f"interrupted ({type(found).__name__})", "What was sealed is published; run it again.")
    if isinstance(found, MemoryError):
        return ResourceError(label, "out of memory", "Lower window.rows, or raise limits.memory_mb.")
    if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(label, f"no space left for the working folder: {text}", "Free disk space, run it again.")
    if isinstance(found, psycopg.Error):
        return of_postgres(found, label)
    if _is_of_dlts_driver(found):
        return LoaderError(label, f"the warehouse failed: {text.splitlines()[0][:300]}", _TRY_AGAIN)
    if stop.is_asked():
        return Cancelled(label, "asked to stop", "What was sealed is published; run it again.")
    return SourceError(
        label,
        f"unexpected {type(found).__name__}: {text[:300]}",
        "Run it with --debug for the traceback, and report it.",
    )


def of_postgres(error: psycopg.Error, label: str) -> HeadwaterError:
    """A class by what the warehouse says."""
    text = (error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else repr(error))[
        :300
    ]
    if isinstance(error, _FULL):
        return ResourceError(label, f"the warehouse has no room: {text}", "Free disk space there, then run it again.")
    if isinstance(error, psycopg.errors.DataError | psycopg.errors.IntegrityError):
        return ContractError(
            label,
            f"the warehouse refused the rows: {text}",
            "Compare the contract with the data (`headwater preview`).",
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ConfigError(label, f"the loader role may not do this: {text}", "Run `headwater doctor`.")
    if isinstance(error, psycopg.errors.DependentObjectsStillExist):
        return ContractError(label, f"the table cannot be swapped: {text}", "See docs/warehouse.md.")
    return LoaderError(label, f"the warehouse failed: {text}", _TRY_AGAIN)


def _is_of_dlts_driver(error: BaseException) -> bool:
    """dlt makes tables and reads its bookkeeping over a connection of its own, with psycopg2."""
    return type(error).__module__.partition(".")[0] == "psycopg2"


def _innermost(error: BaseException) -> BaseException:
    """The deepest classified or database error in the chain of causes; dlt wraps what its jobs raise."""
    best, current, seen = error, error, set[int]()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, HeadwaterError):
            return current
        if isinstance(current, psycopg.Error | OSError | MemoryError) or _is_of_dlts_driver(current):
            best = current
        current = getattr(current, "client_exception", None) or current.__cause__ or current.__context__
    return best
