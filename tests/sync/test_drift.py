"""The engine's own word on drift: red while any version waits for somebody's decision."""

from connectors.sync import SyncResult, Verdict
from platform_assets.warehouse import Warehouse
from tests.support.scripted import records, sync
from tests.support.sql import run as sql


def test_a_version_that_waits_stays_red_behind_newer_ones_until_it_is_accepted(warehouse: Warehouse) -> None:
    def synced(**row: object) -> SyncResult:
        return sync(warehouse.loader_dsn, [records({"id": 1}, row)], write="merge", primary_key="id")

    def drift(result: SyncResult) -> Verdict:
        return next(verdict for verdict in result.verdicts if verdict.name == "schema_drift")

    assert drift(synced(id=2, amount=1)).passed
    retyped = synced(id=2, amount="much")
    newer = synced(id=2, amount=2, colour="red")

    versions = sql(warehouse.admin_dsn, "select version, decision from ops.schema_versions order by version")
    assert versions == [(1, "first"), (2, "pending"), (3, "evolved")]
    for result in (retyped, newer):
        assert result.status == "succeeded_with_warnings"
        assert (drift(result).passed, drift(result).severity) == (False, "warn")
        assert "schema version 2 is pending: retyped amount (quarantined)" in result.message

    sql(warehouse.admin_dsn, "update ops.schema_versions set decision = 'accepted' where version = 2")
    accepted = synced(id=2, amount=3, colour="red")
    assert (accepted.status, drift(accepted).passed) == ("succeeded", True)
