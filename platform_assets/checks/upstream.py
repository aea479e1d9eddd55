"""How new the data of a model can be: as new as the stalest of the streams that it is built from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from connectors.specs import StreamSpec
from connectors.sync import Verdict
from platform_assets.checks.data_time import NO_DATA, DataTime
from platform_assets.checks.registry import checks_of
from platform_assets.checks.types.freshness_data import CHECK, FreshnessDataOptions, is_declared, judged, windows

Key = tuple[str, str]
"""source, stream."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How old a stream's newest data may be, from its own `freshness_data` check. is_declared: by its file."""

    key: Key
    fail_after: timedelta
    warn_after: timedelta | None
    is_declared: bool = True


def promise_of(source: str, stream: StreamSpec) -> Promise | None:
    """None for a stream whose data time is not checked.

    Raises:
        ConfigError: one of its checks is wrong.
    """
    for check in checks_of(stream, source):
        if check.type.name == CHECK.name and isinstance(check.options, FreshnessDataOptions):
            fail_after, warn_after = windows(stream, check.options)
            return Promise((source, stream.name), fail_after, warn_after, is_declared(stream))
    return None


def worst(promises: Sequence[Promise], data: Mapping[Key, DataTime], now: datetime) -> Verdict:
    """Of the streams, the one that is worst against its own promise; its name comes first.

    promises: at least one.
    """

    def gravity(found: tuple[Promise, Verdict]) -> tuple[bool, bool, timedelta]:
        promise, verdict = found
        age = data.get(promise.key, NO_DATA).age(now) or timedelta(0)
        return not verdict.passed, verdict.severity == "error", age

    verdicts = [
        (one, judged(data.get(one.key, NO_DATA), one.fail_after, one.warn_after, now, is_declared=one.is_declared))
        for one in promises
    ]
    promise, verdict = max(verdicts, key=gravity)
    name = ".".join(promise.key)
    others = f" (the stalest of {len(promises)} streams)" if len(promises) > 1 else ""
    return replace(
        verdict,
        explanation=f"{name}: {verdict.explanation}{others}",
        measured={**verdict.measured, "stalest": name, "streams": [".".join(one.key) for one in promises]},
    )
