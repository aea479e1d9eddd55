"""The `DbtProject` component: a dbt project's models as assets and its data tests as checks."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster.components import Scaffolder, ScaffoldRequest, scaffold_with

from connectors.errors import HeadwaterError
from platform_assets.assets.failures import as_dagster
from platform_assets.components.model_freshness import model_freshness
from platform_assets.dbt.build import Build, BuildConfig, build
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.dbt.specs import asset_specs, check_specs
from platform_assets.settings import load_settings

_TEMPLATE = """\
type: platform_assets.components.DbtProject
attributes:
  project: ../../../../dbt_project   # from this file's folder
"""


class DbtProjectScaffolder(Scaffolder):
    """`dg scaffold defs platform_assets.components.DbtProject transform/<name>`."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        (request.target_path / "defs.yaml").write_text(_TEMPLATE, encoding="utf-8")


@scaffold_with(DbtProjectScaffolder)
class DbtProject(dg.Component, dg.Model, dg.Resolvable):
    """One dbt project on the warehouse. Group, owners, tags and freshness come from the models' own dbt config.

    See docs/dbt.md.
    """

    project: str
    """Folder of dbt_project.yml, from the folder of this file."""
    name: str = "dbt"
    """Of the op, its pool and the automation sensor."""
    automated: bool = True
    """Models follow their parents, once the daemon runs."""
    threads: int = 4
    """Connections that one dbt process uses."""
    retries: int = 2
    """Tries after the warehouse went away; nothing else is tried again."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises ConfigError: dbt cannot parse the project."""
        folder = context.path if context.path.is_dir() else context.path.parent
        project_dir = (folder / self.project).resolve()
        manifest = prepared_manifest(project_dir, load_settings())
        graph = Graph(read_manifest(manifest))
        assets = _assets(self, Build(graph, project_dir, manifest, self.threads))
        sensors = [_automation(self.name, assets)] if self.automated else []
        return dg.Definitions(assets=[assets], sensors=sensors)


def _assets(component: DbtProject, work: Build) -> dg.AssetsDefinition:
    """All models in one op: one dbt process builds them side by side, and when a model or a test fails dbt leaves out
    what is built on it and goes on with the rest. An op for each layer would be skipped as a whole."""

    freshness = model_freshness(work.graph)

    @dg.multi_asset(
        name=component.name,
        specs=[freshness.of(spec) for spec in asset_specs(work.graph, is_automated=component.automated)],
        check_specs=[*check_specs(work.graph), *freshness.check_specs()],
        can_subset=True,
        pool=component.name,
    )
    def _op(context: dg.AssetExecutionContext, config: BuildConfig) -> Iterator[Any]:
        settings, failed = load_settings(), None
        try:
            yield from build(work, context, config, settings)
        except HeadwaterError as error:
            failed = error
        yield from freshness.results(context.selected_asset_check_keys, settings, context.log)
        if failed is not None:
            raise as_dagster(failed, component.retries, context.retry_number) from failed

    return _op


def _automation(name: str, assets: dg.AssetsDefinition) -> dg.SensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        f"{name}_automation",
        target=dg.AssetSelection.assets(*assets.keys),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Asks for models whose parents were updated and whose blocking checks upstream have passed.",
    )
