"""The `Source` component: one file per source, validated by the same models as the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfoNotFoundError

import dagster as dg
from dagster.components import Scaffolder, ScaffoldRequest, scaffold_with
from dagster_shared.check import CheckError
from pydantic import BaseModel, ConfigDict

from connectors.errors import ConfigError
from connectors.registry import KINDS, kind
from connectors.specs import SourceSpec, parse_source
from platform_assets.assets.schedules import source_schedules
from platform_assets.assets.streams import source_asset, stream_asset
from platform_assets.checks import checks_of
from platform_assets.sensors.backfills import backfill_sensors
from platform_assets.sensors.webhook_inbox import inbox_sensors

_TEMPLATE = """\
type: platform_assets.components.Source
attributes:
  source: {name}                 # schema raw_{name}, asset keys [{name}, <stream>]
  owner: team:data
  connector:
    kind: rest
    base_url: env:{upper}_URL
    auth: {{type: bearer, token: env:{upper}_TOKEN}}
  streams:
    - name: items
      path: /items
      primary_key: [id]
      write: merge
"""


class SourceScaffolder(Scaffolder):
    """`dg scaffold defs platform_assets.components.Source ingest/<name>`: a file to fill in, not a finished source."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        name = request.target_path.name
        text = _TEMPLATE.format(name=name, upper=name.upper())
        (request.target_path / "defs.yaml").write_text(text, encoding="utf-8")


class SourceAttributes(BaseModel):
    """Takes every key: `parse_source` judges them, with better words. The JSON schema is the strict one."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        from platform_assets.components.schema import source_schema

        return source_schema({name: kind(name) for name in KINDS})


@scaffold_with(SourceScaffolder)
class Source(dg.Component):
    """One source system: its connector, its streams and their policy. Each stream becomes one asset.

    See docs/sources.md for the keys.
    """

    def __init__(self, spec: SourceSpec, place: str) -> None:
        self.spec = spec
        self.place = place

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return SourceAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Raises ConfigError: the file is wrong; names the file, the stream, the key and the nearest valid key."""
        place = _place(context)
        attributes_ = (attributes.model_extra or {}) if attributes else {}
        return cls(parse_source(attributes_, place, context.project_root / Path(place).parent), place)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return source_definitions(self.spec, self.place)


def source_definitions(spec: SourceSpec, place: str) -> dg.Definitions:
    """Assets, checks, schedules and sensors of one source; no network, no secret, no engine.

    Raises:
        ConfigError: a check, an owner, a tag, a schedule or a time zone is wrong.
    """
    with _friendly(f"{place}: schedules"):
        schedules = list(source_schedules(spec))
    sensors = [*inbox_sensors(spec), *backfill_sensors(spec)]
    return dg.Definitions(assets=list(_assets(spec, place)), schedules=schedules, sensors=sensors)


def _assets(spec: SourceSpec, place: str) -> Iterator[dg.AssetsDefinition]:
    entry = kind(spec.connector.kind)
    if spec.connector.reads_together:
        checks_by_stream = {stream.name: checks_of(stream, place) for stream in spec.streams}
        with _friendly(f"{place}: streams"):
            yield source_asset(spec, entry, checks_by_stream)
        return
    for stream in spec.streams:
        checks = checks_of(stream, place)
        with _friendly(f"{place}: streams[{stream.name}]"):
            yield stream_asset(spec, stream, entry, checks)


class _friendly:  # noqa: N801 (reads as a statement; contextlib's generator form would cost 500 frames a load)
    """Dagster's own objections to a name, an owner or a cron, with the place in the file."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind_: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, dg.DagsterInvalidDefinitionError | ZoneInfoNotFoundError | CheckError):
            raise ConfigError(self.where, " ".join(str(error).split()), "See docs/sources.md.") from error


def _place(context: dg.ComponentLoadContext) -> str:
    folder = context.path
    path = folder if folder.suffix in (".yaml", ".yml") else folder / "defs.yaml"
    return str(path.relative_to(context.project_root) if path.is_relative_to(context.project_root) else Path(path))
