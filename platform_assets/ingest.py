"""The ingest code location: every stream of every source file. Offline, without secrets, without dlt and dbt."""

from pathlib import Path

import dagster as dg

from platform_assets.settings import PROJECT_ROOT


@dg.definitions
def defs() -> dg.Definitions:
    return location(PROJECT_ROOT)


def location(root: Path) -> dg.Definitions:
    """The whole location over the source files of `root`."""
    from platform_assets.assets.resources import ingest_resources
    from platform_assets.components.loading import ingest_definitions
    from platform_assets.sensors import ingest_sensors

    return dg.Definitions.merge(
        ingest_definitions(root),
        dg.Definitions(resources=ingest_resources(), sensors=ingest_sensors(), executor=dg.in_process_executor),
    )
