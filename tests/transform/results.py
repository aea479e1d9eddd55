"""What a run says of itself."""

import dagster as dg


def built(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.materialization.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def red_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def message(result: dg.ExecuteInProcessResult) -> str:
    """What the failed op says, as the UI shows it."""
    failed = next(event for event in result.all_events if event.is_step_failure)
    data = failed.step_failure_data
    if data.user_failure_data is not None:
        return data.user_failure_data.description or ""
    return str(data.error)


def report(
    instance: dg.DagsterInstance,
    key: str,
    *,
    check: str,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    blocking: bool = True,
) -> None:
    """A sync of a stream of another location, in a run of its own, and what its check said."""
    asset_key = dg.AssetKey(key.split("/"))

    @dg.multi_asset(
        name="sync",
        specs=[dg.AssetSpec(asset_key)],
        check_specs=[dg.AssetCheckSpec(check, asset=asset_key, blocking=blocking)],
    )
    def sync():
        yield dg.MaterializeResult(asset_key=asset_key)
        yield dg.AssetCheckResult(asset_key=asset_key, check_name=check, passed=passed, severity=severity)

    dg.materialize([sync], instance=instance, raise_on_error=False)


def sync_without_checks(instance: dg.DagsterInstance, key: str) -> None:
    @dg.asset(key=dg.AssetKey(key.split("/")))
    def sync() -> None: ...

    dg.materialize([sync], instance=instance)


def sync_without_a_word(instance: dg.DagsterInstance, key: str, *, check: str, brings_data: bool) -> None:
    """A run that ends before its blocking check says anything, after the data have come or before."""
    asset_key = dg.AssetKey(key.split("/"))

    @dg.multi_asset(
        name="sync",
        specs=[dg.AssetSpec(asset_key)],
        check_specs=[dg.AssetCheckSpec(check, asset=asset_key, blocking=True)],
    )
    def sync(context: dg.AssetExecutionContext):
        if brings_data:
            context.log_event(dg.AssetMaterialization(asset_key))
        raise dg.Failure("the machine went away", allow_retries=False)
        yield

    dg.materialize([sync], instance=instance, raise_on_error=False)
