"""What a server says about its own limits, in the headers of an answer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_EPOCH = 1_000_000_000
_LONGEST_PAUSE = 31 * 86_400.0
_MEMBER = re.compile(r"(\w+)=(\d+)")


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """What an answer's headers say: a pause asked for, requests left, seconds until they are full again."""

    retry_after: float | None = None
    remaining: int | None = None
    resets_in: float | None = None

    @property
    def pause(self) -> float | None:
        """Seconds to wait before the next request; None when nothing was said."""
        if self.retry_after is not None:
            return self.retry_after
        return self.resets_in if self.remaining == 0 else None


def server_limit(headers: Mapping[str, str], now: datetime) -> ServerLimit:
    """Retry-After in seconds or as an HTTP date; X-RateLimit-*, X-Rate-Limit-* and RateLimit-*; RateLimit itself.

    A reset is seconds from now, a Unix time in seconds or milliseconds, or a date; what is in the past or further away
    than a month is ignored. `RateLimit: limit=100, remaining=0, reset=30` and `RateLimit: "default";r=0;t=30` are the
    drafts of one standard; of several policies the one with the fewest requests left counts. Header names are lower
    case.
    """
    remaining = resets = None
    for prefix in ("x-ratelimit-", "x-rate-limit-", "ratelimit-"):
        remaining = remaining if remaining is not None else _number(headers.get(f"{prefix}remaining"))
        for name in ("reset-after", "reset"):
            resets = resets if resets is not None else _reset(headers.get(f"{prefix}{name}"), now)
    if remaining is None and (combined := headers.get("ratelimit")):
        policies = [_policy(combined)] if "remaining=" in combined else [_policy(part) for part in combined.split(",")]
        known = [(left, after) for left, after in policies if left is not None]
        remaining, resets = min(known, key=lambda policy: policy[0]) if known else (None, resets)
    if resets is not None and not 0 <= resets <= _LONGEST_PAUSE:
        resets = None
    return ServerLimit(
        retry_after=_retry_after(headers.get("retry-after"), now),
        remaining=int(remaining) if remaining is not None else None,
        resets_in=resets,
    )


def _policy(text: str) -> tuple[float | None, float | None]:
    """Requests left and seconds until they are full again."""
    said = dict(_MEMBER.findall(text.lower()))
    return _number(said.get("remaining", said.get("r"))), _number(said.get("reset", said.get("t")))


def _reset(text: str | None, now: datetime) -> float | None:
    """Seconds from now."""
    seconds = _number(text)
    if seconds is None:
        at = _date(text or "")
        return (at - now).total_seconds() if at is not None else None
    if seconds >= _EPOCH * 1_000:
        seconds /= 1_000
    return seconds - now.timestamp() if seconds >= _EPOCH else seconds


def _date(text: str) -> datetime | None:
    """An HTTP date or one of ISO 8601; "-0000" gives a naive time, which HTTP means as UTC."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = read(text)
        except ValueError:
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None


def _retry_after(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None:
        at = _date(text)
        if at is None:
            return None
        seconds = (at - now).total_seconds()
    return max(0.0, seconds)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None
