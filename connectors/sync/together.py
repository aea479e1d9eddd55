"""Streams of one source that come out of one process: each through the one lifecycle, in a thread of its own."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

import psycopg

from connectors.contract import MAX_STREAMS, Connector, ReadsTogether
from connectors.errors import ConfigError, HeadwaterError
from connectors.registry import kind
from connectors.sync import failures
from connectors.sync.common import EngineCommon
from connectors.sync.folders import process_folder
from connectors.sync.lifecycle import run
from connectors.sync.result import Progress, SyncRequest, SyncResult

log = logging.getLogger(__name__)

Outcome = SyncResult | Exception


def sync_together(
    requests: Sequence[SyncRequest], dsn: str, progresses: Mapping[str, Progress], on_log: Callable[[str], None]
) -> Mapping[str, Outcome]:
    """Sync the streams of one source in one run of its program; how each ended, by stream name.

    One that fails takes nothing from the others. progresses: by stream name. on_log: lines that belong to no stream.

    Raises:
        what interrupts the calling thread, after all syncs have been asked to stop and have ended.
    """
    source = requests[0].source
    outcomes: dict[str, Outcome] = {}
    with process_folder(source.source) as folder:
        common, members = None, dict[str, Connector]()
        try:
            common = EngineCommon(source, dsn, folder, on_log)
            members = _members(requests, common)
        except (HeadwaterError, psycopg.Error) as caught:
            # each stream's ledger tells it
            error = caught if isinstance(caught, HeadwaterError) else failures.of_postgres(caught, source.source)
            members = {request.stream.name: _Unopened(error) for request in requests}

        def work(request: SyncRequest) -> None:
            name = request.stream.name
            try:
                outcomes[name] = run(request, dsn, progresses[name], members[name])
            except Exception as error:  # noqa: BLE001 (handed to the caller)
                outcomes[name] = error
            finally:
                # one that never came to read holds nobody up
                members[name].__exit__(None, None, None)

        threads = [
            threading.Thread(target=work, args=(request,), name=request.label, daemon=True) for request in requests
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            for progress in progresses.values():
                progress.cancelled.set()
            for thread in threads:
                thread.join()
            raise
        if common is not None:
            _finish(common, is_whole=all(isinstance(outcome, SyncResult) for outcome in outcomes.values()))
    return outcomes


def _finish(common: EngineCommon, *, is_whole: bool) -> None:
    """What is not tidied up now is tidied up by the next run; a position that is not kept only reads more."""
    try:
        common.finish(is_whole=is_whole)
    except (HeadwaterError, psycopg.Error) as error:
        log.warning("the run was not tidied up: %s", error)


def _members(requests: Sequence[SyncRequest], common: EngineCommon) -> dict[str, Connector]:
    source = requests[0].source
    if len(requests) > MAX_STREAMS:
        raise ConfigError(
            source.source,
            f"{len(requests)} streams in one run, limit {MAX_STREAMS}",
            "Select fewer, or split the file.",
        )
    opened = kind(source.connector.kind).open(source)
    assert isinstance(opened, ReadsTogether)
    return dict(opened.together([request.stream for request in requests], common))


class _Unopened:
    """Stands for a source that cannot be opened: every sync of it fails in its own name."""

    def __init__(self, error: HeadwaterError) -> None:
        self._error = error

    def check(self) -> NoReturn:
        raise self._error

    def discover(self) -> NoReturn:
        raise self._error

    def read(self, stream: Any, state: Any, context: Any) -> NoReturn:
        raise self._error

    def __enter__(self) -> NoReturn:
        # each sync notes its own id on its error
        error = self._error
        raise type(error)(error.where, error.what, error.hint) from error.__cause__

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
