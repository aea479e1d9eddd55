"""Dagster's event log of one run, told as the demo's events."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from dagster import AssetKey, DagsterEvent, DagsterEventType, EventLogEntry
from dagster._core.snap import ExecutionPlanSnapshot
from dagster_shared.error import SerializableErrorInfo

from platform_assets.cli.demo_events import AssetChanged, CheckJudged, Event, RunEnded

# the stream's own count first: dagster/row_count is the whole table
_ROWS = ("rows_loaded", "range_rows_loaded", "dagster/row_count")
_SECONDS = ("seconds", "range_seconds", "Execution Duration")


def name_of(key: AssetKey) -> str:
    return ".".join(key.path)


class Follower:
    """Translates one run's log. Call `events` with every entry, in order.

    failed: assets that were not materialized although the run should have, and those whose downstream a failed
        blocking check keeps from running.
    """

    def __init__(self, location: str, run_id: str, keys: Sequence[AssetKey], plan: ExecutionPlanSnapshot) -> None:
        self.failed: set[AssetKey] = set()
        self.ended = False
        self._location = location
        self._run_id = run_id
        self._pending = set(keys)
        self._started: dict[AssetKey, float] = {}
        self._steps: Mapping[str, tuple[AssetKey, ...]] = {
            step.key: tuple(
                output.properties.asset_key
                for output in step.outputs
                if output.properties and output.properties.asset_key in self._pending
            )
            for step in plan.steps
        }
        self._handlers: Mapping[DagsterEventType, Callable[[DagsterEvent, float], Iterator[Event]]] = {
            DagsterEventType.STEP_START: self._on_start,
            DagsterEventType.STEP_RESTARTED: self._on_start,
            DagsterEventType.STEP_UP_FOR_RETRY: self._on_retry,
            DagsterEventType.STEP_FAILURE: self._on_failure,
            DagsterEventType.STEP_SKIPPED: self._on_skip,
            DagsterEventType.ASSET_MATERIALIZATION: self._on_materialization,
            DagsterEventType.ASSET_CHECK_EVALUATION: self._on_check,
            DagsterEventType.RUN_SUCCESS: self._on_end,
            DagsterEventType.RUN_FAILURE: self._on_end,
            DagsterEventType.RUN_CANCELED: self._on_end,
        }

    def events(self, entry: EventLogEntry) -> Iterator[Event]:
        event = entry.dagster_event
        handler = self._handlers.get(event.event_type) if event else None
        if event and handler:
            yield from handler(event, entry.timestamp)

    def _waiting(self, event: DagsterEvent) -> list[AssetKey]:
        """The step's assets that are not settled yet."""
        return [key for key in self._steps.get(event.step_key or "", ()) if key in self._pending]

    def _changed(
        self, key: AssetKey, state: str, at: float, message: str = "", failure_class: str = ""
    ) -> AssetChanged:
        return AssetChanged(
            self._location,
            name_of(key),
            state,
            self._run_id,
            max(0.0, at - self._started.get(key, at)),
            message=message,
            failure_class=failure_class,
        )

    def _on_start(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        for key in self._waiting(event):
            self._started[key] = at
            yield self._changed(key, "running", at)

    def _on_retry(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        data = event.step_retry_data
        wait = f"again in {data.seconds_to_wait:.0f} s: " if data.seconds_to_wait else ""
        for key in self._waiting(event):
            yield self._changed(key, "waiting", at, wait + _innermost(data.error))

    def _on_failure(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        data = event.step_failure_data
        said = data.user_failure_data
        # the author's own words for a dg.Failure, else the innermost error that was raised
        message = (said.description if said else None) or _innermost(data.error)
        found = (said.metadata if said else {}).get("failure_class")
        for key in self._waiting(event):
            self._pending.discard(key)
            self.failed.add(key)
            yield self._changed(key, "failed", at, message, str(found.value) if found else "")

    def _on_skip(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        for key in self._waiting(event):
            self._pending.discard(key)
            self.failed.add(key)
            yield self._changed(key, "skipped", at, "not run: something upstream failed")

    def _on_materialization(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        key = event.asset_key
        if key is None:
            return
        self._pending.discard(key)
        metadata = event.step_materialization_data.materialization.metadata
        found: Mapping[str, object] = {name: getattr(value, "value", None) for name, value in metadata.items()}
        numbers = {name: value for name, value in found.items() if isinstance(value, int | float)}
        rows = next((int(numbers[name]) for name in _ROWS if name in numbers), None)
        measured = next((float(numbers[name]) for name in _SECONDS if name in numbers), None)
        yield AssetChanged(
            self._location,
            name_of(key),
            "succeeded",
            self._run_id,
            max(0.0, at - self._started.get(key, at)) if measured is None else measured,
            rows=rows,
            # dbt's own `status` says success, which the state says already
            status=str(found["status"]) if str(found.get("status")).startswith("succeeded") else "",
            table=".".join(str(found.get("dagster/table_name") or "").replace('"', "").split(".")[-2:]),
        )

    def _on_check(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        del at
        found = event.asset_check_evaluation_data
        severity = found.severity.value.lower()
        if not found.passed and found.blocking and severity == "error":
            self.failed.add(found.asset_key)
        yield CheckJudged(name_of(found.asset_key), found.check_name, found.passed, severity, found.description or "")

    def _on_end(self, event: DagsterEvent, at: float) -> Iterator[Event]:
        self.ended = True
        succeeded = event.event_type == DagsterEventType.RUN_SUCCESS
        message = "" if succeeded else _run_message(event)
        for key in sorted(self._pending):
            self.failed.add(key)
            yield self._changed(key, "skipped", at, f"not run: {message}" if message else "not run")
        self._pending.clear()
        yield RunEnded(self._run_id, succeeded, message)


def _run_message(event: DagsterEvent) -> str:
    if event.event_type == DagsterEventType.RUN_CANCELED:
        return "the run was cancelled"
    error = event.job_failure_data.error if event.event_specific_data else None
    return _innermost(error) or (event.message or "")


def _innermost(error: SerializableErrorInfo | None) -> str:
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else ""
