"""An error's class decides what Dagster does with it: fail for good, or wait and retry."""

import os
import traceback

import dagster as dg

from connectors.errors import HeadwaterError
from connectors.secrets import mask
from connectors.specs import SourceSpec
from platform_assets.sources import references

FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds before a retry when the source named no time: doubled each time, up to five minutes."""


TRACE_CHARACTERS = 4_000


def as_dagster(error: HeadwaterError, retries: int, attempt: int, trace: str = "") -> dg.Failure | dg.RetryRequested:
    """What the op raises.

    Args:
        retries: how often the stream may be retried.
        attempt: 0 for the first try.
        trace: what lies behind the error, see `detach`; shown with a Failure.

    Returns:
        RetryRequested for rate limits, passing and loader failures while retries are left, after the time that the
        source asked for; else a Failure that neither op retries.
    """
    if error.is_retryable and attempt < retries:
        return dg.RetryRequested(max_retries=retries, seconds_to_wait=wait_seconds(error, attempt))
    metadata: dict[str, str | int] = {"failure_class": error.failure_class, "where": error.where, "what": error.what}
    if error.hint:
        metadata["next_step"] = error.hint
    if attempt:
        metadata["attempts"] = attempt + 1
    if trace:
        metadata["trace"] = trace
    sync_id = getattr(error, "sync_id", None)
    if sync_id is not None:
        metadata["sync_id"] = str(sync_id)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=False)


def detach(error: HeadwaterError, source: SourceSpec) -> str:
    """Cut the error from its causes and give them back as text, without the source's secrets.

    Dagster stores and shows the whole chain of an error that it meets. Ours never holds a secret; a library's may
    hold a URL with a key in it, or a header.
    """
    cause = error.__cause__ or error.__context__
    error.__cause__, error.__context__ = None, None
    if cause is None:
        return ""
    secrets = [os.environ.get(found.name, "") for found in references(source)]
    return mask("".join(traceback.format_exception(cause)), secrets)[-TRACE_CHARACTERS:]


def wait_seconds(error: HeadwaterError, attempt: int) -> float:
    """The source's own wish, else 5, 10, 20, ... seconds."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if asked is not None else min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
