"""A year of days, the daemon killed on the way: nothing is read twice, nothing is missing, one backfill is seen."""

from datetime import timedelta

import dagster as dg
import psycopg
import pytest

from platform_assets.backfills import plan, store
from tests.backfills.conftest import START, Platform, daily_orders, kill_all

DONE = "select 1 from ops.syncs where status like 'succeeded%' having count(*) >= {}"


def ask(platform: Platform, windows: int, **settings: object) -> store.Backfill:
    source = platform.source
    chosen = plan.choose(source.streams[0], "shop.orders", START, START + timedelta(days=windows - 1))
    with psycopg.connect(platform.warehouse.loader_dsn, autocommit=True) as connection:
        return store.create(connection, store.Wanted("shop", "orders", chosen, f"{windows} days of orders", **settings))  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_year_goes_on_where_it_was_when_the_daemon_is_killed(platform: Platform) -> None:
    windows = 365
    platform.shop.orders = daily_orders(windows)
    platform.shop.page_size = 100
    with dg.DagsterInstance.get() as instance:
        with platform.daemon("first") as daemon:
            backfill = ask(platform, windows)
            platform.wait_for(DONE.format(windows * 2 // 5), 1000)
            kill_all(daemon)
        finished = platform.rows("select window_start, sync_id from ops.syncs where status like 'succeeded%'")
        assert len(finished) < windows
        with platform.daemon("second"):
            platform.wait_for("select 1 from ops.backfills where ended_at is not null", 1300)

        assert platform.rows("select state, message from ops.backfills") == [("finished", "")]
        # every window once, those of before the kill not again
        twice = "select window_start from ops.syncs where status like 'succeeded%' group by 1 having count(*) > 1"
        assert platform.rows(twice) == []
        read = platform.rows(
            "select window_start::date, window_end::date from ops.syncs where status like 'succeeded%' order by 1"
        )
        assert read == [(START + timedelta(days=n), START + timedelta(days=n + 1)) for n in range(windows)]
        assert platform.rows("select count(*), count(distinct id) from raw_shop.orders") == [(730, 730)]
        balance = "rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined"
        assert platform.rows(f"select sum(rows_extracted), sum({balance}) from ops.syncs") == [(730, 730)]
        assert platform.rows("select 1 from ops.syncs where status = 'running'") == []
        # the live position is where it was: nowhere
        assert platform.rows("select count(*) from ops.stream_state") == [(0,)]
        # and Dagster shows one backfill with every partition
        (seen,) = instance.get_backfills()
        assert (seen.backfill_id, seen.title, seen.status.value) == (
            backfill.backfill_id, "365 days of orders", "COMPLETED_SUCCESS",
        )  # fmt: skip
        assert seen.asset_backfill_data is not None
        assert seen.asset_backfill_data.materialized_subset.num_partitions_and_non_partitioned_assets == windows
        assert len(instance.get_materialized_partitions(dg.AssetKey(["shop", "orders"]))) == windows
