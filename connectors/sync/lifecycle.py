"""start, extract, land, audit, publish, finalize: one stream's sync, the same for every kind."""

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from connectors.contract import Connector, ReadContext, Usage
from connectors.errors import Cancelled, HeadwaterError
from connectors.registry import kind
from connectors.sync import failures, ledger, registry, state
from connectors.sync.audit import Audit
from connectors.sync.decode import Decoder
from connectors.sync.extract import Extraction
from connectors.sync.folders import sync_folder
from connectors.sync.lease import Lease, connect
from connectors.sync.package import Part, Target, load, table_columns
from connectors.sync.publish import Batch, Publication
from connectors.sync.result import Progress, RowCounts, Status, Step, SyncRequest, SyncResult, Verdict
from connectors.sync.schema import StreamSchema
from connectors.sync.tables import observed_columns

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Clock:
    """Wall seconds by step; `at` switches the step and tells the progress."""

    progress: Progress
    seconds: dict[str, float]
    step: Step = "start"
    since: float = 0.0

    def at(self, step: Step) -> None:
        now = time.monotonic()
        self.seconds[self.step] = self.seconds.get(self.step, 0.0) + now - self.since
        self.step, self.since = step, now
        self.progress.on_step(step)

    @contextmanager
    def during(self, step: Step) -> Generator[None]:
        before = self.step
        self.at(step)
        try:
            yield
        finally:
            self.at(before)


def run(
    request: SyncRequest,
    dsn: str,
    progress: Progress,
    connector: Connector | None = None,
    resolves: Sequence[int] = (),
) -> SyncResult:
    """See `connectors.sync.sync`.

    connector: reads in place of the source's own (a replay of quarantine).
    resolves: quarantine ids that count as replayed in the transaction of the last publication.
    """
    clock = Clock(progress, {}, since=time.monotonic())
    with Lease(request, dsn, progress.cancelled) as lease, _connection(dsn, request.label) as connection:
        lease.step = lambda: clock.step
        sync = _Sync(request, dsn, progress, clock, lease, connection)
        try:
            sync.go(connector, resolves)
        except BaseException as error:
            classified = failures.classify(error, request, lease.stop)
            sync.finalize_failed(classified)
            if isinstance(error, HeadwaterError | Exception):
                raise classified from (error if classified is not error else error.__cause__)
            raise
        return sync.finalize()


@contextmanager
def _connection(dsn: str, label: str) -> Generator[psycopg.Connection[Any]]:
    connection = connect(dsn, label, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


class _Sync:
    """One run of the lifecycle; its fields are what the steps hand to each other."""

    def __init__(
        self,
        request: SyncRequest,
        dsn: str,
        progress: Progress,
        clock: Clock,
        lease: Lease,
        connection: psycopg.Connection[Any],
    ) -> None:
        self.request = request
        self.dsn = dsn
        self.progress = progress
        self.clock = clock
        self.lease = lease
        self.connection = connection
        self.usage = Usage()
        self.state_before: dict[str, Any] = {}
        self.audit: Audit | None = None
        self.schema: StreamSchema | None = None
        ledger.open_row(connection, request, lease.sync_id, lease.epoch, {})

    def go(self, connector: Connector | None, resolves: Sequence[int]) -> None:
        request, connection = self.request, self.connection
        position = state.Position.load(connection, request)
        self.state_before = dict(position.state)
        connection.execute(
            "update ops.syncs set state_before = %s where sync_id = %s",
            [Jsonb(self.state_before), self.lease.sync_id],
        )
        version = registry.newest(connection, request.source.source, request.stream.name)
        self.schema = StreamSchema(request.label, request.stream, version.columns if version else ())
        self.audit = Audit(request.label, request.stream, self.schema)
        publication = Publication(connection, self.lease, request, self.schema, position, self.audit, resolves)
        opened = connector or kind(request.source.connector.kind).open(request.source)
        with sync_folder(request) as folder, opened as source:
            context = ReadContext(
                window=request.window,
                folder=_made(folder / "read"),
                usage=self.usage,
                log=self.progress.on_log,
                cancelled=self.lease.stop.event,
            )
            decoder = Decoder(self.schema, request.stream.null_values, request.stream.max_record_bytes)
            extraction = Extraction(request, decoder, self.schema, self.audit, self.lease.stop, folder, self.progress)
            self.clock.at("extract")
            messages = source.read(request.stream, position.for_read(request.stream), context)
            try:
                for batch in extraction.batches(messages):
                    self._publish(publication, batch, folder)
            except Exception:
                self._publish_sealed(publication, extraction, folder)
                raise

    def _publish(self, publication: Publication, batch: Batch, folder: Path) -> None:
        """Land, audit and publish one batch; its files are gone afterwards."""
        assert self.schema is not None
        request = self.request
        if not batch.parts:
            empty = folder / "empty.csv"
            empty.touch()
            batch.parts.append(Part(empty, 0, ()))
        target = Target(request.source.schema_name, request.stream.name, self.dsn)
        columns = table_columns(
            self.schema.table_columns, is_scd2=request.stream.write == "scd2", has_overflow=self.schema.has_overflow
        )
        publication.begin(batch, self.clock)
        with self.clock.during("land"), sync_folder(request, "package") as package:
            load_id = load(target, columns, batch.parts, publication, package)
        for part in batch.parts:
            part.path.unlink(missing_ok=True)
        log.info("load committed stream=%s load_id=%s rows=%d", request.label, load_id, publication.rows.loaded)

    def _publish_sealed(self, publication: Publication, extraction: Extraction, folder: Path) -> None:
        """After a failure: what a checkpoint had sealed is good, and the next sync resumes behind it."""
        batch = extraction.sealed_batch()
        if batch is None:
            return
        try:
            self._publish(publication, batch, folder)
        except Exception:
            log.exception("sealed records could not be published stream=%s", self.request.label)

    @property
    def _cost(self) -> ledger.Cost:
        usage = self.usage
        return ledger.Cost(
            {step: round(seconds, 4) for step, seconds in self.clock.seconds.items()},
            usage.received_bytes,
            usage.requests,
            usage.wait_seconds,
            self.lease.peak_memory_bytes,
        )

    def finalize_failed(self, error: HeadwaterError) -> None:
        """Write the final status, on a new connection when ours is gone; the next start settles what this cannot."""
        self.clock.at("finalize")
        status: Status = "cancelled" if isinstance(error, Cancelled) else "failed"
        verdicts = list(getattr(error, "verdicts", self.audit.verdicts if self.audit else []))
        error.sync_id = self.lease.sync_id
        try:
            with connect(self.dsn, self.request.label, autocommit=True) as connection:
                ledger.close_row(connection, self.lease.sync_id, status, error, str(error), self._cost, verdicts)
        except (psycopg.Error, HeadwaterError):
            log.warning("final status not written stream=%s sync_id=%s", self.request.label, self.lease.sync_id)

    def finalize(self) -> SyncResult:
        assert self.audit is not None
        self.clock.at("finalize")
        request, audit = self.request, self.audit
        decision = registry.newest(self.connection, request.source.source, request.stream.name)
        verdicts = [*audit.verdicts, *_schema_verdict(decision)]
        warned = [verdict for verdict in verdicts if not verdict.passed]
        status: Status = "succeeded"
        if audit.quarantined or warned:
            status = "succeeded_with_warnings"
        elif audit.extracted == 0:
            status = "succeeded_empty"
        message = "; ".join(verdict.explanation for verdict in warned)
        if audit.quarantined:
            message = f"{audit.quarantined} records in quarantine. {message}".strip()
        self.clock.at("finalize")
        row = ledger.close_row(self.connection, self.lease.sync_id, status, None, message, self._cost, verdicts)
        (started, finished, *counts, loaded_bytes, windows, after, cursor, schema_version, load_ids) = row
        table = f"{self.connection.info.dbname}.{request.source.schema_name}.{request.stream.name}"
        return SyncResult(
            sync_id=self.lease.sync_id,
            source=request.source.source,
            stream=request.stream.name,
            status=status,
            rows=RowCounts(*counts),
            table_name=table,
            columns=observed_columns(self.connection, request),
            step_seconds=self._cost.step_seconds,
            received_bytes=self.usage.received_bytes,
            loaded_bytes=loaded_bytes,
            requests=self.usage.requests,
            wait_seconds=self.usage.wait_seconds,
            peak_memory_bytes=self.lease.peak_memory_bytes,
            windows=windows,
            state_before=self.state_before,
            state_after=after or self.state_before,
            newest_cursor=cursor,
            schema_version=schema_version,
            load_ids=tuple(load_ids),
            verdicts=tuple(verdicts),
            started_at=started,
            finished_at=finished,
            message=message,
        )


def _schema_verdict(version: registry.SchemaVersion | None) -> list[Verdict]:
    """`schema_drift`: red while the newest version waits for a decision; it never heals itself."""
    if version is None:
        return []
    pending = version.decision in ("pending", "blocked")
    changes = "; ".join(f"{item['change']} {item['column']} ({item['action']})" for item in version.diff)
    explanation = f"schema version {version.version} is {version.decision}" + (f": {changes}" if changes else "")
    return [
        Verdict(
            "schema_drift", passed=not pending, severity="warn", blocking=False, explanation=explanation,
            measured={"version": version.version, "decision": version.decision, "diff": list(version.diff)},
        )
    ]  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
