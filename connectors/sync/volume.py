"""Did this sync load about as many rows as the ones before it?

A band of `sensitivity` robust deviations around the median of the last syncs; empty syncs count as zero rows, so
that a source that falls silent is seen. The robust deviation is 1.4826 x MAD, which equals the standard deviation
for normal noise (Rousseeuw and Croux, 1993), and never less than `tolerance` of the median nor than one row.
A stream that is often empty (a fifth of its syncs, and twice) has no lower bound, and its upper one comes from the
syncs that brought rows.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import Field

from connectors.specs import Spec
from connectors.sync.result import SyncRequest, Verdict

if TYPE_CHECKING:
    # definitions load this module's options; the driver loads with the first sync
    import psycopg

if TYPE_CHECKING:
    # definitions read the options of the check, and need no driver for it
    import psycopg

MAD_TO_DEVIATION = 1.4826
OFTEN_EMPTY_SHARE, OFTEN_EMPTY_SYNCS = 0.2, 2


class VolumeOptions(Spec):
    """How far is too far.

    sensitivity: robust deviations on either side of the median.
    history: how many earlier syncs are looked at.
    minimum: below so many earlier syncs the check passes and says that it is still learning.
    tolerance: smallest deviation, as a share of the median, for streams that hardly vary.
    """

    sensitivity: float = Field(default=4.0, gt=0)
    history: int = Field(default=30, ge=3, le=100)
    minimum: int = Field(default=7, ge=3, le=100)
    tolerance: float = Field(default=0.1, ge=0, le=1)


def judge_volume(rows: int, earlier: Sequence[int], options: VolumeOptions) -> Verdict:
    """Rows loaded by one sync against the band; passes while there are fewer than `minimum` earlier syncs.

    earlier: rows of the stream's earlier syncs, newest first.
    """
    past = list(earlier[: options.history])
    measured: dict[str, object] = {
        "rows": rows,
        "sample": len(past),
        "minimum_sample": options.minimum,
        "history": past[::-1],
    }
    is_often_empty = past.count(0) >= max(OFTEN_EMPTY_SYNCS, OFTEN_EMPTY_SHARE * len(past))
    sample = [value for value in past if value] if is_often_empty else past
    if len(sample) < options.minimum:
        kind = "earlier syncs with rows" if is_often_empty else "earlier syncs"
        learning = f"{rows} rows; learning: {len(sample)} of {options.minimum} {kind}"
        return _verdict(passed=True, explanation=learning, measured=measured)
    low, middle, high = band(sample, options)
    low = 0.0 if is_often_empty else low
    passed = low <= rows <= high
    side = "inside" if passed else "below" if rows < low else "above"
    return _verdict(
        passed=passed,
        explanation=f"{rows} rows, {side} the expected {low:.0f} to {high:.0f} "
        f"(median {middle:.0f} of {len(sample)} earlier syncs{' with rows' if is_often_empty else ''})",
        measured={**measured, "expected_low": low, "expected_high": high, "median": middle},
    )


def band(sample: Sequence[int], options: VolumeOptions) -> tuple[float, float, float]:
    """Lowest expected, median and highest expected rows; lowest is at least 1 where no sync was ever empty."""
    middle = float(median(sample))
    spread = float(median(abs(value - middle) for value in sample))
    deviation = max(MAD_TO_DEVIATION * spread, options.tolerance * middle, 1.0)
    floor = 1.0 if min(sample) > 0 else 0.0
    return max(floor, middle - options.sensitivity * deviation), middle, middle + options.sensitivity * deviation


def _verdict(*, passed: bool, explanation: str, measured: dict[str, object]) -> Verdict:
    return Verdict("volume_anomaly", passed, "warn", blocking=False, explanation=explanation, measured=measured)


def earlier_rows(connection: "psycopg.Connection[Any]", request: SyncRequest, sync_id: str, limit: int) -> list[int]:
    """Rows loaded by the stream's earlier succeeded syncs, newest first; a partition is compared with partitions."""
    rows = connection.execute(
        """
        select rows_loaded from ops.syncs
        where source = %s and stream = %s and sync_id <> %s and trigger <> 'replay'
            and status in ('succeeded', 'succeeded_empty', 'succeeded_with_warnings')
            and (window_start is not null) = %s
        order by started_at desc limit %s
        """,
        [request.source.source, request.stream.name, sync_id, request.window is not None, limit],
    ).fetchall()
    return [row[0] for row in rows]
