"""An error's class decides what Dagster does with it: fail for good, or wait and retry."""

import dagster as dg

from connectors.errors import HeadwaterError

FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds before a retry when the source named no time: doubled each time, up to five minutes."""


def as_dagster(error: HeadwaterError, retries: int, attempt: int) -> dg.Failure | dg.RetryRequested:
    """What the op raises.

    Args:
        retries: how often the stream may be retried.
        attempt: 0 for the first try.

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
    sync_id = getattr(error, "sync_id", None)
    if sync_id is not None:
        metadata["sync_id"] = str(sync_id)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=False)


def wait_seconds(error: HeadwaterError, attempt: int) -> float:
    """The source's own wish, else 5, 10, 20, ... seconds."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if asked is not None else min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
