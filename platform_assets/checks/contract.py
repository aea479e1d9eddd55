"""What a check on a stream is: a name, options, and a function from what a sync did to a verdict. No Dagster here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.specs import Severity, Spec, StreamSpec
from connectors.sync import Status, SyncResult, Verdict
from platform_assets.checks.data_time import NO_DATA, DataTime


@dataclass(frozen=True, slots=True)
class PastSync:
    """One earlier finished sync of the same stream, failed ones among them.

    rows: rows that reached the raw table; 0 for an empty sync.
    """

    finished_at: datetime
    status: Status
    rows: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.status not in ("failed", "cancelled")


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One row of `ops.schema_versions`.

    decision: first, evolved, pending, accepted or blocked.
    diff: the changes against the version before, as the engine wrote them.
    """

    version: int
    decision: str
    diff: tuple[Mapping[str, Any], ...]
    reason: str | None
    first_seen_at: datetime


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger knows of a stream besides the sync being judged.

    syncs: newest first; live syncs for a live sync, partition syncs for a partition.
    schemas: every version, oldest first.
    data: how new the stream's data is, whatever sync brought it.
    table_rows: rows now in the raw table, deleted ones left out; None when the table is too large to count.
    """

    syncs: tuple[PastSync, ...] = ()
    schemas: tuple[SchemaVersion, ...] = ()
    table_rows: int | None = None
    data: DataTime = NO_DATA


@dataclass(frozen=True, slots=True)
class Observation:
    """What a check is given: the stream's promise, what this sync did, and what came before."""

    stream: StreamSpec
    result: SyncResult
    history: History


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """One check as declared on one stream, or applied by default; defaults are filled in.

    name: unique on its stream; the check's type unless the file names it.
    severity: None when the check grades itself by what it found.
    blocking: a failure keeps downstream assets from running; only with severity `error`.
    owner: whom a failure concerns; None is the stream's owner.
    """

    name: str
    type: "CheckType"
    severity: Severity | None
    blocking: bool
    options: Spec
    owner: str | None = None

    def judge(self, observation: Observation) -> Verdict:
        """The verdict under the declared severity, name and blocking."""
        return self._named(self.type.evaluate(observation, self.options))

    def judge_failed(self, history: History) -> Verdict | None:
        """Of a sync that failed; None for the many types that have nothing to say then."""
        return self._named(self.type.on_failure(history, self.options)) if self.type.on_failure else None

    def _named(self, found: Verdict) -> Verdict:
        return Verdict(
            name=self.name,
            passed=found.passed,
            severity=self.severity or found.severity,
            blocking=self.blocking,
            explanation=found.explanation,
            measured=found.measured,
        )


def every_stream(_stream: StreamSpec) -> bool:
    return True


def on_demand(_stream: StreamSpec) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class CheckType:
    """A family of checks that judge a finished sync: one module in `platform_assets.checks.types` with one of these
    named CHECK. (One that judges before anything is published is a module in `connectors.sync.checks`.)

    applies_to: by default the check is on every stream for which this is true; a stream may always ask for it.
    evaluate: pure, no I/O. Its severity is used where neither the file nor `severity` decides.
    severity: of a failure, unless the file says otherwise; None when `evaluate` grades.
    on_failure: judges a sync that failed, from the history alone; the failed sync is the newest of it.
    is_audit: the engine judges it before anything is published, so a blocking failure keeps the data out; `evaluate`
        then speaks for syncs in which the engine had nothing to judge. blocks: it does so unless it only warns.
    """

    name: str
    description: str
    options: type[Spec]
    applies_to: Callable[[StreamSpec], bool]
    evaluate: Callable[[Observation, Any], Verdict]
    severity: Severity | None = None
    on_failure: Callable[[History, Any], Verdict] | None = None
    is_audit: bool = False
    blocks: bool = False
