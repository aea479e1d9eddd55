"""A stream as a Dagster asset: definitions only, no connection and no engine."""

from collections.abc import Iterator

import dagster as dg

from connectors.contract import Kind
from connectors.specs import SourceSpec, StreamSpec
from platform_assets.assets.metadata import declared_metadata
from platform_assets.assets.partitions import partitions_definition
from platform_assets.checks import StreamCheck
from platform_assets.freshness import freshness_policy


def stream_key(source: SourceSpec, stream: StreamSpec) -> dg.AssetKey:
    return dg.AssetKey([source.source, stream.name])


def stream_asset(
    source: SourceSpec, stream: StreamSpec, kind: Kind, checks: tuple[StreamCheck, ...]
) -> dg.AssetsDefinition:
    """One op, one asset, its checks inside the op (a check of its own op would cost as much as a sync)."""
    key = stream_key(source, stream)
    spec = dg.AssetSpec(
        key,
        group_name=source.source,
        description=stream.description or source.description or None,
        owners=[stream.owner or source.owner],
        kinds={kind.name, kind.storage_kind, "postgres"},
        tags={**stream.tags, "headwater/write": stream.write or kind.default_write},
        metadata=declared_metadata(source, stream),
        freshness_policy=freshness_policy(stream),
    )
    partitions = partitions_definition(stream.partitions) if stream.partitions else None

    @dg.multi_asset(
        name=f"{source.source}__{stream.name}",
        specs=[spec],
        check_specs=[_check_spec(check, key, stream.owner or source.owner) for check in checks],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        pool=pool(source),
        required_resource_keys={"warehouse", "dlt", *(("sling",) if kind.name == "sling" else ())},
    )
    def _op(context: dg.AssetExecutionContext) -> Iterator[object]:
        from platform_assets.assets.materialize import StreamAsset, materialize

        yield from materialize(StreamAsset(key, source, stream, checks), context)

    return _op


def pool(source: SourceSpec) -> str:
    """Dagster's pool of the source's ops: the shared rate limit's name where there is one, else the source's."""
    rate_limit = getattr(source.connector, "rate_limit", None)
    return getattr(rate_limit, "pool", None) or source.source


def _check_spec(check: StreamCheck, key: dg.AssetKey, owner: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        check.name,
        asset=key,
        description=check.type.description,
        blocking=check.blocking,
        metadata={
            "type": check.type.name,
            "owner": check.owner or owner,
            **({"severity": check.severity} if check.severity else {}),
        },
    )
