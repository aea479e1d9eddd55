"""A stream as a Dagster asset: definitions only, no connection and no engine."""

from collections.abc import Iterator, Mapping

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
    partitions = partitions_definition(stream.partitions) if stream.partitions else None

    @dg.multi_asset(
        name=f"{source.source}__{stream.name}",
        specs=[_spec(source, stream, kind)],
        check_specs=list(_check_specs(source, stream, checks)),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(stream.partitions.per_run) if stream.partitions else None,
        pool=pool(source),
        required_resource_keys={"warehouse", "dlt", *(("sling",) if kind.name == "sling" else ())},
    )
    def _op(context: dg.AssetExecutionContext) -> Iterator[object]:
        from platform_assets.assets.materialize import StreamAsset, materialize

        yield from materialize(StreamAsset(key, source, stream, checks), context)

    return _op


def source_asset(source: SourceSpec, kind: Kind, checks: Mapping[str, tuple[StreamCheck, ...]]) -> dg.AssetsDefinition:
    """One op for all streams of a source whose program emits them together; a run reads those that it selects."""

    @dg.multi_asset(
        name=source.source,
        specs=[_spec(source, stream, kind) for stream in source.streams],
        check_specs=[spec for stream in source.streams for spec in _check_specs(source, stream, checks[stream.name])],
        can_subset=True,
        pool=pool(source),
        required_resource_keys={"warehouse", "dlt"},
    )
    def _op(context: dg.AssetExecutionContext) -> Iterator[object]:
        from platform_assets.assets.materialize import StreamAsset
        from platform_assets.assets.together import materialize_together

        assets = [
            StreamAsset(stream_key(source, stream), source, stream, checks[stream.name]) for stream in source.streams
        ]
        yield from materialize_together(assets, context)

    return _op


def _spec(source: SourceSpec, stream: StreamSpec, kind: Kind) -> dg.AssetSpec:
    return dg.AssetSpec(
        stream_key(source, stream),
        group_name=source.source,
        description=stream.description or source.description or None,
        owners=[stream.owner or source.owner],
        kinds={kind.name, kind.storage_kind, "postgres"},
        tags={**stream.tags, "headwater/write": stream.write or kind.default_write},
        metadata=declared_metadata(source, stream),
        freshness_policy=freshness_policy(stream),
        # partitions are reported one by one while the op runs, not by its output
        skippable=stream.partitions is not None,
    )


def _check_specs(
    source: SourceSpec, stream: StreamSpec, checks: tuple[StreamCheck, ...]
) -> Iterator[dg.AssetCheckSpec]:
    key, owner = stream_key(source, stream), stream.owner or source.owner
    return (_check_spec(check, key, owner) for check in checks)


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
