"""dbt's sources and the declared streams are the same set, column by column."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from connectors.specs import SourceSpec, StreamSpec
from platform_assets.sources import load_sources
from tests.dbt.processes import PROJECT

TYPES: Mapping[str, str] = {
    "double": "double precision",
    "decimal": "numeric",
    "bool": "boolean",
    "timestamp": "timestamptz",
    "json": "jsonb",
    "binary": "bytea",
}
OWN_COLUMNS = {"_synced_at": "timestamptz", "_deleted": "boolean", "_dlt_load_id": "text"}


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


def test_columns_of_a_source_are_those_its_stream_declares() -> None:
    described = {
        key: {column["name"]: column["data_type"] for column in table["columns"]}
        for key, table in _dbt_tables().items()
    }

    assert described == {
        (source.schema_name, stream.name): {
            name: TYPES.get(column.type or "", column.type) for name, column in stream.columns.items()
        }
        | OWN_COLUMNS
        for source, stream in _streams()
    }


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
