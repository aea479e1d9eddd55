"""From the source system to the marts: of each fault exactly its check is red, its windows run, its assets follow.

Every test takes the next day of the demo's flights, which is one window of some 900 rows in five pages, and leaves the
platform green. What happened is read from the event log and from the UI's own server.
"""

from datetime import timedelta

import pytest

from demo.dataset import FIRST_DAY
from scripts import screenshots
from tests.scenarios.conftest import LATE
from tests.scenarios.platform import FLIGHTS, OF_FLIGHTS, Platform, everything

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
DRIFT, GREEN = {FLIGHTS: {"schema_drift"}}, dict[str, frozenset[str]]()
OF_WEATHER_ALONE = {"staging/stg_nyc_weather__weather", "marts/weather_hours"}
REFUSED = {"staging/stg_nyc_flights__flights", "marts/carrier_days"}


def days_before(partition: str) -> list[str]:
    """All partitions before that one."""
    days = (FIRST_DAY + timedelta(days=number) for number in range(31))
    return [f"{day}" for day in days if f"{day}" < partition]


def days_with(platform: Platform, condition: str) -> list[str]:
    """Days of which some raw row is so."""
    day = "make_date(year::int, month::int, day::int)::text"
    return [
        row[0]
        for row in platform.rows(f"select distinct {day} from raw_nyc_flights.flights where {condition} order by 1")
    ]


def in_mart(platform: Platform, partition: str, what: str = "count(*)") -> int:
    return platform.rows(f"select {what} from marts.flights where flight_date = %s", partition)[0][0]


def test_a_backfill_of_the_ui_is_ours_and_the_marts_follow_it(platform: Platform) -> None:
    status = platform.headwater("backfill", "status", platform.history)

    assert "finished" in status, status
    found = platform.rows(
        "select partition from ops.backfill_windows where backfill_id = %s order by 1", platform.history
    )
    assert [partition for (partition,) in found] == days_before("2013-01-06")
    assert all(in_mart(platform, partition) > 500 for (partition,) in found)


def test_an_added_field_is_no_fault_and_fills_history(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(added={"gate": "B22"})

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.partitions) == (True, GREEN, (partition,))
    assert platform.red_in_ui() == set()
    assert platform.windows(since) == {"new_columns": days_before(partition)}
    assert days_with(platform, "gate is null") == []
    assert everything(platform.built(since)) == OF_FLIGHTS
    platform.usual |= {"added": {"gate": "B22"}}


def test_a_dropped_field_is_drift_and_its_window_is_read_again_once_accepted(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(dropped=["tailnum"])

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.partitions) == (True, DRIFT, (partition,))
    assert platform.red_in_ui() == {"schema_drift"}
    # a warning keeps no mart from following, which serves NULL
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert (in_mart(platform, partition) > 500, in_mart(platform, partition, "count(tail_number)")) == (True, 0)

    platform.misbehave()
    platform.headwater("schema", "accept", "nyc_flights.flights", "--reason", "they put it back")
    assert platform.windows(since) == {"failed_checks": [partition]}
    assert platform.red_in_ui() == set()
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert in_mart(platform, partition, "count(tail_number)") > 500


def test_a_retyped_field_holds_the_window_back_until_the_source_is_mended(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(retyped=["distance"])

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.materialized) == (False, {FLIGHTS: {"quarantine"}}, frozenset())
    assert platform.red_in_ui() == {"quarantine"}
    assert everything(platform.built(since)) == set()
    assert partition not in days_with(platform, "true")

    platform.misbehave()
    assert platform.sync(partition).red == GREEN
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert in_mart(platform, partition) > 500
    assert platform.rows("select 1 from ops.backfills where created_at > %s", since) == []


def test_a_lost_page_holds_its_window_and_the_marts_back_until_it_is_read_whole(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(lost_page=3)

    # or it would have the page read again while it is still lost
    with platform.without("nyc_flights__backfill_late"):
        seen = platform.sync(partition)

        assert (seen.succeeded, seen.red, seen.materialized) == (False, {FLIGHTS: {"reconcile"}}, frozenset())
        assert platform.red_in_ui() == {"reconcile"}
        if screenshots.program_path():
            platform.picture(FLIGHTS, "reconcile", "Failed", "rows, ", "were read")
        assert partition not in days_with(platform, "true")
        # another stream is fine, and what needs no flights follows it; a click on what needs them is refused
        platform.report("nyc_weather/weather")
        assert everything(platform.built(since)) == OF_WEATHER_ALONE
        refused = platform.build(*REFUSED)
        assert (refused.succeeded, refused.materialized) == (False, frozenset())
        platform.misbehave()

    assert platform.windows(since) == {"late": [partition]}
    assert platform.red_in_ui() == set()
    assert everything(platform.built(since)) == OF_FLIGHTS | OF_WEATHER_ALONE
    assert in_mart(platform, partition) > 500


def test_half_a_volume_is_red_and_its_window_is_read_again_once_volumes_are_right(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(halved=True)

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.partitions) == (True, {FLIGHTS: {"volume_anomaly"}}, (partition,))
    assert platform.red_in_ui() == {"volume_anomaly"}
    half = platform.rows("select count(*) from raw_nyc_flights.flights where day = %s", int(partition[-2:]))[0][0]
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert in_mart(platform, partition) == half

    platform.misbehave()
    following = platform.next_day()
    assert platform.sync(following).red == GREEN
    assert platform.windows(since) == {"failed_checks": [partition]}
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert abs(in_mart(platform, partition) - 2 * half) <= 1


def test_a_stalled_cursor_is_an_empty_window_and_stale_data_in_the_stream_and_in_its_marts(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(stalled_at=f"{days_before(partition)[-1]}T23:00:00Z")
    platform.declare(platform.day)

    seen = platform.sync(partition)

    red = {"freshness_data", "volume_anomaly"}
    assert (seen.succeeded, seen.red, seen.partitions) == (True, {FLIGHTS: red}, (partition,))
    assert platform.red_in_ui() == red
    built = platform.built(since)
    assert everything(built) == OF_FLIGHTS
    stale = {f"marts/{name}": {"freshness_data"} for name in ("flights", "routes", "carrier_days")}
    assert {name: names for run in built for name, names in run.red.items()} == stale

    platform.misbehave()
    mended = platform.now()
    # the flights of a window that was read before: they are late, and nothing else is wrong
    assert platform.sync(partition).red == {FLIGHTS: {"late_data"}}
    assert {name for run in platform.built(mended) for name in run.red} == set()
    assert in_mart(platform, partition) > 500
    assert platform.rows("select 1 from ops.backfills where created_at > %s", since) == []


def test_late_days_are_read_again_when_the_source_tells_of_them(platform: Platform) -> None:
    since = platform.now()
    before = {day: in_mart(platform, day) for day in LATE}
    del platform.usual["late"]
    platform.misbehave(corrected=LATE)

    seen = platform.sync(asset="nyc_flights/corrections")

    assert (seen.succeeded, seen.red) == (True, GREEN)
    assert platform.windows(since) == {"late": list(LATE)}
    assert platform.red_in_ui() == {"late_data"}
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert all(in_mart(platform, day) > before[day] for day in LATE)


def test_a_renamed_field_is_drift_and_fills_history_once_accepted(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    platform.misbehave(renamed={"dep_delay": "departure_delay"})

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.partitions) == (True, DRIFT, (partition,))
    assert platform.red_in_ui() == {"schema_drift"}
    (diff,) = platform.rows("select diff from ops.schema_versions where stream = 'flights' and decision = 'pending'")[0]
    assert ("renamed", "departure_delay") in {(item["change"], item["column"]) for item in diff}
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert (in_mart(platform, partition) > 500, in_mart(platform, partition, "count(departure_delay_minutes)")) == (
        True,
        0,
    )

    platform.headwater("schema", "accept", "nyc_flights.flights", "--reason", "the new name is better")
    assert platform.windows(since, 2) == {"failed_checks": [partition], "new_columns": days_before(partition)}
    assert platform.red_in_ui() == set()
    assert days_with(platform, "departure_delay is not null") == [*days_before(partition), partition]
    assert everything(platform.built(since)) == OF_FLIGHTS


def test_a_model_that_does_not_compile_stops_no_sync_and_follows_when_it_is_mended(platform: Platform) -> None:
    since, partition = platform.now(), platform.next_day()
    model = platform.root / "dbt_project/models/marts/flights/routes.sql"
    good = model.read_text(encoding="utf-8")
    model.write_text(good.replace("{{ ref(", "{{ ref((", 1), encoding="utf-8")
    assert "routes.sql: dbt cannot parse it" in platform.reloaded("transform")

    seen = platform.sync(partition)

    assert (seen.succeeded, seen.red, seen.partitions) == (True, GREEN, (partition,))
    model.write_text(good, encoding="utf-8")
    assert platform.reloaded("transform") == ""
    assert everything(platform.built(since)) == OF_FLIGHTS
    assert in_mart(platform, partition) > 500
