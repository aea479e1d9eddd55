"""Models inherit from the streams upstream: a freshness policy, and for marts the check `freshness_data`."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from connectors.errors import ConfigError, HeadwaterError
from connectors.specs import StreamSpec
from platform_assets.assets.metadata import check_result
from platform_assets.checks.upstream import Key, Promise, promise_of
from platform_assets.dbt.graph import Graph
from platform_assets.freshness import inherited_policy
from platform_assets.settings import PROJECT_ROOT, Settings
from platform_assets.sources import read_source_file, source_paths

MARTS = "marts"
CHECK_NAME = "freshness_data"


@dataclass(frozen=True, slots=True)
class ModelFreshness:
    """streams: of every model, by its key, the known ones upstream. promises: of the marts that have some."""

    streams: Mapping[dg.AssetKey, tuple[StreamSpec, ...]]
    promises: Mapping[dg.AssetKey, tuple[Promise, ...]]

    def of(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """The spec with a policy: its own, else the inherited one; what is built from no stream has none."""
        if spec.freshness_policy is not None or spec.key not in self.streams:
            return spec
        return spec.replace_attributes(freshness_policy=inherited_policy(self.streams[spec.key]))

    def check_specs(self) -> Iterator[dg.AssetCheckSpec]:
        for key in self.promises:
            yield dg.AssetCheckSpec(
                CHECK_NAME, asset=key, description="The data of every stream upstream is as new as promised."
            )

    def results(
        self, selected: Set[dg.AssetCheckKey], settings: Settings, log: dg.DagsterLogManager
    ) -> Iterator[dg.AssetCheckResult]:
        """One statement for all marts; none when the warehouse does not answer, which the build itself reports."""
        wanted = {key: self.promises[key] for key in self.promises if dg.AssetCheckKey(key, CHECK_NAME) in selected}
        if not wanted:
            return
        import psycopg  # the driver loads with the first build, not with definitions

        from platform_assets.checks.data_time import read_data_times
        from platform_assets.checks.upstream import worst
        from platform_assets.warehouse import ensure_warehouse

        keys = sorted({promise.key for promises in wanted.values() for promise in promises})
        try:
            with psycopg.connect(ensure_warehouse(settings).transformer_dsn, autocommit=True) as connection:
                data = read_data_times(connection, keys)
        except (psycopg.Error, HeadwaterError) as error:
            log.warning("The marts' data time is not known: %s", str(error).splitlines()[0])
            return
        now = datetime.now(UTC)
        for key, promises in wanted.items():
            yield check_result(worst(promises, data, now), key)


def model_freshness(graph: Graph, root: Path = PROJECT_ROOT) -> ModelFreshness:
    """From the manifest and the source files; a broken file only leaves its own streams out."""
    known = dict(_streams(root))
    streams: dict[dg.AssetKey, tuple[StreamSpec, ...]] = {}
    promises: dict[dg.AssetKey, tuple[Promise, ...]] = {}
    for id_, model in graph.models.items():
        sources = [_key(graph.key(parent)) for parent in sorted(graph.ancestors(id_)) if parent in graph.sources]
        if not sources:
            continue
        key = dg.AssetKey(model.key)
        upstream = [(source, known[source]) for source in sources if source in known]
        streams[key] = tuple(stream for _, stream in upstream)
        found = _promises(upstream) if model.layer == MARTS else ()
        if found:
            promises[key] = found
    return ModelFreshness(streams, promises)


def _key(asset_key: Sequence[str]) -> Key:
    """A source that names another asset key is none of ours."""
    return asset_key[0], asset_key[-1]


def _promises(upstream: Sequence[tuple[Key, StreamSpec]]) -> tuple[Promise, ...]:
    try:
        found = [promise_of(source[0], stream) for source, stream in upstream]
    except ConfigError:
        # the ingest location says it, with the place
        return ()
    return tuple(promise for promise in found if promise is not None)


def _streams(root: Path) -> Iterator[tuple[Key, StreamSpec]]:
    for path in source_paths(root):
        try:
            for source in read_source_file(path, root):
                for stream in source.streams:
                    yield (source.source, stream.name), stream
        except ConfigError:
            continue
