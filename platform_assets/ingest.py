"""The ingest code location: every stream of every source file. Offline, without secrets, without dlt and dbt."""

import dagster as dg

from platform_assets.settings import PROJECT_ROOT


@dg.definitions
def defs() -> dg.Definitions:
    from platform_assets.assets.resources import ingest_resources
    from platform_assets.components.loading import ingest_definitions

    return dg.Definitions.merge(
        ingest_definitions(PROJECT_ROOT),
        dg.Definitions(resources=ingest_resources(), executor=dg.in_process_executor),
    )
