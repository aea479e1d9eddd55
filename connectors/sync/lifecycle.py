"""start, extract, land, audit, publish, finalize: one stream's sync, the same for every kind."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from connectors.contract import Connector, Message, ReadContext, ReadsWarehouse, Usage
from connectors.errors import Cancelled, HeadwaterError
from connectors.registry import kind
from connectors.sync import failures, ledger, notices, registry, state
from connectors.sync.audit import Audit, AuditFailedError
from connectors.sync.clock import Clock
from connectors.sync.extract import Extraction
from connectors.sync.folders import sync_folder
from connectors.sync.interpreter import tune
from connectors.sync.lease import Lease, connect
from connectors.sync.publish import Publication
from connectors.sync.publisher import Publisher
from connectors.sync.quarantine import with_examples
from connectors.sync.rejects import Reject
from connectors.sync.result import Progress, RowCounts, Status, SyncRequest, SyncResult, Verdict
from connectors.sync.schema import FrozenDriftError, StreamSchema
from connectors.sync.tables import observed_columns

log = logging.getLogger(__name__)
_SHOWN_CHANGES = 10


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
    tune()
    clock = Clock(progress, "start")
    with Lease(request, dsn, progress.cancelled) as lease, _connection(dsn, request.label) as connection:
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
        self.publishing = Clock(progress)
        lease.step = lambda: self.publishing.step or clock.step or "extract"
        lease.cost = lambda: self._cost
        self.state_before: dict[str, Any] = {}
        self.audit: Audit | None = None
        self.extraction: Extraction | None = None
        self.drift: list[Verdict] | None = None
        self.refused: list[Callable[[], Sequence[Reject]]] = []
        ledger.open_row(connection, request, lease.sync_id, lease.epoch)

    def go(self, connector: Connector | None, resolves: Sequence[int]) -> None:
        connection = self.connection
        request = self.request = registry.under_rules(connection, self.request)
        position = state.Position.load(connection, request)
        self.state_before = dict(position.state)
        version = registry.newest(connection, request.source.source, request.stream.name)
        released = registry.released(connection, request.source.source, request.stream.name)
        registry.refuse_other_key(version, request, released)
        columns, number = (version.columns, version.version) if version else ((), 0)
        schema = StreamSchema(request.label, request.stream, columns, number, released)
        audit = self.audit = Audit(request.label, request.stream)
        publication = Publication(connection, self.lease, request, position, audit, self._verdicts, resolves)
        opened = connector or kind(request.source.connector.kind).open(request.source)
        if isinstance(opened, ReadsWarehouse):
            opened.use_warehouse(self.dsn)
        with sync_folder(request, self.dsn) as folder, opened as source:
            extraction = Extraction(request, schema, audit, self.lease.stop, folder, self.progress)
            self.extraction = extraction
            context = ReadContext(
                window=request.window,
                folder=_made(folder / "read"),
                usage=self.usage,
                log=self.progress.on_log,
                cancelled=self.lease.stop.event,
                connect_shared=lambda: connect(self.dsn, request.label, autocommit=True),
                takes_binary=extraction.takes_binary,
                is_backfill=request.trigger == "backfill",
            )
            self.refused = [lambda: publication.refused, lambda: extraction.refused]
            with Publisher(publication, request, self.dsn, folder, self.publishing) as publisher:
                self.clock.at("extract")
                messages = source.read(request.stream, position.for_read(request.stream), context)
                self._read(extraction, messages, publisher)

    def _read(self, extraction: Extraction, messages: Iterator[Message], publisher: Publisher) -> None:
        """Publish batch after batch; when the read fails, what a checkpoint had sealed is good and published still."""
        try:
            for batch in extraction.batches(messages, publisher.is_idle):
                with self.clock.during(None):
                    publisher.submit(batch)
            with self.clock.during(None):
                publisher.wait()
        except Exception:
            if publisher.has_failed:
                raise
            try:
                publisher.wait()
                if sealed := extraction.sealed_batch():
                    publisher.submit(sealed)
                    publisher.wait()
            except Exception:
                log.exception("sealed records could not be published stream=%s", self.request.label)
            raise

    @property
    def _cost(self) -> ledger.Cost:
        usage = self.usage
        seconds = self.clock.so_far() | self.publishing.so_far()
        return ledger.Cost(
            {step: round(spent, 4) for step, spent in seconds.items()},
            usage.received_bytes,
            usage.requests,
            usage.wait_seconds,
            self.lease.peak_memory_bytes,
        )

    def _verdicts(self) -> list[Verdict]:
        """What is known of the whole sync; first asked inside the last publication, which has the schema's version."""
        assert self.audit is not None
        assert self.extraction is not None
        if self.drift is None:
            self.drift = _schema_verdict(self.connection, self.request)
        return [*self.audit.verdicts, *self.extraction.notices, *notices.of_source(self.usage), *self.drift]

    def finalize_failed(self, error: HeadwaterError) -> None:
        """Write the final status, on a new connection when ours is gone; the next start settles what this cannot."""
        self.clock.at("finalize")
        status: Status = "cancelled" if isinstance(error, Cancelled) else "failed"
        found: Sequence[Verdict] = getattr(error, "verdicts", self.audit.verdicts if self.audit else [])
        verdicts = with_examples(found, [reject for refused in self.refused for reject in refused()], self.request)
        if isinstance(error, AuditFailedError | FrozenDriftError):
            error.verdicts = tuple(verdicts)
        error.sync_id = self.lease.sync_id
        try:
            with connect(self.dsn, self.request.label, autocommit=True) as connection:
                ledger.close_row(connection, self.lease.sync_id, status, error, str(error), self._cost, verdicts)
                if isinstance(error, FrozenDriftError):
                    source, stream = self.request.source.source, self.request.stream.name
                    registry.record_blocked(connection, source, stream, self.lease.sync_id, error.drift)
        except (psycopg.Error, HeadwaterError):
            log.warning("final status not written stream=%s sync_id=%s", self.request.label, self.lease.sync_id)

    def finalize(self) -> SyncResult:
        assert self.audit is not None
        self.clock.at("finalize")
        request, audit, verdicts = self.request, self.audit, self._verdicts()
        warned = [verdict for verdict in verdicts if not verdict.passed]
        status: Status = "succeeded"
        if audit.quarantined or warned:
            status = "succeeded_with_warnings"
        elif audit.extracted == 0:
            status = "succeeded_empty"
        message = "; ".join(verdict.explanation for verdict in warned)
        if audit.quarantined:
            message = f"{audit.quarantined} records in quarantine. {message}".strip()
        cost = self._cost
        row = ledger.close_row(self.connection, self.lease.sync_id, status, None, message, cost, verdicts)
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
            step_seconds=cost.step_seconds,
            received_bytes=cost.received_bytes,
            loaded_bytes=loaded_bytes,
            requests=cost.requests,
            wait_seconds=cost.wait_seconds,
            peak_memory_bytes=cost.peak_memory_bytes,
            windows=windows,
            state_before=self.state_before,
            state_after=after or self.state_before,
            newest_cursor=cursor,
            schema_version=schema_version,
            load_ids=tuple(load_ids),
            measures=dict(self.usage.measures),
            verdicts=tuple(verdicts),
            started_at=started,
            finished_at=finished,
            message=message,
        )


def _schema_verdict(connection: psycopg.Connection[Any], request: SyncRequest) -> list[Verdict]:
    """`schema_drift`: red while any version waits for a decision; it never heals itself."""
    source, stream = request.source.source, request.stream.name
    newest = registry.newest(connection, source, stream)
    if newest is None:
        return []
    waiting = registry.undecided(connection, source, stream)
    shown = waiting or [newest]
    diff = [item for version in shown for item in version.diff]
    said = [f"{item['change']} {item['column']} ({item['action']})" for item in diff[:_SHOWN_CHANGES]]
    if len(diff) > _SHOWN_CHANGES:
        said.append(f"and {len(diff) - _SHOWN_CHANGES:,} more")
    changes = "; ".join(said)
    versions = ", ".join(str(version.version) for version in shown)
    explanation = f"schema version {versions} is {shown[-1].decision}" + (f": {changes}" if changes else "")
    return [
        Verdict(
            "schema_drift", passed=not waiting, severity="warn", blocking=False, explanation=explanation,
            measured={"version": newest.version, "decision": shown[-1].decision, "diff": diff},
        )
    ]  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
