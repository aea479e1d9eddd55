"""An urgent stream's runs leave the queue first."""

from typing import Any

import dagster as dg
import yaml

from connectors.specs import parse_source
from platform_assets.assets.schedules import source_schedules
from tests.ingest.shop import SOURCE

STREAMS = """\
      schedule: "@hourly"
    - {name: prices, path: /prices, schedule: "@hourly", priority: 7}
    - {name: notes, path: /notes, schedule: "@hourly"}
"""


def test_streams_of_another_priority_have_a_schedule_of_their_own() -> None:
    source = parse_source(yaml.safe_load(SOURCE + STREAMS)["attributes"], "shop.yaml")
    found: dict[str, Any] = {schedule.name: schedule for schedule in source_schedules(source)}

    assert {name: schedule.description for name, schedule in found.items()} == {
        "shop__hourly": "Syncs orders, notes.",
        "shop__hourly__priority_7": "Syncs prices.",
    }
    tags: dict[str, Any] = {}
    for name, schedule in found.items():
        with dg.build_schedule_context() as context:
            (request,) = schedule.evaluate_tick(context).run_requests
        tags[name] = request.tags.get("dagster/priority")
    assert tags == {"shop__hourly": None, "shop__hourly__priority_7": "7"}
