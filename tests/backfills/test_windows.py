"""Windows of partitions tile: no moment is in two of them or in none, whatever the calendar does."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.specs import PartitionSpec, parse_source
from platform_assets.assets.partitions import partitions_definition, window_of, windows_of
from platform_assets.backfills import plan
from tests.ingest.shop import SOURCE

AWKWARD = {
    "Australia/Lord_Howe": [date(2024, 4, 5), date(2024, 10, 4)],
    "Europe/Berlin": [date(2024, 3, 29), date(2024, 10, 25)],
    "America/New_York": [date(2024, 3, 9), date(2024, 11, 2)],
    "America/Sao_Paulo": [date(2018, 2, 16), date(2018, 11, 2), date(2018, 11, 4)],
    "Africa/Cairo": [date(2024, 4, 25), date(2024, 10, 30)],
    "America/Havana": [date(2024, 3, 10), date(2024, 11, 2)],
    "Antarctica/Troll": [date(2024, 3, 30), date(2024, 10, 26)],
    "Pacific/Apia": [date(2011, 12, 28)],
    "Asia/Kathmandu": [date(2024, 1, 1)],
    "UTC": [date(2024, 2, 27)],
}
"""Zones and days around which their clocks change: by half an hour, at midnight, by two hours, by a whole day."""
SPAN = {"hour": timedelta(days=4), "day": timedelta(days=6), "week": timedelta(days=30), "month": timedelta(days=100)}


def keys_of(spec: PartitionSpec) -> tuple[dg.TimeWindowPartitionsDefinition, list[str]]:
    definition = partitions_definition(spec)
    until = datetime(spec.start.year, spec.start.month, spec.start.day, tzinfo=UTC) + SPAN[spec.by]
    with dg.partition_loading_context(effective_dt=until):
        return definition, list(definition.get_partition_keys())


@pytest.mark.parametrize("zone", AWKWARD)
@pytest.mark.parametrize("by", SPAN)
def test_windows_tile_while_clocks_change(zone: str, by: str) -> None:
    for start in AWKWARD[zone]:
        definition, keys = keys_of(PartitionSpec.model_validate({"by": by, "start": start, "timezone": zone}))
        windows = windows_of(definition, keys)
        assert list(windows) == keys
        assert [before.end for before, _ in pairwise(windows.values())] == [
            after.start for _, after in pairwise(windows.values())
        ]
        assert all(window.start <= window.end for window in windows.values())


@given(st.data())
def test_a_window_alone_is_the_one_among_its_neighbours(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(sorted(AWKWARD)))
    by = data.draw(st.sampled_from(sorted(SPAN)))
    start = data.draw(st.sampled_from(AWKWARD[zone])) - timedelta(days=data.draw(st.integers(0, 3)))
    definition, keys = keys_of(PartitionSpec.model_validate({"by": by, "start": start, "timezone": zone}))
    if keys:
        key = data.draw(st.sampled_from(keys))
        assert window_of(definition, key) == windows_of(definition, keys)[key]


def test_days_of_a_zone_have_23_and_25_hours_when_clocks_change() -> None:
    definition = partitions_definition(PartitionSpec(by="day", start=date(2024, 1, 1), timezone="Europe/Berlin"))
    hours = [
        (window.end - window.start) / timedelta(hours=1)
        for window in windows_of(definition, ["2024-03-31", "2024-04-01", "2024-10-27"]).values()
    ]
    assert hours == [23, 24, 25]


def stream(text: str = "") -> plan.StreamSpec:
    import yaml

    attributes = yaml.safe_load(SOURCE + text)["attributes"]
    return parse_source(attributes, "shop.yaml").streams[0]


DAILY = "      partitions: {by: day, start: 2024-01-01, timezone: Europe/Berlin}\n"


def test_windows_before_the_source_begins_are_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        plan.choose(stream(DAILY), "shop.orders", date(2023, 12, 31), date(2024, 1, 5))
    assert str(refused.value).splitlines() == [
        "shop.orders: 2023-12-31 is before its first partition, 2024-01-01: the source has nothing there",
        "Begin at 2024-01-01, or set partitions.start to an earlier day.",
    ]


@pytest.mark.parametrize(
    ("text", "first", "last", "said"),
    [
        ("", None, None, "has no partitions"),
        (DAILY, date(2024, 2, 2), date(2024, 2, 1), "is before --from"),
        (DAILY, date(2999, 1, 1), None, "no partition that is over"),
    ],
)
def test_a_range_without_windows_says_why(text: str, first: date | None, last: date | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan.choose(stream(text), "shop.orders", first, last)


def test_a_range_is_of_the_partitions_own_calendar_and_newest_first() -> None:
    chosen = plan.choose(stream(DAILY), "shop.orders", date(2024, 1, 30), date(2024, 2, 1))
    assert list(chosen) == ["2024-02-01", "2024-01-31", "2024-01-30"]
    assert chosen["2024-01-30"].start == datetime(2024, 1, 29, 23, tzinfo=UTC)
