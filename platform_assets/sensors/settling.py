"""A sync whose process was killed gets its true final status within 60 s, also when nobody starts the stream again."""

from typing import TYPE_CHECKING, cast

import dagster as dg

if TYPE_CHECKING:
    from platform_assets.assets.resources import WarehouseResource

INTERVAL_SECONDS = 30
"""With the ten seconds of silence that `settle_lost` waits for, a dead sync is settled after 40 s at the latest."""


@dg.sensor(
    name="settle_lost_syncs",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"warehouse"},
    description="Gives every sync whose process is gone its true final status in ops.syncs.",
)
def settle_lost_syncs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    from connectors.sync.settle import settle_lost  # the driver loads with the first tick, not with definitions

    dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
    settled = settle_lost(dsn)
    for sync in settled:
        context.log.warning("settled a lost sync: %s", sync)
    if not settled:
        return dg.SkipReason("no sync has died without an end")
    return dg.SkipReason(f"settled {len(settled)}: {'; '.join(map(str, settled))}")
