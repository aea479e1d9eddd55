"""What goes into a sync and what comes out of it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from connectors.contract import Window
from connectors.errors import FailureClass
from connectors.specs import SourceSpec, StreamSpec

Status = Literal["succeeded", "succeeded_empty", "succeeded_with_warnings", "failed", "cancelled"]
Trigger = Literal["manual", "schedule", "sensor", "backfill", "cli", "replay"]
Step = Literal["start", "extract", "land", "audit", "publish", "finalize"]


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One sync of one stream.

    window: a partition's slice; the live position is neither used nor moved. None for a live sync.
    run_id: the orchestrator's run, kept in the ledger.
    """

    source: SourceSpec
    stream: StreamSpec
    trigger: Trigger = "manual"
    run_id: str | None = None
    window: Window | None = None

    @property
    def label(self) -> str:
        return f"{self.source.source}.{self.stream.name}"

    @property
    def is_live(self) -> bool:
        """It reads onwards from the saved position and moves it; a partition's window and a replay do neither."""
        return self.window is None and self.trigger != "replay"


@dataclass(frozen=True, slots=True)
class RowCounts:
    """extracted = loaded + deduplicated + filtered + quarantined, always.

    loaded: rows that reached the raw table, new and updated; updated is a part of it.
    deleted: those that the source sent are a part of loaded, those that a snapshot or a replacement lacks are not.
    """

    extracted: int = 0
    loaded: int = 0
    updated: int = 0
    deleted: int = 0
    deduplicated: int = 0
    filtered: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One audit or check result of a sync.

    name: the check's type, e.g. `schema_drift`.
    measured: what was seen, JSON values, for metadata and plots.
    """

    name: str
    passed: bool
    severity: Literal["warn", "error"]
    blocking: bool
    explanation: str
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObservedColumn:
    name: str
    type: str
    """PostgreSQL's own words, e.g. `numeric(12,2)`."""
    is_nullable: bool
    description: str = ""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The ledger's row, in memory.

    table_name: `database.schema.table` of the raw table.
    step_seconds: wall seconds a step took, summed over windows.
    verdicts: of the audit; a blocking failed one has already failed the sync.
    """

    sync_id: str
    source: str
    stream: str
    status: Status
    rows: RowCounts
    table_name: str
    columns: tuple[ObservedColumn, ...]
    step_seconds: Mapping[str, float]
    received_bytes: int
    loaded_bytes: int
    requests: int
    wait_seconds: float
    peak_memory_bytes: int
    windows: int
    state_before: Mapping[str, Any]
    state_after: Mapping[str, Any]
    newest_cursor: str | None
    schema_version: int | None
    load_ids: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    started_at: datetime
    finished_at: datetime
    failure_class: FailureClass | None = None
    message: str = ""
    measures: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the connector measured beside the rows, by name and unit."""

    @property
    def seconds(self) -> float:
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Progress:
    """How a running sync shows itself; called from the sync's own thread a few times a second at most.

    on_step(step), on_rows(rows extracted so far), on_log(one line).
    """

    on_step: Callable[[Step], None] = lambda step: None
    on_rows: Callable[[int], None] = lambda rows: None
    on_log: Callable[[str], None] = lambda line: None
    cancelled: threading.Event = field(default_factory=threading.Event)
