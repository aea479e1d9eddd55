"""Sensors of the platform."""

from collections.abc import Sequence

import dagster as dg

from platform_assets.sensors.backfills import run_backfills
from platform_assets.sensors.settling import settle_lost_syncs


def ingest_sensors() -> Sequence[dg.SensorDefinition]:
    """Every sensor of the ingest location."""
    return (settle_lost_syncs, run_backfills)
