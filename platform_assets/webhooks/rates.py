"""How many deliveries a source may send: a token bucket in the receiver's own memory."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """At most `size` at once, filled again evenly over `seconds`. Times are monotonic seconds."""

    size: int
    seconds: float
    _tokens: float = field(init=False)
    _filled_at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._tokens = float(self.size)

    def take(self, now: float) -> float:
        """0 when one may pass now, otherwise the seconds until one may."""
        rate = self.size / self.seconds
        if self._filled_at is not None:
            self._tokens = min(float(self.size), self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / rate
        self._tokens -= 1.0
        return 0.0
