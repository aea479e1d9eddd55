"""Wall seconds by step of the lifecycle."""

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

    def at(self, step: Step | None) -> None:
        """From now on the time is `step`'s."""
        now = time.monotonic()
        if self.step is not None:
            self.seconds[self.step] = self.seconds.get(self.step, 0.0) + now - self.since
        self.step, self.since = step, now
        if step is not None:
            self.progress.on_step(step)

    @contextmanager
    def during(self, step: Step | None) -> Generator[None]:
        """The time inside the block is `step`'s; afterwards it is the step's before."""
        before = self.step
        self.at(step)
        try:
            yield
        finally:
            self.at(before)
