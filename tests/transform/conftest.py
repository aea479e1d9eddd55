"""The transform location on a warehouse with the demo's streams; runs are real, on an instance of each test's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from platform_assets.settings import Settings, load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.dbt.demo_raw import load_demo_raw
from tests.support.servers import TestServer, clean_environment, database_pair


@dataclass(frozen=True, slots=True)
class Transform:
    """run(instance, "marts/flights", ...): a run of those assets with their checks, of all when none is named."""

    definitions: dg.Definitions
    settings: Settings
    warehouse: Warehouse

    @property
    def assets(self) -> Sequence[dg.AssetsDefinition]:
        return [asset for asset in self.definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]

    def run(
        self, instance: dg.DagsterInstance, *keys: str, config: dict[str, object] | None = None
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            self.assets,
            instance=instance,
            selection=[dg.AssetKey(key.split("/")) for key in keys] or None,
            run_config={"ops": {"dbt": {"config": config}}} if config else None,
            raise_on_error=False,
        )


@pytest.fixture(scope="session")
def transform(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transform]:
    from platform_assets.transform import defs

    home = tmp_path_factory.mktemp("transform") / "home"
    with database_pair(server, f"transform_{uuid4().hex[:12]}") as pair, pytest.MonkeyPatch.context() as patch:
        for name, value in ({"HEADWATER_HOME": str(home)} | pair).items():
            patch.setenv(name, value)
        settings = load_settings()
        warehouse = ensure_warehouse(settings)
        load_demo_raw(warehouse)
        yield Transform(defs(), settings, warehouse)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def project_settings(tmp_path: Path) -> Settings:
    """A home of its own; no warehouse runs there."""
    return load_settings(clean_environment() | {"HEADWATER_HOME": str(tmp_path / "home")})
