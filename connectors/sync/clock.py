"""Wall seconds by step of the lifecycle."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.sync.result import Progress, Step


@dataclass(slots=True)
class Clock:
    """Books time to the current step and tells the progress of every change. step None: nothing is booked.

    Reading and publishing overlap, each with a clock of its own, so a sync's steps may add up to more than its
    duration; waiting for the other one is booked to nobody.
    """

    progress: Progress
    step: Step | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    since: float = field(default_factory=time.monotonic)
    _booking: threading.Lock = field(default_factory=threading.Lock)

    def at(self, step: Step | None) -> None:
        """From now on the time is `step`'s."""
        with self._booking:
            now = time.monotonic()
            self.seconds, self.step, self.since = self._until(now), step, now
        if step is not None:
            self.progress.on_step(step)

    def so_far(self) -> dict[str, float]:
        """Seconds by step, the current one's until now; for any thread."""
        with self._booking:
            return self._until(time.monotonic())

    def _until(self, now: float) -> dict[str, float]:
        step, spent = self.step, dict(self.seconds)
        if step is not None:
            spent[step] = spent.get(step, 0.0) + now - self.since
        return spent

    @contextmanager
    def during(self, step: Step | None) -> Generator[None]:
        """The time inside the block is `step`'s; afterwards it is the step's before."""
        before = self.step
        self.at(step)
        try:
            yield
        finally:
            self.at(before)
