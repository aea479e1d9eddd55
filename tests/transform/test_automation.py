"""Which models the daemon asks for, evaluated by Dagster on the real definitions. No dbt runs."""

from collections.abc import Iterator, Mapping

import dagster as dg
import pytest

from tests.transform.conftest import Transform

FLIGHTS, WEATHER, PLANES = "nyc_flights/flights", "nyc_weather/weather", "nyc_reference/planes"
EVENTS = "github/events"
STREAMS = (
    *(FLIGHTS, WEATHER, PLANES, EVENTS, "nyc_reference/airlines", "nyc_reference/airports"),
    *("nyc_fleet/planes", "faker_shop/users", "faker_shop/purchases"),
)
OF_WEATHER = {
    "staging/stg_nyc_weather__weather",
    "intermediate/int_flights_joined_weather",
    "marts/weather_hours",
    "marts/carrier_days",
}


def _stream(key: str, partitions: dg.PartitionsDefinition | None = None) -> dg.AssetsDefinition:
    asset_key = dg.AssetKey(key.split("/"))

    @dg.multi_asset(
        name=asset_key.to_python_identifier(),
        specs=[dg.AssetSpec(asset_key)],
        check_specs=[dg.AssetCheckSpec("row_rules", asset=asset_key, blocking=True)],
        partitions_def=partitions,
    )
    def sync() -> Iterator[object]:
        yield from ()

    return sync


class Platform:
    """Both locations as the daemon sees them. sync() is a stream's sync; asked() is one tick of the daemon."""

    def __init__(self, transform: Transform, instance: dg.DagsterInstance, streams: Mapping[str, dg.AssetsDefinition]):
        self.instance = instance
        self.definitions = dg.Definitions(assets=[*transform.assets, *streams.values()])
        self.models = {key for asset in transform.assets for key in asset.keys}
        self.cursor: object = None

    def sync(self, *streams: str, passed: bool = True, partition: str | None = None) -> None:
        for key in (dg.AssetKey(stream.split("/")) for stream in streams):
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))
            self._judge(key, passed=passed)

    def built(self) -> None:
        for key in self.models:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key))
            self._judge(key, passed=True)

    def _judge(self, asset: dg.AssetKey, *, passed: bool) -> None:
        for check in self.definitions.resolve_asset_graph().get(asset).check_keys:
            self.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(check.asset_key, check.name, passed=passed, blocking=True)
            )

    def asked(self) -> set[str]:
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.cursor, asset_selection=dg.AssetSelection.assets(*self.models)
        )
        self.cursor = result.cursor
        return {key.to_user_string() for key in self.models if result.get_num_requested(key)}


@pytest.fixture
def platform(transform: Transform, instance: dg.DagsterInstance) -> Platform:
    return Platform(transform, instance, {key: _stream(key) for key in STREAMS})


def test_nothing_is_asked_for_before_every_stream_of_a_model_was_synced(platform: Platform) -> None:
    assert platform.asked() == set()

    platform.sync(FLIGHTS)

    assert platform.asked() == {"staging/stg_nyc_flights__flights", "marts/flights"}


def test_all_models_follow_the_first_sync_in_one_tick(platform: Platform) -> None:
    platform.asked()
    platform.sync(*STREAMS)

    assert platform.asked() == {key.to_user_string() for key in platform.models}
    assert platform.asked() == set()


def test_streams_synced_before_the_first_look_start_their_models(platform: Platform) -> None:
    platform.sync(*STREAMS)

    assert platform.asked() == {key.to_user_string() for key in platform.models}
    assert platform.asked() == set()


def test_models_that_were_built_before_the_first_look_are_not_built_again(platform: Platform) -> None:
    platform.sync(*STREAMS)
    platform.built()

    assert platform.asked() == set()


def test_models_follow_one_stream_and_only_its_own(platform: Platform) -> None:
    platform.sync(*STREAMS)
    platform.asked()
    platform.built()
    platform.asked()

    platform.sync(WEATHER)

    assert platform.asked() == OF_WEATHER


def test_nothing_is_built_on_a_stream_whose_blocking_check_failed(platform: Platform) -> None:
    platform.sync(*STREAMS)
    platform.asked()
    platform.built()
    platform.asked()

    platform.sync(WEATHER, passed=False)

    assert platform.asked() == set()
    # another stream of the same mart is fine: a view would hand the bad rows on
    platform.sync(FLIGHTS)
    asked = platform.asked()
    assert "marts/flights" in asked
    assert not asked & OF_WEATHER
    # once the check passes, what waited is built
    platform.sync(WEATHER)
    assert platform.asked() >= OF_WEATHER


def test_a_partitioned_stream_needs_one_partition_not_all_of_its_past(
    transform: Transform, instance: dg.DagsterInstance
) -> None:
    days = dg.DailyPartitionsDefinition("2013-01-01")
    platform = Platform(transform, instance, {key: _stream(key, days if key == FLIGHTS else None) for key in STREAMS})
    platform.asked()
    platform.sync(*STREAMS[1:])
    platform.sync(FLIGHTS, partition="2013-01-02")

    assert platform.asked() == {key.to_user_string() for key in platform.models}
