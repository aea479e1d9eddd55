"""Models as asset specs and data tests as check specs; from the manifest alone, so a location loads without dbt."""

from collections.abc import Iterator
from functools import reduce
from operator import and_
from typing import Any, cast

import dagster as dg

from platform_assets.dbt.graph import Column, Freshness, Graph, Model


def asset_specs(graph: Graph, *, is_automated: bool) -> Iterator[dg.AssetSpec]:
    """One spec a model.

    is_automated: give it the condition under which the daemon runs it.
    """
    for model in graph.models.values():
        yield dg.AssetSpec(
            dg.AssetKey(model.key),
            deps=[dg.AssetKey(graph.key(parent)) for parent in model.parents],
            description=_description(model),
            metadata=_metadata(model),
            skippable=True,
            group_name=model.group or model.layer,
            code_version=model.code_version,
            owners=list(model.owners),
            tags=dict.fromkeys(model.tags, ""),
            kinds={"dbt", "postgres", model.materialized},
            freshness_policy=_freshness_policy(model.freshness),
            automation_condition=automation_condition(graph, model) if is_automated else None,
        )


def check_specs(graph: Graph) -> Iterator[dg.AssetCheckSpec]:
    """One spec a data test; a test of severity `error` blocks what is built on its model."""
    for test in graph.tests.values():
        yield dg.AssetCheckSpec(
            test.name,
            asset=dg.AssetKey(graph.key(test.model)),
            additional_deps=[dg.AssetKey(graph.key(other)) for other in test.others],
            description=test.description,
            blocking=test.is_blocking,
        )


def automation_condition(graph: Graph, model: Model) -> dg.AutomationCondition[dg.AssetKey]:
    """Follow the parents, but only over data whose blocking checks have passed, however far upstream it is.

    Looking one step up is not enough: a view passes its raw table's rows on without being rebuilt,
    so a mart with one good and one bad source would be asked for by the good one. Each farther ancestor is looked at.
    `any_deps_missing` would wait for every partition of a partitioned stream; one partition is enough to start.
    `since_last_handled` would take the first look for a build: a model that was never built follows what is there.
    """
    sources = sorted(id_ for id_ in graph.ancestors(model.unique_id) if id_ in graph.sources)
    source_keys = [dg.AssetKey(graph.key(id_)) for id_ in sources]
    missing = dg.AutomationCondition.any_deps_missing()
    if source_keys:
        missing = missing.ignore(dg.AssetSelection.assets(*source_keys))
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    follows = (
        (dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()).since(handled)
        & ~missing
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("follows_its_parents")
    there = [
        dg.AutomationCondition.asset_matches(key, ~dg.AutomationCondition.missing()).with_label(
            f"{key.to_user_string()} has been synced"
        )
        for key in source_keys
    ]
    farther = sorted(graph.ancestors(model.unique_id) - set(model.parents))
    passed = [
        dg.AutomationCondition.asset_matches(key, _may_be_built_on()).with_label(
            f"blocking checks of {key.to_user_string()} passed"
        )
        for key in (dg.AssetKey(graph.key(id_)) for id_ in farther if _may_block(graph, id_))
    ]
    near = dg.AutomationCondition.all_deps_match(_may_be_built_on()).with_label("all_deps_blocking_checks_passed")
    return reduce(and_, [follows, near, *there, *passed])


def _may_be_built_on() -> dg.AutomationCondition[dg.AssetKey]:
    """Its blocking checks have passed, or it is built in the same run: there dbt stops at a test that fails.

    Dagster's own `all_deps_blocking_checks_passed` wants each check to have passed or to be asked for by itself, so a
    first build would take one run for every layer.
    """
    passed = dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed(), blocking_only=True)
    return cast("dg.AutomationCondition[dg.AssetKey]", dg.AutomationCondition.will_be_requested() | passed)


def _may_block(graph: Graph, unique_id: str) -> bool:
    """A source's checks belong to another location, so it may always; a model when one of its tests does."""
    return unique_id in graph.sources or any(test.is_blocking for test in graph.tests_of.get(unique_id, ()))


def _description(model: Model) -> str:
    text = model.description.strip() or f"dbt {model.materialized} {model.relation}"
    if model.deprecation_date:
        text = f"**Deprecated: goes away after {model.deprecation_date[:10]}.**\n\n{text}"
    return f"{text}\n\n```sql\n{model.sql.strip()}\n```" if model.sql else text


def _metadata(model: Model) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/table_name": model.relation,
        "dbt/materialized": model.materialized,
        "dbt/unique_id": model.unique_id,
    }
    if model.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(columns=[_table_column(column) for column in model.columns])
    if model.deprecation_date:
        metadata["dbt/deprecation_date"] = model.deprecation_date[:10]
    return metadata


def _table_column(column: Column) -> dg.TableColumn:
    return dg.TableColumn(
        column.name,
        column.type or "observed",
        description=column.description or None,
        constraints=dg.TableColumnConstraints(
            nullable=column.is_nullable, unique=column.is_unique, other=list(column.other_constraints)
        ),
    )


def _freshness_policy(freshness: Freshness | None) -> dg.FreshnessPolicy | None:
    if freshness is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=freshness.fail_after, warn_window=freshness.warn_after)
