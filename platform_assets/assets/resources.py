"""Dagster's resources of the ingest location. All are thin: nothing connects or imports an engine before an op runs."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import dagster_dlt
    import dagster_sling


class WarehouseResource(dg.ConfigurableResource):
    """The PostgreSQL that streams load into, started and bootstrapped by whoever asks first."""

    def loader_dsn(self) -> str:
        """libpq URL of the loader role; it holds a password.

        Raises:
            HeadwaterError: the warehouse cannot be reached or started.
        """
        from platform_assets.settings import load_settings
        from platform_assets.warehouse import ensure_warehouse

        return ensure_warehouse(load_settings()).loader_dsn


class DltResource(dg.ConfigurableResource):
    """dlt's settings for the syncs of this location.

    The sync engine runs dlt itself, so that data, state and ledger commit together; this resource hands it dlt's own
    environment variables for the length of one op. `official()` is dagster-dlt's resource, for assets of your own
    that are written with `@dlt_assets`; importing it costs 2 CPU seconds, so it is built on first use.

    load_workers: parallel load jobs of one package; None is dlt's default.
    log_level: of dlt's own logger.
    """

    load_workers: int | None = None
    log_level: str = "WARNING"

    @contextmanager
    def applied(self) -> Generator[None]:
        """Environment of dlt inside the block."""
        settings = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": self.log_level}
        if self.load_workers is not None:
            settings["LOAD__WORKERS"] = str(self.load_workers)
        with _environment(settings):
            yield

    def official(self) -> "dagster_dlt.DagsterDltResource":
        from dagster_dlt import DagsterDltResource

        return DagsterDltResource()


class SlingResource(dg.ConfigurableResource):
    """Sling's settings for the syncs of this location.

    The sling kind runs the Sling binary as a reader; what it reads is loaded by the engine like any other kind's.
    This resource hands it Sling's own environment variables for the length of one op. `official(connections)` is
    dagster-sling's resource, for assets of your own that are written with `@sling_assets`.

    binary: path of the Sling binary; None is the one of the installed wheel.
    """

    binary: str | None = None

    @contextmanager
    def applied(self) -> Generator[None]:
        """Environment of Sling inside the block."""
        settings = {"SLING_DISABLE_TELEMETRY": "true"}
        if self.binary is not None:
            settings["SLING_BINARY"] = self.binary
        with _environment(settings):
            yield

    def official(self, connections: "list[dagster_sling.SlingConnectionResource]") -> "dagster_sling.SlingResource":
        from dagster_sling import SlingResource as Official

        with self.applied():
            return Official(connections=connections)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Generator[None]:
    """Variables set inside the block, except those that the operator has set: theirs win."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def ingest_resources() -> dict[str, object]:
    """Every resource of the ingest location, by the key that ops ask for."""
    return {"warehouse": WarehouseResource(), "dlt": DltResource(), "sling": SlingResource()}
