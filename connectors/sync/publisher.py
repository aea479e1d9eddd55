"""Publishes sealed batches one behind the read, in a thread of its own: reading and loading overlap."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.sync.batches import Batch
from connectors.sync.clock import Clock
from connectors.sync.package import Part, table_columns
from connectors.sync.packages import Packages
from connectors.sync.publish import Publication
from connectors.sync.result import SyncRequest

log = logging.getLogger(__name__)


class Publisher:
    """At most one batch is being published while the next is read, so memory and disk stay bounded.

    A failed publication is raised by every later call of `submit`, `is_idle` and `wait`: nothing is published behind
    it, for the position would then stand behind records that are nowhere.
    """

    def __init__(self, publication: Publication, request: SyncRequest, dsn: str, folder: Path, clock: Clock) -> None:
        self._publication = publication
        self._request = request
        self._folder = folder
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"publish {request.label}")
        self._packages = Packages(request, dsn)
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._pool.shutdown(wait=True)
        self._packages.close()

    def submit(self, batch: Batch) -> None:
        """Publish the batch once the one before is published."""
        self.wait()
        self._running = self._pool.submit(self._publish, batch)

    def wait(self) -> None:
        if self._running is not None:
            self._running.result()

    def is_idle(self) -> bool:
        """Nothing is being published; raises at once what the publication in the background has failed with."""
        if self._running is None or not self._running.done():
            return self._running is None
        self._running.result()
        return True

    @property
    def has_failed(self) -> bool:
        return self._running is not None and self._running.done() and self._running.exception() is not None

    def _publish(self, batch: Batch) -> None:
        """Publish one batch; its files are gone afterwards."""
        request = self._request
        schema = batch.schema
        columns = table_columns(
            schema.table_columns, is_scd2=request.stream.write == "scd2", has_overflow=schema.has_overflow
        )
        if self._publication.is_unseen(batch):
            load_id = self._publication.publish(batch, columns, None, self._clock)
        else:
            if not batch.parts:
                empty = self._folder / "empty.csv"
                empty.touch()
                batch.parts.append(Part(empty, 0, ()))
            with self._packages.build(columns, batch.parts) as package:
                load_id = self._publication.publish(batch, columns, package, self._clock)
        for part in batch.parts:
            part.path.unlink(missing_ok=True)
        log.info("batch committed stream=%s load_id=%s rows=%d", request.label, load_id, batch.extracted)
