"""dbt's sources and the declared streams are the same set, column by column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from connectors.specs import ColumnSpec, SourceSpec, StreamSpec
from platform_assets.contracts.dbt_files import out_of_step
from platform_assets.sources import load_sources
from tests.dbt.processes import PROJECT


def _streams() -> Iterator[tuple[SourceSpec, StreamSpec]]:
    for source in load_sources():
        for stream in source.streams:
            yield source, stream


def _dbt_sources() -> Iterator[dict[str, Any]]:
    for path in PROJECT.glob("models/**/*.yml"):
        yield from yaml.safe_load(path.read_text(encoding="utf-8")).get("sources", [])


def _dbt_tables() -> dict[tuple[str, str], dict[str, Any]]:
    return {(source["schema"], table["name"]): table for source in _dbt_sources() for table in source["tables"]}


def test_sources_and_streams_are_the_same_set() -> None:
    assert {source["name"]: source["schema"] for source in _dbt_sources()} == {
        source.source: source.schema_name for source in load_sources()
    }
    assert set(_dbt_tables()) == {(source.schema_name, stream.name) for source, stream in _streams()}


def test_generated_files_of_the_project_are_in_step_with_the_source_files() -> None:
    differing = [str(file.path) for file in out_of_step(load_sources(), PROJECT)]

    assert differing == [], "run `headwater contract write`"


def test_a_change_of_the_contract_is_seen_as_a_difference() -> None:
    (source,) = [source for source in load_sources() if source.source == "nyc_weather"]
    stream = source.streams[0]
    columns = dict(stream.columns) | {"temp": ColumnSpec(type="decimal", precision=5, scale=2, unit="°C")}
    changed = source.model_copy(update={"streams": (stream.model_copy(update={"columns": columns}),)})

    (file,) = out_of_step([changed], PROJECT)

    assert file.path == Path("models/staging/nyc_weather/nyc_weather.yml")
    assert '{name: temp, data_type: "numeric(5,2)", description: (°C)., config: {meta: {unit: °C}}}' in file.text


def test_every_column_and_table_is_described() -> None:
    tables = _dbt_tables()

    assert all(table["description"] for table in tables.values())
    columns = [column for table in tables.values() for column in table["columns"]]
    assert [column["name"] for column in columns if not column["description"]] == []


def test_every_stream_has_one_staging_model() -> None:
    for source, stream in _streams():
        model = PROJECT / "models" / "staging" / source.source / f"stg_{source.source}__{stream.name}.sql"
        assert f"source('{source.source}', '{stream.name}')" in model.read_text(encoding="utf-8")
        assert "where not coalesce(_deleted, false)" in model.read_text(encoding="utf-8")
