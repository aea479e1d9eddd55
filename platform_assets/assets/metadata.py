"""What a sync measured, in the names and types that the Dagster UI shows and plots.

Numbers stay numbers, 0 too, so that every one of them has a plot over the materializations.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from connectors.specs import ColumnSpec, SourceSpec, StreamSpec
from connectors.sync import SyncResult, Verdict

# as PostgreSQL says them
_TYPES: Mapping[str, str] = {
    "double": "double precision",
    "decimal": "numeric",
    "bool": "boolean",
    "timestamp": "timestamp with time zone",
    "json": "jsonb",
    "binary": "bytea",
}

PLOT = "plot"
"""The measurement that is Markdown."""


def declared_metadata(source: SourceSpec, stream: StreamSpec) -> dict[str, Any]:
    """Known before any sync: declared columns, and the relation, whose database only a sync knows."""
    metadata: dict[str, Any] = {"dagster/table_name": f"{source.schema_name}.{stream.name}"}
    if stream.columns:
        keys = set(stream.primary_key)
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[_declared_column(name, column, is_key=name in keys) for name, column in stream.columns.items()]
        )
    return metadata


def _declared_column(name: str, column: ColumnSpec, *, is_key: bool) -> dg.TableColumn:
    type_ = _TYPES.get(column.type or "", column.type or "observed")
    if column.type == "decimal" and column.precision is not None:
        type_ = f"numeric({column.precision},{column.scale or 0})"
    unit = f" ({column.unit})" if column.unit else ""
    return dg.TableColumn(
        name,
        type_,
        description=f"{column.description}{unit}" or None,
        constraints=dg.TableColumnConstraints(nullable=column.nullable and not is_key),
    )


def sync_metadata(result: SyncResult, stream: StreamSpec, table_rows: int | None) -> dict[str, Any]:
    """One materialization's metadata. Units are in the names; sizes in bytes, times in seconds.

    Args:
        table_rows: rows now in the raw table; `dagster/row_count` is left out where it was not counted, because
            there it means the table and not the sync.
    """
    rows = result.rows
    return {
        "dagster/table_name": result.table_name,
        **({"dagster/row_count": table_rows} if table_rows is not None else {}),
        **({"dagster/column_schema": _observed_schema(result, stream)} if result.columns else {}),
        "status": result.status,
        "rows_extracted": rows.extracted,
        "rows_loaded": rows.loaded,
        "rows_updated": rows.updated,
        "rows_deleted": rows.deleted,
        "rows_deduplicated": rows.deduplicated,
        "rows_filtered": rows.filtered,
        "rows_quarantined": rows.quarantined,
        "seconds": round(result.seconds, 3),
        **{f"seconds_{step}": round(float(seconds), 3) for step, seconds in result.step_seconds.items()},
        "received_bytes": result.received_bytes,
        "loaded_bytes": result.loaded_bytes,
        "requests": result.requests,
        "wait_seconds": round(float(result.wait_seconds), 3),
        "peak_memory_bytes": result.peak_memory_bytes,
        "windows": result.windows,
        **result.measures,
        "state_before": dg.MetadataValue.json(dict(result.state_before)),
        "state_after": dg.MetadataValue.json(dict(result.state_after)),
        **({"newest_cursor": result.newest_cursor} if result.newest_cursor else {}),
        **({"schema_version": result.schema_version} if result.schema_version is not None else {}),
        "sync_id": result.sync_id,
        "load_ids": dg.MetadataValue.json(list(result.load_ids)),
        **({"message": result.message} if result.message else {}),
    }


def _observed_schema(result: SyncResult, stream: StreamSpec) -> dg.TableSchema:
    """The raw table's columns; a description that only the source file has is added."""
    declared = {name.lower(): column.description for name, column in stream.columns.items()}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                description=column.description or declared.get(column.name.lower()) or None,
                constraints=dg.TableColumnConstraints(nullable=column.is_nullable),
            )
            for column in result.columns
        ]
    )


def check_result(verdict: Verdict, key: dg.AssetKey) -> dg.AssetCheckResult:
    """The verdict as Dagster's: the explanation first, and every measurement as metadata."""
    severity = dg.AssetCheckSeverity.ERROR if verdict.severity == "error" else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=verdict.name,
        passed=verdict.passed,
        severity=severity,
        description=verdict.explanation,
        metadata={
            name: dg.MetadataValue.md(value) if name == PLOT else _plain(value)
            for name, value in verdict.measured.items()
        },
    )


def _plain(value: Any) -> Any:
    """Numbers and texts as they are, anything nested as JSON; None is shown, not dropped."""
    if isinstance(value, bool | int | float | str):
        return value
    if value is None:
        return "none"
    return dg.MetadataValue.json(_jsonable(value))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
