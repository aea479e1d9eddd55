"""Did this sync bring about as many rows as its seasonal neighbours? The arithmetic is `connectors.sync.volume`.

checks: [{type: volume_anomaly, sensitivity: 6}]
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from connectors.specs import StreamSpec
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Whole, nothing_to_judge
from connectors.sync.result import SyncRequest
from connectors.sync.volume import Volume, VolumeOptions, judge_volume

if TYPE_CHECKING:
    import psycopg

MOST_SYNCS = 2_000
_LIVE = """
select started_at, rows_loaded, status like 'succeeded%%' from ops.syncs
where source = %(source)s and stream = %(stream)s and sync_id <> %(sync_id)s and trigger <> 'replay'
    and window_start is null and status <> 'running' and started_at > now() - %(history)s
order by started_at desc limit %(limit)s
"""
_PARTITIONS = """
select distinct on (window_start) window_start, rows_loaded + rows_deduplicated, true from ops.syncs
where source = %(source)s and stream = %(stream)s and sync_id <> %(sync_id)s and trigger <> 'replay'
    and status like 'succeeded%%' and window_start <> %(start)s
    and window_start between %(start)s - %(history)s and %(start)s + %(history)s
order by window_start desc, started_at desc limit %(limit)s
"""


class _VolumeAnomaly(Judge):
    def __init__(self, options: VolumeOptions, _stream: StreamSpec) -> None:
        self._options = options

    def concluded(self, whole: Whole) -> Outcome | None:
        request, rows = whole.request, whole.rows
        if request.trigger == "replay":
            return None
        others, held_over = earlier_volumes(whole.connection, request, whole.sync_id, self._options.history)
        zone = _zone(request.stream)
        if request.window is not None:
            # a partition that is read again loads only what changed; what counts is what it has
            now = Volume(request.window.start.astimezone(zone), rows.loaded + rows.deduplicated)
        else:
            now = Volume(datetime.now(zone), rows.loaded + held_over)
        return judge_volume(now, others, self._options)


def earlier_volumes(
    connection: "psycopg.Connection[Any]", request: SyncRequest, sync_id: str, history: timedelta
) -> tuple[list[Volume], int]:
    """The stream's other observations, and rows that failed syncs have published since the last good one.

    A failed sync may have published windows; they and the sync that went on after it are one observation. Live syncs
    are compared with live syncs, partitions with partitions: each with what its newest sync found.
    """
    window = request.window
    given = {
        "source": request.source.source, "stream": request.stream.name, "sync_id": sync_id, "history": history,
        "limit": MOST_SYNCS, "start": window and window.start,
    }  # fmt: skip
    zone = _zone(request.stream)
    found: list[Volume] = []
    held_over = 0
    rows = connection.execute(_LIVE if window is None else _PARTITIONS, given).fetchall()
    for at, loaded, has_succeeded in reversed(rows):
        held_over += loaded
        if has_succeeded:
            found.append(Volume(at.astimezone(zone), held_over))
            held_over = 0
    return found, held_over


def _zone(stream: StreamSpec) -> ZoneInfo:
    return ZoneInfo(stream.partitions.timezone if stream.partitions else "UTC")


def _every_stream(_stream: StreamSpec) -> bool:
    return True


CHECK = AuditCheck(
    name="volume_anomaly",
    description="Rows lie within the usual band for this hour and weekday, empty syncs included.",
    options=VolumeOptions,
    judge=_VolumeAnomaly,
    severity="warn",
    unjudged=nothing_to_judge("rows against earlier syncs"),
    applies_to=_every_stream,
)
