"""What a check on a stream is: a name, options, and a function from what a sync did to a verdict. No Dagster here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.specs import Severity, Spec, StreamSpec
from connectors.sync import Status, SyncResult, Verdict


class Options(Spec):
    """The fields of a check beside `type`, `name`, `severity` and `blocking`; each check type adds its own."""


@dataclass(frozen=True, slots=True)
class PastSync:
    """One earlier finished sync of the same stream.

    rows: rows that reached the raw table; 0 for an empty sync.
    """

    finished_at: datetime
    status: Status
    rows: int
    seconds: float


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

    syncs: succeeded syncs, newest first; live syncs for a live sync, partition syncs for a partition.
    schemas: every version, oldest first.
    table_rows: rows now in the raw table, deleted ones left out; None when the table is too large to count.
    """

    syncs: tuple[PastSync, ...] = ()
    schemas: tuple[SchemaVersion, ...] = ()
    table_rows: int | None = None


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
    """

    name: str
    type: "CheckType"
    severity: Severity | None
    blocking: bool
    options: Options

    def judge(self, observation: Observation) -> Verdict:
        """The verdict under the declared severity, name and blocking."""
        found = self.type.evaluate(observation, self.options)
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


@dataclass(frozen=True, slots=True)
class CheckType:
    """A family of checks: one module in `platform_assets.checks.types` with one of these named CHECK.

    applies_to: by default the check is on every stream for which this is true; a stream may always ask for it.
    evaluate: pure, no I/O. Its severity is used where neither the file nor `severity` decides.
    severity: of a failure, unless the file says otherwise; None when `evaluate` grades.
    is_audit: the engine judges it before anything is published, so a failure keeps the data out (blocking, unless it
        only warns); `evaluate` then speaks for syncs in which the engine had nothing to judge.
    """

    name: str
    description: str
    options: type[Options]
    applies_to: Callable[[StreamSpec], bool]
    evaluate: Callable[[Observation, Any], Verdict]
    severity: Severity | None = None
    is_audit: bool = False
