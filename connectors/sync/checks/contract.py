"""What a check is that the engine itself judges, inside the publication's transaction, before anything is visible."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from connectors.contract import Attestation
from connectors.specs import CheckSpec, Severity, Spec, StreamSpec
from connectors.sync.result import RowCounts, SyncRequest

if TYPE_CHECKING:
    # definitions read the options of the checks, and need no driver for it
    import psycopg
    from psycopg.sql import Identifier

    from connectors.sync.schema import StreamSchema
    from connectors.sync.tables import Tables


@dataclass(frozen=True, slots=True)
class Outcome:
    """may_block: False for a red that must not stop the sync, because the rule could not be asked at all."""

    passed: bool
    explanation: str
    measured: Mapping[str, Any] = field(default_factory=dict[str, Any])
    may_block: bool = True


@dataclass(frozen=True, slots=True)
class Staged:
    """One publication's rows, where nobody else sees them.

    boundary: the typed cursor value that a live sync started from; None at first, for a partition and a replay.
    """

    connection: "psycopg.Connection[Any]"
    request: SyncRequest
    tables: "Tables"
    schema: "StreamSchema"
    boundary: Any | None


@dataclass(frozen=True, slots=True)
class Whole:
    """The sync at its end: every row is written, all that is left is the commit.

    table: what readers will see. rows: of the whole sync. attested: what the source said; rows None when nothing.
    gone: source names of columns that no record of this sync had, although the table has them.
    """

    connection: "psycopg.Connection[Any]"
    request: SyncRequest
    sync_id: str
    tables: "Tables"
    schema: "StreamSchema"
    table: "Identifier"
    rows: RowCounts
    attested: Attestation
    gone: frozenset[str]


class Judge:
    """One check during one sync. A subclass overrides the moments that it needs; what a later moment says counts,
    unless an earlier one has failed.

    reads_rows: `arrived` or `staged` look at rows, so they must not be copied straight into the raw table.
    is_whole: it speaks of the sync as a whole; when it blocks, nothing is visible before the end.
    """

    reads_rows: bool = False
    is_whole: bool = True

    def arrived(self, staged: Staged) -> Outcome | None:
        """Each publication's good records as they came, duplicates among them."""
        return None

    def staged(self, staged: Staged) -> Outcome | None:
        """Each publication's rows as they will be written."""
        return None

    def concluded(self, whole: Whole) -> Outcome | None:
        """Once, at the end."""
        return None


def on_demand(_stream: StreamSpec) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """A family of checks: one module in `connectors.sync.checks` with one of these named CHECK.

    options: validated against the stream, see `connectors.sync.checks.options`. judge: of them and the stream.
    severity: of a failure, unless the file says otherwise. blocks: declared, it blocks unless it only warns.
    applies_to: on every stream for which this is true, without blocking; a stream may always ask for it.
    unjudged: what is said when no moment said anything, of a sync that read so many rows.
    """

    name: str
    description: str
    options: type[Spec]
    judge: Callable[[Any, StreamSpec], Judge]
    severity: Severity
    unjudged: Callable[[Any, int], Outcome]
    blocks: bool = False
    applies_to: Callable[[StreamSpec], bool] = on_demand


def settled(spec: CheckSpec, severity: Severity | None, *, blocks: bool) -> tuple[Severity | None, bool]:
    """Severity and blocking of a declared check, from what its type does by itself."""
    is_blocking = spec.blocking if spec.blocking is not None else blocks and spec.severity != "warn"
    if is_blocking:
        return "error", True
    return spec.severity or ("error" if blocks else severity), False


def nothing_to_judge(what: str) -> Callable[[Any, int], Outcome]:
    """Fine when there was no row; red when there were some and the engine was never asked."""

    def said(_options: Any, rows: int) -> Outcome:
        explanation = f"no row to judge: {what}" if rows == 0 else f"was not judged: {what}"
        return Outcome(rows == 0, explanation, {"rows": 0})

    return said
