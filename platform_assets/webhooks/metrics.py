"""What the receiver did, as Prometheus text."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from platform_assets.webhooks.backlog import Backlog
from platform_assets.webhooks.inbox import Commits

BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds from a delivery's arrival to its answer."""


@dataclass(slots=True)
class Metrics:
    """answers: by (source, outcome), `stored` or the reason of a refusal; seconds: of stored deliveries by bucket."""

    answers: "Counter[tuple[str, str]]" = field(default_factory=Counter[tuple[str, str]])
    seconds: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds_sum: float = 0.0

    def stored(self, source: str, seconds: float) -> None:
        self.answers[source, "stored"] += 1
        self.seconds_sum += seconds
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.seconds[index] += 1
                return
        self.seconds[-1] += 1

    def refused(self, source: str, reason: str) -> None:
        self.answers[source, reason] += 1


@dataclass(frozen=True, slots=True)
class Now:
    """What is true at this moment."""

    is_connected: bool
    in_flight: int
    held_bytes: int
    waiting: int


def prometheus(metrics: Metrics, commits: Commits, now: Now, backlog: Iterable[Backlog] | None) -> str:
    """The text format 0.0.4. backlog: None when the database does not answer."""
    return "".join(f"{line}\n" for line in _lines(metrics, commits, now, backlog))


def _lines(metrics: Metrics, commits: Commits, now: Now, backlog: Iterable[Backlog] | None) -> Iterator[str]:
    yield from _head("deliveries_total", "counter", "Deliveries by answer; stored ones include repeated ones.")
    for (source, outcome), count in sorted(metrics.answers.items()):
        yield f'headwater_webhooks_deliveries_total{{source="{source}",outcome="{outcome}"}} {count}'
    yield from _head("seconds", "histogram", "From arrival to answer of stored deliveries.")
    total = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), metrics.seconds, strict=True):
        total += count
        yield f'headwater_webhooks_seconds_bucket{{le="{bound}"}} {total}'
    yield f"headwater_webhooks_seconds_sum {metrics.seconds_sum:.6f}"
    yield f"headwater_webhooks_seconds_count {total}"
    counters = (
        ("commits_total", commits.commits, "Durable group commits."),
        ("stored_total", commits.rows, "New deliveries stored."),
        ("duplicates_total", commits.duplicates, "Deliveries that were there already."),
        ("commit_failures_total", commits.failures, "Group commits that failed; their deliveries were answered 503."),
        ("commit_seconds_total", round(commits.seconds, 6), "Time spent in group commits."),
    )
    for name, value, about in counters:
        yield from _head(name, "counter", about)
        yield f"headwater_webhooks_{name} {value}"
    gauges = (
        ("up", int(now.is_connected), "Whether the inbox can be written."),
        ("in_flight", now.in_flight, "Deliveries not answered yet."),
        ("held_bytes", now.held_bytes, "Bodies of deliveries not answered yet."),
        ("waiting", now.waiting, "Deliveries that wait for their commit."),
    )
    for name, value, about in gauges:
        yield from _head(name, "gauge", about)
        yield f"headwater_webhooks_{name} {value}"
    if backlog is not None:
        yield from _head("backlog", "gauge", "Deliveries in the inbox that the stream has not read yet.")
        for item in backlog:
            yield f'headwater_webhooks_backlog{{source="{item.source}",stream="{item.stream}"}} {item.deliveries}'


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP headwater_webhooks_{name} {about}"
    yield f"# TYPE headwater_webhooks_{name} {kind}"
